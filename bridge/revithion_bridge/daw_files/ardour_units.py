"""Ardour's units and names, for the writer of closed sessions and for the one that talks to a session that is open."""

from __future__ import annotations

from revithion_bridge.daw.plan_builder import shown_name
from revithion_bridge.daw_files.xml_tree import NOT_XML

SUPERCLOCKS_PER_SECOND = 282_240_000
"""Ardour 7 and 8 count audio time in these: 6400 a frame at 44.1 kHz, 5880 at 48 kHz."""

SESSION_VERSIONS = (7, 8)
"""Major versions of Ardour whose sessions we know."""

_MOST_NAME_BYTES = 180  # JACK has 256 for a port's name, and Ardour adds `/audio_out 1` to that of the route


def superclocks(frames: int, rate: int, per_second: int = SUPERCLOCKS_PER_SECOND) -> int:
    """Frames as superclocks, to the nearest: exact at all usual rates."""
    return (frames * per_second + rate // 2) // rate


def rgba(colour: str) -> int:
    """``#RRGGBB`` as Ardour's number, opaque."""
    return int(colour[1:], 16) << 8 | 0xFF


def port_prefix(name: str) -> str:
    """What the ports of a route of that name begin with: a colon would end the name of JACK's client."""
    return name.replace(":", "-")


def route_name(text: str) -> str:
    """``text`` as a route's name: one line, and not too long for the names of its ports."""
    shown = shown_name(NOT_XML.sub(" ", text))
    return shown.encode("utf-8")[:_MOST_NAME_BYTES].decode("utf-8", errors="ignore").strip() or "untitled"
