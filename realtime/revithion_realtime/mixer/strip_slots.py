"""The numbered targets of the mixer: what a move of a control is addressed to."""

from __future__ import annotations

import enum


class Slot(enum.IntEnum):
    """A target within a strip. Gains are linear and stand at 1 if nobody moved them; the filter stands at 0."""

    GAIN_LEFT = 0
    GAIN_RIGHT = 1
    LOW = 2
    """Gain of the low band of the equaliser; 0 kills it."""
    MID = 3
    HIGH = 4
    FILTER = 5
    """−1 (low-pass closed) to 1 (high-pass closed)."""


SLOTS_PER_STRIP = len(Slot)


def slot_number(strip: int, slot: Slot) -> int:
    """Number of a target of the strip ``strip``, counted from 0."""
    return strip * SLOTS_PER_STRIP + slot


def monitor_slot(strips: int) -> int:
    """Number of the linear gain of the monitor mix, which stands after the strips."""
    return strips * SLOTS_PER_STRIP


def slot_count(strips: int) -> int:
    """How many targets a mixer of so many strips has."""
    return monitor_slot(strips) + 1


def neutral_targets(strips: int) -> list[float]:
    """Where all targets stand if nobody moved them, in the order of their numbers."""
    return [0.0 if slot is Slot.FILTER else 1.0 for slot in Slot] * strips + [1.0]
