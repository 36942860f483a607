"""The content store: finished results to give again, unfinished work to go on with, and what is known of sources.

    sources/<SHA-256 of the file>.json     what a pass over it found, so that a second run need not decode it
    results/<key>/                         manifest.json, and the finished files under numbers
    work/<key>/                            of a job that runs or was killed: lock, journal, list of its temporary files

The key is a digest of the decoded audio, the weights and all parameters (:mod:`revithion_stems.fingerprint`). A result
appears by one rename, and every byte is compared with its SHA-256 when it is given out. Any number of processes and
threads may use a store at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.config import cache_dir, cache_limit_bytes
from revithion_stems.work_folders import Work, discard_work, hold_work

_MANIFEST = "manifest.json"
_LARGEST_PART = 4
_ABANDONED_S = 14 * 24 * 3600.0
"""Unfinished work that nobody came back to for two weeks goes when room is needed, before any result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreUsage:
    """What a store holds.

    Attributes:
        results: Number of finished results.
        results_bytes: Their size.
        unfinished: Number of jobs that run or were killed.
        unfinished_bytes: Size of their journals.
        limit_bytes: Largest size allowed.
    """

    results: int
    results_bytes: int
    unfinished: int
    unfinished_bytes: int
    limit_bytes: int


class ContentStore:
    """A folder of results, work and facts. Methods raise OSError where the folder can't be used; callers go on without.

    Args:
        root: The folder; by default :func:`revithion_stems.config.cache_dir`. Made on the first write.
        limit_bytes: Largest size; by default :func:`revithion_stems.config.cache_limit_bytes`. With 0, no results are
            kept or looked for.
    """

    def __init__(self, root: Path | None = None, *, limit_bytes: int | None = None) -> None:
        self.root = (root if root is not None else cache_dir()).absolute()
        self.limit_bytes = cache_limit_bytes() if limit_bytes is None else limit_bytes

    # --- facts about sources ---

    def facts(self, source_sha256: str) -> bytes | None:
        """What :meth:`put_facts` recorded of a source, or None."""
        if self.limit_bytes == 0:
            return None
        try:
            path = self._facts_path(source_sha256)
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def put_facts(self, source_sha256: str, data: bytes) -> None:
        """Records facts; a folder that can't be written is no error."""
        if self.limit_bytes == 0:
            return
        path = self._facts_path(source_sha256)
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{secrets.token_hex(8)}")
            part.write_bytes(data)
            part.replace(path)

    def _facts_path(self, source_sha256: str) -> Path:
        return self.root / "sources" / f"{source_sha256}.json"

    # --- results ---

    def result(self, key: str) -> tuple[bytes, Path] | None:
        """The manifest of a result and the folder of its files, or None; marks it as used."""
        if self.limit_bytes == 0:
            return None
        folder = self._result_path(key)
        try:
            manifest = (folder / _MANIFEST).read_bytes()
            os.utime(folder)
        except OSError:
            return None
        return manifest, folder

    def put_result(self, key: str, manifest: bytes, files: Iterable[Path]) -> bool:
        """Copies finished files into the store, as ``0``, ``1``, …; makes room first.

        Returns:
            Whether the result is there now. It is not where it would fill more than a quarter of the store: one long
            recording is not to drive out all songs.
        """
        sources = list(files)
        size = sum(path.stat().st_size for path in sources) + len(manifest)
        if size > self.limit_bytes // _LARGEST_PART:
            return False
        self.make_room(size)
        folder = self._result_path(key)
        part = folder.with_name(f".{secrets.token_hex(8)}")
        part.mkdir(parents=True)
        try:
            for number, path in enumerate(sources):
                copy_file(path, part / str(number))
            (part / _MANIFEST).write_bytes(manifest)
            self.drop_result(key)
            part.rename(folder)
        except FileExistsError:  # another process was faster, with the same result
            return True
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return True

    def drop_result(self, key: str) -> None:
        """Removes a result; at once, so that nobody sees half of it."""
        _remove_folder(self._result_path(key))

    def _result_path(self, key: str) -> Path:
        return self.root / "results" / key

    # --- unfinished work ---

    def work(
        self, key: str, *, on_wait: Callable[[], None], check: Callable[[], None]
    ) -> contextlib.AbstractContextManager[Work]:
        """The work folder of a job; see :func:`revithion_stems.work_folders.hold_work`."""
        return hold_work(self.root / "work" / key, on_wait=on_wait, check=check)

    def discard_work(self, key: str) -> None:
        """Removes what a killed job left, if nobody is at it."""
        with contextlib.suppress(OSError):
            discard_work(self.root / "work" / key)

    # --- size ---

    def usage(self) -> StoreUsage:
        """Counts and sizes, by looking at all files."""
        results, unfinished = self._entries("results"), self._entries("work")
        return StoreUsage(
            results=len(results),
            results_bytes=sum(entry.size for entry in results),
            unfinished=len(unfinished),
            unfinished_bytes=sum(entry.size for entry in unfinished),
            limit_bytes=self.limit_bytes,
        )

    def make_room(self, size: int) -> None:
        """Removes what was not used for longest, until ``size`` bytes more stay within the limit."""
        results, unfinished = self._entries("results"), self._entries("work")
        total = size + sum(entry.size for entry in (*results, *unfinished))
        abandoned = [entry for entry in unfinished if entry.used < time.time() - _ABANDONED_S]
        for entry in (*abandoned, *sorted(results, key=lambda entry: entry.used)):
            if total <= self.limit_bytes:
                return
            if entry.path.parent.name == "work":
                self.discard_work(entry.path.name)
            else:
                self.drop_result(entry.path.name)
            total -= entry.size

    def clear(self) -> StoreUsage:
        """Removes all results, all unfinished work that nobody is at, and all facts; returns what is left."""
        for entry in self._entries("results"):
            self.drop_result(entry.path.name)
        for entry in self._entries("work"):
            self.discard_work(entry.path.name)
        _remove_folder(self.root / "sources")
        return self.usage()

    def _entries(self, kind: str) -> list[_Entry]:
        try:
            folders = [path for path in (self.root / kind).iterdir() if path.is_dir()]
        except OSError:
            return []
        return [_Entry(path=path, size=_size(path), used=_mtime(path)) for path in folders]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    path: Path
    size: int
    used: float


def copy_file(source: Path, target: Path) -> None:
    """Copies a file's bytes; where the file system can, it shares them until one of the two is changed."""
    with source.open("rb") as reader, target.open("wb") as writer:
        if hasattr(os, "copy_file_range"):
            with contextlib.suppress(OSError):  # not between these file systems
                while os.copy_file_range(reader.fileno(), writer.fileno(), 1 << 30):
                    pass
            reader.seek(os.lseek(writer.fileno(), 0, os.SEEK_CUR))
        shutil.copyfileobj(reader, writer, 1 << 20)


def _remove_folder(folder: Path) -> None:
    gone = folder.with_name(f".{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _size(folder: Path) -> int:
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
