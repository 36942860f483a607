"""A batch for people: what is in work on stderr, and a table of all files in the end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any

import click

from revithion_stems.batch_items import BatchResult, BatchSummary, Outcome
from revithion_stems.cli.console import printable
from revithion_stems.events import DownloadProgress, JobChanged, JobEvent, JobProgress, Notice
from revithion_stems.jobs import JobState
from revithion_stems.units import format_db, format_duration

MAX_ROWS = 1000
"""A table of more files than this shows those that failed."""

_MAX_BARS = 16
_WORDS = {JobState.LOADING: "preparing", JobState.SEPARATING: "separating", JobState.WRITING: "writing"}


class QuietBatchDisplay:
    """Shows nothing; errors are reported by the command itself. Methods are called one at a time, on any thread."""

    def show(self, event: JobEvent) -> None:
        """Takes an event."""

    def finish(self, result: BatchResult) -> None:
        """Takes the end of a file."""

    def cancelling(self) -> None:
        """Says that the work will stop; main thread, at any time."""

    def pause(self, action: Callable[[], None]) -> None:
        """Runs ``action``, which prints, where bars can't overwrite it."""
        action()


class LineBatchDisplay(QuietBatchDisplay):
    """A line per file and per notice, for logs and pipes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0
        self._names: dict[str, str] = {}
        self._said: set[str] = set()

    def show(self, event: JobEvent) -> None:
        """Prints notices; those about models are the same for all files and are printed once."""
        if isinstance(event, JobChanged):
            self._names[event.job_id] = _short_name(event.source)
            if event.state.is_final:
                del self._names[event.job_id]
        elif isinstance(event, Notice):
            if not event.code.startswith("model."):
                self._print(f"{self._names.get(event.job_id, '')}: {printable(event.message)}")
            elif event.message not in self._said:
                self._said.add(event.message)
                self._print(printable(event.message))

    def finish(self, result: BatchResult) -> None:
        """Says how a file ended, but for those that a cancelled batch did not come to."""
        self._ended += 1
        if result.outcome is Outcome.CANCELLED:
            return
        parts = [f"{self._ended}/{self._total} {result.outcome.value}: {printable(result.item.source)}"]
        if result.outcome is Outcome.DONE:
            parts.append(f"{format_duration(result.duration_s)} of audio in {format_duration(result.elapsed_s)}")
        self._print(" · ".join(parts))

    def cancelling(self) -> None:
        """Says that the work will stop."""
        self._print("cancelling: the segment that is running is finished first")

    def _print(self, text: str) -> None:
        click.echo(text, err=True)


class BarBatchDisplay(LineBatchDisplay):
    """A bar over all files, and one for each file in work."""

    def __init__(self, progress: Any, total: int) -> None:
        super().__init__(total)
        self._progress = progress
        self._started = time.monotonic()
        self._counts: Counter[Outcome] = Counter()
        self._audio_s = 0.0
        self._overall = progress.add_task("", total=float(total), left="")
        self._bars: dict[str, Any] = {}
        self._parts: dict[str, float] = {}
        self._cancelling = False
        self._update()

    def show(self, event: JobEvent) -> None:
        """Moves the bars."""
        super().show(event)
        match event:
            case JobChanged(job_id=job, state=state):
                self._change(job, state)
            case JobProgress(job_id=job, done=done, total=total, remaining_s=remaining_s) if job in self._bars:
                left = "" if remaining_s is None else f"{format_duration(remaining_s)} left"
                self._parts[job] = done / max(1, total)
                self._progress.update(self._bars[job], completed=done, total=total, left=left)
                self._update()
            case DownloadProgress(job_id=job, file=file, done_bytes=done, total_bytes=total) if job in self._bars:
                self._progress.update(self._bars[job], description=f"pulling {file}", completed=done, total=total)
            case _:
                pass

    def finish(self, result: BatchResult) -> None:
        """Counts the file."""
        self._counts[result.outcome] += 1
        if result.outcome is Outcome.DONE:
            self._audio_s += result.duration_s
        self._update()

    def cancelling(self) -> None:
        """Says that the work will stop."""
        self._cancelling = True
        self._update()

    def pause(self, action: Callable[[], None]) -> None:
        """Hides the bars while ``action`` prints."""
        self._progress.stop()
        try:
            action()
        finally:
            self._progress.start()

    def _print(self, text: str) -> None:
        self._progress.console.print(text, style="dim", markup=False, highlight=False)

    def _change(self, job: str, state: JobState) -> None:
        if state.is_final:
            self._parts.pop(job, None)
            if job in self._bars:
                self._progress.remove_task(self._bars.pop(job))
        elif job not in self._bars:
            self._bars[job] = self._progress.add_task("", total=None, left="", visible=len(self._bars) < _MAX_BARS)
        if state in _WORDS:
            self._progress.update(self._bars[job], description=f"  {_WORDS[state]} {self._names[job]}", left="")

    def _update(self) -> None:
        counts = ", ".join(f"{self._counts[outcome]} {outcome.value}" for outcome in Outcome if self._counts[outcome])
        elapsed_s = time.monotonic() - self._started
        facts = [_rate(self._audio_s, elapsed_s)] if self._audio_s else []
        ended = sum(self._counts.values())
        # What the cache had took no time: the rest is reckoned by what was worked on.
        worked = ended - self._counts[Outcome.CACHED] + sum(self._parts.values())
        if self._cancelling:
            facts = ["cancelling after this segment"]
        elif worked > 0:
            facts.append(f"{format_duration(elapsed_s / worked * (self._total - ended))} left")
        self._progress.update(
            self._overall,
            description=f"{self._total} files" + (f": {counts}" if counts else ""),
            completed=ended + sum(self._parts.values()),
            left=" · ".join(facts),
        )


@contextlib.contextmanager
def open_batch_display(total: int, *, quiet: bool) -> Generator[QuietBatchDisplay]:
    """The display that fits: bars on a terminal, lines elsewhere, nothing if ``quiet``."""
    if quiet:
        yield QuietBatchDisplay()
        return
    if not sys.stderr.isatty():
        yield LineBatchDisplay(total)
        return
    from revithion_stems.cli.progress import open_bars

    with open_bars() as progress:
        yield BarBatchDisplay(progress, total)


def print_results(results: Sequence[BatchResult], summary: BatchSummary) -> None:
    """Prints a table with a row per file on stdout, and a line with the sums."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = results if len(results) <= MAX_ROWS else [r for r in results if r.outcome is Outcome.FAILED]
    table = Table(box=None, pad_edge=False)
    for name in ("file", "result", "model"):
        table.add_column(name, overflow="fold")
    for name in ("length", "time", "null"):
        table.add_column(name, justify="right")
    table.add_column("error", overflow="fold")
    for result in rows:
        done = result.outcome in (Outcome.DONE, Outcome.CACHED)
        error = result.error if result.outcome is Outcome.FAILED else None
        cells = (
            result.item.source,
            result.outcome.value,
            result.model or "",
            format_duration(result.duration_s) if done else "",
            format_duration(result.elapsed_s) if done else "",
            _null(result),
            f"{error['code']}: {error['message']}" if error else "",
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    # Without a terminal nothing is folded: lines stay whole for grep.
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
    if rows:
        console.print(table)
    if len(rows) < len(results):
        console.print(f"(only what failed is shown of more than {MAX_ROWS} files)")
    click.echo(_totals(summary))


def _short_name(source: str) -> str:
    return printable(source.replace("\\", "/").rsplit("/", 1)[-1])


def _rate(audio_s: float, elapsed_s: float) -> str:
    return f"{audio_s / elapsed_s:.2f} × real time"


def _null(result: BatchResult) -> str:
    if result.exact:
        return "exact"
    return "" if result.null_db is None else format_db(result.null_db)


def _totals(summary: BatchSummary) -> str:
    counts = [
        f"{count} {word}"
        for count, word in (
            (summary.done, "done"),
            (summary.cached, "cached"),
            (summary.failed, "failed"),
            (summary.cancelled, "cancelled"),
        )
        if count
    ]
    text = f"{summary.files} file{'' if summary.files == 1 else 's'}: {', '.join(counts)}"
    if summary.audio_s:
        took = f"{format_duration(summary.audio_s)} of audio in {format_duration(summary.elapsed_s)}"
        text += f" · {took}, {_rate(summary.audio_s, summary.elapsed_s)}"
    return text
