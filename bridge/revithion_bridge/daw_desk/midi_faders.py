"""Which knob, fader or button of a MIDI controller moves which stem. Pure; any thread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mido

from revithion_bridge.daw.bus_plan import LOWEST_GAIN_DB
from revithion_bridge.daw_desk.latest_moves import FaderMove
from revithion_stems.errors import RequestError

UNITY = 100
"""The value at which a fader stands at 0 dB."""
HIGHEST_GAIN_DB = 6.0
_HIGHEST = 127
_ON = 64
_MOST_CC = 119
"""Higher numbers are no controllers: they are commands, such as "all notes off"."""


def fader_gain_db(value: int) -> float:
    """The gain of a controller's value, 0 to 127: silent, 0 dB at 100, 6 dB at the top.

    Below 0 dB the amplitude is the square of the way, as on a mixer: -12 dB at half, -40 dB at a tenth.
    """
    if value <= 0:
        return LOWEST_GAIN_DB
    if value <= UNITY:
        return round(40.0 * math.log10(value / UNITY), 2) + 0.0
    return round(HIGHEST_GAIN_DB * (value - UNITY) / (_HIGHEST - UNITY), 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiFaders:
    """The controller's layout: the stems' controls have numbers that follow each other.

    Attributes:
        stems: In the order of the controls.
        gain_cc: Controller of the first stem's gain.
        mute_cc: Controller of the first stem's mute: on from 64 on.
        mute_note: Note of the first stem's mute, on while it sounds; None for no notes.
        channel: 1 to 16; None for all.

    Raises:
        RequestError: Numbers that MIDI does not have, or that mean two things.
    """

    stems: tuple[str, ...]
    gain_cc: int = 20
    mute_cc: int = 40
    mute_note: int | None = None
    channel: int | None = None

    def __post_init__(self) -> None:
        count = len(self.stems)
        if not count:
            raise _wrong("stems: there are none")
        for name, first, most in (
            ("gain_cc", self.gain_cc, _MOST_CC),
            ("mute_cc", self.mute_cc, _MOST_CC),
            ("mute_note", self.mute_note or 0, _HIGHEST),
        ):
            if not 0 <= first <= most - count + 1:
                raise _wrong(f"{name}: {first} and the next for {count} stems are not within 0 to {most}")
        if abs(self.gain_cc - self.mute_cc) < count:
            raise _wrong(f"gain_cc {self.gain_cc} and mute_cc {self.mute_cc} overlap, with {count} stems")
        if self.channel is not None and not 1 <= self.channel <= 16:
            raise _wrong(f"channel: {self.channel}; 1 to 16 are possible")

    def read(self, message: mido.Message) -> tuple[str, FaderMove] | None:
        """The stem that a message is for and what becomes of its fader; None if it is for nobody."""
        data: dict[str, Any] = message.dict()
        kind = data["type"]
        if kind not in ("control_change", "note_on", "note_off"):
            return None
        if self.channel is not None and data["channel"] != self.channel - 1:
            return None
        if kind != "control_change":
            stem = self._stem(data["note"], self.mute_note)
            return None if stem is None else (stem, FaderMove(muted=kind == "note_on" and data["velocity"] > 0))
        stem = self._stem(data["control"], self.gain_cc)
        if stem is not None:
            return stem, FaderMove(gain_db=fader_gain_db(data["value"]))
        stem = self._stem(data["control"], self.mute_cc)
        return None if stem is None else (stem, FaderMove(muted=data["value"] >= _ON))

    def _stem(self, number: int, first: int | None) -> str | None:
        if first is None or not first <= number < first + len(self.stems):
            return None
        return self.stems[number - first]


def _wrong(reason: str) -> RequestError:
    return RequestError(reason, hint="See `revithion-stems daw midi --help`.", code="request.midi")
