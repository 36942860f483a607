"""Which commit of this program is running, where it runs from a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT_S = 10.0


def source_commit() -> str | None:
    """40 hex digits, and ``-dirty`` where tracked files were changed; None for an installed program, or without git."""
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None  # it may lie in a checkout of something else
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None
