"""Comments of an Ogg Vorbis file: any tags and a cover, in place of what the encoder wrote there.

The comments are the second packet of the stream and can fill many pages. Replacing a packet by one of another length
would move and renumber all pages behind it; so the encoder is given a filler, and the comments that take its place are
followed by zeros up to its length. Decoders read no further than the comments' end mark.

Source: Vorbis I specification §5; RFC 3533 §6.
"""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from revithion_stems.cover_picture import picture_block, picture_size
from revithion_stems.tags import Tags

_PAGE_HEADER_BYTES = 27
_CHECKSUM_AT = 22
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_VENDOR = b"revithion-stems"
_FIELDS = {"album_artist": "ALBUMARTIST", "track": "TRACKNUMBER", "disc": "DISCNUMBER"}


def comment_packet(tags: Tags) -> bytes:
    """The comment packet of a Vorbis stream with these tags."""
    text = dict(tags.text)
    if tags.time_reference is not None:
        text["time_reference"] = str(tags.time_reference)
    if tags.cover is not None and picture_size(tags.cover):
        text["metadata_block_picture"] = base64.b64encode(picture_block(tags.cover)).decode("ascii")
    entries = [
        f"{_FIELDS.get(name, name.upper())}={value}".encode("utf-8", "replace")
        for name, value in text.items()
        if name.isascii() and name.isprintable() and "=" not in name
    ]
    counted = [struct.pack("<I", len(entry)) + entry for entry in (_VENDOR, *entries)]
    return b"".join((b"\x03vorbis", counted[0], struct.pack("<I", len(entries)), *counted[1:], b"\x01"))


def replace_comments(path: Path, packet: bytes) -> None:
    """Puts ``packet`` in the place of a file's comment packet, which must not be shorter.

    Raises:
        OSError: The file can't be read or written.
        ValueError: The packet is too long, or the file too short.
    """
    with path.open("rb+") as file:
        _read_page(file)  # what comes before the comments has a page of its own
        done = 0
        is_end = False
        while not is_end:
            at = file.tell()
            header, lacing, body = _read_page(file)
            length, is_end = _first_packet(lacing)
            body = packet[done : done + length].ljust(length, b"\0") + body[length:]
            done += length
            page = header[:_CHECKSUM_AT] + bytes(4) + header[_CHECKSUM_AT + 4 :] + lacing + body
            file.seek(at)
            file.write(page[:_CHECKSUM_AT] + struct.pack("<I", _checksum(page)) + page[_CHECKSUM_AT + 4 :])
    if done < len(packet):
        raise ValueError(f"comments of {len(packet)} bytes in a packet of {done}")


def _read_page(file: BinaryIO) -> tuple[bytes, bytes, bytes]:
    """Header, lacing values and body of the next page."""
    header = file.read(_PAGE_HEADER_BYTES)
    lacing = file.read(header[-1]) if header else b""
    body = file.read(sum(lacing))
    if len(header) < _PAGE_HEADER_BYTES or len(body) < sum(lacing):
        raise ValueError("the Ogg stream ends within its comments")
    return header, lacing, body


def _first_packet(lacing: bytes) -> tuple[int, bool]:
    """Bytes of the first packet on a page, and whether it ends there: a value below 255 ends a packet."""
    for index, value in enumerate(lacing):
        if value < 255:
            return sum(lacing[: index + 1]), True
    return sum(lacing), False


def _checksum(page: bytes) -> int:
    """Ogg's CRC is zlib's with the bits of all bytes and of the result mirrored, and without its two inversions."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{mirrored:032b}"[::-1], 2)
