"""Ardour's own OSC surface: strips, faders, transport, actions. It is off in Ardour unless the user switches it on.

Source: Ardour manual, "Controlling Ardour with OSC". One thread at a time.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from revithion_bridge.errors import bridge_error
from revithion_bridge.osc_packets import OscCall, Value, build_message, parse_message, typed
from revithion_stems.errors import RevithionError

ARDOUR_OSC_PORT = 3819
HIGHEST_GAIN_DB = 6.0
"""Of Ardour's faders."""
LOWEST_GAIN_DB = -193.0
_MOST_REPLIES = 10_000
_MOST_BYTES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ArdourStrip:
    """A strip of Ardour's mixer.

    Attributes:
        ssid: Its number on this surface; it is another one once strips were added or moved.
        kind: ``AT`` audio track, ``MT`` MIDI track, ``B`` bus, ``MB`` MIDI bus, ``V`` VCA, ...
        name: What people see.
        muted: Whether it is.
    """

    ssid: int
    kind: str
    name: str
    muted: bool


class ArdourOsc:
    """Talks to the Ardour that has the port; also a context manager.

    Nothing but :meth:`strips` is answered: what Ardour does with the rest, it does not say.

    Args:
        port: On this machine.
        timeout_s: How long to wait for answers.
        answer_here: Has Ardour answer to where questions come from. That is its setting "Port Mode: Auto"; as delivered
            it answers to port 8000. It then does so for all programs on this machine, until it ends: one that relies on
            the other port gets no more answers.
    """

    def __init__(self, port: int = ARDOUR_OSC_PORT, *, timeout_s: float = 1.0, answer_here: bool = False) -> None:
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Connected, so that only Ardour's datagrams come in, and a closed port is an error.
        self._socket.connect(("127.0.0.1", port))
        self._answer_here = answer_here

    def close(self) -> None:
        """Ends it; Ardour stays as it is."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def strips(self) -> tuple[ArdourStrip, ...]:
        """All strips.

        Raises:
            RevithionError: ``daw.absent``: nobody listens. ``daw.busy``: no answer, or not all of it, in time.
        """
        if self._answer_here:
            self._send("/set_surface/port", 0)
        self._send("/strip/list")
        deadline = time.monotonic() + self._timeout_s
        found: list[ArdourStrip] = []
        for _ in range(_MOST_REPLIES):
            reply = self._receive(deadline)
            match reply.arguments:
                case ("end_route_list", *_):
                    return tuple(found)
                case (str(kind), str(name), int(), int(), muted, _, int(ssid), *_):
                    found.append(ArdourStrip(ssid=ssid, kind=kind, name=name, muted=bool(muted)))
                case _:
                    pass  # feedback to another question
        raise bridge_error("daw.busy", "Ardour's list of strips has no end")

    def gain_db(self, ssid: int, gain_db: float) -> None:
        """Moves a strip's fader; Ardour's reach from -193 to 6 dB."""
        self._send("/strip/gain", ssid, float(min(max(gain_db, LOWEST_GAIN_DB), HIGHEST_GAIN_DB)))

    def mute(self, ssid: int, muted: bool) -> None:
        """Mutes a strip, or opens it."""
        self._send("/strip/mute", ssid, int(muted))

    def action(self, name: str) -> None:
        """Does what a menu entry does, such as ``Common/Save`` or ``LuaAction/script-1``."""
        self._send("/access_action", name)

    def play(self) -> None:
        """Starts the transport."""
        self._send("/transport_play")

    def stop(self) -> None:
        """Stops the transport."""
        self._send("/transport_stop")

    def locate(self, frame: int, *, roll: bool = False) -> None:
        """Moves the playhead, to a frame at the session's rate."""
        self._send("/locate", frame, int(roll))

    def save(self) -> None:
        """Saves the session."""
        self._send("/save_state")

    def _send(self, address: str, *arguments: Value) -> None:
        with _asking():
            self._socket.send(build_message(address, map(typed, arguments)))

    def _receive(self, deadline: float) -> OscCall:
        with _asking():
            while (left := deadline - time.monotonic()) > 0.0:
                self._socket.settimeout(left)
                data = self._socket.recv(_MOST_BYTES)
                if data.startswith(b"#reply\0"):  # an address that OSC does not allow, and parsers refuse
                    with contextlib.suppress(RevithionError):
                        return parse_message(b"/" + data[1:])
            raise TimeoutError


@contextlib.contextmanager
def _asking() -> Generator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise bridge_error("daw.busy", "Ardour does not answer by OSC, or answers to another port") from exc
    except OSError as exc:
        raise bridge_error("daw.absent", f"Ardour's OSC is not there: {exc.strerror or exc}") from exc
