"""What stands in a REAPER project after a separation: our real scripts, on a model of REAPER."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rpp
from installed_reaper import EXACT, OPTIONS, RATE, Reaper, feeds, names, nesting, song_track, write_song
from reaper_project import Project, Source, Take, Track, place, same_state
from stand_in_desk import Desk

from revithion_bridge.daw.bus_plan import BusPlan

STANDING = ["Mix", "Mix stems", "Drums", "Bass", "Other", "Vocals", "Drums Bus", "Bass Bus", "Other Bus", "Vocals Bus"]


class TestTracks:
    def test_a_folder_of_stems_and_then_the_buses_stand_after_the_source(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        project.add_track("Guitar")
        reaper.separate(desk)
        assert names(project) == [*STANDING, "Guitar"]
        inside = {name for name, parent in nesting(project).items() if parent == "Mix stems"}
        assert inside == {"Drums", "Bass", "Other", "Vocals"}
        assert all(parent in ("", "Mix stems") for parent in nesting(project).values())

    def test_each_stem_feeds_its_bus_only_and_each_bus_the_master_only(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        reaper.separate(desk)
        routing = feeds(project)
        for stem in ("Drums", "Bass", "Other", "Vocals"):
            assert routing[stem] == [f"{stem} Bus"]
            assert routing[f"{stem} Bus"] == ["master"]

    def test_colours_and_gains_are_the_plans(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        song_track(project, song)
        (plan,) = self.run_with(reaper, desk)
        for strip in (*plan.tracks, *plan.buses):
            track = project.track(strip.name)
            assert track.colour == strip.colour
            assert 20 * np.log10(track.values["D_VOL"]) == pytest.approx(strip.gain_db)

    @staticmethod
    def run_with(reaper: Reaper, desk: Desk) -> list[BusPlan]:
        script = reaper.open("Separate to stems.lua")
        plans = desk.finish_all()
        script.run_to_end()
        return plans

    def test_the_mix_is_the_same_as_before(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        song_track(project, song, D_POSITION=0.25)
        before = project.mix(RATE, 2 * RATE)
        reaper.separate(desk)
        assert project.track("Mix").values["B_MUTE"] == 1.0
        assert np.abs(project.mix(RATE, 2 * RATE) - before).max() < EXACT
        assert np.abs(before).max() > 0.1

    def test_the_folders_fader_is_the_vca_of_the_buses(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        project.add_track("Strings").groups["VOLUME_LEAD"] = 1  # the first group is taken
        before = project.mix(RATE, RATE)
        reaper.separate(desk)
        assert project.track("Mix stems").groups == {"VOLUME_VCA_LEAD": 2}
        project.track("Mix stems").values["D_VOL"] = 0.5
        assert np.abs(project.mix(RATE, RATE) - before / 2).max() < EXACT

    def test_six_channels_stay_six(self, reaper: Reaper, project: Project, desk: Desk, tmp_path: Path) -> None:
        song_track(project, write_song(tmp_path / "surround.wav", channels=6))
        reaper.separate(desk)
        for name in ("Drums", "Drums Bus"):
            assert project.track(name).values["I_NCHAN"] == 6
        assert project.track("Drums").sends[0].values["I_SRCCHAN"] == 3 << 10

    def test_the_project_file_says_the_same(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        song_track(project, song, D_POSITION=0.25)
        reaper.separate(desk)
        tracks = rpp.loads(project.text()).findall(".//TRACK")
        assert [track.find("./NAME")[1] for track in tracks] == names(project)
        drums, bus = tracks[2], tracks[6]
        assert drums.find("./MAINSEND")[1] == "0"
        assert bus.find("./MAINSEND")[1] == "1"
        assert [row[1] for row in bus.findall("./AUXRECV")] == ["2"]
        (item,) = drums.findall("./ITEM")
        assert float(item.find("./POSITION")[1]) == 0.25
        assert Path(item.find(".//FILE")[1]).name == "drums.wav"


class TestItems:
    def test_an_item_lands_where_it_was_and_all_of_it_survives(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        track = song_track(
            project,
            song,
            D_POSITION=3.125,
            D_LENGTH=0.31,
            D_VOL=0.7,
            D_FADEINLEN=0.02,
            D_FADEOUTLEN=0.05,
            C_FADEOUTSHAPE=3.0,
            D_SNAPOFFSET=0.1,
            take_D_STARTOFFS=0.2,
            take_D_PLAYRATE=1.25,
            take_B_PPITCH=0.0,
            take_D_PITCH=-2.0,
            take_D_VOL=-0.5,
        )
        (item,) = track.items
        assert item.take is not None
        item.take.stretch = [(0.0, 0.2), (0.1, 0.35)]
        item.take.blocks = ["<VOLENV", "PT 0 0.5 0", ">", "<TAKEFX", "FXID {AA-01}", ">"]
        reaper.separate(desk)
        for name in ("Drums", "Bass", "Other", "Vocals"):
            (copy,) = project.track(name).items
            assert copy.take is not None
            assert copy.values == item.values
            assert copy.take.values == item.take.values
            assert copy.take.stretch == item.take.stretch
            assert copy.take.blocks[:3] == item.take.blocks[:3]
            assert copy.take.blocks[4] != item.take.blocks[4], "an effect's id is its own"
            assert copy.take.name == name
            assert Path(copy.take.source.path).name == f"{name.lower()}.wav"  # pyright: ignore[reportOptionalMemberAccess]

    def test_trimmed_faded_and_looped_items_sum_to_what_they_were(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        track = song_track(project, song, D_POSITION=0.1, D_LENGTH=0.4, D_FADEOUTLEN=0.1, take_D_STARTOFFS=0.3)
        place(track, song, D_POSITION=1.0, D_LENGTH=1.7, B_LOOPSRC=1.0, take_D_STARTOFFS=0.5)
        place(track, song, D_POSITION=3.0, D_LENGTH=0.5, take_D_PLAYRATE=1.5)
        before = project.mix(RATE, 4 * RATE)
        reaper.separate(desk)
        assert len(project.track("Bass").items) == 3
        assert np.abs(project.mix(RATE, 4 * RATE) - before).max() < EXACT

    def test_a_48_khz_project_with_a_44_khz_song(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        project.sample_rate = 48_000
        song_track(project, song, D_POSITION=0.5, take_D_STARTOFFS=0.1, D_LENGTH=0.5)
        before = project.mix(48_000, 96_000)
        reaper.separate(desk)
        assert np.abs(project.mix(48_000, 96_000) - before).max() < EXACT

    def test_a_section_of_a_file(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        track = song_track(project, song, D_LENGTH=0.3, take_D_STARTOFFS=0.1)
        take = track.items[0].take
        assert take is not None
        take.source = Source(kind="SECTION", parent=take.source, offset=0.4, length=0.5)
        before = project.mix(RATE, RATE)
        script = reaper.open("Separate to stems.lua")
        assert desk.request().items[0].start_frame == RATE // 2
        desk.finish_all()
        script.run_to_end()
        assert np.abs(project.mix(RATE, RATE) - before).max() < EXACT

    def test_of_several_takes_only_the_active_one_is_copied(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path, tmp_path: Path
    ) -> None:
        (item,) = song_track(project, song).items
        item.takes.insert(0, Take(name="older", source=Source(kind="WAVE", path=str(tmp_path / "older.wav"))))
        item.active = 1
        other = place(project.add_track("Guitar"), song, B_UISEL=0.0)
        item.values["B_UISEL"] = 1.0
        reaper.separate(desk)
        assert len(project.track("Drums").items[0].takes) == 1
        assert len(item.takes) == 2
        assert (item.values["B_UISEL"], other.values["B_UISEL"]) == (1.0, 0.0), "the selection is the user's"

    def test_an_item_that_is_gone_meanwhile_is_replaced_by_a_plain_one(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        track = song_track(project, song, D_POSITION=0.5, D_LENGTH=0.25, take_D_STARTOFFS=0.125, take_D_PLAYRATE=2.0)
        script = reaper.open("Separate to stems.lua")
        track.items.clear()
        desk.finish_all()
        script.run_to_end()
        (item,) = project.track("Drums").items
        assert item.take is not None
        assert item.values["D_POSITION"] == pytest.approx(0.5)
        assert item.values["D_LENGTH"] == pytest.approx(0.25)
        assert item.take.values["D_STARTOFFS"] == pytest.approx(0.125, abs=0.51 / RATE)
        assert item.take.values["D_PLAYRATE"] == 2.0
        fades = {name: item.values[name] for name in item.values if name.startswith("D_FADE")}
        assert all(value <= 0 for value in fades.values()), "fades would break the sum"
        assert item.values["B_LOOPSRC"] == 0.0

    def test_only_the_separated_items_are_muted_where_the_track_has_others(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        track = song_track(project, song)
        first, second = track.items[0], place(track, song, D_POSITION=2.0)
        first.values["B_UISEL"] = 1.0
        before = project.mix(RATE, 4 * RATE)
        reaper.separate(desk)
        assert (track.values["B_MUTE"], first.values["B_MUTE"], second.values["B_MUTE"]) == (0.0, 1.0, 0.0)
        assert np.abs(project.mix(RATE, 4 * RATE) - before).max() < EXACT
        desk.made, desk.seed = {}, 1
        reaper.separate(desk)  # again: copies of a muted item are heard
        assert np.abs(project.mix(RATE, 4 * RATE) - before).max() < EXACT
        first.values["B_UISEL"], second.values["B_UISEL"] = 0.0, 1.0
        reaper.separate(desk)  # of the same track: it replaces those of the first item, which is heard again
        assert (first.values["B_MUTE"], second.values["B_MUTE"]) == (0.0, 1.0)
        assert np.abs(project.mix(RATE, 4 * RATE) - before).max() < EXACT

    def test_one_item_after_the_whole_track(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        """The others have no stems any more, so the track is heard again, and only that item is muted."""
        track = song_track(project, song)
        first, second = track.items[0], place(track, song, D_POSITION=2.0)
        before = project.mix(RATE, 4 * RATE)
        reaper.separate(desk)
        assert track.values["B_MUTE"] == 1.0
        first.values["B_UISEL"] = 1.0
        reaper.separate(desk)
        assert (track.values["B_MUTE"], first.values["B_MUTE"], second.values["B_MUTE"]) == (0.0, 1.0, 0.0)
        assert np.abs(project.mix(RATE, 4 * RATE) - before).max() < EXACT

    def test_a_track_that_the_user_has_muted_stays_so(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        track = song_track(project, song)
        place(track, song, D_POSITION=2.0)
        track.items[0].values["B_UISEL"], track.values["B_MUTE"] = 1.0, 1.0
        reaper.separate(desk)
        assert track.values["B_MUTE"] == 1.0


class TestAnotherPreset:
    """Two sets of one source would be heard together: the second takes the place of the first."""

    @staticmethod
    def separate(reaper: Reaper, desk: Desk, preset: str) -> None:
        reaper.inputs = [[preset, "", ""]]
        script = reaper.open(OPTIONS)
        desk.finish_all()
        script.run_to_end()

    def test_the_first_set_goes_in_the_same_step(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        before = project.mix(RATE, RATE)
        reaper.separate(desk)
        first = project.snapshot()
        self.separate(reaper, desk, "tracks-only")
        assert names(project) == ["Mix", "Mix stems", "Drums", "Bass", "Other", "Vocals"]
        assert np.abs(project.mix(RATE, RATE) - before).max() < EXACT
        assert len(project.undo) == 2
        project.undo_once()
        assert same_state(project.tracks, first)

    def test_sets_of_other_tracks_stay(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path, tmp_path: Path
    ) -> None:
        mix = song_track(project, song)
        reaper.separate(desk)
        mix.values["I_SELECTED"] = 0.0
        guitar = project.add_track("Guitar")
        place(guitar, write_song(tmp_path / "guitar.wav", seed=8))
        guitar.values["I_SELECTED"] = 1.0
        self.separate(reaper, desk, "tracks-only")
        assert set(STANDING) < set(names(project))

    def test_a_copy_that_the_user_made_stays(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        song_track(project, song)
        reaper.separate(desk)
        project.tracks.append(Track(name="My drums", ext=dict(project.track("Drums").ext)))
        self.separate(reaper, desk, "tracks-only")
        assert names(project) == ["Mix", "Mix stems", "Drums", "Bass", "Other", "Vocals", "My drums"]

    def test_stems_of_its_stems_go_along(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        mix = song_track(project, song)
        before = project.mix(RATE, RATE)
        reaper.separate(desk)
        bass = project.track("Bass")
        mix.values["I_SELECTED"], bass.values["I_SELECTED"] = 0.0, 1.0
        reaper.separate(desk)
        mix.values["I_SELECTED"], bass.values["I_SELECTED"] = 1.0, 0.0
        self.separate(reaper, desk, "tracks-only")
        assert names(project) == ["Mix", "Mix stems", "Drums", "Bass", "Other", "Vocals"]
        assert np.abs(project.mix(RATE, RATE) - before).max() < EXACT

    def test_items_that_have_no_stems_any_more_are_heard_again(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        track = song_track(project, song)
        first, second = track.items[0], place(track, song, D_POSITION=2.0)
        place(track, song, D_POSITION=3.5)
        before = project.mix(RATE, 5 * RATE)
        for preset, chosen in [("", (first, second)), ("tracks-only", (first,)), ("", (second,))]:
            for item in (first, second):
                item.values["B_UISEL"] = float(item in chosen)
            self.separate(reaper, desk, preset)
            assert [bool(item.values["B_MUTE"]) for item in (first, second)] == [first in chosen, second in chosen]
            assert np.abs(project.mix(RATE, 5 * RATE) - before).max() < EXACT


class TestAgain:
    def test_all_of_it_is_one_step_and_undo_removes_it(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        project.add_track("Guitar")
        before = project.snapshot()
        reaper.separate(desk)
        assert len(project.undo) == 1
        assert project.loose == [], "no change outside that step"
        assert project.undo_once() == "Separate to stems: Mix"
        assert same_state(project.tracks, before)

    def test_a_second_run_changes_nothing(self, reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
        track = song_track(project, song, D_LENGTH=0.5, take_D_STARTOFFS=0.25, take_D_PLAYRATE=0.8)
        place(track, song, D_POSITION=2.0)
        reaper.separate(desk)
        once = project.snapshot()
        reaper.separate(desk)
        assert len(project.undo) == 1
        assert same_state(project.tracks, once)

    def test_what_the_user_did_to_our_tracks_survives_new_stems(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        reaper.separate(desk)
        bus = project.track("Drums Bus")
        bus.values["D_VOL"], bus.name, bus.effects = 0.25, "Boom", ["ReaComp"]
        project.track("Bass").values["B_MUTE"] = 1.0
        desk.made, desk.seed = {}, 1
        reaper.separate(desk)
        assert len(project.tracks) == len(STANDING)
        assert (bus.values["D_VOL"], bus.name, bus.effects) == (0.25, "Boom", ["ReaComp"])
        assert project.track("Bass").values["B_MUTE"] == 1.0
        assert len(project.undo) == 2
        assert len(project.track("Drums").items) == 1

    def test_a_moved_source_takes_its_stems_along(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        (item,) = song_track(project, song).items
        reaper.separate(desk)
        item.values["D_POSITION"] = 4.0
        reaper.separate(desk)
        assert [copy.values["D_POSITION"] for copy in project.track("Drums").items] == [4.0]

    def test_wrong_routing_is_put_right_and_the_users_own_sends_stay(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        before = project.mix(RATE, RATE)
        reaper.separate(desk)
        drums, reverb = project.track("Drums"), project.add_track("Reverb")
        drums.values["B_MAINSEND"] = 1.0
        extra = dataclasses.replace(
            drums.sends[0], target=reverb, ext={}, values={**drums.sends[0].values, "B_MUTE": 1.0}
        )
        drums.sends.insert(0, extra)
        reaper.separate(desk)
        assert feeds(project)["Drums"] == ["Reverb", "Drums Bus"]
        assert np.abs(project.mix(RATE, RATE) - before).max() < EXACT

    def test_a_deleted_stem_track_comes_back_in_its_folder(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        reaper.separate(desk)
        bass = project.track("Bass")
        project.tracks.remove(bass)
        reaper.separate(desk)
        assert names(project) == STANDING
        assert nesting(project)["Bass"] == "Mix stems"

    def test_a_folder_that_the_user_dissolved_stays_dissolved(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        reaper.separate(desk)
        folder, last = project.track("Mix stems"), project.track("Vocals")
        project.tracks.remove(folder)
        last.values["I_FOLDERDEPTH"] = 0.0
        reaper.separate(desk)
        assert "Mix stems" not in names(project)
        assert len(project.undo) == 1

    def test_a_track_that_the_user_duplicated_is_the_users(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        reaper.separate(desk)
        drums = project.track("Drums Bus")
        copy = Track(name="Copy", values={**drums.values}, ext={**drums.ext})
        project.tracks.append(copy)
        desk.made, desk.seed = {}, 1
        reaper.separate(desk)
        assert copy in project.tracks
        assert feeds(project)["Drums"] == ["Drums Bus"], "and not the copy"

    def test_a_stem_that_can_not_be_read_leaves_all_as_it_was(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        before = project.snapshot()
        desk.stems(str(song))["bass"].path.write_bytes(b"no audio")
        reaper.separate(desk)
        assert same_state(project.tracks, before)
        assert project.undo == []
        (message,) = reaper.messages
        assert "bass.wav" in message

    def test_a_stem_that_is_gone_is_said_before_anything_happens(
        self, reaper: Reaper, project: Project, desk: Desk, song: Path
    ) -> None:
        song_track(project, song)
        desk.stems(str(song))["bass"].path.unlink()
        reaper.separate(desk)
        assert names(project) == ["Mix"]
        assert "bass.wav is gone" in reaper.messages[0]


def test_stems_of_a_stem_stand_beside_it(reaper: Reaper, project: Project, desk: Desk, song: Path) -> None:
    song_track(project, song)
    before = project.mix(RATE, RATE)
    reaper.separate(desk)
    project.track("Mix").values["I_SELECTED"] = 0.0
    project.track("Bass").values["I_SELECTED"] = 1.0
    reaper.separate(desk)
    assert nesting(project)["Bass stems"] == "Mix stems"
    assert np.abs(project.mix(RATE, RATE) - before).max() < EXACT
