"""What happens while a network is trained, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from revithion_stems.training.datasets.dataset_progress import DatasetProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """The optimiser has moved once.

    Attributes:
        step: How often it has, since the training began.
        steps: How often it will have.
        losses: Each loss without its weight, and ``total`` with them.
        learning_rate: Of this step.
        gradient_norm: Before clipping.
        seconds_left: Estimate, of work; None while nothing is known.
    """

    step: int
    steps: int
    losses: Mapping[str, float]
    learning_rate: float
    gradient_norm: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationDone:
    """The network was tried on songs that it does not learn from.

    Attributes:
        step: After which.
        sdr_db: Stem → SDR over the whole song, mean over the songs where the stem is heard.
        mean: Of the stems, in dB.
        best: Whether none before was better.
        songs: Song → stem → SDR.
    """

    step: int
    sdr_db: Mapping[str, float]
    mean: float
    best: bool
    songs: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """The training can go on from here.

    Attributes:
        step: That it goes on after.
        path: The file.
    """

    step: int
    path: Path


TrainEvent: TypeAlias = DatasetProgress | StepDone | ValidationDone | CheckpointSaved
TrainEventCallback: TypeAlias = Callable[[TrainEvent], None]
