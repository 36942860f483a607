"""The connection file and the keys: whole or not there, and nobody else's business."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from program import posix_only
from revithion_bridge.connection import (
    Connection,
    connection_path,
    daemon_folder,
    load_keys,
    make_daemon_folder,
    own_folders,
    read_connection,
    remove_connection,
    write_connection,
)
from revithion_stems.errors import RevithionError

pytestmark = pytest.mark.usefixtures("daemon_home")


def example(epoch: str = "e") -> Connection:
    return Connection(
        version="1", pid=os.getpid(), epoch=epoch, work="ipc:///w", control="ipc:///c", events="ipc:///e",
        server_key="s", client_public="p", client_secret="q", osc_udp_port=5, osc_token="t", folders=own_folders(),
    )  # fmt: skip


def test_what_is_written_is_read(daemon_home):
    assert daemon_folder() == daemon_home / "daemon"
    assert read_connection() is None
    write_connection(example())
    assert read_connection() == example()
    write_connection(example("other"))
    assert read_connection() == example("other")
    remove_connection()
    remove_connection()
    assert read_connection() is None
    assert list(daemon_folder().iterdir()) == []


@posix_only
def test_only_the_owner_can_read_it():
    before = os.umask(0)
    try:
        daemon_folder().mkdir(parents=True)  # by somebody who did not care
        write_connection(example())
        load_keys()
    finally:
        os.umask(before)
    assert daemon_folder().stat().st_mode & 0o777 == 0o700
    assert connection_path().stat().st_mode & 0o777 == 0o600
    assert (daemon_folder() / "keys.json").stat().st_mode & 0o777 == 0o600


def test_a_field_of_a_newer_version_is_passed_over():
    write_connection(example())
    path = connection_path()
    path.write_text(path.read_text().replace("{", '{"more": [1],', 1))
    assert read_connection() == example()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "[" * 50_000, "\udcff"])
def test_a_damaged_file_is_told_of(text):
    make_daemon_folder()
    connection_path().write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RevithionError, match=r"connection\.json") as caught:
        read_connection()
    assert caught.value.code == "daemon.unreachable"


def test_readers_never_see_half_a_file():
    write_connection(example())
    over = threading.Event()
    seen: set[str] = set()
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while not over.is_set():
                found = read_connection()
                assert found is not None
                seen.add(found.epoch)
        except BaseException as exc:  # told to the test
            failures.append(exc)

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        write_connection(example(str(number) * 50))
    over.set()
    reader.join()
    assert failures == []
    assert len(seen) > 1


def test_keys_stay_and_differ_between_installations(daemon_home, tmp_path, monkeypatch):
    keys = load_keys()
    assert load_keys() == keys
    assert len({keys.server_public, keys.server_secret, keys.client_public, keys.client_secret, keys.osc_token}) == 5
    assert len(keys.server_secret) == 40
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "other"))
    assert load_keys() != keys


@posix_only
def test_keys_that_others_could_read_are_replaced():
    keys = load_keys()
    path = daemon_folder() / "keys.json"
    path.chmod(0o640)
    renewed = load_keys()
    assert renewed.server_secret != keys.server_secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_keys() == renewed


def test_damaged_keys_are_replaced():
    load_keys()
    (daemon_folder() / "keys.json").write_text("{")
    assert load_keys() == load_keys()


def test_two_who_need_keys_at_once_get_the_same():
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(_keys_of_a_process, range(8))
        pool.close()
        pool.join()
    assert len(set(found)) == 1


def _keys_of_a_process(_: int) -> str:
    return load_keys().server_secret


def test_folders_are_absolute_wherever_one_is(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REVITHION_MODEL_DIR", "models here")
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    assert own_folders()["models"] == str(tmp_path / "models here")
    assert own_folders()["offline"] == "1"
    monkeypatch.delenv("REVITHION_OFFLINE")
    assert own_folders()["offline"] == ""


def test_reading_needs_no_zeromq():
    code = "import sys, revithion_bridge.connection as c; c.read_connection(); print('zmq' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
