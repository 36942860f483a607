"""How close an estimate is to a reference: SDR, SI-SDR and null depth, as numbers.

:class:`PairMeter` takes two signals block by block; the functions take whole arrays. All sums run in float64.
``docs/quality.md`` has the definitions and what each figure does and does not say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from revithion_stems.errors import RequestError
from revithion_stems.units import db_from_ratio, power_db

FloatArray: TypeAlias = NDArray[np.floating[Any]]
Float64Array: TypeAlias = NDArray[np.float64]

BLOCK_FRAMES = 1 << 17
"""Frames per step of the sums: a few seconds, a few megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NullDepth:
    """What is left when one signal is taken from another.

    Attributes:
        null_db: 20·log10(RMS(difference) / RMS(reference)); −inf when nothing is left, +inf for a silent reference.
        max_abs: Largest absolute difference of any sample, in full scales (1.0 = 0 dBFS), ≥ 0.
        identical: Whether every sample is equal.
    """

    null_db: float
    max_abs: float
    identical: bool

    @property
    def peak_dbfs(self) -> float:
        """:attr:`max_abs` in dB relative to full scale; −inf when identical."""
        return db_from_ratio(self.max_abs)


class PairMeter:
    """All figures of one estimate, from blocks of any size. One thread at a time.

    Memory is one number for each second. The figures are those of the blocks so far.

    Args:
        sample_rate: Hz, ≥ 1: the length of a window of :attr:`frame_sdr_db`.

    Raises:
        RequestError: ``sample_rate`` is below 1.
    """

    def __init__(self, sample_rate: int) -> None:
        if sample_rate < 1:
            raise RequestError(
                f"sample_rate is {sample_rate}, it must be at least 1 Hz", hint="Give the files' own rate."
            )
        self._sample_rate = sample_rate
        self._signal = self._estimate = self._error = self._cross = self._slip = self._peak = 0.0
        self._windows_db: list[float] = []
        self._window = _Window()

    def add(self, reference: Float64Array, estimate: Float64Array) -> None:
        """Takes the next frames of both, finite and of one shape ``[channels, frames]``."""
        start = 0
        while start < reference.shape[1]:
            stop = min(reference.shape[1], start + self._sample_rate - self._window.frames)
            self._add(reference[:, start:stop], estimate[:, start:stop])
            start = stop

    def _add(self, reference: Float64Array, estimate: Float64Array) -> None:
        difference = reference - estimate
        signal, error = energy(reference), energy(difference)
        self._signal += signal
        self._error += error
        self._estimate += energy(estimate)
        self._cross += float(np.vdot(reference, estimate))
        self._slip += float(np.vdot(reference, difference))
        self._peak = max(self._peak, float(np.max(np.abs(difference))))
        self._window.add(reference, estimate, signal, error)
        if self._window.frames == self._sample_rate:
            self._windows_db.append(self._window.sdr_db)
            self._window = _Window()

    @property
    def sdr_db(self) -> float:
        """See :func:`sdr_db`."""
        return _energy_ratio_db(self._signal, self._error)

    @property
    def frame_sdr_db(self) -> Float64Array:
        """See :func:`frame_sdr_db`."""
        return np.array(self._windows_db or [self._window.sdr_db], dtype=np.float64)

    @property
    def si_sdr_db(self) -> float:
        """See :func:`si_sdr_db`."""
        if self._signal == 0.0 or self._estimate == 0.0:
            return math.nan
        scale = self._cross / self._signal
        # With d = s − ŝ and δ = ⟨s, d⟩ / ‖s‖², α = 1 − δ and αs − ŝ = d − δs, which is orthogonal to s: its energy is
        # ‖d‖² − δ²‖s‖². Both are small where the estimate is good; ‖ŝ‖² − α²‖s‖² would be noise from 150 dB on.
        error = self._error - self._slip * self._slip / self._signal
        return _energy_ratio_db(scale * scale * self._signal, max(0.0, error))

    @property
    def null(self) -> NullDepth:
        """See :func:`null_depth`."""
        if self._peak == 0.0:
            return NullDepth(null_db=-math.inf, max_abs=0.0, identical=True)
        return NullDepth(null_db=-self.sdr_db, max_abs=self._peak, identical=False)


class _Window:
    """One window of :func:`frame_sdr_db`."""

    def __init__(self) -> None:
        self.frames = 0
        self._signal = self._error = 0.0
        self._heard = [False, False]

    def add(self, reference: Float64Array, estimate: Float64Array, signal: float, error: float) -> None:
        self.frames += reference.shape[1]
        self._signal += signal
        self._error += error
        for side, samples in enumerate((reference, estimate)):
            self._heard[side] = self._heard[side] or bool(np.any(samples.sum(axis=0)))

    @property
    def sdr_db(self) -> float:
        return _energy_ratio_db(self._signal, self._error) if all(self._heard) else math.nan


def sdr_db(reference: FloatArray, estimate: FloatArray) -> float:
    """Signal-to-distortion ratio of the whole signal: 10·log10(Σs² / Σ(s − ŝ)²) over all channels together.

    Args:
        reference: The true signal s, ``[channels, frames]``.
        estimate: The estimate ŝ, of the same shape.

    Returns:
        dB; inf for equal signals, −inf for a silent reference, NaN where both are silent.

    Raises:
        RequestError: Shapes differ, are not ``[channels, frames]``, are empty, or a value is NaN or infinite.
    """
    return _measure(reference, estimate).sdr_db


def frame_sdr_db(reference: FloatArray, estimate: FloatArray, sample_rate: int) -> Float64Array:
    """SDR of each second, framed and judged silent exactly as museval 0.4.1 does (BSS Eval v4, images).

    Windows are ``sample_rate`` frames long and do not overlap; what is left after the last whole one is not looked
    at, and a signal of a second or less is one window. A window is silent, and NaN, where the *sum of the channels*
    of the reference or of the estimate is zero in every frame; a window with left = −right counts as silent too.

    Four error terms that BSS Eval v4 computes with 512-tap projections add up to ``estimate − reference``; the
    projections cancel, so SDR needs none of them.

    Args:
        reference: ``[channels, frames]``.
        estimate: Of the same shape.
        sample_rate: Hz, ≥ 1.

    Returns:
        float64 [windows], dB; NaN for silent windows, inf where the two are equal.

    Raises:
        RequestError: As :func:`sdr_db`, or ``sample_rate`` is below 1.

    Source: Stöter, Liutkus, Ito: The 2018 Signal Separation Evaluation Campaign (LVA/ICA 2018); museval ``metrics.py``.
    """
    return _measure(reference, estimate, sample_rate).frame_sdr_db


def median_db(frames_db: Float64Array) -> float:
    """The median of the windows that are not NaN; NaN if there is none."""
    heard = frames_db[~np.isnan(frames_db)]
    return float(np.median(heard)) if heard.size else math.nan


def sdr_median_db(reference: FloatArray, estimate: FloatArray, sample_rate: int) -> float:
    """The median of :func:`frame_sdr_db`: the figure that MUSDB18 papers report for one track and one stem.

    museval judges the stems of a track together and leaves out a window where *any* of them is silent. To get its
    number for one of several stems, drop those windows from :func:`frame_sdr_db` before :func:`median_db`.

    Returns:
        dB; NaN if no window is left.

    Raises:
        RequestError: As :func:`frame_sdr_db`.
    """
    return median_db(frame_sdr_db(reference, estimate, sample_rate))


def si_sdr_db(reference: FloatArray, estimate: FloatArray) -> float:
    """Scale-invariant SDR: 10·log10(‖αs‖² / ‖αs − ŝ‖²) with α = ⟨ŝ, s⟩ / ‖s‖².

    All channels are one long vector with one α, so a wrong balance between the channels is an error. No mean is
    taken off. Rounding limits a scaled copy to some 150 dB.

    Returns:
        dB; −inf for an estimate orthogonal to the reference, NaN where either is silent.

    Raises:
        RequestError: As :func:`sdr_db`.

    Source: Le Roux, Wisdom, Erdogan, Hershey: SDR – half-baked or well done? (ICASSP 2019), equation 3.
    """
    return _measure(reference, estimate).si_sdr_db


def null_depth(reference: FloatArray, total: FloatArray) -> NullDepth:
    """The null test of a studio: what remains of ``reference`` when ``total`` is subtracted from it.

    ``null_db`` is :func:`sdr_db` with the other sign; the peak is what that leaves out, one bad sample in an hour.

    Args:
        reference: ``[channels, frames]``, such as the mix.
        total: Of the same shape, such as the sum of its stems.

    Raises:
        RequestError: As :func:`sdr_db`.
    """
    return _measure(reference, total).null


def _measure(reference: FloatArray, estimate: FloatArray, sample_rate: int = BLOCK_FRAMES) -> PairMeter:
    meter = PairMeter(sample_rate)
    for ref, est in paired_blocks(reference, estimate, BLOCK_FRAMES):
        meter.add(ref, est)
    return meter


def energy(samples: Float64Array) -> float:
    """The sum of the squares of all samples, whatever the shape."""
    return float(np.vdot(samples, samples))


def _energy_ratio_db(signal: float, error: float) -> float:
    if error == 0.0:
        return math.inf if signal > 0.0 else math.nan
    return power_db(signal / error)


def paired_blocks(
    reference: FloatArray, estimate: FloatArray, frames: int
) -> Iterator[tuple[Float64Array, Float64Array]]:
    """Both signals in step, as float64 blocks ``[channels, ≤ frames]``, checked for what every figure relies on.

    Raises:
        RequestError: Shapes differ, are not ``[channels, frames]``, are empty, or a value is NaN or infinite.
    """
    if reference.ndim != 2 or 0 in reference.shape or reference.shape != estimate.shape:
        raise RequestError(
            f"reference {reference.shape} and estimate {estimate.shape} must have one shape [channels, frames], "
            "with at least one of each",
            hint="Compare files of the same length and channel count; convert one of them first.",
            code="compare.shape",
        )
    for start in range(0, reference.shape[1], frames):
        ref = reference[:, start : start + frames].astype(np.float64)
        est = estimate[:, start : start + frames].astype(np.float64)
        for name, block in (("reference", ref), ("estimate", est)):
            if not np.isfinite(block).all():
                raise RequestError(
                    f"the {name} holds NaN or infinite samples near frame {start}; all must be finite",
                    hint="Export that file again; NaN usually comes from a plug-in that blew up.",
                    code="compare.not_finite",
                )
        yield ref, est
