"""Networks as files for others: what the card says, which licence follows, and that the files compute the same."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from program import lines, run
from revithion_stems.catalog import Quality
from revithion_stems.engines.trained_torch import load_network
from revithion_stems.errors import OutputError, RequestError
from revithion_stems.models import architectures
from revithion_stems.models.checkpoint_layouts import KEY_MAP
from revithion_stems.network_files import open_network_file, read_facts
from revithion_stems.training.datasets.multitrack import Origin
from revithion_stems.training.exporting import ExportForm, Made, export_network, facts_of
from revithion_stems.training.model_card import cell, licence_that_follows, teachers_of
from revithion_stems.training.network_cost import gflop

FREE = Origin(dataset="Own songs", licence="CC0 1.0", commercial_use=True)
RENDERED = Origin(dataset="Own MIDI", licence="MIT | sound font", commercial_use=True, labels="rendered")
CLOSED = Origin(dataset="MUSDB18-HQ", licence="academic use", commercial_use=False)
TAUGHT = Origin(dataset="Own mixes", licence="CC0 1.0", commercial_use=True, labels="htdemucs")
TAUGHT_FREELY = Origin(dataset="Own mixes", licence="CC0 1.0", commercial_use=True, labels="spleeter_2stems")
MADE = Made(
    title="A preview of a test",
    origins=(FREE, RENDERED),
    segment=Fraction(3, 2),
    quality=(
        Quality(dataset="two songs", metric="whole-file SDR", sdr_db={"vocals": 1.5, "mean": 1.5}, source="here"),
    ),
    provenance={"seed": "7", "commit": "abc", "steps": "12"},
)


def small(architecture: str = "causal_preview", **options: Any) -> Any:
    torch.manual_seed(5)
    sizes = {"channels": 4, "blocks": 1} if architecture == "causal_preview" else {"dim": 4, "blocks": 1}
    return architectures.build(architecture, {**sizes, **options})


@pytest.mark.parametrize(
    ("origins", "stated", "commercial", "weights"),
    [
        ((FREE, RENDERED), "MIT", "yes", "MIT"),
        ((FREE, RENDERED), None, "unclear", "not stated"),
        ((FREE, CLOSED), "MIT", "no", "MIT"),
        ((FREE, CLOSED), None, "no", "non-commercial"),
        ((FREE, TAUGHT), None, "no", "non-commercial"),
        ((TAUGHT_FREELY,), "MIT", "yes", "MIT"),
        ((), "MIT", "unclear", "MIT"),
    ],
)
def test_the_licence_follows_from_the_data(
    origins: tuple[Origin, ...], stated: str | None, commercial: str, weights: str
) -> None:
    licence = licence_that_follows(origins, stated)
    assert (licence.commercial_use, licence.weights) == (commercial, weights)


def test_the_note_names_what_bars_commercial_use() -> None:
    note = licence_that_follows((FREE, CLOSED, CLOSED, TAUGHT), None).note
    assert note.count("MUSDB18-HQ") == 1
    assert "teacher htdemucs" in note
    assert "Own songs" not in note


def test_a_teacher_that_nobody_knows_bars_commercial_use() -> None:
    origin = Origin(dataset="Mixes", licence="CC0 1.0", commercial_use=True, labels="somebody")
    assert [teacher.commercial_use for teacher in teachers_of((origin, FREE))] == [False]
    assert licence_that_follows((origin,), "MIT").commercial_use == "no"


def test_the_card_says_what_one_must_know(tmp_path: Path) -> None:
    network = small()
    exported = export_network(network, MADE, tmp_path / "nets", name="tiny", licence="MIT")
    card = exported.card.read_text("utf-8")
    digest = hashlib.sha256(exported.weights.read_bytes()).hexdigest()
    count = sum(p.numel() for p in network.parameters())
    for text in (
        "# tiny",
        "**MIT**; commercial use: **yes**",
        f"{count:,} parameters",
        digest,
        "| Own songs | CC0 1.0 | yes | recorded |",
        r"| Own MIDI | MIT \| sound font | yes | rendered |",
        "| vocals | 1.50 |",
        "- seed: 7",
        "- commit: abc",
        "- steps: 12",
        "exported by: revithion-stems",
        "separate song.wav --model tiny.safetensors",
    ):
        assert text in card, text
    facts = read_facts(exported.weights)
    assert facts.as_metadata() == exported.facts.as_metadata()
    assert facts.provenance["seed"] == "7"
    assert facts.parameters == count
    spec = open_network_file(exported.weights)
    assert spec.quality == MADE.quality
    assert spec.licence.commercial_use == "yes"


def test_a_cell_stays_one_whatever_a_song_is_called() -> None:
    assert cell("a\x1b[31m\nb|ć") == r"a [31m b\|ć"


@pytest.mark.parametrize("architecture", ["causal_preview", "bsrnn"])
def test_safetensors_hold_the_very_network(tmp_path: Path, architecture: str) -> None:
    network = small(architecture)
    exported = export_network(network, MADE, tmp_path, name="net")
    again, facts = load_network(exported.weights)
    assert again.config == network.config  # pyright: ignore
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert facts.segment == "3/2"
    usual = facts_of(network, Made(title="", provenance={}), licence=None)
    assert usual.segment == ("12" if architecture == "causal_preview" else "10")


def test_onnx_computes_what_the_network_computes(tmp_path: Path) -> None:
    network = small().eval()
    exported = export_network(network, MADE, tmp_path, name="net", form=ExportForm.ONNX, licence="MIT")
    session = onnxruntime.InferenceSession(exported.weights, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(2)
    column = rng.standard_normal((1, 2, 1025, 2)).astype(np.float32)
    inputs = {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs()}
    (audio,) = [i.name for i in session.get_inputs() if list(i.shape) == [1, 2, 1025, 2]]
    outputs: Any = session.run(None, {**inputs, audio: column})
    columns = torch.view_as_complex(torch.from_numpy(column)).unsqueeze(1)  # [1, 1, 2, F]
    with torch.inference_mode():
        masks, _ = network(columns)  # [1, 1, S, 2, F]
    expected = torch.view_as_real(masks * columns.unsqueeze(2))[:, 0].numpy()  # [1, S, 2, F, 2]
    found = next(out for out in outputs if out.shape == expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    said = {entry.key: entry.value for entry in onnx.load(exported.weights).metadata_props}
    assert said["licence"] == "MIT"
    assert said["seed"] == "7"
    assert said["revithion.stems"] == "drums,bass,other,vocals"
    assert "live --model net.onnx" in exported.card.read_text("utf-8")
    half = export_network(network, MADE, tmp_path, name="half", form=ExportForm.ONNX, half=True)
    assert half.weights.stat().st_size < exported.weights.stat().st_size


def test_what_hears_the_future_does_not_become_onnx(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="hear the future"):
        export_network(small("bsrnn"), MADE, tmp_path, name="net", form=ExportForm.ONNX)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "../up", "a b", ".hidden", "x" * 65])
def test_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match="name"):
        export_network(small(), MADE, tmp_path, name=name)


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_network(small(), MADE, tmp_path / "file" / "nets", name="net")


def test_cost_is_counted_over_the_whole_length() -> None:
    network = small()
    second = gflop(network, 44_100, sample_rate=44_100)
    assert gflop(network, 10 * 44_100, sample_rate=44_100) == pytest.approx(10 * second, rel=0.02)
    # A matrix product of a weight costs two operations each time: at 173 columns a second, these alone are more than
    weights = sum(p.numel() for name, p in network.named_parameters() if "encoder.weight" in name or "gru" in name)
    assert second > 2 * 172 * weights / 1e9
    # An LSTM counts, though oneDNN runs it as one operation.
    assert gflop(small("bsrnn", dim=16, bands=[[4000.0, 2000.0]]), 44_100, sample_rate=44_100) > 2 * gflop(
        small("bsrnn", dim=8, bands=[[4000.0, 2000.0]]), 44_100, sample_rate=44_100
    )


def public_name(ours: str) -> str:
    """A tensor's name in public checkpoints, by the documented map read backwards."""
    for theirs, form in KEY_MAP:
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\w+)", re.escape(form))
        if found := re.fullmatch(pattern, ours):
            fields = found.groupdict()
            if "axis" in fields:
                fields["axis"] = {"time": "0", "band": "1"}[fields["axis"]]
            if "step" in fields:
                fields["step"] = str(2 * int(fields["step"]))
            return theirs.format(**fields)
    raise AssertionError(ours)


def test_a_public_checkpoint_becomes_a_file_that_separates(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    sizes = {"dim": 8, "depth": 1, "heads": 1, "head_dim": 8, "mask_layers": 1, "hop_frames": 512, "widths": [512, 513]}
    torch.manual_seed(1)
    network = architectures.build("bs_roformer", {**sizes, "stems": ["vocals"]})
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("_turns")}
    torch.save({public_name(key): value for key, value in state.items()}, place / "net.v1.ckpt")
    (place / "net.yaml").write_text(
        "audio: {chunk_size: 44100, sample_rate: 44100, num_channels: 2}\n"
        "model: {freqs_per_bands: [512, 513], dim: 8, depth: 1, heads: 1, dim_head: 8, stereo: true, num_stems: 1,\n"
        "  mask_estimator_depth: 2, stft_hop_length: 512, time_transformer_depth: 1, freq_transformer_depth: 1}\n"
        "training: {instruments: [vocals, other], target_instrument: vocals}\n",
        encoding="utf-8",
    )
    done = run(place, "models", "export", "--from-checkpoint", "net.v1.ckpt", "--config", "net.yaml", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    (told,) = lines(done.stdout)
    assert told["path"] == "net_v1.safetensors"
    assert told["facts"]["segment"] == "1"
    assert told["facts"]["licence"]["commercial_use"] == "unclear"
    card = (place / "net_v1.safetensors.md").read_text("utf-8")
    assert hashlib.sha256((place / "net.v1.ckpt").read_bytes()).hexdigest() in card
    again, _ = load_network(place / "net_v1.safetensors")
    for key, value in state.items():
        assert torch.equal(again.state_dict()[key], value)
    assert open_network_file(place / "net_v1.safetensors").stems == ("vocals", "no_vocals")
