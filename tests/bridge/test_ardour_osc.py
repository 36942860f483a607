"""Ardour by its own OSC: the real program on a screen of its own; and peers that are no Ardour."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ardour_desktop import ArdourDesktop, ArdourHome, wait_until
from mailbox_daw import MailboxDaw, strip
from revithion_bridge.daw_desk.ardour_osc import ArdourOsc, ArdourStrip
from revithion_bridge.daw_desk.strip_faders import StripFaders
from revithion_bridge.messages import SetDawFader
from revithion_bridge.osc_packets import build_message, typed
from revithion_bridge.service_api import Caller
from revithion_stems.errors import RevithionError

NAMES = ("Vocals Bus", "Drums Bus", "100% \"x\"; os.execute('y') é")
MAKE_SESSION = """
AudioEngine:set_backend("None (Dummy)", "", "")
assert(create_session(arg[1], "osc", 48000))
ARDOUR.config():set_output_auto_connect(0)
for index = 2, #arg do
  Session:new_audio_route(2, 2, nil, 1, arg[index], ARDOUR.PresentationInfo.Flag.AudioBus,
    ARDOUR.PresentationInfo.max_order)
end
Session:new_audio_track(2, 2, nil, 1, "Vocals", ARDOUR.PresentationInfo.max_order, ARDOUR.TrackMode.Normal, false)
ARDOUR.LuaAPI.usleep(300000)
Session:save_state("", false, false, false, false, false)
close_session()
quit()
"""


class RunningArdour(ArdourDesktop):
    """Ardour with our session, by OSC alone."""

    def announced(self) -> bool:
        with contextlib.suppress(RevithionError):
            return len(self.strips()) == len(NAMES) + 1
        return False

    def surface(self) -> ArdourOsc:
        return ArdourOsc(self.home.osc_port, answer_here=True)

    def strips(self) -> dict[str, ArdourStrip]:
        with self.surface() as osc:
            return {each.name: each for each in osc.strips()}

    def saved(self) -> dict[str, tuple[float, bool]]:
        """Name → gain and mute of each route, as the session's file has them."""
        file = self.session / "osc.ardour"
        before = file.stat().st_mtime_ns
        with self.surface() as osc:
            osc.save()
        wait_until(lambda: file.stat().st_mtime_ns != before, 30.0, "it did not happen")
        found = {}
        for route in ElementTree.parse(file).getroot().iter("Route"):
            gain = next(float(c.attrib["value"]) for c in route.iter("Controllable") if c.get("name") == "gaincontrol")
            mute = next(c.attrib["value"] == "1" for c in route.iter("Controllable") if c.get("name") == "mute")
            found[route.attrib["name"]] = (gain, mute)
        return found


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def ardour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningArdour]:
    home = ArdourHome(tmp_path_factory.mktemp("ardour"), rate=48_000)
    script, session = home.folder / "make.lua", home.folder / "osc"
    script.write_text(MAKE_SESSION)
    command = ["ardour7-lua", str(script), str(session), *NAMES]
    subprocess.run(command, env=home.env, capture_output=True, timeout=60, check=False)
    file = session / "osc.ardour"
    # What the session says of surfaces goes before the settings, and is that there are none.
    text = re.sub("<ControlProtocols>.*</ControlProtocols>", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    file.write_text(text, encoding="utf-8")
    with RunningArdour(home, session) as found:
        yield found


def test_the_strips_of_a_session_are_listed(ardour: RunningArdour) -> None:
    strips = ardour.strips()
    assert {name: strips[name].kind for name in strips} == {**dict.fromkeys(NAMES, "B"), "Vocals": "AT"}
    assert len({each.ssid for each in strips.values()}) == len(NAMES) + 1


def test_faders_and_mutes_are_in_the_saved_session(ardour: RunningArdour) -> None:
    with ardour.surface() as osc:
        # Asked on the same port: what a port says first makes a surface of it, and may be lost to that.
        strips = {each.name: each for each in osc.strips()}
        osc.gain_db(strips["Drums Bus"].ssid, -7.5)
        osc.gain_db(strips[NAMES[2]].ssid, 24.0)
        osc.gain_db(strips["Vocals"].ssid, -500.0)
        osc.mute(strips["Drums Bus"].ssid, True)
        wait_until(lambda: ardour.strips()["Drums Bus"].muted, 30.0, "it did not happen")
    saved = ardour.saved()
    assert saved["Drums Bus"] == (pytest.approx(10 ** (-7.5 / 20), rel=1e-6), True)
    assert saved[NAMES[2]] == (pytest.approx(10 ** (6 / 20), rel=1e-6), False)
    assert saved["Vocals"][0] == 0.0
    assert saved["Vocals Bus"] == (1.0, False)
    with ardour.surface() as osc:
        osc.strips()
        osc.mute(strips["Drums Bus"].ssid, False)
        wait_until(lambda: not ardour.strips()["Drums Bus"].muted, 30.0, "it did not happen")


def test_the_transport_moves_and_actions_are_done(ardour: RunningArdour) -> None:
    """A location marker is where the playhead was when the action was done."""
    with ardour.surface() as osc:
        osc.locate(96_000)
        osc.play()
        time.sleep(0.2)
        osc.stop()
        time.sleep(0.5)  # it fades out first
        osc.locate(48_000)
        time.sleep(0.5)
        osc.action("Common/add-location-from-playhead")
        time.sleep(0.5)
    ardour.saved()
    root = ElementTree.parse(ardour.session / "osc.ardour").getroot()
    marks = [each.attrib["start"] for each in root.iter("Location") if "IsMark" in each.attrib["flags"]]
    assert marks == ["a282240000"]  # one second, in superclock ticks


def test_the_daemons_faders_take_the_fast_way(ardour: RunningArdour, daemon_home: Path) -> None:
    """No script answers here: a fader that arrives went by OSC."""
    ardour.strips()  # Ardour answers to where it is asked from now on
    daw = MailboxDaw("ardour")
    daw.announce(strip("vocals"), strip("drums"), strip("odd", NAMES[2]))

    async def move() -> list[float]:
        faders = StripFaders(ardour.home.osc_port)
        took = []
        for gain_db in (-1.0, -2.0, -12.0):
            began = time.monotonic()
            caller = Caller(client="test", door="zmq", request_id="1")
            await faders.answers[SetDawFader](SetDawFader(stem="vocals", gain_db=gain_db), caller)
            await faders.answers[SetDawFader](SetDawFader(stem="odd", muted=True), caller)
            took.append(time.monotonic() - began)
        await faders.close()
        return took

    took = asyncio.run(move())
    assert min(took) < 0.1, took
    wait_until(lambda: ardour.strips()[NAMES[2]].muted, 30.0, "it did not happen")
    assert ardour.saved()["Vocals Bus"][0] == pytest.approx(10 ** (-12 / 20), rel=1e-6)
    assert not daw.path("inbox").exists()


@contextlib.contextmanager
def peer(answer: Callable[[bytes], Iterator[bytes]]) -> Iterator[int]:
    """Somebody on a port, who answers each datagram with some; the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.05)
        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                    data, sender = listening.recvfrom(65_536)
                    for packet in answer(data):
                        listening.sendto(packet, sender)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join()


def reply(*arguments: object) -> bytes:
    return b"#" + build_message("/reply", map(typed, arguments))[1:]


def code_of(port: int) -> str:
    with ArdourOsc(port, timeout_s=0.3) as osc, pytest.raises(RevithionError) as caught:
        osc.strips()
    return caught.value.code


def test_nobody_there_and_nobody_who_answers() -> None:
    assert code_of(free_port()) == "daw.absent"
    with peer(lambda _: iter(())) as port:
        assert code_of(port) == "daw.busy"


def test_what_is_no_list_of_strips_is_passed_over() -> None:
    noise = [b"", b"\xff" * 64, b"#reply\0\0,zzz", reply(1, 2, 3), build_message("/strip/list", []), reply("B", "x")]
    good = [reply("B", "Bus", 2, 2, 0, 0, 1), reply("AT", "Track", 2, 2, 1, 0, 2, 0), reply("end_route_list", 48_000)]
    with peer(lambda _: iter([*noise, *good])) as port, ArdourOsc(port) as osc:
        assert osc.strips() == (
            ArdourStrip(ssid=1, kind="B", name="Bus", muted=False),
            ArdourStrip(ssid=2, kind="AT", name="Track", muted=True),
        )


def test_a_list_without_end_ends() -> None:
    endless = (reply("B", "Bus", 2, 2, 0, 0, number) for number in itertools.count())
    with peer(lambda _: itertools.islice(endless, 3_000)) as port:
        began = time.monotonic()
        assert code_of(port) == "daw.busy"
        assert time.monotonic() - began < 5.0


BUS, TRACK, END = reply("B", "Vocals Bus", 2, 2, 0, 0, 1), reply("AT", "Vocals", 2, 2, 0, 0, 2), reply("end_route_list")


@pytest.mark.parametrize(
    ("present", "sessions", "fast"),
    [
        ([BUS, TRACK, END], 1, True),
        ([BUS, TRACK, BUS, END], 1, False),  # which of the two?
        ([BUS, END], 1, False),  # another session, perhaps
        ([BUS, TRACK, END], 2, False),  # of which one is it?
        ([], 1, False),
    ],
)
def test_the_fast_way_is_taken_only_if_it_is_certain_what_moves(
    daemon_home: Path, present: list[bytes], sessions: int, fast: bool
) -> None:
    daw = MailboxDaw("ardour")
    daw.announce(strip("vocals"), strip("vocals", "Vocals", "track"))
    if sessions > 1:
        MailboxDaw("ardour", 2).announce()
    heard: list[bytes] = []

    def answer(data: bytes) -> Iterator[bytes]:
        heard.append(data)
        return iter(present if data.startswith(b"/strip/list") else [])

    async def move(port: int) -> None:
        faders = StripFaders(port)
        caller = Caller(client="test", door="zmq", request_id="1")
        await faders.answers[SetDawFader](SetDawFader(stem="vocals", gain_db=-3.0), caller)
        await faders.close()

    with peer(answer) as port, daw.answering() as commands:
        asyncio.run(move(port))
        if fast:
            wait_until(lambda: any(data.startswith(b"/strip/gain\0") for data in heard), 5.0, "nothing was set")
    assert [command["gain_db"] for command in commands] == ([] if fast else [-3.0])
    assert fast or not any(data.startswith(b"/strip/gain") for data in heard)
