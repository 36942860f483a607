"""Marks as they stand in project files: one word of ASCII, whatever the key holds, the same as our scripts write."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from revithion_bridge.daw.bus_plan import marker

_ESCAPED = re.compile(rb"[^A-Za-z0-9._-]")
_MARK = re.compile(r"revithion-stems:([0-9a-f]{16}):([a-z]+):([A-Za-z0-9._%-]*)")

Mark = tuple[str, str, str]
"""Identity, role and key."""


def write_mark(identity: str, role: str, key: str) -> str:
    """The mark, with ``%XX`` for the bytes of its key that are no letters or digits."""
    word = _ESCAPED.sub(lambda found: b"%%%02X" % ord(found[0]), key.encode("utf-8", "surrogatepass"))
    return marker(identity, role, word.decode("ascii"))


def read_mark(text: str) -> Mark | None:
    """What the first mark in a text says, or None."""
    found = _MARK.search(text)
    if found is None:
        return None
    return found[1], found[2], unquote_to_bytes(found[3]).decode("utf-8", "replace")
