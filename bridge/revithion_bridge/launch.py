"""Starting a daemon that stays when its starter is gone. Blocks; any thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock

from revithion_bridge.connection import Connection, make_daemon_folder, own_folders, read_connection
from revithion_bridge.daemon_link import running_connection
from revithion_bridge.errors import bridge_error
from revithion_stems.errors import RevithionError

_LOOK_S = 0.05
_TOLD_BYTES = 2000
_SETTINGS = {"models": "REVITHION_MODEL_DIR", "cache": "REVITHION_CACHE_DIR", "state": "REVITHION_STATE_DIR"}


def start_daemon(timeout_s: float) -> Connection:
    """Starts a daemon in the place of the one that the connection file names, if any; what its file says then.

    When several do so at once, there is one daemon, and all get that one.

    Raises:
        RevithionError: ``daemon.start_failed``.
    """
    before = _epoch_of_file()
    deadline = time.monotonic() + timeout_s
    folder = make_daemon_folder()
    try:
        with filelock.FileLock(folder / "start.lock", timeout=timeout_s):
            return _new_connection(before) or _start(folder, before, deadline)
    except filelock.Timeout:
        raise bridge_error("daemon.start_failed", "another program has been starting it for too long") from None


def _start(folder: Path, before: str | None, deadline: float) -> Connection:
    log = folder / "start.log"
    process = _spawn(folder, log)
    # Somebody must ask for its exit status, or it stays as a zombie if it ends before this process.
    threading.Thread(target=process.wait, name="daemon-exit", daemon=True).start()
    while True:
        ended = process.poll() is not None
        connection = _new_connection(before)
        if connection is not None:
            return connection
        if ended:
            said = log.read_bytes()[-_TOLD_BYTES:].decode("utf-8", "replace").strip()
            raise bridge_error("daemon.start_failed", f"it ended at once: {said or 'without a word'} (see {folder})")
        if time.monotonic() > deadline:
            raise bridge_error("daemon.start_failed", f"it is not ready yet; see {folder / 'daemon.log'}")
        time.sleep(_LOOK_S)


def _spawn(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    # It works in its own folder, so as not to keep a disk busy; so paths must not depend on this process's one.
    env = dict(os.environ)
    folders = own_folders()
    env.update({name: folders[key] for key, name in _SETTINGS.items() if env.get(name)})
    if env.get("REVITHION_CONFIG"):
        env["REVITHION_CONFIG"] = str(Path(env["REVITHION_CONFIG"]).absolute())
    detached: dict[str, int | bool] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    with log.open("wb") as output:
        log.chmod(0o600)
        return subprocess.Popen(
            [sys.executable, "-m", "revithion_bridge.daemon"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **detached,  # type: ignore[arg-type]
        )


def _epoch_of_file() -> str | None:
    try:
        connection = read_connection()
    except RevithionError:
        return None
    return connection.epoch if connection is not None else None


def _new_connection(before: str | None) -> Connection | None:
    try:
        connection = running_connection()
    except RevithionError:
        return None
    return connection if connection.epoch != before else None
