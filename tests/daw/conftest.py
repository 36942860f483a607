"""Real programs for tests: skipped where they are not installed, but never in CI."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from daw.ardour_programs import ArdourPrograms


@pytest.fixture(scope="session")
def ardour(tmp_path_factory: pytest.TempPathFactory) -> ArdourPrograms:
    """Ardour's programs, in a home of their own."""
    missing = [p for p in ("ardour7-lua", "ardour7-new_session", "ardour7-export") if shutil.which(p) is None]
    if missing:
        message = f"Ardour 7 is not installed: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return ArdourPrograms(tmp_path_factory.mktemp("ardour_home"))


@pytest.fixture(scope="session")
def empty_session(ardour: ArdourPrograms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty session at 44.1 kHz, to be copied: making one takes a second."""
    return ardour.new_session(tmp_path_factory.mktemp("empty") / "My song", 44_100)


@pytest.fixture
def session(empty_session: Path, tmp_path: Path) -> Path:
    """An empty session at 44.1 kHz, of this test alone; its file."""
    shutil.copytree(empty_session.parent, tmp_path / "My song")
    return tmp_path / "My song" / empty_session.name
