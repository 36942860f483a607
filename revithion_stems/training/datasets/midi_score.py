"""MIDI files taken apart by stem. Pure but for reading; nothing is sounded here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revithion_stems.errors import EngineError, InputError

_DRUM_CHANNEL = 9  # the tenth, in General MIDI
_BASSES = range(32, 40)
_VOICES = (52, 53, 54, 85)  # choir aahs, voice oohs, synth voice, lead (voice); pads are no voices
_PERCUSSION = (113, 115, 116, 117, 118, 119)  # agogo, woodblock, taiko, tom, synth drum, reverse cymbal
_LONGEST_S = 1200.0
_TEMPO = 500_000  # microseconds per quarter, where a file says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A note of the drums: when in seconds, which MIDI key, how hard (0–1)."""

    at_s: float
    key: int
    velocity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MidiScore:
    """A song.

    Attributes:
        ticks_per_beat: Of the times below.
        messages: Time in ticks, message, and the stem of a note's beginning; None for what concerns all.
        duration_s: Until the last message.
    """

    ticks_per_beat: int
    messages: tuple[tuple[int, Any, str | None], ...]
    duration_s: float

    @property
    def stems(self) -> tuple[str, ...]:
        """That have notes."""
        return tuple(dict.fromkeys(stem for _, _, stem in self.messages if stem is not None))

    def write(self, path: Path, stem: str | None, *, transpose: int = 0, tempo: float = 1.0) -> None:
        """Writes one stem, or with None all of them, as a MIDI file of one track.

        All stems get all controllers, programs and tempi, and end at the same time. An end of a note that never began
        does nothing.

        Args:
            path: The file.
            stem: One of :attr:`stems`, or None.
            transpose: Semitones up, of all but the drum channel; notes that leave the keyboard stay.
            tempo: Ratio: 2 plays twice as fast.
        """
        import mido

        file = mido.MidiFile(type=0, ticks_per_beat=self.ticks_per_beat)
        track = mido.MidiTrack()
        file.tracks.append(track)
        track.append(mido.MetaMessage("set_tempo", tempo=_scaled(_TEMPO, tempo), time=0))
        now = 0
        for at, message, of_stem in self.messages:
            if of_stem is not None and stem is not None and of_stem != stem:
                continue
            changed = message
            if message.type == "set_tempo":
                changed = message.copy(tempo=_scaled(message.tempo, tempo))
            elif hasattr(message, "note") and message.channel != _DRUM_CHANNEL and 0 <= message.note + transpose < 128:
                changed = message.copy(note=message.note + transpose)
            track.append(changed.copy(time=at - now))
            now = at
        end = max((at for at, _, _ in self.messages), default=0)
        track.append(mido.MetaMessage("end_of_track", time=max(0, end - now)))
        file.save(path)

    def hits(self, *, tempo: float = 1.0) -> tuple[Hit, ...]:
        """The notes of the drum channel."""
        found: list[Hit] = []
        seconds, now, us_per_beat = 0.0, 0, _TEMPO
        for at, message, stem in self.messages:
            seconds += (at - now) / self.ticks_per_beat * us_per_beat * 1e-6 / tempo
            now = at
            if message.type == "set_tempo":
                us_per_beat = message.tempo
            elif stem is not None and message.channel == _DRUM_CHANNEL:
                found.append(Hit(at_s=seconds, key=message.note, velocity=message.velocity / 127))
        return tuple(found)


def read_score(path: Path) -> MidiScore:
    """Reads a MIDI file and sorts its notes by General MIDI's programs into drums, bass, vocals and other.

    Drums are channel 10 and percussive programs, bass is programs 33–40, vocals are the choir and voice programs 53–55
    and 86 (counted from 1); the rest is other.

    Raises:
        InputError: Not a MIDI file, damaged, without notes, or longer than 20 minutes.
        EngineError: The package ``mido`` is not installed.
    """
    mido = _mido()
    try:
        file = mido.MidiFile(path, clip=True)
        duration_s = float(file.length)
        merged: list[tuple[int, Any]] = []
        now = 0
        for message in mido.merge_tracks(file.tracks):
            now += message.time
            merged.append((now, message))
    except EOFError as exc:
        raise _unusable(path, "it ends early") from exc
    except OSError as exc:
        raise _unusable(path, exc.strerror or str(exc)) from exc
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:  # what mido lets through
        raise _unusable(path, f"it is no MIDI file, or damaged ({exc})") from exc
    if file.type == 2 or file.ticks_per_beat <= 0:
        raise _unusable(path, "its tracks are independent of each other, or its times are in SMPTE frames")
    if duration_s > _LONGEST_S:
        raise _unusable(path, f"it lasts {duration_s:.0f} s, more than {_LONGEST_S:.0f} s")
    score = MidiScore(
        ticks_per_beat=file.ticks_per_beat, messages=tuple(_sorted_into_stems(merged)), duration_s=duration_s
    )
    if not score.stems:
        raise _unusable(path, "it has no notes")
    return score


def _sorted_into_stems(messages: list[tuple[int, Any]]) -> list[tuple[int, Any, str | None]]:
    programs: dict[int, int] = {}
    kept: list[tuple[int, Any, str | None]] = []
    for at, message in messages:
        # Texts sound like nothing; system exclusives may turn other channels into drums.
        if message.type == "set_tempo":
            kept.append((at, message, None))
        elif not message.is_meta and hasattr(message, "channel"):
            if message.type == "program_change":
                programs[message.channel] = message.program
            begins = message.type == "note_on" and message.velocity > 0
            kept.append((at, message, _stem(message.channel, programs.get(message.channel, 0)) if begins else None))
    return kept


def _stem(channel: int, program: int) -> str:
    if channel == _DRUM_CHANNEL or program in _PERCUSSION:
        return "drums"
    if program in _BASSES:
        return "bass"
    return "vocals" if program in _VOICES else "other"


def _scaled(tempo: int, ratio: float) -> int:
    return min(max(round(tempo / ratio), 1), 0xFFFFFF)


def _mido() -> Any:
    try:
        import mido
    except ImportError as exc:
        raise EngineError(
            f"MIDI needs the package mido: {exc}", hint="Install it with `pip install mido`.", code="engine.missing"
        ) from exc
    return mido


def _unusable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} can't be rendered: {reason}",
        hint="Take it out of the list, or export it again as MIDI of type 0 or 1.",
        code="input.midi",
    )
