"""The files between scripts in DAWs and the rest: whole, private, and one command at a time."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from daemon_program import noise
from revithion_bridge import connect_daw
from revithion_bridge.daw.live_session import find_session
from revithion_bridge.daw.mailbox import (
    STALE_S,
    Answer,
    box_path,
    list_files,
    mailbox_folder,
    make_mailbox_folder,
    open_sessions,
    read_file,
    send_command,
    write_file,
)
from revithion_bridge.daw.session import DawSession
from revithion_stems.audio import AudioBuffer
from revithion_stems.errors import RevithionError
from revithion_stems.stems import StemSet

BOX = "ardour-0123456789abcdef"


@pytest.fixture(autouse=True)
def mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    return make_mailbox_folder()


def announce(box: str = BOX, name: str = "Album", path: str = "/albums/Album", **more: Any) -> None:
    session = {"v": 1, "daw": box.partition("-")[0], "name": name, "path": path, "sample_rate": 48_000, **more}
    write_file(box_path(box, "session"), session)


class Script:
    """What a script in a DAW does with commands, on a thread."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.commands: list[dict[str, Any]] = []
        self._answer = answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self._over.is_set():
            inbox = box_path(BOX, "inbox")
            if inbox.exists():
                command = json.loads(inbox.read_bytes())
                inbox.unlink()
                self.commands.append(command)
                write_file(
                    box_path(BOX, "answer", command["id"]), {"v": 1, "id": command["id"], **self._answer(command)}
                )
            time.sleep(0.005)

    def __enter__(self) -> Script:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def created(command: dict[str, Any]) -> dict[str, Any]:
    plan = command["plan"]
    strips = [{"role": "track", **strip} for strip in plan["tracks"]] + [
        {"role": "bus", **bus} for bus in plan["buses"]
    ]
    return {
        "ok": True,
        "strips": [{"role": s["role"], "key": s["key"], "name": s["name"], "outcome": "created"} for s in strips],
    }


@pytest.fixture
def script() -> Iterator[Script]:
    announce()
    with Script(created) as running:
        yield running


def test_the_folder_is_private(mailbox: Path) -> None:
    if sys.platform != "win32":
        assert stat.S_IMODE(mailbox.stat().st_mode) == 0o700


def test_only_files_of_the_mailbox_are_listed(mailbox: Path) -> None:
    for name in (
        "x.json",
        f"{BOX}.session.json.part",
        f"{BOX}.nonsense.json",
        f"../{BOX}.session.json",
        "presets.json",
    ):
        (mailbox / Path(name).name).write_text("{}")
    write_file(box_path(BOX, "request", "a1"), {})
    assert [(file.box, file.id) for file in list_files("request")] == [(BOX, "a1")]


def test_no_mailbox_is_an_empty_one(mailbox: Path) -> None:
    mailbox.rmdir()
    assert list_files("session") == []
    assert open_sessions() == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"v": "x"}', "\0", '{"v":1}' + " " * 2_000_000])
def test_damaged_files_are_typed_errors(text: str) -> None:
    path = box_path(BOX, "answer", "a")
    path.write_text(text)
    with pytest.raises(RevithionError) as caught:
        read_file(path, Answer)
    assert caught.value.code == "protocol.malformed"
    assert read_file(path.with_name("gone"), Answer) is None


def test_a_session_is_open_as_long_as_it_says_so() -> None:
    announce()
    assert list(open_sessions("ardour")) == [BOX]
    assert open_sessions("reaper") == {}
    long_ago = time.time() - STALE_S - 1
    os.utime(box_path(BOX, "session"), (long_ago, long_ago))
    assert open_sessions() == {}


def test_a_damaged_session_hides_no_other() -> None:
    announce()
    box_path("reaper-0123456789abcdef", "session").write_text("{")
    assert list(open_sessions()) == [BOX]


def test_sessions_are_found_by_name() -> None:
    with pytest.raises(RevithionError) as caught:
        find_session("ardour")
    assert caught.value.code == "daw.absent"
    announce()
    announce("ardour-fedcba9876543210", "Other", "/albums/Other")
    with pytest.raises(RevithionError, match=r"Album.*Other") as caught:
        find_session("ardour")
    assert caught.value.code == "daw.ambiguous"
    assert find_session("ardour", "Other").name == "Other"
    assert find_session("ardour", "/albums/Album").project_rate == 48_000
    with pytest.raises(RevithionError, match="Third"):
        find_session("ardour", "Third")


@pytest.mark.parametrize("target", ["logic", "", "ardor"])
def test_an_unknown_daw_says_which_are_known(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RevithionError) as caught:
        connect_daw(target)
    assert caught.value.code in ("daw.unknown", "daw.project")


def test_the_loop_of_the_readme_works_as_written(script: Script, tmp_path: Path) -> None:
    files = [noise(tmp_path / f"{name}.wav", 0.1) for name in ("vocals", "drums", "bass", "other")]
    session = connect_daw("ardour")
    for stem_path, bus in zip(files, ["Vocals", "Drums", "Bass", "Other"], strict=True):
        assert session.import_audio(stem_path, target_bus=bus, align_to="project_start").changed
    plans = [command["plan"] for command in script.commands]
    assert [(plan["tracks"][0]["name"], plan["buses"][0]["name"]) for plan in plans] == [
        ("vocals", "Vocals"), ("drums", "Drums"), ("bass", "Bass"), ("other", "Other"),
    ]  # fmt: skip
    assert len({plan["identity"] for plan in plans}) == 1  # so that two files can share a bus
    assert all(plan["partial"] and plan["tracks"][0]["clips"][0]["position"]["value"] == 0 for plan in plans)
    assert all(len(plan["tracks"][0]["clips"][0]["sha256"]) == 64 for plan in plans)


def test_stems_in_memory_are_written_and_imported(script: Script, tmp_path: Path) -> None:
    announce(path=str(tmp_path))
    samples, rate = soundfile.read(noise(tmp_path / "song.wav", 0.1), dtype="float32", always_2d=True)
    audio = AudioBuffer(samples=samples.T.copy(), sample_rate=rate)
    silence = AudioBuffer(samples=samples.T * 0, sample_rate=rate)
    stems = StemSet(stems={"vocals": audio, "other": silence}, residual=silence, gain_db=0.0, model="m", licence="l")
    session = connect_daw("ardour")
    session.import_stems(stems)
    session.import_stems(stems, plan="vocals-instrumental", align_to="bar 2")
    first, second = (command["plan"] for command in script.commands)
    files = [track["clips"][0]["file"] for track in first["tracks"]]
    assert files == [track["clips"][0]["file"] for track in reversed(second["tracks"])]
    assert all(Path(file).is_relative_to(tmp_path / "stems") for file in files)
    assert first["identity"] == second["identity"]  # the same song: another preset takes the place of the first
    assert second["tracks"][0]["clips"][0]["position"] == {"value": 2.0, "unit": "bars"}
    written, _ = soundfile.read(files[1], dtype="float32", always_2d=True)
    assert (written == samples).all()


def test_what_the_daw_refuses_comes_through() -> None:
    announce()
    error = {"code": "daw.refused", "message": "no disk", "hint": "buy one"}
    with Script(lambda _: {"ok": False, "error": error}), pytest.raises(RevithionError, match="no disk") as caught:
        find_session("ardour").set_fader("vocals", gain_db=-6.0)
    assert (caught.value.code, caught.value.hint) == ("daw.refused", "buy one")


def test_a_daw_that_is_silent_is_busy_and_the_command_is_taken_back() -> None:
    announce()
    with pytest.raises(RevithionError) as caught:
        send_command(BOX, "fader", timeout_s=0.2, key="x")
    assert caught.value.code == "daw.busy"
    assert list_files("inbox") == []


def test_commands_of_many_go_one_by_one() -> None:
    announce()
    with Script(lambda command: {"ok": True, "strips": [{"role": "bus", "key": command["key"]}]}) as script:
        threads = [
            threading.Thread(target=find_session("ardour").set_fader, args=(f"s{n}",), kwargs={"gain_db": 0.0})
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(command["key"] for command in script.commands) == [f"s{n}" for n in range(8)]
    assert {file.kind for kind in ("inbox", "answer") for file in list_files(kind)} == set()


def test_sessions_are_context_managers() -> None:
    announce()
    with connect_daw("ardour") as session:
        assert isinstance(session, DawSession)
    session.close()
    assert mailbox_folder().is_dir()
