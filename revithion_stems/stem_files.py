"""Writing a set of stems: complete under their final names, or not there at all.

Stems are first kept as raw float32 in hidden ``.part`` files beside their final place. When the last frame is in, their
peak is known: formats that clip at full scale then get one gain for all stems, a power of two, so that the sum stays
exact. Each is encoded to a second ``.part`` file, checked, flushed to disk and renamed; any error removes them all.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import math
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from revithion_stems.audio import Float32
from revithion_stems.audio_files import AudioReader, soundfile_name
from revithion_stems.errors import InputError, OutputError, RequestError
from revithion_stems.ogg_pages import fix_serial
from revithion_stems.stems import FLOAT_GRID_BITS, NullMeter, close_null
from revithion_stems.units import db_from_ratio

_BLOCK_FRAMES = 65_536
_SFC_SET_ADD_PEAK_CHUNK = 0x1050  # sndfile.h
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_FLAC_MAX_RATE = 655_350
_RF64_FROM_BYTES = 4_000_000_000


class Container(enum.Enum):
    """File formats; the value is also the file name's extension."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"
    OGG = "ogg"


class BitDepth(enum.Enum):
    """Sample formats of WAV and FLAC."""

    INT16 = "16"
    INT24 = "24"
    FLOAT32 = "32f"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFormat:
    """What stems are written as.

    Attributes:
        container: The file format.
        bit_depth: For WAV 16, 24 or 32f (the default); for FLAC 16 or 24 (the default); None for MP3 and Ogg.

    Raises:
        RequestError: The container does not have that bit depth.
    """

    container: Container = Container.WAV
    bit_depth: BitDepth | None = None

    def __post_init__(self) -> None:
        allowed = _BIT_DEPTHS[self.container]
        if self.bit_depth is None and allowed:
            object.__setattr__(self, "bit_depth", allowed[0])
        elif self.bit_depth is not None and self.bit_depth not in allowed:
            choice = f"has {' or '.join(d.value for d in allowed)}" if allowed else "has no bit depth"
            raise RequestError(
                f"bit depth {self.bit_depth.value} with {self.container.value}: it {choice}",
                hint="Correct --bit-depth, or choose another --format.",
                code="request.bit_depth",
            )

    @property
    def grid_bits(self) -> int:
        """Finest grid of the samples, for :func:`revithion_stems.stems.close_null`."""
        return {BitDepth.INT16: 15, BitDepth.INT24: 23}.get(self.bit_depth or BitDepth.FLOAT32, FLOAT_GRID_BITS)

    @property
    def clips(self) -> bool:
        """Whether values beyond full scale are lost."""
        return self.bit_depth is not BitDepth.FLOAT32

    @property
    def lossy(self) -> bool:
        """Whether decoding gives other samples than were encoded."""
        return self.container in (Container.MP3, Container.OGG)

    def major_format(self, *, frames: int, channels: int) -> str:
        """libsndfile's name of the container for audio of this size: WAV's 32-bit sizes end at 4 GiB, RF64's do not."""
        if self.container is not Container.WAV:
            return self.container.value.upper()
        width = {BitDepth.INT16: 2, BitDepth.INT24: 3}.get(self.bit_depth or BitDepth.FLOAT32, 4)
        return "RF64" if frames * channels * width > _RF64_FROM_BYTES else "WAV"

    def check_source(self, *, channels: int, sample_rate: int) -> None:
        """Raises :class:`RequestError` if a source of this layout does not fit the format."""
        if self.container is Container.MP3 and (channels > 2 or sample_rate not in _MP3_RATES):
            raise RequestError(
                f"MP3 can't hold {channels} channels at {sample_rate} Hz (at most 2, at most 48000 Hz)",
                hint="Use --format flac or wav, which keep the source's layout.",
                code="request.format",
            )
        if self.container is Container.FLAC and sample_rate > _FLAC_MAX_RATE:
            raise RequestError(
                f"FLAC can't hold {sample_rate} Hz (at most {_FLAC_MAX_RATE})",
                hint="Use --format wav.",
                code="request.format",
            )
        if self.container is Container.OGG and sample_rate > 192_000:
            raise RequestError(
                f"Ogg Vorbis can't hold {sample_rate} Hz (at most 192000)",
                hint="Use --format flac or wav.",
                code="request.format",
            )


_BIT_DEPTHS: dict[Container, tuple[BitDepth, ...]] = {
    Container.WAV: (BitDepth.FLOAT32, BitDepth.INT24, BitDepth.INT16),
    Container.FLAC: (BitDepth.INT24, BitDepth.INT16),
    Container.MP3: (),
    Container.OGG: (),
}


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
        try:
            for path in self._paths.values():
                with _output_errors(path):
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

    def write(self, stems: Float32) -> None:
        """Appends float32 ``[files, channels, frames]``, in the order of ``paths``."""
        for raw, path, stem in zip(self._raw, self._paths.values(), stems, strict=True):
            with _output_errors(path):
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
                with _output_errors(path):
                    writers.append(stack.enter_context(self._open_writer(part)))
            for block in self._read_raw(shift):
                check_cancelled()
                for writer, stem, path in zip(writers, block, self._paths.values(), strict=True):
                    with _output_errors(path):
                        writer.write(self._as_samples(stem))
            for writer, path in zip(writers, self._paths.values(), strict=True):
                with _output_errors(path):
                    writer.close()
        written: list[WrittenStem] = []
        for part, (stem, path) in zip(encoded, self._paths.items(), strict=True):
            with _output_errors(path):
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
                with _output_errors(path):
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
                if self._fold is not None:
                    block, _ = close_null(block, block.sum(axis=0), self._fold, self._format.grid_bits)
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


def measure_null(stems: Float32, residual: Float32 | None, source: Float32, meter: NullMeter) -> None:
    """Adds a block to ``meter`` as a player would sum it: stems first, then the residual, all in float32."""
    total = stems.sum(axis=0)
    meter.add(total if residual is None else total + residual, source)


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


@contextlib.contextmanager
def _output_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OutputError:
        raise
    except (OSError, soundfile.SoundFileError, RuntimeError, AssertionError, ValueError) as exc:
        if _disk_is_full(path, exc):
            raise OutputError(
                f"no space left on the disk for {path}",
                hint="Free some space or choose another folder with -o; nothing half-written was left.",
                code="output.disk_full",
            ) from exc
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise OutputError(
            f"can't write {path}: {str(reason).rstrip('.')}",
            hint="Choose a folder that you may write to, with -o.",
        ) from exc


def _disk_is_full(path: Path, error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, OSError) and error.errno not in (errno.EIO, None):
        return False
    folder = next((p for p in path.parents if p.exists()), None)
    with contextlib.suppress(OSError):
        return folder is not None and shutil.disk_usage(folder).free < 1 << 20
    return False
