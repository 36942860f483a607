"""The memory that the processes of a live session share: one segment, cut into rings, moves and figures."""

from __future__ import annotations

import contextlib
import math
import os
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from revithion_realtime.memory import frame_ring, move_ring
from revithion_realtime.memory.figures import AudioFigure, InferenceFigure
from revithion_realtime.memory.frame_ring import FrameRing
from revithion_realtime.memory.move_ring import MoveRing
from revithion_realtime.mixer.strip_slots import neutral_targets, slot_count
from revithion_stems.errors import LiveError

RING_S = 5.0
"""Seconds that a ring holds at least: more than any stall that can be caught up with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLayout:
    """What is in the segment, and where.

    Attributes:
        stems: How many the model gives.
        path_frames: Capacity of the rings that the path's delay has to fit into, many times: capture and stems.
        ring_frames: Capacity of the others.
    """

    stems: int
    path_frames: int
    ring_frames: int

    @classmethod
    def fitting(cls, stems: int, sample_rate: int, path_frames: int) -> LiveLayout:
        """The layout for a rate in Hz and a path of that delay."""
        ring_frames = _power_of_two(RING_S * sample_rate)
        return cls(stems=stems, path_frames=max(ring_frames, _power_of_two(4 * path_frames)), ring_frames=ring_frames)

    @property
    def parts(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Name → type and shape of each array; those of eight bytes first, so that all are aligned."""
        counters = frame_ring.COUNTERS
        rings = {
            "capture": (2, self.path_frames),
            "source": (2, self.ring_frames),
            "stems": (2 * self.stems, self.path_frames),
            "played": (2 * self.stems, self.ring_frames),
        }
        return {
            "moves": (np.float64, (move_ring.MOVES, move_ring.FIELDS)),
            "targets": (np.float64, (slot_count(self.stems),)),
            "audio": (np.float64, (len(AudioFigure),)),
            "inference": (np.float64, (len(InferenceFigure),)),
            "moves_counters": (np.int64, (move_ring.COUNTERS,)),
            **{f"{name}_counters": (np.int64, (counters,)) for name in rings},
            "peaks": (np.float32, (self.stems + 1, 2)),
            **{name: (np.float32, shape) for name, shape in rings.items()},
        }

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in self.parts.values())


class LiveMemory:
    """The segment, made by the control process and attached to by the others. Close it when done.

    Args:
        layout: What is in it.
        name: Of a segment that is there; None makes a new one, all zeros.

    Attributes:
        capture: What the device heard: ``[2, …]``. Written by the callback.
        source: A file's sound, ``[2, …]``. Written by the control process.
        stems: ``[2·stems, …]``: frame k of it is what the model gave when it had heard frame k. Written by inference.
        played: ``[2·stems, …]``: the stems as they were heard, before their faders. Written by the callback.
        moves: Of controls. Put in by the control process.
        targets: float64 ``[slots]``: where all controls were moved to last, for a callback that begins.
        audio: Figures of the callback, by :class:`AudioFigure`.
        inference: Figures of inference, by :class:`InferenceFigure`.
        peaks: float32 ``[stems + 1, 2]``: linear peaks after the strips, and of the mix.

    Raises:
        LiveError: ``live.failed``: there is no room for it.
    """

    def __init__(self, layout: LiveLayout, name: str | None = None) -> None:
        try:
            self._segment = SharedMemory(name=name, create=name is None, size=layout.size)
            if name is None:
                _reserve(self._segment)
        except OSError as exc:
            raise LiveError(
                f"{layout.size >> 20} MiB of shared memory could not be had: {exc}",
                hint="Close other programs; in a container, give it a larger /dev/shm.",
                code="live.failed",
            ) from exc
        arrays: dict[str, Any] = {}
        at = 0
        for part, (kind, shape) in layout.parts.items():
            array = np.ndarray(shape, kind, buffer=self._segment.buf, offset=at)
            arrays[part] = array
            at += array.nbytes
        self._owner = name is None
        self.layout = layout
        self.capture, self.source, self.stems, self.played = (
            FrameRing(arrays[ring], arrays[f"{ring}_counters"]) for ring in ("capture", "source", "stems", "played")
        )
        self.moves = MoveRing(arrays["moves"], arrays["moves_counters"])
        self.targets: Any = arrays["targets"]
        self.audio: Any = arrays["audio"]
        self.inference: Any = arrays["inference"]
        self.peaks: Any = arrays["peaks"]
        if self._owner:
            for array in arrays.values():
                array.fill(0)  # also touches each page, so that no callback is the first to
            self.targets[:] = neutral_targets(layout.stems)

    @property
    def name(self) -> str:
        """What others attach to."""
        return self._segment.name

    def close(self) -> None:
        """Lets go of it; who made it also removes its name. A thread that still looks into it does no harm."""
        if self._owner:
            with contextlib.suppress(FileNotFoundError):
                self._segment.unlink()
        # It would unmap the pages under all views, since numpy does not tell it of them, and the next look would end
        # the process by SIGSEGV. Without it they go with the last view.
        segment: Any = self._segment
        segment._buf = segment._mmap = None
        segment.close()


def _power_of_two(least: float) -> int:
    return 1 << math.ceil(math.log2(least))


def _reserve(segment: SharedMemory) -> None:
    """Has its pages set aside: Linux promises more than it has, and kills by SIGBUS who uses them."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(segment._fd, 0, segment.size)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        segment.unlink()
        segment.close()
        raise
