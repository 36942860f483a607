"""Scripts in a DAW's folder: what is there, what is left of it, and that what is the user's stays the user's."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lupa.lua53
import pytest
from hypothesis import given
from hypothesis import strategies as st

from program import posix_only
from revithion_bridge.daw.mailbox import mailbox_folder
from revithion_bridge.daw_install import ardour_ui_scripts as ui_scripts
from revithion_bridge.daw_install.ardour_install import install_ardour, uninstall_ardour
from revithion_bridge.daw_install.file_changes import FileChange, apply_changes
from revithion_bridge.daw_install.install_receipt import start_command
from revithion_bridge.daw_install.programs import PROGRAMS, find_folders, find_program
from revithion_bridge.daw_install.reaper_install import install_reaper, uninstall_reaper
from revithion_bridge.daw_install.script_install import InstallReport
from revithion_stems.errors import RevithionError

HOSTILE = ["plain", "with space", "ü 🎵", "quote ' and \" %s $HOME", "back\\slash"]
USERS_ACTION = """ardour { ["type"] = "EditorAction", name = "Mine" }
function factory () return function () user_ran = "mine\t\\"%q\\"" end end
"""
USERS_HOOK = """ardour { ["type"] = "EditorHook", name = "My hook" }
function factory () return function () end end
"""
# What Ardour does with the text of a hook or of all actions, by its description in gtk2_ardour/luainstance.cc: run the
# assignments, load each factory, keep the function that it returns. And how it writes them again.
MANAGER = r"""
local function dump (name, value)
  local kind = type (value)
  if kind == "table" then
    local text = name .. " = {} "
    for key, inner in pairs (value) do
      local shown = type (key) == "number" and tostring (key) or string.format ("%q", key)
      text = text .. dump (name .. "[" .. shown .. "]", inner) .. " "
    end
    return text
  end
  if kind == "function" then return name .. " = " .. string.format ("%q", string.dump (value, true)) end
  if kind == "number" or kind == "boolean" then return name .. " = " .. tostring (value) end
  return name .. " = " .. string.format ("%q", value) .. " "
end
local env = _ENV
local kept, running = {}, {}
local function take (id, script)
  local factory = assert (load (script.f))
  kept[id] = { n = script.n, s = script.s, f = factory, c = script.c, a = script.a }
  running[id] = load (string.dump (factory, true), nil, nil, env) (script.a)
  assert (type (running[id]) == "function")
end
return {
  actions = function (text) kept = {} load (text) () for id, script in pairs (scripts) do take (id, script) end end,
  hook = function (text) load (text) () take (1, s) end,
  names = function () local all = {} for id, script in pairs (kept) do all[id] = script.n end return all end,
  call = function (id) running[id] () end,
  save_actions = function () return dump ("scripts", kept) end,
  save_hook = function () return dump ("s", kept[1]) end,
  quoted = function (text) return string.format ("%q", text) end,
  value = function (text) return load ("return " .. text) () end,
}
"""


class Lua:
    """Ardour's Lua, as far as ``ui_scripts`` goes; texts are bytes."""

    def __init__(self) -> None:
        self.runtime = lupa.lua53.LuaRuntime(encoding=None)
        self.manager: Any = self.runtime.execute(MANAGER.encode())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self.manager[name.encode()]

    def globals(self, name: str) -> Any:
        return self.runtime.globals()[name.encode()]


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's folders."""
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Scripts as ours are, but short."""
    folder = tmp_path / "source"
    for daw in ("ardour", "reaper", "lua"):
        (folder / daw).mkdir(parents=True)
    header = 'ardour {{ ["type"] = "{}", name = "{}", author = "revithion-stems", description = [[a "b" ]] }}\n'
    body = "function factory () return function () {} = ({} or 0) + 1 end end\n"
    ardour = folder / "ardour"
    (ardour / "action_one.lua").write_text(header.format("EditorAction", "One") + body.format("one", "one"))
    (ardour / "action_separate.lua").write_text(
        header.format("EditorAction", "Separate") + body.format("separated", "separated") + "-- \t'\"\\ ü\n"
    )
    (ardour / "hook_poll.lua").write_text(header.format("EditorHook", "Poll") + body.format("polled", "polled"))
    (ardour / "stems.lua").write_text("return {}\n")
    (folder / "lua" / "common.lua").write_text("return {}\n")
    reaper = folder / "reaper"
    (reaper / "Separate.lua").write_text("-- @name Separate to stems\n-- @menu track item\nseparated = true\n")
    (reaper / "Listener.lua").write_text("-- @name Listener\n-- @startup\nlistening = true\n")
    (reaper / "stems.lua").write_text("-- a library\nreturn {}\n")
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def write(folder: Path, **files: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / {"kb": "reaper-kb.ini", "menu": "reaper-menu.ini", "startup": "Scripts/__startup.lua"}.get(
            name, name
        )
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def saved_by_ardour(actions: dict[int, str], hooks: dict[str, str]) -> bytes:
    """A ``ui_scripts`` as Ardour leaves it, with bytecode."""
    lua = Lua()
    wrapped = "local function ardour () end {}\nreturn factory (...)"
    assignments = ["scripts = {}"]
    for slot, text in actions.items():
        fields = {"n": "Mine", "s": text, "f": wrapped.format(text)}
        assignments.append(f"scripts[{slot}] = {{}} scripts[{slot}].c = true scripts[{slot}].a = {{}}")
        assignments += [f"scripts[{slot}].{k} = {lua.quoted(v.encode()).decode()}" for k, v in fields.items()]
    lua.actions("\n".join(assignments).encode())
    root = ElementTree.Element("UIScripts")
    ElementTree.SubElement(root, "ActionScript", lua="Lua 5.3").text = base64.b64encode(lua.save_actions()).decode()
    elements = ElementTree.SubElement(root, "ActionHooks")
    for number, text in hooks.items():
        fields = {"n": "My hook", "s": text, "f": wrapped.format(text)}
        lua.hook(
            ("s = {} " + " ".join(f"s.{k} = {lua.quoted(v.encode()).decode()}" for k, v in fields.items())).encode()
        )
        element = ElementTree.SubElement(
            elements, "LuaCallback", id=number, name='<"My" & hook>', signals="1" + 47 * "0"
        )
        element.text = base64.b64encode(lua.save_hook()).decode()
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode").replace(" />", "/>")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def saved_again(data: bytes) -> bytes:
    """The same file after Ardour has loaded it and written it again."""
    root, lua = ElementTree.fromstring(data), Lua()
    script = root.find("ActionScript")
    assert script is not None
    lua.actions(base64.b64decode(script.text or ""))
    script.text = base64.b64encode(lua.save_actions()).decode()
    for hook in root.iter("LuaCallback"):
        lua.hook(base64.b64decode(hook.text or ""))
        hook.text = base64.b64encode(lua.save_hook()).decode()
        hook.set("signals", "0" + hook.get("signals", ""))
    return ElementTree.tostring(root)


def loaded(folder: Path) -> tuple[Lua, list[ElementTree.Element]]:
    """Ardour with the actions of a folder, and its hooks."""
    root, lua = ElementTree.fromstring((folder / "ui_scripts").read_bytes()), Lua()
    lua.actions(base64.b64decode(root.findtext("ActionScript") or ""))
    return lua, list(root.iter("LuaCallback"))


def slots(report: InstallReport) -> dict[str, str]:
    return {action.name: action.command for action in report.actions}


# --- Ardour ---


@pytest.mark.parametrize("name", HOSTILE)
def test_all_that_was_put_into_ardour_goes_again(tmp_path: Path, source: Path, name: str) -> None:
    folder = write(
        tmp_path / name, config="<Ardour/>", ui_scripts=saved_by_ardour({2: USERS_ACTION}, {"7": USERS_HOOK})
    )
    before = tree(folder)
    install_ardour(folder, source=source)
    assert tree(folder) != before
    uninstall_ardour(folder)
    assert tree(folder) == before


def test_an_empty_folder_is_empty_again(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "ardour7")
    install_ardour(folder, source=source)
    uninstall_ardour(folder)
    assert tree(folder) == {}
    assert not uninstall_ardour(folder).changes


def test_a_second_install_changes_nothing(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "ardour7", ui_scripts=saved_by_ardour({1: USERS_ACTION}, {}))
    assert install_ardour(folder, source=source).changes
    before = tree(folder)
    assert not install_ardour(folder, source=source).changes
    assert tree(folder) == before


def test_a_dry_run_says_the_same_and_does_nothing(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "ardour7")
    said = install_ardour(folder, source=source, dry_run=True)
    assert tree(folder) == {}
    done = install_ardour(folder, source=source)
    assert (said.changes, said.actions) == (done.changes, done.actions)


def test_ardour_loads_and_runs_what_was_registered(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "ardour7")
    report = install_ardour(folder, source=source)
    lua, hooks = loaded(folder)
    assert slots(report) == {"Separate": "LuaAction/script-1", "One": "LuaAction/script-2"}
    assert dict(lua.names()) == {1: b"Separate", 2: b"One"}
    lua.call(1)
    assert (lua.globals("separated"), lua.globals("one")) == (1, None)
    lua.call(2)
    assert lua.globals("one") == 1
    assert lua.globals("factory") is None  # actions share their globals: what a script defines stays its own
    lua.hook(base64.b64decode(hooks[0].text or ""))
    lua.call(1)
    assert lua.globals("polled") == 1


@pytest.mark.parametrize("signals", [48, 49, 50])
def test_a_timer_calls_the_hook_in_each_version(tmp_path: Path, source: Path, signals: int) -> None:
    install_ardour(write(tmp_path / "ardour7"), source=source)
    (hook,) = loaded(tmp_path / "ardour7")[1]
    text = hook.get("signals", "")
    # A C++ bitset of that many bits takes the first characters if there are more; the last one is bit 0.
    bits = {place for place, bit in enumerate(reversed(text[:signals])) if bit == "1"}
    assert bits == {46, 47}


def test_what_the_user_has_registered_stays_where_it_is(tmp_path: Path, source: Path) -> None:
    folder = write(
        tmp_path / "ardour7", ui_scripts=saved_by_ardour({1: USERS_ACTION, 3: USERS_ACTION}, {"990001": USERS_HOOK})
    )
    report = install_ardour(folder, source=source)
    assert slots(report) == {"Separate": "LuaAction/script-2", "One": "LuaAction/script-4"}
    lua, hooks = loaded(folder)
    assert dict(lua.names()) == {1: b"Mine", 2: b"Separate", 3: b"Mine", 4: b"One"}
    lua.call(3)
    assert lua.globals("user_ran") == b'mine\t"%q"'
    assert [hook.get("id") for hook in hooks] == ["990001", "990002"]
    assert hooks[0].get("name") == '<"My" & hook>'


def test_what_ardour_has_written_again_is_still_ours(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "ardour7", ui_scripts=saved_by_ardour({1: USERS_ACTION}, {}))
    install_ardour(folder, source=source)
    (folder / "ui_scripts").write_bytes(saved_again((folder / "ui_scripts").read_bytes()))
    report = install_ardour(folder, source=source)
    assert not report.changes
    uninstall_ardour(folder)
    lua, hooks = loaded(folder)
    assert dict(lua.names()) == {1: b"Mine"}
    assert not hooks


def test_a_new_version_keeps_the_slots_and_drops_what_is_gone(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "ardour7", ui_scripts=saved_by_ardour({1: USERS_ACTION}, {}))
    install_ardour(folder, source=source)
    text = (source / "ardour" / "action_one.lua").read_text()
    (source / "ardour" / "action_one.lua").write_text(text.replace("One", "Better"))
    (source / "ardour" / "action_separate.lua").unlink()
    report = install_ardour(folder, source=source)
    assert slots(report) == {"Better": "LuaAction/script-3"}
    assert dict(loaded(folder)[0].names()) == {1: b"Mine", 3: b"Better"}
    assert not (folder / "scripts" / "revithion_stems_action_separate.lua").exists()


def test_the_user_hears_when_no_slot_is_free(tmp_path: Path, source: Path) -> None:
    taken = dict.fromkeys(range(1, 32), USERS_ACTION)
    folder = write(tmp_path / "ardour7", ui_scripts=saved_by_ardour(taken, {}))
    report = install_ardour(folder, source=source)
    assert slots(report) == {"Separate": "LuaAction/script-32"}
    (step,) = report.steps
    assert "'One'" in step


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<UIScripts>",
        "<Other/>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><UIScripts/>",
        "<UIScripts><ActionScript>%%%</ActionScript></UIScripts>",
        f"<UIScripts><ActionScript>{base64.b64encode(b'os.execute (x)').decode()}</ActionScript></UIScripts>",
        "<UIScripts><ActionHooks/><ActionHooks/></UIScripts>",
        b"\xff\xfe",
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(tmp_path: Path, source: Path, content: str | bytes) -> None:
    folder = write(tmp_path / "ardour7", ui_scripts=content)
    before = tree(folder)
    report = install_ardour(folder, source=source)
    (step,) = report.steps
    assert "Script Manager" in step
    assert "Separate, One, Poll" in step
    assert tree(folder)["ui_scripts"] == before["ui_scripts"]
    assert (folder / "scripts" / "revithion_stems_action_one.lua").exists()
    uninstall_ardour(folder)
    assert tree(folder) == before


def test_the_user_hears_that_scripts_may_not_use_files(tmp_path: Path, source: Path) -> None:
    option = '<UIConfiguration><Option name="sandbox-all-lua-scripts" value="1"/></UIConfiguration>'
    (step,) = install_ardour(write(tmp_path / "ardour8", ui_config=option), source=source).steps
    assert "sandbox-all-lua-scripts" in step


@given(st.binary())
def test_lua_reads_a_text_as_it_was(text: bytes) -> None:
    assert Lua().value(ui_scripts._quoted(text)) == text


@given(st.binary())
def test_a_text_that_lua_wrote_is_read_as_it_was(text: bytes) -> None:
    assert ui_scripts._unquoted(Lua().quoted(text)) == text


@given(
    st.dictionaries(st.integers(1, 40), st.tuples(st.binary(), st.binary()), max_size=5),
    st.dictionaries(st.integers(1, 10**6).map(str), st.binary(), max_size=3),
)
def test_what_is_not_ours_goes_through_byte_for_byte(
    actions: dict[int, tuple[bytes, bytes]], hooks: dict[str, bytes]
) -> None:
    quoted = ui_scripts._quoted
    state = b"scripts = {} " + b"".join(
        b'scripts[%d] = {} scripts[%d]["n"] = %s  scripts[%d]["a"] = {} scripts[%d]["a"][%s] = 1.5 '
        % (slot, slot, quoted(name), slot, slot, quoted(key))
        for slot, (name, key) in sorted(actions.items())
    )
    elements = "".join(
        f'\n    <LuaCallback id="{number}" name="&lt;&quot;" signals="1">'
        f"{base64.b64encode(b's = {} s[' + quoted(b'n') + b'] = ' + quoted(name)).decode()}</LuaCallback>"
        for number, name in hooks.items()
    )
    listed = f"<ActionHooks>{elements}\n  </ActionHooks>" if hooks else "<ActionHooks/>"
    data = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<UIScripts>\n  '
        f'<ActionScript lua="Lua 5.3">{base64.b64encode(state).decode()}</ActionScript>\n  {listed}\n</UIScripts>\n'
    ).encode()
    script = ui_scripts.LuaScript(
        name="One", source=b"function factory () end", path=Path("/x/revithion_stems_one.lua")
    )
    parsed = ui_scripts.parse_ui_scripts(data)
    assert ui_scripts.format_ui_scripts(parsed) == data
    with_ours = ui_scripts.parse_ui_scripts(ui_scripts.format_ui_scripts(parsed.with_ours((script,), (script,))))
    assert len(with_ours.our_slots()) == 1
    assert ui_scripts.format_ui_scripts(with_ours.without_ours()) == data


# --- what both have in common ---

INSTALLERS = [(install_ardour, uninstall_ardour), (install_reaper, uninstall_reaper)]
both = pytest.mark.parametrize(("install", "uninstall"), INSTALLERS, ids=["ardour", "reaper"])
Install = Callable[..., InstallReport]


@both
def test_the_scripts_read_where_everything_is(
    tmp_path: Path, source: Path, install: Install, uninstall: Install
) -> None:
    install(tmp_path / "daw", source=source)
    (path,) = (tmp_path / "daw").rglob("installed.json")
    receipt = json.loads(path.read_bytes())
    assert receipt["mailboxes"] == str(mailbox_folder())
    assert mailbox_folder().is_dir()
    assert receipt["connection"] == str(tmp_path / "state" / "daemon" / "connection.json")
    assert receipt["windows"] is (sys.platform == "win32")
    assert {path.name for path in (tmp_path / "daw").rglob("*.lua")} >= {Path(name).name for name in receipt["files"]}
    assert (path.parent / "common.lua").exists()


@posix_only
def test_the_daemon_starts_with_these_folders_whatever_the_daw_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REVITHION_STATE_DIR", "a 'relative' folder")
    *command, dash_m, module = start_command()
    assert (dash_m, module) == ("-m", "revithion_bridge.daemon")
    code = "from revithion_stems.config import state_dir; print(state_dir())"
    done = subprocess.run(
        [*command, "-c", code], env={}, cwd="/", capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == str(tmp_path / "a 'relative' folder")


@both
def test_a_file_that_is_not_ours_is_not_replaced(
    tmp_path: Path, source: Path, install: Install, uninstall: Install
) -> None:
    folder = tmp_path / "daw"
    for home in ("revithion_stems", "Scripts/revithion-stems"):
        (folder / home).mkdir(parents=True)
        (folder / home / "common.lua").write_text("somebody's")
    before = tree(folder)
    with pytest.raises(RevithionError, match="not ours"):
        install(folder, source=source)
    assert tree(folder) == before
    assert not uninstall(folder).changes


@both
@pytest.mark.parametrize("content", ["{", '{"v": 1}', '{"files": ["../../keep.lua", "revithion_stems/../keep.lua"]}'])
def test_a_damaged_receipt_costs_no_file_that_is_not_ours(
    tmp_path: Path, source: Path, install: Install, uninstall: Install, content: str
) -> None:
    folder = write(tmp_path / "daw", **{"keep.lua": "mine"})
    install(folder, source=source)
    (receipt,) = folder.rglob("installed.json")
    if "files" in content:
        content = json.dumps({**json.loads(receipt.read_bytes()), **json.loads(content)})
    receipt.write_text(content)
    install(folder, source=source)
    receipt.write_text(content)
    uninstall(folder)
    assert (folder / "keep.lua").read_text() == "mine"
    assert not receipt.exists()


@both
@posix_only
def test_a_full_disk_changes_nothing(tmp_path: Path, source: Path, install: Install, uninstall: Install) -> None:
    folder = write(tmp_path / "daw", kb="KEY 1 65 _RS 0\n", ui_scripts=saved_by_ardour({1: USERS_ACTION}, {}))
    (source / "lua" / "common.lua").write_text("-- long\n" * 1000)
    before = tree(folder)
    code = (
        "import resource, sys; from pathlib import Path; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"from {install.__module__} import {install.__name__} as install\n"
        "from revithion_stems.errors import RevithionError\n"
        "try: install(Path(sys.argv[1]), source=Path(sys.argv[2]))\n"
        "except RevithionError as exc: print(exc.code)\n"
    )
    command = [sys.executable, "-c", code, str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "daw.install"
    assert tree(folder) == before


def test_changes_that_were_done_are_undone_when_a_later_one_fails(tmp_path: Path) -> None:
    folder = write(tmp_path / "daw", one="1", two="2")
    (folder / "in the way").mkdir()
    changes = [
        FileChange(path=folder / "new" / "file", before=None, after=b"x"),
        FileChange(path=folder / "one", before=b"1", after=b"changed"),
        FileChange(path=folder / "two", before=b"2", after=None),
        FileChange(path=folder / "in the way", before=None, after=b"x"),
        FileChange(path=folder / "never", before=None, after=b"x"),
    ]
    before = tree(folder)
    with pytest.raises(RevithionError) as caught:
        apply_changes(changes)
    assert caught.value.code == "daw.install"
    assert tree(folder) == before


@posix_only
def test_a_link_stays_one_and_modes_stay(tmp_path: Path, source: Path) -> None:
    folder, kept = write(tmp_path / "ardour7"), write(tmp_path / "dotfiles", ui_scripts=saved_by_ardour({}, {}))
    (folder / "ui_scripts").symlink_to(kept / "ui_scripts")
    (kept / "ui_scripts").chmod(0o640)
    install_ardour(folder, source=source)
    assert (folder / "ui_scripts").is_symlink()
    assert dict(loaded(kept)[0].names()) == {1: b"Separate", 2: b"One"}
    assert (kept / "ui_scripts").stat().st_mode & 0o777 == 0o640


def test_two_versions_have_their_own_scripts(tmp_path: Path, source: Path) -> None:
    seven, eight = write(tmp_path / "ardour7"), write(tmp_path / "ardour8")
    install_ardour(seven, source=source)
    install_ardour(eight, source=source)
    uninstall_ardour(seven)
    assert tree(seven) == {}
    assert not install_ardour(eight, source=source).changes


# --- REAPER ---

MENU = (
    "[Track control panel context]\nitem_0=40001 &Insert\nitem_1=-1\nitem_2=-2 &More\nitem_3=40005 Remove\nitem_4=-3\n"
)
OTHER_MENU = "[Main toolbar]\nicon_0=x.png\nitem_0=40023 New\ntitle=Main\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_all_that_was_put_into_reaper_goes_again(tmp_path: Path, source: Path, end: str, last: str) -> None:
    def lines(text: str) -> bytes:
        return (text.rstrip("\n") + last).replace("\n", end).encode()

    folder = write(
        tmp_path / "REAPER",
        kb=lines('KEY 1 65 _RS1234 0\nSCR 4 0 RS1234 "Custom: mine.lua" "mine.lua"\n'),
        menu=lines(OTHER_MENU + MENU),
        startup=lines("mine = true\nreturn 5\n"),
    )
    before = tree(folder)
    report = install_reaper(folder, source=source)
    assert {change.path.name for change in report.changes if change.before} == {
        "reaper-kb.ini",
        "reaper-menu.ini",
        "__startup.lua",
    }
    assert not install_reaper(folder, source=source).changes
    uninstall_reaper(folder)
    assert tree(folder) == before
    assert not uninstall_reaper(folder).changes


def test_reapers_empty_folder_is_empty_again(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "REAPER")
    install_reaper(folder, source=source)
    uninstall_reaper(folder)
    assert tree(folder) == {}


def test_an_action_has_one_id_in_all_files(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "REAPER", menu=MENU)
    report = install_reaper(folder, source=source)
    command = {action.name: action.command for action in report.actions}["Separate to stems"]
    line = f'SCR 4 0 {command[1:]} "Custom: Separate.lua" "revithion-stems/Separate.lua"'
    assert line in (folder / "reaper-kb.ini").read_text().splitlines()
    assert (folder / "reaper-menu.ini").read_text() == MENU + f"item_5={command} Separate to stems\n"


def test_a_menu_that_reaper_makes_itself_is_not_replaced(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "REAPER", menu=OTHER_MENU)
    report = install_reaper(folder, source=source)
    assert (folder / "reaper-menu.ini").read_text() == OTHER_MENU
    assert ["Track control panel context" in report.steps[0], "Media item context" in report.steps[1]] == [True, True]


def test_new_menus_are_made_if_wanted_and_go_again(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "REAPER", menu=OTHER_MENU)
    before = tree(folder)
    report = install_reaper(folder, source=source, new_menus=True)
    command = {action.name: action.command for action in report.actions}["Separate to stems"]
    text = (folder / "reaper-menu.ini").read_text()
    for section in ("Track control panel context", "Media item context"):
        assert f"[{section}]\nitem_0={command} Separate to stems\n" in text
    assert text.endswith(OTHER_MENU)
    assert not report.steps
    assert not install_reaper(folder, source=source).changes  # again, without asking for it: they are there
    uninstall_reaper(folder)
    assert tree(folder) == before


def test_an_entry_is_not_put_into_an_open_submenu(tmp_path: Path, source: Path) -> None:
    opened = MENU.replace("item_4=-3\n", "")
    folder = write(tmp_path / "REAPER", menu=opened)
    report = install_reaper(folder, source=source)
    assert (folder / "reaper-menu.ini").read_text() == opened
    assert len(report.steps) == 2


def test_an_entry_stays_where_the_user_has_put_it(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "REAPER", menu=MENU)
    install_reaper(folder, source=source)
    ours = (folder / "reaper-menu.ini").read_text().splitlines()[-1].partition("=")[2]
    moved = f"[Track control panel context]\nitem_0={ours}\nitem_1=40001 &Insert\nitem_2=-1\n[Other]\nitem_0=1 A\n"
    write(folder, menu=moved)
    assert not install_reaper(folder, source=source).changes
    uninstall_reaper(folder)
    assert (folder / "reaper-menu.ini").read_text() == (
        "[Track control panel context]\nitem_0=40001 &Insert\nitem_1=-1\n[Other]\nitem_0=1 A\n"
    )


ITEM = st.sampled_from(["-1", "-2 Sub", "-3", "40001 &Insert", "_RSabc mine", "-4 Label", ""])
SECTION = st.sampled_from(["Track control panel context", "Media item context", "Main toolbar", "ä [x"])


@given(st.dictionaries(SECTION, st.lists(ITEM), max_size=4), st.booleans(), st.booleans())
def test_any_menu_is_the_same_again(sections: dict[str, list[str]], whole_line: bool, new_menus: bool) -> None:
    from revithion_bridge.daw_install import reaper_install

    text = "".join(
        f"[{name}]\n" + "".join(f"item_{number}={item}\n" for number, item in enumerate(items))
        for name, items in sections.items()
    )
    data = (text if whole_line else text.removesuffix("\n")).encode()
    script = reaper_install._Script(file="Separate.lua", name="Separate", menus=("track", "item"), startup=False)
    changed, missing = reaper_install._add_entries(data, [script], new_menus=new_menus)
    assert changed.count(script.command.encode()) == 2 - len(missing)
    assert reaper_install._without_entries(changed, [script.command.encode()]) == data


@pytest.mark.parametrize("listener", ["listening = true", "error ('broken')"])
def test_reapers_start_runs_the_listener_and_what_the_user_has_there(
    tmp_path: Path, source: Path, listener: str
) -> None:
    folder = write(tmp_path / "REAPER 'ü'", startup="users = 'own'\nreturn users")
    (source / "reaper" / "Listener.lua").write_text(f"-- @name Listener\n-- @startup\n{listener}\n")
    install_reaper(folder, source=source)
    lua = lupa.lua53.LuaRuntime()
    lua.globals()["reaper"] = lua.table_from({"GetResourcePath": lambda: str(folder)})
    assert lua.execute((folder / "Scripts" / "__startup.lua").read_text()) == "own"
    assert lua.globals()["listening"] is (True if "true" in listener else None)


def test_the_listener_is_left_out_on_request(tmp_path: Path, source: Path) -> None:
    folder = write(tmp_path / "REAPER", startup="users = 1\n")
    install_reaper(folder, source=source)
    install_reaper(folder, source=source, startup=False)
    assert (folder / "Scripts" / "__startup.lua").read_text() == "users = 1\n"


# --- which programs there are, and whether they run ---


@pytest.mark.parametrize(
    ("platform", "env", "ardour", "reaper"),
    [
        ("linux", {"HOME": "/h"}, "/h/.config/ardour7", "/h/.config/REAPER"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/ardour7", "/x/REAPER"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Preferences/Ardour7", "/h/Library/Application Support/REAPER"),
        ("win32", {"LOCALAPPDATA": "/l", "APPDATA": "/r"}, "/l/Ardour7", "/r/REAPER"),
        ("win32", {"USERPROFILE": "/u"}, "/u/AppData/Local/Ardour7", "/u/AppData/Roaming/REAPER"),
    ],
)
def test_each_system_has_its_folders(
    monkeypatch: pytest.MonkeyPatch, platform: str, env: dict[str, str], ardour: str, reaper: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert PROGRAMS["ardour"].folders(env)["7"] == Path(ardour)
    assert PROGRAMS["reaper"].folders(env)[""] == Path(reaper)


@posix_only
def test_only_folders_that_are_there_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("ardour6", "ardour7", "ardour8"):
        (tmp_path / name).mkdir()
    ardour = find_program("Ardour")
    assert [found.version for found in find_folders(ardour)] == ["7", "8"]
    assert [found.path.name for found in find_folders(ardour, "8")] == ["ardour8"]
    with pytest.raises(RevithionError) as caught:
        find_program("cubase")
    assert caught.value.code == "daw.unknown"


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Starts a program whose file has a DAW's name, and which calls itself as Ardour does; it does nothing."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, **env: str) -> None:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        shutil.copy(shutil.which("bash") or "", program)
        command = [program, "-c", "echo ArdourGUI > /proc/$$/comm; echo; read"]
        process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"

    yield start
    for process in processes:
        process.communicate(b"\n", timeout=10)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a program that can be copied")
@pytest.mark.parametrize(
    ("name", "env", "refused"),
    [
        ("ardour-7.3.0~ds0", {"HOME": "home"}, True),
        ("ardour-7.3.0", {"XDG_CONFIG_HOME": "home/.config"}, True),
        ("ardour-7.3.0", {"HOME": "other"}, False),
        ("ardour-8.12.0", {"HOME": "home"}, False),
        ("ardour7-export", {"HOME": "home"}, False),
    ],
)
def test_nothing_is_changed_while_ardour_runs_with_that_folder(
    tmp_path: Path, source: Path, running: Callable[..., None], name: str, env: dict[str, str], refused: bool
) -> None:
    folder = write(tmp_path / "home" / ".config" / "ardour7")
    running(name, **{key: str(tmp_path / value) for key, value in env.items()})
    if not refused:
        assert install_ardour(folder, source=source).changes
        return
    with pytest.raises(RevithionError, match="close it first") as caught:
        install_ardour(folder, source=source)
    assert caught.value.code == "daw.install"
    assert tree(folder) == {}
    assert install_ardour(folder, source=source, dry_run=True).changes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a program that can be copied")
def test_a_portable_reaper_is_seen_to_run(tmp_path: Path, source: Path, running: Callable[..., None]) -> None:
    running("reaper", HOME=str(tmp_path / "elsewhere"))
    with pytest.raises(RevithionError, match="close it first"):
        install_reaper(tmp_path / "bin", source=source)


# --- our own scripts ---


@both
def test_our_own_scripts_install_and_register(tmp_path: Path, install: Install, uninstall: Install) -> None:
    folder = write(tmp_path / "daw", menu=MENU)
    before = tree(folder)
    report = install(folder)
    assert "Separate to stems" in {action.name for action in report.actions}
    uninstall(folder)
    assert tree(folder) == before


def test_ardour_loads_our_own_actions_by_both_ways(tmp_path: Path) -> None:
    """Ours keep source in ``ui_scripts``; Ardour itself, when a script is added by hand, only what ``factory`` is."""
    install_ardour(write(tmp_path / "ardour7"))
    lua, hooks = loaded(tmp_path / "ardour7")
    assert lua.names()[1] == b"Separate to stems"
    lua.hook(base64.b64decode(hooks[0].text or ""))
    for path in (tmp_path / "ardour7" / "scripts").iterdir():
        text = f"ardour = function () end {path.read_text()}\nreturn load (string.dump (factory, true)) ()"
        assert lupa.lua53.lua_type(lupa.lua53.LuaRuntime().execute(text)) == "function"
