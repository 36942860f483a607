"""Examples and their order follow from the seed and the number alone; songs stay together where they should."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitracks import STEMS, synthetic_stem
from revithion_stems.audio import Float32
from revithion_stems.errors import ConfigError
from revithion_stems.training.augment_config import AugmentConfig
from revithion_stems.training.batches import batches
from revithion_stems.training.datasets.dataset_config import DatasetConfig
from revithion_stems.training.datasets.folder import open_folder
from revithion_stems.training.datasets.multitrack import Origin
from revithion_stems.training.examples import Examples
from revithion_stems.training.optimisation import learning_rate
from revithion_stems.training.train_config import ExampleConfig, OptimiserConfig, TrainConfig

RATE = 8_000
FRAMES = RATE // 2
ORIGIN = Origin(dataset="made up", licence="CC0 1.0", commercial_use=True)
NO_MP3 = AugmentConfig(mp3_probability=0.0)


@dataclass(frozen=True, kw_only=True)
class Ramps:
    """A song whose samples say where they are from: number of the song, of the stem, and frame."""

    name: str
    number: int
    frames: int
    stems: tuple[str, ...] = STEMS
    sample_rate: int = RATE
    origin: Origin = ORIGIN
    asked: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])

    def read(self, stem: str, start: int, frames: int) -> Float32:
        assert stem in self.stems
        assert 0 <= start <= start + frames <= self.frames
        self.asked.append((stem, start, frames))
        place = (np.arange(start, start + frames) + 1) / 2**17  # exact, and heard
        marker = self.number + STEMS.index(stem) / 8
        return np.stack([place, np.full(frames, marker)]).astype(np.float32)


def config(
    *, augment: AugmentConfig | None = None, seed: int = 3, steps: int = 10, accumulate: int = 1, **examples: Any
) -> TrainConfig:
    plain: dict[str, Any] = {"seconds": 0.5, "batch": 2, "workers": 0, "absent": 0.0, **examples}
    return TrainConfig(
        name="t",
        architecture="causal_preview",
        data=(DatasetConfig(kind="folder", path=Path("nowhere")),),
        steps=steps,
        seed=seed,
        examples=ExampleConfig(**plain),
        augment=augment or AugmentConfig.none(),
        optimiser=OptimiserConfig(accumulate=accumulate),
    )


def made(config: TrainConfig, *songs: Ramps, weights: tuple[float, ...] = ()) -> Examples:
    return Examples(config, list(zip(songs, weights or (1.0,) * len(songs), strict=True)), STEMS)


def numbers(stems: torch.Tensor) -> np.ndarray:
    """Of the song that each stem begins with; 0 where it is silent. Checks that each stem is in its row."""
    eighths = np.round(stems.numpy()[:, 1, 0] * 8).astype(int)  # gains are 1 up to rounding
    assert np.all((eighths == 0) | (eighths % 8 == np.arange(len(STEMS))))
    return eighths // 8


SONGS = tuple(Ramps(name=f"song {n}", number=n, frames=3 * FRAMES) for n in (1, 2, 3))


@given(asked=st.lists(st.integers(0, 40), max_size=6), index=st.integers(0, 40), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_an_example_is_the_same_whatever_was_asked_before(asked: list[int], index: int, seed: int) -> None:
    settings_ = config(augment=NO_MP3, seed=seed, remix=0.5, absent=0.1)
    fresh, used = made(settings_, *SONGS), made(settings_, *SONGS)
    for other in asked:
        used[other]
    assert torch.equal(fresh[index], used[index])
    assert fresh[index].shape == (4, 2, FRAMES)
    assert fresh[index].dtype == torch.float32


def test_numbers_and_seeds_make_other_examples() -> None:
    one, two = (made(config(seed=seed, remix=1.0), *SONGS) for seed in (1, 2))
    kept = [one[0], one[1], one[2], two[0]]
    for i, first in enumerate(kept):
        assert not any(torch.equal(first, other) for other in kept[i + 1 :])


def test_another_process_makes_the_same(tmp_path: Path) -> None:
    """From songs of the cache, with every effect on, MP3 too: pickled, as workers get them."""
    for number in (1, 2):
        folder = tmp_path / "songs" / str(number)
        folder.mkdir(parents=True)
        for stem in STEMS:
            soundfile.write(folder / f"{stem}.wav", synthetic_stem(stem, number, 40_000, 32_000).T, 32_000)
    songs = open_folder(tmp_path / "songs", stems=STEMS, sample_rate=32_000, cache=tmp_path / "cache")
    often = AugmentConfig(
        eq_probability=0.7, reverb_probability=0.5, speed_probability=0.5, mp3_probability=0.5, swap_probability=0.5
    )
    examples = Examples(config(augment=often), [(song, 1.0) for song in songs], STEMS)
    (tmp_path / "examples").write_bytes(pickle.dumps(examples))
    program = (
        "import pickle, sys, torch; from pathlib import Path\n"
        "examples = pickle.loads(Path(sys.argv[1]).read_bytes())\n"
        "torch.save([examples[i] for i in (5, 1, 0, 7)], sys.argv[2])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "examples"), str(tmp_path / "made")]
    subprocess.run(command, check=True, timeout=120)
    for index, theirs in zip((5, 1, 0, 7), torch.load(tmp_path / "made", weights_only=True), strict=True):
        assert torch.equal(examples[index], theirs)
        assert float(theirs.abs().max()) > 1e-3


def test_stems_of_one_song_stay_together() -> None:
    examples = made(config(remix=0.0), *SONGS)
    places: set[float] = set()
    songs: set[int] = set()
    for index in range(24):
        stems = examples[index].numpy()
        assert np.array_equal(stems[:, 0], np.broadcast_to(stems[0, 0], (4, FRAMES)))  # the same frames of all stems
        (song,) = set(numbers(examples[index]))
        places.add(float(stems[0, 0, 0]))
        songs.add(int(song))
    assert len(places) > 12
    assert songs == {1, 2, 3}


def test_remixed_stems_come_from_anywhere() -> None:
    examples = made(config(remix=1.0), *SONGS)
    together = 0
    for index in range(24):
        together += len(set(numbers(examples[index]))) == 1
    assert together < 8  # one in 27 by chance


def test_stems_of_one_song_have_one_speed() -> None:
    fast = msgspec.structs.replace(AugmentConfig.none(), speed_probability=1.0, speed_semitones=4.0)
    examples = made(config(augment=fast, remix=0.0), *SONGS)
    slopes: set[float] = set()
    for index in range(8):
        places = examples[index].numpy()[:, 0]
        steps = (places[:, 3_000] - places[:, 1_000]) / 2_000 * 2**17  # frames of the song per frame
        assert np.ptp(steps) < 1e-3
        assert np.ptp(places[:, 2_000]) * 2**17 < 0.5  # and at the same place
        slopes.add(round(float(steps[0]), 2))
    assert len(slopes) > 4
    remixed = made(config(augment=fast, remix=1.0), *SONGS)[1].numpy()[:, 0]
    assert np.ptp((remixed[:, 3_000] - remixed[:, 1_000]) / 2_000 * 2**17) > 0.01


@pytest.mark.parametrize("remix", [0.0, 1.0])
def test_stems_that_are_absent_are_silent(remix: float) -> None:
    for index in range(4):
        assert not bool(made(config(augment=NO_MP3, remix=remix, absent=1.0), *SONGS)[index].any())
    half = made(config(remix=remix, absent=0.5), *SONGS)
    silent = sum(int((half[index].abs().amax((1, 2)) == 0).sum()) for index in range(50))
    assert 70 <= silent <= 130  # of 200, five deviations around 100


@pytest.mark.parametrize("remix", [0.0, 1.0])
@pytest.mark.parametrize("frames", [1, 100, FRAMES - 1, FRAMES, FRAMES + 1])
def test_short_songs_are_followed_by_silence(frames: int, remix: float) -> None:
    short = Ramps(name="short", number=1, frames=frames)
    for augment in (AugmentConfig.none(), NO_MP3):
        stems = made(config(augment=augment, remix=remix), short)[0]
        assert stems.shape == (4, 2, FRAMES)
    stems = made(config(remix=remix), short)[0].numpy()
    heard = min(frames, FRAMES)
    assert np.all(stems[:, 1, :heard] > 0.99)
    assert not stems[:, :, heard:].any()


def test_every_frame_of_a_song_is_read_now_and_then() -> None:
    song = Ramps(name="one", number=1, frames=FRAMES + 10)
    examples = made(config(remix=0.0), song)
    for index in range(80):
        examples[index]
    starts = {start for _, start, _ in song.asked}
    assert starts <= set(range(11))
    assert len(starts) >= 9


def test_songs_are_drawn_by_weight_and_length() -> None:
    songs = (
        Ramps(name="a", number=1, frames=4 * FRAMES),
        Ramps(name="b", number=2, frames=2 * FRAMES),
        Ramps(name="c", number=3, frames=2 * FRAMES),
    )
    examples = made(config(remix=1.0), *songs, weights=(1.0, 1.0, 3.0))
    drawn = np.concatenate([numbers(examples[index]) for index in range(150)])
    share = [float(np.mean(drawn == number)) for number in (1, 2, 3)]
    assert share == pytest.approx([4 / 12, 2 / 12, 6 / 12], abs=0.1)  # five deviations of 600 draws


def test_a_stem_that_a_song_does_not_know_is_never_asked_of_it() -> None:
    drums = Ramps(name="drums only", number=1, frames=5 * FRAMES, stems=("drums",))
    rest = Ramps(name="rest", number=2, frames=2 * FRAMES, stems=("bass", "other", "vocals"))
    for remix in (0.0, 1.0):
        examples = made(config(remix=remix), drums, rest)
        for index in range(16):
            found = numbers(examples[index]).tolist()
            # Remixed, each from a song that knows it; otherwise from one that knows the stem whose turn it is.
            assert found == ([1, 2, 2, 2] if remix else [1, 0, 0, 0] if index % 4 == 0 else [0, 2, 2, 2])


def test_a_stem_that_no_song_has_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no song of the training data has other") as caught:
        made(config(), Ramps(name="a", number=1, frames=FRAMES, stems=("drums", "bass")))
    assert caught.value.code == "config.train"


class Numbers(torch.utils.data.Dataset[torch.Tensor]):
    """Instead of examples: their numbers."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


def order(settings_: TrainConfig, first: int, rank: int = 0, processes: int = 1) -> list[list[int]]:
    examples: Any = Numbers()
    return [batch.tolist() for batch in batches(settings_, examples, first, rank=rank, processes=processes)]


@given(
    batch=st.integers(1, 4),
    accumulate=st.integers(1, 3),
    processes=st.integers(1, 3),
    steps=st.integers(1, 5),
    done=st.integers(0, 5),
)
@settings(max_examples=30, deadline=None)
def test_the_order_goes_on_where_it_was_and_ranks_share_it(
    batch: int, accumulate: int, processes: int, steps: int, done: int
) -> None:
    done = min(done, steps)
    settings_ = config(batch=batch, accumulate=accumulate, steps=steps)
    ranks = [order(settings_, 0, rank, processes) for rank in range(processes)]
    for rank, whole in enumerate(ranks):
        assert len(whole) == steps * accumulate
        assert order(settings_, done, rank, processes) == whole[done * accumulate :]
    per_step = batch * accumulate * processes
    for step in range(steps):
        seen = [i for whole in ranks for one in whole[step * accumulate : (step + 1) * accumulate] for i in one]
        # Each example once, and the same ones however the step is shared.
        assert sorted(seen) == list(range(step * per_step, (step + 1) * per_step))
    longer = config(batch=batch, accumulate=accumulate, steps=steps + 2)
    assert order(longer, 0, 0, processes)[: steps * accumulate] == ranks[0]


def test_the_rate_rises_stays_and_falls() -> None:
    settings_ = OptimiserConfig(learning_rate=0.1, warmup_steps=4, decay_steps=3)
    rates = [learning_rate(step, 12, settings_) for step in range(12)]
    expected = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert rates == pytest.approx([0.1 * part for part in expected])


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    settings_ = OptimiserConfig(warmup_steps=3, decay_steps=5)
    short, long = ([learning_rate(step, steps, settings_) for step in range(steps)] for steps in (20, 40))
    assert short[:15] == long[:15]
    assert short[15] < long[15]


@given(warmup=st.integers(0, 50), decay=st.integers(0, 50), steps=st.integers(1, 60), rate=st.floats(1e-6, 1.0))
@settings(max_examples=60, deadline=None)
def test_the_rate_is_never_zero_nor_above_the_plateau(warmup: int, decay: int, steps: int, rate: float) -> None:
    settings_ = OptimiserConfig(learning_rate=rate, warmup_steps=warmup, decay_steps=decay)
    rates = [learning_rate(step, steps, settings_) for step in range(steps)]
    assert all(0 < value <= rate for value in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    fall = rates[::-1][: steps - top]
    assert fall == sorted(fall)


def test_without_rise_and_fall_it_is_flat() -> None:
    settings_ = OptimiserConfig(learning_rate=0.5, warmup_steps=0, decay_steps=0)
    assert {learning_rate(step, 7, settings_) for step in range(7)} == {0.5}
