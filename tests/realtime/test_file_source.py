"""A file as a live source: all of it, in order, ahead of what is played, without a gap in a loop."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from revithion_realtime.control.file_source import FileSource
from revithion_realtime.memory.frame_ring import FrameRing
from revithion_stems.errors import InputError

RATE = 48_000
LONG_S = 20.0


def make_ring(capacity: int = 1 << 16) -> FrameRing:
    return FrameRing(np.zeros((2, capacity), np.float32), np.zeros(2, np.int64))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Player:
    """What the audio process does: takes blocks, and counts what it has taken."""

    def __init__(self, ring: FrameRing) -> None:
        self.ring = ring
        self.at = ring.end

    def take(self, frames: int) -> np.ndarray:
        out = np.empty((2, frames), np.float32)
        wait_for(lambda: self.ring.read(self.at, out))
        self.at += frames
        return out

    def take_all(self, frames: int, block: int = 4_000) -> np.ndarray:
        return np.concatenate([self.take(min(block, frames - at)) for at in range(0, frames, block)], axis=1)


def noise(frames: int, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (channels, frames)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples.T, rate, subtype="FLOAT")
    return path


def open_source(path: Path, ring: FrameRing, player: Player, *, rate: int = RATE, loop: bool = False) -> FileSource:
    return FileSource(path, sample_rate=rate, ring=ring, position=lambda: player.at, loop=loop)


def play(path: Path, frames: int, *, rate: int = RATE, loop: bool = False, capacity: int = 1 << 16) -> np.ndarray:
    ring = make_ring(capacity)
    player = Player(ring)
    source = open_source(path, ring, player, rate=rate, loop=loop)
    source.start()
    try:
        return player.take_all(frames)
    finally:
        source.close()


def test_a_file_comes_bit_for_bit_and_then_silence(tmp_path):
    song = noise(150_001)
    ring = make_ring()
    player = Player(ring)
    source = open_source(write(tmp_path / "song.wav", song), ring, player)
    source.start()
    played = player.take_all(160_000)
    source.close()
    assert np.array_equal(played[:, :150_001], song)
    assert not played[:, 150_001:].any()
    assert source.ended == 150_001
    assert source.error is None


def test_the_beginning_waits_before_the_thread_runs(tmp_path):
    song = noise(RATE)
    ring = make_ring()
    source = open_source(write(tmp_path / "song.wav", song), ring, Player(ring))
    out = np.empty((2, 20_000), np.float32)
    assert ring.read(0, out)
    assert np.array_equal(out, song[:, :20_000])
    source.close()


def test_it_stays_about_two_seconds_ahead_and_no_more(tmp_path):
    ring = make_ring(1 << 20)
    player = Player(ring)
    source = open_source(write(tmp_path / "song.wav", noise(8 * RATE)), ring, player)
    source.start()
    for _ in range(5):
        player.take(RATE // 2)
        wait_for(lambda: ring.end - player.at >= 2 * RATE)
        assert ring.end - player.at <= 2 * RATE + ring.capacity // 8
    source.close()


def test_a_small_ring_is_never_overrun(tmp_path):
    """Nobody plays for a while: what was not played yet still stands there."""
    song = noise(60_000)
    ring = make_ring(8_192)
    player = Player(ring)
    source = open_source(write(tmp_path / "song.wav", song), ring, player)
    source.start()
    time.sleep(0.2)
    played = player.take_all(60_000, block=500)
    source.close()
    assert np.array_equal(played, song)


def test_a_loop_has_no_gap(tmp_path):
    song = noise(10_007)
    played = play(write(tmp_path / "song.wav", song), 45_000, loop=True)
    assert np.array_equal(played, np.tile(song, 5)[:, :45_000])


def test_a_loop_has_no_gap_at_another_rate_either(tmp_path):
    """A tone of which the file holds whole periods goes on as if there were no seam."""
    rate, periods = 44_100, 100
    frames = 44_100 * periods // 441  # 441 Hz
    tone = 0.5 * np.sin(2 * np.pi * 441 * np.arange(frames) / rate).astype(np.float32)
    played = play(write(tmp_path / "song.wav", np.stack([tone, tone]), rate), 100_000, loop=True)
    time_s = np.arange(1_000, 100_000) / RATE
    assert np.abs(played[0, 1_000:] - 0.5 * np.sin(2 * np.pi * 441 * time_s)).max() < 1e-4


@pytest.mark.parametrize("rate", [44_100, 22_050, 96_000])
def test_another_rate_is_converted_as_a_whole(tmp_path, rate):
    song = noise(rate)
    whole = soxr.resample(song.T, rate, RATE, quality="HQ").T
    played = play(write(tmp_path / "song.wav", song, rate), RATE + 2_000)
    assert np.abs(played[:, : whole.shape[1]] - whole).max() < 1e-6
    assert not played[:, whole.shape[1] :].any()


@pytest.mark.parametrize(("channels", "heard"), [(1, (0, 0)), (2, (0, 1)), (6, (0, 1))])
def test_which_channels_are_heard(tmp_path, channels, heard):
    song = noise(5_000, channels)
    assert np.array_equal(play(write(tmp_path / "song.wav", song), 5_000), song[list(heard)])


def test_the_ring_may_have_been_written_before(tmp_path):
    song = noise(5_000)
    ring = make_ring()
    ring.write(noise(777))
    player = Player(ring)
    source = open_source(write(tmp_path / "song.wav", song), ring, player)
    assert np.array_equal(player.take_all(5_000), song)
    assert source.ended == 777 + 5_000
    source.close()


def test_a_long_loop_takes_no_more_memory(tmp_path):
    ring = make_ring()
    player = Player(ring)
    source = open_source(write(tmp_path / "song.wav", noise(3 * RATE)), ring, player, rate=44_100, loop=True)
    source.start()
    player.take_all(100_000)
    tracemalloc.start()
    try:
        for _ in range(125):
            player.take(8_000)  # 8 MB in all
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        source.close()
    assert peak < 3 << 20


@pytest.mark.parametrize(("content", "code"), [(None, "input.missing"), (b"", "input.empty"), (b"text" * 99, None)])
def test_a_file_that_can_not_be_read_is_told_at_once(tmp_path, content, code):
    path = tmp_path / "song.wav"
    if content is not None:
        path.write_bytes(content)
    ring = make_ring()
    with pytest.raises(InputError) as caught:
        open_source(path, ring, Player(ring))
    assert code in (None, caught.value.code)


def test_nan_at_the_beginning_is_told_at_once(tmp_path):
    song = noise(1_000)
    song[0, 10] = np.nan
    ring = make_ring()
    with pytest.raises(InputError):
        open_source(write(tmp_path / "song.wav", song), ring, Player(ring))


def test_damage_further_on_ends_the_sound_and_is_told(tmp_path):
    song = noise(200_000)
    song[0, 150_000] = np.nan
    ring = make_ring()
    player = Player(ring)
    source = open_source(write(tmp_path / "song.wav", song), ring, player)
    source.start()
    played = player.take_all(200_000)
    source.close()
    assert isinstance(source.error, InputError)
    assert source.ended is not None
    assert 100_000 < source.ended <= 150_000
    assert np.array_equal(played[:, : source.ended], song[:, : source.ended])
    assert not played[:, source.ended :].any()


def test_closing_twice_and_without_a_start(tmp_path):
    ring = make_ring()
    source = open_source(write(tmp_path / "song.wav", noise(100)), ring, Player(ring))
    source.close()
    source.close()


def test_a_bug_in_its_thread_is_told_and_not_just_silence(tmp_path):
    def position() -> int:
        return 1 // (0 if source_runs else 1)

    source_runs = False
    source = FileSource(
        write(tmp_path / "song.wav", noise(1_000)), sample_rate=RATE, ring=make_ring(), position=position
    )
    source_runs = True
    source.start()
    wait_for(lambda: source.error is not None)
    assert "ZeroDivisionError" in str(source.error)
    source.close()
