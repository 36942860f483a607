"""Where stems go on the timeline: what people write, and what a DAW says of the items that were selected."""

from __future__ import annotations

import re
from dataclasses import dataclass

from revithion_bridge.daw.bus_plan import PROJECT_START, BusPlan, PlannedClip, Position, PositionUnit, Tempo
from revithion_bridge.errors import bridge_error
from revithion_stems.errors import RequestError

_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,3}):(\d{1,2}(?:\.\d+)?)\Z")
_COUNTED = re.compile(r"(bar|beat|frame)s?\s+(\d+(?:\.\d+)?)\Z")
_UNITS = {"bar": PositionUnit.BARS, "beat": PositionUnit.BEATS, "frame": PositionUnit.FRAMES}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceItem:
    """A clip in a DAW whose source was separated: its stems take its place.

    Attributes:
        start_frame: Which frame of the source is heard first.
        frames: How many frames of the source are heard.
        position: Where that is, on the timeline.
        play_rate: How fast; 2 is twice as fast.
        preserve_pitch: Whether another play rate leaves the pitch alone.
        gain_db: Of the clip.
        item: The DAW's own id of it.
    """

    start_frame: int = 0
    frames: int
    position: Position = PROJECT_START
    play_rate: float = 1.0
    preserve_pitch: bool = False
    gain_db: float = 0.0
    item: str = ""


def parse_alignment(text: str | float | Position) -> Position | None:
    """Where to put stems.

    Args:
        text: ``project_start``; ``item``: where the items stand that were separated; seconds as a number or a text;
            ``1:23.5`` or ``1:02:03``; ``bar 9``, ``beat 16``, ``frame 44100``; or a position.

    Returns:
        The position; None for ``item``.

    Raises:
        RequestError: It is none of these.
    """
    if isinstance(text, Position):
        return text
    if isinstance(text, int | float):
        return Position(value=float(text))
    words = text.strip().lower().replace("-", "_")
    if words == "project_start":
        return PROJECT_START
    if words == "item":
        return None
    if found := _COUNTED.match(words):
        return Position(value=float(found[2]), unit=_UNITS[found[1]])
    if found := _CLOCK.match(words):
        return Position(value=int(found[1] or 0) * 3600.0 + int(found[2]) * 60.0 + float(found[3]))
    try:
        return Position(value=float(words))
    except ValueError:
        raise RequestError(
            f"align_to: {text!r} is no position",
            hint="Write project_start, item, seconds such as 12.5, a time such as 1:02.5, or `bar 9`.",
        ) from None


def counts_beats(clip: PlannedClip) -> bool:
    """Whether only the project's tempo says where a clip is."""
    return clip.position.unit in (PositionUnit.BEATS, PositionUnit.BARS)


def check_tempo(plan: BusPlan, tempo: Tempo, *, changes: bool) -> Tempo:
    """``tempo``, which a project file says it has, if it can place a plan's clips; ``changes`` if it has others, too.

    Raises:
        RevithionError: ``daw.plan``: it changes, and the plan counts beats.
        ValueError: It is none.
    """
    if changes and any(counts_beats(clip) for track in plan.tracks for clip in track.clips):
        raise bridge_error("daw.plan", "the project's tempo changes: give the position in seconds, or a tempo")
    if not tempo.bpm > 0 or tempo.numerator < 1 or tempo.denominator < 1:
        raise ValueError(f"its tempo is {tempo.bpm}, {tempo.numerator}/{tempo.denominator}")
    return tempo
