"""Boxes, of which MP4 files are made.

Source: ISO/IEC 14496-12 §4.2.
"""

from __future__ import annotations

from typing import BinaryIO

_HEADER_BYTES = 8


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of a type (four bytes) with the content given; both together have less than 4 GiB."""
    body = b"".join(content)
    return (_HEADER_BYTES + len(body)).to_bytes(4) + kind + body


def full_box(kind: bytes, *content: bytes, version: int = 0, flags: int = 0) -> bytes:
    """A box whose content has a version and 24 flags before it."""
    return box(kind, bytes([version]), flags.to_bytes(3), *content)


def find_last_box(file: BinaryIO, kind: bytes, start: int, end: int) -> int:
    """Where the last box between two places of a file begins.

    Raises:
        ValueError: It is of another kind, or does not end at ``end``.
    """
    found = b""
    at = start
    while start < end:
        at = start
        file.seek(at)
        size = int.from_bytes(file.read(4))
        found = file.read(4)
        if size == 1:  # then the size has 64 bits, and comes after the type
            size = int.from_bytes(file.read(8))
        start += max(size, _HEADER_BYTES)
    if start != end or found != kind:
        raise ValueError(f"the MP4 file ends with box {found!r} up to byte {start} of {end}, expected {kind!r}")
    return at
