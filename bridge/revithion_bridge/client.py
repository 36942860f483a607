"""The daemon for Python programs: :func:`connect`, then methods that block. Any thread, several at a time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, overload

from revithion_bridge.async_client import AsyncClient, connect_async
from revithion_bridge.errors import bridge_error
from revithion_bridge.event_feed import EventFeed, FeedItem, Resynchronised
from revithion_bridge.messages import (
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
from revithion_stems.jobs import JobState
from revithion_stems.live import LiveState
from revithion_stems.scheduler import Priority

__all__ = ["Client", "EventIterator", "Resynchronised", "connect"]

_T = TypeVar("_T")


def connect(*, client: str = "python", start: bool = False, timeout_s: float = 10.0) -> Client:
    """A connection to this user's daemon.

    Args:
        client: Name of this client, for quotas, fairness between clients, and logs.
        start: Whether to start a daemon if none runs; it stays when the client is gone.
        timeout_s: How long to wait for an answer, now and whenever the daemon is gone later.

    Raises:
        RevithionError: ``daemon.unreachable``, or ``daemon.start_failed``.
    """
    thread = _LoopThread()
    try:
        return Client(thread, thread.run(connect_async(client=client, start=start, timeout_s=timeout_s)))
    except BaseException:
        thread.stop()
        raise


class _LoopThread:
    """An asyncio loop on a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        self._ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name="revithion-client", daemon=True)
        self._thread.start()
        self._loop = self._ready.result()

    def run(self, action: Coroutine[Any, Any, _T]) -> _T:
        """The outcome of ``action`` on the loop; an interrupted wait cancels it."""
        with self._lock:
            if not self._open:
                action.close()
                raise bridge_error("daemon.unreachable", "the client was closed")
            future = asyncio.run_coroutine_threadsafe(action, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise bridge_error("daemon.unreachable", "the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Ends the loop, after ``last``; what else runs there is cancelled. Again, it does nothing."""
        with self._lock:
            if not self._open:
                if last is not None:
                    last.close()
                return
            self._open = False

            async def end() -> None:
                try:
                    if last is not None:
                        await last
                finally:
                    self._over.set()

            future = asyncio.run_coroutine_threadsafe(end(), self._loop)
        try:
            future.result()
        finally:
            self._thread.join()

    def _work(self) -> None:
        # A selector loop everywhere: the default loop of Windows can't watch ZeroMQ's sockets.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._stay())

    async def _stay(self) -> None:
        self._ready.set_result(asyncio.get_running_loop())
        await self._over.wait()


class EventIterator:
    """What :meth:`Client.events` gives: an iterator and context manager; one thread at a time."""

    def __init__(self, thread: _LoopThread, feed: EventFeed) -> None:
        self._thread = thread
        self._feed = feed

    def __iter__(self) -> EventIterator:
        return self

    def __next__(self) -> FeedItem:
        item = self._thread.run(self._next())
        if item is None:
            raise StopIteration
        return item

    def __enter__(self) -> EventIterator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it."""
        self._thread.run(self._feed.aclose())

    async def _next(self) -> FeedItem | None:
        return await anext(self._feed, None)


class Client:
    """A connection to the daemon, made by :func:`connect`; a context manager. Any thread, several at a time.

    It outlives restarts of the daemon: what was asked for is asked for again, events are caught up with. All methods
    raise :class:`~revithion_stems.errors.RevithionError`: the daemon's own errors, by their codes, and
    ``daemon.unreachable`` if it is gone for longer than the connection's ``timeout_s``, or the client was closed.
    """

    def __init__(self, thread: _LoopThread, client: AsyncClient) -> None:
        self._thread = thread
        self._client = client

    @property
    def last_snapshot(self) -> Snapshot | None:
        """The last one that was asked for by anybody, or None."""
        return self._client.last_snapshot

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up; jobs are not touched. Calls in other threads end with ``daemon.unreachable``."""
        self._thread.stop(self._client.close())

    @overload
    def request(
        self,
        request: SubmitJob | WaitJob | RetryJob | GetJob | CancelJob | Reprioritise,
        timeout_s: float | None = None,
    ) -> JobReply: ...
    @overload
    def request(self, request: ListJobs, timeout_s: float | None = None) -> JobList: ...
    @overload
    def request(self, request: DeleteJob | ClearJobs, timeout_s: float | None = None) -> Deleted: ...
    @overload
    def request(self, request: GetStatus, timeout_s: float | None = None) -> Status: ...
    @overload
    def request(self, request: GetSnapshot, timeout_s: float | None = None) -> Snapshot: ...
    @overload
    def request(self, request: GetEvents, timeout_s: float | None = None) -> Events: ...
    @overload
    def request(
        self, request: PauseQueue | ResumeQueue | Shutdown | RingDaw | SetLiveMonitor, timeout_s: float | None = None
    ) -> Done: ...
    @overload
    def request(
        self,
        request: SetLive | GetLive | StartLive | StopLive | StoreLiveScene | RecallLiveScene,
        timeout_s: float | None = None,
    ) -> Live: ...
    @overload
    def request(self, request: RecordLive, timeout_s: float | None = None) -> LiveTake: ...
    @overload
    def request(self, request: ListDaws, timeout_s: float | None = None) -> DawSessions: ...
    @overload
    def request(self, request: SetDawFader, timeout_s: float | None = None) -> DawStrips: ...
    @overload
    def request(self, request: Request, timeout_s: float | None = None) -> Reply: ...

    def request(self, request: Request, timeout_s: float | None = None) -> Reply:
        """Sends any request and waits for its answer.

        Args:
            request: What is asked for.
            timeout_s: How long to wait; None for as long as the daemon lives.
        """
        return self._thread.run(self._client.request(request, timeout_s))

    def submit(
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
        return self._thread.run(
            self._client.submit(source, folder, priority=priority, idempotency_key=idempotency_key, **parameters)
        )

    def submit_job(
        self, job: JobParameters, priority: Priority = Priority.NORMAL, idempotency_key: str | None = None
    ) -> JobInfo:
        """As :meth:`submit`, with everything in one object."""
        return self._thread.run(self._client.submit_job(job, priority, idempotency_key))

    def job(self, job_id: str) -> JobInfo:
        """One job as it is now."""
        return self._thread.run(self._client.job(job_id))

    def history(self, job_id: str) -> tuple[Change, ...]:
        """The states of a job, and when it entered them."""
        return self._thread.run(self._client.history(job_id))

    def jobs(self, states: Sequence[JobState] = (), client: str | None = None, limit: int = 100) -> tuple[JobInfo, ...]:
        """Jobs, newest first: those in ``states`` and of ``client``, where these are given; at most ``limit``."""
        return self._thread.run(self._client.jobs(states, client, limit))

    def cancel(self, job_id: str) -> JobInfo:
        """Stops a job, after the segment that runs; one that has ended stays as it is."""
        return self._thread.run(self._client.cancel(job_id))

    def wait(self, job_id: str, timeout_s: float | None = None) -> JobInfo:
        """Waits for the end of a job, over restarts of the daemon too; the job as it is then, or when time is over."""
        return self._thread.run(self._client.wait(job_id, timeout_s))

    def retry(self, job_id: str) -> JobInfo:
        """Submits a job that failed or was cancelled again; the new one."""
        return self._thread.run(self._client.retry(job_id))

    def delete(self, job_id: str) -> int:
        """Forgets a job that has ended; how many were forgotten."""
        return self._thread.run(self._client.delete(job_id))

    def clear(self, older_than_s: float = 0.0, client: str | None = None) -> int:
        """Forgets all jobs that ended at least ``older_than_s`` ago; how many these were."""
        return self._thread.run(self._client.clear(older_than_s, client))

    def reprioritise(self, job_id: str, priority: Priority | str) -> JobInfo:
        """Moves a job into another class."""
        return self._thread.run(self._client.reprioritise(job_id, priority))

    def pause_queue(self) -> None:
        """Starts no more jobs; what runs goes on."""
        self._thread.run(self._client.pause_queue())

    def resume_queue(self) -> None:
        """Starts jobs again."""
        self._thread.run(self._client.resume_queue())

    def status(self) -> Status:
        """How the daemon is."""
        return self._thread.run(self._client.status())

    def snapshot(self) -> Snapshot:
        """All jobs that have not ended."""
        return self._thread.run(self._client.snapshot())

    def shutdown(self) -> None:
        """Asks the daemon to end; its jobs go on when it is started again."""
        self._thread.run(self._client.shutdown())

    def set_live(
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
        return self._thread.run(self._client.set_live(stem, gain_db, muted, **controls))

    def live(self) -> tuple[LiveStem, ...]:
        """All strips of the live preview."""
        return self._thread.run(self._client.live())

    def live_session(self) -> LiveState | None:
        """The session of the live preview as it stands, with levels; None if nothing plays."""
        return self._thread.run(self._client.live_session())

    def start_live(self, **options: Any) -> LiveState:
        """Starts a session of the live preview; returns once it plays.

        Args:
            options: Those of :class:`~revithion_bridge.messages.StartLive`.

        Raises:
            RequestError: There is no such option, or the value is of another type.
        """
        return self._thread.run(self._client.start_live(**options))

    def stop_live(self) -> None:
        """Ends the session of the live preview; harmless if nothing plays."""
        self._thread.run(self._client.stop_live())

    def daw_sessions(self) -> DawSessions:
        """The sessions that are open in DAWs with our script, and what they wait for."""
        return self._thread.run(self._client.daw_sessions())

    def set_daw_fader(
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
        return self._thread.run(self._client.set_daw_fader(stem, gain_db, muted, role=role, box=box))

    def events(self, job_id: str | None = None) -> EventIterator:
        """Events, each once and in order, whatever is lost on the way; an iterator and context manager.

        Where events can't be had any more, because the daemon was started anew or too many were missed, a
        :class:`~revithion_bridge.event_feed.Resynchronised` stands in their place.

        Args:
            job_id: Only events of this job, up to its end: all of them if this client submitted it, else those from
                now on. None for all events from now on, without end.
        """

        async def started() -> EventFeed:
            feed = self._client.events(job_id)
            await feed.start()
            return feed

        return EventIterator(self._thread, self._thread.run(started()))
