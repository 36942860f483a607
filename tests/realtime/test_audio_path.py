"""The callback: what it plays when all is well, when inference is late, and what it never does."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_rig import RATE, SHARES, Shares, live_rig
from revithion_realtime.audio_path import FADE_OUT_FRAMES
from revithion_realtime.memory.figures import AudioFigure, InferenceFigure
from revithion_realtime.mixer.strip_slots import Slot, slot_number
from revithion_stems.live import RAMP_S, LiveOutputs

STEMS = len(Shares.stems)
BLOCKS = st.lists(st.one_of(st.sampled_from([32, 64, 128, 256]), st.integers(1, 256)), min_size=1, max_size=30)
STALLS = st.lists(st.booleans(), max_size=60)
SUM_TOLERANCE = 1e-6  # four float32 products are added


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (2, frames)).astype(np.float32)


def sine(frames: int, hz: float = 110.0) -> np.ndarray:
    return np.broadcast_to(0.5 * np.sin(2 * np.pi * hz / RATE * np.arange(frames)), (2, frames)).astype(np.float32)


def delayed(samples: np.ndarray, frames: int) -> np.ndarray:
    return np.concatenate([np.zeros((2, frames), np.float32), samples], axis=1)[:, : samples.shape[1]]


@settings(deadline=None, max_examples=25)
@given(blocks=BLOCKS)
def test_stems_come_out_later_by_the_budget_for_any_block_sizes(blocks):
    samples = noise(sum(blocks))
    with live_rig(outputs=LiveOutputs.BOTH) as rig:
        out = rig.play(samples, blocks)
        expected = delayed(samples, rig.delay)
        assert np.array_equal(out[2:].reshape(STEMS, 2, -1), SHARES[:, None, None] * expected)
        assert np.abs(out[:2] - expected).max() <= SUM_TOLERANCE
        assert rig.memory.audio[AudioFigure.LATE_BLOCKS] == 0


@settings(deadline=None, max_examples=25)
@given(stalls=STALLS, block=st.sampled_from([32, 128, 256]))
def test_whatever_inference_misses_the_stems_sum_to_the_delayed_input(stalls, block):
    samples = noise(block * 80)
    with live_rig(outputs=LiveOutputs.STEMS, block_frames=block) as rig:
        out = rig.play(samples, [block] * 80, stalls)
        total = out.reshape(STEMS, 2, -1).sum(axis=0)
        assert np.abs(total - delayed(samples, rig.delay)).max() <= SUM_TOLERANCE


@settings(deadline=None, max_examples=25)
@given(stalls=STALLS, block=st.sampled_from([32, 128, 256]))
def test_a_stall_never_clicks(stalls, block):
    """One stem alone is the hardest case: wet it is 0.7 of the sound, dry 0.25."""
    samples = sine(block * 100)
    with live_rig(outputs=LiveOutputs.STEMS, block_frames=block) as rig:
        out = rig.play(samples, [block] * 100, stalls)
        step = np.abs(np.diff(out[:2], axis=1)).max()
        of_sine = np.abs(np.diff(samples, axis=1)).max()
        of_fade = 0.5 * (0.7 - 0.25) / FADE_OUT_FRAMES
        assert np.isfinite(out).all()
        assert step <= 0.7 * of_sine + of_fade + 1e-6


def test_a_stall_is_counted_and_passes():
    block, stalled = 256, range(40, 52)
    samples = sine(block * 100)
    with live_rig(outputs=LiveOutputs.STEMS) as rig:
        out = rig.play(samples, [block] * 100, (number in stalled for number in range(100)))
        assert rig.memory.audio[AudioFigure.LATE_TIMES] == 1
        late = rig.memory.audio[AudioFigure.LATE_BLOCKS]
        assert len(stalled) - 2 <= late <= len(stalled) + 0.02 * RATE / block + 4
        assert rig.memory.audio[AudioFigure.WET] == 1.0
        expected = delayed(samples, rig.delay)
        assert np.array_equal(out[0, -20 * block :], SHARES[0] * expected[0, -20 * block :])
        dry = slice(46 * block, 52 * block)
        assert np.allclose(out[0, dry], expected[0, dry] / STEMS, atol=1e-6)


def test_too_far_behind_inference_leaves_out_what_nobody_will_hear():
    block = 256
    samples = noise(block * 400)
    with live_rig(outputs=LiveOutputs.STEMS) as rig:
        out = rig.play(samples, [block] * 400, (100 <= number < 200 for number in range(400)))
        assert rig.memory.inference[InferenceFigure.SKIPPED_FRAMES] > 50 * block
        assert rig.memory.audio[AudioFigure.WET] == 1.0
        total = out.reshape(STEMS, 2, -1).sum(axis=0)
        assert np.abs(total - delayed(samples, rig.delay)).max() <= SUM_TOLERANCE
        assert np.array_equal(out[0, -50 * block :], SHARES[0] * delayed(samples, rig.delay)[0, -50 * block :])


def test_the_played_ring_has_the_stems_before_their_faders():
    samples = noise(256 * 20)
    with live_rig() as rig:
        rig.memory.moves.put([(slot_number(0, Slot.GAIN_LEFT), 0.0)])
        rig.play(samples, [256] * 20)
        played = np.empty((2 * STEMS, 256 * 20), np.float32)
        assert rig.memory.played.read(0, played)
        assert np.array_equal(played[0], SHARES[0] * delayed(samples, rig.delay)[0])


@settings(deadline=None, max_examples=25)
@given(blocks=BLOCKS, frame=st.integers(1, 3_000))
def test_a_move_begins_at_its_frame_and_ends_a_ramp_later(blocks, frame):
    frames = sum(blocks)
    samples = np.ones((2, frames), np.float32)
    ramp = round(RAMP_S * RATE)
    with live_rig(outputs=LiveOutputs.STEMS) as rig:
        rig.memory.moves.put([(slot_number(0, Slot.GAIN_LEFT), 0.0), (slot_number(0, Slot.GAIN_RIGHT), 0.0)], frame)
        left = rig.play(samples, blocks)[0]
        before = SHARES[0] * delayed(samples, rig.delay)[0]
        assert np.array_equal(left[:frame], before[:frame])
        assert not left[frame + ramp :].any()
        if rig.delay < frame < frames:
            assert left[frame] < before[frame]


def test_a_block_splits_at_each_move_in_it():
    samples = np.ones((2, 256 * 20), np.float32)
    with live_rig(outputs=LiveOutputs.STEMS) as rig:
        moves = rig.memory.moves
        moves.put([(slot_number(0, Slot.GAIN_LEFT), 0.0)], 4_000)
        moves.put([(slot_number(0, Slot.GAIN_LEFT), 1.0)], 4_050)
        left = rig.play(samples, [256] * 20)[0] / SHARES[0]
        ramp = round(RAMP_S * RATE)
        assert left[4_049] == pytest.approx(1 - 50 / ramp, abs=1e-4)
        assert left[4_050 + ramp] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_sound_does_not_get_in(bad):
    samples = noise(256 * 30)
    samples[0, 1_000:1_010] = bad
    with live_rig(outputs=LiveOutputs.BOTH) as rig:
        out = rig.play(samples, [256] * 30)
        assert np.isfinite(out).all()
        assert np.abs(out[:, -256:]).max() <= 0.5


def test_a_fault_in_the_callback_is_silence_and_a_count():
    with live_rig() as rig:
        rig.play(noise(512), [256, 256])
        rig.path.mixer = None
        assert not rig.play(noise(512), [256, 256]).any()
        assert rig.memory.audio[AudioFigure.FAULTS] == 2
        assert rig.memory.audio[AudioFigure.FRAMES] == 1_024


def test_a_file_takes_the_place_of_the_input():
    samples = noise(256 * 20)
    with live_rig(from_file=True) as rig:
        rig.memory.source.write(samples)
        out = rig.play(noise(256 * 24, seed=1), [256] * 24)
        expected = delayed(np.concatenate([samples, np.zeros((2, 1_024), np.float32)], axis=1), rig.delay)
        assert np.abs(out - expected).max() <= SUM_TOLERANCE


def test_the_callback_allocates_no_memory_for_samples_and_keeps_none():
    """Numpy tells tracemalloc of each array's data. Python's own small objects come and go; none may stay."""
    block = 1_024
    samples = noise(block * 600)
    with live_rig(outputs=LiveOutputs.BOTH, block_frames=block) as rig:
        outputs = np.zeros((2 + 2 * STEMS, block), np.float32)
        blocks = [samples[:, at : at + block] for at in range(0, samples.shape[1], block)]

        def play(numbers: range) -> None:
            for number in numbers:
                if number % 50 == 7:
                    rig.memory.moves.put([(slot_number(number % STEMS, slot), 0.5) for slot in Slot])
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                rig.path(blocks[number], outputs, False)
                peaks.append(tracemalloc.get_traced_memory()[1] - before)
                if not 300 <= number < 320:  # late once
                    rig.infer()

        peaks: list[int] = []
        tracemalloc.start()
        try:
            play(range(100))  # whatever is made once
            peaks.clear()
            begin = tracemalloc.take_snapshot()
            play(range(100, 600))
            end = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        assert max(peaks) < 4 * block, "a copy of one channel of one block, which counts while it lives"
        in_path = tracemalloc.Filter(True, "*/revithion_realtime/*")
        not_inference = tracemalloc.Filter(False, "*/inference_process.py")
        grown = sum(
            stat.size_diff
            for stat in end.filter_traces([in_path, not_inference]).compare_to(
                begin.filter_traces([in_path, not_inference]), "filename"
            )
        )
        assert rig.memory.audio[AudioFigure.LATE_TIMES] == 1
        assert grown < 1_024


def test_inference_that_is_back_before_it_was_missed_does_not_click():
    """What was given before its end is played to its end, then it fades."""
    tone = np.tile(0.5 * np.sin(2 * np.pi * 110 * np.arange(3 * RATE) / RATE), (2, 1)).astype(np.float32)
    with live_rig(safety_frames=RATE // 2) as rig:
        rig.play(tone[:, :51_200], [256] * 200)
        rig.play(tone[:, 51_200:56_320], [256] * 20, [True] * 20)
        rig.restart()
        rig.play(tone[:, 56_320:], [256] * 340)
        played = np.zeros((8, 100_000), np.float32)
        assert rig.memory.played.read(rig.memory.played.end - 100_000, played)
        assert rig.memory.audio[AudioFigure.LATE_TIMES] == 1
        assert rig.memory.audio[AudioFigure.WET] == 1.0
    of_tone, of_fade = 0.5 * 2 * np.pi * 110 / RATE, 0.5 / FADE_OUT_FRAMES
    assert np.abs(np.diff(played)).max() <= of_tone + of_fade
