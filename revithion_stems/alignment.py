"""How late one signal is against another: an integer lag by cross-correlation. Pure functions, any thread."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from revithion_stems.errors import RequestError
from revithion_stems.quality import BLOCK_FRAMES, Float64Array, FloatArray, energy, paired_blocks

MID_FLOOR = 0.01
"""Lag is measured on the mid while that has this share of the strongest channel's energy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How late an estimate is.

    Attributes:
        frames: ``estimate[n]`` matches ``reference[n - frames]``: positive is late. None where either is silent.
        correlation: Normalised correlation at that lag over the frames that overlap, −1 to 1. Near ±1 the lag can be
            relied upon, and −1 is an inverted polarity; 0 where either is silent.
    """

    frames: int | None
    correlation: float


def find_lag(reference: FloatArray, estimate: FloatArray, max_lag: int) -> Lag:
    """The delay at which the two are most alike, by cross-correlation of their mid (the mean of the channels).

    Where the reference's mid has under 1 % of the energy of its strongest channel (left ≈ −right), that channel is
    taken instead. The lag with the largest absolute correlation wins. Memory depends on ``max_lag``, not on the
    length.

    Args:
        reference: ``[channels, frames]``.
        estimate: Of the same shape.
        max_lag: Largest lag to look at either way, in frames, ≥ 0; the signals' length bounds it too.

    Raises:
        RequestError: Shapes differ, are not ``[channels, frames]``, are empty, a value is NaN or infinite, or
            ``max_lag`` is negative.
    """
    if max_lag < 0:
        raise RequestError(f"max_lag is {max_lag}, it must be at least 0 frames", hint="Use 0 or more frames.")
    weights = _mono_weights(reference, estimate)
    frames = reference.shape[1]
    reach = min(max_lag, frames - 1)

    # Block k of the reference meets the stretch of the estimate from `reach` before it to `reach` after it. With a
    # transform at least as long as that stretch, entries 0 … 2·reach of the circular correlation are free of
    # wrap-around, and their sum over the blocks is the linear correlation at lags −reach … reach. Transforms are
    # linear, so the products are added up first and one inverse transform is enough.
    block = min(frames, max(BLOCK_FRAMES, 2 * reach))
    size = 1 << (block + 2 * reach - 1).bit_length()
    spectrum = np.zeros(size // 2 + 1, dtype=np.complex128)
    for start in range(0, frames, block):
        ref = weights @ reference[:, start : start + block].astype(np.float64)
        first = max(0, start - reach)
        est = weights @ estimate[:, first : start + ref.size + reach].astype(np.float64)
        est = np.pad(est, (first - (start - reach), 0))
        spectrum += np.conj(np.fft.rfft(ref, size)) * np.fft.rfft(est, size)
    correlation = np.fft.irfft(spectrum, size)[: 2 * reach + 1]
    return _lag_over_overlap(reference, estimate, weights, int(np.argmax(np.abs(correlation))) - reach)


def _mono_weights(reference: FloatArray, estimate: FloatArray) -> Float64Array:
    """What to multiply the channels with to get the one signal that is compared."""
    channel_energy: Float64Array | None = None
    mid_energy = 0.0
    for ref, _ in paired_blocks(reference, estimate, BLOCK_FRAMES):
        block_energy = np.einsum("cn,cn->c", ref, ref)
        channel_energy = block_energy if channel_energy is None else channel_energy + block_energy
        mid_energy += energy(ref.mean(axis=0))
    assert channel_energy is not None  # paired_blocks refuses empty signals
    channels = channel_energy.size
    if mid_energy < MID_FLOOR * float(channel_energy.max()):
        return np.eye(channels)[int(channel_energy.argmax())]
    return np.full(channels, 1.0 / channels)


def _lag_over_overlap(reference: FloatArray, estimate: FloatArray, weights: Float64Array, best: int) -> Lag:
    frames = reference.shape[1]
    early = reference[:, max(0, -best) : frames - max(0, best)]
    late = estimate[:, max(0, best) : frames - max(0, -best)]
    cross = early_energy = late_energy = 0.0
    for start in range(0, early.shape[1], BLOCK_FRAMES):
        ref = weights @ early[:, start : start + BLOCK_FRAMES].astype(np.float64)
        est = weights @ late[:, start : start + BLOCK_FRAMES].astype(np.float64)
        cross += float(np.vdot(ref, est))
        early_energy += energy(ref)
        late_energy += energy(est)
    scale = math.sqrt(early_energy) * math.sqrt(late_energy)
    if scale == 0.0:
        return Lag(frames=None, correlation=0.0)
    return Lag(frames=best, correlation=min(1.0, max(-1.0, cross / scale)))
