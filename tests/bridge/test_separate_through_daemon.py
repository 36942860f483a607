"""`separate` with and without a daemon: the same text, the same events, the same files; and what if the daemon goes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from program import lines, posix_only, run, start
from revithion_stems.events import JobChanged, JobProgress, JobSummary, Notice, StemReady

TIMES = {"elapsed_s", "remaining_s"}
STEMS = ("drums", "bass", "other", "vocals")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with an empty home beside it."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).standard_normal((round(44_100 * seconds), 2)) * 0.05
    soundfile.write(path, samples, 44_100)
    return path


@contextlib.contextmanager
def daemon(place: Path, *options: str | Path) -> Iterator[psutil.Process]:
    """A daemon that serves; ended in any case."""
    with start(place, "serve", "--json", *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield psutil.Process(json.loads(line)["pid"])
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()


def empty_cache(place: Path) -> None:
    shutil.rmtree(place.parent / "home" / "cache", ignore_errors=True)


def jobs_of_daemon(place: Path) -> list[dict[str, Any]]:
    return lines(run(place, "jobs", "--json").stdout)


def without_times(text: str) -> list[dict[str, Any]]:
    found = [{key: value for key, value in line.items() if key not in TIMES} for line in lines(text)]
    # How often progress is told depends on the clock too: only that it reaches the end.
    return [line for line in found if line["type"] != "JobProgress" or line["done"] == line["total"]]


def sets(place: Path) -> dict[str, str]:
    """Digests of all files but manifests."""
    found = (path for path in place.rglob("*") if path.is_file() and path.suffix != ".json")
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def manifests(place: Path) -> dict[str, dict[str, Any]]:
    found = {str(path.relative_to(place)): json.loads(path.read_bytes()) for path in place.rglob("*.json")}
    for record in found.values():
        del record["created"], record["elapsed_s"]
    return found


def separated(place: Path, *args: str, **extra: str) -> tuple[subprocess.CompletedProcess[str], dict[str, str], Any]:
    """One run with nothing in the cache; what it printed and what it made, which is taken away again."""
    empty_cache(place)
    done = run(place, "separate", *args, **extra)
    made = sets(place), manifests(place)
    for folder in [path for path in place.iterdir() if path.is_dir()]:
        shutil.rmtree(folder)
    return done, *made


RUNS = [
    (("song.wav",), 0),
    (("./song.wav", "other.wav", "-f", "flac", "-o", "stems"), 0),
    (("song.wav", "--two-stems", "vocals", "--segment", "1", "--archive-mix"), 0),
    (("song.wav", "no.wav", "text.wav", "other.wav", "--stems", "bass"), 3),
    (("loud.wav", "-b", "16", "--residual", "stem"), 0),
    (("song.wav", "-o", "text.wav"), 5),
    (("song.wav", "--stems", "piano"), 2),
]


@pytest.mark.slow
def test_the_same_text_events_and_files(place: Path) -> None:
    write(place / "song.wav", 3)
    write(place / "other.wav", 1, seed=1)
    soundfile.write(place / "loud.wav", np.sign(soundfile.read(write(place / "l.wav", 1, seed=2))[0]) * 0.999, 44_100)
    (place / "text.wav").write_text("no song")
    runs = [((*args, "-m", "dsp", *json_mode), status) for args, status in RUNS for json_mode in ((), ("--json",))]
    alone = [separated(place, *args) for args, _ in runs]
    with daemon(place):
        through = [separated(place, *args) for args, _ in runs]
        asked = jobs_of_daemon(place)
    assert len(asked) == 2 * sum(sum(word.endswith(".wav") for word in args) for args, _ in RUNS) - 2  # -o text.wav
    for (args, status), (by_itself, files, records), (by_daemon, daemon_files, daemon_records) in zip(
        runs, alone, through, strict=True
    ):
        assert (by_itself.returncode, by_daemon.returncode) == (status, status), (args, by_daemon)
        assert by_daemon.stderr == by_itself.stderr, args
        assert daemon_files == files, args
        assert daemon_records == records, args
        if "--json" in args:
            assert without_times(by_daemon.stdout) == without_times(by_itself.stdout)
        else:
            assert by_daemon.stdout.replace("0:01", "0:00") == by_itself.stdout.replace("0:01", "0:00"), args
    assert not list(place.rglob("*.part"))


def test_from_the_cache_too(place: Path) -> None:
    write(place / "song.wav", 2)
    run(place, "separate", "song.wav", "-m", "dsp", "-q")
    alone = run(place, "separate", "song.wav", "-m", "dsp")
    with daemon(place):
        through = run(place, "separate", "song.wav", "-m", "dsp")
        assert jobs_of_daemon(place)[0]["summary"]["cached"] is True
    assert "from the cache" in alone.stdout
    assert (through.stdout, through.stderr) == (alone.stdout, alone.stderr)


@pytest.mark.slow
def test_who_does_not_want_it_or_is_not_the_same_works_alone(place: Path) -> None:
    song = write(place / "song.wav", 1)
    (place.parent / "elsewhere").mkdir()
    outside = shutil.copy(song, place.parent / "elsewhere" / "song.wav")
    with daemon(place, "--root", place):
        for args, extra in (
            (("song.wav", "--no-daemon"), {}),
            (("song.wav",), {"REVITHION_SEPARATE_NO_DAEMON": "1"}),
            (("song.wav",), {"REVITHION_CACHE_DIR": str(place.parent / "cache2")}),
            (("song.wav",), {"REVITHION_OFFLINE": "0"}),
            ((str(outside),), {}),
            (("song.wav", "-o", str(place.parent / "elsewhere")), {}),
        ):
            done = run(place, "separate", *args, "-m", "dsp", **extra)
            assert (done.returncode, done.stderr) == (0, ""), args
            assert jobs_of_daemon(place) == [], args
        assert run(place, "jobs", "pause").returncode == 0
        assert run(place, "separate", "song.wav", "-m", "dsp").returncode == 0
        assert jobs_of_daemon(place) == []
        assert run(place, "jobs", "resume").returncode == 0
        assert run(place, "separate", "song.wav", "-m", "dsp").returncode == 0
        assert len(jobs_of_daemon(place)) == 1


def test_a_connection_file_that_lies_is_passed_over(place: Path) -> None:
    write(place / "song.wav", 1)
    with daemon(place) as process:
        file = place.parent / "home" / "state" / "daemon" / "connection.json"
        text = file.read_bytes()
        process.kill()
        process.wait(10)
    for content in (text, b"{", b""):
        file.write_bytes(content)
        began = time.monotonic()
        done = run(place, "separate", "song.wav", "-m", "dsp")
        assert (done.returncode, done.stderr) == (0, ""), content
        assert time.monotonic() - began < 10


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still prints; ``communicate`` would pass over what the pipe's reader has taken in already."""
    assert process.stdout is not None
    assert process.stderr is not None
    output = process.stdout.read(), process.stderr.read()
    process.wait(60)
    return output


def follow(process: subprocess.Popen[str], runs: int) -> list[dict[str, Any]]:
    """Lines of ``--json`` until so many network runs are done."""
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["type"] == "JobProgress" and seen[-1]["done"] >= runs:
            return seen
    raise AssertionError(seen)


@posix_only
def test_ctrl_c_cancels_the_job_of_the_daemon(place: Path) -> None:
    write(place / "song.wav", 90)
    with daemon(place):
        with start(place, "separate", "song.wav", "-m", "dsp", "--segment", "1", "--json") as process:
            seen = follow(process, 2)
            process.send_signal(signal.SIGINT)
            rest, errors = rest_of(process)
        seen += lines(rest)
        (job,) = jobs_of_daemon(place)
    assert (process.returncode, errors) == (130, "")
    assert (job["state"], job["error"]["code"]) == ("cancelled", "job.cancelled")
    assert [line["state"] for line in seen if line["type"] == "JobChanged"][-1] == "cancelled"
    assert seen[-1] == {
        "type": "Error",
        "code": "job.cancelled",
        "message": "cancelled on request",
        "hint": "Run the same command again to go on from there.",
    }
    assert sets(place).keys() == {"song.wav"}


@posix_only
@pytest.mark.slow
def test_a_daemon_that_is_killed_is_replaced_by_this_process_which_goes_on(place: Path) -> None:
    write(place / "song.wav", 90)
    args = ("separate", "song.wav", "-m", "dsp", "--segment", "1", "--json")
    expected, files, _ = separated(place, *args[1:])
    empty_cache(place)
    with daemon(place) as served, start(place, *args) as process:
        seen = follow(process, 3)
        children = served.children(recursive=True)
        served.kill()
        rest, errors = rest_of(process)
        psutil.wait_procs(children, timeout=20)
        assert not [child for child in children if child.is_running()], "a worker outlives its daemon"
    seen += lines(rest)
    assert (process.returncode, errors) == (0, "")
    assert sets(place) == files
    (summary,) = [line for line in seen if line["type"] == "JobSummary"]
    assert summary["resumed_runs"] >= 3
    assert {line["job_id"] for line in seen} == {"job-1"}
    assert [line["seq"] for line in seen] == list(range(len(seen)))
    states = [line["state"] for line in seen if line["type"] == "JobChanged"]
    assert states == [line["state"] for line in lines(expected.stdout) if line["type"] == "JobChanged"]


def test_a_daemon_that_is_started_again_in_time_goes_on(place: Path) -> None:
    write(place / "song.wav", 60)
    args = ("separate", "song.wav", "-m", "dsp", "--segment", "1", "--json")
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(daemon(place))
        process = stack.enter_context(start(place, *args))
        follow(process, 3)
        served.kill()
        served.wait(10)
        stack.enter_context(daemon(place))
        rest, errors = rest_of(process)
        (job,) = jobs_of_daemon(place)
    assert (process.returncode, errors) == (0, "")
    assert (job["state"], job["attempts"]) == ("done", 2)
    assert [line["stem"] for line in lines(rest) if line["type"] == "StemReady"] == list(STEMS)
    assert lines(rest)[-1]["state"] == "done"


# --- the events, one by one ---------------------------------------------------------------------------------------


def replayed(place: Path, source: str, *events: Any) -> list[Any]:
    from revithion_bridge.event_replay import EventReplay
    from revithion_stems.errors import RevithionError
    from revithion_stems.events import CancelToken, EventStream
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.requests import SeparationRequest

    found: list[Any] = []
    stream = EventStream("job-1", found.append)
    replay = EventReplay(SeparationRequest(source=Path(source)), OutputOptions(folder=Path("out")), stream)
    for event in events:
        with contextlib.suppress(RevithionError):
            replay.take(event, CancelToken())
    assert [event.seq for event in found] == list(range(len(found)))
    assert {event.job_id for event in found} == {"job-1"}
    return found[1:]  # without the first state


def test_paths_are_spelt_as_they_were_typed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    here = os.getcwd()  # noqa: PTH109 — as the program sees it
    song, folder = f"{here}{os.sep}song.wav", f"{here}{os.sep}out"
    longer = f"{song}{os.sep}drums.wav and {song}x and {song}.part"

    def said(code: str, message: str) -> str:
        (event,) = replayed(place, "song.wav", Notice(job_id="j", seq=7, code=code, message=message))
        return event.message

    assert said("input.short", f"{song} is short, {song}: {song}. '{song}'") == (
        "song.wav is short, song.wav: song.wav. 'song.wav'"
    )
    assert said("input.short", longer) == longer
    assert said("output.gain", f"{song} {folder}") == f"{song} {folder}"  # absolute in any case
    assert said("output.outside", f"leaves the output folder {folder}: it") == "leaves the output folder out: it"


def test_a_state_is_told_once_and_spans_never(place: Path) -> None:
    from revithion_stems.jobs import JobState

    order = ["loading", "separating", "queued", "loading", "separating", "writing", "done", "done"]
    states = [JobChanged(job_id="j", seq=0, state=JobState(name), source="/x") for name in order]
    span = StemReady(
        job_id="j", seq=0, stem="bass", path="/s", frames=1, sample_rate=1, sha256="", stream=0, final=False
    )
    progress = JobProgress(job_id="j", seq=0, done=1, total=2, elapsed_s=0.1, remaining_s=None)
    found = replayed(place, "a b.wav", *states[:2], span, progress, *states[2:])
    assert [getattr(event, "state", event).value for event in found if event is not found[2]] == [
        "loading", "separating", "writing", "done",
    ]  # fmt: skip
    assert isinstance(found[2], JobProgress)
    assert {event.source for event in found if isinstance(event, JobChanged)} == {"a b.wav"}
    assert not [event for event in found if isinstance(event, StemReady | JobSummary)]
