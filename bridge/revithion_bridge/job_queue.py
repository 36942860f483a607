"""The queue: which job runs where and when, what becomes of one that is stopped, lost, or too large."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from revithion_bridge.errors import bridge_error, cancelled_error
from revithion_bridge.event_hub import EventHub, Parent
from revithion_bridge.job_run import JobRun
from revithion_bridge.lanes import Lane
from revithion_bridge.latency import LatencyWindow
from revithion_bridge.ledger import Ledger, StoredJob
from revithion_bridge.live_jobs import LiveJob, LiveJobs
from revithion_bridge.messages import Change, JobInfo, JobParameters, QueueChanged, SubmitJob
from revithion_bridge.parameters import to_request
from revithion_bridge.path_jail import PathJail
from revithion_bridge.service_api import Caller
from revithion_bridge.worker_messages import Run
from revithion_stems.errors import RevithionError
from revithion_stems.jobs import JobState
from revithion_stems.network_files import is_network_file
from revithion_stems.scheduler import Priority, gives_way

_LOG = logging.getLogger(__name__)
SPANS_KEPT_S = 60.0
IDLE_UNLOAD_S = 900.0
MEMORY_PATIENCE_S = 60.0
"""After so long without the memory that a job is expected to need it is tried all the same: expectations may err."""
HANGING_S = 120.0
"""A worker that was told to stop and is still in the same network run is killed after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much the queue takes.

    Attributes:
        waiting: Jobs that wait, of all clients.
        waiting_per_client: Of one client.
        idle_unload_s: After so long without a job a worker ends, and the memory of its model is free.
        ended: Jobs that have ended and are remembered.
    """

    waiting: int = 10_000
    waiting_per_client: int = 2_000
    idle_unload_s: float = IDLE_UNLOAD_S
    ended: int = 10_000


class JobQueue:
    """All jobs, from their submission to their end. On the daemon's loop.

    Args:
        ledger: Where jobs are written down.
        hub: Where events go.
        jail: Which paths are allowed.
        spans: Folder for what can be heard of running jobs.
        limits: How much it takes.

    Attributes:
        live: The jobs that have not ended.
        lanes: Device → its lane.
        paused: Whether no more jobs are started.
        stopping: Whether the daemon is about to end.
        counters: What happened, by name.
        queued: How long jobs waited.
        first_segment: Time from a job's start to its first network run's end.
        audio_s: Seconds of audio that were separated.
    """

    def __init__(
        self, ledger: Ledger, hub: EventHub, jail: PathJail, spans: Path, limits: QueueLimits | None = None
    ) -> None:
        self.live = LiveJobs(ledger, hub)
        self.lanes: dict[str, Lane] = {}
        self.paused = ledger.meta("paused") == "1"
        self.stopping = False
        self.counters: Counter[str] = Counter()
        self.queued, self.first_segment = LatencyWindow(), LatencyWindow()
        self.audio_s = 0.0
        self._ledger = ledger
        self._hub = hub
        self._jail = jail
        self._spans = spans
        self._limits = limits or QueueLimits()
        self._run = JobRun(self)
        self._auto = "auto"
        self._stale_spans: list[tuple[float, Path]] = []
        self._chores: set[asyncio.Task[None]] = set()
        self._retrying: asyncio.Task[None] | None = None

    # --- life ---

    async def start(self) -> None:
        """Starts the first worker, and takes up the jobs that an earlier daemon left."""
        lane = Lane("auto", self._run.on_message)
        await lane.start()
        self._auto = lane.device
        self.lanes[lane.device] = lane
        shutil.rmtree(self._spans, ignore_errors=True)
        for stored in self._ledger.unfinished():
            begun = stored.info.state is not JobState.QUEUED
            job = LiveJob(stored=stored)
            self.live.add(job)
            if stored.cancel:
                self.live.enter(job, JobState.CANCELLED, error=cancelled_error())
                continue
            if begun:
                self.counters["resumed_after_restart"] += 1
                self.live.enter(job, JobState.QUEUED, reason="restart")
            self.enqueue(job, front=False)
        self.dispatch()

    async def stop(self, patience_s: float) -> None:
        """Lets running network runs end, puts their jobs back into the queue, and ends the workers."""
        self.stopping = True
        self._hub.publish(QueueChanged(seq=0, paused=self.paused, stopping=True))
        deadline = time.monotonic() + patience_s
        for lane in self.lanes.values():
            self._stop_running(lane, "shutdown")
        while any(lane.job_id is not None for lane in self.lanes.values()) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for lane in self.lanes.values():
            await lane.stop(2.0)
            self._run.give_back(lane, "restart")
        await self.live.settle()

    def tick(self) -> None:
        """Once a second: what waits for time to pass."""
        now = time.monotonic()
        if self._retrying is None or self._retrying.done():
            self._retrying = self._chore(self.live.retry_writes())
        for lane in self.lanes.values():
            if lane.told_to_stop is not None and now - lane.told_to_stop > HANGING_S:
                _LOG.error("worker does not stop: killed", extra={"job": lane.job_id})
                lane.kill()
            if lane.running and lane.job_id is None and now - lane.idle_since > self._limits.idle_unload_s:
                _LOG.info("worker for %s was idle: ended", lane.device)
                self._chore(lane.stop(2.0))
        while self._stale_spans and self._stale_spans[0][0] < now:
            self._remove_spans(self._stale_spans.pop(0)[1])
        self.dispatch()

    def _chore(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    # --- requests ---

    async def submit(self, request: SubmitJob, caller: Caller, *, retry_of: str | None = None) -> tuple[JobInfo, bool]:
        """Takes a job in; whether it is a new one. Returns when the disk has it."""
        parameters, key = request.job, request.idempotency_key
        digest = hashlib.sha256(msgspec.json.encode(parameters)).hexdigest()
        if key is not None:
            known = self.live.find_key(caller.client, key)
            if known is not None and known.admission is not None:
                await asyncio.wrap_future(known.admission)
            stored = known.stored if known is not None else self._ledger.find_key(caller.client, key)
            if stored is not None:
                if stored.digest != digest:
                    raise bridge_error("job.key_reused", f"key {key!r} belongs to {stored.info.id}, which is different")
                return stored.info, False
        self.check(parameters)
        if self.stopping:
            raise bridge_error("daemon.stopping", "the daemon is about to end")
        of_client = sum(lane.schedule.count_of(caller.client) for lane in self.lanes.values())
        if of_client >= self._limits.waiting_per_client or len(self.live) >= self._limits.waiting:
            raise bridge_error(
                "job.quota",
                f"{of_client} jobs of {caller.client!r} and {len(self.live)} in all wait (at most "
                f"{self._limits.waiting_per_client} and {self._limits.waiting})",
            )
        info = JobInfo(
            id=f"job-{secrets.token_hex(8)}",
            client=caller.client,
            state=JobState.QUEUED,
            priority=request.priority,
            parameters=parameters,
            created_at=time.time(),
            retry_of=retry_of,
        )
        job = LiveJob(
            stored=StoredJob(info=info, idempotency_key=key, digest=digest),
            parent=Parent(client=caller.client, id=caller.request_id),
        )
        self.live.add(job)
        job.admission = self._ledger.put(job.stored, Change(at=info.created_at, state=JobState.QUEUED, attempt=0))
        try:
            await asyncio.wrap_future(job.admission)
        except RevithionError:  # anything else ends this daemon, and the next one finds the job if it was written
            self.live.forget(job)
            raise
        job.admission = None
        self.counters["submitted"] += 1
        self._run.tell_queued(job)
        if job.stored.cancel:  # cancelled while it was written down
            await self._cancel_waiting(job)
        else:
            self.enqueue(job)
            self.dispatch()
        return job.info, True

    async def cancel(self, job: LiveJob) -> JobInfo:
        """Stops a job; returns when the disk knows of it."""
        if job.info.state.is_final:
            return job.info
        job.note(cancel=True)
        if job.admission is not None:
            return job.info
        lane = self._lane_running(job)
        if lane is None:
            return await self._cancel_waiting(job)
        job.update(cancelling=True)
        job.stop = "cancel"
        lane.stop_job()
        with contextlib.suppress(RevithionError):
            await asyncio.wrap_future(self.live.write(job))
        return job.info

    async def _cancel_waiting(self, job: LiveJob) -> JobInfo:
        for lane in self.lanes.values():
            lane.schedule.remove(job.info.id)
        self.counters["cancelled"] += 1
        self.live.enter(job, JobState.CANCELLED, error=cancelled_error())
        self.drop_spans(job)
        await job.over.wait()
        return job.info

    def reprioritise(self, job: LiveJob, priority: Priority) -> JobInfo:
        """Moves a job into another class."""
        job.update(priority=priority)
        self.live.write(job)
        if any(job.info.id in lane.schedule for lane in self.lanes.values()):
            self.enqueue(job)
        self.dispatch()
        return job.info

    def pause(self, *, paused: bool) -> None:
        """Stops starting jobs, or starts them again."""
        if paused != self.paused:
            self.paused = paused
            self._ledger.set_meta("paused", "1" if paused else "0")
            self._hub.publish(QueueChanged(seq=0, paused=paused))
        self.dispatch()

    def check(self, parameters: JobParameters) -> None:
        """Raises where a job can't be done as it is asked for, as far as that can be seen without reading files."""
        for path in (parameters.source, parameters.folder, *parameters.keep):
            self._jail.check(path)
        if is_network_file(parameters.model):
            self._jail.check(parameters.model)
        to_request(parameters)

    # --- running ---

    def enqueue(self, job: LiveJob, *, delay_s: float = 0.0, front: bool = False) -> None:
        """Puts a job into the schedule of its device."""
        device = job.info.parameters.device
        device = self._auto if device == "auto" else device
        lane = self.lanes.get(device)
        if lane is None:
            lane = self.lanes[device] = Lane(device, self._run.on_message)
        job.waiting_since = time.monotonic()
        lane.schedule.add(
            job.info.id,
            job.info.client,
            job.info.priority,
            not_before_s=time.monotonic() + delay_s if delay_s else 0.0,
            front=front,
        )

    def dispatch(self) -> None:
        """Starts what can be started, and lets running jobs give way."""
        if self.paused or self.stopping:
            return
        for lane in list(self.lanes.values()):
            if lane.job_id is None:
                self._start_next(lane)
                continue
            first = lane.schedule.next(time.monotonic())
            running = self.live.get(lane.job_id)
            if first is None or running is None or running.stop or running.info.state is JobState.WRITING:
                continue
            if gives_way(running.info.priority, running.stored.preemptions, first.priority):
                self._stop_running(lane, "preempt")

    def _start_next(self, lane: Lane) -> None:
        while (chosen := lane.schedule.start(time.monotonic())) is not None:
            job = self.live.get(chosen.job_id)
            if job is None:
                continue
            try:
                self.check(job.info.parameters)  # a link may lead elsewhere by now
            except RevithionError as exc:
                self.counters["failed"] += 1
                self.live.enter(job, JobState.FAILED, error=exc)
                continue
            self.queued.add(time.monotonic() - job.waiting_since)
            job.stop, job.started, job.segments_seen = "", time.monotonic(), False
            job.update(attempts=job.info.attempts + 1)
            parameters = job.info.parameters
            if job.stored.refreshed:
                parameters = msgspec.structs.replace(parameters, force_refresh=False)
            run = Run(
                job_id=job.info.id,
                parameters=parameters,
                segment_s=job.stored.segment_s,
                spans=str(self.span_folder(job)) if parameters.span_s else None,
                waited=job.memory_since is not None and time.monotonic() - job.memory_since > MEMORY_PATIENCE_S,
            )
            lane.run(run)
            return

    def _lane_running(self, job: LiveJob) -> Lane | None:
        return next((lane for lane in self.lanes.values() if lane.job_id == job.info.id), None)

    def _stop_running(self, lane: Lane, why: str) -> None:
        job = self.live.get(lane.job_id) if lane.job_id is not None else None
        if job is not None:
            job.stop = job.stop or why
            lane.stop_job()

    # --- spans ---

    def span_folder(self, job: LiveJob) -> Path:
        """Where the spans of a job are."""
        return self._spans / job.info.id

    def drop_spans(self, job: LiveJob) -> None:
        """Removes the spans of a job that has ended, a while later: somebody may still read one."""
        if job.info.parameters.span_s:
            self._stale_spans.append((time.monotonic() + SPANS_KEPT_S, self.span_folder(job)))

    def _remove_spans(self, folder: Path) -> None:
        self._chore(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
