"""Where the blocks of a separation go, and the sink that keeps them in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from revithion_stems.audio import AudioBuffer, Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.manifest import Manifest
from revithion_stems.output_format import OutputFormat
from revithion_stems.requests import StemPlan
from revithion_stems.separator import StemBlock
from revithion_stems.stem_files import WrittenStem
from revithion_stems.stems import FLOAT_GRID_BITS, NullMeter, StemSet

NoteTemporary = Callable[[Path], None]


class Sink(Protocol):
    """Takes one source's stems.

    Called in this order, on one thread at a time: open, probe, begin, write…, encode, publish; or open, restore; abort
    at any time, always.
    """

    grid_bits: int
    format: OutputFormat | None
    """What files are written as; None where stems stay in memory, and no result can be kept."""

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """Learns what is coming; raises where stems of this layout can't be delivered."""
        ...

    def probe(self) -> None:
        """Raises if nothing can be written where the stems go: better now than after an hour."""
        ...

    def begin(self, frames: int, note_temporary: NoteTemporary | None) -> None:
        """Gets ready to write; ``note_temporary`` gets each file and folder that is about to be made."""
        ...

    def write(self, block: StemBlock) -> None:
        """Takes the next span."""
        ...

    def encode(self, check_cancelled: Callable[[], None]) -> None:
        """Completes everything, so that only names are missing; raising from ``check_cancelled`` stops it."""
        ...

    def publish(self, manifest: Manifest | None) -> Manifest | None:
        """Delivers; returns the manifest with the files in it."""
        ...

    def restore(self, manifest: Manifest, folder: Path) -> Manifest | None:
        """Delivers a result of the content store instead; None if it is damaged, and nothing was delivered."""
        ...

    def abort(self) -> None:
        """Throws away what was not delivered; harmless after :meth:`publish`."""
        ...

    @property
    def null_db(self) -> float | None:
        """Level of (Σ delivered stems − source) relative to the source; None where they are not meant to be equal."""
        ...

    @property
    def lag_frames(self) -> int | None:
        """How many frames later the stems are than the source; None where that can't be told."""
        ...

    @property
    def gain_db(self) -> float:
        """The gain that all stems share."""
        ...

    @property
    def written(self) -> tuple[WrittenStem, ...]:
        """The finished files."""
        ...

    @property
    def manifest_path(self) -> Path | None:
        """Where the manifest goes."""
        ...


class MemorySink:
    """Collects stems for a :class:`~revithion_stems.stems.StemSet`."""

    grid_bits = FLOAT_GRID_BITS
    format: OutputFormat | None = None
    gain_db = 0.0
    lag_frames: int | None = 0
    written: tuple[WrittenStem, ...] = ()
    manifest_path: Path | None = None

    def __init__(self) -> None:
        self._blocks: list[StemBlock] = []
        self._plan: StemPlan | None = None
        self._spec: ModelSpec | None = None
        self._sample_rate = 0
        self._meter = NullMeter()

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """See :meth:`Sink.open`."""
        self._spec, self._plan, self._sample_rate = spec, plan, sample_rate

    def probe(self) -> None:
        """See :meth:`Sink.probe`."""

    def begin(self, frames: int, note_temporary: NoteTemporary | None) -> None:
        """See :meth:`Sink.begin`."""

    def write(self, block: StemBlock) -> None:
        """See :meth:`Sink.write`."""
        self._blocks.append(block)
        self._meter.add(delivered(block, with_residual=self._opened[1].with_residual).sum(axis=0), block.source)

    def encode(self, check_cancelled: Callable[[], None]) -> None:
        """See :meth:`Sink.encode`."""

    def publish(self, manifest: Manifest | None) -> Manifest | None:
        """See :meth:`Sink.publish`."""
        return manifest

    def restore(self, manifest: Manifest, folder: Path) -> Manifest | None:
        """See :meth:`Sink.restore`; nothing is kept of stems in memory."""
        return None

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


def delivered(block: StemBlock, *, with_residual: bool) -> Float32:
    """The stems as they are delivered, the residual last: sums along the first axis then are exact."""
    return np.concatenate([block.stems, block.residual[None]]) if with_residual else block.stems
