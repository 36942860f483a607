"""What is said by OSC, whichever way the packets come and go: who may ask, what is done, where answers go.

What a message means, which arguments it takes and what is answered stands in the tables of
:mod:`~revithion_bridge.messages`; here is what goes around it:

- ``/revithion/v1/hello  s:token [i:reply_port] [s:client]`` gives the sender (its UDP port, or its connection) a lease
  of 60 s, which each further message starts again. Replies and events go to ``reply_port`` (by UDP), else to where the
  message came from. Reply: ``/revithion/v1/hello/reply  i:version i:lease_s``.
- ``/revithion/v1/subscribe  [i:lease_s]`` sends all events to the same place for so long (1 to 3600 s, 60 if left
  out), and for as long as the lease holds, beginning with how the live preview stands. Reply: ``…/reply  i:lease_s``.
- ``/revithion/v1/unsubscribe`` ends that. Reply: ``…/reply``.
- All addresses of the table. Reply: the address with ``/reply`` after it.
- ``/revithion/v1/error  s:address s:code s:message s:hint`` is the answer to what was refused.

A sender without a lease puts the token before the arguments, and may put ``i:reply_port`` after them; that is meant for
programs that send one message and end, and gives no lease. One with a lease may do so too.

Who does not know the token changes nothing, gets at most one small error for each message, to the port that it sent
from, and soon none at all.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import PROTOCOL_VERSION, ClientName, Request
from revithion_bridge.osc_addresses import (
    HELLO,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Route,
    checked_number,
    checked_port,
    error_message,
    find_route,
    is_answer,
    reply_message,
)
from revithion_bridge.osc_packets import OscCall, Value, build_message, parse_message, split_packet
from revithion_bridge.osc_sessions import LEASE_S, MOST_LEASE_S, Name, Session, Sessions, TokenGuard
from revithion_bridge.rate_limit import RateLimits
from revithion_bridge.service_api import Caller, Service
from revithion_stems.errors import RevithionError, unexpected_error

MOST_PENDING = 256
"""Requests of one sender that wait for their answer; of all senders together, four times as many."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A request that waits for its turn."""

    address: str
    route: Route
    request: Request
    caller: Caller
    sender: Name
    target: Name


class OscDialogue:
    """Hears packets and says answers. On the daemon's loop.

    Args:
        service: Answers the requests.
        sessions: Who is known, and who gets events.
        guard: Knows the token.
        send: Sends a packet to a target; never raises.
        own_port: The daemon's own UDP port, that nothing must be sent to.
        counters: What happened, by name.
        clock: In seconds; for limits.
        on_refused: Called with the name of a sender without a lease, after each of its messages that was refused.
        on_subscribed: Called with each target that will get events from now on.
    """

    def __init__(
        self,
        service: Service,
        sessions: Sessions,
        guard: TokenGuard,
        *,
        send: Callable[[Name, bytes], None],
        own_port: int,
        counters: Counter[str],
        clock: Callable[[], float],
        on_refused: Callable[[Name], None],
        on_subscribed: Callable[[Name], None],
    ) -> None:
        self._service = service
        self._sessions = sessions
        self._guard = guard
        self._send = send
        self._own_port = own_port
        self._counters = counters
        self._on_refused = on_refused
        self._on_subscribed = on_subscribed
        self._serials = itertools.count(1)
        self._messages = RateLimits(1_000.0, 500.0, clock=clock)
        self._errors = RateLimits(50.0, 50.0, clock=clock)
        self._lanes: dict[Name, deque[_Pending]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Ends; requests that wait are not answered."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what comes in ---

    def receive(self, packet: bytes, sender: Name) -> None:
        """A packet came. Never raises: whatever is in it, the door lives on."""
        if sender == ("udp", self._own_port):
            return  # somebody made it talk to itself
        try:
            messages = split_packet(packet)
        except RevithionError as exc:
            session = self._sessions.find(sender)
            self._refuse(sender, session.target if session is not None else sender, "", exc)
            return
        for message in messages:
            self._receive_message(message, sender)

    def _receive_message(self, data: bytes, sender: Name) -> None:
        session = self._sessions.find(sender)
        target = session.target if session is not None else sender
        address = ""
        try:
            if not self._messages.take(sender):
                raise bridge_error("protocol.rate", "too many messages: this one was not looked at")
            call = parse_message(data)
            if is_answer(call.address):
                self._counters["osc.answers"] += 1  # two that answer each other's errors would never end
                return
            address = call.address
            self._counters["osc.messages"] += 1
            self._dispatch(call, sender, session)
        except _RefusedError as exc:
            self._refuse(sender, exc.target, address, exc.reason)
        except RevithionError as exc:
            self._refuse(sender, target, address, exc)
        except Exception as exc:  # noqa: BLE001 - a bug that one message brings out must not close the door
            _LOG.exception("an OSC message failed")
            self._refuse(sender, target, address, unexpected_error(exc))

    def _dispatch(self, call: OscCall, sender: Name, session: Session | None) -> None:
        arguments: Sequence[Value] = call.arguments
        if call.address == HELLO:
            self._guard.check(arguments[0] if arguments else None)
            self._hello(arguments[1:], sender)
            return
        with_token = True
        if session is None:
            self._guard.check(arguments[0] if arguments else None)
        else:
            self._sessions.renew(session)
            with_token = bool(arguments) and self._guard.is_token(arguments[0])
        if with_token:
            arguments = arguments[1:]
        target = session.target if session is not None else sender
        if call.address in (SUBSCRIBE, UNSUBSCRIBE):
            self._subscription(call.address, arguments, target, with_token=with_token)
            return
        route = find_route(call.address)
        if with_token:
            arguments, port = route.split_port(arguments)
            target = self._reply_target(port, target)
        try:
            request = route.request(call.address, arguments)
            self._enqueue(
                _Pending(
                    address=call.address,
                    route=route,
                    request=request,
                    caller=Caller(
                        client=session.client if session is not None else "osc",
                        door="osc",
                        request_id=f"osc-{next(self._serials)}",
                    ),
                    sender=sender,
                    target=target,
                )
            )
        except RevithionError as exc:
            raise _RefusedError(target, exc) from exc

    def _hello(self, arguments: Sequence[Value], sender: Name) -> None:
        rest = [value for value in arguments if value is not None]
        port = checked_port(rest.pop(0)) if rest and not isinstance(rest[0], str) else None
        client = rest.pop(0) if rest else "osc"
        try:
            client = msgspec.convert(client, ClientName)
        except msgspec.ValidationError as exc:
            raise bridge_error("protocol.malformed", f"{HELLO}: the client's name: {exc}") from exc
        if rest:
            raise bridge_error("protocol.malformed", f"{HELLO} takes a token, a port and a name, no more")
        session = self._sessions.open(sender, self._reply_target(port, sender), client)
        accepted = build_message(f"{HELLO}/reply", [("i", PROTOCOL_VERSION), ("i", round(LEASE_S))])
        self._send(session.target, accepted)

    def _subscription(self, address: str, arguments: Sequence[Value], target: Name, *, with_token: bool) -> None:
        rest = [value for value in arguments if value is not None]
        lease_s = round(LEASE_S)
        if address == SUBSCRIBE and rest:
            lease_s = checked_number(rest.pop(0), "the lease", 1, MOST_LEASE_S)
        if with_token and rest:
            target = self._reply_target(checked_port(rest.pop(0)), target)
        if rest:
            raise bridge_error("protocol.malformed", f"{address}: too many arguments")
        if address == SUBSCRIBE:
            self._sessions.subscribe(target, lease_s)
            self._send(target, build_message(f"{address}/reply", [("i", lease_s)]))
            self._on_subscribed(target)
        else:
            self._sessions.unsubscribe(target)
            self._send(target, build_message(f"{address}/reply", []))

    def _reply_target(self, port: int | None, otherwise: Name) -> Name:
        if port == self._own_port:
            raise bridge_error("protocol.malformed", f"the reply port can't be the daemon's own, {port}")
        return otherwise if port is None else ("udp", port)

    # --- requests, one at a time for each sender ---

    def _enqueue(self, pending: _Pending) -> None:
        lane = self._lanes.get(pending.sender, deque())
        if len(lane) >= MOST_PENDING or sum(map(len, self._lanes.values())) >= 4 * MOST_PENDING:
            raise bridge_error("protocol.rate", "too many requests wait for their answer: this one was not taken")
        lane.append(pending)
        if len(lane) == 1:
            self._lanes[pending.sender] = lane
            task = asyncio.get_running_loop().create_task(self._drain(pending.sender, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _drain(self, sender: Name, lane: deque[_Pending]) -> None:
        try:
            while lane:
                await self._answer(lane[0])
                lane.popleft()
        finally:
            del self._lanes[sender]

    async def _answer(self, pending: _Pending) -> None:
        try:
            reply = await self._service.handle(pending.request, pending.caller)
            answer = reply_message(pending.address, pending.route.spec, reply)
        except RevithionError as exc:
            self._refuse(pending.sender, pending.target, pending.address, exc)
        except Exception as exc:  # noqa: BLE001 - a bug that one request brings out must not close the door
            _LOG.exception("a request by OSC failed")
            self._refuse(pending.sender, pending.target, pending.address, unexpected_error(exc))
        else:
            self._send(pending.target, answer)

    # --- what goes out ---

    def _refuse(self, sender: Name, target: Name, address: str, error: RevithionError) -> None:
        self._counters[f"osc.{error.code}"] += 1
        _LOG.debug("OSC from %s: %s: %s", sender, error.code, error.message)
        known = self._sessions.find(sender) is not None
        # Strangers share one allowance: a port costs them nothing.
        if self._errors.take(sender if known or target != sender else "strangers"):
            self._send(target, error_message(address, error))
        if not known:
            self._on_refused(sender)


class _RefusedError(Exception):
    """A request of a sender who may make it was refused; the answer goes where its reply would have gone."""

    def __init__(self, target: Name, reason: RevithionError) -> None:
        super().__init__(reason.message)
        self.target = target
        self.reason = reason
