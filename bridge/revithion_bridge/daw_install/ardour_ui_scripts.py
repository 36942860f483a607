"""Ardour's file ``ui_scripts``: which Lua scripts are in which slot, and which are called by themselves.

The file is XML. Actions are one text in Base64, a series of assignments in Lua such as ``scripts[3]["n"] = "Name"``;
each hook is an element of its own. What is not ours goes through as it is, byte for byte.

Source: Ardour's ``gtk2_ardour/luainstance.cc``, which writes and reads it (7.3 to 8.12).
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

SLOTS = 32
OUR_PREFIX = "revithion_stems_"
HOOK_SIGNALS = "11" + 46 * "0"
"""Bits of Ardour's list of signals, the last one first: ``LuaTimerDS`` (47) and ``LuaTimerS`` (46), in 7.3 to 8.12.
Two of them, so that one more or one less in the list of another version leaves a timer."""
_IDS = range(990_001, 999_999)
_LUA = "Lua 5.3"

# What Lua's %q makes: line ends, quotes and backslashes after a backslash, control characters as numbers.
_TEXT = rb'"(?:[^"\\]|\\.)*"'
_STATEMENT = re.compile(
    rb"\s*(?:scripts|s)((?:\[(?:" + _TEXT + rb"|-?[0-9.]+)\])*)\s*=\s*(\{\}|" + _TEXT + rb"|-?[0-9a-z.+-]+)\s*",
    re.DOTALL,
)
_SLOT = re.compile(rb"\[([0-9]+)(?:\.0)?\]")
_KEY = re.compile(rb'\["([^"\\]*)"\]')
_ORIGIN = b"a.x-script-origin"
"""Where Ardour itself writes down which file a script came from."""
_ESCAPE = re.compile(rb"\\(?:([0-9]{1,3})|(.))", re.DOTALL)


class UiScriptsError(ValueError):
    """The file is not as Ardour writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LuaScript:
    """One of our scripts.

    Attributes:
        name: What people see.
        source: Its text.
        path: Of its file; by that it is found again.
    """

    name: str
    source: bytes
    path: PurePath


@dataclass(frozen=True, slots=True)
class UiScripts:
    """The file's content.

    Attributes:
        slots: Slot from 1 → its statements, as they stand there.
        hooks: The elements of the hooks.
    """

    slots: Mapping[int, bytes]
    hooks: tuple[ElementTree.Element, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no script is in it."""
        return not self.slots and not self.hooks

    def our_slots(self) -> dict[str, int]:
        """File name → slot of the actions that are ours."""
        return {name: slot for slot, text in self.slots.items() if (name := _our_file(text))}

    def without_ours(self) -> UiScripts:
        """What is left when our actions and hooks are gone."""
        return UiScripts(
            {slot: text for slot, text in self.slots.items() if not _our_file(text)},
            tuple(hook for hook in self.hooks if not _our_file(_decoded(hook))),
        )

    def with_ours(self, actions: tuple[LuaScript, ...], hooks: tuple[LuaScript, ...]) -> UiScripts:
        """The same with our actions and hooks, in the place of those that were there.

        An action keeps its slot, and so its key; a new one takes the first that is free. Those for which there is none
        are left out. What is there already stays as Ardour has written it.
        """
        old, rest = self.our_slots(), self.without_ours()
        slots = dict(rest.slots)
        for action in sorted(actions, key=lambda script: script.path.name not in old):
            free = [slot for slot in (old.get(action.path.name), *range(1, SLOTS + 1)) if slot and slot not in slots]
            if free:
                there = self.slots.get(free[0], b"")
                slots[free[0]] = there if _is_current(there, action) else _action(free[0], action)
        elements: list[ElementTree.Element] = []
        left = {script.path.name: script for script in hooks}
        for hook in self.hooks:
            state = _decoded(hook)
            file = _our_file(state)
            if not file or (file in left and _is_current(state, left[file])):
                elements.append(hook)
                left.pop(file, None)
        for script in left.values():
            taken = {hook.get("id") for hook in elements}
            elements.append(_hook(next(str(number) for number in _IDS if str(number) not in taken), script))
        return UiScripts(slots, tuple(elements))


def parse_ui_scripts(data: bytes | None) -> UiScripts:
    """Reads the file; None stands for one that is not there.

    Raises:
        UiScriptsError: It is not as Ardour writes it.
    """
    if data is None:
        return UiScripts({}, ())
    try:
        if b"<!" in data:
            raise UiScriptsError("it has a document type or a comment")
        root = ElementTree.fromstring(data)
        if root.tag != "UIScripts" or not {child.tag for child in root} <= {"ActionScript", "ActionHooks"}:
            raise UiScriptsError("it has other elements")
        if len({child.tag for child in root}) != len(root):
            raise UiScriptsError("it has an element twice")
        script, hooks = root.find("ActionScript"), root.find("ActionHooks")
        found = UiScripts(
            _parse_slots(_decoded(script)) if script is not None else {}, tuple(hooks) if hooks is not None else ()
        )
        for hook in found.hooks:
            _statements(_decoded(hook))
    except (ElementTree.ParseError, binascii.Error, ValueError) as exc:
        raise UiScriptsError(str(exc)) from exc
    return found


def format_ui_scripts(scripts: UiScripts) -> bytes:
    """The file, as Ardour writes it."""
    state = b"scripts = {} " + b"".join(scripts.slots[slot] for slot in sorted(scripts.slots))
    root = ElementTree.Element("UIScripts")
    ElementTree.SubElement(root, "ActionScript", lua=_LUA).text = base64.b64encode(state).decode()
    ElementTree.SubElement(root, "ActionHooks").extend(scripts.hooks)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")  # as libxml2 does; texts have no `>`
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _parse_slots(state: bytes) -> dict[int, bytes]:
    slots: dict[int, bytes] = {}
    for statement in _statements(state):
        if not statement[1]:
            continue  # the table itself
        slot = _SLOT.match(statement[1])
        if slot is None:
            raise UiScriptsError("a script has no number")
        slots[int(slot[1])] = slots.get(int(slot[1]), b"") + statement[0]
    return slots


def _statements(state: bytes) -> list[re.Match[bytes]]:
    """The assignments: keys in group 1, the value in group 2."""
    found: list[re.Match[bytes]] = []
    at = 0
    while at < len(state):
        statement = _STATEMENT.match(state, at)
        if statement is None:
            raise UiScriptsError(f"byte {at} of the scripts can't be understood")
        found.append(statement)
        at = statement.end()
    return found


def _fields(state: bytes) -> dict[bytes, bytes]:
    """The texts of one script by their keys: ``n`` its name, ``s`` its source, ``a.x-script-origin`` its file."""
    return {
        b".".join(_KEY.findall(statement[1])): _unquoted(statement[2])
        for statement in _statements(state)
        if statement[2].startswith(b'"')
    }


def _our_file(state: bytes) -> str:
    """The name of the script's file if it is one of ours, else empty."""
    path = _fields(state).get(_ORIGIN, b"").decode("utf-8", "replace")
    name = path.replace("\\", "/").rpartition("/")[2]
    return name if name.startswith(OUR_PREFIX) else ""


def _is_current(state: bytes, script: LuaScript) -> bool:
    wanted = {b"n": script.name.encode(), b"s": script.source, _ORIGIN: _path(script)}
    return wanted.items() <= _fields(state).items()


def _decoded(element: ElementTree.Element) -> bytes:
    return base64.b64decode((element.text or "").strip(), validate=True)


def _action(slot: int, script: LuaScript) -> bytes:
    return _assignments(f"scripts[{slot}]", script, icon=True)


def _hook(number: str, script: LuaScript) -> ElementTree.Element:
    element = ElementTree.Element("LuaCallback", lua=_LUA, id=number, name=script.name, signals=HOOK_SIGNALS)
    element.text = base64.b64encode(_assignments("s", script)).decode()
    return element


def _assignments(table: str, script: LuaScript, *, icon: bool = False) -> bytes:
    fields = {"n": script.name.encode(), "s": script.source, "f": _chunk(script, "factory")}
    if icon:
        fields["c"] = _chunk(script, "icon") if b"function icon" in script.source else b""
    lines = [f"{table} = {{}}".encode()]
    lines += [f'{table}["{key}"] = '.encode() + _quoted(text) for key, text in fields.items()]
    lines += [
        f'{table}["a"] = {{}}'.encode(),
        f'{table}["a"]["x-script-origin"] = '.encode() + _quoted(_path(script)),
    ]
    return b" ".join(lines) + b" "


def _chunk(script: LuaScript, function: str) -> bytes:
    """What gives the function that ``factory`` or ``icon`` of a script makes."""
    # Ardour keeps bytecode here; source does as well, and is the same on every machine. What the script defines stays
    # its own: all actions share one set of globals.
    head = b"local factory, icon, signals, action_params local function ardour () end "
    return head + script.source + f"\nreturn {function} (...)".encode()


def _path(script: LuaScript) -> bytes:
    return str(script.path).encode("utf-8", "surrogateescape")


def _quoted(text: bytes) -> bytes:
    """As Lua's ``%q``."""
    for plain, escaped in ((b"\\", b"\\\\"), (b'"', b'\\"'), (b"\n", b"\\\n"), (b"\r", b"\\013"), (b"\0", b"\\000")):
        text = text.replace(plain, escaped)
    return b'"' + text + b'"'


def _unquoted(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1]) % 256]) if found[1] else found[2], text[1:-1])
