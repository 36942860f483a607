"""How a training run looks: JSON lines for scripts, a bar with loss, quality and time left on a terminal, or lines."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator
from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import print_json, printable
from revithion_stems.training.datasets.dataset_progress import DatasetProgress
from revithion_stems.training.run_log import event_as_dict
from revithion_stems.training.train_events import StepDone, TrainEvent, ValidationDone
from revithion_stems.units import format_duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_LINE_EVERY_S = 30.0


class QuietTrainDisplay:
    """Shows nothing; the command itself reports the end."""

    def show(self, event: TrainEvent) -> None:
        """Takes an event; the training's thread."""

    def cancelling(self) -> None:
        """Says that the work will stop; main thread."""


class JsonTrainDisplay(QuietTrainDisplay):
    """A JSON line per event, on stdout."""

    def show(self, event: TrainEvent) -> None:
        """Prints it."""
        print_json(event_as_dict(event))


class LineTrainDisplay(QuietTrainDisplay):
    """A line per validation, and one every half minute, for logs and pipes; on stderr."""

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, event: TrainEvent) -> None:
        """Prints what is worth a line."""
        match event:
            case StepDone():
                if time.monotonic() >= self._next:
                    self._next = time.monotonic() + _LINE_EVERY_S
                    self._say(f"step {event.step} of {event.steps}: {losses_text(event)}, {left_text(event)}")
            case ValidationDone():
                self._say(validation_text(event))
            case DatasetProgress():
                self._dataset(event)
            case _:
                pass

    def cancelling(self) -> None:
        """Says that the work will stop."""
        self._say("stopping after this step, and saving")

    def _dataset(self, event: DatasetProgress) -> None:
        if event.notice is not None:
            self._say(f"{event.dataset}: {event.song}: {event.notice}")
        if event.done == event.total:
            self._say(f"{event.dataset}: {event.total} song{'s' * (event.total != 1)}")

    def _say(self, text: str) -> None:
        click.echo(printable(text), err=True)


class BarTrainDisplay(LineTrainDisplay):
    """A bar, and above it a line per validation."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self._progress = progress
        self._task: TaskID = progress.add_task("preparing", total=None, left="")
        self._quality = ""

    def show(self, event: TrainEvent) -> None:
        """Moves the bar."""
        match event:
            case StepDone():
                left = ", ".join(text for text in (losses_text(event), self._quality, left_text(event)) if text)
                text = f"step {event.step} of {event.steps}"
                self._progress.update(self._task, description=text, completed=event.step, total=event.steps, left=left)
            case ValidationDone():
                self._quality = f"SDR {event.mean:.2f} dB" + ("" if event.best else " (not the best)")
                self._say(validation_text(event))
            case DatasetProgress():
                self._dataset(event)
                text = f"reading {printable(event.dataset)}"
                self._progress.update(self._task, description=text, completed=event.done, total=event.total)
            case _:
                pass

    def _say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def losses_text(event: StepDone) -> str:
    """The loss of a step and, of several, its parts, for people."""
    shown = {"loss": event.losses["total"], **{name: value for name, value in event.losses.items() if name != "total"}}
    return ", ".join(f"{name} {value:.3f}" for name, value in shown.items() if name == "loss" or len(shown) > 2)


def left_text(event: StepDone) -> str:
    """The time left, for people; empty where it isn't known."""
    return "" if event.seconds_left is None else f"{format_duration(event.seconds_left)} left"


def validation_text(event: ValidationDone) -> str:
    """A validation, for people."""
    stems = ", ".join(f"{stem} {value:.2f}" for stem, value in event.sdr_db.items())
    return f"step {event.step}: SDR {event.mean:.2f} dB ({stems})" + (", the best so far" if event.best else "")


@contextlib.contextmanager
def open_train_display(*, json_mode: bool, quiet: bool) -> Generator[QuietTrainDisplay]:
    """The display that fits."""
    if json_mode:
        yield JsonTrainDisplay()
    elif quiet:
        yield QuietTrainDisplay()
    elif not sys.stderr.isatty():
        yield LineTrainDisplay()
    else:
        from revithion_stems.cli.progress import open_bars

        with open_bars() as progress:
            yield BarTrainDisplay(progress)
