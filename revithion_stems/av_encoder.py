"""FLAC, MP3 and Opus by FFmpeg's libraries.

The file is opened here and handed to FFmpeg, so that errors of writing come back as they are, and that the file can be
closed at any time. FFmpeg's "bitexact" leaves dates, random numbers and its version out.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import soxr
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition

from revithion_stems.audio import Float32
from revithion_stems.cover_picture import picture_block, picture_size
from revithion_stems.encoders import TrackInfo, as_samples
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.tags import Tags

_LAME_DELAY = 1105
"""Frames: 576 of LAME's filter bank and 529 of a decoder's, as FFmpeg counts it. Source: LAME's technical FAQ."""

_SKIP_AT_END = 4
"""Byte of a packet's "skip samples" that says how many to drop at its end. Source: FFmpeg's packet.h."""

_PICTURE_CODECS = {"image/jpeg": "mjpeg", "image/png": "png"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Codec:
    """FFmpeg's names of a codec, of its container and of the samples that it takes; bit/s of the stream."""

    name: str
    muxer: str
    samples: str
    bit_rate: int = 0


class AvEncoder:
    """An :class:`~revithion_stems.encoders.Encoder` for the formats that libsndfile can't write as we need them.

    Args:
        path: What to write.
        output_format: FLAC, MP3 or Opus.
        tracks: One.
        channels: 1–8.
        sample_rate: Hz.
        frames: How many there will be.

    Raises:
        OSError: The file can't be made.
        RuntimeError: The encoder can't be opened.
    """

    def __init__(
        self,
        path: Path,
        output_format: OutputFormat,
        *,
        tracks: Sequence[TrackInfo],
        channels: int,
        sample_rate: int,
        frames: int,
    ) -> None:
        self._codec = _codec(output_format)
        self._bit_depth = output_format.bit_depth
        self._stored_frames, self._rate = output_format.stored_length(frames=frames, sample_rate=sample_rate)
        self._resampler = (
            soxr.ResampleStream(sample_rate, self._rate, channels, dtype="float32", quality="VHQ")
            if self._rate != sample_rate
            else None
        )
        self._done = 0
        self._packets = 0
        self._file = path.open("wb")
        try:
            with os_errors():
                self._container = av.open(
                    self._file,
                    "w",
                    format=self._codec.muxer,
                    container_options={"fflags": "+bitexact"},
                    metadata_errors="replace",
                )
                self._stream = self._add_stream(channels)
                self._start(tracks[0].tags, sample_rate)
        except BaseException:
            self._file.close()
            raise

    def write(self, block: Float32) -> None:
        """See :meth:`Encoder.write`."""
        samples = block[0]
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(np.ascontiguousarray(samples.T)).T
        self._encode(samples)

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        if self._resampler is not None:
            nothing = np.zeros((0, self._stream.channels), np.float32)
            rest = self._resampler.resample_chunk(nothing, last=True).T[:, : self._stored_frames - self._done]
            self._encode(np.pad(rest, ((0, 0), (0, self._stored_frames - self._done - rest.shape[1]))))
        with os_errors():
            packets = self._stream.encode(None)
            self._packets += len(packets)
            if self._codec.name == "libmp3lame":
                self._correct_padding(packets[-1])
            self._container.mux(packets)
            self._container.close()
        self._file.close()

    def abort(self) -> None:
        """See :meth:`Encoder.abort`."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._container.close()  # which writes nothing, since the file is closed

    def _add_stream(self, channels: int) -> AudioStream:
        stream = cast(AudioStream, self._container.add_stream(self._codec.name, rate=self._rate))
        context = stream.codec_context
        context.layout = layout_of(channels)
        context.format = self._codec.samples
        context.time_base = Fraction(1, self._rate)
        context.bit_rate = self._codec.bit_rate
        context.flags |= Flags.bitexact
        context.thread_count = 1
        return stream

    def _start(self, tags: Tags, source_rate: int) -> None:
        """Writes what comes before the audio."""
        metadata = self._container.metadata
        metadata.update(tags.text)
        if tags.time_reference is not None:
            metadata["time_reference"] = str(round(tags.time_reference * self._rate / source_rate))
        size = picture_size(tags.cover) if tags.cover else None
        if tags.cover is None or size is None:
            self._container.start_encoding()
        elif self._codec.muxer == "ogg":
            metadata["METADATA_BLOCK_PICTURE"] = base64.b64encode(picture_block(tags.cover)).decode("ascii")
            self._container.start_encoding()
        else:
            name = _PICTURE_CODECS[tags.cover.media_type]
            stream = self._container.add_mux_stream(name, width=size[0], height=size[1], time_base=Fraction(1, 1000))
            stream.disposition = Disposition.attached_pic
            stream.metadata["comment"] = "Cover (front)"  # FFmpeg's name for the kind of picture
            self._container.start_encoding()
            packet = Packet(tags.cover.data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
            self._container.mux(packet)

    def _encode(self, samples: Float32) -> None:
        if samples.shape[1] == 0:
            return
        with os_errors():
            frame = audio_frame(as_samples(samples, self._bit_depth), self._stream.codec_context, self._done)
            packets = self._stream.encode(frame)
            self._packets += len(packets)
            self._container.mux(packets)
        self._done += samples.shape[1]

    def _correct_padding(self, last: Packet[AudioStream]) -> None:
        """Tells how much of an MP3 is padding, where FFmpeg counts no more than the last packet."""
        packet_frames = self._stream.codec_context.frame_size
        padding = self._packets * packet_frames - _LAME_DELAY - self._done
        if padding > packet_frames:
            skip = last.get_sidedata("skip_samples")
            data = bytearray(bytes(skip))
            struct.pack_into("<I", data, _SKIP_AT_END, padding)
            skip.update(bytes(data))
            last.set_sidedata(skip)


def _codec(output_format: OutputFormat) -> _Codec:
    match output_format.container:
        case Container.FLAC:
            narrow = output_format.bit_depth is BitDepth.INT16
            return _Codec(name="flac", muxer="flac", samples="s16" if narrow else "s32")
        case Container.MP3:
            return _Codec(name="libmp3lame", muxer="mp3", samples="fltp", bit_rate=320_000)
        case Container.OPUS:
            return _Codec(name="libopus", muxer="ogg", samples="flt", bit_rate=256_000)
        case _:
            raise ValueError(f"{output_format.container.value} is not written here")


def layout_of(channels: int) -> str:
    """FFmpeg's name of a channel layout; no meaning is given to the channels of more than two."""
    return {1: "mono", 2: "stereo"}.get(channels, f"{channels} channels")


def audio_frame(samples: Any, codec: AudioCodecContext, start: int) -> AudioFrame:
    """Samples ``[channels, frames]`` of the codec's type as what FFmpeg takes; ``start`` is the first one's place."""
    data = np.ascontiguousarray(samples if codec.format.is_planar else samples.T.reshape(1, -1))
    frame = AudioFrame.from_ndarray(data, format=codec.format, layout=codec.layout)
    frame.sample_rate, frame.time_base, frame.pts = codec.sample_rate, Fraction(1, codec.sample_rate), start
    return frame


@contextlib.contextmanager
def os_errors() -> Generator[None]:
    """FFmpeg's errors as :class:`OSError`; those of the file are that already."""
    try:
        yield
    except FFmpegError as exc:
        code = exc.errno if isinstance(exc, OSError) else errno.EIO
        raise OSError(code, f"FFmpeg: {exc.strerror}") from exc
