"""A batch on a real Ray cluster. Each scenario is a program of its own: Ray's warnings and threads stay outside."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from revithion_stems import batch_ray
from revithion_stems.api import separate_to_files
from revithion_stems.batch_items import Batch, BatchItem, BatchResult, Outcome
from revithion_stems.batch_ray import run_ray
from revithion_stems.batch_worker import News, Task, Worker
from revithion_stems.errors import RevithionError
from revithion_stems.events import CancelToken, JobChanged, JobEvent, JobProgress, Notice, StemReady
from revithion_stems.jobs import JobState
from revithion_stems.manifest import decode_manifest
from revithion_stems.outputs import OutputOptions
from revithion_stems.ray_cluster import WorkerShape, capacity, worker_shape
from revithion_stems.remote_files import expand_url
from revithion_stems.requests import SeparationRequest

STEMS = ("drums", "bass", "other", "vocals")
FILES = 12
SECONDS = 20.0
SAMPLE_RATE = 44_100

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed")
needs_s3 = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("s3fs", "moto", "flask")), reason="s3fs and moto's server are not installed"
)


def _write_song(path: Path, seed: int, seconds: float) -> Path:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(SAMPLE_RATE * seconds)) / SAMPLE_RATE
    tone = np.sin(2 * np.pi * (110 + 20 * seed) * time_s) * (0.5 + 0.5 * np.sin(2 * np.pi * time_s))
    samples = np.stack([tone, tone[::-1]], axis=1) * 0.3 + rng.normal(scale=0.02, size=(time_s.size, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
    return path


def _batch(sources: list[Path], output: Path, **changes: Any) -> Batch:
    return Batch(
        items=tuple(BatchItem(source=str(source)) for source in sources),
        request=SeparationRequest(source=Path(), model="dsp", segment_s=3.0),
        output=OutputOptions(folder=output),
        **changes,
    )


def _stems_of(source: Path, output: Path) -> list[Path]:
    return [output / source.stem / f"{stem}.wav" for stem in STEMS]


def _identity(path: Path) -> list[int]:
    """Changes if a file is written again: files appear by a rename of a new one."""
    status = path.stat()
    return [status.st_ino, status.st_mtime_ns]


# --- programs that run in a process of their own ---


class Recorder:
    """Callbacks that keep what they are given."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []
        self.results: list[BatchResult] = []

    def on_event(self, event: JobEvent) -> None:
        self.events.append(event)

    def on_result(self, result: BatchResult) -> None:
        self.results.append(result)

    def count(self, state: JobState) -> int:
        return sum(isinstance(event, JobChanged) and event.state is state for event in self.events)

    @property
    def nodes(self) -> set[str]:
        return {result.worker.partition("/")[0] for result in self.results}

    @property
    def lost(self) -> list[str]:
        return [
            event.message for event in self.events if isinstance(event, Notice) and event.code == "batch.worker_lost"
        ]

    @property
    def in_work(self) -> set[str]:
        """Jobs in the first half of their network runs, as far as their workers have told."""
        progress = {event.job_id: event for event in self.events if isinstance(event, JobProgress)}
        ended = {event.job_id for event in self.events if isinstance(event, JobChanged) and event.state.is_final}
        return {job for job, last in progress.items() if 0 < 2 * last.done <= last.total} - ended


def _songs_and_output(folder: Path) -> tuple[list[Path], Path]:
    output = folder / "out"
    output.mkdir()
    return sorted((folder / "in").iterdir()), output


def _cluster(*sizes: int) -> tuple[Any, list[Any]]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": sizes[0], "include_dashboard": False})
    return cluster, [cluster.add_node(num_cpus=size) for size in sizes[1:]]


def lose_a_node(folder: Path) -> dict[str, Any]:
    """Two nodes, of which one is killed while both work; then the same batch again, which finds nothing to do."""
    cluster, nodes = _cluster(1, 1)
    sources, output = _songs_and_output(folder)
    batch = _batch(sources, output)
    before: dict[str, list[int]] = {}
    seen = Recorder()

    def on_event(event: JobEvent) -> None:
        seen.on_event(event)
        if nodes and len(seen.nodes) == 2 and len(seen.in_work) == 2:
            done = [Path(result.item.source) for result in seen.results]
            before.update({str(path): _identity(path) for source in done for path in _stems_of(source, output)})
            lost = nodes.pop()
            workers = {result.worker for result in seen.results if f"-{lost.node_id[:6]}/" in result.worker}
            for worker in workers:  # they would outlive their node for about a second
                psutil.Process(int(worker.rpartition("/")[2])).kill()
            cluster.remove_node(lost, allow_graceful=False)

    first = run_ray(batch, on_event=on_event, on_result=seen.on_result, address=cluster.address)
    stems = [path for source in sources for path in _stems_of(source, output)]
    finished = {str(path): _identity(path) for path in stems}
    second = run_ray(batch, address=cluster.address)
    return {
        "items": [result.item.source for result in first],
        "first": [result.outcome.value for result in first],
        "manifests": [result.manifest for result in first],
        "nodes": len(seen.nodes),
        "done_before": len(before),
        "kept": {path: finished[path] for path in before} == before,
        "computations": seen.count(JobState.SEPARATING),
        "lost": seen.lost,
        "failed_jobs": seen.count(JobState.FAILED),
        "second": [result.outcome.value for result in second],
        "second_kept": {str(path): _identity(path) for path in stems} == finished,
    }


def come_and_go(folder: Path) -> dict[str, Any]:
    """A node joins and is used; then none is left, with one attempt per file; then no node is large enough."""
    cluster, nodes = _cluster(0, 1)
    sources, output = _songs_and_output(folder)
    growing, starving, cancelled = Recorder(), Recorder(), Recorder()

    def grow(result: BatchResult) -> None:
        if not growing.results:
            nodes.append(cluster.add_node(num_cpus=1))
        growing.on_result(result)

    def starve(event: JobEvent) -> None:
        starving.on_event(event)
        late = starving.in_work and starving.count(JobState.DONE)  # the other worker is slow to start
        if len(starving.in_work) == 2 or late:
            while nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)

    token = CancelToken()
    (output / "no").mkdir()
    cancelled_at = 0.0

    def stop(event: JobEvent) -> None:
        nonlocal cancelled_at
        cancelled.on_event(event)
        if cancelled.in_work and not token.cancelled:
            token.cancel()
            cancelled_at = time.monotonic()

    run_ray(_batch(sources, output), on_result=grow, address=cluster.address)
    stopped = run_ray(_batch(sources, output / "no"), on_event=stop, cancel=token, address=cluster.address)
    stopped_s = time.monotonic() - cancelled_at
    batch_ray._WAIT_FOR_NODES_S = 1.0
    starved = run_ray(_batch(sources, output / "no"), on_event=starve, address=cluster.address, attempts=1)
    return {
        "growing": [result.outcome.value for result in growing.results],
        "growing_nodes": len(growing.nodes),
        "stopped": [result.outcome.value for result in stopped],
        "stopped_s": stopped_s,
        "starved": sorted((result.error or {}).get("code", result.outcome.value) for result in starved),
        "no_room": _error_of(_batch(sources, output), address=cluster.address),
    }


def by_url(folder: Path) -> dict[str, Any]:
    """Sources from an S3-like store, and stems back to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    import s3fs

    store = s3fs.S3FileSystem()
    store.mkdir("music")
    store.put(str(folder / "in"), "music/in", recursive=True)
    cluster, _ = _cluster(1, 1)
    items = tuple(expand_url("s3://music/in"))
    batch = Batch(
        items=items,
        request=SeparationRequest(source=Path(), model="dsp", segment_s=3.0),
        output=OutputOptions(folder=Path("unused")),
        output_url="s3://music/stems",
    )
    seen = Recorder()
    first = run_ray(batch, on_event=seen.on_event, address=cluster.address)
    second = run_ray(batch, address=cluster.address)
    store.rm_file("music/stems/a/song 0/vocals.wav")
    third = run_ray(batch, address=cluster.address)
    store.invalidate_cache()
    store.get("music/stems", str(folder / "stems"), recursive=True)
    server.stop()
    return {
        "items": [item.source for item in items],
        "sources": sorted({event.source for event in seen.events if isinstance(event, JobChanged)}),
        "stems": sorted(event.path for event in seen.events if isinstance(event, StemReady)),
        "manifests": [result.manifest for result in first],
        "first": [(result.error or {}).get("message", result.outcome.value) for result in first],
        "second": [result.outcome.value for result in second],
        "third": [result.outcome.value for result in third],
    }


def _error_of(batch: Batch, **options: Any) -> str:
    try:
        run_ray(batch, **options)
    except RevithionError as exc:
        return exc.code
    return ""


# --- tests ---


def _run(scenario: str, folder: Path) -> dict[str, Any]:
    """Runs a scenario without a result cache: what is not done twice is what its destination tells."""
    variables = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback interface only
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
        "REVITHION_CACHE_DIR": str(folder / "cache"),
        "REVITHION_CACHE_SIZE": "0",
    }
    process = subprocess.run(
        [sys.executable, __file__, scenario, str(folder)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _assert_as_local(sources: list[Path], output: Path, folder: Path) -> None:
    """The stems below ``output`` are the same bytes that this process writes."""
    for source in sources:
        request = SeparationRequest(source=source, model="dsp", segment_s=3.0)
        local = separate_to_files(request, OutputOptions(folder=folder / "local"))
        for stem in local.stems:
            assert _sha256(output / source.stem / stem.path.name) == stem.sha256


@needs_ray
@pytest.mark.slow
def test_a_lost_node_loses_nothing_and_nothing_is_done_twice(tmp_path: Path) -> None:
    sources = [_write_song(tmp_path / "in" / f"song{number:02}.wav", number, 11.0) for number in range(12)]
    report = _run("lose_a_node", tmp_path)
    assert report["items"] == [str(source) for source in sources]
    assert report["nodes"] == 2
    assert report["done_before"] >= 2 * len(STEMS)
    # What was finished before the node died was not written again, and only what it was at was computed again.
    assert report["kept"]
    assert len(report["lost"]) == 1
    assert "attempt 1 of 3" in report["lost"][0]
    assert report["failed_jobs"] == 1
    assert report["computations"] == len(sources) + 1
    assert report["first"] == ["done"] * len(sources)
    assert report["second"] == ["cached"] * len(sources)
    assert report["second_kept"]
    _assert_as_local(sources, tmp_path / "out", tmp_path)
    for source, name in zip(sources, report["manifests"], strict=True):
        manifest = decode_manifest(Path(name).read_bytes())
        assert manifest.source.path == str(source)
        assert [file.sha256 for file in manifest.files] == [
            _sha256(path) for path in _stems_of(source, tmp_path / "out")
        ]
    assert not list(tmp_path.rglob("*.part"))


@needs_ray
@pytest.mark.slow
def test_nodes_that_join_are_used_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    for number in range(6):
        _write_song(tmp_path / "in" / f"song{number:02}.wav", number, 10.0)
    report = _run("come_and_go", tmp_path)
    assert report["growing"] == ["done"] * 6
    assert report["growing_nodes"] == 2
    assert report["stopped"] == ["cancelled"] * 6
    assert report["stopped_s"] < 10.0
    assert set(report["starved"]) <= {"batch.no_workers", "batch.worker_lost", "done"}
    assert "batch.no_workers" in report["starved"]
    assert report["starved"].count("batch.worker_lost") in (1, 2)  # one may have ended when its node was killed
    assert report["no_room"] == "batch.no_workers"


@needs_ray
@needs_s3
@pytest.mark.slow
def test_files_come_from_and_go_to_an_s3_like_store(tmp_path: Path) -> None:
    sources = [_write_song(tmp_path / "in" / "a" / f"song {number}.wav", number, 3.0) for number in range(3)]
    report = _run("by_url", tmp_path)
    names = [f"s3://music/in/a/song {number}.wav" for number in range(3)]
    assert report["items"] == report["sources"] == names
    assert report["first"] == ["done"] * 3
    assert report["manifests"] == [f"s3://music/stems/a/song {number}/manifest.json" for number in range(3)]
    assert report["stems"] == sorted(
        f"s3://music/stems/a/song {number}/{stem}.wav" for number in range(3) for stem in STEMS
    )
    assert report["second"] == ["cached"] * 3
    assert report["third"] == ["done", "cached", "cached"]
    _assert_as_local(sources, tmp_path / "stems" / "a", tmp_path)
    manifest = decode_manifest((tmp_path / "stems" / "a" / "song 1" / "manifest.json").read_bytes())
    assert manifest.source.path == names[1]


@needs_ray
@pytest.mark.slow
def test_the_command_line_starts_a_cluster_of_its_own(tmp_path: Path) -> None:
    source = _write_song(tmp_path / "song.wav", 1, 2.0)
    (tmp_path / "list.txt").write_text("song.wav\nnothing.wav\n", encoding="utf-8")
    command = "batch @list.txt -o stems -m dsp --segment 3 --engine ray --json"
    process = subprocess.run(
        [sys.executable, "-c", "from revithion_stems.cli.main import main; main()", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "REVITHION_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    results = [line for line in lines if line["type"] == "BatchResult"]
    assert {result["source"]: result["outcome"] for result in results} == {"song.wav": "done", "nothing.wav": "failed"}
    assert process.returncode == 3
    assert process.stderr == ""
    _assert_as_local([source], tmp_path / "stems", tmp_path)


@needs_ray
def test_a_cluster_that_does_not_answer_is_an_error_at_once(tmp_path: Path) -> None:
    script = "import sys; sys.path.insert(0, sys.argv[1]); import test_batch_ray as t; from pathlib import Path; "
    script += "print(t._error_of(t._batch([], Path('out')), address='127.0.0.1:9'))"
    process = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (process.stdout, process.stderr) == ("batch.cluster\n", "")


# --- without a cluster ---


def _finish(worker: Worker, task: Task, *, cancel: bool = False) -> tuple[BatchResult, list[JobEvent]]:
    news: News = worker.work(task, cancel=cancel, wait_s=0.05)
    events = [*news.events]
    while news.result is None:
        news = worker.work(None, cancel=False, wait_s=0.05)
        events += news.events
    return news.result, events


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("REVITHION_CACHE_SIZE", "0")


def test_a_worker_tells_its_news_in_the_users_words(tmp_path: Path) -> None:
    source = _write_song(tmp_path / "in" / "song.wav", 1, 3.0)
    url = source.as_uri()
    batch = _batch([], tmp_path, output_url=(tmp_path / "out").as_uri())
    worker = Worker(batch, "node")
    task = Task(number=4, item=BatchItem(source=url), source=url, attempt=2)
    result, events = _finish(worker, task)
    assert result.outcome is Outcome.DONE
    assert result.worker
    assert result.manifest == f"{(tmp_path / 'out').as_uri()}/song/manifest.json"
    assert {event.job_id for event in events} == {"job-5.2"}
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert {event.source for event in events if isinstance(event, JobChanged)} == {url}
    places = [event.path for event in events if isinstance(event, StemReady)]
    assert places == [f"{(tmp_path / 'out').as_uri()}/song/{stem}.wav" for stem in STEMS]
    assert decode_manifest((tmp_path / "out" / "song" / "manifest.json").read_bytes()).source.path == url


@pytest.mark.parametrize("by_url", [False, True])
def test_what_stands_complete_is_not_computed_again(tmp_path: Path, by_url: bool) -> None:
    source, output = _write_song(tmp_path / "song.wav", 1, 3.0), tmp_path / "out"
    batch = _batch([], output, output_url=output.as_uri() if by_url else None)
    task = Task(number=0, item=BatchItem(source=str(source)), source=str(source))

    def outcome(changed: Batch = batch) -> tuple[Outcome, bool]:
        before = {path: _identity(path) for path in _stems_of(source, output) if path.exists()}
        result, _ = _finish(Worker(changed, "node"), task)
        return result.outcome, {path: _identity(path) for path in before} == before

    vocals = output / "song" / "vocals.wav"
    assert outcome()[0] is Outcome.DONE
    assert outcome() == (Outcome.CACHED, True)
    assert outcome(dataclasses.replace(batch, force_refresh=True)) == (Outcome.DONE, False)
    vocals.write_bytes(vocals.read_bytes()[:-1])
    assert outcome()[0] is Outcome.DONE
    vocals.unlink()
    assert outcome()[0] is Outcome.DONE
    assert outcome() == (Outcome.CACHED, True)
    archive = dataclasses.replace(batch, output=dataclasses.replace(batch.output, archive_mix=True))
    assert outcome(archive)[0] is Outcome.DONE
    assert outcome(archive) == (Outcome.CACHED, True)
    other = dataclasses.replace(batch, request=dataclasses.replace(batch.request, overlap=0.5))
    assert outcome(other)[0] is Outcome.DONE
    (output / "song" / "manifest.json").write_text("{}", encoding="utf-8")
    assert outcome(other)[0] is Outcome.DONE


def test_failures_and_cancelling_are_results(tmp_path: Path) -> None:
    worker = Worker(_batch([], tmp_path / "out"), "node")
    missing = Task(number=0, item=BatchItem(source="no.wav"), source=str(tmp_path / "no.wav"))
    result, events = _finish(worker, missing)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert result.error["code"] == "input.missing"
    assert str(tmp_path) not in result.error["message"]
    assert [event.state for event in events if isinstance(event, JobChanged)][-1] is JobState.FAILED
    far = Task(number=1, item=BatchItem(source="file:///no/such.wav"), source="file:///no/such.wav")
    result, _ = _finish(worker, far)
    assert (result.error or {})["code"] == "input.missing"
    source = _write_song(tmp_path / "song.wav", 1, 3.0)
    task = Task(number=2, item=BatchItem(source=str(source)), source=str(source))
    result, _ = _finish(worker, task, cancel=True)
    assert result.outcome is Outcome.CANCELLED
    assert result.exit_code == 130


class Nodes:
    """Ray's list of nodes, and nothing else of it."""

    def __init__(self, *nodes: dict[str, float]) -> None:
        self._nodes = nodes

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        return [*({"Alive": True, "Resources": node} for node in self._nodes), dead]


def test_workers_take_gpus_where_there_are_some_and_else_cores() -> None:
    cores, mixed = Nodes({"CPU": 16}, {"CPU": 3}, {}), Nodes({"CPU": 16, "GPU": 2}, {"CPU": 8})
    assert worker_shape(cores, "auto", None, None) == WorkerShape(cpus=3, gpus=0)
    assert worker_shape(Nodes({"CPU": 16}), "auto", None, None) == WorkerShape(cpus=4, gpus=0)
    assert worker_shape(mixed, "auto", None, None) == WorkerShape(cpus=1, gpus=1)
    assert worker_shape(mixed, "cpu", None, None) == WorkerShape(cpus=4, gpus=0)
    assert worker_shape(mixed, "auto", 2, 0.5) == WorkerShape(cpus=2, gpus=0.5)
    assert capacity(cores, WorkerShape(cpus=3, gpus=0)) == 6
    assert capacity(mixed, WorkerShape(cpus=1, gpus=1)) == 2
    assert capacity(mixed, WorkerShape(cpus=2, gpus=0.5)) == 4
    assert capacity(mixed, WorkerShape(cpus=17, gpus=0)) == 0
    with pytest.raises(RevithionError, match="at least"):
        WorkerShape(cpus=0, gpus=0)


def main() -> None:
    """Runs the scenario that the first argument names, in the folder that the second one names."""
    folder = Path(sys.argv[2])
    batch_ray._NEWS_S = 0.1  # to see short songs in work
    report = globals()[sys.argv[1]](folder)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main()
