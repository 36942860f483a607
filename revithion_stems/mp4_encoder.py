"""AAC and ALAC in MP4: M4A with one stream, and ``.stem.mp4`` with five."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.codec.context import Flags

from revithion_stems.audio import Float32
from revithion_stems.av_encoder import audio_frame, layout_of, os_errors
from revithion_stems.encoders import TrackInfo, as_samples
from revithion_stems.mp4_tags import metadata_box
from revithion_stems.mp4_writer import Mp4Track, Mp4Writer, aac_entry, alac_entry
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.stem_mp4 import stem_box

_AAC_BIT_RATE = 256_000
_AAC_DELAY = 1024
"""Frames that FFmpeg's AAC encoder puts before the first one."""


class Mp4Encoder:
    """An :class:`~revithion_stems.encoders.Encoder` for M4A and ``.stem.mp4``; there, mono becomes two equal channels.

    Args:
        path: What to write.
        output_format: M4A or ``.stem.mp4``; AAC without a bit depth, ALAC with one.
        tracks: One, or the mix and four stems.
        channels: 1 or 2.
        sample_rate: Hz.
        frames: How many there will be.

    Raises:
        OSError: The file can't be made, or the encoder not be opened.
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
        self._bit_depth = output_format.bit_depth
        self._rate = sample_rate
        self._frames = frames
        self._done = 0
        self._copies = 1
        names = [track.name for track in tracks]
        self._user_data = metadata_box(tracks[0].tags)
        if output_format.container is Container.STEM_MP4:
            names = [name.capitalize() for name in names]
            self._user_data += stem_box(names[1:])
            self._copies = 2 // channels
        self._layout = layout_of(channels * self._copies)
        with os_errors():
            self._codecs = [self._open_codec() for _ in names]
        described = [self._describe(name, codec) for name, codec in zip(names, self._codecs, strict=True)]
        self._file = path.open("wb")
        self._writer = Mp4Writer(self._file, described, sample_rate)

    def write(self, block: Float32) -> None:
        """See :meth:`Encoder.write`."""
        samples = as_samples(np.repeat(block, self._copies, axis=1), self._bit_depth)
        for number, (codec, part) in enumerate(zip(self._codecs, samples, strict=True)):
            self._encode(number, audio_frame(part, codec, self._done))
        self._done += block.shape[2]

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        for number in range(len(self._codecs)):
            self._encode(number, None)
        self._writer.finish(self._frames, self._user_data)
        self._file.close()

    def abort(self) -> None:
        """See :meth:`Encoder.abort`."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _open_codec(self) -> AudioCodecContext:
        lossy = self._bit_depth is None
        codec = AudioCodecContext.create("aac" if lossy else "alac", "w")
        codec.sample_rate = self._rate
        codec.time_base = Fraction(1, self._rate)
        codec.layout = self._layout
        codec.format = "fltp" if lossy else "s16p" if self._bit_depth is BitDepth.INT16 else "s32p"
        codec.bit_rate = _AAC_BIT_RATE if lossy else 0
        codec.flags |= Flags.bitexact | Flags.global_header
        codec.thread_count = 1
        codec.open()
        return codec

    def _describe(self, name: str, codec: AudioCodecContext) -> Mp4Track:
        config = codec.extradata or b""
        if self._bit_depth is None:
            entry = aac_entry(config, sample_rate=self._rate, channels=codec.channels, bit_rate=_AAC_BIT_RATE)
            return Mp4Track(name=name, entry=entry, packet_frames=codec.frame_size, delay=_AAC_DELAY)
        bits = int(self._bit_depth.value)
        entry = alac_entry(config, sample_rate=self._rate, channels=codec.channels, bits=bits)
        return Mp4Track(name=name, entry=entry, packet_frames=codec.frame_size, delay=0)

    def _encode(self, number: int, frame: AudioFrame | None) -> None:
        with os_errors():
            packets = self._codecs[number].encode(frame)
        for packet in packets:
            self._writer.write(number, bytes(packet))
