"""Figures that one process writes and others look at: which there are, and at which place of the board."""

from __future__ import annotations

import enum


class AudioFigure(enum.IntEnum):
    """Written by the audio process; float64 each."""

    FRAMES = 0
    BLOCKS = enum.auto()
    LATE_BLOCKS = enum.auto()
    LATE_TIMES = enum.auto()
    WET = enum.auto()  # share of the stems in what is heard, 0 (dry) to 1
    XRUNS = enum.auto()
    STARVED_BLOCKS = enum.auto()  # a file's sound was not there in time
    FAULTS = enum.auto()  # callbacks that a bug ended; they are silent
    CALLBACK_S = enum.auto()  # longest of the last second or so
    CALLBACK_LOAD = enum.auto()
    BLOCK_FRAMES = enum.auto()
    # Through a loop, by the measuring callback:
    SENT_FRAME = enum.auto()
    HEARD_FRAME = enum.auto()
    PLAYED_FRAME = enum.auto()
    ROUNDS = enum.auto()


class InferenceFigure(enum.IntEnum):
    """Written by the process of inference; float64 each."""

    SKIPPED_FRAMES = 0
    LOAD = enum.auto()
