"""A driver for mido whose one port is a TCP connection: mido's own sockets stand in for the wire and the system."""

from __future__ import annotations

import os
from typing import Any

from mido import sockets

NAME = "Loopback controller"


def get_devices(**_: object) -> list[dict[str, Any]]:
    return [{"name": NAME, "is_input": True, "is_output": False}]


def Input(name: str, **_: object) -> sockets.SocketPort:
    if name != NAME:
        raise OSError(f"unknown port {name!r}")
    return sockets.connect("127.0.0.1", int(os.environ["MIDI_TEST_PORT"]))
