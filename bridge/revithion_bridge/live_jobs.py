"""The jobs that have not ended: their state in memory, in the ledger, and as events, always in step."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import msgspec

from revithion_bridge.event_hub import EventHub, Parent
from revithion_bridge.ledger import Ledger, StoredJob
from revithion_bridge.messages import Change, ErrorInfo, JobInfo
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged, JobEvent, Notice
from revithion_stems.jobs import Job, JobState

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class LiveJob:
    """A job that has not ended.

    Attributes:
        stored: What the ledger has of it, or will have in a moment.
        parent: The request that it came from; None after a restart.
        over: Set when it has ended and everybody may know.
        stop: Why its worker was told to stop: ``cancel``, ``preempt``, ``shutdown``; empty if it was not.
        waiting_since: When it came into the queue, on the monotonic clock.
        started: When its attempt started, on the monotonic clock.
        memory_since: Since when it waits for memory, on the monotonic clock, or None.
        segments_seen: Whether a network run of this attempt is done.
        admission: Its submission on the way to the disk.
    """

    stored: StoredJob
    parent: Parent | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stop: str = ""
    waiting_since: float = field(default_factory=time.monotonic)
    started: float = 0.0
    memory_since: float | None = None
    segments_seen: bool = False
    admission: Future[None] | None = None

    @property
    def info(self) -> JobInfo:
        """What everybody may see."""
        return self.stored.info

    def update(self, **changes: Any) -> None:
        """Changes fields of :attr:`info`."""
        self.stored = msgspec.structs.replace(self.stored, info=msgspec.structs.replace(self.info, **changes))

    def note(self, **changes: Any) -> None:
        """Changes what only the ledger knows."""
        self.stored = msgspec.structs.replace(self.stored, **changes)


class LiveJobs:
    """All jobs that have not ended; on the daemon's loop.

    A change goes to the ledger at once, and on to the next one without waiting. Only an end is told after the disk has
    it: whoever saw a job end never sees it run again, whatever happens to this process. A disk that is full does not
    stop running jobs: what could not be written is tried again each second.
    """

    def __init__(self, ledger: Ledger, hub: EventHub) -> None:
        self.ledger = ledger
        self._hub = hub
        self._jobs: dict[str, LiveJob] = {}
        self._unwritten: dict[str, tuple[LiveJob, list[Change]]] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._jobs)

    def get(self, job_id: str) -> LiveJob | None:
        """The job, if it has not ended."""
        return self._jobs.get(job_id)

    def all(self) -> list[LiveJob]:
        """All of them, oldest first."""
        return list(self._jobs.values())

    def find_key(self, client: str, key: str) -> LiveJob | None:
        """The job of an idempotency key."""
        mine = (job for job in self._jobs.values() if job.info.client == client)
        return next((job for job in mine if job.stored.idempotency_key == key), None)

    def add(self, job: LiveJob) -> None:
        """Takes in a job that the ledger has, or is about to have."""
        self._jobs[job.info.id] = job

    def forget(self, job: LiveJob) -> None:
        """Takes out a job that could not be written down."""
        self._jobs.pop(job.info.id, None)

    def emit(self, job: LiveJob, event: JobEvent) -> None:
        """Publishes an event of a job."""
        job.update(last_seq=self._hub.publish(event, job.parent).seq)

    def notice(self, job: LiveJob, code: str, message: str) -> None:
        """Publishes one line for people."""
        self.emit(job, Notice(job_id=job.info.id, seq=0, code=code, message=message))

    def write(self, job: LiveJob, change: Change | None = None) -> Future[None]:
        """Writes a job down; what fails is tried again by :meth:`retry_writes`, as the job then stands."""
        loop = asyncio.get_running_loop()
        future = self.ledger.put(job.stored, change)

        def failed() -> None:
            _LOG.error("the ledger can't be written; trying again", extra={"job": job.info.id})
            _, changes = self._unwritten.setdefault(job.info.id, (job, []))
            changes.extend([change] if change is not None else [])

        def look(done: Future[None]) -> None:
            if done.exception() is not None:
                loop.call_soon_threadsafe(failed)

        future.add_done_callback(look)
        return future

    async def retry_writes(self) -> None:
        """Tries again what could not be written, one job after the other until one fails."""
        for job_id, (job, changes) in list(self._unwritten.items()):
            try:
                for change in [*changes] or [None]:
                    await asyncio.wrap_future(self.ledger.put(job.stored, change))
                    del changes[:1]
            except RevithionError:
                return
            del self._unwritten[job_id]

    def enter(self, job: LiveJob, state: JobState, *, reason: str = "", error: RevithionError | None = None) -> None:
        """Brings a job into another state.

        Raises:
            RequestError: The state can't follow the job's own.
        """
        info = job.info
        Job(id=info.id, source=info.parameters.source, state=info.state).advance(state)
        now = time.time()
        changes: dict[str, Any] = {"state": state}
        if state is JobState.QUEUED:
            changes |= {"remaining_s": None, "spans": None}
        if state is JobState.LOADING:
            changes |= {"started_at": now}
        if state.is_final:
            changes |= {"finished_at": now, "remaining_s": None, "cancelling": False, "spans": None}
        if error is not None:
            changes |= {"error": ErrorInfo(code=error.code, message=error.message, hint=error.hint)}
        job.update(**changes)
        event = JobChanged(
            job_id=info.id,
            seq=0,
            state=state,
            source=info.parameters.source,
            error=None if error is None else error.as_dict(),
        )
        _LOG.info(
            "job is %s%s",
            state.value,
            f" ({reason or (error and error.code)})" if reason or error else "",
            extra={"job": info.id, "client": info.client},
        )
        change = Change(at=now, state=state, attempt=info.attempts, reason=reason or (error.code if error else ""))
        if state.is_final:
            ending = asyncio.get_running_loop().create_task(self._end(job, event, change))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
        else:
            self.emit(job, event)
            self.write(job, change)

    async def _end(self, job: LiveJob, event: JobChanged, change: Change) -> None:
        try:
            await asyncio.wrap_future(self.write(job, change))
        except RevithionError:
            _LOG.warning("the end of the job is told before the disk has it", extra={"job": job.info.id})
        self.emit(job, event)
        self._jobs.pop(job.info.id, None)
        job.over.set()

    async def settle(self) -> None:
        """Waits until all ends are told."""
        while self._endings:
            await asyncio.wait(set(self._endings))
