"""What a REAPER project says of itself: its sample rate and its tempo."""

from __future__ import annotations

from pathlib import Path

from revithion_bridge.daw.bus_plan import BusPlan, PositionUnit, Tempo
from revithion_bridge.daw.project_files import damaged_project, read_project
from revithion_bridge.daw.rpp_document import Block, Document, parse_document
from revithion_bridge.daw.rpp_tracks import even_channels, ratio_text
from revithion_bridge.errors import bridge_error


def rpp_rate(path: Path) -> int | None:
    """The sample rate that a project fixes, in Hz; None if it leaves that to the sound card, or is not there.

    Raises:
        RevithionError: ``daw.project``: it is no project.
    """
    data = read_project(path)
    if data is None:
        return None
    try:
        words = parse_document(data).root.words("SAMPLERATE") or []
        return int(words[0]) if len(words) > 1 and words[1] == "1" else None
    except (ValueError, IndexError) as exc:
        raise damaged_project(path, str(exc)) from exc


def new_document(plan: BusPlan, tempo: Tempo) -> Document:
    """A project with nothing in it, at the plan's rate."""
    document = parse_document(b'<REAPER_PROJECT 0.1 "7.0" 0\n>\n')
    root = document.root
    channels = even_channels(max(strip.channels for strip in (*plan.tracks, *plan.buses)))
    for tag, words in (
        ("SAMPLERATE", [str(plan.sample_rate), "1", "0"]),
        ("TEMPO", [ratio_text(tempo.bpm), str(tempo.numerator), str(tempo.denominator)]),
        ("MASTER_NCH", [str(channels), "2"]),
    ):
        root.children.append(root.line(tag, words))
    return document


def own_tempo(plan: BusPlan, root: Block) -> Tempo:
    """The project's tempo.

    Raises:
        RevithionError: ``daw.plan``: it changes, and the plan counts beats.
        ValueError: It is none.
    """
    words = root.words("TEMPO") or []
    own = Tempo(
        bpm=float(words[0]) if words else 120.0,
        numerator=int(words[1]) if len(words) > 1 else 4,
        denominator=int(words[2]) if len(words) > 2 else 4,
    )
    points = [
        child for map_ in root.blocks("TEMPOENVEX") for child in map_.children if str(child).split()[:1] == ["PT"]
    ]
    units = {clip.position.unit for track in plan.tracks for clip in track.clips}
    if len(points) > 1 and units & {PositionUnit.BEATS, PositionUnit.BARS}:
        raise bridge_error("daw.plan", "the project's tempo changes: give the position in seconds, or a tempo")
    if not own.bpm > 0 or own.numerator < 1 or own.denominator < 1:
        raise ValueError(f"its tempo is {words}")
    return own
