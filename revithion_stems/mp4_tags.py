"""Tags and cover of an MP4 file, as players of music read them.

Source: Apple, QuickTime File Format, metadata; the names are iTunes', and all others go into its free form.
"""

from __future__ import annotations

import re
import struct

from revithion_stems.cover_picture import picture_size
from revithion_stems.mp4_boxes import box, full_box
from revithion_stems.tags import Tags

_BINARY, _UTF8 = 0, 1
_PICTURES = {"image/jpeg": 13, "image/png": 14}
_TEXTS = {
    "title": b"\xa9nam",
    "artist": b"\xa9ART",
    "album_artist": b"aART",
    "album": b"\xa9alb",
    "composer": b"\xa9wrt",
    "date": b"\xa9day",
    "comment": b"\xa9cmt",
    "genre": b"\xa9gen",
    "grouping": b"\xa9grp",
    "lyrics": b"\xa9lyr",
    "copyright": b"cprt",
    "description": b"desc",
}
_NUMBERS = {"track": (b"trkn", ">2xHH2x"), "disc": (b"disk", ">2xHH")}


def metadata_box(tags: Tags) -> bytes:
    """The ``meta`` box for ``moov/udta``."""
    items = [_item(name, text) for name, text in tags.text.items()]
    if tags.time_reference is not None:
        items.append(_free_form("time_reference", str(tags.time_reference)))
    if tags.cover is not None and picture_size(tags.cover):
        items.append(box(b"covr", _data(_PICTURES[tags.cover.media_type], tags.cover.data)))
    handler = full_box(b"hdlr", bytes(4), b"mdirappl", bytes(9))
    return full_box(b"meta", handler, box(b"ilst", *items))


def _item(name: str, text: str) -> bytes:
    if name in _NUMBERS and (found := re.fullmatch(r"(\d{1,4})(?:/(\d{1,4}))?", text)):
        kind, layout = _NUMBERS[name]
        return box(kind, _data(_BINARY, struct.pack(layout, int(found[1]), int(found[2] or 0))))
    if name in _TEXTS:
        return box(_TEXTS[name], _text(text))
    return _free_form(name, text)


def _free_form(name: str, text: str) -> bytes:
    mean = full_box(b"mean", b"com.apple.iTunes")
    return box(b"----", mean, full_box(b"name", name.encode("utf-8", "replace")), _text(text))


def _text(text: str) -> bytes:
    return _data(_UTF8, text.encode("utf-8", "replace"))


def _data(kind: int, content: bytes) -> bytes:
    return full_box(b"data", bytes(4), content, flags=kind)
