"""What is told when a device can't be had: the value, what is possible, and the one command or option that helps."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable

from revithion_stems.errors import LiveError
from revithion_stems.live import check_live_rate

_COMMANDS = {
    # library: package manager -> the command
    "PortAudio": {
        "apt-get": "sudo apt install libportaudio2",
        "dnf": "sudo dnf install portaudio",
        "pacman": "sudo pacman -S portaudio",
        "zypper": "sudo zypper install libportaudio2",
        "brew": "brew install portaudio",
    },
    "JACK": {
        "apt-get": "sudo apt install jackd2",
        "dnf": "sudo dnf install jack-audio-connection-kit",
        "pacman": "sudo pacman -S jack2",
        "zypper": "sudo zypper install jack",
        "brew": "brew install jack",
    },
}
_WINDOWS = {
    "PortAudio": "Install it with `python -m pip install --force-reinstall sounddevice`, whose wheel carries it.",
    "JACK": "Install it with `winget install JACKAudio.JACK2`, or from jackaudio.org.",
}


def not_installed(library: str, code: str) -> LiveError:
    """A library of the system is missing; the hint is the command that installs it on this one.

    Args:
        library: ``PortAudio`` or ``JACK``.
        code: Of the error.
    """
    if sys.platform == "win32":
        hint = _WINDOWS[library]
    else:
        commands = _COMMANDS[library]
        first = "brew" if sys.platform == "darwin" else "apt-get"
        found = next((manager for manager in commands if shutil.which(manager)), first)
        hint = f"Install it with `{commands[found]}`."
    return LiveError(f"{library} is not installed", hint=hint, code=code)


def no_such_device(asked: str, names: Iterable[str], reason: str = "there is none of that name") -> LiveError:
    """No device can be meant by a name; ``names`` are those that can."""
    there = ", ".join(repr(name) for name in names)
    return LiveError(
        f"device: {asked!r}: {reason}; {there} are there",
        hint="Choose one with --device; `revithion-stems live --list-devices` shows them.",
        code="live.device",
    )


def no_such_port(asked: str, names: Iterable[str]) -> LiveError:
    """A port of JACK can't be connected; ``names`` are those that can."""
    there = ", ".join(names) or "none"
    return LiveError(
        f"port: there is no JACK port {asked!r} to connect to; there are: {there}",
        hint="Start the program that has it first, and write its name as `jack_lsp` prints it.",
        code="live.jack",
    )


def check_rate(device: str, asked: int, own: int) -> int:
    """The rate to be played at: what was asked for, or the device's own.

    Args:
        device: Its name, for people.
        asked: Hz, or 0 for the device's own.
        own: Hz.

    Raises:
        LiveError: ``live.rate``: the preview does not play at the device's own rate.
    """
    check_live_rate(asked or own, origin=f"the rate of {device}")
    return asked or own


def wrong_rate(device: str, asked: int, own: int) -> LiveError:
    """A device does not run at a rate; ``own`` is its own."""
    return LiveError(
        f"sample_rate: {device} does not run at {asked} Hz; its own rate is {own} Hz",
        hint="Leave --rate out for the device's own, or set the device or its server to that rate.",
        code="live.rate",
    )


def too_few_outputs(device: str, wanted: int, there: int) -> LiveError:
    """A device has not the outputs that the stems need."""
    return LiveError(
        f"outputs: {wanted} channels are needed; {device} has {there}",
        hint="Use --outputs mix, a device with more outputs, or --device jack, which has as many as are needed.",
        code="live.outputs",
    )
