"""The SQLite file of the ledger: its tables, its opening, its transactions, and its errors as ours."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Generator
from pathlib import Path

from revithion_bridge.errors import bridge_error
from revithion_stems.errors import RevithionError

MIGRATIONS = (
    # A new row's number is above all others: it is the order of arrival, and an updated job keeps its place.
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        client TEXT NOT NULL,
        key TEXT,
        state TEXT NOT NULL,
        finished_at REAL,
        job TEXT NOT NULL,
        UNIQUE (client, key)
    );
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE INDEX jobs_by_client ON jobs (client, number);
    CREATE TABLE history (
        number INTEGER PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
        at REAL NOT NULL,
        state TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        reason TEXT NOT NULL
    );
    CREATE INDEX history_by_job ON history (job, number);
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
)
"""Each script leads from one version (``user_version``) of the file to the next, the first from an empty one."""

_BUSY_S = 5.0
_LITTLE_BYTES = 256 * 1024
_CANNOT_WRITE = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
    }
)
_NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def open_ledger_file(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    """The connection that writes and the one that reads; makes the file and its folder for this user only.

    Either may be used on any thread, by one at a time. A commit has been flushed to the disk when it returns.

    Raises:
        DaemonError: ``daemon.ledger``: it is damaged, of a later version, or something else. ``daemon.disk_full``:
            there is no room to make it.
    """
    with contextlib.ExitStack() as opened:
        try:
            _make_private(path)
            writer = opened.enter_context(contextlib.closing(_connect(path)))
            _migrate(writer, path)
            reader = opened.enter_context(contextlib.closing(_connect(path)))
            reader.execute("PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as exc:
            code = "daemon.disk_full" if _no_room(path, exc) else "daemon.ledger"
            raise bridge_error(code, f"can't open {path}: {exc}") from exc
        opened.pop_all()
        return writer, reader


def error_of_write(path: Path, error: sqlite3.Error) -> RevithionError:
    """What went wrong in a transaction, as ours."""
    if isinstance(error, sqlite3.IntegrityError):
        return bridge_error("job.key_reused", f"another job has that idempotency key ({error})")
    cannot_write = _primary_code(error) in _CANNOT_WRITE
    return bridge_error("daemon.disk_full" if cannot_write else "daemon.ledger", f"can't write {path}: {error}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All that happens inside is on the disk afterwards, or nothing of it if something is raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back already
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _make_private(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # SQLite gives its other files that mode
    except FileExistsError:
        if not path.is_file():
            raise bridge_error("daemon.ledger", f"{path} is not a file") from None
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()  # where that can't be, it works the older way
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS' own fsync leaves data in the drive's cache
        connection.execute("PRAGMA checkpoint_fullfsync = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -256")  # KiB; the system's own cache is behind it
        connection.execute("PRAGMA temp_store = MEMORY")  # it must not depend on a second disk that may be full
        connection.execute(f"PRAGMA journal_size_limit = {4 << 20}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise bridge_error(
            "daemon.ledger",
            f"{path} is of version {version}, from a later release; this one knows {len(MIGRATIONS)} and earlier",
        )
    if version < 0 or (version == 0 and connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]):
        raise bridge_error("daemon.ledger", f"{path} is a database of something else")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise bridge_error("daemon.ledger", f"{path} is damaged: {damage}")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        with transaction(connection):
            for statement in script.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _no_room(path: Path, error: sqlite3.Error | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    if _primary_code(error) == sqlite3.SQLITE_IOERR:  # so it says of its shared memory
        with contextlib.suppress(OSError):
            return shutil.disk_usage(path.parent).free < _LITTLE_BYTES
    return _primary_code(error) == sqlite3.SQLITE_FULL


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
