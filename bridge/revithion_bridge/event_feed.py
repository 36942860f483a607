"""A client's events: each once, in order, whatever was lost on the way; or word that some can't be had any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from revithion_bridge.codec import EventMessage, event_message
from revithion_bridge.daemon_link import News
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import (
    Events,
    GetEvents,
    GetJob,
    GetSnapshot,
    Heartbeat,
    JobDeleted,
    JobReply,
    Reply,
    Request,
    Snapshot,
)
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged

_MOST_UNREAD = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resynchronised:
    """Events before this can't be had any more: the daemon was started anew, or too many were missed.

    Attributes:
        snapshot: Where things stand now; the events that follow are those after it.
    """

    snapshot: Snapshot


FeedItem: TypeAlias = EventMessage | Resynchronised


class EventFeed:
    """Events from a snapshot on, as an asynchronous iterator. One loop thread; one reader.

    It is subscribed when it is made, and takes the snapshot when it is entered, started, or first read. Heartbeats are
    not in it. What a slow reader has not read is bounded: the rest is asked for again when its time comes.

    Args:
        call: Sends a request.
        listen: Subscribes to the news.
        job_id: Only events of this job, up to its end; None for all, without end.
    """

    def __init__(
        self,
        call: Callable[[Request], Awaitable[Reply]],
        listen: Callable[[Callable[[News], None]], Callable[[], None]],
        job_id: str | None = None,
    ) -> None:
        self._call = call
        self._job_id = job_id
        self._news: asyncio.Queue[News] = asyncio.Queue(_MOST_UNREAD)
        self._stop_listening = listen(self._put)
        self._epoch = ""
        self._seq = 0
        self._past: set[str] = set()
        self._started: Snapshot | None = None
        self._over = False
        self._items = self._read()

    async def start(self) -> Snapshot:
        """Takes the snapshot; again, it gives the first one.

        Raises:
            RevithionError: The daemon's answer, such as ``job.unknown``, or ``daemon.unreachable``.
        """
        if self._started is None:
            self._started = await self._snapshot()
            if self._job_id is not None:
                self._over = (await self._job(self._job_id)).job.state.is_final
        return self._started

    async def aclose(self) -> None:
        """Ends it; nothing more comes."""
        self._stop_listening()
        await self._items.aclose()

    def __aiter__(self) -> EventFeed:
        return self

    async def __anext__(self) -> FeedItem:
        try:
            return await anext(self._items)
        except BaseException as exc:
            if not isinstance(exc, asyncio.CancelledError):
                self._stop_listening()
            raise

    async def __aenter__(self) -> EventFeed:
        try:
            await self.start()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _put(self, news: News) -> None:
        if self._news.full():
            if isinstance(news, EventMessage):
                return  # the next one that is read shows the gap
            self._news.get_nowait()
        self._news.put_nowait(news)

    async def _read(self) -> AsyncGenerator[FeedItem]:
        await self.start()
        ended = self._over  # before the first item; its last events may have come after the snapshot
        if ended:
            self._put(None)
        while True:
            for item in await self._take(await self._news.get()):
                if self._is_of_interest(item):
                    yield item
                if self._is_end(item) or (isinstance(item, Resynchronised) and await self._job_is_over()):
                    return
            if ended:
                return

    async def _take(self, news: News) -> list[FeedItem]:
        """What an item of news leads to: itself, what was missed before it, or nothing."""
        if isinstance(news, RevithionError):
            raise news
        if news is not None and news.epoch in self._past:
            return []
        ahead = news is not None and news.seq - (not isinstance(news.event, Heartbeat)) > self._seq
        items = await self._missed() if news is None or news.epoch != self._epoch or ahead else []
        if news is not None and news.epoch == self._epoch and news.seq == self._seq + 1:
            self._seq = news.seq
            items.append(news)
        return items

    async def _missed(self) -> list[FeedItem]:
        items: list[FeedItem] = []
        while True:
            try:
                reply = await self._call(GetEvents(epoch=self._epoch, seq=self._seq))
            except RevithionError as exc:
                if exc.code != "events.gone":
                    raise
                return [*items, Resynchronised(snapshot=await self._snapshot())]
            assert isinstance(reply, Events)
            for message in map(event_message, reply.events):
                if message.seq > self._seq:
                    self._seq = message.seq
                    items.append(message)
            if not reply.events or self._seq >= reply.last_seq:
                return items

    async def _snapshot(self) -> Snapshot:
        snapshot = await self._call(GetSnapshot())
        assert isinstance(snapshot, Snapshot)
        if snapshot.epoch != self._epoch:
            self._past.add(self._epoch)
        self._epoch, self._seq = snapshot.epoch, snapshot.seq
        return snapshot

    async def _job(self, job_id: str) -> JobReply:
        reply = await self._call(GetJob(job_id=job_id))
        if not isinstance(reply, JobReply):
            raise bridge_error("protocol.malformed", f"not an answer to job.status: {type(reply).__name__}")
        return reply

    async def _job_is_over(self) -> bool:
        if self._job_id is None:
            return False
        with contextlib.suppress(RevithionError):
            return (await self._job(self._job_id)).job.state.is_final
        return True

    def _is_of_interest(self, item: FeedItem) -> bool:
        if self._job_id is None or isinstance(item, Resynchronised):
            return True
        return getattr(item.event, "job_id", None) == self._job_id

    def _is_end(self, item: FeedItem) -> bool:
        if self._job_id is None or isinstance(item, Resynchronised) or not self._is_of_interest(item):
            return False
        event = item.event
        return isinstance(event, JobDeleted) or (isinstance(event, JobChanged) and event.state.is_final)
