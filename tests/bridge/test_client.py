"""The client library against real doors: restarts, lost answers, missed events, several threads."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bridge_doors import DoorsThread
from revithion_bridge import connect, connect_async
from revithion_bridge.async_client import AsyncClient
from revithion_bridge.client import Client, Resynchronised
from revithion_bridge.codec import EventMessage
from revithion_bridge.connection import daemon_folder, read_connection, write_connection
from revithion_bridge.launch import start_daemon
from revithion_bridge.messages import GetEvents, GetSnapshot, JobDeleted, JobParameters, PauseQueue, SubmitJob, WaitJob
from revithion_bridge.zmq_doors import DoorLimits
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged, Notice
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority

pytestmark = pytest.mark.usefixtures("daemon_home")


@pytest.fixture
def doors(daemon_home: Path) -> Iterator[DoorsThread]:
    with DoorsThread() as thread:
        yield thread


@pytest.fixture
def client(doors: DoorsThread) -> Iterator[Client]:
    with connect(client="test") as connected:
        yield connected


def run(action: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(asyncio.wait_for(action, 60))


def publish(doors: DoorsThread, count: int, text: str = "x") -> None:
    def all_at_once() -> None:
        for _ in range(count):
            doors.hub.publish(Notice(job_id="j", seq=0, code="a.b", message=text))

    doors.do(all_at_once)


def take(events: Iterator[Any], count: int) -> list[Any]:
    return [next(events) for _ in range(count)]


def numbers(messages: list[Any]) -> list[int]:
    assert all(isinstance(message, EventMessage) for message in messages)
    return [message.seq for message in messages]


def refusal(action: Any) -> str:
    with pytest.raises(RevithionError) as caught:
        action()
    return caught.value.code


def test_a_job_from_beginning_to_end(client, doors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = client.submit("song.wav", Path("out"), priority="interactive", model="dsp", keep=["k.wav"], stems=["bass"])
    assert (job.state, job.client, job.priority) == (JobState.QUEUED, "test", Priority.INTERACTIVE)
    assert job.parameters.source == str(tmp_path / "song.wav")
    assert job.parameters.folder == str(tmp_path / "out")
    assert job.parameters.keep == (str(tmp_path / "k.wav"),)
    assert job.parameters.stems == ("bass",)
    assert client.job(job.id).id == job.id
    assert client.history(job.id)[0].state is JobState.QUEUED
    assert client.wait(job.id, timeout_s=0.05).state is JobState.QUEUED
    assert [found.id for found in client.snapshot().jobs] == [job.id]
    assert client.last_snapshot is not None
    doors.do(lambda: doors.service.finish(job.id))
    assert client.wait(job.id).state is JobState.DONE
    states = [message.event.state.value for message in client.events(job.id)]
    assert states == ["queued", "loading", "separating", "writing", "done"]
    assert client.cancel(client.submit("b.wav", "out").id).state is JobState.CANCELLED
    assert client.status().pid == os.getpid()


def test_what_is_refused_keeps_its_code(client):
    assert refusal(lambda: client.job("job-77")) == "job.unknown"
    assert refusal(lambda: client.events("job-77")) == "job.unknown"
    assert refusal(lambda: client.request(PauseQueue())) == "error.unexpected"
    assert refusal(lambda: client.set_live("bass", muted=True)) == "live.stem"
    assert refusal(lambda: client.request(WaitJob(job_id="../.."))) == "protocol.malformed"
    assert refusal(lambda: client.submit("a.wav", "out", flavour="sweet")) == "request.parameters"
    assert refusal(lambda: client.submit("a.wav", "out", priority="now")) == "request.parameters"
    assert refusal(lambda: client.submit("a.wav", "out", shifts="many")) == "request.parameters"


def test_a_client_name_that_is_none_is_told_of(doors):
    assert refusal(lambda: connect(client="a\nb")) == "protocol.malformed"


def test_without_a_daemon_that_is_told_at_once(daemon_home):
    began = time.monotonic()
    assert refusal(connect) == "daemon.unreachable"
    assert refusal(lambda: run(connect_async())) == "daemon.unreachable"
    with DoorsThread() as doors:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait(30)
        stale = msgspec.structs.replace(doors.connection, pid=gone.pid)
    write_connection(stale)
    assert refusal(connect) == "daemon.unreachable"
    assert time.monotonic() - began < 5.0


def test_a_file_of_a_daemon_that_does_not_answer_is_given_up(daemon_home):
    with DoorsThread() as doors:
        stale = doors.connection
    write_connection(stale)  # of a process that lives, but is none: this one
    began = time.monotonic()
    assert refusal(lambda: connect(timeout_s=0.7)) == "daemon.unreachable"
    assert 0.5 < time.monotonic() - began < 3.0


@pytest.mark.parametrize("changes", [{"server_key": "x"}, {"client_secret": ""}, {"events": "nowhere"}])
def test_a_file_that_is_of_no_use_is_told_of(daemon_home, changes):
    with DoorsThread() as doors, connect() as client:
        job = client.submit("a.wav", "out")
        waited: list[JobState] = []
        waiter = threading.Thread(target=lambda: waited.append(client.wait(job.id).state))
        waiter.start()
        time.sleep(0.3)
        write_connection(msgspec.structs.replace(doors.connection, **changes))
        assert refusal(connect) == "daemon.unreachable"
        time.sleep(0.7)
        assert client._client._link._line is None
        write_connection(doors.connection)
        doors.do(lambda: doors.service.finish(job.id))
        waiter.join(10)  # it goes on as soon as there is a good one
        assert waited == [JobState.DONE]


def test_a_closed_client_says_so(doors):
    with connect() as client:
        events = client.events()
        threads = [threading.Thread(target=lambda: ended.append(refusal(lambda: client.wait(job.id))))]
        threads.append(threading.Thread(target=lambda: ended.append(refusal(lambda: next(events)))))
        ended: list[str] = []
        job = client.submit("a.wav", "out")
        next(events)
        for thread in threads:
            thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join(10)
    assert ended == ["daemon.unreachable"] * 2
    assert refusal(client.status) == "daemon.unreachable"
    assert refusal(lambda: next(events)) == "daemon.unreachable"
    client.close()


def test_connecting_often_leaves_nothing_open(doors):
    def open_files() -> int:
        process = psutil.Process()
        return process.num_handles() if sys.platform == "win32" else process.num_fds()

    with connect() as client:
        client.status()
    gc.collect()
    before, threads = open_files(), threading.active_count()
    for _ in range(10):
        with connect() as client:
            client.events()
            client.status()
        assert refusal(lambda: connect(client="\n")) == "protocol.malformed"
    gc.collect()
    time.sleep(0.5)
    assert open_files() <= before + 3
    assert threading.active_count() == threads


def test_many_threads_use_one_client(client, doors):
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                job = client.submit(f"{number}-{turn}.wav", "out", idempotency_key=f"{number}-{turn}")
                assert client.job(job.id).parameters.source.endswith(f"{number}-{turn}.wav")
                doors.do(lambda job_id=job.id: doors.service.finish(job_id))
                assert client.wait(job.id, 10.0).state is JobState.DONE
                assert len(list(client.events(job.id))) == 5
        except BaseException as exc:  # told to the test
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(doors.jobs) == 160


def test_it_outlives_a_restart(daemon_home):
    with DoorsThread() as doors, connect() as client:
        job = client.submit("a.wav", "out")
        first = doors.connection.work
        waited: list[JobState] = []
        waiter = threading.Thread(target=lambda: waited.append(client.wait(job.id).state))
        waiter.start()
        time.sleep(0.3)
        doors.stop(crash=True)
        time.sleep(0.3)
        with DoorsThread(doors.jobs) as again:
            assert again.connection.work != first
            assert client.status().epoch == again.connection.epoch
            assert client.job(job.id).id == job.id
            again.do(lambda: again.service.finish(job.id))
            waiter.join(10)
            assert waited == [JobState.DONE]


def test_a_daemon_that_is_gone_is_told_after_a_while(daemon_home):
    with DoorsThread() as doors, connect(timeout_s=1.0) as client:
        events = client.events()
        doors.stop()
        began = time.monotonic()
        assert refusal(client.status) == "daemon.unreachable"
        assert refusal(lambda: next(events)) == "daemon.unreachable"
        assert time.monotonic() - began < 5.0
        with DoorsThread(doors.jobs):
            assert client.status()
            assert isinstance(next(events), Resynchronised)


def test_a_request_may_have_a_limit(client):
    job = client.submit("a.wav", "out")
    began = time.monotonic()
    assert (
        refusal(lambda: client.request(WaitJob(job_id=job.id, timeout_s=60.0), timeout_s=0.3)) == "daemon.unreachable"
    )
    assert time.monotonic() - began < 3.0
    assert client.status()


def test_a_job_that_is_sent_twice_is_one_job(client, doors):
    """The daemon takes the job, then is silent for so long that the client asks again by new sockets."""
    stalled = threading.Event()

    async def stall(request) -> None:
        if isinstance(request, SubmitJob) and not stalled.is_set():
            stalled.set()
            doors.beating = False
            await asyncio.sleep(5.0)
            doors.beating = True

    doors.service.before = stall
    job = client.submit("a.wav", "out")
    assert stalled.is_set()
    assert doors.service.asked[SubmitJob] == 2
    assert len({caller.request_id for caller in doors.service.callers[-2:]}) == 1
    assert list(doors.jobs) == [job.id]
    assert (
        client.submit("a.wav", "out", idempotency_key="k").id == client.submit("a.wav", "out", idempotency_key="k").id
    )
    assert len(doors.jobs) == 2


def test_an_answer_that_was_lost_is_asked_for_again(client, doors):
    """The daemon lives and its heart beats, but one answer never comes."""
    lost: list[object] = []

    async def lose(request) -> None:
        if not lost:
            lost.append(request)
            await asyncio.sleep(60.0)

    doors.service.before = lose
    assert client.job(client.submit("a.wav", "out").id).id == "job-0"
    assert len(lost) == 1
    assert list(doors.jobs) == ["job-0"]


def test_being_told_to_slow_down_is_done(daemon_home):
    with DoorsThread(limits=DoorLimits(rate_per_s=50.0, burst=10.0)) as doors, connect() as client:
        threads = [threading.Thread(target=client.status) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sum(doors.service.asked.values()) == 41


def test_events_begin_when_they_are_asked_for(client, doors):
    publish(doors, 3)
    with client.events() as events:
        publish(doors, 3)
        assert numbers(take(events, 3)) == [4, 5, 6]
    with pytest.raises(StopIteration):
        next(events)


def test_a_slow_reader_misses_nothing(client, doors):
    events = client.events()
    publish(doors, 15_000)
    time.sleep(1.5)  # until the queue is full, and some were thrown away
    assert numbers(take(events, 15_000)) == list(range(1, 15_001))
    assert doors.service.asked[GetEvents] > 0
    publish(doors, 5)
    assert numbers(take(events, 5)) == list(range(15_001, 15_006))


def test_what_the_socket_dropped_is_asked_for(daemon_home):
    with DoorsThread(limits=DoorLimits(unsent_events=1)) as doors, connect() as client:
        events = client.events()
        next_seq = 1
        for _ in range(5):
            publish(doors, 400, "x" * 2000)
            assert numbers(take(events, 400)) == list(range(next_seq, next_seq + 400))
            next_seq += 400
        assert doors.service.asked[GetEvents] > 0


def test_a_heartbeat_shows_that_the_last_events_were_missed(client, doors, monkeypatch):
    """Nothing comes after them, so only the heartbeat can tell."""
    events = client.events()
    publish(doors, 1)
    assert numbers(take(events, 1)) == [1]

    def behind_the_back() -> None:
        subscribers = dict(doors.hub._subscribers)
        doors.hub._subscribers.clear()
        doors.hub.publish(Notice(job_id="j", seq=0, code="a.b", message="lost"))
        doors.hub._subscribers.update(subscribers)

    doors.do(behind_the_back)
    (message,) = take(events, 1)
    assert (message.seq, message.event.message) == (2, "lost")


def test_too_many_missed_are_told_of(daemon_home):
    with DoorsThread(keep=100) as doors, connect() as client:
        events = client.events()
        job = client.submit("a.wav", "out")
        publish(doors, 12_000)
        time.sleep(1.5)
        seen: list[int] = []
        for item in events:
            if isinstance(item, Resynchronised):
                break
            seen.append(item.seq)
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) >= 10_000 - 100
        assert item.snapshot.seq == 12_001
        assert [found.id for found in item.snapshot.jobs] == [job.id]
        publish(doors, 2)
        assert numbers(take(events, 2)) == [12_002, 12_003]


def test_another_run_of_the_daemon_is_told_of(daemon_home):
    with DoorsThread() as doors, connect() as client:
        events, all_events = client.events(client.submit("a.wav", "out").id), client.events()
        assert next(events).event.state is JobState.QUEUED
        doors.do(lambda: doors.service.change("job-0", JobState.LOADING))
        assert next(events).event.state is JobState.LOADING
        assert next(all_events).event.state is JobState.LOADING
        doors.stop(crash=True)
        with DoorsThread(doors.jobs, first_seq=1) as again:
            for feed in (events, all_events):
                item = next(feed)
                assert isinstance(item, Resynchronised)
                assert item.snapshot.epoch == again.connection.epoch
                assert [job.id for job in item.snapshot.jobs] == ["job-0"]
            publish(again, 3)
            again.do(lambda: again.service.finish("job-0"))
            assert [message.event.state.value for message in events] == ["loading", "separating", "writing", "done"]
            assert numbers(take(all_events, 7)) == list(range(item.snapshot.seq + 1, item.snapshot.seq + 8))


def test_a_short_break_within_a_run_loses_nothing(client, doors):
    """Silent for so long that the client connects anew, while events go on."""
    events = client.events()
    publish(doors, 2)
    doors.beating = False
    assert numbers(take(events, 2)) == [1, 2]
    time.sleep(4.0)
    publish(doors, 2)
    doors.beating = True
    publish(doors, 2)
    assert numbers(take(events, 4)) == [3, 4, 5, 6]


@pytest.mark.parametrize("ending", ["done", "cancelled", "deleted"])
def test_events_of_a_job_end_with_it(client, doors, ending):
    job, other = client.submit("a.wav", "out"), client.submit("b.wav", "out")
    events = client.events(job.id)
    doors.do(lambda: doors.service.finish(other.id))
    match ending:
        case "done":
            doors.do(lambda: doors.service.finish(job.id))
        case "cancelled":
            client.cancel(job.id)
        case _:
            doors.do(lambda: doors.hub.publish(JobDeleted(seq=0, job_id=job.id)))
    publish(doors, 3)
    seen = list(events)
    assert {message.event.job_id for message in seen} == {job.id}
    last = seen[-1].event
    assert (
        isinstance(last, JobDeleted) if ending == "deleted" else (isinstance(last, JobChanged) and last.state.is_final)
    )
    assert list(events) == []


def test_events_of_a_job_that_had_ended_end_at_once(client, doors):
    job = client.submit("a.wav", "out")
    doors.do(lambda: doors.service.finish(job.id))
    with connect(client="other") as other:  # which did not submit it, so nothing of it is to come
        assert list(other.events(job.id)) == []
    assert len(list(client.events(job.id))) == 5


def test_a_job_that_ended_while_the_daemon_was_gone_ends_its_events(daemon_home):
    with DoorsThread() as doors, connect() as client:
        events = client.events(client.submit("a.wav", "out").id)
        next(events)
        doors.stop(crash=True)
        doors.jobs["job-0"] = msgspec.structs.replace(doors.jobs["job-0"], state=JobState.DONE)
        with DoorsThread(doors.jobs):
            (item,) = list(events)
            assert isinstance(item, Resynchronised)


def test_the_end_between_snapshot_and_question_is_not_missed(client, doors):
    """The job ends after the snapshot was taken, and before the client asks for the job itself."""
    job = client.submit("a.wav", "out")

    async def finish(request) -> None:
        if isinstance(request, GetSnapshot):
            doors.service.finish(job.id)

    doors.service.before = finish
    with connect(client="other") as other:
        assert [message.event.state.value for message in other.events(job.id)][-1] == "done"


def test_events_that_nobody_reads_any_more_are_forgotten(client, doors):
    for _ in range(5):
        client.events()
    link = client._client._link
    gc.collect()
    publish(doors, 1)
    deadline = time.monotonic() + 5
    while link._listeners and time.monotonic() < deadline:
        time.sleep(0.05)
    assert link._listeners == []


def test_asyncio_programs_have_the_same(doors):
    async def main() -> None:
        async with await connect_async(client="async") as client:
            assert isinstance(client, AsyncClient)
            job = await client.submit("a.wav", "out")
            waits = [asyncio.create_task(client.wait(job.id)) for _ in range(20)]
            async with client.events() as events:
                doors.loop.call_soon_threadsafe(doors.service.finish, job.id)
                seen = [await anext(events) for _ in range(4)]
                assert [message.event.state.value for message in seen] == ["loading", "separating", "writing", "done"]
            assert {(await wait).state for wait in waits} == {JobState.DONE}
            assert [message.seq async for message in client.events(job.id)] == [1, 2, 3, 4, 5]

    run(main())


def test_a_cancelled_read_loses_nothing(doors):
    async def main() -> None:
        async with await connect_async() as client, client.events() as events:
            seen: list[int] = []
            published = 0
            while len(seen) < 300:
                if published == len(seen):
                    published += 30
                    doors.loop.call_soon_threadsafe(publish_some, published % 60 == 0)
                try:
                    seen.append((await asyncio.wait_for(anext(events), 0.001)).seq)
                except TimeoutError:
                    continue
            assert seen == list(range(1, 301))
            assert doors.service.asked[GetEvents] > 0

    def publish_some(lost: bool) -> None:
        subscribers = dict(doors.hub._subscribers)
        if lost:  # only a heartbeat tells of these
            doors.hub._subscribers.clear()
        for _ in range(30):
            doors.hub.publish(Notice(job_id="j", seq=0, code="a.b", message="x"))
        doors.hub._subscribers.update(subscribers)

    run(main())


def test_both_clients_have_the_same_methods():
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Client) - {"last_snapshot"} == public(AsyncClient)
    for name in public(AsyncClient):
        assert getattr(Client, name).__doc__


def test_every_request_can_be_sent(client):
    """Whatever is refused here is refused by the service: each method finds its door."""
    for action in (
        lambda: client.retry("job-0"),
        lambda: client.delete("job-0"),
        lambda: client.clear(5.0, "c"),
        lambda: client.reprioritise("job-0", "batch"),
        lambda: client.jobs((JobState.DONE,), "c", 7),
        client.live,
        client.shutdown,
    ):
        assert refusal(action) == "live.stem"
    assert client.resume_queue() is None


@pytest.mark.slow
def test_starters_at_once_get_one_daemon(daemon_home):
    pids: set[int] = set()
    failures: list[BaseException] = []

    def start() -> None:
        try:
            with connect(start=True, timeout_s=60.0) as client:
                pids.add(client.status().pid)
        except BaseException as exc:  # told to the test
            failures.append(exc)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert failures == []
    (pid,) = pids
    daemon = psutil.Process(pid)
    assert pid != os.getpid()
    if sys.platform != "win32":
        assert os.getsid(pid) == pid  # closing the terminal does not end it
    assert Path(daemon.cwd()) == daemon_folder()
    with connect() as client:
        client.shutdown()
    daemon.wait(60)
    assert read_connection() is None


@pytest.mark.slow
def test_a_daemon_that_can_not_start_says_why(daemon_home):
    daemon_folder().mkdir(parents=True)
    (daemon_folder() / "ledger.sqlite").write_bytes(b"this is no database" * 1000)
    with pytest.raises(RevithionError) as caught:
        connect(start=True, timeout_s=60.0)
    assert caught.value.code == "daemon.start_failed"
    assert "ledger.sqlite" in caught.value.message


def test_starting_while_another_one_does_so_for_ever(daemon_home):
    import filelock

    daemon_folder().mkdir(parents=True)
    with filelock.FileLock(daemon_folder() / "start.lock"):
        assert refusal(lambda: start_daemon(0.2)) == "daemon.start_failed"


def test_parameters_in_one_object(client):
    parameters = JobParameters(source="/a.wav", folder="/out", model="dsp")
    assert client.submit_job(parameters, Priority.BATCH, "key").priority is Priority.BATCH
