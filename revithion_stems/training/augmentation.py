"""Variations of stems, so that a network hears more music than there is. All randomness comes from a generator.

What happens to a stem is drawn first and done afterwards: a plan says how much of the song it needs, is small, and does
the same each time. The order is speed, equaliser, room, level, panorama.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import ConfigError
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
_MP3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_EQ_BANDS = (("low", 60.0, 300.0), ("peak", 300.0, 4000.0), ("high", 2500.0, 10_000.0))
"""Kind, and from where to where its frequency is drawn (evenly in octaves), in Hz."""
_DRY_STEMS = ("bass",)
_EQ_HIGHEST = 0.4
"""Of the sample rate: bands are squeezed towards half of it."""


class AugmentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how much. Probabilities are 0–1, per stem and example; ranges are (lowest, highest), drawn evenly.

    Attributes:
        gain_probability: Of another level.
        gain_db: Its range, in dB.
        pan_probability: Of another balance of the two sides, at equal power.
        pan: Largest distance from the middle, 0–1; at 1 one side may be silent.
        polarity_probability: Of turning both sides over.
        swap_probability: Of left and right changing places.
        eq_probability: Of an equaliser: a low shelf (60–300 Hz), a peak (300–4000 Hz), a high shelf (2.5–10 kHz).
        eq_db: Largest boost or cut of each, in dB.
        reverb_probability: Of a room.
        reverb_decay_s: Range of the time in which it decays by 60 dB, in seconds.
        reverb_wet_db: Range of its power against the dry sound's, in dB.
        speed_probability: Of another speed, and with it pitch.
        speed_semitones: Largest change up or down, in semitones.
        mp3_probability: Of coding as MP3, per example, all its stems at once.
        mp3_kbits: Range of the bit rate for two channels, in kbit/s, 32–320; one of the format's rates in it is drawn.

    Raises:
        ConfigError: A value is out of its range.
    """

    gain_probability: float = 0.9
    gain_db: tuple[float, float] = (-9.0, 4.0)
    pan_probability: float = 0.3
    pan: float = 0.5
    polarity_probability: float = 0.5
    swap_probability: float = 0.5
    eq_probability: float = 0.3
    eq_db: float = 6.0
    reverb_probability: float = 0.08
    reverb_decay_s: tuple[float, float] = (0.15, 0.8)
    reverb_wet_db: tuple[float, float] = (-20.0, -8.0)
    speed_probability: float = 0.2
    speed_semitones: float = 2.0
    mp3_probability: float = 0.02
    mp3_kbits: tuple[int, int] = (64, 192)

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if name.endswith("_probability"):
                _check(name, getattr(self, name), 0.0, 1.0)
        _check("pan", self.pan, 0.0, 1.0)
        _check("eq_db", self.eq_db, 0.0, 24.0)
        _check("speed_semitones", self.speed_semitones, 0.0, 12.0)
        _check_range("gain_db", self.gain_db, -60.0, 24.0)
        _check_range("reverb_decay_s", self.reverb_decay_s, 0.01, 10.0)
        _check_range("reverb_wet_db", self.reverb_wet_db, -60.0, 12.0)
        _check_range("mp3_kbits", self.mp3_kbits, _MP3_KBITS[0], _MP3_KBITS[-1])
        if not _kbits_within(self.mp3_kbits):
            raise ConfigError(
                f"augmentation mp3_kbits = {list(self.mp3_kbits)}: no rate of MP3 lies there",
                hint=f"They are {', '.join(map(str, _MP3_KBITS))}.",
                code="config.augmentation",
            )

    @classmethod
    def none(cls) -> AugmentConfig:
        """Nothing ever happens."""
        return cls(
            gain_probability=0.0,
            pan_probability=0.0,
            polarity_probability=0.0,
            swap_probability=0.0,
            eq_probability=0.0,
            reverb_probability=0.0,
            speed_probability=0.0,
            mp3_probability=0.0,
        )


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
        rates = _kbits_within(self.config.mp3_kbits)
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


def _kbits_within(ends: tuple[int, int]) -> tuple[int, ...]:
    return tuple(kbits for kbits in _MP3_KBITS if ends[0] <= kbits <= ends[1])


def _happens(rng: np.random.Generator, probability: float) -> bool:
    return rng.random() < probability


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:  # NaN fails too
        raise ConfigError(
            f"augmentation {name} = {value:g}, allowed are {lowest:g} to {highest:g}",
            hint="Choose a value in that range; 0 as a probability turns an effect off.",
            code="config.augmentation",
        )


def _check_range(name: str, value: tuple[float, float], lowest: float, highest: float) -> None:
    for end in value:
        _check(name, end, lowest, highest)
    if value[0] > value[1]:
        raise ConfigError(
            f"augmentation {name} = {list(value)}: the lower end comes first",
            hint="Swap the two values.",
            code="config.augmentation",
        )
