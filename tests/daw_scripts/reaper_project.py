"""A REAPER project as data: tracks, items, takes, sources, sends, its text in project files, and how it sounds."""

from __future__ import annotations

import copy
import dataclasses
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile


def new_guid() -> str:
    return f"{{{str(uuid.uuid4()).upper()}}}"


def quoted(text: str) -> str:
    """A text as project files have it: in the first kind of quotes that it does not have itself."""
    for mark in "\"'`":
        if mark not in text:
            return f"{mark}{text}{mark}"
    return "`" + text.replace("`", "'") + "`"


def words(line: str) -> list[str]:
    """The words of a line of a project file."""
    found: list[str] = []
    rest = line.strip()
    while rest:
        if rest[0] in "\"'`":
            text, _, rest = rest[1:].partition(rest[0])
        else:
            text, _, rest = rest.partition(" ")
        found.append(text)
        rest = rest.strip()
    return found


@dataclass(eq=False)
class Source:
    """Media: a file, or a section of another source."""

    kind: str
    path: str = ""
    parent: Source | None = None
    offset: float = 0.0
    length: float = 0.0
    reversed: bool = False

    @property
    def root(self) -> Source:
        return self if self.parent is None else self.parent.root

    def lines(self) -> list[str]:
        if self.parent is not None:
            mode = 3 if self.reversed else 2
            inner = [f"LENGTH {self.length!r}", f"STARTPOS {self.offset!r}", f"MODE {mode}", *self.parent.lines()]
        else:
            inner = [f"FILE {quoted(self.path)}"] if self.path else []
        return [f"<SOURCE {self.kind}", *inner, ">"]


@dataclass(eq=False)
class Take:
    """What an item plays."""

    name: str = ""
    guid: str = field(default_factory=new_guid)
    source: Source | None = None
    values: dict[str, float] = field(
        default_factory=lambda: {
            "D_STARTOFFS": 0.0,
            "D_PLAYRATE": 1.0,
            "B_PPITCH": 1.0,  # the user's usual setting
            "D_PITCH": 0.0,
            "D_VOL": 1.0,
            "D_PAN": 0.0,
            "I_CHANMODE": 0.0,
            "I_PITCHMODE": -1.0,
        }
    )
    stretch: list[tuple[float, float]] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    """Lines of envelopes and effects, which the model keeps and does not read."""


ITEM_FIELDS = {"POSITION": "D_POSITION", "SNAPOFFS": "D_SNAPOFFSET", "LENGTH": "D_LENGTH", "LOOP": "B_LOOPSRC"}
FADES = {"FADEIN": "IN", "FADEOUT": "OUT"}


TRACK_FIELDS = {"MUTESOLO": ("B_MUTE", 0), "ISBUS": ("I_FOLDERDEPTH", 1), "NCHAN": ("I_NCHAN", 0)}
TRACK_FIELDS["MAINSEND"] = ("B_MAINSEND", 0)


@dataclass(eq=False)
class Item:
    """A media item. A new one has fades and loops, as a user may have set: who wants none must say so."""

    track: Track
    guid: str = field(default_factory=new_guid)
    values: dict[str, float] = field(
        default_factory=lambda: {
            "D_POSITION": 0.0,
            "D_LENGTH": 0.0,
            "D_SNAPOFFSET": 0.0,
            "D_VOL": 1.0,
            "B_MUTE": 0.0,
            "B_LOOPSRC": 1.0,
            "B_UISEL": 0.0,
            "D_FADEINLEN": 0.01,
            "D_FADEOUTLEN": 0.01,
            "D_FADEINLEN_AUTO": 0.0,
            "D_FADEOUTLEN_AUTO": 0.0,
            "C_FADEINSHAPE": 1.0,
            "C_FADEOUTSHAPE": 1.0,
        }
    )
    ext: dict[str, str] = field(default_factory=dict)
    takes: list[Take] = field(default_factory=list)
    active: int = 0

    @property
    def take(self) -> Take | None:
        return self.takes[self.active] if self.takes else None

    def chunk(self) -> str:
        value = self.values
        lines = ["<ITEM", *(f"{word} {value[name]!r}" for word, name in ITEM_FIELDS.items())]
        for word, side in FADES.items():
            length, auto = value[f"D_FADE{side}LEN"], value[f"D_FADE{side}LEN_AUTO"]
            lines.append(f"{word} {value[f'C_FADE{side}SHAPE']:g} {length!r} {auto!r} 1 0 0 0")
        lines += [f"MUTE {value['B_MUTE']:g} 0", f"SEL {value['B_UISEL']:g}", f"IGUID {self.guid}", "IID 1"]
        for index, take in enumerate(self.takes):
            of = take.values
            if index:
                lines.append("TAKE SEL" if index == self.active else "TAKE")
            lines.append(f"NAME {quoted(take.name)}")
            levels = f"{of['D_PAN']!r} {of['D_VOL']!r} -1"
            lines.append(f"TAKEVOLPAN {levels}" if index else f"VOLPAN {value['D_VOL']!r} {levels}")
            lines.append(f"SOFFS {of['D_STARTOFFS']!r}")
            pitch = f"{of['B_PPITCH']:g} {of['D_PITCH']!r} {of['I_PITCHMODE']:g}"
            lines += [f"PLAYRATE {of['D_PLAYRATE']!r} {pitch} 0 0.0025", f"CHANMODE {of['I_CHANMODE']:g}"]
            lines.append(f"GUID {take.guid}")
            if take.source is not None:
                lines += take.source.lines()
            if take.stretch:
                lines.append("SM " + " + ".join(f"{here!r} {there!r}" for here, there in take.stretch))
            lines += take.blocks
        if self.ext:
            lines += ["<EXT", *(f"{name} {quoted(text)}" for name, text in self.ext.items()), ">"]
        return "\n".join([*lines, ">"]) + "\n"

    def read_chunk(self, text: str) -> None:
        """Becomes what a chunk says, as REAPER does: all of it, ids too."""
        lines = text.split("\n")
        assert lines[0] == "<ITEM", lines[0]
        self.takes, self.ext, self.active = [], {}, 0
        at = 1
        while lines[at] != ">":
            word, *rest = words(lines[at])
            take = self.takes[-1] if self.takes else None
            if word.startswith("<"):
                end = _end_of_block(lines, at)
                if word == "<SOURCE":
                    assert take is not None
                    take.source = _read_source(lines[at:end])
                elif word == "<EXT":
                    self.ext = {words(line)[0]: words(line)[1] for line in lines[at + 1 : end - 1]}
                else:
                    assert take is not None
                    take.blocks += lines[at:end]
                at = end
                continue
            if word in ITEM_FIELDS:
                self.values[ITEM_FIELDS[word]] = float(rest[0])
            elif word in FADES:
                side = FADES[word]
                self.values[f"C_FADE{side}SHAPE"] = float(rest[0])
                self.values[f"D_FADE{side}LEN"], self.values[f"D_FADE{side}LEN_AUTO"] = float(rest[1]), float(rest[2])
            elif word == "MUTE":
                self.values["B_MUTE"] = float(rest[0])
            elif word == "SEL":
                self.values["B_UISEL"] = float(rest[0])
            elif word == "IGUID":
                self.guid = rest[0]
            elif word == "NAME":
                if not self.takes:
                    self.takes.append(Take())
                self.takes[-1].name = rest[0]
            elif word == "TAKE":
                self.takes.append(Take())
                if rest == ["SEL"]:
                    self.active = len(self.takes) - 1
            elif take is not None:
                _read_take_line(self, take, word, rest)
            at += 1


def _read_take_line(item: Item, take: Take, word: str, rest: list[str]) -> None:
    if word == "VOLPAN":
        item.values["D_VOL"], take.values["D_PAN"], take.values["D_VOL"] = (float(text) for text in rest[:3])
    elif word == "TAKEVOLPAN":
        take.values["D_PAN"], take.values["D_VOL"] = float(rest[0]), float(rest[1])
    elif word == "SOFFS":
        take.values["D_STARTOFFS"] = float(rest[0])
    elif word == "PLAYRATE":
        names = ("D_PLAYRATE", "B_PPITCH", "D_PITCH", "I_PITCHMODE")
        take.values.update(zip(names, (float(text) for text in rest[:4]), strict=True))
    elif word == "CHANMODE":
        take.values["I_CHANMODE"] = float(rest[0])
    elif word == "GUID":
        take.guid = rest[0]
    elif word == "SM":
        pairs = " ".join(rest).split(" + ")
        take.stretch = [(float(pair.split()[0]), float(pair.split()[1])) for pair in pairs]
    else:
        raise AssertionError(f"a line that REAPER does not know: {word}")


def _end_of_block(lines: list[str], at: int) -> int:
    depth = 0
    while True:
        depth += lines[at].startswith("<")
        depth -= lines[at] == ">"
        at += 1
        if depth == 0:
            return at


def _read_source(lines: list[str]) -> Source:
    source = Source(kind=words(lines[0])[1])
    at = 1
    while lines[at] != ">":
        word, *rest = words(lines[at])
        if word == "<SOURCE":
            end = _end_of_block(lines, at)
            source.parent = _read_source(lines[at:end])
            at = end
            continue
        if word == "FILE":
            source.path = rest[0]
        elif word == "LENGTH":
            source.length = float(rest[0])
        elif word == "STARTPOS":
            source.offset = float(rest[0])
        elif word == "MODE":
            source.reversed = rest[0] == "3"
        at += 1
    return source


@dataclass(eq=False)
class Send:
    """From the track that has it to another. Its level is what the user has set for new ones."""

    target: Track
    values: dict[str, float] = field(
        default_factory=lambda: {
            "D_VOL": 0.5,
            "D_PAN": 0.0,
            "B_MUTE": 0.0,
            "I_SENDMODE": 1.0,
            "I_SRCCHAN": 0.0,
            "I_DSTCHAN": 0.0,
        }
    )
    ext: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Track:
    """A track; ``effects`` stand for whatever the user has put on it."""

    name: str = ""
    guid: str = field(default_factory=new_guid)
    values: dict[str, float] = field(
        default_factory=lambda: {
            "D_VOL": 1.0,
            "D_PAN": 0.0,
            "B_MUTE": 0.0,
            "B_MAINSEND": 1.0,
            "I_FOLDERDEPTH": 0.0,
            "I_NCHAN": 2.0,
            "I_CUSTOMCOLOR": 0.0,
            "I_SELECTED": 0.0,
        }
    )
    ext: dict[str, str] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    effects: list[str] = field(default_factory=list)

    @property
    def colour(self) -> str:
        native = int(self.values["I_CUSTOMCOLOR"])
        assert native & 0x1000000, "no colour is shown without this bit"
        return f"#{native & 255:02X}{native >> 8 & 255:02X}{native >> 16 & 255:02X}"


@dataclass(eq=False)
class Project:
    """A project that is open, with its undo history."""

    path: str = ""
    tracks: list[Track] = field(default_factory=list)
    sample_rate: int = 0
    """Set in the project; 0 where the audio device decides."""
    tempo: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 120.0)])
    """Quarter note → from there on, quarter notes a minute."""
    beats_in_bar: int = 4
    undo: list[tuple[str, list[Track]]] = field(default_factory=list)
    open_block: list[Track] | None = None
    loose: list[str] = field(default_factory=list)
    """Calls that changed something outside an undo block."""

    def add_track(self, name: str) -> Track:
        self.tracks.append(Track(name=name))
        return self.tracks[-1]

    def track(self, name: str) -> Track:
        (found,) = [track for track in self.tracks if track.name == name]
        return found

    def items(self) -> list[Item]:
        return [item for track in self.tracks for item in track.items]

    def snapshot(self) -> list[Track]:
        return copy.deepcopy(self.tracks)

    def undo_once(self) -> str:
        label, before = self.undo.pop()
        self.tracks = before
        return label

    def parent(self, track: Track) -> Track | None:
        above: list[Track] = []
        for one in self.tracks:
            if one is track:
                return above[-1] if above else None
            step = int(one.values["I_FOLDERDEPTH"])
            if step > 0:
                assert step == 1, "only one level is entered at a time"
                above.append(one)
            for _ in range(-step):
                if above:
                    above.pop()
        raise AssertionError("a track of another project")

    def seconds(self, quarter: float) -> float:
        time = 0.0
        for index, (start, bpm) in enumerate(self.tempo):
            end = self.tempo[index + 1][0] if index + 1 < len(self.tempo) else float("inf")
            time += max(0.0, min(quarter, end) - start) * 60.0 / bpm
        return time

    def mix(self, rate: int, frames: int) -> np.ndarray:
        """What the master gives, float64 ``[2, frames]``."""
        done: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def outputs(track: Track) -> tuple[np.ndarray, np.ndarray]:
            if id(track) in done:
                return done[id(track)]
            signal = np.zeros((2, frames))
            for item in track.items:
                if not item.values["B_MUTE"]:
                    signal += item_audio(item, rate, frames)
            for other in self.tracks:
                if other is track:
                    continue
                for send in other.sends:
                    if send.target is track and not send.values["B_MUTE"]:
                        pre, post = outputs(other)
                        signal += send.values["D_VOL"] * (post if send.values["I_SENDMODE"] == 0 else pre)
                if self.parent(other) is track and other.values["B_MAINSEND"]:
                    signal += outputs(other)[1]
            heard = 0.0 if track.values["B_MUTE"] else 1.0
            done[id(track)] = signal * heard, signal * heard * track.values["D_VOL"] * self._vca_gain(track)
            return done[id(track)]

        master = np.zeros((2, frames))
        for track in self.tracks:
            if self.parent(track) is None and track.values["B_MAINSEND"]:
                master += outputs(track)[1]
        return master

    def _vca_gain(self, track: Track) -> float:
        follows, gain = track.groups.get("VOLUME_VCA_FOLLOW", 0), 1.0
        for other in self.tracks:
            if other.groups.get("VOLUME_VCA_LEAD", 0) & follows:
                gain *= other.values["D_VOL"]
        return gain

    def read_text(self, text: str) -> None:
        """Takes its tracks from a project file, as far as we write them."""
        self.tracks = []
        lines = [line.strip() for line in text.splitlines()]
        starts = [at for at, line in enumerate(lines) if line.startswith("<TRACK")]
        blocks = [lines[at : _end_of_block(lines, at)] for at in starts]
        self.tracks = [Track() for _ in blocks]
        for track, block in zip(self.tracks, blocks, strict=True):
            self._read_track(track, block)

    def _read_track(self, track: Track, block: list[str]) -> None:
        track.guid = words(block[0])[1]
        of, at = track.values, 1
        while block[at] != ">":
            word, *rest = words(block[at])
            end = _end_of_block(block, at) if word.startswith("<") else at + 1
            if word == "<ITEM":
                item = Item(track=track)
                item.read_chunk("\n".join(block[at:end]))
                for source in [take.source for take in item.takes if take.source is not None]:
                    source.root.path = str(Path(self.path).parent / source.root.path)
                track.items.append(item)
            elif word == "<EXT":
                track.ext = {words(line)[0]: words(line)[1] for line in block[at + 1 : end - 1]}
            elif word == "NAME":
                track.name = rest[0]
            elif word == "PEAKCOL":
                of["I_CUSTOMCOLOR"] = float(rest[0])
            elif word == "VOLPAN":
                of["D_VOL"], of["D_PAN"] = float(rest[0]), float(rest[1])
            elif word in TRACK_FIELDS:
                name, place = TRACK_FIELDS[word]
                of[name] = float(rest[place])
            elif word == "AUXRECV":
                send = Send(target=track)
                names = {"I_SENDMODE": 1, "D_VOL": 2, "D_PAN": 3, "B_MUTE": 4, "I_SRCCHAN": 7, "I_DSTCHAN": 8}
                send.values.update({name: float(rest[place]) for name, place in names.items()})
                self.tracks[int(rest[0])].sends.append(send)
            at = end

    def text(self) -> str:
        """As a project file."""
        lines = ['<REAPER_PROJECT 0.1 "7.0/linux-x86_64" 0', f"SAMPLERATE {self.sample_rate or 44100} 1 0"]
        for track in self.tracks:
            of, step = track.values, int(track.values["I_FOLDERDEPTH"])
            lines += [f"<TRACK {track.guid}", f"NAME {quoted(track.name)}", f"PEAKCOL {of['I_CUSTOMCOLOR']:g}"]
            lines += [f"VOLPAN {of['D_VOL']!r} {of['D_PAN']!r} -1 -1 1", f"MUTESOLO {of['B_MUTE']:g} 0 0"]
            lines.append("ISBUS 0 0" if not step else f"ISBUS {1 if step > 0 else 2} {step}")
            lines += [f"NCHAN {of['I_NCHAN']:g}", f"TRACKID {track.guid}", f"MAINSEND {of['B_MAINSEND']:g} 0"]
            for index, other in enumerate(self.tracks):
                for send in other.sends:
                    if send.target is track:
                        levels = f"{send.values['I_SENDMODE']:g} {send.values['D_VOL']!r} {send.values['D_PAN']!r}"
                        lines.append(f"AUXRECV {index} {levels} 0 0 0 {send.values['I_SRCCHAN']:g} 0 -1:U 0 -1 ''")
            if track.ext:
                lines += ["<EXT", *(f"{name} {quoted(text)}" for name, text in track.ext.items()), ">"]
            lines += [line for item in track.items for line in item.chunk().rstrip().split("\n")]
            lines.append(">")
        return "\n".join([*lines, ">"]) + "\n"


def item_audio(item: Item, rate: int, frames: int) -> np.ndarray:
    """What an item plays, float64 ``[2, frames]``; between frames of its file by straight lines."""
    out = np.zeros((2, frames))
    take = item.take
    if take is None or take.source is None or not take.source.root.path:
        return out
    samples, file_rate = soundfile.read(take.source.root.path, dtype="float64", always_2d=True)
    samples = samples.T if samples.shape[1] > 1 else np.repeat(samples.T, 2, axis=0)
    value, of = item.values, take.values
    start, length = round(value["D_POSITION"] * rate), round(value["D_LENGTH"] * rate)
    here = np.arange(min(length, frames - start))
    offset = of["D_STARTOFFS"] + (take.source.offset if take.source.parent is not None else 0.0)
    there = offset * file_rate + here * (of["D_PLAYRATE"] * file_rate / rate)
    there = np.where(np.abs(there - np.round(there)) < 1e-6, np.round(there), there)
    if value["B_LOOPSRC"]:
        there %= samples.shape[1]
    left = np.floor(there).astype(int)
    part = there - left
    padded = np.pad(samples[:2], ((0, 0), (1, 2)))
    at = np.clip(left + 1, 0, padded.shape[1] - 2)
    sound = padded[:, at] * (1 - part) + padded[:, at + 1] * part
    gain = np.full(len(here), value["D_VOL"] * of["D_VOL"])
    for name, ramp in (("IN", here), ("OUT", length - 1 - here)):
        fade = max(value[f"D_FADE{name}LEN"], value[f"D_FADE{name}LEN_AUTO"]) * rate
        if fade > 0:
            gain *= np.clip(ramp / fade, 0, 1)
    out[:, start : start + len(here)] = sound * gain
    return out


def place(track: Track, path: Path, **values: float) -> Item:
    """An item of a file as a user would put it there: whole, without fades; ``values`` are of the item or its take."""
    item, info = Item(track=track), soundfile.info(path)
    take = Take(name=path.name, source=Source(kind="WAVE", path=str(path)))
    item.takes.append(take)
    item.values.update(D_LENGTH=info.frames / info.samplerate, D_FADEINLEN=0.0, D_FADEOUTLEN=0.0, B_LOOPSRC=0.0)
    for name, value in values.items():
        if name.startswith("take_"):
            take.values[name.removeprefix("take_")] = value
        else:
            assert name in item.values, name
            item.values[name] = value
    track.items.append(item)
    return item


def same_state(left: list[Track], right: list[Track]) -> bool:
    """Whether two states of a project are the same in all that a project file says."""
    texts = [dataclasses.replace(Project(), tracks=tracks).text() for tracks in (left, right)]
    marks = [[(track.guid, track.ext, track.groups, track.effects) for track in tracks] for tracks in (left, right)]
    return texts[0] == texts[1] and marks[0] == marks[1]
