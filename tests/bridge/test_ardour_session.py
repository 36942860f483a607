"""What is written into a closed Ardour session, as its file has it; tests/daw shows what Ardour makes of it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

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
    Tempo,
)
from revithion_bridge.daw.import_report import Outcome
from revithion_bridge.daw_files.ardour_document import ArdourDocument
from revithion_bridge.daw_files.ardour_media import session_audio
from revithion_bridge.daw_files.ardour_session import ardour_rate, write_ardour
from revithion_bridge.daw_files.ardour_units import port_prefix, rgba, route_name, superclocks
from revithion_stems.errors import RevithionError
from revithion_stems.file_set import FileSet

RATE = 44_100
FRAMES = 3_000
SESSION = """<?xml version="1.0" encoding="UTF-8"?>
<Session version="7002" name="s" sample-rate="44100" id-counter="120" vca-counter="1">
  <Sources/>
  <Regions/>
  <Locations/>
  <Routes>
    <Route version="7002" id="28" name="Master" default-type="audio">
      <PresentationInfo order="0" flags="MasterOut,OrderSet" color="0"/>
      <IO name="Master" id="56" direction="Input" default-type="audio">
        <Port type="audio" name="Master/audio_in 1"/>
        <Port type="audio" name="Master/audio_in 2"/>
      </IO>
      <IO name="Master" id="57" direction="Output" default-type="audio">
        <Port type="audio" name="Master/audio_out 1"/>
      </IO>
    </Route>
    <Route version="7002" id="60" name="Mix" default-type="audio" audio-playlist="90">
      <PresentationInfo order="1" flags="AudioTrack,OrderSet" color="0"/>
      <MuteMaster mute-point="PostFader,Listen,Main" muted="0"/>
      <Controllable name="mute" id="61" flags="Toggle,RealTime" value="0"/>
    </Route>
  </Routes>
  <Playlists>
    <Playlist id="90" name="Mix" type="audio" orig-track-id="60"/>
  </Playlists>
  <TempoMap superclocks-per-second="282240000">
    <Tempos>
      <Tempo npm="90" enpm="90" note-type="4"/>
    </Tempos>
    <Meters>
      <Meter note-value="4" divisions-per-bar="3"/>
    </Meters>
  </TempoMap>
</Session>
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return make_session(tmp_path / "s")


def make_session(folder: Path, text: str = SESSION) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "s.ardour"
    path.write_text(text, encoding="utf-8")
    return path


def clip_of(path: Path, *, seed: int = 1, rate: int = RATE, channels: int = 2, frames: int = FRAMES) -> PlannedClip:
    """A clip of noise, in a file that is made if it is not there: libsndfile notes the time of day in it."""
    if not path.exists():
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)
        soundfile.write(path, samples, rate, subtype="FLOAT")
    return PlannedClip(file=str(path), channels=channels, sample_rate=rate, file_frames=frames, frames=frames)


def plan_of(folder: Path, keys: str = "abcd", *, seed: int = 1, **more: object) -> BusPlan:
    """A track for each key, each feeding a bus of the same key."""
    tracks = tuple(
        PlannedTrack(
            key=key,
            name=f"Track {key}",
            colour="#56B4E9",
            channels=2,
            clips=(clip_of(folder / f"{key}-{seed}.wav", seed=seed + ord(key)),),
            output=key,
        )
        for key in keys
    )
    buses = tuple(PlannedBus(key=key, name=f"Bus {key}", colour="#D55E00", channels=2, gain_db=-6.0) for key in keys)
    plan = BusPlan(
        identity="0" * 16,
        title="Song",
        tracks=tracks,
        buses=buses,
        group=PlannedGroup(name="Stems"),
        vca="Stems",
        project_rate=RATE,
    )
    return dataclasses.replace(plan, **more)  # type: ignore[arg-type]


def with_clip(plan: BusPlan, **changes: object) -> BusPlan:
    """The plan with its first track alone, whose clip is another one."""
    track = plan.tracks[0]
    clip = dataclasses.replace(track.clips[0], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(plan, tracks=(dataclasses.replace(track, clips=(clip,)),))


def tree(session: Path) -> etree._Element:
    return etree.parse(session).getroot()


def route_named(session: Path, name: str) -> etree._Element:
    return next(route for route in tree(session).iter("Route") if route.get("name") == name)


def names(session: Path) -> list[str]:
    return [route.get("name", "") for route in tree(session).iter("Route")]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wires(session: Path) -> set[tuple[str, str]]:
    """All connections; each must be written at both ends."""
    found = {
        (port.get("name", ""), other.get("other", ""))
        for port in tree(session).iter("Port")
        for other in port.iter("Connection")
    }
    assert found == {(other, port) for port, other in found}
    return {(port, other) for port, other in found if "/audio_out " in port}


def test_it_is_written_once(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert {strip.outcome for strip in write_ardour(plan, session.parent).strips} == {Outcome.CREATED}
    before = everything(session.parent)
    report = write_ardour(plan, session)
    assert {strip.outcome for strip in report.strips} == {Outcome.UNCHANGED}
    assert everything(session.parent) == before


def test_what_was_there_before_is_its_backup(session: Path, tmp_path: Path) -> None:
    session.chmod(0o640)
    write_ardour(plan_of(tmp_path), session)
    assert session.with_name("s.ardour.bak").read_text(encoding="utf-8") == SESSION
    assert sys.platform == "win32" or session.stat().st_mode & 0o777 == 0o640


def test_every_id_is_its_own(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path), session)
    write_ardour(plan_of(tmp_path, seed=9), session)
    ids = [int(element.get("id", "")) for element in tree(session).iter("*") if element.get("id")]
    assert len(set(ids)) == len(ids)
    assert int(tree(session).get("id-counter", "")) > max(ids)


def test_other_stems_replace_and_leave_nothing_behind(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path), session)
    before = names(session)
    report = write_ardour(plan_of(tmp_path, seed=5), session)
    outcomes = {(strip.role, strip.outcome) for strip in report.strips}
    assert outcomes == {("track", Outcome.REPLACED), ("bus", Outcome.UNCHANGED)}
    assert names(session) == before
    sources = {source.get("name") for source in tree(session).iter("Source")}
    assert sources == {path.name for path in session.parent.rglob("*.wav")}
    assert len(sources) == 8


def test_strips_that_are_not_in_the_plan_go(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path, "abcd"), session)
    write_ardour(plan_of(tmp_path, "bx"), session)
    assert set(names(session)) == {"Master", "Mix", "Track b", "Bus b", "Track x", "Bus x"}
    assert {port.split("/")[0] for wire in wires(session) for port in wire} == set(names(session)) - {"Mix"}
    root = tree(session)
    assert [len(root.findall(p)) for p in ("Playlists/Playlist", "RouteGroups/RouteGroup", "VCAManager/VCA")] == [
        3,
        1,
        1,
    ]
    members = root.find("RouteGroups/RouteGroup").get("routes", "").split()
    assert members == [r.get("id") for r in root.iter("Route") if r.get("name", "").startswith("Track")]
    assert len(list(session.parent.rglob("*.wav"))) == 4


def test_a_partial_plan_takes_nothing_away(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path, "ab"), session)
    write_ardour(plan_of(tmp_path, "c", partial=True), session)
    write_ardour(plan_of(tmp_path, "b", partial=True), session)
    assert {name[-1] for name in names(session) if " " in name} == set("abc")
    assert len(names(session)) == 2 + 6


def test_plans_of_other_identities_stand_beside_it(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path), session)
    report = write_ardour(plan_of(tmp_path, identity="f" * 16), session)
    assert {strip.outcome for strip in report.strips} == {Outcome.CREATED}
    assert report.strips[0].name == "Track a 2"
    assert not write_ardour(plan_of(tmp_path), session).changed


def test_a_group_or_vca_without_members_goes(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path, "ab"), session)
    write_ardour(plan_of(tmp_path, "xy", group=None, vca=""), session)
    assert not list(tree(session).iter("RouteGroup", "VCA"))


def test_wires_lead_to_the_bus_and_from_there_to_the_master(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "ab")
    buses = (dataclasses.replace(plan.buses[0], output="b"), plan.buses[1])
    write_ardour(dataclasses.replace(plan, buses=buses), session)
    chain = [("Track a", "Bus a"), ("Track b", "Bus b"), ("Bus a", "Bus b"), ("Bus b", "Master")]
    assert wires(session) == {(f"{a}/audio_out {n}", f"{b}/audio_in {n}") for a, b in chain for n in (1, 2)}


def test_a_mono_stem_is_heard_on_both_sides(session: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "mono.wav", channels=1)
    track = PlannedTrack(key="m", name="Mono", colour="#000000", channels=1, clips=(clip,))
    write_ardour(BusPlan(identity="0" * 16, title="Song", tracks=(track,)), session)
    assert wires(session) == {("Mono/audio_out 1", f"Master/audio_in {n}") for n in (1, 2)}


def test_a_wire_that_should_not_be_there_is_taken_away(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "a")
    write_ardour(plan, session)
    right = wires(session)
    root = tree(session)
    ends = {port.get("name"): port for port in root.iter("Port")}
    etree.SubElement(ends["Track a/audio_out 1"], "Connection", {"other": "Master/audio_in 1"})
    etree.SubElement(ends["Master/audio_in 1"], "Connection", {"other": "Track a/audio_out 1"})
    session.write_bytes(etree.tostring(root))
    outcomes = {strip.name: strip.outcome for strip in write_ardour(plan, session).strips}
    assert outcomes == {"Track a": Outcome.REPLACED, "Bus a": Outcome.UNCHANGED}
    assert wires(session) == right


def test_where_the_user_led_a_bus_it_stays(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path, "a"), session)
    changed = re.sub(
        r'(?s)(<Port [^>]*"Bus a/audio_out .">\s*<Connection other=")Master', r"\1Mine", session.read_text()
    )
    assert changed.count("Mine/audio_in") == 2
    session.write_text(changed)
    assert not write_ardour(plan_of(tmp_path, "a"), session).changed
    assert session.read_text() == changed


def test_a_note_of_our_script_on_the_clips_is_taken_back(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "a")
    write_ardour(plan, session)
    noted = session.read_text().replace(":track:a</Comment>", ":track:a\ncafe\n60\nStems</Comment>")
    session.write_text(noted)
    assert not write_ardour(plan, session).changed
    write_ardour(plan_of(tmp_path, "a", seed=2), session)
    assert ":track:a\n\n60\nStems</Comment>" in session.read_text()


def test_the_users_gain_name_and_plugins_survive(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path, "a"), session)
    root = tree(session)
    bus = next(route for route in root.iter("Route") if route.get("name") == "Bus a")
    bus.set("name", "Mine")
    bus.find("Processor[@type='amp']/Controllable").set("value", "0.25")
    etree.SubElement(bus, "Processor", {"id": "9999", "name": "Comp", "type": "lv2"})
    session.write_bytes(etree.tostring(root))
    report = write_ardour(plan_of(tmp_path, "a", seed=3), session)
    assert [(strip.name, strip.outcome) for strip in report.strips] == [
        ("Track a", Outcome.REPLACED),
        ("Mine", Outcome.UNCHANGED),
    ]
    bus = route_named(session, "Mine")
    assert bus.find("Processor[@type='amp']/Controllable").get("value") == "0.25"
    assert bus.find("Processor[@type='lv2']") is not None


def test_strips_are_as_planned(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "a")
    plan = dataclasses.replace(plan, buses=(dataclasses.replace(plan.buses[0], muted=True),))
    write_ardour(plan, session)
    bus = route_named(session, "Bus a")
    gain = float(bus.find("Processor[@type='amp']/Controllable").get("value"))
    assert gain == pytest.approx(10 ** (-6 / 20))
    assert bus.find("MuteMaster").get("muted") == "1"
    assert bus.find("PresentationInfo").get("color") == str(0xD55E00FF)
    orders = [int(info.get("order", "")) for info in tree(session).iter("PresentationInfo")]
    assert sorted(orders) == list(range(5))


def test_the_source_is_muted_by_its_id_or_else_its_name(session: Path, tmp_path: Path) -> None:
    for track_id, name in (("60", "renamed"), ("777", "Mix")):
        make_session(session.parent)
        write_ardour(plan_of(tmp_path, source=PlannedSource(track_id=track_id, track_name=name)), session)
        muted = [r.get("name") for r in tree(session).iter("Route") if r.find("MuteMaster[@muted='1']") is not None]
        assert muted == ["Mix"]


def test_a_clip_is_where_the_plan_says(session: Path, tmp_path: Path) -> None:
    plan = with_clip(
        plan_of(tmp_path),
        start_frame=100,
        frames=500,
        position=Position(value=7, unit=PositionUnit.FRAMES),
        gain_db=-6.0,
    )
    write_ardour(plan, session)
    region = tree(session).find("Playlists/Playlist[@name='Track a']/Region")
    assert (region.get("start"), region.get("length")) == (f"a{100 * 6400}", f"a{500 * 6400}@a{7 * 6400}")
    assert float(region.get("scale-amplitude")) == pytest.approx(10 ** (-6 / 20))
    assert (region.get("fade-in-active"), region.get("fade-out-active")) == ("0", "0")
    moved = with_clip(plan, position=Position(value=8, unit=PositionUnit.FRAMES))
    assert write_ardour(moved, session).strips[0].outcome is Outcome.REPLACED


def test_beats_and_bars_are_the_sessions(session: Path, tmp_path: Path) -> None:
    plan = with_clip(plan_of(tmp_path), position=Position(value=3, unit=PositionUnit.BARS))
    write_ardour(plan, session)
    assert position_of(session) == 4 * RATE  # two bars of three beats at 90
    write_ardour(plan, session, Tempo(bpm=120.0))
    assert position_of(session) == 4 * RATE  # and two of four at 120
    write_ardour(plan, session, Tempo(bpm=240.0))
    assert position_of(session) == 2 * RATE


def position_of(session: Path) -> float:
    region = tree(session).find("Playlists/Playlist[@name='Track a']/Region")
    return int(region.get("length").split("@a")[1]) / 6400


def test_a_tempo_that_changes_knows_no_beats(session: Path, tmp_path: Path) -> None:
    second = '<Tempo npm="100" enpm="100" note-type="4"/></Tempos>'
    make_session(session.parent, SESSION.replace("</Tempos>", second))
    plan = with_clip(plan_of(tmp_path), position=Position(value=8, unit=PositionUnit.BEATS))
    with pytest.raises(RevithionError, match="tempo changes"):
        write_ardour(plan, session)
    write_ardour(with_clip(plan, position=Position(value=1.5)), session)
    assert position_of(session) == 1.5 * RATE


def test_the_sessions_range_grows_and_never_shrinks(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    for second, end in ((1.0, RATE + FRAMES), (3.0, 3 * RATE + FRAMES), (0.0, 3 * RATE + FRAMES)):
        write_ardour(with_clip(plan, position=Position(value=second)), session)
        location = tree(session).find("Locations/Location")
        assert (location.get("start"), location.get("end")) == ("a0", f"a{end * 6400}")


@pytest.mark.parametrize("damage", [0, 500])
def test_audio_that_other_snapshots_use_stays(session: Path, tmp_path: Path, damage: int) -> None:
    write_ardour(plan_of(tmp_path, "ab"), session)
    snapshot = session.read_bytes()
    session.with_name("snapshot.ardour").write_bytes(snapshot[: len(snapshot) - damage])
    kept = {path.name for path in session.parent.rglob("*.wav")}
    write_ardour(plan_of(tmp_path, "ab", seed=3), session)
    now = {path.name for path in session.parent.rglob("*.wav")}
    assert kept < now
    assert len(now) == 8


def test_a_region_that_the_user_took_elsewhere_stays(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path, "a"), session)
    root = tree(session)
    region = root.find("Playlists/Playlist[@name='Track a']/Region")
    root.find("Playlists/Playlist[@name='Mix']").append(region)
    session.write_bytes(etree.tostring(root))
    write_ardour(plan_of(tmp_path, "a", seed=3), session)
    sources = {source.get("id") for source in tree(session).iter("Source")}
    assert {region.get("source-0"), region.get("source-1")} < sources
    assert len(list(session.parent.rglob("*.wav"))) == 4


def test_audio_that_was_lost_is_written_again(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "ab")
    write_ardour(plan, session)
    before = everything(session.parent)
    next(session.parent.rglob("a-*%R.wav")).unlink()
    outcomes = {strip.name: strip.outcome for strip in write_ardour(plan, session).strips}
    assert outcomes["Track a"] is Outcome.REPLACED
    assert outcomes["Track b"] is Outcome.UNCHANGED
    assert everything(session.parent) == before


def test_a_send_is_made_once(session: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "ab")
    sends = (Send(bus="b", pre_fader=True), Send(bus="Verb"), Send(bus="Mix"))
    plan = dataclasses.replace(plan, tracks=(dataclasses.replace(plan.tracks[0], sends=sends), plan.tracks[1]))
    write_ardour(plan, session)
    assert not write_ardour(plan, session).changed
    track = route_named(session, "Track a")
    kinds = [p.get("type") for p in track.findall("Processor")]
    assert [k for k in kinds if k in ("amp", "intsend")] == ["intsend", "amp", "intsend", "intsend"]
    targets = {p.get("target") for p in track.findall("Processor[@type='intsend']")}
    assert targets == {route_named(session, name).get("id") for name in ("Bus b", "Verb", "Mix")}
    slots = [p.get("bitslot") for p in track.findall("Processor[@type='intsend']")]
    assert len(set(slots)) == 3
    write_ardour(plan_of(tmp_path, "a"), session)
    targets = {p.get("target") for p in tree(session).iter("Processor") if p.get("type") == "intsend"}
    assert targets == {"60"}


def test_more_than_two_channels(session: Path, tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "many.wav", channels=3)
    track = PlannedTrack(key="m", name="Many", colour="#000000", channels=3, clips=(clip,))
    write_ardour(BusPlan(identity="0" * 16, title="Song", tracks=(track,)), session)
    files = sorted(session.parent.rglob("*.wav"))
    assert [path.name[-6:] for path in files] == ["%a.wav", "%b.wav", "%c.wav"]
    wanted, _ = soundfile.read(clip.file, dtype="float32")
    assert np.array_equal(np.stack([soundfile.read(path, dtype="float32")[0] for path in files], axis=1), wanted)


@settings(max_examples=30, deadline=None)
@given(
    source=st.sampled_from((8_000, 22_050, 44_100, 48_000, 96_000)),
    target=st.sampled_from((44_100, 48_000, 88_200, 192_000)),
    frames=st.integers(1, 70_000),
    speed=st.sampled_from((1.0, 1.0, 0.5, 1.1)),
)
def test_resampled_by_blocks_is_resampled_as_a_whole(
    tmp_path_factory: pytest.TempPathFactory, source: int, target: int, frames: int, speed: float
) -> None:
    folder = tmp_path_factory.mktemp("audio")
    clip = dataclasses.replace(clip_of(folder / "x.wav", rate=source, frames=frames), play_rate=speed)
    audio = session_audio("x", clip, target)
    parts = [folder / name for name in audio.names]
    audio.write(parts)
    got = np.stack([soundfile.read(part, dtype="float32")[0] for part in parts], axis=1)
    samples, _ = soundfile.read(clip.file, dtype="float32")
    wanted = samples if source * speed == target else soxr.resample(samples, source * speed, target, quality="VHQ")
    assert len(got) == audio.frames == max(1, round(frames * target / (source * speed)))
    length = min(len(got), len(wanted))
    assert abs(len(got) - len(wanted)) <= 1
    assert np.array_equal(got[:length], wanted[:length])
    assert audio.is_in(folder)


@given(frames=st.integers(0, 10**9), rate=st.sampled_from((32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)))
def test_superclocks_are_exact(frames: int, rate: int) -> None:
    assert superclocks(frames, rate) * rate == frames * 282_240_000


@given(st.text(st.characters(codec=None), max_size=400))
def test_any_text_becomes_a_name(text: str) -> None:
    name = route_name(text)
    assert etree.fromstring(etree.tostring(etree.Element("x", name=name))).get("name") == name
    assert 0 < len(name.encode()) <= 180
    assert ":" not in port_prefix(name)


def test_colours_are_opaque() -> None:
    assert rgba("#FF8000") == 0xFF8000FF


@settings(max_examples=25, deadline=None)
@given(
    texts=st.lists(st.text(st.characters(codec=None), min_size=1, max_size=130), min_size=2, max_size=3, unique=True)
)
def test_hostile_names_and_keys_are_data(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    session = make_session(folder / "s")
    clip = clip_of(folder / "x.wav", frames=10)
    tracks = tuple(
        PlannedTrack(key=text, name=text, colour="#000000", channels=2, clips=(clip,), output=text) for text in texts
    )
    buses = tuple(PlannedBus(key=text, name=text, colour="#000000", channels=2) for text in texts)
    plan = BusPlan(
        identity="0" * 16,
        title=texts[0],
        tracks=tracks,
        buses=buses,
        group=PlannedGroup(name=texts[0]),
        vca=texts[1],
        source=PlannedSource(track_id=texts[0], track_name=texts[1]),
    )
    report = write_ardour(plan, session)
    assert not write_ardour(plan, session).changed
    assert {strip.name for strip in report.strips} == set(names(session)) - {"Master", "Mix"}
    assert {path.parent.name for path in folder.rglob("*%?.wav")} == {"audiofiles"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SESSION[:900], "damaged"),
        ("", "damaged"),
        ("<Session/>", "not a session"),
        ("<html version='7002' sample-rate='1' id-counter='1'/>", "not a session"),
        (SESSION.replace("7002", "6000"), "Ardour 6"),
        (SESSION.replace("7002", "9001"), "Ardour 9"),
        (SESSION.replace("MasterOut", "AudioBus"), "master"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Session>&e;</Session>', "not a session"),
    ],
)
def test_what_is_no_session_is_left_alone(tmp_path: Path, text: str, words: str) -> None:
    session = make_session(tmp_path / "s", text)
    before = everything(session.parent)
    with pytest.raises(RevithionError, match=words) as error:
        write_ardour(plan_of(tmp_path), session)
    assert error.value.code == "daw.project"
    assert everything(session.parent) == before


def test_ardour_8_and_its_rate(tmp_path: Path) -> None:
    session = make_session(tmp_path / "s", SESSION.replace("7002", "8000").replace("44100", "48000"))
    assert ardour_rate(session) == ardour_rate(session.parent) == 48_000
    write_ardour(plan_of(tmp_path), session)
    assert {soundfile.info(path).samplerate for path in session.parent.rglob("*.wav")} == {48_000}


def test_a_folder_with_several_sessions_says_so(session: Path, tmp_path: Path) -> None:
    session.rename(session.with_name("one.ardour"))
    assert ardour_rate(session.parent) == RATE
    shutil.copy(session.with_name("one.ardour"), session.with_name("two.ardour"))
    with pytest.raises(RevithionError, match=r"one.ardour, two.ardour"):
        ardour_rate(session.parent)
    with pytest.raises(RevithionError, match="can't be read"):
        ardour_rate(tmp_path / "nowhere")


def test_damaged_audio_in_the_middle_leaves_all_as_it_was(session: Path, tmp_path: Path) -> None:
    write_ardour(plan_of(tmp_path), session)
    before = everything(session.parent)
    plan = plan_of(tmp_path, seed=4)
    damaged = Path(plan.tracks[2].clips[0].file)
    damaged.write_bytes(damaged.read_bytes()[:5_000])
    with pytest.raises(RevithionError):
        write_ardour(plan, session)
    assert everything(session.parent) == before


def test_a_full_disk_leaves_all_as_it_was(
    tmp_path: Path, mounted: Callable[[Path, str], AbstractContextManager[Path]]
) -> None:
    with mounted(tmp_path / "disk", "size=128k") as disk:
        session = make_session(disk / "s")
        before = everything(disk)
        with pytest.raises(RevithionError) as error:
            write_ardour(plan_of(tmp_path, "abcdefgh"), session)
        assert error.value.code == "output.disk_full"
        assert everything(disk) == before


def test_a_session_that_may_not_be_written(
    tmp_path: Path, mounted: Callable[[Path, str], AbstractContextManager[Path]]
) -> None:
    with mounted(tmp_path / "disk", "size=1m") as disk:
        session = make_session(disk / "s")
        before = everything(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(RevithionError) as error:
            write_ardour(plan_of(tmp_path), session)
        assert error.value.code.startswith("output")
        assert everything(disk) == before


def test_a_stretched_clip_is_refused(session: Path, tmp_path: Path) -> None:
    with pytest.raises(RevithionError, match="stretched") as error:
        write_ardour(with_clip(plan_of(tmp_path), play_rate=1.5, preserve_pitch=True), session)
    assert error.value.code == "daw.plan"


def test_a_file_that_is_not_what_the_plan_says(session: Path, tmp_path: Path) -> None:
    with pytest.raises(RevithionError, match="any more") as error:
        write_ardour(with_clip(plan_of(tmp_path), file_frames=FRAMES + 1), session)
    assert error.value.code == "daw.plan"
    assert session.read_text(encoding="utf-8") == SESSION


def test_unsaved_changes_mean_that_it_is_open(session: Path, tmp_path: Path) -> None:
    session.with_suffix(".pending").touch()
    with pytest.raises(RevithionError, match="not saved") as error:
        write_ardour(plan_of(tmp_path), session)
    assert error.value.code == "daw.in_use"


def test_our_script_in_ardour_says_that_it_is_open(session: Path, tmp_path: Path) -> None:
    mailbox.make_mailbox_folder()
    opened = {"v": 1, "daw": "ardour", "path": str(session.parent)}
    mailbox.write_file(mailbox.box_path("ardour-" + "0" * 16, "session"), opened)
    with pytest.raises(RevithionError, match="open in Ardour") as error:
        write_ardour(plan_of(tmp_path), session)
    assert error.value.code == "daw.in_use"


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_damaged_session_is_written_or_left_alone(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    session = make_session(folder / "s")
    write_ardour(plan_of(folder, "ab"), session)
    root = tree(session)
    element = data.draw(st.sampled_from(list(root.iter("*"))[1:]))
    attribute = data.draw(st.sampled_from([*element.attrib, ""]))
    if attribute:
        element.set(attribute, data.draw(st.sampled_from(("", "x", "-1", "99999999999999999999"))))
    else:
        element.getparent().remove(element)
    session.write_bytes(etree.tostring(root))
    before = everything(session.parent)
    code = ""
    try:
        write_ardour(plan_of(folder, "bc", seed=2), session)
    except RevithionError as exc:
        code = exc.code
    assert code in ("", "daw.project")
    assert not code or everything(session.parent) == before
    assert len(names(session)) == len(set(names(session)))


def test_a_session_that_is_saved_meanwhile_is_not_overwritten(session: Path) -> None:
    document = ArdourDocument(session)
    session.write_text(SESSION.replace("Mix", "Mine"), encoding="utf-8")
    with FileSet() as files, pytest.raises(RevithionError, match="meanwhile") as error:
        document.add_to(files)
    assert error.value.code == "daw.in_use"
