"""How the spectra of an estimate and its reference differ: what is too much, what is missing, and by how many dB.

Bleedless and fullness, as the separation community's training framework defines them: mel magnitudes in dB, each signal
cut off 80 dB below its own largest value; of the differences estimate − reference, the mean of the positive ones (what
bled in) and that of the negative ones (what is gone), each over its own cells, as a score 100 / (1 + mean in dB).

Log-spectral distance: the RMS over bins of the difference of the power spectra in dB, and the mean of that over time.
Both are cut off 80 dB below the largest power of the reference, or silence would decide.

Two passes over each signal, the first for the largest values: memory does not grow with the length.

Sources: ZFTurbo, Music-Source-Separation-Training, ``utils/metrics.py`` (``bleed_full``); Slaney: Auditory Toolbox
(Interval Technical Report 1998-010) for the mel scale; Gray, Markel: Distance measures for speech processing (IEEE
Transactions on Acoustics, Speech and Signal Processing 24(5), 1976) for the distance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.fft
import scipy.sparse

from revithion_stems.audio import Float32
from revithion_stems.quality import Float64Array

WINDOW_FRAMES: Final = 4096
HOP_FRAMES: Final = 1024
MEL_BANDS: Final = 512
RANGE_DB: Final = 80.0
"""What lies this far below the largest value does not count."""

_MIN_MAGNITUDE: Final = 1e-10
_COLUMNS_PER_STEP: Final = 256
"""Some 20 MB of spectra at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectralDistances:
    """Differences of two spectra.

    Attributes:
        bleedless: 0–100; 100 where the estimate has nowhere more than the reference.
        fullness: 0–100; 100 where it has nowhere less.
        lsd_db: Log-spectral distance, ≥ 0.
    """

    bleedless: float
    fullness: float
    lsd_db: float


def spectral_distances(reference: Float32, estimate: Float32, sample_rate: int) -> SpectralDistances:
    """Compares two signals.

    Args:
        reference: float32 ``[channels, frames]``, finite, not silent.
        estimate: Of the same shape, finite.
        sample_rate: Hz; the published figures are those of 44 100.
    """
    bank = mel_filters(sample_rate)
    signals = (reference, estimate)
    mel_floors_db = [max(_decibels(_mel(bank, s)).max() for s in spectra(signal)) - RANGE_DB for signal in signals]
    power_floor = max(float(np.square(s).max()) for s in spectra(reference)) * 10 ** (-RANGE_DB / 10)

    sums, counts = [0.0, 0.0], [0, 0]
    distance, columns = 0.0, 0
    for truth, guess in zip(spectra(reference), spectra(estimate), strict=True):
        truth_db, guess_db = (
            np.maximum(_decibels(_mel(bank, s)), floor) for s, floor in zip((truth, guess), mel_floors_db, strict=True)
        )
        difference = guess_db - truth_db
        for side, part in enumerate((difference[difference > 0], -difference[difference < 0])):
            sums[side] += float(part.sum(dtype=np.float64))
            counts[side] += part.size
        powers = [np.maximum(np.square(s), power_floor) for s in (truth, guess)]
        squares = np.square(10.0 * np.log10(powers[1] / powers[0]))  # [channels, columns, bins]
        distance += float(np.sqrt(squares.mean(axis=-1, dtype=np.float64)).sum())
        columns += squares.shape[0] * squares.shape[1]
    excess, lack = (total / count if count else 0.0 for total, count in zip(sums, counts, strict=True))
    return SpectralDistances(bleedless=100 / (1 + excess), fullness=100 / (1 + lack), lsd_db=distance / columns)


def spectra(samples: Float32) -> Iterator[Float32]:
    """Magnitudes of an STFT with a periodic Hann window, zeros before and after the signal.

    Args:
        samples: float32 ``[channels, frames]``.

    Yields:
        float32 ``[channels, columns, bins]``; column t of all is centred on frame t·:data:`HOP_FRAMES`.
    """
    half = WINDOW_FRAMES // 2
    window = np.hanning(WINDOW_FRAMES + 1)[:-1].astype(np.float32)
    frames = samples.shape[1]
    columns = 1 + frames // HOP_FRAMES
    for first in range(0, columns, _COLUMNS_PER_STEP):
        count = min(_COLUMNS_PER_STEP, columns - first)
        start = first * HOP_FRAMES - half
        stop = start + (count - 1) * HOP_FRAMES + WINDOW_FRAMES
        part = samples[:, max(0, start) : min(frames, stop)]
        part = np.pad(part, ((0, 0), (max(0, -start), max(0, stop - frames))))
        views = np.lib.stride_tricks.sliding_window_view(part, WINDOW_FRAMES, axis=1)[:, ::HOP_FRAMES]
        spectrum: Any = scipy.fft.rfft(views * window, axis=-1)  # float32 stays complex64
        yield np.abs(spectrum)


@functools.cache
def mel_filters(sample_rate: int, bands: int = MEL_BANDS, window_frames: int = WINDOW_FRAMES) -> Any:
    """Triangles on Slaney's mel scale from 0 Hz to half the rate, each of area 1 (over Hz).

    At low frequencies a band may fall between two bins and stay empty.

    Returns:
        A sparse float32 matrix ``[bands, bins]``.
    """
    edges = mel_frequencies(bands + 2, sample_rate / 2)
    bins = np.arange(window_frames // 2 + 1) * sample_rate / window_frames
    widths = np.diff(edges)
    rising = (bins - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return scipy.sparse.csr_array(triangles.astype(np.float32))


def mel_frequencies(count: int, highest_hz: float) -> Float64Array:
    """Frequencies in equal steps of Slaney's mel scale: linear up to 1 kHz (15 mel), then 27 steps per factor of 6.4.

    Args:
        count: As many, the first is 0 Hz.
        highest_hz: The last.
    """
    step = math.log(6.4) / 27
    hz_per_mel, break_hz, break_mel = 200 / 3, 1000.0, 15.0
    top = break_mel + math.log(highest_hz / break_hz) / step if highest_hz > break_hz else highest_hz / hz_per_mel
    mels = np.linspace(0.0, top, count)
    return np.where(mels < break_mel, mels * hz_per_mel, break_hz * np.exp(step * (mels - break_mel)))


def _mel(bank: Any, magnitudes: Float32) -> Float32:
    """``[channels, columns, bins]`` → ``[channels·columns, bands]``."""
    return (bank @ magnitudes.reshape(-1, magnitudes.shape[-1]).T).T


def _decibels(magnitudes: Float32) -> Float32:
    return np.float32(20.0) * np.log10(np.maximum(magnitudes, np.float32(_MIN_MAGNITUDE)))
