"""A lane: one device, the process that owns it, and the jobs that wait for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import WorkerInfo
from revithion_bridge.worker_link import WorkerGone, WorkerLink
from revithion_bridge.worker_messages import FromWorker, Ready, Run, Stop, ToWorker
from revithion_stems.scheduler import Schedule

_LOG = logging.getLogger(__name__)
_START_S = 60.0

LaneCallback = Callable[["Lane", FromWorker | WorkerGone], None]


class Lane:
    """One device. On the daemon's loop.

    Args:
        device: ``auto`` for the best there is, which is known after :meth:`start`, or its name.
        on_message: Called on the loop with all that the process says, :class:`Ready` aside.

    Attributes:
        device: Its name.
        schedule: The jobs that wait for it.
        job_id: The one that runs, or None.
        told_to_stop: When the running job was told to stop, on the monotonic clock, or None.
        model: What the process has loaded, or None.
        memory_bytes: Its resident memory when it last said so.
        restarts: How often it was lost.
    """

    def __init__(self, device: str, on_message: LaneCallback) -> None:
        self.device = device
        self.schedule = Schedule()
        self.job_id: str | None = None
        self.told_to_stop: float | None = None
        self.model: str | None = None
        self.memory_bytes = 0
        self.restarts = 0
        self.idle_since = time.monotonic()
        self._on_message = on_message
        self._link: WorkerLink | None = None
        self._ready: asyncio.Event = asyncio.Event()
        self._stopping = False

    async def start(self) -> None:
        """Starts the process and waits until it is ready.

        Raises:
            DaemonError: It is not within a minute.
        """
        self._spawn()
        try:
            async with asyncio.timeout(_START_S):
                await self._ready.wait()
        except TimeoutError:
            raise bridge_error("daemon.start_failed", f"the process for {self.device} does not start") from None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._link is not None

    @property
    def info(self) -> WorkerInfo:
        """What everybody may see."""
        return WorkerInfo(
            device=self.device,
            pid=self._link.pid if self._link is not None else None,
            job=self.job_id,
            model=self.model,
            memory_bytes=self.memory_bytes,
            restarts=self.restarts,
        )

    def run(self, job: Run) -> None:
        """Gives the process a job; starts the process if it is not there."""
        if self._link is None:
            self._spawn()
        self.job_id = job.job_id
        self.told_to_stop = None
        self._send(job)

    def stop_job(self) -> None:
        """Tells the process to end its job before the next network run."""
        if self.job_id is not None and self.told_to_stop is None:
            self.told_to_stop = time.monotonic()
            self._send(Stop(job_id=self.job_id))

    def free(self) -> str | None:
        """The job is over; returns its id."""
        job_id, self.job_id, self.told_to_stop = self.job_id, None, None
        self.idle_since = time.monotonic()
        return job_id

    def kill(self) -> None:
        """Ends the process at once; the callback hears of it as of any other loss."""
        if self._link is not None:
            self._link.kill()

    def stop(self, timeout_s: float) -> Coroutine[Any, Any, None]:
        """Takes the process off the lane at once: the next job gets a new one. Awaiting the result ends the old one,
        which is idle, or is killed after ``timeout_s``."""
        link, self._link = self._link, None
        self.model, self.memory_bytes = None, 0
        return _end(link, timeout_s)

    def _send(self, message: ToWorker) -> None:
        assert self._link is not None  # a job runs in a process
        self._link.send(message)

    def _spawn(self) -> None:
        self._ready.clear()

        def on_message(message: FromWorker | WorkerGone) -> None:
            if link is not self._link:
                return  # it was stopped on purpose
            if isinstance(message, Ready):
                self.device = message.device
                self._ready.set()
                _LOG.info("worker %d owns %s", message.pid, message.device)
                return
            if isinstance(message, WorkerGone):
                self._link = None
                self.model, self.memory_bytes = None, 0
                self.restarts += 1
            self._on_message(self, message)

        link = WorkerLink(self.device, on_message, loop=asyncio.get_running_loop())
        self._link = link
        link.start()


async def _end(link: WorkerLink | None, timeout_s: float) -> None:
    if link is not None:
        await link.stop(timeout_s)
