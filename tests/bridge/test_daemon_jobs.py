"""Jobs through the daemon: submitted, prioritised, paused, cancelled, heard while they run, retried, forgotten."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from daemon_program import DaemonProcess, noise
from revithion_bridge import connect
from revithion_bridge.connection import daemon_folder
from revithion_bridge.messages import JobInfo
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged, JobSummary, Notice, StemReady
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority


def wait_until(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refused(code, action, *args, **kwargs):
    with pytest.raises(RevithionError) as caught:
        action(*args, **kwargs)
    assert caught.value.code == code


@pytest.fixture
def song(tmp_path) -> Path:
    return noise(tmp_path / "song.wav", 10.0)


@pytest.fixture
def long_song(tmp_path) -> Path:
    return noise(tmp_path / "long.wav", 90.0)


def test_a_job_from_submission_to_its_end(daemon, song, tmp_path):
    """All events in order; what they tell is what the job tells afterwards, from the ledger."""
    with connect() as client:
        info = client.submit(song, tmp_path / "out", model="dsp")
        assert isinstance(info, JobInfo)
        events = [message.event for message in client.events(info.id)]
        states = [event.state.value for event in events if isinstance(event, JobChanged)]
        assert states[-4:] == ["loading", "separating", "writing", "done"]
        finals = [event for event in events if isinstance(event, StemReady) and event.final]
        (summary,) = [event for event in events if isinstance(event, JobSummary)]
        assert summary.exact
        done = client.job(info.id)
        assert [stem["path"] for stem in done.stems] == [event.path for event in finals]
        assert all(Path(event.path).is_file() for event in finals)
        assert done.done == done.total > 0
        assert [change.state.value for change in client.history(info.id)] == [
            "queued", "loading", "separating", "writing", "done",
        ]  # fmt: skip
        wait_until(lambda: client.status().workers[0].model == "dsp")


def test_the_beginning_can_be_heard_while_the_rest_is_computed(daemon, long_song, tmp_path):
    with connect() as client:
        info = client.submit(long_song, tmp_path / "out", model="dsp", segment_s=1.0, span_s=2.0)
        spans: dict[str, list[np.ndarray]] = {}
        states: list[JobState] = []
        for message in client.events(info.id):
            event = message.event
            if isinstance(event, JobChanged):
                states.append(event.state)
            if isinstance(event, StemReady) and not event.final:
                samples, rate = soundfile.read(event.path, dtype="float32", always_2d=True)
                assert (len(samples), rate) == (event.frames, event.sample_rate)
                assert event.start_frame == sum(map(len, spans.setdefault(event.stem, [])))
                assert states[-1] is JobState.SEPARATING
                spans[event.stem].append(samples)
                if len(spans[event.stem]) == 3:
                    known = client.job(info.id).spans
                    assert known is not None
                    assert known.count >= 3
                    assert (Path(known.folder) / f"00002-{event.stem}.wav").is_file()
        for stem in client.job(info.id).stems:
            whole, _ = soundfile.read(stem["path"], dtype="float32", always_2d=True)
            np.testing.assert_array_equal(np.concatenate(spans[stem["stem"]]), whole)


def test_the_same_key_is_the_same_job(daemon, song, tmp_path):
    with connect() as client:
        first = client.submit(song, tmp_path / "out", model="dsp", idempotency_key="take 1")
        again = client.submit(song, tmp_path / "out", model="dsp", idempotency_key="take 1")
        assert again.id == first.id
        client.wait(first.id)
        assert client.submit(song, tmp_path / "out", model="dsp", idempotency_key="take 1").id == first.id
        refused("job.key_reused", client.submit, song, tmp_path / "x", model="dsp", idempotency_key="take 1")
    with connect(client="somebody else") as other:
        assert other.submit(song, tmp_path / "out", model="dsp", idempotency_key="take 1").id != first.id


def test_interactive_jobs_go_first_and_others_give_way(daemon, song, long_song, tmp_path):
    """The job that gives way goes on afterwards with what it had computed."""
    with connect() as client:
        batch = client.submit(long_song, tmp_path / "batch", model="dsp", segment_s=0.1, priority="batch", span_s=0)
        wait_until(lambda: client.job(batch.id).done > 20)
        normal = client.submit(song, tmp_path / "normal", model="dsp")
        urgent = client.submit(song, tmp_path / "urgent", model="dsp", priority="interactive")
        ends = {job: client.wait(job, timeout_s=120.0).finished_at for job in (batch.id, normal.id, urgent.id)}
        assert ends[urgent.id] < ends[normal.id] < ends[batch.id]
        summary = client.job(batch.id).summary
        assert summary is not None
        assert summary["resumed_runs"] > 20
        assert [c.reason for c in client.history(batch.id) if c.state is JobState.QUEUED] == ["", "preempted"]


def test_paused_queues_stay_paused_over_a_restart(daemon_home, song, tmp_path):
    with DaemonProcess(), connect() as client:
        client.pause_queue()
        job = client.submit(song, tmp_path / "out", model="dsp")
        other = client.submit(song, tmp_path / "other", model="dsp", priority="batch")
    with DaemonProcess(), connect() as client:
        time.sleep(0.5)
        assert client.job(job.id).state is JobState.QUEUED
        assert client.status().paused
        assert client.reprioritise(other.id, Priority.INTERACTIVE).priority is Priority.INTERACTIVE
        client.resume_queue()
        ends = [client.wait(id_, timeout_s=60.0).finished_at for id_ in (other.id, job.id)]
        assert ends[0] < ends[1]


def test_cancelling_answers_at_once_and_stops_within_a_segment(daemon, long_song, song, tmp_path):
    with connect() as client:
        running = client.submit(long_song, tmp_path / "out", model="dsp", segment_s=0.2, span_s=0)
        waiting = client.submit(song, tmp_path / "other", model="dsp")
        wait_until(lambda: client.job(running.id).done > 5)
        assert client.cancel(waiting.id).state is JobState.CANCELLED
        answer = client.cancel(running.id)
        assert answer.cancelling or answer.state is JobState.CANCELLED
        ended = client.wait(running.id, timeout_s=30.0)
        assert ended.state is JobState.CANCELLED
        assert ended.error is not None
        assert ended.error.code == "job.cancelled"
        assert client.cancel(running.id).state is JobState.CANCELLED
        assert not list(tmp_path.glob("out/**/*.wav"))
        again = client.retry(running.id)
        assert again.retry_of == running.id
        info = client.wait(again.id, timeout_s=60.0)
        assert info.state is JobState.DONE
        refused("job.transition", client.retry, again.id)


def test_control_answers_while_the_machine_is_busy(daemon, long_song, tmp_path):
    """Medians of five: cancel and status are not kept waiting by the network run."""
    with connect() as client:
        taken: dict[str, list[float]] = {"cancel": [], "status": []}
        for number in range(5):
            job = client.submit(long_song, tmp_path / "out", model="dsp", segment_s=5.0, seed=number)
            wait_until(lambda job=job: client.job(job.id).done >= 1)
            for name, ask in (("status", client.status), ("cancel", lambda job=job: client.cancel(job.id))):
                began = time.monotonic()
                ask()
                taken[name].append(time.monotonic() - began)
            assert client.wait(job.id, timeout_s=30.0).state is JobState.CANCELLED
        assert all(sorted(times)[len(times) // 2] < 0.1 for times in taken.values()), taken


def test_ended_jobs_can_be_forgotten(daemon, song, tmp_path):
    with connect() as client:
        jobs = [client.submit(song, tmp_path / str(n), model="dsp").id for n in range(4)]
        for job_id in jobs:
            client.wait(job_id)
        assert [info.id for info in client.jobs()] == jobs[::-1]
        client.delete(jobs[0])
        refused("job.unknown", client.job, jobs[0])
        refused("job.unknown", client.delete, jobs[0])
        assert client.clear() == 3
        assert client.jobs() == ()
        assert (tmp_path / "0" / "song" / "bass.wav").is_file()


def test_what_is_refused(daemon, song, tmp_path):
    with connect() as client:
        refused("request.overlap", client.submit, song, tmp_path, overlap=2.0)
        refused("request.format", client.submit, song, tmp_path, format="wma")
        refused("path.outside", client.submit, "/etc/passwd", tmp_path)
        refused("path.outside", client.submit, song, "/etc")
        (tmp_path / "link").symlink_to("/etc")
        refused("path.outside", client.submit, song, tmp_path / "link" / "stems")
        refused("job.unknown", client.cancel, "job-of-nobody")
        info = client.wait(client.submit(tmp_path / "missing.wav", tmp_path, model="dsp").id)
        assert info.error is not None
        assert info.error.code == "input.missing"
        info = client.wait(client.submit(song, tmp_path, model="no such model").id)
        assert info.error is not None
        assert info.error.code == "model.unknown"


def test_a_client_has_a_quota(daemon, song, tmp_path, monkeypatch):
    """2,000 jobs of one client may wait, and then no more; others still can."""
    with connect() as client:
        client.pause_queue()
        for _ in range(2_000):
            client.submit(song, tmp_path, model="dsp")
        refused("job.quota", client.submit, song, tmp_path, model="dsp")
        assert client.status().waiting["normal"] == 2_000
        with connect(client="other") as other:
            other.submit(song, tmp_path, model="dsp")


def test_an_idle_worker_ends_and_comes_back(daemon_home, song, tmp_path):
    with DaemonProcess("--idle-unload", "1") as daemon, connect() as client:
        client.wait(client.submit(song, tmp_path / "1", model="dsp").id)
        wait_until(lambda: not daemon.worker_pids())
        assert client.status().workers[0].pid is None
        assert client.wait(client.submit(song, tmp_path / "2", model="dsp").id).state is JobState.DONE


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits of memory are Linux's")
def test_memory_that_runs_out_costs_a_smaller_segment(daemon, tmp_path):
    """The worker's address space is limited for real. The second attempt takes half the segment; then it is over."""
    song = noise(tmp_path / "song.wav", 100.0)
    (worker,) = daemon.worker_pids()
    in_use = psutil.Process(worker).memory_info().vms
    psutil.Process(worker).rlimit(psutil.RLIMIT_AS, (in_use + 1_400 * 2**20, -1))
    with connect() as client:
        job = client.submit(song, tmp_path / "out", model="dsp", segment_s=100.0, span_s=0)
        info = client.wait(job.id, timeout_s=200.0)
        assert info.state is JobState.DONE
        assert "memory" in [change.reason for change in client.history(job.id)]
        psutil.Process(worker).rlimit(psutil.RLIMIT_AS, (in_use + 400 * 2**20, -1))
        job = client.submit(song, tmp_path / "too large", model="dsp", segment_s=99.0, span_s=0)
        info = client.wait(job.id, timeout_s=200.0)
        assert info.error is not None
        assert info.error.code == "engine.memory"
        assert [change.reason for change in client.history(job.id)].count("memory") == 1
        psutil.Process(worker).rlimit(psutil.RLIMIT_AS, (-1, -1))
        small = client.submit(song, tmp_path / "small", model="dsp", segment_s=5.0, span_s=0)
        assert client.wait(small.id, timeout_s=200.0).state is JobState.DONE


def test_the_daemon_imports_no_inference_engine(daemon, song, tmp_path):
    """It stays small and starts fast; what computes is in the worker."""
    with connect() as client:
        client.wait(client.submit(song, tmp_path / "out", model="dsp").id)
    maps = Path(f"/proc/{daemon.pid}/maps")
    if not maps.exists():
        pytest.skip("only Linux tells what a process has loaded")
    text = maps.read_text()
    assert "libzmq" in text
    assert "torch" not in text
    assert "onnxruntime" not in text


def test_the_log_names_jobs(daemon, song, tmp_path):
    import json

    with connect(client="tester") as client:
        job = client.submit(song, tmp_path / "out", model="dsp")
        client.wait(job.id)
    lines = [json.loads(line) for line in (daemon_folder() / "daemon.log").read_text().splitlines()]
    of_job = [line for line in lines if line.get("job") == job.id]
    assert [line["message"] for line in of_job][-1] == "job is done"
    assert {line["client"] for line in of_job} == {"tester"}


def test_notices_come_through(daemon, song, tmp_path):
    with connect() as client:
        job = client.submit(song, tmp_path / "out", model="dsp", format="flac", bit_depth="16")
        codes = [message.event.code for message in client.events(job.id) if isinstance(message.event, Notice)]
        assert set(codes) <= {"output.gain"}
