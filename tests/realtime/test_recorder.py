"""The recorder: what is in the ring is in the files, whole at any time, whatever the disk does."""

from __future__ import annotations

import re
import struct
import threading
import time
import tracemalloc
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_realtime.control.recorder import Recorder
from revithion_realtime.control.take_file import TakeFile
from revithion_realtime.memory.frame_ring import FrameRing
from revithion_stems.errors import LiveError
from revithion_stems.tags import read_tags

RATE = 48_000
STEMS = ("vocals", "drums", "bass", "other")
LONG_S = 20.0


def make_ring(channels: int = 2 * len(STEMS), capacity: int = 1 << 15) -> FrameRing:
    return FrameRing(np.zeros((channels, capacity), np.float32), np.zeros(2, np.int64))


def noise(frames: int, *, channels: int = 2 * len(STEMS), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (channels, frames)).astype(np.float32)


def feed(ring: FrameRing, samples: np.ndarray, taken: Path) -> None:
    """Writes in blocks of 256, never more than half a ring ahead of what stands in the file ``taken``."""
    start, deadline = ring.end, time.monotonic() + LONG_S
    for at in range(0, samples.shape[1], 256):
        while ring.end - start - taken.stat().st_size // 8 > ring.capacity // 2:
            assert time.monotonic() < deadline, "the recorder does not follow"
            time.sleep(0.005)
        ring.write(samples[:, at : at + 256])


def hidden(take: Path, stem: str = STEMS[0]) -> Path:
    return take / f".{stem}.wav.part"


def written(part: Path) -> float:
    """Frames in a file that is being written; without end when it has its name, which may happen at any time."""
    try:
        return part.stat().st_size // 8
    except FileNotFoundError:
        return float("inf")


def read_all(files: tuple[Path, ...]) -> np.ndarray:
    return np.concatenate([soundfile.read(path, dtype="float32")[0].T for path in files])


def wait_for(condition) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_take_holds_what_was_played_bit_for_bit(tmp_path):
    ring = make_ring()
    ring.write(noise(1_000, seed=1))  # before the take
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    take = recorder.start(tmp_path)
    played = noise(100_003)
    writer = threading.Thread(target=feed, args=(ring, played, hidden(take)))
    writer.start()
    writer.join()
    files = recorder.stop()
    assert [path.relative_to(take).as_posix() for path in files] == [f"{stem}.wav" for stem in STEMS]
    assert np.array_equal(read_all(files), played)
    assert recorder.lost_frames == 0
    assert recorder.error is None


def test_the_stems_of_a_take_sum_to_the_input(tmp_path):
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    recorder.start(tmp_path)
    source = np.round(noise(5_000, channels=2) * 2**20) / np.float32(2**24)
    parts = np.round(noise(5_000) * 2**18) / np.float32(2**24)
    parts[6:] = source - (parts[:2] + parts[2:4] + parts[4:6])
    ring.write(parts[:, :4_000])
    ring.write(parts[:, 4_000:])
    stems = read_all(recorder.stop()).reshape(len(STEMS), 2, -1)
    assert np.array_equal(stems.sum(axis=0), source)


def test_a_take_may_begin_with_what_was_played_before_it(tmp_path):
    ring = make_ring()
    played = noise(4_000)
    ring.write(played)
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    recorder.start(tmp_path, start_frame=1_500)
    assert np.array_equal(read_all(recorder.stop()), played[:, 1_500:])


def test_names_are_hidden_until_the_take_is_stopped(tmp_path):
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    take = recorder.start(tmp_path)
    ring.write(noise(256))
    assert recorder.folder == take
    assert all(path.name.startswith(".") for path in take.iterdir())
    recorder.stop()
    assert recorder.folder is None
    assert {path.name for path in take.iterdir()} == {f"{stem}.wav" for stem in STEMS}


def test_a_recorder_that_is_closed_ends_its_take_and_begins_no_other(tmp_path):
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    recorder.start(tmp_path)
    ring.write(noise(1_000))
    assert len(recorder.close()) == len(STEMS)
    with pytest.raises(LiveError) as caught:
        recorder.start(tmp_path)
    assert caught.value.code == "live.idle"
    assert recorder.close() == ()


def test_a_take_of_nothing_leaves_nothing(tmp_path):
    recorder = Recorder(make_ring(), STEMS, sample_rate=RATE)
    recorder.start(tmp_path / "takes")
    assert recorder.stop() == ()
    assert recorder.stop() == ()
    assert list((tmp_path / "takes").iterdir()) == []


def test_each_take_has_a_folder_of_its_own(tmp_path):
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    takes = []
    for _ in range(3):
        takes.append(recorder.start(tmp_path))
        with pytest.raises(LiveError, match="already") as caught:
            recorder.start(tmp_path)
        assert caught.value.code == "live.recording"
        ring.write(noise(10))
        recorder.stop()
    assert len(set(takes)) == 3
    assert all(re.fullmatch(r"take-\d{8}-\d{6}(-\d)?", take.name) for take in takes)


def test_the_name_of_a_stem_can_not_lead_out_of_the_take(tmp_path):
    ring = make_ring(channels=2)
    recorder = Recorder(ring, ["../../evil"], sample_rate=RATE)
    take = recorder.start(tmp_path)
    ring.write(noise(10, channels=2))
    (path,) = recorder.stop()
    assert path.parent == take


def test_what_came_too_late_is_silent_and_counted(tmp_path):
    ring = make_ring(capacity=4_096)
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    recorder.start(tmp_path, start_frame=0)
    played = noise(10_000)
    for at in range(0, 10_000, 500):  # all at once: the ring holds less than half of it
        ring.write(played[:, at : at + 500])
    recorded = read_all(recorder.stop())
    lost = recorder.lost_frames
    assert recorded.shape == played.shape
    assert 0 < lost < 10_000
    silent = ~recorded.any(axis=0)
    assert silent.sum() == lost
    assert np.array_equal(recorded[:, ~silent], played[:, ~silent])


def test_a_gap_in_the_ring_keeps_its_length(tmp_path):
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    take = recorder.start(tmp_path)
    before, after = noise(300, seed=1), noise(200, seed=2)
    feed(ring, before, hidden(take))
    wait_for(lambda: hidden(take).stat().st_size > 8 * 300)
    ring.skip_to(1_000)
    ring.write(after)
    recorded = read_all(recorder.stop())
    assert np.array_equal(recorded, np.concatenate([before, np.zeros((8, 700), np.float32), after], axis=1))
    assert recorder.lost_frames == 700


def test_ten_minutes_in_little_memory(tmp_path):
    rate, frames = 8_000, 600 * 8_000
    ring = make_ring(channels=4, capacity=1 << 19)
    recorder = Recorder(ring, STEMS[:2], sample_rate=rate)
    ramp = np.arange(frames, dtype=np.float32)  # whole numbers below 2^24: exact
    take = recorder.start(tmp_path)
    block = np.empty((4, 4_000), np.float32)
    tracemalloc.start()
    try:
        for at in range(0, frames, 4_000):
            wait_for(lambda: ring.end - hidden(take, "drums").stat().st_size // 8 < ring.capacity // 2)
            block[:] = ramp[at : at + 4_000]
            ring.write(block)
        files = recorder.stop()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert recorder.lost_frames == 0
    for path in files:
        data, file_rate = soundfile.read(path, dtype="float32")
        assert file_rate == rate
        assert np.array_equal(data[:, 0], ramp)
        assert np.array_equal(data[:, 1], ramp)


# --- the time of a take -----------------------------------------------------------------------------------------------


def test_a_take_has_the_time_of_its_input(tmp_path):
    """Frames since midnight, less the latency; to within what the machine takes to start."""
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE, latency_frames=RATE)
    before = datetime.now()
    recorder.start(tmp_path)
    after = datetime.now()
    ring.write(noise(10))
    references = [read_tags(path).time_reference for path in recorder.stop()]
    assert len(set(references)) == 1
    assert references[0] is not None
    midnight = before.replace(hour=0, minute=0, second=0, microsecond=0)
    first, last = ((moment - midnight).total_seconds() for moment in (before, after))
    assert (references[0] / RATE - (first - 1.001)) % 86_400 <= last - first + 0.002


def test_a_take_can_have_the_position_of_a_transport(tmp_path):
    ring = make_ring()
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    recorder.start(tmp_path, time_reference=5_000_000_000)
    ring.write(noise(10))
    assert {read_tags(path).time_reference for path in recorder.stop()} == {5_000_000_000}


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_ends_the_take_and_leaves_whole_files(tmp_path, mounted):
    with mounted(tmp_path / "disk", "size=1m") as disk:
        ring = make_ring()
        recorder = Recorder(ring, STEMS, sample_rate=RATE)
        take = recorder.start(disk)
        played = noise(60_000)  # 1.9 MB
        for at in range(0, played.shape[1], 256):
            wait_for(lambda: ring.end - written(hidden(take)) < 8_192)
            if recorder.folder is None:
                break
            ring.write(played[:, at : at + 256])
        assert recorder.folder is None
        assert recorder.error is not None
        assert recorder.error.code == "live.recording"
        assert "no space" in recorder.error.message
        recorded = read_all(recorder.stop())
        assert recorder.error is not None
        frames = recorded.shape[1]
        assert 20_000 < frames < 40_000
        assert np.array_equal(recorded, played[:, :frames])
        assert not [path for path in take.iterdir() if path.name.startswith(".")]


def test_a_folder_that_may_not_be_written(tmp_path, mounted):
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        recorder = Recorder(make_ring(), STEMS, sample_rate=RATE)
        with pytest.raises(LiveError, match="Read-only") as caught:
            recorder.start(disk / "takes")
        assert caught.value.code == "live.recording"
        assert recorder.folder is None


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LiveError) as caught:
        Recorder(make_ring(), STEMS, sample_rate=RATE).start(tmp_path / "file")
    assert caught.value.code == "live.recording"


def test_a_bug_in_its_thread_ends_the_take_and_leaves_what_there_is(tmp_path):
    class Breaking(FrameRing):
        def read(self, start, out):
            if start >= 8_192:
                raise ZeroDivisionError
            return super().read(start, out)

    ring = Breaking(np.zeros((8, 1 << 15), np.float32), np.zeros(2, np.int64))
    recorder = Recorder(ring, STEMS, sample_rate=RATE)
    recorder.start(tmp_path)
    ring.write(noise(4_096))
    ring.write(noise(4_096))
    ring.write(noise(4_096))
    wait_for(lambda: recorder.error is not None)
    assert recorder.error is not None
    assert recorder.error.code == "live.recording"
    assert "ZeroDivisionError" in recorder.error.message
    assert [len(read_all((file,))[0]) for file in recorder.stop()] == [8_192] * 4


# --- the files --------------------------------------------------------------------------------------------------------


def make_file(path: Path) -> TakeFile:
    return TakeFile(path, sample_rate=RATE, time_reference=123, started=datetime(2026, 1, 2, 3, 4, 5))


def test_a_file_of_a_killed_process_can_be_read(tmp_path):
    file = make_file(tmp_path / "a.wav")
    samples = noise(1_000, channels=2)
    file.write(samples)
    file.checkpoint(1_000)
    file.write(samples)  # of which the header knows nothing
    data, _ = soundfile.read(tmp_path / ".a.wav.part", dtype="float32")
    assert np.array_equal(data.T, samples)
    file.close(keep=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_beyond_4_gib_is_rf64_and_not_written_again(tmp_path):
    file = make_file(tmp_path / "a.wav")
    samples = noise(100, channels=2)
    file.write(samples)
    frames = 600_000_000  # 4.8 GB, with a hole: the disk holds the first block only
    path = file.finish(frames)
    with soundfile.SoundFile(path) as read:
        assert (read.format, read.subtype, read.frames) == ("RF64", "FLOAT", frames)
        assert np.array_equal(read.read(100, dtype="float32").T, samples)
    assert read_tags(path).time_reference == 123
    path.unlink()


def test_the_chunks_of_a_file_are_what_the_standards_say(tmp_path):
    file = make_file(tmp_path / "a.wav")
    file.write(noise(7, channels=2))
    data = file.finish(7).read_bytes()
    assert data[:4] + data[8:12] == b"RIFFWAVE"
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8
    chunks, at = {}, 12
    while at < len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        chunks[name] = data[at + 8 : at + 8 + size]
        at += 8 + size
    assert list(chunks) == [b"JUNK", b"bext", b"fmt ", b"fact", b"data"]
    assert len(chunks[b"JUNK"]) == 28  # what ds64 needs
    assert chunks[b"bext"][320:338] == b"2026-01-0203:04:05"
    assert struct.unpack_from("<HHIIHH", chunks[b"fmt "]) == (3, 2, RATE, RATE * 8, 8, 32)
    assert struct.unpack("<I", chunks[b"fact"]) == (7,)
    assert len(chunks[b"data"]) == 56
