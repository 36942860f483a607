"""Where things stand in a DAWproject: the master, the lanes, the tempo; and how a track leaves without a trace."""

from __future__ import annotations

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.placement import check_tempo
from revithion_bridge.daw_files.dawproject_xml import element_id, new_track
from revithion_bridge.daw_files.xml_tree import Element, drop

_REFERENCES = ("track", "parameter", "reference", "destination")


def channel_of(track: Element) -> Element:
    """The channel of a track, which one that a DAW wrote need not have."""
    channel = track.find("Channel")
    if channel is None:
        channel = etree.Element("Channel", role="regular", audioChannels="2")
        track.insert(0, channel)
    if not channel.get("id"):
        channel.set("id", f"{track.get('id') or element_id(track.get('comment', ''))}-channel")
    return channel


def find_master(structure: Element) -> str:
    """The id of the channel that all others go to in the end, which is made if there is none.

    DAWs give the channels of groups that role, too, but those go somewhere.
    """
    for channel in structure.iter("Channel"):
        if channel.get("role") == "master" and not channel.get("destination") and channel.get("id"):
            return channel.get("id", "")
    track = new_track("master", name="Master", colour="", role="master")
    structure.append(track)
    return channel_of(track).get("id", "")


def find_lanes(root: Element, structure: Element) -> Element:
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


def remove_track(root: Element, track: Element, master: str) -> list[Element]:
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
    dropped: list[Element] = []
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


def own_tempo(root: Element, plan: BusPlan) -> Tempo:
    """The project's tempo, or 120 in 4/4.

    Raises:
        RevithionError: ``daw.plan``: it changes, and the plan counts beats.
        ValueError: It is none.
    """
    tempo, signature = root.find("Transport/Tempo"), root.find("Transport/TimeSignature")
    own = Tempo(
        bpm=float((tempo.get("value") if tempo is not None else None) or 120.0),
        numerator=int((signature.get("numerator") if signature is not None else None) or 4),
        denominator=int((signature.get("denominator") if signature is not None else None) or 4),
    )
    return check_tempo(plan, own, changes=len(root.findall("Arrangement/TempoAutomation/RealPoint")) > 1)
