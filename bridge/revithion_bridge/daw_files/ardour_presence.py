"""Whether an Ardour session is open: Ardour writes no lock, so that only signs can be read."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from revithion_bridge.daw.mailbox import open_sessions
from revithion_bridge.errors import bridge_error


def check_closed(session: Path) -> None:
    """Raises if there is a sign that a session is open.

    The signs: our script in it says so; a program with Ardour's name has a file of the folder open, works in it, or
    was started with its path; there are unsaved changes (Ardour's ``.pending`` file, which a crash leaves too). An
    Ardour on another computer, or one that got the session from its own dialog and reads no audio, shows none of them.

    Args:
        session: The session's file.

    Raises:
        RevithionError: ``daw.in_use``.
    """
    folder = session.parent
    for opened in open_sessions("ardour").values():
        if opened.path and Path(opened.path).resolve() in (folder, session):
            raise bridge_error("daw.in_use", f"{session} is open in Ardour")
    pending = session.with_suffix(".pending")
    if pending.exists():
        raise bridge_error(
            "daw.in_use", f"{session} has changes that were not saved ({pending.name}): open it in Ardour, and save it"
        )
    for process in psutil.process_iter(["name"]):
        # ardour7-lua and -export are `luasession` and `ardour7-export`; others are not asked, which takes long
        name = str(process.info["name"] or "").lower()
        if ("ardour" in name or "luasession" in name) and _uses(process, folder):
            raise bridge_error("daw.in_use", f"{session} is open in {name}, process {process.pid}")


def _uses(process: psutil.Process, folder: Path) -> bool:
    places: list[str] = []
    for ask in (
        process.cmdline,
        lambda: [process.cwd()],
        lambda: [file.path for file in process.open_files()],
    ):
        with contextlib.suppress(psutil.Error, OSError):
            places += ask()
    return any(_inside(place, folder) for place in places)


def _inside(place: str, folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = Path(place)
        return path.is_absolute() and path.resolve().is_relative_to(folder)
    return False
