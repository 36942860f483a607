"""Files that belong together: written under hidden names, and renamed together when all are complete."""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Callable, Generator
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from revithion_stems.digests import sha256_file
from revithion_stems.output_errors import output_errors
from revithion_stems.store import copy_file

_LOCK_TIMEOUT_S = 60.0
_FOLDER_ATTEMPTS = 10


class FileSet:
    """Hidden ``.part`` files beside their final places. Leaving it as a context manager removes what is not published.

    :meth:`new_part` and :meth:`add` on one thread at a time.

    Args:
        note_temporary: Called with each file and folder that is about to be made.
    """

    def __init__(self, note_temporary: Callable[[Path], None] | None = None) -> None:
        self._note = note_temporary
        self._parts: list[tuple[Path, Path | None]] = []
        self._made_folders: list[Path] = []

    def __enter__(self) -> FileSet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()

    def new_part(self, path: Path, *, scratch: bool = False) -> Path:
        """A new, empty file with a hidden name beside ``path``, which it is to become unless it is only ``scratch``.

        Raises:
            OutputError: Its folder or the file can't be made, or a folder has the final name.
        """
        part = path.parent / f".{secrets.token_hex(8)}.part"  # no part of the name: that may already be 255 bytes
        with output_errors(path):
            for left in reversed(range(_FOLDER_ATTEMPTS)):
                try:
                    self._make_folder(path.parent)
                    if path.is_dir():
                        raise IsADirectoryError(errno.EISDIR, "a folder has that name")
                    if self._note is not None:
                        self._note(part)
                    part.touch(exist_ok=False)
                    break
                except FileNotFoundError:  # another job took away an empty folder that it had made
                    if not left:
                        raise
        self._parts.append((part, None if scratch else path))
        return part

    def add(self, path: Path, content: bytes | Path) -> tuple[int, str]:
        """Adds a file with these bytes, or a copy of that file; returns its size and SHA-256.

        Raises:
            OutputError: It can't be written.
        """
        part = self.new_part(path)
        with output_errors(path):
            if isinstance(content, bytes):
                part.write_bytes(content)
            else:
                copy_file(content, part)
            return part.stat().st_size, sha256_file(part, flush=True)

    def publish(self) -> None:
        """Gives all files their final names, in the order in which they were added; if one can't have its, no new one
        stays.

        Raises:
            OutputError: A name can't be taken.
        """
        new: list[Path] = []
        parts = [(part, path) for part, path in self._parts if path is not None]
        try:
            with _one_set_at_a_time(parts[-1][1].parent):
                for part, path in parts:
                    with output_errors(path):
                        existed = path.exists()
                        part.replace(path)
                        if not existed:
                            new.append(path)
        except BaseException:
            for path in new:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        self._made_folders.clear()
        self.abort()

    def abort(self) -> None:
        """Removes everything that is not published."""
        for part, _ in self._parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        for folder in reversed(self._made_folders):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._parts.clear()
        self._made_folders.clear()

    def _make_folder(self, folder: Path) -> None:
        missing: list[Path] = []
        while not folder.exists() and folder != folder.parent:  # a drive may be missing
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            if self._note is not None:
                self._note(path)
            path.mkdir(exist_ok=True)
            self._made_folders.append(path)


@contextlib.contextmanager
def _one_set_at_a_time(folder: Path) -> Generator[None]:
    """Keeps two processes that write the same names from leaving a mixture of their sets in ``folder``."""
    path = folder / ".publishing.lock"
    lock = FileLock(path, thread_local=False, mode=0o600)
    # Where files can't be locked (some network folders), the last of two writers wins name by name.
    with contextlib.suppress(OSError, Timeout):
        lock.acquire(timeout=_LOCK_TIMEOUT_S)
    try:
        yield
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows keeps the name of an open file
                path.unlink()
            lock.release()
