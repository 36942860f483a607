"""Moves of controls on their way to the audio callback: at which frame which slot goes where. Lock-free."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from revithion_realtime.memory.fence import fence

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
MOVES = 1_024
"""Moves that fit; a scene of six stems has 37."""

FIELDS = 3
"""Frame, slot, value: all are whole or small enough to be exact as float64."""

COUNTERS = 2
NOW = 0
"""As a frame: at the beginning of the next block."""

_WRITTEN, _READ = 0, 1


class MoveRing:
    """One process puts moves in, the callback takes them out, in order.

    Args:
        records: float64 ``[MOVES, FIELDS]`` in shared memory.
        counters: int64 ``[2]`` in shared memory: written and read.
    """

    def __init__(self, records: Float64, counters: Int64) -> None:
        self._records = records
        self._counters = counters

    def put(self, moves: Iterable[tuple[int, float]], at_frame: int = NOW) -> bool:
        """Puts moves ``(slot, value)`` in, which the callback sees all together; by one thread at a time.

        Returns:
            Whether there was room; else none is in.
        """
        rows = [(at_frame, slot, value) for slot, value in moves]
        written = int(self._counters[_WRITTEN])
        if written + len(rows) - int(self._counters[_READ]) > len(self._records):
            return False
        for number, row in enumerate(rows, written):
            self._records[number % len(self._records)] = row
        fence()  # the moves are there before the counter says so
        self._counters[_WRITTEN] = written + len(rows)
        return True

    def next_frame(self) -> int:
        """At which frame the oldest move is, or −1 if there is none; in the callback."""
        read = self._counters[_READ]
        if read == self._counters[_WRITTEN]:
            return -1
        fence()
        return int(self._records[read % len(self._records), 0])

    def take(self) -> tuple[int, float]:
        """Removes the oldest move, which must be there: slot and value; in the callback."""
        read = self._counters[_READ]
        record = self._records[read % len(self._records)]
        slot, value = int(record[1]), float(record[2])
        fence()
        self._counters[_READ] = read + 1
        return slot, value
