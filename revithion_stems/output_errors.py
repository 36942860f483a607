"""Errors of writing, as ours: a full disk is told apart from a folder that may not be written."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Generator
from pathlib import Path

import soundfile

from revithion_stems.errors import OutputError


@contextlib.contextmanager
def output_errors(path: Path) -> Generator[None]:
    """Turns what goes wrong inside while ``path`` is written into :class:`OutputError`."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, soundfile.SoundFileError, RuntimeError, AssertionError, ValueError) as exc:
        if _disk_is_full(path, exc):
            raise OutputError(
                f"no space left on the disk for {path}",
                hint="Free some space or choose another folder with -o; nothing half-written was left.",
                code="output.disk_full",
            ) from exc
        reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        raise OutputError(
            f"can't write {path}: {str(reason).rstrip('.')}",
            hint="Choose a folder that you may write to, with -o.",
        ) from exc


def _disk_is_full(path: Path, error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, OSError) and error.errno not in (errno.EIO, None):
        return False
    folder = next((p for p in path.parents if p.exists()), None)
    with contextlib.suppress(OSError):
        return folder is not None and shutil.disk_usage(folder).free < 1 << 20
    return False
