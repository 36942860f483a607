"""What one adapter has put into a project, another one finds again: nothing stands there twice, the sum stays exact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ardour_desktop import ArdourDesktop, ArdourHome, require_ardour
from daw.saved_session import Saved, null_db
from revithion_bridge import connect_daw
from revithion_bridge.daw.import_report import ImportReport, Outcome
from stem_plans import FRAMES, STEMS, write_stems

NULL_DB = -120.0


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mailbox for this test alone."""
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def home(tmp_path: Path) -> ArdourHome:
    """Ardour with our scripts."""
    require_ardour()
    home = ArdourHome(tmp_path / "home")
    home.install()
    return home


@pytest.fixture
def stems(tmp_path: Path) -> Iterator[tuple[Path, np.ndarray]]:
    """A folder of stems, and their sum."""
    yield tmp_path / "Song", write_stems(tmp_path / "Song")


def outcomes(report: ImportReport) -> dict[tuple[str, str], Outcome]:
    return {(strip.role, strip.key): strip.outcome for strip in report.strips}


def check_once(saved: Saved) -> None:
    """Each strip once, with one clip, heard by its bus alone."""
    strips = [name for stem in STEMS for name in (stem.capitalize(), f"{stem.capitalize()} Bus")]
    assert set(saved.routes) == {"Master", *strips}
    for stem in map(str.capitalize, STEMS):
        assert saved.regions(stem) == [(0, 0, FRAMES)]
        assert saved.wiring(stem) == [[f"{stem} Bus/audio_in 1"], [f"{stem} Bus/audio_in 2"]]
        assert saved.wiring(f"{stem} Bus") == [["Master/audio_in 1"], ["Master/audio_in 2"]]
        assert saved.routes[stem].attrib["active"] == saved.routes[f"{stem} Bus"].attrib["active"] == "1"
    assert saved.vcas == list(saved.groups) == ["Song stems"]


def test_stems_written_into_a_closed_session_are_found_by_ardour(
    tmp_path: Path, home: ArdourHome, stems: tuple[Path, np.ndarray]
) -> None:
    folder, total = stems
    session = home.new_session(tmp_path / "closed first")
    connect_daw(session).import_stems(folder)
    with ArdourDesktop(home, session) as desktop:
        time.sleep(1.5)  # what watches undo has looked
        check_once(Saved(desktop.save()))
        live = outcomes(connect_daw("ardour").import_stems(folder))
        assert set(live.values()) <= {Outcome.UNCHANGED, Outcome.REPLACED}
        assert not connect_daw("ardour").import_stems(folder).changed
        check_once(Saved(desktop.save()))
    assert null_db(home.export(session, tmp_path / "live.wav"), total) <= NULL_DB
    print(live)
    again = outcomes(connect_daw(session).import_stems(folder))
    print(again)
    assert set(again.values()) <= {Outcome.UNCHANGED, Outcome.REPLACED}
    assert not connect_daw(session).import_stems(folder).changed
    assert null_db(home.export(session, tmp_path / "closed.wav"), total) <= NULL_DB
    with ArdourDesktop(home, session) as desktop:
        time.sleep(1.5)
        check_once(Saved(desktop.save()))


def test_stems_of_an_open_session_are_found_when_it_is_closed(
    tmp_path: Path, home: ArdourHome, stems: tuple[Path, np.ndarray]
) -> None:
    folder, total = stems
    session = home.new_session(tmp_path / "open first")
    with ArdourDesktop(home, session) as desktop:
        connect_daw("ardour").import_stems(folder)
        check_once(Saved(desktop.save()))
    closed = outcomes(connect_daw(session).import_stems(folder))
    assert set(closed.values()) <= {Outcome.UNCHANGED, Outcome.REPLACED}
    assert null_db(home.export(session, tmp_path / "closed.wav"), total) <= NULL_DB
