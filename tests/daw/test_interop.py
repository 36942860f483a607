"""What one adapter has put into a session, another one finds again: nothing stands there twice, the sum stays exact."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ardour_desktop import ArdourDesktop, ArdourHome, require_ardour, wait_until
from daw.saved_session import Saved, null_db
from program import COMMAND
from revithion_bridge import connect, connect_daw
from revithion_bridge.daw.bus_plan import BusPlan
from revithion_bridge.daw.import_report import ImportReport
from stem_plans import FRAMES, STEMS, make_plan, write_stems

NULL_DB = -120.0
LOOKED_S = 1.5
"""After that, what watches for undo has looked at a session that was opened."""
HOSTILE = ('"; os.execute("true") --', "a\nb\r\nc ", "100% %s %20 revithion-stems:00:track:x", "🎛️ 鼓 ]]> &")


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
def total(tmp_path: Path) -> np.ndarray:
    """The sum of the stems in the folder ``Song``."""
    return write_stems(tmp_path / "Song")


def usual(folder: Path) -> BusPlan:
    return make_plan(folder, title="Song")


def hostile(folder: Path) -> BusPlan:
    """Keys and a title that are hard to keep in a comment; the names are the usual ones."""
    plan = make_plan(folder, title=HOSTILE[2])
    tracks = [dataclasses.replace(track, key=key, output=key) for track, key in zip(plan.tracks, HOSTILE, strict=True)]
    buses = [dataclasses.replace(bus, key=key) for bus, key in zip(plan.buses, HOSTILE, strict=True)]
    assert plan.group is not None
    group = dataclasses.replace(plan.group, name="Song stems")
    return dataclasses.replace(plan, tracks=tuple(tracks), buses=tuple(buses), group=group, vca="Song stems")


def words(report: ImportReport) -> set[str]:
    return {strip.outcome.value for strip in report.strips}


def check_once(saved: Saved) -> None:
    """Each strip once, heard, with one clip, and wired to its bus alone."""
    stems = [stem.capitalize() for stem in STEMS]
    assert set(saved.routes) == {"Master", *stems, *(f"{stem} Bus" for stem in stems)}
    for stem in stems:
        assert saved.regions(stem) == [(0, 0, FRAMES)]
        assert saved.wiring(stem) == [[f"{stem} Bus/audio_in 1"], [f"{stem} Bus/audio_in 2"]]
        assert saved.wiring(f"{stem} Bus") == [["Master/audio_in 1"], ["Master/audio_in 2"]]
        assert saved.routes[stem].attrib["active"] == saved.routes[f"{stem} Bus"].attrib["active"] == "1"
    assert saved.vcas == list(saved.groups) == ["Song stems"]


@pytest.mark.parametrize("planned", [usual, hostile])
def test_ardour_finds_what_was_written_into_its_closed_session(
    tmp_path: Path, home: ArdourHome, total: np.ndarray, planned: Callable[[Path], BusPlan]
) -> None:
    session, plan = home.new_session(tmp_path / "session"), planned(tmp_path / "Song")
    assert words(connect_daw(session).render(plan)) == {"created"}
    with ArdourDesktop(home, session) as desktop:
        time.sleep(LOOKED_S)
        check_once(Saved(desktop.save()))
        assert "created" not in words(connect_daw("ardour").render(plan))
        assert words(connect_daw("ardour").render(plan)) == {"unchanged"}
        check_once(Saved(desktop.save()))
    assert null_db(home.export(session, tmp_path / "out.wav"), total) <= NULL_DB


@pytest.mark.parametrize("planned", [usual, hostile])
def test_a_closed_session_has_what_was_imported_while_it_was_open(
    tmp_path: Path, home: ArdourHome, total: np.ndarray, planned: Callable[[Path], BusPlan]
) -> None:
    session, plan = home.new_session(tmp_path / "session"), planned(tmp_path / "Song")
    with ArdourDesktop(home, session) as desktop:
        connect_daw("ardour").render(plan)
        desktop.save()
    assert "created" not in words(connect_daw(session).render(plan))
    assert words(connect_daw(session).render(plan)) == {"unchanged"}
    assert null_db(home.export(session, tmp_path / "out.wav"), total) <= NULL_DB
    with ArdourDesktop(home, session) as desktop:
        time.sleep(LOOKED_S)
        check_once(Saved(desktop.save()))


def test_what_undo_has_put_away_comes_back_when_the_closed_session_gets_it_again(
    tmp_path: Path, home: ArdourHome, total: np.ndarray
) -> None:
    session, plan = home.new_session(tmp_path / "session"), make_plan(tmp_path / "Song", title="Song")
    with ArdourDesktop(home, session) as desktop:
        connect_daw("ardour").render(plan)
        desktop.action("Editor/undo")
        wait_until(lambda: "(undone)" in desktop.save(), 20, "it was not undone")
    connect_daw(session).render(plan)
    assert null_db(home.export(session, tmp_path / "out.wav"), total) <= NULL_DB
    with ArdourDesktop(home, session) as desktop:
        wait_until(lambda: "(undone)" not in desktop.save(), 20, "it does not come back")
        check_once(Saved(desktop.save()))


def test_the_commands_see_the_session_that_is_open_in_ardour(tmp_path: Path, home: ArdourHome) -> None:
    session = home.new_session(tmp_path / "Album")
    ours = {name: value for name, value in os.environ.items() if name.startswith("REVITHION_")}
    env = {**home.env, **ours, "COLUMNS": "200"}  # as when the scripts were installed

    def run(*words: str) -> str:
        done = subprocess.run([*COMMAND, *words], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with ArdourDesktop(home, session):
        try:
            tested = {check["check"]: check for check in json.loads(run("daw", "test", "ardour", "--json"))["checks"]}
            (opened,) = json.loads(run("daw", "status", "--json"))["sessions"]
            shown = run("daw", "status")
        finally:
            with connect() as daemon:
                daemon.shutdown()
    assert tested["session"]["text"].startswith("'Album' answers in ")
    assert (opened["daw"], opened["name"], opened["path"]) == ("ardour", "Album", str(session))
    assert f"Album, 44100 Hz ({session})" in shown
