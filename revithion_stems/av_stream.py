"""One pass over the audio stream of a media file: FFmpeg's frames, and where the container says that they end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from revithion_stems.audio_source import truncated
from revithion_stems.av_container import DECODERS, MediaFile, not_audio
from revithion_stems.errors import InputError

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

_ANNOUNCING = ("mov", "matroska", "asf", "avi", "flv", "wv", "tta", "ape", "caf", "tak")
"""Containers whose header tells the length; of others FFmpeg estimates it from the bit rate."""

_PADDED_CODECS = ("aac", "opus", "libopus")
_MOST_PADDING = 8_192
_GAPLESS = re.compile(r"\s*[0-9A-F]+ [0-9A-F]+ [0-9A-F]+ ([0-9A-F]{1,16})\b", re.IGNORECASE)
"""iTunSMPB: zero, delay, padding, length, in hexadecimal."""

_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
"""Matroska's DURATION tag."""

_FRAMES_PER_BYTE = 16_384
"""Digital silence in FLAC has 4,000 frames to the byte; a header that announces more is wrong."""


class AvStream:
    """The default or else the first audio stream of a file, open for one pass. One thread at a time.

    Attributes:
        format: FFmpeg's name of the container, such as ``mov``.
        codec: FFmpeg's name of the decoder, such as ``aac``.
        channels: Of the first decoded frame: a header may not know of AAC's extensions.
        sample_rate: Likewise, in Hz.
        bad_packets: How many packets could not be decoded so far.

    Raises:
        InputError: Not media in a known format, no audio in it, or nothing that can be decoded.
        OSError: The file can't be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self.bad_packets = 0
        self._closed = False
        self._last_packet_s = Fraction(0)
        self._media = MediaFile(path)
        self._container = self._media.container
        try:
            self._stream = _audio_stream(self._container, path)
            self.format = self._container.format.name.partition(",")[0]
            self.codec = self._stream.codec_context.name
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise self._undecodable(path)
        except BaseException:
            self.close()
            raise
        self._first = first
        self.channels = first.layout.nb_channels
        self.sample_rate = first.sample_rate

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._closed = True
        self._media.close()

    def frames(self) -> Iterator[AudioFrame]:
        """What is decoded; what can't be is counted and passed over. Once only.

        Raises:
            InputError: The index points at the same bytes again and again.
            OSError: The file can't be read.
        """
        return itertools.chain((self._first,), self._decoded)

    @property
    def announced_s(self) -> float | None:
        """Length by the header, where it tells one."""
        stream, container = self._stream, self._container
        if self.format not in _ANNOUNCING:
            return None
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        if clock := _CLOCK.match(stream.metadata.get("DURATION", "")):
            return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])
        return self.estimated_s if len(container.streams) == 1 else None  # it is the longest stream's

    @property
    def estimated_s(self) -> float | None:
        """Length of the whole file by its header, or by its bit rate."""
        return None if self._container.duration is None else self._container.duration / 1e6

    @property
    def most_frames(self) -> int:
        """No file of this size has more."""
        return self._media.size * _FRAMES_PER_BYTE

    def gapless_frames(self) -> int | None:
        """Length by iTunes' gapless tag; None if there is none that fits the stream.

        A tag that an editing program left standing does not fit: what it calls padding would be music.
        """
        found = _GAPLESS.match(self._container.metadata.get("iTunSMPB", ""))
        if self.format != "mov" or found is None or self.announced_s is None:
            return None
        frames = int(found[1], 16)
        padding = self.announced_s * self.sample_rate - frames
        return frames if frames and padding < _MOST_PADDING else None

    def without_padding(self, frames: int) -> int:
        """How many of the last packet's ``frames`` frames are audio, as far as an MP4 tells."""
        told = round(self._last_packet_s * self.sample_rate)
        return told if self.format == "mov" and self.codec in _PADDED_CODECS and 0 < told < frames else frames

    def _decode(self) -> Iterator[AudioFrame]:
        from av.error import FFmpegError

        packets = self._container.demux(self._stream)
        while True:
            if self._closed:  # FFmpeg would crash
                raise ValueError("the file was closed while it was read")
            try:
                packet = next(packets, None)
            except FFmpegError:
                self.bad_packets += 1
                break
            except IndexError:  # PyAV's, at the end, where a stream appeared midway
                break
            if packet is None:
                break
            if packet.size:  # what follows the last one only empties the decoder
                self._last_packet_s = (packet.duration or 0) * packet.time_base
            try:
                yield from packet.decode()
            except FFmpegError:
                self.bad_packets += 1
                self._last_packet_s = Fraction(0)
        self._media.check()

    def _undecodable(self, path: Path) -> InputError:
        if self.announced_s is None:
            return not_audio(path, "nothing in it can be decoded")
        frames = round(self.announced_s * self._stream.sample_rate)
        return truncated(path, 0, frames, "nothing in it can be decoded")


def _audio_stream(container: InputContainer, path: Path) -> AudioStream:
    from av.stream import Disposition

    streams = container.streams.audio
    if not streams:
        raise InputError(
            f"{path} has no audio stream",
            hint="Name a file with sound in it.",
            code="input.no_audio",
        )
    stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    # A stream that nothing can decode has no context, whatever the types say.
    codec = getattr(stream.codec_context, "name", None)
    if codec not in DECODERS:
        raise not_audio(path, f"its codec is {codec}" if codec else "its codec is unknown, or it is encrypted")
    stream.codec_context.thread_count = 1
    return stream
