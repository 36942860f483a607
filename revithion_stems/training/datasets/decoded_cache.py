"""Decoded audio on disk, which can be read anywhere in no time: what training draws its examples from.

Samples are 16-bit integers with one scale per file, a power of two that brings the peak to 2^14–2^15. Their error lies
at least 101 dB below the peak everywhere, and what was a 16-bit file at the same rate comes back bit for bit. float16
would take as much room for an error 73 dB below each sample, and most processors convert it more slowly.

A file is called after the SHA-256 of the source's bytes, the rate and the stream, so that a source that changes is
decoded anew and a copy of it is not. It is a plain ``.npy`` of int16 ``[channels, 1 + frames]``: column 0 holds the
exponent of the scale, so that a reader sees both or none.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soxr

from revithion_stems.audio import BLOCK_FRAMES, Float32
from revithion_stems.audio_files import AudioReader
from revithion_stems.digests import sha256_file
from revithion_stems.errors import InputError
from revithion_stems.output_errors import output_errors

_LAYOUT = 1
"""Goes into the names: files of another layout are not looked at."""

_QUALITY = "HQ"
"""soxr's: linear phase, 20 bits; its error is below that of the 16 bits that follow."""

_LOWEST_EXPONENT = -126  # scales below are not normal float32 numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedAudio:
    """A file of the cache. Immutable and small: it can go to other processes. Any thread.

    Attributes:
        path: The file.
        offset: Where its samples begin, in bytes.
        channels: 1 or 2.
        frames: Length.
        exponent: Samples are its integers times two to the power of this.
    """

    path: Path
    offset: int
    channels: int
    frames: int
    exponent: int

    def read(self, start: int, frames: int) -> Float32:
        """A span; beyond the end there is silence.

        Args:
            start: First frame, 0 or more.
            frames: Length of the span.

        Returns:
            float32 ``[2, frames]``, its own; one channel is given on both sides.

        Raises:
            InputError: The file was removed or cut short meanwhile.
        """
        samples = np.zeros((2, frames), np.float32)
        count = min(start + frames, self.frames) - start
        if count > 0:
            try:
                stored = np.memmap(self.path, np.int16, "r", self.offset, (self.channels, 1 + self.frames))
            except (OSError, ValueError) as exc:
                raise InputError(
                    f"{self.path} of the training cache was removed or cut short while it was used: {exc}",
                    hint="Start again: what is missing is decoded anew.",
                    code="input.changed",
                ) from exc
            np.multiply(
                stored[:, 1 + start : 1 + start + count], np.float32(2.0**self.exponent), out=samples[:, :count]
            )
        return samples


class DecodedCache:
    """A folder of decoded files at one rate. Several processes may use it at once.

    Args:
        folder: Made where needed. Whatever is in it can be deleted at any time but during a training.
        sample_rate: Hz.
    """

    def __init__(self, folder: Path, *, sample_rate: int) -> None:
        self.folder = folder
        self.sample_rate = sample_rate

    def file(self, path: Path) -> tuple[DecodedAudio, str | None]:
        """An audio file, decoded now unless it is here already.

        Args:
            path: In any format that :class:`~revithion_stems.audio_files.AudioReader` reads, mono or stereo.

        Returns:
            The decoded file, and one line to tell people if the source was cut short.

        Raises:
            InputError: The source is missing, damaged, not audio, or has more than two channels; it is named.
            OutputError: The cache can't be written.
        """
        key = source_digest(path)
        if found := self.find(key):
            return found, None
        with AudioReader(path) as reader:
            info = reader.info
            lengths: list[int] = []
            blocks = _measured(reader.blocks(), lengths)
            decoded = self.add(key, blocks, channels=info.channels, sample_rate=info.sample_rate, origin=path)
            shortfall = reader.shortfall(sum(lengths))
        return decoded, None if shortfall is None else f"{path} {shortfall}"

    def find(self, key: str, stream: int = 0) -> DecodedAudio | None:
        """What was decoded before, or None; a damaged file counts as none.

        Args:
            key: SHA-256 of the source.
            stream: Which audio stream of it.
        """
        path = self._path(key, stream)
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else _refuse
                shape, by_columns, dtype = read_header(file)
                offset = file.tell()
                channels, columns = shape
                exponent = int(np.frombuffer(file.read(2), "<i2")[0])
            whole = path.stat().st_size == offset + channels * columns * 2
        except (OSError, ValueError, IndexError):
            return None
        if dtype != np.int16 or by_columns or not whole:
            return None
        return DecodedAudio(path=path, offset=offset, channels=channels, frames=columns - 1, exponent=exponent)

    def add(
        self,
        key: str,
        blocks: Iterable[Float32],
        *,
        channels: int,
        sample_rate: int,
        origin: Path,
        stream: int = 0,
    ) -> DecodedAudio:
        """Stores audio under a key, resampled to the cache's rate. Memory does not grow with its length.

        Args:
            key: SHA-256 of the source.
            blocks: float32 ``[channels, n]``, from the start.
            channels: 1 or 2.
            sample_rate: Of the blocks, in Hz.
            origin: Named in errors.
            stream: Which audio stream of the source.

        Raises:
            InputError: More than two channels; besides what ``blocks`` raises.
            OutputError: The cache can't be written.
        """
        if channels > 2:
            raise InputError(
                f"{origin} has {channels} channels, training takes mono and stereo",
                hint="Mix it down to stereo first, for example with ffmpeg -ac 2.",
                code="input.channels",
            )
        path = self._path(key, stream)
        with _temporary(path) as raw, _temporary(path) as packed:
            frames, lowest, highest = 0, 0.0, 0.0
            for block in _resampled(blocks, channels, sample_rate, self.sample_rate):
                lowest = min(lowest, float(block.min(initial=0.0)))
                highest = max(highest, float(block.max(initial=0.0)))
                frames += block.shape[1]
                with output_errors(path):
                    raw.write(np.ascontiguousarray(block.T).data)
            if frames == 0:
                raise InputError(f"{origin} holds no audio", hint="Export it again.", code="input.empty")
            with output_errors(path):
                exponent = _exponent(lowest, highest)
                raw.flush()
                _pack(Path(raw.name), packed, channels, frames, exponent)
                packed.close()
                raw.close()
                Path(packed.name).replace(path)
        found = self.find(key, stream)
        if found is None:  # somebody emptied the folder that very moment, or the disk lies
            raise InputError(
                f"{path} of the training cache is gone or damaged right after it was written",
                hint="Check the disk, and that nobody empties the cache meanwhile.",
                code="input.changed",
            )
        return found

    def _path(self, key: str, stream: int) -> Path:
        suffix = f"-s{stream}" if stream else ""
        return self.folder / key[:2] / f"{key}-{self.sample_rate}-v{_LAYOUT}{suffix}.npy"


def source_digest(path: Path) -> str:
    """SHA-256 of a source file as 64 hex digits; raises :class:`InputError` where it can't be read."""
    try:
        return sha256_file(path)
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        raise InputError(
            f"{path} {'does not exist' if missing else f'cannot be read: {exc.strerror or exc}'}",
            hint="Check its name and its permissions.",
            code="input.missing" if missing else "input.unreadable",
        ) from exc


def _exponent(lowest: float, highest: float) -> int:
    """The smallest e with −32768·2^e ≤ samples ≤ 32767·2^e: the rounded integers then fit, and use 14 bits or more."""
    peak = max(-lowest, highest)
    if peak == 0.0:
        return 0
    exponent = math.frexp(peak)[1] - 16
    while highest > 32767 * 2.0**exponent or lowest < -32768 * 2.0**exponent:  # once or twice
        exponent += 1
    return max(exponent, _LOWEST_EXPONENT)


def _measured(blocks: Iterable[Float32], lengths: list[int]) -> Iterator[Float32]:
    """The blocks, with their lengths put into a list as they pass."""
    for block in blocks:
        lengths.append(block.shape[1])
        yield block


def _resampled(blocks: Iterable[Float32], channels: int, from_rate: int, to_rate: int) -> Iterator[Float32]:
    """The same audio at another rate, frame 0 where it was; as it is where the rates are equal."""
    if from_rate == to_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32", quality=_QUALITY)
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).reshape(-1, channels).T
    rest = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
    yield rest.reshape(-1, channels).T


def _pack(raw: Path, packed: IO[bytes], channels: int, frames: int, exponent: int) -> None:
    """Writes interleaved float32 as the ``.npy`` of this module, channel by channel, block by block."""
    header = {"descr": "<i2", "fortran_order": False, "shape": (channels, 1 + frames)}
    np.lib.format.write_array_header_1_0(packed, header)
    samples = np.memmap(raw, np.float32, "r", shape=(frames, channels))
    for channel in range(channels):
        packed.write(np.int16(exponent).astype("<i2").tobytes())
        for at in range(0, frames, BLOCK_FRAMES):
            scaled = samples[at : at + BLOCK_FRAMES, channel] * np.float32(2.0**-exponent)
            packed.write(np.rint(scaled).astype("<i2").tobytes())


@contextlib.contextmanager
def _temporary(path: Path) -> Generator[IO[bytes]]:
    """A file beside ``path`` that is gone in the end, unless it was renamed."""
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below, before it is renamed or removed
            prefix=f".{path.stem[:16]}-", suffix=".part", dir=path.parent, delete=False
        )
    try:
        yield file
    finally:
        file.close()  # Windows removes no file that is open
        Path(file.name).unlink(missing_ok=True)


def _refuse(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.int16]]:
    raise ValueError("not a header that this module writes")
