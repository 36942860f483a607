"""Stems that sum to a source exactly, and plans for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from revithion_bridge.daw.bus_plan import BusPlan
from revithion_bridge.daw.placement import SourceItem
from revithion_bridge.daw.plan_builder import StemPlacement, build_plan
from revithion_bridge.daw.plan_presets import PlanPreset, find_preset
from revithion_bridge.daw.stem_inputs import find_stems

RATE = 44_100
FRAMES = 9_000
STEMS = ("drums", "bass", "other", "vocals")

HOSTILE_NAMES = (
    '"; os.execute("true") --',
    "a\nb\r\nc",
    "x" * 300,
    "🎛️ 鼓 é",
    "100% %s %n",
    "\"double\" 'single' `back`",
    "<TRACK",
    ">",
    "| # ; &amp; <!-- ]]>",
    "../../etc/passwd",
    "\x00\x07\ud800",
)


def write_stems(folder: Path, *, seed: int = 1, names: tuple[str, ...] = STEMS, subtype: str = "FLOAT") -> np.ndarray:
    """Writes stems on the grid of 2^-22; returns their sum ``[frames, 2]``, which is exact in any order."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    total = np.zeros((FRAMES, 2))
    for name in names:
        samples = noise.integers(-(2**19), 2**19, (FRAMES, 2)) / 2.0**22
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype=subtype)
        total += samples
    return total


def make_plan(
    folder: Path,
    preset: str | PlanPreset = "4-stems-to-buses",
    *,
    items: tuple[SourceItem, ...] = (),
    title: str = "Song",
    **changes: object,
) -> BusPlan:
    """A plan for the stems in a folder; always of the same identity."""
    found = find_stems(folder, folder)
    placement = StemPlacement(stems=found.stems, items=items)
    plan = build_plan([placement], find_preset(preset), identity="0123456789abcdef", title=title)
    return dataclasses.replace(plan, **changes)


def renamed(plan: BusPlan, names: tuple[str, ...]) -> BusPlan:
    """The plan with these names and keys on its tracks and buses, in turn."""
    tracks, buses = [], []
    for number, track in enumerate(plan.tracks):
        name = names[number % len(names)] + str(number)
        tracks.append(dataclasses.replace(track, key=name, name=name, output=name))
        buses.append(dataclasses.replace(plan.buses[number], key=name, name=f"{name} bus"))
    group = dataclasses.replace(plan.group, name=names[0]) if plan.group else None
    return dataclasses.replace(plan, title=names[0], tracks=tuple(tracks), buses=tuple(buses), group=group)
