"""Changes of several files of a DAW: all of them or none.

One process at a time; nobody else writes these files meanwhile, since the DAW is closed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from revithion_bridge.errors import bridge_error


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A file that becomes another one.

    Attributes:
        path: Of the file; where that is a link, its target changes.
        before: What it holds; None if it is not there.
        after: What it shall hold; None if it shall go.
    """

    path: Path
    before: bytes | None
    after: bytes | None

    @property
    def word(self) -> str:
        """What happens, for people."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


def make_changes(folder: Path, wanted: Mapping[str, bytes | None]) -> list[FileChange]:
    """The changes that give files their content, in that order; none for those that have it.

    Args:
        folder: Where they are.
        wanted: Relative path → content; None for one that shall go.

    Raises:
        RevithionError: ``daw.install``: one can't be read.
    """
    changes = [FileChange(path=folder / name, before=None, after=data) for name, data in wanted.items()]
    changes = [replace(change, before=read_bytes(change.path)) for change in changes]
    return [change for change in changes if change.before != change.after]


def apply_changes(changes: Sequence[FileChange]) -> None:
    """Does all of it, in the order given, or nothing.

    Raises:
        RevithionError: ``daw.install``: a file can't be written; all is as it was before.
    """
    parts: dict[Path, Path] = {}
    folders: list[Path] = []
    done: list[FileChange] = []
    try:
        # What the disk has no space for, or forbids, shows here, before anything is another.
        for change in changes:
            target = Path(os.path.realpath(change.path))
            if change.after is not None:
                folders += [part for part in (*reversed(target.parent.parents), target.parent) if not part.exists()]
                target.parent.mkdir(parents=True, exist_ok=True)
                parts[change.path] = _write_part(target, change.after)
        for change in changes:
            target = Path(os.path.realpath(change.path))
            done.append(change)
            if change.after is None:
                target.unlink(missing_ok=True)
            else:
                parts[change.path].replace(target)
                del parts[change.path]
    except BaseException as exc:
        _undo(done)
        for part in parts.values():
            part.unlink(missing_ok=True)
        remove_empty(reversed(folders))
        if isinstance(exc, OSError):
            message = f"can't change {exc.filename or 'a file'}: {exc.strerror or exc}"
            raise bridge_error("daw.install", message) from exc
        raise


def remove_empty(folders: Iterable[Path]) -> None:
    """Removes those folders in which nothing is."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def read_bytes(path: Path) -> bytes | None:
    """What a file holds; None if it is not there.

    Raises:
        RevithionError: ``daw.install``: it can't be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise bridge_error("daw.install", f"can't read {path}: {exc.strerror or exc}") from exc


def _write_part(target: Path, data: bytes) -> Path:
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return part


def _undo(done: Iterable[FileChange]) -> None:
    for change in done:
        target = Path(os.path.realpath(change.path))
        with contextlib.suppress(OSError):  # the error that led here is the one to report
            if change.before is None:
                target.unlink(missing_ok=True)
            elif read_bytes(target) != change.before:
                _write_part(target, change.before).replace(target)
