"""Progress of ``evaluate`` on stderr: one bar with time left on a terminal, a line per song and model elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import printable
from revithion_stems.units import format_bytes, format_duration

if TYPE_CHECKING:
    from revithion_stems.evaluation import EvaluationProgress
    from revithion_stems.events import JobEvent
    from revithion_stems.training.datasets.dataset_progress import DatasetProgress


class EvaluationDisplay:
    """Shows nothing. Methods are called on the thread that works, :meth:`cancelling` on the main one."""

    def opening(self, progress: DatasetProgress) -> None:
        """A song of the dataset was opened."""

    def measuring(self, progress: EvaluationProgress) -> None:
        """Takes how far it is."""

    def event(self, event: JobEvent) -> None:
        """Takes an event of a separation."""

    def cancelling(self) -> None:
        """Says that the work will stop."""


class EvaluationLines(EvaluationDisplay):
    """One line per thing worth knowing, for logs and pipes."""

    def __init__(self) -> None:
        self._shown: tuple[str, str] | None = None

    def opening(self, progress: DatasetProgress) -> None:
        """Prints what is odd about a song."""
        if progress.notice is not None:
            self.note(progress.notice)

    def measuring(self, progress: EvaluationProgress) -> None:
        """Prints each song once."""
        now = (progress.model, progress.song)
        if now != self._shown:
            self._shown = now
            left = "" if progress.remaining_s is None else f", {format_duration(progress.remaining_s)} left"
            self.note(f"{progress.fraction:4.0%} {progress.model}: {progress.song}{left}")

    def event(self, event: JobEvent) -> None:
        """Prints notices."""
        from revithion_stems.events import Notice

        if isinstance(event, Notice):
            self.note(event.message)

    def cancelling(self) -> None:
        """Says that the work will stop."""
        self.note("cancelling: the step that is running is finished first")

    def note(self, text: str) -> None:
        """Prints one line."""
        click.echo(printable(text), err=True)


class EvaluationBar(EvaluationLines):
    """A bar."""

    def __init__(self, progress: Any) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("", total=None, left="")

    def opening(self, progress: DatasetProgress) -> None:
        """Moves the bar."""
        super().opening(progress)
        self._progress.update(
            self._task, description=f"opening {printable(progress.song)}", completed=progress.done, total=progress.total
        )

    def measuring(self, progress: EvaluationProgress) -> None:
        """Moves the bar."""
        left = "" if progress.remaining_s is None else f"{format_duration(progress.remaining_s)} left"
        name = f"{printable(progress.model)}: {printable(progress.song)}"
        self._progress.update(self._task, description=name, completed=progress.fraction, total=1.0, left=left)

    def event(self, event: JobEvent) -> None:
        """Shows notices, and downloads in place of the time left."""
        from revithion_stems.events import DownloadProgress

        super().event(event)
        if isinstance(event, DownloadProgress):
            self._progress.update(self._task, left=f"pulling {event.file}: {format_bytes(event.done_bytes)}")

    def cancelling(self) -> None:
        """Says that the work will stop."""
        self._progress.update(self._task, left="cancelling")

    def note(self, text: str) -> None:
        """Prints one line above the bar."""
        self._progress.console.print(printable(text), style="dim", markup=False, highlight=False)


@contextlib.contextmanager
def open_evaluation_display(*, quiet: bool) -> Generator[EvaluationDisplay]:
    """The display that fits: a bar on a terminal, lines elsewhere, nothing if ``quiet``."""
    if quiet:
        yield EvaluationDisplay()
        return
    if not sys.stderr.isatty():
        yield EvaluationLines()
        return
    from revithion_stems.cli.progress import open_bars

    with open_bars() as progress:
        yield EvaluationBar(progress)
