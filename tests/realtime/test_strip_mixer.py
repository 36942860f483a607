"""The mixer in the callback: transparent, exact to the frame, without clicks, without memory."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_realtime.mixer.strip_mixer import StripMixer
from revithion_realtime.mixer.strip_slots import Slot, monitor_slot, slot_count, slot_number

RATE = 48_000
STRIPS = 4
RAMP = 240  # 5 ms
MONITOR = monitor_slot(STRIPS)
GAINS = (Slot.GAIN_LEFT, Slot.GAIN_RIGHT)

Move = tuple[int, int, float]  # frame, slot, value


def noise(frames: int, strips: int = STRIPS) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, (strips, 2, frames)).astype(np.float32)


def play(stems: np.ndarray, moves: list[Move], blocks: list[int], ramp: int = RAMP) -> tuple[np.ndarray, np.ndarray]:
    """Stems and mix after a new mixer, whose blocks are split where controls move, as the callback does it."""
    stems, frames = stems.copy(), stems.shape[2]
    mixer, mix = StripMixer(stems.shape[0], RATE, frames), np.full((2, frames), np.nan, np.float32)
    waiting = sorted(moves, key=lambda move: move[0])
    at, block = 0, 0
    while at < frames:
        end = min(frames, at + blocks[block % len(blocks)])
        block += 1
        while at < end:
            while waiting and waiting[0][0] <= at:
                mixer.move(waiting[0][1], waiting[0][2], ramp)
                waiting.pop(0)
            stop = min([end, *(frame for frame, _, _ in waiting[:1])])
            mixer.render(stems, at, stop - at, mix)
            at = stop
    return stems, mix


def test_slots_are_numbered_without_gaps():
    numbers = [slot_number(strip, slot) for strip in range(STRIPS) for slot in Slot]
    assert [*numbers, MONITOR] == list(range(slot_count(STRIPS)))


@pytest.mark.parametrize("block", [1, 37, 256])
def test_neutral_settings_pass_stems_bit_for_bit(block: int):
    stems = noise(1_000)
    after, mix = play(stems, [], [block])
    assert after.tobytes() == stems.tobytes()
    assert mix.tobytes() == (((stems[0] + stems[1]) + stems[2]) + stems[3]).tobytes()


def test_going_back_to_neutral_is_bit_for_bit_again():
    stems = noise(4_000)
    away: list[Move] = [
        (100, slot_number(1, Slot.LOW), 0.0),
        (100, slot_number(1, Slot.FILTER), -0.5),
        (100, MONITOR, 0.5),
    ]
    back: list[Move] = [
        (2_000, slot_number(1, Slot.LOW), 1.0),
        (2_000, slot_number(1, Slot.FILTER), 0.0),
        (2_000, MONITOR, 1.0),
    ]
    after, mix = play(stems, away + back, [256])
    assert np.abs(after[1, :, 1_000:2_000] - stems[1, :, 1_000:2_000]).max() > 0.1
    assert (after[:, :, 3_000:] == stems[:, :, 3_000:]).all()
    assert (mix[:, 3_000:] == (stems[0] + stems[1] + stems[2] + stems[3])[:, 3_000:]).all()


def test_other_strips_do_not_notice():
    stems = noise(2_000)
    after, _ = play(stems, [(3, slot_number(2, slot), 0.3) for slot in Slot], [128])
    assert (after[[0, 1, 3]] == stems[[0, 1, 3]]).all()
    assert (after[2] != stems[2]).any()


@pytest.mark.parametrize("slot", [*(slot_number(0, slot) for slot in Slot), MONITOR])
def test_a_move_changes_nothing_before_its_frame(slot: int):
    stems = noise(2_000)
    at = 777
    (after, mix), (plain, plain_mix) = play(stems, [(at, slot, 0.4)], [256]), play(stems, [], [256])
    assert (after[:, :, :at] == plain[:, :, :at]).all()
    assert (mix[:, :at] == plain_mix[:, :at]).all()
    assert (mix[:, at : at + 3] != plain_mix[:, at : at + 3]).any()


def test_a_fader_moves_in_a_straight_line_on_its_own_channel():
    stems = np.ones((1, 2, 1_000), np.float32)
    after, mix = play(stems, [(300, slot_number(0, Slot.GAIN_LEFT), 0.0)], [256])
    line = 1 - np.arange(1, RAMP + 1) / RAMP
    assert after[0, 0, 300 : 300 + RAMP] == pytest.approx(line, abs=1e-6)
    assert (after[0, 0, 300 + RAMP :] == 0).all()
    assert (after[0, 1] == 1).all()
    assert mix.tobytes() == after[0].tobytes()


def test_the_monitor_gain_is_the_mix_alone():
    stems = noise(1_000)
    after, mix = play(stems, [(0, MONITOR, 0.5)], [256], ramp=0)
    assert after.tobytes() == stems.tobytes()
    assert mix == pytest.approx(0.5 * stems.sum(axis=0), abs=1e-6)


values = st.sampled_from([0.0, 1.0]) | st.floats(0, 4)
any_move = st.one_of(
    st.tuples(
        st.integers(0, 1_500),
        st.sampled_from([slot_number(s, k) for s in (0, 1) for k in Slot if k != Slot.FILTER]),
        values,
    ),
    st.tuples(
        st.integers(0, 1_500),
        st.sampled_from([slot_number(s, Slot.FILTER) for s in (0, 1)]),
        st.just(0.0) | st.floats(-1, 1),
    ),
    st.tuples(st.integers(0, 1_500), st.just(monitor_slot(2)), values),
)


@settings(max_examples=60)
@given(st.lists(any_move, max_size=10), st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(0, 600))
def test_blocks_do_not_matter(moves: list[Move], blocks: list[int], ramp: int):
    stems = noise(1_600, 2)
    expected, expected_mix = play(stems, moves, [1_600], ramp)
    found, found_mix = play(stems, moves, blocks, ramp)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found_mix - expected_mix).max() < 1e-5
    assert np.isfinite(found_mix).all()


@pytest.mark.parametrize("frequency", [60.0, 250.0, 440.0, 1_000.0])
@pytest.mark.parametrize(
    ("slots", "there", "back"),
    [
        (GAINS, 0.0, 1.0),
        ((Slot.LOW,), 0.0, 1.0),
        ((Slot.MID,), 0.0, 1.0),
        ((Slot.HIGH,), 0.0, 1.0),
        ((Slot.LOW, Slot.MID, Slot.HIGH), 0.0, 1.0),
        ((Slot.FILTER,), -1.0, 0.0),
        ((Slot.FILTER,), 1.0, 0.0),
        ((Slot.FILTER,), -1.0, 1.0),
        ((Slot.FILTER,), 0.1, -0.1),
        (tuple(Slot), 0.0, 1.0),
    ],
)
def test_no_move_clicks(frequency: float, slots: tuple[Slot, ...], there: float, back: float):
    frames = 12_000
    sine = np.sin(2 * np.pi * frequency * np.arange(frames) / RATE + 1.0).astype(np.float32)
    stems = np.broadcast_to(sine, (1, 2, frames)).copy()
    moves: list[Move] = [(1_013, slot_number(0, slot), there) for slot in slots]
    moves += [(6_007, slot_number(0, slot), back) for slot in slots]
    moves += [(6_100, slot_number(0, slot), there) for slot in slots]  # and again before the ramp is over
    _, mix = play(stems, moves, [256])
    # The sine itself steps by ω at most and bends by ω². Fading it into its opposite, or opening a filter that
    # resonates, adds a few hundredths; a value that jumped would step, and bend, by up to 1.
    omega = 2 * np.pi * frequency / RATE
    assert np.abs(np.diff(mix)).max() < omega + 0.04
    assert np.abs(np.diff(mix, 2)).max() < omega**2 + 0.02


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_slow_sweep_is_smooth(side: float):
    """Positions of the filter are steps; what they add to a sine must stay under it."""
    frames = RATE
    sine = np.sin(2 * np.pi * 500 * np.arange(frames) / RATE).astype(np.float32)
    stems = np.broadcast_to(sine, (1, 2, frames)).copy()
    _, mix = play(stems, [(0, slot_number(0, Slot.FILTER), side)], [256], ramp=frames)
    spectrum = np.abs(np.fft.rfft(mix[0] * np.blackman(frames)))
    assert 20 * np.log10(spectrum[2_000:].max() / spectrum.max()) < -70


def test_peaks_rise_at_once_and_fall_by_twenty_db_a_second():
    mixer, mix = StripMixer(2, RATE, 480), np.zeros((2, 480), np.float32)
    stems = np.zeros((2, 2, 480), np.float32)
    stems[0, 0, 5], stems[1, 1, 7], stems[1, 0, 9] = -0.5, 0.25, 0.25
    mixer.render(stems, 0, 480, mix)
    assert mixer.peaks.tolist() == [[0.5, 0.0], [0.25, 0.25], [0.5, 0.25]]
    stems.fill(0.0)
    for _ in range(100):  # a second
        mixer.render(stems, 0, 480, mix)
    assert mixer.peaks[2, 0] == pytest.approx(0.05, rel=1e-3)


def test_peaks_stand_after_the_fader():
    mixer, mix = StripMixer(1, RATE, 64), np.zeros((2, 64), np.float32)
    mixer.move(slot_number(0, Slot.GAIN_RIGHT), 0.0, 0)
    mixer.move(monitor_slot(1), 0.5, 0)
    mixer.render(np.ones((1, 2, 64), np.float32), 0, 64, mix)
    assert mixer.peaks.tolist() == [[1.0, 0.0], [0.5, 0.0]]


def test_only_the_frames_that_are_asked_for_are_touched():
    stems, mix = noise(300), np.full((2, 300), 9.0, np.float32)
    before, mixer = stems.copy(), StripMixer(STRIPS, RATE, 300)
    for slot in GAINS:
        mixer.move(slot_number(0, slot), 0.0, 0)
    mixer.render(stems, 100, 50, mix)
    assert (stems[0, :, 100:150] == 0).all()
    assert (np.delete(stems, np.s_[100:150], axis=2) == np.delete(before, np.s_[100:150], axis=2)).all()
    assert (np.delete(mix, np.s_[100:150], axis=1) == 9.0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_is_a_gap_and_no_more(bad: float):
    mixer, mix = StripMixer(2, RATE, 256), np.zeros((2, 256), np.float32)
    mixer.move(slot_number(1, Slot.LOW), 0.0, RAMP)
    mixer.move(slot_number(1, Slot.FILTER), 0.5, RAMP)
    broken = noise(256, 2)
    broken[1, 0, 50] = bad
    mixer.render(broken, 0, 256, mix)
    assert not mix.any()
    assert not broken.any()
    mixer.render(stems := noise(256, 2), 0, 256, mix)
    assert np.isfinite(mix).all()
    assert np.isfinite(mixer.peaks).all()
    assert stems[1].any()


@pytest.mark.parametrize(("slot", "value"), [(-1, 0.0), (slot_count(1), 0.0), (0, np.nan), (1, -np.inf)])
def test_a_move_that_means_nothing_is_ignored(slot: int, value: float):
    mixer, mix, stems = StripMixer(1, RATE, 64), np.zeros((2, 64), np.float32), noise(64, 1)
    mixer.move(slot, value, 0)
    mixer.render(stems, 0, 64, mix)
    assert mix.tobytes() == noise(64, 1)[0].tobytes()


def test_rendering_allocates_no_samples():
    most = 4_096
    mixer, stems, mix = StripMixer(STRIPS, RATE, most), noise(most), np.zeros((2, most), np.float32)
    sizes = (1, 15, 16, 17, 64, 100, 256, 1_024, most)

    def blocks(count: int) -> None:
        for index in range(count):
            for slot in range(slot_count(STRIPS)):
                mixer.move(slot, (index + slot) % 5 / 4, 500)
            mixer.render(stems, 0, sizes[index % len(sizes)], mix)
            if index % 10 == 0:
                mixer.render(stems, 0, sizes[index // 10 % len(sizes)], mix)  # with controls at rest, too

    blocks(100)
    tracemalloc.start()
    try:
        blocks(20)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        blocks(200)
        after, peak = tracemalloc.get_traced_memory()
        arrays = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)]
        )
    finally:
        tracemalloc.stop()
    assert not arrays.traces
    # Views and numbers are small objects and come and go; the samples of one channel would be 16 KiB.
    assert peak - before < 4_096
    assert after - before < 1_024


def test_rendering_warns_of_nothing():
    mixer, mix = StripMixer(1, RATE, 64), np.zeros((2, 64), np.float32)
    stems = np.full((1, 2, 64), 3e38, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for slot in Slot:
            mixer.move(slot_number(0, slot), 4.0, 10)
        mixer.render(stems, 0, 64, mix)
    assert np.isfinite(mix).all()
