"""What a session's file says after Ardour has saved it, and how far an export is from what it should be."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import soundfile

TICKS = 282_240_000  # of Ardour's clock in a second


class Saved:
    """What a saved session says."""

    def __init__(self, text: str) -> None:
        root = ET.fromstring(text)
        self.rate = int(root.attrib["sample-rate"])
        self.routes = {route.attrib["name"]: route for route in root.iter("Route")}
        self.playlists = {playlist.attrib["id"]: playlist for playlist in root.iter("Playlist")}
        self.groups = {group.attrib["name"]: group.attrib for group in root.iter("RouteGroup")}
        self.vcas = [vca.attrib["name"] for vca in root.iter("VCA")]

    def wiring(self, name: str) -> list[list[str]]:
        """For each output of a strip, what it is connected with."""
        outputs = next(io for io in self.routes[name].findall("IO") if io.attrib["direction"] == "Output")
        return [[wire.attrib["other"] for wire in port.findall("Connection")] for port in outputs.findall("Port")]

    def regions(self, name: str) -> list[tuple[int, int, int]]:
        """Position, start within the source, and length of a track's regions, in frames."""
        playlist = self.playlists[self.routes[name].attrib["audio-playlist"]]
        found: list[tuple[int, int, int]] = []
        for region in playlist.findall("Region"):
            length, position = region.attrib["length"].split("@")
            found.append((self._frames(position), self._frames(region.attrib["start"]), self._frames(length)))
            assert region.attrib["fade-in-active"] == region.attrib["fade-out-active"] == "0"
            assert region.attrib["scale-amplitude"] == "1"
        return sorted(found)

    def _frames(self, ticks: str) -> int:
        frames, rest = divmod(int(ticks.removeprefix("a")) * self.rate, TICKS)
        assert rest == 0
        return frames

    def muted(self, name: str) -> bool:
        return self.routes[name].find("./Controllable[@name='mute']").attrib["value"] == "1"  # type: ignore[union-attr]

    def colour(self, name: str) -> str:
        number = int(self.routes[name].find("PresentationInfo").attrib["color"])  # type: ignore[union-attr]
        return f"#{number >> 8:06X}"


def without_looks(text: str) -> str:
    """The session without what is selected, and the number that Ardour counts up with everything that it shows."""
    return re.sub(r'id-counter="\d+"|<StripableAutomationControl [^>]*>', "", text)


def null_db(export: Path, reference: np.ndarray) -> float:
    """Level of the difference of an export and what it should be, which begins where the export does."""
    got, _ = soundfile.read(export, dtype="float64", always_2d=True)
    assert abs(len(got) - len(reference)) <= 1, (len(got), len(reference))
    frames = min(len(got), len(reference))
    error = np.sum((got[:frames] - reference[:frames]) ** 2)
    return float(10.0 * np.log10(error / np.sum(reference[:frames] ** 2) + 1e-30))
