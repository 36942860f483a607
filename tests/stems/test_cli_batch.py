"""`revithion-stems batch` through the real command, in a process of its own."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import program
from program import lines, posix_only, run_on_terminal, start

STEMS = ("bass", "drums", "other", "vocals")
BATCH = {"REVITHION_BATCH_MODEL": "dsp"}


@pytest.fixture
def place(tmp_path):
    """A working folder with some songs, and an empty home beside it."""
    place = tmp_path / "work"
    (place / "music" / "rock").mkdir(parents=True)
    write(place / "music" / "a.wav")
    write(place / "music" / "rock" / "b.flac")
    return place


def run(place, *args, command: str = "batch", **extra) -> subprocess.CompletedProcess[str]:
    return program.run(place, command, *args, **BATCH, **extra)


def write(path: Path, frames: int = 5_000) -> Path:
    seed = int(hashlib.sha256(str(path).encode()).hexdigest()[:8], 16)
    samples = np.random.default_rng(seed).standard_normal((frames, 2)) * 0.05
    soundfile.write(path, samples, 44_100)
    return path


def stems(place: Path, folder: str) -> set[str]:
    """The folders below ``folder`` that hold a complete set."""
    root = place / folder
    found = {path.parent for path in root.rglob("drums.*")}
    assert all({path.stem for path in song.iterdir()} >= {*STEMS, "manifest"} for song in found)
    return {song.relative_to(root).as_posix() for song in found}


# --- the plain way ---


def test_a_folder_becomes_a_folder_of_the_same_shape_and_a_table(place):
    done = run(place, "music", "-o", "out", "-f", "flac")
    assert done.returncode == 0, done.stderr
    assert stems(place, "out") == {"a", "rock/b"}
    head, *rows, totals = done.stdout.splitlines()
    assert head.split() == ["file", "result", "model", "length", "time", "null", "error"]
    cells = [row.split() for row in rows]
    assert [row[0] for row in cells] == [str(Path("music/a.wav")), str(Path("music/rock/b.flac"))]
    assert all(row[1:4] == ["done", "dsp", "0:00"] and row[5:] == ["exact"] for row in cells)
    assert re.match(r"2 files: 2 done · 0:00 of audio in 0:0\d, [\d.]+ × real time$", totals)
    assert re.search(r"^1/2 done: .*a\.wav · 0:00 of audio in 0:0\d$", done.stderr, re.M)

    again = run(place, "music", "-o", "out", "-f", "flac", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_json_tells_of_every_file_and_sums_up(place):
    (place / "music" / "bad.wav").write_text("not audio")
    for outcomes, counts in (
        (["done", "failed", "done"], {"done": 2, "cached": 0, "failed": 1}),
        (["cached", "failed", "cached"], {"done": 0, "cached": 2, "failed": 1}),
    ):
        done = run(place, "music", "-o", "out", "--json")
        assert (done.returncode, done.stderr) == (3, "")
        *events, summary = lines(done.stdout)
        results = {e["source"]: e for e in events if e["type"] == "BatchResult"}
        names = [str(Path("music") / name) for name in ("a.wav", "bad.wav", "rock/b.flac")]
        assert [results[name]["outcome"] for name in names] == outcomes
        assert results[names[1]]["error"]["code"] == "input.not_audio"
        assert results[names[1]]["exit_code"] == 3
        assert results[names[2]]["folder"] == "rock"
        assert results[names[2]]["exact"]
        assert Path(results[names[2]]["manifest"]) == place.resolve() / "out/rock/b/manifest.json"
        assert summary["type"] == "BatchSummary"
        assert {**summary, **counts, "files": 3, "cancelled": 0, "exit_code": 3} == summary
        for job in {e["job_id"] for e in events if "job_id" in e}:
            own = [e["seq"] for e in events if e.get("job_id") == job]
            assert own == list(range(len(own)))


def test_one_bad_file_does_not_stop_the_others_and_the_first_failure_gives_the_status(place):
    (place / "music" / "0.wav").write_text("not audio")
    (place / "out" / "rock").mkdir(parents=True)
    (place / "out" / "rock" / "b").write_text("a file where a folder must go")
    done = run(place, "music", "-o", "out")
    assert done.returncode == 3
    assert stems(place, "out") == {"a"}
    assert done.stderr.count("Error: ") == 2
    assert re.search(r"0\.wav +failed +input\.not_audio: ", done.stdout)
    assert re.search(r"b\.flac +failed +output\.unwritable: ", done.stdout)
    assert done.stdout.splitlines()[-1].startswith("3 files: 1 done, 2 failed")


def test_what_stands_in_the_same_folder_already_is_not_separated_again(place):
    for _ in range(2):
        done = run(place, ".", "-o", "music")
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].startswith("2 files")
    assert stems(place, "music") == {"music/a", "music/rock/b"}


def test_lists_patterns_and_standard_input(place):
    (place / "list.txt").write_text("# songs\nmusic/a.wav\n\nmusic/gone.wav\n", encoding="utf-8")
    listed = run(place, "@list.txt", "-o", "list")
    assert listed.returncode == 3
    assert "gone.wav does not exist" in listed.stderr
    assert stems(place, "list") == {"a"}
    assert run(place, "music/**/*.flac", "-o", "pattern").returncode == 0
    assert stems(place, "pattern") == {"rock/b"}
    assert run(place, "@-", "-o", "input", stdin="music/rock/b.flac\n").returncode == 0
    assert stems(place, "input") == {"b"}


def test_force_refresh_and_archive_mix(place):
    def outcomes(*args: str) -> list[str]:
        done = run(place, "music", "-o", "out", "--json", *args)
        assert done.returncode == 0, done.stdout
        return [e["outcome"] for e in lines(done.stdout) if e["type"] == "BatchResult"]

    assert outcomes() == ["done", "done"]
    assert outcomes("--archive-mix") == ["cached", "cached"]
    assert (place / "out/rock/b/mix.flac").read_bytes() == (place / "music/rock/b.flac").read_bytes()
    assert outcomes("--force-refresh") == ["done", "done"]


def test_separate_has_these_options_too(place):
    def cached(*args: str) -> list[bool]:
        done = run(place, "music/a.wav", "-m", "dsp", "-o", "out", "--json", *args, command="separate")
        assert done.returncode == 0, done.stdout
        return [e["cached"] for e in lines(done.stdout) if e["type"] == "JobSummary"]

    assert [cached(), cached(), cached("--force-refresh", "--archive-mix")] == [[False], [True], [False]]
    assert (place / "out/a/mix.wav").read_bytes() == (place / "music/a.wav").read_bytes()


def test_a_long_table_shows_what_failed(place):
    from revithion_stems.batch_items import BatchItem, BatchResult, BatchSummary, Outcome
    from revithion_stems.cli import batch_display

    results = [
        BatchResult(item=BatchItem(source=f"{n}.wav"), outcome=Outcome.DONE, model="dsp")
        for n in range(batch_display.MAX_ROWS)
    ]
    error = {"code": "input.empty", "message": "[red]\x1b[31mempty", "hint": "None."}
    results.append(BatchResult(item=BatchItem(source="bad\n.wav"), outcome=Outcome.FAILED, error=error, exit_code=3))
    script = "import sys, pickle; from revithion_stems.cli.batch_display import print_results; " + (
        "print_results(*pickle.load(sys.stdin.buffer))"
    )
    import pickle

    data = pickle.dumps((results, BatchSummary.of(results, elapsed_s=1.0)))
    done = subprocess.run([sys.executable, "-c", script], input=data, stdout=subprocess.PIPE, check=True)
    text = done.stdout.decode()
    assert len(text.splitlines()) == 4
    assert r"bad\n.wav" in text
    assert r"input.empty: [red]\x1b[31mempty" in text
    assert "1001 files: 1000 done, 1 failed" in text


# --- refused before any work ---

REFUSED = [
    (["nothing"], 3, "batch.nothing"),
    (["music/*.ogg"], 3, "batch.nothing"),
    (["@no-list"], 3, "batch.list"),
    (["music", "music/a.wav", "copy/a.wav"], 2, "output.collision"),
    (["s3://bucket/song.wav"], 2, "request.engine"),
    (["music", "-o", "s3://bucket/out"], 2, "request.engine"),
    (["music", "--cpus-per-worker", "2"], 2, "request.engine"),
    (["music", "--overlap", "2"], 2, "request.overlap"),
    (["music", "--template", "../{stem}"], 2, "request.template"),
    (["music", "--engine", "none"], 2, "usage"),
    ([], 2, "usage"),
]


@pytest.mark.parametrize(
    ("args", "status", "code"), REFUSED, ids=[" ".join(args) or "nothing" for args, _, _ in REFUSED]
)
def test_what_is_wrong_with_the_request_is_said_before_any_work(place, args, status, code):
    (place / "copy").mkdir()
    write(place / "copy" / "a.wav")
    before = sorted(place.rglob("*"))
    done = run(place, *args, "--json")
    (error,) = lines(done.stdout)
    assert (done.returncode, error["type"], error["code"]) == (status, "Error", code)
    assert error["hint"]
    assert sorted(place.rglob("*")) == before


def test_a_cluster_needs_an_extra(place):
    (place.parent / "path").mkdir()
    (place.parent / "path" / "ray.py").write_text("raise ImportError('no ray')")
    done = run(place, "music", "--engine", "ray", "--json", PYTHONPATH=str(place.parent / "path"))
    error = lines(done.stdout)[-1]
    assert (done.returncode, error["code"]) == (6, "engine.missing")
    assert "revithion-stems[ray]" in error["hint"]


# --- dry run ---


def test_a_dry_run_lists_and_does_nothing(place):
    (place / "music" / "bad.wav").write_text("not audio")
    before = sorted(place.rglob("*"))
    done = run(place, "music", "-o", "out", "--dry-run")
    assert done.returncode == 3
    rock = place.resolve() / "out" / "rock" / "b"
    assert f"{Path('music/rock/b.flac')} → {rock} (0:00, dsp, about 0:0" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 files, 0:00 of audio: about 0:0")
    assert done.stderr.startswith("Error: ")
    plans = lines(run(place, "music", "-o", "out", "--dry-run", "--json").stdout)
    assert [plan["type"] for plan in plans] == ["SeparationPlan", "Error", "SeparationPlan"]
    assert plans[2]["outputs"]["drums"] == str(rock / "drums.wav")
    assert sorted(place.rglob("*")) == before


def test_a_dry_run_for_a_cluster_lists_only(place):
    pytest.importorskip("fsspec")
    url = (place / "music" / "rock").as_uri()
    args = ("music/a.wav", url, "-o", "memory://out", "--dry-run", "--engine", "ray")
    assert [(item["type"], item["source"]) for item in lines(run(place, *args, "--json").stdout)] == [
        ("BatchItem", "music/a.wav"),
        ("BatchItem", f"{url}/b.flac"),
    ]
    assert run(place, *args).stdout.splitlines()[1] == f"{url}/b.flac → memory://out/."


def test_every_format_can_be_asked_for():
    from revithion_stems.cli.batch import batch_command
    from revithion_stems.output_format import Container

    (option,) = [param for param in batch_command.params if param.name == "format"]
    assert set(option.type.choices) == {container.value for container in Container}


# --- stopping ---


@pytest.mark.parametrize("args", [(), ("--offline",)], ids=["variable", "option"])
def test_the_network_is_not_used_where_it_is_forbidden(place, args):
    extra = {} if not args else {"REVITHION_OFFLINE": ""}
    done = run(place, "music/a.wav", "-m", "htdemucs", "--json", *args, **extra)
    alone = run(place, "music/a.wav", "-m", "htdemucs", "--json", *args, command="separate", **extra)
    (result,) = [line for line in lines(done.stdout) if line["type"] == "BatchResult"]
    assert (done.returncode, alone.returncode) == (4, 4)
    assert result["error"]["code"] == lines(alone.stdout)[-1]["code"] == "model.offline"


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_all_files_and_leaves_nothing_unfinished(place, number):
    silence = np.zeros((44_100 * 60, 2), np.float32)
    with soundfile.SoundFile(place / "music" / "long.wav", "w", 44_100, 2, subtype="PCM_16") as file:
        for _ in range(8):
            file.write(silence)
    with start(place, "batch", "music", "-o", "out", "--segment", "2", "--json", **BATCH) as process:
        assert process.stdout is not None
        seen: list[dict] = []
        long_job = None
        for line in process.stdout:
            seen.append(json.loads(line))
            if str(seen[-1].get("source")).endswith("long.wav"):
                long_job = seen[-1].get("job_id")
            if seen[-1]["type"] == "JobProgress" and seen[-1]["job_id"] == long_job and seen[-1]["done"] == 2:
                break
        sent = time.monotonic()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
        took_s = time.monotonic() - sent
    seen += lines(rest)
    assert (process.returncode, errors) == (130, "")
    assert took_s < 5  # a segment of two seconds takes some tenths
    results = {Path(e["source"]).name: e["outcome"] for e in seen if e["type"] == "BatchResult"}
    assert results == {"a.wav": "done", "long.wav": "cancelled", "b.flac": "cancelled"}
    assert seen[-1]["type"] == "BatchSummary"
    assert (seen[-1]["cancelled"], seen[-1]["exit_code"]) == (2, 130)
    assert stems(place, "out") == {"a"}
    assert not [path for path in (place / "out").rglob("*") if path.name.startswith(".")]


def test_a_reader_that_goes_away_is_no_crash(place):
    for number in range(20):
        write(place / "music" / f"{number}.wav", 50_000)
    with start(place, "batch", "music", "-o", "out", "--json", **BATCH) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode not in (0, None)
    assert "Traceback" not in errors
    assert not list(place.rglob("*.part"))
    assert len(stems(place, "out")) < 20


@posix_only
def test_progress_on_a_terminal(place):
    for name in ("c", "d"):
        write(place / "music" / f"{name}.wav", 44_100 * 10)
    (place / "music" / "bad.wav").write_text("not audio")
    args = ("batch", "music", "-o", "out", "--segment", "2", "-m", "dsp")
    status, text = run_on_terminal(place, *args, columns=140)
    assert status == 3
    for pattern in (
        r"separating d\.wav",
        r"5 files: 1 done, 1 failed",
        r"[\d.]+ × real time · 0:\d\d left",
        r"Error: .*bad\.wav",
        r"bad\.wav +failed +input\.not_audio",
    ):
        assert re.search(pattern, text), pattern
    assert text.rstrip().splitlines()[-1].startswith("5 files: 4 done, 1 failed")


def test_settings_have_a_table_of_their_own(place):
    settings = place.parent / "home" / "config.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('[batch]\nmodel = "dsp"\nformat = "flac"\noutput = "from_file"\n')
    assert run(place, "music").returncode == 0
    assert {path.suffix for path in (place / "from_file" / "a").iterdir()} == {".flac", ".json"}
