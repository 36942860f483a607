"""A plan on its way into the XML of a DAWproject: tracks in a folder, buses, and their clips.

Our tracks are found again by the mark in their comment, or by their id. What a user changed on them stays: names,
colours, faders, devices, automation, places. A VCA is left out: the format does not say what it governs.
"""

from __future__ import annotations

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, PlannedBus, PlannedTrack, Send, Tempo
from revithion_bridge.daw.dawproject_audio import AudioEntries
from revithion_bridge.daw.dawproject_layout import channel_of, drop, find_lanes, find_master, own_tempo, remove_track
from revithion_bridge.daw.dawproject_xml import (
    Node,
    add,
    add_send,
    counts_beats,
    element_id,
    new_clips,
    new_track,
)
from revithion_bridge.daw.import_report import ImportedStrip, Outcome
from revithion_bridge.daw.written_marks import read_mark, write_mark


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

    def __init__(self, root: Node, plan: BusPlan, audio: AudioEntries, tempo: Tempo | None) -> None:
        structure = root.find("Structure")
        if structure is None:
            raise ValueError("project.xml has no <Structure>")
        self._root = root
        self._structure = structure
        self._plan = plan
        self._audio = audio
        self._tempo = tempo or own_tempo(root, plan)
        self._master = find_master(structure)
        self._arranged = find_lanes(root, structure)
        self._found: dict[tuple[str, str], Node] = {}
        self._touched: set[tuple[str, str]] = set()
        self.changed = False

    def render(self) -> tuple[ImportedStrip, ...]:
        """Changes the project.

        Raises:
            InputError: A file of the plan can't be read.
        """
        plan = self._plan
        planned: list[tuple[str, PlannedTrack | PlannedBus]] = [
            *(("track", track) for track in plan.tracks),
            *(("bus", bus) for bus in plan.buses),
        ]
        self._find_ours([(role, strip.key) for role, strip in planned])
        created = {(role, strip.key) for role, strip in planned if (role, strip.key) not in self._found}
        self._add_folder(created)
        for role, strip in planned:
            if (role, strip.key) in created:
                self._create(role, strip)
        for role, strip in planned:
            self._route(role, strip)
        for track in plan.tracks:
            self._place_clips(track)
        self._mute_source()
        self.changed |= bool(created or self._touched)
        return tuple(
            ImportedStrip(
                role=role,
                key=strip.key,
                name=self._found[role, strip.key].get("name", ""),
                outcome=Outcome.CREATED
                if (role, strip.key) in created
                else Outcome.REPLACED
                if (role, strip.key) in self._touched
                else Outcome.UNCHANGED,
            )
            for role, strip in planned
        )

    def _find_ours(self, planned: list[tuple[str, str]]) -> None:
        """Finds what an earlier plan left, and takes away what this one does not have."""
        plan = self._plan
        wanted = {*planned, *([("group", "")] if plan.partial or (plan.group and plan.group.folder) else [])}
        by_id = {element_id(write_mark(plan.identity, role, key)): (role, key) for role, key in wanted}
        for track in list(self._structure.iter("Track")):
            identity, *place = read_mark(track.get("comment") or "") or ("", "", "")
            found = by_id.get(track.get("id", "")) or ((place[0], place[1]) if identity == plan.identity else None)
            if found in wanted and found not in self._found:
                self._found[found] = track
            elif found is not None and found not in wanted and not plan.partial:
                self._remove(track)

    def _remove(self, track: Node) -> None:
        for clips in remove_track(self._root, track, self._master):
            self._audio.release(clips)
        self.changed = True

    def _add_folder(self, created: set[tuple[str, str]]) -> None:
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

    def _create(self, role: str, strip: PlannedTrack | PlannedBus) -> None:
        mark = write_mark(self._plan.identity, role, strip.key)
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
        self._found[role, strip.key] = track

    def _insert(self, track: Node) -> None:
        """Puts a track before the master, where DAWs look for it."""
        for at, other in enumerate(self._structure):
            channel = other.find("Channel")
            if channel is not None and channel.get("id") == self._master:
                self._structure.insert(at, track)
                return
        self._structure.append(track)

    def _route(self, role: str, strip: PlannedTrack | PlannedBus) -> None:
        """Where a strip goes: the master or one bus, and its sends. Levels of what is there stay as they are."""
        channel = channel_of(self._found[role, strip.key])
        output = self._bus(strip.output) if strip.output else self._master
        if channel.get("destination") != output:
            channel.set("destination", output)
            self._touched.add((role, strip.key))
        wanted = [(self._bus(send.bus), send) for send in strip.sends]
        targets = {target for target, _ in wanted}
        ours = {channel_of(bus).get("id") for (kind, _), bus in self._found.items() if kind == "bus"}
        there: set[str] = set()
        for send in list(channel.iter("Send")):
            target = send.get("destination", "")
            if target in ours - targets:
                drop(send)
                self._touched.add((role, strip.key))
            there.add(target)
        for number, (target, send) in enumerate(wanted):
            if target not in there:
                self._add_send(
                    channel, target, send, f"{write_mark(self._plan.identity, role, strip.key)}:send:{number}"
                )
                self._touched.add((role, strip.key))

    def _add_send(self, channel: Node, target: str, send: Send, mark: str) -> None:
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
        new: list[Node] = []
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


def _said(node: Node) -> bytes:
    """What an element says, however it is laid out."""
    return etree.tostring(node, method="c14n", with_tail=False)
