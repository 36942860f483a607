"""Tracks, buses and sends in the tree of an Ardour session, in the form in which Ardour writes them."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, PlannedBus, PlannedTrack, Send, marker
from revithion_bridge.daw_files.ardour_document import ArdourDocument, add_control
from revithion_bridge.daw_files.ardour_groups import group_of
from revithion_bridge.daw_files.ardour_units import port_prefix, rgba, route_name
from revithion_bridge.daw_files.written_marks import write_mark
from revithion_bridge.daw_files.xml_tree import Element, drop
from revithion_stems.units import ratio_from_db

_UNDONE = " (undone)"  # as our script in Ardour writes it
_PROCESSOR = {"active": "1", "user-latency": "0", "use-user-latency": "0"}


def marked(document: ArdourDocument, identity: str) -> dict[str, Element]:
    """Marker → route, of all that an identity has in the session. The marker is any line of a route's comment."""
    found: dict[str, Element] = {}
    for route in document.routes():
        for line in (route.findtext("Comment") or "").split("\n"):
            if line.startswith(marker(identity, "", "")[:-1]):
                found.setdefault(line.strip(), route)
    return found


def forget_digest(route: Element, line: str) -> None:
    """Empties the line below the marker: our script in Ardour notes there which clips it has put on the track.

    That Undo had put the strip away stays noted: the script shows it again when it sees the clips.
    """
    comment = route.find("Comment")
    texts = (comment.text or "").split("\n") if comment is not None else []
    at = [text.strip() for text in texts].index(line) + 1
    if comment is not None and at < len(texts):
        texts[at] = _UNDONE if texts[at].endswith(_UNDONE) else ""
        comment.text = "\n".join(texts)


def revive(route: Element) -> None:
    """Has a strip be heard that Undo had put away in Ardour."""
    if _UNDONE + "\n" in (route.findtext("Comment") or "") + "\n":
        route.set("active", "1")


def add_route(document: ArdourDocument, plan: BusPlan, strip: PlannedTrack | PlannedBus) -> Element:
    """A new track or bus, which is connected to nothing yet; a track gets an empty playlist."""
    is_track = isinstance(strip, PlannedTrack)
    name = document.unique_name(strip.name)
    ports = port_prefix(name)
    attributes = {
        "version": document.root.get("version", ""),
        "id": document.new_id(),
        "name": name,
        "default-type": "audio",
        "strict-io": "0",
        "active": "1",
        "denormal-protection": "0",
        "meter-point": "MeterPostFader",
        "disk-io-point": "DiskIOPreFader",
        "meter-type": "MeterPeak",
    }
    if is_track:
        playlist = document.new_id()
        attributes |= {
            "audio-playlist": playlist,
            "saved-meter-point": "MeterPostFader",
            "alignment-choice": "Automatic",
            "mode": "Normal",
        }
        etree.SubElement(
            document.section("Playlists"),
            "Playlist",
            {
                "id": playlist,
                "name": name,
                "type": "audio",
                "orig-track-id": attributes["id"],
                "pgroup-id": "",
                "shared-with-ids": "",
                "frozen": "0",
                "combine-ops": "0",
            },
        )
    route = etree.SubElement(document.section("Routes"), "Route", attributes)
    kind = "AudioTrack" if is_track else "AudioBus"
    etree.SubElement(
        route,
        "PresentationInfo",
        {"order": document.new_order(), "flags": f"{kind},OrderSet", "color": str(rgba(strip.colour))},
    )
    for direction in ("Input", "Output"):
        etree.SubElement(
            route, "IO", {"name": ports, "id": document.new_id(), "direction": direction, "default-type": "audio"}
        )
    ensure_ports(route, strip.channels)
    etree.SubElement(route, "MuteMaster", {"mute-point": "PostFader,Listen,Main", "muted": "0"})
    if strip.muted:
        mute(document, route)
    role = "track" if is_track else "bus"
    about = f'A stem of "{port_prefix(route_name(plan.title))}". By the next line revithion-stems finds it again.'
    etree.SubElement(route, "Comment").text = f"{about}\n{write_mark(plan.identity, role, strip.key)}"
    if is_track:
        _add_processor(document, route, "diskwriter", f"recorder:{name}", {"record-safe": "0"})
        _add_processor(document, route, "diskreader", f"player:{name}")
    else:
        _add_processor(document, route, "intreturn", "Return")
    _add_processor(document, route, "polarity", "Polarity")
    add_control(document, _add_processor(document, route, "trim", "Amp"), "trimcontrol", 1.0)
    fader = _add_processor(document, route, "amp", "Amp")
    add_control(document, fader, "gaincontrol", ratio_from_db(strip.gain_db))
    _add_processor(document, route, "meter", f"meter-{name}")
    main = {"own-input": "1", "own-output": "0", "output": ports, "role": "Main"}
    outputs = _add_processor(document, route, "main-outs", name, main)
    bypassed = "1" if strip.channels > 2 and strip.output else "0"  # the bus has a panner too, and one of them is right
    etree.SubElement(outputs, "PannerShell", {"bypassed": bypassed, "user-panner": "", "linked-to-route": "1"})
    etree.SubElement(route, "Slavable")
    return route


def ensure_ports(route: Element, channels: int) -> bool:
    """Gives a route as many inputs and outputs, if it has fewer; whether it had."""
    grew = False
    for io in route.findall("IO"):
        word = "in" if io.get("direction") == "Input" else "out"
        for number in range(len(io.findall("Port")) + 1, channels + 1):
            etree.SubElement(io, "Port", {"type": "audio", "name": f"{io.get('name')}/audio_{word} {number}"})
            grew = True
    return grew


def ports_of(route: Element, direction: str) -> list[Element]:
    """The audio ports of a route, ``Input`` or ``Output``."""
    return [
        port
        for io in route.findall("IO")
        if io.get("direction") == direction
        for port in io.findall("Port")
        if port.get("type") == "audio"
    ]


def mute(document: ArdourDocument, route: Element) -> None:
    """Mutes a route."""
    control = next((c for c in route.findall("Controllable") if c.get("name") == "mute"), None)
    if control is None:
        control = etree.SubElement(
            route, "Controllable", {"name": "mute", "id": document.new_id(), "flags": "Toggle,RealTime"}
        )
    control.set("value", "1")
    for master in route.findall("MuteMaster"):
        master.set("muted", "1")


def add_send(document: ArdourDocument, route: Element, target: Element, send: Send) -> None:
    """A copy of a route's signal to a bus, before or after the fader."""
    slots = {int(p.get("bitslot", "0")) for p in document.root.iter("Processor") if p.get("type") == "intsend"}
    attributes = {
        "own-input": "1",
        "own-output": "1",
        "role": "Aux",
        "bitslot": str(next(slot for slot in range(1, len(slots) + 2) if slot not in slots)),
        "selfdestruct": "0",
        "target": target.get("id", ""),
        "allow-feedback": "0",
    }
    processor = _add_processor(document, route, "intsend", target.get("name", ""), attributes)
    etree.SubElement(processor, "PannerShell", {"bypassed": "0", "user-panner": "", "linked-to-route": "1"})
    add_control(document, processor, "gaincontrol", ratio_from_db(send.gain_db), "GainLike,InlineControl")
    fader = next(p for p in route.findall("Processor") if p.get("type") == "amp")
    if send.pre_fader:
        fader.addprevious(processor)
    else:
        fader.addnext(processor)


def remove_route(document: ArdourDocument, route: Element) -> None:
    """Removes a route with its connections, its playlists, its place in a group, and sends to it."""
    own = {port.get("name") for port in route.iterfind("IO/Port")}
    route_id, group = route.get("id", ""), group_of(document, route)
    drop(route)
    for connection in list(document.root.iter("Connection")):
        if connection.get("other") in own:
            drop(connection)
    for processor in list(document.root.iter("Processor")):
        if processor.get("type") == "intsend" and processor.get("target") == route_id:
            drop(processor)
    kept = {other.get("audio-playlist") for other in document.routes()}
    for playlist in list(_playlists(document)):
        if playlist.get("orig-track-id") == route_id and playlist.get("id") not in kept:
            drop(playlist)
    if group is not None:
        members = group.get("routes", "").split()
        group.set("routes", "".join(f"{member} " for member in members if member != route_id))


def _playlists(document: ArdourDocument) -> Iterator[Element]:
    for section in ("Playlists", "UnusedPlaylists"):
        yield from document.section(section).findall("Playlist")


def _add_processor(
    document: ArdourDocument, route: Element, kind: str, name: str, more: dict[str, str] | None = None
) -> Element:
    attributes = {"id": document.new_id(), "name": name, **_PROCESSOR, "type": kind, **(more or {})}
    return etree.SubElement(route, "Processor", attributes)
