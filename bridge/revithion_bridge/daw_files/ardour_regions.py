"""Sources, regions and the session's range in the tree of an Ardour session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lxml import etree

from revithion_bridge.daw_files.ardour_document import ArdourDocument
from revithion_bridge.daw_files.ardour_media import SessionAudio, is_ours
from revithion_bridge.daw_files.xml_tree import Element
from revithion_stems.units import ratio_from_db

_OFF = (
    "muted locked video-locked automatic import sync-marked left-of-split right-of-split hidden position-locked "
    "valid-transients layering-index contents envelope-active default-fade-in default-fade-out fade-in-active "
    "fade-out-active"
)
_PLAIN = {
    **dict.fromkeys(_OFF.split(), "0"),
    "opaque": "1",
    "external": "1",
    "sync-position": "a0",
    "ancestral-start": "a0",
    "ancestral-length": "a0@a0",
    "stretch": "1",
    "shift": "1",
    "tags": "",
    "type": "audio",
    "first-edit": "nothing",
}
"""A region without fades: Ardour's usual ones of 64 frames would break the sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A clip on the session's timeline; all in the session's frames.

    Attributes:
        audio: What is heard.
        start: Which frame of it is heard first.
        frames: How many are heard.
        position: Where.
    """

    audio: SessionAudio
    start: int
    frames: int
    position: int


def fill_playlist(document: ArdourDocument, route: Element, name: str, spans: Sequence[Span]) -> bool:
    """Makes these spans the only regions of a track; whether they were not."""
    playlist = _playlist(document, route)
    wanted = [tuple(map(document.superclocks, (span.start, span.frames, span.position))) for span in spans]
    sources = {source.get("id", ""): source.get("name", "") for source in document.section("Sources")}
    if sorted(_found(region, sources) for region in playlist.findall("Region")) == sorted(
        (*place, span.audio.names, f"{ratio_from_db(span.audio.clip.gain_db):.6g}", "no fades")
        for place, span in zip(wanted, spans, strict=True)
    ):
        return False
    for region in playlist.findall("Region"):
        playlist.remove(region)
    for (start, length, position), span in zip(wanted, spans, strict=True):
        ids = [_source(document, file) for file in span.audio.names]
        whole = document.superclocks(span.audio.frames)
        if not any(region.get("source-0") == ids[0] for region in document.section("Regions")):
            _add_region(document, document.section("Regions"), name, ids, "a0", f"a{whole}@a0", whole_file="1")
        region = _add_region(document, playlist, name, ids, f"a{start}", f"a{length}@a{position}", whole_file="0")
        region.set("scale-amplitude", f"{ratio_from_db(span.audio.clip.gain_db):.17g}")
    return True


def used_sources(document: ArdourDocument, route: Element) -> set[str]:
    """Ids of the sources that a track's regions have."""
    if route.get("audio-playlist") is None:
        return set()
    return {source for region in _playlist(document, route).findall("Region") for source in _sources(region)}


def remove_unused(document: ArdourDocument, sources: set[str]) -> list[str]:
    """Removes those of the sources that are ours and in no playlist any more; the names of their files."""
    listed = document.section("Regions")
    played = {
        source
        for region in document.root.iter("Region")
        if region.getparent() is not listed
        for source in _sources(region)
    }
    triggered = {trigger.get("region") for trigger in document.root.iter("Trigger")}
    played |= {source for region in listed if region.get("id") in triggered for source in _sources(region)}
    names: list[str] = []
    for source in document.section("Sources").findall("Source"):
        name = source.get("name", "")
        if source.get("id") in sources - played and is_ours(name):
            document.section("Sources").remove(source)
            names.append(name)
            for region in listed.findall("Region"):
                if source.get("id") in _sources(region):
                    listed.remove(region)
    return names


def grow_range(document: ArdourDocument, spans: Sequence[Span]) -> None:
    """Makes the session's range hold the spans; it never shrinks."""
    first = document.superclocks(min(span.position for span in spans))
    last = document.superclocks(max(span.position + span.frames for span in spans))
    locations = document.section("Locations")
    for location in locations.findall("Location"):
        if "IsSessionRange" in location.get("flags", ""):
            start, end = location.get("start", ""), location.get("end", "")
            if start[:1] == end[:1] == "a":  # not in beats, which nobody makes of it
                location.set("start", f"a{min(first, int(start[1:]))}")
                location.set("end", f"a{max(last, int(end[1:]))}")
            return
    etree.SubElement(
        locations,
        "Location",
        {
            "id": document.new_id(),
            "name": "session",
            "start": "a0",
            "end": f"a{last}",
            "flags": "IsSessionRange",
            "locked": "0",
            "timestamp": "0",
            "cue": "0",
        },
    )


def _playlist(document: ArdourDocument, route: Element) -> Element:
    wanted = route.get("audio-playlist")
    for playlist in document.section("Playlists").findall("Playlist"):
        if playlist.get("id") == wanted:
            return playlist
    raise document.wrong(f"the track {route.get('name')!r} has no playlist")


def _found(region: Element, sources: dict[str, str]) -> tuple[int, int, int, tuple[str, ...], str, str]:
    """What tells a region from another one."""
    length, _, position = region.get("length", "").partition("@")
    times = [region.get("start", ""), length, position]
    start, long, where = (int(time[1:]) if time[:1] == "a" and time[1:].isdigit() else -1 for time in times)
    names = tuple(sources.get(source, "") for source in _sources(region))
    fades = any(region.get(f"fade-{end}-active", "1") != "0" for end in ("in", "out"))
    silent = region.get("muted", "0") != "0" or region.get("envelope-active", "0") != "0"
    gain = f"{float(region.get('scale-amplitude', '1')):.6g}"
    return start, long, where, names, gain, "fades" if fades or silent else "no fades"


def _sources(region: Element) -> list[str]:
    return [region.get(f"source-{channel}", "") for channel in range(int(region.get("channels", "1")))]


def _source(document: ArdourDocument, name: str) -> str:
    """The id of a file's source, which is made if it is not there."""
    sources = document.section("Sources")
    for source in sources.findall("Source"):
        if source.get("name") == name:
            return source.get("id", "")
    made = {
        "name": name,
        "take-id": "",
        "type": "audio",
        "flags": "",
        "id": document.new_id(),
        "natural-position": "a0",
    }
    made |= {"channel": "0", "origin": "", "gain": "1"}
    etree.SubElement(sources, "Source", made)
    return made["id"]


def _add_region(
    document: ArdourDocument,
    parent: Element,
    name: str,
    sources: Sequence[str],
    start: str,
    length: str,
    *,
    whole_file: str,
) -> Element:
    attributes = {"name": name, **_PLAIN, "start": start, "length": length, "scale-amplitude": "1"}
    attributes |= {"id": document.new_id(), "whole-file": whole_file, "channels": str(len(sources))}
    for channel, source in enumerate(sources):
        attributes |= {f"source-{channel}": source, f"master-source-{channel}": source}
    return etree.SubElement(parent, "Region", attributes)
