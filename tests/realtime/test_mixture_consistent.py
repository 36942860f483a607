"""Whatever a model says: stems that sum to the delayed input, silence for silence, and finite samples only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor_laws import BLOCK_LISTS, assert_close, check_laws, music_like, prepared, stream
from revithion_realtime.models.dsp_preview import DspPreview
from revithion_realtime.models.mixture_consistent import ONSET_FRAMES, SILENCE_FRAMES, MixtureConsistent
from revithion_realtime.models.rate_conversion import Resampled
from revithion_stems.audio import Float32

STEMS = ("drums", "bass", "other", "vocals")
OTHER = 2


class Model:
    """Four stems that don't sum to anything, which ring on for ever once there was sound."""

    name = "model"
    stems = STEMS

    def __init__(self, latency_frames: int = 100, spoilt: float | None = None, of_input: float = 0.1) -> None:
        self.hop_frames = 1
        self.latency_frames = latency_frames
        self.spoilt = spoilt
        self.of_input = of_input
        self.resets = 0
        self.heard: list[Float32] = []

    def prepare(self, sample_rate: int) -> None:
        self.reset()

    def process(self, block: Float32, out: Float32) -> None:
        self.heard.append(block)
        level = np.maximum.accumulate(np.abs(np.concatenate([self._level, block], axis=1)), axis=1)
        self._level = level[:, -1:]
        for stem in range(len(STEMS)):
            out[stem] = level[:, 1:] * (0.3 - 0.2 * stem) + self.of_input * block
        if self.spoilt is not None:
            out[1, :, ::3] = self.spoilt

    def spoil_memory(self) -> None:
        self._level[...] = np.nan

    def reset(self) -> None:
        self.resets += 1
        self._level = np.zeros((2, 1), np.float32)


def around(model: Model) -> MixtureConsistent:
    return MixtureConsistent(model, OTHER)


def late(samples: Float32, frames: int) -> Float32:
    return np.concatenate([np.zeros((2, frames), np.float32), samples], axis=1)[:, : samples.shape[1]]


def on_grid(samples: Float32) -> Float32:
    """As 24-bit audio is, which lies on the grid of 2^-24."""
    return (np.rint(samples * 2.0**23) / 2.0**23).astype(np.float32)


@pytest.mark.parametrize("latency", [0, 1, 100, 3_000])
def test_it_keeps_the_laws(latency: int) -> None:
    check_laws(lambda: around(Model(latency)), 44_100)


def test_a_whole_chain_keeps_the_laws() -> None:
    check_laws(lambda: MixtureConsistent(Resampled(DspPreview(), 44_100), OTHER), 48_000, tolerance=2e-6)


@given(order=st.permutations(range(len(STEMS))), latency=st.sampled_from([0, 1, 511, 512]))
@settings(max_examples=20, deadline=None)
def test_input_of_24_bits_comes_back_exactly_in_any_order_of_adding(order: list[int], latency: int) -> None:
    samples = on_grid(music_like(3_000, 44_100) * 0.3)
    out = stream(prepared(lambda: around(Model(latency)), 44_100), samples)
    total = np.zeros_like(samples)
    for stem in order:
        total += out[stem]
    assert np.array_equal(total, late(samples, latency))


def test_any_other_input_comes_back_within_half_a_step() -> None:
    samples = music_like(3_000, 44_100) * np.float32(0.3)
    out = stream(prepared(lambda: around(Model()), 44_100), samples)
    total = out[0] + out[1] + out[2] + out[3]
    assert 0 < np.abs(total.astype(np.float64) - late(samples, 100)).max() <= 2.0**-25


def test_only_the_folded_stem_is_changed_beyond_the_grid() -> None:
    samples = music_like(1_000, 44_100)
    plain, closed = (stream(prepared(lambda p=p: p, 44_100), samples) for p in (Model(), around(Model())))
    settled = slice(100 + ONSET_FRAMES, 700)  # past the delay and the onset, before the gap: there the fade begins
    kept = [0, 1, 3]
    assert_close(closed[kept][:, :, settled], plain[kept][:, :, settled], 2.0**-23)
    assert np.abs(closed[OTHER] - plain[OTHER])[:, settled].max() > 0.01


def test_after_a_few_zeros_the_stems_are_silent_until_sound_comes() -> None:
    sound = np.float32(0.1) + np.abs(music_like(500, 44_100))
    gap = 600
    samples = np.concatenate([sound, np.zeros((2, gap), np.float32), sound], axis=1)
    out = stream(prepared(lambda: around(Model(0)), 44_100), samples)
    onset = 500 + gap
    assert not out[:, :, 500 + SILENCE_FRAMES - 1 : onset].any()
    assert_close(out[OTHER, :, onset], sound[:, 0], 0.01)
    assert np.abs(out[0, :, onset + ONSET_FRAMES]).min() > 0.05


def test_estimates_come_back_slowly_after_silence_and_not_after_a_short_gap() -> None:
    half = np.full((2, 400), 0.5, np.float32)
    for gap, first_step in ((SILENCE_FRAMES, 0.15 / ONSET_FRAMES), (SILENCE_FRAMES - 2, 0.15)):
        samples = np.concatenate([half, np.zeros((2, gap), np.float32), half], axis=1)
        drums = stream(prepared(lambda: around(Model(0, of_input=0.0)), 44_100), samples)[0, 0]
        steps = np.abs(np.diff(drums[400 + gap - 1 :]))
        assert steps.max() == pytest.approx(first_step, rel=0.05)
        assert drums[-1] == pytest.approx(0.15)


@pytest.mark.parametrize("phase", [0.0, 0.5 * np.pi], ids=["from zero", "from its peak"])
@pytest.mark.parametrize("hz", [60.0, 440.0, 3_000.0])
@given(onset=st.integers(300, 1_200))
@settings(max_examples=3, deadline=None)
def test_a_tone_out_of_digital_silence_makes_no_step_in_a_stem(hz: float, phase: float, onset: int) -> None:
    samples = np.zeros((2, 4_000), np.float32)
    samples[:, onset:] = 0.5 * np.sin(2 * np.pi * hz / 44_100 * np.arange(4_000 - onset) + phase)
    out = stream(prepared(lambda: MixtureConsistent(DspPreview(), OTHER), 44_100), samples)
    steps = np.abs(np.diff(out, axis=2)).max(axis=(1, 2))
    of_the_tone = 0.5 * 2 * np.pi * hz / 44_100
    bounds = np.full(len(STEMS), of_the_tone + 0.01)
    bounds[OTHER] += 0.5 * np.sin(phase)  # the step of the mix itself
    assert (steps <= bounds).all()


def test_a_model_that_rings_is_faded_and_not_cut() -> None:
    samples = np.concatenate([np.full((2, 200), 0.5, np.float32), np.zeros((2, 600), np.float32)], axis=1)
    drums = stream(prepared(lambda: around(Model(0)), 44_100), samples)[0, 0]
    steps = np.abs(np.diff(drums[200:]))
    assert drums[200] > 0.1
    assert steps.max() < 0.002
    assert drums[-1] == 0


def test_a_single_zero_is_no_silence() -> None:
    samples = np.full((2, 400), 0.5, np.float32)
    samples[:, 300] = 0.0
    drums = stream(prepared(lambda: around(Model(0)), 44_100), samples)[0, 0]
    assert drums[300] == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf, 3e38, -3e38])
@given(blocks=BLOCK_LISTS)
@settings(max_examples=5, deadline=None)
def test_a_model_gone_mad_leaves_a_finite_sum(spoilt: float, blocks: list[int]) -> None:
    samples = music_like(2_000, 44_100)
    out = stream(prepared(lambda: around(Model(spoilt=spoilt)), 44_100), samples, blocks)  # stream looks for NaN
    if not np.isfinite(spoilt):
        assert_close(out.sum(axis=0, dtype=np.float64), late(samples, 100), 1e-6)


@pytest.mark.parametrize("latency", [0, 100])
@pytest.mark.parametrize("block", [32, 128, 700])
def test_a_model_whose_memory_is_spoilt_is_reset(latency: int, block: int) -> None:
    model = Model(latency)
    model.hop_frames = 256
    processor = prepared(lambda: around(model), 44_100)
    samples = np.full((2, 2_800), 0.5, np.float32)
    stream(processor, samples, then=block)
    model.spoil_memory()
    drums = stream(processor, samples, then=block)[0, 0]
    # One hop, in whole blocks, and what the model needs to have heard.
    recovered = -(-model.hop_frames // block) * block + latency
    assert not drums[:recovered].any()
    assert np.abs(np.diff(drums)).max() < 0.01
    assert drums[recovered + ONSET_FRAMES - 1] == pytest.approx(0.2)


def test_a_model_that_spoils_a_few_frames_keeps_its_memory() -> None:
    model = Model(0, spoilt=np.nan)
    model.hop_frames = 256
    stream(prepared(lambda: around(model), 44_100), np.full((2, 2_000), 0.5, np.float32))
    assert model.resets == 1  # by prepare


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_input_that_is_not_finite_counts_as_zero(bad: float) -> None:
    samples = music_like(2_000, 44_100)
    clean = samples.copy()
    samples[0, 700:720], clean[0, 700:720] = bad, 0.0
    spoilt_model, clean_model = Model(), Model()
    out = stream(prepared(lambda: around(spoilt_model), 44_100), samples)
    assert np.array_equal(out, stream(prepared(lambda: around(clean_model), 44_100), clean))
    assert all(np.isfinite(block).all() for block in spoilt_model.heard)


@given(blocks=BLOCK_LISTS, gaps=st.lists(st.tuples(st.integers(0, 1_900), st.integers(1, 500)), max_size=4))
@settings(max_examples=15, deadline=None)
def test_silence_is_the_same_in_any_blocks(blocks: list[int], gaps: list[tuple[int, int]]) -> None:
    samples = music_like(2_000, 44_100)
    for start, length in gaps:
        samples[:, start : start + length] = 0.0
    processor = prepared(lambda: around(Model()), 44_100)
    expected = stream(processor, samples, [2_000])
    processor.reset()
    assert np.array_equal(stream(processor, samples, blocks), expected)
