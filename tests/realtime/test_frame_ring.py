"""Rings between processes: positions, gaps, overwriting, and a writer that does not wait."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from revithion_realtime.memory.frame_ring import FrameRing
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
from revithion_realtime.memory.move_ring import FIELDS, NOW, MoveRing

CAPACITY = 1_024
COUNTED = 400_000


def ring(capacity: int = CAPACITY) -> FrameRing:
    return FrameRing(np.zeros((2, capacity), np.float32), np.zeros(2, np.int64))


def counting(start: int, frames: int) -> np.ndarray:
    """Frame n holds n and −n, exact in float32 up to 2^24."""
    row = np.arange(start, start + frames, dtype=np.float32)
    return np.stack([row, -row])


@given(st.lists(st.integers(1, CAPACITY // 8), min_size=1, max_size=60))
def test_what_was_written_last_can_be_read_in_any_pieces(sizes):
    frames = ring()
    for size in sizes:
        frames.write(counting(frames.end, size))
    first = max(0, frames.end - CAPACITY + CAPACITY // 8)
    out = np.zeros((2, frames.end - first), np.float32)
    assert frames.read(first, out)
    assert np.array_equal(out, counting(first, frames.end - first))


def test_what_is_overwritten_or_not_there_yet_is_not_read():
    frames = ring()
    frames.write(counting(0, CAPACITY))
    frames.write(counting(CAPACITY, 100))
    out = np.zeros((2, 50), np.float32)
    assert not frames.read(0, out)
    assert not frames.read(CAPACITY + 80, out)
    assert frames.read(CAPACITY + 50, out)


def test_after_a_gap_nothing_from_before_it_is_read():
    frames = ring()
    frames.write(counting(0, 100))
    frames.skip_to(500)
    frames.write(counting(500, 100))
    out = np.zeros((2, 50), np.float32)
    assert (frames.begin, frames.end) == (500, 600)
    assert not frames.read(40, out)
    assert not frames.read(490, out)
    assert frames.read(500, out)
    assert np.array_equal(out, counting(500, 50))


def write_counted(name: str) -> None:
    segment = SharedMemory(name=name)
    counters = np.ndarray((2,), np.int64, buffer=segment.buf)
    samples = np.ndarray((2, CAPACITY), np.float32, buffer=segment.buf, offset=16)
    frames = FrameRing(samples, counters)
    while frames.end < COUNTED:
        frames.write(counting(frames.end, 1 + frames.end % (CAPACITY // 8)))
        if not frames.end % 7:
            time.sleep(0)


def test_a_reader_in_another_process_gets_what_was_written_or_is_told_that_it_came_too_late():
    segment = SharedMemory(create=True, size=16 + 8 * CAPACITY)
    counters = np.ndarray((2,), np.int64, buffer=segment.buf)
    samples = np.ndarray((2, CAPACITY), np.float32, buffer=segment.buf, offset=16)
    frames = FrameRing(samples, counters)
    writer = multiprocessing.get_context("spawn").Process(target=write_counted, args=(segment.name,), daemon=True)
    writer.start()
    got, late = 0, 0
    out = np.zeros((2, 96), np.float32)
    try:
        while writer.is_alive() or frames.end < COUNTED:
            start = max(0, frames.end - 96 - got % 700)
            if frames.read(start, out):
                got += 1
                assert np.array_equal(out, counting(start, 96))
            else:
                late += 1
    finally:
        writer.join(30)
        del frames, samples, counters
        segment.close()
        segment.unlink()
    assert writer.exitcode == 0
    assert got > 100


@given(st.lists(st.lists(st.tuples(st.integers(0, 40), st.floats(-1, 12)), min_size=1, max_size=9), max_size=20))
def test_moves_come_out_as_they_were_put_in(batches):
    moves = MoveRing(np.zeros((64, FIELDS)), np.zeros(2, np.int64))
    waiting = []
    for number, batch in enumerate(batches):
        if moves.put(batch, number + 1):
            waiting += [(number + 1, *move) for move in batch]
        else:
            assert len(waiting) + len(batch) > 64
        if number % 3 == 0:
            while waiting:
                frame, slot, value = waiting.pop(0)
                assert moves.next_frame() == frame
                assert moves.take() == (slot, value)
            assert moves.next_frame() == -1


def test_a_batch_that_does_not_fit_is_not_put_in_at_all():
    moves = MoveRing(np.zeros((4, FIELDS)), np.zeros(2, np.int64))
    assert moves.put([(1, 1.0)] * 3, NOW)
    assert not moves.put([(2, 2.0)] * 2, NOW)
    assert [moves.take() for _ in range(3)] == [(1, 1.0)] * 3
    assert moves.next_frame() == -1


def test_two_that_attach_to_a_segment_see_the_same():
    layout = LiveLayout.fitting(4, 48_000, 2_000)
    first = LiveMemory(layout)
    second = LiveMemory(layout, first.name)
    first.capture.write(counting(0, 300))
    out = np.zeros((2, 300), np.float32)
    assert second.capture.read(0, out)
    assert np.array_equal(out, counting(0, 300))
    assert layout.ring_frames >= 5 * 48_000
    second.close()
    first.close()
