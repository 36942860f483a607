"""What survives: the daemon and its worker killed at any moment, disks that fill up, the end in good order."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from daemon_program import DaemonProcess, noise
from program import posix_only
from revithion_bridge import connect
from revithion_bridge.connection import daemon_folder
from revithion_bridge.ledger import Ledger
from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.errors import RevithionError
from revithion_stems.jobs import JobState
from revithion_stems.store import ContentStore

STEMS = ("bass", "drums", "other", "vocals")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reference(source: Path, folder: Path, segment_s: float) -> dict[str, str]:
    """What the stems must be, byte for byte."""
    request = SeparationRequest(source=source, model="dsp", segment_s=segment_s)
    contents = ContentStore(folder / "cache")
    report = separate_to_files(request, OutputOptions(folder=folder / source.stem), contents=contents)
    return {stem.stem: stem.sha256 for stem in report.stems}


class Watcher(threading.Thread):
    """Looks at all visible stems all the time: each must be whole from the first moment on."""

    def __init__(self, folder: Path, expected: dict[str, dict[str, str]]) -> None:
        super().__init__(daemon=True)
        self.folder, self.expected = folder, expected
        self.seen: set[Path] = set()
        self.broken: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.01):
            with contextlib.suppress(FileNotFoundError):  # folders of jobs that were killed come and go
                self.look()

    def look(self) -> None:
        for path in self.folder.glob("*/*.wav"):
            if path not in self.seen and not path.name.startswith("."):
                if digest(path) != self.expected[path.parent.name][path.stem]:
                    self.broken.append(str(path))
                self.seen.add(path)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kills", [20, pytest.param(100, marks=pytest.mark.long)])
def test_killed_many_times_at_random(daemon_home, tmp_path, kills: int):
    """No job is lost, none ends twice, no half-written file is ever seen, and running jobs go on where they were."""
    rng = random.Random(4)
    songs = [noise(tmp_path / f"song{n}.wav", 5.0 + 2 * (n % 5), seed=n) for n in range(12)]
    expected = {song.stem: reference(song, tmp_path / "reference", 0.5) for song in songs}
    out = tmp_path / "out"
    watcher = Watcher(out, expected)
    watcher.start()
    jobs: dict[str, Path] = {}
    resumed = 0
    daemon = DaemonProcess()
    with daemon.start(), connect(timeout_s=30.0) as client:  # one job at least has something to go on from
        info = client.submit(songs[4], out, model="dsp", segment_s=0.5, span_s=1.0)
        jobs[info.id] = songs[4]
        while client.job(info.id).done < 3:
            time.sleep(0.01)
        daemon.kill()
    for _ in range(kills - 1):
        daemon.start()
        with connect(timeout_s=30.0) as client:
            for song in rng.sample(songs, rng.randrange(3)):
                info = client.submit(
                    song, out, model="dsp", segment_s=0.5, force_refresh=rng.random() < 0.5, span_s=1.0
                )
                jobs[info.id] = song
            time.sleep(rng.random() * 0.6)
            daemon.kill()
    with daemon.start(), connect(timeout_s=30.0) as client:
        for job_id, song in jobs.items():
            info = client.wait(job_id, timeout_s=300.0)
            assert info.state is JobState.DONE, info
            assert {stem["stem"]: stem["sha256"] for stem in info.stems} == expected[song.stem]
            changes = [change.state for change in client.history(job_id)]
            assert changes.count(JobState.DONE) == 1
            assert changes[-1] is JobState.DONE
            assert info.summary is not None
            resumed += info.summary["resumed_runs"]
        counts = client.status().jobs
        assert counts["done"] == sum(counts.values()) == len(jobs)
    watcher.over.set()
    watcher.join()
    assert watcher.broken == []
    assert len(watcher.seen) == 4 * len(set(jobs.values()))
    assert list(tmp_path.rglob("*.part")) == []
    assert resumed > 0
    for song in set(jobs.values()):
        assert {stem: digest(out / song.stem / f"{stem}.wav") for stem in STEMS} == expected[song.stem]


def test_a_running_job_goes_on_at_its_segment(daemon_home, tmp_path):
    song = noise(tmp_path / "song.wav", 60.0)
    daemon = DaemonProcess().start()
    with connect() as client:
        job = client.submit(song, tmp_path / "out", model="dsp", segment_s=0.2, span_s=0)
        while client.job(job.id).done < 20:
            time.sleep(0.02)
        daemon.kill()
    with daemon.start(), connect() as client:
        info = client.wait(job.id, timeout_s=120.0)
        assert info.summary is not None
        assert info.summary["resumed_runs"] >= 20
        assert [c.reason for c in client.history(job.id) if c.state is JobState.QUEUED] == ["", "restart"]


def test_the_end_in_good_order(daemon_home, tmp_path):
    """SIGTERM: the segment is finished, the state is stored, the status is 0, nothing is left but the queue."""
    song = noise(tmp_path / "song.wav", 60.0)
    daemon = DaemonProcess().start()
    workers = daemon.worker_pids()
    with connect() as client:
        job = client.submit(song, tmp_path / "out", model="dsp", segment_s=0.2)
        while client.job(job.id).done < 5:
            time.sleep(0.02)
        assert daemon.terminate() == 0
    assert not (daemon_folder() / "connection.json").exists()
    assert not list((tmp_path / "out").rglob("*.wav"))
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with contextlib.closing(Ledger(daemon_folder() / "ledger.sqlite")) as ledger:
        stored = ledger.get(job.id)
        assert stored is not None
        assert stored.info.state is JobState.QUEUED
    with daemon.start(), connect() as client:
        assert client.wait(job.id, timeout_s=120.0).state is JobState.DONE
        client.shutdown()
        assert daemon.process is not None
        assert daemon.process.wait(30) == 0


@posix_only
def test_a_worker_that_crashes_costs_one_retry(daemon, tmp_path):
    """And a second crash costs the job, not the daemon; the next job is done."""
    song = noise(tmp_path / "song.wav", 60.0)
    with connect() as client:
        job = client.submit(song, tmp_path / "out", model="dsp", segment_s=0.2, span_s=0)
        crash_at(client, daemon, job.id, 10)
        info = client.wait(job.id, timeout_s=120.0)
        assert info.state is JobState.DONE
        assert info.attempts == 2
        assert info.summary is not None
        assert info.summary["resumed_runs"] >= 10
        twice = client.submit(song, tmp_path / "two", model="dsp", segment_s=0.25, span_s=0)
        crash_at(client, daemon, twice.id, 10)
        crash_at(client, daemon, twice.id, 30)
        info = client.wait(twice.id, timeout_s=120.0)
        assert info.state is JobState.FAILED
        assert info.error is not None
        assert info.error.code == "worker.lost"
        third = client.submit(song, tmp_path / "three", model="dsp", segment_s=0.25, span_s=0)
        assert client.wait(third.id, timeout_s=120.0).state is JobState.DONE
        assert client.status().counters["workers_lost"] == 3


def crash_at(client, daemon, job_id, runs) -> None:
    while client.job(job_id).done < runs or client.job(job_id).state is not JobState.SEPARATING:
        time.sleep(0.01)
    os.kill(daemon.worker_pids()[0], signal.SIGSEGV)
    while client.job(job_id).state is JobState.SEPARATING:
        time.sleep(0.01)


def test_a_full_disk_where_the_stems_go(daemon, tmp_path, mounted):
    song = noise(tmp_path / "song.wav", 6.0)
    with mounted(tmp_path / "disk", "size=3m") as disk, connect() as client:
        info = client.wait(client.submit(song, disk / "out", model="dsp").id, timeout_s=60.0)
        assert info.error is not None
        assert info.error.code == "output.disk_full"
        assert list(disk.rglob("*")) == []
        info = client.wait(client.submit(song, tmp_path / "out", model="dsp").id, timeout_s=60.0)
        assert info.state is JobState.DONE


def test_a_full_disk_where_the_queue_is(tmp_path, daemon_home, mounted, monkeypatch):
    """What is running goes on, what is new is refused with a clear error, and all is well when there is room again."""
    song = noise(tmp_path / "song.wav", 20.0)
    with mounted(tmp_path / "disk", "size=2m") as disk:
        monkeypatch.setenv("REVITHION_STATE_DIR", str(disk / "state"))
        with DaemonProcess(), connect() as client:
            job = client.submit(song, tmp_path / "out", model="dsp", segment_s=0.2, span_s=0)
            ballast = disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            client.pause_queue()
            codes = set[str]()
            for _ in range(50):  # a few pages may be free in files that are there
                try:
                    client.submit(song, tmp_path / "other", model="dsp", template="x" * 900 + "/{stem}")
                except RevithionError as exc:
                    codes.add(exc.code)
            assert codes == {"daemon.disk_full"}
            assert client.wait(job.id, timeout_s=120.0).state is JobState.DONE
            ballast.unlink()
            for info in client.jobs(states=(JobState.QUEUED,)):
                client.cancel(info.id)
            client.resume_queue()
            again = client.submit(song, tmp_path / "again", model="dsp", span_s=0)
            assert client.wait(again.id, timeout_s=60.0).state is JobState.DONE


def test_one_daemon_at_a_time(daemon, daemon_home):
    second = DaemonProcess()
    with pytest.raises(AssertionError, match="status 7"):
        second.start()
    with connect() as client:
        assert client.status().pid == daemon.pid


def test_an_error_that_nobody_foresaw_ends_it_with_a_status(daemon_home, tmp_path):
    """The log has the trace, nobody is led to a daemon that is gone, and the next one goes on with the queue."""
    song = noise(tmp_path / "song.wav", 2.0)
    code = (
        "import time, sys\n"
        "from revithion_bridge import daemon, job_queue\n"
        "began, tick = time.monotonic(), job_queue.JobQueue.tick\n"
        "def fail(self):\n"
        "    if time.monotonic() > began + 4: 1 / 0\n"
        "    tick(self)\n"
        "job_queue.JobQueue.tick = fail\n"
        "sys.exit(daemon.main([]))\n"
    )
    daemon = DaemonProcess(program=["-c", code]).start()
    with connect() as client:
        client.pause_queue()
        job = client.submit(song, tmp_path / "out", model="dsp")
    assert daemon.process is not None
    assert daemon.process.wait(30) == 1
    assert not (daemon_folder() / "connection.json").exists()
    assert "ZeroDivisionError" in (daemon_folder() / "daemon.log").read_text()
    with DaemonProcess(), connect() as client:
        client.resume_queue()
        assert client.wait(job.id, timeout_s=60.0).state is JobState.DONE


def test_a_queue_that_is_damaged_is_told(daemon_home):
    daemon_folder().mkdir(parents=True)
    (daemon_folder() / "ledger.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(AssertionError, match=r"status 7.*ledger\.sqlite"):
        DaemonProcess().start()
