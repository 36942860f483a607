"""A plan in a project of REAPER, new or there already.

The tracks are children of a folder; buses are tracks too, which the stems feed by sends and not through the folder. Our
tracks are found again by their GUIDs, which follow from their marks, or by the mark itself, which stands in the track's
``EXT`` block, where scripts keep it as well (``P_EXT:revithion_stems``). VCAs and groups without a folder are left out.

Source: the state chunk definitions that users of REAPER keep, and projects as REAPER writes them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from revithion_bridge.daw.bus_plan import BusPlan, PlannedBus, PlannedTrack, Send, Tempo
from revithion_bridge.daw.import_report import ImportedStrip, ImportReport, StripRef, imported_strips, planned_strips
from revithion_bridge.daw_files.project_files import damaged_project, read_project, replaced_project
from revithion_bridge.daw_files.rpp_document import Block, parse_document
from revithion_bridge.daw_files.rpp_items import item_facts, planned_items, write_item
from revithion_bridge.daw_files.rpp_settings import new_document, own_tempo
from revithion_bridge.daw_files.rpp_tracks import (
    ProjectTrack,
    Receive,
    new_track,
    read_tracks,
    send_mark,
    track_guid,
    write_tracks,
)
from revithion_bridge.daw_files.written_marks import read_mark, write_mark


def write_rpp(plan: BusPlan, path: Path, tempo: Tempo | None = None) -> ImportReport:
    """Makes a project contain what the plan says; see :meth:`revithion_bridge.daw.session.DawSession.render`.

    Args:
        plan: Its files stay where they are; those below the project's folder are named relative to it.
        path: Of the project; made if it is not there.
        tempo: For positions in beats and bars, instead of the project's own.

    Raises:
        RevithionError: ``daw.project``: it is no project. ``daw.plan``: it can't be said in the format.
        OutputError: It can't be written.
    """
    data = read_project(path)
    try:
        document = new_document(plan, tempo or Tempo()) if data is None else parse_document(data)
        rendering = _Rendering(plan, document.root, path.resolve().parent, tempo or own_tempo(plan, document.root))
        strips = rendering.render()
    except (ValueError, IndexError) as exc:
        raise damaged_project(path, str(exc)) from exc
    content = document.encode()
    if content != data:
        with replaced_project(path) as part:
            part.write_bytes(content)
    return ImportReport(target=str(path), strips=strips)


class _Rendering:
    """One plan on its way into one project."""

    def __init__(self, plan: BusPlan, root: Block, folder: Path, tempo: Tempo) -> None:
        self._plan = plan
        self._planned = planned_strips(plan)
        self._root = root
        self._folder = folder
        self._tempo = tempo
        self._tracks = read_tracks(root)
        self._marks: dict[StripRef, ProjectTrack] = {}
        for track in self._tracks:
            identity, role, key = read_mark(track.mark) or ("", "", "")
            if identity == plan.identity:
                self._marks.setdefault((role, key), track)
        # By GUID first: a user's copy of a track has the same mark.
        by_guid = {track.guid: track for track in self._tracks}
        for ref in self._planned:
            track = by_guid.get(track_guid(write_mark(plan.identity, *ref)))
            if track is not None:
                self._marks = {other: there for other, there in self._marks.items() if there is not track}
                self._marks[ref] = track
        self._changed: set[ProjectTrack] = set()

    def render(self) -> tuple[ImportedStrip, ...]:
        """Changes the project's blocks."""
        plan = self._plan
        wanted = set(self._planned)
        if plan.group is not None and plan.group.folder:
            wanted.add(("group", ""))
        if plan.vca:  # only scripts make one
            wanted.add(("vca", ""))
        removed: dict[StripRef, str] = {}
        if not plan.partial:
            for ref in [ref for ref in self._marks if ref not in wanted]:
                track = self._marks.pop(ref)
                removed[ref] = track.name
                self._remove(track)
        created = [ref for ref in self._planned if ref not in self._marks]
        self._add_folder(created)
        for ref in created:
            self._create(ref)
        for track in plan.tracks:
            self._place_items(track)
        for ref, strip in self._planned.items():
            self._route(self._marks[ref], strip)
        self._mute_source()
        write_tracks(self._root, self._tracks)
        return imported_strips(
            {ref: self._marks[ref].name for ref in self._planned},
            created=created,
            changed=[ref for ref in self._planned if self._marks[ref] in self._changed],
            removed=removed,
        )

    def _remove(self, track: ProjectTrack) -> None:
        at = self._tracks.index(track)
        for inside in self._tracks[at + 1 : self._end_of(track)]:
            inside.depth -= 1
        self._tracks.remove(track)

    def _end_of(self, track: ProjectTrack) -> int:
        """The index after a track and all that is inside it."""
        at = self._tracks.index(track) + 1
        while at < len(self._tracks) and self._tracks[at].depth > track.depth:
            at += 1
        return at

    def _add_folder(self, created: Collection[StripRef]) -> None:
        """The folder, when the first tracks come; a user who took it away does not want it back."""
        group = self._plan.group
        if group is None or not group.folder or any(("track", track.key) not in created for track in self._plan.tracks):
            return
        if ("group", "") not in self._marks:
            channels = max(track.channels for track in self._plan.tracks)
            mark = write_mark(self._plan.identity, "group", "")
            folder = new_track(self._root, mark=mark, name=group.name, colour=group.colour, channels=channels)
            self._tracks.append(folder)
            self._marks["group", ""] = folder

    def _create(self, ref: StripRef) -> None:
        """A track after the last one of its role, or as the first one in the folder, or at the project's end."""
        role, strip = ref[0], self._planned[ref]
        track = new_track(
            self._root,
            mark=write_mark(self._plan.identity, *ref),
            name=strip.name,
            colour=strip.colour,
            channels=strip.channels,
            gain_db=strip.gain_db,
            muted=strip.muted,
        )
        before = [other for (kind, _), other in self._marks.items() if kind == role]
        folder = self._marks.get(("group", ""))
        if before:
            last = max(before, key=self._tracks.index)
            track.depth = last.depth
            self._tracks.insert(self._end_of(last), track)
        elif role == "track" and folder is not None:
            track.depth = folder.depth + 1
            self._tracks.insert(self._end_of(folder), track)
        else:
            self._tracks.append(track)
        self._marks[ref] = track

    def _place_items(self, planned: PlannedTrack) -> None:
        """The clips, unless items that start, last and sound alike are all that is there."""
        track = self._marks["track", planned.key]
        items = planned_items(planned, self._plan, self._tempo, self._folder)
        there = track.block.blocks("ITEM")
        if [item_facts(item, self._folder) for item in there] == [item.facts for item in items]:
            return
        track.block.children = [child for child in track.block.children if child not in there]
        for item in items:
            write_item(track.block, item)
        self._changed.add(track)

    def _route(self, track: ProjectTrack, strip: PlannedTrack | PlannedBus) -> None:
        """Where a strip goes: the master or one bus, and its sends. Levels of what is there stay as they are."""
        parent = "0" if strip.output else "1"
        words = track.block.words("MAINSEND") or ["1", "0"]
        if words[0] != parent:
            track.block.set_words("MAINSEND", [parent, *words[1:]])
            self._changed.add(track)
        if track.widen(strip.channels):
            self._changed.add(track)
        wanted = [(self._bus(send.bus), send) for send in strip.sends]
        if strip.output:
            wanted.insert(0, (self._bus(strip.output), Send(bus=strip.output)))
        for bus in set(self._marks.values()):
            ours = [receive for receive in bus.receives if receive.source is track]
            for receive in ours[sum(target is bus for target, _ in wanted) :]:
                bus.receives.remove(receive)
                self._changed.add(track)
        for target, send in wanted:
            count = sum(other is target for other, _ in wanted)
            if sum(receive.source is track for receive in target.receives) < count:
                target.receives.append(Receive.of(track, send, strip.channels))
                target.widen(strip.channels)
                self._changed.add(track)

    def _bus(self, key: str) -> ProjectTrack:
        """A bus of the plan, or a track of that name, which is made if there is none."""
        if ("bus", key) in self._marks:
            return self._marks["bus", key]
        ours = set(self._marks.values())
        for track in self._tracks:
            if track not in ours and (track.name == key or track.guid == track_guid(send_mark(key))):
                return track
        made = new_track(self._root, mark="", name=key, colour="", channels=2)
        self._tracks.append(made)
        return made

    def _mute_source(self) -> None:
        source = self._plan.source
        if source is None or not source.mute:
            return
        for track in self._tracks:
            words = track.block.words("MUTESOLO") or ["0", "0", "0"]
            if track.guid == source.track_id.upper() and words[0] != "1":
                track.block.set_words("MUTESOLO", ["1", *words[1:]])
