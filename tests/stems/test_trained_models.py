"""A network file that describes itself is a model: what it may say, and that its stems sum to the mix."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch

import revithion_stems
from multitracks import write_song
from program import lines, run
from revithion_stems.audio import AudioBuffer
from revithion_stems.catalog import Licence
from revithion_stems.engines.trained_torch import load_network, separate
from revithion_stems.errors import ModelError, RequestError
from revithion_stems.evaluation import METRICS, evaluate, open_estimators
from revithion_stems.models import architectures
from revithion_stems.network_files import NetworkFacts, delivered_stems, open_network_file, read_facts
from revithion_stems.requests import SeparationRequest
from revithion_stems.training.datasets.folder import open_folder
from revithion_stems.training.exporting import write_network
from revithion_stems.weights import ModelStore

PREVIEW = {"channels": 4, "blocks": 1}
BSRNN = {"stems": ["vocals"], "dim": 4, "blocks": 1, "bands": [[4000.0, 2000.0]]}
LICENCE = Licence(weights="MIT", commercial_use="yes", note="Of a test.", source="here")


def noise(frames: int = 30_000, *, rate: int = 44_100, seed: int = 1) -> AudioBuffer:
    samples = np.random.default_rng(seed).uniform(-0.3, 0.3, (2, frames)).astype(np.float32)
    return AudioBuffer(samples=samples, sample_rate=rate)


def facts_of(architecture: str, options: dict[str, Any]) -> tuple[torch.nn.Module, NetworkFacts]:
    torch.manual_seed(3)
    network: Any = architectures.build(architecture, options)
    return network, NetworkFacts(
        title="A test",
        architecture=architecture,
        options=architectures.options_of(network.config),
        stems=tuple(network.config.stems),
        sample_rate=44_100,
        segment="1/2",
        parameters=sum(p.numel() for p in network.parameters()),
        gflop_per_segment=0.1,
        licence=LICENCE,
    )


def written(path: Path, of: str, options: dict[str, Any], **changed: Any) -> Path:
    network, facts = facts_of(of, options)
    write_network(path, network, msgspec.structs.replace(facts, **changed))
    return path


@pytest.fixture(scope="module")
def preview(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("net") / "my net.v2.safetensors", "causal_preview", PREVIEW)


def test_the_file_says_what_the_catalog_would(preview: Path) -> None:
    spec = open_network_file(preview)
    assert spec.name == "my_net_v2"
    assert spec.stems == ("drums", "bass", "other", "vocals")
    assert spec.residual_stem == "other"
    assert spec.segment_s == Fraction(1, 2)
    assert spec.licence == LICENCE
    assert spec.size == preview.stat().st_size


def test_stems_of_a_file_sum_to_the_mix_in_any_segmentation(preview: Path) -> None:
    mix = noise()
    stems = revithion_stems.separate(mix, model=str(preview))
    assert stems.model == "my_net_v2"
    assert stems.licence == "MIT"
    assert stems.null_db(mix) == -np.inf


def test_the_engine_gives_what_the_network_gives(preview: Path) -> None:
    network, _ = load_network(preview)
    mix = noise(22_050)  # one segment
    with torch.inference_mode():
        expected = separate(network.eval(), torch.from_numpy(mix.samples.copy())[None])[0].numpy()
    stems = revithion_stems.separate(mix, model=str(preview), residual="stem", overlap=0.0)
    for index, name in enumerate(("drums", "bass", "other", "vocals")):
        np.testing.assert_allclose(stems[name].samples, expected[index], atol=2e-6)
    # Masks sum to one and analysis and synthesis reconstruct, to the last frame.
    np.testing.assert_allclose(expected.sum(0), mix.samples, atol=2e-6)


def test_evaluation_names_a_file_by_its_path_beside_a_model_of_its_name(tmp_path: Path) -> None:
    path = str(written(tmp_path / "preview.safetensors", "causal_preview", PREVIEW))
    with pytest.raises(ModelError, match="no such file"):
        open_estimators([str(tmp_path / "none.safetensors")], store=ModelStore(offline=True))
    songs = open_folder(
        write_song(tmp_path / "songs" / "one", 1, 1.0).parent,
        stems=("drums", "bass", "other", "vocals"),
        sample_rate=44_100,
        cache=tmp_path / "cache",
    )
    report = evaluate(songs, open_estimators([path, "preview"], store=ModelStore(offline=True)), dataset="one")
    assert [model.model for model in report.models] == [path, "preview"]
    figures = [model.value(METRICS[1]) for model in report.models]
    assert np.isfinite(figures).all()
    assert figures[0] != figures[1]


def test_a_graph_for_live_is_told_from_a_file_that_separates() -> None:
    with pytest.raises(ModelError, match="graph for `live`") as caught:
        revithion_stems.separate(noise(), model="nets/preview.onnx")
    assert ".safetensors" in (caught.value.hint or "")


def test_a_network_for_one_stem_leaves_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path / "voice.safetensors", "bsrnn", BSRNN)
    mix = noise(12_000)
    stems = revithion_stems.separate(mix, model=str(path))
    assert list(stems.stems) == ["vocals", "no_vocals"]
    assert stems.null_db(mix) == -np.inf
    two = revithion_stems.separate(mix, model=str(path), two_stems="vocals")
    np.testing.assert_allclose(two["no_vocals"].samples, stems["no_vocals"].samples, atol=1e-6)
    with pytest.raises(RequestError, match="no stem 'drums'"):
        revithion_stems.separate(mix, model=str(path), stems=("drums",))


@pytest.mark.parametrize(
    ("own", "delivered"),
    [
        (("vocals",), ("vocals", "no_vocals")),
        (("other",), ("other",)),
        (("vocals", "accompaniment"), ("vocals", "accompaniment")),
        (("vocals", "drums"), ("vocals", "drums", "other")),
        (("bass", "no_bass"), ("bass", "no_bass")),
        ((), ()),
    ],
)
def test_the_rest_has_a_stem(own: tuple[str, ...], delivered: tuple[str, ...]) -> None:
    assert delivered_stems(own) == delivered


def test_separate_and_plan_take_a_path_from_the_folder_they_are_in(preview: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "net.safetensors").write_bytes(preview.read_bytes())
    soundfile.write(place / "song.wav", noise().samples.T, 44_100)
    done = run(place, "separate", "song.wav", "-m", "net.safetensors", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(next(place.glob("song/*.json")).read_text("utf-8"))
    assert manifest["model"]["name"] == "net"
    assert manifest["model"]["licence"] == "MIT"
    assert manifest["model"]["weights"] == [open_network_file(preview).networks[0].files[0].sha256]
    planned = lines(run(place, "plan", "song.wav", "-m", "net.safetensors", "--json").stdout)[0]
    assert planned["model"] == "net"
    assert planned["presence"] == "present"
    gone = lines(run(place, "separate", "song.wav", "-m", "gone.safetensors", "--json").stdout)[-1]
    assert gone["code"] == "model.missing"


def test_a_request_knows_the_file_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    model = SeparationRequest(source="song.wav", model="net.safetensors").model
    assert Path(model).is_absolute()
    assert Path(model) == tmp_path / "net.safetensors"
    assert SeparationRequest(source="song.wav", model="htdemucs").model == "htdemucs"


def test_what_a_file_says_does_not_need_torch(preview: Path) -> None:
    code = (
        "import sys, pathlib; from revithion_stems.network_files import open_network_file; "
        "open_network_file(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(preview)], check=True, timeout=60)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"blocks": 64}, "larger than the file"),
        ({"channels": 60_000}, "larger than the file"),
        ({"blocks": 200_000}, "<= 64"),
        ({"channels": 8}, "does not fit"),
        ({"blocks": 2}, "does not fit"),
        ({"channels": 10**9}, "out of range"),
        ({"channels": float("nan")}, "does not say well|out of range|int"),
        ({"channels": "many"}, "int"),
        ({"channels": -4}, "built"),
        ({"bands": [[1, 3]]}, "1025 bins"),
        ({"stems": ["a"] * 5000}, "out of range"),
        ({"__class__": "os.system"}, "no option"),
    ],
)
def test_a_hostile_header_can_do_no_more_than_fail(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    network, facts = facts_of("causal_preview", PREVIEW)
    path = tmp_path / "bad.safetensors"
    write_network(path, network, msgspec.structs.replace(facts, options={**facts.options, **options}))
    with pytest.raises(ModelError, match=told):
        revithion_stems.separate(noise(1000), model=str(path))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"architecture": "os"}, "no architecture 'os'"),
        ({"segment": "1e9"}, "segment"),
        ({"sample_rate": 10**8}, "sample_rate"),
        ({"stems": ()}, "stems"),
        ({"stems": ("../up", "other")}, "stem"),
        ({"layout": "revithion-stems/network/9"}, "does not say well"),
    ],
)
def test_a_header_that_can_not_be_is_an_error(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    path = written(tmp_path / "bad.safetensors", "causal_preview", PREVIEW, **changed)
    with pytest.raises(ModelError, match=told):
        revithion_stems.separate(noise(1000), model=str(path))


def test_stems_that_the_network_does_not_give_are_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.safetensors", "causal_preview", PREVIEW, stems=("vocals", "other"))
    with pytest.raises(ModelError, match="stems"):
        revithion_stems.separate(noise(1000), model=str(path))


def test_files_that_are_no_network_are_errors(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"\xff" * 8 + b"{")
    plain = tmp_path / "plain.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, plain)
    for path in (cut, plain, tmp_path):
        with pytest.raises(ModelError) as caught:
            read_facts(path)
        assert caught.value.code == "model.unreadable"


def test_the_same_network_makes_the_same_file(tmp_path: Path) -> None:
    files = [written(tmp_path / f"{n}.safetensors", "causal_preview", PREVIEW).read_bytes() for n in range(4)]
    assert len(set(files)) == 1
