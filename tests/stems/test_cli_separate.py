"""`revithion-stems separate` and `plan` through the real command, in a process of their own."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from program import environment, lines, posix_only, run, run_on_terminal, start
from revithion_stems.cli.main import COMMANDS
from revithion_stems.jobs import TRANSITIONS, JobState

STEMS = ("drums", "bass", "other", "vocals")


@pytest.fixture
def place(tmp_path):
    """An empty working folder with an empty home beside it."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def write(path, frames=20_000, channels=2, rate=44100, **options) -> Path:
    samples = np.random.default_rng(0).standard_normal((frames, channels)) * 0.05
    soundfile.write(os.fspath(path), samples, rate, **options)
    return path


def files(place: Path) -> set[str]:
    """All files but manifests, which stand beside every set of stems."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file() and path.suffix != ".json"}


def digests(place: Path) -> dict[str, str]:
    return {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in files(place)}


# --- the plain way ---


def test_a_song_becomes_four_files_that_sum_to_it_twice_the_same(place):
    write(place / "song.wav", subtype="PCM_16")
    done = run(place, "separate", "song.wav", "-m", "dsp")
    assert (done.returncode, done.stderr) == (0, "")
    assert files(place) == {"song.wav", *(f"song/{stem}.wav" for stem in STEMS)}
    for stem in STEMS:
        assert f"  song/{stem}.wav\n" in done.stdout
    assert "sum equals the source exactly" in done.stdout
    assert "weights: " in done.stdout
    parts = [soundfile.read(place / "song" / f"{stem}.wav", dtype="float32")[0] for stem in STEMS]
    assert np.array_equal(sum(parts), soundfile.read(place / "song.wav", dtype="float32")[0])

    before = digests(place)
    again = run(place, "separate", "song.wav", "-m", "dsp", "-q")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert digests(place) == before


def test_json_is_one_event_per_line_in_order(place):
    write(place / "a.wav")
    write(place / "b.wav", channels=1)
    (place / "bad.wav").write_text("not audio")
    done = run(place, "separate", "a.wav", "bad.wav", "b.wav", "-m", "dsp", "-f", "flac", "--json")
    events = lines(done.stdout)
    assert (done.returncode, done.stderr) == (3, "")
    jobs: dict[str, list[dict]] = {}
    for event in events:
        if event["type"] != "Error":
            jobs.setdefault(event["job_id"], []).append(event)
    assert len(jobs) == 3
    for job in jobs.values():
        assert [event["seq"] for event in job] == list(range(len(job)))
        states = [JobState(event["state"]) for event in job if event["type"] == "JobChanged"]
        assert states[0] is JobState.QUEUED
        assert states[-1].is_final
        assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(states))
    finals = [job[-1]["state"] for job in jobs.values()]
    assert finals == ["done", "failed", "done"]
    (error,) = [event for event in events if event["type"] == "Error"]
    assert error["code"] == "input.not_audio"
    assert error["hint"]
    ready = [event for event in events if event["type"] == "StemReady"]
    assert {Path(event["path"]) for event in ready} == {
        place / track / f"{stem}.flac" for track in "ab" for stem in STEMS
    }
    for event in ready:
        assert event["sha256"] == hashlib.sha256(Path(event["path"]).read_bytes()).hexdigest()
    summary = [event for event in events if event["type"] == "JobSummary"]
    assert [event["null_db"] for event in summary] == [None, None]  # −inf: there is no such number in JSON


def test_one_bad_file_does_not_stop_the_others(place):
    for name in ("a.wav", "c.wav"):
        write(place / name, 2000)
    done = run(place, "separate", "a.wav", "missing.wav", "c.wav", "-m", "dsp", "--stems", "drums,vocals")
    assert done.returncode == 3
    assert done.stderr == "Error: missing.wav does not exist\n  → Check the spelling and the folder.\n"
    assert files(place) == {"a.wav", "c.wav", "a/drums.wav", "a/vocals.wav", "c/drums.wav", "c/vocals.wav"}


OPTIONS = [
    (["--two-stems", "vocals", "-f", "flac"], {"song/vocals.flac", "song/no_vocals.flac"}),
    (["--two-stems", "vocals", "--other-method", "none"], {"song/vocals.wav"}),
    (["--stems", "drums", "-f", "mp3"], {"song/drums.mp3"}),
    (["--stems", "drums", "-f", "ogg", "-o", "out/deep"], {"out/deep/song/drums.ogg"}),
    (["--stems", "drums", "--template", "{stem}/{track}-{model}.{ext}"], {"drums/song-dsp.wav"}),
    (["--stems", "drums", "--residual", "stem", "-b", "24"], {"song/drums.wav", "song/residual.wav"}),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=[" ".join(o) for o, _ in OPTIONS])
def test_options(place, options, expected):
    write(place / "song.wav", 5000)
    done = run(place, "separate", "song.wav", "-m", "dsp", *options)
    assert done.returncode == 0, done.stderr
    assert files(place) == {"song.wav", *expected}


BAD = [
    (["no.wav"], 3, "input.missing"),
    (["song.wav", "--stems", "piano"], 2, "request.stems"),
    (["song.wav", "--overlap", "1.5"], 2, "request.overlap"),
    (["song.wav", "--template", "../{stem}"], 2, "request.template"),
    (["song.wav", "--template", "{nothing}"], 2, "request.template"),
    (["song.wav", "--template", "x.{ext}"], 5, "output.collision"),
    (["song.wav", "-o", "song.wav"], 5, "output.unwritable"),
    (["song.wav", "-f", "mp3", "-b", "16"], 2, "request.bit_depth"),
    (["song.wav", "-m", "none-such"], 4, None),
    (["song.wav", "-m", "htdemucs", "--offline"], 4, None),
    (["song.wav", "--format", "midi"], 2, "usage"),
    (["song.wav", "--no-such-option"], 2, "usage"),
    ([], 2, "usage"),
    (["song.wav", "--engine", "onnx"], 2, "request.engine"),
]


@pytest.mark.parametrize(("args", "status", "code"), BAD, ids=[" ".join(args) or "nothing" for args, _, _ in BAD])
def test_exit_status_and_code_of_errors(place, args, status, code):
    write(place / "song.wav", 500)
    model = [] if "-m" in args or not args else ["-m", "dsp"]
    done = run(place, "separate", *args, *model, "--json")
    assert done.returncode == status, done
    (error,) = [event for event in lines(done.stdout) if event["type"] == "Error"]
    assert error["code"] == code if code else error["code"].startswith("model.")
    assert error["message"]
    assert error["hint"]
    assert files(place) == {"song.wav"}


def test_two_sources_with_one_name_are_refused_before_any_work(place):
    for folder in ("x", "y"):
        (place / folder).mkdir()
        write(place / folder / "song.wav", 500)
    write(place / "song.flac", 500)
    for second in ("y/song.wav", "song.flac"):
        done = run(place, "separate", "x/song.wav", second, "-m", "dsp")
        assert done.returncode == 2
        assert "same stems' files" in done.stderr
        assert "{source_ext}" in done.stderr
    done = run(
        place, "separate", "x/song.wav", "song.flac", "-m", "dsp", "--stems", "bass",
        "--template", "{track}-{source_ext}/{stem}.{ext}",
    )  # fmt: skip
    assert done.returncode == 0
    assert {"song-wav/bass.wav", "song-flac/bass.wav"} <= files(place)


def test_a_stem_never_overwrites_another_source(place):
    (place / "song").mkdir()
    write(place / "song.wav", 500)
    write(place / "song" / "drums.wav", 700)
    before = digests(place)
    done = run(place, "separate", "song.wav", "song/drums.wav", "-m", "dsp", "-q")
    assert done.returncode == 5
    assert "over a source" in done.stderr
    after = digests(place)
    assert {name: after[name] for name in before} == before


# --- names ---


@posix_only
def test_hostile_names_work_and_do_not_drive_the_terminal(place):
    names = ["-rf.wav", "--help", "line\nbreak.wav", "\x1b[31mred.wav", "$(touch x).wav", "é" * 125 + ".wav"]
    if sys.platform.startswith("linux"):
        names.append(os.fsdecode(b"latin-\xe9.wav"))  # no UTF-8: text with a surrogate in it
    for name in names:
        write(place.parent / "a.wav", 500).rename(place / name)
    done = run(place, "separate", "-m", "dsp", "--stems", "bass", "--", *names)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert r"line\nbreak.wav" in done.stdout
    made = {name for name in files(place) if name.endswith("/bass.wav")}
    assert {"rf/bass.wav", "help/bass.wav", "line_break/bass.wav", "_[31mred/bass.wav"} <= made
    assert len(made) == len(names)
    as_json = run(place, "separate", "-m", "dsp", "--stems", "bass", "--json", "--", *names)
    assert as_json.returncode == 0
    sources = [event["source"] for event in lines(as_json.stdout) if event.get("state") == "done"]
    assert sources == names


@posix_only
def test_an_output_folder_that_is_not_utf_8(place):
    if not sys.platform.startswith("linux"):
        pytest.skip("names are UTF-8 there")
    write(place / "song.wav", 500)
    folder = os.fsdecode(b"out-\xe9")
    for kind in ("wav", "flac", "mp3", "ogg"):
        assert run(place, "separate", "song.wav", "-m", "dsp", "-o", folder, "-f", kind).returncode == 0
        assert (place / folder / "song" / f"drums.{kind}").is_file()


def test_a_terminal_that_lacks_characters_is_no_crash(place):
    write(place / "Größe 🎵.wav", 500)
    for encoding in ("ascii", "cp1252"):
        text = run(place, "separate", "Größe 🎵.wav", "-m", "dsp", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert (text.returncode, text.stderr) == (0, "")
        as_json = run(place, "plan", "Größe 🎵.wav", "-m", "dsp", "--json", PYTHONIOENCODING=encoding)
        assert lines(as_json.stdout)[0]["source"] == "Größe 🎵.wav"


# --- plan ---


def test_plan_says_what_would_be_done_and_does_nothing(place):
    write(place / "song.wav", 44100 * 2)
    text = run(place, "plan", "song.wav", "-m", "dsp")
    assert (text.returncode, text.stderr) == (0, "")
    for word in ("source", "0:02, 44100 Hz, 2 channels", "dsp", "memory", "disk", str(place / "song" / "vocals.wav")):
        assert word in text.stdout
    assert run(place, "separate", "song.wav", "-m", "dsp", "--dry-run").stdout.splitlines()[0] == "song.wav"
    for args in (["plan"], ["separate", "--dry-run"]):
        done = run(place, *args, "song.wav", "no.wav", "-m", "dsp", "--json")
        plan, error = lines(done.stdout)
        assert done.returncode == 3
        assert error["code"] == "input.missing"
        assert plan["type"] == "SeparationPlan"
        assert (plan["model"], plan["channels"]) == ("dsp", 2)
        assert plan["runs"] == 1
        assert plan["memory_bytes"] > 0
        assert plan["disk_free_bytes"] > 0
        assert plan["download_bytes"] == 0
    assert files(place) == {"song.wav"}


def test_auto_says_which_model_and_why(place):
    write(place / "song.wav", 500)
    done = run(place, "separate", "song.wav")
    assert done.returncode == 0
    assert re.search(r"model preview: .*htdemucs_ft is not here and the network is off", done.stderr)
    assert len(done.stderr.splitlines()) == 1


# --- settings ---


def test_settings_file_environment_and_flags_in_rising_order(place):
    write(place / "song.wav", 500)
    settings = place.parent / "home" / "config.toml"
    settings.parent.mkdir()
    settings.write_text('[separate]\nmodel = "dsp"\nformat = "flac"\ntwo-stems = "bass"\noutput = "from_file"\n')
    assert run(place, "separate", "song.wav").returncode == 0
    assert files(place) == {"song.wav", "from_file/song/bass.flac", "from_file/song/no_bass.flac"}
    done = run(place, "separate", "song.wav", "-f", "wav", REVITHION_SEPARATE_OUTPUT="from_env")
    assert done.returncode == 0
    assert "from_env/song/bass.wav" in files(place)


@pytest.mark.parametrize("text", ["[separate\n", "model = 1\n", '[separate]\nmodle = "dsp"\n', "\udcff"])
def test_broken_settings_are_named_and_do_not_stop_the_doctor(place, text):
    write(place / "song.wav", 500)
    settings = place.parent / "home" / "config.toml"
    settings.parent.mkdir()
    settings.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = run(place, "separate", "song.wav", "-m", "dsp", "--json")
    (error,) = lines(done.stdout)
    assert (done.returncode, error["code"]) == (2, "config.invalid")
    assert str(settings) in error["message"]
    assert run(place, "completion", "bash").returncode == 0
    doctor = run(place, "doctor", "--json")
    assert lines(doctor.stdout)[0]["type"] == "Diagnosis"


# --- stopping ---


def long_song(place: Path) -> Path:
    """Some minutes that take far longer to separate than the test waits."""
    silence = np.zeros((44100 * 60, 2), np.float32)
    with soundfile.SoundFile(place / "long.wav", "w", 44100, 2, subtype="PCM_16") as file:
        for _ in range(8):
            file.write(silence)
    return place / "long.wav"


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_stops_within_a_segment_and_leaves_nothing(place, number):
    long_song(place)
    write(place / "next.wav", 500)
    with start(
        place, "separate", "long.wav", "next.wav", "-m", "dsp", "-o", "new/folder", "--segment", "2", "--json"
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1]["type"] == "JobProgress" and seen[-1]["done"] == 2:
                assert list((place / "new" / "folder" / "long").glob(".*.part"))
                break
        sent = time.monotonic()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
        took_s = time.monotonic() - sent
    seen += lines(rest)
    assert process.returncode == 130, errors
    assert errors == ""
    assert [event["state"] for event in seen if event["type"] == "JobChanged"][-1] == "cancelled"
    assert seen[-1]["code"] == "job.cancelled"
    assert took_s < 5  # a segment of two seconds takes some tenths
    assert sorted(path.name for path in place.iterdir()) == ["long.wav", "next.wav"]


@posix_only
def test_progress_on_a_terminal(place):
    write(place / "a.wav", 44100 * 20)
    write(place / "b.wav", 44100 * 20 + 1)  # not the same song, which the cache would have
    args = ("separate", "a.wav", "b.wav", "-m", "dsp", "--segment", "2")
    status, text = run_on_terminal(place, *args, columns=100)
    assert status == 0
    assert "all files" in text
    assert re.search(r"separating a\.wav", text)
    assert re.search(r"separating b\.wav", text)
    assert re.search(r"[1-9][0-9] %", text)
    assert re.search(r"0:\d\d left", text)
    assert text.rstrip().splitlines()[-1].strip().startswith("weights:")
    assert "vocals.wav" in text


def test_a_reader_that_goes_away_is_no_crash(place):
    write(place / "song.wav", 44100 * 5)
    with start(place, "separate", "song.wav", "-m", "dsp", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode not in (0, None)
    assert "Traceback" not in errors
    assert not [name for name in files(place) if name.endswith(".part")]


# --- help ---

HEAVY = ("torch", "onnxruntime", "numpy", "scipy", "rich", "soundfile", "soxr", "httpx", "demucs")
HELP = """
import sys
from revithion_stems.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    print("status", end.code)
print("loaded", [name for name in {heavy!r} if name in sys.modules])
"""


def help_of(place, *args) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(heavy=HEAVY), *args, "--help"],
        env=environment(place),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    assert "status 0" in done.stdout
    assert "loaded []" in done.stdout
    return done.stdout


@pytest.mark.parametrize("args", [(), *((name,) for name in COMMANDS)], ids=lambda args: " ".join(args) or "root")
def test_help_has_examples_and_loads_nothing_heavy(place, args):
    assert "Example" in help_of(place, *args)


def test_help_of_the_models_commands(place):
    for name in ("list", "info", "pull", "verify", "import", "remove"):
        assert "Example" in help_of(place, "models", name)


def test_help_tells_of_every_option(place):
    for name in ("separate", "plan"):
        text = help_of(place, name)
        for option in ("--offline", "--two-stems", "--template", "--overlap", "--json", "--residual", "--seed"):
            assert option in text


def test_the_command_is_installed():
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="revithion-stems")
    assert entry.value == "revithion_stems.cli.main:main"
    assert callable(entry.load())
