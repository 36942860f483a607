"""The laws that every model of the live preview keeps; a test of a model calls :func:`check_laws`, or some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_realtime.block_processor import BlockProcessor, run_offline
from revithion_stems.audio import Float32

Make = Callable[[], BlockProcessor]

BLOCK_LISTS = st.lists(st.one_of(st.sampled_from([1, 32, 64, 127, 128, 256, 512]), st.integers(1, 2_048)), max_size=40)


def check_laws(
    make: Make, sample_rate: int, *, frames: int = 8_000, sums: bool = True, tolerance: float = 1e-6, examples: int = 8
) -> None:
    """All laws of a processor.

    Args:
        make: Gives a new one, not yet prepared; called a few times.
        sample_rate: It is prepared for this rate.
        frames: Length of the test signal; give a few times the latency.
        sums: Whether its stems sum to the delayed input by themselves.
        tolerance: Of every comparison, for a signal of peak 1.
        examples: Lists of block sizes that Hypothesis tries.
    """
    check_any_block_size(make, sample_rate, frames=frames, tolerance=tolerance, examples=examples)
    check_causal(make, sample_rate, frames=frames, tolerance=tolerance)
    check_reset(make, sample_rate, frames=frames)
    check_silence(make, sample_rate, frames=frames)
    if sums:
        check_sum(make, sample_rate, frames=frames, tolerance=tolerance)


def check_any_block_size(
    make: Make, sample_rate: int, *, frames: int = 8_000, tolerance: float = 1e-6, examples: int = 8
) -> None:
    """The same output whatever the blocks; all of ``out`` is written, and ``block`` is left as it is."""
    processor = prepared(make, sample_rate)
    samples = music_like(frames, sample_rate)
    expected = stream(processor, samples, [frames])

    @settings(max_examples=examples, deadline=None, database=None)
    @given(BLOCK_LISTS)
    def in_any_blocks(blocks: list[int]) -> None:
        processor.reset()
        assert_close(stream(processor, samples, blocks), expected, tolerance)

    in_any_blocks()


def check_causal(make: Make, sample_rate: int, *, frames: int = 8_000, tolerance: float = 0.0) -> None:
    """Input from frame t on changes no output before t; and it does change output later, or nothing was shown."""
    processor = prepared(make, sample_rate)
    samples = music_like(frames, sample_rate)
    expected = stream(processor, samples, then=64)
    for changed_from in (1, frames // 3, frames // 2 + 77):
        other = samples.copy()
        other[:, changed_from:] = 0.5 * np.random.default_rng(99).standard_normal((2, frames - changed_from))
        processor.reset()
        out = stream(processor, other, then=64)
        assert_close(out[:, :, :changed_from], expected[:, :, :changed_from], tolerance)
        assert changed_from + processor.latency_frames >= frames or np.any(
            out[:, :, changed_from:] != expected[:, :, changed_from:]
        )


def check_sum(make: Make, sample_rate: int, *, frames: int = 8_000, tolerance: float = 1e-6) -> None:
    """The stems sum to the input, ``latency_frames`` later and with zeros before."""
    processor = prepared(make, sample_rate)
    samples = music_like(frames, sample_rate)
    latency = processor.latency_frames
    assert frames > latency, f"{frames} frames of test signal never come out of a latency of {latency}"
    delayed = np.concatenate([np.zeros((2, latency), np.float32), samples], axis=1)[:, :frames]
    total = stream(processor, samples, then=300).sum(axis=0, dtype=np.float64)
    assert_close(total, delayed, tolerance)


def check_reset(make: Make, sample_rate: int, *, frames: int = 8_000) -> None:
    """After a reset it answers like a new one, wherever it was stopped; prepared again likewise."""
    samples = music_like(frames, sample_rate)
    expected = stream(prepared(make, sample_rate), samples, then=100)
    used = prepared(make, sample_rate)
    for stopped_after in (1, frames // 2 + 13):
        stream(used, samples[:, :stopped_after] * 0.7, then=100)
        used.reset()
        assert np.array_equal(stream(used, samples, then=100), expected)
    used.prepare(sample_rate)
    assert np.array_equal(stream(used, samples, then=100), expected)


def check_silence(make: Make, sample_rate: int, *, frames: int = 8_000) -> None:
    """Silence gives silence: zeros, not small numbers."""
    out = stream(prepared(make, sample_rate), np.zeros((2, frames), np.float32), then=200)
    assert not out.any()


def check_offline(make: Make, sample_rate: int, *, frames: int = 8_000, tolerance: float = 1e-6) -> None:
    """:func:`run_offline` is the stream without its delay."""
    processor = prepared(make, sample_rate)
    samples = music_like(frames, sample_rate)
    streamed = stream(processor, samples, then=160)[:, :, processor.latency_frames :]
    assert_close(run_offline(processor, samples)[:, :, : streamed.shape[2]], streamed, tolerance)


def prepared(make: Make, sample_rate: int) -> BlockProcessor:
    """A new processor, ready for the rate, whose figures make sense."""
    processor = make()
    assert processor.name
    assert processor.stems
    processor.prepare(sample_rate)
    assert processor.latency_frames >= 0
    assert processor.hop_frames >= 1
    return processor


def stream(processor: BlockProcessor, samples: Float32, blocks: Iterable[int] = (), *, then: int = 512) -> Float32:
    """What comes out, delay and all, when ``samples`` goes in by these blocks, and the rest by blocks of ``then``."""
    frames = samples.shape[1]
    given_samples = samples.astype(np.float32)
    given_samples.flags.writeable = False
    out = np.full((len(processor.stems), 2, frames), np.nan, np.float32)
    at = 0
    sizes = iter(blocks)
    while at < frames:
        end = min(frames, at + next(sizes, then))
        part = np.full((len(processor.stems), 2, end - at), np.nan, np.float32)
        processor.process(given_samples[:, at:end], part)
        out[:, :, at:end] = part
        at = end
    assert np.isfinite(out).all(), "not all of the output was written with finite samples"
    return out


def music_like(frames: int, sample_rate: int, seed: int = 7) -> Float32:
    """Music of a kind, peak below 1: two tones, one of them to the left, noise, clicks, and a gap."""
    random = np.random.default_rng(seed)
    time = np.arange(frames) / sample_rate
    centre = 0.25 * np.sin(2 * np.pi * 110 * time) + 0.1 * np.sin(2 * np.pi * 1_234 * time)
    left = 0.2 * np.sin(2 * np.pi * 440 * time)
    samples = np.stack([centre + left, centre]) + 0.05 * random.standard_normal((2, frames))
    samples[:, :: max(1, frames // 7)] += 0.3
    samples[:, frames * 3 // 5 : frames * 7 // 10] = 0.0
    return np.clip(samples, -1, 1).astype(np.float32)


def assert_close(actual: Float32, expected: Float32, tolerance: float) -> None:
    """Equal shapes, and no sample further off than ``tolerance``."""
    assert actual.shape == expected.shape
    if actual.size:
        worst = float(np.abs(actual.astype(np.float64) - expected).max())
        assert worst <= tolerance, f"off by {worst:.3g}; at most {tolerance:.3g} is allowed"
