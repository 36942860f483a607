"""The live preview in the real daemon: a real session without a sound card, through ZeroMQ and OSC."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import soundfile
from pythonosc.osc_message import OscMessage

from daemon_program import DaemonProcess, noise
from revithion_bridge import connect
from revithion_bridge.connection import read_connection
from revithion_bridge.messages import OSC_PREFIX, LiveSessionChanged
from revithion_bridge.osc_packets import build_message, typed
from revithion_bridge.remote_live import find_daemon, open_remote_live
from revithion_stems.fader_law import fader_position
from revithion_stems.live import LiveOptions, LivePhase, LiveState, StripChange, Tier

WAIT_S = 30.0


class Surface:
    """A controller: says hello, subscribes, and keeps the last that it heard at each address."""

    def __init__(self) -> None:
        connection = read_connection()
        assert connection is not None
        self.target = ("127.0.0.1", connection.osc_udp_port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(WAIT_S)
        self.heard: dict[str, list[object]] = {}
        self.send("/hello", connection.osc_token)
        self.send("/subscribe", 600)
        self.until("/subscribe/reply", lambda arguments: True)

    def send(self, address: str, *arguments: object) -> None:
        self.socket.sendto(build_message(OSC_PREFIX + address, map(typed, arguments)), self.target)

    def until(self, address: str, condition: Callable[[list[object]], bool]) -> list[object]:
        """Listens until what was last heard at an address is so."""
        deadline = time.monotonic() + WAIT_S
        while OSC_PREFIX + address not in self.heard or not condition(self.heard[OSC_PREFIX + address]):
            assert time.monotonic() < deadline, self.heard
            message = OscMessage(self.socket.recv(65_536))
            self.heard[message.address] = list(message.params)
        return self.heard[OSC_PREFIX + address]


@pytest.fixture
def surface(daemon: DaemonProcess) -> Iterator[Surface]:
    surface = Surface()
    yield surface
    surface.socket.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gain_db(state: LiveState, stem: str) -> float:
    (found,) = [strip.settings.gain_db for strip in state.strips if strip.stem == stem]
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_file_is_played_moved_and_recorded_by_both_doors(daemon: DaemonProcess, surface: Surface, tmp_path: Path):
    song = noise(tmp_path / "song.wav", 3.0)
    assert find_daemon()
    live = open_remote_live(LiveOptions(device="none", source=str(song), loop=True, block_frames=256))
    until(lambda: all(strip.tier is Tier.PREVIEW for strip in live.state().strips))
    assert live.state().phase is LivePhase.PLAYING
    assert surface.until("/live/state", lambda found: found[0] == "playing")[1] == live.state().model
    live.set_strip("bass", StripChange(gain_db=-6.0))
    assert surface.until("/live/bass/fader", lambda found: found[0] < 0.7) == [pytest.approx(fader_position(-6.0))]
    surface.until("/live/drums/level", lambda found: found[0] > -60.0 and found[2] == "preview")
    surface.send("/live/drums/fader", 0.0)
    surface.until("/live/drums/level", lambda found: found[0] <= -100.0)
    assert gain_db(live.state(), "drums") == -60.0
    surface.send("/live/scene/1/store")
    surface.until("/live/scene/1/store/reply", lambda found: True)
    assert "1" in live.state().scenes
    take = live.start_recording(str(tmp_path / "takes"))
    surface.until("/live/record", lambda found: found == [True, take])
    time.sleep(0.5)
    files = live.stop_recording()
    assert len(files) == 4
    assert all(soundfile.info(file).frames > 0 for file in files)
    live.stop()
    surface.until("/live/state", lambda found: found[0] == "ended")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_session_that_ends_with_its_file_is_told(daemon: DaemonProcess, tmp_path: Path):
    song = noise(tmp_path / "song.wav", 0.5)
    with connect(timeout_s=WAIT_S) as client, client.events() as events:
        client.start_live(device="none", source=str(song))
        phases = (
            message.event.phase for message in events if isinstance(getattr(message, "event", None), LiveSessionChanged)
        )
        assert LivePhase.ENDED in phases
        until(lambda: client.live_session() is None)
        client.set_live("bass", gain_db=-3.0)
        again = client.start_live(device="none", source=str(song), loop=True)
        assert gain_db(again, "bass") == -3.0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_end_of_the_daemon_is_that_of_its_session(daemon_home: Path, tmp_path: Path):
    song = noise(tmp_path / "song.wav", 1.0)
    with DaemonProcess() as daemon:
        with connect(timeout_s=WAIT_S) as client:
            client.start_live(device="none", source=str(song), loop=True)
        children = psutil.Process(daemon.pid).children(recursive=True)
        assert len(children) >= 2
        assert daemon.terminate() == 0
    assert psutil.wait_procs(children, timeout=10.0)[1] == []


def test_a_daemon_that_does_not_play_does_not_load_what_plays():
    code = (
        "import sys, revithion_bridge.daemon; "
        "print([name for name in sys.modules if name.startswith('revithion_realtime')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
