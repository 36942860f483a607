"""What the tests of the bridge need: a daemon that is nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon_program import DaemonProcess


@pytest.fixture
def daemon_home(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings for a daemon of this test alone; the folder of its state."""
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    return tmp_path / "state"


@pytest.fixture
def daemon(daemon_home: Path) -> Iterator[DaemonProcess]:
    """A running daemon."""
    with DaemonProcess() as process:
        yield process
