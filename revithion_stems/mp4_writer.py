"""MP4 files of audio, written in one pass: media first, then the index.

FFmpeg would write them too, but keeps some hundred bytes per packet in memory: 240 MB for three hours of five streams.
Here it is four bytes per packet, and eight per chunk of 64. The media time scale is the sample rate, and an edit list
says which frames are music, so that the encoder's delay and padding are no part of it.

Source: ISO/IEC 14496-12 §8 (boxes), 14496-14 and 14496-1 §7.2.6 (AAC), Apple's ALAC magic cookie description.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from revithion_stems.mp4_boxes import box, full_box

_CHUNK_PACKETS = 64
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNDETERMINED = b"\x55\xc4"  # the language "und"
_ENABLED, _IN_MOVIE = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp4Track:
    """One audio track.

    Attributes:
        name: For people.
        entry: The box that describes its samples: see :func:`aac_entry` and :func:`alac_entry`.
        packet_frames: Frames that each packet decodes to.
        delay: Frames before the first one that was encoded.
    """

    name: str
    entry: bytes
    packet_frames: int
    delay: int


class Mp4Writer:
    """A file being written; the first track is the one that is enabled. One thread at a time.

    Args:
        file: Empty, open for writing; it stays open.
        tracks: At least one.
        sample_rate: Of all tracks, in Hz.
    """

    def __init__(self, file: BinaryIO, tracks: Sequence[Mp4Track], sample_rate: int) -> None:
        self._file = file
        self._tracks = [_Index(track=track) for track in tracks]
        self._rate = sample_rate
        brand = box(b"ftyp", b"M4A ", bytes(4), b"M4A ", b"isom", b"iso2", b"mp42")
        file.write(brand + box(b"free") + box(b"mdat"))  # in place of both comes a size of 64 bits, if it takes one
        self._media_at = len(brand)
        self._at = self._media_at + 16

    def write(self, track: int, packet: bytes) -> None:
        """Appends a packet to a track. All tracks get the same number of them."""
        self._tracks[track].waiting.append(packet)
        while all(len(index.waiting) >= _CHUNK_PACKETS for index in self._tracks):
            self._write_chunks()

    def finish(self, frames: int, user_data: bytes) -> None:
        """Writes what is left and the index.

        Args:
            frames: Length of the music, without delay and padding.
            user_data: Boxes for ``moov/udta``.
        """
        while any(index.waiting for index in self._tracks):
            self._write_chunks()
        tracks = [self._track_box(number, index, frames) for number, index in enumerate(self._tracks, 1)]
        times = _times(frames)
        header = full_box(
            b"mvhd",
            times.start,
            struct.pack(">I", self._rate),
            times.duration,
            struct.pack(">IH10x", 0x10000, 0x100),
            _MATRIX,
            struct.pack(">24xI", len(tracks) + 1),
            version=times.version,
        )
        self._file.write(box(b"moov", header, *tracks, box(b"udta", user_data)))
        size = self._at - self._media_at - 8
        self._file.seek(self._media_at)
        self._file.write(
            box(b"free") + struct.pack(">I4s", size, b"mdat")
            if size < 2**32
            else struct.pack(">I4sQ", 1, b"mdat", size + 8)
        )

    def _write_chunks(self) -> None:
        for index in self._tracks:
            packets = index.waiting[:_CHUNK_PACKETS]
            del index.waiting[:_CHUNK_PACKETS]
            index.chunks.append(self._at)
            index.sizes.extend(map(len, packets))
            self._file.write(b"".join(packets))
            self._at += sum(map(len, packets))

    def _track_box(self, number: int, index: _Index, frames: int) -> bytes:
        track = index.track
        movie, media = _times(frames), _times(frames + track.delay)
        flags = _IN_MOVIE | (_ENABLED if number == 1 else 0)
        header = full_box(
            b"tkhd",
            movie.start,
            struct.pack(">I4x", number),
            movie.duration,
            struct.pack(">8x2hH2x", 0, 1, 0x100),  # tracks of one alternate group replace each other
            _MATRIX,
            bytes(8),
            version=movie.version,
            flags=flags,
        )
        start = struct.pack(">q" if movie.version else ">i", track.delay)
        edit = full_box(b"elst", struct.pack(">I", 1), movie.duration, start, b"\0\1\0\0", version=movie.version)
        media_header = full_box(
            b"mdhd",
            media.start,
            struct.pack(">I", self._rate),
            media.duration,
            _UNDETERMINED,
            bytes(2),
            version=media.version,
        )
        handler = full_box(b"hdlr", bytes(4), b"soun", bytes(12), track.name.encode("utf-8", "replace"), b"\0")
        data = box(b"dinf", full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=1)))
        information = box(b"minf", full_box(b"smhd", bytes(4)), data, _sample_table(index, frames))
        return box(b"trak", header, box(b"edts", edit), box(b"mdia", media_header, handler, information))


def aac_entry(config: bytes, *, sample_rate: int, channels: int, bit_rate: int) -> bytes:
    """The sample entry of AAC; ``config`` is its AudioSpecificConfig."""
    decoder = struct.pack(">BBxxxII", 0x40, 0x15, bit_rate, bit_rate) + _descriptor(5, config)
    stream = struct.pack(">HB", 0, 0) + _descriptor(4, decoder) + _descriptor(6, b"\2")
    return _audio_entry(b"mp4a", sample_rate, channels, 16, full_box(b"esds", _descriptor(3, stream)))


def alac_entry(config: bytes, *, sample_rate: int, channels: int, bits: int) -> bytes:
    """The sample entry of ALAC; ``config`` is its whole ``alac`` box."""
    return _audio_entry(b"alac", sample_rate, channels, bits, config)


@dataclass(slots=True, kw_only=True)
class _Index:
    """What is known of a track's packets: those not yet written, the sizes of the others, where chunks begin."""

    track: Mp4Track
    waiting: list[bytes] = field(default_factory=list[bytes])
    sizes: array[int] = field(default_factory=lambda: array("I"))
    chunks: array[int] = field(default_factory=lambda: array("Q"))


@dataclass(frozen=True, slots=True)
class _Times:
    """Creation and change as zeros, and a duration, in the width that it takes."""

    version: int
    start: bytes
    duration: bytes


def _times(duration: int) -> _Times:
    if duration < 2**32 - 1:  # which would say that it is unknown
        return _Times(0, bytes(8), struct.pack(">I", duration))
    return _Times(1, bytes(16), struct.pack(">Q", duration))


def _audio_entry(kind: bytes, sample_rate: int, channels: int, bits: int, config: bytes) -> bytes:
    rate = sample_rate << 16 if sample_rate < 2**16 else 0  # then decoders take the codec's or the time scale
    return box(kind, struct.pack(">6xH8xHH4xI", 1, channels, bits, rate), config)


def _descriptor(tag: int, content: bytes) -> bytes:
    return bytes([tag, 0x80, 0x80, 0x80, len(content)]) + content


def _sample_table(index: _Index, frames: int) -> bytes:
    track, packets, chunks = index.track, len(index.sizes), len(index.chunks)
    last_frames = frames + track.delay - (packets - 1) * track.packet_frames
    if not 0 < last_frames <= track.packet_frames:
        raise ValueError(f"{packets} packets of {track.packet_frames} frames for {frames} frames")
    durations = [(packets - 1, track.packet_frames)] * (packets > 1) + [(1, last_frames)]
    runs = [(1, _CHUNK_PACKETS)] * (chunks > 1) + [(chunks, packets - (chunks - 1) * _CHUNK_PACKETS)]
    wide = index.chunks[-1] >= 2**32
    same_size = index.sizes[0] if index.sizes.count(index.sizes[0]) == packets else 0
    return box(
        b"stbl",
        full_box(b"stsd", struct.pack(">I", 1), track.entry),
        full_box(b"stts", struct.pack(">I", len(durations)), *(struct.pack(">II", *run) for run in durations)),
        full_box(b"stsc", struct.pack(">I", len(runs)), *(struct.pack(">III", *run, 1) for run in runs)),
        full_box(b"stsz", struct.pack(">II", same_size, packets), b"" if same_size else _big_endian(index.sizes)),
        full_box(
            b"co64" if wide else b"stco",
            struct.pack(">I", chunks),
            _big_endian(index.chunks if wide else array("I", index.chunks)),
        ),
    )


def _big_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()
