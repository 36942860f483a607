"""What a job leaves on disk while it runs: a lock, its journal, and the list of its temporary files.

A process that is killed leaves the folder; the next one that does the same job removes the temporary files that it
lists and goes on from its journal.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from revithion_stems.journal import SegmentJournal

_LOCK = "lock"
_POLL_S = 0.1


@contextlib.contextmanager
def hold_work(folder: Path, *, on_wait: Callable[[], None], check: Callable[[], None]) -> Generator[Work]:
    """The work folder of a job, made if needed and held by one process (or thread of a batch) at a time.

    Args:
        folder: Of this job alone.
        on_wait: Called once if somebody else holds it.
        check: Called while waiting; raising from it ends the wait.

    Raises:
        OSError: The folder can't be made or locked.
    """
    # Not by thread: a batch takes it and gives it back on different ones.
    lock = FileLock(folder / _LOCK, thread_local=False, mode=0o600)
    waiting = False
    while True:
        check()
        folder.mkdir(parents=True, exist_ok=True)  # who held it may have taken it away
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not waiting:
                on_wait()
                waiting = True
            time.sleep(_POLL_S)
        else:
            break
    work = Work(folder)
    try:
        yield work
    finally:
        work.close(lock)


def discard_work(folder: Path) -> None:
    """Removes the folder and what it lists, unless somebody is at it."""
    if not folder.is_dir():
        return
    lock = FileLock(folder / _LOCK, thread_local=False, mode=0o600)
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
        work = Work(folder)
        work.finish()
        work.close(lock)


class Work:
    """The folder of one job, while this process holds it. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._done = False
        self._list: IO[str] | None = None
        _remove_listed(folder)

    def journal(self, *, fresh: bool) -> SegmentJournal:
        """The job's journal; ``fresh`` forgets what it held."""
        path = self._folder / "segments"
        if fresh:
            path.unlink(missing_ok=True)
        return SegmentJournal(path)

    def drop_journal(self) -> None:
        """Removes the journal, for the room that it takes."""
        with contextlib.suppress(OSError):
            (self._folder / "segments").unlink(missing_ok=True)

    def note_temporary(self, path: Path) -> None:
        """Remembers a file or a folder that is about to be made: if this process is killed, the next one removes it."""
        if self._list is None:
            self._list = (self._folder / "temporary").open("a", encoding="utf-8")
        self._list.write(json.dumps(str(path.absolute())) + "\n")
        self._list.flush()

    def finish(self) -> None:
        """The job is done: nothing here is needed again."""
        self._done = True

    def close(self, lock: FileLock) -> None:
        """Gives the folder back, or away if the job is done."""
        if self._list is not None:
            self._list.close()
        if self._done:
            _empty(self._folder)
            with contextlib.suppress(OSError):  # Windows keeps the name of an open file
                (self._folder / _LOCK).unlink()
        lock.release()
        if self._done:
            with contextlib.suppress(OSError):
                self._folder.rmdir()


def _remove_listed(folder: Path) -> None:
    """Removes the temporary files, and then the empty folders, that a killed process left."""
    path = folder / "temporary"
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8").splitlines()
        for listed in reversed(list(_parsed(lines))):
            with contextlib.suppress(OSError):
                if listed.is_dir():
                    listed.rmdir()
                elif listed.name.startswith(".") and listed.suffix == ".part":
                    listed.unlink(missing_ok=True)
        path.unlink()


def _parsed(lines: Iterable[str]) -> Iterator[Path]:
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):  # the last line may be cut short
            yield Path(json.loads(line))


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _LOCK:
            with contextlib.suppress(OSError):
                path.unlink()
