"""How good separations are: figures per song and stem of models, floors and ceilings on songs whose stems are known.

    songs = open_folder(Path("test_songs"), ...)           # revithion_stems.training.datasets
    models = open_estimators(["htdemucs", "mix"], store=ModelStore())
    report = evaluate(songs, models, dataset="test songs")
    report.models[0].value(METRICS[0], "vocals")

``docs/evaluation.md`` defines the figures. What needs a package of the extra ``train`` (museval, matplotlib) imports it
when it is used.
"""

from revithion_stems.evaluation.estimators import Estimate, Estimator, open_estimators
from revithion_stems.evaluation.evaluator import EvaluationProgress, evaluate
from revithion_stems.evaluation.scores import (
    METRICS,
    EstimatorKind,
    EvaluationReport,
    Metric,
    MetricGroup,
    ModelScores,
    SongScores,
    StemScores,
)

__all__ = [
    "METRICS",
    "Estimate",
    "Estimator",
    "EstimatorKind",
    "EvaluationProgress",
    "EvaluationReport",
    "Metric",
    "MetricGroup",
    "ModelScores",
    "SongScores",
    "StemScores",
    "evaluate",
    "open_estimators",
]
