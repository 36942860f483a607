"""MPEG audio frames counted from their headers, because a decoder believes what the first one says.

An MP3 of variable bit rate that lacks the Xing/Info (or VBRI) frame does not say how long it is. libsndfile then takes
the length from the file's size and the bit rate of the first frame, and stops there, although the music goes on.
:class:`IndexedStream` puts such a frame in front, with the counted number, so that all of it is decoded.

Source: ISO/IEC 11172-3 §2.4.1.3 and 13818-3 (frame header); Xing's VBR header as LAME and mpg123 read it.
"""

from __future__ import annotations

import io
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_Data: TypeAlias = bytes | mmap.mmap

# Layer III only: that is what .mp3 is. Version bits (header bits 19-20) → kbit/s by index, and rates by index.
_KBITS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBITS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_SEARCH_BYTES = 65_536
_DECODER_DELAY = 529
_SAME_STREAM = 0xFFFE0C00  # sync, version, layer, sampling rate: constant within a stream


@dataclass(frozen=True, slots=True, kw_only=True)
class MpegIndex:
    """What the frame headers of an MP3 say.

    Attributes:
        start: Byte of the first frame.
        tagged: Whether the first frame is a Xing, Info or VBRI frame, which tells the length.
        frames: Audio frames (samples per channel) in all MPEG frames; 0 if ``tagged``, where they are not counted.
        header: The first frame's header.
    """

    start: int
    tagged: bool
    frames: int
    header: int


def read_index(path: Path) -> MpegIndex | None:
    """Finds the first frame and, unless it tells the length, counts all frames; None where no frames are found.

    Reads one header per frame: about a second for three hours. Any thread.

    Raises:
        OSError: The file can't be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = _first_frame(data)
        if start is None:
            return None
        header = _header(data, start)
        size, samples = _frame(header)
        tagged = any(tag in data[start : start + size] for tag in (b"Xing", b"Info", b"VBRI"))
        count = 0 if tagged else _count(data, start, header)
        return MpegIndex(start=start, tagged=tagged, frames=count * samples, header=header)


class IndexedStream(io.RawIOBase):
    """A stream that reads as a frame with the counted length, then the file from its first frame on."""

    def __init__(self, path: Path, index: MpegIndex) -> None:
        self._prefix = _prefix(index)
        self._skip = index.start
        self._file = path.open("rb", buffering=0)
        self._size = path.stat().st_size - index.start + len(self._prefix)
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fills ``buffer`` as far as one read goes."""
        view = memoryview(buffer).cast("B")
        if self._at < len(self._prefix):
            part = self._prefix[self._at : self._at + len(view)]
            view[: len(part)] = part
            count = len(part)
        else:
            self._file.seek(self._at - len(self._prefix) + self._skip)
            count = self._file.readinto(view) or 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Moves; see :meth:`io.IOBase.seek`."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def close(self) -> None:
        """Closes the file below."""
        self._file.close()
        super().close()


def _header(data: _Data, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _frame(header: int) -> tuple[int, int]:
    """Bytes and samples of a frame; (0, 0) if that is no layer III header (free format is not supported)."""
    version, layer = header >> 19 & 3, header >> 17 & 3
    bit_rate, rate = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or bit_rate in (0, 15) or rate == 3:
        return 0, 0
    samples = 1152 if version == 3 else 576
    kbits = (_KBITS_1 if version == 3 else _KBITS_2)[bit_rate]
    return samples // 8 * kbits * 1000 // _RATES[version][rate] + (header >> 9 & 1), samples


def _first_frame(data: _Data) -> int | None:
    """Where the first frame begins: a header whose frame is followed by another of the same stream, or by the end."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:  # its size has seven bits to the byte
        a, b, c, d = data[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[at + 5] & 0x10 else 0)
    stop = min(at + _SEARCH_BYTES, len(data) - 4)
    while (at := data.find(b"\xff", at, stop)) >= 0:
        size, _ = _frame(header := _header(data, at))
        if size and (at + size >= len(data) or (_header(data, at + size) ^ header) & _SAME_STREAM == 0):
            return at
        at += 1
    return None


def _count(data: _Data, at: int, first: int) -> int:
    """Frames from ``at`` on; what is not a frame of the same stream (tags, damage) is passed over."""
    count, end = 0, len(data) - 4
    while at <= end:
        header = _header(data, at)
        size = 0 if (header ^ first) & _SAME_STREAM else _frame(header)[0]
        if size:
            count += 1
            at += size
        elif (at := data.find(b"\xff", at + 1, end)) < 0:
            break
    return count


def _prefix(index: MpegIndex) -> bytes:
    """A Xing frame with the number of frames, and one silent frame, which a decoder cuts off again.

    Given a number, mpg123 also drops the decoder's delay of 529 frames, which it leaves in a stream without a tag (as
    ffmpeg does). So that both kinds are decoded alike, the tag asks for exactly the silent frame to be dropped.
    """
    header = index.header | 1 << 16  # no checksum
    header = header & ~0xF200 | 9 << 12  # 128 or 80 kbit/s without padding: room enough at every rate
    size, samples = _frame(header)
    start = header.to_bytes(4, "big")
    mono = header >> 6 & 3 == 3
    side_bytes = (17 if mono else 32) if samples == 1152 else (9 if mono else 17)
    count = index.frames // samples + 1
    delay = samples - _DECODER_DELAY
    tag = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")  # 1: only the number of frames is given
    tag += b"LAME".ljust(21, b"\0") + (delay << 12).to_bytes(3, "big")  # 12 bits of delay, 12 of padding
    return (start + bytes(side_bytes) + tag).ljust(size, b"\0") + start.ljust(size, b"\0")
