"""Stems encoded into the files of a set, with one gain for all of them.

32-bit float is encoded as it comes. Formats that clip at full scale need a gain if a stem is louder than that; it is
the same for all stems and a power of two, so that the sum stays exact. Their stems are kept as raw float32 beside the
files until the last frame is in and the peak is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.digests import sha256_file
from revithion_stems.encoders import Encoder, TrackInfo, check_encoded, open_encoder
from revithion_stems.file_set import FileSet
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import BitDepth, OutputFormat
from revithion_stems.stems import NullMeter, close_null
from revithion_stems.tags import Tags
from revithion_stems.units import db_from_ratio

_THREADS = 4

TagsOf = Callable[[str | None], Tags]
"""Stem → what its file says of it; None stands for the mix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStem:
    """A finished stem.

    Attributes:
        stem: Its name in the set.
        path: Its file.
        size: Of the file, in bytes.
        sha256: Of the file's bytes.
        stream: Which audio stream of the file it is, 0 the first.
    """

    stem: str
    path: Path
    size: int
    sha256: str
    stream: int = 0


class StemFiles:
    """Stems on their way into files. Call :meth:`begin`, :meth:`write`…, :meth:`encode`, and :meth:`close` in any case.

    One thread at a time.

    Args:
        file_set: Where the files are made, and published afterwards.
        paths: Stem → final path. Stems that share a path become streams of one file, after the mix.
        output_format: Of all files.
        channels: 1–8.
        sample_rate: Hz.
        fold: Index of the stem that closes the sum if a gain has to be applied, or None.

    Attributes:
        gain_db: The gain that all files share; known after :meth:`encode`.
        null: How far the sum of the files, less that gain, is from the source.

    Raises:
        OutputError: A folder or file can't be made.
    """

    def __init__(
        self,
        file_set: FileSet,
        paths: Mapping[str, Path],
        *,
        output_format: OutputFormat,
        channels: int,
        sample_rate: int,
        fold: int | None,
    ) -> None:
        self._file_set = file_set
        self._names = tuple(paths)
        self._format = output_format
        self._channels = channels
        self._sample_rate = sample_rate
        self._fold = fold
        self._frames = 0
        self._highest = 0.0
        self._lowest = 0.0
        self._raw: IO[bytes] | None = None
        self._tags: TagsOf = lambda stem: Tags()
        self._files: list[_File] = []
        self.gain_db = 0.0
        self.null = NullMeter()
        self._with_mix = output_format.tracks_per_file > 1
        rows: dict[Path, list[int]] = {}
        for row, path in enumerate(paths.values()):
            rows.setdefault(path, []).append(row)
        for path, found in rows.items():
            streams = [len(paths), *found] if self._with_mix else found
            self._files.append(_File(path=path, part=file_set.new_part(path), rows=streams))

    def begin(self, frames: int, tags: TagsOf) -> None:
        """Gets ready for ``frames`` frames.

        Args:
            frames: Length of the source.
            tags: What the files are to say of themselves.
        """
        self._frames = frames
        self._tags = tags
        if self._format.clips:
            path = self._files[0].path
            with output_errors(path):
                self._raw = self._file_set.new_part(path, scratch=True).open("rb+", buffering=0)
        else:
            self._open_encoders()

    def write(self, stems: Float32, source: Float32) -> None:
        """Appends a span.

        Args:
            stems: float32 ``[stems, channels, frames]``, in the order of ``paths``.
            source: float32 ``[channels, frames]``, which :attr:`null` compares the sum of the files with.
        """
        if self._format.bit_depth in (BitDepth.INT16, BitDepth.INT24):
            # All that is on the grid stays as it is; a residual below it is lost, and measured as lost.
            scale = np.float32(2.0**self._format.grid_bits)
            stems = (np.rint(stems * scale) / scale).astype(np.float32)
        self.null.add(stems.sum(axis=0), source)
        block = np.concatenate([stems, source[None]]) if self._with_mix else stems
        self._highest = max(self._highest, float(block.max(initial=0.0)))
        self._lowest = min(self._lowest, float(block.min(initial=0.0)))
        if self._raw is None:
            self._encode_block(block)
            return
        with output_errors(self._files[0].path):
            data = np.ascontiguousarray(block).astype("<f4", copy=False)
            _write_all(self._raw, np.array([block.shape[2]], "<u4").data.cast("B"))
            _write_all(self._raw, data.data.cast("B"))

    def encode(self, check_cancelled: Callable[[], None]) -> list[WrittenStem]:
        """Completes all files under their hidden names, and checks them.

        Args:
            check_cancelled: Called between blocks; raising from it leaves no file.

        Returns:
            The stems, in the order of ``paths``.
        """
        if self._raw is not None:
            shift = self._gain_shift()
            self.gain_db = db_from_ratio(2.0**-shift)
            self._open_encoders()
            for block in self._read_raw(self._raw, shift):
                check_cancelled()
                self._encode_block(block)
        with ThreadPoolExecutor(_THREADS) as pool:
            digests = list(pool.map(self._finish, self._files))
        check_cancelled()
        written = {
            row: WrittenStem(
                stem=self._names[row], path=file.path, size=file.part.stat().st_size, sha256=digest, stream=stream
            )
            for file, digest in zip(self._files, digests, strict=True)
            for stream, row in enumerate(file.rows)
            if row < len(self._names)
        }
        return [written[row] for row in range(len(self._names))]

    def first_frames(self, frames: int) -> Float32:
        """The beginning ``[stems (and mix), channels, ≤ frames]`` of all streams, before any gain.

        Before :meth:`close`, and of formats that clip only.
        """
        assert self._raw is not None
        found: list[Float32] = []
        count = 0
        for block in self._read_raw(self._raw, 0):
            found.append(block)
            count += block.shape[2]
            if count >= frames:
                break
        return np.concatenate(found, axis=2)[..., :frames]

    def encoded_path(self, row: int) -> tuple[Path, int]:
        """The file that a stem (or the mix, after the stems) is in until it is published, and its stream there."""
        return next((file.part, list(file.rows).index(row)) for file in self._files if row in file.rows)

    def close(self) -> None:
        """Closes all files, finished or not; closing twice is harmless."""
        for file in self._files:
            if file.encoder is not None:
                file.encoder.abort()
        if self._raw is not None:
            self._raw.close()

    def _open_encoders(self) -> None:
        for file in self._files:
            names = [self._names[row] if row < len(self._names) else None for row in file.rows]
            with output_errors(file.path):
                file.encoder = open_encoder(
                    file.part,
                    self._format,
                    tracks=[TrackInfo(name=name or "mix", tags=self._tags(name)) for name in names],
                    channels=self._channels,
                    sample_rate=self._sample_rate,
                    frames=self._frames,
                )

    def _encode_block(self, block: Float32) -> None:
        for file in self._files:
            assert file.encoder is not None
            with output_errors(file.path):
                file.encoder.write(block[file.rows])

    def _finish(self, file: _File) -> str:
        assert file.encoder is not None
        with output_errors(file.path):
            file.encoder.close()
            check_encoded(
                file.part,
                self._format,
                tracks=len(file.rows),
                channels=self._channels,
                sample_rate=self._sample_rate,
                frames=self._frames,
            )
            return sha256_file(file.part, flush=True)

    def _gain_shift(self) -> int:
        """Halvings that all stems need to fit below full scale."""
        if self._highest < 1.0 and self._lowest >= -1.0:
            return 0
        # Scaled stems are rounded to the grid again, and the one that closes the sum takes what the others lost.
        room = (len(self._names) + 1) * 2.0**-self._format.grid_bits
        return max(1, math.frexp(max(self._highest, -self._lowest) / (1.0 - room))[1])

    def _read_raw(self, raw: IO[bytes], shift: int) -> Iterator[Float32]:
        """Blocks ``[stems (and mix), channels, frames]``, scaled by 2^-shift and closed on the output's grid again."""
        rows = len(self._names) + self._with_mix
        count = len(self._names)
        raw.seek(0)
        while header := raw.read(4):
            frames = int(np.frombuffer(header, "<u4")[0])
            data = np.frombuffer(raw.read(4 * rows * self._channels * frames), "<f4")
            block = data.reshape(rows, self._channels, frames).astype(np.float32)
            if shift:
                block *= np.float32(2.0**-shift)
                total = block[:count].sum(axis=0)
                block[:count], _ = close_null(block[:count], total, self._fold, self._format.grid_bits)
                self.null.add_error((block[:count].sum(axis=0) - total) * np.float32(2.0**shift))
            yield block


@dataclass(slots=True, kw_only=True)
class _File:
    path: Path
    part: Path
    rows: Sequence[int]
    encoder: Encoder | None = None


def _write_all(raw: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[raw.write(data) :]
