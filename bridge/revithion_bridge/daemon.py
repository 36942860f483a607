"""The daemon: everything put together, started in order, stopped in reverse. ``python -m revithion_bridge.daemon``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from revithion_bridge.connection import (
    Connection,
    daemon_folder,
    load_keys,
    own_folders,
    read_connection,
    remove_connection,
    write_connection,
)
from revithion_bridge.daemon_log import open_log
from revithion_bridge.daw_desk.desk import DawDesk
from revithion_bridge.daw_desk.strip_faders import StripFaders
from revithion_bridge.errors import bridge_error
from revithion_bridge.event_hub import EventHub
from revithion_bridge.job_queue import IDLE_UNLOAD_S, JobQueue, QueueLimits
from revithion_bridge.ledger import Ledger
from revithion_bridge.live_stage import LiveStage
from revithion_bridge.messages import HEARTBEAT_S, Heartbeat
from revithion_bridge.osc_door import OscDoor
from revithion_bridge.path_jail import PathJail, default_roots
from revithion_bridge.service import DaemonService
from revithion_bridge.zmq_doors import SOCKET_FOLDER_PREFIX, ZmqDoors
from revithion_stems.errors import RevithionError
from revithion_stems.events import CancelToken
from revithion_stems.live import LiveControl, LiveOptions
from revithion_stems.version import __version__

_LOG = logging.getLogger("revithion_bridge.daemon")  # and not __main__
PATIENCE_S = 60.0
"""How long the end waits for network runs; then their process is killed, and the journal goes on from there."""
_SEQ_BLOCK = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """How a daemon runs.

    Attributes:
        roots: Folders that paths must be in; empty for :func:`~revithion_bridge.path_jail.default_roots`.
        osc_port: UDP and TCP port of the OSC door; 0 for free ones, None for no such door.
        idle_unload_s: After so long without a job a worker ends.
        patience_s: How long the end waits for network runs.
    """

    roots: tuple[Path, ...] = ()
    osc_port: int | None = 0
    idle_unload_s: float = IDLE_UNLOAD_S
    patience_s: float = PATIENCE_S


class Daemon:
    """One daemon. On its own loop.

    Args:
        options: How it runs.
        on_ready: Called with what clients need to know, once everything runs.
    """

    def __init__(self, options: DaemonOptions, on_ready: Callable[[Connection], None] | None = None) -> None:
        self._options = options
        self._on_ready = on_ready
        self._over = asyncio.Event()
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Asks for the end; on the loop."""
        self._over.set()

    async def run(self) -> None:
        """Runs until somebody asks for the end.

        Raises:
            DaemonError: Another daemon runs already, or this one could not be started.
            BaseException: Whatever nobody foresaw; what was running goes on at the next start.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        folder = daemon_folder()
        with _own(folder), contextlib.closing(open_log(folder / "daemon.log")):
            _LOG.info("daemon %s starts, process %d", __version__, os.getpid())
            _sweep()
            try:
                async with self._running(folder) as connection:
                    if self._on_ready is not None:
                        self._on_ready(connection)
                    with _signals(loop, self.stop):
                        await self._over.wait()
                    remove_connection()
            except BaseException:
                _LOG.exception("daemon ends by an error")
                raise
            finally:
                remove_connection()
            if self._failure is not None:
                raise self._failure
            _LOG.info("daemon ends")

    @contextlib.asynccontextmanager
    async def _running(self, folder: Path) -> AsyncGenerator[Connection]:
        keys, folders = load_keys(), own_folders()
        roots = self._options.roots or tuple(default_roots())
        with contextlib.closing(Ledger(folder / "ledger.sqlite")) as ledger:
            first_seq = int(ledger.meta("seq") or 0) + 1
            hub = EventHub(first_seq)
            limits = QueueLimits(idle_unload_s=self._options.idle_unload_s)
            jail = PathJail(roots)
            queue = JobQueue(ledger, hub, jail, folder / "spans", limits)
            stage = LiveStage(_open_live, jail, publish=hub.publish)
            service = DaemonService(
                queue,
                ledger,
                hub,
                stage,
                stop=self.stop,
                roots=tuple(map(str, roots)),
                folders=folders,
            )
            desk, strip_faders = DawDesk(service, jail), StripFaders()
            service.add_answers(desk.answers | strip_faders.answers)
            await asyncio.wrap_future(ledger.set_meta("seq", str(first_seq + _SEQ_BLOCK)))
            await asyncio.wrap_future(ledger.prune(limits.ended))
            async with contextlib.AsyncExitStack() as stack:
                stack.push_async_callback(queue.stop, self._options.patience_s)
                await queue.start()
                stack.push_async_callback(desk.stop)
                desk.start()
                stack.push_async_callback(strip_faders.close)
                stack.push_async_callback(stage.close)
                doors = ZmqDoors(service, hub, keys)
                endpoints = await doors.start()
                stack.push_async_callback(doors.stop)
                udp_port = tcp_port = None
                if self._options.osc_port is not None:
                    port = self._options.osc_port
                    osc = OscDoor(service, hub, keys.osc_token, udp_port=port, tcp_port=port, standing=stage.standing)
                    udp_port, tcp_port = await osc.start()
                    stack.push_async_callback(osc.stop)
                    service.show_counters(osc.counters)
                ticking = asyncio.create_task(self._tick(queue, hub, ledger, limits))
                ticking.add_done_callback(self._on_task_end)
                stack.callback(ticking.cancel)
                connection = Connection(
                    version=__version__,
                    pid=os.getpid(),
                    epoch=hub.epoch,
                    work=endpoints.work,
                    control=endpoints.control,
                    events=endpoints.events,
                    server_key=keys.server_public,
                    client_public=keys.client_public,
                    client_secret=keys.client_secret,
                    osc_udp_port=udp_port,
                    osc_tcp_port=tcp_port,
                    osc_token=keys.osc_token,
                    folders=folders,
                )
                write_connection(connection)
                yield connection

    async def _tick(self, queue: JobQueue, hub: EventHub, ledger: Ledger, limits: QueueLimits) -> None:
        """Each second: a heartbeat, and what waits for time to pass."""
        reserved = int(ledger.meta("seq") or 0)
        ended = 0
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            queue.tick()
            running = sum(lane.job_id is not None for lane in queue.lanes.values())
            waiting = sum(len(lane.schedule) for lane in queue.lanes.values())
            hub.publish(Heartbeat(seq=hub.last_seq, waiting=waiting, running=running))
            if hub.last_seq > reserved - _SEQ_BLOCK // 2:
                # Numbers are reserved before they are used, so that they grow over any restart.
                reserved = hub.last_seq + _SEQ_BLOCK
                with contextlib.suppress(RevithionError):
                    await asyncio.wrap_future(ledger.set_meta("seq", str(reserved)))
            now_ended = queue.counters["done"] + queue.counters["failed"] + queue.counters["cancelled"]
            if now_ended > ended + 100:
                ended = now_ended
                with contextlib.suppress(RevithionError):
                    await asyncio.wrap_future(ledger.prune(limits.ended))

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fail(task.exception())

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An error in a callback: whatever state it left, a new process comes up from the ledger."""
        error = context.get("exception")
        if isinstance(error, Exception):
            self._fail(error)
        else:
            loop.default_exception_handler(context)

    def _fail(self, error: BaseException | None) -> None:
        _LOG.error("the daemon ends: nobody foresaw this", exc_info=error)
        self._failure = self._failure or error
        self._over.set()


def _open_live(options: LiveOptions, cancel: CancelToken) -> LiveControl:
    """Starts a live session. Imported when it is asked for: most daemons never play, and stay small."""
    from revithion_realtime.session import open_live

    return open_live(options, cancel)


@contextlib.contextmanager
def _own(folder: Path) -> Generator[None]:
    lock = FileLock(folder / "lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise bridge_error("daemon.running", f"a daemon runs already with its state in {folder}") from None
    try:
        yield
    finally:
        lock.release()


def _sweep() -> None:
    """Removes what a daemon that was killed left: its connection file, and the folder of its sockets."""
    with contextlib.suppress(RevithionError):
        before = read_connection()
        if before is not None and before.work.startswith("ipc://"):
            folder = Path(before.work.removeprefix("ipc://")).parent
            if folder.name.startswith(SOCKET_FOLDER_PREFIX):
                shutil.rmtree(folder, ignore_errors=True)
    remove_connection()


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> Generator[None]:
    """SIGTERM and Ctrl-C ask for the end."""

    def ask(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)

    numbers = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, ask) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def run_daemon(options: DaemonOptions, on_ready: Callable[[Connection], None] | None = None) -> None:
    """Runs a daemon on this thread, the main one, until it ends.

    Raises:
        RevithionError: It could not be started, or ended by an error.
    """
    # ZeroMQ's sockets are watched by add_reader, which the default loop of Windows does not have.
    factory = asyncio.SelectorEventLoop if sys.platform == "win32" else None

    async def main() -> None:
        await Daemon(options, on_ready).run()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the process that is started on demand; people use ``revithion-stems serve``."""
    parser = argparse.ArgumentParser(prog="revithion_bridge.daemon")
    parser.add_argument("--root", action="append", type=Path, default=[])
    parser.add_argument("--osc-port", type=int, default=0)
    parser.add_argument("--idle-unload", type=float, default=IDLE_UNLOAD_S)
    arguments = parser.parse_args(argv)
    options = DaemonOptions(
        roots=tuple(arguments.root),
        osc_port=None if arguments.osc_port < 0 else arguments.osc_port,
        idle_unload_s=arguments.idle_unload,
    )
    try:
        run_daemon(options)
    except RevithionError as exc:
        sys.stderr.write(f"{exc.message}\n  → {exc.hint}\n")
        return exc.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
