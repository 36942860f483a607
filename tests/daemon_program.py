"""The daemon in a process of its own, and songs for it: for all tests that need one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import soundfile

from revithion_bridge.connection import daemon_folder, read_connection

RATE = 44_100
START_S = 60.0


class DaemonProcess:
    """A daemon with the settings of this process's environment; also a context manager, which stops it."""

    all: ClassVar[list[DaemonProcess]] = []

    def __init__(
        self,
        *options: str,
        env: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "revithion_bridge.daemon"),
    ) -> None:
        self.all.append(self)
        self.program = program
        self.options = options
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> DaemonProcess:
        """Starts it and waits until it has written its connection file."""
        folder = daemon_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "stderr").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, *self.options],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            connection = read_connection()
            if connection is not None and connection.pid == self.process.pid:
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no daemon: status {self.process.poll()}: {(folder / 'stderr').read_text()[-2000:]}")

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self.process is not None
        return self.process.pid

    def worker_pids(self) -> list[int]:
        """Of the processes that compute."""
        return [child.pid for child in psutil.Process(self.pid).children()]

    def kill(self) -> None:
        """As ``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self, timeout_s: float = 60.0) -> int:
        """As ``kill``; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def __enter__(self) -> DaemonProcess:
        return self if self.process is not None and self.process.poll() is None else self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
                raise


def noise(path: Path, seconds: float, seed: int = 0) -> Path:
    """A song of noise, each seed another one, 16-bit stereo."""
    samples = np.random.default_rng(seed).normal(0, 0.1, (round(RATE * seconds), 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, "PCM_16")
    return path
