"""Mappings of MIDI controllers in TOML: presets for some of them, and the user's own file.

A mapping is a table with a list of controls. Each names its ``target`` and the message that it sends::

    preset = "nanokontrol2"         # or none: what follows is then all
    title = "Mine"
    port = "nanoKONTROL2"           # what the port's name contains
    channel = 1

    [[control]]
    target = "vocals.gain"          # a stem, or the number of a strip
    cc = 0

    [[control]]
    target = "*.mute"               # of strips 1, 2, 3, … in the order of the numbers
    note = [1, 4, 7]
    led = { on = 127, off = 0 }

Of two controls with the same message, the later one counts.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from revithion_realtime.control.midi_map import (
    HIGHEST_VALUE,
    MidiAddress,
    MidiControl,
    MidiLaw,
    MidiLed,
    MidiMap,
    law_values,
    usual_law,
)
from revithion_realtime.control.midi_target import RANGES, MidiTarget, is_decibel
from revithion_stems.config import config_path
from revithion_stems.errors import LiveError

_ALL_STRIPS = "*"
_MOST_CC = 119
"""Higher numbers are no controllers: they are commands, such as "all notes off". Source: MIDI 1.0, channel mode."""
_PRESETS = "midi_presets.toml"


def user_map_path() -> Path:
    """The user's own mapping: ``midi.toml`` beside the settings."""
    return config_path().with_name("midi.toml")


@cache
def midi_presets() -> Mapping[str, MidiMap]:
    """The mappings that come with the program, by name."""
    text = resources.files("revithion_realtime.control").joinpath(_PRESETS).read_text(encoding="utf-8")
    return {name: parse_midi_map(table) for name, table in tomllib.loads(text).items()}


def preset_for_port(port_name: str) -> str:
    """Name of the preset for a port; ``generic`` where none is made for it."""
    for name, preset in midi_presets().items():
        if preset.port and preset.port.lower() in port_name.lower():
            return name
    return "generic"


def load_midi_map(which: str = "", *, port_name: str = "") -> MidiMap:
    """A mapping.

    Args:
        which: Name of a preset, or path of a file; empty for the user's file, on top of the preset for the port.
        port_name: The controller's port.

    Raises:
        LiveError: ``live.options``: there is none of that name, or the file is not a mapping; the message names the
            file, the control and the value.
    """
    presets = midi_presets()
    if which in presets:
        return presets[which]
    base = presets[preset_for_port(port_name)]
    path = Path(which) if which else user_map_path()
    if not which and not path.exists():
        return base
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise _wrong(f"can't read a MIDI mapping from {path}: {exc}; presets are {', '.join(presets)}") from exc
    preset = table.get("preset")
    if preset is not None and preset not in list(presets):
        raise _wrong(f"{path}: preset: {preset!r}; {', '.join(presets)} are possible")
    if preset is not None or which:
        base = None if preset is None else presets[preset]
    try:
        return parse_midi_map(table, base=base)
    except LiveError as exc:
        raise _wrong(f"{path}: {exc.message}") from exc


def append_control(control: MidiControl, path: Path) -> str:
    """Writes a control at the end of a mapping's file, which appears as a whole; returns the lines.

    Raises:
        LiveError: ``live.options``: the file can't be written.
    """
    address = control.address
    # A TOML basic string escapes as JSON does. Source: TOML 1.0, strings.
    lines = (
        f"[[control]]\ntarget = {json.dumps(str(control.target), ensure_ascii=False)}\n"
        f"{address.kind} = {address.number}\nchannel = {address.channel}\n"
    )
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        part.write_text(f"{before.rstrip()}\n\n{lines}".lstrip(), encoding="utf-8")
        part.replace(path)
    except OSError as exc:
        raise _wrong(f"can't write {path}: {exc}") from exc
    return lines


def parse_midi_map(table: Mapping[str, Any], *, base: MidiMap | None = None) -> MidiMap:
    """A mapping out of a table of TOML, on top of another one.

    Raises:
        LiveError: ``live.options``: something in it is not as it must be; the message names the control and the value.
    """
    _known(table, ("title", "port", "channel", "preset", "led", "control"))
    controls = dict(base.controls) if base else {}
    channel = _integer(table, "channel", 1, 16, 1)
    lights = table.get("led", {})
    entries = table.get("control", [])
    if not isinstance(entries, list):
        raise _wrong("control: write each one under [[control]]")
    for number, entry in enumerate(entries, 1):
        try:
            for control in _controls(entry, channel, lights):
                controls[control.address] = control
        except LiveError as exc:
            raise _wrong(f"control {number}: {exc.message}") from exc
    title = _text(table, "title", base.title if base else "")
    return MidiMap(title=title, port=_text(table, "port", base.port if base else ""), controls=controls)


def _controls(entry: Any, channel: int, lights: Any) -> list[MidiControl]:
    if not isinstance(entry, dict):
        raise _wrong(f"{entry!r} is not a table")
    _known(entry, ("target", "cc", "note", "channel", "law", "range", "button", "motor", "led"))
    text = _text(entry, "target", "")
    channel = _integer(entry, "channel", 1, 16, channel)
    every = text.startswith(f"{_ALL_STRIPS}.")
    addresses = _addresses(entry, channel, many=every)
    targets = [
        MidiTarget.parse(text.replace(_ALL_STRIPS, str(strip), 1) if every else text)
        for strip in range(1, len(addresses) + 1)
    ]
    moves = targets[0].moves
    if moves and addresses[0].kind == "note":
        raise _wrong(f"note: a note can't move {text!r}, which takes a cc")
    _known(entry, ("target", "cc", "note", "channel", *(("law", "range", "motor") if moves else ("button", "led"))))
    if moves:
        values = _values(targets[0].sets, entry)
        motor = _boolean(entry, "motor")
        pairs = zip(addresses, targets, strict=True)
        return [MidiControl(address=address, target=target, values=values, motor=motor) for address, target in pairs]
    button = entry.get("button", "toggle")
    if button not in ("toggle", "hold"):
        raise _wrong(f"button: {button!r}; toggle or hold are possible")
    leds = _leds(entry.get("led"), lights, addresses)
    return [
        MidiControl(address=address, target=target, hold=button == "hold", led=led)
        for address, target, led in zip(addresses, targets, leds, strict=True)
    ]


def _addresses(entry: Mapping[str, Any], channel: int, *, many: bool) -> list[MidiAddress]:
    kinds = [kind for kind in ("cc", "note") if kind in entry]
    if len(kinds) != 1:
        raise _wrong("it needs either cc or note")
    kind = kinds[0]
    given = entry[kind]
    numbers: list[Any] = given if isinstance(given, list) else [given]
    if not numbers or (len(numbers) > 1 and not many):
        raise _wrong(f"{kind}: {given!r}; one number, or several for a target that begins with '*.', are possible")
    most = _MOST_CC if kind == "cc" else HIGHEST_VALUE
    return [
        MidiAddress(kind=kind, channel=channel, number=_integer({kind: number}, kind, 0, most)) for number in numbers
    ]


def _leds(given: Any, lights: Any, addresses: list[MidiAddress]) -> list[MidiLed | None]:
    if given is False or (given is None and lights is False):
        return [None] * len(addresses)
    own = given if given is not None else {}
    for table in (own, lights):
        if table is not False and not isinstance(table, dict):
            raise _wrong(f"led: {table!r}; false, or a table with on and off, are possible")
    led: dict[str, Any] = {**(lights or {}), **own}
    _known(led, ("on", "off", "cc", "note", "channel"))
    on, off = _integer(led, "on", 0, HIGHEST_VALUE, HIGHEST_VALUE), _integer(led, "off", 0, HIGHEST_VALUE, 0)
    places = addresses
    if "cc" in led or "note" in led:
        places = _addresses(led, _integer(led, "channel", 1, 16, addresses[0].channel), many=len(addresses) > 1)
    elif "channel" in led:
        channel = _integer(led, "channel", 1, 16)
        places = [dataclasses.replace(address, channel=channel) for address in addresses]
    if len(places) != len(addresses):
        raise _wrong(f"led: {len(places)} lights for {len(addresses)} buttons")
    return [MidiLed(address=place, on=on, off=off) for place in places]


def _values(sets: str, entry: Mapping[str, Any]) -> tuple[float, ...]:
    law = MidiLaw.LINEAR if "range" in entry else usual_law(sets)
    if "law" in entry:
        try:
            law = MidiLaw(entry["law"])
        except ValueError as exc:
            raise _wrong(f"law: {entry['law']!r}; fader, centre or linear are possible") from exc
    if law is MidiLaw.FADER and not is_decibel(sets):
        raise _wrong(f"law: fader is for decibels, not for {sets}")
    if "range" not in entry:
        return law_values(sets, law)
    if law is not MidiLaw.LINEAR:
        raise _wrong(f"range: {entry['range']!r}; only law = 'linear' has one")
    return law_values(sets, law, _ends(entry["range"], *RANGES[sets]))


def _ends(given: Any, low: float, high: float) -> tuple[float, float]:
    numbers = [float(end) for end in given if _is_number(end)] if isinstance(given, list) else []
    if len(numbers) != 2 or not all(low <= end <= high for end in numbers) or numbers[0] == numbers[1]:
        raise _wrong(f"range: {given!r}; two different numbers from {low:g} to {high:g} are possible")
    return numbers[0], numbers[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _integer(table: Mapping[str, Any], name: str, low: int, high: int, usual: int | None = None) -> int:
    value = table.get(name, usual)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(f"{name}: {value!r}; {low} to {high} are possible")
    return value


def _text(table: Mapping[str, Any], name: str, usual: str) -> str:
    value = table.get(name, usual)
    if not isinstance(value, str):
        raise _wrong(f"{name}: {value!r} is not a text")
    return value


def _boolean(table: Mapping[str, Any], name: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise _wrong(f"{name}: {value!r}; true or false are possible")
    return value


def _known(table: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in table:
        if name not in names:
            raise _wrong(f"{name}: not known here; {', '.join(names)} are possible")


def _wrong(reason: str) -> LiveError:
    return LiveError(reason, hint="See docs/live/midi.md for how a mapping is written.", code="live.options")
