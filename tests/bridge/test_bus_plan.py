"""The plan of tracks and buses: what it refuses, its way through JSON, and how presets build it."""

from __future__ import annotations

import math
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_bridge.daw.bus_plan import (
    SELECTED_ITEM,
    BusPlan,
    PlannedBus,
    PlannedClip,
    PlannedSource,
    PlannedTrack,
    Position,
    PositionUnit,
    Tempo,
    decode_plan,
    encode_plan,
    marker,
)
from revithion_bridge.daw.placement import SourceItem, parse_alignment
from revithion_bridge.daw.plan_builder import (
    MOST_NAME_CHARACTERS,
    StemFile,
    StemPlacement,
    build_plan,
    plan_identity,
    shown_name,
)
from revithion_bridge.daw.plan_presets import DEFAULT_PRESET, PlanPreset, find_preset, list_presets, presets_folder
from revithion_stems.errors import DawError, RequestError

IDENTITY = plan_identity("test")
HOSTILE = [
    '"; os.execute("rm -rf /") --',
    "two\nlines\tand a tab",
    "x" * 300,
    "🎸 गिटार ギター",
    "100% %s %d %n",
    "'`\"$(reboot)`'",
    "../../etc/passwd",
    "]]> <Track/> &amp;",
    "\u202egpj.exe",
    "",
    "   ",
]


def stems(*names: str, channels: int = 2, frames: int = 44_100) -> list[StemFile]:
    return [
        StemFile(stem=name, path=Path(f"/songs/{name}.wav"), channels=channels, frames=frames, sample_rate=44_100)
        for name in names
    ]


FOUR = stems("vocals", "drums", "bass", "other")


def plan_of(preset: str | PlanPreset, files: list[StemFile] = FOUR, title: str = "Song", **options: object) -> BusPlan:
    return build_plan(
        [StemPlacement(stems=files)],
        find_preset(preset),
        identity=IDENTITY,
        title=title,
        **options,  # type: ignore[arg-type]
    )


def track(key: str, output: str = "") -> PlannedTrack:
    clip = PlannedClip(file="/a.wav", channels=2, sample_rate=44_100, file_frames=10, frames=10)
    return PlannedTrack(key=key, name=key, colour="#000000", channels=2, clips=(clip,), output=output)


def bus(key: str, output: str = "") -> PlannedBus:
    return PlannedBus(key=key, name=key, colour="#000000", channels=2, output=output)


# --- the plan ---


@pytest.mark.parametrize(
    ("tracks", "buses", "complaint"),
    [
        ((), (), "there are none"),
        ((track("a"), track("a")), (), "not unique"),
        ((track("a", "nowhere"),), (bus("b"),), "no bus of the plan"),
        ((track("a", "b"),), (bus("b", "c"), bus("c", "b")), "feeds itself"),
        ((track("a", "b"),), (bus("b", "b"),), "feeds itself"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    tracks: tuple[PlannedTrack, ...], buses: tuple[PlannedBus, ...], complaint: str
) -> None:
    with pytest.raises(DawError, match=complaint) as caught:
        BusPlan(identity=IDENTITY, title="t", tracks=tracks, buses=buses)
    assert (caught.value.code, caught.value.exit_code) == ("daw.plan", 8)


def test_clips_lie_within_their_files() -> None:
    with pytest.raises(DawError, match="frames"):
        PlannedClip(file="/a.wav", channels=2, sample_rate=44_100, file_frames=10, start_frame=5, frames=6)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_positions_are_on_the_timeline(value: float) -> None:
    with pytest.raises(DawError):
        Position(value=value)
    with pytest.raises(DawError):
        Position(value=0.0, unit=PositionUnit.BARS)  # the first is 1


def test_a_plan_survives_json_with_all_its_names() -> None:
    for name in HOSTILE:
        plan = plan_of(DEFAULT_PRESET, title=name, source=PlannedSource(track_id=name, track_name=name))
        assert decode_plan(encode_plan(plan)) == plan


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"identity": 1}', b'{"identity": "0123456789abcdef"}', b"\xff"])
def test_json_that_is_no_plan_is_a_typed_error(data: bytes) -> None:
    with pytest.raises(DawError):
        decode_plan(data)


@given(st.floats(0, 1e5), st.sampled_from([44_100, 48_000, 96_000]), st.floats(20, 400))
def test_seconds_beats_and_bars_agree(seconds: float, rate: int, bpm: float) -> None:
    tempo = Tempo(bpm=bpm, numerator=3, denominator=4)
    beats = seconds * bpm / 60.0
    places = (
        Position(value=seconds),
        Position(value=beats, unit=PositionUnit.BEATS),
        Position(value=beats / 3.0 + 1.0, unit=PositionUnit.BARS),
        Position(value=round(seconds * rate), unit=PositionUnit.FRAMES),
    )
    frames = [tempo.frames(place, rate) for place in places]
    assert max(frames) - min(frames) <= 1  # of rounding


def test_only_a_daw_that_runs_knows_what_is_selected() -> None:
    with pytest.raises(DawError) as caught:
        Tempo().frames(SELECTED_ITEM, 44_100)
    assert caught.value.code == "daw.selection"


def test_marks_tell_plans_roles_and_keys_apart() -> None:
    marks = {marker(identity, role, key) for identity in ("a", "b") for role in ("track", "bus") for key in ("x", "y")}
    assert len(marks) == 8


# --- names ---


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_one_visible_line_and_stay_data(name: str) -> None:
    shown = shown_name(name)
    assert 1 <= len(shown) <= MOST_NAME_CHARACTERS
    assert shown.isprintable()
    assert shown_name(shown) == shown
    kept = [character for character in name[:MOST_NAME_CHARACTERS] if character in string.punctuation]
    assert [character for character in shown if character in string.punctuation] == kept


@given(st.text())
def test_every_text_becomes_a_name(text: str) -> None:
    shown = shown_name(text)
    assert shown == shown.strip() != ""
    assert "\n" not in shown
    assert len(shown) <= MOST_NAME_CHARACTERS
    shown.encode("utf-8")


# --- presets ---


def test_four_stems_go_to_four_buses() -> None:
    plan = plan_of("4-stems-to-buses")
    assert [(item.name, item.output) for item in plan.tracks] == [
        ("Drums", "drums"), ("Bass", "bass"), ("Other", "other"), ("Vocals", "vocals"),
    ]  # fmt: skip
    assert [item.name for item in plan.buses] == ["Drums Bus", "Bass Bus", "Other Bus", "Vocals Bus"]
    assert all(item.output == "" for item in plan.buses)
    assert plan.group is not None
    assert (plan.group.name, plan.vca) == ("Song stems", "Song stems")


def test_vocals_and_instrumental_works_for_two_stems_and_for_four() -> None:
    for files in (FOUR, stems("vocals", "no_vocals"), stems("vocals", "accompaniment")):
        plan = plan_of("vocals-instrumental", files)
        assert [item.name for item in plan.buses] == ["Vocals Bus", "Instrumental Bus"]
        vocals, *others = plan.tracks
        assert vocals.output == plan.buses[0].key
        assert {item.output for item in others} == {plan.buses[1].key}


def test_drums_only_leaves_the_others_out() -> None:
    assert [item.key for item in plan_of("drums-only").tracks] == ["drums"]
    with pytest.raises(DawError, match="the preset wants"):
        plan_of("drums-only", stems("vocals", "accompaniment"))


def test_the_shared_gain_is_undone_so_that_the_sum_is_the_source() -> None:
    assert {item.gain_db for item in plan_of(DEFAULT_PRESET, gain_db=-6.02).tracks} == {6.02}


def test_items_are_where_they_were_with_their_trim() -> None:
    place = Position(value=4_800, unit=PositionUnit.FRAMES)
    item = SourceItem(start_frame=100, frames=2_000, position=place, play_rate=1.5, preserve_pitch=True, item="{guid}")
    plan = build_plan(
        [StemPlacement(stems=FOUR, items=[item, item])], find_preset(DEFAULT_PRESET), identity=IDENTITY, title="t"
    )
    for strip in plan.tracks:
        assert len(strip.clips) == 2
        clip = strip.clips[0]
        assert (clip.start_frame, clip.frames, clip.position, clip.play_rate, clip.item) == (
            100, 2_000, place, 1.5, "{guid}",
        )  # fmt: skip


def test_the_source_is_muted_unless_the_preset_says_otherwise() -> None:
    source = PlannedSource(track_id="1", track_name="Mix")
    assert plan_of(DEFAULT_PRESET, source=source).source == source
    assert plan_of(PlanPreset(mute_source=False), source=source).source is None


def test_a_preset_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = presets_folder()
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(
        """
        label = "Mine"
        track = "{n} {stem} of {track}"
        colours = { vocals = "#123456" }
        gain_db = { vocals = -3 }
        bus = [
            { name = "Voice", stems = ["vocals"], output = "All", sends = [{ bus = "Reverb", gain_db = -12 }] },
            { name = "Band", stems = ["*"], output = "All" },
            { name = "All", stems = [] },
        ]
        """,
        encoding="utf-8",
    )
    assert list(list_presets())[-1] == "mine"
    plan = plan_of("mine")
    vocals = next(strip for strip in plan.tracks if strip.key == "vocals")
    assert (vocals.name, vocals.colour, vocals.gain_db) == ("4 vocals of Song", "#123456", -3)
    assert [(strip.name, strip.output) for strip in plan.buses] == [("Voice", "all"), ("Band", "all"), ("All", "")]
    assert plan.buses[0].sends[0].bus == "Reverb"
    assert plan_of(find_preset(folder / "mine.toml")) == plan


@pytest.mark.parametrize(
    "text",
    ["label = 1", "colours = { vocals = 'red' }", "nonsense = true", "bus = [{ gain_db = 100 }]", "label = [", "\x00"],
)
def test_a_preset_that_is_not_sound_names_the_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DawError, match=r"broken\.toml"):
        find_preset(path)


@pytest.mark.parametrize(
    "template", ["{nothing}", "{stem.__class__}", "{stem!r}", "{stem:>99999999}", "{0}", "{", "{stem[0]}"]
)
def test_templates_are_not_code(template: str) -> None:
    with pytest.raises(DawError):
        plan_of(PlanPreset(track=template))


def test_an_unknown_preset_says_which_there_are() -> None:
    with pytest.raises(DawError, match="4-stems-to-buses"):
        find_preset("four")


def test_every_preset_of_the_program_makes_a_plan() -> None:
    for name in list_presets():
        assert plan_of(name).tracks


# --- positions as people write them ---


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("project_start", 0.0, PositionUnit.SECONDS),
        ("project-start", 0.0, PositionUnit.SECONDS),
        (12.5, 12.5, PositionUnit.SECONDS),
        ("12.5", 12.5, PositionUnit.SECONDS),
        ("1:23.5", 83.5, PositionUnit.SECONDS),
        ("1:02:03", 3723.0, PositionUnit.SECONDS),
        ("bar 9", 9.0, PositionUnit.BARS),
        ("Beat 16.5", 16.5, PositionUnit.BEATS),
        ("frame 44100", 44_100.0, PositionUnit.FRAMES),
    ],
)
def test_positions_as_people_write_them(text: str | float, value: float, unit: PositionUnit) -> None:
    assert parse_alignment(text) == Position(value=value, unit=unit)


def test_item_is_no_position() -> None:
    assert parse_alignment("item") is None


@pytest.mark.parametrize("text", ["", "bar", "bar x", "1:2:3:4", "soon", "-"])
def test_what_is_no_position_says_what_is(text: str) -> None:
    with pytest.raises(RequestError, match="no position") as caught:
        parse_alignment(text)
    assert "project_start" in caught.value.hint


@pytest.mark.parametrize("text", ["-1", "nan", "bar 0"])
def test_positions_before_the_start_are_refused(text: str) -> None:
    with pytest.raises((DawError, RequestError)):
        parse_alignment(text)
