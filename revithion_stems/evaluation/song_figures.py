"""All figures of one song: references and estimates in, scores out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from revithion_stems.audio import BLOCK_FRAMES, Float32
from revithion_stems.evaluation.bss_eval import bss_medians
from revithion_stems.evaluation.scores import MetricGroup, StemScores
from revithion_stems.evaluation.spectral_distances import spectral_distances
from revithion_stems.quality import Float64Array, PairMeter, energy, median_db, paired_blocks
from revithion_stems.units import power_db

ReferenceReader = Callable[[str], Float32]
"""Name of a stem → its reference, float32 ``[channels, frames]``; called again where it is needed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """Scores so far, and the SDR of each second that their median is of; None for a silent reference."""

    scores: StemScores
    frames_db: Float64Array | None


def stem_figures(
    read_reference: ReferenceReader,
    estimates: Mapping[str, Float32],
    *,
    sample_rate: int,
    groups: frozenset[MetricGroup],
    check_cancelled: Callable[[], None],
) -> tuple[StemScores, ...]:
    """Figures of all stems of a song.

    As in museval, a second in which any stem or estimate is silent counts in no median. A stem that is silent all the
    way (where museval gives up) is left out of that rule: it has no figures but the level of its estimate.

    Args:
        read_reference: Gives the truth of each stem.
        estimates: By stem, float32 ``[channels, frames]``, of their references' shape.
        sample_rate: Hz.
        groups: What to compute; energy is always.
        check_cancelled: Called between the steps; what it raises goes through.

    Raises:
        RequestError: A shape differs, or a value is not finite.
        EngineError: museval is wanted and not there.
    """
    measured: list[_Measured] = []
    for stem, estimate in estimates.items():
        check_cancelled()
        measured.append(_measure(stem, read_reference(stem), estimate, sample_rate, groups))
    together = _windows_that_count([m.frames_db for m in measured if m.frames_db is not None])
    rows = [_with_median(m, together) for m in measured]
    if MetricGroup.BSS not in groups:
        return tuple(rows)
    check_cancelled()
    heard = [m.scores.stem for m in measured if m.frames_db is not None and np.any(estimates[m.scores.stem])]
    medians = bss_medians([read_reference(s) for s in heard], [estimates[s] for s in heard], sample_rate)
    found = dict(zip(heard, medians, strict=True))
    return tuple(
        dataclasses.replace(
            row, sir_db=found[row.stem].sir_db, sar_db=found[row.stem].sar_db, isr_db=found[row.stem].isr_db
        )
        if row.stem in found
        else row
        for row in rows
    )


def sum_null_db(mix: Float32, estimates: Sequence[Float32]) -> float:
    """Level of (Σ estimates − mix) relative to the mix, in dB: −inf where they are equal, NaN for a silent mix."""
    left = total = 0.0
    for start in range(0, mix.shape[1], BLOCK_FRAMES):
        span = slice(start, start + BLOCK_FRAMES)
        block = mix[:, span].astype(np.float64)
        total += energy(block)
        for estimate in estimates:
            block -= estimate[:, span]
        left += energy(block)
    return power_db(left / total) if total > 0 else float("nan")


def _measure(
    stem: str, reference: Float32, estimate: Float32, sample_rate: int, groups: frozenset[MetricGroup]
) -> _Measured:
    meter = PairMeter(sample_rate)
    levels = [0.0, 0.0]
    for truth, guess in paired_blocks(reference, estimate, BLOCK_FRAMES):
        meter.add(truth, guess)
        levels[0] += energy(truth)
        levels[1] += energy(guess)
    reference_dbfs, estimate_dbfs = (power_db(level / reference.size) for level in levels)
    scores = StemScores(stem=stem, reference_dbfs=reference_dbfs, estimate_dbfs=estimate_dbfs)
    if levels[0] == 0.0:
        return _Measured(scores=scores, frames_db=None)
    scores = dataclasses.replace(scores, sdr_db=meter.sdr_db, si_sdr_db=meter.si_sdr_db)
    if MetricGroup.SPECTRAL in groups:
        spectral = spectral_distances(reference, estimate, sample_rate)
        scores = dataclasses.replace(
            scores, bleedless=spectral.bleedless, fullness=spectral.fullness, lsd_db=spectral.lsd_db
        )
    return _Measured(scores=scores, frames_db=meter.frame_sdr_db)


def _windows_that_count(frames_db: Sequence[Float64Array]) -> NDArray[np.bool_] | None:
    """Which windows are heard in all stems that are ever heard, bool ``[windows]``; None without any."""
    heard = [values for values in frames_db if not np.isnan(values).all()]
    return np.asarray(~np.isnan(np.stack(heard)).any(axis=0)) if heard else None


def _with_median(measured: _Measured, together: NDArray[np.bool_] | None) -> StemScores:
    if measured.frames_db is None or together is None or np.isnan(measured.frames_db).all():
        return measured.scores
    return dataclasses.replace(
        measured.scores,
        sdr_median_db=median_db(measured.frames_db[together]),
        windows=int(np.count_nonzero(together)),
    )
