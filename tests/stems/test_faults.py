"""Disks that fill up, folders that may not be written, sources and caches at fault: typed errors, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.errors import OutputError
from revithion_stems.events import Notice
from revithion_stems.store import ContentStore

RATE = 44_100
PROGRAM = [sys.executable, "-c", "from revithion_stems.cli.main import main; main()"]


@pytest.fixture
def song(tmp_path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (RATE * 6, 2)), RATE, "PCM_16")
    return path


def run(song, *options, **env):
    command = [*PROGRAM, "separate", str(song), "-m", "dsp", "--json", *map(str, options)]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_disk_that_fills_up_and_then_has_room(tmp_path, song, mounted):
    """Four stems of 2 MB: the disk has 5 MB, then 20. What was computed the first time is not computed again."""
    with mounted(tmp_path / "disk", "size=5m") as disk:
        status, events = run(song, "-o", disk / "out", "--segment", "2")
        assert status == 5
        assert events[-1]["code"] == "output.disk_full"
        assert everything(disk) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        status, events = run(song, "-o", disk / "out", "--segment", "2")
        assert status == 0
        (summary,) = (event for event in events if event["type"] == "JobSummary")
        assert summary["resumed_runs"] > 0
        assert len(everything(disk)) == 2 + 5


@pytest.mark.parametrize(("size_mib", "results"), [(1, 0), (9, 1), (15, 0)])
def test_a_cache_that_fills_up_costs_nothing_but_the_cache(tmp_path, song, mounted, size_mib, results):
    """The journal takes 11 MB and the result 8: full while the journal grows, or when the result is kept beside it."""
    with mounted(tmp_path / "disk", f"size={size_mib}m") as disk:
        store = ContentStore(disk / "cache", limit_bytes=10**9)
        notices = []
        report = separate_to_files(
            SeparationRequest(source=song, model="dsp", segment_s=2.0),
            OutputOptions(folder=tmp_path / "out"),
            contents=store,
            on_event=lambda event: notices.append(event.code) if isinstance(event, Notice) else None,
        )
        assert report.exact
        assert set(notices) <= {"job.not_resumable", "cache.unusable"}
        assert notices
        usage = store.usage()
        assert (usage.results, usage.unfinished) == (results, 0)
        assert len([name for name in everything(disk) if "results/" in name]) == 6 * results


def test_a_read_only_disk_is_told_before_the_song_is_read(tmp_path, song, mounted, monkeypatch):
    monkeypatch.setattr("revithion_stems.source_facts.scan", lambda *_, **__: pytest.fail("read the song"))
    with mounted(tmp_path / "disk", "size=1m,ro") as disk, pytest.raises(OutputError) as caught:
        separate_to_files(SeparationRequest(source=song, model="dsp"), OutputOptions(folder=disk / "out"))
    assert caught.value.code == "output.unwritable"


def test_a_read_only_cache(tmp_path, song, mounted):
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        status, events = run(song, "-o", tmp_path / "out", REVITHION_CACHE_DIR=str(disk))
    assert status == 0
    assert [event["code"] for event in events if event["type"] == "Notice"] == ["cache.unusable"] * 2


def test_restoring_to_a_full_disk(tmp_path, song, mounted):
    """The cache has the stems, and there is no room for them: nothing is left, and the entry stays."""
    assert run(song, "-o", tmp_path / "out")[0] == 0
    with mounted(tmp_path / "disk", "size=5m") as disk:
        status, events = run(song, "-o", disk / "out")
        assert (status, events[-1]["code"]) == (5, "output.disk_full")
        assert everything(disk) == []
    status, events = run(song, "-o", tmp_path / "again")
    assert [event["cached"] for event in events if event["type"] == "JobSummary"] == [True]


def test_a_stem_is_recognised(tmp_path, song):
    """In every format that we write, a stem of ours warns when it is separated again."""
    for ext in ("wav", "flac", "mp3", "ogg", "opus", "m4a"):
        status, _ = run(song, "-o", tmp_path / ext, "-f", ext)
        assert status == 0
        status, events = run(tmp_path / ext / "song" / f"drums.{ext}", "-o", tmp_path / "twice")
        assert status == 0
        (notice,) = (event for event in events if event["type"] == "Notice" and event["code"] == "input.is_stem")
        assert "(drums)" in notice["message"]
        assert "multiplies artefacts" in notice["message"]
