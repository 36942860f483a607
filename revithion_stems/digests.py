"""SHA-256 of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from revithion_stems.events import CancelToken

_BUFFER_BYTES = 1 << 18  # what stays in a core's cache


def sha256_file(path: Path, cancel: CancelToken | None = None, *, flush: bool = False) -> str:
    """SHA-256 of a file's content as 64 hex digits.

    Args:
        path: The file.
        cancel: Looked at now and then.
        flush: Whether the content must be on the disk afterwards; the file then has to be writable.

    Raises:
        Cancelled: The token was raised meanwhile.
        OSError: The file can't be read.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with path.open("rb+" if flush else "rb", buffering=0) as file:  # Windows flushes only what is open for writing
        while size := file.readinto(buffer):
            if cancel is not None:
                cancel.raise_if_cancelled()
            digest.update(buffer[:size])
        if flush:
            os.fsync(file.fileno())
    return digest.hexdigest()
