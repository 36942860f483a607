"""The separation itself: a stream of source blocks in, a stream of stem blocks out, memory bounded by a few segments.

source ─┬─ per group of ≤ 2 channels: normalise → resample → overlap-add over networks and shifts ┐
        │                              resample back ← denormalise ← weighted average ────────────┤
        └─ delayed by as much ───────────────────────────────→ close the null on the common grid ←┘
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from revithion_stems.audio import Float32, channel_pairs
from revithion_stems.audio_scan import ScanResult
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import DEMUCS_FAMILY, Separator
from revithion_stems.errors import EngineError
from revithion_stems.overlap_add import OverlapAdd, segment_count
from revithion_stems.requests import MAX_SHIFT_S, SeparationRequest, StemPlan
from revithion_stems.stems import close_null

_STD_FLOOR = 1e-8
_STD_FLOOR_OF_PEAK = 1e-6
"""Where left and right cancel out, the mono mix has no spread: dividing by 1e-8 would leave the range of float32."""
_NULL_BLOCK_FRAMES = 8_192  # what a core keeps in its cache: three times as fast as 32 768


SegmentRunner = Callable[[Separator, Float32, list[int]], Float32]
"""Runs a network on a segment ``[2, frames]`` and returns the stems with these indices, ``[indices, 2, frames]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model in memory, ready for any number of sources.

    Attributes:
        spec: Its catalog row.
        separators: Each with its weight per stem of the model.
        engine: Name of the engine.
        device: Where it runs.
    """

    spec: ModelSpec
    separators: tuple[tuple[Separator, tuple[float, ...]], ...]
    engine: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StemBlock:
    """A finished span of the stems.

    Attributes:
        source: float32 ``[channels, frames]``.
        stems: float32 ``[stems, channels, frames]`` in the plan's order, without the residual.
        residual: float32 ``[channels, frames]``.
    """

    source: Float32
    stems: Float32
    residual: Float32


def network_runs(
    plan: StemPlan, request: SeparationRequest, *, frames: int, sample_rate: int, channels: int, spec: ModelSpec
) -> int:
    """How many segments one network will be given for a source: the unit of progress, per separator."""
    model_frames = max(1, round(frames * spec.sample_rate / sample_rate))
    per_pass = segment_count(model_frames, plan.segment_frames, request.overlap)
    return per_pass * max(1, request.shifts) * len(channel_pairs(channels))


def separate_blocks(
    blocks: Iterable[Float32],
    *,
    model: LoadedModel,
    plan: StemPlan,
    request: SeparationRequest,
    sample_rate: int,
    scan: ScanResult,
    grid_bits: int,
    run_segment: SegmentRunner,
) -> Iterator[StemBlock]:
    """Separates a stream.

    Args:
        blocks: The source, float32 ``[channels, n]`` each, ``scan.frames`` in all.
        model: Loaded networks that cover ``plan.model_stems``.
        plan: What to deliver.
        request: Overlap, shifts and seed are read from it.
        sample_rate: Of the source, in Hz.
        scan: Length and statistics of the same source.
        grid_bits: Of the output format; see :func:`revithion_stems.stems.close_null`.
        run_segment: Called for every network run; raising from it (a cancelled token) stops the stream.

    Yields:
        Consecutive spans that cover exactly frames 0 to ``scan.frames``.
    """
    groups = channel_pairs(scan.channels)
    stages = [
        _GroupStage(model, plan, request, sample_rate, len(group), mean, _spread(std, scan.peak), run_segment)
        for group, mean, std in zip(groups, scan.mean, scan.std, strict=True)
    ]
    source = _Fifo((scan.channels,))
    estimates = [_Fifo((len(plan.model_stems), len(group))) for group in groups]

    def ready() -> Iterator[StemBlock]:
        while (frames := min(len(source), _NULL_BLOCK_FRAMES, *map(len, estimates))) > 0:
            mix = source.take(frames)
            computed = np.concatenate([fifo.take(frames) for fifo in estimates], axis=1)
            delivered = np.tensordot(plan.matrix, computed, axes=1)
            stems, residual = close_null(delivered, mix, plan.fold, grid_bits)
            yield StemBlock(source=mix, stems=stems, residual=residual)

    for block in blocks:
        source.put(block)
        for group, stage, fifo in zip(groups, stages, estimates, strict=True):
            for estimate in stage.feed(block[list(group)]):
                fifo.put(estimate)
        yield from ready()
    for stage, fifo in zip(stages, estimates, strict=True):
        for estimate in stage.finish():
            fifo.put(estimate)
        # Resampling there and back may end a frame early: the source is exactly as long as it is.
        fifo.put(np.zeros((len(plan.model_stems), stage.channels, max(0, len(source) - len(fifo))), np.float32))
    yield from ready()


class _GroupStage:
    """One or two channels on their way through the model; estimates come out at the source's rate."""

    def __init__(
        self,
        model: LoadedModel,
        plan: StemPlan,
        request: SeparationRequest,
        sample_rate: int,
        channels: int,
        mean: float,
        spread: float,
        run_segment: SegmentRunner,
    ) -> None:
        spec = model.spec
        self.channels = channels
        as_demucs = spec.architecture in DEMUCS_FAMILY
        self._mean = np.float32(mean if as_demucs else 0.0)
        self._std = np.float32(spread if as_demucs else 1.0)
        self._stems = len(plan.model_stems)
        self._to_model = _Resampler(sample_rate, spec.sample_rate, 2)
        self._to_source = _Resampler(spec.sample_rate, sample_rate, 2 * self._stems)
        self._total = np.zeros((self._stems, 1, 1), np.float32)
        self._passes: list[_Passes] = []
        rng = random.Random(request.seed)
        for separator, stem_weights in model.separators:
            weights = np.array([stem_weights[spec.stems.index(stem)] for stem in plan.model_stems], np.float32)
            rows = np.flatnonzero(weights)  # of a network per stem, the others are not even added up
            columns = [spec.stems.index(plan.model_stems[row]) for row in rows]

            def run(mix: Float32, separator: Separator = separator, columns: list[int] = columns) -> Float32:
                stems = run_segment(separator, mix, columns)
                if not np.isfinite(stems).all():
                    raise EngineError(
                        f"{spec.name} computed values that are not finite numbers (NaN or infinity)",
                        hint="Use --precision fp32, or --device cpu; if neither helps, report the model.",
                        code="engine.not_finite",
                    )
                return stems

            overlap_adds = [
                OverlapAdd(
                    run,
                    channels=2,
                    stems=len(columns),
                    segment_frames=plan.segment_frames,
                    overlap=request.overlap,
                    fixed=as_demucs and spec.segment_fixed,
                    lead=lead,
                )
                for lead in _leads(request.shifts, spec.sample_rate, rng)
            ]
            self._passes.append(
                _Passes(
                    rows=rows,
                    weights=weights[rows][:, None, None],
                    outputs=[(overlap_add, _Fifo((len(columns), 2))) for overlap_add in overlap_adds],
                )
            )
            self._total += weights[:, None, None]

    def feed(self, block: Float32) -> Iterator[Float32]:
        """Takes source ``[channels, n]``; yields estimates ``[stems, channels, m]``."""
        stereo = np.broadcast_to(block, (2, block.shape[1]))
        yield from self._advance(self._to_model((stereo - self._mean) / self._std, last=False), last=False)

    def finish(self) -> Iterator[Float32]:
        """Yields what is left."""
        yield from self._advance(self._to_model(np.zeros((2, 0), np.float32), last=True), last=True)

    def _advance(self, mix: Float32, *, last: bool) -> Iterator[Float32]:
        for passes in self._passes:
            for overlap_add, fifo in passes.outputs:
                for out in overlap_add.feed(mix):
                    fifo.put(out)
                for out in overlap_add.finish() if last else ():
                    fifo.put(out)
        frames = min(len(fifo) for passes in self._passes for _, fifo in passes.outputs)
        if frames == 0 and not last:
            return
        average = np.zeros((self._stems, 2, frames), np.float32)
        for passes in self._passes:
            shifted: Any = sum(fifo.take(frames) for _, fifo in passes.outputs)
            average[passes.rows] += shifted / np.float32(len(passes.outputs)) * passes.weights
        stems = average / self._total * self._std + self._mean
        flat = self._to_source(stems.reshape(2 * self._stems, frames), last=last)
        stems = flat.reshape(self._stems, 2, flat.shape[1])
        yield stems if self.channels == 2 else stems.mean(axis=1, keepdims=True)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Passes:
    """One network's passes over the input, a pass per shift, and the rows of the plan's stems that it adds to."""

    rows: Any
    weights: Float32
    outputs: list[tuple[OverlapAdd, _Fifo]]


def _spread(std: float, peak: float) -> float:
    """What the input is divided by: the standard deviation as in Demucs, but never next to nothing beside the peak."""
    return max(std + _STD_FLOOR, _STD_FLOOR_OF_PEAK * peak)


def _leads(shifts: int, sample_rate: int, rng: random.Random) -> list[int]:
    """Zeros before the input in each pass. Demucs pads by half a second and starts at a random frame of the padding."""
    longest = int(MAX_SHIFT_S * sample_rate)
    return [longest - rng.randint(0, longest) for _ in range(shifts)] or [0]


class _Resampler:
    """Polyphase resampling (soxr, VHQ) of a stream; the output is aligned with the input, whatever the block sizes."""

    def __init__(self, source_rate: int, target_rate: int, channels: int) -> None:
        self._channels = channels
        self._stream: Any = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality="VHQ")

    def __call__(self, block: Float32, *, last: bool) -> Float32:
        """float32 ``[channels, n]`` → float32 ``[channels, m]``; ``last`` flushes what is inside."""
        if self._stream is None:
            return block
        out: Any = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
        return np.ascontiguousarray(out.reshape(-1, self._channels).T)


class _Fifo:
    """Frames that wait, on the last axis of arrays whose other axes are ``shape``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._parts: list[Float32] = [np.zeros((*shape, 0), np.float32)]
        self._frames = 0

    def __len__(self) -> int:
        return self._frames

    def put(self, frames: Float32) -> None:
        """Appends frames."""
        self._parts.append(frames)
        self._frames += frames.shape[-1]

    def take(self, frames: int) -> Float32:
        """Removes and returns the first ``frames`` frames."""
        joined: Sequence[Float32] = self._parts
        whole = np.concatenate(joined, axis=-1) if len(joined) > 1 else joined[0]
        self._parts = [whole[..., frames:]]
        self._frames -= frames
        return whole[..., :frames]
