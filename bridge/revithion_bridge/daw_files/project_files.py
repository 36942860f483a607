"""The files that a plan can be written into, and how a project that somebody works on gets its next version.

A writer keeps everything in a project that is not ours. What stood there before the last change stays beside it as
``NAME.bak``. Any thread; not two at a time for one file.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.import_report import ImportReport
from revithion_bridge.errors import bridge_error
from revithion_stems.errors import OutputError
from revithion_stems.file_set import FileSet
from revithion_stems.output_errors import output_errors

BACKUP_SUFFIX = ".bak"
_MOST_BYTES = 1 << 29
"""Of a project without its audio. The largest ones hold states of plug-ins, of some tens of MiB."""

_HINTS = {
    "output.disk_full": "Free some space on that disk; nothing half-written was left.",
    "output.unwritable": "Allow writing there, or choose another place for the project.",
}


class WritePlan(Protocol):
    """What a writer is called with; see :meth:`Writer.load`."""

    def __call__(self, plan: BusPlan, path: Path, tempo: Tempo | None = None) -> ImportReport:
        """Makes the file contain what the plan says; see :meth:`revithion_bridge.daw.session.DawSession.render`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A kind of file.

    Attributes:
        suffix: Of its files; empty for a folder.
        function: ``module:function`` that writes it.
        merges: Whether it goes into a project that is there, among other things.
        help: One line.
    """

    suffix: str
    function: str
    merges: bool
    help: str

    def load(self) -> WritePlan:
        """Imports the function: some need libraries that nobody else does.

        It takes the plan, the path, and the tempo by which beats and bars are counted: None for the project's own, or
        120 in 4/4 for a new one.
        """
        module, _, name = self.function.partition(":")
        function: WritePlan = getattr(importlib.import_module(module), name)
        return function


_HERE = "revithion_bridge.daw_files."
WRITERS: dict[str, Writer] = {
    "dawproject": Writer(
        suffix=".dawproject",
        function=_HERE + "dawproject:write_dawproject",
        merges=True,
        help="DAWproject 1.0, audio inside: Bitwig Studio, Studio One, Cubase, ...",
    ),
    "rpp": Writer(
        suffix=".rpp",
        function=_HERE + "rpp_project:write_rpp",
        merges=True,
        help="A project of REAPER, new or there already.",
    ),
    "ardour": Writer(
        suffix=".ardour",
        function=_HERE + "ardour_session:write_ardour",
        merges=True,
        help="A session of Ardour 7 or 8 that is there and closed.",
    ),
    "folder": Writer(
        suffix="",
        function=_HERE + "numbered_folder:write_folder",
        merges=False,
        help="Numbered BWF files with time reference, to drag into any DAW.",
    ),
    "stem.mp4": Writer(
        suffix=".stem.mp4",
        function=_HERE + "stem_mp4_export:write_stem_mp4",
        merges=False,
        help="Native Instruments' Stems: the mix and four stems in one file.",
    ),
}


def find_writer(path: Path) -> str:
    """The name of the writer for a path, by its suffix; a folder is Ardour's if a session is in it.

    Raises:
        RevithionError: ``daw.unknown``: there is none.
    """
    name = path.name.lower()
    for key, writer in WRITERS.items():
        if writer.suffix and name.endswith(writer.suffix) and (key == "ardour" or not path.is_dir()):
            return key
    if path.is_dir() and any(path.glob("*.ardour")):
        return "ardour"
    if path.is_dir() or not path.suffix:
        return "folder"
    known = ", ".join(writer.suffix for writer in WRITERS.values() if writer.suffix)
    raise bridge_error("daw.unknown", f"{path}: files that can be written end with {known}")


def read_project(path: Path) -> bytes | None:
    """The bytes of a project; None if there is no such file.

    Raises:
        RevithionError: ``daw.project``: it can't be read, or is too large to be one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise damaged_project(path, exc.strerror or str(exc)) from exc
    if len(data) > _MOST_BYTES:
        raise damaged_project(path, "it is larger than any project")
    return data


@contextlib.contextmanager
def replaced_project(path: Path) -> Generator[Path]:
    """A new, empty file that becomes ``path`` if nothing goes wrong inside; what was there is kept as ``NAME.bak``.

    Raises:
        OutputError: It can't be written; ``path`` is as it was.
    """
    with FileSet() as files:
        with next_version(files, path.resolve()) as part:  # a link stays one
            yield part
        files.publish()


@contextlib.contextmanager
def next_version(files: FileSet, path: Path) -> Generator[Path]:
    """As :func:`replaced_project`, as one of several files; it is published with them, and not here.

    Raises:
        OutputError: It can't be written.
    """
    existed = path.exists()
    if existed:
        files.add(path.with_name(path.name + BACKUP_SUFFIX), path)
    part = files.new_part(path)
    with output_errors(path):
        yield part
        if existed:
            shutil.copymode(path, part)
        flush_file(part)


def flush_file(path: Path) -> None:
    """Has a file's content on the disk, before its name says that it is there."""
    with path.open("rb+") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


@contextlib.contextmanager
def session_hints() -> Generator[None]:
    """Gives errors of writing the hints for a DAW's session, where the command line's options are no help."""
    try:
        yield
    except OutputError as exc:
        exc.hint = _HINTS.get(exc.code, exc.hint)
        raise


def damaged_project(path: Path, reason: str) -> Exception:
    """The error of a project that is not what its name says."""
    return bridge_error("daw.project", f"{path}: {reason.rstrip('.')}")
