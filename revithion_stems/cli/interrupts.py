"""Ctrl-C and SIGTERM while native code runs: the work is on a thread of its own and stops at its next check."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from revithion_stems.events import CancelToken

T = TypeVar("T")


def run_cancellable(work: Callable[[], T], cancel: CancelToken, on_interrupt: Callable[[], None]) -> T:
    """Runs ``work`` on another thread and waits for it on the main one.

    Args:
        work: Looks at ``cancel`` now and then, and raises when it is set.
        cancel: Set by the first signal; later ones change nothing, so that the work can clean up.
        on_interrupt: Called on the main thread after that.

    Returns:
        What ``work`` returns; its exception is raised here.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []
    over = threading.Event()

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as exc:  # noqa: BLE001 — handed over to the thread that waits
            failure.append(exc)
        finally:
            over.set()

    with sigterm_interrupts():
        threading.Thread(target=target, name="work").start()
        # An event and not Thread.join: CPython 3.11 takes a thread whose join was interrupted for finished. In steps,
        # because on Windows a wait without a limit would not see Ctrl-C.
        while not over.is_set():
            try:
                over.wait(0.1)
            except KeyboardInterrupt:
                if not cancel.cancelled:
                    cancel.cancel()
                    on_interrupt()
    if failure:
        raise failure[0]
    return outcome[0]


@contextlib.contextmanager
def sigterm_interrupts() -> Generator[None]:
    """SIGTERM acts like Ctrl-C inside. Only the main thread can set that; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
