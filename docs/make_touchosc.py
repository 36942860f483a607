"""Writes docs/live/revithion-live.tosc: a TouchOSC surface for the live preview, made from the protocol's addresses.

Run ``python docs/make_touchosc.py`` after a change of the addresses; a test compares the file with it.

A .tosc file is an XML document, compressed by zlib: a tree of nodes with properties (of types ``b`` boolean, ``i``
integer, ``f`` float, ``s`` string, ``c`` colour, ``r`` frame), values, and the messages that they send and take.

Source: TouchOSC's manual, https://hexler.net/touchosc/manual (controls, messages, script); the file format as files of
the editor show it.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from revithion_bridge.messages import OSC_PREFIX
from revithion_stems.live import HIGHEST_DB, LOWEST_DB

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = ROOT / "docs" / "live" / "revithion-live.tosc"
LIVE = f"{OSC_PREFIX}/live"
STEMS = {"vocals": 0xE05A7A, "drums": 0xE0A030, "bass": 0x5A9AE0, "other": 0x60C080}
"""The four that most models give, and their colours."""
SCENES = 4
TOKEN_LENGTH = 32
"""Of the daemon's token: one that is being typed is not sent, since wrong ones are counted."""
WIDTH, HEIGHT, MARGIN = 1024, 768, 8
_STRIP, _TOP, _FADERS, _SIDE = 190, 48, 400, 224
_GREY, _RED = 0x808890, 0xE03030

SCRIPT = f"""\
-- Says hello to the daemon every 20 seconds: who is not heard of for a minute is forgotten.
local last = nil

function update()
  local token = self.children.token.values.text
  local port = tonumber(self.children.port.values.text)
  if #token ~= {TOKEN_LENGTH} or port == nil then
    return
  end
  local now = getMillis()
  if last ~= nil and now - last < 20000 then
    return
  end
  last = now
  sendOSC({{'{OSC_PREFIX}/hello', {{
    {{tag = 's', value = token}}, {{tag = 'i', value = port}}, {{tag = 's', value = 'touchosc'}}
  }}}})
  sendOSC({{'{OSC_PREFIX}/subscribe', {{{{tag = 'i', value = 60}}}}}})
end
"""


class Message(NamedTuple):
    """What a control sends and takes.

    Attributes:
        address: Where to.
        argument: Value of the control that is the argument, or empty for none.
        conversion: Type of the argument.
        low: The argument where the control stands lowest.
        high: Where it stands highest.
        send: Whether it sends.
        receive: Whether it follows.
    """

    address: str
    argument: str = "x"
    conversion: str = "FLOAT"
    low: float = 0.0
    high: float = 1.0
    send: bool = True
    receive: bool = True


def layout() -> bytes:
    """The document, before compression."""
    root = _node("GROUP", "revithion live", (0, 0, WIDTH, HEIGHT), 0x181A1E, script=SCRIPT)
    children = ET.SubElement(root, "children")
    for number, (stem, colour) in enumerate(STEMS.items()):
        children.extend(_strip(stem, colour, MARGIN + number * (_STRIP + MARGIN)))
    children.extend(_side(MARGIN + len(STEMS) * (_STRIP + MARGIN)))
    document = ET.Element("lexml", version="3")
    document.append(root)
    return ET.tostring(document, encoding="UTF-8", xml_declaration=True)


def _strip(stem: str, colour: int, left: int) -> list[ET.Element]:
    """Name, equaliser and filter, mute and solo, fader and meter of a stem, from the top."""
    address, half = f"{LIVE}/{stem}", (_STRIP - MARGIN) // 2
    band = (LOWEST_DB, HIGHEST_DB)
    knobs = {"high": band, "mid": band, "low": band, "filter": (-1.0, 1.0)}
    found = [_label(f"{stem} name", stem, (left, MARGIN, _STRIP, _TOP - 2 * MARGIN), colour)]
    for number, (name, (low, high)) in enumerate(knobs.items()):
        x, y = left + number % 2 * (half + MARGIN), _TOP + number // 2 * (half + MARGIN)
        message = Message(address=f"{address}/{name}", low=low, high=high)
        found.append(
            _control("RADIAL", f"{stem} {name}", (x, y, half, half), colour, message, default=low / (low - high))
        )
        found.append(_label(f"{stem} {name} name", name, (x, y + half // 2 - 10, half, 20), colour, size=14))
    top = _TOP + 2 * (half + MARGIN)
    for number, name in enumerate(("mute", "solo")):
        frame = (left + number * (half + MARGIN), top, half, 56)
        message = Message(address=f"{address}/{name}", conversion="BOOLEAN")
        found.append(_button(f"{stem} {name}", frame, _RED if name == "mute" else 0xE0D040, message, toggle=True))
        found.append(_label(f"{stem} {name} name", name, frame, _GREY, size=14))
    top += 56 + MARGIN
    wide = _STRIP - MARGIN - 40
    fader = Message(address=f"{address}/fader")
    found.append(_control("FADER", f"{stem} fader", (left, top, wide, _FADERS), colour, fader, default=0.75))
    level = Message(address=f"{address}/level", low=LOWEST_DB, high=HIGHEST_DB, send=False)
    frame = (left + wide + MARGIN, top, 40, _FADERS)
    found.append(_control("FADER", f"{stem} level", frame, colour, level, interactive=False))
    return found


def _side(left: int) -> list[ET.Element]:
    """What is not of one stem: how it stands, record, monitor, scenes, token and port."""
    half = (_SIDE - MARGIN) // 2
    state = Message(address=f"{LIVE}/state", argument="text", conversion="STRING", send=False)
    found = [_label("state", "no daemon", (left, MARGIN, _SIDE, 32), _GREY, message=state)]
    record = Message(address=f"{LIVE}/record", conversion="BOOLEAN")
    found.append(_button("record", (left, _TOP, _SIDE, 64), _RED, record, toggle=True))
    found.append(_label("record name", "record", (left, _TOP, _SIDE, 64), _GREY))
    top = _TOP + 64 + MARGIN
    for scene in range(1, SCENES + 1):
        for number, verb in enumerate(("recall", "store")):
            frame = (left + number * (half + MARGIN), top, half, 56)
            message = Message(address=f"{LIVE}/scene/{scene}/{verb}", argument="", receive=False)
            found.append(_button(f"{verb} {scene}", frame, _GREY, message, toggle=False))
            found.append(_label(f"{verb} {scene} name", f"{verb} {scene}", frame, _GREY, size=14))
        top += 56 + MARGIN
    monitor = Message(address=f"{LIVE}/monitor", low=LOWEST_DB, high=HIGHEST_DB)
    tall = HEIGHT - top - 2 * (32 + MARGIN) - MARGIN
    found.append(
        _control(
            "FADER", "monitor", (left, top, half, tall), _GREY, monitor, default=LOWEST_DB / (LOWEST_DB - HIGHEST_DB)
        )
    )
    found.append(_label("monitor name", "monitor", (left, top, half, 20), _GREY, size=14))
    level = Message(address=f"{LIVE}/level", low=LOWEST_DB, high=HIGHEST_DB, send=False)
    frame = (left + half + MARGIN, top, half, tall)
    found.append(_control("FADER", "level", frame, _GREY, level, interactive=False))
    top += tall + MARGIN
    found.append(_text("token", "paste the token here", (left, top, _SIDE, 32)))
    found.append(_text("port", "9001", (left, top + 32 + MARGIN, _SIDE, 32)))
    return found


# --- controls ---

Frame = tuple[int, int, int, int]


def _control(
    kind: str,
    name: str,
    frame: Frame,
    colour: int,
    message: Message,
    *,
    default: float = 0.0,
    interactive: bool = True,
    **properties: Any,
) -> ET.Element:
    node = _node(kind, name, frame, colour, interactive=interactive, **properties)
    _values(node, x=f"{default:.6g}")
    _messages(node, message, "ANY")
    return node


def _button(name: str, frame: Frame, colour: int, message: Message, *, toggle: bool) -> ET.Element:
    # buttonType: 0 is momentary, 2 toggles when it is pressed.
    node = _node("BUTTON", name, frame, colour, buttonType=2 if toggle else 0, press=True, release=True)
    _values(node, x="0")
    _messages(node, message, "ANY" if toggle else "RISE")
    return node


def _label(
    name: str, text: str, frame: Frame, colour: int, *, size: int = 18, message: Message | None = None
) -> ET.Element:
    node = _node("LABEL", name, frame, colour, interactive=False, background=False, outline=False, textSize=size)
    _values(node, text=text)
    if message is not None:
        _messages(node, message, "ANY", variable="text")
    return node


def _text(name: str, text: str, frame: Frame) -> ET.Element:
    node = _node("TEXT", name, frame, _GREY, textSize=14)
    _values(node, text=text)
    return node


# --- XML ---


def _node(kind: str, name: str, frame: Frame, colour: int, **properties: Any) -> ET.Element:
    node = ET.Element("node", ID=str(uuid.uuid5(uuid.NAMESPACE_URL, f"revithion-live/{name}")), type=kind)
    found = ET.SubElement(node, "properties")
    for key, value in sorted({"name": name, "frame": frame, "color": colour, **properties}.items()):
        _property(found, key, value)
    return node


def _property(parent: ET.Element, key: str, value: Any) -> None:
    kinds: dict[type, str] = {bool: "b", int: "i", float: "f", str: "s", tuple: "r"}
    kind = "c" if key == "color" else kinds[type(value)]
    found = ET.SubElement(parent, "property", type=kind)
    ET.SubElement(found, "key").text = key
    inner = ET.SubElement(found, "value")
    if kind == "c":
        channels = [value >> shift & 0xFF for shift in (16, 8, 0)]
        _texts(
            inner, {name: f"{channel / 255:.4g}" for name, channel in zip("rgb", channels, strict=True)} | {"a": "1"}
        )
    elif kind == "r":
        _texts(inner, dict(zip("xywh", map(str, value), strict=True)))
    else:
        inner.text = str(int(value)) if kind == "b" else str(value)


def _values(node: ET.Element, **defaults: str) -> None:
    values = ET.SubElement(node, "values")
    for key, default in {"touch": "false", **defaults}.items():
        texts = {"key": key, "locked": "0", "lockedDefaultCurrent": "0", "default": default, "defaultPull": "0"}
        _texts(ET.SubElement(values, "value"), texts)


def _messages(node: ET.Element, message: Message, condition: str, *, variable: str = "x") -> None:
    osc = ET.SubElement(ET.SubElement(node, "messages"), "osc")
    flags = {"enabled": True, "send": message.send, "receive": message.receive, "feedback": False}
    _texts(osc, {name: str(int(on)) for name, on in (flags | {"noDuplicates": True}).items()})
    ET.SubElement(osc, "connections").text = "1111111111"
    trigger = ET.SubElement(ET.SubElement(osc, "triggers"), "trigger")
    _texts(trigger, {"var": variable, "condition": condition})
    _partials(osc, "path", [("CONSTANT", "STRING", message.address, 0.0, 1.0)])
    argument = ("VALUE", message.conversion, message.argument, message.low, message.high)
    _partials(osc, "arguments", [argument] if message.argument else [])


def _partials(osc: ET.Element, name: str, partials: Sequence[tuple[str, str, str, float, float]]) -> None:
    found = ET.SubElement(osc, name)
    for kind, conversion, value, low, high in partials:
        scale = {"scaleMin": f"{low:g}", "scaleMax": f"{high:g}"}
        _texts(ET.SubElement(found, "partial"), {"type": kind, "conversion": conversion, "value": value, **scale})


def _texts(parent: ET.Element, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = text


if __name__ == "__main__":
    LAYOUT.parent.mkdir(parents=True, exist_ok=True)
    LAYOUT.write_bytes(zlib.compress(layout(), 9))
