"""Delivering a finished result from the content store: every byte is compared with the manifest on its way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from revithion_stems.digests import sha256_file
from revithion_stems.file_set import FileSet
from revithion_stems.manifest import Manifest
from revithion_stems.output_errors import output_errors
from revithion_stems.store import copy_file

_THREADS = 4


def restore(files: FileSet, manifest: Manifest, folder: Path, stems: dict[str, Path]) -> bool:
    """Puts the stems of a stored result into a set of files.

    A file that stands at its place already with the right content is left alone.

    Args:
        files: Gets those that are missing or different.
        manifest: Of the result.
        folder: Where the store keeps the result: files ``0``, ``1``, … in the order of the manifest.
        stems: Stem → final path.

    Returns:
        Whether all was there and genuine. If not, the set must be thrown away.

    Raises:
        OutputError: A file can't be written.
    """
    wanted: dict[Path, tuple[int, int, str]] = {}
    for record in manifest.files:
        wanted.setdefault(stems[record.stem], (len(wanted), record.size, record.sha256))
    with ThreadPoolExecutor(_THREADS) as pool:
        there = pool.map(_has, wanted, [size for _, size, _ in wanted.values()], [sha for *_, sha in wanted.values()])
        copies = [
            pool.submit(_copy, folder / str(number), path, files.new_part(path), digest)
            for (path, (number, _, digest)), found in zip(wanted.items(), list(there), strict=True)
            if not found
        ]
        return all([copy.result() for copy in copies])  # noqa: C419 — all of them, or an error is lost


def _has(path: Path, size: int, digest: str) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == size and sha256_file(path) == digest
    except OSError:
        return False


def _copy(stored: Path, path: Path, part: Path, digest: str) -> bool:
    """Copies and compares. Not flushed to disk: should the power fail, the store can give the file once more."""
    if not stored.is_file():
        return False
    with output_errors(path):
        copy_file(stored, part)
        return sha256_file(part) == digest
