"""What a DAW would play from a project file, by parsers that are not ours: ``rpp``, ``zipfile`` and lxml."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rpp
import soundfile
from lxml import etree


@dataclass(eq=False)
class Strip:
    """A track or bus: what it plays, and where that goes."""

    name: str
    gain: float
    muted: bool = False
    audio: list[tuple[int, np.ndarray]] = field(default_factory=list)
    feeds: list[tuple[Strip, float]] = field(default_factory=list)


def mix(strips: list[Strip], master: Strip) -> np.ndarray:
    """float64 ``[frames, 2]`` at the master."""
    frames = max(at + len(samples) for strip in strips for at, samples in strip.audio)
    heard: dict[Strip, np.ndarray] = {}

    def play(strip: Strip) -> np.ndarray:
        if strip not in heard:
            total = np.zeros((frames, 2))
            for at, samples in strip.audio:
                total[at : at + len(samples)] += samples
            for other in strips:
                for target, gain in other.feeds:
                    if target is strip:
                        total += gain * play(other)
            heard[strip] = np.zeros_like(total) if strip.muted else strip.gain * total
        return heard[strip]

    return play(master)


def read_rpp(path: Path) -> tuple[list[Strip], Strip]:
    """The strips of a REAPER project and its master."""
    project = rpp.loads(path.read_bytes().decode("utf-8", "surrogateescape").replace("\r\n", "\n"))
    rate = int(project.find("./SAMPLERATE")[1])
    master = Strip("master", 1.0)
    tracks = project.findall("./TRACK")
    strips = [
        Strip(_field(track, "NAME", 1), float(_field(track, "VOLPAN", 1)), _field(track, "MUTESOLO", 1) == "1")
        for track in tracks
    ]
    folders: list[Strip] = []
    for track, strip in zip(tracks, strips, strict=True):
        if _field(track, "MAINSEND", 1) == "1":
            strip.feeds.append((folders[-1] if folders else master, 1.0))
        step = int(_field(track, "ISBUS", 2))
        folders = [*folders, strip] if step > 0 else folders[: len(folders) + step]
        for receive in track.findall("./AUXRECV"):
            strips[int(receive[1])].feeds.append((strip, float(receive[3])))
        for item in track.findall("./ITEM"):
            assert float(_field(item, "PLAYRATE", 1)) == 1.0
            assert _field(item, "LOOP", 1) == "0"
            assert float(_field(item, "FADEIN", 2)) == float(_field(item, "FADEOUT", 2)) == 0.0
            samples, file_rate = soundfile.read(path.parent / item.find(".//FILE")[1], always_2d=True)
            assert file_rate == rate
            start, length = (round(float(_field(item, name, 1)) * rate) for name in ("SOFFS", "LENGTH"))
            strip.audio.append((round(float(_field(item, "POSITION", 1)) * rate), samples[start : start + length]))
    return strips, master


def read_dawproject(path: Path) -> tuple[list[Strip], Strip]:
    """The strips of a DAWproject and its master."""
    with zipfile.ZipFile(path) as archive:
        root = etree.fromstring(archive.read("project.xml"))
        bpm = float(root.find("Transport/Tempo").get("value"))
        channels: dict[str, Strip] = {}
        tracks: dict[str, Strip] = {}
        for track in root.iter("Track"):
            channel = track.find("Channel")
            if channel is not None:
                strip = Strip(track.get("name"), float(channel.find("Volume").get("value")))
                strip.muted = channel.find("Mute").get("value") == "true"
                channels[channel.get("id")] = tracks[track.get("id")] = strip
        for channel in root.iter("Channel"):
            if channel.get("destination"):
                channels[channel.get("id")].feeds.append((channels[channel.get("destination")], 1.0))
            for send in channel.iter("Send"):
                gain = float(send.find("Volume").get("value"))
                channels[channel.get("id")].feeds.append((channels[send.get("destination")], gain))
        for lanes in root.find("Arrangement/Lanes").findall("Lanes"):
            for clips in lanes.findall("Clips"):
                scale = 60.0 / bpm if clips.get("timeUnit") == "beats" else 1.0
                for clip in clips.findall("Clip"):
                    assert float(clip.get("fadeInTime")) == float(clip.get("fadeOutTime")) == 0.0
                    assert clip.find(".//Warps") is None
                    file = clip.find(".//File").get("path")
                    samples, rate = soundfile.read(io.BytesIO(archive.read(file)), always_2d=True)
                    start = round(float(clip.get("playStart")) * rate)
                    length = round(float(clip.get("duration")) * scale * rate)
                    at = round(float(clip.get("time")) * scale * rate)
                    tracks[lanes.get("track")].audio.append((at, samples[start : start + length]))
    master = next(
        channels[channel.get("id")]
        for channel in root.iter("Channel")
        if channel.get("role") == "master" and not channel.get("destination")
    )
    return list(channels.values()), master


def _field(element, tag: str, at: int) -> str:
    return element.find(f"./{tag}")[at]
