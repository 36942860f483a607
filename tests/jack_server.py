"""JACK's own server without a sound card, for tests: `jackd` with its dummy driver, under a name of its own."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import IO, Any, Self

import pytest

START_S = 20.0
PORTS = "256"
"""The least possible is 128; the default of 2048 takes 100 MB of /dev/shm, of which a container may have 64."""
_COUNT = itertools.count()


def require_jack() -> None:
    """Skips the test where JACK is not installed; in CI it has to be (Debian: ``jackd2``)."""
    missing = shutil.which("jackd") is None
    if missing and not os.environ.get("CI"):
        pytest.skip("not installed: jackd")
    assert not missing, "CI needs jackd"


def jack_module() -> Any:
    """JACK-Client's module, which needs libjack; what libjack has to say goes nowhere."""
    jack = importlib.import_module("jack")
    jack.set_error_function(_nothing)
    jack.set_info_function(_nothing)
    return jack


def _nothing(_: str) -> None:
    return None


class JackServer:
    """A server; as a context manager it runs, and ``JACK_DEFAULT_SERVER`` names it here and in what is started here.

    It needs no real-time rights and no sound card, so that it runs as root in a container. Several may run at a time,
    but a process can only be a client of one of them at a time.

    Args:
        rate: Hz.
        period: Frames of a block.
    """

    def __init__(self, rate: int = 48_000, period: int = 256) -> None:
        require_jack()
        self.rate = rate
        self.period = period
        self.name: str = f"rv{os.getpid()}_{next(_COUNT)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._before: str | None = None
        self._crashed = False

    def __enter__(self) -> Self:
        self._before = os.environ.get("JACK_DEFAULT_SERVER")
        os.environ["JACK_DEFAULT_SERVER"] = self.name
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        os.environ.pop("JACK_DEFAULT_SERVER", None)
        if self._before is not None:
            os.environ["JACK_DEFAULT_SERVER"] = self._before

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, also again; returns when a client can connect."""
        command = [
            "jackd",
            "-n",
            self.name,
            "-r",
            "-p",
            PORTS,
            "-d",
            "dummy",
            "-r",
            str(self.rate),
            "-p",
            str(self.period),
        ]
        self._crashed = False
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "JACK_NO_AUDIO_RESERVATION": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C at the tests is not for it
        )
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, f"jackd ended: {self.log()}"
            assert time.monotonic() < deadline, f"jackd does not answer after {START_S:g} s: {self.log()}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        # In a process of its own: libjack knows one server at a time, and this process may have another one.
        program = f"import jack; jack.Client('ready', no_start_server=True, servername={self.name!r}).close()"
        return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=START_S).returncode == 0

    def stop(self) -> None:
        """Ends it in good order, also after a crash."""
        if self._crashed:
            # A server that crashed keeps its place among the eight that a machine can have, until one of its name ends.
            self.start()
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._ended()

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._ended()
        self._crashed = True

    def _ended(self) -> None:
        self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def log(self) -> str:
        """What the server printed."""
        if self._log is None:
            return ""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")
