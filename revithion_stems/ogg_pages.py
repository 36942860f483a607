"""Pages of Ogg files: the serial number made the same every time, and whether a stream is whole.

An encoder gives each logical stream a random serial number, so that streams can be chained. A file with one stream has
no use for it, and equal stems are to be equal bytes, so it is replaced; every page's checksum changes with it.

The checksum is a plain CRC-32 (polynomial 0x04c11db7, not reflected, start 0, no final inversion), hence linear: the
checksum of (page xor change) is that of the page xor that of the change. The change is four bytes followed by the rest
of the page as zeros, and a page has at most 65,307 bytes, so one table of checksums by page length serves all pages
and no audio has to be read.

Source: RFC 3533 §6.
"""

from __future__ import annotations

from pathlib import Path

SERIAL = 1
"""What :func:`fix_serial` sets."""

_CAPTURE = b"OggS"
_HEADER_BYTES = 27
_SERIAL_AT = 14
_CHECKSUM_AT = 22
_LAST_PAGE = 0x04
_LONGEST_PAGE = _HEADER_BYTES + 255 + 255 * 255
_POLYNOMIAL = 0x04C1_1DB7


def fix_serial(path: Path) -> None:
    """Gives the single stream of an Ogg file the serial number :data:`SERIAL`, in place.

    Raises:
        OSError: The file can't be read or written.
        ValueError: It is not made of Ogg pages of one stream.
    """
    with path.open("rb+") as file:
        serial: int | None = None
        changes: list[int] = []
        at = 0
        while header := file.read(_HEADER_BYTES):
            if len(header) < _HEADER_BYTES or not header.startswith(_CAPTURE):
                raise ValueError(f"no Ogg page at byte {at}")
            found = _number(header, _SERIAL_AT)
            if serial is None:
                serial, changes = found, _checksums_by_zeros(found ^ SERIAL)
            elif found != serial:
                raise ValueError("more than one stream")
            segments = file.read(header[_HEADER_BYTES - 1])
            length = _HEADER_BYTES + len(segments) + sum(segments)
            checksum = _number(header, _CHECKSUM_AT) ^ changes[length - _SERIAL_AT - 4]
            file.seek(at + _SERIAL_AT)
            file.write(SERIAL.to_bytes(4, "little"))
            file.seek(at + _CHECKSUM_AT)
            file.write(checksum.to_bytes(4, "little"))
            at += length
            file.seek(at)


def has_end(path: Path) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the last of its stream.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_PAGE))
        tail = file.read()
    at = tail.rfind(_CAPTURE)
    if at < 0 or len(tail) < at + _HEADER_BYTES or not tail[at + 5] & _LAST_PAGE:
        return False
    segments = tail[at + _HEADER_BYTES :][: tail[at + _HEADER_BYTES - 1]]
    return len(tail) >= at + _HEADER_BYTES + len(segments) + sum(segments)


def checksum(page: bytes) -> int:
    """CRC of a page whose checksum field is zero, bit by bit; the plain form that tests compare with."""
    value = 0
    for byte in page:
        value = _shift_byte(value ^ byte << 24)
    return value


def _checksums_by_zeros(change: int) -> list[int]:
    """Checksum of the little-endian ``change`` followed by 0, 1, 2, … zero bytes."""
    value = checksum(change.to_bytes(4, "little"))
    result = [value]
    table = [_shift_byte(byte << 24) for byte in range(256)]
    for _ in range(_LONGEST_PAGE):
        value = (value << 8 & 0xFFFF_FFFF) ^ table[value >> 24]
        result.append(value)
    return result


def _shift_byte(value: int) -> int:
    for _ in range(8):
        value = (value << 1 ^ (_POLYNOMIAL if value & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return value


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "little")
