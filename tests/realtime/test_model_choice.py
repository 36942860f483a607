"""From a name to a model that plays: whatever it is, its stems sum to the delayed input at the device's rate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from processor_laws import check_any_block_size, check_causal, check_sum
from revithion_realtime.block_processor import run_offline
from revithion_realtime.models.mixture_consistent import ONSET_FRAMES
from revithion_realtime.models.model_choice import live_models, make_processor
from revithion_stems import AudioBuffer, separate
from revithion_stems.errors import LiveError, ModelError
from revithion_stems.weights import ModelStore
from streaming_graphs import STEMS, convolution, masking_gru, waveform_metadata

KERNEL = np.random.default_rng(5).standard_normal((4, 65)).astype(np.float32) / 20


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 96_000])
def test_a_network_plays_at_any_rate_and_sums_to_the_input(tmp_path: Path, sample_rate: int) -> None:
    path = str(convolution(tmp_path / "filters.onnx", KERNEL, 128, metadata=waveform_metadata(128)))
    check_sum(lambda: make_processor(path), sample_rate, frames=6_000)
    check_any_block_size(lambda: make_processor(path), sample_rate, frames=6_000, examples=3)
    check_causal(lambda: make_processor(path), sample_rate, frames=6_000)


def test_a_spectrum_network_plays_too(tmp_path: Path) -> None:
    path = str(masking_gru(tmp_path / "masks.onnx", bins=129, hidden=24, hop=32, synthesis=64))
    check_sum(lambda: make_processor(path), 48_000, frames=6_000)


def test_the_delay_of_a_conversion_counts(tmp_path: Path) -> None:
    path = str(convolution(tmp_path / "filters.onnx", KERNEL, 128, metadata=waveform_metadata(128)))
    processor = make_processor(path)
    processor.prepare(44_100)
    assert (processor.latency_frames, processor.hop_frames) == (128, 128)
    processor.prepare(88_200)
    assert processor.latency_frames > 256
    assert processor.hop_frames == 256


def test_other_takes_what_the_network_leaves(tmp_path: Path) -> None:
    path = str(convolution(tmp_path / "filters.onnx", KERNEL, 128, metadata=waveform_metadata(128)))
    processor = make_processor(path)
    processor.prepare(44_100)
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, (2, 3_000)).astype(np.float32)
    out = run_offline(processor, samples)
    expected = np.stack([[np.convolve(channel, taps[::-1])[:3_000] for channel in samples] for taps in KERNEL])
    expected[3] = samples - expected[:3].sum(axis=0)
    assert processor.stems == STEMS
    np.testing.assert_allclose(out[..., ONSET_FRAMES:], expected[..., ONSET_FRAMES:], atol=1e-6)


def test_dsp_is_the_causal_preview() -> None:
    processor = make_processor("dsp")
    processor.prepare(44_100)
    assert processor.stems == ("drums", "bass", "other", "vocals")
    assert processor.latency_frames <= 512
    check_sum(lambda: make_processor("dsp"), 48_000, frames=6_000)


def test_a_model_that_there_is_not_is_refused_with_what_there_is() -> None:
    with pytest.raises(LiveError, match=r"'spleter_2stems' .*preview, dsp, htdemucs, .*spleeter_2.*onnx") as caught:
        make_processor("spleter_2stems")
    assert caught.value.code == "live.model"


def test_a_network_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LiveError, match="there is no file") as caught:
        make_processor(str(tmp_path / "none.onnx"))
    assert caught.value.code == "live.model"


def test_weights_that_can_not_be_had_are_an_error_of_the_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    processor = make_processor("spleeter_2stems")
    assert processor.stems == ("vocals", "accompaniment")
    with pytest.raises(ModelError, match="spleeter_2stems"):
        processor.prepare(44_100)


def test_the_models_that_can_be_named() -> None:
    models = {model.name: model for model in live_models()}
    assert next(iter(models)) == "preview"
    assert {name for name, model in models.items() if model.causal} == {"preview", "dsp"}
    assert {"htdemucs", "spleeter_2stems"} < set(models)
    assert all(model.title for model in models.values())


def test_listing_the_models_imports_no_engine() -> None:
    program = (
        "import sys; from revithion_realtime.models.model_choice import live_models; live_models();"
        "print(sorted({'torch', 'onnxruntime', 'onnx', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.weights
def test_spleeter_looking_back_comes_near_to_spleeter_offline(
    spleeter_store: ModelStore, falcon69: dict[str, np.ndarray]
) -> None:
    mix = np.sum([falcon69[name] for name in ("drums", "bass", "vocals", "other")], axis=0)[:, : 3 * 44_100]
    mix = (mix / (1.01 * np.abs(mix).max())).astype(np.float32)
    offline = separate(AudioBuffer(samples=mix, sample_rate=44_100), model="spleeter_2stems", store=spleeter_store)
    processor = make_processor("spleeter_2stems")
    processor.prepare(44_100)
    live = run_offline(processor, mix)
    vocals = offline["vocals"].samples
    assert processor.latency_frames == round(1.3 * 44_100)
    np.testing.assert_allclose(live.sum(axis=0), mix, atol=1e-6)
    error, of_the_mix = (np.square(signal - vocals).sum() for signal in (live[0], mix))
    assert error < 0.1 * of_the_mix
