"""Stems in Ardour as its user sees them: the real program with its windows, the real daemon, real music."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import stempeg

from ardour_desktop import ArdourDesktop, ArdourHome, require_ardour, wait_until
from daemon_program import DaemonProcess
from daw.saved_session import Saved, null_db, without_looks
from revithion_bridge import connect, connect_daw
from revithion_bridge.connection import read_connection
from revithion_bridge.daw.mailbox import list_files
from revithion_stems.audio_files import read_audio
from revithion_stems.stem_colours import stem_colour
from revithion_stems.weights import ModelStore

RATE = 44_100
STEMS = ["drums", "bass", "other", "vocals"]
NULL_DB = -120.0
RUNS = 5  # a race between our connections and Ardour's own once showed in 2 of 12
SEPARATE = "Separate to stems"


@pytest.fixture(autouse=True)
def ardour(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders for this test alone; no daemon outlives it."""
    require_ardour()
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    yield
    for process in DaemonProcess.all:
        if process.process is not None and process.process.poll() is None:
            process.kill()
    DaemonProcess.all.clear()


@pytest.fixture(scope="session")
def real_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of a released song, 44.1 kHz, which the package stempeg carries."""
    audio = read_audio(Path(stempeg.example_stem_path()))
    path = tmp_path_factory.mktemp("music") / "Falcon 69.wav"
    soundfile.write(path, audio.samples.T, audio.sample_rate, "FLOAT")
    return path


@pytest.fixture(scope="session")
def real_song_48k(real_song: Path) -> Path:
    samples, rate = soundfile.read(real_song, dtype="float32")
    path = real_song.with_name("Falcon 48.wav")
    soundfile.write(path, soxr.resample(samples, rate, 48_000), 48_000, "FLOAT")
    return path


def saw(desktop: ArdourDesktop, strips: int = 8) -> Callable[[], bool]:
    """Whether the session has so many strips of ours, and nothing is under way."""

    def look() -> bool:
        session = desktop.announced()
        return session is not None and len(session.strips) == strips and not list_files("request")

    return look


def separate(desktop: ArdourDesktop, strip: int = 1, timeout_s: float = 120.0, strips: int = 8) -> None:
    """Selects a track and separates it, as its user does."""
    desktop.select(strip)
    desktop.action(SEPARATE)
    wait_until(saw(desktop, strips), timeout_s, f"no stems: {desktop.log()[-1000:]}, windows {desktop.windows()}")


def check_as_planned(saved: Saved, frames: int, position: int = 0, start: int = 0, title: str = "Falcon 69") -> None:
    """Every region where it belongs, every wire as planned and no other, names, colours, group, VCA, mute."""
    for stem in STEMS:
        track, bus = stem.capitalize(), f"{stem.capitalize()} Bus"
        assert saved.regions(track) == [(position, start, frames)]
        assert saved.wiring(track) == [[f"{bus}/audio_in 1"], [f"{bus}/audio_in 2"]]
        assert saved.wiring(bus) == [["Master/audio_in 1"], ["Master/audio_in 2"]]
        assert saved.colour(track) == saved.colour(bus) == stem_colour(stem).upper()
        assert saved.routes[track].attrib["route-group"] == f"{title} stems"
        assert saved.routes[bus].find("Slavable/Master") is not None
    assert saved.vcas == [f"{title} stems"]
    assert saved.muted(title)


def in_session(session: Path, name: str) -> np.ndarray:
    """A stereo file as Ardour keeps it, at the session's rate."""
    folder = session / "interchange" / session.name / "audiofiles"
    return np.stack([soundfile.read(folder / f"{name}%{side}.wav", dtype="float64")[0] for side in "LR"], axis=1)


def make(tmp_path: Path, name: str, rate: int = 44_100) -> tuple[ArdourHome, Path]:
    home = ArdourHome(tmp_path / "home", rate)
    home.install()
    return home, home.new_session(tmp_path / name)


def test_five_times_a_song_becomes_stems_on_buses_that_add_up_to_it(tmp_path: Path, real_song: Path) -> None:
    """From the action to the export, each time with a new session and Ardour started anew."""
    song, _ = soundfile.read(real_song, dtype="float64")
    home = ArdourHome(tmp_path / "home")
    home.install()
    with DaemonProcess():
        for run in range(RUNS):
            session = home.new_session(tmp_path / f"run{run}")
            with ArdourDesktop(home, session) as desktop:
                desktop.bring_in(real_song)
                separate(desktop)
                saved = Saved(desktop.save())
            check_as_planned(saved, len(song))
            assert null_db(home.export(session, tmp_path / f"run{run}.wav"), song) <= NULL_DB


@pytest.mark.weights
def test_a_real_model_does_the_same(
    tmp_path: Path, real_song: Path, htdemucs_store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(htdemucs_store.root))
    song, _ = soundfile.read(real_song, dtype="float64")
    home, session = make(tmp_path, "demucs")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song)
        separate(desktop, timeout_s=240)
        saved = Saved(desktop.save())
        with connect() as daemon:
            (job,) = daemon.jobs()
            assert job.summary is not None
            assert job.summary["model"] == "htdemucs"
    check_as_planned(saved, len(song))
    assert null_db(home.export(session, tmp_path / "out.wav"), song) <= NULL_DB


def check_gone(saved: Saved) -> None:
    """No clips, no VCA, the source is heard; the strips, which Ardour can't take back, are inactive."""
    assert saved.vcas == []
    assert not saved.muted("Falcon 69")
    for stem in STEMS:
        assert saved.regions(stem.capitalize()) == []
        assert saved.routes[stem.capitalize()].attrib["active"] == "0"
        assert saved.routes[f"{stem.capitalize()} Bus"].attrib["active"] == "0"


def test_a_second_run_changes_nothing_undo_removes_all_and_redo_brings_it_back(tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "twice")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song)
        separate(desktop)
        first = desktop.save()
        desktop.select(1)
        desktop.action(SEPARATE)
        wait_until(lambda: list_files("request"), 10, "nothing was asked for")
        wait_until(saw(desktop), 60, "the second run does not end")
        assert without_looks(desktop.save()) == without_looks(first)

        frames = soundfile.info(real_song).frames
        for away, back in [("Editor/undo", "Editor/redo"), ("Remove stems", "Editor/undo")]:
            desktop.action(away)
            wait_until(lambda: "(undone)" in desktop.save(), 20, f"{away} was not noticed")
            check_gone(Saved(desktop.save()))
            desktop.action(back)
            wait_until(lambda: "(undone)" not in desktop.save(), 20, f"{back} was not noticed")
            check_as_planned(Saved(desktop.save()), frames)
    song, _ = soundfile.read(real_song, dtype="float64")
    assert null_db(home.export(session, tmp_path / "out.wav"), song) <= NULL_DB


@pytest.mark.parametrize("channels", [1, 6])
def test_other_numbers_of_channels(tmp_path: Path, channels: int) -> None:
    """What the master plays is what it played before, whatever Ardour's panners make of the source."""
    file = tmp_path / "Falcon 69.wav"
    samples = np.random.default_rng(3).normal(0, 0.1, (RATE, channels))
    soundfile.write(file, samples, RATE, "FLOAT")
    home, session = make(tmp_path, "channels")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(file)
        desktop.by_hand(EACH_REGION % "region:to_audioregion ():set_fade_in_active (false)")
        desktop.by_hand(EACH_REGION % "region:to_audioregion ():set_fade_out_active (false)")
        separate(desktop)
        desktop.save()
        desktop.quiet_copy(tmp_path / "stems")
        desktop.action("Editor/undo")
        wait_until(lambda: "(undone)" in desktop.save(), 20, "it was not undone")
        check_gone(Saved(desktop.save()))
    source, _ = soundfile.read(home.export(session, tmp_path / "source.wav"))
    assert np.abs(source).max() > 0.1
    assert null_db(home.export(tmp_path / "stems" / session.name, tmp_path / "stems.wav"), source) <= NULL_DB


def test_two_tracks_one_after_the_other(tmp_path: Path, real_song: Path) -> None:
    """Each has a set of its own, and the second separation leaves the first alone."""
    song, _ = soundfile.read(real_song, dtype="float64")
    noise = np.random.default_rng(5).normal(0, 0.05, song.shape)
    soundfile.write(tmp_path / "Noise.wav", noise, RATE, "FLOAT")
    home, session = make(tmp_path, "two")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song, tmp_path / "Noise.wav")
        separate(desktop, strip=2)
        first = Saved(desktop.save())
        separate(desktop, strip=1, strips=16)
        saved = Saved(desktop.save())
    assert set(saved.vcas) == set(saved.groups) == {"Falcon 69 stems", "Noise stems"}
    assert saved.muted("Falcon 69")
    assert saved.muted("Noise")
    for name in first.routes:
        assert saved.wiring(name) == first.wiring(name)
    assert null_db(home.export(session, tmp_path / "out.wav"), song + noise) <= NULL_DB


SEPARATE_WITH = """
local folder = ARDOUR.user_config_directory (-1) .. "/revithion_stems"
assert (loadfile (folder .. "/stems.lua")) (folder).requests.separate ({ preset = "%s" })
"""


def test_another_preset_of_the_same_track_takes_the_place_of_the_first(tmp_path: Path, real_song: Path) -> None:
    """Two sets of one source would be heard together. What is put away comes back by Undo, and by its preset."""
    song, _ = soundfile.read(real_song, dtype="float64")
    sets = {"4-stems-to-buses": {"Drums", "Bass", "Other", "Vocals"}, "vocals-instrumental": {"Vocals 1", "No vocals"}}
    home, session = make(tmp_path, "presets")

    def tracks(saved: Saved) -> set[str]:
        """Of ours, those that have clips."""
        ours = {name for name, route in saved.routes.items() if "audio-playlist" in route.attrib} - {"Falcon 69"}
        return {name for name in ours if saved.regions(name)}

    def check(preset: str, copy: str) -> None:
        wait_until(lambda: tracks(Saved(desktop.save())) == sets[preset], 20, f"{copy}: not the stems of {preset}")
        time.sleep(1.0)  # what watches undo has looked
        saved = Saved(desktop.save())
        active = {name for name, route in saved.routes.items() if route.attrib["active"] == "1"}
        assert {name for name in active if " Bus" not in name} == sets[preset] | {"Master", "Falcon 69"}
        assert saved.muted("Falcon 69")
        assert len(saved.vcas) == (preset == "4-stems-to-buses")
        desktop.quiet_copy(tmp_path / copy)

    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song)
        separate(desktop)
        for preset in ("vocals-instrumental", "4-stems-to-buses"):
            desktop.select(1)
            desktop.by_hand(SEPARATE_WITH % preset)
            wait_until(lambda: not list_files("request"), 60, "no stems")
            check(preset, preset)
        for step, preset in [("undo", "vocals-instrumental"), ("redo", "4-stems-to-buses")]:
            desktop.action(f"Editor/{step}")
            check(preset, step)
    for copy in (*sets, "undo", "redo"):
        assert null_db(home.export(tmp_path / copy / session.name, tmp_path / f"{copy}.wav"), song) <= NULL_DB, copy


@pytest.mark.parametrize(("session_rate", "song_rate"), [(48_000, 44_100), (44_100, 48_000)])
def test_a_song_of_another_rate(
    tmp_path: Path, real_song: Path, real_song_48k: Path, session_rate: int, song_rate: int
) -> None:
    """Ardour brings it to its own rate; what is separated, and added up, is that."""
    source = real_song if song_rate == 44_100 else real_song_48k
    home, session = make(tmp_path, "rate", session_rate)
    with DaemonProcess() as _, ArdourDesktop(home, session) as desktop:
        desktop.bring_in(source)
        separate(desktop)
        saved = Saved(desktop.save())
    reference = in_session(session, source.stem)
    assert abs(len(reference) - soundfile.info(source).frames * session_rate / song_rate) <= 1
    check_as_planned(saved, len(reference), title=source.stem)
    assert null_db(home.export(session, tmp_path / "out.wav"), reference) <= NULL_DB


@pytest.mark.parametrize("session_rate", [44_100, 48_000])
def test_python_imports_stems_of_a_job(tmp_path: Path, real_song: Path, session_rate: int) -> None:
    """The other way: stems that are there already, put into the open session by a script outside."""
    home, session = make(tmp_path, "pushed", session_rate)
    with DaemonProcess(), connect() as daemon, ArdourDesktop(home, session) as desktop:
        job = daemon.wait(daemon.submit(real_song, tmp_path / "stems", model="dsp").id)
        desktop.bring_in(real_song)  # for comparison: what Ardour makes of the song itself
        desktop.osc("/strip/mute", 1, 1)
        daw = connect_daw("ardour")
        assert daw.import_stems(job.id).changed
        assert not daw.import_stems(job.id).changed
        assert daw.project_rate == session_rate
        desktop.save()
    reference = in_session(session, "Falcon 69")
    assert null_db(home.export(session, tmp_path / "out.wav"), reference) <= NULL_DB


def test_a_trimmed_region_s_stems_are_where_it_is(tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "trimmed")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song, position=30_000)
        desktop.by_hand(EACH_REGION % "region:trim_front (Temporal.timepos_t (40001))")
        desktop.by_hand(EACH_REGION % "region:trim_end (Temporal.timepos_t (140001))")
        before = Saved(desktop.text())
        ((position, start, frames),) = before_regions(before, "Falcon 69")
        assert (position, start) == (40_001, 10_001)
        separate(desktop)
        saved = Saved(desktop.save())
    check_as_planned(saved, frames, position, start)
    song, _ = soundfile.read(real_song, dtype="float64")
    exported, _ = soundfile.read(home.export(session, tmp_path / "out.wav"), dtype="float64")
    piece = song[start : start + frames]
    first = int(np.flatnonzero(np.abs(exported).max(axis=1))[0])
    lead = first - int(np.flatnonzero(np.abs(piece).max(axis=1))[0])
    got = exported[lead : lead + frames]
    assert np.sum((got - piece) ** 2) <= 10 ** (NULL_DB / 10) * np.sum(piece**2)


def test_one_region_of_a_track_then_another(tmp_path: Path, real_song: Path) -> None:
    """Only what has stems is silent in the source, and the stems of the first stay when the second gets its own."""
    song, _ = soundfile.read(real_song, dtype="float64")
    cut = 100_000
    home, session = make(tmp_path, "regions")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song)
        desktop.by_hand(EACH_REGION % f"playlist:split_region (region, Temporal.timepos_t ({cut}))")
        desktop.by_hand(EACH_REGION % "region:to_audioregion ():set_fade_in_active (false)")
        desktop.by_hand(EACH_REGION % "region:to_audioregion ():set_fade_out_active (false)")
        regions = [(0, 0, cut), (cut, cut, len(song) - cut)]
        for run, expected in enumerate([regions[:1], regions]):
            desktop.by_hand(SELECT_REGION % expected[-1][0])
            desktop.action(SEPARATE)
            wait_until(lambda: list_files("request"), 10, "nothing was asked for")
            wait_until(saw(desktop), 60, "no stems")
            saved = Saved(desktop.save())
            assert [saved.regions(stem.capitalize()) for stem in STEMS] == [expected] * 4
            assert saved.muted("Falcon 69") is (run == 1)
            desktop.quiet_copy(tmp_path / f"after{run}")
        desktop.action("Editor/undo")
        wait_until(lambda: len(Saved(desktop.save()).regions("Drums")) == 1, 20, "undo did nothing")
    for run in range(2):
        copy = tmp_path / f"after{run}" / session.name
        assert null_db(home.export(copy, tmp_path / f"after{run}.wav"), song) <= NULL_DB


def before_regions(saved: Saved, name: str) -> list[tuple[int, int, int]]:
    """As :meth:`Saved.regions`, of a track of the user's, which may have fades."""
    playlist = saved.playlists[saved.routes[name].attrib["audio-playlist"]]
    for region in playlist.findall("Region"):
        region.attrib.update({"fade-in-active": "0", "fade-out-active": "0"})
    return saved.regions(name)


def test_the_daemon_is_started_if_none_runs(tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "alone")
    with ArdourDesktop(home, session) as desktop:
        assert read_connection() is None
        desktop.bring_in(real_song)
        separate(desktop)
        with connect() as daemon:
            daemon.shutdown()
        wait_until(lambda: read_connection() is None, 30, "the daemon does not end")


def test_progress_is_shown_can_be_hidden_and_cancels(tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "cancelled")
    with DaemonProcess(), connect() as daemon, ArdourDesktop(home, session) as desktop:
        daemon.pause_queue()
        desktop.bring_in(real_song)
        desktop.select(1)
        desktop.action(SEPARATE)
        window = "Stems: Falcon 69"
        wait_until(lambda: window in desktop.windows(), 10, "no progress is shown")
        desktop.key(window, "Return")  # on its only button, Cancel
        wait_until(lambda: not list_files("request"), 10, "it was not cancelled")
        wait_until(lambda: window not in desktop.windows(), 10, "progress is still shown")
        (job,) = daemon.jobs()
        assert job.state.value == "cancelled"

        desktop.action(SEPARATE)
        wait_until(lambda: window in desktop.windows(), 10, "no progress is shown")
        desktop.close_window(window)
        time.sleep(1.0)
        assert list_files("request")
        daemon.resume_queue()
        wait_until(saw(desktop), 60, "the stems of the hidden one did not come")


def test_errors_are_shown_and_ardour_goes_on(tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "errors")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with DaemonProcess("--root", str(elsewhere)), ArdourDesktop(home, session) as desktop:
        desktop.action(SEPARATE)  # with nothing selected
        wait_until(lambda: "Stems" in desktop.windows(), 10, "no error is shown")
        desktop.close_window("Stems")
        desktop.bring_in(real_song)
        desktop.select(1)
        desktop.action(SEPARATE)  # of what the daemon may not touch
        wait_until(lambda: "Stems" in desktop.windows(), 20, "no error is shown")
        desktop.close_window("Stems")
        wait_until(lambda: "Stems" not in desktop.windows(), 10, "the error stays")
        wait_until(saw(desktop, strips=0), 10, "something is left")
        assert set(Saved(desktop.save()).routes) == {"Master", "Falcon 69"}


EACH_REGION = """
for track in Session:get_tracks ():iter () do
	local playlist = track:to_track ():playlist ()
	for region in playlist:region_list ():iter () do %s end
end
"""

SELECT_REGION = """
local selection = ArdourUI.SelectionList ()
for track in Session:get_tracks ():iter () do
	for region in track:to_track ():playlist ():region_list ():iter () do
		if track:name () == "Falcon 69" and region:position ():samples () == %d then
			selection:push_back (Editor:regionview_from_region (region))
		end
	end
end
Editor:set_selection (selection, ArdourUI.SelectionOp.Set)
"""

HOSTILE = ['"; os.execute("touch pwned") --', "100% %s 🎸 'x' `y` $(z)", "]]> & <Route/>", "x" * 300]


@pytest.mark.parametrize("name", HOSTILE, ids=["code", "signs", "xml", "long"])
def test_hostile_names_are_names(name: str, tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "hostile")
    with DaemonProcess(), ArdourDesktop(home, session) as desktop:
        desktop.bring_in(real_song)
        desktop.osc("/strip/name", 1, name)
        time.sleep(0.5)
        separate(desktop)
        saved = Saved(desktop.save())
    (group,) = saved.groups
    assert group.startswith(name[:50].strip())
    assert [saved.wiring(stem.capitalize())[0] for stem in STEMS] == [
        [f"{stem.capitalize()} Bus/audio_in 1"] for stem in STEMS
    ]
    assert not list(tmp_path.rglob("pwned"))
    song, _ = soundfile.read(real_song, dtype="float64")
    assert null_db(home.export(session, tmp_path / "out.wav"), song) <= NULL_DB


def test_faders_of_the_buses_follow_the_daemon(tmp_path: Path, real_song: Path) -> None:
    home, session = make(tmp_path, "faders")
    with DaemonProcess(), connect() as daemon, ArdourDesktop(home, session) as desktop:
        job = daemon.wait(daemon.submit(real_song, tmp_path / "stems", model="dsp").id)
        connect_daw("ardour").import_stems(job.id)
        wait_until(saw(desktop), 20, "no strips")
        daemon.set_daw_fader("vocals", gain_db=-6.0)
        daemon.set_daw_fader("drums", muted=True)

        def moved() -> bool:
            session = desktop.announced()
            buses = {strip.key: strip for strip in session.strips if strip.role == "bus"} if session else {}
            return bool(buses) and abs(buses["vocals"].gain_db + 6.0) < 0.05 and buses["drums"].muted

        wait_until(moved, 10, "the faders did not move")


def test_the_loop_of_the_readme(tmp_path: Path, real_song: Path) -> None:
    """One file at a time, at a bar; two files may share a bus; the same again changes nothing."""
    home, session = make(tmp_path, "loop")
    with DaemonProcess(), connect() as daemon, ArdourDesktop(home, session) as desktop:
        job = daemon.wait(daemon.submit(real_song, tmp_path / "stems", model="dsp").id)
        files = {stem["stem"]: Path(stem["path"]) for stem in job.stems}
        daw = connect_daw("ardour")
        for again in (False, True):
            for stem, bus in [("vocals", "Voice"), ("drums", "Band"), ("bass", "Band"), ("other", "Band")]:
                report = daw.import_audio(files[stem], target_bus=bus, align_to="bar 2")
                assert report.changed is not again
        saved = Saved(desktop.save())
        assert set(saved.routes) == {"Master", "vocals", "drums", "bass", "other", "Voice", "Band"}

        desktop.bring_in(real_song, position=12_345)
        desktop.by_hand(SELECT_REGION % 12_345)
        assert daw.import_audio(files["vocals"], target_bus="Voice", align_to="item").changed
        assert Saved(desktop.save()).regions("vocals")[0][0] == 12_345
    frames = soundfile.info(real_song).frames
    for stem in STEMS:
        assert saved.regions(stem) == [(2 * 44_100, 0, frames)]  # 120 beats a minute, four to the bar
        assert saved.wiring(stem)[0] == [f"{'Voice' if stem == 'vocals' else 'Band'}/audio_in 1"]


def test_the_installed_scripts_are_lua(tmp_path: Path) -> None:
    """Ardour's own interpreter compiles what was installed."""
    home = ArdourHome(tmp_path / "home")
    home.install()
    scripts = [*home.config.rglob("*.lua")]
    assert len(scripts) >= 6
    checker = tmp_path / "check.lua"
    checker.write_text("for _, path in ipairs(arg) do assert(loadfile(path)) end print('compiled ' .. #arg)")
    command = ["ardour7-lua", str(checker), *map(str, scripts)]
    done = subprocess.run(command, env=home.env, capture_output=True, text=True, timeout=60)
    assert f"compiled {len(scripts)}" in done.stdout, done.stderr
