"""WAV and Ogg Vorbis by libsndfile, with what it does not write by itself: BWF's time reference, covers in Ogg."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from revithion_stems.audio import Float32
from revithion_stems.encoders import TrackInfo, as_samples
from revithion_stems.ogg_comments import comment_packet, replace_comments
from revithion_stems.ogg_pages import fix_serial
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.sndfile_reader import WAVE_FROM_OGG, soundfile_name
from revithion_stems.tags import Tags

# sndfile.h
_SFC_SET_ADD_PEAK_CHUNK = 0x1050
_SFC_SET_BROADCAST_INFO = 0x10F1
_BROADCAST_INFO = "=256s32s32s10s8s2xII2s64s10s180sI256s"  # 2x: the compiler aligns the two numbers

_FIRST_CHUNK_AT = 12
_CODING_HISTORY_AT = 602  # bytes into BWF's chunk

_SUBTYPES = {BitDepth.INT16: "PCM_16", BitDepth.INT24: "PCM_24", BitDepth.FLOAT32: "FLOAT", None: "VORBIS"}
_INFO_NAMES = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "comment": "comment",
    "date": "date",
    "genre": "genre",
    "track": "tracknumber",
    "copyright": "copyright",
}
"""FFmpeg's names of the tags that WAV can hold → libsndfile's."""

_BEST_VORBIS = 0.1
"""libsndfile's scale, on which 0 is the best quality: about 320 kbit/s."""

_VORBIS_BLOCK_FRAMES = 4096
"""libvorbis gives other bytes for other blocks, so that it always gets the same ones."""


class SndfileEncoder:
    """An :class:`~revithion_stems.encoders.Encoder` for WAV (RF64 where it gets large) and Ogg Vorbis.

    Args:
        path: What to write.
        output_format: WAV or Ogg.
        tracks: One.
        channels: 1–8.
        sample_rate: Hz.
        frames: How many there will be.

    Raises:
        RuntimeError: The file can't be made.
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
        self._path = path
        self._format = output_format
        self._tags = tracks[0].tags
        self._comments = b""
        self._held = np.zeros((0, channels), np.float32)
        self._order = WAVE_FROM_OGG.get(channels, tuple(range(channels)))
        quality: dict[str, Any] = {"compression_level": _BEST_VORBIS} if output_format.lossy else {}
        self._writer = soundfile.SoundFile(
            soundfile_name(path),
            "w",
            samplerate=sample_rate,
            channels=channels,
            format=output_format.major_format(frames=frames, channels=channels),
            subtype=_SUBTYPES[output_format.bit_depth],
            **quality,
        )
        try:
            if output_format.container is Container.OGG:
                self._comments = comment_packet(self._tags)
                self._writer.comment = " " * len(self._comments)
            else:
                self._start_wav()
        except BaseException:
            self._writer.close()
            raise

    def write(self, block: Float32) -> None:
        """See :meth:`Encoder.write`."""
        if not self._format.lossy:
            self._writer.write(as_samples(np.ascontiguousarray(block[0].T), self._format.bit_depth))
            return
        ordered = np.empty_like(block[0])
        ordered[list(self._order)] = block[0]
        held = np.concatenate([self._held, ordered.T])
        while len(held) >= _VORBIS_BLOCK_FRAMES:
            self._writer.write(held[:_VORBIS_BLOCK_FRAMES])
            held = held[_VORBIS_BLOCK_FRAMES:]
        self._held = held.copy()

    def close(self) -> None:
        """See :meth:`Encoder.close`."""
        if self._format.lossy:
            self._writer.write(self._held)
        self._writer.close()
        if self._format.container is Container.OGG:
            fix_serial(self._path)
            replace_comments(self._path, self._comments)
        elif self._tags.time_reference is not None:
            _clear_coding_history(self._path)

    def abort(self) -> None:
        """See :meth:`Encoder.abort`."""
        self._writer.close()

    def _start_wav(self) -> None:
        # The PEAK chunk of float WAV holds the time of day: without it, the same stems are the same bytes.
        self._command(_SFC_SET_ADD_PEAK_CHUNK, b"")
        if self._tags.time_reference is not None:
            self._command(_SFC_SET_BROADCAST_INFO, _broadcast_info(self._tags))
        for name, libsndfile_name in _INFO_NAMES.items():
            if text := self._tags.text.get(name):
                setattr(self._writer, libsndfile_name, text)

    def _command(self, command: int, data: bytes) -> None:
        # python-soundfile has no public call for it; these three names have stood since its first version.
        library: Any = soundfile
        handle: Any = self._writer
        library._snd.sf_command(handle._file, command, library._ffi.from_buffer(data), len(data))


def _broadcast_info(tags: Tags) -> bytes:
    """BWF's chunk as libsndfile takes it. Its description stays empty: readers would take it for the comment.

    Source: EBU Tech 3285 (BWF).
    """
    high, low = divmod(tags.time_reference or 0, 2**32)
    return struct.pack(_BROADCAST_INFO, b"", b"revithion-stems", b"", b"", b"", low, high, b"", b"", b"", b"", 0, b"")


def _clear_coding_history(path: Path) -> None:
    """libsndfile writes its version there."""
    with path.open("rb+") as file:
        file.seek(_FIRST_CHUNK_AT)
        while header := file.read(8):
            kind, size = struct.unpack("<4sI", header)
            if kind == b"bext":
                file.seek(_CODING_HISTORY_AT, 1)
                file.write(bytes(size - _CODING_HISTORY_AT))
                return
            file.seek(size + size % 2, 1)
