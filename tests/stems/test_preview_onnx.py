"""The preview network as a graph, as a file of the package, and as an engine: the same stems as from PyTorch."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch

import revithion_stems
from program import ROOT, docs_script, lines, run
from revithion_stems.catalog import Catalog, ModelSpec, load_catalog
from revithion_stems.catalog_rules import check_model
from revithion_stems.engines import ENGINES, EngineOptions, choose_engine
from revithion_stems.engines.preview_onnx import PreviewOnnx, load
from revithion_stems.errors import ModelError
from revithion_stems.events import CancelToken, EventStream, JobEvent, Notice
from revithion_stems.models.causal_preview import CausalPreview, CausalPreviewConfig
from revithion_stems.models.causal_preview_onnx import step_graph
from revithion_stems.models.spectrogram import analyse, synthesise
from revithion_stems.weights import ModelStore, Presence

SMALL = CausalPreviewConfig(
    analysis_frames=128,
    synthesis_frames=32,
    hop_frames=16,
    channels=8,
    blocks=2,
    bands=((3, 3), (2, 8), (1, 40)),
)
MEDIUM = dataclasses.replace(SMALL, stems=("vocals", "rest"), synthesis_frames=64, channels=24, band_expansion=1)
EXACT = 1e-5
"""Of the loudest number: sums of float32 in another order."""

SPEC = load_catalog()["preview"]


def network(config: CausalPreviewConfig, seed: int) -> CausalPreview:
    """A network whose weights, biases and gains all matter."""
    torch.manual_seed(seed)
    made = CausalPreview(config).eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(0.3 * torch.randn_like(weights) * (weights.numel() / weights.shape[-1]) ** -0.25)
    return made


def session_of(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def columns(config: CausalPreviewConfig, count: int, seed: int) -> torch.Tensor:
    """complex64 ``[1, 2, T, F]``, of levels from quiet to loud."""
    draw = torch.Generator().manual_seed(seed)
    parts = torch.randn(1, 2, count, config.analysis_frames // 2 + 1, 2, generator=draw)
    return torch.view_as_complex(parts * 10 ** torch.linspace(-2, 1.5, count)[:, None, None])


def stepped(
    graph: onnx.ModelProto, spectra: torch.Tensor, memory: list[np.ndarray] | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Stems complex64 ``[S, 2, T, F]`` column by column, and the memory after the last."""
    session = session_of(graph)
    names = [node.name for node in session.get_inputs()][1:]
    shapes = [node.shape for node in session.get_inputs()][1:]
    memory = memory or [np.zeros(shape, np.float32) for shape in shapes]
    found: list[np.ndarray] = []
    for t in range(spectra.shape[2]):
        column = torch.view_as_real(spectra[:, :, t]).contiguous().numpy()
        answer: Any = session.run(None, {"column": column, **dict(zip(names, memory, strict=True))})
        found.append(answer[0].view(np.complex64)[0, ..., 0])
        memory = answer[1:]
    return np.stack(found, axis=2), memory


def expected(
    net: CausalPreview, spectra: torch.Tensor, state: torch.Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        columns = spectra.transpose(1, 2)  # [1, T, 2, F]
        masks, after = net(columns, state)  # [1, T, S, 2, F]
    return (masks * columns.unsqueeze(2))[0].permute(1, 2, 0, 3).numpy(), after.numpy()


# --- the graph ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, MEDIUM], ids=["four stems", "two stems"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_step_by_step_is_the_sequence(config: CausalPreviewConfig, seed: int) -> None:
    net = network(config, seed)
    spectra = columns(config, 40, seed)
    stems, memory = stepped(step_graph(net), spectra)
    wanted, after = expected(net, spectra)
    np.testing.assert_allclose(stems, wanted, atol=EXACT * np.abs(wanted).max())
    np.testing.assert_allclose(np.stack(memory), after, atol=EXACT)
    assert np.ptp(np.abs(wanted), axis=0).max() > 0.1 * np.abs(wanted).max()  # masks that differ, or nothing was shown


def test_it_goes_on_from_any_memory() -> None:
    net = network(SMALL, 3)
    spectra = columns(SMALL, 6, 3)
    state = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3))
    stems, _ = stepped(step_graph(net), spectra, list(state.numpy()))
    wanted, _ = expected(net, spectra, state)
    np.testing.assert_allclose(stems, wanted, atol=EXACT * np.abs(wanted).max())
    fresh, _ = expected(net, spectra)
    assert np.abs(fresh - wanted).max() > 0.01 * np.abs(wanted).max()


def test_the_network_of_full_size_too() -> None:
    net = network(CausalPreviewConfig(), 4)
    spectra = columns(CausalPreviewConfig(), 5, 4)
    stems, _ = stepped(step_graph(net), spectra)
    wanted, _ = expected(net, spectra)
    np.testing.assert_allclose(stems, wanted, atol=EXACT * np.abs(wanted).max())


def test_the_graph_says_how_it_is_run() -> None:
    graph = step_graph(network(SMALL, 0), metadata={"licence": "nobody's", "revithion.hop": "1"})
    assert {entry.key: entry.value for entry in graph.metadata_props} == {
        "licence": "nobody's",
        "revithion.kind": "spectrum",
        "revithion.stems": "drums,bass,other,vocals",
        "revithion.sample_rate": "44100",
        "revithion.hop": "16",
        "revithion.analysis": "128",
        "revithion.synthesis": "32",
    }
    values = [*graph.graph.input, *graph.graph.output]
    assert all(size.HasField("dim_value") for value in values for size in value.type.tensor_type.shape.dim)


def test_the_same_network_makes_the_same_bytes() -> None:
    one, again, other = (step_graph(network(SMALL, seed)).SerializeToString() for seed in (0, 0, 1))
    assert one == again
    assert one != other


def test_half_a_graph_is_half_the_size_and_sounds_the_same() -> None:
    net = network(CausalPreviewConfig(), 5)
    whole, half = step_graph(net), step_graph(net, half=True)
    assert half.ByteSize() < 0.52 * whole.ByteSize()
    spectra = columns(CausalPreviewConfig(), 5, 5)
    stems, _ = stepped(half, spectra)
    wanted, _ = stepped(whole, spectra)
    error = np.square(np.abs(stems - wanted)).sum() / np.square(np.abs(wanted)).sum()
    assert 10 * np.log10(error) < -50  # far below what any network separates


# --- the engine -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_net() -> CausalPreview:
    return network(SMALL, 6)


@pytest.fixture(scope="module")
def small(small_net: CausalPreview, tmp_path_factory: pytest.TempPathFactory) -> PreviewOnnx:
    path = tmp_path_factory.mktemp("graphs") / "small.onnx"
    onnx.save(step_graph(small_net), path)
    return PreviewOnnx(SPEC, path)


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, frames)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 500, 128 * 16 + 1, 5_000])
def test_the_engine_is_the_network_between_the_transforms(
    small: PreviewOnnx, small_net: CausalPreview, frames: int
) -> None:
    mix = noise(frames)
    stems = small.separate_segment(mix)
    design = SMALL.design
    later = torch.from_numpy(np.pad(mix, ((0, 0), (0, design.synthesis_frames))))
    spectra = analyse(design, later)
    with torch.no_grad():
        masks, _ = small_net(spectra.transpose(0, 1)[None])  # [1, T, S, 2, F]
    wanted = synthesise(design, masks[0].permute(1, 2, 0, 3) * spectra, frames).numpy()
    np.testing.assert_allclose(stems, wanted, atol=2e-6)
    assert stems.dtype == np.float32


@pytest.mark.parametrize("frames", [1, 31, 4_000])
def test_stems_sum_to_the_mix(small: PreviewOnnx, frames: int) -> None:
    mix = noise(frames)
    np.testing.assert_allclose(small.separate_segment(mix).sum(axis=0), mix, atol=2e-6)


def test_silence_stays_silence(small: PreviewOnnx) -> None:
    assert not small.separate_segment(np.zeros((2, 3_000), np.float32)).any()
    gap = noise(3_000)
    gap[:, 1_000:2_000] = 0
    stems = small.separate_segment(gap)
    assert not stems[..., 1_000 + SMALL.analysis_frames : 2_000 - SMALL.synthesis_frames].any()


def test_nothing_later_is_heard_but_what_is_overlapped(small: PreviewOnnx) -> None:
    mix, other = noise(3_000), noise(3_000, seed=1)
    other[:, :1_500] = mix[:, :1_500]
    one, two = small.separate_segment(mix), small.separate_segment(other)
    known = 1_500 - SMALL.synthesis_frames
    np.testing.assert_array_equal(one[..., :known], two[..., :known])
    assert np.any(one[..., 1_500:] != two[..., 1_500:])


def test_segments_depend_on_nothing_before(small: PreviewOnnx) -> None:
    first = small.separate_segment(noise(2_000))
    small.separate_segment(noise(500, seed=1))
    np.testing.assert_array_equal(small.separate_segment(noise(2_000)), first)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"revithion.stems": "drums,bass,vocals,other"}, "drums,bass,vocals,other"),
        ({"revithion.sample_rate": "48000"}, "48000"),
        ({"revithion.kind": "waveform"}, "waveform"),
        ({"revithion.hop": "fast"}, "fast"),
        ({"revithion.analysis": "256"}, "its inputs are"),
        (None, "can't load"),
    ],
)
def test_another_graph_is_refused(
    small_net: CausalPreview, tmp_path: Path, change: dict[str, str] | None, said: str
) -> None:
    path = tmp_path / "other.onnx"
    if change is None:
        path.write_bytes(b"no graph")
    else:
        graph = step_graph(small_net)
        onnx.helper.set_model_props(graph, {e.key: e.value for e in graph.metadata_props} | change)
        onnx.save(graph, path)
    with pytest.raises(ModelError, match=said) as caught:
        load(SPEC, [(SPEC.networks[0].files[0], path)], EngineOptions())
    assert caught.value.code == ("model.unreadable" if change is None else "model.shape")


def test_a_graph_whose_output_is_another_is_refused(tmp_path: Path) -> None:
    graph = step_graph(network(MEDIUM, 0))
    said = {e.key: e.value for e in graph.metadata_props}
    onnx.helper.set_model_props(graph, said | {"revithion.stems": ",".join(SPEC.stems)})
    onnx.save(graph, tmp_path / "two.onnx")
    with pytest.raises(ModelError, match="its outputs are") as caught:
        PreviewOnnx(SPEC, tmp_path / "two.onnx")
    assert caught.value.code == "model.shape"


# --- the file in the package ----------------------------------------------------------------------------------------


def test_the_catalog_says_what_the_file_is() -> None:
    script = docs_script("update_preview")
    text = script.CATALOG.read_text(encoding="utf-8")
    figures = script.figures(script.GRAPH, Fraction(SPEC.segment))
    assert text == script.with_figures(text, figures), "run `python docs/update_preview.py`"
    assert script.catalog_segment(text) == SPEC.segment_s
    assert SPEC.size is not None
    assert SPEC.size <= 12_000_000
    assert 1e9 < SPEC.gflop_per_segment * 1e9 / 2 / float(SPEC.segment_s) < 3.5e9  # multiply-adds a second
    assert SPEC.parameters <= 5_000_000


def test_parameters_and_arithmetic_are_counted(tmp_path: Path) -> None:
    net = network(SMALL, 0)
    onnx.save(step_graph(net), tmp_path / "small.onnx")
    figures = docs_script("update_preview").figures(tmp_path / "small.onnx", Fraction(16 * 10**9, 44_100))
    assert figures["parameters"] == str(sum(weights.numel() for weights in net.parameters()))
    bins, bands, c = 65, 6, 8
    block = bands * (3 + 3 + 2 + 2) * c * c + 2 * 2 * bands * bands * c  # GRU, channels; bands
    ends = bins * (4 + 8) * c + bands * c * c  # encoder and decoder
    assert float(figures["gflop_per_segment"]) == 2 * (2 * block + ends + 4 * 2 * bins * 2)


def test_the_script_changes_this_row_only() -> None:
    script = docs_script("update_preview")
    text = script.CATALOG.read_text(encoding="utf-8")
    changed = script.with_figures(text, {"size": "7"})
    differing = [(a, b) for a, b in zip(text.splitlines(), changed.splitlines(), strict=True) if a != b]
    assert differing == [(f"    size = {SPEC.size}", "    size = 7")]
    with pytest.raises(ValueError, match="no row"):
        script.with_figures(text.replace('name = "preview"', 'name = "p"'), {"size": "7"})


def test_it_is_there_without_a_store(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "none", offline=True)
    assert (SPEC.built_in, store.presence(SPEC)) == (True, Presence.PRESENT)
    events: list[JobEvent] = []
    for force in (False, True):
        store.pull(SPEC, events=EventStream("t", events.append), cancel=CancelToken(), force=force)
    assert [event.message for event in events if isinstance(event, Notice)] == [
        "preview.onnx: comes with this program, SHA-256 verified"
    ] * 2
    ((file, path),) = store.open_paths(SPEC)
    assert path == Path(revithion_stems.__file__).parent / "models" / file.name
    (report,) = store.verify(SPEC)
    assert report.state.value == "ok"
    assert store.remove(SPEC) == 0
    assert path.is_file()
    assert not (tmp_path / "none").exists()


def test_a_pack_of_it_brings_nothing_that_is_not_there(tmp_path: Path) -> None:
    pack = ModelStore(tmp_path / "none").write_pack(SPEC, tmp_path / "pack").parent
    assert (pack / "preview.onnx").stat().st_size == SPEC.size
    store = ModelStore(tmp_path / "models")
    assert store.import_path(pack) == ("preview",)
    assert store.import_path(pack / "preview.onnx") == ("preview",)
    assert not list((tmp_path / "models").glob("*.onnx"))


def damaged(**fields: Any) -> ModelSpec:
    network = SPEC.networks[0]
    file = dataclasses.replace(network.files[0], **fields)
    return dataclasses.replace(SPEC, networks=(dataclasses.replace(network, files=(file,)),))


def test_a_damaged_program_says_so(tmp_path: Path) -> None:
    spec = damaged(sha256="0" * 64)
    store = ModelStore(tmp_path, catalog=Catalog(models=(spec,)))
    for act in (
        lambda: store.open_paths(spec),
        lambda: store.pull(spec, events=EventStream("t"), cancel=CancelToken(), force=True),
    ):
        with pytest.raises(ModelError, match="damaged") as caught:
            act()
        assert (caught.value.code, "install revithion-stems again" in caught.value.hint) == ("model.corrupt", True)
    spec = damaged(sources=("package:lost.onnx",))
    assert store.presence(spec) is Presence.ABSENT
    with pytest.raises(ModelError, match="models") as caught:
        store.open_paths(spec)
    assert (caught.value.code, "install revithion-stems again" in caught.value.hint) == ("model.missing", True)


@pytest.mark.parametrize(
    "fields",
    [
        {"size": None},
        {"sha256": None, "sha256_prefix": "01234567"},
        {"sources": ("package:preview.onnx", "https://example.org/preview.onnx")},
        {"sources": ("https://example.org/preview.onnx", "package:preview.onnx")},
        {"sources": ("package:../preview.onnx",)},
        {"sources": ("package:",)},
    ],
)
def test_a_file_of_the_package_is_wholly_known(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="package"):
        check_model(damaged(**fields))


def test_the_wheel_carries_it(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        assert archive.getinfo("revithion_stems/models/preview.onnx").file_size == SPEC.size


# --- in use ---------------------------------------------------------------------------------------------------------


def test_the_engine_is_found_and_runs_on_a_cpu_only() -> None:
    formats = [frozenset(file.format for file in network.files) for network in SPEC.networks]
    entry, device = choose_engine(SPEC, engine="auto", device="auto", precision="fp32", present=formats)
    assert (entry, device) == (ENGINES[SPEC.architecture][0], "cpu")


def test_auto_works_with_no_network_and_no_weights(tmp_path: Path) -> None:
    place = tmp_path / "work"
    place.mkdir()
    mix = noise(30_000).T
    soundfile.write(place / "song.wav", mix, 44_100, subtype="FLOAT")
    done = run(place, "separate", "song.wav", "--json")
    assert done.returncode == 0, done.stderr
    events = lines(done.stdout)
    (notice,) = [event["message"] for event in events if event.get("code") == "model.auto"]
    assert notice.startswith("model preview: the best that is here; htdemucs_ft is not here and the network is off")
    assert notice.endswith("It comes with this program and separates only roughly")
    stems = [soundfile.read(place / "song" / f"{name}.wav", dtype="float32")[0] for name in SPEC.stems]
    assert np.abs(sum(stems) - mix).max() < 2**-24
    manifest = json.loads(next((place / "song").glob("*.json")).read_text(encoding="utf-8"))
    assert manifest["model"]["name"] == "preview"
    listed = run(place, "models", "list").stdout.splitlines()
    (row,) = [line.split() for line in listed if line.startswith("preview")]
    assert row[1:4] == ["yes", "built", "in"]
    assert run(place, "models", "verify").stdout.splitlines()[0] == "preview: ok"
