"""Drum kits of Hydrogen: recorded drums instead of a soundfont's, played by MIDI key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from lxml import etree

from revithion_stems.audio import Float32
from revithion_stems.audio_files import read_audio
from revithion_stems.errors import InputError
from revithion_stems.training.datasets.midi_score import Hit

_FIRST_KEY = 36
"""Of Hydrogen's first instrument, where neither a number nor the name tells."""

_MOST_BYTES = 16 * 2**20
"""No drumkit.xml is that large."""

# General MIDI has 47 keys for drums, kits have some ten: what is missing is played by what comes nearest.
_NEAREST: Mapping[int, tuple[int, ...]] = {
    35: (36,),
    36: (35,),
    38: (40, 37),
    40: (38, 39),
    37: (38, 40),
    39: (38, 40),
    42: (44, 46),
    44: (42, 46),
    46: (42, 44),
    41: (43, 45, 47),
    43: (41, 45, 47),
    45: (47, 43, 41, 48),
    47: (45, 48, 43, 50),
    48: (50, 47, 45),
    50: (48, 47, 45),
    49: (57, 55, 52, 51),
    57: (49, 55, 52, 51),
    55: (49, 57),
    52: (49, 57),
    51: (59, 53, 49),
    59: (51, 53, 49),
    53: (51, 59),
}

_NAMES = (
    (r"kick|bass ?drum|\bbd", 36),
    (r"stick|rim", 37),
    (r"snare|\bsn|\bsd", 38),
    (r"clap", 39),
    (r"pedal|foot|hhp", 44),
    (r"open.*(hat|hh)|hat.*open|ohh|\bhho|hh.*open", 46),
    (r"hat|hh", 42),
    (r"floor|(low|lo).*tom|tom.*(low|lo)\b", 41),
    (r"(hi|high).*tom|tom.*(hi|high)\b", 50),
    (r"tom", 45),
    (r"splash", 55),
    (r"china", 52),
    (r"crash", 49),
    (r"cow ?bell", 56),
    (r"bell", 53),
    (r"ride", 51),
    (r"tamb", 54),
)
"""What kits call their drums, and General MIDI's key; the first that fits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """One recording: float32 ``[2, frames]``, for velocities from ``lowest`` to ``highest`` (0–1)."""

    samples: Float32
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrumKit:
    """A kit in memory.

    Attributes:
        sample_rate: Hz.
        instruments: MIDI key → recordings, at least one each.
    """

    sample_rate: int
    instruments: Mapping[int, Sequence[Layer]]

    def play(self, hits: Sequence[Hit]) -> Float32 | None:
        """The hits as float32 ``[2, frames]``; None if the kit has none of the drums."""
        sounding = [
            (round(hit.at_s * self.sample_rate), layer, hit.velocity) for hit in hits if (layer := self._layer(hit))
        ]
        if not sounding:
            return None
        mix = np.zeros((2, max(at + layer.samples.shape[1] for at, layer, _ in sounding)), np.float32)
        for at, layer, velocity in sounding:
            mix[:, at : at + layer.samples.shape[1]] += layer.samples * np.float32(velocity)
        return mix

    def _layer(self, hit: Hit) -> Layer | None:
        layers = next(
            (self.instruments[key] for key in (hit.key, *_NEAREST.get(hit.key, ())) if key in self.instruments), None
        )
        if layers is None:
            return None
        return min(layers, key=lambda layer: max(layer.lowest - hit.velocity, hit.velocity - layer.highest))


def read_drum_kit(path: Path, sample_rate: int) -> DrumKit:
    """Reads a kit.

    Args:
        path: Its ``drumkit.xml``, beside the recordings. Files outside its folder are not read.
        sample_rate: Hz to which they are resampled.

    Raises:
        InputError: Not such a file, or no recording of it can be read.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _unusable(path, "it is too large")
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
        root = etree.parse(str(path), parser).getroot()
    except (OSError, etree.XMLSyntaxError) as exc:
        raise _unusable(path, str(exc)) from exc
    found = list(root.iter("{*}instrument"))
    stated = [_number(instrument, "midiOutNote", -1.0) for instrument in found]
    if len(set(stated)) == 1:  # not filled in: kits then have 60 throughout, or nothing
        stated = [-1.0] * len(found)
    instruments: dict[int, Sequence[Layer]] = {}
    for number, (instrument, key) in enumerate(zip(found, stated, strict=True)):
        key = int(key) if key >= 0 else _key_of(instrument.findtext("{*}name") or "", _FIRST_KEY + number)
        if key in instruments:
            continue  # a second kick; the first one plays
        gain = _number(instrument, "volume", 1.0) * _number(instrument, "gain", 1.0)
        # Kits of before 2008 have one file for all velocities, without a layer around it.
        layers = list(instrument.iter("{*}layer")) or [instrument]
        read = [layer for entry in layers if (layer := _read_layer(entry, path.parent, gain, sample_rate)) is not None]
        if read:
            instruments[key] = read
    if not instruments:
        raise _unusable(path, "none of its recordings can be read")
    return DrumKit(sample_rate=sample_rate, instruments=instruments)


def _key_of(name: str, otherwise: int) -> int:
    """General MIDI's key for a drum of this name."""
    return next((key for pattern, key in _NAMES if re.search(pattern, name, re.IGNORECASE)), otherwise)


def _read_layer(layer: Any, folder: Path, gain: float, sample_rate: int) -> Layer | None:
    name = layer.findtext("{*}filename") or ""
    file = (folder / name).resolve()
    if not name or not file.is_relative_to(folder.resolve()):
        return None
    try:
        audio = read_audio(file)
    except InputError:  # kits lack recordings, or have them in formats of their own
        return None
    samples = np.broadcast_to(audio.samples[:2], (2, audio.frames))
    if audio.sample_rate != sample_rate:
        samples = soxr.resample(np.ascontiguousarray(samples.T), audio.sample_rate, sample_rate, quality="HQ").T
    return Layer(
        samples=samples * np.float32(gain * (_number(layer, "gain", 1.0) if layer.tag.endswith("layer") else 1.0)),
        lowest=_number(layer, "min", 0.0),
        highest=_number(layer, "max", 1.0),
    )


def _number(element: Any, name: str, default: float) -> float:
    try:
        value = float(element.findtext("{*}" + name) or default)
    except ValueError:
        return default
    return value if np.isfinite(value) else default


def _unusable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is no drum kit of Hydrogen that can be used: {reason}",
        hint="Name the drumkit.xml beside the kit's recordings.",
        code="input.drum_kit",
    )
