"""Putting our scripts into a DAW's folder, and taking them out again: all of it or nothing.

What the DAWs have in common; which of their own files know our scripts is the matter of each. One process at a time.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

import msgspec

from revithion_bridge.daw.mailbox import mailbox_folder, make_mailbox_folder
from revithion_bridge.daw_install.file_changes import FileChange, apply_changes, make_changes, read_bytes, remove_empty
from revithion_bridge.daw_install.install_receipt import Placement, new_receipt, read_receipt
from revithion_bridge.daw_install.programs import check_closed
from revithion_bridge.errors import bridge_error


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAction:
    """An action of ours that the DAW knows.

    Attributes:
        name: What people see.
        place: Where the DAW has it, for people.
        command: What a key can be bound to, or a menu entry.
    """

    name: str
    place: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallReport:
    """What was done, or would be.

    Attributes:
        daw: Such as ``ardour``.
        folder: The DAW's.
        installed: Whether the scripts are there now.
        changes: Files that are others than before; none if all was so already.
        actions: What the DAW knows now.
        steps: What is left to the user.
    """

    daw: str
    folder: Path
    installed: bool
    changes: tuple[FileChange, ...] = ()
    actions: tuple[RegisteredAction, ...] = ()
    steps: tuple[str, ...] = ()


def read_scripts(daw: str, source: Traversable | None = None) -> dict[str, bytes]:
    """Name → content of the scripts of a DAW, with the library that all share.

    Args:
        daw: Such as ``ardour``.
        source: The folder that has a folder for each DAW, and ``lua``; ours if left out.

    Raises:
        RevithionError: ``daw.install``: they are not there.
    """
    root = source if source is not None else importlib.resources.files("revithion_daw_scripts")
    try:
        found = {item.name: item.read_bytes() for item in root.joinpath(daw).iterdir() if item.name.endswith(".lua")}
        common = root.joinpath("lua").joinpath("common.lua").read_bytes()
    except OSError as exc:
        raise bridge_error("daw.install", f"the scripts of {daw} can't be read: {exc}") from exc
    if not found:
        raise bridge_error("daw.install", f"there are no scripts for {daw} in {root}")
    return {**dict(sorted(found.items())), "common.lua": common}


def plan_install(placement: Placement, shared: Mapping[str, bytes]) -> list[FileChange]:
    """The changes that put everything in its place, in their order.

    ``installed.json`` comes first: whatever happens after it, what is ours can be told from what is not.

    Args:
        placement: Our own files.
        shared: Relative path → new content of the DAW's own files.

    Raises:
        RevithionError: ``daw.install``: a file that is not ours is in the way, or can't be read.
    """
    old = read_receipt(placement)
    known = old.files if old is not None else ()
    for name, data in placement.files.items():
        if name not in known and read_bytes(placement.folder / name) not in (None, data):
            raise bridge_error("daw.install", f"{placement.folder / name} is there, and not ours; move it away")
    made = [*(old.made if old is not None else ()), *_missing(placement, shared)]
    receipt = new_receipt(placement.files, made)
    return make_changes(
        placement.folder,
        {
            placement.receipt: msgspec.json.format(msgspec.json.encode(receipt)) + b"\n",
            **placement.files,
            **dict.fromkeys(name for name in known if name not in placement.files),
            **shared,
        },
    )


def plan_uninstall(placement: Placement, shared: Mapping[str, bytes], blank: Collection[str] = ()) -> list[FileChange]:
    """The changes that take everything out again, in their order; ``installed.json`` goes last.

    Args:
        placement: Where our own files are; ``files`` is not used.
        shared: Relative path → the DAW's own files without what is ours.
        blank: Those of them in which nothing else is. They go if they were made for us, as empty ones do.

    Raises:
        RevithionError: ``daw.install``: a file can't be read.
    """
    receipt = read_receipt(placement)
    made, files = (receipt.made, receipt.files) if receipt is not None else ((), ())
    gone = {name for name, data in shared.items() if name in made and (not data or name in blank)}
    left = {name: None if name in gone else data for name, data in shared.items()}
    return make_changes(placement.folder, {**left, **dict.fromkeys(files), placement.receipt: None})


def put_in_place(daw: str, folder: Path, changes: Sequence[FileChange]) -> None:
    """Does what :func:`plan_install` says, and makes the mailbox.

    Raises:
        RevithionError: ``daw.install``: the DAW runs, or a file can't be written; all is as it was before.
    """
    try:
        make_mailbox_folder()
    except OSError as exc:
        raise bridge_error("daw.install", f"can't make {mailbox_folder()}: {exc.strerror or exc}") from exc
    if changes:
        check_closed(daw, folder)
        apply_changes(changes)


def take_out(daw: str, placement: Placement, changes: Sequence[FileChange]) -> None:
    """Does what :func:`plan_uninstall` says, and removes the folders that were made, where nothing else is in them.

    Raises:
        RevithionError: ``daw.install``: the DAW runs, or a file can't be changed; all is as it was before.
    """
    receipt = read_receipt(placement)
    if not changes:
        return
    check_closed(daw, placement.folder)
    apply_changes(changes)
    names = {placement.home, *(receipt.made if receipt is not None else ())}
    remove_empty(
        placement.folder / name
        for name in sorted(names, key=len, reverse=True)
        if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts
    )


def _missing(placement: Placement, shared: Iterable[str]) -> list[str]:
    """The DAW's own files, and its folders that ours go into, that are not there."""
    folders = {str(parent) for name in placement.files for parent in PurePosixPath(name).parents if parent.name}
    names = (*sorted(folders - {placement.home}), *shared)
    return [name for name in names if not (placement.folder / name).exists()]
