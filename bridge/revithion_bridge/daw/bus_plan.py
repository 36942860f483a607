"""What is to stand in a DAW, as pure data: tracks with clips, the buses that they feed, a group, a VCA.

One :class:`BusPlan` is built from stems and a preset, and is rendered by every adapter and every file writer; it goes
as JSON into scripts that run inside DAWs. Nothing here knows a DAW. All types are immutable; any thread.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

import msgspec

from revithion_bridge.errors import bridge_error

PLAN_VERSION = 1
LOWEST_GAIN_DB = -120.0
HIGHEST_GAIN_DB = 24.0

_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}\Z")
_IDENTITY = re.compile(r"[0-9a-f]{16}\Z")


class PositionUnit(enum.Enum):
    """What a position counts. Beats are quarter notes; bars begin with 1; frames are of the project's rate.

    ``SELECTION`` counts seconds from the beginning of what is selected in the DAW, when the plan is rendered.
    """

    SECONDS = "seconds"
    FRAMES = "frames"
    BEATS = "beats"
    BARS = "bars"
    SELECTION = "selection"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place on the project's timeline; DAWs that run use their own tempo map for beats and bars.

    Attributes:
        value: From the project's start, in ``unit``; 1 is the start for bars, 0 for all others.
        unit: What ``value`` counts.
    """

    value: float = 0.0
    unit: PositionUnit = PositionUnit.SECONDS

    def __post_init__(self) -> None:
        first = 1 if self.unit is PositionUnit.BARS else 0
        if not math.isfinite(self.value) or self.value < first:
            raise _wrong(f"position: {self.value} {self.unit.value} is before the project's start")


PROJECT_START = Position()
SELECTED_ITEM = Position(unit=PositionUnit.SELECTION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempo:
    """A tempo that does not change, for projects of which no more is known.

    Attributes:
        bpm: Quarter notes a minute.
        numerator: Beats in a bar.
        denominator: What note a beat is.
    """

    bpm: float = 120.0
    numerator: int = 4
    denominator: int = 4

    def seconds(self, position: Position, project_rate: int) -> float:
        """Where ``position`` is, in seconds from the project's start.

        Raises:
            RevithionError: ``daw.selection``: only a DAW that runs knows what is selected.
        """
        match position.unit:
            case PositionUnit.SECONDS:
                return position.value
            case PositionUnit.FRAMES:
                return position.value / project_rate
            case PositionUnit.BEATS:
                return position.value * 60.0 / self.bpm
            case PositionUnit.BARS:
                return (position.value - 1.0) * self.numerator * 4.0 / self.denominator * 60.0 / self.bpm
            case PositionUnit.SELECTION:
                raise bridge_error("daw.selection", "in a project that is closed, nothing is selected")

    def frames(self, position: Position, project_rate: int) -> int:
        """Where ``position`` is, in whole frames at ``project_rate``."""
        if position.unit is PositionUnit.FRAMES:
            return round(position.value)
        return round(self.seconds(position, project_rate) * project_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedClip:
    """A piece of a file on a track. No fades: they would break the sum.

    Attributes:
        file: Absolute path of the audio file.
        channels: Of the file, 1 to 8.
        sample_rate: Of the file, Hz.
        file_frames: Length of the file, in its own frames.
        start_frame: Which frame of the file is heard first.
        frames: How many frames of the file are heard.
        position: Where that is, on the timeline.
        play_rate: How fast: 2 is twice as fast.
        preserve_pitch: Whether another play rate leaves the pitch alone.
        gain_db: Of the clip.
        sha256: Of the file, or empty; tells a renderer whether it has the file already.
        item: The DAW's own id of the item whose source was separated, or empty. Where a DAW can copy an item and
            replace its source, everything else of the item survives.
    """

    file: str
    channels: int
    sample_rate: int
    file_frames: int
    start_frame: int = 0
    frames: int
    position: Position = PROJECT_START
    play_rate: float = 1.0
    preserve_pitch: bool = False
    gain_db: float = 0.0
    sha256: str = ""
    item: str = ""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.start_frame < 0 or self.start_frame + self.frames > self.file_frames:
            raise _wrong(f"clip of {self.file}: {self.frames} frames from {self.start_frame} on, of {self.file_frames}")
        if not 0.0 < self.play_rate < math.inf:
            raise _wrong(f"play_rate: {self.play_rate} is not above 0")
        _check_gain(self.gain_db)


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A copy of a track's or bus's signal that goes to a bus, beside its output.

    Attributes:
        bus: Key of a bus of the plan, or the name of one that the project has (made if it has not).
        gain_db: Of the copy.
        pre_fader: Whether it is taken before the fader.
    """

    bus: str
    gain_db: float = 0.0
    pre_fader: bool = False

    def __post_init__(self) -> None:
        _check_gain(self.gain_db)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrack:
    """A track of one stem.

    Attributes:
        key: The stem; unique among the tracks.
        name: What people see. Any text of one line.
        colour: ``#RRGGBB``.
        channels: 1 to 8.
        clips: In the order of time.
        output: Key of the bus that it feeds, and nothing else; empty for the master.
        gain_db: Of its fader.
        muted: Whether it is.
        sends: Beside the output.
    """

    key: str
    name: str
    colour: str
    channels: int
    clips: tuple[PlannedClip, ...]
    output: str = ""
    gain_db: float = 0.0
    muted: bool = False
    sends: tuple[Send, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBus:
    """A bus; attributes as of :class:`PlannedTrack`. ``output`` is another bus, or the master if empty."""

    key: str
    name: str
    colour: str
    channels: int
    output: str = ""
    gain_db: float = 0.0
    muted: bool = False
    sends: tuple[Send, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGroup:
    """What holds the tracks together: a group, or a folder where the DAW has those.

    Attributes:
        name: What people see.
        colour: ``#RRGGBB``.
        folder: Whether the tracks go into a folder, in DAWs that have folders.
    """

    name: str
    colour: str = "#FF8800"
    folder: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """What the stems were made from, in the project.

    Attributes:
        track_id: The DAW's own id of the track.
        track_name: For people.
        mute: Whether it is muted once the stems are there.
    """

    track_id: str
    track_name: str
    mute: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BusPlan:
    """Tracks and buses for the stems of one source. Rendering it again replaces what it rendered before.

    Attributes:
        identity: 16 hexadecimal digits; the same for what replaces each other. See :func:`marker`.
        title: Name of the song, for people.
        tracks: In the order in which they stand.
        buses: In the order in which they stand.
        group: Of the tracks, or None.
        vca: Name of the VCA that governs the buses, or empty.
        source: What is muted, or None.
        project_rate: Rate of the project that it is for, in Hz; None where only the DAW knows. Positions in frames
            are at this rate, or else at that of the stems.
        partial: Whether tracks and buses of this identity that are not in the plan stay; they go otherwise.
        version: Of this type.

    Raises:
        RevithionError: ``daw.plan``: keys that are not unique, a bus that is not there, buses that feed each other.
    """

    identity: str
    title: str
    tracks: tuple[PlannedTrack, ...]
    buses: tuple[PlannedBus, ...] = ()
    group: PlannedGroup | None = None
    vca: str = ""
    source: PlannedSource | None = None
    project_rate: int | None = None
    partial: bool = False
    version: int = PLAN_VERSION

    def __post_init__(self) -> None:
        if self.version != PLAN_VERSION:
            raise _wrong(f"version: {self.version}; this program knows {PLAN_VERSION}")
        if not _IDENTITY.match(self.identity):
            raise _wrong(f"identity: {self.identity!r} is not 16 hexadecimal digits")
        if not self.tracks:
            raise _wrong("tracks: there are none")
        buses = {bus.key: bus for bus in self.buses}
        for strips in (self.tracks, self.buses):
            keys = [strip.key for strip in strips]
            if len(set(keys)) < len(keys):
                raise _wrong(f"keys: {keys} are not unique")
        for strip in (*self.tracks, *self.buses):
            if not strip.key or (strip.output and strip.output not in buses):
                raise _wrong(f"{strip.name!r} feeds {strip.output!r}, which is no bus of the plan")
            if not _COLOUR.match(strip.colour):
                raise _wrong(f"colour: {strip.colour!r} is not like #56B4E9")
            if not 1 <= strip.channels <= 8:
                raise _wrong(f"channels: {strip.channels}; 1 to 8 are possible")
            _check_gain(strip.gain_db)
        for bus in self.buses:
            seen, at = {bus.key}, bus
            while at.output:
                at = buses[at.output]
                if at.key in seen:
                    raise _wrong(f"bus {bus.key!r} feeds itself")
                seen.add(at.key)

    @property
    def sample_rate(self) -> int:
        """Rate of the timeline, in Hz: the project's, or else that of the first clip."""
        if self.project_rate is not None:
            return self.project_rate
        return next((clip.sample_rate for track in self.tracks for clip in track.clips), 44_100)


def marker(identity: str, role: str, key: str) -> str:
    """What marks a ``track``, ``bus``, ``group`` or ``vca`` in a project as ours, wherever a DAW lets us keep a text.

    Whoever finds it knows what to replace. A format that holds no blanks, or not all characters, codes the key.
    """
    return f"revithion-stems:{identity}:{role}:{key}"


def encode_plan(plan: BusPlan) -> bytes:
    """As JSON, for scripts; :func:`decode_plan` gives it back."""
    return msgspec.json.encode(plan)


def decode_plan(data: bytes) -> BusPlan:
    """From JSON.

    Raises:
        RevithionError: ``daw.plan``: it is not one.
    """
    try:
        return msgspec.json.decode(data, type=BusPlan)
    except msgspec.DecodeError as exc:
        raise _wrong(str(exc)) from exc


def _check_gain(gain_db: float) -> None:
    if not LOWEST_GAIN_DB <= gain_db <= HIGHEST_GAIN_DB:
        raise _wrong(f"gain_db: {gain_db}; {LOWEST_GAIN_DB:g} to {HIGHEST_GAIN_DB:g} are possible")


def _wrong(what: str) -> Exception:
    return bridge_error("daw.plan", f"not a plan that can be rendered: {what}")
