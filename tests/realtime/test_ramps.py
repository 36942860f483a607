"""Values that move in a straight line: exact to the frame, in whatever pieces time is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_realtime.mixer.ramps import Ramps

MOST = 512


def gain_of(ramps: Ramps, frames: int) -> np.ndarray:
    """What the value 0 is in the next frames, one float64 each."""
    ones = np.ones(frames)
    ramps.scale(0, ones)
    ramps.advance(frames)
    return ones


def test_a_move_is_a_straight_line_that_ends_with_its_last_frame():
    ramps = Ramps([1.0], MOST, np.float64)
    ramps.move(0, 0.0, 4)
    assert gain_of(ramps, 6).tolist() == [0.75, 0.5, 0.25, 0.0, 0.0, 0.0]


def test_a_move_over_no_frames_is_there_at_once():
    ramps = Ramps([1.0], MOST, np.float64)
    ramps.move(0, 0.25, 0)
    assert ramps.rests(0)
    assert gain_of(ramps, 2).tolist() == [0.25, 0.25]


def test_a_move_changes_nothing_before_its_frame():
    ramps = Ramps([0.5], MOST, np.float64)
    before = gain_of(ramps, 100)
    ramps.move(0, 1.0, 10)
    assert (before == 0.5).all()
    assert gain_of(ramps, 1)[0] == pytest.approx(0.55)


def test_a_move_starts_from_where_the_last_one_got_to():
    ramps = Ramps([0.0], MOST, np.float64)
    ramps.move(0, 1.0, 10)
    assert gain_of(ramps, 4)[-1] == pytest.approx(0.4)
    ramps.move(0, 0.0, 4)
    assert gain_of(ramps, 5) == pytest.approx([0.3, 0.2, 0.1, 0.0, 0.0])


def test_saying_the_same_again_does_not_hold_a_move_up():
    ramps = Ramps([0.0], MOST, np.float64)
    ramps.move(0, 1.0, 10)
    for _ in range(10):
        gain_of(ramps, 1)
        ramps.move(0, 1.0, 10)
    assert ramps.rests(0)
    assert ramps.at(0, 0) == 1.0


def test_saying_the_same_with_less_time_hurries_a_move():
    ramps = Ramps([0.0], MOST, np.float64)
    ramps.move(0, 1.0, 100)
    ramps.move(0, 1.0, 2)
    assert gain_of(ramps, 3).tolist() == [0.5, 1.0, 1.0]


def test_values_move_by_themselves():
    ramps = Ramps([1.0, 1.0], MOST, np.float64)
    ramps.move(1, 0.0, 10)
    assert (gain_of(ramps, 20) == 1.0).all()
    assert ramps.at(1, 0) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_value_of_one_leaves_samples_bit_for_bit(dtype: type):
    ramps = Ramps([1.0], MOST, dtype)
    samples = np.random.default_rng(0).standard_normal((2, MOST)).astype(dtype)
    before = samples.copy()
    ramps.scale(0, samples)
    assert samples.tobytes() == before.tobytes()


@given(
    st.lists(st.tuples(st.integers(1, 60), st.floats(-2, 4), st.integers(0, 100)), min_size=1, max_size=12),
    st.lists(st.integers(1, 80), min_size=1, max_size=30),
)
def test_pieces_do_not_matter_to_a_bit(moves: list[tuple[int, float, int]], pieces: list[int]):
    whole, cut = (Ramps([1.0], MOST, np.float32) for _ in range(2))
    sizes = iter(pieces)
    for frames, target, over in moves:
        expected = np.ones((2, frames), np.float32)
        whole.move(0, target, over)
        whole.scale(0, expected)
        whole.advance(frames)
        found = np.ones((2, frames), np.float32)
        cut.move(0, target, over)
        at = 0
        while at < frames:
            end = min(frames, at + next(sizes, 7))
            cut.scale(0, found[:, at:end])
            cut.advance(end - at)
            at = end
        assert found.tobytes() == expected.tobytes()


@given(st.floats(-2, 4), st.floats(-2, 4), st.integers(1, 300))
def test_at_says_what_scale_does(start: float, target: float, over: int):
    ramps = Ramps([start], MOST, np.float64)
    ramps.move(0, target, over)
    said = [ramps.at(0, frame) for frame in range(MOST)]
    assert gain_of(ramps, MOST) == pytest.approx(said, abs=1e-12)
    assert said[over - 1 :] == [target] * (MOST - over + 1)
