"""REAPER projects: new ones, and ones that somebody works on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rpp
from hypothesis import given
from hypothesis import strategies as st

from project_mixdown import mix, read_rpp
from revithion_bridge.daw.bus_plan import BusPlan, PlannedSource, Position, PositionUnit, Send, Tempo
from revithion_bridge.daw.placement import SourceItem
from revithion_bridge.daw_files.rpp_document import parse_document, quoted, split_words
from revithion_bridge.daw_files.rpp_project import write_rpp
from revithion_bridge.daw_files.rpp_settings import rpp_rate
from revithion_bridge.daw_files.written_marks import read_mark, write_mark
from revithion_stems.errors import RevithionError
from stem_plans import FRAMES, HOSTILE_NAMES, RATE, make_plan, renamed, write_stems

# As REAPER writes it: lines end with CR LF, the last folder is closed by one step only, a name is not UTF-8.
USERS = b"""<REAPER_PROJECT 0.1 "7.22/win64" 1718000000
  <NOTES 0 2
    |< what looks like a block >
    |>
  >
  TEMPO 96 3 4
  SAMPLERATE 44100 1 0
  <MASTERFXLIST
  >
  <TRACK {11111111-1111-1111-1111-111111111111}
    NAME "My mix"
    MUTESOLO 0 0 0
    ISBUS 0 0
    NCHAN 2
    <FXCHAIN
      <VST "VST: ReaEQ (Cockos)" reaeq.dll 0 "" 1919247729<56535472656571> ""
        cWVlcu5e7f4CAAAAAQAAAA==
      >
    >
    MAINSEND 1 0
    FUTURE_THING "kept  as it   is" ; yes
  >
  <TRACK {22222222-2222-2222-2222-222222222222}
    NAME Reverb
    ISBUS 1 1
    NCHAN 2
    AUXRECV 0 0 0.5 0 0 0 0 0 0 -1:U 0 -1 ''
    <AUXVOLENV
      PT 0 1 0
    >
    MAINSEND 1 0
  >
  <TRACK {33333333-3333-3333-3333-333333333333}
    NAME "Hall \xe9"
    ISBUS 1 1
    AUXRECV 1 0 0.25 0 0 0 0 0 0 -1:U 0 -1 ''
    MAINSEND 1 0
  >
  <TRACK {44444444-4444-4444-4444-444444444444}
    NAME Last
    ISBUS 2 -1
    AUXRECV 2 3 0.125 0 0 0 0 0 0 -1:U 0 -1 ''
    MAINSEND 0 0
  >
  <EXTENSIONS
  >
>
""".replace(b"\n", b"\r\n")


def _tracks(path: Path) -> dict[str, rpp.Element]:
    text = path.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    return {track.find("./NAME")[1]: track for track in rpp.loads(text).findall("./TRACK")}


def _routes(path: Path) -> tuple[dict[str, list[tuple[str, float]]], list[str]]:
    tracks = _tracks(path)
    names = list(tracks)
    routes: dict[str, list[tuple[str, float]]] = {name: [] for name in names}
    for name, track in tracks.items():
        if track.find("./MAINSEND")[1] == "1":
            routes[name].insert(0, ("master", 1.0))
        for receive in track.findall("./AUXRECV"):
            routes[names[int(receive[1])]].append((name, float(receive[3])))
    return routes, names


def _outcomes(report) -> set[str]:
    return {strip.outcome.value for strip in report.strips}


def test_a_new_project_plays_the_source(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    write_rpp(make_plan(tmp_path / "stems"), tmp_path / "song.rpp")
    np.testing.assert_array_equal(mix(*read_rpp(tmp_path / "song.rpp")), source)


def test_stems_feed_their_bus_and_nothing_else(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_rpp(make_plan(tmp_path / "stems"), tmp_path / "song.rpp")
    strips, master = read_rpp(tmp_path / "song.rpp")
    feeds = {strip.name: [target.name for target, _ in strip.feeds] for strip in strips}
    assert feeds.pop("Song stems") == [master.name]
    for stem in ("Drums", "Bass", "Other", "Vocals"):
        assert feeds.pop(stem) == [f"{stem} Bus"]
        assert feeds.pop(f"{stem} Bus") == [master.name]
    assert not feeds


def test_the_same_again_changes_no_byte(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    plan, path = make_plan(tmp_path / "stems"), tmp_path / "song.rpp"
    path.write_bytes(USERS)
    assert _outcomes(write_rpp(plan, path)) == {"created"}
    before = path.read_bytes()
    report = write_rpp(plan, path)
    assert _outcomes(report) == {"unchanged"}
    assert not report.changed
    assert path.read_bytes() == before


def test_a_users_project_keeps_every_line(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    path.write_bytes(USERS)
    write_rpp(make_plan(tmp_path / "stems"), path)
    after = path.read_bytes()
    # Closed in full, since our tracks follow: the one line of the user's that has to change.
    expected = USERS.replace(b"ISBUS 2 -1", b"ISBUS 2 -2")
    users, extensions = expected.split(b"  <EXTENSIONS")
    assert after.startswith(users)
    assert after.endswith(b"  <EXTENSIONS" + extensions)
    assert b"\n" not in after.replace(b"\r\n", b"")
    assert (tmp_path / "song.rpp.bak").read_bytes() == USERS


def test_our_folder_is_not_inside_a_folder_of_the_user(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    path.write_bytes(USERS)
    write_rpp(make_plan(tmp_path / "stems"), path)
    depth = 0
    for name, track in _tracks(path).items():
        inside = name in ("Hall \udce9", "Last", "Drums", "Bass", "Other", "Vocals")
        assert (depth > 0) == inside
        depth += int(track.find("./ISBUS")[2])
    assert depth == 0


def test_sends_follow_the_tracks_that_move(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    write_rpp(make_plan(tmp_path / "stems"), path)
    document = path.read_text()
    user = (
        "  <TRACK {55555555-5555-5555-5555-555555555555}\n    NAME {}\n    ISBUS 0 0\n    {}\n    MAINSEND 1 0\n  >\n"
    )
    # Two tracks of the user's after ours; the second one receives from the first one and from our drums.
    mine = user.replace("{}", "A", 1).replace("    {}\n", "") + user.replace("5555-5555", "5555-5556").replace(
        "{}", "B", 1
    ).replace("{}", "AUXRECV 9 0 1 0 0 0 0 0 0 -1:U 0 -1 ''\n    AUXRECV 1 0 1 0 0 0 0 0 0 -1:U 0 -1 ''")
    path.write_text(document[:-2] + mine + ">\n")
    write_rpp(make_plan(tmp_path / "stems", "vocals-instrumental"), path)
    strips, _ = _routes(path)
    assert [target for target, _ in strips["A"]] == ["master", "B"]
    assert "B" in [target for target, _ in strips["Drums"]]


def test_another_preset_takes_away_what_it_does_not_have(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    path.write_bytes(b'<REAPER_PROJECT 0.1 "7.0" 0\n  SAMPLERATE 44100 1 0\n>\n')
    write_rpp(make_plan(tmp_path / "stems"), path)
    write_rpp(make_plan(tmp_path / "stems", "tracks-only"), path)
    assert list(_tracks(path)) == ["Song stems", "Drums", "Bass", "Other", "Vocals"]
    np.testing.assert_array_equal(mix(*read_rpp(path)), source)
    write_rpp(make_plan(tmp_path / "stems"), path)
    assert len(_tracks(path)) == 9
    np.testing.assert_array_equal(mix(*read_rpp(path)), source)


def test_a_partial_plan_leaves_the_others(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    plan, path = make_plan(tmp_path / "stems"), tmp_path / "song.rpp"
    for track, bus in zip(plan.tracks, plan.buses, strict=True):
        write_rpp(dataclasses.replace(plan, tracks=(track,), buses=(bus,), group=None, partial=True), path)
    assert len(_tracks(path)) == 8


def test_what_the_user_set_on_our_tracks_survives(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    write_rpp(make_plan(tmp_path / "stems"), path)
    text = path.read_text().replace("NAME Drums\n    PEAKCOL 24354304", "NAME Kit\n    PEAKCOL 1", 1)
    text = text.replace("VOLPAN 1 0 1 -1 1", "VOLPAN 0.25 -0.5 1 -1 1\n    <FXCHAIN\n      BYPASS 1 0 0\n    >", 2)
    path.write_text(text)
    write_stems(tmp_path / "new", seed=2)
    report = write_rpp(make_plan(tmp_path / "new"), path)
    drums = _tracks(path)["Kit"]
    assert drums.find("./VOLPAN")[1] == "0.25"
    assert drums.find("./PEAKCOL")[1] == "1"
    assert drums.find("./FXCHAIN") is not None
    assert drums.find(".//FILE")[1] == "new/drums.wav"
    assert [strip.outcome.value for strip in report.strips] == ["replaced"] * 4 + ["unchanged"] * 4
    assert report.strips[0].name == "Kit"


def test_a_vca_that_a_script_made_stays(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    mark = write_mark("0123456789abcdef", "vca", "")
    vca = f"  <TRACK {{1}}\n    NAME VCA\n    <EXT\n      revithion_stems {mark}\n    >\n  >\n"
    path.write_text(f'<REAPER_PROJECT 0.1 "7.0" 0\n{vca}>\n')
    write_rpp(make_plan(tmp_path / "stems"), path)
    assert "VCA" in _tracks(path)
    write_rpp(make_plan(tmp_path / "stems", "tracks-only"), path)
    assert "VCA" not in _tracks(path)


def test_a_track_that_a_script_marked_is_found(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    write_rpp(make_plan(tmp_path / "stems"), path)
    before = _tracks(path)
    text = path.read_text()
    for number, track in enumerate(before.values()):  # REAPER gives tracks that scripts make GUIDs of its own
        text = text.replace(track.attrib[0], f"{{99999999-0000-0000-0000-{number:012}}}")
    path.write_text(text)
    assert _outcomes(write_rpp(make_plan(tmp_path / "stems"), path)) == {"unchanged"}


def test_a_trimmed_clip_lands_where_the_item_was(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    item = SourceItem(start_frame=1000, frames=2000, position=Position(value=500, unit=PositionUnit.FRAMES))
    write_rpp(make_plan(tmp_path / "stems", items=(item,)), tmp_path / "song.rpp")
    played = mix(*read_rpp(tmp_path / "song.rpp"))
    np.testing.assert_array_equal(played, np.pad(source[1000:3000], ((500, 0), (0, 0))))


def test_play_rate_and_gain_of_a_clip(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    item = SourceItem(start_frame=441, frames=4410, play_rate=2.0, preserve_pitch=True, gain_db=-6.0)
    write_rpp(make_plan(tmp_path / "stems", items=(item,)), tmp_path / "song.rpp")
    drums = _tracks(tmp_path / "song.rpp")["Drums"].find("./ITEM")
    assert drums.find("./PLAYRATE")[1:3] == ["2", "1"]
    assert float(drums.find("./SOFFS")[1]) == pytest.approx(0.01)
    assert float(drums.find("./LENGTH")[1]) == pytest.approx(0.05)
    assert float(drums.find("./VOLPAN")[1]) == pytest.approx(10 ** (-6 / 20))


@pytest.mark.parametrize(
    ("project", "tempo", "seconds"),
    [(USERS, None, 8 * 3 * 60 / 96), (USERS, Tempo(bpm=120), 16.0), (None, None, 16.0), (None, Tempo(bpm=60), 32.0)],
)
def test_bars_are_counted_by_the_projects_tempo_or_the_given_one(
    tmp_path: Path, project: bytes | None, tempo: Tempo | None, seconds: float
) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    if project is not None:
        path.write_bytes(project)
    item = SourceItem(frames=FRAMES, position=Position(value=9, unit=PositionUnit.BARS))
    write_rpp(make_plan(tmp_path / "stems", items=(item,)), path, tempo)
    assert float(_tracks(path)["Bass"].find("./ITEM").find("./POSITION")[1]) == pytest.approx(seconds)


def test_beats_in_a_project_whose_tempo_changes_are_refused(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    changing = USERS.replace(
        b"  <EXTENSIONS", b"  <TEMPOENVEX\r\n    PT 0 96 0\r\n    PT 4 98 0\r\n  >\r\n  <EXTENSIONS"
    )
    path.write_bytes(changing)
    item = SourceItem(frames=FRAMES, position=Position(value=8, unit=PositionUnit.BEATS))
    with pytest.raises(RevithionError, match="tempo changes"):
        write_rpp(make_plan(tmp_path / "stems", items=(item,)), path)
    assert path.read_bytes() == changing


def test_sends_reach_buses_of_the_plan_and_tracks_of_the_project(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    path.write_bytes(USERS)
    plan = make_plan(tmp_path / "stems")
    sends = (Send(bus="Reverb", gain_db=-12), Send(bus="New\nroom", pre_fader=True), Send(bus="bass", gain_db=-6))
    plan = dataclasses.replace(plan, tracks=(dataclasses.replace(plan.tracks[0], sends=sends), *plan.tracks[1:]))
    write_rpp(plan, path)
    assert _outcomes(write_rpp(plan, path)) == {"unchanged"}
    routes, names = _routes(path)
    assert dict(routes["Drums"]) == {
        "Drums Bus": 1.0,
        "Reverb": pytest.approx(10 ** (-12 / 20)),
        "New room": 1.0,
        "Bass Bus": pytest.approx(10 ** (-6 / 20)),
    }
    assert names.count("New room") == 1
    assert _tracks(path)["New room"].find("./AUXRECV")[2] == "3"


def test_the_source_is_muted(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    path.write_bytes(USERS)
    source = PlannedSource(track_id="{11111111-1111-1111-1111-111111111111}", track_name="My mix")
    write_rpp(make_plan(tmp_path / "stems", source=source), path)
    assert [track.find("./MUTESOLO")[1] for name, track in _tracks(path).items() if name == "My mix"] == ["1"]


def test_channels_above_stereo_are_sent_in_full(tmp_path: Path) -> None:
    import soundfile

    (tmp_path / "stems").mkdir()
    soundfile.write(tmp_path / "stems" / "vocals.wav", np.zeros((100, 6)), RATE, subtype="FLOAT")
    write_rpp(make_plan(tmp_path / "stems"), tmp_path / "song.rpp")
    tracks = _tracks(tmp_path / "song.rpp")
    assert tracks["Vocals"].find("./NCHAN")[1] == tracks["Vocals Bus"].find("./NCHAN")[1] == "6"
    assert int(tracks["Vocals Bus"].find("./AUXRECV")[8]) >> 10 == 3  # pairs


@pytest.mark.parametrize("start", range(0, len(HOSTILE_NAMES), 4))
def test_hostile_names_are_data(tmp_path: Path, start: int) -> None:
    source = write_stems(tmp_path / "stems")
    plan, path = renamed(make_plan(tmp_path / "stems"), HOSTILE_NAMES[start:]), tmp_path / "song.rpp"
    write_rpp(plan, path)
    assert _outcomes(write_rpp(plan, path)) == {"unchanged"}
    assert len(_tracks(path)) == 9
    np.testing.assert_array_equal(mix(*read_rpp(path)), source)


def test_a_file_that_no_quotes_fit_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a \" ' ` b"
    write_stems(folder)
    with pytest.raises(RevithionError, match="rename the file"):
        write_rpp(make_plan(folder), tmp_path / "song.rpp")
    assert not (tmp_path / "song.rpp").exists()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"not a project",
        USERS[: len(USERS) // 2],
        USERS + USERS,
        b"\x00" * 100,
        b"<REAPER_PROJECT\n" + b"<A\n" * 500,
    ],
)
def test_a_damaged_project_is_left_alone(tmp_path: Path, damaged: bytes) -> None:
    write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    path.write_bytes(damaged)
    with pytest.raises(RevithionError) as failure:
        write_rpp(make_plan(tmp_path / "stems"), path)
    assert failure.value.code == "daw.project"
    assert path.read_bytes() == damaged
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["song.rpp", "stems"]


def _code(plan: BusPlan, path: Path) -> str:
    try:
        write_rpp(plan, path)
    except RevithionError as failure:
        return failure.code
    return ""


def test_a_line_that_lacks_a_word_is_no_crash(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    plan, path = make_plan(tmp_path / "stems"), tmp_path / "song.rpp"
    lines = USERS.split(b"\r\n")
    codes: set[str] = set()
    for number, line in enumerate(lines):
        path.write_bytes(b"\r\n".join([*lines[:number], line.rpartition(b" ")[0], *lines[number + 1 :]]))
        codes.add(_code(plan, path))
    assert codes == {"", "daw.project"}


def test_the_rate_that_a_project_fixes(tmp_path: Path) -> None:
    path = tmp_path / "song.rpp"
    assert rpp_rate(path) is None
    path.write_bytes(USERS)
    assert rpp_rate(path) == RATE
    path.write_bytes(USERS.replace(b"SAMPLERATE 44100 1", b"SAMPLERATE 44100 0"))
    assert rpp_rate(path) is None


@given(st.text())
def test_marks_hold_any_key_in_one_word(key: str) -> None:
    mark = write_mark("0123456789abcdef", "bus", key)
    assert split_words(f"revithion_stems {mark}") == ["revithion_stems", mark]
    assert read_mark(f"mine {mark}\nmore") == ("0123456789abcdef", "bus", key)


@given(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])).filter(
        lambda word: len({*"\"'`"} & {*word}) < 3
    )
)
def test_words_come_back_from_their_quotes(word: str) -> None:
    assert split_words(f"NAME {quoted(word)} 1") == ["NAME", word, "1"]


@given(st.text())
def test_a_name_can_never_begin_a_line_or_a_word_of_its_own(word: str) -> None:
    line = f"NAME {quoted(word)}"
    assert len(split_words(line)) == 2
    assert len(line.splitlines()) == 1


_WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n<>"), min_size=1), min_size=1).map(
    " ".join
)
_BLOCKS = st.recursive(
    _WORDS.map(lambda words: f" {words}\n"),
    lambda inner: st.lists(inner).map(lambda lines: f" <B 1\r\n{''.join(lines)}\t>  \n"),
)


@given(st.lists(_BLOCKS), st.sampled_from(["", "\r\n"]))
def test_reading_and_writing_keeps_every_byte(blocks: list[str], end: str) -> None:
    data = f'<REAPER_PROJECT 0.1 "7" 1\n{"".join(blocks)}>\n{end}'.encode()
    assert parse_document(data).encode() == data
