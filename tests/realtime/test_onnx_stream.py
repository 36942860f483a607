"""Causal networks as real graphs: the stream equals the network run over the whole signal, and lies are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from processor_laws import check_laws, check_offline, music_like
from revithion_realtime.block_processor import run_offline
from revithion_realtime.models.asymmetric_stft import reference_stft
from revithion_realtime.models.onnx_stream import OnnxStream
from revithion_stems.errors import LiveError
from revithion_stems.models.stft_design import StftDesign
from streaming_graphs import STEMS, convolution, masking_gru, waveform_metadata

RATE = 44_100
HOP = 128
KERNEL = np.random.default_rng(5).standard_normal((4, 65)).astype(np.float32) / 20
STEMGEN = {
    "hs_tasnet.mode": "streaming",
    "hs_tasnet.sample_rate": "44100",
    "hs_tasnet.hop_samples": "128",
    "hs_tasnet.graph_output_delay_samples": "128",
    "hs_tasnet.source_order": "drums,bass,vocals,other",
}


def filtered(samples: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What the convolution graph computes, over a whole signal."""
    return np.stack([[np.convolve(channel, taps[::-1])[: channel.size] for channel in samples] for taps in kernel])


def delayed_by(frames: int) -> np.ndarray:
    """A kernel that gives each stem another share of the sound, so many frames later."""
    kernel = np.zeros((4, frames + 1), np.float32)
    kernel[:, 0] = 0.1, 0.2, 0.3, 0.4
    return kernel


@pytest.fixture
def waveform_graph(tmp_path: Path) -> Path:
    return convolution(tmp_path / "filters.onnx", KERNEL, HOP, metadata=waveform_metadata(HOP))


@pytest.fixture
def spectrum_graph(tmp_path: Path) -> Path:
    return masking_gru(tmp_path / "masks.onnx", bins=129, hidden=24, hop=32, synthesis=64)


def test_a_waveform_graph_keeps_the_laws(waveform_graph: Path) -> None:
    check_laws(lambda: OnnxStream(waveform_graph), RATE, frames=3_000, sums=False)
    check_offline(lambda: OnnxStream(waveform_graph), RATE, frames=3_000)


def test_a_spectrum_graph_keeps_the_laws_and_its_masks_share_out_the_mix(spectrum_graph: Path) -> None:
    check_laws(lambda: OnnxStream(spectrum_graph), RATE, frames=3_000, sums=True)
    check_offline(lambda: OnnxStream(spectrum_graph), RATE, frames=3_000)


def test_states_carry_a_filter_over_the_hops(waveform_graph: Path) -> None:
    model = OnnxStream(waveform_graph)
    model.prepare(RATE)
    samples = music_like(5_000, RATE)
    np.testing.assert_allclose(run_offline(model, samples, [1, 500, 77]), filtered(samples, KERNEL), atol=1e-6)
    assert model.latency_frames == HOP


def test_states_carry_a_gru_over_the_columns(spectrum_graph: Path) -> None:
    """Against the same graph, its memory carried by hand, in a spectrogram of the whole signal."""
    model = OnnxStream(spectrum_graph)
    model.prepare(RATE)
    samples = music_like(5_000, RATE)
    streamed = run_offline(model, samples, [1, 500, 77])
    session = onnxruntime.InferenceSession(str(spectrum_graph))
    memory = np.zeros((1, 1, 24), np.float32)

    def separate(mix: Any) -> Any:
        nonlocal memory
        column = np.stack([mix.real, mix.imag], axis=-1)[None]
        spectra, memory = session.run(["spectra", "next_memory"], {"column": column, "memory": memory})
        return spectra[0, ..., 0] + 1j * spectra[0, ..., 1]

    design = StftDesign(analysis_frames=256, synthesis_frames=64, hop_frames=32)
    expected = reference_stft(design, separate, samples, stems=4)
    assert np.ptp(expected[:, 0].std(axis=-1)) > 1e-3  # the stems differ, or the comparison would show little
    np.testing.assert_allclose(streamed, expected, atol=1e-6)
    assert model.latency_frames == design.latency_frames


def test_the_delay_of_a_graph_is_its_own_and_a_hop(tmp_path: Path) -> None:
    path = convolution(tmp_path / "m.onnx", delayed_by(200), HOP, metadata=waveform_metadata(HOP, latency=200))
    model = OnnxStream(path)
    model.prepare(RATE)
    samples = music_like(3_000, RATE)
    assert model.latency_frames == 200 + HOP
    np.testing.assert_allclose(run_offline(model, samples).sum(axis=0), samples, atol=1e-6)


def test_a_graph_named_as_stemgenrts_plays(tmp_path: Path) -> None:
    """Hop 128, states `NAME` and `next_NAME`, a delay of a hop, and metadata under its own names."""
    names = ("audio_history", "next_audio_history")
    model = OnnxStream(convolution(tmp_path / "hop128.onnx", delayed_by(128), 128, metadata=STEMGEN, names=names))
    model.prepare(RATE)
    samples = music_like(3_000, RATE)
    assert (model.name, model.stems, model.sample_rate) == ("hop128", STEMS, RATE)
    assert (model.latency_frames, model.hop_frames) == (256, 128)
    np.testing.assert_allclose(run_offline(model, samples).sum(axis=0), samples, atol=1e-6)


def test_a_graph_without_metadata_is_told_by_the_file_beside_it(tmp_path: Path) -> None:
    path = convolution(tmp_path / "m.onnx", KERNEL, HOP, metadata={"producer": "somebody"})
    beside = tmp_path / "m.toml"
    beside.write_text('kind = "waveform"\nstems = ["a", "b", "c", "d"]\nsample_rate = 48000\nhop = 128\nlatency = 5\n')
    model = OnnxStream(path)
    assert (model.stems, model.sample_rate, model.latency_frames) == (("a", "b", "c", "d"), 48_000, 133)


def test_a_state_may_be_a_whole_number(waveform_graph: Path) -> None:
    """Here it counts the calls, and the stems are as much louder."""
    model = onnx.load(waveform_graph)
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("calls", TensorProto.INT64, [1]))
    graph.output.append(helper.make_tensor_value_info("next_calls", TensorProto.INT64, [1]))
    next(node for node in graph.node if node.output[0] == "separated").output[0] = "quiet"
    graph.node.append(helper.make_node("Add", ["calls", "one"], ["next_calls"]))
    graph.node.append(helper.make_node("Cast", ["calls"], ["gain"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Mul", ["quiet", "gain"], ["separated"]))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    onnx.save(model, waveform_graph)
    counting = OnnxStream(waveform_graph)
    counting.prepare(RATE)
    samples = music_like(4 * HOP, RATE)
    gains = np.repeat(np.arange(4), HOP)
    np.testing.assert_allclose(run_offline(counting, samples), filtered(samples, KERNEL) * gains, atol=1e-5)


def test_a_graph_that_diverges_begins_anew(tmp_path: Path) -> None:
    """Once infinite, its states would stay so: NaN for ever."""
    gain = np.full((4, 2), 3e38, np.float32)
    model = OnnxStream(convolution(tmp_path / "m.onnx", gain, HOP, metadata=waveform_metadata(HOP)))
    model.prepare(RATE)
    out = np.empty((4, 2, 2 * HOP), np.float32)
    model.process(np.full((2, 2 * HOP), 100.0, np.float32), out)
    assert not out.any()
    model.process(np.full((2, 2 * HOP), 1e-38, np.float32), out)
    model.process(np.zeros((2, 2 * HOP), np.float32), out)
    assert np.isfinite(out).all()
    assert out.any()


def test_it_plays_at_its_own_rate_only(waveform_graph: Path) -> None:
    with pytest.raises(LiveError, match="works at 44100 Hz, not at 48000 Hz") as caught:
        OnnxStream(waveform_graph).prepare(48_000)
    assert caught.value.code == "live.rate"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revithion.hop": 64}, r"input 'audio' is float \[1, 2, 128\]; .* float \[1, 2, 64\]"),
        ({"revithion.stems": "vocals,other"}, r"output 'separated' is float \[1, 4, 2, 128\]; .* \[1, 2, 2, 128\]"),
        ({"revithion.stems": "vocals,vocals"}, "stems names one twice"),
        ({"revithion.stems": "../a,b"}, "matching regex"),
        ({"revithion.kind": "wave"}, "Invalid enum value 'wave'"),
        ({"revithion.sample_rate": "fast"}, r"Expected `int`.*sample_rate"),
        ({"revithion.sample_rate": 1}, ">= 8000"),
        ({"revithion.analysis": 1_024}, "states latency; this one states latency and analysis"),
        ({"revithion.kind": "spectrum"}, "a spectrum graph states analysis and synthesis; this one states latency"),
    ],
)
def test_a_graph_that_is_not_what_it_says_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = convolution(tmp_path / "m.onnx", KERNEL, HOP, metadata=waveform_metadata(HOP) | change)
    refused(path, reason)


def test_a_graph_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    refused(convolution(tmp_path / "m.onnx", KERNEL, HOP, metadata={}), "no revithion. keys, and there is no m.toml")


def test_metadata_that_lacks_a_key_is_refused(tmp_path: Path) -> None:
    for key, reason in (
        ("hop", "missing required field `hop`"),
        ("latency", "states latency; this one states neither"),
    ):
        said = waveform_metadata(HOP)
        del said[f"revithion.{key}"]
        refused(convolution(tmp_path / "m.onnx", KERNEL, HOP, metadata=said), reason)


def test_a_state_without_a_partner_is_refused(tmp_path: Path) -> None:
    names = ("past", "future")
    path = convolution(tmp_path / "m.onnx", KERNEL, HOP, metadata=waveform_metadata(HOP), names=names)
    refused(path, "one input is audio and the others are states, but audio, past have no partner")


def test_a_state_that_changes_its_shape_is_refused(waveform_graph: Path) -> None:
    model = onnx.load(waveform_graph)
    newest = next(constant for constant in model.graph.initializer if constant.name == "newest")
    newest.CopyFrom(numpy_helper.from_array(np.array([-63]), "newest"))
    model.graph.output[1].type.tensor_type.shape.dim[2].dim_value = 63
    onnx.save(model, waveform_graph)
    refused(waveform_graph, r"state 'past_in' is float \[1, 2, 64\], but 'past_out' is float \[1, 2, 63\]")


def test_a_state_without_a_fixed_shape_is_refused(waveform_graph: Path) -> None:
    model = onnx.load(waveform_graph)
    model.graph.input[1].type.tensor_type.shape.dim[2].dim_param = "any"
    onnx.save(model, waveform_graph)
    refused(waveform_graph, r"state 'past_in' is float \[1, 2, 'any'\]; float or int64 of a fixed shape is possible")


def test_a_graph_that_can_not_be_computed_is_refused(waveform_graph: Path) -> None:
    model = onnx.load(waveform_graph)
    shape = next(constant for constant in model.graph.initializer if constant.name == "channels_as_batch")
    model.graph.initializer.remove(shape)
    name = model.graph.input.add()
    name.CopyFrom(helper.make_tensor_value_info("channels_as_batch", TensorProto.INT64, [3]))
    back = model.graph.output.add()
    back.CopyFrom(helper.make_tensor_value_info("next_channels_as_batch", TensorProto.INT64, [3]))
    model.graph.node.append(helper.make_node("Identity", ["channels_as_batch"], ["next_channels_as_batch"]))
    onnx.save(model, waveform_graph)
    refused(waveform_graph, "filters.onnx fails on silence")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    refused(path, "there is no file")
    path.write_bytes(b"RIFF....WAVE")
    refused(path, "ONNX Runtime can't load m.onnx")


def test_a_broken_file_beside_the_graph_is_named(tmp_path: Path) -> None:
    path = convolution(tmp_path / "m.onnx", KERNEL, HOP, metadata={})
    path.with_suffix(".toml").write_text("kind = ")
    refused(path, "m.toml can't be read")


def refused(path: Path, reason: str) -> None:
    with pytest.raises(LiveError, match=reason) as caught:
        OnnxStream(path)
    assert caught.value.code == "live.model"
    assert "MODELS.md" in caught.value.hint
