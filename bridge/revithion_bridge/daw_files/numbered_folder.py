"""A plan as a folder of numbered BWF files, to be dragged into any DAW, with the plan beside them.

The files' names give the order of the tracks, their time reference gives the place of frame 0. What files can't hold
stands in ``plan.json``: names, colours, gains, buses, play rates.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.import_report import ImportedStrip, ImportReport, imported_strips, planned_strips
from revithion_bridge.daw_files.clip_audio import write_wav
from revithion_bridge.daw_files.project_files import damaged_project, read_project
from revithion_stems.digests import sha256_file
from revithion_stems.errors import RevithionError
from revithion_stems.file_set import FileSet
from revithion_stems.output_errors import output_errors
from revithion_stems.paths import safe_component

PLAN_FILE = "plan.json"
_NAME_CHARACTERS = 60


class FolderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What ``plan.json`` says.

    Attributes:
        v: Of this type: 1.
        files: Key of a track → its files, one for each clip.
        plan: The whole plan.
    """

    v: int = 1
    files: dict[str, tuple[str, ...]]
    plan: BusPlan


def write_folder(plan: BusPlan, path: Path, tempo: Tempo | None = None) -> ImportReport:
    """Writes the clips of a plan as files ``01 Drums.wav``, …; see :class:`FolderPlan` for what is beside them.

    Samples stay as they are: 16 and 24 bits, and 32-bit float, bit for bit. Other files of a folder are left alone.

    Args:
        plan: What to write. In a folder of the same identity it replaces what that one has.
        path: The folder; made if it is not there.
        tempo: By which beats and bars are counted; 120 in 4/4 if left out.

    Raises:
        RevithionError: ``daw.project``: the folder holds something else.
        InputError: A file of the plan can't be read.
        OutputError: A file can't be written.
    """
    before = _read_plan(path, plan)
    if before is not None and plan.partial:
        plan = _merged(before.plan, plan)
    names = _file_names(plan)
    changed: dict[str, bool] = {}
    with FileSet() as files:
        for track in plan.tracks:
            changed[track.key] = False
            for clip, name in zip(track.clips, names[track.key], strict=True):
                part = files.new_part(path / name, scratch=True)
                start = (tempo or Tempo()).seconds(clip.position, plan.sample_rate)
                write_wav(
                    Path(clip.file),
                    part,
                    start_frame=clip.start_frame,
                    frames=clip.frames,
                    time_reference=round(start * clip.sample_rate),
                )
                if not _same(part, path / name):
                    files.add(path / name, part)
                    changed[track.key] = True
        content = FolderPlan(files=names, plan=plan)
        if any(changed.values()) or content != before:
            with output_errors(path):
                data = msgspec.json.format(msgspec.json.encode(content))
            files.add(path / PLAN_FILE, data)
            files.publish()
            _remove_stale(path, before, names)
    return ImportReport(target=str(path), strips=_strips(plan, before, names, changed))


def _read_plan(folder: Path, plan: BusPlan) -> FolderPlan | None:
    """What an earlier plan of that identity wrote there; None for a folder that is new or empty."""
    if folder.exists() and not folder.is_dir():
        raise damaged_project(folder, "it is a file, and not a folder")
    data = read_project(folder / PLAN_FILE)
    if data is None:
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise damaged_project(folder, "other files are in that folder: choose one that is new or empty")
        return None
    try:
        before = msgspec.json.decode(data, type=FolderPlan)
    except (msgspec.DecodeError, RevithionError) as exc:
        raise damaged_project(folder / PLAN_FILE, str(exc)) from exc
    if before.plan.identity != plan.identity:
        raise damaged_project(folder, f"it holds {before.plan.title!r} in another way: choose another folder")
    return before


def _merged(before: BusPlan, plan: BusPlan) -> BusPlan:
    """Both plans; what the second one has replaces the same of the first."""
    tracks = {track.key: track for track in (*before.tracks, *plan.tracks)}
    buses = {bus.key: bus for bus in (*before.buses, *plan.buses)}
    return dataclasses.replace(plan, tracks=tuple(tracks.values()), buses=tuple(buses.values()))


def _file_names(plan: BusPlan) -> dict[str, tuple[str, ...]]:
    width = max(2, len(str(len(plan.tracks))))
    names: dict[str, tuple[str, ...]] = {}
    for number, track in enumerate(plan.tracks, start=1):
        base = safe_component(f"{number:0{width}} {track.name[:_NAME_CHARACTERS]}")
        count = len(track.clips)
        names[track.key] = tuple(f"{base}{f' {clip + 1}' if count > 1 else ''}.wav" for clip in range(count))
    return names


def _same(part: Path, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == part.stat().st_size and sha256_file(path) == sha256_file(part)


def _remove_stale(folder: Path, before: FolderPlan | None, names: dict[str, tuple[str, ...]]) -> None:
    """Takes away what the earlier plan wrote and this one does not have; never anything outside of the folder."""
    kept = {name for files in names.values() for name in files}
    for name in (name for files in (before.files if before else {}).values() for name in files):
        if name not in kept and name == safe_component(name) and name.endswith(".wav"):
            with output_errors(folder / name):
                (folder / name).unlink(missing_ok=True)


def _strips(
    plan: BusPlan, before: FolderPlan | None, names: dict[str, tuple[str, ...]], changed: dict[str, bool]
) -> tuple[ImportedStrip, ...]:
    planned, old = planned_strips(plan), planned_strips(before.plan) if before else {}
    rewritten = {("track", key) for key in changed if changed[key]}
    shown = {("track", key): files[0] for key, files in names.items() if files}
    return imported_strips(
        {ref: shown.get(ref, strip.name) for ref, strip in planned.items()},
        created=planned.keys() - old.keys(),
        changed=rewritten | {ref for ref, strip in planned.items() if old.get(ref) != strip},
    )
