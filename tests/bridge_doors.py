"""Real doors with a small service behind them that keeps jobs in memory: for tests of doors and of their clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any

import msgspec
import zmq

from revithion_bridge.codec import decode_reply, encode_request
from revithion_bridge.connection import Connection, Keys, load_keys, own_folders, remove_connection, write_connection
from revithion_bridge.errors import bridge_error
from revithion_bridge.event_hub import EventHub, Parent
from revithion_bridge.messages import (
    HEARTBEAT_S,
    CancelJob,
    Change,
    Done,
    Events,
    GetEvents,
    GetJob,
    GetSnapshot,
    GetStatus,
    Heartbeat,
    JobInfo,
    JobReply,
    Latency,
    PauseQueue,
    Reply,
    Request,
    ResumeQueue,
    Snapshot,
    Status,
    SubmitJob,
    WaitJob,
)
from revithion_bridge.service_api import Caller
from revithion_bridge.zmq_doors import DoorLimits, ZmqDoors
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged
from revithion_stems.jobs import JobState

WAIT_S = 15.0


class MemoryService:
    """Jobs that do nothing, in memory; on the doors' loop."""

    def __init__(self, hub: EventHub, jobs: dict[str, JobInfo]) -> None:
        self.hub, self.jobs = hub, jobs
        self.keys = {job.parameters.template: job.id for job in jobs.values()}
        self.asked: Counter[type[Request]] = Counter()
        self.callers: list[Caller] = []
        self.before: Callable[[Request], Any] | None = None
        self.changed = asyncio.Event()
        self.others: Mapping[type[Request], Callable[[Any, Caller], Awaitable[Reply]]] = {}

    async def handle(self, request: Request, caller: Caller) -> Reply:
        self.asked[type(request)] += 1
        self.callers.append(caller)
        reply = await self.answer(request, caller)
        if self.before is not None:  # the answer goes out
            await self.before(request)
        return reply

    async def answer(self, request: Request, caller: Caller) -> Reply:
        if type(request) in self.others:
            return await self.others[type(request)](request, caller)
        match request:
            case SubmitJob():
                return self.submit(request, caller)
            case WaitJob():
                deadline = time.monotonic() + request.timeout_s
                while not self.find(request.job_id).state.is_final and time.monotonic() < deadline:
                    await asyncio.sleep(0.01)
                return JobReply(job=self.find(request.job_id))
            case GetJob():
                change = Change(at=time.time(), state=JobState.QUEUED, attempt=0)
                return JobReply(job=self.find(request.job_id), history=(change,))
            case CancelJob():
                self.change(request.job_id, JobState.CANCELLED)
                return JobReply(job=self.find(request.job_id))
            case GetSnapshot():
                jobs = tuple(job for job in self.jobs.values() if not job.state.is_final)
                return Snapshot(epoch=self.hub.epoch, seq=self.hub.last_seq, paused=False, jobs=jobs)
            case GetEvents():
                events, last = self.hub.since(request.epoch, request.seq, request.limit)
                return Events(events=tuple(events), last_seq=last)
            case GetStatus():
                return self.status()
            case PauseQueue():
                raise ZeroDivisionError("a bug")
            case ResumeQueue():
                return Done()
            case _:
                raise bridge_error("live.stem", "not here")

    def find(self, job_id: str) -> JobInfo:
        if job_id not in self.jobs:
            raise bridge_error("job.unknown", f"there is no job {job_id}")
        return self.jobs[job_id]

    def submit(self, request: SubmitJob, caller: Caller) -> JobReply:
        key = request.idempotency_key
        if key in self.keys:
            return JobReply(job=self.jobs[self.keys[key]])
        job_id = f"job-{len(self.jobs)}"
        # The key is kept in a field that this service has no use for, so that it is there after a restart.
        parameters = msgspec.structs.replace(request.job, template=key or "-")
        self.jobs[job_id] = JobInfo(
            id=job_id,
            client=caller.client,
            state=JobState.QUEUED,
            priority=request.priority,
            parameters=parameters,
            created_at=time.time(),
        )
        if key is not None:
            self.keys[key] = job_id
        self.change(job_id, JobState.QUEUED, Parent(client=caller.client, id=caller.request_id))
        return JobReply(job=self.jobs[job_id], created=True)

    def change(self, job_id: str, state: JobState, parent: Parent | None = None) -> None:
        source = self.find(job_id).parameters.source
        seq = self.hub.publish(JobChanged(job_id=job_id, seq=0, state=state, source=source), parent).seq
        self.jobs[job_id] = msgspec.structs.replace(self.jobs[job_id], state=state, last_seq=seq)

    def finish(self, job_id: str) -> None:
        for state in (JobState.LOADING, JobState.SEPARATING, JobState.WRITING, JobState.DONE):
            self.change(job_id, state)

    def status(self) -> Status:
        return Status(
            version="0",
            pid=os.getpid(),
            epoch=self.hub.epoch,
            seq=self.hub.last_seq,
            uptime_s=0.0,
            paused=False,
            stopping=False,
            jobs={},
            waiting={},
            counters={},
            audio_s=0.0,
            memory_bytes=0,
            memory_free_bytes=0,
            workers=(),
            requests=Latency(),
            queued=Latency(),
            first_segment=Latency(),
            roots=(),
            folders=own_folders(),
        )


class DoorsThread:
    """Doors on a loop of their own, in a thread; a context manager. ``jobs`` are handed on over restarts."""

    def __init__(
        self,
        jobs: dict[str, JobInfo] | None = None,
        *,
        limits: DoorLimits | None = None,
        keep: int = 20_000,
        first_seq: int = 1,
    ) -> None:
        self.jobs: dict[str, JobInfo] = {} if jobs is None else jobs
        self.limits, self.keep, self.first_seq = limits, keep, first_seq
        self.beating = True
        self.ready = threading.Event()
        self.failure: BaseException | None = None

    def __enter__(self) -> DoorsThread:
        self.thread = threading.Thread(target=self._work, name="doors")
        self.thread.start()
        assert self.ready.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, *, crash: bool = False) -> None:
        """Ends it; a crash leaves the connection file where it is."""
        if self.thread.is_alive():
            if not crash:
                remove_connection()
            self.loop.call_soon_threadsafe(self.over.set)
            self.thread.join(WAIT_S)
        assert not self.thread.is_alive()

    def do(self, action: Callable[[], Any]) -> Any:
        """Calls ``action`` on the loop."""

        async def call() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(WAIT_S)

    def _work(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._main())
        except BaseException as exc:  # told to the test
            self.failure = exc
        self.ready.set()

    async def _main(self) -> None:
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        self.hub = EventHub(self.first_seq, keep=self.keep, keep_bytes=64 << 20)
        self.service = MemoryService(self.hub, self.jobs)
        self.keys: Keys = load_keys()
        doors = ZmqDoors(self.service, self.hub, self.keys, self.limits)
        self.endpoints = await doors.start()
        self.connection = Connection(
            version="0",
            pid=os.getpid(),
            epoch=self.hub.epoch,
            work=self.endpoints.work,
            control=self.endpoints.control,
            events=self.endpoints.events,
            server_key=self.keys.server_public,
            client_public=self.keys.client_public,
            client_secret=self.keys.client_secret,
            folders=own_folders(),
        )
        write_connection(self.connection)
        beat = asyncio.create_task(self._beat())
        self.ready.set()
        await self.over.wait()
        beat.cancel()
        await doors.stop()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S / 4)
            if self.beating:
                self.hub.publish(Heartbeat(seq=0, waiting=0, running=0))


@contextlib.contextmanager
def raw_socket(
    connection: Connection, kind: int, endpoint: str, *, keys: tuple[bytes, bytes] | str | None = "own"
) -> Generator[zmq.Socket[bytes]]:
    """A plain socket of ZeroMQ, with the client's keys, others, or none."""
    context = zmq.Context()
    socket = context.socket(kind)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, int(WAIT_S * 1000))
        if keys is not None:
            own = (connection.client_public.encode(), connection.client_secret.encode())
            public, secret = own if isinstance(keys, str) else keys
            socket.setsockopt(zmq.CURVE_SERVERKEY, connection.server_key.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        if kind == zmq.SUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoint)
        yield socket
    finally:
        socket.close()
        context.term()


def ask(
    socket: zmq.Socket[bytes], data: bytes | Request, number: str = "1"
) -> tuple[str | None, Reply | RevithionError]:
    """Sends bytes or a request, and receives an answer."""
    socket.send(encode_request(data, id=number, client="test") if isinstance(data, Request) else data)
    return decode_reply(socket.recv())
