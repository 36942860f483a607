"""Plans that other programs send to a project that is open in REAPER: the real listener, on a model of REAPER."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rpp
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from installed_reaper import EXACT, HOSTILE, LISTENER, RATE, Reaper, feeds, names, nesting
from reaper_host import Script
from reaper_project import Project, Track, place, same_state
from stand_in_desk import split

from revithion_bridge.daw import mailbox
from revithion_bridge.daw.bus_plan import (
    BusPlan,
    PlannedBus,
    PlannedClip,
    PlannedGroup,
    PlannedSource,
    PlannedTrack,
    Position,
    PositionUnit,
    Send,
)
from revithion_bridge.daw.mailbox import Answer
from revithion_bridge.daw.plan_builder import StemFile, StemPlacement, build_plan, plan_identity, shown_name
from revithion_bridge.daw.plan_presets import find_preset
from revithion_bridge.daw_files.rpp_project import write_rpp

IDENTITY = plan_identity("test")


@pytest.fixture
def listener(reaper: Reaper) -> Script:
    return reaper.open(LISTENER)


@pytest.fixture
def stems(song: Path, tmp_path: Path) -> dict[str, StemFile]:
    return split(song, tmp_path / "stems")


def command(listener: Script, kind: str, **fields: Any) -> Answer:
    """What a client does, without waiting: the listener is looked after here."""
    (box,) = mailbox.open_sessions("reaper")
    mailbox.write_file(mailbox.box_path(box, "inbox"), {"v": 1, "id": "c1", "type": kind, **fields})
    listener.step()
    answer = mailbox.read_file(mailbox.box_path(box, "answer", "c1"), Answer)
    assert answer is not None
    mailbox.box_path(box, "answer", "c1").unlink()
    assert not mailbox.box_path(box, "inbox").exists()
    return answer


def render(listener: Script, plan: BusPlan) -> dict[str, str]:
    answer = command(listener, "import", plan=plan)
    assert answer.ok, answer.error
    return {f"{strip.role} {strip.key}": strip.outcome for strip in answer.strips}


def plan_of(stems: dict[str, StemFile], preset: str = "4-stems-to-buses", **more: Any) -> BusPlan:
    placement = StemPlacement(stems=list(stems.values()))
    plan = build_plan([placement], find_preset(preset), identity=IDENTITY, title="Song")
    return dataclasses.replace(plan, **more)


def bare_plan(clips: Sequence[PlannedClip], **more: Any) -> BusPlan:
    track = PlannedTrack(key="vocals", name="Vocals", colour="#56B4E9", channels=2, clips=tuple(clips))
    return BusPlan(identity=IDENTITY, title="Song", tracks=(track,), **more)


def clip_of(stem: StemFile, **more: Any) -> PlannedClip:
    whole = PlannedClip(
        file=str(stem.path),
        channels=stem.channels,
        sample_rate=stem.sample_rate,
        file_frames=stem.frames,
        frames=stem.frames,
        sha256=stem.sha256,
    )
    return dataclasses.replace(whole, **more)


class TestSelection:
    """Stems that another program wants where the user has put the cursor's attention: ``align_to="item"``."""

    def test_stems_go_to_the_selected_item(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path
    ) -> None:
        for start in (7.0, 3.5):
            place(project.add_track("Mix"), song, D_POSITION=start).values["B_UISEL"] = 1.0
        where = Position(value=0.25, unit=PositionUnit.SELECTION)
        render(listener, bare_plan([clip_of(stems["vocals"], position=where)]))
        assert project.track("Vocals").items[0].values["D_POSITION"] == 3.75

    def test_without_one_it_is_refused(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path
    ) -> None:
        place(project.add_track("Mix"), song)
        plan = bare_plan([clip_of(stems["vocals"], position=Position(unit=PositionUnit.SELECTION))])
        answer = command(listener, "import", plan=plan)
        assert answer.error is not None
        assert "No item is selected" in answer.error.message
        assert names(project) == ["Mix"]


class TestSession:
    def test_others_see_it_while_it_is_open(self, reaper: Reaper, project: Project, listener: Script) -> None:
        (session,) = mailbox.open_sessions("reaper").values()
        assert (session.name, session.path) == ("Song", project.path)
        listener.end()
        assert mailbox.open_sessions("reaper") == {}

    def test_another_project_in_front_is_another_session(self, reaper: Reaper, listener: Script) -> None:
        (first,) = mailbox.open_sessions()
        reaper.projects.append(Project(path="/elsewhere/Other.rpp", sample_rate=48_000))
        reaper.front = 1
        listener.step()
        ((second, session),) = mailbox.open_sessions().items()
        assert second != first
        assert (session.name, session.sample_rate) == ("Other", 48_000)

    def test_a_second_listener_leaves_the_first_alone(self, reaper: Reaper, listener: Script) -> None:
        assert not reaper.open(LISTENER).running
        assert listener.running
        listener.end()
        assert reaper.open(LISTENER).running

    def test_strips_are_ours_only(
        self, project: Project, listener: Script, reaper: Reaper, stems: dict[str, StemFile]
    ) -> None:
        project.add_track("Guitar")
        render(listener, plan_of(stems))
        (session,) = mailbox.open_sessions().values()
        assert [strip.name for strip in session.strips if strip.role == "bus"] == [
            "Drums Bus",
            "Bass Bus",
            "Other Bus",
            "Vocals Bus",
        ]
        assert {strip.identity for strip in session.strips} == {IDENTITY}
        assert len(session.strips) == 8


class TestImport:
    def test_created_then_unchanged_then_replaced(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path, tmp_path: Path
    ) -> None:
        assert set(render(listener, plan_of(stems)).values()) == {"created"}
        once = project.snapshot()
        assert set(render(listener, plan_of(stems)).values()) == {"unchanged"}
        assert same_state(project.tracks, once)
        assert len(project.undo) == 1
        other = split(song, tmp_path / "other", seed=1)
        outcomes = render(listener, plan_of({**stems, "bass": other["bass"]}))
        assert {key for key, outcome in outcomes.items() if outcome == "replaced"} == {"track bass"}

    def test_strips_that_are_planned_no_more_go_unless_the_plan_is_partial(
        self, project: Project, listener: Script, stems: dict[str, StemFile]
    ) -> None:
        render(listener, plan_of(stems))
        few = {name: stems[name] for name in ("drums", "bass")}
        render(listener, plan_of(few, partial=True))
        assert len(project.tracks) == 9
        render(listener, plan_of(few))
        assert names(project) == ["Song stems", "Drums", "Bass", "Drums Bus", "Bass Bus"]
        assert nesting(project)["Drums Bus"] == ""
        render(listener, plan_of(stems))
        assert nesting(project)["Vocals"] == "Song stems"
        assert nesting(project)["Vocals Bus"] == ""

    def test_tracks_of_another_identity_stay(
        self, project: Project, listener: Script, stems: dict[str, StemFile]
    ) -> None:
        render(listener, plan_of(stems))
        render(listener, plan_of(stems, identity=plan_identity("other song")))
        assert len(project.tracks) == 18

    def test_several_stems_on_one_bus_and_the_sum(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path
    ) -> None:
        render(listener, plan_of(stems, "vocals-instrumental"))
        assert feeds(project)["Drums"] == ["Instrumental Bus"]
        together = project.mix(RATE, RATE)
        project.tracks.clear()
        place(project.add_track("Mix"), song)
        assert np.abs(together - project.mix(RATE, RATE)).max() < EXACT

    def test_tracks_without_buses_feed_the_master_through_their_folder(
        self, project: Project, listener: Script, stems: dict[str, StemFile]
    ) -> None:
        render(listener, plan_of(stems, "tracks-only"))
        assert feeds(project)["Drums"] == ["master"]
        assert nesting(project)["Drums"] == "Song stems"

    def test_a_vca_of_another_name_has_a_track_of_its_own(
        self, project: Project, listener: Script, stems: dict[str, StemFile]
    ) -> None:
        two = {name: stems[name] for name in ("drums", "bass")}
        render(listener, plan_of(two, vca="All stems"))
        render(listener, plan_of(stems, vca="All stems"))  # new buses follow too
        project.track("All stems").values["D_VOL"] = 0.0
        assert np.abs(project.mix(RATE, RATE)).max() == 0.0

    def test_sends_go_to_planned_buses_and_to_tracks_by_name_which_are_made_once(
        self, project: Project, listener: Script, stems: dict[str, StemFile]
    ) -> None:
        plan = plan_of(stems)
        sends = (Send(bus="bass", gain_db=-6.0), Send(bus="Reverb", gain_db=-12.0, pre_fader=True))
        plan = dataclasses.replace(plan, tracks=(dataclasses.replace(plan.tracks[0], sends=sends), *plan.tracks[1:]))
        render(listener, plan)
        assert feeds(project)["Drums"] == ["Drums Bus", "Bass Bus", "Reverb"]
        reverb = project.track("Drums").sends[2]
        assert reverb.values["D_VOL"] == pytest.approx(10 ** (-12 / 20))
        assert (reverb.values["I_SENDMODE"], project.track("Drums").sends[1].values["I_SENDMODE"]) == (3.0, 0.0)
        assert set(render(listener, plan).values()) == {"unchanged"}
        render(listener, plan_of(stems))
        assert feeds(project)["Drums"] == ["Drums Bus"]

    def test_buses_can_feed_buses(self, project: Project, listener: Script, stems: dict[str, StemFile]) -> None:
        clip = clip_of(stems["drums"])
        track = PlannedTrack(key="drums", name="Drums", colour="#56B4E9", channels=2, clips=(clip,), output="drums")
        buses = (
            PlannedBus(key="drums", name="Drums Bus", colour="#56B4E9", channels=2, output="all"),
            PlannedBus(key="all", name="All", colour="#FFFFFF", channels=2),
        )
        render(listener, BusPlan(identity=IDENTITY, title="Song", tracks=(track,), buses=buses))
        assert feeds(project) == {"Drums": ["Drums Bus"], "Drums Bus": ["All"], "All": ["master"]}

    @pytest.mark.parametrize(
        ("position", "seconds"),
        [
            (Position(value=1.5), 1.5),
            (Position(value=66_150.0, unit=PositionUnit.FRAMES), 1.5),
            (Position(value=6.0, unit=PositionUnit.BEATS), 4 * 0.5 + 2 * 1.0),
            (Position(value=1.0, unit=PositionUnit.BARS), 0.0),
            (Position(value=3.5, unit=PositionUnit.BARS), 4 * 0.5 + 3.5 * 1.0),
        ],
    )
    def test_positions_follow_the_projects_tempo(
        self, project: Project, listener: Script, stems: dict[str, StemFile], position: Position, seconds: float
    ) -> None:
        project.tempo, project.beats_in_bar = [(0.0, 120.0), (4.0, 60.0)], 3
        render(listener, bare_plan([clip_of(stems["vocals"], position=position)]))
        (item,) = project.track("Vocals").items
        assert item.values["D_POSITION"] == pytest.approx(seconds)

    def test_frames_are_of_the_projects_rate(
        self, project: Project, listener: Script, stems: dict[str, StemFile]
    ) -> None:
        position = Position(value=48_000.0, unit=PositionUnit.FRAMES)
        render(listener, bare_plan([clip_of(stems["vocals"], position=position)], project_rate=48_000))
        assert project.track("Vocals").items[0].values["D_POSITION"] == 1.0

    def test_what_is_no_plan_is_refused(self, project: Project, listener: Script) -> None:
        answer = command(listener, "import", plan={"version": 2})
        assert not answer.ok
        assert answer.error is not None
        assert answer.error.hint
        assert command(listener, "import", plan={"version": 1, "tracks": [{}]}).error is not None
        assert listener.running
        assert project.tracks == []


class TestProjectFiles:
    """A project that was written while REAPER did not run is opened in it, and the other way round."""

    @staticmethod
    def close(project: Project) -> Path:
        path = Path(project.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(project.text(), encoding="utf-8")
        return path

    @pytest.mark.parametrize("preset", ["4-stems-to-buses", "vocals-instrumental", "tracks-only"])
    def test_what_was_written_is_found_in_reaper(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path, preset: str
    ) -> None:
        plan = plan_of(stems, preset)
        write_rpp(plan, Path(project.path))
        project.read_text(Path(project.path).read_text(encoding="utf-8"))
        before, routing = [track.guid for track in project.tracks], feeds(project)
        assert "created" not in render(listener, plan).values()
        assert [track.guid for track in project.tracks] == before
        assert feeds(project) == routing
        assert [len(track.items) for track in project.tracks if track.items] == [1] * len(plan.tracks)
        assert set(render(listener, plan).values()) == {"unchanged"}
        original, _ = soundfile.read(song)
        assert np.abs(project.mix(RATE, RATE) - original.T).max() < EXACT

    @pytest.mark.parametrize("preset", ["4-stems-to-buses", "vocals-instrumental", "tracks-only"])
    def test_what_reaper_has_is_found_in_its_project(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path, preset: str
    ) -> None:
        plan = plan_of(stems, preset)
        render(listener, plan)
        path = self.close(project)
        assert not write_rpp(plan, path).changed
        assert path.read_text(encoding="utf-8") == project.text()

    def test_other_stems_replace_those_that_another_adapter_has_put_there(
        self, project: Project, listener: Script, stems: dict[str, StemFile], song: Path, tmp_path: Path
    ) -> None:
        others = plan_of(split(song, tmp_path / "other stems", seed=1))
        write_rpp(plan_of(stems), Path(project.path))
        project.read_text(Path(project.path).read_text(encoding="utf-8"))
        render(listener, others)
        assert [len(track.items) for track in project.tracks if track.items] == [1] * len(others.tracks)
        path = self.close(project)
        assert {strip.outcome.value for strip in write_rpp(plan_of(stems), path).strips} == {"replaced", "unchanged"}
        project.read_text(path.read_text(encoding="utf-8"))
        assert [len(track.items) for track in project.tracks if track.items] == [1] * len(others.tracks)
        original, _ = soundfile.read(song)
        assert np.abs(project.mix(RATE, RATE) - original.T).max() < EXACT


class TestFaders:
    def test_a_bus_of_every_set(self, project: Project, listener: Script, stems: dict[str, StemFile]) -> None:
        render(listener, plan_of(stems))
        render(listener, plan_of(stems, identity=plan_identity("other song")))
        answer = command(listener, "fader", identity="", role="bus", key="drums", gain_db=-6.0, muted=None)
        assert [strip.gain_db for strip in answer.strips] == pytest.approx([-6.0, -6.0])
        assert [track.values["B_MUTE"] for track in project.tracks] == [0.0] * 18

    def test_mute_alone_and_no_undo_step(self, project: Project, listener: Script, stems: dict[str, StemFile]) -> None:
        render(listener, plan_of(stems))
        command(listener, "fader", identity=IDENTITY, role="track", key="bass", gain_db=None, muted=True)
        assert project.track("Bass").values["B_MUTE"] == 1.0
        assert project.track("Bass").values["D_VOL"] == pytest.approx(1.0)
        assert len(project.undo) == 1

    def test_silence_can_be_said(self, project: Project, listener: Script, stems: dict[str, StemFile]) -> None:
        render(listener, plan_of(stems))
        project.track("Drums").values["D_VOL"] = 0.0
        answer = command(listener, "fader", identity="", role="track", key="drums", gain_db=None, muted=None)
        assert [strip.gain_db for strip in answer.strips] == [-120.0]

    def test_unknown_ones_are_no_error(self, listener: Script) -> None:
        answer = command(listener, "fader", identity="", role="bus", key="'; DROP", gain_db=0.0, muted=None)
        assert answer.ok
        assert answer.strips == ()


def test_a_command_that_is_none_is_answered(listener: Script) -> None:
    answer = command(listener, "os.execute")
    assert answer.error is not None
    assert answer.error.code == "daw.refused"


def test_a_command_with_an_id_that_leaves_the_folder_is_ignored(listener: Script, tmp_path: Path) -> None:
    (box,) = mailbox.open_sessions()
    mailbox.write_file(mailbox.box_path(box, "inbox"), {"v": 1, "id": "../../out", "type": "fader"})
    listener.step()
    assert not list(tmp_path.glob("**/out*"))
    assert listener.running


def test_send_command_gets_its_answer(reaper: Reaper, listener: Script) -> None:
    """The real client, in a thread as it blocks."""
    answers: list[Answer] = []
    (box,) = mailbox.open_sessions()
    fields = {"identity": "", "role": "bus", "key": "x", "gain_db": 0.0, "muted": None}
    client = threading.Thread(target=lambda: answers.append(mailbox.send_command(box, "fader", timeout_s=10, **fields)))
    client.start()
    while client.is_alive():
        listener.step()
        time.sleep(0.005)
    assert [answer.ok for answer in answers] == [True]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_data(
    project: Project, listener: Script, stems: dict[str, StemFile], name: str, tmp_path: Path
) -> None:
    track = PlannedTrack(
        key=name, name=name, colour="#56B4E9", channels=2, clips=(clip_of(stems["vocals"]),), output=name
    )
    bus = PlannedBus(key=name, name=name, colour="#56B4E9", channels=2, sends=(Send(bus=name + "!"),))
    plan = BusPlan(
        identity=IDENTITY, title=name, tracks=(track,), buses=(bus,), group=PlannedGroup(name=name), vca=name
    )
    assert set(render(listener, plan).values()) == {"created"}
    assert set(render(listener, plan).values()) == {"unchanged"}
    assert [strip.key for strip in next(iter(mailbox.open_sessions().values())).strips] == [name, name]
    assert "\n" not in "".join(names(project))
    if "\n" not in name and "`" not in name:
        parsed = rpp.loads(project.text()).findall(".//TRACK")
        assert [one.find("./NAME")[1] for one in parsed][:3] == [name] * 3


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_is_found_again(
    project: Project, listener: Script, stems: dict[str, StemFile], name: str, key: str
) -> None:
    project.tracks.clear()
    clip = clip_of(stems["vocals"])
    shown = shown_name(name)
    track = PlannedTrack(key=shown_name(key), name=shown, colour="#56B4E9", channels=2, clips=(clip,))
    plan = BusPlan(identity=IDENTITY, title=shown, tracks=(track,))
    assert render(listener, plan) == {f"track {shown_name(key)}": "created"}
    assert render(listener, plan) == {f"track {shown_name(key)}": "unchanged"}
    assert names(project) == [shown]


@given(st.lists(st.integers(-3, 1), min_size=1, max_size=8), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_users_folders_stay_as_they_are(
    project: Project, listener: Script, stems: dict[str, StemFile], steps: list[int], data: st.DataObject
) -> None:
    """Whatever the nesting, and wherever the source stands: in, with fewer stems, and out again."""
    project.tracks = [Track(name=f"User {index}") for index in range(len(steps))]
    for track, step in zip(project.tracks, steps, strict=True):
        track.values["I_FOLDERDEPTH"] = float(step)
    source = data.draw(st.sampled_from(project.tracks))
    before, order = nesting(project), names(project)
    two = {name: stems[name] for name in ("drums", "bass")}
    for some in (stems, two):
        render(listener, plan_of(some, source=PlannedSource(track_id=source.guid, track_name="")))
        after = nesting(project)
        assert {name: after[name] for name in order} == before
        assert [name for name in names(project) if name in order] == order
        assert after["Song stems"] == before[source.name]
        assert after["Drums"] == "Song stems"
        assert after["Drums Bus"] == before[source.name]


def test_the_stems_of_these_tests_are_exact(song: Path, stems: dict[str, StemFile]) -> None:
    total = sum(soundfile.read(stem.path, dtype="float64")[0] for stem in stems.values())
    assert np.array_equal(total, soundfile.read(song, dtype="float64")[0])
