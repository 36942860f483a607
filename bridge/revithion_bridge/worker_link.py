"""The daemon's end of a worker: starts the process, sends it messages, and hands what it says to the event loop."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

import msgspec

from revithion_bridge.worker_messages import FromWorker, ToWorker

_LAST_LINES = 20
_MAX_LINE_BYTES = 1 << 24
_KILLED_S = 10.0
"""How long the system may take to end a process that was killed; it waits for a disk or a GPU driver then."""

_PIPES_S = 5.0
"""How long stderr may stay open after that: something that a library started may have it too."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGone:
    """The process has ended, whatever the reason.

    Attributes:
        status: Its exit status; minus the number of the signal that ended it.
        last_lines: What it printed last on stderr.
    """

    status: int
    last_lines: tuple[str, ...]


OnMessage = Callable[[FromWorker | WorkerGone], None]


class WorkerLink:
    """One process, from :meth:`start` to its end. Methods are called on the loop's thread, and none of them blocks.

    Pipes can't be watched by the loop on Windows: three threads read and write them, and end with the process.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_message: Called on the loop with each message, and at last, once, with :class:`WorkerGone`.
        loop: The daemon's.
        env: Environment of the process; by default the daemon's.
    """

    def __init__(
        self,
        device: str,
        on_message: OnMessage,
        *,
        loop: asyncio.AbstractEventLoop,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._device = device
        self._on_message = on_message
        self._loop = loop
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._last_lines: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self._gone = asyncio.Event()

    def start(self) -> None:
        """Starts the process; :class:`~revithion_bridge.worker_messages.Ready` is its first message.

        Raises:
            OSError: It can't be started.
        """
        assert self._process is None, "a link is good for one process"
        process = subprocess.Popen(
            # -P: what lies in the current folder is not imported.
            [sys.executable, "-P", "-m", "revithion_bridge.worker", "--device", self._device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # glibc gives each thread a heap of its own, which keeps what was freed: the worker would grow for hours.
            env={"MALLOC_ARENA_MAX": "2", **(os.environ if self._env is None else self._env)},
            start_new_session=True,  # Ctrl-C in the daemon's terminal does not reach it
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        log = threading.Thread(target=self._log, args=(process.stderr,), name="worker-log", daemon=True)
        write = threading.Thread(target=self._write, args=(process.stdin,), name="worker-write", daemon=True)
        read = threading.Thread(
            target=self._read, args=(process, process.stdout, (log, write)), name="worker-read", daemon=True
        )
        for thread in (log, write, read):
            thread.start()

    @property
    def pid(self) -> int | None:
        """Of the process; None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def send(self, message: ToWorker) -> None:
        """Sends a message; to a process that has ended it is lost, and :class:`WorkerGone` is on its way."""
        self._outgoing.put(msgspec.json.encode(message) + b"\n")

    async def stop(self, timeout_s: float) -> None:
        """Asks the process to end, by closing its stdin, and kills it after ``timeout_s``; returns when it has ended.

        The caller has had :class:`WorkerGone` by then.

        Raises:
            TimeoutError: The system did not end it, though it was killed.
        """
        if self._process is None:
            return
        self._outgoing.put(None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), timeout_s)
            return
        self.kill()
        await asyncio.wait_for(self._gone.wait(), _KILLED_S)

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()

    # --- the threads ---

    def _write(self, pipe: IO[bytes]) -> None:
        try:
            while (line := self._outgoing.get()) is not None:
                pipe.write(line)
                pipe.flush()
        except OSError:
            pass  # the process has ended
        finally:
            with contextlib.suppress(OSError):
                pipe.close()

    def _log(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode("utf-8", "replace").rstrip()
                self._last_lines.append(text)
                _logger.info("worker %s: %s", self._device, text)

    def _read(self, process: subprocess.Popen[bytes], pipe: IO[bytes], others: tuple[threading.Thread, ...]) -> None:
        decoder = msgspec.json.Decoder[FromWorker](FromWorker)
        with pipe:
            try:
                while line := pipe.readline(_MAX_LINE_BYTES):
                    self._tell(decoder.decode(line))
            except msgspec.MsgspecError:
                # A line that was cut off by the end of the process, or one that is not of ours: no good comes of it.
                process.kill()
        status = process.wait()
        self._outgoing.put(None)
        for thread in others:
            thread.join(_PIPES_S)
        self._tell(WorkerGone(status=status, last_lines=tuple(self._last_lines)))

    def _tell(self, message: FromWorker | WorkerGone) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._deliver, message)

    def _deliver(self, message: FromWorker | WorkerGone) -> None:
        try:
            self._on_message(message)
        finally:
            if isinstance(message, WorkerGone):
                self._gone.set()
