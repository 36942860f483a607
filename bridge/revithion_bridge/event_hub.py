"""Where all events of a daemon's run get their number, are kept for a while, and go to the doors."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from revithion_bridge.codec import AnyEvent, Parent, encode_event
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import EVENTS, MAX_MESSAGE_BYTES, TRANSIENT, DaemonEvent

__all__ = ["EventHub", "Parent", "Published"]

_LOG = logging.getLogger(__name__)
_TOPICS: dict[type[Any], str] = {spec.kind: spec.topic for spec in EVENTS}
_ROOM_BYTES = 4096  # of a reply, for what is around the events


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An event on its way out.

    Attributes:
        seq: Its number; of a transient event, that of the last one before it.
        topic: What subscriptions are matched with.
        event: It, with that ``seq``.
        payload: Its envelope, in bytes.
    """

    seq: int
    topic: str
    event: AnyEvent
    payload: bytes


class EventHub:
    """Numbers events, keeps the latest, and hands them to subscribers. The daemon's loop thread only.

    Args:
        first_seq: Number of the first event.
        keep: At most so many are kept for those who missed some.
        keep_bytes: At most so many bytes of them.

    Attributes:
        epoch: Names this run: numbers of different runs have nothing to do with each other.
        last_seq: Number of the last event.
    """

    def __init__(self, first_seq: int = 1, keep: int = 1_000, keep_bytes: int = 1 << 20) -> None:
        self.epoch = secrets.token_hex(8)
        self.last_seq = first_seq - 1
        self._keep = keep
        self._keep_bytes = keep_bytes
        self._kept: deque[bytes] = deque()  # contiguous, up to last_seq
        self._kept_bytes = 0
        self._subscribers: dict[object, Callable[[Published], None]] = {}

    def publish(self, event: AnyEvent, parent: Parent | None = None) -> Published:
        """Gives an event the next number and hands it to all subscribers.

        One of :data:`~revithion_bridge.messages.TRANSIENT` takes no number and is not kept.
        """
        transient = isinstance(event, TRANSIENT)
        seq = self.last_seq + (not transient)
        if isinstance(event, DaemonEvent):
            event = msgspec.structs.replace(event, seq=seq)
        else:
            event = dataclasses.replace(event, seq=seq)
        payload = encode_event(event, epoch=self.epoch, seq=seq, time=time.time(), parent=parent)
        published = Published(seq=seq, topic=_topic(event), event=event, payload=payload)
        if not transient:
            self.last_seq = seq
            self._remember(payload)
        for subscriber in tuple(self._subscribers.values()):
            try:
                subscriber(published)
            except Exception:  # noqa: BLE001 - a door at fault must not keep events from the others
                _LOG.exception("a subscriber failed on event %d", seq)
        return published

    def since(self, epoch: str, seq: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Envelopes of the events after ``seq``, oldest first, and the number of the last event that there is.

        They are at most ``limit``, and never more than one reply has room for.

        Raises:
            RevithionError: ``events.gone``: they are no longer kept, or of another run, or not yet.
        """
        first = self.last_seq - len(self._kept)
        if epoch != self.epoch:
            raise bridge_error("events.gone", f"events of run {epoch!r} are asked for; this is {self.epoch!r}")
        if not first <= seq <= self.last_seq:
            raise bridge_error("events.gone", f"events after {first} are kept, up to {self.last_seq}; not after {seq}")
        events: list[dict[str, Any]] = []
        room = MAX_MESSAGE_BYTES - _ROOM_BYTES
        for payload in itertools.islice(self._kept, seq - first, seq - first + limit):
            room -= len(payload) + 1
            if room < 0 and events:
                break
            events.append(msgspec.json.decode(payload))
        return events, self.last_seq

    def subscribe(self, callback: Callable[[Published], None]) -> Callable[[], None]:
        """Calls ``callback`` with each event from now on, until the returned function is called.

        The callback must neither block nor publish.
        """
        key = object()
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    def _remember(self, payload: bytes) -> None:
        self._kept.append(payload)
        self._kept_bytes += len(payload)
        while self._kept and (len(self._kept) > self._keep or self._kept_bytes > self._keep_bytes):
            self._kept_bytes -= len(self._kept.popleft())


def _topic(event: AnyEvent) -> str:
    return _TOPICS[type(event)].format(job_id=getattr(event, "job_id", ""), stem=getattr(event, "stem", ""))
