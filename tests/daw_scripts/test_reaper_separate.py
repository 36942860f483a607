"""From the menu of REAPER to a request, its progress, and its end: our real scripts, on a model of REAPER."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from installed_reaper import (
    EXACT,
    HOSTILE,
    LISTENER,
    OPTIONS,
    RATE,
    SEPARATE,
    Reaper,
    feeds,
    names,
    song_track,
    write_song,
)
from reaper_host import ARGUMENTS, Script
from reaper_project import Item, Project, Source, Track, place
from stand_in_desk import Desk

from revithion_bridge.connection import connection_path, read_connection
from revithion_bridge.daw import mailbox

ESCAPE = 27


class TestRequest:
    def test_an_item_is_said_in_the_frames_of_its_file(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        project.sample_rate = 48_000
        track = project.add_track("Mix")
        wanted = place(
            track, song, D_POSITION=8.0, D_LENGTH=0.25, B_UISEL=1.0, take_D_STARTOFFS=0.5, take_D_PLAYRATE=1.2
        )
        place(track, song)
        reaper.open(SEPARATE)
        request = desk.request()
        assert (request.preset, request.model, request.align_to) == ("", "", "item")
        assert request.project_rate == 48_000
        assert request.folder == str(Path(project.path).parent / "stems")
        assert (request.track.id, request.track.name) == (track.guid, "Mix")
        (item,) = request.items
        assert [(channel.path, channel.channel) for channel in item.channels] == [(str(song), 0), (str(song), 1)]
        assert (item.start_frame, item.frames) == (RATE // 2, round(0.25 * 1.2 * RATE))
        assert (item.position.value, item.play_rate, item.preserve_pitch) == (8.0, 1.2, True)
        assert item.item == wanted.guid

    def test_a_selected_track_means_all_its_audio(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path, tmp_path: Path
    ) -> None:
        track = song_track(project, song)
        place(track, write_song(tmp_path / "other.wav", channels=1), D_POSITION=4.0)
        midi = place(track, song, D_POSITION=8.0)
        midi.take.source = Source(kind="MIDI")  # pyright: ignore[reportOptionalMemberAccess]
        track.items.append(Item(track=track))
        reaper.open(SEPARATE)
        assert [len(item.channels) for item in desk.request().items] == [2, 1]
        assert reaper.messages == []

    def test_each_track_has_a_request_and_an_undo_step_of_its_own(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        song_track(project, song).name = "Second"
        reaper.separate(desk)
        assert [label for label, _ in project.undo] == ["Separate to stems: Mix", "Separate to stems: Second"]
        assert names(project)[10] == "Second"

    def test_a_project_that_was_never_saved(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        project.path = ""
        song_track(project, song)
        reaper.open(SEPARATE)
        assert desk.request().folder == ""
        assert desk.request().project_rate is None

    def test_an_item_that_begins_before_its_file_does(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song, D_POSITION=1.0, D_LENGTH=3.0, take_D_STARTOFFS=-0.5)
        reaper.open(SEPARATE)
        (item,) = desk.request().items
        assert (item.start_frame, item.frames, item.position.value) == (0, RATE, 1.5)

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_names_and_paths_arrive_as_they_are(
        self, reaper: Reaper, project: Project, desk: Desk, name: str, tmp_path: Path
    ) -> None:
        folder = tmp_path / name.replace("/", "_")[:200].strip()
        song = write_song(folder / f"{folder.name[:100]}.wav", seconds=0.1)
        song_track(project, song).name = name
        reaper.open(SEPARATE)
        assert desk.request().track.name == name
        assert desk.request().items[0].channels[0].path == str(song)


def backwards(item: Item, _: Path) -> None:
    assert item.take is not None
    item.take.source = Source(kind="SECTION", parent=item.take.source, length=1.0, reversed=True)


def looped_section(item: Item, _: Path) -> None:
    assert item.take is not None
    item.take.source = Source(kind="SECTION", parent=item.take.source, length=0.25)
    item.values["B_LOOPSRC"] = 1.0


def missing(item: Item, song: Path) -> None:
    song.unlink()


def midi(item: Item, _: Path) -> None:
    assert item.take is not None
    item.take.source = Source(kind="MIDI")


def empty(item: Item, _: Path) -> None:
    item.takes.clear()


def subproject(item: Item, _: Path) -> None:
    assert item.take is not None
    item.take.source = Source(kind="RPP_PROJECT", path=item.take.source.path)  # pyright: ignore[reportOptionalMemberAccess]


class TestSelection:
    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (backwards, "plays backwards"),
            (looped_section, "loops or stretches a section"),
            (missing, "has lost its media file"),
            (midi, "is MIDI"),
            (empty, "is empty"),
            (subproject, "is a project"),
        ],
    )
    def test_what_can_not_be_separated_is_said(
        self, reaper: Reaper, project: Project, song: Path, spoil: Callable[[Item, Path], None], words: str
    ) -> None:
        (item,) = song_track(project, song, B_UISEL=1.0).items
        spoil(item, song)
        assert not reaper.open(SEPARATE).running
        (message,) = reaper.messages
        assert words in message
        assert "Mix" in message

    @pytest.mark.parametrize(("button", "count"), [(1, 1), (2, 0)])
    def test_the_others_are_separated_if_the_user_wants_that(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path, button: int, count: int
    ) -> None:
        track = song_track(project, song, B_UISEL=1.0)
        midi(place(track, song, B_UISEL=1.0), song)
        reaper.button = button
        reaper.open(SEPARATE)
        assert "Separate the others?" in reaper.messages[0]
        assert len(desk.requests()) == count

    def test_nothing_selected(self, reaper: Reaper, project: Project) -> None:
        project.add_track("Mix")
        assert not reaper.open(SEPARATE).running
        assert "Nothing is selected" in reaper.messages[0]

    def test_scripts_without_their_installation(self, reaper: Reaper, project: Project, song: Path) -> None:
        song_track(project, song)
        (reaper.folder / "installed.json").unlink()
        for script in (SEPARATE, LISTENER):
            assert not reaper.open(script).running
        assert all("daw install" in message for message in reaper.messages)


class TestOptions:
    def test_answers_reach_the_daemon_and_are_there_the_next_time(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        reaper.inputs = [["tracks-only", " dsp ", "bar 2"], None]
        script = reaper.open(OPTIONS)
        request = desk.request()
        assert (request.preset, request.model, request.align_to) == ("tracks-only", "dsp", "bar 2")
        desk.finish_all()
        script.run_to_end()
        assert project.track("Drums").items[0].values["D_POSITION"] == 2.0
        assert not reaper.open(OPTIONS).running, "the user has cancelled"
        assert reaper.asked == ["||", "tracks-only|dsp|bar 2"]


@pytest.fixture
def running(reaper: Reaper, project: Project, desk: Desk, song: Path) -> Script:
    """A separation that is half done."""
    song_track(project, song)
    script = reaper.open(SEPARATE)
    desk.say(desk.request(), "separating", fraction=0.5, text="separating 50 %, 0:31 left")
    script.step()
    script.step()
    return script


class TestProgress:
    def test_the_window_says_how_far_it_is(self, running: Script) -> None:
        assert running.window.texts == ["Mix", "separating 50 %, 0:31 left", "Cancel"]

    def test_it_goes_when_the_work_is_done_and_leaves_no_files(
        self, running: Script, desk: Desk, project: Project
    ) -> None:
        desk.finish_all()
        running.run_to_end()
        assert not running.window.is_open
        assert len(project.tracks) == 10
        assert mailbox.list_files("request") == mailbox.list_files("status") == []

    @pytest.mark.parametrize("way", ["click", "key"])
    def test_cancel(self, running: Script, desk: Desk, project: Project, way: str) -> None:
        if way == "click":
            running.click("Cancel")
        else:
            running.window.keys.append(ESCAPE)
            running.step()
        (cancel,) = mailbox.list_files("cancel")
        assert cancel.id == desk.request().id
        running.step()
        running.step()
        assert "Cancelling…" in running.window.texts
        desk.say(desk.request(), "cancelled")
        running.run_to_end()
        assert (len(project.tracks), project.undo) == (1, [])
        assert mailbox.list_files("cancel") == []

    def test_a_click_beside_the_button_is_nothing(self, running: Script) -> None:
        running.click("Mix")
        assert mailbox.list_files("cancel") == []

    def test_closing_the_window_hides_it_and_the_work_goes_on(
        self, running: Script, desk: Desk, project: Project
    ) -> None:
        running.window.is_open = False
        running.step()
        assert mailbox.list_files("cancel") == []
        desk.finish_all()
        running.run_to_end()
        assert len(project.tracks) == 10

    def test_an_error_is_shown_with_its_hint(self, reaper: Reaper, running: Script, desk: Desk) -> None:
        desk.fail(desk.request(), 'The "file" has 100 % silence', "Choose another one.")
        running.run_to_end()
        assert reaper.messages == ['The "file" has 100 % silence\n\nChoose another one.']

    def test_long_names_fit_into_the_window(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        song_track(project, song).name = "🥁" * 300
        script = reaper.open(SEPARATE)
        script.step()
        assert all(8 * len(text) <= 480 for text in script.window.texts)
        assert script.window.texts[0].endswith("🥁…")

    def test_a_project_that_was_closed_meanwhile(self, reaper: Reaper, running: Script, desk: Desk) -> None:
        reaper.projects = [Project()]
        desk.finish_all()
        running.run_to_end()
        assert "was closed" in reaper.messages[0]
        assert reaper.project.tracks == []

    def test_stems_go_into_the_project_that_they_were_made_for(
        self, reaper: Reaper, running: Script, desk: Desk, project: Project
    ) -> None:
        other = Project(path="/elsewhere/Other.RPP")
        reaper.projects.append(other)
        reaper.front = 1
        desk.finish_all()
        running.run_to_end()
        assert (len(project.tracks), len(other.tracks)) == (10, 0)
        assert reaper.project is other

    def test_a_script_that_is_ended_takes_its_request_along(self, running: Script) -> None:
        running.end()
        assert mailbox.list_files("request") == []


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestDaemon:
    @pytest.fixture
    def clock(self, reaper: Reaper) -> Clock:
        reaper.clock = Clock()
        return reaper.clock

    def test_it_is_started_when_it_does_not_pick_up_and_given_up_after_20_s(
        self, reaper: Reaper, clock: Clock, project: Project, song: Path, tmp_path: Path
    ) -> None:
        proof = tmp_path / "it's started & so on"
        reaper.install([sys.executable, "-c", "import sys, pathlib; pathlib.Path(sys.argv[1]).touch()", str(proof)])
        song_track(project, song)
        script = reaper.open(SEPARATE)
        clock.now += 2.9
        script.step()
        assert reaper.processes == []
        clock.now += 0.2
        script.step()
        (process,) = reaper.processes
        assert process.wait(30) == 0
        assert proof.exists(), "its arguments have arrived as they were"
        clock.now += 19
        script.step()
        assert reaper.messages == []
        clock.now += 2
        script.run_to_end()
        assert "did not start" in reaper.messages[0]
        assert mailbox.list_files("request") == []

    def test_it_is_started_at_once_where_there_is_no_connection(
        self, reaper: Reaper, clock: Clock, project: Project, song: Path
    ) -> None:
        reaper.install([sys.executable, "-c", ""])
        connection_path().unlink()
        song_track(project, song)
        script = reaper.open(SEPARATE)
        script.step()
        assert len(reaper.processes) == 1

    def test_one_that_died_in_the_middle_is_started_again(
        self, reaper: Reaper, clock: Clock, running: Script, desk: Desk
    ) -> None:
        reaper.install([sys.executable, "-c", ""])
        clock.now += 61
        running.step()
        assert len(reaper.processes) == 1

    def test_windows_gets_its_own_quotes(self, reaper: Reaper, clock: Clock, project: Project, song: Path) -> None:
        reaper.system = "Win64"
        reaper.install([sys.executable, "-c", "import sys; sys.exit(len(sys.argv[1:]))", "C D"])
        connection_path().unlink()
        song_track(project, song)
        reaper.open(SEPARATE)
        assert reaper.processes[0].wait(30) == 1

    def test_cancel_before_anything_was_heard(self, reaper: Reaper, clock: Clock, project: Project, song: Path) -> None:
        song_track(project, song)
        script = reaper.open(SEPARATE)
        script.window.keys.append(ESCAPE)
        script.step()
        clock.now += 4
        script.run_to_end()
        assert reaper.messages == []
        assert reaper.processes == []
        assert mailbox.list_files("request") == []

    def test_a_mailbox_that_can_not_be_written(self, reaper: Reaper, project: Project, song: Path) -> None:
        mailbox.mailbox_folder().rmdir()
        song_track(project, song)
        assert not reaper.open(SEPARATE).running
        assert "Can't write into" in reaper.messages[0]


@pytest.mark.parametrize("lua", ["lua53", "lua54"])
def test_the_real_daemon(reaper: Reaper, tmp_path: Path, lua: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon runs: the script starts it, and it separates; the stems sum to what was there. And again."""
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    connection_path().unlink()
    reaper.lua = importlib.import_module(f"lupa.{lua}")
    project = reaper.project
    Path(project.path).parent.mkdir()
    song = write_song(tmp_path / "audio" / 'Mi"x 100 %.wav', seconds=2.0)
    song_track(project, song, D_POSITION=0.5, D_LENGTH=1.25, take_D_STARTOFFS=0.5, D_FADEINLEN=0.1)
    before = project.mix(RATE, 2 * RATE)
    for _ in range(2):
        reaper.inputs.append(["", "dsp", ""])
        script = reaper.open(OPTIONS)
        script.run_to_end()
    assert reaper.messages == []
    assert read_connection() is not None
    assert len(project.undo) == 1
    stems = [track for track in project.tracks if track.items and track.name != "Mix"]
    assert len(stems) >= 2
    assert all(feeds(project)[track.name] == [f"{track.name} Bus"] for track in stems)
    assert np.abs(project.mix(RATE, 2 * RATE) - before).max() < EXACT
    sources = [track.items[0].take.source.path for track in stems]  # pyright: ignore[reportOptionalMemberAccess]
    assert all(Path(path).is_relative_to(Path(project.path).parent / "stems") for path in sources)
    assert all(soundfile.info(path).frames == 2 * RATE for path in sources)


def test_scripts_use_only_what_reaper_itself_has(reaper: Reaper) -> None:
    """No function of an extension that a user may not have."""
    text = "".join(path.read_text(encoding="utf-8") for path in reaper.folder.glob("*.lua"))
    called = set(re.findall(r"reaper\.(\w+)", text))
    assert called <= set(ARGUMENTS)
    extensions = ("BR_", "SNM_", "CF_", "NF_", "JS_", "FNG_", "ULT_", "SN_", "ImGui_", "Xen_")
    assert not [name for name in called if name.startswith(extensions)]


def test_headers_say_what_the_installer_reads(reaper: Reaper) -> None:
    headers = {path.name: path.read_text(encoding="utf-8").splitlines()[:2] for path in reaper.folder.glob("*.lua")}
    scripts = {name: lines for name, lines in headers.items() if lines[0].startswith("-- @name ")}
    assert scripts == {
        SEPARATE: ["-- @name Separate to stems", "-- @menu track item"],
        OPTIONS: ["-- @name Separate to stems (options)", "-- @menu track item"],
        LISTENER: ["-- @name Stems listener", "-- @startup"],
    }


def test_the_model_refuses_what_reaper_does_not_have(reaper: Reaper, tmp_path: Path) -> None:
    """The model is worth nothing if it lets through what REAPER would not."""
    wrong = ["reaper.NoSuchFunction()", "reaper.CountTracks()", "reaper.GetTrack(0, 0)", "reaper.GetTrackGUID('x')"]
    for number, line in enumerate(wrong):
        path = tmp_path / f"{number}.lua"
        path.write_text(line)
        with pytest.raises((reaper.lua.LuaError, AssertionError)):
            reaper.run(path)
    reaper.faults.clear()


def test_a_track_is_opaque(reaper: Reaper, project: Project, tmp_path: Path) -> None:
    project.tracks.append(Track(name="Mix"))
    path = tmp_path / "peek.lua"
    path.write_text("local project = reaper.EnumProjects(-1)\nreturn reaper.GetTrack(project, 0).name")
    with pytest.raises(AttributeError):
        reaper.run(path)
