"""Our scripts in REAPER: files in its resource folder, actions, entries in menus, and the listener at its start.

REAPER keeps a menu in ``reaper-menu.ini`` only if the user has changed it, and shows its own otherwise. A section with
nothing but our entry takes the place of the whole menu: REAPER's own entries then are in a submenu of it if its option
"Include default menu as submenu" is on, and nowhere if not. So an entry is only added to a section that is there,
unless the user asks for a new one; else the user is told how.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from revithion_bridge.daw_install.file_changes import read_bytes
from revithion_bridge.daw_install.install_receipt import REAPER_HOME, Placement
from revithion_bridge.daw_install.script_install import (
    InstallReport,
    RegisteredAction,
    plan_install,
    plan_uninstall,
    put_in_place,
    read_scripts,
    take_out,
)

_DAW = "reaper"
_FOLDER = REAPER_HOME.rpartition("/")[2]
_ACTIONS, _MENUS, _STARTUP = "reaper-kb.ini", "reaper-menu.ini", "Scripts/__startup.lua"
_SECTIONS = {"track": "Track control panel context", "item": "Media item context"}
_NOTE = re.compile(rb"^--[ \t]*@(\w+)[ \t]*([^\r\n]*?)[ \t]*$", re.MULTILINE)
_OUR_ACTION = re.compile(rf'SCR \d+ \d+ (RS[0-9a-f]{{40}}) "[^"]*" "?{_FOLDER}[/\\]'.encode())
_ITEM = re.compile(rb"item_\d+=((\S+).*)", re.DOTALL)
_BEGIN, _END = b"-- revithion-stems: begin", b"-- revithion-stems: end"
_BLOCK = re.compile(re.escape(_BEGIN) + rb".*?" + re.escape(_END) + rb"\r?\n?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Script:
    """A script that is an action.

    Attributes:
        file: Its name in our folder.
        name: What people see.
        menus: ``track`` and ``item``, those that it belongs into.
        startup: Whether it runs from REAPER's start.
    """

    file: str
    name: str
    menus: tuple[str, ...]
    startup: bool

    @property
    def command(self) -> str:
        """The action's id, which keys and menus name; the same on each installation."""
        return "RS" + hashlib.sha1(f"{_FOLDER}/{self.file}".encode(), usedforsecurity=False).hexdigest()


def install_reaper(
    folder: Path,
    *,
    source: Traversable | None = None,
    startup: bool = True,
    new_menus: bool = False,
    dry_run: bool = False,
) -> InstallReport:
    """Puts the scripts into REAPER's resource folder, and replaces what an earlier version put there.

    Args:
        folder: The one that REAPER opens by Options > Show REAPER resource path.
        source: The folder with our scripts; ours if left out.
        startup: Whether the listener runs from REAPER's start, so that other programs reach it.
        new_menus: Whether menus that the user has not changed get our entry, above REAPER's own as a submenu.
        dry_run: Only says what would be done.

    Raises:
        RevithionError: ``daw.install``: REAPER runs, or a file can't be written; nothing is another than before.
    """
    files = read_scripts(_DAW, source)
    scripts = [script for name, data in files.items() if (script := _script(name, data)) is not None]
    scripts.sort(key=lambda script: script.name)
    shared = {_ACTIONS: _add_actions(_read(folder, _ACTIONS), scripts)}
    menus, missing = _add_entries(_read(folder, _MENUS), scripts, new_menus=new_menus)
    shared |= {_MENUS: menus} if menus else {}
    started = [script for script in scripts if script.startup and startup]
    before = _read(folder, _STARTUP)
    after = _add_block(before, started)
    shared |= {_STARTUP: after} if after != before else {}
    changes = plan_install(
        Placement(
            folder=folder, home=REAPER_HOME, files={f"{REAPER_HOME}/{name}": data for name, data in files.items()}
        ),
        shared,
    )
    if not dry_run:
        put_in_place(_DAW, folder, changes)
    return InstallReport(
        daw=_DAW,
        folder=folder,
        installed=True,
        changes=tuple(changes),
        actions=tuple(_registered(script, missing, started) for script in scripts),
        steps=tuple(_menu_step(menu, [name for place, name in missing if place == menu]) for menu in dict(missing)),
    )


def _menu_step(menu: str, names: Sequence[str]) -> str:
    shown = " and ".join(map(repr, names))
    return (
        f"REAPER's menu {_SECTIONS[menu]!r} is left as it is: for an entry there, choose it in Options > Customize "
        f"menus/toolbars, then Add..., and {shown}"
    )


def uninstall_reaper(folder: Path, *, dry_run: bool = False) -> InstallReport:
    """Takes the scripts out again; that there are none is no error. Keys that the user bound to them stay bound.

    Raises:
        RevithionError: ``daw.install``: REAPER runs, or a file can't be changed; all is as it was before.
    """
    placement = Placement(folder=folder, home=REAPER_HOME, files={})
    actions, menus, startup = (_read(folder, name) for name in (_ACTIONS, _MENUS, _STARTUP))
    shared = {
        _ACTIONS: _without_actions(actions),
        _MENUS: _without_entries(menus, _OUR_ACTION.findall(actions)),
        _STARTUP: _BLOCK.sub(b"", startup),
    }
    before = {_ACTIONS: actions, _MENUS: menus, _STARTUP: startup}
    changes = plan_uninstall(placement, {name: data for name, data in shared.items() if data != before[name]})
    if not dry_run:
        take_out(_DAW, placement, changes)
    return InstallReport(daw=_DAW, folder=folder, installed=False, changes=tuple(changes))


def _script(file: str, data: bytes) -> _Script | None:
    notes = {key.decode(): text.decode("utf-8", "replace") for key, text in _NOTE.findall(data)}
    if not notes.get("name"):
        return None
    menus = tuple(menu for menu in notes.get("menu", "").split() if menu in _SECTIONS)
    return _Script(file=file, name=notes["name"], menus=menus, startup="startup" in notes)


def _registered(script: _Script, missing: Sequence[tuple[str, str]], started: Sequence[_Script]) -> RegisteredAction:
    places = [f"menu {_SECTIONS[menu]}" for menu in script.menus if (menu, script.name) not in missing]
    places += ["runs from the start"] if script in started else []
    return RegisteredAction(name=script.name, place=", ".join(["action list", *places]), command=f"_{script.command}")


# --- reaper-kb.ini: a line for each action; the order does not matter ---


def _add_actions(data: bytes, scripts: Sequence[_Script]) -> bytes:
    data = _without_actions(data, keep={script.command.encode() for script in scripts})
    there, end = _OUR_ACTION.findall(data), _line_end(data)
    lines = [
        f'SCR 4 0 {script.command} "Custom: {script.file}" "{_FOLDER}/{script.file}"'.encode() + end
        for script in scripts
        if script.command.encode() not in there
    ]
    return b"".join(lines) + data  # not at the end, since the last line may not be a whole one


def _without_actions(data: bytes, keep: Collection[bytes] = ()) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(line for line in lines if (ours := _OUR_ACTION.match(line)) is None or ours[1] in keep)


# --- reaper-menu.ini: sections with items, numbered from 0 ---


def _add_entries(
    data: bytes, scripts: Iterable[_Script], *, new_menus: bool = False
) -> tuple[bytes, list[tuple[str, str]]]:
    """The file with our entries, and menu and name of those that can't be added."""
    missing: list[tuple[str, str]] = []
    for script in scripts:
        for menu in script.menus:
            section, entry = _SECTIONS[menu].encode(), f"_{script.command}".encode()
            added = _add_entry(data, section, entry, script.name.encode(), new_menus=new_menus)
            if added is None:
                missing.append((menu, script.name))
            else:
                data = added
    return data, missing


def _add_entry(data: bytes, section: bytes, command: bytes, name: bytes, *, new_menus: bool = False) -> bytes | None:
    """The file with an entry at the end of a section; None if that is no place for it.

    An entry that is there stays where the user has put it.
    """
    lines = data.splitlines(keepends=True)
    begin = next((at for at, line in enumerate(lines) if line.strip() == b"[" + section + b"]"), None)
    if begin is None:
        end = _line_end(data)
        first = b"[%s]%sitem_0=%s %s%s" % (section, end, command, name, end)
        return first + data if new_menus else None  # not at the end, where the last line may not be a whole one
    end = next((at for at, line in enumerate(lines) if at > begin and line.startswith(b"[")), len(lines))
    items = [at for at in range(begin, end) if _ITEM.match(lines[at])]
    commands = [found[2] for at in items if (found := _ITEM.match(lines[at])) is not None]
    if command in commands:
        return data
    if not items or commands.count(b"-2") != commands.count(b"-3"):
        return None  # it would land in a submenu that is open at the end
    last, line_end = items[-1], _line_end(data)
    entry = b"item_%d=%s %s" % (len(items), command, name)
    if lines[last].endswith(b"\n"):
        lines.insert(last + 1, entry + line_end)
    else:
        lines[last] += line_end + entry
    return b"".join(lines)


def _without_entries(data: bytes, commands: Iterable[bytes]) -> bytes:
    """The file without the entries of some commands, and without sections that had no others.

    Entries after them get the numbers that are free then.
    """
    ours = {b"_" + command for command in commands}
    kept: list[bytes] = []
    gone = number = 0
    for line in [*data.splitlines(keepends=True), b"["]:  # the last one ends the last section
        item = _ITEM.match(line)
        if line.startswith(b"["):
            if gone and not number and kept[-1].startswith(b"["):
                kept.pop()
            gone = number = 0
        if item is not None and item[2] in ours:
            gone += 1
            if not line.endswith(b"\n") and kept:
                kept[-1] = kept[-1].rstrip(b"\r\n")
            continue
        kept.append(b"item_%d=%s" % (number, item[1]) if item is not None and gone else line)
        number += item is not None
    return b"".join(kept[:-1])


# --- __startup.lua: a block of ours, before what the user has there, which may end in `return` ---


def _add_block(data: bytes, started: Sequence[_Script]) -> bytes:
    rest = _BLOCK.sub(b"", data)
    if not started:
        return rest
    end = _line_end(data)
    calls = [
        f'pcall(dofile, reaper.GetResourcePath() .. "/{REAPER_HOME}/{script.file}")'.encode() for script in started
    ]
    return end.join([_BEGIN, *calls, _END, rest])


def _line_end(data: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in data else b"\n"


def _read(folder: Path, name: str) -> bytes:
    return read_bytes(folder / name) or b""
