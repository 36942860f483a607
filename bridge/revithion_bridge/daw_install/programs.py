"""Which DAWs our scripts run in, and where on this machine they keep their files."""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from revithion_bridge.errors import bridge_error


@dataclass(frozen=True, slots=True, kw_only=True)
class DawFolder:
    """A folder in which a version of a DAW keeps its settings.

    Attributes:
        daw: Such as ``ardour``.
        version: Its main version, such as ``7``; empty if that can't be told.
        path: The folder.
    """

    daw: str
    version: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DawProgram:
    """A DAW that our scripts run in.

    Attributes:
        name: In commands.
        title: What people call it.
        process: What its process or its file is called; group 1 is the main version where the name has it.
        folders: Environment → where it keeps its settings, by version; they need not be there.
        commands: What the program is called in the search path.
        places: Where else it may be, as patterns of absolute paths.
    """

    name: str
    title: str
    process: re.Pattern[str]
    folders: Callable[[Mapping[str, str]], dict[str, Path]]
    commands: tuple[str, ...]
    places: tuple[str, ...]


def _ardour_folders(env: Mapping[str, str]) -> dict[str, Path]:
    versions = ("7", "8")
    home = _home(env)
    if sys.platform == "win32":
        base, name = Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local"), "Ardour"
    elif sys.platform == "darwin":
        base, name = home / "Library" / "Preferences", "Ardour"
    else:
        base, name = Path(env.get("XDG_CONFIG_HOME") or home / ".config"), "ardour"
    return {version: base / f"{name}{version}" for version in versions}


def _reaper_folders(env: Mapping[str, str]) -> dict[str, Path]:
    home = _home(env)
    if sys.platform == "win32":
        base = Path(env.get("APPDATA") or home / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    return {"": base / "REAPER"}


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("USERPROFILE" if sys.platform == "win32" else "HOME") or Path.home())


PROGRAMS: dict[str, DawProgram] = {
    program.name: program
    for program in (
        # The tools beside it, ardour7-export and others, don't write its settings.
        DawProgram(
            name="ardour",
            title="Ardour 7 and 8",
            process=re.compile(r"ardour(?:-?(\d+)(?:\.[\w.~+-]*)?)?(?:\.exe)?", re.IGNORECASE),
            folders=_ardour_folders,
            commands=("ardour8", "ardour7", "ardour"),
            places=(
                "/opt/Ardour-[78]*/bin/ardour[78]",
                "/Applications/Ardour[78].app",
                "C:/Program Files/Ardour[78]/bin/Ardour.exe",
            ),
        ),
        DawProgram(
            name="reaper",
            title="REAPER 6 and 7",
            process=re.compile(r"reaper(?:\.exe)?()", re.IGNORECASE),
            folders=_reaper_folders,
            commands=("reaper",),
            places=(
                "/opt/REAPER/reaper",
                "/Applications/REAPER*.app",
                "C:/Program Files/REAPER*/reaper.exe",
            ),
        ),
    )
}


def find_program(name: str) -> DawProgram:
    """The DAW of that name.

    Raises:
        RevithionError: ``daw.unknown``.
    """
    program = PROGRAMS.get(name.lower())
    if program is None:
        raise bridge_error("daw.unknown", f"there are no scripts for {name!r}, only for {', '.join(PROGRAMS)}")
    return program


def find_folders(program: DawProgram, version: str = "") -> list[DawFolder]:
    """The folders of a DAW that are on this machine, or of one version of it."""
    return [
        DawFolder(daw=program.name, version=number, path=path)
        for number, path in program.folders(os.environ).items()
        if path.is_dir() and version in ("", number)
    ]


def find_executable(program: DawProgram) -> Path | None:
    """Where the program itself is, or None if it is nowhere that we look."""
    for command in program.commands:
        found = shutil.which(command)
        if found is not None:
            return Path(found)
    return next((Path(found) for place in program.places for found in sorted(glob.glob(place))), None)  # noqa: PTH207


def check_closed(name: str, folder: Path) -> None:
    """Makes sure that a DAW does not run with that folder: it may write its own settings over ours.

    Raises:
        RevithionError: ``daw.install``: it does.
    """
    program = find_program(name)
    for process in psutil.process_iter(["name", "exe"]):
        # Ardour's process has another name than its file on Linux; on macOS, a name may be all that is told.
        names = (Path(process.info["exe"] or "").name, process.info["name"] or "")
        found = next((match for name in names if (match := program.process.fullmatch(name)) is not None), None)
        if found is None:
            continue
        try:
            folders = program.folders(process.environ())
            used = [path for version, path in folders.items() if found[1] in (None, "", version)]
            used.append(Path(process.exe()).parent)  # of a portable installation
        except (psutil.Error, OSError):  # it is another user's, or gone
            continue
        if any(os.path.realpath(path) == os.path.realpath(folder) for path in used):
            message = f"{program.name} runs with {folder} (process {process.pid}), and may write over this"
            raise bridge_error("daw.install", f"{message}; close it first")
