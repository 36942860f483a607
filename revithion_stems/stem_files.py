"""Writing a set of stems: complete under their final names, or not there at all.

Stems are first kept as raw float32 in hidden ``.part`` files beside their final place. When the last frame is in, their
peak is known: formats that clip at full scale then get one gain for all stems, a power of two, so that the sum stays
exact. Each is encoded to a second ``.part`` file, checked, flushed to disk and renamed; any error removes them all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from revithion_stems.audio import Float32
from revithion_stems.audio_files import AudioReader, soundfile_name
from revithion_stems.errors import InputError
from revithion_stems.ogg_pages import fix_serial
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.stems import NullMeter, close_null
from revithion_stems.units import db_from_ratio

_BLOCK_FRAMES = 65_536
_SFC_SET_ADD_PEAK_CHUNK = 0x1050  # sndfile.h


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStem:
    """A finished file: its name in the set, where it is, and the SHA-256 of its bytes."""

    stem: str
    path: Path
    sha256: str


class StemFiles:
    """A set of stem files being written. Use as a context manager: leaving it without :meth:`commit` removes all.

    Args:
        paths: Stem → final path; all folders are made as needed.
        output_format: Of all files.
        channels: 1–8.
        sample_rate: Hz.
        fold: Index of the stem that closes the sum if a gain has to be applied, or None.

    Attributes:
        gain_db: The gain that all files share; known after :meth:`commit`.
        null: How far the sum of the files, less that gain, is from the source.

    Raises:
        OutputError: A folder or file can't be made.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        *,
        output_format: OutputFormat,
        channels: int,
        sample_rate: int,
        fold: int | None,
    ) -> None:
        self._paths = dict(paths)
        self._format = output_format
        self._channels = channels
        self._sample_rate = sample_rate
        self._fold = fold
        self._frames = 0
        self._highest = 0.0
        self._lowest = 0.0
        self._made_folders: list[Path] = []
        self._parts: list[Path] = []
        self._raw: list[IO[bytes]] = []
        self.gain_db = 0.0
        self.null = NullMeter()
        try:
            for path in self._paths.values():
                with output_errors(path):
                    self._make_folder(path.parent)
                    if path.is_dir():
                        raise IsADirectoryError(errno.EISDIR, "a folder has that name")
                    part = self._new_part(path)
                    self._raw.append(part.open("xb+", buffering=0))
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> StemFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def write(self, stems: Float32, source: Float32) -> None:
        """Appends a span.

        Args:
            stems: float32 ``[files, channels, frames]``, in the order of ``paths``.
            source: float32 ``[channels, frames]``, which :attr:`null` compares the sum of the files with.
        """
        if self._format.bit_depth in (BitDepth.INT16, BitDepth.INT24):
            # All that is on the grid stays as it is; a residual below it is lost, and measured as lost.
            scale = np.float32(2.0**self._format.grid_bits)
            stems = (np.rint(stems * scale) / scale).astype(np.float32)
        self.null.add(stems.sum(axis=0), source)
        for raw, path, stem in zip(self._raw, self._paths.values(), stems, strict=True):
            with output_errors(path):
                _write_all(raw, np.ascontiguousarray(stem.T).astype("<f4", copy=False).data.cast("B"))
        self._highest = max(self._highest, float(stems.max(initial=0.0)))
        self._lowest = min(self._lowest, float(stems.min(initial=0.0)))
        self._frames += stems.shape[2]

    def commit(self, check_cancelled: Callable[[], None]) -> list[WrittenStem]:
        """Encodes, checks and renames all files.

        Args:
            check_cancelled: Called between blocks; raising from it leaves no file.

        Returns:
            The finished files, in the order of ``paths``.
        """
        shift = self._gain_shift()
        self.gain_db = db_from_ratio(2.0**-shift)
        encoded = [self._new_part(path) for path in self._paths.values()]
        with contextlib.ExitStack() as stack:
            writers: list[soundfile.SoundFile] = []
            for part, path in zip(encoded, self._paths.values(), strict=True):
                with output_errors(path):
                    writers.append(stack.enter_context(self._open_writer(part)))
            for block in self._read_raw(shift):
                check_cancelled()
                for writer, stem, path in zip(writers, block, self._paths.values(), strict=True):
                    with output_errors(path):
                        writer.write(self._as_samples(stem))
            for writer, path in zip(writers, self._paths.values(), strict=True):
                with output_errors(path):
                    writer.close()
        written: list[WrittenStem] = []
        for part, (stem, path) in zip(encoded, self._paths.items(), strict=True):
            with output_errors(path):
                self._check_encoded(part)
                if self._format.container is Container.OGG:
                    fix_serial(part)
                written.append(WrittenStem(stem=stem, path=path, sha256=_flush_and_hash(part)))
        check_cancelled()
        self._rename(encoded)
        self._made_folders.clear()
        self.abort()
        return written

    def abort(self) -> None:
        """Removes everything that is not finished; harmless after :meth:`commit`."""
        for raw in self._raw:
            raw.close()
        for part in self._parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        for folder in reversed(self._made_folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._parts.clear()
        self._made_folders.clear()

    def _rename(self, encoded: list[Path]) -> None:
        """Gives all files their final names; if one can't have its, those that are new are taken away again."""
        new: list[Path] = []
        try:
            for part, path in zip(encoded, self._paths.values(), strict=True):
                with output_errors(path):
                    existed = path.exists()
                    part.replace(path)
                    if not existed:
                        new.append(path)
        except BaseException:
            for path in new:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise

    def _make_folder(self, folder: Path) -> None:
        missing: list[Path] = []
        while not folder.exists() and folder != folder.parent:  # a drive may be missing
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made_folders.append(path)

    def _new_part(self, path: Path) -> Path:
        part = path.parent / f".{secrets.token_hex(8)}.part"  # no part of the name: that may already be 255 bytes
        self._parts.append(part)
        return part

    def _gain_shift(self) -> int:
        """Halvings that all stems need to fit below full scale."""
        if not self._format.clips or (self._highest < 1.0 and self._lowest >= -1.0):
            return 0
        # Scaled stems are rounded to the grid again, and the one that closes the sum takes what the others lost.
        room = (len(self._paths) + 1) * 2.0**-self._format.grid_bits
        return max(1, math.frexp(max(self._highest, -self._lowest) / (1.0 - room))[1])

    def _read_raw(self, shift: int) -> Iterator[Float32]:
        """Blocks ``[files, channels, frames]``, scaled by 2^-shift and closed on the output's grid again."""
        for raw in self._raw:
            raw.seek(0)
        width = self._channels * 4
        for start in range(0, self._frames, _BLOCK_FRAMES):
            frames = min(_BLOCK_FRAMES, self._frames - start)
            data = [np.frombuffer(raw.read(frames * width), "<f4") for raw in self._raw]
            block = np.stack([d.reshape(frames, self._channels).T for d in data]).astype(np.float32)
            if shift:
                block *= np.float32(2.0**-shift)
                total = block.sum(axis=0)
                block, _ = close_null(block, total, self._fold, self._format.grid_bits)
                self.null.add_error((block.sum(axis=0) - total) * np.float32(2.0**shift))
            yield block

    def _open_writer(self, part: Path) -> soundfile.SoundFile:
        container = self._format.container
        depth = self._format.bit_depth
        subtype = {BitDepth.INT16: "PCM_16", BitDepth.INT24: "PCM_24", BitDepth.FLOAT32: "FLOAT"}
        quality: dict[str, Any] = {}
        if self._format.lossy:
            # libsndfile's scale: 0 is the best quality. Vorbis 0.1 is about 320 kbit/s; MP3 at a constant 320.
            quality = {"compression_level": 0.1 if container is Container.OGG else 0.0}
            if container is Container.MP3:
                quality["bitrate_mode"] = "CONSTANT"
        writer = soundfile.SoundFile(
            soundfile_name(part),
            "w",
            samplerate=self._sample_rate,
            channels=self._channels,
            format=self._format.major_format(frames=self._frames, channels=self._channels),
            subtype=None if depth is None else subtype[depth],
            **quality,
        )
        # The PEAK chunk of float WAV holds the time of day: without it, the same stems are the same bytes.
        # python-soundfile has no public call for it; these three names have stood since its first version.
        library: Any = soundfile
        handle: Any = writer
        library._snd.sf_command(handle._file, _SFC_SET_ADD_PEAK_CHUNK, library._ffi.NULL, 0)
        return writer

    def _as_samples(self, stem: Float32) -> Any:
        """Samples ``[frames, channels]`` in the type that libsndfile takes over without scaling or rounding."""
        frames = np.ascontiguousarray(stem.T)
        match self._format.bit_depth:
            case BitDepth.INT16:
                return np.rint(frames * np.float32(2.0**15)).astype(np.int16)
            case BitDepth.INT24:
                return np.rint(frames * np.float32(2.0**23)).astype(np.int32) << 8
            case _:
                return frames

    def _check_encoded(self, part: Path) -> None:
        """libsndfile does not report every failed write when it closes a file, so the result is looked at."""
        info = soundfile.info(soundfile_name(part))
        if info.frames != self._frames or info.channels != self._channels or info.samplerate != self._sample_rate:
            raise OSError(errno.EIO, f"{info.frames} of {self._frames} frames were written")
        if self._format.container is Container.MP3:  # whose header tells what was meant to be written
            try:
                with AudioReader(part) as reader:
                    frames = sum(block.shape[1] for block in reader.blocks())
            except InputError as exc:
                raise OSError(errno.EIO, exc.message) from exc
            if frames != self._frames:
                raise OSError(errno.EIO, f"{frames} of {self._frames} frames were written")


def _write_all(raw: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[raw.write(data) :]


def _flush_and_hash(part: Path) -> str:
    digest = hashlib.sha256()
    with part.open("rb+") as file:  # Windows flushes only what is open for writing
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        os.fsync(file.fileno())
    return digest.hexdigest()
