from __future__ import annotations

import tomllib
from pathlib import Path

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_realtime.control.midi_map import MidiAddress, MidiLaw, address_of, control_for, law_values
from revithion_realtime.control.midi_map_file import (
    append_control,
    load_midi_map,
    midi_presets,
    parse_midi_map,
    preset_for_port,
    user_map_path,
)
from revithion_realtime.control.midi_target import RANGES, MidiTarget
from revithion_stems.errors import LiveError
from revithion_stems.fader_law import fader_gain_db, fader_position

VALUES = st.integers(0, 127)


@given(st.floats(0.0, 1.0))
def test_a_fader_stands_where_its_gain_says(way: float):
    gain_db = fader_gain_db(way)
    assert -60.0 <= gain_db <= 12.0
    assert fader_gain_db(fader_position(gain_db)) == pytest.approx(gain_db, abs=1e-9)


@given(st.sampled_from(sorted(RANGES)), VALUES, VALUES)
def test_every_law_rises_within_its_range(sets: str, one: int, other: int):
    values = law_values(sets, MidiLaw.CENTRE)
    low, high = RANGES[sets]
    assert (values[0], values[64], values[127]) == (low, 0.0, high)
    assert values[min(one, other)] <= values[max(one, other)]


def test_a_gain_is_at_0_db_at_three_quarters():
    values = law_values("gain", MidiLaw.FADER)
    assert (values[0], values[95], values[127]) == (-60.0, 0.0, 12.0)
    assert values[47] == pytest.approx(-12.22, abs=0.01)


@given(st.sampled_from(sorted(RANGES)), VALUES)
def test_a_motor_goes_where_the_value_is_that_its_fader_meant(sets: str, value: int):
    address = MidiAddress(kind="cc", channel=1, number=7)
    target = MidiTarget(sets=sets) if sets == "monitor" else MidiTarget(sets=sets, strip=1)
    control = control_for(target, address)
    assert control.values[control.value_of(control.values[value])] == control.values[value]


@given(st.floats(-1.0, 1.0))
def test_a_motor_that_runs_backwards_stands_at_the_nearest_value(pan: float):
    entry = {"target": "1.pan", "cc": 1, "range": [1.0, -1.0], "motor": True}
    (control,) = parse_midi_map({"control": [entry]}).controls.values()
    nearest = min(abs(value - pan) for value in control.values)
    assert abs(control.values[control.value_of(pan)] - pan) == pytest.approx(nearest)


@pytest.mark.parametrize("text", ["vocals.gain", "2.pan", "monitor", "record", "scene.the drop", "lead vox.low_kill"])
def test_a_target_is_written_as_it_is_read(text: str):
    assert str(MidiTarget.parse(text)) == text


@given(VALUES, VALUES, st.integers(1, 16), st.sampled_from(["cc", "note"]))
def test_what_is_sent_is_what_is_read(number: int, value: int, channel: int, kind: str):
    address = MidiAddress(kind=kind, channel=channel, number=number)
    assert address_of(mido.Message.from_bytes(address.message(value).bytes())) == (address, value)


def test_the_end_of_a_note_is_its_value_0():
    address = MidiAddress(kind="note", channel=1, number=5)
    assert address_of(mido.Message("note_off", note=5, velocity=64)) == (address, 0)
    assert address_of(mido.Message("pitchwheel", pitch=5)) is None


@pytest.mark.parametrize("name", ["midimix", "nanokontrol2", "launchcontrolxl", "xtouchmini", "generic"])
def test_a_preset_moves_the_gains_of_four_strips_at_least(name: str):
    preset = midi_presets()[name]
    gains = {control.target.strip for control in preset.controls.values() if control.target.sets == "gain"}
    assert {1, 2, 3, 4} <= gains
    assert preset.title


def test_presets_send_no_message_twice():
    text = Path(load_midi_map.__code__.co_filename).with_name("midi_presets.toml").read_text(encoding="utf-8")
    for name, table in tomllib.loads(text).items():
        numbers = [
            (kind, number)
            for entry in table["control"]
            for kind in ("cc", "note")
            for number in _listed(entry.get(kind))
        ]
        assert len(numbers) == len(set(numbers)) == len(midi_presets()[name].controls)


def _listed(numbers: int | list[int] | None) -> list[int]:
    return numbers if isinstance(numbers, list) else [] if numbers is None else [numbers]


@pytest.mark.parametrize(
    ("port", "preset"),
    [
        ("nanoKONTROL2:nanoKONTROL2 nanoKONTROL2 _ CTRL 24:0", "nanokontrol2"),
        ("a2j:MIDI Mix [20] (capture): MIDI Mix MIDI 1", "midimix"),
        ("Something else", "generic"),
    ],
)
def test_a_port_finds_its_preset(port: str, preset: str):
    assert preset_for_port(port) == preset


def test_a_star_is_the_strips_in_their_order():
    mapping = parse_midi_map({"channel": 3, "control": [{"target": "*.mute", "note": [9, 8]}]})
    assert {str(control.target): address for address, control in mapping.controls.items()} == {
        "1.mute": MidiAddress(kind="note", channel=3, number=9),
        "2.mute": MidiAddress(kind="note", channel=3, number=8),
    }


def test_the_later_of_two_controls_counts():
    entries = [{"target": "1.gain", "cc": 7}, {"target": "vocals.pan", "cc": 7}]
    (control,) = parse_midi_map({"control": entries}).controls.values()
    assert str(control.target) == "vocals.pan"


def test_lights_have_their_own_numbers_and_values():
    entry = {"target": "*.mute", "note": [8, 9], "led": {"note": [0, 1], "channel": 2, "on": 1}}
    lights = [control.led for control in parse_midi_map({"channel": 11, "control": [entry]}).controls.values()]
    assert [(led.address.channel, led.address.number, led.on, led.off) for led in lights if led] == [
        (2, 0, 1, 0),
        (2, 1, 1, 0),
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"target": "1.gain", "cc": 120}, "cc: 120; 0 to 119 are possible"),
        ({"target": "1.gain", "cc": True}, "cc: True"),
        ({"target": "1.gain"}, "it needs either cc or note"),
        ({"target": "1.gain", "cc": 1, "note": 2}, "it needs either cc or note"),
        ({"target": "1.gain", "note": 1}, "a note can't move '1.gain'"),
        ({"target": "1.volume", "cc": 1}, "target: '1.volume'"),
        ({"target": "0.gain", "cc": 1}, "target: '0.gain'"),
        ({"target": "1.gain", "cc": [1, 2]}, "one number, or several"),
        ({"target": "1.gain", "cc": 1, "channel": 17}, "channel: 17; 1 to 16 are possible"),
        ({"target": "1.gain", "cc": 1, "law": "log"}, "law: 'log'; fader, centre or linear are possible"),
        ({"target": "1.pan", "cc": 1, "law": "fader"}, "fader is for decibels, not for pan"),
        ({"target": "1.pan", "cc": 1, "range": [-2, 1]}, "two different numbers from -1 to 1"),
        ({"target": "1.mute", "note": 1, "button": "latch"}, "button: 'latch'; toggle or hold are possible"),
        ({"target": "1.mute", "note": 1, "law": "fader"}, "law: not known here"),
        ({"target": "*.mute", "note": [1, 2], "led": {"note": 1}}, "1 lights for 2 buttons"),
        ({"target": "1.mute", "note": 1, "led": {"on": 128}}, "on: 128; 0 to 127 are possible"),
        ({"target": "1.mute", "note": 1, "colour": 1}, "colour: not known here"),
        ("vocals.gain", "'vocals.gain' is not a table"),
    ],
)
def test_a_mistake_is_named_with_its_control(entry: object, said: str):
    with pytest.raises(LiveError) as caught:
        parse_midi_map({"control": [{"target": "1.gain", "cc": 1}, entry]})
    assert caught.value.code == "live.options"
    assert caught.value.message.startswith("control 2: ")
    assert said in caught.value.message


@pytest.fixture
def own_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))
    return user_map_path()


def test_without_a_file_the_port_decides(own_map: Path):
    assert load_midi_map(port_name="X-TOUCH MINI 0").title == "Behringer X-Touch Mini"
    assert not own_map.exists()


def test_the_users_file_lies_on_top_of_the_preset(own_map: Path):
    own_map.write_text('[[control]]\ntarget = "bass.filter"\ncc = 0\n', encoding="utf-8")
    mapping = load_midi_map(port_name="nanoKONTROL2")
    assert str(mapping.controls[MidiAddress(kind="cc", channel=1, number=0)].target) == "bass.filter"
    assert len(mapping.controls) == len(midi_presets()["nanokontrol2"].controls)


def test_a_file_that_is_named_stands_alone(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "Mine"\n[[control]]\ntarget = "monitor"\ncc = 7\n', encoding="utf-8")
    mapping = load_midi_map(str(path), port_name="nanoKONTROL2")
    assert (mapping.title, len(mapping.controls)) == ("Mine", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[control]\n", "line 1"),
        ('preset = "launchpad"\n', "preset: 'launchpad'; midimix"),
        ('preset = ["midimix"]\n', "preset: ['midimix']; midimix"),
        ("control = 5\n", "write each one under [[control]]"),
        ('[[control]]\ntarget = "1.gain"\ncc = 200\n', "control 1: cc: 200"),
        ("chanel = 1\n", "chanel: not known here"),
    ],
)
def test_a_mistake_is_named_with_its_file(own_map: Path, text: str, said: str):
    own_map.write_text(text, encoding="utf-8")
    with pytest.raises(LiveError) as caught:
        load_midi_map()
    assert str(own_map) in caught.value.message
    assert said in caught.value.message


def test_a_file_that_is_not_there_is_told_with_the_presets(tmp_path: Path):
    with pytest.raises(LiveError, match=r"none\.toml.*presets are midimix"):
        load_midi_map(str(tmp_path / "none.toml"))


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1), st.integers(0, 119))
def test_what_was_learned_is_read_again(tmp_path_factory: pytest.TempPathFactory, scene: str, number: int):
    path = tmp_path_factory.mktemp("maps") / "folder" / "midi.toml"
    control = control_for(MidiTarget.parse(f"scene.{scene}"), MidiAddress(kind="cc", channel=4, number=number))
    append_control(control, path)
    lines = append_control(control, path)
    assert path.read_text(encoding="utf-8").endswith(lines)
    assert load_midi_map(str(path)).controls == {control.address: control}


def test_learning_keeps_what_people_wrote(own_map: Path):
    own_map.write_text("# mine\ntitle = 'Mine'\n", encoding="utf-8")
    append_control(control_for(MidiTarget.parse("1.gain"), MidiAddress(kind="cc", channel=1, number=1)), own_map)
    assert own_map.read_text(encoding="utf-8").startswith("# mine\ntitle = 'Mine'\n")
    assert load_midi_map().title == "Mine"
    assert not list(own_map.parent.glob("*.part"))
