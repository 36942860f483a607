"""What a file says of itself besides its samples: text tags, cover picture, and BWF's time reference."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from revithion_stems.av_container import MediaFile
from revithion_stems.errors import InputError

if TYPE_CHECKING:
    from av.container import InputContainer

STEM_MARK = "revithion-stems: stem {stem}, model {model}, weights: {licence}"
"""What the comment of our own stems says: one line of ASCII."""

_STEM = re.compile(r"revithion-stems: stem ([^,\r\n]+), model [^\r\n]*")
_MOST_MARK_BYTES = 160
_MOST_COMMENT_BYTES = 250
"""Some containers cut a comment there; the source's own comment gives way to the mark."""

_MOST_TAGS = 64
_MOST_TEXT_BYTES = 4096
_MOST_COVER_BYTES = 16 * 2**20
_PICTURES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}

_TECHNICAL = frozenset(
    (
        *("major_brand", "minor_version", "compatible_brands", "handler_name", "vendor_id", "timecode", "language"),
        *("encoder", "encoder_settings", "encoded_by", "encoding params", "tsse", "tlen", "creation_time", "duration"),
        *("itunsmpb", "itunnorm", "itunpgap", "gapless_playback", "wmfsdkversion", "wmfsdkneeded", "isvbr"),
        *("originator", "originator_reference", "origination_date", "origination_time", "coding_history", "umid"),
        *("number_of_frames", "number_of_bytes", "bps", "media_type", "metadata_block_picture", "coverart"),
        "waveformatextensible_channel_mask",
    )
)
_TECHNICAL_PREFIXES = (
    "_statistics_",
    "id3v2_priv.",
    "com.apple.",
    "com.android.",
    "replaygain_",
    "wm/wmcollection",
    "r128_",
)
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """A cover picture: its media type (``image/jpeg`` or ``image/png``) and the bytes of that file."""

    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """The tags of a file.

    Attributes:
        text: Lower-case names as FFmpeg has them (``title``, ``artist``, ``album``, ``date``, ``track``, …) → text.
        cover: The front cover, or None.
        time_reference: BWF: frames from midnight to frame 0, at the file's rate; None where the file does not say.
    """

    text: Mapping[str, str] = field(default_factory=dict)
    cover: Cover | None = None
    time_reference: int | None = None


def read_tags(path: Path) -> Tags:
    """The tags of any file that FFmpeg knows; empty where there are none or the file can't be read. Any thread.

    Text is bounded to 64 tags of 4 KiB without control characters (lines are broken by ``\\n``), a cover to 16 MiB.
    What describes the file rather than the music (encoder, brands, dates of the file, …) is left out.
    """
    from av.error import FFmpegError

    try:
        with MediaFile(path) as container:
            found = _texts(container)
            reference = found.get("time_reference", "")
            text = {name: value for name, value in found.items() if value and not _is_technical(name)}
            return Tags(
                text=dict(list(text.items())[:_MOST_TAGS]),
                cover=_cover(container),
                time_reference=int(reference) if re.fullmatch(r"[0-9]{1,18}", reference) else None,
            )
    except (InputError, FFmpegError, OSError):
        return Tags()


def stem_tags(source: Tags, *, stem: str, model: str, licence: str) -> Tags:
    """The tags of a stem: its source's, with the stem in the title and a mark at the end of the comment."""
    text = dict(source.text)
    if title := text.get("title"):
        text["title"] = f"{title} ({stem})"
    stem, model, licence = (_plain(value) for value in (stem, model, licence))
    mark = STEM_MARK.format(stem=stem, model=model, licence=licence)[:_MOST_MARK_BYTES]
    own = _STEM.sub("", text.get("comment", "")).rstrip()
    own = _cut(own, _MOST_COMMENT_BYTES - len(mark) - 1).rstrip()
    text["comment"] = f"{own}\n{mark}" if own else mark
    return replace(source, text=text)


def stem_of(tags: Tags) -> str | None:
    """Which stem a file says that it is, if it is one of ours."""
    found = _STEM.search(tags.text.get("comment", ""))
    return found[1] if found else None


def digest(tags: Tags) -> str:
    """SHA-256 of all tags, in hexadecimal: equal for equal tags."""
    cover = tags.cover
    data = {
        "text": dict(tags.text),
        "cover": None if cover is None else [cover.media_type, hashlib.sha256(cover.data).hexdigest()],
        "time_reference": tags.time_reference,
    }
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _texts(container: InputContainer) -> dict[str, str]:
    """Tags of the container and, where it has none of that name, of its first audio stream."""
    found: dict[str, str] = {}
    sources = [container.metadata, *(stream.metadata for stream in container.streams.audio[:1])]
    for name, value in (item for source in sources for item in source.items()):
        found.setdefault(_clean(name).lower(), _cut(_clean(value), _MOST_TEXT_BYTES))
    return found


def _is_technical(name: str) -> bool:
    return not name or name == "time_reference" or name in _TECHNICAL or name.startswith(_TECHNICAL_PREFIXES)


def _clean(text: str) -> str:
    """Text as it was meant: UTF-8 or else Windows' Latin, lines broken by LF, no control characters."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "ignore")
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")


def _plain(text: str) -> str:
    """One word of the mark: ASCII without the characters that part it."""
    return re.sub(r"[^ -+\--~]", "_", text)


def _cover(container: InputContainer) -> Cover | None:
    """The front cover, or else the first picture."""
    from av.stream import Disposition

    pictures = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
    pictures.sort(key=lambda stream: "front" not in stream.metadata.get("comment", "").lower())
    if not pictures:
        return None
    packet = next(container.demux(pictures[0]))
    if packet.size <= _MOST_COVER_BYTES:
        data = bytes(packet)
        for start, media_type in _PICTURES.items():
            if data.startswith(start):
                return Cover(media_type=media_type, data=data)
    return None
