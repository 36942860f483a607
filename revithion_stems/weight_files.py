"""Weights files on disk: digests, what the catalog expects of them, atomic appearance, and what a full disk means."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import shutil
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.catalog import ModelSpec, WeightsFile
from revithion_stems.digests import sha256_file
from revithion_stems.errors import ModelError, OutputError
from revithion_stems.events import CancelToken
from revithion_stems.units import format_bytes
from revithion_stems.weight_sources import PackageSource, parse_source

SPARE_BYTES = 16 << 20
REINSTALL = "The file comes with this program: install revithion-stems again."


class FileState(enum.Enum):
    """What a look at a file's content says."""

    OK = "ok"
    MISSING = "missing"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport:
    """One weights file after its content was hashed.

    Attributes:
        network: Signature of the network it belongs to; any one good file of a network is enough.
        file: Its row in the catalog.
        path: Where it stands or would stand.
        state: What was found.
        expected: The full SHA-256 that it must have; None if nothing but a prefix is known, or not even that.
        found: The SHA-256 that it has; None if it is missing.
    """

    network: str
    file: WeightsFile
    path: Path
    state: FileState
    expected: str | None
    found: str | None


def file_path(root: Path, file: WeightsFile) -> Path:
    """Where a file stands or would stand: in the store's folder ``root``, or in this package if it came with it."""
    if file.built_in:
        source = parse_source(file.sources[0])
        assert isinstance(source, PackageSource)
        return source.path
    return root / file.name  # a bare name, by the rules of the catalog


def record_path(root: Path, file: WeightsFile) -> Path:
    """Where the digest of a file's first download is recorded, for files whose full digest nobody publishes."""
    return root / f"{file.name}.sha256"


def expected_sha256(root: Path, file: WeightsFile) -> str | None:
    """The full SHA-256 that a stored file must have: the catalog's, else the recorded one, else None."""
    if file.sha256 is not None:
        return file.sha256
    try:
        text = record_path(root, file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch(r"[0-9a-f]{64}", text) and text.startswith(file.sha256_prefix or "") else None


def is_published(file: WeightsFile, digest: str) -> bool:
    """Whether ``digest`` is what the catalog says of a file: in full, or by its published prefix."""
    return digest == file.sha256 if file.sha256 else bool(file.sha256_prefix) and digest.startswith(file.sha256_prefix)


def record_digest(root: Path, file: WeightsFile, digest: str) -> None:
    """Keeps the digest of a verified file beside it, unless the catalog has it in full."""
    if file.sha256 is None:
        with appearing(record_path(root, file)) as part:
            part.write_text(digest + "\n", encoding="ascii")


def is_present(root: Path, file: WeightsFile) -> bool:
    """Whether a file stands there with the right size; its digest is not looked at."""
    path = file_path(root, file)
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return path.is_file() and size == (file.size or size) and size > 0


def inspect_file(root: Path, network: str, file: WeightsFile, cancel: CancelToken | None = None) -> FileReport:
    """Hashes one file of the store and compares it with what is known of it.

    Raises:
        ModelError: The file is there and can't be read.
        Cancelled: The token was raised meanwhile.
    """
    path = file_path(root, file)
    expected = expected_sha256(root, file)
    try:
        found = sha256_file(path, cancel)
    except FileNotFoundError:
        found, state = None, FileState.MISSING
    except OSError as exc:
        raise ModelError(
            f"can't read {path}: {exc.strerror or exc}",
            hint="Make the file readable, or let REVITHION_MODEL_DIR name another folder.",
            code="model.unreadable",
        ) from exc
    else:
        # Without a recorded digest (the file was copied here by hand) the published prefix decides.
        good = found == expected if expected is not None else is_published(file, found)
        state = FileState.OK if good else FileState.CORRUPT
    return FileReport(network=network, file=file, path=path, state=state, expected=expected, found=found)


def corrupt_error(spec: ModelSpec, report: FileReport) -> ModelError:
    """The error for a file whose content is not what the catalog promises."""
    expected = report.expected or f"{report.file.sha256_prefix or 'one that the hub states'}…"
    return ModelError(
        f"{report.path} is damaged or not genuine: SHA-256 is {report.found}, expected {expected}",
        hint=REINSTALL
        if report.file.built_in
        else f"`revithion-stems models pull {spec.name} --force` replaces it; nothing was deleted.",
        code="model.corrupt",
    )


@contextlib.contextmanager
def appearing(path: Path) -> Generator[Path, None, None]:
    """A temporary path beside ``path`` to write to; it takes the name ``path`` at once at the end, or vanishes."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def copy_verified(source: Path, target: Path, digest: str) -> None:
    """Copies a file so that it appears under its name only if its content has the SHA-256 ``digest``.

    Raises:
        ValueError: The content has another digest.
        OSError: Reading or writing failed.
    """
    with appearing(target) as part:
        shutil.copyfile(source, part)
        if sha256_file(part) != digest:
            raise ValueError(f"{source} changed while it was copied, or the copy is damaged")


def require_space(folder: Path, size: int) -> None:
    """Refuses a write that can't fit.

    Raises:
        OutputError: Fewer bytes are free in ``folder`` than ``size`` and a little more.
    """
    free = shutil.disk_usage(folder).free
    if free < size + SPARE_BYTES:
        raise OutputError(
            f"{folder} has {format_bytes(free)} free, {format_bytes(size + SPARE_BYTES)} are needed",
            hint="Free some space there, or let REVITHION_MODEL_DIR name a folder on a larger disk.",
            code="output.disk_full",
        )


@contextlib.contextmanager
def storage_errors(folder: Path) -> Generator[None, None, None]:
    """Turns operating system errors about a folder of weights into typed ones that say what to do."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        where = os.fspath(exc.filename) if isinstance(exc.filename, str | os.PathLike) else folder
        raise OutputError(
            f"can't write to {folder}: {exc.strerror or exc} ({where})",
            hint="Free some space there, or let REVITHION_MODEL_DIR name a folder on a larger disk."
            if full
            else "Let REVITHION_MODEL_DIR name a folder that you may write to.",
            code="output.disk_full" if full else "output.unwritable",
        ) from exc
