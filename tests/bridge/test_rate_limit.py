"""Token buckets on a clock that the test sets, and percentiles of durations."""

from __future__ import annotations

import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_bridge.latency import LatencyWindow
from revithion_bridge.messages import Latency
from revithion_bridge.rate_limit import RateLimits, TokenBucket


class Clock:
    """Shows the time that it is told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_burst_then_the_rate(clock):
    bucket = TokenBucket(2.0, 5, clock)
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]
    clock.now += 0.25
    assert not bucket.take()
    clock.now += 0.25  # half a token each: what the refused one had earned is not lost
    assert bucket.take()
    assert not bucket.take()
    clock.now += 1e6
    assert [bucket.take() for _ in range(6)] == [True] * 5 + [False]


def test_several_at_once_are_all_or_nothing(clock):
    bucket = TokenBucket(1.0, 3, clock)
    assert not bucket.take(4)
    assert bucket.take(2)
    assert not bucket.take(2)
    assert bucket.take(1)


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing(clock):
    bucket = TokenBucket(1.0, 1, clock)
    assert bucket.take()
    clock.now -= 500
    assert not bucket.take()
    clock.now += 1
    assert bucket.take()


def test_no_rate_at_all(clock):
    bucket = TokenBucket(0.0, 1, clock)
    assert bucket.take()
    clock.now += 1e9
    assert not bucket.take()


@pytest.mark.parametrize(("rate", "burst"), [(-1.0, 1), (1.0, 0), (1.0, -1), (math.nan, 1), (1.0, math.nan)])
def test_impossible_numbers(rate, burst):
    with pytest.raises(ValueError, match="must be"):
        TokenBucket(rate, burst)


@given(
    st.integers(min_value=1, max_value=100),
    st.integers(min_value=1, max_value=50),
    st.lists(st.integers(min_value=0, max_value=64), max_size=200),
)
def test_never_more_than_the_burst_and_what_was_earned(rate, burst, steps):
    clock = Clock()
    bucket = TokenBucket(float(rate), burst, clock)
    taken = 0
    for step in steps:
        clock.now += step / 64
        taken += bucket.take()
        assert taken <= burst + rate * (clock.now - 1000.0) + 1e-6


def test_the_real_clock():
    bucket = TokenBucket(1e-6, 2)
    assert [bucket.take() for _ in range(3)] == [True, True, False]


def test_each_key_has_its_own(clock):
    limits = RateLimits(1.0, 2, clock=clock)
    assert [limits.take("a") for _ in range(3)] == [True, True, False]
    assert limits.take(("b", 1))
    clock.now += 1
    assert [limits.take("a") for _ in range(2)] == [True, False]


def test_buckets_are_bounded_and_the_ones_in_use_stay(clock):
    limits = RateLimits(0.0, 1, most=10, clock=clock)
    assert limits.take("busy")
    for number in range(1000):
        assert limits.take(number)
        assert not limits.take("busy")
    assert len(limits) == 10


def test_no_durations_yet():
    assert LatencyWindow().summary() == Latency()


@pytest.mark.parametrize(
    ("durations", "p50", "p90", "p99"),
    [([3.0], 3.0, 3.0, 3.0), ([2.0, 1.0], 1.0, 2.0, 2.0), (range(100, 0, -1), 50, 90, 99), (range(1, 11), 5, 9, 10)],
)
def test_percentiles_are_durations_that_there_were(durations, p50, p90, p99):
    window = LatencyWindow()
    for seconds in durations:
        window.add(seconds)
    assert window.summary() == Latency(count=len(durations), p50_s=p50, p90_s=p90, p99_s=p99)


def test_old_durations_are_forgotten_but_counted():
    window = LatencyWindow(size=4)
    for seconds in (100.0, 100.0, 1.0, 2.0, 3.0, -4.0):
        window.add(seconds)
    assert window.summary() == Latency(count=6, p50_s=1.0, p90_s=3.0, p99_s=3.0)


def test_durations_from_several_threads():
    window = LatencyWindow(size=8)

    def work():
        for number in range(2000):
            window.add(float(number % 7))
            window.summary()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert window.summary().count == 8000
