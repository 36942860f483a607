"""``connect_daw``: a DAW's session by the DAW's name, or a project file by its path."""

from __future__ import annotations

from pathlib import Path

from revithion_bridge.daw.live_session import find_session
from revithion_bridge.daw.session import DawSession
from revithion_bridge.errors import bridge_error

LIVE = ("ardour", "reaper")
"""DAWs that our scripts run in."""


def connect_daw(target: str | Path, *, session: str = "") -> DawSession:
    """A session that stems can be imported into.

    Args:
        target: ``ardour`` or ``reaper``, for the session that is open there; or the path of a project: an ``.ardour``
            file or its folder, ``.rpp``, ``.dawproject``, or a folder for numbered files.
        session: Name of the open session, where more than one is open.

    Raises:
        RevithionError: ``daw.absent``: no session is open there. ``daw.unknown``: there is no adapter for it.
            ``daw.project``: the project can't be read.
    """
    if str(target) in LIVE:
        return find_session(str(target), session)
    if not target or not (isinstance(target, Path) or _is_path(target)):
        known = ", ".join(LIVE)
        raise bridge_error("daw.unknown", f"{target!r} is no project, and no DAW that is known; known are {known}")
    from revithion_bridge.daw.file_session import open_project  # only here the writers are needed

    return open_project(Path(target))


def _is_path(text: str) -> bool:
    path = Path(text)
    return path.name != text or bool(path.suffix) or path.is_dir()
