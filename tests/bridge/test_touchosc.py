"""The TouchOSC surface: made from the table, and each of its controls reaches the live preview and follows it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

from live_desk import STEMS, DeskOpener
from program import docs_script
from revithion_bridge.connection import load_keys
from revithion_bridge.event_hub import EventHub
from revithion_bridge.live_stage import LiveStage
from revithion_bridge.messages import GetLive, RecallLiveScene, StartLive, StoreLiveScene
from revithion_bridge.osc_addresses import event_messages, find_route
from revithion_bridge.osc_packets import parse_message
from revithion_bridge.path_jail import PathJail
from revithion_bridge.service_api import Caller
from revithion_stems.live import StripSettings

CALLER = Caller(client="touchosc", door="osc", request_id="1")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return docs_script("make_touchosc")


@pytest.fixture(scope="module")
def layout(script: ModuleType) -> ET.Element:
    """The file as TouchOSC reads it."""
    return ET.fromstring(zlib.decompress(script.LAYOUT.read_bytes()))


def messages(layout: ET.Element, way: str) -> dict[str, list[tuple[str, float, float]]]:
    """Address → its arguments' conversion and scale, of what is sent or received."""
    return {
        osc.findtext("path/partial/value", ""): [
            (
                part.findtext("conversion", ""),
                float(part.findtext("scaleMin", "")),
                float(part.findtext("scaleMax", "")),
            )
            for part in osc.iterfind("arguments/partial")
        ]
        for osc in layout.iter("osc")
        if osc.findtext(way) == "1"
    }


def test_the_file_is_the_one_of_the_script(script: ModuleType) -> None:
    assert zlib.decompress(script.LAYOUT.read_bytes()) == script.layout(), "run `python docs/make_touchosc.py`"


def test_it_is_a_document_of_touchosc(layout: ET.Element) -> None:
    assert (layout.tag, layout.get("version")) == ("lexml", "3")
    nodes = list(layout.iter("node"))
    assert len({node.get("ID") for node in nodes}) == len(nodes) > 50
    assert {node.get("type") for node in nodes} == {"GROUP", "FADER", "RADIAL", "BUTTON", "LABEL", "TEXT"}
    for node in nodes:
        x, y, w, h = (int(node.findtext(f"properties/property[key='frame']/value/{side}", "")) for side in "xywh")
        assert min(x, y) >= 0 < min(w, h)
        assert x + w <= 1024
        assert y + h <= 768


def test_each_strip_has_its_controls(layout: ET.Element) -> None:
    sent = set(messages(layout, "send"))
    controls = ("fader", "mute", "solo", "low", "mid", "high", "filter")
    assert {f"/revithion/v1/live/{stem}/{control}" for stem in STEMS for control in controls} <= sent


@pytest.mark.parametrize("end", [1, 2], ids=["lowest", "highest"])
def test_each_control_is_understood_at_both_its_ends(layout: ET.Element, end: int, tmp_path: Path) -> None:
    """Every message reaches the live preview as the door hands it on, and moves what it should."""
    opener = DeskOpener()

    async def touch() -> tuple[StripSettings, ...]:
        stage = LiveStage(opener, PathJail([tmp_path, Path.home()]), publish=lambda event: None)
        await stage.answers[StartLive](StartLive(), CALLER)
        for address, arguments in messages(layout, "send").items():
            if "/scene/" not in address:
                values = [bool(part[end]) if part[0] == "BOOLEAN" else part[end] for part in arguments]
                request = find_route(address).request(address, values)
                await stage.answers[type(request)](request, CALLER)
        live = await stage.answers[GetLive](GetLive(), CALLER)
        await stage.close()
        return tuple(strip.settings for strip in live.session.strips)

    lowest = StripSettings(gain_db=-60, low_db=-60, mid_db=-60, high_db=-60, filter=-1)
    highest = StripSettings(gain_db=12, low_db=12, mid_db=12, high_db=12, filter=1, muted=True, solo=True)
    assert set(asyncio.run(touch())) == {(lowest, highest)[end - 1]}
    assert opener.sessions[0].state().monitor_gain_db == (-60, 12)[end - 1]
    assert bool(opener.sessions[0].state().recording) == (end == 2)


def test_scenes_are_stored_and_recalled_by_number(layout: ET.Element) -> None:
    found = [find_route(a).request(a, ()) for a in messages(layout, "send") if "/scene/" in a]
    pairs = {(type(request), request.name) for request in found}
    assert pairs == {(kind, str(n)) for kind in (StoreLiveScene, RecallLiveScene) for n in range(1, 5)}


def test_what_controls_follow_is_sent(layout: ET.Element, tmp_path: Path) -> None:
    heard: set[str] = set()

    async def play() -> None:
        hub = EventHub()
        hub.subscribe(lambda published: heard.update(parse_message(m).address for m in event_messages(published.event)))
        stage = LiveStage(DeskOpener(), PathJail([tmp_path]), publish=hub.publish)
        await stage.answers[StartLive](StartLive(), CALLER)
        for event in stage.standing():
            hub.publish(event)
        await asyncio.sleep(0.25)  # levels
        await stage.close()

    asyncio.run(play())
    followed = set(messages(layout, "receive"))
    assert followed - heard == set()
    assert {f"/revithion/v1/live/{stem}/level" for stem in STEMS} <= followed


def test_the_length_of_a_token_is_right(script: ModuleType, daemon_home: Path) -> None:
    assert len(load_keys().osc_token) == script.TOKEN_LENGTH


@pytest.mark.skipif(shutil.which("lua") is None, reason="Lua is not installed")
def test_the_script_says_hello_while_it_has_a_token(layout: ET.Element, script: ModuleType) -> None:
    """Run by Lua, with TouchOSC's functions replaced: a frame each five seconds, for a minute."""
    code = layout.findtext("node/properties/property[key='script']/value", "")
    token = "0123456789abcdef" * 2
    harness = f"""
        local ms = 0
        function getMillis() return ms end
        function sendOSC(message)
          local texts = {{}}
          for _, argument in ipairs(message[2]) do texts[#texts + 1] = argument.tag .. tostring(argument.value) end
          print(ms .. ' ' .. message[1] .. ' ' .. table.concat(texts, ' '))
        end
        self = {{children = {{token = {{values = {{text = 'paste the token here'}}}},
                              port = {{values = {{text = '9001'}}}}}}}}
        {code}
        update()
        self.children.token.values.text = '{token}'
        for _ = 0, 12 do update(); ms = ms + 5000 end
    """
    done = subprocess.run(["lua", "-"], input=harness, capture_output=True, text=True, check=True, timeout=30)
    said = done.stdout.splitlines()
    assert said[:2] == [
        f"0 /revithion/v1/hello s{token} i9001 stouchosc",
        "0 /revithion/v1/subscribe i60",
    ]
    assert [int(re.match(r"\d+", line)[0]) for line in said[::2]] == [0, 20_000, 40_000, 60_000]
