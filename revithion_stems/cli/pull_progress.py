"""How a download looks: JSON lines for scripts, a bar with rate and time left on a terminal, else a line per file."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

from revithion_stems.cli.console import print_json, printable
from revithion_stems.cli.progress import LineDisplay
from revithion_stems.events import DownloadProgress, EventCallback, JobEvent, Notice, event_as_dict


@contextmanager
def pull_reporter(*, json_mode: bool) -> Generator[EventCallback, None, None]:
    """The callback that shows the events of a pull, as long as the context lasts.

    Called on the thread that pulls. People's lines and bars go to stderr, JSON lines to stdout.
    """
    if json_mode:
        yield lambda event: print_json(event_as_dict(event))
    elif sys.stderr.isatty():
        with _bars() as callback:
            yield callback
    else:
        yield LineDisplay().show


@contextmanager
def _bars() -> Generator[EventCallback, None, None]:
    # Imported here: rich takes longer to load than most commands to run.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    tasks: dict[tuple[str, str], TaskID] = {}
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:

        def show(event: JobEvent) -> None:
            if isinstance(event, Notice):
                for task in tasks.values():
                    progress.remove_task(task)
                tasks.clear()
                console.print(printable(event.message), markup=False, soft_wrap=True)
            elif isinstance(event, DownloadProgress):
                key = (event.file, event.source)
                if key not in tasks:
                    tasks[key] = progress.add_task(event.file, total=None)
                progress.update(tasks[key], completed=event.done_bytes, total=event.total_bytes)

        yield show
