"""Reading with libsndfile: WAV/RF64/W64, AIFF, CAF, FLAC, Ogg Vorbis and Opus, MP3 and some twenty more.

MP3 is decoded by mpg123, which drops the encoder's delay and padding by the LAME tag, so that frame 0 is the first
frame that was encoded. An MP3 without such a tag does not say what its delay was: it is decoded whole, from its first
frame, as ffmpeg does.

Surround sound in Ogg has the order of Vorbis, which libsndfile leaves as it is; it is brought into that of WAVE, as
other decoders do.

Source: Vorbis I specification §4.3.9 and RFC 7845 §5.1.1.2 (order of channels).
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from revithion_stems.audio import BLOCK_FRAMES, Float32
from revithion_stems.audio_source import AudioInfo, cut_short, truncated
from revithion_stems.mpeg_frames import IndexedStream, read_index
from revithion_stems.ogg_pages import has_end

WAVE_FROM_OGG = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
"""Where the channels of WAVE's order stand in Ogg's, by number of channels; equal orders are left out."""

_EXACT_PCM_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24}
_LOSSY = ("MP3", "OGG")
_MOST_MISSING = 0.01
"""Of a lossy stream's announced length: less is an encoder's rounding, more is worth a notice."""

_UNKNOWN_FRAMES = 2**60
"""A FLAC that was written to a pipe does not say its length; libsndfile then reports nearly 2^63 frames."""

_ANNOUNCED = re.compile(r"^\s*(data|SSND|Data [Ss]ize)\s*: (\d+)", re.MULTILINE)
_PLACEHOLDERS = (0, 0x7FFF_0000)  # sizes that a writer leaves in the header of a stream: none, or the most there can be
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_CHUNK_OVERHEAD = {"WAV": 0, "WAVEX": 0, "RF64": 0, "W64": 24, "AIFF": 8, "AU": 0, "CAF": 4}
_PADDING_BYTES = 8  # the most that a format rounds a size up to


class SndfileReader:
    """A file that libsndfile decodes. One thread at a time.

    Attributes:
        info: By the header.
        strict: False for MP3 (in WAV as well) and Ogg.

    Raises:
        InputError: It is shorter than its header says.
        OSError: The file can't be opened.
        soundfile.SoundFileError, RuntimeError, TypeError, ValueError: libsndfile does not take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file, self._tells_length = _open(path)
        try:
            self.info = AudioInfo(
                channels=self._file.channels,
                sample_rate=self._file.samplerate,
                frames=self._file.frames,
                format=self._file.format,
                subtype=self._file.subtype,
                exact_bits=_EXACT_PCM_BITS.get(self._file.subtype),
            )
            if self.info.frames >= _UNKNOWN_FRAMES:
                counted = sum(block.shape[1] for block in self.decode(BLOCK_FRAMES))
                self.info = dataclasses.replace(self.info, frames=counted)
                self._file.close()
                self._file, _ = _open(path)
            self.strict = self.info.format not in _LOSSY and not self.info.subtype.startswith("MPEG")
            announced = _announced_frames(self._file)
            if announced > self.info.frames > 0:
                raise truncated(path, self.info.frames, announced, "the file is shorter than its header says")
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._file.close()

    def decode(self, block_frames: int) -> Iterator[Float32]:
        """The audio in blocks ``[channels, ≤ block_frames]``, all full but the last.

        Once only: mpg123 does not come back to the same state by seeking to the start.

        Raises:
            InputError: The data is damaged.
        """
        order = list(WAVE_FROM_OGG.get(self._file.channels, ())) if self._file.format == "OGG" else []
        done = 0
        try:
            while len(block := self._file.read(block_frames, dtype="float32", always_2d=True)):
                done += len(block)
                yield np.ascontiguousarray((block[:, order] if order else block).T, dtype=np.float32)
        except (soundfile.SoundFileError, RuntimeError, AssertionError) as exc:
            raise truncated(self._path, done, self._file.frames, str(exc)) from exc

    def shortfall(self, frames: int) -> str | None:
        """What to tell people if no more than ``frames`` frames came out of a lossy stream; None if it is whole."""
        if self.info.format == "OGG" and not has_end(self._path):
            return "was cut short: its stream has no end mark; what is there was read"
        if self.info.format == "MP3" and self._tells_length and frames < (1 - _MOST_MISSING) * self.info.frames:
            return cut_short(frames, self.info.frames)
        return None


def soundfile_name(path: Path) -> Any:
    """``path`` as soundfile takes it: bytes, because it can't encode a name that is not UTF-8; text on Windows."""
    return str(path) if sys.platform == "win32" else os.fsencode(path)


class _Stream(soundfile.SoundFile):
    """Reads straight on. soundfile would seek after every block, and mpg123 loses its bit reservoir by that."""

    def __init__(self, file: Any) -> None:
        self._below: IndexedStream | None = None
        super().__init__(file)
        if isinstance(file, IndexedStream):
            self._below = file

    def seekable(self) -> bool:
        """Never, so that soundfile does not."""
        return False

    def close(self) -> None:
        """Closes the file and what is below it."""
        super().close()
        if self._below is not None:
            self._below.close()


def _open(path: Path) -> tuple[soundfile.SoundFile, bool]:
    """The open file, and whether its header tells how long it is (an MP3 may not)."""
    file = _Stream(soundfile_name(path))
    index = read_index(path) if file.format == "MP3" else None
    if index is None or index.tagged:
        return file, True
    file.close()
    return _Stream(IndexedStream(path, index)), False


def _announced_frames(file: soundfile.SoundFile) -> int:
    """Length by the header of an uncompressed file; 0 where it does not say.

    libsndfile reports the length that the file's size allows, without an error, and what the header says in its log.
    """
    found = _ANNOUNCED.search(file.extra_info)
    width = _SAMPLE_BYTES.get(file.subtype, 0) * file.channels
    if found is None or width == 0 or file.format not in _CHUNK_OVERHEAD:
        return 0
    size = int(found[2])
    is_64_bit = file.format in ("W64", "RF64")
    if size == _PLACEHOLDERS[0] or (size >= _PLACEHOLDERS[1] and not is_64_bit) or size >= 2**62:
        return 0
    size -= _CHUNK_OVERHEAD[file.format]
    return size // width if size - file.frames * width >= max(width, _PADDING_BYTES) else file.frames
