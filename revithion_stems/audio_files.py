"""Reading audio files block by block with libsndfile, with its errors as ours.

libsndfile reads WAV/RF64/W64, AIFF, CAF, FLAC, Ogg Vorbis and Opus, MP3 and some twenty more. MP3 is decoded by mpg123,
which drops the encoder's delay and padding by the LAME tag, so that frame 0 is the first frame that was encoded.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from revithion_stems.audio import AudioBuffer, Float32, channel_pairs, check_finite, check_layout
from revithion_stems.errors import InputError
from revithion_stems.events import CancelToken

BLOCK_FRAMES = 65_536
_EXACT_PCM_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24}
_LOSSY = ("MP3", "OGG")
_SPARE_BLOCKS = 1000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """What one pass over a source finds; everything about the source that a separation must know before it starts.

    Attributes:
        channels: Number of channels.
        frames: Real length.
        peak: Largest magnitude.
        mean: Per channel group, the mean of its mono mix.
        std: Per channel group, the standard deviation (n − 1) of its mono mix.
        sha256: Digest of the decoded float32 samples, interleaved little-endian, with rate and channel count.
    """

    channels: int
    frames: int
    peak: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: str


class AudioReader:
    """An open audio file, read in blocks of float32 ``[channels, frames]``. One thread at a time.

    Raises:
        InputError: Missing, a folder, not readable, not audio in a known format, no frames, too many channels.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _open(path)
        try:
            self.info = AudioInfo(
                channels=self._file.channels,
                sample_rate=self._file.samplerate,
                frames=self._file.frames,
                format=self._file.format,
                subtype=self._file.subtype,
                exact_bits=_EXACT_PCM_BITS.get(self._file.subtype),
            )
            check_layout(self.info.channels, self.info.frames, self.info.sample_rate, origin=str(path))
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
        limit = self.info.frames + _SPARE_BLOCKS * block_frames
        try:
            self._file.seek(0)
            while done < limit:
                block = self._file.read(block_frames, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                samples = np.ascontiguousarray(block.T, dtype=np.float32)
                check_finite(samples, start_frame=done, origin=str(self.path))
                done += samples.shape[1]
                yield samples
        except (soundfile.SoundFileError, RuntimeError, AssertionError) as exc:
            raise _truncated(self.path, done, self.info, str(exc)) from exc
        if done == 0 or (done < self.info.frames and self.info.format not in _LOSSY):
            raise _truncated(self.path, done, self.info, "the data ends early")


def read_info(path: Path) -> AudioInfo:
    """The header of an audio file; raises :class:`InputError` as :class:`AudioReader` does."""
    with AudioReader(path) as reader:
        return reader.info


def read_audio(path: Path) -> AudioBuffer:
    """A whole audio file in memory; raises :class:`InputError` as :class:`AudioReader` does."""
    with AudioReader(path) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        return AudioBuffer(samples=samples, sample_rate=reader.info.sample_rate)


def scan(blocks: Iterable[Float32], *, channels: int, sample_rate: int, cancel: CancelToken) -> ScanResult:
    """Runs once over a source and gathers length, peak, digest and the statistics that normalise the model's input.

    Demucs normalises by the mean and the standard deviation of the mono mix; here that is done for each group of
    channels that goes through the model together. Sums are taken in float64 by Chan's pairwise update, so that a long
    song loses nothing.
    """
    groups = channel_pairs(channels)
    digest = hashlib.sha256(f"{sample_rate} {channels}\n".encode())
    count = 0
    peak = 0.0
    means = [0.0] * len(groups)
    squares = [0.0] * len(groups)
    for block in blocks:
        cancel.raise_if_cancelled()
        digest.update(np.ascontiguousarray(block.T).astype("<f4", copy=False).tobytes())
        peak = max(peak, float(np.abs(block).max()))
        frames = block.shape[1]
        for index, group in enumerate(groups):
            mono = block[list(group)].mean(axis=0, dtype=np.float64)
            mean = float(mono.mean())
            delta = mean - means[index]
            total = count + frames
            squares[index] += float(np.square(mono - mean).sum()) + delta * delta * count * frames / total
            means[index] += delta * frames / total
        count += frames
    std = tuple(math.sqrt(s / (count - 1)) if count > 1 else 0.0 for s in squares)
    return ScanResult(channels=channels, frames=count, peak=peak, mean=tuple(means), std=std, sha256=digest.hexdigest())


def _open(path: Path) -> soundfile.SoundFile:
    try:
        if path.is_dir():
            raise InputError(
                f"{path} is a folder, not an audio file",
                hint="Name the audio files in it.",
                code="input.is_folder",
            )
        if path.stat().st_size == 0:
            raise InputError(
                f"{path} is empty (0 bytes)", hint="Check that it was copied completely.", code="input.empty"
            )
        return soundfile.SoundFile(path)
    except FileNotFoundError as exc:
        raise InputError(
            f"{path} does not exist", hint="Check the spelling and the folder.", code="input.missing"
        ) from exc
    except OSError as exc:
        raise InputError(
            f"{path} can't be read: {exc.strerror or exc}", hint="Check its permissions.", code="input.unreadable"
        ) from exc
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, UnicodeError) as exc:
        raise InputError(
            f"{path} is not audio that can be read here: {str(exc).rstrip('.')}",
            hint="Use WAV, AIFF, FLAC, MP3, Ogg or Opus; convert others first, for example with ffmpeg.",
            code="input.not_audio",
        ) from exc


def _truncated(path: Path, done: int, info: AudioInfo, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged or truncated: {done} of {info.frames} frames could be read ({reason.rstrip('.')})",
        hint="Copy or export it again; a converter may rescue what is left of it.",
        code="input.truncated",
    )
