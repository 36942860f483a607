"""How late one signal is against another: an integer lag by cross-correlation. Any thread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from revithion_stems.errors import RequestError
from revithion_stems.quality import BLOCK_FRAMES, Float64Array, FloatArray, energy, paired_blocks

Complex128Array: TypeAlias = NDArray[np.complex128]

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
    weights = mono_weights(ref for ref, _ in paired_blocks(reference, estimate, BLOCK_FRAMES))
    meter = LagMeter(weights, reference.shape[1], max_lag, estimates=1)
    for ref, est in paired_blocks(reference, estimate, BLOCK_FRAMES):
        meter.add(ref, [est])
    (lag,) = meter.lags()
    return lag


def mono_weights(reference: Iterable[Float64Array]) -> Float64Array:
    """What to multiply the channels with to get the one signal that is compared.

    Args:
        reference: Its blocks ``[channels, frames]``, at least one.

    Returns:
        ``[channels]``: the mid, or the strongest channel where the mid has less than :data:`MID_FLOOR` of it.
    """
    channel_energy: Float64Array | None = None
    mid_energy = 0.0
    for block in reference:
        block_energy = np.einsum("cn,cn->c", block, block)
        channel_energy = block_energy if channel_energy is None else channel_energy + block_energy
        mid_energy += energy(block.mean(axis=0))
    assert channel_energy is not None
    channels = channel_energy.size
    if mid_energy < MID_FLOOR * float(channel_energy.max()):
        return np.eye(channels)[int(channel_energy.argmax())]
    return np.full(channels, 1.0 / channels)


class LagMeter:
    """:func:`find_lag` of several estimates of one reference, all of which come block by block. One thread at a time.

    Args:
        weights: Of the channels, from :func:`mono_weights` over the reference.
        frames: Length of the signals, ≥ 1.
        max_lag: Largest lag to look at either way, in frames, ≥ 0.
        estimates: How many there are, ≥ 1.

    Raises:
        RequestError: ``max_lag`` is negative.
    """

    def __init__(self, weights: Float64Array, frames: int, max_lag: int, *, estimates: int) -> None:
        if max_lag < 0:
            raise RequestError(f"max_lag is {max_lag}, it must be at least 0 frames", hint="Use 0 or more frames.")
        self._weights = weights
        self._reach = reach = min(max_lag, frames - 1)
        # Block k of the reference meets the stretch of the estimate from `reach` before it to `reach` after it. With a
        # transform at least as long as that stretch, entries 0 … 2·reach of the circular correlation are free of
        # wrap-around, and their sum over the blocks is the linear correlation at lags −reach … reach. Transforms are
        # linear, so the products are added up first and one inverse transform is enough.
        self._block = min(frames, max(BLOCK_FRAMES, 2 * reach))
        self._size = 1 << (self._block + 2 * reach - 1).bit_length()
        self._spectra = [np.zeros(self._size // 2 + 1, dtype=np.complex128) for _ in range(estimates)]
        self._reference = np.zeros(0)  # from the first frame that was not correlated yet
        self._estimates = [np.zeros(reach) for _ in range(estimates)]  # from `reach` frames before that one
        self._reference_heard = _Edges(reach)
        self._estimates_heard = [_Edges(reach) for _ in range(estimates)]

    def add(self, reference: Float64Array, estimates: Sequence[Float64Array]) -> None:
        """Takes the next frames of all, finite and of one shape ``[channels, frames]``."""
        ref = self._weights @ reference
        self._reference_heard.add(ref)
        self._reference = np.concatenate([self._reference, ref])
        for row, estimate in enumerate(estimates):
            est = self._weights @ estimate
            self._estimates_heard[row].add(est)
            self._estimates[row] = np.concatenate([self._estimates[row], est])
        while self._reference.size >= self._block + self._reach:
            self._correlate()

    def _correlate(self) -> None:
        ref = self._reference[: self._block]
        reference = np.conj(np.fft.rfft(ref, self._size))
        for row, est in enumerate(self._estimates):
            self._spectra[row] += reference * np.fft.rfft(est[: ref.size + 2 * self._reach], self._size)
            self._estimates[row] = est[ref.size :]
        self._reference = self._reference[ref.size :]

    def lags(self) -> list[Lag]:
        """The lag of each estimate, once all frames were given."""
        while self._reference.size:
            self._correlate()
        return [self._lag(*row) for row in zip(self._spectra, self._estimates_heard, strict=True)]

    def _lag(self, spectrum: Complex128Array, heard: _Edges) -> Lag:
        reach = self._reach
        correlation = np.fft.irfft(spectrum, self._size)[: 2 * reach + 1]
        best = int(np.argmax(np.abs(correlation)))
        lag = best - reach
        early = self._reference_heard.energy(skip_first=max(0, -lag), skip_last=max(0, lag))
        late = heard.energy(skip_first=max(0, lag), skip_last=max(0, -lag))
        scale = math.sqrt(early) * math.sqrt(late)
        if scale == 0.0:
            return Lag(frames=None, correlation=0.0)
        return Lag(frames=lag, correlation=min(1.0, max(-1.0, float(correlation[best]) / scale)))


class _Edges:
    """The energy of a signal but for some frames at one of its ends: keeps ``reach`` frames at each, and a sum between.

    Taking the energy of the ends off that of the whole would leave nothing but rounding of a signal that is loud there.
    """

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self._first = np.zeros(0)
        self._last = np.zeros(0)
        self._between = 0.0

    def add(self, samples: Float64Array) -> None:
        missing = self._reach - self._first.size
        self._first = np.concatenate([self._first, samples[:missing]])
        last = np.concatenate([self._last, samples[missing:]])
        excess = max(0, last.size - self._reach)
        self._between += energy(last[:excess])
        self._last = last[excess:]

    def energy(self, *, skip_first: int, skip_last: int) -> float:
        """Without so many frames at the start or at the end; one of the two is 0, the other at most ``reach``."""
        ends = np.concatenate([self._first, self._last])
        return self._between + energy(ends[skip_first : ends.size - skip_last])
