"""Progress for people, on stderr: bars with time left on a terminal, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import printable
from revithion_stems.events import DownloadProgress, JobChanged, JobEvent, JobProgress, Notice
from revithion_stems.jobs import JobState
from revithion_stems.units import format_bytes, format_duration

if TYPE_CHECKING:
    from rich.progress import Progress

    from revithion_stems.requests import SeparationRequest


class QuietDisplay:
    """Shows nothing; errors are reported by the command itself."""

    def show(self, event: JobEvent) -> None:
        """Takes an event; any thread."""

    def cancelling(self) -> None:
        """Says that the work will stop."""

    def pause(self, action: Callable[[], None]) -> None:
        """Runs ``action``, which prints, where bars can't overwrite it."""
        action()


class LineDisplay(QuietDisplay):
    """One line per thing worth knowing, for logs and pipes."""

    def show(self, event: JobEvent) -> None:
        """Prints notices."""
        if isinstance(event, Notice):
            click.echo(printable(event.message), err=True)

    def cancelling(self) -> None:
        """Says that the work will stop."""
        click.echo("cancelling: the segment that is running is finished first", err=True)


class BarDisplay(LineDisplay):
    """A bar for the file in work and, with several files, one over all of them."""

    def __init__(self, progress: Any, requests: Sequence[SeparationRequest]) -> None:
        self._progress = progress
        self._count = len(requests)
        self._index = 0
        self._overall = progress.add_task("all files", total=float(self._count), left="") if self._count > 1 else None
        self._task = progress.add_task("", total=None, left="")
        self._elapsed_s = 0.0

    def show(self, event: JobEvent) -> None:
        """Moves the bars."""
        match event:
            case JobChanged(state=state):
                self._changed(event, state)
            case JobProgress(done=done, total=total, remaining_s=remaining_s):
                left = "" if remaining_s is None else f"{format_duration(remaining_s)} left"
                self._progress.update(self._task, completed=done, total=total, left=left)
                self._update_overall(done / max(1, total))
            case DownloadProgress(file=file, done_bytes=done, total_bytes=total):
                size = format_bytes(done) + (f" of {format_bytes(total)}" if total else "")
                self._progress.update(self._task, description=f"pulling {file}", completed=done, total=total, left=size)
            case Notice(message=message):
                self._progress.console.print(printable(message), style="dim", markup=False, highlight=False)
            case _:
                pass

    def cancelling(self) -> None:
        """Says that the work will stop."""
        self._progress.update(self._task, left="cancelling after this segment")

    def pause(self, action: Callable[[], None]) -> None:
        """Hides the bars while ``action`` prints."""
        self._progress.stop()
        try:
            action()
        finally:
            if self._index < self._count:
                self._progress.start()

    def _changed(self, event: JobChanged, state: JobState) -> None:
        words = {JobState.LOADING: "loading", JobState.SEPARATING: "separating", JobState.WRITING: "writing"}
        name = printable(event.source.replace("\\", "/").rsplit("/", 1)[-1])
        if state in words:
            self._progress.update(self._task, description=f"{words[state]} {name}")
        elif state.is_final:
            self._index += 1
            self._update_overall(0.0)
            self._progress.reset(self._task, total=None, description="", left="")

    def _update_overall(self, part: float) -> None:
        if self._overall is None:
            return
        done = self._index + part
        elapsed_s = self._progress.tasks[0].elapsed or 0.0
        left = f"{format_duration(elapsed_s / done * (self._count - done))} left" if done > 0 else ""
        self._progress.update(self._overall, completed=done, left=left)


@contextlib.contextmanager
def open_display(requests: Sequence[SeparationRequest], *, quiet: bool) -> Generator[QuietDisplay]:
    """The display that fits: bars on a terminal, lines elsewhere, nothing if ``quiet``."""
    if quiet:
        yield QuietDisplay()
        return
    if not sys.stderr.isatty():
        yield LineDisplay()
        return
    with open_bars() as progress:
        yield BarDisplay(progress, requests)


def open_bars() -> Progress:
    """Bars on stderr that vanish in the end; each has the text ``left`` behind it. A context manager."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
        transient=True,
    )
