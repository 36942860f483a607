"""The ZeroMQ doors: requests on ``work`` and ``control``, events on ``events``; CURVE on all, for this user only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.asyncio

from revithion_bridge.codec import decode_request, encode_reply, request_id
from revithion_bridge.connection import Keys
from revithion_bridge.errors import bridge_error
from revithion_bridge.event_hub import EventHub, Published
from revithion_bridge.messages import MAX_MESSAGE_BYTES, Door, Reply, Request
from revithion_bridge.rate_limit import RateLimits
from revithion_bridge.service_api import Caller, Service
from revithion_bridge.zap_gate import ZapGate
from revithion_stems.errors import RevithionError, unexpected_error

_LOG = logging.getLogger(__name__)
_DOMAIN = "revithion"
SOCKET_FOLDER_PREFIX = "revithion-sockets-"
_LINGER_MS = 500
_CURVE_BYTES = 1024  # ZeroMQ counts a message with what encryption adds; the codec knows the limit to the byte
_GRACE_S = 0.5
_IPC_PATH_BYTES = 100  # what every POSIX system has room for in a socket's address, with some to spare


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the doors are, as ZeroMQ writes it."""

    work: str
    control: str
    events: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """What one client may do.

    Attributes:
        rate_per_s: Requests per second and connection, in the long run.
        burst: Requests at once, after a pause.
        requests: Requests of one connection that may be worked on at the same time.
        all_requests: The same of all connections of a door together.
        unsent_events: Events that are kept for a subscriber who does not read; it then misses some.
    """

    rate_per_s: float = 500.0
    burst: float = 1000.0
    requests: int = 64
    all_requests: int = 1024
    unsent_events: int = 4096


class ZmqDoors:
    """Two ROUTER sockets and a PUB. One loop thread; on Windows a selector loop.

    Args:
        service: Answers the requests.
        hub: Its events are published.
        keys: Who is let in.
        limits: What each client may do.
    """

    def __init__(self, service: Service, hub: EventHub, keys: Keys, limits: DoorLimits | None = None) -> None:
        self._service = service
        self._hub = hub
        self._keys = keys
        self._limits = limits or DoorLimits()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> Endpoints:
        """Opens the doors.

        Raises:
            OSError: There is no place for them.
        """
        async with self._stack:
            self._folder = _private_folder()
            if self._folder is not None:
                self._stack.callback(self._folder.cleanup)
            context = zmq.asyncio.Context()
            self._stack.push_async_callback(asyncio.to_thread, context.term)
            gate = ZapGate(context, _DOMAIN, self._keys.client_public)
            self._stack.push_async_callback(gate.stop)
            gate.start()
            endpoints: dict[Door, str] = {}
            for door in Door:
                socket = context.socket(zmq.ROUTER)
                self._stack.callback(socket.close)
                endpoints[door] = self._bind(socket, door.value)
                requests = _Requests(door, socket, self._service, self._limits)
                requests.start()
                self._stack.push_async_callback(requests.stop)
            # Not an asyncio socket: PUB never waits, it drops what a slow subscriber has no room for.
            events = zmq.Context.shadow(context).socket(zmq.PUB)
            self._stack.callback(events.close)
            events.sndhwm = self._limits.unsent_events
            endpoint = self._bind(events, "events")

            def publish(published: Published) -> None:
                events.send_multipart([published.topic.encode(), published.payload], zmq.NOBLOCK)

            self._stack.callback(self._hub.subscribe(publish))
            self._stack = self._stack.pop_all()
        return Endpoints(work=endpoints[Door.WORK], control=endpoints[Door.CONTROL], events=endpoint)

    async def stop(self) -> None:
        """Closes the doors; what is being worked on is answered with ``daemon.stopping`` after a moment."""
        await self._stack.aclose()

    def _bind(self, socket: zmq.Socket[bytes] | zmq.asyncio.Socket, name: str) -> str:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.server_secret.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN.encode())
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES + _CURVE_BYTES)
        socket.setsockopt(zmq.LINGER, _LINGER_MS)
        if self._folder is None:
            socket.bind("tcp://127.0.0.1:*")
        else:
            socket.bind(f"ipc://{Path(self._folder.name) / name}")
        return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]


class _Requests:
    """What comes in by one door: each request is answered by a task of its own."""

    def __init__(self, door: Door, socket: zmq.asyncio.Socket, service: Service, limits: DoorLimits) -> None:
        self._door = door
        self._socket = socket
        self._service = service
        self._limits = limits
        self._rates = RateLimits(limits.rate_per_s, limits.burst)
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: Counter[bytes] = Counter()
        self._reading: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._reading = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE_S)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _read(self) -> None:
        while True:
            try:
                frames = await self._socket.recv_multipart()
                await self._take(frames[0], frames[1:])
            except Exception:  # noqa: BLE001 - no message whatsoever may close the door for the others
                _LOG.exception("a message to the %s door failed", self._door.value)
            # A socket with messages in it gives them without the loop having had a turn.
            await asyncio.sleep(0)

    async def _take(self, identity: bytes, frames: Sequence[bytes]) -> None:
        # DEALER sends the message alone, REQ an empty frame before it, and wants that back.
        route = [identity, *frames[:-1]][:2]
        data = frames[-1] if frames else b""
        try:
            if not self._rates.take(identity):
                raise bridge_error("protocol.rate", "too many requests in too short a time")
            if len(frames) != len(route) or any(route[1:]):
                raise bridge_error("protocol.malformed", "a message is one frame")
            re, client, request = decode_request(data, self._door)
            if self._busy[identity] >= self._limits.requests or len(self._tasks) >= self._limits.all_requests:
                raise bridge_error("protocol.rate", "too many requests at the same time")
        except RevithionError as exc:
            await self._send([*route, encode_reply(request_id(data), exc)])
            return
        self._busy[identity] += 1
        task = asyncio.create_task(self._answer(route, re, request, Caller(client=client, door="zmq", request_id=re)))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._busy[identity] -= 1
            if not self._busy[identity]:
                del self._busy[identity]

        task.add_done_callback(done)

    async def _answer(self, route: list[bytes], re: str, request: Request, caller: Caller) -> None:
        reply: Reply | RevithionError
        try:
            reply = await self._service.handle(request, caller)
        except RevithionError as exc:
            reply = exc
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            reply = bridge_error("daemon.stopping", "the daemon is about to end")
        except Exception as exc:  # noqa: BLE001 - whoever asked hears of it, and the log has the rest
            _LOG.exception("request %s failed", type(request).__name__)
            reply = unexpected_error(exc)
        await self._send([*route, encode_reply(re, reply)])

    async def _send(self, frames: list[bytes]) -> None:
        try:
            await self._socket.send_multipart(frames)  # ROUTER drops what a peer that is gone, or does not read, gets
        except zmq.ZMQError as exc:
            _LOG.warning("a reply could not be sent: %s", exc)


def _private_folder() -> tempfile.TemporaryDirectory[str] | None:
    """A new folder of mode 0700 for sockets; None where they can't be files."""
    if sys.platform == "win32" or not zmq.has("ipc"):
        return None
    folder = tempfile.TemporaryDirectory(prefix=SOCKET_FOLDER_PREFIX, ignore_cleanup_errors=True)
    longest = max(len(str(Path(folder.name) / name).encode()) for name in ("work", "control", "events"))
    if longest < _IPC_PATH_BYTES:
        return folder
    folder.cleanup()
    return None
