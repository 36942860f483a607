"""REAPER without REAPER: runs our real scripts in Lua, each in a state of its own, against a model of its API.

Each call is checked for its name and its number of arguments against the list of REAPER's own functions, and each
handle for its kind. What changes a project outside an undo block is written down.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
from reaper_project import Item, Project, Send, Source, Take, Track, new_guid

_LIST = json.loads(Path(__file__).with_name("reascript_api.json").read_text(encoding="utf-8"))
ARGUMENTS: dict[str, tuple[int, int]] = {name: tuple(counts) for name, counts in _LIST["functions"].items()}
# The functions of `gfx` are no part of that list: the figures are from the same documentation.
GFX_ARGUMENTS = {
    "init": (1, 6),
    "quit": (0, 0),
    "update": (0, 0),
    "getchar": (0, 1),
    "set": (1, 6),
    "rect": (4, 5),
    "drawstr": (1, 4),
    "measurestr": (1, 1),
    "setfont": (1, 4),
}
CHANGES = {
    *("InsertTrackAtIndex", "DeleteTrack", "SetMediaTrackInfo_Value", "SetTrackColor"),
    *("CreateTrackSend", "RemoveTrackSend", "SetTrackSendInfo_Value"),
    *("AddMediaItemToTrack", "DeleteTrackMediaItem", "SetItemStateChunk", "SetMediaItemInfo_Value"),
    *("AddTakeToMediaItem", "SetMediaItemTake_Source", "SetMediaItemTakeInfo_Value"),
}
PEAKS, CROP = 40047, 40131


class ScriptError(AssertionError):
    """A script called what REAPER does not have, or in a way that it does not take."""


class Host:
    """One REAPER: open projects, dialogs, what the user does, scripts that run."""

    def __init__(self, lua: str = "lua54") -> None:
        self.lua = importlib.import_module(f"lupa.{lua}")
        self.projects = [Project()]
        self.front = 0
        self.ext_state: dict[tuple[str, str], str] = {}
        self.messages: list[str] = []
        self.button = 1
        self.inputs: list[list[str] | None] = []
        self.asked: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.faults: list[str] = []
        self.system = "Other"
        self.clock: Callable[[], float] = time.monotonic
        self.scripts: list[Script] = []

    @property
    def project(self) -> Project:
        return self.projects[self.front]

    def run(self, path: Path) -> Script:
        """Starts a script, as the user does from a menu."""
        script = Script(self, path)
        self.scripts.append(script)
        script.start()
        return script

    def close(self) -> None:
        for script in self.scripts:
            script.end()
        for process in self.processes:
            process.terminate()
            process.wait(60)


class Window:
    """A script's graphics window: what is drawn in it, and where the user's mouse and keys are."""

    def __init__(self) -> None:
        self.is_open = False
        self.texts: list[str] = []
        self.drawing: list[str] = []
        self.keys: list[int] = []
        self.title = ""


class Script:
    """A script that runs: its own Lua, its queue of deferred functions, its window."""

    def __init__(self, host: Host, path: Path) -> None:
        self.host = host
        self.path = path
        self.deferred: list[Any] = []
        self.at_exit: list[Any] = []
        self.running = True
        self.window = Window()
        self.runtime: Any = host.lua.LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=self._refuse_attribute,
        )
        api = Api(host, self)
        public = [name for name in vars(Api) if not name.startswith("_")]
        names = {name: self._checked(name, getattr(api, name), ARGUMENTS) for name in public}
        lua = self.runtime
        self._globals = lua.globals()
        self._globals["reaper"] = lua.execute(
            """return function(known) return setmetatable(known, { __index = function(_, name)
            error("reaper." .. tostring(name) .. " is not in the API, or not in the model", 2) end }) end"""
        )(lua.table_from(names))
        self.gfx = lua.table_from({"x": 0, "y": 0, "w": 0, "h": 0, "mouse_x": 0, "mouse_y": 0, "mouse_cap": 0})
        for name in GFX_ARGUMENTS:
            self.gfx[name] = self._checked(name, getattr(self, f"_gfx_{name}"), GFX_ARGUMENTS)
        self._globals["gfx"] = self.gfx

    def start(self) -> None:
        self._globals["dofile"](str(self.path))
        self._end_if_done()

    def step(self) -> bool:
        """Runs what was deferred, once, as REAPER does about thirty times a second; whether more is to come."""
        now, self.deferred = self.deferred, []
        for function in now:
            function()
        self._end_if_done()
        return self.running

    def run_until(self, is_done: Callable[[], bool], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not is_done():
            assert self.step(), "the script has ended before"
            assert time.monotonic() < deadline, f"not in time; the window says {self.window.texts}"
            time.sleep(0.005)

    def run_to_end(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while self.step():
            assert time.monotonic() < deadline, f"not in time; the window says {self.window.texts}"
            time.sleep(0.005)

    def end(self) -> None:
        """As when the user ends it, or REAPER is closed."""
        if self.running:
            self.running, self.deferred = False, []
            for function in self.at_exit:
                function()

    def click(self, text: str) -> None:
        """Presses the mouse button on a text of the window."""
        self.gfx.mouse_x, self.gfx.mouse_y = self._places[text]
        self.gfx.mouse_cap = 1
        self.step()
        self.gfx.mouse_cap = 0

    def _end_if_done(self) -> None:
        if not self.deferred:
            self.end()

    @staticmethod
    def _refuse_attribute(_: object, name: str, __: bool) -> str:
        raise AttributeError(f"a handle has no {name}: REAPER's are opaque")

    def _checked(
        self, name: str, function: Callable[..., Any], counts: dict[str, tuple[int, int]]
    ) -> Callable[..., Any]:
        if name not in counts:
            raise ScriptError(f"{name}: REAPER has no such function")
        fewest, most = counts[name]
        kinds = {
            index: parameter.annotation
            for index, parameter in enumerate(inspect.signature(function).parameters.values())
        }

        def call(*arguments: Any) -> Any:
            if not fewest <= len(arguments) <= most:
                raise ScriptError(f"{name}: {len(arguments)} arguments; REAPER takes {fewest} to {most}")
            for index, value in enumerate(arguments):
                kind = kinds.get(index, "Any")
                if kind in HANDLES and not isinstance(value, HANDLES[kind]):
                    raise ScriptError(f"{name}: argument {index + 1} is {value!r}, not a {kind}")
            sets = name in CHANGES or (name.startswith("GetSet") and arguments[-1] is True)
            if sets and self.host.project.open_block is None:
                self.host.project.loose.append(name)
            return function(*arguments)

        def recorded(*arguments: Any) -> Any:
            try:
                return call(*arguments)
            except Exception as exc:  # our scripts may catch it; a test shall not miss it
                self.host.faults.append(f"{name}: {exc!r}")
                raise

        return recorded

    # gfx

    _places: dict[str, tuple[float, float]]

    def _gfx_init(self, title: str, width: float = 0, height: float = 0, *_: float) -> int:
        self.window.is_open, self.window.title, self._places = True, title, {}
        self.gfx.w, self.gfx.h = width, height
        return 1

    def _gfx_quit(self) -> None:
        self.window.is_open = False

    def _gfx_update(self) -> None:
        self.window.texts, self.window.drawing = self.window.drawing, []

    def _gfx_getchar(self, character: float = 0) -> int:
        if not self.window.is_open:
            return -1
        return self.window.keys.pop(0) if self.window.keys else 0

    def _gfx_set(self, *_: float) -> None: ...

    def _gfx_rect(self, x: float, y: float, width: float, height: float, fill: float = 1) -> None:
        assert 0 <= x <= x + width <= self.gfx.w, "outside the window"
        assert 0 <= y <= y + height <= self.gfx.h, "outside the window"

    def _gfx_drawstr(self, text: str, flags: float = 0, right: float = 0, bottom: float = 0) -> None:
        self.window.drawing.append(text)
        self._places[text] = self.gfx.x, self.gfx.y

    def _gfx_measurestr(self, text: str) -> tuple[int, int]:
        return 8 * len(text), 15

    def _gfx_setfont(self, *_: Any) -> int:
        return 1


HANDLES: dict[str, type | tuple[type, ...]] = {
    "Project": Project,
    "Track": Track,
    "Item": Item,
    "Take": Take,
    "Source": Source,
    "str": str,
    "bool": bool,
    "float": (int, float),
}


class Api:
    """The functions of ``reaper`` that our scripts call, by REAPER's own names. Numbers of REAPER's are floats."""

    def __init__(self, host: Host, script: Script) -> None:
        self._host = host
        self._script = script

    # the program

    def GetAppVersion(self) -> str:
        return "7.16/linux-x86_64"

    def GetOS(self) -> str:
        return self._host.system

    def time_precise(self) -> float:
        return self._host.clock()

    def defer(self, function: Any) -> bool:
        self._script.deferred.append(function)
        return True

    def atexit(self, function: Any) -> bool:
        self._script.at_exit.append(function)
        return True

    def file_exists(self, path: str) -> bool:
        return Path(path).is_file()

    def genGuid(self, guid: str) -> str:
        return new_guid()

    def ShowMessageBox(self, message: str, title: str, kind: float) -> int:
        self._host.messages.append(message)
        return self._host.button

    def GetUserInputs(self, title: str, count: float, captions: str, values: str) -> tuple[bool, str]:
        separator = captions.partition("separator=")[2][:1] or ","
        self._host.asked.append(values)
        answer = self._host.inputs.pop(0)
        return (False, values) if answer is None else (True, separator.join(answer))

    def ExecProcess(self, line: str, timeout_ms: float) -> str:
        assert timeout_ms == -1, "REAPER's window would stand still"
        command = shlex.split(line)
        assert Path(command[0]).is_absolute(), "it does not look into PATH"
        self._host.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))
        return ""

    def GetExtState(self, section: str, key: str) -> str:
        return self._host.ext_state.get((section, key), "")

    def SetExtState(self, section: str, key: str, value: str, persist: bool) -> None:
        assert "\n" not in value
        self._host.ext_state[section, key] = value

    def Main_OnCommandEx(self, command: float, flag: float, project: Project) -> None:
        if command == CROP:
            for item in project.items():
                if item.values["B_UISEL"]:
                    item.takes, item.active = [item.takes[item.active]], 0
        else:
            assert command == PEAKS, command

    def PreventUIRefresh(self, count: float) -> None: ...

    def TrackList_AdjustWindows(self, is_minor: bool) -> None: ...

    def UpdateArrange(self) -> None: ...

    # projects

    def EnumProjects(self, index: float) -> tuple[Project, str]:
        assert index == -1
        return self._host.project, self._host.project.path

    def SelectProjectInstance(self, project: Project) -> None:
        self._host.front = self._host.projects.index(project)

    def ValidatePtr(self, pointer: Any, kind: str) -> bool:
        assert kind == "ReaProject*"
        return pointer in self._host.projects

    def GetSetProjectInfo(self, project: Project, name: str, value: float, is_set: bool) -> float:
        return {"PROJECT_SRATE_USE": float(project.sample_rate > 0), "PROJECT_SRATE": float(project.sample_rate)}[name]

    def TimeMap2_QNToTime(self, project: Project, quarter: float) -> float:
        return project.seconds(quarter)

    def TimeMap_GetMeasureInfo(self, project: Project, measure: float) -> tuple[float, float, float, int, int, float]:
        first = measure * project.beats_in_bar
        last = first + project.beats_in_bar
        return project.seconds(first), float(first), float(last), project.beats_in_bar, 4, project.tempo[0][1]

    def Undo_BeginBlock2(self, project: Project) -> None:
        assert project.open_block is None
        project.open_block = project.snapshot()

    def Undo_EndBlock2(self, project: Project, label: str, flags: float) -> None:
        assert project.open_block is not None
        assert flags == -1
        project.undo.append((label, project.open_block))
        project.open_block = None

    def Undo_DoUndo2(self, project: Project) -> int:
        project.undo_once()
        return 1

    # tracks

    def CountTracks(self, project: Project) -> int:
        return len(project.tracks)

    def GetTrack(self, project: Project, index: float) -> Track | None:
        return project.tracks[int(index)] if 0 <= index < len(project.tracks) else None

    def InsertTrackAtIndex(self, index: float, with_defaults: bool) -> None:
        self._host.project.tracks.insert(int(index), Track())

    def DeleteTrack(self, track: Track) -> None:
        project = self._project_of(track)
        project.tracks.remove(track)
        for other in project.tracks:
            other.sends = [send for send in other.sends if send.target is not track]

    def GetTrackGUID(self, track: Track) -> str:
        return track.guid

    def GetParentTrack(self, track: Track) -> Track | None:
        return self._project_of(track).parent(track)

    def CountSelectedTracks(self, project: Project) -> int:
        return len(self._selected_tracks(project))

    def GetSelectedTrack(self, project: Project, index: float) -> Track:
        return self._selected_tracks(project)[int(index)]

    def GetMediaTrackInfo_Value(self, track: Track, name: str) -> float:
        return float(track.values[name])

    def SetMediaTrackInfo_Value(self, track: Track, name: str, value: float) -> bool:
        assert name in track.values, name
        track.values[name] = float(value)
        return True

    def GetSetMediaTrackInfo_String(self, track: Track, name: str, text: str, is_set: bool) -> tuple[bool, str]:
        if name == "P_NAME":
            if is_set:
                track.name = _one_line(text)
            return True, track.name
        return _ext(track.ext, name, text, is_set)

    def ColorToNative(self, red: float, green: float, blue: float) -> int:
        return int(red) | int(green) << 8 | int(blue) << 16

    def SetTrackColor(self, track: Track, colour: float) -> None:
        track.values["I_CUSTOMCOLOR"] = int(colour)

    def GetSetTrackGroupMembership(self, track: Track, kind: str, mask: float, value: float) -> int:
        before = track.groups.get(kind, 0)
        if int(mask):
            if self._host.project.open_block is None:
                self._host.project.loose.append("GetSetTrackGroupMembership")
            track.groups[kind] = before & ~int(mask) | int(mask) & int(value)
        return before

    # sends

    def GetTrackNumSends(self, track: Track, category: float) -> int:
        assert category == 0
        return len(track.sends)

    def CreateTrackSend(self, track: Track, target: Track) -> int:
        track.sends.append(Send(target=target))
        return len(track.sends) - 1

    def RemoveTrackSend(self, track: Track, category: float, index: float) -> bool:
        del track.sends[int(index)]
        return True

    def GetTrackSendInfo_Value(self, track: Track, category: float, index: float, name: str) -> Any:
        send = track.sends[int(index)]
        return send.target if name == "P_DESTTRACK" else float(send.values[name])

    def SetTrackSendInfo_Value(self, track: Track, category: float, index: float, name: str, value: float) -> bool:
        send = track.sends[int(index)]
        assert name in send.values, name
        send.values[name] = float(value)
        return True

    def GetSetTrackSendInfo_String(
        self, track: Track, category: float, index: float, name: str, text: str, is_set: bool
    ) -> tuple[bool, str]:
        return _ext(track.sends[int(index)].ext, name, text, is_set)

    # items and takes

    def CountMediaItems(self, project: Project) -> int:
        return len(project.items())

    def GetMediaItem(self, project: Project, index: float) -> Item:
        return project.items()[int(index)]

    def CountSelectedMediaItems(self, project: Project) -> int:
        return len(self._selected_items(project))

    def GetSelectedMediaItem(self, project: Project, index: float) -> Item:
        return self._selected_items(project)[int(index)]

    def SetMediaItemSelected(self, item: Item, selected: bool) -> None:
        item.values["B_UISEL"] = float(selected)

    def CountTrackMediaItems(self, track: Track) -> int:
        return len(track.items)

    def GetTrackMediaItem(self, track: Track, index: float) -> Item:
        return track.items[int(index)]

    def GetMediaItem_Track(self, item: Item) -> Track:
        return item.track

    def AddMediaItemToTrack(self, track: Track) -> Item:
        track.items.append(Item(track=track))
        return track.items[-1]

    def DeleteTrackMediaItem(self, track: Track, item: Item) -> bool:
        track.items.remove(item)
        return True

    def GetMediaItemInfo_Value(self, item: Item, name: str) -> float:
        return float(item.values[name])

    def SetMediaItemInfo_Value(self, item: Item, name: str, value: float) -> bool:
        assert name in item.values, name
        item.values[name] = float(value)
        return True

    def GetSetMediaItemInfo_String(self, item: Item, name: str, text: str, is_set: bool) -> tuple[bool, str]:
        if name == "GUID":
            return True, item.guid
        return _ext(item.ext, name, text, is_set)

    def GetItemStateChunk(self, item: Item, text: str, is_undo: bool) -> tuple[bool, str]:
        return True, item.chunk()

    def SetItemStateChunk(self, item: Item, text: str, is_undo: bool) -> bool:
        item.read_chunk(text)
        guids = [other.guid for other in self._host.project.items()]
        guids += [take.guid for other in self._host.project.items() for take in other.takes]
        assert len(set(guids)) == len(guids), "two things with one id"
        return True

    def UpdateItemInProject(self, item: Item) -> None: ...

    def CountTakes(self, item: Item) -> int:
        return len(item.takes)

    def GetActiveTake(self, item: Item) -> Take | None:
        return item.take

    def AddTakeToMediaItem(self, item: Item) -> Take:
        item.takes.append(Take())
        return item.takes[-1]

    def TakeIsMIDI(self, take: Take) -> bool:
        return take.source is not None and take.source.kind == "MIDI"

    def GetTakeName(self, take: Take) -> str:
        return take.name

    def GetMediaItemTakeInfo_Value(self, take: Take, name: str) -> float:
        return float(take.values[name])

    def SetMediaItemTakeInfo_Value(self, take: Take, name: str, value: float) -> bool:
        assert name in take.values, name
        take.values[name] = float(value)
        return True

    def GetSetMediaItemTakeInfo_String(self, take: Take, name: str, text: str, is_set: bool) -> tuple[bool, str]:
        assert name == "P_NAME"
        if is_set:
            take.name = _one_line(text)
        return True, take.name

    def GetTakeNumStretchMarkers(self, take: Take) -> int:
        return len(take.stretch)

    def GetTakeStretchMarker(self, take: Take, index: float) -> tuple[int, float, float]:
        return (int(index), *take.stretch[int(index)])

    # sources

    def GetMediaItemTake_Source(self, take: Take) -> Source | None:
        return take.source

    def SetMediaItemTake_Source(self, take: Take, source: Source) -> bool:
        take.source = source
        return True

    def PCM_Source_CreateFromFile(self, path: str) -> Source | None:
        try:
            soundfile.info(path)
        except soundfile.LibsndfileError:
            return None
        return Source(kind="WAVE", path=path)

    def PCM_Source_Destroy(self, source: Source) -> None:
        used = [take.source for project in self._host.projects for item in project.items() for take in item.takes]
        assert source not in used, "REAPER would crash: it is in use"

    def PCM_Source_GetSectionInfo(self, source: Source) -> tuple[bool, float, float, bool]:
        return source.parent is not None, source.offset, source.length, source.reversed

    def GetMediaSourceParent(self, source: Source) -> Source | None:
        return source.parent

    def GetMediaSourceFileName(self, source: Source) -> str:
        return source.path

    def GetMediaSourceType(self, source: Source) -> str:
        return source.kind

    def GetMediaSourceSampleRate(self, source: Source) -> int:
        return soundfile.info(source.root.path).samplerate

    def GetMediaSourceNumChannels(self, source: Source) -> int:
        return soundfile.info(source.root.path).channels

    def GetMediaSourceLength(self, source: Source) -> tuple[float, bool]:
        info = soundfile.info(source.root.path)
        return (source.length if source.parent else info.frames / info.samplerate), False

    # of the model itself

    def _project_of(self, track: Track) -> Project:
        return next(project for project in self._host.projects if track in project.tracks)

    def _selected_tracks(self, project: Project) -> list[Track]:
        return [track for track in project.tracks if track.values["I_SELECTED"]]

    def _selected_items(self, project: Project) -> list[Item]:
        return [item for item in project.items() if item.values["B_UISEL"]]


def _one_line(text: str) -> str:
    assert "\n" not in text, "it would break the project file"
    return text


def _ext(ext: dict[str, str], name: str, text: str, is_set: bool) -> tuple[bool, str]:
    key = name.removeprefix("P_EXT:")
    assert key != name, f"{name} is no P_EXT"
    if is_set and text:
        assert text.isprintable(), "it would break the project file"
        ext[key] = text
    elif is_set:
        ext.pop(key, None)
    return key in ext, ext.get(key, "")
