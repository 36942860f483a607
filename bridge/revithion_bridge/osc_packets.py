"""OSC packets to messages and back: python-osc, behind checks that keep its cost small.

python-osc trusts sizes inside bundles (a negative one makes it loop for ever), copies the rest of a packet for each
argument, and skips types that it does not know, so that all arguments after them are wrong. What it gets from here is
one message at a time, with few arguments, all of known types.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from pythonosc.osc_message import OscMessage
from pythonosc.osc_message import ParseError as MessageParseError
from pythonosc.osc_message_builder import OscMessageBuilder

from revithion_bridge.errors import bridge_error
from revithion_stems.errors import RevithionError

MAX_DEPTH = 4
"""Of bundles in bundles."""
MAX_MESSAGES = 256
"""In one packet, all its bundles taken together."""
MAX_ARGUMENTS = 32
MAX_ADDRESS_BYTES = 256
MAX_TEXT = 4_096
"""Characters of a text that is sent; paths are not longer."""

Value: TypeAlias = str | int | float | bool | None
Typed: TypeAlias = tuple[str, Value]
"""An argument with its type tag."""

_BUNDLE = b"#bundle\0"
_SIZE = struct.Struct(">i")
_KNOWN_TAGS = frozenset("ihfdsTFN")
_MOST_FLOAT32 = 3.4028234663852886e38


@dataclass(frozen=True, slots=True)
class OscCall:
    """A message that was received: its address and its arguments, floats finite."""

    address: str
    arguments: tuple[Value, ...]


def split_packet(packet: bytes) -> list[bytes]:
    """The messages of a packet in the order of its bundles; their time tags are not looked at.

    Raises:
        RevithionError: ``protocol.malformed``: it is neither message nor bundle, or nested too deeply, or too much.
    """
    found: list[bytes] = []
    _collect(packet, 0, found)
    return found


def _collect(packet: bytes, depth: int, found: list[bytes]) -> None:
    if not packet.startswith(_BUNDLE):
        if len(found) == MAX_MESSAGES:
            raise _malformed(f"a packet has more than {MAX_MESSAGES} messages")
        found.append(packet)
        return
    if depth == MAX_DEPTH:
        raise _malformed(f"bundles are nested more than {MAX_DEPTH} deep")
    at = len(_BUNDLE) + 8  # the time tag
    if at > len(packet):
        raise _malformed("a bundle is too short")
    while at < len(packet):
        if at + _SIZE.size > len(packet):
            raise _malformed("a bundle is too short")
        (size,) = _SIZE.unpack_from(packet, at)
        at += _SIZE.size
        if size <= 0 or size % 4 or at + size > len(packet):
            raise _malformed(f"a bundle has an element of {size} bytes")
        _collect(packet[at : at + size], depth + 1, found)
        at += size


def parse_message(data: bytes) -> OscCall:
    """A message.

    Raises:
        RevithionError: ``protocol.malformed``.
    """
    tags = _type_tags(data)
    try:
        message = OscMessage(data)
        address, values = str(message.address), tuple(message.params)
    except (MessageParseError, ValueError, struct.error, IndexError) as exc:
        raise _malformed(f"not an OSC message: {exc}") from exc
    if len(values) != len(tags):
        raise _malformed("not an OSC message: types and arguments differ in number")
    return OscCall(address, tuple(_checked(tag, value) for tag, value in zip(tags, values, strict=True)))


def _type_tags(data: bytes) -> str:
    end = data.find(b"\0", 0, MAX_ADDRESS_BYTES + 1)
    if not data.startswith(b"/") or end < 0 or len(data) % 4:
        raise _malformed("not an OSC message: no address, or one of more than 256 bytes, or not filled up to 4 bytes")
    start = end + 4 - end % 4
    if start >= len(data):  # old senders leave the types out where there are no arguments
        return ""
    end = data.find(b"\0", start, start + MAX_ARGUMENTS + 2)
    if data[start] != ord(",") or end < 0:
        raise _malformed(f"not an OSC message: no types, or those of more than {MAX_ARGUMENTS} arguments")
    tags = data[start + 1 : end].decode("latin-1")
    if not _KNOWN_TAGS.issuperset(tags):
        raise _malformed(f"an argument is of a type other than {' '.join(sorted(_KNOWN_TAGS))}: {tags!r}")
    return tags


def _checked(tag: str, value: Value) -> Value:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise _malformed("an argument is not a finite number")
    if tag == "d":
        return value
    # -6.3 was rounded to 32 bits on its way: the shortest decimal that rounds to the same is what was meant, and is
    # what the other doors would have got.
    for digits in range(6, 10):
        shorter = float(f"{value:.{digits}g}")
        if abs(shorter) <= _MOST_FLOAT32 and struct.pack(">f", shorter) == struct.pack(">f", value):
            return shorter
    return value


def typed(value: object, *, double: bool = False) -> Typed:
    """A value with the type that it is sent as.

    None is nil, an enum its value, an int of more than 32 bits is of 64 (a longer one a double), a float is of 32 bits
    unless ``double`` is asked for or it would not fit; all that is no number is text.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None:
        return "N", None
    if isinstance(value, bool):
        return ("T" if value else "F"), value
    if isinstance(value, int):
        bits = value.bit_length()
        return ("i", value) if bits < 32 else ("h", value) if bits < 64 else ("d", float(value))
    if isinstance(value, float):
        fits = not math.isfinite(value) or abs(value) <= _MOST_FLOAT32
        return ("f" if fits and not double else "d"), value
    # A NUL would end the text and shift what follows; bytes of a path that are no UTF-8 can't be told by OSC.
    text = str(value).replace("\0", "")[:MAX_TEXT]
    return "s", text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def build_message(address: str, arguments: Iterable[Typed]) -> bytes:
    """A message as bytes."""
    builder = OscMessageBuilder(address)
    for tag, value in arguments:
        builder.add_arg(value, tag)
    return builder.build().dgram


def _malformed(message: str) -> RevithionError:
    return bridge_error("protocol.malformed", message)
