"""SIR, SAR and ISR of BSS Eval v4, by the package museval, which is where their definition lives.

They need projections on 512-tap filters of all stems: minutes and gigabytes for a song. SDR needs none of that and is
computed by :mod:`revithion_stems.quality`; a test compares the two.

Sources: Stöter, Liutkus, Ito: The 2018 Signal Separation Evaluation Campaign (LVA/ICA 2018, arXiv:1804.06267); Vincent,
Gribonval, Févotte: Performance measurement in blind audio source separation (IEEE TASLP 14(4), 2006).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import EngineError
from revithion_stems.quality import Float64Array, median_db


@dataclass(frozen=True, slots=True, kw_only=True)
class BssMedians:
    """Medians of one-second windows in dB; NaN where no window counts.

    Attributes:
        sdr_db: The same as :func:`revithion_stems.quality.sdr_median_db`.
        isr_db: Image to spatial distortion.
        sir_db: Source to interference.
        sar_db: Source to artefacts.
    """

    sdr_db: float
    isr_db: float
    sir_db: float
    sar_db: float


def bss_medians(references: Sequence[Float32], estimates: Sequence[Float32], sample_rate: int) -> list[BssMedians]:
    """museval's figures of one song with its defaults for MUSDB18: windows of a second, filters of 512 taps.

    Args:
        references: One per stem, float32 ``[channels, frames]``; none silent all the way.
        estimates: As many, of the same shape; none silent all the way.
        sample_rate: Hz.

    Raises:
        EngineError: ``engine.missing``: museval is not installed.
    """
    if not references:
        return []
    figures = frame_figures(references, estimates, sample_rate)
    return [
        BssMedians(sdr_db=sdr, isr_db=isr, sir_db=sir, sar_db=sar)
        for sdr, isr, sir, sar in ([median_db(row) for row in stem] for stem in figures.swapaxes(0, 1))
    ]


def frame_figures(references: Sequence[Float32], estimates: Sequence[Float32], sample_rate: int) -> Float64Array:
    """What museval says of each second.

    Args:
        references, estimates, sample_rate: As in :func:`bss_medians`.

    Returns:
        float64 ``[4, stems, windows]`` in dB: SDR, ISR, SIR, SAR; NaN in windows where any signal is silent.

    Raises:
        EngineError: ``engine.missing``: museval is not installed.
    """
    metrics = _museval()
    figures: Any = metrics.bss_eval(
        np.stack([signal.T for signal in references]).astype(np.float64),
        np.stack([signal.T for signal in estimates]).astype(np.float64),
        window=1.0 * sample_rate,
        hop=1.0 * sample_rate,
    )
    return np.stack(figures[:4])


def _museval() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        try:
            import museval.metrics
        except ImportError as exc:
            raise EngineError(
                f"SIR, SAR and ISR need the package museval, which can't be imported: {exc}",
                hint="pip install 'revithion-stems[train]', or leave `bss` out of --metrics.",
                code="engine.missing",
            ) from exc
    return museval.metrics
