"""The content store: whole results or none, the limit held, the least used gone first, several processes at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from revithion_stems.config import cache_limit_bytes
from revithion_stems.errors import ConfigError
from revithion_stems.store import ContentStore, copy_file
from revithion_stems.work_folders import hold_work


@pytest.fixture
def store(tmp_path):
    return ContentStore(tmp_path / "cache", limit_bytes=10_000)


def put(store, key, size=1000, age_s=0.0):
    path = store.root.parent / f"{key}.wav"
    path.write_bytes(key[0].encode() * size)
    stored = store.put_result(key, b"{}", [path])
    if stored:
        folder = store.root / "results" / key
        os.utime(folder, (time.time() - age_s,) * 2)
    return stored


def keys(store):
    return sorted(path.name for path in (store.root / "results").iterdir())


def test_a_result_is_given_again(store):
    assert store.result("aa") is None
    assert put(store, "aa")
    manifest, folder = store.result("aa")
    assert manifest == b"{}"
    assert (folder / "0").read_bytes() == b"a" * 1000
    assert store.usage().results == 1
    assert store.usage().results_bytes == 1002


def test_the_least_recently_used_goes_first(store):
    for number, key in enumerate("abcdefghi"):
        put(store, key, age_s=1000 - number)
    assert keys(store) == list("abcdefghi")
    store.result("a")  # used: now the newest
    put(store, "j", size=2000)
    assert keys(store) == ["a", *"defghij"]
    assert store.usage().results_bytes <= store.limit_bytes


def test_what_is_larger_than_the_store_is_not_kept(store):
    put(store, "a")
    assert not put(store, "b", size=2500)
    assert keys(store) == ["a"]
    assert put(store, "c", size=2498)


def test_a_limit_of_nothing_keeps_nothing(tmp_path):
    store = ContentStore(tmp_path / "cache", limit_bytes=0)
    assert not put(store, "a")
    store.put_facts("f" * 64, b"{}")
    assert store.facts("f" * 64) is None
    assert not (tmp_path / "cache").exists()


def test_facts(store):
    assert store.facts("f" * 64) is None
    store.put_facts("f" * 64, b"{1}")
    assert store.facts("f" * 64) == b"{1}"
    store.clear()
    assert store.facts("f" * 64) is None


def test_a_folder_that_can_t_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    store = ContentStore(tmp_path / "file", limit_bytes=10_000)
    store.put_facts("f" * 64, b"{}")
    assert store.facts("f" * 64) is None
    assert store.result("a") is None
    assert store.usage().results == 0
    with pytest.raises(OSError, match="file"):
        put(store, "a")


def test_many_processes_put_and_get_the_same_results(tmp_path):
    """Each worker puts and gets three keys with different content, over and over."""
    code = """
import sys
from pathlib import Path
from revithion_stems.store import ContentStore
root, mine = Path(sys.argv[1]), Path(sys.argv[2])
store = ContentStore(root, limit_bytes=450_000)
got = 0
for turn in range(40):
    for key in "abc":
        mine.write_bytes(key.encode() * 100_000)
        try:
            store.put_result(key, key.encode(), [mine])
        except OSError:
            pass  # another one cleared the room away; the caller goes on without
        found = store.result(key)
        if found is None:
            continue
        try:
            data = (found[1] / "0").read_bytes()
        except FileNotFoundError:
            continue  # evicted meanwhile
        assert found[0] == key.encode(), found
        assert data == key.encode() * 100_000, len(data)
        got += 1
assert got > 20, got
"""
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    workers = [subprocess.Popen([*command, str(tmp_path / f"mine{n}")], stderr=subprocess.PIPE) for n in range(3)]
    for worker in workers:
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err.decode()
    hidden = [path for path in (tmp_path / "cache" / "results").iterdir() if path.name.startswith(".")]
    assert hidden == []
    assert ContentStore(tmp_path / "cache").usage().results_bytes <= 450_000 + 2 * 100_001


def test_copies_are_equal_whatever_the_size(tmp_path):
    for size in (0, 1, 1 << 20, (1 << 20) + 1):
        (tmp_path / "a").write_bytes(os.urandom(size))
        copy_file(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# --- work folders ---


def held(folder, **callbacks):
    return hold_work(folder, **{"on_wait": lambda: None, "check": lambda: None, **callbacks})


def test_one_at_a_time(tmp_path):
    order = []
    entered = threading.Event()

    def second():
        with held(tmp_path / "w", on_wait=lambda: (order.append("waits"), entered.set())):
            order.append("second")

    thread = threading.Thread(target=second)
    with held(tmp_path / "w") as work:
        thread.start()
        assert entered.wait(10)
        order.append("first")
        work.finish()
    thread.join(10)
    assert order == ["waits", "first", "second"]
    assert (tmp_path / "w").is_dir()  # the second one did not finish: its journal stays


def test_waiting_can_be_ended(tmp_path):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with held(tmp_path / "w"), pytest.raises(Stop), held(tmp_path / "w", on_wait=stop):
        pass


def test_finished_work_leaves_nothing_and_unfinished_work_its_journal(tmp_path):
    with held(tmp_path / "w") as work:
        work.journal(fresh=False).close()
    assert (tmp_path / "w" / "segments").exists()
    with held(tmp_path / "w") as work:
        work.finish()
    assert not (tmp_path / "w").exists()


def test_temporary_files_of_a_killed_job_go(tmp_path):
    """The list survives a kill; only hidden parts and empty folders in it are removed."""
    code = f"""
import os
from pathlib import Path
from revithion_stems.work_folders import hold_work
root = Path({str(tmp_path)!r})
with hold_work(root / "w", on_wait=lambda: None, check=lambda: None) as work:
    for name in ("out", "out/.1.part", "out/theirs", "kept", "kept/theirs", "not-there/.2.part"):
        work.note_temporary(root / name)
    (root / "out").mkdir(); (root / "kept").mkdir()
    for name in ("out/.1.part", "out/theirs", "kept/theirs"):
        (root / name).touch()
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode in (-9, 1)
    with (tmp_path / "w" / "temporary").open("a") as listed:
        listed.write('"cut')
    store = ContentStore(tmp_path / "cache", limit_bytes=1000)
    with held(tmp_path / "w"):
        names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.parent.name != "w")
        assert names == ["kept", "kept/theirs", "out", "out/theirs", "w"]
    assert store.usage().unfinished == 0


def test_clearing_spares_jobs_that_run(store):
    put(store, "a")
    with store.work("running", on_wait=lambda: None, check=lambda: None) as work:
        work.journal(fresh=False).close()
        with store.work("dead", on_wait=lambda: None, check=lambda: None) as dead:
            dead.journal(fresh=False).close()
        assert store.usage().unfinished == 2
        usage = store.clear()
        assert (usage.results, usage.unfinished) == (0, 1)
        assert (store.root / "work" / "running" / "segments").exists()


def test_abandoned_work_goes_before_results(store):
    put(store, "a", size=2400)
    with store.work("old", on_wait=lambda: None, check=lambda: None):
        pass
    with store.work("new", on_wait=lambda: None, check=lambda: None):
        pass
    for name, days in (("old", 20), ("new", 1)):
        (store.root / "work" / name / "segments").write_bytes(bytes(3500))
        os.utime(store.root / "work" / name, (time.time() - days * 86_400,) * 2)
    put(store, "b", size=2000)
    assert keys(store) == ["a", "b"]
    assert sorted(path.name for path in (store.root / "work").iterdir()) == ["new"]


# --- settings ---


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 20 * 10**9), ("0", 0), ("5 GB", 5 * 10**9), ("1.5T", 1_500_000_000_000), ("700mb", 700_000_000)],
)
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("REVITHION_CACHE_SIZE", text)
    assert cache_limit_bytes() == size


@pytest.mark.parametrize("text", ["much", "-1", "5 PB", "1e3"])
def test_what_is_no_size(monkeypatch, text):
    monkeypatch.setenv("REVITHION_CACHE_SIZE", text)
    with pytest.raises(ConfigError):
        cache_limit_bytes()


def test_paths_are_listed_as_they_are(tmp_path):
    name = os.fsdecode(b"na\xefve \xf0\x9f\x8e\xb5.part") if sys.platform.startswith("linux") else "naïve.part"
    odd = tmp_path / ("." + name)
    with held(tmp_path / "w") as work:
        work.note_temporary(odd)
        odd.touch()
    with held(tmp_path / "w"):
        assert not odd.exists()
    assert isinstance(odd, Path)
