"""Jobs as the commands print them: JSON lines, a table, all facts of one."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import print_json, printable
from revithion_stems.jobs import JobState

if TYPE_CHECKING:
    from revithion_bridge.messages import Change, JobInfo


def print_job_json(job: JobInfo, **more: Any) -> None:
    """Prints a job as one line of JSON, with ``"type": "Job"``."""
    import msgspec

    print_json({"type": "Job", **msgspec.to_builtins(job), **more})


def print_table(jobs: Iterable[JobInfo]) -> None:
    """Prints a row per job on stdout; nothing if there are none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("id", "state", "priority"):
        table.add_column(name, no_wrap=True)
    for name in ("done", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source", overflow="fold")
    table.add_column("error", overflow="fold")
    for job in jobs:
        error = "" if job.error is None or job.state is JobState.CANCELLED else f"{job.error.code}: {job.error.message}"
        cells = (job.id, state_text(job), job.priority.value, _part(job), _age(job), job.parameters.source, error)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if table.row_count:
        # Without a terminal nothing is folded: lines stay whole for grep.
        Console(width=None if sys.stdout.isatty() else 10_000, highlight=False).print(table)


def print_job(job: JobInfo, history: Sequence[Change]) -> None:
    """Prints all that people may want to know of a job."""
    from revithion_stems.units import format_duration

    def line(label: str, text: str) -> None:
        click.echo(f"{label:<10}{printable(text)}")

    line("id", job.id)
    line("state", state_text(job) + (f", {_part(job)}" if not job.state.is_final and job.total else ""))
    if job.remaining_s is not None and not job.state.is_final:
        line("left", format_duration(job.remaining_s))
    line("source", job.parameters.source)
    line("folder", job.parameters.folder)
    line("model", job.parameters.model)
    line("priority", f"{job.priority.value}, of client {job.client}")
    if job.retry_of is not None:
        line("repeats", job.retry_of)
    if job.summary is not None:
        line("result", f"{job.summary['model']} ({job.summary['engine']}, {job.summary['device']})")
        line("length", format_duration(job.summary["duration_s"]))
    for stem in job.stems:
        line("stem", str(stem["path"]))
    if job.error is not None:
        line("error", f"{job.error.code}: {job.error.message}")
        line("hint", job.error.hint)
    for change in history:
        at = datetime.datetime.fromtimestamp(change.at, datetime.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        attempt = f", attempt {change.attempt}" if change.attempt else ""
        reason = f" ({change.reason})" if change.reason else ""
        line("history", f"{at}  {change.state.value}{attempt}{reason}")


def state_text(job: JobInfo) -> str:
    """Its state in a word."""
    return "cancelling" if job.cancelling and not job.state.is_final else job.state.value


def _part(job: JobInfo) -> str:
    if job.state is JobState.DONE:
        return "100 %"
    return f"{100 * job.done // job.total} %" if job.total else ""


def _age(job: JobInfo) -> str:
    from revithion_stems.units import format_duration

    return format_duration(max(0.0, time.time() - job.created_at))
