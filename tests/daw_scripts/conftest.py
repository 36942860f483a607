"""A REAPER for each test: a model with our scripts installed in it, a mailbox of its own, and a song."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # the model and the desk beside the tests

from installed_reaper import Reaper, write_song
from reaper_project import Project
from stand_in_desk import Desk

from revithion_bridge.connection import connection_path
from revithion_bridge.daw.mailbox import make_mailbox_folder


@pytest.fixture
def reaper(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reaper]:
    """REAPER with an empty project that was saved, and a connection file, so that no daemon is started."""
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    make_mailbox_folder()
    connection_path().parent.mkdir(parents=True, exist_ok=True)
    connection_path().write_text("{}")
    host = Reaper(tmp_path / "Scripts" / "revithion-stems")
    host.project.path = str(tmp_path / "album" / "Song.RPP")
    yield host
    host.close()
    assert host.faults == []


@pytest.fixture
def project(reaper: Reaper) -> Project:
    """The one in front."""
    return reaper.project


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """In the place of the daemon."""
    return Desk(tmp_path / "stems")


@pytest.fixture
def song(tmp_path: Path) -> Path:
    """A second of stereo."""
    return write_song(tmp_path / "audio" / "Mix.wav")
