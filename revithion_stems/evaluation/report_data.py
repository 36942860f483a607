"""An evaluation as plain data, for ``--json`` and ``evaluation.json``."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec

from revithion_stems.evaluation.scores import EvaluationReport, ModelScores, StemScores


def report_as_dict(report: EvaluationReport) -> dict[str, Any]:
    """The report with its averages; figures that were not asked for are left out, those not defined are NaN."""
    return {
        "type": "Evaluation",
        "dataset": report.dataset,
        "version": report.version,
        "groups": sorted(group.value for group in report.groups),
        "metrics": [
            {
                "name": metric.name,
                "label": metric.label,
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
                "over_songs": "median" if metric.median else "mean",
            }
            for metric in report.metrics
        ],
        "models": [_model(report, model) for model in report.models],
        "peak_memory_mib": report.peak_memory_mib,
    }


def report_as_json(report: EvaluationReport) -> bytes:
    """The same as JSON in UTF-8, indented; NaN and infinities are null."""
    return msgspec.json.format(msgspec.json.encode(report_as_dict(report)), indent=1) + b"\n"


def _model(report: EvaluationReport, model: ModelScores) -> dict[str, Any]:
    return {
        "model": model.model,
        "kind": model.kind.value,
        "speed": model.speed,
        "mean": {metric.name: model.value(metric) for metric in report.metrics},
        "stems": {stem: {metric.name: model.value(metric, stem) for metric in report.metrics} for stem in model.stems},
        "songs": [
            {
                "song": song.song,
                "duration_s": song.duration_s,
                "elapsed_s": song.elapsed_s,
                "speed": song.speed,
                "null_db": song.null_db,
                "stems": [_stem(report, stem) for stem in song.stems],
            }
            for song in model.songs
        ],
    }


def _stem(report: EvaluationReport, stem: StemScores) -> dict[str, Any]:
    known = {"stem", "reference_dbfs", "estimate_dbfs", "windows", *(metric.name for metric in report.metrics)}
    return {
        **{name: value for name, value in dataclasses.asdict(stem).items() if name in known},
        "silent_reference": stem.reference_dbfs == -math.inf,
    }
