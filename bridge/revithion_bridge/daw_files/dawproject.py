"""A plan in a DAWproject file, new or there already: a ZIP with ``project.xml``, ``metadata.xml`` and the audio.

Source: the DAWproject 1.0 reference and schemas, by Bitwig.
"""

from __future__ import annotations

import contextlib
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path

from lxml import etree

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.import_report import ImportReport
from revithion_bridge.daw_files.dawproject_audio import AudioEntries, read_source
from revithion_bridge.daw_files.dawproject_tracks import ProjectTracks
from revithion_bridge.daw_files.dawproject_xml import new_project, parse_project, titled, write_xml
from revithion_bridge.daw_files.project_files import damaged_project, replaced_project
from revithion_bridge.daw_files.xml_tree import Element

_PROJECT = "project.xml"
_METADATA = "metadata.xml"
_MOST_XML_BYTES = 1 << 28
_COPY_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first date that ZIP knows: the same plan gives the same bytes."""


def write_dawproject(plan: BusPlan, path: Path, tempo: Tempo | None = None) -> ImportReport:
    """Makes a project contain what the plan says; see :meth:`revithion_bridge.daw.session.DawSession.render`.

    Args:
        plan: Its files are copied into the project.
        path: Of the project; made if it is not there.
        tempo: By which beats and bars are counted, instead of the project's own.

    Raises:
        RevithionError: ``daw.project``: it is no DAWproject. ``daw.plan``: it can't be said in the format.
        InputError: A file of the plan can't be read.
        OutputError: It can't be written.
    """
    names: set[str] = set()
    root = new_project(plan, tempo or Tempo())
    exists = path.exists()
    if exists:
        with _reading(path), zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if len(names) < len(archive.namelist()):
                raise ValueError("two files in it have the same name")
            root = parse_project(_read_xml(archive))
    audio = AudioEntries(names)
    with _reading(path):
        tracks = ProjectTracks(root, plan, audio, tempo)
        strips = tracks.render()
    if tracks.changed or not exists:
        stale = audio.stale(root)
        with replaced_project(path) as part, zipfile.ZipFile(part, "w") as new:
            if exists:
                _copy_entries(path, new, root, stale)
            else:
                new.writestr(zipfile.ZipInfo(_PROJECT, _EPOCH), write_xml(root), zipfile.ZIP_DEFLATED)
                new.writestr(zipfile.ZipInfo(_METADATA, _EPOCH), titled(plan.title), zipfile.ZIP_DEFLATED)
            for name, file in audio.added.items():
                _add_audio(new, name, file, part.parent)
    return ImportReport(target=str(path), strips=strips)


@contextlib.contextmanager
def _reading(path: Path) -> Generator[None]:
    """Turns what is wrong with a project into our error."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, KeyError) as exc:
        raise damaged_project(path, str(exc)) from exc  # RuntimeError: encrypted, or compressed in an unknown way
    except etree.XMLSyntaxError as exc:
        raise damaged_project(path, f"{_PROJECT}: {exc}") from exc
    except OSError as exc:
        raise damaged_project(path, exc.strerror or str(exc)) from exc


def _read_xml(archive: zipfile.ZipFile) -> bytes:
    with archive.open(_PROJECT) as file:
        data = file.read(_MOST_XML_BYTES + 1)
    if len(data) > _MOST_XML_BYTES:
        raise ValueError(f"{_PROJECT} is larger than any project")
    return data


def _copy_entries(path: Path, new: zipfile.ZipFile, root: Element, stale: set[str]) -> None:
    """All that the project holds, in its order, with another ``project.xml`` and without audio that nobody plays."""
    with _opened(path) as old:
        for info in old.infolist():
            if info.filename in stale:
                continue
            copy = zipfile.ZipInfo(info.filename, info.date_time)
            copy.compress_type, copy.comment, copy.external_attr = info.compress_type, info.comment, info.external_attr
            if info.filename == _PROJECT:
                new.writestr(copy, write_xml(root))
                continue
            copy.file_size = info.file_size  # by which the ZIP chooses its 64-bit form
            with new.open(copy, "w") as target, _opened_entry(path, old, info) as chunks:
                for chunk in chunks:
                    target.write(chunk)


@contextlib.contextmanager
def _opened(path: Path) -> Generator[zipfile.ZipFile]:
    with _reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextlib.contextmanager
def _opened_entry(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Generator[Generator[bytes]]:
    """The content of an entry in pieces, with errors of reading, and not of writing, as those of the project."""
    with _reading(path):
        file = archive.open(info)

    def chunks() -> Generator[bytes]:
        while True:
            with _reading(path):
                chunk = file.read(_COPY_BYTES)
            if not chunk:
                return
            yield chunk

    with file:
        yield chunks()


def _add_audio(new: zipfile.ZipFile, name: str, file: Path, scratch_folder: Path) -> None:
    """A file, stored as it is: audio does not get smaller, and DAWs read it in place."""
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=scratch_folder) as scratch:
        source = read_source(file, Path(scratch))
        info = zipfile.ZipInfo(name, _EPOCH)
        info.file_size = source.stat().st_size
        with source.open("rb") as reader, new.open(info, "w") as target:
            shutil.copyfileobj(reader, target, _COPY_BYTES)
