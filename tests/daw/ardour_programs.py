"""Ardour's programs without a screen, in a home of their own: new sessions, what Ardour sees in one, its export."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from ardour_export import agreed_export

TIMEOUT_S = 60

_LOOK = r"""
local session = load_session(arg[1], arg[2])
assert(session, "can't be loaded")
local function line(...) print("@" .. table.concat({...}, "\t")) end
local function port_list(io)
	local list = {}
	for i = 0, io:n_ports():n_audio() - 1 do list[i + 1] = io:audio(i) end
	return list
end
for route in Session:get_routes():iter() do
	local vcas = {}
	for vca in route:to_slavable():masters(Session:vca_manager()):iter() do vcas[#vcas + 1] = vca:name() end
	line("route", route:name(), tostring(route:mute_control():muted()), route:gain_control():get_value(),
		("#%06X"):format(route:presentation_info_ptr():color() >> 8), table.concat(vcas, "|"),
		route:comment():match("revithion%-stems:[^\n]*") or "", route:to_track():isnil() and "bus" or "track")
	for _, out in ipairs(port_list(route:output())) do
		for other in Session:get_routes():iter() do
			for _, input in ipairs(port_list(other:input())) do
				if out:connected_to(input:name()) then line("wire", route:name(), out:name(), input:name()) end
			end
		end
	end
	local track = route:to_track()
	if not track:isnil() then
		for region in track:playlist():region_list():iter() do
			local audio = region:to_audioregion()
			local fades = audio:fade_in_active() or audio:fade_out_active()
			line("region", route:name(), region:position():samples(), region:length():samples(),
				region:start():samples(), tostring(fades), audio:scale_amplitude(), audio:n_channels())
		end
	end
end
for group in Session:route_groups():iter() do
	local names = {}
	for route in group:route_list():iter() do names[#names + 1] = route:name() end
	line("group", group:name(), table.concat(names, "|"))
end
local range = Session:locations():session_range_location()
line("range", range:start():samples(), range:_end():samples())
if arg[3] == "save" then assert(Session:save_state("", false, false, false, false, false) == 0) end
io.stdout:flush()
close_session()
quit()
"""


@dataclass(frozen=True, kw_only=True)
class SeenRegion:
    position: int
    frames: int
    start: int
    fades: bool
    gain: float
    channels: int


@dataclass(kw_only=True)
class SeenRoute:
    muted: bool
    gain: float
    colour: str
    vcas: list[str]
    marker: str
    role: str
    feeds: list[tuple[str, str]] = field(default_factory=list)
    regions: list[SeenRegion] = field(default_factory=list)


@dataclass(kw_only=True)
class SeenSession:
    """What Ardour says that it has loaded."""

    routes: dict[str, SeenRoute] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)
    range: tuple[int, int] = (0, 0)


class ArdourPrograms:
    """Ardour 7's command line programs; each call is a process of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(parents=True, exist_ok=True)
        (home / "look.lua").write_text(_LOOK, encoding="utf-8")

    def run(self, program: str, *args: str | Path) -> str:
        """Runs it; what it printed. Its exit status says nothing: it may crash when all is done."""
        done = subprocess.run(
            [program, *map(os.fspath, args)],
            env=self._environment(),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
        return done.stdout + done.stderr

    def new_session(self, folder: Path, rate: int) -> Path:
        """An empty session with a stereo master; its file."""
        output = self.run("ardour7-new_session", "-s", str(rate), folder, folder.name)
        session = folder / f"{folder.name}.ardour"
        assert session.is_file(), output
        return session

    @contextlib.contextmanager
    def holding(self, session: Path) -> Generator[None]:
        """Has a session open meanwhile."""
        script = self._home / "hold.lua"
        script.write_text('assert(load_session(arg[1], arg[2])) print("@open") io.stdout:flush() io.read()')
        process = subprocess.Popen(
            ["ardour7-lua", script, session.parent, session.stem],
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert any(line == "@open\n" for line in process.stdout)
            yield
        finally:
            process.kill()
            process.communicate()

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        return {**kept, "HOME": str(self._home), "LC_ALL": "C.UTF-8"}

    def lua(self, script: str, *args: str | Path) -> str:
        """Runs a script in ardour7-lua."""
        path = self._home / "script.lua"
        path.write_text(script, encoding="utf-8")
        return self.run("ardour7-lua", path, *args)

    def look(self, session: Path, *, save: bool = False) -> SeenSession:
        """Loads a session, and saves it again if told so."""
        output = self.run(
            "ardour7-lua", self._home / "look.lua", session.parent, session.stem, "save" if save else "look"
        )
        seen = SeenSession()
        for text in output.splitlines():
            if not text.startswith("@"):
                continue
            kind, *fields = text[1:].split("\t")
            if kind == "route":
                name, muted, gain, colour, vcas, marker, role = fields
                seen.routes[name] = SeenRoute(
                    muted=muted == "true",
                    gain=float(gain),
                    colour=colour,
                    vcas=[vca for vca in vcas.split("|") if vca],
                    marker=marker,
                    role=role,
                )
            elif kind == "wire":
                seen.routes[fields[0]].feeds.append((fields[1], fields[2]))
            elif kind == "region":
                position, frames, start, fades, gain, channels = fields[1:]
                seen.routes[fields[0]].regions.append(
                    SeenRegion(
                        position=int(position),
                        frames=int(frames),
                        start=int(start),
                        fades=fades == "true",
                        gain=float(gain),
                        channels=int(channels),
                    )
                )
            elif kind == "group":
                seen.groups[fields[0]] = fields[1].split("|")
            elif kind == "range":
                seen.range = (int(fields[0]), int(fields[1]))
        assert seen.range[1], output
        return seen

    def export(self, session: Path) -> np.ndarray:
        """What the master plays over the session's range: float32 ``[channels, frames]``."""
        path = self._home / f"{session.stem}-export.wav"

        def export() -> np.ndarray | None:
            path.unlink(missing_ok=True)
            print(self.run("ardour7-export", "-b", "float", "-o", path, session.parent, session.stem)[-1000:])
            return soundfile.read(path, dtype="float32", always_2d=True)[0].T if path.is_file() else None

        return agreed_export(export)
