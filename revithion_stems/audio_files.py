"""Reading audio files block by block: libsndfile first, FFmpeg for what it does not know, with their errors as ours.

What ends early is an error where libsndfile reads a lossless format. Of other files what is there is decoded, since
players do the same and streams are cut anywhere; :meth:`AudioReader.shortfall` then gives one line to tell people.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from revithion_stems.audio import BLOCK_FRAMES, AudioBuffer, Float32, check_finite, check_layout
from revithion_stems.audio_source import AudioInfo, AudioSource, truncated
from revithion_stems.av_reader import AvReader
from revithion_stems.errors import InputError
from revithion_stems.sndfile_reader import SndfileReader, soundfile_name

__all__ = ["AUDIO_SUFFIXES", "BLOCK_FRAMES", "AudioInfo", "AudioReader", "read_audio", "read_info", "soundfile_name"]

# fmt: off
AUDIO_SUFFIXES = frozenset((
    ".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd", ".flac", ".mp3", ".mp2",
    ".ogg", ".oga", ".opus", ".aac", ".ac3", ".eac3", ".dts", ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".wma",
    ".asf", ".wmv", ".mka", ".mkv", ".webm", ".avi", ".flv", ".mpg", ".mpeg", ".ape", ".wv", ".tta", ".amr",
))
# fmt: on
"""Endings, in lower case, that are taken for audio in folders and patterns. A file that is named itself needs none."""

_MALFORMED = 3  # SF_ERR_MALFORMED_FILE in sndfile.h: a known format that is broken inside


class AudioReader:
    """An open audio file, read in blocks of float32 ``[channels, frames]``. One thread at a time.

    Raises:
        InputError: Missing, a folder, not readable, not audio in a known format, no frames, too many channels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._source = _open(path)
        self._begun = False
        self.info = self._source.info

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; closing twice is harmless."""
        self._source.close()

    def blocks(self, block_frames: int = BLOCK_FRAMES) -> Iterator[Float32]:
        """The audio from the start, in blocks ``[channels, ≤ block_frames]``.

        Raises:
            InputError: The data ends before the announced length (lossless formats of libsndfile), is damaged, changes
                its rate or channels, or holds NaN or Inf.
        """
        if self._begun:
            self._reopen()
        self._begun = True
        done = 0
        with _reading(self.path):
            for samples in self._source.decode(block_frames):
                check_finite(samples, start_frame=done, origin=str(self.path))
                done += samples.shape[1]
                yield samples
        if done == 0 or (done < self.info.frames and self._source.strict):
            raise truncated(self.path, done, self.info.frames, "the data ends early")

    def shortfall(self, frames: int) -> str | None:
        """What to tell people, after its name, of a lossy file that gave no more than ``frames`` frames, or None.

        Call it after :meth:`blocks` has come to its end.
        """
        return self._source.shortfall(frames)

    def _reopen(self) -> None:
        self._source.close()
        self._source = _open(self.path)
        was, now = self.info, self._source.info
        if (was.channels, was.sample_rate) != (now.channels, now.sample_rate):
            raise InputError(
                f"{self.path} changed while it was read: {was.channels} channels at {was.sample_rate} Hz, "
                f"then {now.channels} at {now.sample_rate} Hz",
                hint="Wait until the program that writes it has finished.",
                code="input.changed",
            )


def read_info(path: Path | str) -> AudioInfo:
    """The header of an audio file; raises :class:`InputError` as :class:`AudioReader` does."""
    with AudioReader(Path(path)) as reader:
        return reader.info


def read_audio(path: Path | str) -> AudioBuffer:
    """A whole audio file in memory; raises :class:`InputError` as :class:`AudioReader` does."""
    with AudioReader(Path(path)) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        return AudioBuffer(samples=samples, sample_rate=reader.info.sample_rate)


@contextlib.contextmanager
def _reading(path: Path) -> Generator[None, None, None]:
    """Turns what the system refuses into our errors."""
    try:
        yield
    except FileNotFoundError as exc:
        raise InputError(
            f"{path} does not exist", hint="Check the spelling and the folder.", code="input.missing"
        ) from exc
    except OSError as exc:
        raise InputError(
            f"{path} can't be read: {exc.strerror or exc}", hint="Check its permissions.", code="input.unreadable"
        ) from exc


def _open(path: Path) -> AudioSource:
    """The decoder that takes the file."""
    with _reading(path):
        _check_file(path)
        try:
            source = SndfileReader(path)
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as exc:
            source = _open_with_ffmpeg(path, exc)
        info = source.info
        try:
            check_layout(info.channels, info.frames, info.sample_rate, origin=str(path))
        except BaseException:
            source.close()
            raise
        return source


def _open_with_ffmpeg(path: Path, refusal: Exception) -> AudioSource:
    """The decoder for what libsndfile refuses, which knows some files as its own but broken."""
    malformed = isinstance(refusal, soundfile.LibsndfileError) and refusal.code == _MALFORMED
    try:
        reader = AvReader(path)
    except InputError as exc:
        if not malformed:
            raise
        raise _broken_header(path) from exc
    if malformed and reader.info.subtype.startswith("pcm_"):
        reader.close()
        raise _broken_header(path) from refusal
    return reader


def _broken_header(path: Path) -> InputError:
    return InputError(
        f"{path} is damaged or truncated: its header can't be read",
        hint="Copy or export it again; a converter may rescue what is left of it.",
        code="input.truncated",
    )


def _check_file(path: Path) -> None:
    """Raises unless there is a file with something in it."""
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
        raise InputError(f"{path} is empty (0 bytes)", hint="Check that it was copied completely.", code="input.empty")
