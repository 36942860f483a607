"""Cover pictures as audio files hold them."""

from __future__ import annotations

import struct

from revithion_stems.tags import Cover

_FRONT_COVER = 3
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # start of frame; the others are tables


def picture_size(cover: Cover) -> tuple[int, int] | None:
    """Width and height in pixels, or None if ``cover`` is not a whole header of a PNG or JPEG file.

    Source: PNG (ISO/IEC 15948) §11.2.2; JPEG (ITU-T T.81) annex B.
    """
    data = cover.data
    if data.startswith(_PNG) and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        if data[at + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def picture_block(cover: Cover) -> bytes:
    """The cover as the body of FLAC's PICTURE block, which Ogg files hold in Base64 as ``METADATA_BLOCK_PICTURE``.

    Source: RFC 9639 §8.8.
    """
    media_type = cover.media_type.encode("ascii", "replace")
    width, height = picture_size(cover) or (0, 0)
    return b"".join(
        (
            struct.pack(">II", _FRONT_COVER, len(media_type)),
            media_type,
            struct.pack(">IIIIII", 0, width, height, 24, 0, len(cover.data)),
            cover.data,
        )
    )
