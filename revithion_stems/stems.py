"""Stems that sum back to their source exactly, in float32, in whatever order a mixer adds them.

A float32 holds 24 bits. If all stems of a frame are multiples of one power of two q, and the sum of their magnitudes is
at most 2^24·q, then every partial sum is a multiple of q below 2^24·q, hence a float32: no addition rounds, and the
order does not matter. So each sample position gets the finest such q, but none finer than 2^-24 (or the step of the
integer format that the stems are written in), the estimates are rounded to it, and one stem takes the exact difference
to the source on that grid. What the source has below the grid is at most q/2 and stays in the residual, which a
float32 also holds exactly; adding it last restores the source bit for bit.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from revithion_stems.audio import AudioBuffer, Float32
from revithion_stems.errors import RequestError
from revithion_stems.units import power_db

FLOAT_GRID_BITS = 24
"""The grid is 2^-24 while the stems' magnitudes add up to less than 1."""

RESIDUAL = "residual"
"""Name of the residual where it is a stem of its own."""


class ResidualPolicy(enum.Enum):
    """Where the part of the source goes that no stem claims."""

    FOLD = "fold"
    """Into one stem (``other``, ``accompaniment`` or the two-stems complement): the stems alone sum to the source."""
    STEM = "stem"
    """Into a stem of its own called ``residual``: the others are the model's plain estimates."""
    EXACT = "exact"
    """As ``FOLD``, and what a float source has below the grid (−150 dBFS) is kept in a stem called ``residual``."""


def close_null(estimates: Float32, source: Float32, fold: int | None, grid_bits: int) -> tuple[Float32, Float32]:
    """Puts estimates on the common grid and closes their sum against the source.

    Args:
        estimates: float32 ``[stems, channels, frames]``, finite.
        source: float32 ``[channels, frames]``, finite.
        fold: Index of the stem that takes the difference, or None to leave all of it to the residual.
        grid_bits: The grid is never finer than 2^-grid_bits; 1–24.

    Returns:
        The stems and the residual, float32 of the same shapes. Stems add up without rounding in any order.

        With ``fold``, Σ stems + residual == source bit for bit when the residual is added last; the residual is at
        most half a grid step, and all zeros for a source that lies on the grid. Without it, the residual is the whole
        difference; the sum is exact for a source on the grid, and within half a grid step (2^-25) for others.
    """
    exact_source = source.astype(np.float64)
    stems = estimates.astype(np.float64)
    if fold is not None:
        stems[fold] = 0.0
    rest = exact_source - stems.sum(axis=0)
    bound = np.abs(stems).sum(axis=0) + np.abs(rest)
    # Rounding moves each of the n magnitudes by at most q/2, and the closing one by n·q/2, so n·q in all is room
    # enough: bound + n·q ≤ 2^24·q  ⇔  q ≥ bound / (2^24 − n). frexp's exponent gives the power of two above that.
    count = stems.shape[0] + (fold is None)
    exponent = np.frexp(bound / (2.0**24 - count))[1]
    step = np.ldexp(1.0, np.where(bound > 0, np.maximum(exponent, -grid_bits), -grid_bits))
    np.multiply(np.rint(stems / step), step, out=stems)
    if fold is None:
        return stems.astype(np.float32), (exact_source - stems.sum(axis=0)).astype(np.float32)
    gridded = np.rint(exact_source / step) * step
    stems[fold] = gridded - stems.sum(axis=0)
    return stems.astype(np.float32), (exact_source - gridded).astype(np.float32)


class NullMeter:
    """Measures, block by block, how far the sum of what was delivered is from the source."""

    def __init__(self) -> None:
        self._difference = 0.0
        self._source = 0.0

    def add(self, total: Float32, source: Float32) -> None:
        """Adds a block: ``total`` and ``source`` are float32 ``[channels, frames]``."""
        self._difference += float(np.square(total.astype(np.float64) - source).sum())
        self._source += float(np.square(source, dtype=np.float64).sum())

    def add_error(self, difference: Float32) -> None:
        """Adds a difference that came later, to a source that was counted already; taken as uncorrelated."""
        self._difference += float(np.square(difference, dtype=np.float64).sum())

    @property
    def null_db(self) -> float:
        """RMS of the difference relative to RMS of the source, in dB; −inf where they are equal bit for bit."""
        if self._difference == 0.0:
            return -math.inf
        return power_db(self._difference / self._source) if self._source > 0.0 else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class StemSet:
    """Named stems of one source, of equal shape and rate, with the residual.

    Attributes:
        stems: Name → audio, in the model's order. One gain is shared by all.
        residual: What the stems leave of the source (see :class:`ResidualPolicy`).
        gain_db: The shared gain, 0 unless an integer format needed room.
        model: Name of the model.
        licence: Terms of the model's weights.
    """

    stems: Mapping[str, AudioBuffer]
    residual: AudioBuffer
    gain_db: float
    model: str
    licence: str

    def __post_init__(self) -> None:
        shapes = {(b.samples.shape, b.sample_rate) for b in (*self.stems.values(), self.residual)}
        if len(shapes) != 1:
            raise RequestError(
                f"stems differ in shape or rate: {sorted(shapes)}",
                hint="Build a StemSet from the stems of one separation.",
                code="stems.shape",
            )

    def __getitem__(self, name: str) -> AudioBuffer:
        """The stem called ``name``; raises :class:`RequestError` naming the ones there are."""
        if name not in self.stems:
            raise RequestError(
                f"no stem {name!r} (there are: {', '.join(self.stems)})",
                hint="Ask for one of them, or separate with a model that has it.",
                code="stems.unknown",
            )
        return self.stems[name]

    def total(self, *, with_residual: bool = True) -> Float32:
        """The sum of the stems, then the residual, in float32 ``[channels, frames]``."""
        total = np.zeros_like(self.residual.samples)
        for stem in self.stems.values():
            total = total + stem.samples
        return total + self.residual.samples if with_residual else total

    def null_db(self, mix: AudioBuffer) -> float:
        """RMS of (Σ stems + residual − mix) relative to the mix, in dB; −inf where they are equal bit for bit."""
        if mix.samples.shape != self.residual.samples.shape or mix.sample_rate != self.residual.sample_rate:
            raise RequestError(
                f"the mix has shape {mix.samples.shape} at {mix.sample_rate} Hz, the stems "
                f"{self.residual.samples.shape} at {self.residual.sample_rate} Hz",
                hint="Compare stems with the source that they were separated from.",
                code="stems.shape",
            )
        meter = NullMeter()
        meter.add(self.total(), mix.samples)
        return meter.null_db
