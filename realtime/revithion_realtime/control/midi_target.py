"""What a knob, fader or button moves of a live session: its name in a mapping, its value now, and moving it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from revithion_stems.errors import LiveError
from revithion_stems.live import HIGHEST_DB, LOWEST_DB, LiveControl, LiveState, StripChange

RANGES: Mapping[str, tuple[float, float]] = {
    "gain": (LOWEST_DB, HIGHEST_DB),
    "pan": (-1.0, 1.0),
    "low": (LOWEST_DB, HIGHEST_DB),
    "mid": (LOWEST_DB, HIGHEST_DB),
    "high": (LOWEST_DB, HIGHEST_DB),
    "filter": (-1.0, 1.0),
    "monitor": (LOWEST_DB, HIGHEST_DB),
}
"""What moves from one end to the other, and its ends."""

SWITCHES = ("mute", "solo", "low_kill", "mid_kill", "high_kill", "record")
"""What is on or off. A scene is called when its button is pressed."""

_WHOLE_DESK = ("monitor", "record")
_FIELDS = {"gain": "gain_db", "low": "low_db", "mid": "mid_db", "high": "high_db", "pan": "pan", "filter": "filter"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiTarget:
    """What a control moves.

    Attributes:
        sets: A key of :data:`RANGES`, one of :data:`SWITCHES`, or ``scene``.
        strip: Name of a stem, or the number of a strip from 1; empty for the whole desk.
        scene: Name of the scene.
    """

    sets: str
    strip: str | int = ""
    scene: str = ""

    @classmethod
    def parse(cls, text: str) -> MidiTarget:
        """Reads ``vocals.gain``, ``2.pan``, ``monitor``, ``record`` or ``scene.NAME``.

        Raises:
            LiveError: ``live.options``: it is none of these.
        """
        if text in _WHOLE_DESK:
            return cls(sets=text)
        strip, _, sets = text.rpartition(".")
        if text.startswith("scene.") and len(text) > len("scene."):
            return cls(sets="scene", scene=text.removeprefix("scene."))
        if not strip or strip == "0" or sets in _WHOLE_DESK or sets not in (*RANGES, *SWITCHES):
            raise LiveError(
                f"target: {text!r}; STEM.WHAT, NUMBER.WHAT, scene.NAME, monitor or record are possible",
                hint=f"WHAT is one of {', '.join((*RANGES, *SWITCHES))}.",
                code="live.options",
            )
        return cls(sets=sets, strip=int(strip) if strip.isdecimal() else strip)

    def __str__(self) -> str:
        if self.sets == "scene":
            return f"scene.{self.scene}"
        return f"{self.strip}.{self.sets}" if self.strip else self.sets

    @property
    def moves(self) -> bool:
        """Whether it goes from one end to another, instead of on and off."""
        return self.sets in RANGES


def is_decibel(sets: str) -> bool:
    """Whether a key of :data:`RANGES` is a gain in dB."""
    return RANGES[sets][0] == LOWEST_DB


def find_target(target: MidiTarget, state: LiveState) -> tuple[str, float] | None:
    """The stem of a target, or empty, and its value now, 0 or 1 for a switch; None if the session does not have it."""
    match target.sets:
        case "monitor":
            return "", state.monitor_gain_db
        case "record":
            return "", bool(state.recording)
        case "scene":
            return "", target.scene in state.scenes
        case sets:
            for number, strip in enumerate(state.strips, 1):
                if target.strip in (number, strip.stem):
                    field, on = _field(sets)
                    value = getattr(strip.settings, field)
                    return strip.stem, value if target.moves else value == on
            return None


def move_target(control: LiveControl, target: MidiTarget, stem: str, value: float) -> None:
    """Moves what goes from one end to another.

    Raises:
        LiveError: The session refuses.
    """
    if target.sets == "monitor":
        control.set_monitor_gain(value)
    else:
        fields: dict[str, Any] = {_FIELDS[target.sets]: value}
        control.set_strip(stem, StripChange(**fields))


def switch_target(control: LiveControl, target: MidiTarget, stem: str, *, on: bool, record_to: str) -> None:
    """Turns a switch on or off, or recalls a scene.

    Raises:
        LiveError: The session refuses.
    """
    match target.sets:
        case "scene":
            control.recall_scene(target.scene)
        case "record":
            if on:
                control.start_recording(record_to)
            else:
                control.stop_recording()
        case sets:
            field, value = _field(sets)
            control.set_strip(stem, StripChange(**{field: value if on else type(value)()}))


def _field(sets: str) -> tuple[str, Any]:
    """The field of a strip's settings, and its value where a switch is on; off is False or 0 dB."""
    if sets in ("mute", "solo"):
        return {"mute": "muted", "solo": "solo"}[sets], True
    return _FIELDS[sets.removesuffix("_kill")], LOWEST_DB
