"""Stored figures of models, and whether new ones fell below them: quality as a test.

{"songs": {"name": seconds}, "tolerance_db": 0.05, "tolerance_reason": "...",
 "models": {"dsp": {"drums": {"sdr_db": 1.25, ...}, ...}}}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from revithion_stems.errors import ConfigError, ModelError, RequestError
from revithion_stems.evaluation.scores import METRICS, EstimatorKind, EvaluationReport, Metric, MetricGroup, ModelScores
from revithion_stems.file_set import FileSet

GATED: Final = tuple(metric for metric in METRICS if metric.group is MetricGroup.ENERGY)
"""Figures that are stored and compared: all in dB, all better when higher."""

DEFAULT_TOLERANCE_DB: Final = 0.05
DEFAULT_REASON: Final = (
    "the same weights on another processor or another build of a library differ by some 0.001 dB; a change that "
    "costs 0.05 dB is one of the model or of the code around it"
)
_DIGITS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFigures:
    """The content of a file of figures.

    Attributes:
        songs: Name → length in seconds, of what was measured.
        tolerance_db: How far a figure may fall, > 0.
        tolerance_reason: Why so far.
        models: Model → stem → name of the figure → dB.
    """

    songs: dict[str, float]
    tolerance_db: float = DEFAULT_TOLERANCE_DB
    tolerance_reason: str = DEFAULT_REASON
    models: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict[str, dict[str, dict[str, float]]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """A figure below what is stored.

    Attributes:
        model, stem: Of what.
        metric: Which figure.
        stored_db: What it was.
        found_db: What it is; NaN where it is gone.
    """

    model: str
    stem: str
    metric: Metric
    stored_db: float
    found_db: float

    def __str__(self) -> str:
        found = "no figure" if math.isnan(self.found_db) else f"{self.found_db:.2f} dB"
        return f"{self.model} {self.stem} {self.metric.label}: {found}, stored {self.stored_db:.2f} dB"


def read_figures(path: Path) -> StoredFigures:
    """The figures in a file.

    Raises:
        ConfigError: It is missing or not what this module writes.
    """
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=StoredFigures)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"{path} holds no stored figures: {exc}",
            hint="Write it with `revithion-stems evaluate ... --store FILE`.",
            code="config.figures",
        ) from exc
    if not stored.tolerance_db > 0:
        raise ConfigError(
            f"{path}: tolerance_db is {stored.tolerance_db}, it must be above 0",
            hint=f"Take {DEFAULT_TOLERANCE_DB}, and say why in tolerance_reason.",
            code="config.figures",
        )
    return stored


def store_figures(path: Path, report: EvaluationReport) -> StoredFigures:
    """Writes a report's figures; those of other models in the file stay, and its tolerance, if it is of the same songs.

    Returns:
        What is in the file now.

    Raises:
        ConfigError: The file is there but not one of figures.
        RequestError: It is of other songs.
        OutputError: It can't be written.
    """
    songs = _songs(report)
    stored = read_figures(path) if path.exists() else StoredFigures(songs=songs)
    _check_songs(path, stored, songs)
    models = {**stored.models, **{model.model: _figures(model) for model in report.models}}
    new = dataclasses.replace(stored, models=models)
    with FileSet() as files:
        files.add(path, msgspec.json.format(msgspec.json.encode(new), indent=1) + b"\n")
        files.publish()
    return new


def check_figures(path: Path, report: EvaluationReport) -> StoredFigures:
    """Compares a report with stored figures; floors, ceilings and finished estimates only where they are stored.

    Returns:
        What is stored.

    Raises:
        ModelError: ``model.regressed``: figures fell by more than the tolerance; all are named.
        RequestError: The file is of other songs, or lacks a model of the report.
        ConfigError: The file is unusable.
    """
    stored = read_figures(path)
    _check_songs(path, stored, _songs(report))
    missing = [m.model for m in report.models if m.kind is EstimatorKind.MODEL and m.model not in stored.models]
    if missing:
        raise RequestError(
            f"{path} has no figures of {', '.join(missing)} (it has: {', '.join(stored.models) or 'none'})",
            hint="Store them: the same command with --store in place of --gate.",
            code="request.figures",
        )
    falls = find_falls(stored, report.models)
    if falls:
        raise ModelError(
            f"{len(falls)} figure{'s' * (len(falls) != 1)} fell by more than {stored.tolerance_db:g} dB below {path}: "
            + "; ".join(str(fall) for fall in falls),
            hint="Find the change that did it; if it is meant, store the new figures with --store and say why.",
            code="model.regressed",
        )
    return stored


def find_falls(stored: StoredFigures, models: Sequence[ModelScores]) -> tuple[Fall, ...]:
    """All stored figures of these models that are more than the tolerance below, or gone."""
    falls: list[Fall] = []
    for model in models:
        for stem, figures in stored.models.get(model.model, {}).items():
            for metric in GATED:
                if metric.name not in figures:
                    continue
                found_db = model.value(metric, stem)
                if not found_db >= figures[metric.name] - stored.tolerance_db:  # NaN too
                    falls.append(
                        Fall(
                            model=model.model,
                            stem=stem,
                            metric=metric,
                            stored_db=figures[metric.name],
                            found_db=found_db,
                        )
                    )
    return tuple(falls)


def _figures(model: ModelScores) -> dict[str, dict[str, float]]:
    return {
        stem: {
            metric.name: round(value, _DIGITS)
            for metric in GATED
            if math.isfinite(value := model.value(metric, stem))  # JSON has no others
        }
        for stem in model.stems
    }


def _songs(report: EvaluationReport) -> dict[str, float]:
    return {song.song: round(song.duration_s, _DIGITS) for song in report.models[0].songs}


def _check_songs(path: Path, stored: StoredFigures, songs: Mapping[str, float]) -> None:
    if stored.songs != songs:
        named = ", ".join(f"{name} ({length:.1f} s)" for name, length in stored.songs.items())
        raise RequestError(
            f"{path} is of other songs than these {len(songs)}: {named or 'none'}",
            hint="Evaluate the same dataset without --song, or use another file.",
            code="request.figures",
        )
