"""The real worker in a process of its own: jobs, stops, crashes, memory that runs out, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import numpy as np
import psutil
import pytest
import soundfile

from program import posix_only
from revithion_bridge.memory_admission import DeviceMemory, Verdict, admit, judge
from revithion_bridge.messages import JobParameters
from revithion_bridge.worker_link import WorkerGone, WorkerLink
from revithion_bridge.worker_messages import Deferred, Finished, FromWorker, JobEventLine, Ready, Run, Stop
from revithion_bridge.worker_output import LineWriter
from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.errors import RequestError
from revithion_stems.events import event_from_dict
from revithion_stems.jobs import TRANSITIONS, JobState
from revithion_stems.model_loading import ModelCache
from revithion_stems.planning import expected_memory
from revithion_stems.store import ContentStore

RATE = 44_100
PATIENCE_S = 60.0
Kind = TypeVar("Kind")
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address-space limits")


class Conversation:
    """A worker and all that it said."""

    def __init__(self, device: str = "cpu", env: dict[str, str] | None = None) -> None:
        self.heard: list[FromWorker | WorkerGone] = []
        self._news = asyncio.Event()
        self._read = 0
        self.link = WorkerLink(device, self._hear, loop=asyncio.get_running_loop(), env=env)
        self.link.start()

    def _hear(self, message: FromWorker | WorkerGone) -> None:
        self.heard.append(message)
        self._news.set()

    async def until(self, kind: type[Kind], matches: Callable[[Kind], bool] = lambda _: True) -> Kind:
        """The next message of a kind; those before it are passed over."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while self._read < len(self.heard):
                    message = self.heard[self._read]
                    self._read += 1
                    if isinstance(message, kind) and matches(message):
                        return message
                    assert not isinstance(message, WorkerGone), f"the worker is gone: {message}"
                self._news.clear()
                await self._news.wait()

    async def progress(self, done: int) -> None:
        """Waits until so many network runs are done."""
        await self.until(JobEventLine, lambda line: line.event["type"] == "JobProgress" and line.event["done"] >= done)

    async def do(self, run: Run) -> Finished:
        self.link.send(run)
        return await self.until(Finished)

    def events(self, kind: str, job_id: str) -> list[dict[str, Any]]:
        lines = [m for m in self.heard if isinstance(m, JobEventLine) and m.job_id == job_id]
        return [line.event for line in lines if line.event["type"] == kind]


def with_worker(talk: Callable[[Conversation], Any], device: str = "cpu", env: dict[str, str] | None = None) -> None:
    """Has a conversation with a new worker, and sees it end."""

    async def whole() -> None:
        conversation = Conversation(device, env)
        try:
            await talk(conversation)
        finally:
            await conversation.link.stop(5.0)
            assert isinstance(conversation.heard[-1], WorkerGone)
            assert sum(isinstance(message, WorkerGone) for message in conversation.heard) == 1

    asyncio.run(whole())


def noise(path: Path, seconds: float) -> Path:
    samples = np.random.default_rng(0).normal(0, 0.1, (int(seconds * RATE), 2))
    soundfile.write(path, samples, RATE, "PCM_16")
    return path


def job(song: Path, folder: Path, job_id: str = "one", *, spans: Path | None = None, **fields: Any) -> Run:
    wanted = {"source": str(song), "folder": str(folder), "model": "dsp", "segment_s": 0.5, **fields}
    parameters = JobParameters(**wanted)
    return Run(job_id=job_id, parameters=parameters, spans=None if spans is None else str(spans))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.wav")}


def in_process(song: Path, folder: Path, **fields: Any) -> dict[str, str]:
    """What the stems must be."""
    request = SeparationRequest(source=song, model="dsp", **{"segment_s": 0.5, **fields})
    separate_to_files(request, OutputOptions(folder=folder), contents=ContentStore(folder / "own-cache"))
    return digests(folder)


def test_a_job_from_file_to_files(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 6.0)

    async def talk(worker: Conversation) -> None:
        finished = await worker.do(job(song, tmp_path / "out", spans=tmp_path / "spans", span_s=2.0))
        assert isinstance(worker.heard[0], Ready)
        assert (worker.heard[0].pid, worker.heard[0].device) == (worker.link.pid, "cpu")
        assert (finished.error, finished.segment_s, finished.model) == (None, 0.5, "dsp")
        assert finished.memory_bytes > 20 << 20
        lines = [message for message in worker.heard if isinstance(message, JobEventLine)]
        assert {line.job_id for line in lines} == {line.event["job_id"] for line in lines} == {"one"}
        assert [line.event["seq"] for line in lines] == list(range(len(lines)))
        for line in lines:
            event_from_dict(line.event)
        states = [JobState(event["state"]) for event in worker.events("JobChanged", "one")]
        assert states[0] is JobState.QUEUED
        assert states[-1] is JobState.DONE
        assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(states))
        done = [event["done"] for event in worker.events("JobProgress", "one")]
        assert done == list(range(done[-1] + 1))
        stems = worker.events("StemReady", "one")
        spans, final = ([stem for stem in stems if stem["final"] is wanted] for wanted in (False, True))
        assert [stem["stem"] for stem in final] == ["drums", "bass", "other", "vocals"]
        assert stems.index(final[0]) == len(spans) == 4 * 3
        assert sum(span["frames"] for span in spans if span["stem"] == "bass") == 6 * RATE
        assert all(Path(span["path"]).is_file() and span["sha256"] == "" for span in spans)
        (summary,) = worker.events("JobSummary", "one")
        assert summary["exact"] is True
        assert summary["null_db"] is None  # minus infinity, which JSON lacks

    with_worker(talk)
    assert digests(tmp_path / "out") == in_process(song, tmp_path / "reference")


def test_the_second_job_finds_the_model_warm_and_the_override_counts(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 3.0)

    async def talk(worker: Conversation) -> None:
        await worker.do(job(song, tmp_path / "out", "one"))
        run = msgspec.structs.replace(job(song, tmp_path / "out", "two"), segment_s=1.0)
        finished = await worker.do(run)
        assert (finished.error, finished.segment_s, finished.model) == (None, 1.0, "dsp")

    with_worker(talk)
    assert digests(tmp_path / "out") == in_process(song, tmp_path / "reference", segment_s=1.0)


def test_a_stop_takes_less_than_a_segment_and_the_job_goes_on_from_there(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 20.0)
    out = tmp_path / "out"

    async def talk(worker: Conversation) -> None:
        worker.link.send(job(song, out))
        await worker.progress(5)
        worker.link.send(Stop(job_id="another"))
        await worker.progress(10)
        worker.link.send(Stop(job_id="one"))
        began = time.monotonic()
        stopped = await worker.until(Finished)
        assert time.monotonic() - began < 5.0
        assert stopped.error is not None
        assert stopped.error.code == "job.cancelled"
        assert worker.events("JobChanged", "one")[-1]["state"] == "cancelled"
        assert digests(out) == {}
        assert [path for path in out.rglob(".*") if path.is_file()] == []
        finished = await worker.do(job(song, out, "two"))
        assert finished.error is None
        assert [event["code"] for event in worker.events("Notice", "two")] == ["job.resumed"]
        assert worker.events("JobSummary", "two")[0]["resumed_runs"] >= 10

    with_worker(talk)
    assert digests(out) == in_process(song, tmp_path / "reference")


def test_a_stop_that_follows_at_once_is_not_lost(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 20.0)

    async def talk(worker: Conversation) -> None:
        worker.link.send(job(song, tmp_path / "out"))
        worker.link.send(Stop(job_id="one"))
        stopped = await worker.until(Finished)
        assert stopped.error is not None
        assert stopped.error.code == "job.cancelled"

    with_worker(talk)


@posix_only
def test_after_a_crash_a_new_worker_goes_on(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 20.0)

    async def crash(worker: Conversation) -> None:
        worker.link.send(job(song, tmp_path / "out"))
        await worker.progress(10)
        assert worker.link.pid is not None
        os.kill(worker.link.pid, signal.SIGSEGV)
        gone = await worker.until(WorkerGone)
        assert gone.status == -signal.SIGSEGV
        assert any(line.lstrip().startswith("File ") for line in gone.last_lines)  # where it was
        assert len(gone.last_lines) <= 20
        assert not worker.link.alive
        worker.link.send(Stop(job_id="one"))  # nobody hears it, and nothing breaks

    async def go_on(worker: Conversation) -> None:
        finished = await worker.do(job(song, tmp_path / "out"))
        assert finished.error is None
        assert worker.events("JobSummary", "one")[0]["resumed_runs"] >= 9

    with_worker(crash)
    with_worker(go_on)
    assert digests(tmp_path / "out") == in_process(song, tmp_path / "reference")


def test_it_ends_with_its_stdin_even_in_the_middle_of_a_job(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 40.0)

    async def talk(worker: Conversation) -> None:
        worker.link.send(job(song, tmp_path / "out"))
        await worker.progress(5)
        began = time.monotonic()
        await worker.link.stop(30.0)
        assert time.monotonic() - began < 2.0
        assert (await worker.until(WorkerGone)).status == 0

    with_worker(talk)
    assert digests(tmp_path / "out") == {}


@posix_only
def test_signals_to_the_whole_group_leave_it_alone(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 5.0)

    async def talk(worker: Conversation) -> None:
        worker.link.send(job(song, tmp_path / "out"))
        await worker.progress(2)
        assert worker.link.pid is not None
        os.kill(worker.link.pid, signal.SIGINT)
        os.kill(worker.link.pid, signal.SIGTERM)
        assert (await worker.until(Finished)).error is None
        assert os.getsid(worker.link.pid) == worker.link.pid

    with_worker(talk)


@posix_only
def test_one_that_hangs_is_killed(tmp_path: Path) -> None:
    async def talk(worker: Conversation) -> None:
        await worker.until(Ready)
        assert worker.link.pid is not None
        os.kill(worker.link.pid, signal.SIGSTOP)
        for number in range(500):  # more than a pipe holds: the loop must not wait for it
            worker.link.send(Stop(job_id=f"{number}" * 60))
        began = time.monotonic()
        await worker.link.stop(0.5)
        assert time.monotonic() - began < 5.0
        assert (await worker.until(WorkerGone)).status == -signal.SIGKILL

    with_worker(talk)


@pytest.mark.parametrize("line", [b"not JSON\n", b'{"type":"Walk"}\n', b'{"type":"Run"}\n', b"{" * (2 << 20) + b"\n"])
def test_a_line_that_can_not_be_read_ends_it(line: bytes) -> None:
    command = [sys.executable, "-m", "revithion_bridge.worker", "--device", "cpu"]
    done = subprocess.run(command, input=line, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"unreadable line" in done.stderr


def test_what_libraries_print_is_not_between_the_lines(tmp_path: Path) -> None:
    """From Python and from C, in the place of a library: both go to stderr."""
    code = (
        "import os, sys, threading\n"
        "from revithion_bridge import worker\n"
        "plain = worker.Worker.work\n"
        "def work(self):\n"
        "    print('from Python', flush=True)\n"
        "    os.write(1, b'from C\\n')\n"
        "    plain(self)\n"
        "worker.Worker.work = work\n"
        "sys.argv[1:] = ['--device', 'cpu']\n"
        "worker.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        first = process.stdout.readline()
        out, err = process.communicate(timeout=30)
    assert msgspec.json.decode(first)["type"] == "Ready"
    assert out == b""
    assert err.splitlines()[:2] == [b"from Python", b"from C"]


def test_wrong_parameters_and_sources_are_answered(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 2.0)

    async def talk(worker: Conversation) -> None:
        for number, (run, code) in enumerate(
            [
                (job(song, tmp_path / "out", residual="gone"), "request.residual"),
                (job(song, tmp_path / "out", stems=("kazoo",)), "request.stems"),
                (job(song, tmp_path / "out", model="nonsense"), "model.unknown"),
                (job(tmp_path / "missing.wav", tmp_path / "out"), "input.missing"),
                (job(song, tmp_path / "out", template="{nonsense}"), "request.template"),
            ]
        ):
            finished = await worker.do(msgspec.structs.replace(run, job_id=f"job-{number}"))
            assert finished.error is not None
            assert (finished.error.code, bool(finished.error.hint)) == (code, True)
        assert (await worker.do(job(song, tmp_path / "out", "good"))).error is None

    with_worker(talk)


def test_a_bug_is_an_answer_and_not_the_end(tmp_path: Path) -> None:
    """Brought about by a name with a NUL in it, which the daemon's doors don't let in."""
    song = noise(tmp_path / "song.wav", 2.0)

    async def talk(worker: Conversation) -> None:
        finished = await worker.do(job(song, tmp_path / "out", source="bad\0name"))
        assert finished.error is not None
        assert finished.error.code == "error.unexpected"
        assert (await worker.do(job(song, tmp_path / "out", "good"))).error is None

    with_worker(talk)


@linux_only
def test_a_job_that_runs_out_of_memory_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    """Real allocations that really fail: the process may not have more address space."""
    import resource

    song, short = noise(tmp_path / "song.wav", 120.0), noise(tmp_path / "short.wav", 10.0)

    async def talk(worker: Conversation) -> None:
        await worker.until(Ready)
        process = psutil.Process(worker.link.pid)
        limit = process.memory_info().vms + (500 << 20)
        process.rlimit(resource.RLIMIT_AS, (limit, limit))
        failed = await worker.do(job(song, tmp_path / "out", "large", segment_s=120.0))
        assert failed.error is not None
        assert failed.error.code == "engine.memory"
        assert failed.segment_s == 120.0
        assert worker.events("JobChanged", "large")[-1]["state"] == "failed"
        assert failed.memory_bytes < 400 << 20
        finished = await worker.do(job(short, tmp_path / "out", "small", segment_s=2.0))
        assert finished.error is None
        assert worker.link.alive

    with_worker(talk, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"})
    assert len(digests(tmp_path / "out")) == 4


def in_small_machine(runs: list[Run], *, free_bytes: int, total_bytes: int) -> list[FromWorker]:
    """How each job ends on a machine of that size, of which only the size is made up."""
    code = (
        "import sys\n"
        "from revithion_bridge import memory_admission, worker\n"
        "def probe(device):\n"
        f"    return memory_admission.DeviceMemory(own_bytes=0, free_bytes={free_bytes}, total_bytes={total_bytes})\n"
        "memory_admission.probe = probe\n"
        "sys.argv[1:] = ['--device', 'cpu']\n"
        "worker.main()\n"
    )
    ends: list[FromWorker] = []
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for run in runs:
            process.stdin.write(msgspec.json.encode(run) + b"\n")
            process.stdin.flush()
            while True:
                message = msgspec.json.decode(process.stdout.readline(), type=FromWorker)
                if isinstance(message, Finished | Deferred):
                    break
            ends.append(message)
        process.stdin.close()
    return ends


def test_what_does_not_fit_waits_or_is_refused_and_shorter_segments_fit(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 40.0)
    small, medium, large = (job(song, tmp_path / "out", f"{s}", segment_s=s) for s in (1.0, 20.0, 40.0))
    done, deferred, refused = in_small_machine([small, medium, large], free_bytes=200 << 20, total_bytes=500 << 20)
    assert isinstance(done, Finished)
    assert (done.error, done.model) == (None, "dsp")
    assert isinstance(deferred, Deferred)
    assert deferred.job_id == "20.0"
    assert deferred.needed_bytes > deferred.free_bytes == 200 << 20
    assert isinstance(refused, Finished)
    assert refused.error is not None
    assert (refused.error.code, refused.segment_s) == ("engine.memory", 40.0)
    assert "500 MiB in all" in refused.error.message
    assert refused.model is None  # it went to make room for the second job


def test_the_rule_of_admission() -> None:
    memory = DeviceMemory(own_bytes=300, free_bytes=500, total_bytes=2000)
    assert [judge(needed, memory) for needed in (0, 300, 800, 801, 2000, 2001)] == [
        Verdict.FITS,
        Verdict.FITS,
        Verdict.FITS,
        Verdict.LATER,
        Verdict.LATER,
        Verdict.NEVER,
    ]
    assert memory.missing(800) == 500
    assert memory.missing(200) == 0


def test_admission_looks_at_the_real_machine_and_drops_a_warm_model_first() -> None:
    class Warm(ModelCache):
        cleared = 0

        def clear(self) -> None:
            self.cleared += 1

    total = psutil.virtual_memory().total
    verdicts: list[tuple[Verdict, int]] = []
    for needed in (1, total, total + 1):
        models = Warm()
        verdict, memory = admit(needed, "cpu", models)
        assert memory.total_bytes == total
        assert 0 < memory.own_bytes < total
        assert 0 < memory.free_bytes < total
        verdicts.append((verdict, models.cleared))
    assert verdicts == [(Verdict.FITS, 0), (Verdict.LATER, 1), (Verdict.NEVER, 0)]


def test_a_longer_segment_needs_more_memory_but_not_more_than_the_source(tmp_path: Path) -> None:
    song = noise(tmp_path / "song.wav", 30.0)

    def needed(segment_s: float | None) -> int:
        request = SeparationRequest(source=song, model="dsp", segment_s=segment_s)
        expected = expected_memory(request)
        assert expected.device == "cpu"
        assert expected.segment_s == (segment_s or 12.0)
        return expected.peak_bytes

    assert needed(1.0) < needed(None) < needed(24.0) < needed(600.0) == needed(30.0)
    with pytest.raises(RequestError):
        expected_memory(SeparationRequest(source=song, model="dsp", stems=("kazoo",)))


def test_a_cache_that_is_cleared_loads_again() -> None:
    class Model:
        spec = SimpleNamespace(name="mine")

    loads: list[Model] = []

    def load() -> Any:
        loads.append(Model())
        return loads[-1]

    models = ModelCache()
    assert models.loaded is None
    assert models.get("key", load) is models.get("key", load)
    assert (models.loaded, len(loads)) == ("mine", 1)
    models.clear()
    assert models.loaded is None
    models.get("key", load)
    assert len(loads) == 2


def test_lines_are_whole_from_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        writer = LineWriter(file)

        def say(number: int) -> None:
            for _ in range(200):
                writer.send(JobEventLine(job_id=str(number), event={"value": math.inf, "text": "x" * 5000}))

        threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [msgspec.json.decode(line, type=JobEventLine) for line in path.read_bytes().splitlines()]
    assert len(lines) == 1600
    assert all(line.event == {"value": None, "text": "x" * 5000} for line in lines)


def test_twenty_workers_leave_nothing_behind() -> None:
    def open_things() -> tuple[int, int, int]:
        gc.collect()
        me = psutil.Process()
        descriptors = me.num_handles() if sys.platform == "win32" else me.num_fds()
        return descriptors, threading.active_count(), len(me.children())

    async def several(count: int) -> None:
        for _ in range(count):
            worker = Conversation()
            await worker.until(Ready)
            await worker.link.stop(5.0)

    async def measured() -> None:
        await several(1)
        before = open_things()
        await several(20)
        # Not equal: what other tests of this process had open may be closed by now.
        assert all(now <= then for now, then in zip(open_things(), before, strict=True))

    asyncio.run(measured())
