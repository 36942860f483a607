"""Writes stems into an Ardour session that is closed, without Ardour: the audio files, then the session's file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from revithion_bridge.daw.bus_plan import BusPlan, PlannedBus, PlannedClip, PlannedTrack, Position, PositionUnit, Tempo
from revithion_bridge.daw.import_report import ImportedStrip, ImportReport, StripRef, imported_strips, planned_strips
from revithion_bridge.daw_files import ardour_groups as groupings
from revithion_bridge.daw_files import ardour_routes as routes
from revithion_bridge.daw_files.ardour_document import ArdourDocument
from revithion_bridge.daw_files.ardour_media import SessionAudio, session_audio
from revithion_bridge.daw_files.ardour_presence import check_closed
from revithion_bridge.daw_files.ardour_regions import Span, fill_playlist, grow_range, remove_unused, used_sources
from revithion_bridge.daw_files.ardour_wiring import feed
from revithion_bridge.daw_files.written_marks import read_mark, write_mark
from revithion_bridge.daw_files.xml_tree import Element
from revithion_stems.errors import RevithionError
from revithion_stems.file_set import FileSet

_EXTRA_COLOUR = "#888888"


def ardour_rate(path: Path) -> int:
    """Sample rate of a session in Hz.

    Args:
        path: The session's folder, or its file.

    Raises:
        RevithionError: ``daw.project``: there is no session that we know.
    """
    return ArdourDocument(path).rate


def write_ardour(plan: BusPlan, path: Path, tempo: Tempo | None = None) -> ImportReport:
    """Makes a closed session contain what the plan says.

    Stems are copied into the session as files of its own rate, one for each channel. A session in which all is as
    planned is not written. Blocking; one thread at a time for a session.

    Args:
        plan: What is to stand there.
        path: The session's folder, or its file.
        tempo: For positions in beats and bars; the session's own if left out.

    Raises:
        RevithionError: ``daw.project``: no session that we know, or beats where the tempo changes. ``daw.in_use``:
            it is open. ``daw.plan``: what a closed session can't hold.
        InputError: A stem can't be read.
        OutputError: The session can't be written. After any error it is as it was.
    """
    document = ArdourDocument(path)
    check_closed(document.path)
    writer = _Writer(document, plan, tempo)
    try:
        strips = writer.render()
    except RevithionError:
        raise
    except ValueError as exc:  # a number that is none
        raise document.wrong(f"damaged: {exc}") from exc
    writer.save()
    return ImportReport(target=str(document.path), strips=strips)


class _Writer:
    """One rendering: the tree first, in memory, then the files."""

    def __init__(self, document: ArdourDocument, plan: BusPlan, tempo: Tempo | None) -> None:
        self._document = document
        self._plan = plan
        self._tempo = tempo
        self._audio_folder = document.audio_folder()
        self._missing: dict[str, SessionAudio] = {}  # by the name of the first file
        self._unused: list[str] = []

    def render(self) -> tuple[ImportedStrip, ...]:
        """Changes the tree."""
        document, plan = self._document, self._plan
        spans = {track.key: [self._span(track, clip) for clip in track.clips] for track in plan.tracks}
        self._missing = {
            span.audio.names[0]: span.audio
            for found in spans.values()
            for span in found
            if not span.audio.is_in(self._audio_folder)
        }
        ours = routes.marked(document, plan.identity)
        sources = {source for route in ours.values() for source in used_sources(document, route)}
        groups = [group for route in ours.values() if (group := groupings.group_of(document, route)) is not None]
        vcas = sorted({number for route in ours.values() for number in groupings.vcas_of(route)})
        strips = [*plan.tracks, *plan.buses, *self._extra_buses(ours)]
        markers = {self._marker(strip): strip for strip in strips}
        removed: dict[StripRef, str] = {}
        if not plan.partial:
            for line in [line for line in ours if line not in markers]:
                route = ours.pop(line)
                if (mark := read_mark(line)) is not None:
                    removed[mark[1], mark[2]] = route.get("name", "")
                routes.remove_route(document, route)
        new = {line for line in markers if line not in ours}
        for line in markers:
            if line in new:
                ours[line] = routes.add_route(document, plan, markers[line])
        self._gather({line: ours[line] for line in markers if line in new}, groups, vcas)
        changed = {line for line, strip in markers.items() if self._connect(strip, ours, send=line in new)}
        for line in markers:
            routes.revive(ours[line])
        for track in plan.tracks:
            line = self._marker(track)
            if fill_playlist(document, ours[line], ours[line].get("name", ""), spans[track.key]) or any(
                span.audio.names[0] in self._missing for span in spans[track.key]
            ):
                changed.add(line)
                routes.forget_digest(ours[line], line)
        groupings.remove_empty(document, groups, vcas)
        self._unused = remove_unused(document, sources)
        if every := [span for found in spans.values() for span in found]:
            grow_range(document, every)
        self._mute_source(ours)
        lines = {ref: write_mark(plan.identity, *ref) for ref in planned_strips(plan)}
        return imported_strips(
            {ref: ours[line].get("name", "") for ref, line in lines.items()},
            created=[ref for ref, line in lines.items() if line in new],
            changed=[ref for ref, line in lines.items() if line in changed],
            removed=removed,
        )

    def save(self) -> None:
        """Writes what is missing or another one than before."""
        with FileSet() as files:
            for audio in self._missing.values():
                audio.write([files.new_part(self._audio_folder / name) for name in audio.names])
            if self._document.changed:
                self._document.add_to(files)
            elif not self._missing:
                return
            check_closed(self._document.path)  # copying may have taken long
            files.publish()
        for name in self._document.unused_elsewhere(self._unused):
            with contextlib.suppress(OSError):  # what can't be removed stays
                (self._audio_folder / name).unlink(missing_ok=True)

    def _marker(self, strip: PlannedTrack | PlannedBus) -> str:
        return write_mark(self._plan.identity, "track" if isinstance(strip, PlannedTrack) else "bus", strip.key)

    def _extra_buses(self, ours: Mapping[str, Element]) -> list[PlannedBus]:
        """Buses that sends name, which neither the plan nor the session has."""
        keys = {bus.key for bus in self._plan.buses}
        names = {send.bus for strip in (*self._plan.tracks, *self._plan.buses) for send in strip.sends} - keys
        return [
            PlannedBus(key=name, name=name, colour=_EXTRA_COLOUR, channels=2)
            for name in sorted(names)
            if self._named(name, ours) is None
        ]

    def _named(self, name: str, ours: Mapping[str, Element]) -> Element | None:
        """A track or bus of the session's own with that name."""
        mine = list(ours.values())
        return next((r for r in self._document.routes() if r.get("name") == name and r not in mine), None)

    def _gather(self, new: Mapping[str, Element], groups: list[Element], vcas: list[str]) -> None:
        """Puts new tracks into the group, and new buses (or tracks, where there are none) under the VCA."""
        plan, document = self._plan, self._document
        tracks = [new[line] for track in plan.tracks if (line := self._marker(track)) in new]
        if plan.group is not None and tracks:
            group = groups[0] if groups else groupings.add_group(document, plan.group)
            for route in tracks:
                groupings.join_group(group, route)
        governed = [new[line] for bus in plan.buses if (line := self._marker(bus)) in new] if plan.buses else tracks
        if plan.vca and governed:
            number = vcas[0] if vcas else groupings.add_vca(document, plan.vca)
            for route in governed:
                groupings.join_vca(route, number)

    def _connect(self, strip: PlannedTrack | PlannedBus, ours: Mapping[str, Element], *, send: bool) -> bool:
        """Leads a strip where it belongs; whether it was not."""
        document = self._document
        route = ours[self._marker(strip)]
        changed = routes.ensure_ports(route, strip.channels)
        target = document.master()
        buses = {bus.key: bus for bus in self._plan.buses}
        if strip.output:
            target = ours[self._marker(buses[strip.output])]
        changed |= feed(document, route, target, [*ours.values(), document.master()])
        for copy in strip.sends if send else ():
            line = write_mark(self._plan.identity, "bus", copy.bus)
            to = ours.get(line)
            if to is None:
                to = self._named(copy.bus, ours)
            if to is not None:
                routes.add_send(document, route, to, copy)
        return changed

    def _mute_source(self, ours: Mapping[str, Element]) -> None:
        source = self._plan.source
        if source is None or not source.mute:
            return
        others = [route for route in self._document.routes() if route not in ours.values()]
        by_id = [route for route in others if route.get("id") == source.track_id]
        by_name = [route for route in others if route.get("name") == source.track_name]
        for route in (by_id or by_name)[:1]:
            routes.mute(self._document, route)

    def _span(self, track: PlannedTrack, clip: PlannedClip) -> Span:
        audio = session_audio(track.key, clip, self._document.rate)
        start = audio.frame(clip.start_frame)
        end = max(audio.frame(clip.start_frame + clip.frames), start + 1)
        return Span(audio=audio, start=start, frames=end - start, position=self._frame(clip.position))

    def _frame(self, position: Position) -> int:
        """A place in the session's frames."""
        if position.unit is PositionUnit.FRAMES:
            return round(Fraction(position.value) * self._document.rate / self._plan.sample_rate)
        tempo = self._tempo
        if tempo is None:
            tempo = Tempo() if position.unit is PositionUnit.SECONDS else self._document.tempo()
        return tempo.frames(position, self._document.rate)
