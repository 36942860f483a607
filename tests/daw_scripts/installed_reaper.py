"""REAPER's model with our scripts installed in it, songs on its tracks, and how tests look at a project."""

from __future__ import annotations

import importlib.resources
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import soundfile
from reaper_host import Host, Script
from reaper_project import Project, Track, place
from stand_in_desk import Desk

from revithion_bridge.connection import connection_path
from revithion_bridge.daw.mailbox import mailbox_folder

RATE = 44_100
SEPARATE, OPTIONS, LISTENER = "Separate to stems.lua", "Separate to stems (options).lua", "Stems listener.lua"
EXACT = 1e-12
"""Of sums in float64; a stem too much or too little is off by 0.1."""
HOSTILE = [
    '"; os.execute("touch /tmp/owned") --',
    "a\nb\r\nc",
    "x" * 300,
    "🥁 Drums 👩‍🎤",
    "100 % %s %d %1",
    "'single' \"double\" `back`",
    "<TRACK\n>",
    "\\",
    "../../etc",
    "]]",
]


class Reaper(Host):
    """The model with our scripts in its folder."""

    def __init__(self, folder: Path, lua: str = "lua54") -> None:
        super().__init__(lua)
        self.folder = folder
        source = importlib.resources.files("revithion_daw_scripts")
        shutil.copytree(str(source / "reaper"), folder)
        shutil.copy(str(source / "lua" / "common.lua"), folder)
        self.install(start=[sys.executable, "-m", "revithion_bridge.daemon"])

    def install(self, start: list[str]) -> None:
        """The file that the installer writes."""
        connection = str(connection_path())
        installed = {
            "v": 1,
            "mailboxes": str(mailbox_folder()),
            "connection": connection,
            "start": start,
            "version": "0",
        }
        (self.folder / "installed.json").write_text(json.dumps(installed), encoding="utf-8")

    def open(self, name: str) -> Script:
        return self.run(self.folder / name)

    def separate(self, desk: Desk) -> Script:
        """The action on what is selected, with a daemon that is done at once."""
        script = self.open(SEPARATE)
        desk.finish_all()
        script.run_to_end()
        return script


def write_song(path: Path, seconds: float = 1.0, rate: int = RATE, channels: int = 2, seed: int = 7) -> Path:
    """Noise, 16 bits."""
    samples = np.random.default_rng(seed).normal(0, 0.1, (round(rate * seconds), channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, "PCM_16")
    return path


def song_track(project: Project, song: Path, **values: float) -> Track:
    track = project.add_track("Mix")
    place(track, song, **values)
    track.values["I_SELECTED"] = 1.0
    return track


def names(project: Project) -> list[str]:
    return [track.name for track in project.tracks]


def nesting(project: Project) -> dict[str, str]:
    parents = {track.name: project.parent(track) for track in project.tracks}
    return {name: parent.name if parent else "" for name, parent in parents.items()}


def feeds(project: Project) -> dict[str, list[str]]:
    return {
        track.name: [send.target.name for send in track.sends] + ["master"] * bool(track.values["B_MAINSEND"])
        for track in project.tracks
    }
