"""Channels of several files as one file: the same samples, whatever the files are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_bridge.daw.mailbox import SourceChannel
from revithion_bridge.daw_desk.merged_source import PreparedSource, prepare_source
from revithion_bridge.errors import cancelled_error
from revithion_stems.errors import Cancelled, InputError, OutputError, RevithionError

RATE = 48_000


def never() -> None:
    pass


def prepare(folder: Path, *channels: tuple[Path, int]) -> PreparedSource:
    return prepare_source([SourceChannel(path=str(path), channel=number) for path, number in channels], folder, never)


def write(path: Path, samples: np.ndarray, subtype: str = "FLOAT", rate: int = RATE) -> Path:
    soundfile.write(path, samples.T, rate, subtype)
    return path


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def noise(channels: int, frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, (channels, frames)).astype(np.float32)


def test_a_whole_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "Mix.wav", noise(3, 100))
    found = prepare(tmp_path / "out", (path, 0), (path, 1), (path, 2))
    assert (found.path, found.channels, found.frames, found.sample_rate) == (path, 3, 100, RATE)
    assert not (tmp_path / "out").exists()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([1, 17, 65_535, 65_536, 65_537, 140_000]), min_size=1, max_size=3),
    picks=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=8),
)
def test_any_channels_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], picks: list[tuple[int, int]]
) -> None:
    """Of two-channel files; what is shorter is followed by silence."""
    folder = tmp_path_factory.mktemp("merge")
    sources = [noise(2, frames, seed) for seed, frames in enumerate(lengths)]
    paths = [write(folder / f"Mix {number}.wav", samples) for number, samples in enumerate(sources)]
    channels = [(file % len(paths), number) for file, number in picks]
    found = prepare(folder / "out", *((paths[file], number) for file, number in channels))
    longest = max(lengths[file] for file, _ in channels)
    expected = np.zeros((len(channels), longest), np.float32)
    for row, (file, number) in enumerate(channels):
        expected[row, : lengths[file]] = sources[file][number]
    assert (found.channels, found.frames) == expected.shape
    np.testing.assert_array_equal(read(found.path), expected)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_no_format_loses_anything(tmp_path: Path, subtype: str) -> None:
    left, right = (write(tmp_path / f"a%{side}.wav", noise(1, 5_000, n), subtype) for n, side in enumerate("LR"))
    found = prepare(tmp_path, (left, 0), (right, 0))
    np.testing.assert_array_equal(read(found.path), np.concatenate([read(left), read(right)]))


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["Mix%L", "Mix%R"], "Mix"),
        (["Drums.L", "Drums.R"], "Drums"),
        (["Take 1-L", "Take 1-R"], "Take 1"),
        (["left", "right"], "left"),
        (["%L", "%R"], "%L"),
        (["'; $(x) 🎛️ %n " + "y" * 180 + side for side in "LR"], "'; $(x) 🎛️ %n " + "y" * 180),
    ],
)
def test_its_name_is_what_the_names_have_in_common(tmp_path: Path, names: list[str], name: str) -> None:
    paths = [write(tmp_path / f"{each}.wav", noise(1, 10, n)) for n, each in enumerate(names)]
    found = prepare(tmp_path / "out", *((path, 0) for path in paths))
    assert found.path == tmp_path / "out" / "sources" / found.digest / f"{name}.wav"


def test_it_is_written_once_and_anew_when_a_file_has_changed(tmp_path: Path) -> None:
    left, right = (write(tmp_path / f"a%{side}.wav", noise(1, 100, n)) for n, side in enumerate("LR"))
    first = prepare(tmp_path, (left, 0), (right, 0))
    written = first.path.stat().st_mtime_ns
    assert prepare(tmp_path, (left, 0), (right, 0)) == first
    assert first.path.stat().st_mtime_ns == written
    write(right, noise(1, 100, 7))
    os.utime(right, ns=(0, 0))
    second = prepare(tmp_path, (left, 0), (right, 0))
    assert second.digest != first.digest
    np.testing.assert_array_equal(read(second.path)[1], noise(1, 100, 7)[0])
    np.testing.assert_array_equal(read(first.path)[1], noise(1, 100, 1)[0])


def test_nothing_half_written_is_left_when_it_is_cancelled(tmp_path: Path) -> None:
    left, right = (write(tmp_path / f"a%{side}.wav", noise(1, 300_000, n)) for n, side in enumerate("LR"))
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 4:
            raise cancelled_error()

    channels = [SourceChannel(path=str(path)) for path in (left, right)]
    with pytest.raises(Cancelled):
        prepare_source(channels, tmp_path / "out", check)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_what_can_not_be_put_together(tmp_path: Path) -> None:
    left = write(tmp_path / "l.wav", noise(1, 100))
    with pytest.raises(RevithionError, match="different sample rates") as caught:
        prepare(tmp_path, (left, 0), (write(tmp_path / "r.wav", noise(1, 100), rate=44_100), 0))
    assert caught.value.code == "daw.selection"
    with pytest.raises(RevithionError, match="no channel 2") as caught:
        prepare(tmp_path, (left, 1))
    assert caught.value.code == "daw.selection"
    with pytest.raises(InputError, match="does not exist"):
        prepare(tmp_path, (left, 0), (tmp_path / "gone.wav", 0))
    with pytest.raises(InputError, match="not a finite number"):
        prepare(tmp_path, (left, 0), (write(tmp_path / "nan.wav", np.full((1, 9), np.nan, np.float32)), 0))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError) as failure:
        prepare(tmp_path / "taken", (left, 0), (left, 0))
    assert "-o" not in failure.value.hint
