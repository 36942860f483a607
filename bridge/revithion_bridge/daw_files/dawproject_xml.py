"""DAWproject's XML: reading and writing it, and its elements for tracks, channels and clips."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, PlannedClip, PositionUnit, Send, Tempo
from revithion_bridge.daw_files.xml_tree import NOT_XML, Element
from revithion_stems.units import ratio_from_db
from revithion_stems.version import __version__

_LOUDEST = 2.0
"""Upper end of a fader, linear: +6 dB."""


def parse_project(data: bytes) -> Element:
    """The root of ``project.xml``; nothing outside of it is read, whatever it names.

    Raises:
        lxml.etree.XMLSyntaxError: It is no XML.
        ValueError: It is no DAWproject.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    root = etree.fromstring(data, parser)
    if root.tag != "Project" or not (root.get("version") or "").startswith("1."):
        raise ValueError(f"project.xml: <{root.tag}> of version {root.get('version')}; 1.x is known")
    return root


def write_xml(root: Element) -> bytes:
    """The bytes of a document."""
    return etree.tostring(root.getroottree(), xml_declaration=True, encoding="UTF-8")


def new_project(plan: BusPlan, tempo: Tempo) -> Element:
    """A project with nothing in it but a tempo."""
    root = etree.Element("Project", version="1.0")
    add(root, "Application", name="revithion-stems", version=__version__)
    transport = add(root, "Transport")
    ids = {name: element_id(f"{plan.identity}:{name}") for name in ("tempo", "signature", "arrangement", "lanes")}
    add(transport, "Tempo", id=ids["tempo"], name="Tempo", unit="bpm", min="20.0", max="999.0", value=repr(tempo.bpm))
    signature = {"numerator": str(tempo.numerator), "denominator": str(tempo.denominator)}
    add(transport, "TimeSignature", id=ids["signature"], **signature)
    add(root, "Structure")
    arrangement = add(root, "Arrangement", id=ids["arrangement"])
    add(arrangement, "Lanes", id=ids["lanes"], timeUnit="seconds")
    add(root, "Scenes")
    return root


def titled(title: str) -> bytes:
    """``metadata.xml`` with a title."""
    root = etree.Element("MetaData")
    etree.SubElement(root, "Title").text = clean(title)
    return write_xml(root)


def add(parent: Element, tag: str, **attributes: str) -> Element:
    """A new element at the end of ``parent``."""
    return etree.SubElement(parent, tag, {name: clean(value) for name, value in attributes.items()})


def clean(text: str) -> str:
    """``text`` without what XML can't hold."""
    return NOT_XML.sub("\ufffd", text)


def element_id(mark: str) -> str:
    """An id that follows from what the element is."""
    return "stems-" + hashlib.sha256(mark.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def new_track(
    mark: str,
    *,
    name: str,
    colour: str,
    role: str,
    channels: int = 2,
    gain_db: float = 0.0,
    muted: bool = False,
) -> Element:
    """A track with its channel; without one for the role ``tracks``, which is a folder."""
    own_id = element_id(mark)
    content = "tracks" if role == "tracks" else "audio"
    track = etree.Element("Track", contentType=content, loaded="true", id=own_id, name=clean(name))
    if colour:
        track.set("color", colour)
    if role == "tracks":
        return track
    channel = add(track, "Channel", id=own_id + "-channel", role=role, audioChannels=str(channels), solo="false")
    add(channel, "Mute", id=own_id + "-mute", name="Mute", value="true" if muted else "false")
    add(channel, "Pan", id=own_id + "-pan", name="Pan", unit="normalized", min="0.0", max="1.0", value="0.5")
    _add_volume(channel, own_id + "-volume", gain_db)
    return track


def add_send(channel: Element, destination: str, send: Send, own_id: str) -> None:
    """A send of a channel."""
    sends = channel.find("Sends")
    if sends is None:
        sends = etree.Element("Sends")
        volume = channel.find("Volume")
        channel.insert(len(channel) if volume is None else channel.index(volume), sends)
    kind = "pre" if send.pre_fader else "post"
    node = add(sends, "Send", id=own_id, destination=destination, type=kind)
    add(node, "Enable", id=own_id + "-enable", name="Enable", value="true")
    _add_volume(node, own_id + "-volume", send.gain_db)


def new_clips(
    clips: list[tuple[PlannedClip, str]], *, beats: bool, mark: str, name: str, tempo: Tempo, project_rate: int
) -> Element:
    """Clips of one track, whose places are counted in beats or in seconds.

    Args:
        clips: With the names of their files in the project.
        beats: What the places are counted in.
        mark: Of the track.
        name: What people see on the clips.
        tempo: Between beats and seconds.
        project_rate: Of positions in frames.
    """
    unit = "beats" if beats else "seconds"
    own_id = element_id(f"{mark}:{unit}")
    scale = tempo.bpm / 60.0 if beats else 1.0
    node = etree.Element("Clips", id=own_id, timeUnit=unit)
    for number, (clip, path) in enumerate(clips):
        length = clip.frames / clip.sample_rate / clip.play_rate
        place = _beats(clip, tempo) if beats else tempo.seconds(clip.position, project_rate)
        frame: Mapping[str, str] = {
            "time": repr(place),
            "duration": repr(length * scale),
            "contentTimeUnit": "seconds",
            "playStart": repr(clip.start_frame / clip.sample_rate / clip.play_rate),
            "fadeTimeUnit": "seconds",
            "fadeInTime": "0.0",
            "fadeOutTime": "0.0",
            "name": name,
        }
        inside = add(node, "Clip", **frame)
        clip_id = f"{own_id}-{number}"
        if clip.gain_db:
            inside = add(inside, "Lanes", id=clip_id + "-lanes")
            _add_audio(inside, clip, path, clip_id)
            points = add(inside, "Points", id=clip_id + "-gain", unit="linear", timeUnit="seconds")
            add(points, "Target", expression="gain")
            add(points, "RealPoint", time="0.0", value=repr(ratio_from_db(clip.gain_db)))
        else:
            _add_audio(inside, clip, path, clip_id)
    return node


def _beats(clip: PlannedClip, tempo: Tempo) -> float:
    if clip.position.unit is PositionUnit.BEATS:
        return clip.position.value
    return (clip.position.value - 1.0) * tempo.numerator * 4.0 / tempo.denominator


def _add_audio(parent: Element, clip: PlannedClip, path: str, own_id: str) -> None:
    duration = clip.file_frames / clip.sample_rate
    warped = clip.play_rate != 1.0
    if warped:
        parent = add(parent, "Warps", id=own_id + "-warps", timeUnit="seconds", contentTimeUnit="seconds")
    algorithm = "raw" if not warped else "stretch" if clip.preserve_pitch else "repitch"
    layout = {"channels": str(clip.channels), "sampleRate": str(clip.sample_rate), "duration": repr(duration)}
    audio = add(parent, "Audio", id=own_id + "-audio", algorithm=algorithm, **layout)
    add(audio, "File", path=path)
    if warped:
        add(parent, "Warp", time="0.0", contentTime="0.0")
        add(parent, "Warp", time=repr(duration / clip.play_rate), contentTime=repr(duration))


def _add_volume(parent: Element, own_id: str, gain_db: float) -> None:
    value = ratio_from_db(gain_db)
    highest = repr(max(_LOUDEST, value))
    add(parent, "Volume", id=own_id, name="Volume", unit="linear", min="0.0", max=highest, value=repr(value))
