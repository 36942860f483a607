"""The door for OSC: controllers, DAWs and scripts that speak neither ZeroMQ nor Python.

UDP and TCP on 127.0.0.1; over TCP with SLIP (OSC 1.1) or lengths (OSC 1.0), as the peer does it. What is said there is
:mod:`~revithion_bridge.osc_dialogue`'s.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable

from revithion_bridge.codec import AnyEvent
from revithion_bridge.errors import bridge_error
from revithion_bridge.event_hub import EventHub, Published
from revithion_bridge.osc_addresses import event_messages
from revithion_bridge.osc_dialogue import OscDialogue
from revithion_bridge.osc_sessions import LEASE_S, Name, Sessions, TokenGuard
from revithion_bridge.osc_streams import OscConnection
from revithion_bridge.service_api import Service
from revithion_stems.errors import RevithionError

HOST = "127.0.0.1"
MOST_CONNECTIONS = 32
MOST_REFUSED = 20
"""After so many refused messages a TCP peer without a lease is dropped."""
_SWEEP_S = 1.0


class OscDoor:
    """Takes requests by OSC and sends events. On the daemon's loop.

    Args:
        service: Answers the requests.
        hub: Where the events come from.
        token: What senders must know.
        udp_port: To listen on; 0 for a free one.
        tcp_port: To listen on; 0 for a free one.
        clock: In seconds; for leases and limits.
        standing: Events that tell a new subscriber how things stand.

    Attributes:
        counters: What happened, by name.
    """

    def __init__(
        self,
        service: Service,
        hub: EventHub,
        token: str,
        *,
        udp_port: int = 0,
        tcp_port: int = 0,
        clock: Callable[[], float] = time.monotonic,
        standing: Callable[[], Iterable[AnyEvent]] = tuple,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._service = service
        self._hub = hub
        self._guard = TokenGuard(token, clock)
        self._sessions = Sessions(clock)
        self._clock = clock
        self._standing = standing
        self._ports = (udp_port, tcp_port)
        self._serials = itertools.count(1)
        self._connections: dict[Name, OscConnection] = {}
        self._dialogue: OscDialogue | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._udp_is_full = False
        self._tcp: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._leave_hub: Callable[[], None] | None = None

    async def start(self) -> tuple[int, int]:
        """Opens the UDP and the TCP port; which ones.

        Raises:
            RevithionError: ``daemon.start_failed``: one is taken.
        """
        loop = asyncio.get_running_loop()
        udp = _bound_socket(socket.SOCK_DGRAM, self._ports[0])
        try:
            tcp = _bound_socket(socket.SOCK_STREAM, self._ports[1])
        except RevithionError:
            udp.close()
            raise
        ports: tuple[int, int] = udp.getsockname()[1], tcp.getsockname()[1]
        dialogue = OscDialogue(
            self._service,
            self._sessions,
            self._guard,
            send=self._send,
            own_port=ports[0],
            counters=self.counters,
            clock=self._clock,
            on_refused=self._count_refused,
            on_subscribed=self._tell_standing,
        )
        self._dialogue = dialogue
        self._udp, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(dialogue.receive, self._on_unsent, self._on_full), sock=udp
        )
        self._tcp = await loop.create_server(
            lambda: OscConnection(
                ("tcp", next(self._serials)),
                self._clock,
                on_open=self._welcome,
                on_packet=lambda packet, connection: dialogue.receive(packet, connection.name),
                on_closed=self._forget,
            ),
            sock=tcp,
            backlog=MOST_CONNECTIONS,
        )
        self._leave_hub = self._hub.subscribe(self._send_event)
        self._sweep()
        return ports

    async def stop(self) -> None:
        """Closes everything; requests that wait are not answered. Harmless if it was not started."""
        if self._leave_hub is not None:
            self._leave_hub()
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._tcp is not None:
            self._tcp.close()
        if self._dialogue is not None:
            await self._dialogue.close()
        for connection in tuple(self._connections.values()):
            connection.drop()
        if self._udp is not None:
            self._udp.abort()
        if self._tcp is not None:
            await self._tcp.wait_closed()
        await asyncio.sleep(0)  # transports close their sockets in the loop's next round

    # --- what goes out ---

    def _send(self, target: Name, packet: bytes) -> None:
        kind, number = target
        if kind == "tcp":
            connection = self._connections.get(target)
            if connection is None or not connection.send(packet):
                self._on_unsent()
        elif self._udp is None or self._udp.is_closing() or self._udp_is_full:
            self._on_unsent()
        else:
            self._udp.sendto(packet, (HOST, number))

    def _send_event(self, published: Published) -> None:
        targets = self._sessions.subscribed()
        for packet in event_messages(published.event) if targets else ():
            for target in targets:
                self._send(target, packet)

    def _tell_standing(self, target: Name) -> None:
        for event in self._standing():
            for packet in event_messages(event):
                self._send(target, packet)

    def _on_unsent(self) -> None:
        self.counters["osc.unsent"] += 1

    def _on_full(self, is_full: bool) -> None:
        self._udp_is_full = is_full

    # --- connections ---

    def _welcome(self, connection: OscConnection) -> bool:
        if len(self._connections) >= MOST_CONNECTIONS:
            strangers = (c for c in self._connections.values() if self._sessions.find(c.name) is None)
            oldest = min(strangers, key=lambda c: c.heard_at, default=None)
            if oldest is None:
                self.counters["osc.turned_away"] += 1
                return False
            oldest.drop()
        self._connections[connection.name] = connection
        return True

    def _count_refused(self, sender: Name) -> None:
        connection = self._connections.get(sender)
        if connection is not None:
            connection.refused += 1
            if connection.refused > MOST_REFUSED:
                connection.drop()

    def _forget(self, connection: OscConnection) -> None:
        self._connections.pop(connection.name, None)
        self._sessions.forget(connection.name)

    def _sweep(self) -> None:
        self._sessions.sweep()
        for connection in tuple(self._connections.values()):
            if self._clock() - connection.heard_at > LEASE_S and not self._sessions.is_subscribed(connection.name):
                connection.drop()
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(
        self,
        on_packet: Callable[[bytes, Name], None],
        on_unsent: Callable[[], None],
        on_full: Callable[[bool], None],
    ) -> None:
        self._on_packet = on_packet
        self._on_unsent = on_unsent
        self._on_full = on_full

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if addr[0] == HOST:  # 127.0.0.2 is this machine too, but nothing that we know of sends from it
            self._on_packet(data, ("udp", addr[1]))

    def error_received(self, exc: Exception) -> None:
        self._on_unsent()  # nobody listens there, or it is too long for a datagram; UDP promises nothing

    def pause_writing(self) -> None:
        self._on_full(True)

    def resume_writing(self) -> None:
        self._on_full(False)


def _bound_socket(kind: socket.SocketKind, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, kind)
    try:
        if sys.platform == "win32":  # where others could else bind to it too, and read the tokens
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        elif kind is socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except (OSError, OverflowError) as exc:
        bound.close()
        name = "UDP" if kind is socket.SOCK_DGRAM else "TCP"
        raise bridge_error("daemon.start_failed", f"OSC's {name} port {port} can't be opened: {exc}") from exc
    bound.setblocking(False)
    return bound
