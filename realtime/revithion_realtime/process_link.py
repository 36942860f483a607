"""A child process and the pipe to it: its errors come back as ours, and it ends when the pipe does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from revithion_stems.errors import LiveError, RevithionError, unexpected_error
from revithion_stems.events import CancelToken

_END_S = 3.0
_LOOK_S = 0.2


class ProcessLink:
    """A process started by ``spawn``, so that nothing of this one is in it.

    One thread at a time, but any other may :meth:`close` it: who waits for a message then learns that it is gone.

    Args:
        target: A function of a module, called with the child's end of the pipe; see :func:`child_process`.
        name: For people, in errors and process lists.
        log: File that takes what libraries print in the child; a terminal's screen must not be written over.
    """

    def __init__(self, target: Callable[[Connection], None], name: str, log: Path | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(target, theirs, str(log) if log is not None else os.devnull), name=name, daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    @property
    def has_message(self) -> bool:
        """Whether :meth:`receive` would not wait: there is a message, or the process has ended."""
        try:
            return self._pipe.poll(0.0)
        except OSError:
            return True

    def send(self, message: object) -> None:
        """Sends a message.

        Raises:
            RevithionError: What ended the process, or ``live.failed``.
        """
        try:
            self._pipe.send(message)
        except OSError:
            self.receive(0.0)
            raise self._gone() from None

    def receive(self, timeout_s: float, cancel: CancelToken | None = None) -> Any:
        """The next message.

        Args:
            timeout_s: How long to wait.
            cancel: Ends the waiting.

        Raises:
            Cancelled: The token was raised.
            RevithionError: The process sent an error, ended, or did not answer in time (``live.failed``).
        """
        try:
            if not self._wait(timeout_s, cancel):
                raise LiveError(
                    f"{self._name} did not answer within {timeout_s:g} s",
                    hint="Look whether the machine is overloaded or the audio driver hangs, then try again.",
                    code="live.failed",
                )
            message: Any = self._pipe.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if isinstance(message, RevithionError):
            raise message
        return message

    def _wait(self, timeout_s: float, cancel: CancelToken | None) -> bool:
        deadline = time.monotonic() + timeout_s
        while not self._pipe.poll(max(0.0, min(_LOOK_S, deadline - time.monotonic()))):
            if cancel is not None:
                cancel.raise_if_cancelled()
            if time.monotonic() >= deadline:
                return False
        return True

    def close(self) -> None:
        """Ends the process: by closing the pipe, then by force. Never raises; again, it does nothing."""
        with contextlib.suppress(OSError):
            self._pipe.close()
        for end in (lambda: None, self._process.terminate, self._process.kill):
            end()
            self._process.join(_END_S)
            if not self._process.is_alive():
                break

    def _gone(self) -> LiveError:
        self._process.join(_END_S)
        return LiveError(
            f"{self._name} ended (status {self._process.exitcode})",
            hint="Start again; if it happens again, report it.",
            code="live.failed",
        )


def _run(target: Callable[[Connection], None], pipe: Connection, log: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the control process's, which closes the pipe
    with open(log, "ab") as file:  # noqa: PTH123 - os.devnull is no path on Windows
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(file.fileno(), stream.fileno())
    target(pipe)


@contextlib.contextmanager
def child_process(pipe: Connection) -> Generator[None]:
    """Around what a child does: errors go through the pipe; the pipe's end, and only it, ends the child in peace."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except Exception as exc:  # noqa: BLE001 - all of them are told to the parent
        error = exc if isinstance(exc, RevithionError) else unexpected_error(exc)
        with contextlib.suppress(OSError):
            pipe.send(error)
    finally:
        pipe.close()
