"""Frames that one process writes and others read, by their absolute position. Lock-free; nobody ever waits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from revithion_realtime.memory.fence import fence
from revithion_stems.audio import Float32

Int64 = npt.NDArray[np.int64]
_BEGIN, _END = 0, 1
COUNTERS = 2
"""64-bit counters that a ring needs."""


class FrameRing:
    """A ring over memory that is shared: one writer, any number of readers.

    The writer overwrites the oldest frames and never waits for a reader; a reader that comes too late learns so. In it
    are the frames ``begin`` to ``end``, of which the last ``capacity`` still stand. No method allocates memory for
    samples, locks, or raises for what the other side did.

    Args:
        samples: float32 ``[channels, capacity]`` in shared memory.
        counters: int64 ``[2]`` in shared memory: begin and end.
    """

    def __init__(self, samples: Float32, counters: Int64) -> None:
        self._samples = samples
        self._counters = counters
        self.channels: int = samples.shape[0]
        self.capacity: int = samples.shape[1]

    @property
    def begin(self) -> int:
        """First frame that was written without a gap up to ``end``."""
        return int(self._counters[_BEGIN])

    @property
    def end(self) -> int:
        """The frame that will be written next."""
        return int(self._counters[_END])

    def write(self, block: Float32) -> None:
        """Appends ``[channels, n]``, n ≤ capacity; by the writer alone."""
        end, frames = self.end, block.shape[-1]
        at = end % self.capacity
        first = min(frames, self.capacity - at)
        self._samples[:, at : at + first] = block[:, :first]
        if first < frames:
            self._samples[:, : frames - first] = block[:, first:]
        fence()  # the samples are there before the counter says so
        self._counters[_END] = end + frames

    def skip_to(self, frame: int) -> None:
        """The next frame to be written is ``frame``; all before it is gone. By the writer alone."""
        self._counters[_BEGIN] = frame
        fence()
        self._counters[_END] = frame

    def read(self, start: int, out: Float32) -> bool:
        """Copies the frames from ``start`` on into ``out`` ``[channels, n]``.

        Returns:
            Whether all of them were there, and still are; else ``out`` holds nothing of use.
        """
        frames = out.shape[-1]
        if not frames:
            return True
        if start < self.begin or start + frames > self.end or start < self.end - self.capacity:
            return False
        fence()
        at = start % self.capacity
        first = min(frames, self.capacity - at)
        out[:, :first] = self._samples[:, at : at + first]
        if first < frames:
            out[:, first:] = self._samples[:, : frames - first]
        fence()
        # A writer may be in the middle of a block that it has not counted yet: no block is longer than an eighth.
        return start >= self.end + self.capacity // 8 - self.capacity and start >= self.begin
