"""A plan on its way into the XML of a DAWproject: tracks in a folder, buses, and their clips.

Our tracks are found again by the mark in their comment, or by their id. What a user changed on them stays: names,
colours, faders, devices, automation, places. A VCA is left out: the format does not say what it governs.
"""

from __future__ import annotations

from collections.abc import Collection

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, PlannedTrack, Send, Tempo
from revithion_bridge.daw.import_report import ImportedStrip, StripRef, imported_strips, planned_strips
from revithion_bridge.daw.placement import counts_beats
from revithion_bridge.daw_files.dawproject_audio import AudioEntries
from revithion_bridge.daw_files.dawproject_layout import channel_of, find_lanes, find_master, own_tempo, remove_track
from revithion_bridge.daw_files.dawproject_xml import (
    add,
    add_send,
    element_id,
    new_clips,
    new_track,
)
from revithion_bridge.daw_files.written_marks import read_mark, write_mark
from revithion_bridge.daw_files.xml_tree import Element, drop


class ProjectTracks:
    """One plan, and the project that it goes into.

    Args:
        root: Of the project; changed in place.
        plan: What it is to contain.
        audio: Names of the files in it.
        tempo: Instead of the project's own.

    Attributes:
        changed: Whether :meth:`render` changed anything.

    Raises:
        ValueError: The project lacks what every project has.
        RevithionError: ``daw.plan``: the tempo changes, and the plan counts beats.
    """

    def __init__(self, root: Element, plan: BusPlan, audio: AudioEntries, tempo: Tempo | None) -> None:
        structure = root.find("Structure")
        if structure is None:
            raise ValueError("project.xml has no <Structure>")
        self._root = root
        self._structure = structure
        self._plan = plan
        self._planned = planned_strips(plan)
        self._audio = audio
        self._tempo = tempo or own_tempo(root, plan)
        self._master = find_master(structure)
        self._arranged = find_lanes(root, structure)
        self._found: dict[StripRef, Element] = {}
        self._touched: set[StripRef] = set()
        self.changed = False
        self._removed: dict[StripRef, str] = {}

    def render(self) -> tuple[ImportedStrip, ...]:
        """Changes the project.

        Raises:
            InputError: A file of the plan can't be read.
        """
        self._find_ours()
        created = [ref for ref in self._planned if ref not in self._found]
        self._add_folder(created)
        for ref in created:
            self._create(ref)
        for ref in self._planned:
            self._route(ref)
        for track in self._plan.tracks:
            self._place_clips(track)
        self._mute_source()
        self.changed |= bool(created or self._touched)
        names = {ref: self._found[ref].get("name", "") for ref in self._planned}
        return imported_strips(names, created=created, changed=self._touched, removed=self._removed)

    def _find_ours(self) -> None:
        """Finds what an earlier plan left, and takes away what this one does not have."""
        plan = self._plan
        wanted = {*self._planned, *([("group", "")] if plan.partial or (plan.group and plan.group.folder) else [])}
        by_id = {element_id(write_mark(plan.identity, *ref)): ref for ref in wanted}
        for track in list(self._structure.iter("Track")):
            identity, *place = read_mark(track.get("comment") or "") or ("", "", "")
            found = by_id.get(track.get("id", "")) or ((place[0], place[1]) if identity == plan.identity else None)
            if found in wanted and found not in self._found:
                self._found[found] = track
            elif found is not None and found not in wanted and not plan.partial:
                self._removed[found] = track.get("name", "")
                self._remove(track)

    def _remove(self, track: Element) -> None:
        for clips in remove_track(self._root, track, self._master):
            self._audio.release(clips)
        self.changed = True

    def _add_folder(self, created: Collection[StripRef]) -> None:
        """The folder, when the first tracks come; a user who took it away does not want it back."""
        group = self._plan.group
        if group is None or not group.folder or ("group", "") in self._found:
            return
        if all(("track", track.key) in created for track in self._plan.tracks):
            mark = write_mark(self._plan.identity, "group", "")
            folder = new_track(mark, name=group.name, colour=group.colour, role="tracks")
            folder.set("comment", mark)
            self._insert(folder)
            self._found["group", ""] = folder

    def _create(self, ref: StripRef) -> None:
        role, strip = ref[0], self._planned[ref]
        mark = write_mark(self._plan.identity, *ref)
        track = new_track(
            mark,
            name=strip.name,
            colour=strip.colour,
            role="regular" if role == "track" else "submix",
            channels=strip.channels,
            gain_db=strip.gain_db,
            muted=strip.muted,
        )
        track.set("comment", mark)
        before = [other for (kind, _), other in self._found.items() if kind == role]
        if before:
            before[-1].addnext(track)
        elif role == "track" and ("group", "") in self._found:
            self._found["group", ""].append(track)
        else:
            self._insert(track)
        self._found[ref] = track

    def _insert(self, track: Element) -> None:
        """Puts a track before the master, where DAWs look for it."""
        for at, other in enumerate(self._structure):
            channel = other.find("Channel")
            if channel is not None and channel.get("id") == self._master:
                self._structure.insert(at, track)
                return
        self._structure.append(track)

    def _route(self, ref: StripRef) -> None:
        """Where a strip goes: the master or one bus, and its sends. Levels of what is there stay as they are."""
        strip, channel = self._planned[ref], channel_of(self._found[ref])
        output = self._bus(strip.output) if strip.output else self._master
        if channel.get("destination") != output:
            channel.set("destination", output)
            self._touched.add(ref)
        wanted = [(self._bus(send.bus), send) for send in strip.sends]
        targets = {target for target, _ in wanted}
        ours = {channel_of(bus).get("id") for (kind, _), bus in self._found.items() if kind == "bus"}
        there: set[str] = set()
        for send in list(channel.iter("Send")):
            target = send.get("destination", "")
            if target in ours - targets:
                drop(send)
                self._touched.add(ref)
            there.add(target)
        for number, (target, send) in enumerate(wanted):
            if target not in there:
                self._add_send(channel, target, send, f"{write_mark(self._plan.identity, *ref)}:send:{number}")
                self._touched.add(ref)

    def _add_send(self, channel: Element, target: str, send: Send, mark: str) -> None:
        own_id = element_id(mark)
        taken = {element.get("id") for element in channel.iter("Send")}
        while own_id in taken:
            own_id += "-"
        add_send(channel, target, send, own_id)

    def _bus(self, key: str) -> str:
        """The id of the channel of a bus: of the plan, or of a track of that name, which is made if there is none."""
        if ("bus", key) in self._found:
            return channel_of(self._found["bus", key]).get("id", "")
        own_id = element_id(f"send:{key}")
        ours = list(self._found.values())
        for track in self._structure.iter("Track"):
            if track not in ours and track.find("Channel") is not None and key == track.get("name"):
                return channel_of(track).get("id", "")
            if track.get("id") == own_id:
                return channel_of(track).get("id", "")
        track = new_track(f"send:{key}", name=key, colour="", role="effect")
        channel_of(track).set("destination", self._master)
        self._insert(track)
        return channel_of(track).get("id", "")

    def _place_clips(self, planned: PlannedTrack) -> None:
        """The clips; those that are there stay if they are the same."""
        mark = write_mark(self._plan.identity, "track", planned.key)
        track = self._found["track", planned.key]
        clips = [(clip, self._audio.name(clip.file)) for clip in planned.clips]
        new: list[Element] = []
        for beats in (False, True):
            chosen = [(clip, path) for clip, path in clips if counts_beats(clip) is beats]
            if chosen:
                rate = self._plan.sample_rate
                new.append(
                    new_clips(chosen, beats=beats, mark=mark, name=planned.name, tempo=self._tempo, project_rate=rate)
                )
        lanes = next((lane for lane in self._arranged.iter("Lanes") if lane.get("track") == track.get("id")), None)
        if lanes is None:
            lanes = add(self._arranged, "Lanes", id=element_id(f"{mark}:lanes"), track=track.get("id", ""))
        there = lanes.findall("Clips")
        if [_said(node) for node in there] == [_said(node) for node in new]:
            return
        for node in there:
            self._audio.release(node)
            lanes.remove(node)
        for at, node in enumerate(new):
            lanes.insert(at, node)
        self._touched.add(("track", planned.key))

    def _mute_source(self) -> None:
        source = self._plan.source
        if source is None or not source.mute:
            return
        for track in self._structure.iter("Track"):
            mute = track.find("Channel/Mute")
            if mute is not None and track.get("id") == source.track_id and mute.get("value") != "true":
                mute.set("value", "true")
                self.changed = True


def _said(node: Element) -> bytes:
    """What an element says, however it is laid out."""
    return etree.tostring(node, method="c14n", with_tail=False)
