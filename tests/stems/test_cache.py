"""The same request a second time: the same files, without computing, and never a damaged one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_stems import BitDepth, Container, OutputFormat, OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.errors import InputError, OutputError
from revithion_stems.events import JobChanged, JobProgress, Notice
from revithion_stems.file_set import FileSet
from revithion_stems.manifest import Manifest, decode_manifest
from revithion_stems.store import ContentStore

RATE = 44_100


@pytest.fixture
def song(tmp_path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (RATE * 3, 2)), RATE, "PCM_24")
    return path


def run(source: Path, out: Path, *, events=None, output=None, force_refresh=False, **parameters):
    return separate_to_files(
        SeparationRequest(source=source, model="dsp", **parameters),
        OutputOptions(folder=out, **(output or {})),
        on_event=None if events is None else events.append,
        force_refresh=force_refresh,
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest_of(report) -> Manifest:
    return decode_manifest(report.manifest.read_bytes())


def visible(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_second_run_computes_nothing(tmp_path, song):
    first = run(song, tmp_path / "a")
    events = []
    again = run(song, tmp_path / "b", events=events)
    assert (first.cached, again.cached) == (False, True)
    assert [stem.sha256 for stem in again.stems] == [stem.sha256 for stem in first.stems]
    assert all(digest(stem.path) == stem.sha256 for stem in again.stems)
    assert visible(tmp_path / "a") == visible(tmp_path / "b")
    assert not any(isinstance(event, JobProgress) for event in events)
    states = [event.state.value for event in events if isinstance(event, JobChanged)]
    assert states == ["queued", "loading", "writing", "done"]
    assert (again.model, again.engine, again.licence) == (first.model, first.engine, first.licence)
    assert (again.null_db, again.exact, again.gain_db) == (first.null_db, first.exact, first.gain_db)
    assert again.duration_s == first.duration_s


def test_what_stands_there_already_is_not_written_again(tmp_path, song):
    first = run(song, tmp_path / "a")
    before = [stem.path.stat().st_mtime_ns for stem in first.stems]
    again = run(song, tmp_path / "a")
    assert [stem.path.stat().st_mtime_ns for stem in again.stems] == before
    first.stems[0].path.write_bytes(b"edited by hand")
    run(song, tmp_path / "a")
    assert digest(first.stems[0].path) == first.stems[0].sha256
    assert first.stems[1].path.stat().st_mtime_ns == before[1]


def test_the_same_audio_under_another_name_and_in_another_container(tmp_path, song):
    run(song, tmp_path / "a")
    shutil.copy(song, tmp_path / "copy.wav")
    assert run(tmp_path / "copy.wav", tmp_path / "a").cached
    samples, _ = soundfile.read(song, dtype="int32")
    soundfile.write(tmp_path / "song.flac", samples, RATE, "PCM_24")
    report = run(tmp_path / "song.flac", tmp_path / "b", output={"archive_mix": True})
    assert report.cached
    manifest = manifest_of(report)
    assert manifest.source.sha256 == digest(tmp_path / "song.flac")
    assert manifest.source.path.endswith("song.flac")
    assert digest(tmp_path / "b" / "song" / "mix.flac") == manifest.source.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"overlap": 0.5},
        {"shifts": 1},
        {"shifts": 1, "seed": 1},
        {"segment_s": 2.0},
        {"stems": ("drums",)},
        {"two_stems": "vocals"},
        {"residual": "stem"},
        {"threads": 1},
        {"output": {"format": OutputFormat(bit_depth=BitDepth.INT24)}},
        {"output": {"format": OutputFormat(container=Container.FLAC)}},
    ],
    ids=str,
)
def test_another_request_is_another_result(tmp_path, song, change):
    run(song, tmp_path / "a")
    assert not run(song, tmp_path / "b", **change).cached
    assert run(song, tmp_path / "c", **change).cached


def test_other_audio_is_another_result(tmp_path, song):
    run(song, tmp_path / "a")
    samples, _ = soundfile.read(song, dtype="int32")
    samples[-1, 0] ^= 1 << 8
    soundfile.write(song, samples, RATE, "PCM_24")
    assert not run(song, tmp_path / "a").cached


def test_forcing_computes_and_keeps_the_new_one(tmp_path, song):
    run(song, tmp_path / "a")
    assert not run(song, tmp_path / "a", force_refresh=True).cached
    assert run(song, tmp_path / "a").cached


@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "gone", "manifest", "manifest-empty", "folder-gone"])
def test_a_damaged_entry_is_found_and_made_again(tmp_path, song, own_cache, damage):
    first = run(song, tmp_path / "a")
    (entry,) = (own_cache / "results").iterdir()
    stored = entry / "2"
    match damage:
        case "changed":
            data = bytearray(stored.read_bytes())
            data[len(data) // 2] ^= 1
            stored.write_bytes(data)
        case "cut":
            os.truncate(stored, stored.stat().st_size // 2)
        case "longer":
            with stored.open("ab") as file:
                file.write(b"\0")
        case "gone":
            stored.unlink()
        case "manifest":
            (entry / "manifest.json").write_text('{"schema": "other"}')
        case "manifest-empty":
            (entry / "manifest.json").write_text("")
        case _:
            shutil.rmtree(entry)
    events = []
    again = run(song, tmp_path / "b", events=events)
    assert not again.cached
    assert [stem.sha256 for stem in again.stems] == [stem.sha256 for stem in first.stems]
    codes = [event.code for event in events if isinstance(event, Notice)]
    assert codes == ([] if damage == "folder-gone" else ["cache.damaged"])
    assert visible(tmp_path / "b") == visible(tmp_path / "a")
    assert run(song, tmp_path / "c").cached


@pytest.mark.parametrize("record", [b"", b"{}", b'{"scan": 1}', b"\xff"])
def test_damaged_facts_about_a_source_are_found_again(tmp_path, song, own_cache, record):
    run(song, tmp_path / "a")
    (facts,) = (own_cache / "sources").iterdir()
    facts.write_bytes(record)
    assert run(song, tmp_path / "b").cached


def test_a_cache_that_can_t_be_used_is_no_error(tmp_path, song, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("REVITHION_CACHE_DIR", str(tmp_path / "file"))
    events = []
    report = run(song, tmp_path / "a", events=events)
    assert report.exact
    codes = {event.code for event in events if isinstance(event, Notice)}
    assert codes == {"cache.unusable"}


def test_no_cache_at_all(tmp_path, song, own_cache, monkeypatch):
    monkeypatch.setenv("REVITHION_CACHE_SIZE", "0")
    assert not run(song, tmp_path / "a").cached
    assert not run(song, tmp_path / "a").cached
    assert visible(own_cache) == []


def test_nothing_is_read_twice_that_did_not_change(tmp_path, song, monkeypatch):
    """The second run decodes nothing: the file's digest tells what is known of it."""
    run(song, tmp_path / "a")
    monkeypatch.setattr("revithion_stems.audio_files.AudioReader.blocks", lambda *_: pytest.fail("decoded"))
    assert run(song, tmp_path / "b").cached


# --- sources that change or go ---


@pytest.mark.parametrize("what", ["changed", "longer", "shorter", "deleted", "other rate"])
def test_a_source_that_changes_midway(tmp_path, song, what):
    def on_event(event):
        if isinstance(event, JobChanged) and event.state.value == "separating":
            samples, _ = soundfile.read(song, dtype="int32")
            match what:
                case "changed":
                    samples[RATE * 2] ^= 1 << 8
                case "longer":
                    samples = np.concatenate([samples, samples[:100]])
                case "shorter":
                    samples = samples[:-1]
                case "deleted":
                    song.unlink()
                    return
            soundfile.write(song, samples, 48_000 if what == "other rate" else RATE, "PCM_24")

    with pytest.raises(InputError) as caught:
        separate_to_files(
            SeparationRequest(source=song, model="dsp"), OutputOptions(folder=tmp_path / "out"), on_event=on_event
        )
    assert caught.value.code == ("input.missing" if what == "deleted" else "input.changed")
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes_before_it_is_archived(tmp_path, song):
    def on_event(event):
        if isinstance(event, JobChanged) and event.state.value == "writing":
            with song.open("ab") as file:
                file.write(b"more")

    with pytest.raises(InputError) as caught:
        separate_to_files(
            SeparationRequest(source=song, model="dsp"),
            OutputOptions(folder=tmp_path / "out", archive_mix=True),
            on_event=on_event,
        )
    assert caught.value.code == "input.changed"
    assert not (tmp_path / "out").exists()


# --- two at once ---

PROGRAM = [sys.executable, "-c", "from revithion_stems.cli.main import main; main()"]


def test_two_processes_on_the_same_output(tmp_path, song):
    """One computes and the other one waits for it, or takes its result: both succeed with the same files."""
    command = [*PROGRAM, "separate", str(song), "-m", "dsp", "-o", str(tmp_path / "out"), "--json"]
    env = {**os.environ, "REVITHION_STATE_DIR": str(tmp_path / "state")}
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(3)]
    summaries = []
    for worker in workers:
        out, _ = worker.communicate(timeout=120)
        assert worker.returncode == 0
        events = [json.loads(line) for line in out.splitlines()]
        summaries += [event for event in events if event["type"] == "JobSummary"]
    assert sorted(summary["cached"] for summary in summaries) == [False, True, True]
    manifest = decode_manifest((tmp_path / "out" / "song" / "manifest.json").read_bytes())
    for file in manifest.files:
        assert digest(tmp_path / "out" / "song" / file.path) == file.sha256


def test_two_different_requests_on_the_same_output(tmp_path, song):
    """Each set appears by renames; whoever is last has all of its files there."""
    failures = []

    def work(overlap):
        try:
            for _ in range(3):
                run(song, tmp_path / "out", overlap=overlap, force_refresh=True)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(overlap,)) for overlap in (0.1, 0.4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    manifest = decode_manifest((tmp_path / "out" / "song" / "manifest.json").read_bytes())
    assert {file.path: digest(tmp_path / "out" / "song" / file.path) for file in manifest.files} == {
        file.path: file.sha256 for file in manifest.files
    }
    assert not list((tmp_path / "out").rglob(".*"))


# --- manifests and archives ---


def test_the_manifest_says_what_is_there(tmp_path, song):
    report = run(song, tmp_path / "out", output={"archive_mix": True}, shifts=1, seed=5)
    manifest = manifest_of(report)
    folder = report.manifest.parent
    assert sorted(file.path for file in manifest.files) == [
        "bass.wav",
        "drums.wav",
        "mix.wav",
        "other.wav",
        "vocals.wav",
    ]
    for file in manifest.files:
        assert (folder / file.path).stat().st_size == file.size
        assert digest(folder / file.path) == file.sha256
    assert manifest.source.sha256 == digest(song) == digest(folder / "mix.wav")
    assert (manifest.source.frames, manifest.source.sample_rate, manifest.source.channels) == (RATE * 3, RATE, 2)
    assert (manifest.exact, manifest.null_db, manifest.lag_frames, manifest.gain_db) == (True, None, 0, 0.0)
    assert (manifest.parameters.shifts, manifest.parameters.seed) == (1, 5)
    assert manifest.model.licence == "MIT"
    assert {"revithion-stems", "numpy", "soundfile", "av"} <= manifest.versions.keys()
    assert manifest.files[-1].role == "mix"


def test_lossy_stems_have_a_measured_lag(tmp_path, song):
    time_s = np.arange(RATE * 3) / RATE
    tone = 0.2 * np.sin(2 * np.pi * 100 * time_s**2)
    soundfile.write(song, np.stack([tone, tone], axis=1), RATE, "PCM_16")
    for name in ("mp3", "ogg", "opus", "m4a", "stem.mp4"):
        report = run(song, tmp_path / name, output={"format": OutputFormat(container=Container(name))})
        assert (report.null_db, report.lag_frames) == (None, 0), name
        assert manifest_of(report).lag_frames == 0


@pytest.mark.parametrize(
    ("template", "format_name", "expected"),
    [
        ("{stem}/{track}.{ext}", "wav", {"manifest/song.json", "mix/song.wav", "drums/song.wav"}),
        ("{track} [{stem}].{ext}", "flac", {"song [manifest].json", "song [mix].wav", "song [bass].flac"}),
        ("{track}/{stem}.{ext}", "stem.mp4", {"song.stem.mp4", "song.manifest.json", "song.mix.wav"}),
        ("{track}-dj.{ext}", "stem.mp4", {"song-dj.stem.mp4", "song-dj.manifest.json", "song-dj.mix.wav"}),
        ("dj", "stem.mp4", {"dj", "dj.manifest.json", "dj.mix.wav"}),
    ],
)
def test_where_the_manifest_goes(tmp_path, song, template, format_name, expected):
    output_format = OutputFormat(container=Container(format_name))
    report = run(song, tmp_path / "out", output={"template": template, "format": output_format, "archive_mix": True})
    names = visible(tmp_path / "out")
    assert expected <= set(names)
    manifest = manifest_of(report)
    for file in manifest.files:
        assert digest(report.manifest.parent / file.path) == file.sha256


def test_an_archive_never_replaces_the_source(tmp_path, song):
    (tmp_path / "song").mkdir()
    source = song.rename(tmp_path / "song" / "mix.wav")
    with pytest.raises(OutputError) as caught:
        run(source, tmp_path, output={"template": "song/{stem}.{ext}", "archive_mix": True})
    assert caught.value.code == "output.collision"


def test_usage_after_a_run(tmp_path, song, own_cache):
    run(song, tmp_path / "a")
    usage = ContentStore(own_cache).usage()
    assert (usage.results, usage.unfinished) == (1, 0)
    assert usage.results_bytes > 4 * RATE * 3 * 8


def test_two_sets_never_mix(tmp_path):
    """Many sets under the same names, published at once: at every moment that a lock is free, one set is there."""

    def publish(number):
        for turn in range(30):
            with FileSet() as files:
                for name in "abcdef":
                    files.add(tmp_path / "out" / name, f"{number}-{turn}".encode())
                files.publish()

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({(tmp_path / "out" / name).read_bytes() for name in "abcdef"}) == 1
    assert visible(tmp_path / "out") == list("abcdef")
