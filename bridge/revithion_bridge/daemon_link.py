"""A client's sockets: requests that outlive a restart of the daemon, and events as they come. One loop thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import psutil
import zmq
import zmq.asyncio

from revithion_bridge.codec import EventMessage, decode_event, decode_reply, encode_request
from revithion_bridge.connection import Connection, connection_path, read_connection
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import HEARTBEAT_S, MESSAGES, Door, Reply, Request, WaitJob
from revithion_stems.errors import RevithionError

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.25
SILENCE_S = 3 * HEARTBEAT_S
"""After so long without a sign of life the connection file is read again."""
ANSWER_S = 5.0
"""After so long without an answer the request is sent again, by new sockets."""
_DOORS = {spec.request: spec.door for spec in MESSAGES}
_RATE_PAUSE_S = 0.1
_MOST_RATE_PAUSE_S = 2.0

News: TypeAlias = EventMessage | RevithionError | None
"""An event; or that the daemon is gone for good; or None: it was connected to again, and events may be missing."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A request without an answer; after ``patience_s`` it or its answer must have been lost."""

    door: Door
    data: bytes
    answer: asyncio.Future[Reply | RevithionError]
    since: float
    patience_s: float


@dataclass(frozen=True, slots=True)
class _Line:
    """The sockets to one run of the daemon."""

    requests: dict[Door, zmq.asyncio.Socket]
    events: zmq.asyncio.Socket
    readers: tuple[asyncio.Task[None], ...]


class DaemonLink:
    """Talks to the daemon that the connection file names, whichever that is at the moment.

    While anybody waits for something, a daemon that was silent for :data:`SILENCE_S`, or did not answer for
    :data:`ANSWER_S`, or whose connection file was written anew, is connected to again, and what was not answered is
    sent again, with the same id.

    Args:
        client: Name of this client.
        timeout_s: How long a daemon may be gone before those who wait are told.
        unread_events: Events that the socket keeps while this loop is busy; then some are missed.

    Attributes:
        connection: What the connection file said when it was connected to.
        position: Epoch and ``seq`` of the last event that was heard of; those that are to come are later.
    """

    def __init__(self, client: str, timeout_s: float, *, unread_events: int = 10_000) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._unread_events = unread_events
        self._loop = asyncio.get_running_loop()
        self._context = zmq.asyncio.Context()
        self._line: _Line | None = None
        self._seen: tuple[int, ...] | None = None
        self._opened_at = self._heard_at = self._loop.time()
        self._told = False
        self._pending: dict[str, _Pending] = {}
        self._listeners: list[Callable[[News], bool]] = []
        self._over: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self.connection: Connection | None = None
        self.position: tuple[str, int] | None = None

    def open(self) -> None:
        """Connects to the daemon that is said to run; whether it does shows when it answers.

        Raises:
            RevithionError: ``daemon.unreachable``: none is said to run.
        """
        self._connect(running_connection())
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Hangs up; who still waits gets ``daemon.unreachable``."""
        if self._watching is not None:
            self._watching.cancel()
            self._over.add(self._watching)
        self._hang_up()
        closed = bridge_error("daemon.unreachable", "the client was closed")
        self._fail(closed, self._pending.values())
        self._tell(closed)
        if self._over:
            await asyncio.wait(self._over)
        self._context.destroy(linger=0)

    async def call(self, request: Request, timeout_s: float | None = None) -> Reply:
        """Sends a request and waits for its answer; a daemon that has too much to do is asked again after a pause.

        Args:
            request: What is asked for.
            timeout_s: How long to wait at most; None for as long as the daemon lives.

        Raises:
            RevithionError: The daemon's answer, or ``daemon.unreachable``.
        """
        pause_s = _RATE_PAUSE_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    reply = await self._answer(request)
                    if not isinstance(reply, RevithionError):
                        return reply
                    if reply.code != "protocol.rate" or pause_s > _MOST_RATE_PAUSE_S:
                        raise reply
                    await asyncio.sleep(pause_s)
                    pause_s *= 2
        except TimeoutError:
            name = type(request).__struct_config__.tag
            raise bridge_error("daemon.unreachable", f"no answer to {name} within {timeout_s:g} s") from None

    def listen(self, listener: Callable[[News], bool]) -> None:
        """Calls ``listener`` with all events from now on, until it returns False."""
        if not self._listeners and self._line is not None:
            self._line.events.subscribe(b"")
        self._listeners.append(listener)

    async def _answer(self, request: Request) -> Reply | RevithionError:
        number = uuid.uuid4().hex
        data = encode_request(request, id=number, client=self._client)
        patience_s = ANSWER_S + (request.timeout_s if isinstance(request, WaitJob) else 0.0)
        door, answer = _DOORS[type(request)], self._loop.create_future()
        pending = _Pending(door, data, answer, self._loop.time(), patience_s)
        self._pending[number] = pending
        try:
            self._send(pending)
            return await pending.answer
        finally:
            del self._pending[number]

    def _send(self, pending: _Pending) -> None:
        if self._line is not None:
            self._line.requests[pending.door].send(pending.data)  # never waits: there is no limit to what is unsent

    def _connect(self, connection: Connection) -> None:
        self._seen = _file_state()
        self.connection = connection
        opened: list[zmq.asyncio.Socket] = []
        try:
            for kind, endpoint in (
                (zmq.DEALER, connection.work),
                (zmq.DEALER, connection.control),
                (zmq.SUB, connection.events),
            ):
                opened.append(self._context.socket(kind))
                self._prepare(opened[-1], connection, endpoint)
        except zmq.ZMQError as exc:
            for socket in opened:
                socket.close()
            raise bridge_error("daemon.unreachable", f"{connection_path()} is of no use: {exc}") from exc
        work, control, events = opened
        events.subscribe(b"heartbeat")
        if self._listeners:
            events.subscribe(b"")
        readers = (self._read(work), self._read(control), self._read_events(events))
        tasks = tuple(map(asyncio.create_task, readers))
        self._line = _Line({Door.WORK: work, Door.CONTROL: control}, events, tasks)
        self._opened_at = self._loop.time()
        for pending in self._pending.values():
            self._send(pending)

    def _prepare(self, socket: zmq.asyncio.Socket, connection: Connection, endpoint: str) -> None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, connection.server_key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, connection.client_public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, connection.client_secret.encode())
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, self._unread_events if socket.type == zmq.SUB else 0)
        socket.connect(endpoint)

    def _hang_up(self) -> None:
        if self._line is not None:
            for task in self._line.readers:
                task.cancel()
                self._over.add(task)
                task.add_done_callback(self._over.discard)
            for socket in (*self._line.requests.values(), self._line.events):
                socket.close()
            self._line = None

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            data = await socket.recv_multipart()
            self._heard()
            try:
                number, reply = decode_reply(data[-1])
            except RevithionError as exc:
                _LOG.warning("an answer can't be read: %s", exc.message)
                continue
            pending = self._pending.get(number or "")
            if pending is not None and not pending.answer.done():
                pending.answer.set_result(reply)
            await asyncio.sleep(0)  # a socket with messages in it gives them without the loop having had a turn

    async def _read_events(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames = await socket.recv_multipart()
            self._heard()
            try:
                message = decode_event(frames[-1])
                self.position = (message.epoch, message.seq)
                self._tell(message)
            except RevithionError as exc:
                _LOG.warning("an event can't be read: %s", exc.message)
            await asyncio.sleep(0)

    def _heard(self) -> None:
        self._heard_at = self._loop.time()
        self._told = False

    def _tell(self, news: News) -> None:
        before = len(self._listeners)
        self._listeners = [listener for listener in self._listeners if listener(news)]
        if before and not self._listeners and self._line is not None:
            self._line.events.unsubscribe(b"")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._pending and not self._listeners:
                continue
            now = self._loop.time()
            silent = now - max(self._opened_at, self._heard_at) > SILENCE_S
            late = any(now - max(p.since, self._opened_at) > p.patience_s for p in self._pending.values())
            if self._line is None or silent or late or _file_state() not in (None, self._seen):
                self._hang_up()
                with contextlib.suppress(RevithionError):  # there may be one in a moment
                    self._connect(running_connection())
                    self._tell(None)
            gone = bridge_error("daemon.unreachable", f"the daemon has not answered for {self._timeout_s:g} s")
            waiting = self._pending.values()
            self._fail(gone, [p for p in waiting if now - max(p.since, self._heard_at) > self._timeout_s])
            if not self._told and now - self._heard_at > self._timeout_s:
                self._told = True
                self._tell(gone)

    def _fail(self, error: RevithionError, waiting: Iterable[_Pending]) -> None:
        for pending in waiting:
            if not pending.answer.done():
                pending.answer.set_result(error)


def running_connection() -> Connection:
    """What the connection file says, if its daemon seems to run.

    Raises:
        RevithionError: ``daemon.unreachable``.
    """
    connection = read_connection()
    if connection is None:
        raise bridge_error("daemon.unreachable", "no daemon runs")
    if not psutil.pid_exists(connection.pid):
        raise bridge_error("daemon.unreachable", f"the daemon, process {connection.pid}, is gone")
    return connection


def _file_state() -> tuple[int, ...] | None:
    try:
        stat = connection_path().stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
