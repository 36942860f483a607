"""The model catalog: what ships agrees with the demucs package, and nothing but ConfigError comes out of bad ones."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from revithion_stems.catalog import Architecture, load_catalog, parse_catalog
from revithion_stems.errors import ConfigError, ModelError

DEMUCS_SERVER = "https://dl.fbaipublicfiles.com/demucs/"

SMALL = """
schema_version = 1
[[model]]
name = "tiny"
title = "A model for tests"
architecture = "htdemucs"
stems = ["drums", "other"]
residual_stem = "other"
sample_rate = 44100
segment = "39/5"
segment_fixed = true
parameters = 3
gflop_per_segment = 1.5
  [model.licence]
  weights = "MIT"
  commercial_use = "yes"
  note = "a note"
  source = "a source"
  [[model.networks]]
  signature = "abc"
  stem_weights = [1, 1]
    [[model.networks.files]]
    name = "abc.safetensors"
    format = "safetensors"
    size = 10
    sha256_prefix = "0123abcd"
    sources = ["https://example.org/abc.safetensors"]
"""


def demucs_remote() -> Path:
    return Path(str(resources.files("demucs"))) / "remote"


def test_shipped_order_and_names() -> None:
    names = [spec.name for spec in load_catalog().models]
    expected = ["htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx_extra", "mdx_extra_q"]
    assert names == [*expected, "spleeter_2stems", "preview", "dsp"]


@pytest.mark.parametrize("name", ["htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx_extra", "mdx_extra_q"])
def test_demucs_rows_agree_with_the_demucs_package(name: str) -> None:
    spec = load_catalog()[name]
    bag: dict[str, Any] = yaml.safe_load((demucs_remote() / f"{name}.yaml").read_text(encoding="utf-8"))
    assert [network.signature for network in spec.networks] == bag["models"]
    ones = [[1.0] * len(spec.stems)] * len(spec.networks)
    assert [list(network.stem_weights) for network in spec.networks] == bag.get("weights", ones)
    assert spec.segment == str(bag.get("segment", "39/5"))
    assert spec.segment_fixed == (spec.architecture is Architecture.HTDEMUCS)
    assert spec.stems[:4] == ("drums", "bass", "other", "vocals")


def test_files_are_those_of_the_authors_server() -> None:
    root, published = "", dict[str, str]()
    for line in (demucs_remote() / "files.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("root:"):
            root = line.removeprefix("root:").strip()
        elif line and not line.startswith("#"):
            published[line.split("-")[0]] = root + line
    for spec in load_catalog().models:
        if spec.architecture not in (Architecture.HTDEMUCS, Architecture.HDEMUCS):
            continue
        for network in spec.networks:
            hub, server = network.files[:2]
            assert server.sources == (DEMUCS_SERVER + published[network.signature],)
            prefix = published[network.signature].rpartition("-")[2].removesuffix(".th")
            assert server.sha256 is not None
            assert server.sha256.startswith(prefix)
            assert hub.name == f"{network.signature}.safetensors"
            hub_name = re.fullmatch(r"hf:adefossez/([\w-]+)@\w+#\w+\.safetensors", hub.sources[0])
            from demucs.hf import hf_repo_name

            assert hub_name is not None
            assert hub_name[1] == hf_repo_name(spec.name)


def test_figures_of_the_shipped_rows() -> None:
    catalog = load_catalog()
    assert catalog["htdemucs"].parameters == 41_984_456
    assert catalog["htdemucs"].segment_frames == 343_980
    assert catalog["spleeter_2stems"].segment_frames == 511 * 1024  # 512 centred columns of hop 1024
    assert catalog["htdemucs_ft"].quality[0].sdr_db["mean"] == 9.00
    for spec in catalog.models:
        assert spec.licence.note
        assert spec.licence.source
        assert spec.size is not None
        for quality in spec.quality:
            stems = [value for stem, value in quality.sdr_db.items() if stem != "mean"]
            # Published means are rounded to two decimals, and so are the terms.
            assert abs(sum(stems) / len(stems) - quality.sdr_db["mean"]) <= 0.0101


def test_ft_needs_one_network_per_stem() -> None:
    spec = load_catalog()["htdemucs_ft"]
    assert spec.networks_for(("vocals",)) == (3,)
    assert spec.networks_for(("drums", "other")) == (0, 2)


def test_parameters_match_the_classes() -> None:
    from fractions import Fraction

    import torch
    from demucs.htdemucs import HTDemucs

    spec = load_catalog()["htdemucs_6s"]
    with torch.device("meta"):
        model = HTDemucs(sources=list(spec.stems), dconv_mode=3, bottom_channels=0, t_layers=5, segment=Fraction(39, 5))
    assert sum(weight.numel() for weight in model.parameters()) == spec.parameters


def test_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match="htdemucs_ft") as caught:
        load_catalog()["nope"]
    assert caught.value.code == "model.unknown"


def test_models_may_share_a_file_but_not_a_name_for_two() -> None:
    row = SMALL.removeprefix("\nschema_version = 1")
    shared = parse_catalog(SMALL + row.replace('"tiny"', '"tiny2"'))
    assert shared.models[0].networks[0].files == shared.models[1].networks[0].files
    with pytest.raises(ConfigError, match="two different files"):
        parse_catalog(SMALL + row.replace('"tiny"', '"tiny2"').replace("size = 10", "size = 11"))
    with pytest.raises(ConfigError, match="twice"):
        parse_catalog(SMALL + row)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema_version = 1", "schema_version = 2"),
        ('"tiny"', '"../tiny"'),
        ('"tiny"', '"-rf"'),
        ('["drums", "other"]', '["drums", "drums"]'),
        ('["drums", "other"]', '["dr/ums", "other"]'),
        ('["drums", "other"]', "[]"),
        ('residual_stem = "other"', 'residual_stem = "bass"'),
        ("44100", "7999"),
        ('"39/5"', '"0"'),
        ('"39/5"', '"1e999999999"'),
        ('"39/5"', '"1/0"'),
        ('"39/5"', '"601"'),
        ("parameters = 3", "parameters = -1"),
        ("1.5", "nan"),
        ("1.5", "inf"),
        ('"yes"', '"maybe"'),
        ("[1, 1]", "[1]"),
        ("[1, 1]", "[1, 0]"),
        ("[1, 1]", "[1, -1]"),
        ("[1, 1]", "[1, inf]"),
        ("[1, 1]", "[1, nan]"),
        ('"abc.safetensors"', '"../abc.safetensors"'),
        ('"abc.safetensors"', '".abc.safetensors"'),
        ('"abc.safetensors"', '"abc.exe"'),
        ("size = 10", "size = 0"),
        ('"0123abcd"', '"0123abc"'),
        ('"0123abcd"', '"0123ABCD"'),
        ("sha256_prefix", "sha256"),
        ("size = 10", "hub_digest = true"),
        ('sha256_prefix = "0123abcd"', "hub_digest = true"),
        ('sha256_prefix = "0123abcd"', ""),
        ("https://example.org", "http://example.org"),
        ("https://example.org/abc.safetensors", "npm:demucs@1.0.0#../x"),
        ("https://example.org/abc.safetensors", "pypi:--index-url==1#x"),
        ("https://example.org/abc.safetensors", "ftp://example.org/x"),
        ('["https://example.org/abc.safetensors"]', "[]"),
    ],
)
def test_broken_rules(old: str, new: str) -> None:
    assert old in SMALL
    parse_catalog(SMALL)
    with pytest.raises(ConfigError) as caught:
        parse_catalog(SMALL.replace(old, new))
    assert caught.value.code == "catalog.invalid"


SHIPPED = resources.files("revithion_stems").joinpath("catalog.toml").read_text(encoding="utf-8")
FRAGMENTS = ["[[", "]]", '"', "'", "= 1e400", "= -1", "nan", "\\u0000", "\n[model]\n", "9" * 5000, "[" * 300, "=", "é"]


@given(text=st.text(max_size=200))
@example("x = " + "[" * 5000)
@example("schema_version = " + "9" * 5000)
@example("schema_version = 1\nmodel = 3")
@example("schema_version = 1\n[[model]]\nname = 1979-05-27")
def test_any_text_gives_a_catalog_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_catalog(text)


@given(
    cut=st.tuples(st.integers(0, len(SMALL)), st.integers(0, 40)), insert=st.sampled_from(["", *FRAGMENTS]) | st.text()
)
def test_damaged_catalogs_give_a_catalog_or_a_config_error(cut: tuple[int, int], insert: str) -> None:
    start, length = cut
    with contextlib.suppress(ConfigError):
        parse_catalog(SMALL[:start] + insert + SMALL[start + length :])


@given(data=st.data())
def test_wrong_types_give_a_config_error(data: st.DataObject) -> None:
    row: dict[str, Any] = tomllib.loads(SMALL)["model"][0]
    key = data.draw(st.sampled_from([k for k in row if k not in ("licence", "networks")]))
    values = st.one_of(
        st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.lists(st.integers(), max_size=2)
    )
    row = {k: v for k, v in row.items() if k not in ("licence", "networks")}
    row[key] = data.draw(values)
    lines = ["schema_version = 1", "[[model]]", *(f"{k} = {_toml(v)}" for k, v in row.items())]
    lines += ["[model.licence]", 'weights = "a"', 'commercial_use = "no"', 'note = ""', 'source = ""']
    try:
        catalog = parse_catalog("\n".join(lines))
    except ConfigError:
        return
    assert dataclasses.asdict(catalog.models[0])[key] is not None


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = (f"\\U{ord(c):08x}" if ord(c) < 0xD800 else "?" for c in value)
        return '"' + "".join(escaped) + '"'
    return repr(value)  # numbers, and lists of integers


def test_shipped_text_is_stable() -> None:
    assert parse_catalog(SHIPPED) == load_catalog()
