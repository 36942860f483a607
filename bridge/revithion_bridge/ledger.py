"""The daemon's jobs on disk: what was promised to a client is there after a power cut.

One SQLite file. One thread owns the connection that writes; it takes all that waits for it and commits that in one
transaction, so a hundred clients wait for one flush of the disk instead of a hundred. Reads go through a connection of
their own and never wait for the disk to be flushed.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from revithion_bridge.errors import bridge_error
from revithion_bridge.ledger_file import error_of_write, open_ledger_file, transaction
from revithion_bridge.messages import Change, JobInfo
from revithion_stems.errors import unexpected_error
from revithion_stems.jobs import JobState

T = TypeVar("T")

KEEP_FINAL = 10_000
"""Jobs that ended and are still known, unless the caller says otherwise."""
_MOST_PER_COMMIT = 500
_FINAL = tuple(state.value for state in JobState if state.is_final)
_UNFINISHED = tuple(state.value for state in JobState if not state.is_final)


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """All that is kept of a job. Fields that are added later need defaults: older files lack them.

    Attributes:
        info: What everybody may see.
        idempotency_key: The client's own name for it, or None.
        digest: Of what was asked for, to tell whether a key is used for the same thing.
        preemptions: How often it gave way.
        losses: How often the process that computed it was lost.
        segment_s: Segment that it goes on with, after memory ran out, or None for what was asked for.
        cancel: Whether it was cancelled while it ran, and has not stopped yet.
        refreshed: Whether an attempt has begun to compute, so that the next one goes on with what that one left.
    """

    info: JobInfo
    idempotency_key: str | None
    digest: str
    preemptions: int = 0
    losses: int = 0
    segment_s: float | None = None
    cancel: bool = False
    refreshed: bool = False


@dataclass(frozen=True, slots=True)
class _Write:
    work: Callable[[sqlite3.Connection], Any]
    future: Future[Any]


class Ledger:
    """Jobs, their history and some settings in a file. All methods from any thread.

    Writing methods return at once; their future is done when the disk has it, in the order of the calls. It can't be
    cancelled: what was asked for is written, also if nobody waits for it any more. It fails with ``daemon.disk_full``
    where the disk doesn't take it, and then nothing of that call was written; the next one is tried all the same.
    Reading methods see all writes whose future is done.

    Args:
        path: The file; it and its folder are made, for this user only.

    Raises:
        DaemonError: ``daemon.ledger``: it is damaged, of a later version, or something else; here and when reading.
            ``daemon.disk_full``: there is no room to make it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._putting, self._reading = threading.Lock(), threading.Lock()
        self._closed = False
        self._commits = 0
        self._decoder = msgspec.json.Decoder(StoredJob)
        self._writer, self._reader = open_ledger_file(path)
        self._thread = threading.Thread(target=self._write_all, name="ledger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def commits(self) -> int:
        """Transactions so far."""
        return self._commits

    # --- writing ---

    def put(self, job: StoredJob, change: Change | None = None) -> Future[None]:
        """Writes a job, new or known, and a line of its history. Fails with ``job.key_reused`` where another job of
        the client has its key."""
        info = job.info
        finished_at = info.finished_at if info.state.is_final else None
        row = (
            info.id,
            info.client,
            job.idempotency_key,
            info.state.value,
            finished_at,
            msgspec.json.encode(job).decode(),
        )

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO jobs (id, client, key, state, finished_at, job) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET client = excluded.client, key = excluded.key, state = excluded.state, "
                "finished_at = excluded.finished_at, job = excluded.job",
                row,
            )
            if change is not None:
                connection.execute(
                    "INSERT INTO history (job, at, state, attempt, reason) "
                    "SELECT number, ?, ?, ?, ? FROM jobs WHERE id = ?",
                    (change.at, change.state.value, change.attempt, change.reason, info.id),
                )

        return self._submit(work)

    def delete(self, job_id: str) -> Future[bool]:
        """Forgets a job in whatever state, and its history; whether there was one."""
        return self._submit(lambda c: c.execute("DELETE FROM jobs WHERE id = ?", (job_id,)).rowcount > 0)

    def clear(self, finished_before: float, client: str | None = None) -> Future[list[str]]:
        """Forgets the jobs that ended until then (seconds since 1970), of one client or of all; gives their ids."""
        chosen = f"state IN {_marks(_FINAL)} AND COALESCE(finished_at, 0) <= ? AND (? IS NULL OR client = ?)"
        return self._submit(lambda c: _delete(c, chosen, (*_FINAL, finished_before, client, client)))

    def prune(self, keep: int = KEEP_FINAL) -> Future[list[str]]:
        """Forgets all jobs that ended but the ``keep`` that ended last; gives their ids."""
        ended = f"SELECT number FROM jobs WHERE state IN {_marks(_FINAL)}"
        chosen = f"number IN ({ended} ORDER BY finished_at DESC, number DESC LIMIT -1 OFFSET ?)"
        return self._submit(lambda c: _delete(c, chosen, (*_FINAL, max(keep, 0))))

    def set_meta(self, key: str, value: str) -> Future[None]:
        """Keeps a setting."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )

        return self._submit(work)

    # --- reading ---

    def get(self, job_id: str) -> StoredJob | None:
        """The job of an id."""
        return next(iter(self._jobs("WHERE id = ?", job_id)), None)

    def find_key(self, client: str, key: str) -> StoredJob | None:
        """The job of a client's idempotency key."""
        return next(iter(self._jobs("WHERE client = ? AND key = ?", client, key)), None)

    def page(
        self, states: Sequence[JobState] = (), client: str | None = None, limit: int = 100, before: str | None = None
    ) -> tuple[list[JobInfo], bool]:
        """At most ``limit`` jobs, newest first, and whether there are older ones; ``states`` empty means all.

        Raises:
            RequestError: ``job.unknown``: there is no job ``before`` (any more).
        """
        conditions, values = ["1"], list[Any]()
        if states:
            conditions.append(f"state IN {_marks(states)}")
            values += [state.value for state in states]
        if client is not None:
            conditions.append("client = ?")
            values.append(client)
        if before is not None:
            rows = self._read("SELECT number FROM jobs WHERE id = ?", before)
            if not rows:
                raise bridge_error("job.unknown", f"there is no job {before!r} to go on from")
            conditions.append("number < ?")
            values.append(rows[0][0])
        found = self._jobs(f"WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?", *values, limit + 1)
        return [job.info for job in found[:limit]], len(found) > limit

    def unfinished(self) -> list[StoredJob]:
        """All jobs that have not ended, oldest first."""
        return self._jobs(f"WHERE state IN {_marks(_UNFINISHED)} ORDER BY number", *_UNFINISHED)

    def history(self, job_id: str) -> tuple[Change, ...]:
        """The lines of a job's history, oldest first; none if there is no such job."""
        rows = self._read(
            "SELECT at, h.state, attempt, reason FROM history h JOIN jobs j ON h.job = j.number "
            "WHERE j.id = ? ORDER BY h.number",
            job_id,
        )
        return tuple(
            Change(at=at, state=JobState(state), attempt=attempt, reason=reason) for at, state, attempt, reason in rows
        )

    def counts(self) -> dict[str, int]:
        """State → number of jobs; every state is there."""
        rows = self._read("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        return {state.value: 0 for state in JobState} | dict(rows)

    def meta(self, key: str) -> str | None:
        """A setting, or None."""
        rows = self._read("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else None

    def close(self) -> None:
        """Writes what waits, then closes the file; closing twice is harmless."""
        with self._putting:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()
        with self._reading:
            self._reader.close()
            self._writer.close()

    # --- inside ---

    def _jobs(self, clause: str, *values: Any) -> list[StoredJob]:
        rows = self._read(f"SELECT job FROM jobs {clause}", *values)
        try:
            return [self._decoder.decode(row[0]) for row in rows]
        except msgspec.MsgspecError as exc:
            raise bridge_error("daemon.ledger", f"{self.path} has a job that can't be read: {exc}") from exc

    def _read(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            with self._reading:
                return self._reader.execute(statement, values).fetchall()
        except sqlite3.Error as exc:
            raise bridge_error("daemon.ledger", f"can't read {self.path}: {exc}") from exc

    def _submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # asyncio cancels it with whoever waits, and another one may wait too
        with self._putting:
            if not self._closed:
                self._queue.put(_Write(work, future))
                return future
        future.set_exception(bridge_error("daemon.stopping", f"{self.path} is closed"))
        return future

    def _write_all(self) -> None:
        ended = False
        while not ended:
            batch = [self._queue.get()]
            with contextlib.suppress(Empty):
                while len(batch) < _MOST_PER_COMMIT:
                    batch.append(self._queue.get_nowait())
            ended = None in batch  # nothing comes after that
            self._commit([write for write in batch if write is not None])

    def _commit(self, batch: list[_Write]) -> None:
        """Writes a batch in one transaction, or each alone if that fails: one's fault is not another's."""
        if not batch:
            return
        try:
            with transaction(self._writer):
                results = [write.work(self._writer) for write in batch]
        except Exception as exc:  # noqa: BLE001 - whoever waits gets it
            if len(batch) == 1:
                error = error_of_write(self.path, exc) if isinstance(exc, sqlite3.Error) else unexpected_error(exc)
                error.__cause__ = exc
                batch[0].future.set_exception(error)
                return
            for write in batch:
                self._commit([write])
            return
        self._commits += 1
        for write, result in zip(batch, results, strict=True):
            write.future.set_result(result)


def _delete(connection: sqlite3.Connection, condition: str, values: Sequence[Any]) -> list[str]:
    chosen = [row[0] for row in connection.execute(f"SELECT id FROM jobs WHERE {condition} ORDER BY number", values)]
    connection.execute(f"DELETE FROM jobs WHERE {condition}", values)
    return chosen


def _marks(values: Sequence[Any]) -> str:
    return f"({', '.join('?' * len(values))})"
