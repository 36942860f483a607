"""The tracks of a REAPER project: their order, folders, and the sends between them, which count tracks by their place.

A track that comes or goes shifts the places of those after it, so that all sends are read before and written after.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from revithion_bridge.daw.bus_plan import Send
from revithion_bridge.daw_files.rpp_document import Block, line_tag, split_words
from revithion_stems.units import ratio_from_db

_MARK_NAME = "revithion_stems"
_RECEIVE_ENVELOPES = ("AUXVOLENV", "AUXPANENV", "AUXMUTEENV")
_POST_FADER, _PRE_FADER = "0", "3"


@dataclass(slots=True, eq=False)
class Receive:
    """What a track gets from another one.

    Attributes:
        source: That track; None if the project names one that it has not.
        words: Of its line, without the source.
        envelopes: Its automation, which follows its line.
        line: The line as it was read; empty for a new one.
    """

    source: ProjectTrack | None
    words: Sequence[str]
    envelopes: list[Block] = field(default_factory=list)
    line: str = ""

    @classmethod
    def of(cls, source: ProjectTrack, send: Send, channels: int) -> Receive:
        """A new one for ``channels`` channels, without an attenuation of its own at the centre."""
        # Above stereo, bits 10 and up hold half the number of channels.
        wide = str(even_channels(channels) // 2 << 10) if channels > 2 else "0"
        mode = _PRE_FADER if send.pre_fader else _POST_FADER
        return cls(
            source=source,
            words=[mode, ratio_text(ratio_from_db(send.gain_db)), "0", "0", "0", "0", wide, "0", "1:U", "0", "-1", ""],
        )


@dataclass(slots=True, eq=False)
class ProjectTrack:
    """A track.

    Attributes:
        block: Its text, of which its receives are no part until :func:`write_tracks`.
        depth: How many folders it is in.
        step: By how much the next track is deeper, as it was read; None for a new one.
        receives: In their order.
        mark: Ours, as it is written, or empty.
        receives_at: Where in the block they stand.
        as_read: The lines of the block as they were; those without the receives, and those of the receives.
    """

    block: Block
    depth: int = 0
    step: int | None = None
    receives: list[Receive] = field(default_factory=list)
    mark: str = ""
    receives_at: int = 0
    as_read: tuple[list[str | Block], list[str | Block], list[str | Block]] = ([], [], [])

    @property
    def guid(self) -> str:
        """``{...}`` in capitals, or empty."""
        words = split_words(self.block.head)
        return words[1].upper() if len(words) > 1 else ""

    @property
    def name(self) -> str:
        """What people see."""
        return self.block.word("NAME")

    def widen(self, channels: int) -> bool:
        """Gives it at least so many channels; whether it had fewer."""
        there = int(self.block.word("NCHAN", "2"))
        if there >= channels:
            return False
        self.block.set_words("NCHAN", [str(even_channels(channels))])
        return True


def read_tracks(root: Block) -> list[ProjectTrack]:
    """All tracks of a project, in their order.

    Raises:
        ValueError: A number is none.
    """
    tracks: list[ProjectTrack] = []
    depth = 0
    for block in root.blocks("TRACK"):
        step = int((block.words("ISBUS") or ["0", "0"])[1])
        marks = [words for ext in block.blocks("EXT") if (words := ext.words(_MARK_NAME))]
        track = ProjectTrack(block=block, depth=depth, step=step, mark=marks[0][0] if marks else "")
        tracks.append(track)
        depth = max(0, depth + step)
    for track, following in itertools.pairwise(tracks):
        track.step = following.depth - track.depth
    for track in tracks:
        _take_receives(track, tracks)
    return tracks


def write_tracks(root: Block, tracks: Sequence[ProjectTrack]) -> None:
    """Makes the project's tracks these, with their receives; lines that need not change stay as they are."""
    blocks = root.blocks("TRACK")
    at = root.children.index(blocks[0]) if blocks else _first_place(root)
    between = [child for child in root.children[at:] if child not in blocks]
    root.children[at:] = [*(track.block for track in tracks), *between]
    places = {track: str(place) for place, track in enumerate(tracks)}
    for place, track in enumerate(tracks):
        _write_step(track, tracks[place + 1] if place + 1 < len(tracks) else None)
        lines: list[str | Block] = []
        for receive in track.receives:
            if receive.source is None or receive.source in places:
                lines += [_receive_line(track.block, receive, places), *receive.envelopes]
        all_lines, others, receives = track.as_read
        if track.block.children == others and lines == receives:
            track.block.children = all_lines
        else:
            track.block.children[track.receives_at : track.receives_at] = lines


def new_track(
    root: Block, *, mark: str, name: str, colour: str, channels: int, gain_db: float = 0.0, muted: bool = False
) -> ProjectTrack:
    """A track that is not in the project yet; an empty mark makes it the user's."""
    guid = track_guid(mark or send_mark(name))
    scratch = dataclasses.replace(root, children=[])
    block = scratch.add_block("TRACK", [guid])
    lines = [("NAME", [name])]
    if colour:
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        lines.append(("PEAKCOL", [str(1 << 24 | blue << 16 | green << 8 | red)]))
    lines += [
        ("BEAT", ["-1"]),
        ("AUTOMODE", ["0"]),
        # The third number is the law of the pan: 1 takes nothing off at the centre, whatever the project's own does.
        ("VOLPAN", [ratio_text(ratio_from_db(gain_db)), "0", "1", "-1", "1"]),
        ("MUTESOLO", ["1" if muted else "0", "0", "0"]),
        ("IPHASE", ["0"]),
        ("ISBUS", ["0", "0"]),
        ("NCHAN", [str(even_channels(channels))]),
        ("FX", ["1"]),
        ("TRACKID", [guid]),
    ]
    block.children = [block.line(tag, words) for tag, words in lines]
    if mark:
        ext = block.add_block("EXT")
        ext.children.append(ext.line(_MARK_NAME, [mark]))
    track = ProjectTrack(block=block, mark=mark, receives_at=len(block.children))
    block.children.append(block.line("MAINSEND", ["1", "0"]))
    return track


def track_guid(mark: str) -> str:
    """The GUID of what has this mark."""
    digest = hashlib.sha256(mark.encode("utf-8", "surrogatepass")).digest()
    return f"{{{uuid.UUID(bytes=digest[:16], version=5)}}}".upper()


def send_mark(name: str) -> str:
    """What stands for the mark of a track that was made because a send names it; from then on it is the user's."""
    return f"revithion-stems:send:{name}"


def even_channels(channels: int) -> int:
    """REAPER's tracks have 2, 4, 6, … channels."""
    return max(2, channels + channels % 2)


def ratio_text(value: float) -> str:
    """A number in digits alone."""
    return f"{value:.15f}".rstrip("0").rstrip(".")


def _take_receives(track: ProjectTrack, tracks: Sequence[ProjectTrack]) -> None:
    """Takes the receives out of a track's text, to be put back by :func:`write_tracks`."""
    rest: list[str | Block] = []
    taken: list[str | Block] = []
    at = -1
    for child in track.block.children:
        if isinstance(child, str) and line_tag(child) == "AUXRECV":
            words = split_words(child)[1:]
            place = int(words[0])
            source = tracks[place] if 0 <= place < len(tracks) else None
            track.receives.append(Receive(source=source, words=words[1:], line=child))
            at = len(rest) if at < 0 else at
            taken.append(child)
        elif isinstance(child, Block) and track.receives and child.tag in _RECEIVE_ENVELOPES:
            track.receives[-1].envelopes.append(child)
            taken.append(child)
        else:
            rest.append(child)
    if at < 0:
        at = next((at for at, child in enumerate(rest) if line_tag(child) in ("MIDIOUT", "MAINSEND")), len(rest))
    track.as_read = (track.block.children, list(rest), taken)
    track.block.children = rest
    track.receives_at = at


def _receive_line(block: Block, receive: Receive, places: dict[ProjectTrack, str]) -> str:
    if receive.source is None:
        return receive.line
    place = places[receive.source]
    if not receive.line:
        return block.line("AUXRECV", [place, *receive.words])
    head, _, tail = receive.line.partition("AUXRECV")
    old = tail.split(maxsplit=1)[0]
    return head + "AUXRECV" + tail.replace(old, place, 1)


def _write_step(track: ProjectTrack, following: ProjectTrack | None) -> None:
    """The line by which a track opens or closes folders. At the project's end they need not be closed."""
    if following is None and track.step is not None and track.step <= 0:
        return
    step = (following.depth if following is not None else 0) - track.depth
    if step != (0 if track.step is None else track.step):
        kind = "1" if step > 0 else "2" if step < 0 else "0"
        track.block.set_words("ISBUS", [kind, str(step)])


def _first_place(root: Block) -> int:
    """Where the first track of a project goes: before what extensions keep, or at the end."""
    extensions = root.blocks("EXTENSIONS")
    return root.children.index(extensions[0]) if extensions else len(root.children)
