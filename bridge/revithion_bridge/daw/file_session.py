"""A project file or folder as a session: what is imported is written at once."""

from __future__ import annotations

from pathlib import Path

from revithion_bridge.daw.bus_plan import BusPlan, Tempo
from revithion_bridge.daw.import_report import ImportReport
from revithion_bridge.daw.session import DawSession
from revithion_bridge.daw_files.project_files import WRITERS, find_writer, session_hints
from revithion_bridge.errors import bridge_error


class FileSession(DawSession):
    """A project on the disk, or one that the first import makes. Its program should not have it open.

    Args:
        path: Of the file or folder.
        writer: Name in :data:`~revithion_bridge.daw_files.project_files.WRITERS`; by the path's suffix if left out.
        tempo: For positions in beats and bars, instead of the project's own.

    Raises:
        RevithionError: ``daw.unknown``: no such files can be written. ``daw.project``: it is damaged.
    """

    def __init__(self, path: str | Path, *, writer: str = "", tempo: Tempo | None = None) -> None:
        self.path = Path(path).absolute()
        self.writer = writer or find_writer(self.path)
        if self.writer not in WRITERS:
            raise bridge_error("daw.unknown", f"there is no writer {self.writer!r}; there are {', '.join(WRITERS)}")
        self._tempo = tempo
        self._rate = self._read_rate()

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        suffix = WRITERS[self.writer].suffix
        return self.path.name[: -len(suffix)] if suffix and self.path.name.lower().endswith(suffix) else self.path.name

    @property
    def project_rate(self) -> int | None:
        """What the project fixes, in Hz; None for a new one, and for formats that leave it to the DAW."""
        return self._rate

    @property
    def media_folder(self) -> Path:
        """Beside the project."""
        return self.path.parent

    def render(self, plan: BusPlan) -> ImportReport:
        """See :meth:`revithion_bridge.daw.session.DawSession.render`."""
        with session_hints():
            return WRITERS[self.writer].load()(plan, self.path, self._tempo)

    def _read_rate(self) -> int | None:
        if self.writer == "rpp":
            from revithion_bridge.daw_files.rpp_settings import rpp_rate

            return rpp_rate(self.path)
        if self.writer == "ardour":
            from revithion_bridge.daw_files.ardour_session import ardour_rate

            return ardour_rate(self.path)
        return None


def open_project(path: str | Path) -> FileSession:
    """The session of a project's path; see :class:`FileSession`.

    Raises:
        RevithionError: ``daw.unknown``: no such files can be written. ``daw.project``: it is damaged.
    """
    return FileSession(path)
