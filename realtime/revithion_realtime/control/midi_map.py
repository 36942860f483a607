"""Which knob, fader or button of a MIDI controller moves what of a live session. Pure; any thread."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import mido

from revithion_realtime.control.midi_target import RANGES, MidiTarget, is_decibel
from revithion_stems.fader_law import fader_gain_db

HIGHEST_VALUE = 127

_PRESSED = 64
"""A button that sends a controller is pressed from this value on."""

_CENTRE = 64
_UNITY = 95
_SAME = 1e-6
"""Values nearer than that are the same: half of a step of a controller is hundreds of times more."""


class MidiLaw(Enum):
    """How a control's 128 values lie between the ends.

    ``FADER``: dB, 0 dB at 95, three quarters of the way; ``CENTRE``: nothing done at 64; ``LINEAR``: evenly.
    """

    FADER = "fader"
    CENTRE = "centre"
    LINEAR = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiAddress:
    """What a message is about: its kind, ``cc`` or ``note``, its channel, 1 to 16, and its number, 0 to 127."""

    kind: str
    channel: int
    number: int

    def message(self, value: int) -> mido.Message:
        """A message of that kind with a value, 0 to 127: a note's is its velocity."""
        channel = self.channel - 1
        if self.kind == "cc":
            return mido.Message("control_change", channel=channel, control=self.number, value=value)
        return mido.Message("note_on", channel=channel, note=self.number, velocity=value)

    def pressed(self, value: int) -> bool:
        """Whether a button that sends that value is down."""
        return value >= (_PRESSED if self.kind == "cc" else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiLed:
    """A light: the messages that turn it on and off."""

    address: MidiAddress
    on: int = HIGHEST_VALUE
    off: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiControl:
    """A knob, fader or button.

    Attributes:
        address: What it sends.
        target: What it moves.
        values: What each of its 128 values means, in the target's unit; empty for a button.
        hold: Whether a button is on for as long as it is held; else each press turns it over.
        motor: Whether it is moved by the messages that it sends: it follows, and moves at once.
        led: Its light, if it has one.
    """

    address: MidiAddress
    target: MidiTarget
    values: tuple[float, ...] = ()
    hold: bool = False
    motor: bool = False
    led: MidiLed | None = None

    def value_of(self, current: float) -> int:
        """Where the control would stand, 0 to 127, for a value of its target; of equal ones the lowest."""
        rising = self.values if self.values[0] <= self.values[-1] else self.values[::-1]
        above = min(bisect_left(rising, current), HIGHEST_VALUE)
        nearer_below = above > 0 and current - rising[above - 1] < rising[above] - current
        place = above - 1 if nearer_below else above
        return place if rising is self.values else HIGHEST_VALUE - place

    def stands_at(self, value: int, current: float) -> bool:
        """Whether a control that stands at ``value``, 0 to 127, means a value of its target."""
        return abs(self.values[value] - current) <= _SAME

    def reached(self, before: int, value: int, current: float) -> bool:
        """Whether a control that went from ``before`` to ``value`` has met or passed a value of its target.

        One step more on both sides is near enough: a value that was set elsewhere lies between two steps. What lies
        beyond the control's own ends counts as at the end, or nothing could pick it up.
        """
        low, high = sorted((self.values[0], self.values[-1]))
        wanted = min(max(current, low), high)
        first, last = max(0, min(before, value) - 1), min(HIGHEST_VALUE, max(before, value) + 1)
        least, most = sorted((self.values[first], self.values[last]))
        return least - _SAME <= wanted <= most + _SAME


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiMap:
    """A controller's layout.

    Attributes:
        title: What people call it.
        port: What the name of its port contains; empty for any.
        controls: By what they send.
    """

    title: str
    port: str
    controls: Mapping[MidiAddress, MidiControl]

    def with_control(self, control: MidiControl) -> MidiMap:
        """The layout with one more control, which replaces one that sends the same."""
        return dataclasses.replace(self, controls={**self.controls, control.address: control})


def address_of(message: mido.Message) -> tuple[MidiAddress, int] | None:
    """What a message is about, and its value, 0 to 127 (0 for the end of a note); None for other kinds."""
    data: dict[str, Any] = message.dict()
    if data["type"] == "control_change":
        return MidiAddress(kind="cc", channel=data["channel"] + 1, number=data["control"]), data["value"]
    if data["type"] in ("note_on", "note_off"):
        value = data["velocity"] if data["type"] == "note_on" else 0
        return MidiAddress(kind="note", channel=data["channel"] + 1, number=data["note"]), value
    return None


def control_for(target: MidiTarget, address: MidiAddress) -> MidiControl:
    """A control with everything else as it usually is."""
    if target.moves:
        return MidiControl(address=address, target=target, values=law_values(target.sets, usual_law(target.sets)))
    return MidiControl(address=address, target=target, led=MidiLed(address=address))


def usual_law(sets: str) -> MidiLaw:
    """The law of a target for which none is written."""
    return MidiLaw.FADER if sets in ("gain", "monitor") else MidiLaw.CENTRE


def law_values(sets: str, law: MidiLaw, ends: tuple[float, float] | None = None) -> tuple[float, ...]:
    """What each of a control's 128 values means, in the unit of a key of :data:`RANGES`; ``ends`` for ``LINEAR``."""
    low, high = RANGES[sets]
    if law is MidiLaw.LINEAR:
        start, end = ends or (low, high)
        return tuple(start + (end - start) * value / HIGHEST_VALUE for value in range(HIGHEST_VALUE + 1))
    if is_decibel(sets):
        unity = (_UNITY if law is MidiLaw.FADER else _CENTRE) / HIGHEST_VALUE
        return tuple(fader_gain_db(value / HIGHEST_VALUE, unity=unity) for value in range(HIGHEST_VALUE + 1))
    # 64 is the middle that controllers click into, so the halves have 64 and 63 steps.
    return tuple(
        (value - _CENTRE) / (_CENTRE if value < _CENTRE else HIGHEST_VALUE - _CENTRE)
        for value in range(HIGHEST_VALUE + 1)
    )
