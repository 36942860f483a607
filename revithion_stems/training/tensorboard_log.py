"""Scalars of a run as TensorBoard's event files, beside the ``log.jsonl`` that is always written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from revithion_stems.errors import EngineError
from revithion_stems.training.train_events import StepDone, TrainEvent, ValidationDone

FOLDER = "tensorboard"
"""Below the run's folder."""


class TensorboardLog:
    """Writes scalars by step. One thread at a time.

    Args:
        run_folder: Of the run; the files go to :data:`FOLDER` in it. A run that goes on gets one file more, which hides
            what older ones say of the steps that are done again.

    Raises:
        EngineError: ``engine.missing``: TensorBoard is not installed.
    """

    def __init__(self, run_folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            raise EngineError(
                f"TensorBoard can't be loaded: {exc}",
                hint="Run `pip install 'revithion-stems[train]'`, or go without --tensorboard: log.jsonl has the same.",
                code="engine.missing",
            ) from exc
        self._folder = run_folder / FOLDER
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def show(self, event: TrainEvent) -> None:
        """Notes the figures of an event, each under a name such as ``loss/sdr``; other events are passed over."""
        match event:
            case StepDone():
                figures = {f"loss/{name}": value for name, value in event.losses.items()}
                self._add(
                    event.step, {**figures, "learning_rate": event.learning_rate, "gradient_norm": event.gradient_norm}
                )
            case ValidationDone():
                self._add(event.step, {f"sdr_db/{name}": value for name, value in event.sdr_db.items()})
                self._add(event.step, {"sdr_db/mean": event.mean})
            case _:
                pass

    def _add(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._writer is None:  # only the first step tells where the run goes on
            self._writer = self._make(str(self._folder), purge_step=step)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what waits."""
        if self._writer is not None:
            self._writer.close()
