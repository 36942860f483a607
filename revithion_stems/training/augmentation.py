"""Variations of stems, so that a network hears more music than there is. All randomness comes from a generator.

What happens to a stem is drawn first and done afterwards: a plan says how much of the song it needs, is small, and does
the same each time. The order is speed, equaliser, room, level, panorama.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import ConfigError
from revithion_stems.training.augment_config import AugmentConfig, kbits_within
from revithion_stems.training.effects import (
    Sections,
    add_room,
    change_speed,
    equalise,
    frames_for_speed,
    pan_gains,
    shelf_or_peak,
    through_mp3,
)

_MP3_SAMPLE_RATES = (32_000, 44_100, 48_000)
_EQ_BANDS = (("low", 60.0, 300.0), ("peak", 300.0, 4000.0), ("high", 2500.0, 10_000.0))
"""Kind, and from where to where its frequency is drawn (evenly in octaves), in Hz."""
_DRY_STEMS = ("bass",)
_EQ_HIGHEST = 0.4
"""Of the sample rate: bands are squeezed towards half of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AugmentPlan:
    """What happens to one stem.

    Attributes:
        sample_rate: Hz.
        speed: Ratio; 1 leaves it.
        eq: Biquads, or None.
        room: Decay in seconds, wet power in dB and seed, or None.
        gains: float32 ``[2, 1]`` of both sides, with level, polarity and panorama in it.
        swap: Whether the sides change places first.
    """

    sample_rate: int
    speed: float
    eq: Sections | None
    room: tuple[float, float, int] | None
    gains: Float32
    swap: bool

    def frames_needed(self, frames: int) -> int:
        """How many frames of the song :meth:`apply` wants for a result of ``frames``."""
        return frames_for_speed(frames, self.speed)

    def apply(self, samples: Float32, frames: int) -> Float32:
        """The variation.

        Args:
            samples: float32 ``[2, frames_needed(frames)]``; not changed.
            frames: Length of the result.

        Returns:
            float32 ``[2, frames]``, its own.
        """
        samples = change_speed(samples, self.speed, frames, self.sample_rate)
        if self.eq is not None:
            samples = equalise(samples, self.eq)
        if self.room is not None:
            decay_s, wet_db, seed = self.room
            samples = add_room(samples, decay_s=decay_s, wet_db=wet_db, seed=seed, sample_rate=self.sample_rate)
        return (samples[::-1] if self.swap else samples) * self.gains


class Augmentation:
    """Draws variations.

    Args:
        config: How often and how much.
        sample_rate: Of the stems, in Hz.

    Raises:
        ConfigError: MP3 is wanted at a rate that the format does not have.
    """

    def __init__(self, config: AugmentConfig, sample_rate: int) -> None:
        if config.mp3_probability > 0 and sample_rate not in _MP3_SAMPLE_RATES:
            raise ConfigError(
                f"mp3_probability is {config.mp3_probability:g} at {sample_rate} Hz, MP3 is made at "
                f"{', '.join(map(str, _MP3_SAMPLE_RATES))} Hz",
                hint="Set mp3_probability = 0, or train at one of these rates.",
                code="config.augmentation",
            )
        self.config = config
        self.sample_rate = sample_rate

    def draw(self, rng: np.random.Generator, stem: str = "", *, speed: float | None = None) -> AugmentPlan:
        """Draws what happens to one stem. Takes the same amount of randomness whatever comes out.

        Args:
            rng: The only source of randomness.
            stem: Its name: ``bass`` gets no room, since nobody mixes it so.
            speed: Instead of a drawn one: stems of one song that are to stay together want the same
                (:meth:`draw_speed`).
        """
        config = self.config
        drawn_speed = self.draw_speed(rng)
        gain = 10 ** (rng.uniform(*config.gain_db) / 20)
        has_gain = _happens(rng, config.gain_probability)
        position = rng.uniform(-config.pan, config.pan)
        has_position = _happens(rng, config.pan_probability)
        sign = -1.0 if _happens(rng, config.polarity_probability) else 1.0
        swap = _happens(rng, config.swap_probability)
        eq = self._draw_eq(rng)
        has_eq = _happens(rng, config.eq_probability)
        room = (
            float(rng.uniform(*config.reverb_decay_s)),
            float(rng.uniform(*config.reverb_wet_db)),
            int(rng.integers(2**32)),
        )
        has_room = _happens(rng, config.reverb_probability)
        return AugmentPlan(
            sample_rate=self.sample_rate,
            speed=drawn_speed if speed is None else speed,
            eq=eq if has_eq else None,
            room=room if has_room and stem not in _DRY_STEMS else None,
            gains=pan_gains(position if has_position else 0.0) * np.float32(sign * (gain if has_gain else 1.0)),
            swap=swap,
        )

    def draw_speed(self, rng: np.random.Generator) -> float:
        """Draws a speed alone: a ratio, mostly 1."""
        semitones = rng.uniform(-self.config.speed_semitones, self.config.speed_semitones)
        return float(2 ** (semitones / 12)) if _happens(rng, self.config.speed_probability) else 1.0

    def mix(self, rng: np.random.Generator, stems: Float32) -> Float32:
        """Sometimes gives all stems of an example the sound of MP3.

        Each is coded by itself at the same bit rate, and the mix is what they add up to: so the stems still sum to the
        mix, and a network that is right has no error. (Artefacts of the coded mix belong to no stem.)

        Args:
            rng: The only source of randomness.
            stems: float32 ``[stems, 2, frames]``; not changed.

        Returns:
            The same shape, every frame in its place.
        """
        rates = kbits_within(self.config.mp3_kbits)
        kbits = rates[int(rng.integers(len(rates)))]
        if not _happens(rng, self.config.mp3_probability):
            return stems
        return np.stack([through_mp3(stem, kbits=kbits, sample_rate=self.sample_rate) for stem in stems])

    def _draw_eq(self, rng: np.random.Generator) -> Sections:
        bands: list[Sections] = []
        for kind, low, high in _EQ_BANDS:
            frequency_hz = min(math.exp(rng.uniform(math.log(low), math.log(high))), _EQ_HIGHEST * self.sample_rate)
            gain_db = rng.uniform(-self.config.eq_db, self.config.eq_db)
            bands.append(shelf_or_peak(kind, frequency_hz, gain_db, self.sample_rate))
        return np.concatenate(bands)


def _happens(rng: np.random.Generator, probability: float) -> bool:
    return rng.random() < probability
