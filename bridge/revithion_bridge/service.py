"""Answers requests: one method for each type of request, here or with those who were added."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import psutil

from revithion_bridge.errors import bridge_error
from revithion_bridge.event_hub import EventHub
from revithion_bridge.job_queue import JobQueue
from revithion_bridge.latency import LatencyWindow
from revithion_bridge.ledger import Ledger
from revithion_bridge.live_stage import LiveStage
from revithion_bridge.messages import (
    MAX_LISTED,
    CancelJob,
    ClearJobs,
    Deleted,
    DeleteJob,
    Done,
    Events,
    GetEvents,
    GetJob,
    GetSnapshot,
    GetStatus,
    JobDeleted,
    JobInfo,
    JobList,
    JobReply,
    ListJobs,
    PauseQueue,
    Reply,
    Reprioritise,
    Request,
    ResumeQueue,
    RetryJob,
    Shutdown,
    Snapshot,
    Status,
    SubmitJob,
    WaitJob,
)
from revithion_bridge.service_api import Caller
from revithion_stems.errors import RevithionError
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority
from revithion_stems.version import __version__

_LOG = logging.getLogger(__name__)


class DaemonService:
    """The daemon's :class:`~revithion_bridge.service_api.Service`. On its loop.

    Args:
        queue: The jobs.
        ledger: Those that have ended.
        hub: Events.
        stage: The live preview.
        stop: Called to end the daemon.
        roots: Folders that paths must be in.
        folders: Where models, cache and state are.
    """

    def __init__(
        self,
        queue: JobQueue,
        ledger: Ledger,
        hub: EventHub,
        stage: LiveStage,
        *,
        stop: Callable[[], None],
        roots: tuple[str, ...],
        folders: dict[str, str],
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._hub = hub
        self._stage = stage
        self._stop = stop
        self._roots = roots
        self._folders = folders
        self._counters: list[Mapping[str, int]] = [queue.counters]
        self._latency = LatencyWindow()
        self._began = time.monotonic()
        self._answers: dict[type[Request], Callable[[Any, Caller], Awaitable[Reply]]] = {
            SubmitJob: self._submit,
            ListJobs: self._list,
            WaitJob: self._wait,
            RetryJob: self._retry,
            DeleteJob: self._delete,
            ClearJobs: self._clear,
            GetJob: self._get,
            CancelJob: self._cancel,
            Reprioritise: self._reprioritise,
            PauseQueue: self._pause,
            ResumeQueue: self._resume,
            GetStatus: self._status,
            GetSnapshot: self._snapshot,
            GetEvents: self._events,
            Shutdown: self._shutdown,
            **stage.answers,
        }

    def show_counters(self, counters: Mapping[str, int]) -> None:
        """Has the status show somebody else's counters too."""
        self._counters.append(counters)

    def add_answers(self, answers: Mapping[type[Request], Callable[[Any, Caller], Awaitable[Reply]]]) -> None:
        """Has somebody else answer some types of requests."""
        self._answers |= answers

    async def handle(self, request: Request, caller: Caller) -> Reply:
        """See :meth:`revithion_bridge.service_api.Service.handle`."""
        began = time.monotonic()
        self._queue.counters["requests"] += 1
        try:
            return await self._answers[type(request)](request, caller)
        except RevithionError:
            self._queue.counters["requests_refused"] += 1
            raise
        finally:
            if not isinstance(request, WaitJob):
                self._latency.add(time.monotonic() - began)

    async def _submit(self, request: SubmitJob, caller: Caller) -> Reply:
        info, created = await self._queue.submit(request, caller)
        return JobReply(job=info, created=created)

    async def _list(self, request: ListJobs, _: Caller) -> Reply:
        stored, more = self._ledger.page(request.states, request.client, request.limit, request.before)
        return JobList(jobs=tuple(self._current(info) for info in stored), more=more)

    async def _wait(self, request: WaitJob, _: Caller) -> Reply:
        job = self._queue.live.get(request.job_id)
        if job is None:
            return JobReply(job=self._find(request.job_id))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job.over.wait(), request.timeout_s)
        return JobReply(job=job.info)

    async def _retry(self, request: RetryJob, caller: Caller) -> Reply:
        info = self._find(request.job_id)
        if info.state not in (JobState.FAILED, JobState.CANCELLED):
            raise bridge_error(
                "job.transition", f"{info.id} is {info.state.value}: only failed or cancelled ones retry"
            )
        # A client that did not get the answer sends the same message again.
        key = f"{caller.request_id} of {info.id}"[:128] if caller.door == "zmq" else None
        submit = SubmitJob(job=info.parameters, priority=info.priority, idempotency_key=key)
        again, created = await self._queue.submit(submit, caller, retry_of=info.id)
        return JobReply(job=again, created=created)

    async def _delete(self, request: DeleteJob, _: Caller) -> Reply:
        info = self._find(request.job_id)
        if not info.state.is_final or self._queue.live.get(info.id) is not None:
            raise bridge_error("job.transition", f"{info.id} is {info.state.value}: cancel it first")
        if await asyncio.wrap_future(self._ledger.delete(info.id)):
            self._hub.publish(JobDeleted(seq=0, job_id=info.id))
        return Deleted(count=1)

    async def _clear(self, request: ClearJobs, _: Caller) -> Reply:
        gone = await asyncio.wrap_future(self._ledger.clear(time.time() - request.older_than_s, request.client))
        for job_id in gone:
            self._hub.publish(JobDeleted(seq=0, job_id=job_id))
        return Deleted(count=len(gone))

    async def _get(self, request: GetJob, _: Caller) -> Reply:
        return JobReply(job=self._find(request.job_id), history=self._ledger.history(request.job_id))

    async def _cancel(self, request: CancelJob, _: Caller) -> Reply:
        job = self._queue.live.get(request.job_id)
        return JobReply(job=await self._queue.cancel(job) if job is not None else self._find(request.job_id))

    async def _reprioritise(self, request: Reprioritise, _: Caller) -> Reply:
        job = self._queue.live.get(request.job_id)
        if job is None or job.info.state.is_final:
            info = self._find(request.job_id)
            raise bridge_error("job.transition", f"{info.id} is {info.state.value}: its priority means nothing now")
        return JobReply(job=self._queue.reprioritise(job, request.priority))

    async def _pause(self, _request: PauseQueue, _: Caller) -> Reply:
        self._queue.pause(paused=True)
        return Done()

    async def _resume(self, _request: ResumeQueue, _: Caller) -> Reply:
        self._queue.pause(paused=False)
        return Done()

    async def _status(self, _request: GetStatus, _: Caller) -> Reply:
        waiting = dict.fromkeys((priority.value for priority in Priority), 0)
        for lane in self._queue.lanes.values():
            for priority, count in lane.schedule.counts().items():
                waiting[priority.value] += count
        return Status(
            version=__version__,
            pid=os.getpid(),
            epoch=self._hub.epoch,
            seq=self._hub.last_seq,
            uptime_s=time.monotonic() - self._began,
            paused=self._queue.paused,
            stopping=self._queue.stopping,
            jobs=self._ledger.counts(),
            waiting=waiting,
            counters={name: count for counters in self._counters for name, count in counters.items()},
            audio_s=self._queue.audio_s,
            memory_bytes=psutil.Process().memory_info().rss,
            memory_free_bytes=psutil.virtual_memory().available,
            workers=tuple(lane.info for lane in self._queue.lanes.values()),
            requests=self._latency.summary(),
            queued=self._queue.queued.summary(),
            first_segment=self._queue.first_segment.summary(),
            roots=self._roots,
            folders=self._folders,
        )

    async def _snapshot(self, _request: GetSnapshot, _: Caller) -> Reply:
        live = self._queue.live.all()
        return Snapshot(
            epoch=self._hub.epoch,
            seq=self._hub.last_seq,
            paused=self._queue.paused,
            jobs=tuple(job.info for job in live[:MAX_LISTED]),
            more=len(live) > MAX_LISTED,
            live=self._stage.strips(),
        )

    async def _events(self, request: GetEvents, _: Caller) -> Reply:
        events, last_seq = self._hub.since(request.epoch, request.seq, request.limit)
        return Events(events=tuple(events), last_seq=last_seq)

    async def _shutdown(self, _request: Shutdown, caller: Caller) -> Reply:
        _LOG.info("%s asks for the end", caller.client)
        self._stop()
        return Done()

    def _find(self, job_id: str) -> JobInfo:
        job = self._queue.live.get(job_id)
        if job is not None:
            return job.info
        stored = self._ledger.get(job_id)
        if stored is None:
            raise bridge_error("job.unknown", f"there is no job {job_id}")
        return stored.info

    def _current(self, info: JobInfo) -> JobInfo:
        job = self._queue.live.get(info.id)
        return info if job is None else job.info
