"""MIDI ports of this machine, by mido: which driver, which port, and what its errors mean."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revithion_stems.errors import DawError

VIRTUAL = "virtual"
"""Instead of a port's name: ports of our own, which others connect to (JACK, ALSA, CoreMIDI)."""

CLIENT_NAME = "revithion-stems"
_JACK = "mido.backends.rtmidi/UNIX_JACK"
_USUAL = "mido.backends.rtmidi"


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiPorts:
    """A controller that is open: mido's ports, and the name of its input. ``output`` is None if it listens to nothing.

    Who opened it closes it.
    """

    name: str
    input: Any
    output: Any

    def close(self) -> None:
        """Closes both."""
        for port in (self.input, self.output):
            if port is not None:
                port.close()


def backend_name() -> str:
    """Mido's driver: ``MIDO_BACKEND``, else RtMidi; its JACK on a Linux that has no ALSA sequencer."""
    without_alsa = sys.platform == "linux" and not Path("/dev/snd/seq").exists()
    return os.environ.get("MIDO_BACKEND") or (_JACK if without_alsa else _USUAL)


def port_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the inputs and of the outputs that are there.

    Raises:
        DawError: ``midi.backend``: there is no driver, or it can't be used.
    """
    with _driver_errors():
        backend = _backend()
        return _unique(backend.get_input_names()), _unique(backend.get_output_names())


def open_midi_ports(wanted: str = "") -> MidiPorts:
    """Opens a controller: its input, and its output where there is one.

    Args:
        wanted: What the port's name begins with or contains; empty for the only one; :data:`VIRTUAL` for our own ports.

    Raises:
        DawError: ``midi.backend``: there is no driver. ``midi.port``: no such port, several, or it is in use.
    """
    if wanted == VIRTUAL:
        with _driver_errors():  # nobody can hold these: what fails is the driver, or JACK does not run
            return _open(_backend(), f"{CLIENT_NAME} in", f"{CLIENT_NAME} out", virtual=True)
    inputs, outputs = port_names()
    name = _choose(wanted, inputs)
    return _open(_backend(), name, _partner(name, wanted, outputs), virtual=False)


def _backend() -> Any:
    import mido

    return mido.Backend(backend_name(), load=True)


def _open(backend: Any, input_name: str, output_name: str | None, *, virtual: bool) -> MidiPorts:
    options: dict[str, Any] = {"virtual": True} if virtual else {}
    if virtual and "rtmidi" in backend.name:
        options["client_name"] = CLIENT_NAME  # with which mido makes every port one of our own
    opened: Any = None
    try:
        opened = backend.open_input(input_name, **options)
        output = None if output_name is None else backend.open_output(output_name, **options)
    except Exception as exc:
        if opened is not None:
            opened.close()
        raise port_error(f"{input_name} can't be opened: {exc}") from exc
    return MidiPorts(name=input_name, input=opened, output=output)


def port_error(reason: str) -> DawError:
    """A port that is not there, is in use, or went away."""
    return DawError(
        reason,
        hint=f"A part of a port's name is enough, {VIRTUAL!r} opens ports of our own; another program may hold it.",
        code="midi.port",
    )


def _choose(wanted: str, names: Sequence[str]) -> str:
    if wanted in names:
        return wanted
    lower = wanted.lower()
    found = [name for name in names if name.lower().startswith(lower)] or [
        name for name in names if lower in name.lower()
    ]
    if len(found) != 1:
        missing = "no MIDI port" if not found else "more than one MIDI port"
        matches = f" matches {wanted!r}" if wanted else " is there" if not found else " is there, and none was chosen"
        raise port_error(f"{missing}{matches}; there are: {', '.join(names) or 'none'}")
    return found[0]


def _partner(name: str, wanted: str, outputs: Sequence[str]) -> str | None:
    # Windows numbers inputs and outputs on their own, so that the two of a controller differ in their last number.
    bare = re.sub(r" \d+$", "", name)
    for found in (
        [other for other in outputs if other == name],
        [other for other in outputs if re.sub(r" \d+$", "", other) == bare],
        [other for other in outputs if wanted and wanted.lower() in other.lower()],
    ):
        if len(found) == 1:
            return found[0]
    return None


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


@contextlib.contextmanager
def _driver_errors() -> Generator[None]:
    try:
        yield
    except Exception as exc:  # drivers have no common error
        raise DawError(
            f"no driver for MIDI ({backend_name()}): {exc}",
            hint="Install it: `pip install 'revithion-stems[midi]'`; start JACK where it is used; or name another "
            "driver in MIDO_BACKEND.",
            code="midi.backend",
        ) from exc
