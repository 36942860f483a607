"""What the tests of the bridge need: a daemon that is nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_program import DaemonProcess


@pytest.fixture
def daemon_home(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings for daemons of this test alone, none of which outlives it; the folder of their state."""
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    yield tmp_path / "state"
    for process in DaemonProcess.all:
        if process.process is not None and process.process.poll() is None:
            process.kill()
    DaemonProcess.all.clear()


@pytest.fixture
def daemon(daemon_home: Path) -> Iterator[DaemonProcess]:
    """A running daemon."""
    with DaemonProcess() as process:
        yield process
