"""The ledger against kill -9, full disks, damaged files and many threads at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, wait

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from program import posix_only
from revithion_bridge.ledger import Ledger, StoredJob
from revithion_bridge.ledger_file import MIGRATIONS
from revithion_bridge.messages import Change, ErrorInfo, JobInfo, JobParameters, Spans
from revithion_stems.errors import DaemonError, RevithionError
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority

WAIT_S = 30.0


@pytest.fixture
def path(tmp_path):
    return tmp_path / "daemon" / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with Ledger(path) as opened:
        yield opened


def stored(job_id="job-1", *, client="ada", key=None, state="queued", finished_at=None, digest="d", **fields):
    info = JobInfo(
        id=job_id,
        client=client,
        state=JobState(state),
        priority=Priority.NORMAL,
        parameters=JobParameters(source="/music/song.wav", folder="/music/stems"),
        created_at=1000.0,
        finished_at=finished_at,
        **fields,
    )
    return StoredJob(info=info, idempotency_key=key, digest=digest)


def change(state="queued", at=1000.0, attempt=0, reason=""):
    return Change(at=at, state=JobState(state), attempt=attempt, reason=reason)


def code_of(future):
    return future.exception(WAIT_S).code


@contextlib.contextmanager
def held_up(ledger):
    """While inside, the writing thread is busy with one write, and others pile up."""
    go, there = threading.Event(), threading.Event()

    def busy(_):
        there.set()
        go.wait(WAIT_S)

    gate = ledger._submit(busy)
    assert there.wait(WAIT_S)
    try:
        yield
    finally:
        go.set()
        gate.result(WAIT_S)


# --- what is written is there ---


def test_all_fields_come_back(ledger, path):
    info = JobInfo(
        id="job-1",
        client="ada",
        state=JobState.FAILED,
        priority=Priority.INTERACTIVE,
        parameters=JobParameters(source="/é 🎵.wav", folder="/x", stems=("a", "b"), segment_s=2.5, keep=("/k",)),
        created_at=1.25,
        started_at=2.5,
        finished_at=3.75,
        attempts=2,
        cancelling=True,
        done=3,
        total=4,
        elapsed_s=5.5,
        remaining_s=6.5,
        error=ErrorInfo(code="a.b", message="m", hint="h"),
        summary={"model": "dsp", "null_db": None},
        stems=({"stem": "a"}, {"stem": "b"}),
        spans=Spans(folder="/s", stems=("a",), span_frames=5, sample_rate=44_100, count=2),
        retry_of="job-0",
        last_seq=99,
    )
    job = StoredJob(info=info, idempotency_key="k", digest="d", preemptions=1, losses=2, segment_s=1.5, cancel=True)
    ledger.put(job, change("failed", 3.75, 2, "engine.memory")).result(WAIT_S)
    ledger.set_meta("paused", "1").result(WAIT_S)
    for _ in range(2):
        assert ledger.get("job-1") == job
        assert ledger.find_key("ada", "k") == job
        assert ledger.history("job-1") == (change("failed", 3.75, 2, "engine.memory"),)
        assert ledger.meta("paused") == "1"
        ledger.close()
        ledger = Ledger(path)
    ledger.close()


def test_what_is_not_there(ledger):
    assert ledger.get("x") is None
    assert ledger.find_key("ada", "x") is None
    assert ledger.history("x") == ()
    assert ledger.meta("x") is None
    assert ledger.unfinished() == []
    assert ledger.page() == ([], False)
    assert ledger.counts() == {state.value: 0 for state in JobState}
    assert ledger.delete("x").result(WAIT_S) is False
    assert ledger.clear(1e12).result(WAIT_S) == []
    assert ledger.prune().result(WAIT_S) == []


def test_a_job_is_written_again(ledger):
    ledger.put(stored(), change())
    ledger.put(stored("job-2"), change())
    ledger.put(stored(state="loading"), change("loading", 1001.0, 1))
    ledger.put(stored(state="loading", done=1))
    ledger.put(stored(state="done", finished_at=1002.0), change("done", 1002.0, 1)).result(WAIT_S)
    assert ledger.get("job-1").info.state is JobState.DONE
    assert ledger.history("job-1") == (change(), change("loading", 1001.0, 1), change("done", 1002.0, 1))
    assert [info.id for info in ledger.page()[0]] == ["job-2", "job-1"]
    assert [job.info.id for job in ledger.unfinished()] == ["job-2"]
    assert ledger.counts() == {**dict.fromkeys([s.value for s in JobState], 0), "done": 1, "queued": 1}
    ledger.set_meta("a", "1")
    ledger.set_meta("a", "2").result(WAIT_S)
    assert ledger.meta("a") == "2"


def test_keys_are_unique_per_client(ledger):
    ledger.put(stored("job-1", key="k"))
    other_client = ledger.put(stored("job-2", client="bob", key="k"))
    without = [ledger.put(stored(f"job-none-{number}")) for number in range(2)]
    again = ledger.put(stored("job-3", key="k"), change())
    wait([other_client, *without])
    assert code_of(again) == "job.key_reused"
    assert ledger.get("job-3") is None
    assert ledger.history("job-3") == ()
    assert ledger.find_key("ada", "k").info.id == "job-1"
    assert ledger.find_key("bob", "k").info.id == "job-2"
    ledger.delete("job-1")
    ledger.put(stored("job-3", key="k")).result(WAIT_S)
    assert ledger.find_key("ada", "k").info.id == "job-3"


def test_pages_newest_first(ledger):
    for number in range(25):
        client, state = ("ada", "bob")[number % 2], ("queued", "done", "failed")[number % 3]
        ledger.put(stored(f"job-{number}", client=client, state=state, finished_at=1.0))
    ledger.put(stored("job-7", client="bob", state="done", finished_at=1.0)).result(WAIT_S)  # keeps its place

    def walk(**query):
        found, before = [], None
        while True:
            jobs, more = ledger.page(before=before, **query)
            found.append([int(info.id[4:]) for info in jobs])
            if not more:
                return found
            before = jobs[-1].id

    assert walk(limit=10) == [list(range(24, 14, -1)), list(range(14, 4, -1)), list(range(4, -1, -1))]
    assert walk(limit=5, client="bob") == [[23, 21, 19, 17, 15], [13, 11, 9, 7, 5], [3, 1]]
    assert walk(limit=100, states=(JobState.DONE, JobState.FAILED), client="ada") == [
        [n for n in range(24, -1, -1) if n % 2 == 0 and n % 3]
    ]
    assert walk(limit=25) == [list(range(24, -1, -1))]
    assert walk(limit=100, client="nobody") == [[]]
    ledger.delete("job-10").result(WAIT_S)
    ledger.put(stored("job-25")).result(WAIT_S)
    assert walk(limit=4)[3:5] == [[13, 12, 11, 9], [8, 7, 6, 5]]
    with pytest.raises(RevithionError, match="job-10") as caught:
        ledger.page(before="job-10")
    assert caught.value.code == "job.unknown"


def test_jobs_that_go_while_pages_are_turned(ledger):
    for number in range(6):
        ledger.put(stored(f"job-{number}"))
    ledger.delete("job-5").result(WAIT_S)
    assert [info.id for info in ledger.page(limit=2)[0]] == ["job-4", "job-3"]
    ledger.delete("job-4")
    ledger.delete("job-2")
    ledger.put(stored("job-6")).result(WAIT_S)
    assert [info.id for info in ledger.page(before="job-3")[0]] == ["job-1", "job-0"]
    assert [info.id for info in ledger.page(limit=2)[0]] == ["job-6", "job-3"]


def test_deleting_takes_the_history_along(ledger, path):
    ledger.put(stored(), change())
    assert ledger.delete("job-1").result(WAIT_S) is True
    assert ledger.delete("job-1").result(WAIT_S) is False
    assert ledger.history("job-1") == ()
    ledger.put(stored()).result(WAIT_S)
    assert ledger.history("job-1") == ()
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT COUNT(*) FROM history").fetchone() == (0,)


def test_clearing_takes_only_what_has_ended(ledger):
    for number, state in enumerate(JobState):
        final = state.is_final
        ledger.put(stored(f"job-{state.value}", state=state.value, finished_at=100.0 + number if final else None))
    ledger.put(stored("job-bob", client="bob", state="done", finished_at=50.0))
    assert ledger.clear(49.9).result(WAIT_S) == []
    assert ledger.clear(50.0, "ada").result(WAIT_S) == []
    assert ledger.clear(50.0, "bob").result(WAIT_S) == ["job-bob"]
    assert ledger.clear(105.0).result(WAIT_S) == ["job-done", "job-failed"]
    assert ledger.clear(1e12).result(WAIT_S) == ["job-cancelled"]
    assert {job.info.state.value for job in ledger.unfinished()} == {"queued", "loading", "separating", "writing"}


def test_pruning_keeps_those_that_ended_last(ledger):
    for number in range(10):
        ledger.put(stored(f"job-{number}", state="done", finished_at=100.0 - number), change())
    ledger.put(stored("job-old"))
    assert sorted(ledger.prune(4).result(WAIT_S)) == [f"job-{number}" for number in range(4, 10)]
    assert ledger.prune(4).result(WAIT_S) == []
    assert ledger.history("job-9") == ()
    assert len(ledger.history("job-0")) == 1
    assert len(ledger.prune(0).result(WAIT_S)) == 4
    assert [info.id for info in ledger.page()[0]] == ["job-old"]


names = st.integers(min_value=0, max_value=4).map(str)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), names, st.sampled_from(["ada", "bob"]), st.sampled_from([None, "k", "l"])),
            st.tuples(st.just("delete"), names, st.none(), st.none()),
            st.tuples(st.just("end"), names, st.none(), st.none()),
        ),
        max_size=25,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_beside_a_dictionary(ledger, steps):
    """Whatever is put, refused and deleted, in whatever batches: the same as one after the other in memory."""
    for old in ledger.page(limit=500)[0]:
        ledger.delete(old.id).result(WAIT_S)
    expected, futures = {}, []
    for step, name, client, key in steps:
        if step == "delete":
            futures.append((ledger.delete(name), name in expected))
            expected.pop(name, None)
            continue
        if step == "end":
            if name not in expected:
                continue
            before = expected[name]
            job = stored(name, client=before.info.client, key=before.idempotency_key, state="done", finished_at=2.0)
        else:
            job = stored(name, client=client, key=key)
        taken = key is not None and any(
            (other.info.client, other.idempotency_key) == (client, key)
            for other_name, other in expected.items()
            if other_name != name
        )
        futures.append((ledger.put(job), "job.key_reused" if taken else None))
        if not taken:
            expected[name] = job
    for future, outcome in futures:
        if isinstance(outcome, str):
            assert code_of(future) == outcome
        else:
            assert future.result(WAIT_S) == outcome
    assert [info.id for info in ledger.page(limit=500)[0]] == list(reversed(expected))
    assert all(ledger.get(name) == job for name, job in expected.items())


# --- many at once ---


def test_what_piles_up_is_one_transaction(ledger):
    with held_up(ledger):
        before = ledger.commits
        futures = [ledger.put(stored(f"job-{number}"), change()) for number in range(300)]
        assert not any(future.done() for future in futures)
    for future in futures:
        future.result(WAIT_S)
    assert ledger.commits == before + 2  # the one that was busy, and all of them
    assert ledger.counts()["queued"] == 300


def test_one_bad_write_does_not_spoil_the_others(ledger):
    ledger.put(stored("job-first", key="k")).result(WAIT_S)
    with held_up(ledger):
        good = [ledger.put(stored("job-a"), change())]
        bad = ledger.put(stored("job-b", key="k"), change())
        good += [ledger.put(stored("job-a", state="loading"), change("loading")), ledger.put(stored("job-c"))]
    for future in good:
        future.result(WAIT_S)
    assert code_of(bad) == "job.key_reused"
    assert ledger.get("job-a").info.state is JobState.LOADING
    assert ledger.history("job-a") == (change(), change("loading"))
    assert ledger.get("job-b") is None


def test_eight_threads(ledger):
    failures = []

    def work(number):
        try:
            for turn in range(40):
                job_id = f"job-{number}-{turn}"
                ledger.put(stored(job_id, client=str(number), key=str(turn)), change()).result(WAIT_S)
                assert ledger.get(job_id).info.client == str(number)
                assert ledger.find_key(str(number), str(turn)).info.id == job_id
                assert len(ledger.page(client=str(number))[0]) == turn + 1
                assert len(ledger.history(job_id)) == 1
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert ledger.counts()["queued"] == 320


def test_a_write_can_t_be_cancelled(ledger):
    """Two may wait for the same one: that one goes must not concern the other."""
    with held_up(ledger):
        future = ledger.put(stored())
        assert not future.cancel()

        async def give_up():
            waiting = asyncio.ensure_future(asyncio.wrap_future(future))
            await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

        asyncio.run(give_up())
    with contextlib.suppress(CancelledError):
        future.result(WAIT_S)
    assert not future.cancelled()
    assert ledger.get("job-1") is not None


def test_what_was_put_is_what_is_written_whatever_becomes_of_it(ledger):
    summary = {"model": "dsp"}
    with held_up(ledger):
        future = ledger.put(stored(summary=summary))
        summary["model"] = "changed"
    future.result(WAIT_S)
    assert ledger.get("job-1").info.summary == {"model": "dsp"}


# --- its end ---


def test_closing_writes_what_waits(path):
    ledger = Ledger(path)
    with held_up(ledger):
        futures = [ledger.put(stored(f"job-{number}")) for number in range(600)]
        closing = threading.Thread(target=ledger.close)
        closing.start()
    closing.join(WAIT_S)
    assert all(future.done() and future.exception() is None for future in futures)
    ledger.close()
    assert code_of(ledger.put(stored())) == "daemon.stopping"
    with pytest.raises(DaemonError):
        ledger.get("job-1")
    with Ledger(path) as again:
        assert again.counts()["queued"] == 600


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files")  # noqa: PTH112
def test_nothing_stays_open(path, tmp_path):
    def count():
        return len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208

    (tmp_path / "bad").write_bytes(b"x" * 5000)
    with Ledger(path):
        pass
    before = count()
    for _ in range(5):
        with Ledger(path) as ledger:
            ledger.put(stored())
        with pytest.raises(DaemonError):
            Ledger(tmp_path / "bad")
    assert count() == before


@posix_only
def test_only_for_this_user(path):
    mask = os.umask(0)
    try:
        with Ledger(path) as ledger:
            ledger.put(stored()).result(WAIT_S)
            assert path.parent.stat().st_mode & 0o777 == 0o700
            names = sorted(file.name for file in path.parent.iterdir())
            assert names == ["ledger.sqlite", "ledger.sqlite-shm", "ledger.sqlite-wal"]
            assert all(file.stat().st_mode & 0o777 == 0o600 for file in path.parent.iterdir())
    finally:
        os.umask(mask)
    path.chmod(0o644)
    with Ledger(path) as ledger:
        ledger.put(stored()).result(WAIT_S)
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in path.parent.iterdir())


WRITER = """
import sys
from pathlib import Path
from revithion_bridge.ledger import Ledger, StoredJob
from revithion_bridge.messages import Change, JobInfo, JobParameters
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority

ledger, run = Ledger(Path(sys.argv[1])), sys.argv[2]
parameters = JobParameters(source="/song.wav", folder="/stems", template="x" * 1000)
number = 0
while True:
    futures = []
    for _ in range(number % 7 + 1):
        number += 1
        info = JobInfo(id=f"{run}-{number}", client="c", state=JobState.QUEUED, priority=Priority.BATCH,
                       parameters=parameters, created_at=1.0)
        change = Change(at=1.0, state=JobState.QUEUED, attempt=0)
        futures.append((info.id, ledger.put(StoredJob(info=info, idempotency_key=info.id, digest="d"), change)))
    for job_id, future in futures:
        future.result()
        print(job_id, flush=True)
"""


def test_killed_at_any_moment_what_was_promised_is_there(path):
    promised = set()
    moments = random.Random(5)
    for run in range(10):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(run)], stdout=subprocess.PIPE, encoding="ascii"
        )
        with writer:
            lines = [writer.stdout.readline()]
            time.sleep(moments.uniform(0.0, 0.15))
            writer.kill()
            lines += writer.stdout.readlines()
        told = {line.strip() for line in lines if line.endswith("\n")}
        assert told
        promised |= told
        with Ledger(path) as ledger:
            there = {job.info.id for job in ledger.unfinished()}
            assert promised <= there
            assert all(len(ledger.history(job_id)) == 1 for job_id in told)
            assert all(ledger.find_key("c", job_id).info.id == job_id for job_id in told)
    assert len(promised) > 50


# --- disks and files ---


def test_a_full_disk(tmp_path, mounted):
    with mounted(tmp_path / "small", "size=1m") as folder:
        path = folder / "ledger.sqlite"
        with Ledger(path) as ledger:
            ledger.put(stored("job-before", key="k"), change()).result(WAIT_S)
            filler = folder / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            done, failed = [], []
            for number in range(60):
                future = ledger.put(stored(f"job-{number}", digest="x" * 10_000), change())
                (done if future.exception(WAIT_S) is None else failed).append((f"job-{number}", future))
            assert len(failed) > 40
            for job_id, future in failed:
                assert code_of(future) == "daemon.disk_full"
                assert str(path) in future.exception().message
                assert ledger.get(job_id) is None
                assert ledger.history(job_id) == ()
            assert ledger.get("job-before") is not None  # it can still be read
            with held_up(ledger):
                many = [ledger.put(stored(f"many-{number}", digest="x" * 10_000)) for number in range(20)]
            assert {code_of(future) for future in many} == {"daemon.disk_full"}
            filler.unlink()
            ledger.put(stored("job-after"), change()).result(WAIT_S)
            kept = {"job-before", "job-after", *(job_id for job_id, _ in done)}
            assert {job.info.id for job in ledger.unfinished()} == kept
        with Ledger(path) as again:
            assert {job.info.id for job in again.unfinished()} == kept
            assert again.find_key("ada", "k").info.id == "job-before"


def test_no_room_to_begin_with(tmp_path, mounted):
    with mounted(tmp_path / "small", "size=1m") as folder:
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(DaemonError, match=r"ledger\.sqlite") as caught:
            Ledger(folder / "ledger.sqlite")
        assert caught.value.code == "daemon.disk_full"
        filler.unlink()
        with Ledger(folder / "ledger.sqlite") as ledger:
            ledger.put(stored()).result(WAIT_S)


def unusable(path):
    with pytest.raises(DaemonError) as caught:
        Ledger(path).close()
    assert caught.value.code == "daemon.ledger"
    assert path.name in caught.value.message
    assert "Move it away" in caught.value.hint
    return caught.value.message


def test_files_that_are_no_ledger(tmp_path):
    (tmp_path / "text").write_text("this is not a database " * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as other:
        other.execute("CREATE TABLE passwords (x)")
    for path in (tmp_path / "text", tmp_path / "folder", tmp_path / "file" / "ledger.sqlite", tmp_path / "other"):
        unusable(path)
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as other:
        assert other.execute("SELECT COUNT(*) FROM passwords").fetchone() == (0,)
    assert (tmp_path / "text").read_text().startswith("this is not")


def test_a_later_version(path):
    Ledger(path).close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    assert "later release" in unusable(path)


@pytest.mark.parametrize("damage", ["middle", "cut", "header"])
def test_a_damaged_file(path, damage):
    with Ledger(path) as ledger:
        for number in range(200):
            ledger.put(stored(f"job-{number}", digest="x" * 2000), change())
    data = bytearray(path.read_bytes())
    match damage:
        case "middle":
            data[4096:-4096] = b"\xa5" * (len(data) - 8192)
        case "cut":
            del data[len(data) // 2 :]
        case "header":
            data[:16] = bytes(16)
    path.write_bytes(data)
    unusable(path)
    assert path.read_bytes() == data  # for whoever wants to save something


def test_an_empty_file_is_a_new_one(path):
    path.parent.mkdir()
    path.touch()
    with Ledger(path) as ledger:
        ledger.put(stored()).result(WAIT_S)


def test_a_job_that_can_t_be_read(path, ledger):
    ledger.put(stored()).result(WAIT_S)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE jobs SET job = '{}'")
    with pytest.raises(DaemonError, match=r"ledger\.sqlite") as caught:
        ledger.get("job-1")
    assert caught.value.code == "daemon.ledger"


def test_a_job_of_an_earlier_and_of_a_later_release(path, ledger):
    """Fields that were added since get their defaults; those that are not known here are passed over."""
    needed = {"id", "client", "state", "priority", "parameters", "created_at"}
    ledger.put(stored(done=5)).result(WAIT_S)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        old = msgspec.json.decode(file.execute("SELECT job FROM jobs").fetchone()[0])
        info = {name: value for name, value in old["info"].items() if name in needed}
        info["parameters"] = {"source": "/music/song.wav", "folder": "/music/stems"}
        info["of_a_later_release"] = 1
        text = msgspec.json.encode({"info": info, "idempotency_key": None, "digest": "d", "later": 2}).decode()
        file.execute("UPDATE jobs SET job = ?", (text,))
    assert ledger.get("job-1") == stored()
    assert ledger.page()[0] == [stored().info]


def test_the_only_way_is_by_fields_with_defaults():
    """A field without one would make the ledgers of earlier releases unreadable."""
    needed = {f.encode_name for f in msgspec.structs.fields(StoredJob) if f.required}
    assert needed == {"info", "idempotency_key", "digest"}
    needed = {f.encode_name for f in msgspec.structs.fields(JobInfo) if f.required}
    assert needed == {"id", "client", "state", "priority", "parameters", "created_at"}
    needed = {f.encode_name for f in msgspec.structs.fields(JobParameters) if f.required}
    assert needed == {"source", "folder"}


def test_ten_thousand_jobs_are_listed_at_once(ledger):
    futures = [ledger.put(stored(f"job-{number}", state="done", finished_at=float(number))) for number in range(10_000)]
    wait(futures)
    ledger.put(stored("job-live")).result(WAIT_S)
    before = time.perf_counter()
    for _ in range(20):
        ledger.page(limit=100)
        ledger.page((JobState.QUEUED,), limit=100)
        ledger.unfinished()
        ledger.get("job-77")
    assert (time.perf_counter() - before) / 20 < 0.25  # 1 ms where nothing else runs
    ledger.put(stored("job-more", state="done", finished_at=1e9)).result(WAIT_S)
    assert ledger.prune().result(WAIT_S) == ["job-0"]
