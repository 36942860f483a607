"""How the offline networks divide a spectrum into bands: tables of the papers, and the rules that make bins of them.

A division is a tuple of ``(first, end)`` bins, ``end`` excluded, from low to high. It covers every bin; bands may
overlap.

Sources: Luo & Yu 2022 (BSRNN, arXiv 2209.15174) for the tables in Hz; Lu et al. 2023 (arXiv 2309.02612) for the 62
bands; Wang et al. 2023 (arXiv 2310.01809) for mel bands; Slaney 1998 (Auditory Toolbox) for their scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Bands: TypeAlias = tuple[tuple[int, int], ...]
"""First bin and the one after the last, of each band."""

HertzTable: TypeAlias = tuple[tuple[float, float], ...]
"""Steps ``(up to, width)`` in Hz: bands of that width up to there; what lies above the last step is one band."""

_VOCALS: Final[HertzTable] = ((1000, 100), (4000, 250), (8000, 500), (16_000, 1000), (20_000, 2000))

BSRNN_TABLES: Final[dict[str, HertzTable]] = {
    "vocals": _VOCALS,  # 41 bands; "V7" in the paper
    "bass": ((500, 50), (1000, 100), (4000, 500), (8000, 1000), (16_000, 2000)),  # 30 bands
    "drums": ((1000, 50), (2000, 100), (4000, 250), (8000, 500), (16_000, 1000)),  # 55 bands
    "other": _VOCALS,
}
"""The divisions of BSRNN, one per target."""

ROFORMER_WIDTHS: Final = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)
"""Bins of the 62 bands of BS-RoFormer, for spectra of 1025 bins."""

_LINEAR_HZ: Final = 200 / 3  # per mel, up to the break; Slaney's scale
_BREAK_HZ: Final = 1000.0
_LOG_STEP: Final = math.log(6.4) / 27  # per mel, above it


def bands_of_widths(widths: Sequence[int], bins: int) -> Bands:
    """Bands side by side.

    Args:
        widths: Bins of each, 1 or more.
        bins: That they must have together.

    Raises:
        ValueError: They have more or fewer, or one has none.
    """
    if min(widths, default=0) < 1 or sum(widths) != bins:
        raise ValueError(f"{len(widths)} bands of {sum(widths)} bins together don't divide {bins} bins")
    ends = np.cumsum(widths).tolist()
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def bands_of_table(table: HertzTable, sample_rate: int, fft_frames: int) -> Bands:
    """Bands side by side, by frequency: a bin belongs to the band that its own frequency lies in.

    Bands that no bin falls into, at small transforms, are left out.

    Args:
        table: Steps, rising.
        sample_rate: Hz.
        fft_frames: Of the transform.

    Raises:
        ValueError: A width that isn't positive or is tiny, steps that don't rise, or no bin above the last
            band's beginning.
    """
    edges, low = [0.0], 0.0
    for high, width in table:
        if width <= 0 or high <= low:
            raise ValueError(f"a step of bands {width:g} Hz wide up to {high:g} Hz, after {low:g} Hz, is none")
        count = round((high - low) / width)
        if count > fft_frames:
            raise ValueError(f"bands of {width:g} Hz are far narrower than a bin")
        edges += [low + (high - low) * (index + 1) / count for index in range(count)]
        low = high
    bins = fft_frames // 2 + 1
    # The ratio is rounded before the ceiling: an edge that is a bin's frequency must not miss it by a rounding error.
    firsts = [math.ceil(round(edge * fft_frames / sample_rate, 9)) for edge in edges]
    firsts = sorted({first for first in firsts if first < bins})
    return tuple(zip(firsts, [*firsts[1:], bins], strict=True))


def mel_bands(count: int, sample_rate: int, fft_frames: int) -> Bands:
    """Overlapping bands: the bins inside each triangle of a mel filter bank, whose shape is otherwise not used.

    The first bin belongs to the first band and the last to the last, though both lie on the feet of their triangles.

    Args:
        count: Of bands.
        sample_rate: Hz.
        fft_frames: Of the transform.

    Raises:
        ValueError: So many bands are narrower than a bin: some are empty.
    """
    centres = mel_frequencies(count + 2, sample_rate / 2)  # [count + 2]
    frequencies = np.arange(fft_frames // 2 + 1) * (sample_rate / fft_frames)  # [F]
    bands: list[tuple[int, int]] = []
    for low, high in zip(centres[:-2], centres[2:], strict=True):
        first = int(np.searchsorted(frequencies, low, side="right"))
        bands.append((first, int(np.searchsorted(frequencies, high, side="left"))))
    bands[0] = (0, bands[0][1])
    bands[-1] = (bands[-1][0], len(frequencies))
    reach = 0
    for first, end in bands:
        if first >= end or first > reach:
            raise ValueError(f"{count} mel bands are too many for a transform of {fft_frames} frames")
        reach = max(reach, end)
    return tuple(bands)


def mel_frequencies(count: int, top_hz: float) -> npt.NDArray[np.float64]:
    """Frequencies at equal distances on Slaney's mel scale, from 0 up.

    Args:
        count: 2 or more.
        top_hz: The last one.

    Returns:
        Hz, float64 ``[count]``.
    """
    top = top_hz / _LINEAR_HZ
    if top_hz > _BREAK_HZ:
        top = _BREAK_HZ / _LINEAR_HZ + math.log(top_hz / _BREAK_HZ) / _LOG_STEP
    mels = np.linspace(0.0, top, count)
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_HZ / _LINEAR_HZ))
    return np.where(mels >= _BREAK_HZ / _LINEAR_HZ, logarithmic, mels * _LINEAR_HZ)
