"""DAWproject files: new ones, and ones that a DAW wrote."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lxml import etree

from project_mixdown import mix, read_dawproject
from revithion_bridge.daw.bus_plan import PlannedSource, Position, PositionUnit, Send
from revithion_bridge.daw.placement import SourceItem
from revithion_bridge.daw_files.dawproject import write_dawproject
from revithion_stems.errors import OutputError, RevithionError
from stem_plans import FRAMES, HOSTILE_NAMES, RATE, make_plan, renamed, write_stems

SCHEMAS = Path(__file__).parents[1] / "daw" / "schemas"

# The layout of a file as Bitwig Studio writes them: beats at the top, a group whose channel has the role of a master.
USERS = b"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Project version="1.0">
    <Application name="Bitwig Studio" version="5.2"/>
    <Transport>
        <Tempo max="666.0" min="20.0" unit="bpm" value="96.0" id="id0" name="Tempo"/>
        <TimeSignature denominator="4" numerator="3" id="id1"/>
    </Transport>
    <Structure>
        <Track contentType="tracks" loaded="true" id="id2" name="Group">
            <Channel audioChannels="2" destination="id12" role="master" solo="false" id="id3">
                <Volume max="2.0" min="0.0" unit="linear" value="1.0" id="id4" name="Volume"/>
            </Channel>
            <Track contentType="audio" loaded="true" id="id5" name="My mix" color="#a2eabf">
                <Channel audioChannels="2" destination="id3" role="regular" solo="false" id="id6">
                    <Devices>
                        <ClapPlugin deviceID="x" deviceName="Plug" deviceRole="audioFX" loaded="true" id="id7">
                            <State path="plugins/state.clap-preset"/>
                        </ClapPlugin>
                    </Devices>
                    <Mute value="false" id="id8" name="Mute"/>
                    <Volume max="2.0" min="0.0" unit="linear" value="0.5" id="id9" name="Volume"/>
                </Channel>
            </Track>
        </Track>
        <Track contentType="audio" loaded="true" id="id20" name="Reverb">
            <Channel audioChannels="2" destination="id12" role="effect" solo="false" id="id21">
                <Mute value="false" id="id22" name="Mute"/>
                <Volume max="2.0" min="0.0" unit="linear" value="1.0" id="id23" name="Volume"/>
            </Channel>
        </Track>
        <Track contentType="audio notes" loaded="true" id="id11" name="Master">
            <Channel audioChannels="2" role="master" solo="false" id="id12">
                <Mute value="false" id="id13" name="Mute"/>
                <Volume max="2.0" min="0.0" unit="linear" value="1.0" id="id14" name="Volume"/>
            </Channel>
        </Track>
    </Structure>
    <Arrangement id="id15">
        <Lanes timeUnit="beats" id="id16">
            <Lanes track="id5" id="id17"><Clips id="id18"/></Lanes>
        </Lanes>
    </Arrangement>
    <Scenes/>
</Project>
"""


def _users_project(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("project.xml", USERS)
        archive.writestr("metadata.xml", b"<MetaData><Title>Mine</Title></MetaData>")
        archive.writestr("plugins/state.clap-preset", b"\x00state\xff" * 1000)
        archive.writestr("audio/mine.wav", b"RIFF", zipfile.ZIP_STORED)


def _root(path: Path) -> etree._Element:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return etree.fromstring(archive.read("project.xml"))


def _check_schemas(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name, schema in (("project.xml", "Project.xsd"), ("metadata.xml", "MetaData.xsd")):
            etree.XMLSchema(etree.parse(SCHEMAS / schema)).assertValid(etree.fromstring(archive.read(name)))
    # libxml2 leaves xs:ID and xs:IDREF unchecked.
    nodes = list(_root(path).iter())
    ids = [node.get("id") for node in nodes if node.get("id")]
    assert len(set(ids)) == len(ids)
    names = ("destination", "track", "parameter", "reference")
    assert {node.get(name) for node in nodes for name in names if node.get(name)} <= {*ids}


def _audio(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(name for name in archive.namelist() if name.startswith("audio/"))


def _outcomes(report) -> set[str]:
    return {strip.outcome.value for strip in report.strips}


def _named(root: etree._Element, name: str) -> etree._Element:
    return next(track for track in root.iter("Track") if track.get("name") == name)


def test_the_checks_refuse_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "song.dawproject"
    for tag, name, value in (("Channel", "role", "banana"), ("Track", "id", "id0"), ("Channel", "destination", "gone")):
        _users_project(path)
        _edit(path, lambda root, tag=tag, name=name, value=value: next(root.iter(tag)).set(name, value))
        with pytest.raises((etree.DocumentInvalid, AssertionError)):
            _check_schemas(path)


def test_a_new_project_is_valid_and_plays_the_source(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    write_dawproject(make_plan(tmp_path / "stems"), path)
    _check_schemas(path)
    np.testing.assert_array_equal(mix(*read_dawproject(path)), source)


def test_stems_feed_their_bus_and_nothing_else(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_dawproject(make_plan(tmp_path / "stems"), tmp_path / "song.dawproject")
    strips, _ = read_dawproject(tmp_path / "song.dawproject")
    feeds = {strip.name: [target.name for target, _ in strip.feeds] for strip in strips}
    stems = ("Drums", "Bass", "Other", "Vocals")
    expected = {stem: [f"{stem} Bus"] for stem in stems} | {f"{stem} Bus": ["Master"] for stem in stems}
    assert feeds == {**expected, "Master": []}


def test_tracks_stand_in_their_folder_with_name_and_colour(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_dawproject(make_plan(tmp_path / "stems"), tmp_path / "song.dawproject")
    folder = _named(_root(tmp_path / "song.dawproject"), "Song stems")
    assert folder.get("contentType") == "tracks"
    assert [track.get("name") for track in folder.findall("Track")] == ["Drums", "Bass", "Other", "Vocals"]
    assert _named(folder, "Vocals").get("color") == "#56B4E9"


def test_audio_is_stored_bit_for_bit(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_dawproject(make_plan(tmp_path / "stems"), tmp_path / "song.dawproject")
    with zipfile.ZipFile(tmp_path / "song.dawproject") as archive:
        found = {archive.read(info) for info in archive.infolist() if info.filename.startswith("audio/")}
        assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist() if i.filename.startswith("audio/"))
    assert found == {file.read_bytes() for file in (tmp_path / "stems").iterdir()}


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    for name in ("a", "b"):
        write_dawproject(make_plan(tmp_path / "stems"), tmp_path / f"{name}.dawproject")
    assert (tmp_path / "a.dawproject").read_bytes() == (tmp_path / "b.dawproject").read_bytes()


@pytest.mark.parametrize("users", [False, True])
def test_the_same_again_changes_no_byte(tmp_path: Path, users: bool) -> None:
    write_stems(tmp_path / "stems")
    plan, path = make_plan(tmp_path / "stems"), tmp_path / "song.dawproject"
    if users:
        _users_project(path)
    assert _outcomes(write_dawproject(plan, path)) == {"created"}
    before = path.read_bytes()
    assert not write_dawproject(plan, path).changed
    assert path.read_bytes() == before


def test_a_users_project_keeps_all_that_is_in_it(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    _users_project(path)
    original = path.read_bytes()
    write_dawproject(make_plan(tmp_path / "stems"), path)
    _check_schemas(path)
    np.testing.assert_array_equal(mix(*_without_mine(path)), source)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("plugins/state.clap-preset") == b"\x00state\xff" * 1000
        assert archive.read("audio/mine.wav") == b"RIFF"
        assert archive.read("metadata.xml") == b"<MetaData><Title>Mine</Title></MetaData>"
    users, after = etree.fromstring(USERS), _root(path)
    for name in ("Group", "Reverb", "Master"):
        assert etree.tostring(_named(after, name), method="c14n") == etree.tostring(_named(users, name), method="c14n")
    assert [track.get("name") for track in after.find("Structure")][-1] == "Master"
    assert (tmp_path / "song.dawproject.bak").read_bytes() == original


def _without_mine(path: Path):
    """The strips of our tracks alone: the user's have channels without a mute, which the reader does not know."""
    root = _root(path)
    for group in root.find("Structure").findall("Track[@name='Group']"):
        root.find("Structure").remove(group)
    copy = path.with_name("copy.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for info in old.infolist():
            new.writestr(info, etree.tostring(root) if info.filename == "project.xml" else old.read(info))
    return read_dawproject(copy)


def test_what_the_user_set_on_our_tracks_survives(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    write_dawproject(make_plan(tmp_path / "stems"), path)

    def change(root: etree._Element) -> None:
        drums = _named(root, "Drums")
        drums.set("name", "Kit")
        drums.find("Channel/Volume").set("value", "0.25")
        drums.find("Channel").insert(
            0, etree.fromstring("<Devices><Equalizer deviceName='EQ' deviceRole='audioFX'/></Devices>")
        )

    _edit(path, change)
    write_stems(tmp_path / "new", seed=2)
    report = write_dawproject(make_plan(tmp_path / "new"), path)
    _check_schemas(path)
    drums = _named(_root(path), "Kit")
    assert drums.find("Channel/Volume").get("value") == "0.25"
    assert drums.find("Channel/Devices/Equalizer") is not None
    assert [strip.outcome.value for strip in report.strips] == ["replaced"] * 4 + ["unchanged"] * 4


def _edit(path: Path, change: Callable[[etree._Element], None]) -> None:
    root = _root(path)
    change(root)
    with zipfile.ZipFile(path) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in {**entries, "project.xml": etree.tostring(root)}.items():
            new.writestr(name, data)


def test_replaced_audio_is_not_kept(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    _users_project(path)
    write_dawproject(make_plan(tmp_path / "stems"), path)
    first = _audio(path)
    source = write_stems(tmp_path / "stems", seed=2)
    assert _outcomes(write_dawproject(make_plan(tmp_path / "stems"), path)) == {"replaced", "unchanged"}
    assert len(_audio(path)) == len(first) == 5
    assert set(_audio(path)) & set(first) == {"audio/mine.wav"}
    np.testing.assert_array_equal(mix(*_without_mine(path)), source)


def test_another_preset_takes_away_what_it_does_not_have(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    write_dawproject(make_plan(tmp_path / "stems"), path)
    write_dawproject(make_plan(tmp_path / "stems", "drums-only"), path)
    _check_schemas(path)
    assert len(_audio(path)) == 1
    assert [track.get("name") for track in _root(path).iter("Track")] == ["Drums", "Drums Bus", "Master"]
    write_dawproject(make_plan(tmp_path / "stems"), path)
    _check_schemas(path)
    np.testing.assert_array_equal(mix(*read_dawproject(path)), source)


def test_what_refers_to_a_bus_that_goes_is_put_right(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    _users_project(path)
    write_dawproject(make_plan(tmp_path / "stems"), path)

    def change(root: etree._Element) -> None:
        bus = _named(root, "Vocals Bus").find("Channel")
        _named(root, "Reverb").find("Channel").set("destination", bus.get("id"))
        lanes = etree.SubElement(root.find("Arrangement/Lanes"), "Lanes", track=_named(root, "Reverb").get("id"))
        points = etree.SubElement(lanes, "Points", unit="linear")
        etree.SubElement(points, "Target", parameter=bus.find("Volume").get("id"))

    _edit(path, change)
    _check_schemas(path)
    write_dawproject(make_plan(tmp_path / "stems", "drums-only"), path)
    _check_schemas(path)
    assert _named(_root(path), "Reverb").find("Channel").get("destination") == "id12"


def test_a_partial_plan_leaves_the_others(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    plan, path = make_plan(tmp_path / "stems"), tmp_path / "song.dawproject"
    for track, bus in zip(plan.tracks, plan.buses, strict=True):
        write_dawproject(dataclasses.replace(plan, tracks=(track,), buses=(bus,), group=None, partial=True), path)
    assert len(list(_root(path).iter("Track"))) == 9


def test_a_trimmed_clip_lands_where_the_item_was(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    item = SourceItem(start_frame=1000, frames=2000, position=Position(value=500, unit=PositionUnit.FRAMES))
    write_dawproject(make_plan(tmp_path / "stems", items=(item,)), tmp_path / "song.dawproject")
    played = mix(*read_dawproject(tmp_path / "song.dawproject"))
    np.testing.assert_array_equal(played, np.pad(source[1000:3000], ((500, 0), (0, 0))))


def test_bars_stay_bars(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    _users_project(path)
    item = SourceItem(frames=FRAMES, position=Position(value=9, unit=PositionUnit.BARS))
    write_dawproject(make_plan(tmp_path / "stems", items=(item,)), path)
    _check_schemas(path)
    clips = next(node for node in _root(path).iter("Clips") if len(node))
    assert clips.get("timeUnit") == "beats"
    assert float(clips[0].get("time")) == 8 * 3
    assert float(clips[0].get("duration")) == pytest.approx(FRAMES / RATE * 96 / 60)


def test_play_rate_and_gain_of_a_clip(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    item = SourceItem(start_frame=441, frames=4410, play_rate=2.0, gain_db=-6.0)
    write_dawproject(make_plan(tmp_path / "stems", items=(item,)), path)
    _check_schemas(path)
    clip = next(_root(path).iter("Clip"))
    assert float(clip.get("duration")) == pytest.approx(0.05)
    assert float(clip.get("playStart")) == pytest.approx(0.005)
    last = clip.findall("Lanes/Warps/Warp")[-1]
    assert float(last.get("contentTime")) == pytest.approx(2 * float(last.get("time")))
    assert clip.find("Lanes/Warps/Audio").get("algorithm") == "repitch"
    assert float(clip.find("Lanes/Points/RealPoint").get("value")) == pytest.approx(10 ** (-6 / 20))


def test_sends_reach_buses_of_the_plan_and_tracks_of_the_project(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    _users_project(path)
    plan = make_plan(tmp_path / "stems")
    sends = (Send(bus="Reverb", gain_db=-12), Send(bus="New\x01room", pre_fader=True), Send(bus="bass", gain_db=-6))
    plan = dataclasses.replace(plan, tracks=(dataclasses.replace(plan.tracks[0], sends=sends), *plan.tracks[1:]))
    write_dawproject(plan, path)
    _check_schemas(path)
    assert _outcomes(write_dawproject(plan, path)) == {"unchanged"}
    root = _root(path)
    by_id = {channel.get("id"): channel.getparent().get("name") for channel in root.iter("Channel")}
    found = {by_id[send.get("destination")]: send.get("type") for send in _named(root, "Drums").iter("Send")}
    assert found == {"Reverb": "post", "New\ufffdroom": "pre", "Bass Bus": "post"}


def test_the_source_is_muted(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    _users_project(path)
    write_dawproject(make_plan(tmp_path / "stems", source=PlannedSource(track_id="id5", track_name="My mix")), path)
    assert _named(_root(path), "My mix").find("Channel/Mute").get("value") == "true"


@pytest.mark.parametrize("start", range(0, len(HOSTILE_NAMES), 4))
def test_hostile_names_are_data(tmp_path: Path, start: int) -> None:
    source = write_stems(tmp_path / "stems", names=("a'b", "🎛️", "CON", "%s"))
    plan, path = renamed(make_plan(tmp_path / "stems"), HOSTILE_NAMES[start:]), tmp_path / "song.dawproject"
    write_dawproject(plan, path)
    _check_schemas(path)
    assert _outcomes(write_dawproject(plan, path)) == {"unchanged"}
    assert len(list(_root(path).iter("Track"))) == 10
    np.testing.assert_array_equal(mix(*read_dawproject(path)), source)
    assert not any("_CON" not in name and "CON" in name for name in _audio(path))


def test_lossy_stems_are_decoded_here(tmp_path: Path) -> None:
    write_stems(tmp_path / "wav")
    (tmp_path / "stems").mkdir()
    samples, _ = soundfile.read(tmp_path / "wav" / "drums.wav")
    soundfile.write(tmp_path / "stems" / "drums.ogg", samples, RATE)
    write_dawproject(make_plan(tmp_path / "stems"), tmp_path / "song.dawproject")
    expected, _ = soundfile.read(tmp_path / "stems" / "drums.ogg", dtype="float32")
    np.testing.assert_array_equal(mix(*read_dawproject(tmp_path / "song.dawproject")), expected)


def _bad_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04" + b"\x00" * 100)


def _no_xml(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.xml", b"<a/>")


def _broken_xml(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project.xml", USERS[:-30])


def _other_version(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project.xml", USERS.replace(b'version="1.0">', b'version="2.0">'))


def _no_number(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project.xml", USERS.replace(b'value="96.0"', b'value="x"'))


def _bad_crc(path: Path) -> None:
    _users_project(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("audio/more.wav", b"MORE" * 100, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"MOREMORE", b"MORELESS", 1))


@pytest.mark.parametrize("make", [_bad_zip, _no_xml, _broken_xml, _other_version, _no_number, _bad_crc])
def test_a_damaged_project_is_left_alone(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.dawproject"
    make(path)
    before = path.read_bytes()
    with pytest.raises(RevithionError) as failure:
        write_dawproject(make_plan(tmp_path / "stems"), path)
    assert failure.value.code == "daw.project"
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["song.dawproject", "stems"]


def test_entities_are_not_read(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    (tmp_path / "secret").write_text("secret")
    path = tmp_path / "song.dawproject"
    doctype = f'<!DOCTYPE Project [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>'.encode()
    xml = USERS.replace(b'<Project version="1.0">', doctype + b'<Project version="1.0">')
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("project.xml", xml.replace(b"<Scenes/>", b"<Scenes>&x;</Scenes>"))
    write_dawproject(make_plan(tmp_path / "stems"), path)
    with zipfile.ZipFile(path) as archive:
        assert b">secret<" not in archive.read("project.xml")


def test_a_full_disk_leaves_the_project_as_it_was(tmp_path: Path, mounted) -> None:
    write_stems(tmp_path / "stems")
    with mounted(tmp_path / "small", "size=200k") as folder:
        path = folder / "song.dawproject"
        _users_project(path)
        before = path.read_bytes()
        with pytest.raises(OutputError) as failure:
            write_dawproject(make_plan(tmp_path / "stems"), path)
        assert failure.value.code == "output.disk_full"
        assert path.read_bytes() == before
        assert [entry.name for entry in folder.iterdir()] == ["song.dawproject"]
