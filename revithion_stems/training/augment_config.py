"""How often and how much stems are varied, as the table ``[augment]`` of a training configuration says it."""

from __future__ import annotations

import msgspec

from revithion_stems.errors import ConfigError

_MP3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)


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
        if not kbits_within(self.mp3_kbits):
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


def kbits_within(ends: tuple[int, int]) -> tuple[int, ...]:
    """Bit rates of MP3 in kbit/s, from the one end to the other."""
    return tuple(kbits for kbits in _MP3_KBITS if ends[0] <= kbits <= ends[1])


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
