"""kill -9 at any moment, run again: the same bytes, nothing computed twice, nothing half-written ever to be seen."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.engines import dsp
from revithion_stems.errors import Cancelled
from revithion_stems.events import CancelToken, JobProgress, Notice
from revithion_stems.store import ContentStore

RATE = 44_100
PROGRAM = [sys.executable, "-c", "from revithion_stems.cli.main import main; main()"]


def write_song(path: Path, seconds: float, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE)) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 220 * time_s) * (1 + np.sin(2 * np.pi * 0.5 * time_s))
    soundfile.write(path, np.stack([tone, tone * 0.8], axis=1) + rng.normal(0, 0.05, (len(tone), 2)), RATE, "PCM_16")
    return path


def command(song: Path, out: Path, *options: str) -> list[str]:
    return [*PROGRAM, "separate", str(song), "-o", str(out), *options]


def start(arguments: list[str], cache: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "REVITHION_CACHE_DIR": str(cache), "REVITHION_STATE_DIR": str(cache / "state")}
    return subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def summary_of(arguments: list[str], cache: Path) -> dict[str, object]:
    process = start([*arguments, "--json"], cache)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return next(event for event in map(json.loads, out.splitlines()) if event["type"] == "JobSummary")


def digests(folder: Path) -> dict[str, str]:
    """Of all files with a final name, but the manifest, which holds the time of day."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith("manifest.json")
    }


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [15, pytest.param(30, marks=pytest.mark.long)])
def test_kills_at_random_moments(tmp_path, kills: int):
    song = write_song(tmp_path / "song.wav", 40.0)
    rng = random.Random(7)
    wanted, took_s = {}, {}
    formats = ("wav", "flac", "stem.mp4")
    for name in formats:
        began = time.monotonic()
        arguments = command(song, tmp_path / f"whole-{name}", "-m", "dsp", "-f", name)
        summary_of(arguments, tmp_path / f"cache-{name}")
        took_s[name] = time.monotonic() - began
        wanted[name] = digests(tmp_path / f"whole-{name}")
        assert wanted[name]
    killed = resumed = rounds = 0
    while killed < kills:
        name = formats[rounds % len(formats)]
        rounds += 1
        out, cache = tmp_path / f"out{rounds}", tmp_path / f"cache{rounds}"
        arguments = command(song, out, "-m", "dsp", "-f", name)
        for _ in range(6):
            process = start(arguments, cache)
            try:
                process.wait(rng.uniform(0.05, took_s[name]))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            process.communicate()
            for path, digest in digests(out).items() if out.exists() else ():
                assert digest == wanted[name][path], f"{path} was visible before it was complete"
        summary = summary_of(arguments, cache)
        resumed += summary["resumed_runs"] > 0
        assert digests(out) == wanted[name]
        assert hidden(out) == []
        assert ContentStore(cache).usage().unfinished == 0
    assert resumed >= 1


@pytest.mark.weights
def test_no_network_run_is_done_twice(tmp_path, spleeter_store):
    """Killed when a run has begun, the job goes on with that run: all that were finished are recalled."""
    song = write_song(tmp_path / "song.wav", 30.0)
    options = ("-m", "spleeter_2stems", "--segment", "2", "-f", "flac")
    whole = summary_of(command(song, tmp_path / "whole", *options), tmp_path / "cache-whole")
    assert whole["resumed_runs"] == 0
    arguments = command(song, tmp_path / "out", *options)
    cache = tmp_path / "cache"
    done = 0
    for stop_at in (3, 9):
        process = start([*arguments, "--json"], cache)
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["type"] == "JobProgress" and event["done"] >= stop_at:
                done = event["done"]
                break
        process.kill()
        process.communicate()
        assert done >= stop_at
        assert not digests(tmp_path / "out")
    summary = summary_of(arguments, cache)
    assert summary["resumed_runs"] >= done
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


# --- in one process ---


class Counting:
    """Counts the runs of the DSP separator."""

    def __init__(self, monkeypatch):
        self.runs = 0
        plain = dsp.DspSeparator.separate_segment

        def counted(separator, mix):
            self.runs += 1
            return plain(separator, mix)

        monkeypatch.setattr(dsp.DspSeparator, "separate_segment", counted)


def cancel_at(done):
    cancel = CancelToken()

    def on_event(event):
        if isinstance(event, JobProgress) and event.done >= done:
            cancel.cancel()

    return {"cancel": cancel, "on_event": on_event}


@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("shifts", [0, 2])
def test_what_was_cancelled_goes_on(tmp_path, monkeypatch, rate, shifts):
    """Also through both resamplers, and with random shifts."""
    samples = np.random.default_rng(0).normal(0, 0.1, (rate * 8, 2))
    soundfile.write(tmp_path / "song.wav", samples, rate, "PCM_24")
    request = SeparationRequest(source=tmp_path / "song.wav", model="dsp", shifts=shifts, segment_s=1.0)
    counting = Counting(monkeypatch)
    whole = separate_to_files(
        request, OutputOptions(folder=tmp_path / "whole"), contents=ContentStore(tmp_path / "other")
    )
    runs, counting.runs = counting.runs, 0
    assert runs >= 4
    options = OutputOptions(folder=tmp_path / "out")
    with pytest.raises(Cancelled):
        separate_to_files(request, options, **cancel_at(runs // 2))
    assert hidden(tmp_path / "out") == []
    report = separate_to_files(request, options)
    assert counting.runs == runs
    assert 0 < report.resumed_runs < runs
    assert [stem.sha256 for stem in report.stems] == [stem.sha256 for stem in whole.stems]


def test_forcing_forgets_what_was_done(tmp_path):
    song = write_song(tmp_path / "song.wav", 20.0)
    request = SeparationRequest(source=song, model="dsp")
    options = OutputOptions(folder=tmp_path / "out")
    with pytest.raises(Cancelled):
        separate_to_files(request, options, **cancel_at(2))
    assert separate_to_files(request, options, force_refresh=True).resumed_runs == 0


def test_other_parameters_do_not_go_on_from_there(tmp_path):
    song = write_song(tmp_path / "song.wav", 20.0)
    options = OutputOptions(folder=tmp_path / "out")
    with pytest.raises(Cancelled):
        separate_to_files(SeparationRequest(source=song, model="dsp"), options, **cancel_at(2))
    report = separate_to_files(SeparationRequest(source=song, model="dsp", overlap=0.5), options)
    assert report.resumed_runs == 0


def test_without_a_place_for_the_journal_the_job_goes_on(tmp_path, monkeypatch):
    """A cache on a full disk costs the resume, and one line says so."""
    monkeypatch.setattr("revithion_stems.journal.SegmentJournal.append", full)
    notices = []
    song = write_song(tmp_path / "song.wav", 5.0)
    separate_to_files(
        SeparationRequest(source=song, model="dsp"),
        OutputOptions(folder=tmp_path / "out"),
        on_event=lambda event: notices.append(event.code) if isinstance(event, Notice) else None,
    )
    assert notices == ["job.not_resumable"]


def full(*_):
    raise OSError(28, "No space left on device")
