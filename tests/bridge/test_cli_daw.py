"""`daw list | install | uninstall | status | test`: what people and scripts are told, and with which exit status."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lupa.lua53
import pytest

from daemon_program import DaemonProcess
from program import ROOT, environment, lines
from revithion_bridge.daw.mailbox import mailbox_folder
from revithion_bridge.daw.plan_builder import StemFile, StemPlacement, build_plan
from revithion_bridge.daw.plan_presets import find_preset
from revithion_stems.cli import main as program

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into folders as Linux has them")
DAW_ERROR = 8
MENU = "[Track control panel context]\nitem_0=40001 &Insert\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, daemon_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with Ardour 7 and 8 and REAPER."""
    for name, value in environment(tmp_path / "work").items():
        if name == "HOME":
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setitem(program.COMMANDS, "daw", ("revithion_bridge.cli.daw:daw_group", ""))
    home = tmp_path / "home"
    for name in ("ardour7", "ardour8", "REAPER"):
        (home / ".config" / name).mkdir(parents=True)
    (home / ".config" / "REAPER" / "reaper-menu.ini").write_text(MENU)
    return home


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls ``daw``: exit status, standard output, standard error."""

    def do(*args: str | Path) -> tuple[int, str, str]:
        status = 0
        try:
            program.main(["daw", *map(str, args)])
        except SystemExit as exc:
            status = int(exc.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return do


@pytest.fixture
def session(daemon_home: Path) -> Iterator[str]:
    """An open session, in which a script answers with the library that all our scripts have; its box."""
    mailbox_folder().mkdir(parents=True)
    lua: Any = lupa.lua53.LuaRuntime()
    common = lua.execute((ROOT / "daw_scripts" / "revithion_daw_scripts" / "lua" / "common.lua").read_text())
    box = common.open(lua.table_from({"mailboxes": str(mailbox_folder())}), "ardour", "/home/ada/Album")
    step = lua.execute(
        """
        local common, box = ...
        return function ()
          common.announce (box, { daw = "ardour", program = "7.3", name = "Al\\27bum", path = "/home/ada/Album",
            sample_rate = 48000, strips = common.array ({ { role = "bus", key = "vocals", name = "Vocals Bus",
            identity = "i", gain_db = -3.0, muted = true } }) })
          local command = common.receive (box)
          if command then common.answer (box, command, { ok = command.type == "fader", strips = common.array () }) end
        end
        """,
        common,
        box,
    )
    over = threading.Event()

    def play() -> None:
        while not over.wait(0.01):
            step()

    step()
    thread = threading.Thread(target=play)
    thread.start()
    yield str(box.name)
    over.set()
    thread.join()


def json_of(call: Call, *args: str | Path) -> dict[str, Any]:
    status, out, _ = call(*args, "--json")
    assert status == 0
    return json.loads(out)


def test_each_version_gets_the_scripts_and_list_knows(call: Call, home: Path) -> None:
    status, out, _ = call("install", "ardour")
    assert status == 0
    assert "Separate to stems: Edit > Lua Scripts; LuaAction/script-1" in out
    ardour, reaper = json_of(call, "list")["daws"]
    assert [(row["version"], row["current"]) for row in ardour["folders"]] == [("7", True), ("8", True)]
    assert [row["installed"] for row in reaper["folders"]] == [None]
    assert (home / ".config" / "ardour8" / "revithion_stems" / "installed.json").exists()


def test_only_one_version_on_request(call: Call, home: Path) -> None:
    call("install", "Ardour", "--version", "8")
    assert not list((home / ".config" / "ardour7").iterdir())
    assert (home / ".config" / "ardour8" / "ui_scripts").exists()


def test_list_says_that_scripts_are_not_as_they_should_be(call: Call, home: Path) -> None:
    call("install", "reaper")
    (home / ".config" / "REAPER" / "Scripts" / "revithion-stems" / "common.lua").write_text("old")
    (row,) = json_of(call, "list")["daws"][1]["folders"]
    assert (row["current"], row["problem"]) == (False, "common.lua would be changed")
    assert "not as they should be: common.lua would be changed" in call("list")[1]
    call("install", "reaper", "--no-startup")
    assert json_of(call, "list")["daws"][1]["folders"][0]["current"]


def test_install_and_uninstall_say_what_they_do(call: Call, home: Path) -> None:
    folder = home / ".config" / "REAPER"
    planned = json_of(call, "install", "reaper", "--dry-run")
    assert not (folder / "Scripts").exists()
    done = json_of(call, "install", "reaper")
    assert done == {**planned, "dry_run": False}
    assert {"path": str(folder / "reaper-menu.ini"), "change": "changed"} in done["changes"]
    assert "Media item context" in done["steps"][0]
    assert "all is there already" in call("install", "reaper")[1]
    assert json_of(call, "uninstall", "reaper")["changes"]
    assert "nothing of ours is there" in call("uninstall", "reaper")[1]
    assert (folder / "reaper-menu.ini").read_text() == MENU


def test_a_folder_can_be_named(call: Call, tmp_path: Path) -> None:
    portable = tmp_path / "REAPER 'ü' \u202e"
    portable.mkdir()
    assert call("install", "reaper", "--folder", portable)[0] == 0
    assert (portable / "reaper-kb.ini").exists()
    assert call("test", "reaper", "--folder", tmp_path / "nowhere")[0] == 2


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("install", "cubase"), "daw.unknown", "ardour, reaper"),
        (("install", "ardour", "--version", "9"), "daw.install", "start it once"),
    ],
)
def test_what_can_not_be_has_a_status_and_a_hint(call: Call, args: tuple[str, ...], code: str, says: str) -> None:
    status, _, err = call(*args)
    assert status == DAW_ERROR
    assert says in err
    status, out, _ = call(*args, "--json")
    assert lines(out)[-1]["code"] == code


def test_status_shows_the_sessions_that_are_open(call: Call, session: str) -> None:
    status = json_of(call, "status")
    assert status["daemon"] is None
    (opened,) = status["sessions"]
    assert (opened["box"], opened["sample_rate"]) == (session, 48_000)
    out = call("status")[1]
    assert "session   ardour 7.3: Al\\x1bbum, 48000 Hz (/home/ada/Album)" in out
    assert "bus   Vocals Bus  -3.0 dB, muted" in out
    assert "none runs" in out


def test_status_without_anything(call: Call) -> None:
    assert "none is open" in call("status")[1]


def test_test_goes_the_whole_way(call: Call, session: str, daemon: DaemonProcess) -> None:
    call("install", "ardour")
    status, out, _ = call("test", "ardour")
    assert status == 0
    assert out.count("ok   ") == 5
    assert "'Al\\x1bbum' answers in" in out


def test_test_starts_the_daemon(call: Call) -> None:
    call("install", "reaper")
    try:
        checks = json_of(call, "test", "reaper")["checks"]
    finally:
        program_status = call_serve_stop()
    assert [check["ok"] for check in checks] == [True] * 4
    assert program_status == 0


def call_serve_stop() -> int:
    try:
        program.main(["serve", "--stop"])
    except SystemExit as exc:
        return int(exc.code or 0)
    return 0


def test_test_says_what_is_wrong_and_what_to_do(call: Call, daemon: DaemonProcess) -> None:
    status, out, err = call("test", "ardour", "--version", "7")
    assert status == DAW_ERROR
    assert "WRONG  scripts in" in out
    assert "revithion-stems daw install ardour" in err
    status, out, _ = call("test", "ardour", "--json")
    answer, error = lines(out)
    assert [check["ok"] for check in answer["checks"]] == [False, False, True, True, True]
    assert error["code"] == "daw.install"


def test_a_session_that_does_not_answer_is_said(
    call: Call, session: str, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revithion_bridge.daw_install.script_check._ANSWER_S", 0.3)
    call("install", "reaper")
    other = mailbox_folder() / "reaper-0000000000000001.session.json"
    other.write_text('{"v": 1, "daw": "reaper", "name": "Hangs"}')
    status, out, _ = call("test", "reaper")
    assert status == DAW_ERROR
    assert "WRONG  session: no answer from reaper" in out


@pytest.mark.parametrize("name", ["list", "install", "uninstall", "status", "test"])
def test_help_has_examples(call: Call, name: str) -> None:
    assert f"revithion-stems daw {name}" in call(name, "--help")[1]


def test_the_preset_of_the_docs_makes_a_plan(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "daw" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "mix.toml").write_text(text.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    stems = [
        StemFile(stem=stem, path=tmp_path / f"{stem}.wav", channels=2, frames=44_100, sample_rate=44_100)
        for stem in ("drums", "bass", "other", "vocals")
    ]
    preset = find_preset(tmp_path / "mix.toml")
    plan = build_plan([StemPlacement(stems=stems)], preset, identity="0123456789abcdef", title="Song")
    buses = {bus.key: bus.name for bus in plan.buses}
    assert {track.name: buses[track.output] for track in plan.tracks} == {
        "1 Drums": "Rhythm",
        "2 Bass": "Rhythm",
        "3 Vocals": "Vocals",
        "4 Other": "Other Bus",
    }
