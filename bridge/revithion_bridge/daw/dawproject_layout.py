"""Where things stand in a DAWproject: the master, the lanes, the tempo; and how a track leaves without a trace."""

from __future__ import annotations

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.dawproject_xml import Node, counts_beats, element_id, new_track
from revithion_bridge.errors import bridge_error

_REFERENCES = ("track", "parameter", "reference", "destination")


def channel_of(track: Node) -> Node:
    """The channel of a track, which one that a DAW wrote need not have."""
    channel = track.find("Channel")
    if channel is None:
        channel = etree.Element("Channel", role="regular", audioChannels="2")
        track.insert(0, channel)
    if not channel.get("id"):
        channel.set("id", f"{track.get('id') or element_id(track.get('comment', ''))}-channel")
    return channel


def find_master(structure: Node) -> str:
    """The id of the channel that all others go to in the end, which is made if there is none.

    DAWs give the channels of groups that role, too, but those go somewhere.
    """
    for channel in structure.iter("Channel"):
        if channel.get("role") == "master" and not channel.get("destination") and channel.get("id"):
            return channel.get("id", "")
    track = new_track("master", name="Master", colour="", role="master")
    structure.append(track)
    return channel_of(track).get("id", "")


def find_lanes(root: Node, structure: Node) -> Node:
    """What holds the lanes of all tracks, which is made if there is none."""
    arrangement = root.find("Arrangement")
    if arrangement is None:
        arrangement = etree.Element("Arrangement", id=element_id("arrangement"))
        structure.addnext(arrangement)
    lanes = arrangement.find("Lanes")
    if lanes is None:
        lanes = etree.Element("Lanes", id=element_id("lanes"))
        arrangement.insert(0, lanes)
    return lanes


def remove_track(root: Node, track: Node, master: str) -> list[Node]:
    """Takes a track away, but not the tracks in it, with all that refers to it.

    Returns:
        What was taken away besides: lanes with clips, automation, sends. Channels that went there go to the master.
    """
    parent = track.getparent()
    assert parent is not None  # it is inside <Structure>
    for inside in track.findall("Track"):
        parent.insert(parent.index(track), inside)
    parent.remove(track)
    gone = {element.get("id") for element in track.iter()} - {None}
    dropped: list[Node] = []
    for element in list(root.iter(etree.Element)):
        if not any(element.get(name) in gone for name in _REFERENCES):
            continue
        holder = element.getparent()
        if element.tag == "Channel":
            element.set("destination", master)
        else:
            dropped.append(holder if element.tag == "Target" and holder is not None else element)
    for element in dropped:
        drop(element)
    return dropped


def drop(element: Node) -> None:
    """Takes an element away from where it is, if it is anywhere."""
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def own_tempo(root: Node, plan: BusPlan) -> Tempo:
    """The project's tempo, or 120 in 4/4.

    Raises:
        RevithionError: ``daw.plan``: it changes, and the plan counts beats.
        ValueError: It is none.
    """
    in_beats = any(counts_beats(clip) for track in plan.tracks for clip in track.clips)
    if in_beats and len(root.findall("Arrangement/TempoAutomation/RealPoint")) > 1:
        raise bridge_error("daw.plan", "the project's tempo changes: give the position in seconds, or a tempo")
    tempo, signature = root.find("Transport/Tempo"), root.find("Transport/TimeSignature")
    bpm = float((tempo.get("value") if tempo is not None else None) or 120.0)
    numerator = int((signature.get("numerator") if signature is not None else None) or 4)
    denominator = int((signature.get("denominator") if signature is not None else None) or 4)
    if not bpm > 0 or numerator < 1 or denominator < 1:
        raise ValueError(f"its tempo is {bpm}, {numerator}/{denominator}")
    return Tempo(bpm=bpm, numerator=numerator, denominator=denominator)
