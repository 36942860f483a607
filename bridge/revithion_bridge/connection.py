"""How programs of the same user find the daemon and are let in: the connection file and the keys of this installation.

Both are readable by their owner only (mode 0600 in a folder of mode 0700; on Windows the user's profile is private by
its own rules). Any process, any thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

import filelock
import msgspec

from revithion_bridge.errors import bridge_error
from revithion_stems import config

_MOST_BYTES = 65_536
_LOCK_TIMEOUT_S = 10.0


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running daemon can be reached, and with which keys.

    Attributes:
        version: Of the program.
        pid: Of the daemon.
        epoch: Of this run.
        work: Endpoint of the ``work`` door.
        control: Endpoint of the ``control`` door.
        events: Endpoint where events are published.
        server_key: The daemon's public CURVE key, in Z85.
        client_public: The clients' public CURVE key.
        client_secret: The clients' secret CURVE key.
        osc_udp_port: UDP port of the OSC door on the loopback interface, or None.
        osc_tcp_port: TCP port of it, or None.
        osc_token: First argument of each OSC message.
        folders: What :func:`own_folders` gave in the daemon.
    """

    version: str
    pid: int
    epoch: str
    work: str
    control: str
    events: str
    server_key: str
    client_public: str
    client_secret: str
    osc_udp_port: int | None = None
    osc_tcp_port: int | None = None
    osc_token: str = ""
    folders: dict[str, str] = {}


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of this installation, in Z85: who has them may use the daemon.

    Attributes:
        server_public: CURVE key of the daemon.
        server_secret: Its secret half.
        client_public: CURVE key of the clients.
        client_secret: Its secret half.
        osc_token: First argument of each OSC message.
    """

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str
    osc_token: str


def daemon_folder() -> Path:
    """The daemon's folder; it may not be there yet."""
    return config.state_dir() / "daemon"


def make_daemon_folder() -> Path:
    """The daemon's folder, made if needed, and closed to others."""
    return make_private(daemon_folder())


def make_private(folder: Path) -> Path:
    """A folder, made if needed, and closed to others."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def connection_path() -> Path:
    """The connection file; it may not be there."""
    return daemon_folder() / "connection.json"


def read_connection() -> Connection | None:
    """What the connection file says; None if there is none. The daemon may be gone all the same.

    Raises:
        RevithionError: ``daemon.unreachable``: the file can't be read, or is damaged.
    """
    path = connection_path()
    try:
        return msgspec.json.decode(_read(path), type=Connection)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise bridge_error("daemon.unreachable", f"can't read {path}: {exc}") from exc


def write_connection(connection: Connection) -> None:
    """Puts the connection file in its place, all at once.

    Raises:
        OSError: It can't be written.
    """
    make_daemon_folder()
    _write_privately(connection_path(), msgspec.json.format(msgspec.json.encode(connection)) + b"\n")


def remove_connection() -> None:
    """Removes the connection file; that there is none is no error."""
    connection_path().unlink(missing_ok=True)


def own_folders() -> dict[str, str]:
    """Where this process has ``models``, ``cache`` and ``state``; ``offline`` is ``1`` if the network is forbidden."""
    return {
        "models": str(config.model_dir().absolute()),
        "cache": str(config.cache_dir().absolute()),
        "state": str(config.state_dir().absolute()),
        "offline": "1" if config.offline_mode() else "",
    }


def load_keys() -> Keys:
    """The keys of this installation; made on first use, and anew if others could have read them, or they are damaged.

    Raises:
        OSError: They can't be written.
        filelock.Timeout: Another process is at it for very long.
    """
    folder = make_daemon_folder()
    path = folder / "keys.json"
    with filelock.FileLock(folder / "keys.lock", timeout=_LOCK_TIMEOUT_S):
        with contextlib.suppress(FileNotFoundError, ValueError):
            if sys.platform == "win32" or not path.stat().st_mode & 0o077:
                return msgspec.json.decode(_read(path), type=Keys)
        keys = _new_keys()
        _write_privately(path, msgspec.json.encode(keys))
    return keys


def _new_keys() -> Keys:
    import zmq  # only where it is needed: the command line reads the connection file without it

    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    return Keys(
        server_public=server_public.decode(),
        server_secret=server_secret.decode(),
        client_public=client_public.decode(),
        client_secret=client_secret.decode(),
        osc_token=secrets.token_hex(16),
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)


def _write_privately(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # its mode is 0600
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _replace(part: Path, path: Path) -> None:
    for attempt in range(20):
        try:
            part.replace(path)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == 19:
                raise
            time.sleep(0.05)  # Windows replaces no file that somebody reads at the moment
