"""A MIDI controller moves stems: its layout, and the command with a real stream of MIDI and the real daemon."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mido
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mido import sockets

import midi_over_sockets
from daemon_program import DaemonProcess
from mailbox_daw import MailboxDaw, strip
from revithion_bridge.daw_desk.latest_moves import FaderMove
from revithion_bridge.daw_desk.midi_faders import MidiFaders, fader_gain_db
from revithion_stems.errors import RequestError

STEMS = ("drums", "bass", "vocals")
COMMAND = """
import sys
from revithion_bridge.cli.midi import midi_command
from revithion_stems.errors import RevithionError
try:
    sys.exit(midi_command.main(standalone_mode=False))
except RevithionError as exc:
    sys.exit(f"{exc.code}: {exc.message}")
"""
bytes7 = st.integers(0, 127)


def cc(control: int, value: int, channel: int = 0) -> mido.Message:
    return mido.Message("control_change", control=control, value=value, channel=channel)


# --- the layout -----------------------------------------------------------------------------------------------------


def test_the_curve_of_a_fader() -> None:
    gains = [fader_gain_db(value) for value in range(128)]
    assert (gains[0], gains[100], gains[127]) == (-120.0, 0.0, 6.0)
    assert gains[50] == pytest.approx(-12.04)
    assert gains[10] == pytest.approx(-40.0)
    assert gains == sorted(set(gains))
    assert max(after - before for before, after in itertools.pairwise(gains[40:])) < 0.5
    assert math.copysign(1.0, gains[100]) == 1.0


def test_controls_follow_each_other() -> None:
    faders = MidiFaders(stems=STEMS, gain_cc=20, mute_cc=40, mute_note=60)
    assert faders.read(cc(20, 100)) == ("drums", FaderMove(gain_db=0.0))
    assert faders.read(cc(22, 127)) == ("vocals", FaderMove(gain_db=6.0))
    assert faders.read(cc(41, 64)) == ("bass", FaderMove(muted=True))
    assert faders.read(cc(41, 63)) == ("bass", FaderMove(muted=False))
    assert faders.read(mido.Message("note_on", note=62, velocity=1)) == ("vocals", FaderMove(muted=True))
    assert faders.read(mido.Message("note_on", note=62, velocity=0)) == ("vocals", FaderMove(muted=False))
    assert faders.read(mido.Message("note_off", note=62)) == ("vocals", FaderMove(muted=False))
    for other in (cc(19, 1), cc(23, 1), cc(43, 1), mido.Message("note_on", note=63), mido.Message("clock")):
        assert faders.read(other) is None


def test_notes_mean_nothing_unless_they_are_asked_for() -> None:
    assert MidiFaders(stems=STEMS).read(mido.Message("note_on", note=0)) is None


@given(channel=st.integers(0, 15), wanted=st.none() | st.integers(1, 16))
def test_only_one_channel_counts_if_it_is_named(channel: int, wanted: int | None) -> None:
    found = MidiFaders(stems=STEMS, channel=wanted).read(cc(20, 1, channel))
    assert (found is not None) == (wanted is None or wanted == channel + 1)


@given(control=bytes7, value=bytes7, gain=bytes7, mute=bytes7, count=st.integers(1, 8))
def test_a_controller_means_one_thing(control: int, value: int, gain: int, mute: int, count: int) -> None:
    stems = tuple(f"stem {number}" for number in range(count))
    with contextlib.suppress(RequestError):
        found = MidiFaders(stems=stems, gain_cc=gain, mute_cc=mute).read(cc(control, value))
        is_gain, is_mute = gain <= control < gain + count, mute <= control < mute + count
        assert not (is_gain and is_mute)
        if not is_gain and not is_mute:
            assert found is None
        else:
            assert found is not None
            assert found[0] == stems[control - (gain if is_gain else mute)]
            assert (found[1].gain_db is None, found[1].muted is None) == (is_mute, is_gain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stems": ()},
        {"gain_cc": 118},
        {"mute_cc": -1},
        {"gain_cc": 20, "mute_cc": 22},
        {"mute_note": 126},
        {"channel": 0},
        {"channel": 17},
    ],
)
def test_what_midi_has_not_is_refused(wrong: dict) -> None:
    with pytest.raises(RequestError):
        MidiFaders(**{"stems": STEMS, **wrong})


# --- the command ----------------------------------------------------------------------------------------------------


def program(*arguments: str, **env: str) -> subprocess.Popen[str]:
    """The command in a process of its own, with the driver of these tests."""
    driver = {"MIDO_BACKEND": midi_over_sockets.__name__, "PYTHONPATH": str(Path(midi_over_sockets.__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-u", "-c", COMMAND, *arguments],
        env={**os.environ, **driver, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def wire() -> Iterator[sockets.PortServer]:
    with sockets.PortServer("127.0.0.1", 0) as server:
        yield server


def port_of(wire: sockets.PortServer) -> str:
    return str(wire._socket.getsockname()[1])  # mido has no other way to ask


def wait_for(condition, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there")
def test_a_controller_moves_the_faders_of_the_daw(
    daemon: DaemonProcess, wire: sockets.PortServer, daemon_home: Path
) -> None:
    """A fader swept through all its values by hand: the last one arrives, and not all of them were sent."""
    daw = MailboxDaw()
    daw.announce(strip("drums"), strip("vocals"))
    process = program("--stem", "drums", "--stem", "vocals", "--port", "loop", MIDI_TEST_PORT=port_of(wire))
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        controller = wire.accept()
        assert process.stdout.readline().strip() == f"{midi_over_sockets.NAME}: drums, vocals"
        with daw.answering(pause_s=0.05) as commands:
            for value in range(1, 101):
                controller.send(cc(20, value))
                time.sleep(0.005)
            controller.send(cc(41, 127))
            controller.send(mido.Message("sysex", data=[1, 2, 3]))
            wait_for(lambda: {(c["key"], c["gain_db"], c["muted"]) for c in commands} >= {
                ("drums", 0.0, None),
                ("vocals", None, True),
            })  # fmt: skip
        gains = [command["gain_db"] for command in commands if command["key"] == "drums"]
        assert gains == sorted(gains)
        assert 3 < len(gains) < 60
        daw.announce(strip("vocals"))
        for _ in range(2):
            controller.send(cc(20, 50))
        assert "there is no bus 'drums'" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()
        process.stderr.close()


def outcome(*arguments: str, **env: str) -> tuple[str, str]:
    """What it prints, and its error."""
    return program(*arguments, **env).communicate(timeout=60)


def test_ports_are_listed() -> None:
    assert outcome("--list") == (f"{midi_over_sockets.NAME}\n", "")


def test_a_port_that_is_not_there() -> None:
    assert f"midi.port: no port is called 'nano'; there are: {midi_over_sockets.NAME}" in outcome("--port", "nano")[1]


def test_a_port_that_can_not_be_opened(wire: sockets.PortServer) -> None:
    port = port_of(wire)
    wire.close()
    assert outcome(MIDI_TEST_PORT=port)[1].startswith("midi.port: ")


def test_a_driver_that_is_not_installed() -> None:
    assert outcome(MIDO_BACKEND="no_such_driver")[1].startswith("midi.backend: ")


def test_a_daemon_that_does_not_run(daemon_home: Path, wire: sockets.PortServer) -> None:
    assert outcome(MIDI_TEST_PORT=port_of(wire))[1].startswith("daemon.unreachable: ")


def test_a_controller_that_is_gone(daemon: DaemonProcess, wire: sockets.PortServer) -> None:
    process = program(MIDI_TEST_PORT=port_of(wire))
    wire.accept().close()
    assert process.communicate(timeout=60)[1] == f"midi.port: {midi_over_sockets.NAME} is gone\n"
