"""Where the blocks of a separation go: into memory or into files. Each measures the null of what it delivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from revithion_stems.audio import AudioBuffer, Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.errors import InputError
from revithion_stems.outputs import OutputOptions
from revithion_stems.requests import SeparationRequest, StemPlan
from revithion_stems.separator import StemBlock
from revithion_stems.stem_files import StemFiles, WrittenStem
from revithion_stems.stems import FLOAT_GRID_BITS, NullMeter, StemSet


class Sink(Protocol):
    """Takes one source's stems. Called in this order on one thread: open, write…, close; abort at any time, always."""

    grid_bits: int

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """Gets ready for stems of this layout; raises where they can't be delivered."""
        ...

    def write(self, block: StemBlock) -> None:
        """Takes the next span."""
        ...

    def close(self, check_cancelled: Callable[[], None]) -> None:
        """Delivers; raising from ``check_cancelled`` stops it, and nothing is delivered."""
        ...

    def abort(self) -> None:
        """Throws away what was not delivered; harmless after :meth:`close`."""
        ...

    @property
    def null_db(self) -> float | None:
        """Level of (Σ delivered stems − source) relative to the source; None where they are not meant to be equal."""
        ...

    @property
    def gain_db(self) -> float:
        """The gain that all stems share."""
        ...

    @property
    def written(self) -> tuple[WrittenStem, ...]:
        """The finished files."""
        ...


class MemorySink:
    """Collects stems for a :class:`~revithion_stems.stems.StemSet`."""

    grid_bits = FLOAT_GRID_BITS
    gain_db = 0.0
    written: tuple[WrittenStem, ...] = ()

    def __init__(self) -> None:
        self._blocks: list[StemBlock] = []
        self._plan: StemPlan | None = None
        self._spec: ModelSpec | None = None
        self._sample_rate = 0
        self._meter = NullMeter()

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """See :meth:`Sink.open`."""
        self._spec, self._plan, self._sample_rate = spec, plan, sample_rate

    def write(self, block: StemBlock) -> None:
        """See :meth:`Sink.write`."""
        self._blocks.append(block)
        self._meter.add(_delivered(block, with_residual=self._opened[1].with_residual).sum(axis=0), block.source)

    def close(self, check_cancelled: Callable[[], None]) -> None:
        """See :meth:`Sink.close`."""

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""

    @property
    def null_db(self) -> float | None:
        """See :meth:`Sink.null_db`."""
        return self._meter.null_db if self._opened[1].sums_to_source else None

    @property
    def _opened(self) -> tuple[ModelSpec, StemPlan]:
        assert self._spec is not None  # the runner opens before anything else
        assert self._plan is not None
        return self._spec, self._plan

    def stem_set(self) -> StemSet:
        """What was collected."""
        spec, plan = self._opened

        def buffer(samples: Float32) -> AudioBuffer:
            return AudioBuffer(samples=samples, sample_rate=self._sample_rate)

        stems = np.concatenate([block.stems for block in self._blocks], axis=2)
        return StemSet(
            stems={name: buffer(stem) for name, stem in zip(plan.names, stems, strict=True)},
            residual=buffer(np.concatenate([block.residual for block in self._blocks], axis=1)),
            gain_db=self.gain_db,
            model=spec.name,
            licence=spec.licence.weights,
        )


class FileSink:
    """Writes stems as files; see :class:`~revithion_stems.stem_files.StemFiles`.

    Raises:
        InputError: The request's source is audio in memory, which has no name.
    """

    def __init__(self, request: SeparationRequest, output: OutputOptions) -> None:
        if not isinstance(request.source, Path):
            raise InputError(
                "audio in memory has no name for its stems' files",
                hint="Use separate() for buffers, or write the buffer to a file first.",
                code="input.no_path",
            )
        self.grid_bits = output.format.grid_bits
        self._source = request.source
        self._output = output
        self._open_files: StemFiles | None = None
        self._plan: StemPlan | None = None
        self._written: list[WrittenStem] = []

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """See :meth:`Sink.open`."""
        self._output.format.check_source(channels=channels, sample_rate=sample_rate)
        self._plan = plan
        self._open_files = StemFiles(
            self._output.paths(self._source, plan.all_names, spec.name),
            output_format=self._output.format,
            channels=channels,
            sample_rate=sample_rate,
            fold=plan.fold,
        )

    def write(self, block: StemBlock) -> None:
        """See :meth:`Sink.write`."""
        files, plan = self._opened
        files.write(_delivered(block, with_residual=plan.with_residual), block.source)

    def close(self, check_cancelled: Callable[[], None]) -> None:
        """See :meth:`Sink.close`."""
        self._written = self._opened[0].commit(check_cancelled)

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        if self._open_files is not None:
            self._open_files.abort()

    @property
    def null_db(self) -> float | None:
        """See :meth:`Sink.null_db`; None too where a lossy format comes between."""
        files, plan = self._opened
        return files.null.null_db if plan.sums_to_source and not self._output.format.lossy else None

    @property
    def gain_db(self) -> float:
        """See :meth:`Sink.gain_db`."""
        return self._opened[0].gain_db

    @property
    def written(self) -> tuple[WrittenStem, ...]:
        """See :meth:`Sink.written`."""
        return tuple(self._written)

    @property
    def _opened(self) -> tuple[StemFiles, StemPlan]:
        assert self._open_files is not None  # the runner opens before anything else
        assert self._plan is not None
        return self._open_files, self._plan


def _delivered(block: StemBlock, *, with_residual: bool) -> Float32:
    """The stems as they are delivered, the residual last: sums along the first axis then are exact."""
    return np.concatenate([block.stems, block.residual[None]]) if with_residual else block.stems
