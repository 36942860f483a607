"""What stands in the mailbox for the daemon, and what has lain there for too long. Blocks on files; any thread."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TypeAlias

import msgspec

from revithion_bridge.daw.mailbox import (
    MAILBOX_VERSION,
    BoxFile,
    DawStatus,
    box_path,
    list_files,
    mailbox_folder,
    make_mailbox_folder,
    open_sessions,
    read_file,
    write_file,
)
from revithion_bridge.daw.plan_presets import list_presets
from revithion_stems.catalog import load_catalog
from revithion_stems.errors import RevithionError
from revithion_stems.jobs import JobState

KEPT_S = 86_400.0
"""So long what belongs to a session that is gone stays in the mailbox."""

RequestName: TypeAlias = tuple[str, str]
"""Box and id of a request."""


def look_at_requests(
    known: frozenset[RequestName],
) -> tuple[dict[RequestName, BoxFile], set[RequestName], set[RequestName]]:
    """All requests; those to be cancelled; of those that are not known, the ones that have been answered."""
    requests = {(file.box, file.id): file for file in list_files("request")}
    cancels = {(file.box, file.id) for file in list_files("cancel")}
    over = {name for name in requests.keys() - known if _is_answered(name)}
    return requests, cancels, over


def _is_answered(name: RequestName) -> bool:
    try:
        status = read_file(box_path(name[0], "status", name[1]), DawStatus)
        return status is not None and JobState(status.state).is_final
    except (RevithionError, ValueError):  # then it is written again
        return False


def sweep_mailbox(older_than_s: float = KEPT_S) -> None:
    """Makes the mailbox, and removes what has lain there for so long and belongs to no session that is open."""
    folder = make_mailbox_folder()
    opened = open_sessions()
    files = [
        file.path
        for kind in ("session", "request", "cancel", "status", "inbox", "answer")
        for file in list_files(kind)
        if file.box not in opened
    ]
    for path in (*files, *folder.glob("*.part")):
        _remove_if_old(path, older_than_s)


def offer_choices() -> None:
    """Writes down which presets and models there are, for the scripts' dialogs, if that has changed.

    Raises:
        RevithionError: ``daw.plan``: a preset of the user's is not sound; what is there stays.
        OSError: It can't be written.
    """
    presets = [{"name": name, "label": preset.label or name} for name, preset in list_presets().items()]
    models = [spec.name for spec in load_catalog().models]
    path = mailbox_folder() / "choices.json"
    choices = {"v": MAILBOX_VERSION, "presets": presets, "models": models}
    if not path.is_file() or path.read_bytes() != msgspec.json.encode(choices):
        write_file(path, choices)


def _remove_if_old(path: Path, older_than_s: float) -> None:
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > older_than_s:
            path.unlink()
