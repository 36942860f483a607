"""A client's events: each once, in order, whatever was lost on the way; or word that some can't be had any more."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from revithion_bridge.codec import EventMessage, event_message
from revithion_bridge.daemon_link import News
from revithion_bridge.messages import (
    TRANSIENT,
    Events,
    GetEvents,
    GetJob,
    GetSnapshot,
    JobDeleted,
    JobInfo,
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
    """Events from a snapshot on, as an asynchronous iterator and context manager. One loop thread; one reader.

    It is subscribed when it is made, and takes the snapshot when it is entered, started, or first read. Transient
    events are not in it. What a slow reader has not read is bounded: the rest is asked for again when its time comes.
    An error does not end it: reading on tries again.

    Args:
        call: Sends a request.
        listen: Subscribes to the news, for as long as the listener says True.
        job_id: Only events of this job, up to its end; None for all, without end.
        after: Epoch and ``seq`` of the event to begin after, instead of a snapshot.
    """

    def __init__(
        self,
        call: Callable[[Request], Awaitable[Reply]],
        listen: Callable[[Callable[[News], bool]], None],
        job_id: str | None = None,
        after: tuple[str, int] | None = None,
    ) -> None:
        self._call = call
        self._job_id = job_id
        self._news: asyncio.Queue[News] = asyncio.Queue(_MOST_UNREAD)
        self._items: deque[FeedItem] = deque()
        self._epoch, self._seq = after or ("", 0)
        self._past: set[str] = set()
        self._begun = after is not None
        self._behind = self._begun
        self._started = False
        self._job_over = False
        self._ended = False
        self._asking: asyncio.Task[None] | None = None
        itself = weakref.ref(self)

        def listener(news: News) -> bool:
            feed = itself()  # nobody has to close it: when it is forgotten, the link forgets it too
            return feed is not None and feed._hear(news)

        listen(listener)

    async def start(self) -> None:
        """Finds where to begin; events from then on are in it. Again, it does nothing.

        Raises:
            RevithionError: The daemon's answer, such as ``job.unknown``, or ``daemon.unreachable``.
        """
        if not self._begun:
            await self._snapshot()
            self._begun = True
        if not self._started:
            if self._job_id is not None:
                self._job_over = (await self._job(self._job_id)).state.is_final
                self._behind = self._behind or self._job_over  # its last events may have come after the snapshot
            self._started = True

    async def aclose(self) -> None:
        """Ends it; nothing more comes."""
        self._ended = True
        self._items.clear()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])

    def __aiter__(self) -> EventFeed:
        return self

    async def __anext__(self) -> FeedItem:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        return self._items.popleft()

    async def __aenter__(self) -> EventFeed:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _hear(self, news: News) -> bool:
        if self._ended:
            return False
        if not self._news.full():
            self._news.put_nowait(news)
        elif not isinstance(news, EventMessage):
            self._news.get_nowait()
            self._news.put_nowait(news)
        return True  # an event that is not taken is a gap, which the next one shows

    async def _advance(self) -> None:
        """Gets some items, or notes that some are missing. May be cancelled at any point without losing any."""
        if self._started and not self._behind:
            self._take(await self._news.get())
        if self._behind or not self._started:
            # It goes on when this is cancelled: whoever looks for a millisecond at a time shall get there too.
            self._asking = self._asking or asyncio.create_task(self._ask())
            try:
                await asyncio.shield(self._asking)
            finally:
                if self._asking.done():
                    self._asking = None
        if self._job_over and not self._behind:
            self._ended = True

    async def _ask(self) -> None:
        await self.start()
        if self._behind:
            await self._catch_up()

    def _take(self, news: News) -> None:
        if isinstance(news, RevithionError):
            raise news
        if news is None:
            self._behind = True
        elif news.epoch in self._past:
            pass  # of a daemon before this one, and still in the queue
        elif news.epoch != self._epoch:
            self._behind = True
        elif isinstance(news.event, TRANSIENT):
            self._behind = news.seq > self._seq
        elif news.seq == self._seq + 1:
            self._add(news)
        elif news.seq > self._seq:
            self._behind = True

    async def _catch_up(self) -> None:
        try:
            reply = await self._call(GetEvents(epoch=self._epoch, seq=self._seq))
        except RevithionError as exc:
            if exc.code != "events.gone":
                raise
            self._items.append(Resynchronised(snapshot=await self._snapshot()))
            self._started = False  # the job may have ended meanwhile
            self._behind = False
            return
        assert isinstance(reply, Events)
        for message in map(event_message, reply.events):
            if message.seq > self._seq:
                self._add(message)
        self._behind = bool(reply.events) and self._seq < reply.last_seq

    def _add(self, message: EventMessage) -> None:
        self._seq = message.seq
        event = message.event
        if self._ended or (self._job_id is not None and getattr(event, "job_id", None) != self._job_id):
            return
        self._items.append(message)
        if self._job_id is not None:
            self._ended = isinstance(event, JobDeleted) or (isinstance(event, JobChanged) and event.state.is_final)

    async def _snapshot(self) -> Snapshot:
        snapshot = await self._call(GetSnapshot())
        assert isinstance(snapshot, Snapshot)
        if snapshot.epoch != self._epoch:
            self._past.add(self._epoch)
        self._epoch, self._seq = snapshot.epoch, snapshot.seq
        return snapshot

    async def _job(self, job_id: str) -> JobInfo:
        reply = await self._call(GetJob(job_id=job_id))
        assert isinstance(reply, JobReply)
        return reply.job
