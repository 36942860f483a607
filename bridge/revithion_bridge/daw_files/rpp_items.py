"""The clips of a plan as items of a REAPER project."""

from __future__ import annotations

import ntpath
import os
from dataclasses import dataclass
from pathlib import Path

from revithion_bridge.daw.bus_plan import BusPlan, PlannedTrack, Tempo
from revithion_bridge.daw_files.rpp_document import Block, quoted, split_words
from revithion_bridge.daw_files.rpp_tracks import ratio_text, track_guid
from revithion_bridge.daw_files.written_marks import write_mark
from revithion_bridge.errors import bridge_error
from revithion_stems.units import ratio_from_db

_SOURCES = {".flac": "FLAC", ".mp3": "MP3", ".ogg": "VORBIS", ".oga": "VORBIS", ".opus": "OPUS", ".wv": "WAVPACK"}
_WAVES = (".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".caf", ".au")
_OTHER_SOURCE = "VIDEO"
"""What REAPER hands to its general decoder."""

_DIGITS = 9
"""After the point, when times are compared: REAPER keeps 14, and a frame has five."""

ItemFacts = tuple[float, float, float, float, str]
"""Position, length, offset in the file, play rate, and the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedItem:
    """A clip in REAPER's terms.

    Attributes:
        facts: What has to be equal for an item that is there to stay; the user's fades and gains do not count.
        lines: Of its block, before its source.
        file: As the project names it.
        source: REAPER's name of the file's kind.
        mark: What our script in REAPER knows the item by.
    """

    facts: ItemFacts
    lines: tuple[tuple[str, tuple[str, ...]], ...]
    file: str
    source: str
    mark: str


def planned_items(track: PlannedTrack, plan: BusPlan, tempo: Tempo, folder: Path) -> list[PlannedItem]:
    """The items of a track, for a project in ``folder``.

    Raises:
        RevithionError: ``daw.plan``: the format can't name a file.
    """
    items: list[PlannedItem] = []
    for number, clip in enumerate(track.clips):
        position = tempo.seconds(clip.position, plan.sample_rate)
        length = clip.frames / clip.sample_rate / clip.play_rate
        offset = clip.start_frame / clip.sample_rate
        file = _named(Path(clip.file), folder)
        mark = f"{write_mark(plan.identity, 'track', track.key)}:{number}"
        items.append(
            PlannedItem(
                facts=_facts(position, length, offset, clip.play_rate, file, folder),
                lines=(
                    ("POSITION", (ratio_text(position),)),
                    ("SNAPOFFS", ("0",)),
                    ("LENGTH", (ratio_text(length),)),
                    ("LOOP", ("0",)),
                    ("ALLTAKES", ("0",)),
                    ("FADEIN", ("1", "0", "0", "1", "0", "0", "0")),
                    ("FADEOUT", ("1", "0", "0", "1", "0", "0", "0")),
                    ("MUTE", ("0", "0")),
                    ("SEL", ("0",)),
                    ("IGUID", (track_guid(f"{mark}:item"),)),
                    ("NAME", (track.name,)),
                    ("VOLPAN", (ratio_text(ratio_from_db(clip.gain_db)), "0", "1", "-1")),
                    ("SOFFS", (ratio_text(offset),)),
                    (
                        "PLAYRATE",
                        (ratio_text(clip.play_rate), "1" if clip.preserve_pitch else "0", "0", "-1", "0", "0.0025"),
                    ),
                    ("CHANMODE", ("0",)),
                    ("GUID", (track_guid(f"{mark}:take"),)),
                ),
                file=file,
                source=_source_kind(Path(clip.file)),
                mark=f"item:{clip.sha256}",
            )
        )
    return items


def write_item(track: Block, item: PlannedItem) -> None:
    """Adds an item at the end of a track."""
    block = track.add_block("ITEM")
    block.children = [block.line(tag, words) for tag, words in item.lines]
    source = block.add_block("SOURCE", [item.source])
    source.children.append(source.line("FILE", [item.file]))
    marks = block.add_block("EXT")
    marks.children.append(marks.line("revithion_stems", [item.mark]))


def item_facts(item: Block, folder: Path) -> ItemFacts | None:
    """What an item plays, for comparison; None if it is of another kind, such as MIDI or several takes.

    Raises:
        ValueError: A number is none.
    """
    sources = item.blocks("SOURCE")
    files = sources[0].words("FILE") if len(sources) == 1 else None
    if not files:
        return None

    position, length, offset = (float(item.word(tag, "0")) for tag in ("POSITION", "LENGTH", "SOFFS"))
    return _facts(position, length, offset, float(item.word("PLAYRATE", "1")), files[0], folder)


def _facts(position: float, length: float, offset: float, rate: float, file: str, folder: Path) -> ItemFacts:
    where = file.replace("\\", "/") if ntpath.sep == os.sep else file
    return (
        round(position, _DIGITS),
        round(length, _DIGITS),
        round(offset, _DIGITS),
        round(rate, _DIGITS),
        os.path.normcase(os.path.normpath(folder / where)),
    )


def _named(file: Path, folder: Path) -> str:
    """The file as the project names it: from its folder if it is below that."""
    try:
        name = str(file.relative_to(folder))
    except ValueError:
        name = str(file)
    if split_words(quoted(name)) != [name]:
        raise bridge_error("daw.plan", f"REAPER's projects can't hold the name of {name!r}: rename the file")
    return name


def _source_kind(file: Path) -> str:
    suffix = file.suffix.lower()
    return "WAVE" if suffix in _WAVES else _SOURCES.get(suffix, _OTHER_SOURCE)
