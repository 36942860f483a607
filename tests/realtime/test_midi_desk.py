from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mido.ports import EchoPort

from jack_server import JackServer, jack_module, require_jack
from live_desk import LiveDesk
from revithion_realtime.control.midi_desk import MidiDesk, open_midi
from revithion_realtime.control.midi_map import MidiAddress
from revithion_realtime.control.midi_map_file import load_midi_map, parse_midi_map
from revithion_realtime.control.midi_ports import VIRTUAL, backend_name, open_midi_ports, port_names
from revithion_stems.errors import DawError, LiveError, RevithionError
from revithion_stems.live import StripChange

SOON_S = 10.0
FADER = MidiAddress(kind="cc", channel=1, number=20)
MUTE = MidiAddress(kind="note", channel=1, number=40)


class Controller:
    """A controller on ports of mido's that live in memory, in front of a session in memory."""

    def __init__(self, *entries: dict[str, Any], led: object = None) -> None:
        self.desk = LiveDesk()
        self.errors: list[RevithionError] = []
        self.to_desk, self.lights = EchoPort(), EchoPort()
        table: dict[str, Any] = {"control": list(entries)} if led is None else {"control": list(entries), "led": led}
        self.midi = MidiDesk(
            self.desk, parse_midi_map(table), self.to_desk, self.lights, record_to="takes", notify=self.errors.append
        )

    def send(self, address: MidiAddress, value: int) -> None:
        self.to_desk.send(address.message(value))
        self.midi.pump()

    def press(self, address: MidiAddress) -> None:
        self.send(address, 127)
        self.send(address, 0)

    def shown(self) -> list[str]:
        """What the lights and motors are sent now."""
        self.midi.show(self.desk.state())
        return [str(message) for message in self.lights.iter_pending()]

    @property
    def gain_db(self) -> float:
        return self.desk.settings("vocals").gain_db


def gain_fader(**more: object) -> Controller:
    return Controller({"target": "vocals.gain", "cc": FADER.number, **more})


def button(target: str, **more: object) -> Controller:
    return Controller({"target": target, "note": MUTE.number, **more})


def test_an_error_that_nobody_foresaw_is_told_before_the_thread_ends():
    controller = gain_fader()
    controller.desk.state = lambda: 1 / 0  # pyright: ignore[reportAttributeAccessIssue]
    controller.midi.start()
    deadline = time.monotonic() + SOON_S
    while not controller.errors:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    controller.midi.close()
    assert [error.code for error in controller.errors] == ["error.unexpected"]


# faders


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 127)), max_size=40))
def test_takeover_never_jumps(moves: list[tuple[bool, int]]):
    controller = gain_fader()
    values = controller.midi.mapping.controls[FADER].values
    stood: int | None = None
    for elsewhere, value in moves:
        before = controller.gain_db
        if elsewhere:
            controller.desk.set_strip("vocals", StripChange(gain_db=values[value] / 2))
            continue
        controller.send(FADER, value)
        way = sorted((value if stood is None else stood, value))
        if controller.gain_db != before:
            assert controller.gain_db == values[value]
            assert values[max(0, way[0] - 1)] <= before <= values[min(127, way[1] + 1)]
        stood = value


@given(st.integers(0, 127), st.integers(0, 127))
def test_a_fader_that_went_from_end_to_end_is_in_hand(start: int, value: int):
    controller = gain_fader()
    controller.desk.set_strip("vocals", StripChange(gain_db=-60.0 + 72.0 * start / 127))
    for step in (0, 127, value):
        controller.send(FADER, step)
    assert controller.gain_db == controller.midi.mapping.controls[FADER].values[value]


def test_a_fader_moves_nothing_before_it_meets_the_value():
    controller = gain_fader()
    for value in (20, 40, 90):
        controller.send(FADER, value)
    assert controller.desk.calls == []
    controller.send(FADER, 110)
    assert controller.gain_db > 0.0


def test_a_value_beyond_the_controls_own_end_is_met_at_the_end():
    controller = gain_fader(range=[-60.0, 0.0])
    controller.desk.set_strip("vocals", StripChange(gain_db=9.0))
    controller.send(FADER, 120)
    assert controller.gain_db == 9.0
    controller.send(FADER, 127)
    assert controller.gain_db == 0.0


def test_a_motor_fader_moves_at_once():
    controller = gain_fader(motor=True)
    controller.send(FADER, 30)
    assert controller.gain_db == controller.midi.mapping.controls[FADER].values[30]


def test_a_motor_fader_follows_a_move_from_elsewhere_once():
    controller = gain_fader(motor=True)
    assert controller.shown() == ["control_change channel=0 control=20 value=95 time=0"]
    controller.desk.set_strip("vocals", StripChange(gain_db=12.0))
    assert controller.shown() == ["control_change channel=0 control=20 value=127 time=0"]
    assert controller.shown() == []


@given(st.integers(0, 127))
def test_a_motor_fader_is_not_pushed_against_the_hand(value: int):
    controller = gain_fader(motor=True)
    controller.shown()
    controller.send(FADER, value)
    assert controller.shown() == []


@pytest.mark.parametrize("sets", ["pan", "low", "mid", "high", "filter"])
def test_every_knob_reaches_its_field(sets: str):
    controller = Controller({"target": f"2.{sets}", "cc": 20})
    for value in (0, 127, 100):
        controller.send(FADER, value)
    field = f"{sets}_db" if sets in ("low", "mid", "high") else sets
    expected = controller.midi.mapping.controls[FADER].values[100]
    assert getattr(controller.desk.settings("drums"), field) == expected != 0.0


def test_the_monitor_has_a_fader():
    controller = Controller({"target": "monitor", "cc": 20})
    for value in (127, 0):
        controller.send(FADER, value)
    assert controller.desk.state().monitor_gain_db == -60.0


# buttons


@pytest.mark.parametrize("sets", ["mute", "solo", "low_kill", "mid_kill", "high_kill"])
def test_each_press_turns_a_switch_over(sets: str):
    controller = button(f"vocals.{sets}")
    before = controller.desk.settings("vocals")
    controller.press(MUTE)
    assert controller.desk.settings("vocals") != before
    controller.press(MUTE)
    assert controller.desk.settings("vocals") == before


def test_a_button_that_is_held_is_on_for_as_long():
    controller = button("vocals.mute", button="hold")
    controller.send(MUTE, 90)
    assert controller.desk.settings("vocals").muted
    controller.send(MUTE, 0)
    assert not controller.desk.settings("vocals").muted


def test_a_press_recalls_a_scene():
    controller = button("scene.drop")
    controller.desk.store_scene("drop")
    controller.desk.set_strip("bass", StripChange(muted=True))
    controller.press(MUTE)
    assert not controller.desk.settings("bass").muted
    assert [call[0] for call in controller.desk.calls].count("recall_scene") == 1


def test_a_press_begins_a_take_and_the_next_ends_it():
    controller = button("record")
    controller.press(MUTE)
    assert controller.desk.state().recording == "takes/take-1"
    controller.press(MUTE)
    assert controller.desk.state().recording == ""


def test_stems_that_the_session_does_not_have_are_passed_over():
    controller = button("guitar.mute")
    controller.press(MUTE)
    assert controller.desk.calls == []
    assert controller.shown() == []


# lights


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=10))
def test_a_light_shows_the_state_whoever_moved_it(moves: list[tuple[bool, bool]]):
    controller = button("vocals.mute", led={"on": 5, "off": 1})
    light = None
    for by_button, muted in moves:
        if by_button:
            controller.press(MUTE)
        else:
            controller.desk.set_strip("vocals", StripChange(muted=muted))
        controller.midi.show(controller.desk.state())
        for message in controller.lights.iter_pending():
            light = message.velocity
        assert light == (5 if controller.desk.settings("vocals").muted else 1)


def test_a_light_is_sent_again_after_its_button_was_used():
    controller = button("vocals.mute", button="hold")
    controller.shown()
    controller.send(MUTE, 0)
    assert controller.shown() == ["note_on channel=0 note=40 velocity=0 time=0"]


def test_the_lights_go_out_at_the_end():
    controller = button("vocals.mute")
    controller.desk.set_strip("vocals", StripChange(muted=True))
    controller.shown()
    controller.midi.close()
    assert [message.velocity for message in controller.lights.iter_pending()] == [0]


# errors


def test_what_the_session_refuses_is_told():
    controller = button("scene.none")
    controller.press(MUTE)
    assert [error.code for error in controller.errors] == ["live.scene"]


def test_a_port_that_is_gone_is_an_error():
    controller = button("vocals.mute")
    controller.to_desk.close()
    with pytest.raises(DawError) as caught:
        controller.midi.pump()
    assert caught.value.code == "midi.port"


def test_lights_that_are_gone_are_told_once_and_the_faders_still_move():
    controller = Controller({"target": "1.mute", "note": 40}, {"target": "1.gain", "cc": 20})
    controller.lights.close()
    controller.shown()
    controller.shown()
    assert [error.code for error in controller.errors] == ["midi.port"]
    controller.send(FADER, 0)
    controller.send(FADER, 127)
    assert controller.gain_db == 12.0


def test_what_is_refused_does_not_stop_what_was_sent_with_it():
    controller = Controller({"target": "scene.none", "note": 40}, {"target": "1.gain", "cc": 20, "motor": True})
    controller.to_desk.send(MUTE.message(127))
    controller.send(FADER, 0)
    assert (len(controller.errors), controller.gain_db) == (1, -60.0)


# learning


def test_the_next_control_that_moves_is_learned(tmp_path: Path):
    controller = button("vocals.mute")
    path = tmp_path / "midi.toml"
    controller.midi.start()
    said: list[str] = []
    learner = threading.Thread(target=lambda: said.append(controller.midi.learn("bass.gain", path=path)))
    learner.start()
    # A release and a button are no faders; a fader that moves sends again and again.
    while learner.is_alive():
        for message in (MUTE.message(0), MUTE.message(127), FADER.message(3)):
            controller.to_desk.send(message)
        time.sleep(0.01)
    learner.join()
    controller.midi.close()
    assert said == ['[[control]]\ntarget = "bass.gain"\ncc = 20\nchannel = 1\n']
    assert load_midi_map(str(path)).controls == {FADER: controller.midi.mapping.controls[FADER]}


def test_without_a_thread_learning_pumps_by_itself(tmp_path: Path):
    controller = gain_fader()
    controller.to_desk.send(MUTE.message(0))
    controller.to_desk.send(MUTE.message(1))
    assert "note = 40" in controller.midi.learn("2.solo", path=tmp_path / "midi.toml")
    controller.press(MUTE)
    assert controller.desk.settings("drums").solo


def test_learning_ends_when_nothing_moves(tmp_path: Path):
    controller = gain_fader()
    with pytest.raises(LiveError, match=r"no button was pressed within 0\.01 s"):
        controller.midi.learn("2.solo", path=tmp_path / "midi.toml", timeout_s=0.01)
    assert list(tmp_path.iterdir()) == []
    controller.send(FADER, 127)
    controller.send(FADER, 0)
    assert controller.gain_db == -60.0


# drivers


@pytest.fixture
def no_such_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDO_BACKEND", "no_such_driver")


@pytest.mark.usefixtures("no_such_driver")
@pytest.mark.parametrize("call", [port_names, open_midi_ports, lambda: open_midi_ports(VIRTUAL)])
def test_a_driver_that_is_missing_is_named(call: Callable[[], object]):
    with pytest.raises(DawError, match=r"no driver for MIDI \(no_such_driver\)") as caught:
        call()
    assert (caught.value.code, caught.value.exit_code) == ("midi.backend", 8)


class JackMidi:
    """Wires between our virtual ports and a controller's, in JACK."""

    def __init__(self) -> None:
        self.client = jack_module().Client("patchbay", no_start_server=True)
        self._ports = contextlib.ExitStack()

    def keep(self, port: Any) -> Any:
        """Closes it before the server ends, also after a failure: RtMidi crashes if it finds the server gone."""
        return self._ports.enter_context(contextlib.closing(port))

    def close(self) -> None:
        self._ports.close()
        self.client.close()

    def wire(self, source: str, sink: str) -> None:
        (output,) = self.client.get_ports(source, is_midi=True, is_output=True)
        (input_,) = self.client.get_ports(sink, is_midi=True, is_input=True)
        self.client.connect(output, input_)


@pytest.fixture
def jack_midi(monkeypatch: pytest.MonkeyPatch):
    require_jack()
    rtmidi = pytest.importorskip("rtmidi")
    if rtmidi.API_UNIX_JACK not in rtmidi.get_compiled_api():
        pytest.skip("python-rtmidi was built without JACK")
    monkeypatch.setenv("MIDO_BACKEND", "mido.backends.rtmidi/UNIX_JACK")
    with JackServer():
        patchbay = JackMidi()
        patchbay.client.activate()
        yield patchbay
        patchbay.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_controller_in_jack_moves_a_strip_and_gets_its_light(jack_midi: JackMidi):
    backend = mido.Backend(backend_name())
    surface_out = jack_midi.keep(backend.open_output("surface out", virtual=True, client_name="surface"))
    surface_in = jack_midi.keep(backend.open_input("surface in", virtual=True, client_name="surface"))
    desk = LiveDesk()
    lights: list[tuple[int, int]] = []

    def lit() -> bool:
        lights.extend((message.note, message.velocity) for message in surface_in.iter_pending())
        return (4, 127) in lights

    with open_midi(desk, VIRTUAL, "midimix"):
        jack_midi.wire("surface.*:surface out", "revithion-stems.*:revithion-stems in")
        jack_midi.wire("revithion-stems.*:revithion-stems out", "surface.*:surface in")
        surface_out.send(mido.Message("note_on", note=4, velocity=127))
        until(lambda: desk.settings("drums").muted)
        until(lit)
        for value in (127, 60):
            surface_out.send(mido.Message("control_change", control=19, value=value))
        until(lambda: desk.settings("vocals").gain_db < -7.9)


def test_a_port_in_jack_is_found_by_a_part_of_its_name(jack_midi: JackMidi):
    backend = mido.Backend(backend_name())
    jack_midi.keep(backend.open_output("nanoKONTROL2", virtual=True, client_name="a2j"))
    jack_midi.keep(backend.open_output("another", virtual=True, client_name="a2j"))
    jack_midi.keep(backend.open_input("nanoKONTROL2", virtual=True, client_name="a2j"))
    ports = jack_midi.keep(open_midi_ports("nanokontrol"))
    assert "nanoKONTROL2" in ports.name
    assert ports.output is not None
    ports.close()
    with pytest.raises(DawError, match="more than one MIDI port is there, and none was chosen"):
        open_midi_ports()
    with pytest.raises(DawError, match=r"no MIDI port matches 'launchpad'; there are: .*nanoKONTROL2") as caught:
        open_midi_ports("launchpad")
    assert caught.value.code == "midi.port"
