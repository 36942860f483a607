"""The daemon's events for a command that must also look at Ctrl-C meanwhile."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from revithion_stems.errors import RevithionError

if TYPE_CHECKING:
    from revithion_bridge.client import Client
    from revithion_bridge.codec import EventMessage
    from revithion_bridge.event_feed import Resynchronised

_END = object()
_MOST_WAITING = 1_000


class EventReader:
    """Reads a client's events on a thread of its own; :meth:`next` on another one. A context manager.

    Leaving it closes the client, which is what ends that thread. A wait for the client itself could not be interrupted
    on Windows.

    Args:
        client: To read from.
        job_id: Only this job's events, up to its last one; None for all, without end.
    """

    def __init__(self, client: Client, job_id: str | None = None) -> None:
        self._client = client
        self._job_id = job_id
        self._items: queue.Queue[object] = queue.Queue(_MOST_WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="events", daemon=True)

    def __enter__(self) -> EventReader:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closed = True
        self._client.close()
        while self._thread.is_alive():
            while not self._items.empty():  # it may wait for room
                self._items.get_nowait()
            self._thread.join(0.05)

    def next(self, timeout_s: float) -> EventMessage | Resynchronised | None:
        """The next item; None if there was none in that time.

        Raises:
            EOFError: The job has ended.
            RevithionError: The daemon is gone.
        """
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if item is _END:
            raise EOFError
        if isinstance(item, BaseException):
            raise item
        return item  # pyright: ignore[reportReturnType] — nothing else is put in

    def _read(self) -> None:
        try:
            for item in self._client.events(self._job_id):
                self._items.put(item)
                if self._closed:
                    return
            self._items.put(_END)
        except RevithionError as exc:
            self._items.put(exc)
        except Exception as exc:  # noqa: BLE001 — handed over to the thread that waits
            if not self._closed:
                self._items.put(exc)
