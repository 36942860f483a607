"""The resampler against the definition and against sines, and a processor at another rate than its device."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from processor_laws import BLOCK_LISTS, assert_close, check_laws, music_like, stream
from revithion_realtime.models.rate_conversion import PASS_HZ, Resampled, Resampler, reference_resample, shortest_delay
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import LIVE_RATES

PAIRS = list(itertools.permutations(LIVE_RATES, 2))


class Delay:
    """Two stems: the input, late by some frames, and its negative."""

    name = "delay"
    stems = ("as it is", "negative")

    def __init__(self, latency_frames: int = 37) -> None:
        self.latency_frames = latency_frames
        self.hop_frames = 1
        self.sample_rate = 0

    def prepare(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.reset()

    def process(self, block: Float32, out: Float32) -> None:
        joined = np.concatenate([self._late, block], axis=1)
        out[0] = joined[:, : block.shape[1]]
        out[1] = -out[0]
        self._late = joined[:, block.shape[1] :]

    def reset(self) -> None:
        self._late = np.zeros((2, self.latency_frames), np.float32)


def converted(samples: Float32, from_rate: int, to_rate: int, blocks: list[int]) -> Float32:
    resampler = Resampler(from_rate, to_rate, channels=samples.shape[0])
    parts: list[Float32] = []
    at = 0
    sizes = iter(blocks)
    while at < samples.shape[1]:
        end = at + next(sizes, 512)
        parts.append(resampler.process(samples[:, at:end]))
        at = end
    return np.concatenate(parts, axis=1)


def sine(hz: float, rate: int, frames: int, delay_s: float = 0.0) -> npt.NDArray[np.float64]:
    return np.sin(2 * np.pi * hz * (np.arange(frames) / rate - delay_s))[None, :]


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
@settings(max_examples=3, deadline=None)
@given(blocks=BLOCK_LISTS)
def test_the_stream_equals_the_definition_for_any_blocks(from_rate: int, to_rate: int, blocks: list[int]) -> None:
    samples = music_like(2_000, from_rate)
    expected = reference_resample(samples, from_rate, to_rate, shortest_delay(from_rate, to_rate))
    assert_close(converted(samples, from_rate, to_rate, blocks), expected, 1e-6)


@settings(max_examples=20, deadline=None)
@given(pair=st.sampled_from(PAIRS), blocks=st.lists(st.integers(1, 700), min_size=1, max_size=30))
@example(pair=(96_000, 44_100), blocks=[1, 1])  # the second makes nothing
def test_there_and_back_never_has_to_wait(pair: tuple[int, int], blocks: list[int]) -> None:
    device, model = pair
    there, back = Resampler(device, model, channels=1), Resampler(model, device, channels=1)
    balance = 0
    for frames in blocks:
        given_frames = there.process(np.zeros((1, frames), np.float32))
        balance += back.process(given_frames).shape[1] - frames
        assert 0 <= balance < device / model + 1


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
@pytest.mark.parametrize("hz", [60.0, 1_000.0, 10_000.0, PASS_HZ])
def test_a_sine_that_is_heard_passes_as_it_is(from_rate: int, to_rate: int, hz: float) -> None:
    out = converted(sine(hz, from_rate, 6_000).astype(np.float32), from_rate, to_rate, [])
    delay_s = shortest_delay(from_rate, to_rate) / from_rate
    expected = sine(hz, to_rate, out.shape[1], delay_s)
    settled = slice(round(0.01 * to_rate), None)
    assert np.abs(out - expected)[:, settled].max() < 1e-4  # -80 dB


@pytest.mark.parametrize(("from_rate", "to_rate"), [(a, b) for a, b in PAIRS if a / 2 > b - PASS_HZ])
@pytest.mark.parametrize("beyond", [0.01, 0.5, 0.99])
def test_what_would_be_mirrored_into_the_audible_is_suppressed(from_rate: int, to_rate: int, beyond: float) -> None:
    lowest, highest = to_rate - PASS_HZ, from_rate / 2
    hz = lowest + beyond * (highest - lowest)
    out = converted(sine(hz, from_rate, 6_000).astype(np.float32), from_rate, to_rate, [])
    assert np.abs(out[:, round(0.01 * to_rate) :]).max() < 1e-4


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_each_delay_is_below_a_millisecond(from_rate: int, to_rate: int) -> None:
    assert shortest_delay(from_rate, to_rate) / from_rate < 1e-3


def test_a_constant_stays_one_at_every_phase() -> None:
    out = converted(np.full((1, 4_000), 0.5, np.float32), 44_100, 48_000, [])
    assert_close(out[:, 200:], np.full_like(out[:, 200:], 0.5), 1e-6)


@pytest.mark.parametrize(("device", "model"), PAIRS)
def test_a_processor_at_another_rate_keeps_the_laws(device: int, model: int) -> None:
    check_laws(lambda: Resampled(Delay(), model), device, frames=2_500, sums=False, examples=2)


@pytest.mark.parametrize(("device", "model"), PAIRS)
@pytest.mark.parametrize("latency", [0, 37, 512])
def test_the_delay_is_a_whole_number_of_device_frames(device: int, model: int, latency: int) -> None:
    processor = Resampled(Delay(latency), model)
    processor.prepare(device)
    # A sine of 15 kHz shows a tenth of a frame as an error of a fifth.
    samples = sine(15_000, device, 6_000).repeat(2, axis=0).astype(np.float32)
    out = stream(processor, samples)
    settled = processor.latency_frames + 400
    late = samples[:, settled - processor.latency_frames : -processor.latency_frames]
    assert_close(out[0][:, settled:], late, 2e-4)
    assert_close(out[1][:, settled:], -late, 2e-4)


def test_the_inner_processor_is_prepared_for_its_own_rate() -> None:
    inner = Delay()
    Resampled(inner, 44_100).prepare(48_000)
    assert inner.sample_rate == 44_100


def test_the_hop_is_counted_in_device_frames() -> None:
    inner = Delay()
    inner.hop_frames = 256
    processor = Resampled(inner, 44_100)
    processor.prepare(96_000)
    assert processor.hop_frames == 558  # 557.3


@pytest.mark.parametrize("model_rate", [8_000, 32_000, 40_000, 44_099])
def test_a_model_of_a_low_rate_is_refused_before_it_is_loaded(model_rate: int) -> None:
    inner = Delay()
    with pytest.raises(LiveError, match=f"48000 to {model_rate} Hz .* 44100 Hz or more") as caught:
        Resampled(inner, model_rate).prepare(48_000)
    assert caught.value.code == "live.rate"
    assert inner.sample_rate == 0


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48_000, 32_000), (32_000, 48_000)])
def test_a_low_rate_is_refused_on_either_side(from_rate: int, to_rate: int) -> None:
    with pytest.raises(LiveError, match="44100 Hz or more"):
        Resampler(from_rate, to_rate, channels=2)


def test_a_rate_that_no_device_has_is_refused() -> None:
    with pytest.raises(LiveError, match="22050 Hz; 44100, 48000") as caught:
        Resampled(Delay(), 44_100).prepare(22_050)
    assert caught.value.code == "live.rate"
