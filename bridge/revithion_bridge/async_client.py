"""The daemon for programs with an asyncio loop of their own; :mod:`revithion_bridge.client` is for all others."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from revithion_bridge.daemon_link import DaemonLink
from revithion_bridge.event_feed import EventFeed, Resynchronised
from revithion_bridge.launch import start_daemon
from revithion_bridge.messages import (
    MAX_LISTED,
    CancelJob,
    Change,
    ClearJobs,
    DawSessions,
    DawStrip,
    DawStrips,
    Deleted,
    DeleteJob,
    Done,
    Events,
    GetEvents,
    GetJob,
    GetLive,
    GetSnapshot,
    GetStatus,
    JobInfo,
    JobList,
    JobParameters,
    JobReply,
    ListDaws,
    ListJobs,
    Live,
    LiveStem,
    LiveTake,
    PauseQueue,
    RecallLiveScene,
    RecordLive,
    Reply,
    Reprioritise,
    Request,
    ResumeQueue,
    RetryJob,
    RingDaw,
    SetDawFader,
    SetLive,
    SetLiveMonitor,
    Shutdown,
    Snapshot,
    StartLive,
    Status,
    StopLive,
    StoreLiveScene,
    SubmitJob,
    WaitJob,
)
from revithion_stems.errors import RequestError, RevithionError
from revithion_stems.jobs import JobState
from revithion_stems.live import LiveState
from revithion_stems.scheduler import Priority

__all__ = ["AsyncClient", "Resynchronised", "connect_async"]

_R = TypeVar("_R", bound=Request)
_WAIT_SLICE_S = 10.0
_STOPPING_PAUSE_S = 0.25
_MOST_BEGINNINGS = 1000


async def connect_async(*, client: str = "python", start: bool = False, timeout_s: float = 10.0) -> AsyncClient:
    """A connection to this user's daemon, for the running loop (on Windows a selector loop, as ZeroMQ needs it).

    Args:
        client: Name of this client, for quotas, fairness between clients, and logs.
        start: Whether to start a daemon if none runs; it stays when the client is gone.
        timeout_s: How long to wait for an answer, now and whenever the daemon is gone later.

    Raises:
        RevithionError: ``daemon.unreachable``, or ``daemon.start_failed``.
    """
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        return await _connected(client, timeout_s, min(timeout_s, 2.0) if start else timeout_s)
    except RevithionError as exc:
        if not start or exc.code != "daemon.unreachable":
            raise
    await asyncio.to_thread(start_daemon, timeout_s)
    return await _connected(client, timeout_s, max(deadline - asyncio.get_running_loop().time(), 2.0))


async def _connected(name: str, timeout_s: float, first_timeout_s: float) -> AsyncClient:
    link = DaemonLink(name, timeout_s)
    client = AsyncClient(link)
    try:
        link.open()
        await client.request(GetStatus(), first_timeout_s)
    except BaseException:
        await client.close()
        raise
    return client


def _made(kind: type[_R], **fields: Any) -> _R:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as exc:
        name = kind.__struct_config__.tag
        raise RequestError(f"{name}: {exc}", hint="See it in the protocol.", code="request.parameters") from exc


class AsyncClient:
    """A connection to the daemon, made by :func:`connect_async`; a context manager. The loop that made it, only.

    It outlives restarts of the daemon: what was asked for is asked for again, events are caught up with. All methods
    raise :class:`~revithion_stems.errors.RevithionError`: the daemon's own errors, by their codes, and
    ``daemon.unreachable`` if it is gone for longer than the connection's ``timeout_s``.

    Attributes:
        last_snapshot: The last one that was asked for by anybody, or None.
    """

    def __init__(self, link: DaemonLink) -> None:
        self._link = link
        # job → where the events were before it was submitted
        self._beginnings: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self.last_snapshot: Snapshot | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hangs up; jobs are not touched."""
        await self._link.close()

    @overload
    async def request(
        self,
        request: SubmitJob | WaitJob | RetryJob | GetJob | CancelJob | Reprioritise,
        timeout_s: float | None = None,
    ) -> JobReply: ...
    @overload
    async def request(self, request: ListJobs, timeout_s: float | None = None) -> JobList: ...
    @overload
    async def request(self, request: DeleteJob | ClearJobs, timeout_s: float | None = None) -> Deleted: ...
    @overload
    async def request(self, request: GetStatus, timeout_s: float | None = None) -> Status: ...
    @overload
    async def request(self, request: GetSnapshot, timeout_s: float | None = None) -> Snapshot: ...
    @overload
    async def request(self, request: GetEvents, timeout_s: float | None = None) -> Events: ...
    @overload
    async def request(
        self, request: PauseQueue | ResumeQueue | Shutdown | RingDaw | SetLiveMonitor, timeout_s: float | None = None
    ) -> Done: ...
    @overload
    async def request(
        self,
        request: SetLive | GetLive | StartLive | StopLive | StoreLiveScene | RecallLiveScene,
        timeout_s: float | None = None,
    ) -> Live: ...
    @overload
    async def request(self, request: RecordLive, timeout_s: float | None = None) -> LiveTake: ...
    @overload
    async def request(self, request: ListDaws, timeout_s: float | None = None) -> DawSessions: ...
    @overload
    async def request(self, request: SetDawFader, timeout_s: float | None = None) -> DawStrips: ...
    @overload
    async def request(self, request: Request, timeout_s: float | None = None) -> Reply: ...

    async def request(self, request: Request, timeout_s: float | None = None) -> Reply:
        """Sends any request and waits for its answer.

        Args:
            request: What is asked for.
            timeout_s: How long to wait; None for as long as the daemon lives.
        """
        reply = await self._link.call(request, timeout_s)
        if isinstance(reply, Status | Snapshot):
            self._link.position = (reply.epoch, reply.seq)
        if isinstance(reply, Snapshot):
            self.last_snapshot = reply
        return reply

    async def submit(
        self,
        source: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        priority: Priority | str = Priority.NORMAL,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> JobInfo:
        """Puts a job into the queue; it is on disk when this returns.

        Args:
            source: The audio file.
            folder: Where the stems' files go.
            priority: ``interactive``, ``normal`` or ``batch``.
            idempotency_key: The same key with the same job gives the first one's job again.
            parameters: The others of :class:`~revithion_bridge.messages.JobParameters`.

        Raises:
            RequestError: A parameter is unknown or of another type.
        """
        paths = {"source": _absolute(source), "folder": _absolute(folder)}
        if "keep" in parameters:
            parameters["keep"] = tuple(map(_absolute, parameters["keep"]))
        try:
            job = msgspec.convert({**parameters, **paths}, JobParameters)
            priority = Priority(priority)
        except (ValueError, TypeError) as exc:
            raise RequestError(
                f"not a job: {exc}", hint="See JobParameters in the protocol.", code="request.parameters"
            ) from exc
        return await self.submit_job(job, priority, idempotency_key)

    async def submit_job(
        self, job: JobParameters, priority: Priority = Priority.NORMAL, idempotency_key: str | None = None
    ) -> JobInfo:
        """As :meth:`submit`, with everything in one object."""
        # Without a key of the caller's this one makes it safe to send it twice, when the first answer was lost.
        key = idempotency_key or uuid.uuid4().hex
        before = self._link.position
        reply = await self.request(SubmitJob(job=job, priority=priority, idempotency_key=key))
        if reply.created and before is not None and self._link.position and before[0] == self._link.position[0]:
            self._beginnings[reply.job.id] = before
            if len(self._beginnings) > _MOST_BEGINNINGS:
                self._beginnings.popitem(last=False)
        return reply.job

    async def job(self, job_id: str) -> JobInfo:
        """One job as it is now."""
        return (await self.request(GetJob(job_id=job_id))).job

    async def history(self, job_id: str) -> tuple[Change, ...]:
        """The states of a job, and when it entered them."""
        return (await self.request(GetJob(job_id=job_id))).history

    async def jobs(
        self, states: Sequence[JobState] = (), client: str | None = None, limit: int = 100
    ) -> tuple[JobInfo, ...]:
        """Jobs, newest first: those in ``states`` and of ``client``, where these are given; at most ``limit``."""
        found: list[JobInfo] = []
        before = None
        while len(found) < limit:
            size = min(limit - len(found), MAX_LISTED)
            page = await self.request(ListJobs(states=tuple(states), client=client, limit=size, before=before))
            found += page.jobs
            if not page.more or not page.jobs:
                break
            before = page.jobs[-1].id
        return tuple(found)

    async def cancel(self, job_id: str) -> JobInfo:
        """Stops a job, after the segment that runs; one that has ended stays as it is."""
        return (await self.request(CancelJob(job_id=job_id))).job

    async def wait(self, job_id: str, timeout_s: float | None = None) -> JobInfo:
        """Waits for the end of a job, over restarts of the daemon too; the job as it is then, or when time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s if timeout_s is not None else float("inf")
        while True:
            slice_s = min(max(deadline - loop.time(), 0.0), _WAIT_SLICE_S)
            try:
                job = (await self.request(WaitJob(job_id=job_id, timeout_s=slice_s))).job
            except RevithionError as exc:
                if exc.code != "daemon.stopping" or loop.time() >= deadline:
                    raise
                await asyncio.sleep(_STOPPING_PAUSE_S)
                continue
            if job.state.is_final or loop.time() >= deadline:
                return job

    async def retry(self, job_id: str) -> JobInfo:
        """Submits a job that failed or was cancelled again; the new one."""
        return (await self.request(RetryJob(job_id=job_id))).job

    async def delete(self, job_id: str) -> int:
        """Forgets a job that has ended; how many were forgotten."""
        return (await self.request(DeleteJob(job_id=job_id))).count

    async def clear(self, older_than_s: float = 0.0, client: str | None = None) -> int:
        """Forgets all jobs that ended at least ``older_than_s`` ago; how many these were."""
        return (await self.request(ClearJobs(older_than_s=older_than_s, client=client))).count

    async def reprioritise(self, job_id: str, priority: Priority | str) -> JobInfo:
        """Moves a job into another class."""
        return (await self.request(Reprioritise(job_id=job_id, priority=Priority(priority)))).job

    async def pause_queue(self) -> None:
        """Starts no more jobs; what runs goes on."""
        await self.request(PauseQueue())

    async def resume_queue(self) -> None:
        """Starts jobs again."""
        await self.request(ResumeQueue())

    async def status(self) -> Status:
        """How the daemon is."""
        return await self.request(GetStatus())

    async def snapshot(self) -> Snapshot:
        """All jobs that have not ended."""
        return await self.request(GetSnapshot())

    async def shutdown(self) -> None:
        """Asks the daemon to end; its jobs go on when it is started again."""
        await self.request(Shutdown())

    async def set_live(
        self, stem: str, gain_db: float | None = None, muted: bool | None = None, **controls: float | bool
    ) -> LiveStem:
        """Moves controls of a strip of the live preview; None leaves a value as it is.

        Args:
            stem: Which.
            gain_db: New gain.
            muted: Whether it is silent.
            controls: The others of :class:`~revithion_bridge.messages.SetLive`.

        Raises:
            RequestError: There is no such control, or the value is of another type or out of range.
        """
        request = _made(SetLive, stem=stem, gain_db=gain_db, muted=muted, **controls)
        return (await self.request(request)).stems[0]

    async def live(self) -> tuple[LiveStem, ...]:
        """All strips of the live preview."""
        return (await self.request(GetLive())).stems

    async def live_session(self) -> LiveState | None:
        """The session of the live preview as it stands, with levels; None if nothing plays."""
        return (await self.request(GetLive())).session

    async def start_live(self, **options: Any) -> LiveState:
        """Starts a session of the live preview; returns once it plays.

        Args:
            options: Those of :class:`~revithion_bridge.messages.StartLive`.

        Raises:
            RequestError: There is no such option, or the value is of another type.
        """
        live = await self.request(_made(StartLive, **options))
        assert live.session is not None
        return live.session

    async def stop_live(self) -> None:
        """Ends the session of the live preview; harmless if nothing plays."""
        await self.request(StopLive())

    async def daw_sessions(self) -> DawSessions:
        """The sessions that are open in DAWs with our script, and what they wait for."""
        return await self.request(ListDaws())

    async def set_daw_fader(
        self,
        stem: str,
        gain_db: float | None = None,
        muted: bool | None = None,
        *,
        role: str = "bus",
        box: str | None = None,
    ) -> tuple[DawStrip, ...]:
        """Moves faders of a stem in DAWs; None leaves a value as it is. It returns when the DAWs have done it.

        Args:
            stem: Key or name of the buses or tracks.
            gain_db: New gain.
            muted: Whether they are silent.
            role: ``bus`` or ``track``.
            box: Only in this session; None for all that are open.
        """
        request = SetDawFader(stem=stem, gain_db=gain_db, muted=muted, role=role, box=box)
        return (await self.request(request)).strips

    def events(self, job_id: str | None = None) -> EventFeed:
        """Events, each once and in order, whatever is lost on the way; an asynchronous iterator and context manager.

        Where events can't be had any more, because the daemon was started anew or too many were missed, a
        :class:`~revithion_bridge.event_feed.Resynchronised` stands in their place.

        Args:
            job_id: Only events of this job, up to its end: all of them if this client submitted it, else those from
                now on. None for all events from now on, without end.
        """
        after = self._beginnings.get(job_id) if job_id is not None else None
        return EventFeed(self.request, self._link.listen, job_id, after)


def _absolute(path: str | os.PathLike[str]) -> str:
    return str(Path(path).absolute())
