"""The folder of numbered files, and ``.stem.mp4``."""

from __future__ import annotations

import dataclasses
import json
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_bridge.daw.bus_plan import Position, PositionUnit, Tempo
from revithion_bridge.daw.placement import SourceItem
from revithion_bridge.daw_files.numbered_folder import write_folder
from revithion_bridge.daw_files.stem_mp4_export import write_stem_mp4
from revithion_stems.alignment import find_lag
from revithion_stems.av_reader import AvReader
from revithion_stems.errors import OutputError, RequestError, RevithionError
from stem_plans import FRAMES, HOSTILE_NAMES, RATE, STEMS, make_plan, renamed, write_stems


def _chunks(path: Path) -> dict[bytes, bytes]:
    data, at, found = path.read_bytes(), 12, {}
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        found[kind] = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return found


def _time_reference(path: Path) -> int:
    """Source: EBU Tech 3285: 338 bytes of text before it."""
    low, high = struct.unpack_from("<II", _chunks(path)[b"bext"], 338)
    return high << 32 | low


def _mix(folder: Path) -> np.ndarray:
    """All files, each at its time reference."""
    total = np.zeros((1_000_000, 2))
    for path in folder.glob("*.wav"):
        samples, _ = soundfile.read(path, always_2d=True)
        at = _time_reference(path)
        total[at : at + len(samples)] += samples
    return total


def test_files_are_numbered_in_the_order_of_the_tracks(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_folder(make_plan(tmp_path / "stems"), tmp_path / "out")
    names = sorted(entry.name for entry in (tmp_path / "out").iterdir())
    assert names == ["01 Drums.wav", "02 Bass.wav", "03 Other.wav", "04 Vocals.wav", "plan.json"]


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24"])
def test_samples_are_the_same_bytes(tmp_path: Path, subtype: str) -> None:
    write_stems(tmp_path / "stems", subtype=subtype)
    write_folder(make_plan(tmp_path / "stems"), tmp_path / "out")
    for number, stem in enumerate(STEMS, start=1):
        written = _chunks(tmp_path / "out" / f"{number:02} {stem.capitalize()}.wav")
        assert written[b"data"] == _chunks(tmp_path / "stems" / f"{stem}.wav")[b"data"]


@pytest.mark.parametrize(
    ("position", "frame"),
    [
        (Position(), 0),
        (Position(value=1.5), 66_150),
        (Position(value=1234, unit=PositionUnit.FRAMES), 1234),
        (Position(value=5, unit=PositionUnit.BARS), 4 * 3 * RATE // 2),
    ],
)
def test_the_time_reference_is_the_place(tmp_path: Path, position: Position, frame: int) -> None:
    source = write_stems(tmp_path / "stems")
    item = SourceItem(frames=FRAMES, position=position)
    write_folder(make_plan(tmp_path / "stems", items=(item,)), tmp_path / "out", Tempo(bpm=120, numerator=3))
    np.testing.assert_array_equal(_mix(tmp_path / "out")[frame : frame + FRAMES], source)


def test_clips_are_cut_out_and_land_where_they_were(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    items = (
        SourceItem(start_frame=10, frames=100, position=Position(value=0)),
        SourceItem(start_frame=500, frames=8000, position=Position(value=1000, unit=PositionUnit.FRAMES)),
    )
    write_folder(make_plan(tmp_path / "stems", items=items), tmp_path / "out")
    assert (tmp_path / "out" / "01 Drums 2.wav").exists()
    expected = np.zeros((9000, 2))
    expected[:100], expected[1000:] = source[10:110], source[500:8500]
    np.testing.assert_array_equal(_mix(tmp_path / "out")[:9000], expected)


def test_the_plan_stands_beside_them(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_folder(make_plan(tmp_path / "stems"), tmp_path / "out")
    said = json.loads((tmp_path / "out" / "plan.json").read_bytes())
    assert said["files"]["vocals"] == ["04 Vocals.wav"]
    assert said["plan"]["tracks"][3]["output"] == "vocals"


def test_the_same_again_touches_no_file(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    plan = make_plan(tmp_path / "stems")
    write_folder(plan, tmp_path / "out")
    before = {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "out").iterdir()}
    assert not write_folder(plan, tmp_path / "out").changed
    assert {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "out").iterdir()} == before


def test_another_plan_of_the_same_song_replaces_the_files(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_folder(make_plan(tmp_path / "stems"), tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    report = write_folder(make_plan(tmp_path / "stems", "drums-only"), tmp_path / "out")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["01 Drums.wav", "mine.txt", "plan.json"]
    assert [strip.outcome.value for strip in report.strips] == ["replaced", "created"]


def test_a_partial_plan_adds_to_the_folder(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    plan = make_plan(tmp_path / "stems")
    for track, bus in zip(plan.tracks, plan.buses, strict=True):
        write_folder(dataclasses.replace(plan, tracks=(track,), buses=(bus,), partial=True), tmp_path / "out")
    np.testing.assert_array_equal(_mix(tmp_path / "out")[:FRAMES], source)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    other = dataclasses.replace(make_plan(tmp_path / "stems"), identity="f" * 16)
    write_folder(other, tmp_path / "other")
    for folder in (tmp_path / "stems", tmp_path / "other", tmp_path / "stems" / "bass.wav"):
        with pytest.raises(RevithionError) as failure:
            write_folder(make_plan(tmp_path / "stems"), folder)
        assert failure.value.code == "daw.project"
    assert len(list((tmp_path / "stems").iterdir())) == 4


def test_a_plan_file_can_name_nothing_outside_of_the_folder(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    write_folder(make_plan(tmp_path / "stems"), tmp_path / "out")
    plan_file = tmp_path / "out" / "plan.json"
    plan_file.write_text(plan_file.read_text().replace("04 Vocals.wav", "../stems/vocals.wav"))
    write_folder(make_plan(tmp_path / "stems", "drums-only"), tmp_path / "out")
    assert (tmp_path / "stems" / "vocals.wav").exists()


@pytest.mark.parametrize("start", range(0, len(HOSTILE_NAMES) - 4, 3))
def test_hostile_names_stay_in_the_folder(tmp_path: Path, start: int) -> None:
    source = write_stems(tmp_path / "stems")
    plan = renamed(make_plan(tmp_path / "stems"), HOSTILE_NAMES[start : start + 4])
    write_folder(plan, tmp_path / "out")
    assert not write_folder(plan, tmp_path / "out").changed
    assert len(list((tmp_path / "out").iterdir())) == 5
    np.testing.assert_array_equal(_mix(tmp_path / "out")[:FRAMES], source)


def test_a_full_disk_leaves_nothing(tmp_path: Path, mounted) -> None:
    write_stems(tmp_path / "stems")
    with mounted(tmp_path / "small", "size=200k") as folder:
        with pytest.raises(OutputError) as failure:
            write_folder(make_plan(tmp_path / "stems"), folder / "out")
        assert failure.value.code == "output.disk_full"
        assert not list(folder.iterdir())


def _streams(path: Path) -> list[dict]:
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)["streams"]


def _decoded(path: Path, stream: int) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:{stream}", "-f", "f32le", "-"]
    data = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    return np.frombuffer(data, "<f4").reshape(-1, 2)[:RATE]  # ffmpeg 5 gives the whole of the last packet


def _song(folder: Path) -> np.ndarray:
    """Stems that a lossy codec keeps: tones."""
    folder.mkdir()
    seconds = np.arange(RATE) / RATE
    total = np.zeros((RATE, 2))
    for number, stem in enumerate(STEMS):
        fade = np.minimum(1.0, seconds * 4)
        tone = 0.2 * fade * np.sin(2 * np.pi * 110 * (2**number) * seconds)
        samples = np.stack([tone, -tone], axis=1).astype(np.float32)
        soundfile.write(folder / f"{stem}.wav", samples, RATE, subtype="FLOAT")
        total += samples
    return total


def test_a_stem_mp4_has_the_mix_and_four_stems(tmp_path: Path) -> None:
    source = _song(tmp_path / "stems")
    path = tmp_path / "song.stem.mp4"
    write_stem_mp4(make_plan(tmp_path / "stems"), path)
    streams = _streams(path)
    assert [stream["codec_name"] for stream in streams] == ["aac"] * 5
    assert [stream["disposition"]["default"] for stream in streams] == [1, 0, 0, 0, 0]
    assert b'"name": "Vocals"' in path.read_bytes()
    assert {float(stream["duration"]) for stream in streams} == {1.0}
    played = _decoded(path, 0)
    assert find_lag(source.T, played.T.astype(np.float64), 4096).frames == 0
    assert np.abs(played - source).max() < 0.02
    for stream, stem in enumerate(STEMS, start=1):
        samples, _ = soundfile.read(tmp_path / "stems" / f"{stem}.wav")
        assert np.abs(_decoded(path, stream) - samples).max() < 0.02


def test_a_stem_mp4_has_the_levels_of_the_plan(tmp_path: Path) -> None:
    source = _song(tmp_path / "stems")
    plan = make_plan(tmp_path / "stems")
    louder = tuple(dataclasses.replace(track, gain_db=-20 * np.log10(0.5)) for track in plan.tracks)
    softer = tuple(dataclasses.replace(bus, gain_db=-12.0) for bus in plan.buses)
    write_stem_mp4(dataclasses.replace(plan, tracks=louder, buses=softer), tmp_path / "song.stem.mp4")
    assert np.abs(_decoded(tmp_path / "song.stem.mp4", 0) - source * 2 * 10 ** (-12 / 20)).max() < 0.02


def test_a_stem_mp4_opens_in_stempeg(tmp_path: Path) -> None:
    stempeg = pytest.importorskip("stempeg")
    source = _song(tmp_path / "stems")
    write_stem_mp4(make_plan(tmp_path / "stems"), tmp_path / "song.stem.mp4")
    stems, rate = stempeg.read_stems(str(tmp_path / "song.stem.mp4"))
    assert (stems.shape[0], rate) == (5, RATE)
    assert np.abs(stems[1:].sum(axis=0)[:RATE] - source).max() < 0.05


def test_a_stem_mp4_needs_four_stems(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems", names=("vocals", "accompaniment"))
    with pytest.raises(RequestError, match="4 stems, not 2") as failure:
        write_stem_mp4(make_plan(tmp_path / "stems"), tmp_path / "song.stem.mp4")
    assert "--to" in failure.value.hint
    assert not (tmp_path / "song.stem.mp4").exists()


def test_a_cut_clip_begins_a_stem_mp4(tmp_path: Path) -> None:
    source = _song(tmp_path / "stems")
    items = (SourceItem(start_frame=20_000, frames=15_000),)
    write_stem_mp4(make_plan(tmp_path / "stems", items=items), tmp_path / "song.stem.mp4")
    with_reader = AvReader(tmp_path / "song.stem.mp4")
    try:
        played = np.concatenate(list(with_reader.decode(4096)), axis=1).T
    finally:
        with_reader.close()
    assert len(played) == 15_000
    assert np.abs(played[2000:-2000] - source[22_000:33_000]).max() < 0.05


def test_a_stem_mp4_is_not_made_of_stems_that_became_shorter(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    plan = make_plan(tmp_path / "stems")
    soundfile.write(plan.tracks[2].clips[0].file, np.zeros((FRAMES - 1, 2)), RATE)
    with pytest.raises(RevithionError, match="any more") as failure:
        write_stem_mp4(plan, tmp_path / "song.stem.mp4")
    assert failure.value.code == "daw.plan"
    assert [entry.name for entry in tmp_path.iterdir()] == ["stems"]
