"""A client of the protocol in another language: ``bridge/node_client`` in a Node of its own, for tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_FILES = Path(__file__).parent / "bridge" / "node_client"


def installed_node_client(folder: Path) -> Path:
    """A copy of the client in ``folder``, with what it needs from the registry; skips the test where that can't be had.

    With ``REVITHION_REQUIRE_WEIGHTS`` set, which says that this machine reaches the registries, it fails instead.
    """
    place = folder / "node_client"
    if (place / "node_modules" / "zeromq").is_dir():
        return place
    shutil.copytree(_FILES, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    npm = shutil.which("npm")
    problem = "there is no npm" if npm is None or shutil.which("node") is None else ""
    if npm is not None and not problem:
        command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--omit=dev"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=240)
        problem = f"npm install: {done.stdout[-1000:]}{done.stderr[-1000:]}" if done.returncode else ""
    if problem:
        if os.environ.get("REVITHION_REQUIRE_WEIGHTS"):
            pytest.fail(problem)
        pytest.skip(problem)
    return place


def run_node_client(
    place: Path, connection_file: Path, source: Path, folder: Path, **parameters: Any
) -> list[dict[str, Any]]:
    """Lets the client at ``place`` submit ``source`` to the daemon of ``connection_file``; the lines that it printed.

    They are ``{"status": …}``, ``{"submitted": …}``, ``{"topic": …, "event": …}`` per event of the job, ``{"job": …}``.
    """
    node = shutil.which("node")
    assert node is not None
    command = [node, "client.mjs", *map(str, (connection_file, source, folder)), json.dumps(parameters)]
    done = subprocess.run(
        command, cwd=place, capture_output=True, encoding="utf-8", errors="replace", check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
