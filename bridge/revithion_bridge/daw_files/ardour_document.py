"""An Ardour session's file as a tree: found, checked, searched, and given back as bytes. Nothing here changes sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lxml import etree

from revithion_bridge.daw.bus_plan import Tempo
from revithion_bridge.daw_files.ardour_units import (
    SESSION_VERSIONS,
    SUPERCLOCKS_PER_SECOND,
    port_prefix,
    route_name,
    superclocks,
)
from revithion_bridge.daw_files.project_files import next_version
from revithion_bridge.daw_files.xml_tree import Element
from revithion_bridge.errors import bridge_error
from revithion_stems.errors import RevithionError
from revithion_stems.file_set import FileSet
from revithion_stems.paths import safe_component

SUFFIX = ".ardour"
_TAKEN_NAMES = ("Master", "Monitor", "Click", "Auditioner", "LTC-in", "LTC-out")


class ArdourDocument:
    """The tree of a session. One thread.

    Attributes:
        path: Of the session's file, without symbolic links.
        root: The element ``Session``.
        rate: Of the session, Hz.

    Args:
        path: The session's folder or file.

    Raises:
        RevithionError: ``daw.project``: there is no session, it is damaged, or of a version that we don't know.
    """

    def __init__(self, path: Path) -> None:
        self.path = _session_file(path)
        try:
            self._data = self.path.read_bytes()
            parser = etree.XMLParser(remove_blank_text=True, resolve_entities=False, no_network=True, huge_tree=True)
            self.root: Element = etree.fromstring(self._data, parser)
        except OSError as exc:
            raise bridge_error("daw.project", f"{self.path} can't be read: {exc.strerror or exc}") from exc
        except etree.XMLSyntaxError as exc:
            raise self.wrong(f"damaged or truncated: {exc}") from exc
        try:
            version = int(self.root.get("version", ""))
            self.rate = int(self.root.get("sample-rate", ""))
            numbers = [int(number) for e in self.root.iter("*") if (number := e.get("id", "0")).isdecimal()]
            self._next_id = max(int(self.root.get("id-counter", "")), max(numbers) + 1)
        except ValueError as exc:
            raise self.wrong("not a session of Ardour") from exc
        if self.root.tag != "Session" or self.rate < 1:
            raise self.wrong("not a session of Ardour")
        if version // 1000 not in SESSION_VERSIONS:
            raise self.wrong(f"of Ardour {version // 1000}; sessions of Ardour 7 and 8 can be written")
        self._before = self.encode()

    @property
    def folder(self) -> Path:
        """The session's folder."""
        return self.path.parent

    @property
    def changed(self) -> bool:
        """Whether the tree is another one than was read."""
        return self.encode() != self._before

    def wrong(self, what: str) -> RevithionError:
        """The error that the session is not what it should be."""
        return bridge_error("daw.project", f"{self.path}: {what}")

    def section(self, tag: str) -> Element:
        """A child of the root, made if it is not there."""
        found = self.root.find(tag)
        return found if found is not None else etree.SubElement(self.root, tag)

    def routes(self) -> list[Element]:
        """All tracks and buses, the master too."""
        return self.section("Routes").findall("Route")

    def master(self) -> Element:
        """The master bus.

        Raises:
            RevithionError: ``daw.project``: the session has none.
        """
        for route in self.routes():
            if "MasterOut" in presentation(route).get("flags", ""):
                return route
        raise self.wrong("the session has no master bus")

    def superclocks(self, frames: int) -> int:
        """Frames in the session's unit of audio time."""
        per_second = int(self.section("TempoMap").get("superclocks-per-second", SUPERCLOCKS_PER_SECOND))
        return superclocks(frames, self.rate, per_second)

    def new_id(self) -> str:
        """An id that nothing in the session has."""
        taken = self._next_id
        self._next_id += 1
        self.root.set("id-counter", str(self._next_id))
        return str(taken)

    def new_order(self) -> str:
        """The place after all tracks, buses and VCAs."""
        orders = [int(info.get("order", "0")) for info in self.root.iter("PresentationInfo")]
        return str(max(orders, default=-1) + 1)

    def unique_name(self, text: str) -> str:
        """``text`` as a name that no track, bus or VCA has, and whose ports are nobody else's."""
        strips = [*self.routes(), *self.root.iterfind("VCAManager/VCA")]
        return unique((*_TAKEN_NAMES, *(strip.get("name", "") for strip in strips)), text)

    def tempo(self) -> Tempo:
        """The session's tempo.

        Raises:
            RevithionError: ``daw.project``: it changes, so that only a time says where something is.
        """
        tempos, meters = (self.root.findall(f"TempoMap/{path}") for path in ("Tempos/Tempo", "Meters/Meter"))
        if len(tempos) != 1 or len(meters) != 1 or tempos[0].get("npm") != tempos[0].get("enpm"):
            raise self.wrong("its tempo changes, so beats and bars can't be placed; give a time")
        tempo, meter = tempos[0], meters[0]
        return Tempo(
            bpm=float(tempo.get("npm", "120")) * 4.0 / float(tempo.get("note-type", "4")),
            numerator=int(meter.get("divisions-per-bar", "4")),
            denominator=int(meter.get("note-value", "4")),
        )

    def audio_folder(self) -> Path:
        """Where the session's audio files are: in the one folder of ``interchange``, whatever its name.

        Raises:
            RevithionError: ``daw.project``: there are several; Ardour itself refuses such a session.
        """
        if (self.folder / "sounds").is_dir():  # of sessions that began in the first versions
            return self.folder / "sounds"
        interchange = self.folder / "interchange"
        folders = [f for f in interchange.iterdir() if f.is_dir() and f.name[0] != "."] if interchange.is_dir() else []
        if len(folders) > 1:
            raise self.wrong(f"several folders in {interchange}")
        return (folders[0] if folders else interchange / safe_component(self.folder.name)) / "audiofiles"

    def unused_elsewhere(self, names: Sequence[str]) -> list[str]:
        """Those of the audio files that no other snapshot in the same folder uses; none, if one can't be read."""
        used: set[str] = set()
        for other in self.folder.glob("*" + SUFFIX):
            if other != self.path:
                try:
                    used |= {source.get("name", "") for _, source in etree.iterparse(str(other), tag="Source")}
                except (OSError, etree.XMLSyntaxError):
                    return []
        return [name for name in names if name not in used]

    def add_to(self, files: FileSet) -> None:
        """Puts the tree, and what the file was before as Ardour's ``.bak``, into what is to be published.

        Raises:
            RevithionError: ``daw.in_use``: the file is another one by now.
            OutputError: It can't be written.
        """
        with next_version(files, self.path) as part:
            if self.path.read_bytes() != self._data:
                raise bridge_error("daw.in_use", f"{self.path} was changed meanwhile")
            part.write_bytes(self.encode())

    def encode(self) -> bytes:
        """The tree as Ardour would write it."""
        text = etree.tostring(self.root, encoding="UTF-8", pretty_print=True)
        return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text


def unique(names: Iterable[str], text: str) -> str:
    """``text`` as a name that differs from all of these, also as the name of ports."""
    taken = {port_prefix(name).casefold() for name in names}
    base = name = route_name(text)
    number = 1
    while port_prefix(name).casefold() in taken:
        number += 1
        name = f"{base} {number}"
    return name


def add_control(document: ArdourDocument, parent: Element, name: str, value: float, flags: str = "GainLike") -> Element:
    """A value that faders and automation can move."""
    attributes = {"name": name, "id": document.new_id(), "flags": flags, "value": f"{value:.17g}"}
    return etree.SubElement(parent, "Controllable", attributes)


def presentation(route: Element) -> Element:
    """Order, flags and colour of a strip."""
    found = route.find("PresentationInfo")
    return found if found is not None else etree.SubElement(route, "PresentationInfo")


def _session_file(path: Path) -> Path:
    if not path.is_dir():
        found = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
        return found.resolve()
    named = path.resolve() / (path.resolve().name + SUFFIX)
    if named.is_file():
        return named
    sessions = sorted(file for file in path.glob("*" + SUFFIX) if file.name[0] != ".")
    if len(sessions) != 1:
        names = ", ".join(file.name for file in sessions) or "none"
        raise bridge_error("daw.project", f"{path}: which session is meant? Here are: {names}")
    return sessions[0].resolve()
