"""The command line program in a process of its own, as a user has it, and the scripts of docs/: for all tests."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "from revithion_stems.cli.main import main; main()"]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, terminals and names")


def environment(place: Path, **extra: str) -> dict[str, str]:
    """The environment of a user who works in ``place`` and has an empty home beside it."""
    home = place.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REVITHION_", "XDG_"))}
    return {
        **kept,
        "HOME": str(home),
        "REVITHION_CONFIG": str(home / "config.toml"),
        "REVITHION_STATE_DIR": str(home / "state"),
        "REVITHION_CACHE_DIR": str(home / "cache"),
        "REVITHION_MODEL_DIR": str(home / "models"),
        "REVITHION_OFFLINE": "1",
        "PYTHONIOENCODING": "utf-8",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        **extra,
    }


def run(place: Path, *args: str | Path, stdin: str = "", **extra: str) -> subprocess.CompletedProcess[str]:
    """Runs ``revithion-stems args`` in ``place`` and waits for it."""
    return subprocess.run(
        [*COMMAND, *map(os.fspath, args)],
        cwd=place,
        env=environment(place, **extra),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        input=stdin,
        timeout=60,
        check=False,
    )


def start(place: Path, *args: str | Path, **extra: str) -> subprocess.Popen[str]:
    """Starts ``revithion-stems args`` in ``place``, its output in pipes."""
    return subprocess.Popen(
        [*COMMAND, *map(os.fspath, args)],
        cwd=place,
        env=environment(place, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )


def run_on_terminal(place: Path, *args: str, columns: int) -> tuple[int, str]:
    """Runs it on a terminal of its own; the exit status, and all that the terminal showed, without escape sequences."""
    import pty

    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *args],
        cwd=place,
        env=environment(place, TERM="xterm", COLUMNS=str(columns)),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([main_end], [], [], 0.2)[0]:
            try:
                part = os.read(main_end, 65_536)
            except OSError:  # Linux says EIO when the other end is closed
                break
            if not part:
                break
            shown += part
    os.close(main_end)
    return process.wait(10), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def lines(text: str) -> list[dict[str, Any]]:
    """What ``--json`` printed: one object a line."""
    return [json.loads(line) for line in text.splitlines()]


def docs_script(name: str) -> ModuleType:
    """A script of docs/, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
