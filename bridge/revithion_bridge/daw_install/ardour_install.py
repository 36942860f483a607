"""Our scripts in Ardour: files in its folder of settings, actions and a hook in its file ``ui_scripts``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from revithion_bridge.daw_install.ardour_ui_scripts import (
    OUR_PREFIX,
    LuaScript,
    UiScripts,
    UiScriptsError,
    format_ui_scripts,
    parse_ui_scripts,
)
from revithion_bridge.daw_install.file_changes import read_bytes
from revithion_bridge.daw_install.install_receipt import ARDOUR_HOME, Placement
from revithion_bridge.daw_install.script_install import (
    InstallReport,
    RegisteredAction,
    plan_install,
    plan_uninstall,
    put_in_place,
    read_scripts,
    take_out,
)

_DAW = "ardour"
_UI_SCRIPTS = "ui_scripts"
_IN_MENU = 9
_SANDBOX = re.compile(rb'<Option name="sandbox-all-lua-scripts" value="(?:1|yes|true)"/>')
_HEADER = re.compile(rb"^[ \t]*ardour\s*\{(.*?)\}", re.DOTALL | re.MULTILINE)
_TYPE = re.compile(rb'(?:\[\s*"type"\s*\]|\btype)\s*=\s*"(\w+)"')
_NAME = re.compile(rb'\bname\s*=\s*"([^"\n]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    placement: Placement
    actions: tuple[LuaScript, ...]
    hooks: tuple[LuaScript, ...]


def install_ardour(folder: Path, *, source: Traversable | None = None, dry_run: bool = False) -> InstallReport:
    """Puts the scripts into a folder of Ardour's settings, and replaces what an earlier version put there.

    Args:
        folder: Such as ``~/.config/ardour7``.
        source: The folder with our scripts; ours if left out.
        dry_run: Only says what would be done.

    Raises:
        RevithionError: ``daw.install``: Ardour runs, or a file can't be written; nothing is another than before.
    """
    parts = _parts(folder, source)
    try:
        before = _read(folder)
        scripts = before.with_ours(parts.actions, parts.hooks)
    except UiScriptsError as exc:
        changes = plan_install(parts.placement, {})
        names = ", ".join(script.name for script in (*parts.actions, *parts.hooks))
        steps = (
            f"{folder / _UI_SCRIPTS} was left alone ({exc}); add these in Ardour, in Edit > Lua Scripts > "
            f"Script Manager: {names}",
        )
        actions: tuple[RegisteredAction, ...] = ()
    else:
        shared = {} if scripts == before else {_UI_SCRIPTS: format_ui_scripts(scripts)}
        changes = plan_install(parts.placement, shared)
        actions = _registered(scripts, parts.actions)
        steps = tuple(
            f"Ardour has no slot left for {script.name!r}: remove one in Edit > Lua Scripts > Script Manager"
            for script in parts.actions
            if script.path.name not in scripts.our_slots()
        )
    if _SANDBOX.search(read_bytes(folder / "ui_config") or b""):
        steps += (f"Ardour keeps scripts from files: set sandbox-all-lua-scripts to 0 in {folder / 'ui_config'}",)
    if not dry_run:
        put_in_place(_DAW, folder, changes)
    return InstallReport(daw=_DAW, folder=folder, installed=True, changes=tuple(changes), actions=actions, steps=steps)


def uninstall_ardour(folder: Path, *, dry_run: bool = False) -> InstallReport:
    """Takes the scripts out again; that there are none is no error.

    Raises:
        RevithionError: ``daw.install``: Ardour runs, or a file can't be changed; all is as it was before.
    """
    placement = _placement(folder, {})
    shared: dict[str, bytes] = {}
    blank: list[str] = []
    steps: tuple[str, ...] = ()
    try:
        scripts = _read(folder)
    except UiScriptsError as exc:
        steps = (f"{folder / _UI_SCRIPTS} was left alone ({exc}); remove ours in Edit > Lua Scripts > Script Manager",)
    else:
        rest = scripts.without_ours()
        if rest != scripts:
            shared[_UI_SCRIPTS] = format_ui_scripts(rest)
            blank = [_UI_SCRIPTS] if rest.is_empty else []
    changes = plan_uninstall(placement, shared, blank)
    if not dry_run:
        take_out(_DAW, placement, changes)
    return InstallReport(daw=_DAW, folder=folder, installed=False, changes=tuple(changes), steps=steps)


def _placement(folder: Path, files: Mapping[str, bytes]) -> Placement:
    return Placement(folder=folder, home=ARDOUR_HOME, prefix=f"scripts/{OUR_PREFIX}", files=files)


def _parts(folder: Path, source: Traversable | None) -> _Parts:
    files: dict[str, bytes] = {}
    kinds: dict[str, list[LuaScript]] = {"EditorAction": [], "EditorHook": []}
    for name, data in read_scripts(_DAW, source).items():
        header = _HEADER.search(data)
        kind = _TYPE.search(header[1]) if header is not None else None
        if header is None or kind is None:
            files[f"{ARDOUR_HOME}/{name}"] = data
            continue
        path = f"scripts/{OUR_PREFIX}{name}"
        files[path] = data
        title = _NAME.search(header[1])
        shown = title[1].decode("utf-8", "replace") if title is not None else name
        kinds.setdefault(kind[1].decode(), []).append(LuaScript(name=shown, source=data, path=folder.absolute() / path))
    return _Parts(
        placement=_placement(folder, files),
        # Ardour's menu has the first slots; what is used most comes first.
        actions=tuple(
            sorted(kinds["EditorAction"], key=lambda script: (not script.name.startswith("Separate"), script.name))
        ),
        hooks=tuple(kinds["EditorHook"]),
    )


def _registered(scripts: UiScripts, actions: tuple[LuaScript, ...]) -> tuple[RegisteredAction, ...]:
    slots = scripts.our_slots()
    found = [(slots[action.path.name], action.name) for action in actions if action.path.name in slots]
    return tuple(
        RegisteredAction(
            name=name,
            place="Edit > Lua Scripts" if slot <= _IN_MENU else f"slot {slot}",
            command=f"LuaAction/script-{slot}",
        )
        for slot, name in sorted(found)
    )


def _read(folder: Path) -> UiScripts:
    return parse_ui_scripts(read_bytes(folder / _UI_SCRIPTS))
