"""Compares audio files and folders of stems: which figures, of which pairs, in which order. No printing.

Files are read in step, block by block, so memory does not grow with their length. The reference is read twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from revithion_stems.alignment import Lag, LagMeter, mono_weights
from revithion_stems.audio_files import AUDIO_SUFFIXES, BLOCK_FRAMES, AudioReader
from revithion_stems.errors import RequestError
from revithion_stems.manifest import find_manifest
from revithion_stems.quality import Float64Array, PairMeter, median_db

_MANIFEST_NAME = "manifest.json"
MAX_LAG_S = 1.0
"""Lag is searched this far either way; codecs and plug-ins delay by tens of milliseconds at most."""


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
        gain_db: Gain of the estimate that its manifest tells, undone before anything was measured; 0 where none is.
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
    gain_db: float = 0.0


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
    """Compares each of ``estimates`` with ``reference``, and where there are several, their sum as well."""
    if not estimates:
        raise RequestError("there is no estimate to compare", hint="Name at least one file.", code="compare.nothing")
    rows = [row.figures for row in _measure(reference, estimates)]
    total = rows.pop() if len(estimates) > 1 else None
    return ComparisonReport(reference=reference, rows=tuple(rows), total=total)


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
    measured = [_measure(truths[name], [guesses[name]])[0] for name in names]
    rows = [
        dataclasses.replace(row, name=name) for name, row in zip(names, _without_silent_windows(measured), strict=True)
    ]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """The figures of an estimate, and the SDR of each second that its median is of."""

    figures: Comparison
    frames_db: Float64Array


def _row(name: str, pair: PairMeter, lag: Lag, gain_db: float) -> _Row:
    frames_db, null = pair.frame_sdr_db, pair.null
    figures = Comparison(
        name=name,
        sdr_median_db=median_db(frames_db),
        sdr_db=pair.sdr_db,
        si_sdr_db=pair.si_sdr_db,
        null_db=null.null_db,
        peak_dbfs=null.peak_dbfs,
        identical=null.identical,
        lag_frames=lag.frames,
        lag_correlation=lag.correlation,
        windows=int(np.count_nonzero(~np.isnan(frames_db))),
        gain_db=gain_db,
    )
    return _Row(figures=figures, frames_db=frames_db)


class _Signal:
    """An open file as float64, the gain undone that its manifest says all stems share."""

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = find_manifest(path.parent / _MANIFEST_NAME)
        mine = manifest is not None and any(file.role == "stem" and file.path == path.name for file in manifest.files)
        self.gain_db = manifest.gain_db if manifest is not None and mine else 0.0
        self._scale = 2.0 ** -round(self.gain_db / (20 * math.log10(2)))  # gains are powers of two
        self.reader = AudioReader(path)
        self.frames = 0  # that were decoded, whatever the header says

    def blocks(self) -> Iterator[Float64Array]:
        """All of it from the start, in blocks of :data:`BLOCK_FRAMES` but for the last."""
        self.frames = 0
        rest: Float64Array = np.zeros((self.reader.info.channels, 0))
        for block in self.reader.blocks(BLOCK_FRAMES):
            self.frames += block.shape[1]
            rest = np.concatenate([rest, block.astype(np.float64) * self._scale], axis=1)
            while rest.shape[1] >= BLOCK_FRAMES:
                yield rest[:, :BLOCK_FRAMES]
                rest = rest[:, BLOCK_FRAMES:]
        if rest.shape[1]:
            yield rest


def _measure(reference_path: Path, paths: Sequence[Path]) -> list[_Row]:
    """The rows of all estimates and, where there are several, of their sum, in one pass over all files.

    The sum is taken in float64, in which stems on a common grid (the product's own) add up without rounding.
    """
    with contextlib.ExitStack() as stack:
        signals: list[_Signal] = []
        for path in (reference_path, *paths):
            signals.append(_Signal(path))
            stack.enter_context(signals[-1].reader)
        reference, *estimates = signals
        info = reference.reader.info
        for estimate in estimates:
            theirs = estimate.reader.info
            _check_equal("sample_rate", estimate, theirs.sample_rate, reference, info.sample_rate)
            _check_equal("channels", estimate, theirs.channels, reference, info.channels)

        weights = mono_weights(reference.blocks())
        frames = reference.frames
        names = [(estimate.path.name, estimate.gain_db) for estimate in estimates]
        if len(estimates) > 1:
            names.append(("sum", 0.0))
        pairs = [PairMeter(info.sample_rate) for _ in names]
        lags = LagMeter(weights, frames, round(MAX_LAG_S * info.sample_rate), estimates=len(names))
        blocks = (signal.blocks() for signal in signals)
        for truth, *guesses in itertools.zip_longest(*blocks, fillvalue=np.zeros((info.channels, 0))):
            for estimate, guess in zip(estimates, guesses, strict=True):
                if guess.shape != truth.shape:
                    frames_there = sum(block.shape[1] for block in estimate.blocks())
                    _check_equal("frames", estimate, frames_there, reference, frames)
            if len(estimates) > 1:
                guesses.append(np.sum(guesses, axis=0))
            for pair, guess in zip(pairs, guesses, strict=True):
                pair.add(truth, guess)
            lags.add(truth, guesses)
    found = zip(names, pairs, lags.lags(), strict=True)
    return [_row(name, pair, lag, gain_db) for (name, gain_db), pair, lag in found]


def _check_equal(what: str, estimate: _Signal, ours: int, reference: _Signal, theirs: int) -> None:
    if ours != theirs:
        raise RequestError(
            f"{estimate.path} has {what} {ours}, but {reference.path} has {theirs}; they must be equal",
            hint="Export both at one rate, with the same channels, from the same start to the same end.",
            code=f"compare.{what}",
        )


def _without_silent_windows(rows: list[_Row]) -> list[Comparison]:
    """The figures with the median over those windows in which all stems that are ever heard are heard."""
    heard = [row.frames_db for row in rows if not np.isnan(row.frames_db).all()]
    if not heard or len({values.size for values in heard}) > 1:  # folders of songs, not stems of one
        return [row.figures for row in rows]
    together = ~np.isnan(np.stack(heard)).any(axis=0)
    count = int(np.count_nonzero(together))
    return [
        row.figures
        if np.isnan(row.frames_db).all()
        else dataclasses.replace(row.figures, sdr_median_db=median_db(row.frames_db[together]), windows=count)
        for row in rows
    ]


def _audio_files(folder: Path) -> list[Path]:
    """The audio in a folder; less the archived original, if a manifest says that it is one."""
    manifest = find_manifest(folder / _MANIFEST_NAME)
    archived = {file.path for file in manifest.files if file.role == "mix"} if manifest is not None else set[str]()
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
