"""Stems in a closed session, seen and played by the real Ardour."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from daw.ardour_programs import ArdourPrograms, SeenSession
from revithion_bridge.daw.bus_plan import BusPlan, PlannedSource, Position, PositionUnit, Send
from revithion_bridge.daw.import_report import Outcome
from revithion_bridge.daw.plan_builder import StemFile, StemPlacement, build_plan
from revithion_bridge.daw.plan_presets import DEFAULT_PRESET, find_preset
from revithion_bridge.daw.stem_inputs import StemInput, find_stems
from revithion_bridge.daw_files.ardour_session import write_ardour
from revithion_bridge.daw_files.written_marks import write_mark
from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.alignment import find_lag
from revithion_stems.audio_files import read_audio
from revithion_stems.errors import RevithionError

IDENTITY = "0123456789abcdef"
NULL_DB = -120.0
HOSTILE = '"; os.execute("touch gone") -- <&]]> 100%s %n {x} \'`$(touch gone)` \\ a/b : é 日本 🎸'


def made_song(rate: int, seconds: float = 2.0) -> np.ndarray:
    """Something with a beat, a bass, chords and a voice: float32 ``[2, frames]``."""
    rng = np.random.default_rng(7)
    t = np.arange(round(seconds * rate)) / rate
    drums = rng.standard_normal((2, t.size)) * np.exp(-30.0 * (t % 0.5))
    bass = np.sin(2 * np.pi * 55.0 * t)
    chords = sum(np.sin(2 * np.pi * f * t + f) for f in (220.0, 277.2, 329.6)) / 3
    voice = np.sin(2 * np.pi * 440.0 * t + 3.0 * np.sin(2 * np.pi * 5.0 * t))
    left = 0.3 * bass + 0.25 * chords + 0.2 * voice
    right = 0.3 * bass - 0.1 * chords + 0.2 * voice
    return (np.stack([left, right]) + 0.1 * drums).astype(np.float32)


def separated(folder: Path, song: np.ndarray, rate: int) -> StemInput:
    """The stems of a song by the model without weights."""
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / "song.wav", song.T, rate, subtype="FLOAT")
    report = separate_to_files(
        SeparationRequest(source=folder / "song.wav", model="dsp"), OutputOptions(folder=folder / "out")
    )
    return find_stems(report, folder)


def halved(stems: StemInput, folder: Path) -> StemInput:
    """The same stems, at half the level: exact in float."""
    made: list[StemFile] = []
    for stem in stems.stems:
        path = folder / f"{stem.stem}.wav"
        soundfile.write(path, read_audio(stem.path).samples.T * np.float32(0.5), stem.sample_rate, subtype="FLOAT")
        made.append(dataclasses.replace(stem, path=path, sha256=""))
    return dataclasses.replace(stems, stems=made)


def planned(
    stems: StemInput, preset: str = DEFAULT_PRESET, position: Position | None = None, **more: object
) -> BusPlan:
    """The plan of a preset for stems."""
    placement = StemPlacement(stems=stems.stems, position=position or Position())
    plan = build_plan(
        [placement], find_preset(preset), identity=IDENTITY, title="My song", gain_db=stems.gain_db, project_rate=44_100
    )
    return dataclasses.replace(plan, **more)  # type: ignore[arg-type]


def assert_null(played: np.ndarray, wanted: np.ndarray) -> None:
    """Of equal length, without lag, and equal but for −120 dB."""
    assert played.shape == wanted.shape
    assert find_lag(wanted.astype(np.float64), played.astype(np.float64), 2_000).frames == 0
    difference = np.sum((played.astype(np.float64) - wanted) ** 2) / np.sum(wanted.astype(np.float64) ** 2)
    assert 10 * np.log10(difference + 1e-30) <= NULL_DB


def assert_as_planned(seen: SeenSession, plan: BusPlan, frames: int, position: int = 0) -> None:
    """Each track feeds its bus and each bus the master, side by side, and nothing else; regions are whole."""
    names = {(strip.role, strip.marker): name for name, strip in seen.routes.items()}
    for role, strips in (("track", plan.tracks), ("bus", plan.buses)):
        for strip in strips:
            name = names[role, write_mark(IDENTITY, role, strip.key)]
            route = seen.routes[name]
            target = names["bus", write_mark(IDENTITY, "bus", strip.output)] if strip.output else "Master"
            ports = [(f"{name}/audio_out {n}", f"{target}/audio_in {n}") for n in (1, 2)]
            assert route.feeds == [tuple(end.replace(":", "-") for end in pair) for pair in ports]
            assert (route.colour, route.muted) == (strip.colour.upper(), strip.muted)
            assert route.gain == pytest.approx(10 ** (strip.gain_db / 20))
            assert route.vcas == ([plan.vca] if role == "bus" and plan.vca else [])
            if role == "track":
                (region,) = route.regions
                assert (region.position, region.frames, region.start) == (position, frames, 0)
                assert (region.fades, region.gain, region.channels) == (False, 1.0, 2)
    tracks = [names["track", write_mark(IDENTITY, "track", track.key)] for track in plan.tracks]
    assert seen.groups == ({plan.group.name: tracks} if plan.group else {})


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return made_song(44_100)


@pytest.fixture(scope="module")
def stems(tmp_path_factory: pytest.TempPathFactory, song: np.ndarray) -> StemInput:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVITHION_CACHE_DIR", str(tmp_path_factory.mktemp("store")))
        return separated(tmp_path_factory.mktemp("stems"), song, 44_100)


def test_buses_sum_to_the_original(ardour: ArdourPrograms, session: Path, stems: StemInput, song: np.ndarray) -> None:
    plan = planned(stems)
    report = write_ardour(plan, session.parent)
    assert {strip.outcome for strip in report.strips} == {Outcome.CREATED}
    seen = ardour.look(session)
    assert_as_planned(seen, plan, song.shape[1])
    assert seen.range == (0, song.shape[1])
    assert_null(ardour.export(session), song)


def test_a_real_song(ardour: ArdourPrograms, session: Path, tmp_path: Path, falcon69: dict[str, np.ndarray]) -> None:
    song = np.sum(list(falcon69.values()), axis=0, dtype=np.float32)
    plan = planned(separated(tmp_path / "real", song, 44_100))
    write_ardour(plan, session)
    assert_as_planned(ardour.look(session), plan, song.shape[1])
    assert_null(ardour.export(session), song)


@pytest.mark.parametrize(("song_rate", "session_rate"), [(44_100, 48_000), (48_000, 44_100)])
def test_another_rate(ardour: ArdourPrograms, tmp_path: Path, song_rate: int, session_rate: int) -> None:
    song = made_song(song_rate)
    session = ardour.new_session(tmp_path / "other", session_rate)
    plan = planned(separated(tmp_path / "stems", song, song_rate), project_rate=session_rate)
    write_ardour(plan, session)
    wanted = soxr.resample(song.T, song_rate, session_rate, quality="VHQ").T
    assert_as_planned(ardour.look(session), plan, round(song.shape[1] * session_rate / song_rate))
    assert_null(ardour.export(session), wanted)


def test_saved_by_ardour_it_is_as_planned_still(ardour: ArdourPrograms, session: Path, stems: StemInput) -> None:
    plan = planned(stems)
    write_ardour(plan, session)
    ardour.look(session, save=True)
    saved = session.read_bytes()
    report = write_ardour(plan, session)
    assert not report.changed
    assert session.read_bytes() == saved


def test_replaced_after_ardour_saved_it(
    ardour: ArdourPrograms, session: Path, stems: StemInput, tmp_path: Path, song: np.ndarray
) -> None:
    write_ardour(planned(stems), session)
    ardour.look(session, save=True)
    plan = planned(halved(stems, tmp_path))
    report = write_ardour(plan, session)
    assert {strip.outcome for strip in report.strips if strip.role == "track"} == {Outcome.REPLACED}
    assert_as_planned(ardour.look(session), plan, song.shape[1])
    assert_null(ardour.export(session), song * np.float32(0.5))
    audio = list((session.parent / "interchange").rglob("*.wav"))
    assert len(audio) == 2 * len(plan.tracks)


def test_from_four_buses_to_two(ardour: ArdourPrograms, session: Path, stems: StemInput, song: np.ndarray) -> None:
    write_ardour(planned(stems), session)
    ardour.look(session, save=True)
    plan = planned(stems, "vocals-instrumental")
    plan = dataclasses.replace(plan, tracks=tuple(t for t in plan.tracks if t.key in ("vocals", "other")))
    write_ardour(plan, session)
    seen = ardour.look(session, save=True)
    assert len(seen.routes) == len(plan.tracks) + len(plan.buses) + 1
    assert len(list((session.parent / "interchange").rglob("*.wav"))) == 2 * len(plan.tracks)
    wanted = sum(read_audio(s.path).samples for s in stems.stems if s.stem in ("vocals", "other"))
    assert_null(ardour.export(session), wanted)


def test_hostile_names_and_keys_are_data(
    ardour: ArdourPrograms, session: Path, stems: StemInput, song: np.ndarray
) -> None:
    names = [HOSTILE, "x" * 300, "Master", "日本語🎸" * 60, "click", "a:b", "a-b", "\u202etxt.exe\n\x00\x1b[2J"]
    plan = planned(stems)
    keys = ["a\nb", "\x00", "../../x", HOSTILE]
    tracks = [dataclasses.replace(t, key=k, name=n) for t, k, n in zip(plan.tracks, keys, names, strict=False)]
    buses = [dataclasses.replace(b, name=n) for b, n in zip(plan.buses, names[len(tracks) :], strict=False)]
    assert len(tracks) == len(buses) == 4
    plan = dataclasses.replace(plan, title=HOSTILE, tracks=tuple(tracks), buses=tuple(buses))
    report = write_ardour(plan, session)
    assert len({strip.name for strip in report.strips}) == 8
    seen = ardour.look(session, save=True)
    assert {strip.name for strip in report.strips} == set(seen.routes) - {"Master"}
    assert_as_planned(seen, plan, song.shape[1])
    assert_null(ardour.export(session), song)
    assert not write_ardour(plan, session).changed
    assert {path.parent.name for path in session.parent.rglob("*.wav")} == {"audiofiles"}
    assert not list(session.parent.rglob("gone"))


def test_clips_at_beats_with_gain_and_trim(
    ardour: ArdourPrograms, session: Path, stems: StemInput, song: np.ndarray
) -> None:
    plan = planned(stems, "tracks-only", Position(value=2, unit=PositionUnit.BARS))
    cut = [
        dataclasses.replace(t, clips=(dataclasses.replace(t.clips[0], start_frame=1_000, frames=50_000, gain_db=-6.0),))
        for t in plan.tracks
    ]
    write_ardour(dataclasses.replace(plan, tracks=tuple(cut)), session)
    seen = ardour.look(session)
    start = 2 * 44_100  # 4/4 at 120: the second bar
    region = seen.routes["Vocals"].regions[0]
    assert (region.position, region.frames, region.start) == (start, 50_000, 1_000)
    played = ardour.export(session)
    assert not played[:, :start].any()
    assert_null(played[:, start:], song[:, 1_000:51_000] * np.float32(10 ** (-6 / 20)))


def test_a_send_reaches_the_bus_beside_the_output(
    ardour: ArdourPrograms, session: Path, stems: StemInput, song: np.ndarray
) -> None:
    plan = planned(stems, "tracks-only")
    sends = (Send(bus="Reverb", gain_db=-6.0), Send(bus="Reverb 2", pre_fader=True))
    plan = dataclasses.replace(plan, tracks=tuple(dataclasses.replace(t, sends=sends) for t in plan.tracks))
    write_ardour(plan, session)
    seen = ardour.look(session, save=True)
    assert seen.routes["Reverb"].role == "bus"
    assert_null(ardour.export(session), song * np.float32(2 + 10 ** (-6 / 20)))
    assert not write_ardour(plan, session).changed


def test_the_users_own_work_survives(ardour: ArdourPrograms, session: Path, stems: StemInput, tmp_path: Path) -> None:
    write_ardour(planned(stems), session)
    ardour.lua(
        """
        local session = load_session(arg[1], arg[2])
        local bus = Session:route_by_name("Vocals Bus")
        bus:set_name("Lead: my voice")
        bus:gain_control():set_value(0.25, PBD.GroupControlDisposition.NoGroup)
        Session:save_state("", false, false, false, false, false)
        bus = nil
        collectgarbage()
        close_session() quit()
        """,
        session.parent,
        session.stem,
    )
    report = write_ardour(planned(halved(stems, tmp_path)), session)
    assert ("Lead: my voice", Outcome.UNCHANGED) in [(strip.name, strip.outcome) for strip in report.strips]
    seen = ardour.look(session)
    assert seen.routes["Lead: my voice"].gain == 0.25
    assert [other for _, other in seen.routes["Vocals"].feeds] == [f"Lead- my voice/audio_in {n}" for n in (1, 2)]


def test_the_source_is_muted(ardour: ArdourPrograms, session: Path, stems: StemInput, song: np.ndarray) -> None:
    ardour.lua(
        """
        local session = load_session(arg[1], arg[2])
        local last, normal = ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal
        for _, name in ipairs { "Mix", "Mixer" } do
            Session:new_audio_track(2, 2, nil, 1, name, last, normal, true)
        end
        ARDOUR.LuaAPI.usleep(300000)
        Session:save_state("", false, false, false, false, false)
        close_session() quit()
        """,
        session.parent,
        session.stem,
    )
    source = PlannedSource(track_id="", track_name="Mix")
    write_ardour(planned(stems, source=source), session)
    seen = ardour.look(session)
    assert {name for name, route in seen.routes.items() if route.muted} == {"Mix"}
    assert_null(ardour.export(session), song)


def test_a_session_that_ardour_has_open_is_left_alone(ardour: ArdourPrograms, session: Path, stems: StemInput) -> None:
    plan = planned(stems)
    with ardour.holding(session), pytest.raises(RevithionError, match="open in") as error:
        write_ardour(plan, session)
    assert error.value.code == "daw.in_use"
    assert write_ardour(plan, session).changed
