"""Compares audio files and folders of stems: which figures, of which pairs, in which order. No printing.

Reads whole files: memory is about 12 bytes per sample of the longest pair, plus 8 where stems are summed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from revithion_stems.alignment import find_lag
from revithion_stems.audio import AudioBuffer
from revithion_stems.audio_files import read_audio
from revithion_stems.errors import RequestError
from revithion_stems.manifest import decode_manifest
from revithion_stems.quality import Float64Array, FloatArray, frame_sdr_db, median_db, null_depth, sdr_db, si_sdr_db

MAX_LAG_S = 1.0
"""Lag is searched this far either way; codecs and plug-ins delay by tens of milliseconds at most."""

AUDIO_SUFFIXES = frozenset(
    (
        ".wav",
        ".wave",
        ".w64",
        ".rf64",
        ".aif",
        ".aiff",
        ".aifc",
        ".caf",
        ".au",
        ".flac",
        ".mp3",
        ".ogg",
        ".oga",
        ".opus",
    )
)
"""What counts as audio in a folder; a file that is named on its own may have any suffix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The figures of one estimate; :mod:`revithion_stems.quality` and ``docs/quality.md`` define them.

    Attributes:
        name: File name, or stem name in a comparison of folders.
        sdr_median_db: Median of the SDR of ``windows`` one-second windows, as museval; NaN if there are none.
        sdr_db: SDR of the whole signal.
        si_sdr_db: Scale-invariant SDR.
        null_db: Level of the difference relative to the reference; −inf when ``identical``.
        peak_dbfs: Largest difference of any sample, relative to full scale.
        identical: Whether every sample is equal.
        lag_frames: How late the estimate is; None where either is silent.
        lag_correlation: How far that can be relied upon, −1 to 1.
        windows: Windows that count in the median.
    """

    name: str
    sdr_median_db: float
    sdr_db: float
    si_sdr_db: float
    null_db: float
    peak_dbfs: float
    identical: bool
    lag_frames: int | None
    lag_correlation: float
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanScores:
    """Means over stems of the figures that papers average, in dB.

    Stems without a figure (NaN) or with a silent reference (−inf) are left out; NaN where none is left.
    """

    sdr_median_db: float
    sdr_db: float
    si_sdr_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """The outcome of one comparison.

    Attributes:
        reference: What was compared with.
        rows: One per estimate, or per stem.
        total: The sum of all estimates against the reference; None for one estimate, and for folders.
        mean: Over the rows; None except for folders.
        unmatched: Stems that only one of two folders has, as paths.
    """

    reference: Path
    rows: tuple[Comparison, ...]
    total: Comparison | None = None
    mean: MeanScores | None = None
    unmatched: tuple[Path, ...] = ()


def compare(reference: Path, estimates: Sequence[Path]) -> ComparisonReport:
    """Compares a file with files, a file with the audio files in a folder, or two folders of stems.

    Raises:
        RequestError: Nothing to compare, or rate, channel count or length differ.
        InputError: A file can't be read.
    """
    if reference.is_dir():
        if len(estimates) != 1 or not estimates[0].is_dir():
            raise RequestError(
                f"{reference} is a folder, so there must be exactly one estimate and that a folder too",
                hint="Compare two folders of stems, or name one reference file.",
                code="compare.folders",
            )
        return compare_folders(reference, estimates[0])
    files = [file for path in estimates for file in (_audio_files(path) if path.is_dir() else [path])]
    return compare_files(reference, files)


def compare_files(reference: Path, estimates: Sequence[Path]) -> ComparisonReport:
    """Compares each of ``estimates`` with ``reference``, and where there are several, their sum as well.

    The sum is taken in float64, in which stems on a common grid (the product's own) add up without rounding.
    """
    if not estimates:
        raise RequestError("there is no estimate to compare", hint="Name at least one file.", code="compare.nothing")
    truth = read_audio(reference)
    rows: list[Comparison] = []
    total: Float64Array | None = np.zeros(truth.samples.shape) if len(estimates) > 1 else None
    for path in estimates:
        guess = _read_matching(reference, truth, path)
        rows.append(_compare_samples(path.name, truth.samples, guess.samples, truth.sample_rate))
        if total is not None:
            total += guess.samples
    return ComparisonReport(
        reference=reference,
        rows=tuple(rows),
        total=None if total is None else _compare_samples("sum", truth.samples, total, truth.sample_rate),
    )


def compare_folders(reference: Path, estimate: Path) -> ComparisonReport:
    """Compares the stems of two folders by their names without suffix (``vocals.flac`` with ``vocals.wav``).

    As in museval, a window that is silent in any stem counts for none of them. A stem that is silent all the way
    (where museval gives up) is left out of that rule, and of the means.
    """
    truths, guesses = _stems_in(reference), _stems_in(estimate)
    names = sorted(truths.keys() & guesses.keys())
    if not names:
        raise RequestError(
            f"{reference} and {estimate} have no stem in common ({', '.join(sorted(truths)) or 'no audio'} against "
            f"{', '.join(sorted(guesses)) or 'no audio'})",
            hint="Files are matched by name without suffix, such as vocals.flac with vocals.wav.",
            code="compare.nothing",
        )
    rows: list[Comparison] = []
    frames_db: list[Float64Array] = []
    for name in names:
        truth = read_audio(truths[name])
        guess = _read_matching(truths[name], truth, guesses[name])
        frames_db.append(frame_sdr_db(truth.samples, guess.samples, truth.sample_rate))
        rows.append(_compare_samples(name, truth.samples, guess.samples, truth.sample_rate))
    rows = _without_silent_windows(rows, frames_db)
    unmatched = [files[name] for files in (truths, guesses) for name in sorted(files) if name not in names]
    return ComparisonReport(
        reference=reference,
        rows=tuple(rows),
        mean=MeanScores(
            sdr_median_db=_mean([row.sdr_median_db for row in rows]),
            sdr_db=_mean([row.sdr_db for row in rows]),
            si_sdr_db=_mean([row.si_sdr_db for row in rows]),
        ),
        unmatched=tuple(unmatched),
    )


def _compare_samples(name: str, reference: FloatArray, estimate: FloatArray, sample_rate: int) -> Comparison:
    frames_db = frame_sdr_db(reference, estimate, sample_rate)
    null = null_depth(reference, estimate)
    lag = find_lag(reference, estimate, round(MAX_LAG_S * sample_rate))
    return Comparison(
        name=name,
        sdr_median_db=median_db(frames_db),
        sdr_db=sdr_db(reference, estimate),
        si_sdr_db=si_sdr_db(reference, estimate),
        null_db=null.null_db,
        peak_dbfs=null.peak_dbfs,
        identical=null.identical,
        lag_frames=lag.frames,
        lag_correlation=lag.correlation,
        windows=int(np.count_nonzero(~np.isnan(frames_db))),
    )


def _without_silent_windows(rows: list[Comparison], frames_db: list[Float64Array]) -> list[Comparison]:
    """``rows`` with the median over those windows in which all stems that are ever heard are heard."""
    heard = [values for values in frames_db if not np.isnan(values).all()]
    if not heard or len({values.size for values in heard}) > 1:  # folders of songs, not stems of one
        return rows
    together = ~np.isnan(np.stack(heard)).any(axis=0)
    count = int(np.count_nonzero(together))
    return [
        row
        if np.isnan(values).all()
        else dataclasses.replace(row, sdr_median_db=median_db(values[together]), windows=count)
        for row, values in zip(rows, frames_db, strict=True)
    ]


def _read_matching(reference_path: Path, reference: AudioBuffer, path: Path) -> AudioBuffer:
    audio = read_audio(path)
    for what, ours, theirs in (
        ("sample_rate", audio.sample_rate, reference.sample_rate),
        ("channels", audio.channels, reference.channels),
        ("frames", audio.frames, reference.frames),
    ):
        if ours != theirs:
            raise RequestError(
                f"{path} has {what} {ours}, but {reference_path} has {theirs}; they must be equal",
                hint="Export both at one rate, with the same channels, from the same start to the same end.",
                code=f"compare.{what}",
            )
    return audio


def _audio_files(folder: Path) -> list[Path]:
    """The audio in a folder; less the archived original, if a manifest says that it is one."""
    archived: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        manifest = decode_manifest((folder / "manifest.json").read_bytes())
        archived = {file.path for file in manifest.files if file.role == "mix"}
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file() and path.name not in archived
    )


def _stems_in(folder: Path) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for path in _audio_files(folder):
        other = stems.setdefault(path.stem, path)
        if other != path:
            raise RequestError(
                f"{folder} has {path.stem!r} twice: {other.name} and {path.name}",
                hint="Keep one file per stem in a folder that is compared.",
                code="compare.ambiguous",
            )
    return stems


def _mean(values: list[float]) -> float:
    known = [value for value in values if value > -math.inf]  # neither NaN nor a silent reference
    return math.fsum(known) / len(known) if known else math.nan
