"""`serve`, `submit`, `watch`, `jobs`, `cancel` and `status` through the real command and a real daemon."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from prometheus_client.parser import text_string_to_metric_families

from program import environment, lines, posix_only, run, run_on_terminal, start
from revithion_stems.events import event_from_dict

STATES = {"queued", "loading", "separating", "writing", "done", "failed", "cancelled"}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with an empty home beside it."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    samples = np.random.default_rng(seed).standard_normal((round(44_100 * seconds), 2)) * 0.05
    soundfile.write(path, samples, 44_100)
    return path


def pid_of(place: Path) -> int:
    return json.loads((place.parent / "home" / "state" / "daemon" / "connection.json").read_bytes())["pid"]


@contextlib.contextmanager
def ended_at_last(place: Path) -> Iterator[None]:
    """Whoever starts a daemon inside, it is gone afterwards, and so are its workers."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            process = psutil.Process(pid_of(place))
            family = [process, *process.children(recursive=True)]
            run(place, "serve", "--stop")
            for left in psutil.wait_procs(family, timeout=10)[1]:
                left.kill()


def submit(place: Path, *args: str) -> str:
    done = run(place, "submit", *args, "-m", "dsp")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def show(place: Path, job_id: str) -> dict[str, Any]:
    (job,) = lines(run(place, "jobs", "show", job_id, "--json").stdout)
    return job


def until(place: Path, job_id: str, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while (job := show(place, job_id))["state"] not in states:
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return job


def test_without_a_daemon_commands_say_so(place: Path) -> None:
    for args in (
        ["status"], ["jobs"], ["jobs", "show", "x"], ["jobs", "pause"], ["watch"], ["cancel", "--all"],
        ["serve", "--stop"], ["serve", "--show-osc"],
    ):  # fmt: skip
        done = run(place, *args, "--json")
        (error,) = lines(done.stdout)
        assert (done.returncode, error["code"]) == (7, "daemon.unreachable"), args
        assert "serve" in error["hint"]
    assert not (place.parent / "home" / "state" / "daemon" / "connection.json").exists()


def test_from_submission_to_the_end(place: Path) -> None:
    write(place / "song.wav", 3)
    write(place / "b.wav", 1, seed=1)
    with ended_at_last(place):
        job_id = submit(place, "song.wav", "-o", "stems")  # which starts the daemon
        assert re.fullmatch(r"job-[0-9a-f]{16}", job_id)
        done = run(place, "watch", job_id[4:10])
        assert (done.returncode, done.stderr) == (0, "")
        assert "  stems/song/vocals.wav\n" in done.stdout.replace("\\", "/")
        assert "sum equals the source exactly" in done.stdout
        assert (place / "stems" / "song" / "vocals.wav").is_file()

        # from elsewhere, with a failure among them: paths are those of the folder where it was typed
        (place / "text.wav").write_text("no song")
        done = run(place, "submit", "b.wav", "text.wav", "-m", "dsp", "--wait", "--json")
        assert done.returncode == 3
        told = lines(done.stdout)
        asked = [line for line in told if line["type"] == "Job"]
        assert [job["parameters"]["source"] for job in asked] == [str(place / "b.wav"), str(place / "text.wav")]
        assert told[-1]["code"] == "input.not_audio"
        for line in told:
            if line["type"] not in ("Job", "Error"):
                event_from_dict(line)

        listed = lines(run(place, "jobs", "--json").stdout)
        assert [job["state"] for job in listed] == ["failed", "done", "done"]
        assert [job["id"] for job in listed][2] == job_id
        assert len(lines(run(place, "jobs", "--json", "--limit", "1").stdout)) == 1
        assert [j["state"] for j in lines(run(place, "jobs", "--state", "failed", "--json").stdout)] == ["failed"]
        table = run(place, "jobs").stdout.splitlines()
        assert table[0].split() == ["id", "state", "priority", "done", "age", "source", "error"]
        assert len(table) == 4
        assert "input.not_audio" in table[1]

        history = show(place, job_id)["history"]
        assert [change["state"] for change in history] == ["queued", "loading", "separating", "writing", "done"]
        text = run(place, "jobs", "show", job_id).stdout
        assert str(place / "stems" / "song" / "drums.wav") in text
        assert len(re.findall(r"^history ", text, re.M)) == 5

        retried = run(place, "jobs", "retry", listed[0]["id"]).stdout.strip()
        assert run(place, "watch", retried).returncode == 3
        assert show(place, retried)["retry_of"] == listed[0]["id"]
        done = run(place, "jobs", "retry", job_id, "--json")
        assert (done.returncode, lines(done.stdout)[0]["code"]) == (2, "job.transition")

        assert run(place, "jobs", "delete", retried).stdout == "1 job forgotten\n"
        assert run(place, "jobs", "clear", "--older-than", "1").stdout == "0 jobs forgotten\n"
        assert run(place, "jobs", "clear").stdout == "3 jobs forgotten\n"
        assert run(place, "jobs").stdout == ""
        assert (place / "stems" / "song" / "vocals.wav").is_file()


def test_the_queue_is_ranked_paused_and_emptied(place: Path) -> None:
    write(place / "a.wav", 2)
    write(place / "b.wav", 2, seed=1)
    with ended_at_last(place):
        first = submit(place, "a.wav", "--priority", "batch", "--key", "k")
        until(place, first, "done")
        assert run(place, "jobs", "pause").stdout == "the queue is paused\n"
        assert submit(place, "a.wav", "--priority", "batch", "--key", "k") == first
        waiting = submit(place, "a.wav", "b.wav").splitlines()
        assert len(waiting) == 2
        done = run(place, "jobs", "priority", waiting[1], "interactive")
        assert done.stdout == f"{waiting[1]}  interactive, queued\n"
        done = run(place, "submit", "a.wav", "b.wav", "--key", "k")
        assert (done.returncode, "for one source" in done.stderr) == (2, True)
        done = run(place, "submit", "b.wav", "-m", "dsp", "--key", "k", "--json")
        assert (done.returncode, lines(done.stdout)[0]["code"]) == (2, "job.key_reused")

        assert run(place, "cancel", waiting[0]).stdout == f"{waiting[0]}  cancelled\n"
        assert run(place, "cancel", waiting[0], first).stdout == f"{waiting[0]}  cancelled\n{first}  done\n"
        assert run(place, "cancel", "--all").stdout == f"{waiting[1]}  cancelled\n"
        assert run(place, "cancel").returncode == run(place, "cancel", "--all", "x").returncode == 2
        assert run(place, "watch", waiting[0]).returncode == 130
        assert run(place, "jobs", "resume", "--json").stdout == '{"type": "Queue", "paused": false}\n'


def test_ids_that_are_none_or_several(place: Path) -> None:
    write(place / "a.wav", 1)
    with ended_at_last(place):
        ids = [submit(place, "a.wav", "-o", f"out{n}") for n in range(3)]
        for bad in ("zzz", "job-", "", "job", "a b", "../x"):
            done = run(place, "jobs", "show", "--json", "--", bad)
            (error,) = lines(done.stdout)
            assert (done.returncode, error["code"]) == (2, "job.unknown"), bad
        assert "3 jobs begin with 'job-'" in run(place, "jobs", "show", "job-").stderr
        # the shell's completion asks the daemon; it needs the program under its own name
        program = shutil.which("revithion-stems", path=Path(sys.executable).parent)
        assert program is not None
        for typed, expected in (("job-", set(ids)), (ids[0][:12], {i for i in ids if i.startswith(ids[0][:12])})):
            asked = {"_REVITHION_STEMS_COMPLETE": "bash_complete", "COMP_WORDS": f"revithion-stems watch {typed}"}
            done = subprocess.run(
                [program], env=environment(place, COMP_CWORD="2", **asked), capture_output=True, text=True, check=False
            )
            assert {line.partition(",")[2] for line in done.stdout.split()} == expected


def test_status_for_people_scripts_and_prometheus(place: Path) -> None:
    write(place / "a.wav", 2)
    with ended_at_last(place):
        until(place, submit(place, "a.wav"), "done")
        text = run(place, "status").stdout
        for label in ("daemon", "queue", "jobs", "worker", "memory", "audio", "counted", "requests", "first run"):
            assert re.search(rf"^{label} ", text, re.M), label
        (status,) = lines(run(place, "status", "--json").stdout)
        assert (status["type"], status["jobs"]["done"], status["pid"]) == ("Status", 1, pid_of(place))
        exposed = run(place, "status", "--prometheus").stdout
        families = {family.name: family for family in text_string_to_metric_families(exposed)}
        assert {f"revithion_jobs{s}": 1.0 for s in ("",)} == {
            sample.name: sample.value
            for sample in families["revithion_jobs"].samples
            if sample.labels["state"] == "done"
        }
        assert families["revithion_audio_seconds"].type == "counter"
        assert families["revithion_request_seconds"].type == "summary"
        assert {s.labels.get("quantile") for s in families["revithion_request_seconds"].samples} == {
            None, "0.5", "0.9", "0.99",
        }  # fmt: skip
        assert families["revithion_worker_up"].samples[0].value == 1.0
        assert run(place, "status", "--json", "--prometheus").returncode == 2


# --- watching ---


@posix_only
def test_leaving_the_watch_leaves_the_job(place: Path) -> None:
    write(place / "song.wav", 60)
    with ended_at_last(place):
        job_id = submit(place, "song.wav", "--segment", "1")
        with start(place, "watch", job_id, "--json") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["type"] == "JobProgress":
                    break
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert errors == (
            f"the job goes on: `revithion-stems watch {job_id}` follows it again, "
            f"`revithion-stems cancel {job_id}` stops it\n"
        )
        assert show(place, job_id)["state"] in ("loading", "separating")
        assert "stops after the segment" in run(place, "cancel", job_id).stdout
        assert run(place, "watch", job_id).returncode == 130
        assert until(place, job_id, "cancelled")["error"]["code"] == "job.cancelled"


@posix_only
def test_all_jobs_are_watched_until_ctrl_c(place: Path) -> None:
    write(place / "song.wav", 2)
    with ended_at_last(place):
        until(place, submit(place, "song.wav", "-o", "first"), "done")
        watching = [start(place, "watch", *options) for options in ((), ("--json",))]
        time.sleep(1.5)
        job_id = submit(place, "song.wav", "-o", "second", "--force-refresh")
        until(place, job_id, "done")
        run(place, "jobs", "pause")
        time.sleep(0.5)
        told = []
        for process in watching:
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (0, "")
            told.append(output)
    words = [line.split() for line in told[0].splitlines() if line.startswith(job_id)]
    assert [word[1] for word in words if word[1] in STATES] == ["queued", "loading", "separating", "writing", "done"]
    assert "the queue is paused" in told[0]
    events = [line for line in lines(told[1]) if line.get("job_id") == job_id]
    assert {"JobChanged", "JobProgress", "StemReady", "JobSummary"} == {event["type"] for event in events}
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert {"type": "QueueChanged", "paused": True, "stopping": False} in [
        {key: value for key, value in line.items() if key != "seq"} for line in lines(told[1])
    ]


@posix_only
def test_a_bar_on_a_terminal(place: Path) -> None:
    write(place / "song.wav", 20)
    with ended_at_last(place):
        job_id = submit(place, "song.wav", "--segment", "1")
        status, text = run_on_terminal(place, "watch", job_id, columns=100)
        assert status == 0
        assert re.search(r"separating song\.wav", text)
        assert re.search(r"[1-9][0-9] %", text)


# --- serve ---


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_serving_until_a_signal(place: Path, number: signal.Signals) -> None:
    write(place / "song.wav", 60)
    with start(place, "serve") as process, ended_at_last(place):
        assert process.stdout is not None
        assert str(process.pid) in process.stdout.readline()
        rest = [process.stdout.readline() for _ in range(3)]
        assert "--show-osc" in rest[0]
        assert "--stop" in rest[2]
        second = run(place, "serve", "--json")
        assert (second.returncode, lines(second.stdout)[0]["code"]) == (7, "daemon.running")
        job_id = submit(place, "song.wav", "--segment", "1")
        until(place, job_id, "separating")
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
        assert "go on at the next start" in output
    with start(place, "serve", "--json") as again, ended_at_last(place):
        assert again.stdout is not None
        assert json.loads(again.stdout.readline())["type"] == "Serving"
        assert run(place, "watch", job_id).returncode == 0  # it went on by itself
        assert show(place, job_id)["summary"]["resumed_runs"] > 0


def test_stop_osc_and_options(place: Path) -> None:
    with start(place, "serve", "--json", "--root", place, "--osc-port", "0", "--idle-unload", "5") as process:
        with ended_at_last(place):
            assert process.stdout is not None
            serving = json.loads(process.stdout.readline())
            (osc,) = lines(run(place, "serve", "--show-osc", "--json").stdout)
            assert osc["type"] == "Osc"
            assert osc["osc_udp_port"] == serving["osc_udp_port"] > 0
            assert re.fullmatch(r"[0-9a-f]{32}", osc["token"])
            assert osc["token"] in run(place, "serve", "--show-osc").stdout
            assert "token" not in serving
            (status,) = lines(run(place, "status", "--json").stdout)
            assert status["roots"] == [str(place)]
            outside = write(place.parent / "outside.wav", 1)
            done = run(place, "submit", str(outside), "-m", "dsp", "--json")
            assert (done.returncode, lines(done.stdout)[0]["code"]) == (2, "path.outside")
            assert run(place, "serve", "--stop").returncode == 0
        assert process.wait(20) == 0
    with start(place, "serve", "--json", "--osc-port", "off") as process, ended_at_last(place):
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["osc_udp_port"] is None
        assert run(place, "serve", "--show-osc").stdout == "the daemon runs without OSC\n"
    for args in (["--osc-port", "70000"], ["--osc-port", "x"], ["--stop", "--install"], ["--idle-unload", "-1"]):
        assert run(place, "serve", *args).returncode == 2, args


# --- what it costs ---

LOADED = """
import sys
from revithion_stems.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
heavy = ("zmq", "prometheus_client", "numpy", "asyncio", "revithion_bridge.client")
print("loaded", [name for name in heavy if name in sys.modules])
"""


def test_help_loads_no_sockets_and_has_examples(place: Path) -> None:
    commands = ["serve", "submit", "watch", "jobs", "cancel", "status"]
    subs = [("jobs", name) for name in ("show", "retry", "delete", "clear", "priority", "pause", "resume")]
    for words in [*((name,) for name in commands), *subs]:
        done = subprocess.run(
            [sys.executable, "-c", LOADED, *words, "--help"],
            env=environment(place), capture_output=True, encoding="utf-8", check=True, timeout=60,
        )  # fmt: skip
        assert "loaded []" in done.stdout, words
        assert "Example" in done.stdout, words
