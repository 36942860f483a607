"""Reading audio files block by block with libsndfile, with its errors as ours.

libsndfile reads WAV/RF64/W64, AIFF, CAF, FLAC, Ogg Vorbis and Opus, MP3 and some twenty more. MP3 is decoded by mpg123,
which drops the encoder's delay and padding by the LAME tag, so that frame 0 is the first frame that was encoded. An MP3
without such a tag does not say what its delay was: it is decoded whole, from its first frame, as ffmpeg does.

What ends early is an error in lossless formats. Of a lossy stream (MP3, Ogg) what is there is decoded, since players do
the same and streams are cut anywhere; :meth:`AudioReader.shortfall` then gives one line to tell people.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile

from revithion_stems.audio import AudioBuffer, Float32, check_finite, check_layout
from revithion_stems.errors import InputError
from revithion_stems.mpeg_frames import IndexedStream, read_index
from revithion_stems.ogg_pages import has_end

BLOCK_FRAMES = 65_536
_EXACT_PCM_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24}
_LOSSY = ("MP3", "OGG")
_MOST_MISSING = 0.01
"""Of a lossy stream's announced length: less is an encoder's rounding, more is worth a notice."""

_UNKNOWN_FRAMES = 2**60
"""A FLAC that was written to a pipe does not say its length; libsndfile then reports nearly 2^63 frames."""

_MALFORMED = 3  # SF_ERR_MALFORMED_FILE in sndfile.h: a known format that is broken inside
_ANNOUNCED = re.compile(r"^\s*(data|SSND|Data [Ss]ize)\s*: (\d+)", re.MULTILINE)
_PLACEHOLDERS = (0, 0x7FFF_0000)  # sizes that a writer leaves in the header of a stream: none, or the most there can be
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
_CHUNK_OVERHEAD = {"WAV": 0, "WAVEX": 0, "RF64": 0, "W64": 24, "AIFF": 8, "AU": 0, "CAF": 4}
_PADDING_BYTES = 8  # the most that a format rounds a size up to


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What a file's header says.

    Attributes:
        channels: 1–8.
        sample_rate: Hz.
        frames: Announced length; a damaged header may announce another length than the data has.
        format: libsndfile's major format, such as ``WAV``.
        subtype: libsndfile's sample format, such as ``PCM_24``.
        exact_bits: Bits of an integer PCM source that float32 holds exactly, or None (float and lossy sources).
    """

    channels: int
    sample_rate: int
    frames: int
    format: str
    subtype: str
    exact_bits: int | None

    @property
    def duration_s(self) -> float:
        """Announced length in seconds."""
        return self.frames / self.sample_rate


class AudioReader:
    """An open audio file, read in blocks of float32 ``[channels, frames]``. One thread at a time.

    Raises:
        InputError: Missing, a folder, not readable, not audio in a known format, no frames, too many channels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._passes = 0
        self._file, self._tells_length = _open(path)
        try:
            self.info = AudioInfo(
                channels=self._file.channels,
                sample_rate=self._file.samplerate,
                frames=self._file.frames if self._file.frames < _UNKNOWN_FRAMES else self._count(),
                format=self._file.format,
                subtype=self._file.subtype,
                exact_bits=_EXACT_PCM_BITS.get(self._file.subtype),
            )
            check_layout(self.info.channels, self.info.frames, self.info.sample_rate, origin=str(path))
            announced = _announced_frames(self._file)
            if announced > self.info.frames:
                raise _truncated(path, self.info.frames, announced, "the file is shorter than its header says")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._file.close()

    def blocks(self, block_frames: int = BLOCK_FRAMES) -> Iterator[Float32]:
        """The audio from the start, in blocks ``[channels, ≤ block_frames]``.

        Raises:
            InputError: The data ends before the announced length (lossless formats), is damaged, or holds NaN or Inf.
        """
        done = 0
        for samples in self._decode(block_frames):
            check_finite(samples, start_frame=done, origin=str(self.path))
            done += samples.shape[1]
            yield samples
        if done == 0 or (done < self.info.frames and self.info.format not in _LOSSY):
            raise _truncated(self.path, done, self.info.frames, "the data ends early")

    def shortfall(self, frames: int) -> str | None:
        """What to tell people if no more than ``frames`` frames came out of a lossy stream; None if it is whole."""
        if self.info.format == "OGG" and not has_end(self.path):
            return f"{self.path} was cut short: its stream has no end mark; what is there was read"
        if self.info.format == "MP3" and self._tells_length and frames < (1 - _MOST_MISSING) * self.info.frames:
            return (
                f"{self.path} was cut short: it announces {self.info.frames} frames, of which {frames} are there; "
                "what is there was read"
            )
        return None

    def _decode(self, block_frames: int) -> Iterator[Float32]:
        # Each pass opens the file anew: mpg123 does not come back to the same state by seeking to the start.
        if self._passes:
            self._file.close()
            self._file, _ = _open(self.path)
        self._passes += 1
        done = 0
        try:
            while len(block := self._file.read(block_frames, dtype="float32", always_2d=True)):
                done += len(block)
                yield np.ascontiguousarray(block.T, dtype=np.float32)
        except (soundfile.SoundFileError, RuntimeError, AssertionError) as exc:
            raise _truncated(self.path, done, self._file.frames, str(exc)) from exc

    def _count(self) -> int:
        return sum(block.shape[1] for block in self._decode(BLOCK_FRAMES))


def read_info(path: Path | str) -> AudioInfo:
    """The header of an audio file; raises :class:`InputError` as :class:`AudioReader` does."""
    with AudioReader(Path(path)) as reader:
        return reader.info


def read_audio(path: Path | str) -> AudioBuffer:
    """A whole audio file in memory; raises :class:`InputError` as :class:`AudioReader` does."""
    with AudioReader(Path(path)) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        return AudioBuffer(samples=samples, sample_rate=reader.info.sample_rate)


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
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(
                f"{path} is a folder, not an audio file",
                hint="Name the audio files in it.",
                code="input.is_folder",
            )
        if not stat.S_ISREG(status.st_mode):
            raise InputError(
                f"{path} is a pipe or a device, not a file",
                hint="Write the audio to a file first: it is read twice.",
                code="input.not_a_file",
            )
        if status.st_size == 0:
            raise InputError(
                f"{path} is empty (0 bytes)", hint="Check that it was copied completely.", code="input.empty"
            )
        file = _Stream(soundfile_name(path))
        index = read_index(path) if file.format == "MP3" else None
        if index is None or index.tagged:
            return file, True
        file.close()
        return _Stream(IndexedStream(path, index)), False
    except FileNotFoundError as exc:
        raise InputError(
            f"{path} does not exist", hint="Check the spelling and the folder.", code="input.missing"
        ) from exc
    except OSError as exc:
        raise InputError(
            f"{path} can't be read: {exc.strerror or exc}", hint="Check its permissions.", code="input.unreadable"
        ) from exc
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as exc:
        if isinstance(exc, soundfile.LibsndfileError) and exc.code == _MALFORMED:
            raise InputError(
                f"{path} is damaged or truncated: its header can't be read",
                hint="Copy or export it again; a converter may rescue what is left of it.",
                code="input.truncated",
            ) from exc
        reason = exc.error_string if isinstance(exc, soundfile.LibsndfileError) else str(exc)
        raise InputError(
            f"{path} is not audio that can be read here: {reason.rstrip('.')}",
            hint="Use WAV, AIFF, FLAC, MP3, Ogg or Opus; convert others first, for example with ffmpeg.",
            code="input.not_audio",
        ) from exc


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


def _truncated(path: Path, done: int, frames: int, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged or truncated: {done} of {frames} frames could be read ({reason.rstrip('.')})",
        hint="Copy or export it again; a converter may rescue what is left of it.",
        code="input.truncated",
    )
