"""What a REAPER project says of itself: its sample rate and its tempo."""

from __future__ import annotations

from pathlib import Path

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.placement import check_tempo
from revithion_bridge.daw_files.project_files import damaged_project, read_project
from revithion_bridge.daw_files.rpp_document import Block, Document, line_tag, parse_document
from revithion_bridge.daw_files.rpp_tracks import even_channels, ratio_text


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
    points = sum(line_tag(child) == "PT" for envelope in root.blocks("TEMPOENVEX") for child in envelope.children)
    return check_tempo(plan, own, changes=points > 1)
