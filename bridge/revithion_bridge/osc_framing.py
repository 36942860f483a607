"""OSC packets in a TCP stream: bounded decoding of both framings, without I/O.

OSC 1.1 puts SLIP around each packet (RFC 1055: ``END``, packet, ``END``), OSC 1.0 its length before it (four bytes,
big endian). The first byte of a connection tells which: a length begins with 0x00, as packets are shorter than 16 MiB;
SLIP begins with ``END``, or with the packet itself where a sender leaves the first ``END`` out.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterator

from revithion_bridge.messages import MAX_MESSAGE_BYTES

_END = b"\xc0"
_ESC = b"\xdb"
_ESC_END = b"\xdb\xdc"
_ESC_ESC = b"\xdb\xdd"
_BAD_ESCAPE = re.compile(rb"\xdb(?![\xdc\xdd])")
_LENGTH = struct.Struct(">I")


class Framing(enum.Enum):
    """How packets are told apart in a stream."""

    SLIP = "slip"
    LENGTH = "length"


class FramingError(ValueError):
    """A stream is not OSC, or a packet in it is empty or too long; nothing after it can be read."""


def encode_frame(packet: bytes, framing: Framing) -> bytes:
    """A packet as it goes into a stream."""
    if framing is Framing.LENGTH:
        return _LENGTH.pack(len(packet)) + packet
    return _END + packet.replace(_ESC, _ESC_ESC).replace(_END, _ESC_END) + _END


class FrameDecoder:
    """Cuts a stream into packets. Keeps at most one unfinished packet. One thread at a time.

    Args:
        max_bytes: Length of the longest packet.

    Attributes:
        framing: Which one it is; None before the first byte.
    """

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.framing: Framing | None = None
        self._max_bytes = max_bytes
        self._rest = bytearray()

    @property
    def unfinished_bytes(self) -> int:
        """What is kept of a packet that has not come whole."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The packets that end in ``chunk``; to be exhausted before the next call.

        How a stream is cut into chunks changes nothing: the same packets come, and then the same error, if any.

        Raises:
            FramingError: What follows can't be read; the connection is of no more use.
        """
        if self.framing is None:
            if not chunk:
                return iter(())
            if chunk[0] == 0:
                self.framing = Framing.LENGTH
            elif chunk[0] in b"\xc0/#":
                self.framing = Framing.SLIP
            else:
                raise FramingError(f"a stream of OSC does not begin with byte 0x{chunk[0]:02x}")
        return self._slip(chunk) if self.framing is Framing.SLIP else self._lengths(chunk)

    def _slip(self, chunk: bytes) -> Iterator[bytes]:
        head, *others = chunk.split(_END)
        self._rest += head
        if others:
            packets = [bytes(self._rest), *others[:-1]]
            self._rest = bytearray(others[-1])
            for packet in packets:
                if packet:  # END twice in a row is usual
                    yield self._unescaped(packet)
        self._check_length(len(self._rest), 2 * self._max_bytes)  # each byte may be escaped

    def _unescaped(self, packet: bytes) -> bytes:
        self._check_length(len(packet), 2 * self._max_bytes)
        if _BAD_ESCAPE.search(packet):
            raise FramingError("a packet has an escape that SLIP does not know")
        packet = packet.replace(_ESC_END, _END).replace(_ESC_ESC, _ESC)
        self._check_length(len(packet), self._max_bytes)
        return packet

    def _lengths(self, chunk: bytes) -> Iterator[bytes]:
        self._rest += chunk
        at = 0
        while len(self._rest) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._rest, at)
            if not length:
                raise FramingError("a packet is empty")
            self._check_length(length, self._max_bytes)
            start, end = at + _LENGTH.size, at + _LENGTH.size + length
            if end > len(self._rest):
                break
            yield bytes(self._rest[start:end])
            at = end
        del self._rest[:at]

    def _check_length(self, length: int, most: int) -> None:
        if length > most:
            raise FramingError(f"a packet is longer than {self._max_bytes} bytes")
