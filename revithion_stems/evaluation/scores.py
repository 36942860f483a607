"""What an evaluation finds, as data: figures of a stem, of a song, of a model, and how they are averaged.

``docs/evaluation.md`` defines each figure and names its source.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


class MetricGroup(enum.Enum):
    """What is computed together, and asked for by name."""

    ENERGY = "energy"
    """SDR of seconds and of the whole song, SI-SDR: next to free, and always there."""
    SPECTRAL = "spectral"
    """Bleedless, fullness and log-spectral distance: seconds per song."""
    BSS = "bss"
    """SIR, SAR and ISR by the package museval: slower than most models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure, and what to know for showing and averaging it.

    Attributes:
        name: Field of :class:`StemScores`.
        label: For people.
        unit: ``dB``, or empty for a score of 0–100.
        group: Computed with these.
        higher_is_better: False for a distance.
        median: Whether its authors take the median over songs; else it is the mean.
    """

    name: str
    label: str
    unit: str
    group: MetricGroup
    higher_is_better: bool = True
    median: bool = False


METRICS: Final[tuple[Metric, ...]] = (
    Metric(name="sdr_median_db", label="SDR median", unit="dB", group=MetricGroup.ENERGY, median=True),
    Metric(name="sdr_db", label="SDR", unit="dB", group=MetricGroup.ENERGY),
    Metric(name="si_sdr_db", label="SI-SDR", unit="dB", group=MetricGroup.ENERGY),
    Metric(name="sir_db", label="SIR", unit="dB", group=MetricGroup.BSS, median=True),
    Metric(name="sar_db", label="SAR", unit="dB", group=MetricGroup.BSS, median=True),
    Metric(name="isr_db", label="ISR", unit="dB", group=MetricGroup.BSS, median=True),
    Metric(name="bleedless", label="bleedless", unit="", group=MetricGroup.SPECTRAL),
    Metric(name="fullness", label="fullness", unit="", group=MetricGroup.SPECTRAL),
    Metric(name="lsd_db", label="LSD", unit="dB", group=MetricGroup.SPECTRAL, higher_is_better=False),
)
"""All figures that are averaged, in the order in which they are shown."""

DEFAULT_GROUPS: Final = frozenset({MetricGroup.ENERGY, MetricGroup.SPECTRAL})


class EstimatorKind(enum.Enum):
    """What the estimates of a row are."""

    MODEL = "model"
    FLOOR = "floor"
    """What is had without any separation."""
    CEILING = "ceiling"
    """What masks could reach that knew the truth."""
    ESTIMATES = "estimates"
    """Files that somebody made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StemScores:
    """Figures of one stem of one song. NaN: not asked for, or not defined, as with a reference that is silent.

    Attributes:
        stem: Its name.
        sdr_median_db: Median of the SDR of one-second windows, as museval.
        sdr_db: SDR of the whole song; inf for an estimate without error.
        si_sdr_db: Scale-invariant SDR of the whole song.
        sir_db, sar_db, isr_db: BSS Eval v4, medians of one-second windows.
        bleedless, fullness: 0–100, of mel spectra.
        lsd_db: Log-spectral distance, ≥ 0.
        reference_dbfs, estimate_dbfs: RMS over all channels, re full scale; −inf where silent.
        windows: Windows that count in the medians.
    """

    stem: str
    sdr_median_db: float = math.nan
    sdr_db: float = math.nan
    si_sdr_db: float = math.nan
    sir_db: float = math.nan
    sar_db: float = math.nan
    isr_db: float = math.nan
    bleedless: float = math.nan
    fullness: float = math.nan
    lsd_db: float = math.nan
    reference_dbfs: float = -math.inf
    estimate_dbfs: float = -math.inf
    windows: int = 0

    def value(self, metric: Metric) -> float:
        """The figure that ``metric`` names."""
        return float(getattr(self, metric.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class SongScores:
    """Figures of one song.

    Attributes:
        song: Its name.
        duration_s: Length in seconds.
        elapsed_s: Seconds that the separation took, loading aside; NaN where nothing was separated.
        null_db: Level of (Σ estimates − mix) relative to the mix: what the model loses or invents.
        stems: In the order of the model.
    """

    song: str
    duration_s: float
    elapsed_s: float
    null_db: float
    stems: tuple[StemScores, ...]

    @property
    def speed(self) -> float:
        """Seconds of audio per second of work; NaN where nothing was separated."""
        return self.duration_s / self.elapsed_s if self.elapsed_s > 0 else math.nan

    def value(self, metric: Metric) -> float:
        """The mean of a figure over the stems that have it."""
        return mean(stem.value(metric) for stem in self.stems)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScores:
    """Figures of one model, or of what stands in a model's place.

    Attributes:
        model: As it was asked for.
        kind: What it is.
        songs: In the order of the dataset.
    """

    model: str
    kind: EstimatorKind
    songs: tuple[SongScores, ...]

    @property
    def stems(self) -> tuple[str, ...]:
        """All stems that any song has figures of, in order of their first appearance."""
        return tuple(dict.fromkeys(stem.stem for song in self.songs for stem in song.stems))

    def values(self, metric: Metric, stem: str) -> list[float]:
        """A figure of a stem for each song that has it, without NaN; may hold infinities."""
        found = (s.value(metric) for song in self.songs for s in song.stems if s.stem == stem)
        return [value for value in found if not math.isnan(value)]

    def value(self, metric: Metric, stem: str | None = None) -> float:
        """A figure over all songs: the median or the mean of a stem, by the figure's custom; without ``stem`` the mean
        of that over the stems. NaN where no song has it.
        """
        if stem is None:
            return mean(self.value(metric, name) for name in self.stems)
        values = self.values(metric, stem)
        if not values:
            return math.nan
        return statistics.median(values) if metric.median else mean(values)

    @property
    def speed(self) -> float:
        """Seconds of audio per second of work, over all songs; NaN where nothing was separated."""
        timed = [song for song in self.songs if song.elapsed_s > 0]
        elapsed_s = math.fsum(song.elapsed_s for song in timed)
        return math.fsum(song.duration_s for song in timed) / elapsed_s if timed else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationReport:
    """The outcome of one evaluation.

    Attributes:
        dataset: Name of the dataset.
        version: Of this program.
        groups: What was computed.
        models: In the order in which they were asked for.
        peak_memory_mib: Largest memory of this process so far, all models together; None where the system can't tell.
    """

    dataset: str
    version: str
    groups: frozenset[MetricGroup]
    models: tuple[ModelScores, ...]
    peak_memory_mib: float | None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The figures of the groups that were computed."""
        return tuple(metric for metric in METRICS if metric.group in self.groups)

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems of all models, in order of their first appearance."""
        return tuple(dict.fromkeys(stem for model in self.models for stem in model.stems))

    @property
    def songs(self) -> tuple[str, ...]:
        """Names of the songs."""
        return tuple(dict.fromkeys(song.song for model in self.models for song in model.songs))


def mean(values: Iterable[float]) -> float:
    """The mean of all that are not NaN; NaN where none is."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan
