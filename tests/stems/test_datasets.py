"""Datasets: what is read is what the files hold, whatever their format; what can't be told is refused by name."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import mido
import msgspec
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.audio import Float32
from revithion_stems.errors import ConfigError, EngineError, InputError, OutputError, RequestError
from revithion_stems.quality import sdr_db
from revithion_stems.training.datasets import midi_dataset
from revithion_stems.training.datasets.dataset_config import DatasetConfig
from revithion_stems.training.datasets.dataset_file import (
    DatasetFile,
    publish_song,
    read_dataset_file,
    write_dataset_file,
)
from revithion_stems.training.datasets.dataset_progress import DatasetProgress
from revithion_stems.training.datasets.decoded_cache import DecodedCache
from revithion_stems.training.datasets.drum_kit import read_drum_kit
from revithion_stems.training.datasets.folder import assign_files, open_folder
from revithion_stems.training.datasets.midi_dataset import plan_renderings, render_midi
from revithion_stems.training.datasets.midi_score import Hit, read_score
from revithion_stems.training.datasets.multitrack import Multitrack, Origin
from revithion_stems.training.datasets.musdb_dataset import open_musdb
from revithion_stems.training.datasets.opening import open_dataset
from revithion_stems.training.datasets.teacher_dataset import find_lessons, pseudo_label

RATE = 8000
STEMS = ("drums", "bass", "other", "vocals")
SOUNDFONTS = sorted(Path("/usr/share/sounds/sf2").glob("*.sf2"), key=lambda path: path.stat().st_size)
MUSIC = Path(__file__).resolve().parents[3] / "shared" / "music"

needs_fluidsynth = pytest.mark.skipif(
    not shutil.which("fluidsynth") or not SOUNDFONTS, reason="fluidsynth or a soundfont is not installed"
)
needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def noise(frames: int, channels: int = 2, *, seed: int = 0, level: float = 0.1) -> Float32:
    """Noise on the grid of 16 bits."""
    samples = level * np.random.default_rng(seed).standard_normal((channels, frames))
    return (np.rint(samples * 32768) / 32768).astype(np.float32)


def write(path: Path, samples: Float32, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T, rate, subtype=subtype)
    return path


def make_song(folder: Path, stems: Mapping[str, Float32], suffix: str = ".wav", rate: int = RATE) -> None:
    for name, samples in stems.items():
        write(folder / f"{name}{suffix}", samples, rate)


def open_songs(path: Path, cache: Path, stems: tuple[str, ...] = STEMS) -> dict[str, Multitrack]:
    return {song.name: song for song in open_folder(path, stems=stems, sample_rate=RATE, cache=cache)}


def whole(song: Multitrack, stem: str) -> Float32:
    return song.read(stem, 0, song.frames)


# The cache


@settings(deadline=None, max_examples=25)
@given(
    frames=st.integers(1, 70_000),
    channels=st.sampled_from([1, 2]),
    exponent=st.integers(-40, 40),
    seed=st.integers(0, 99),
)
def test_what_the_cache_gives_back_is_within_its_promise(
    frames: int, channels: int, exponent: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    samples = noise(frames, channels, seed=seed) * np.float32(2.0**exponent)
    samples[:, 0] = 0.3 * 2.0**exponent
    cache = DecodedCache(tmp_path_factory.mktemp("cache"), sample_rate=RATE)
    blocks = [samples[:, at : at + 65_536] for at in range(0, frames, 65_536)]
    stored = cache.add("ab" * 32, blocks, channels=channels, sample_rate=RATE, origin=Path("x"))
    got = stored.read(0, frames)
    assert got.shape == (2, frames)
    assert np.abs(got - samples).max() <= np.abs(samples).max() * 2.0**-15
    assert np.array_equal(got[0], got[1]) or channels == 2
    assert cache.find("ab" * 32) == stored


def test_files_of_16_bits_come_back_bit_for_bit(tmp_path: Path) -> None:
    samples = noise(30_000)
    samples[0, :2] = [-1, 32767 / 32768]
    path = write(tmp_path / "a.flac", samples)
    stored, notice = DecodedCache(tmp_path / "cache", sample_rate=RATE).file(path)
    assert notice is None
    np.testing.assert_array_equal(stored.read(0, 30_000), samples)
    np.testing.assert_array_equal(stored.read(29_000, 2000)[:, :1000], samples[:, 29_000:])
    assert not stored.read(29_000, 2000)[:, 1000:].any()
    assert not stored.read(40_000, 10).any()


def test_resampling_keeps_every_moment_in_its_place(tmp_path: Path) -> None:
    rates, hz = (44_100, RATE), 440
    tones = [np.sin(2 * np.pi * hz / rate * np.arange(2 * rate))[None].astype(np.float32) / 2 for rate in rates]
    path = write(tmp_path / "tone.wav", tones[0], rates[0], "FLOAT")
    stored, _ = DecodedCache(tmp_path / "cache", sample_rate=RATE).file(path)
    assert stored.frames == 2 * RATE
    inside = slice(400, -400)  # at its ends the tone is a click
    np.testing.assert_allclose(stored.read(0, stored.frames)[1, inside], tones[1][0, inside], atol=1e-4)


def test_a_changed_file_is_decoded_anew_and_a_copy_is_not(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache", sample_rate=RATE)
    path = write(tmp_path / "a.wav", noise(500))
    first, _ = cache.file(path)
    shutil.copy(path, tmp_path / "b.wav")
    assert cache.file(tmp_path / "b.wav")[0] == first
    write(path, noise(500, seed=1))
    assert cache.file(path)[0].path != first.path
    assert not [file for file in cache.folder.rglob("*") if file.suffix == ".part"]


@pytest.mark.parametrize("damage", ["cut", "other", "empty"])
def test_a_damaged_cache_is_made_anew(damage: str, tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path / "cache", sample_rate=RATE)
    source = write(tmp_path / "a.wav", noise(500))
    stored, _ = cache.file(source)
    data = {"cut": stored.path.read_bytes()[:-1], "other": b"\x93NUMPY\x03\x00", "empty": b""}[damage]
    stored.path.write_bytes(data)
    with pytest.raises(InputError, match="training cache"):
        stored.read(0, 500)
    again, _ = cache.file(source)
    np.testing.assert_array_equal(again.read(0, 500), noise(500))


def test_reading_is_fast(tmp_path: Path) -> None:
    cache = DecodedCache(tmp_path, sample_rate=44_100)
    stored = cache.add("0" * 64, [noise(30 * 44_100)], channels=2, sample_rate=44_100, origin=Path("x"))
    begun = time.process_time()
    for at in range(50):
        stored.read(at * 20_000, 3 * 44_100)
    # Under 1 ms on a quiet machine; the rest is room for busy ones.
    assert (time.process_time() - begun) / 50 < 0.01


# Folders


def test_a_folder_of_songs(tmp_path: Path) -> None:
    parts = {name: noise(frames, seed=seed) for seed, (name, frames) in enumerate(
        {"Drums": 900, "vox": 1000, "other": 800, "guitar": 700, "Piano": 300, "mixture": 2000}.items()
    )}  # fmt: skip
    make_song(tmp_path / "in" / "Song é", parts)
    make_song(tmp_path / "in" / "another", {"bass": noise(50, 1)}, ".flac")
    (tmp_path / "in" / "pictures").mkdir()
    (tmp_path / "in" / "Song é" / "cover.png").write_bytes(b"no audio")
    seen: list[DatasetProgress] = []
    songs = open_folder(
        tmp_path / "in", stems=STEMS, sample_rate=RATE, cache=tmp_path / "cache", on_progress=seen.append
    )
    assert [song.name for song in songs] == ["Song é", "another"]
    assert [(event.done, event.total) for event in seen] == [(1, 2), (2, 2)]
    song: Multitrack = songs[0]
    assert (song.frames, song.sample_rate, song.stems) == (1000, RATE, STEMS)
    assert song.origin == Origin(dataset="in", licence="not stated", commercial_use=False)
    np.testing.assert_array_equal(whole(song, "vocals"), parts["vox"])
    np.testing.assert_array_equal(whole(song, "drums")[:, :900], parts["Drums"])
    assert not song.read("drums", 900, 100).any()
    assert not whole(song, "bass").any()
    rest = np.zeros((2, 1000), np.float32)
    for name in ("other", "guitar", "Piano"):
        rest[:, : parts[name].shape[1]] += parts[name]
    np.testing.assert_allclose(whole(song, "other"), rest, atol=1e-7)
    np.testing.assert_array_equal(song.read("other", 250, 100), whole(song, "other")[:, 250:350])
    np.testing.assert_array_equal(whole(songs[1], "bass")[0], whole(songs[1], "bass")[1])
    clone: Multitrack = pickle.loads(pickle.dumps(song))
    np.testing.assert_array_equal(whole(clone, "other"), whole(song, "other"))
    for stem, start, frames in [("mix", 0, 1), ("bass", -1, 1), ("bass", 1000, 1), ("bass", 0, 1001)]:
        with pytest.raises(RequestError, match="Song é"):
            song.read(stem, start, frames)


FULL, PARTIAL = DatasetFile(), DatasetFile(complete=False)
ASSIGNMENTS = [
    (("vocals", "drums"), STEMS, FULL, {"drums": "drums", "bass": "", "other": "", "vocals": "vocals"}),
    (("vocals", "drums"), STEMS, PARTIAL, {"drums": "drums", "vocals": "vocals"}),
    (("vocals", "no_vocals"), STEMS, FULL, {"vocals": "vocals", "accompaniment": "no_vocals"}),
    (("instrumental",), STEMS, FULL, {"vocals": "", "accompaniment": "instrumental"}),
    (("instrumental",), STEMS, PARTIAL, {"accompaniment": "instrumental"}),
    (
        ("vocals", "accompaniment", "bass"),
        STEMS,
        FULL,
        {"drums": "", "bass": "bass", "other": "", "vocals": "vocals"},
    ),
    (
        ("vocals", "drums", "guitar", "mix"),
        ("vocals", "accompaniment"),
        FULL,
        {"vocals": "vocals", "accompaniment": "drums guitar"},
    ),
    (("guitar", "bass"), (*STEMS, "guitar"), PARTIAL, {"bass": "bass", "guitar": "guitar"}),
    (
        ("gtr", "gtr2", "other", "click"),
        ("other",),
        DatasetFile(stems={"GTR": "other", "gtr2": "other", "click": ""}),
        {"other": "gtr gtr2 other"},
    ),
]


@pytest.mark.parametrize(("files", "stems", "about", "expected"), ASSIGNMENTS)
def test_files_become_stems(
    files: tuple[str, ...], stems: tuple[str, ...], about: DatasetFile, expected: dict[str, str]
) -> None:
    assigned = assign_files(tuple(Path(f"{name}.wav") for name in files), stems, about)
    assert {stem: " ".join(sorted(file.stem for file in of_stem)) for stem, of_stem in assigned.items()} == expected


@pytest.mark.parametrize(
    ("files", "stems", "code"),
    [
        (("vocls.wav",), STEMS, "input.unknown_stem"),
        (("guitar.wav",), ("drums", "vocals"), "input.unknown_stem"),
        (("vocals.wav", "vox.wav"), STEMS, "input.ambiguous"),
        (("bass.wav", "Bass.flac"), STEMS, "input.ambiguous"),
    ],
)
def test_names_that_mean_nothing_or_the_same_are_refused(
    files: tuple[str, ...], stems: tuple[str, ...], code: str
) -> None:
    with pytest.raises(InputError, match=files[0]) as error:
        assign_files(tuple(map(Path, files)), stems, DatasetFile())
    assert error.value.code == code


def test_what_is_unusable_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_songs(tmp_path / "nowhere", tmp_path / "cache")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="can't be read as a folder"):
        open_songs(tmp_path / "file", tmp_path / "cache")
    (tmp_path / "in" / "song").mkdir(parents=True)
    with pytest.raises(InputError, match="no songs"):
        open_songs(tmp_path / "in", tmp_path / "cache")
    bad = tmp_path / "in" / "song" / "bass.wav"
    bad.write_bytes(b"RIFF but not really")
    with pytest.raises(InputError, match=r"bass\.wav"):
        open_songs(tmp_path / "in", tmp_path / "cache")
    write(bad, noise(100, 3))
    with pytest.raises(InputError, match="3 channels"):
        open_songs(tmp_path / "in", tmp_path / "cache")


def test_dataset_toml_says_where_music_comes_from(tmp_path: Path) -> None:
    make_song(tmp_path / "song", {"bass": noise(10)})
    about = DatasetFile(
        name='A "name"\n\x7f\\', licence="CC BY 4.0", commercial_use=True, complete=False, stems={"g t": "other"}
    )
    write_dataset_file(tmp_path, about)
    assert read_dataset_file(tmp_path) == about
    song = open_songs(tmp_path, tmp_path / "cache")["song"]
    assert song.origin == Origin(dataset='A "name"\n\x7f\\', licence="CC BY 4.0", commercial_use=True)
    assert song.stems == ("bass",)
    for text in ("name = 3", "nmae = 'x'", "name = ", "\xff"):
        (tmp_path / "dataset.toml").write_text(text, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"dataset\.toml"):
            read_dataset_file(tmp_path)


def test_real_music_is_read_as_it_is(tmp_path: Path) -> None:
    if not MUSIC.is_dir():
        pytest.skip("../shared/music is not here")
    song = open_folder(
        MUSIC / "dev", stems=STEMS, sample_rate=44_100, cache=tmp_path, choose=lambda name: name == "falcon69"
    )[0]
    samples, rate = soundfile.read(MUSIC / "dev" / "falcon69" / "drums.flac", dtype="float32", always_2d=True)
    assert rate == 44_100
    assert sdr_db(samples.T, song.read("drums", 0, len(samples))) > 70


# MUSDB


def stem_mp4(path: Path, stems: Mapping[str, Float32], rate: int) -> None:
    """A file as MUSDB18 has it: mix, drums, bass, other, vocals as AAC."""
    path.parent.mkdir(parents=True)
    tracks = [sum(stems.values()), *(stems[name] for name in STEMS)]
    inputs: list[str] = []
    for number, samples in enumerate(tracks):
        file = write(path.parent.parent / "tracks" / f"{number}.wav", np.asarray(samples, np.float32), rate)
        inputs += ["-i", str(file)]
    maps = [part for number in range(5) for part in ("-map", f"{number}:a")]
    command = ["ffmpeg", "-v", "error", *inputs, *maps, "-c:a", "aac", "-b:a", "256k", "-f", "mp4", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@needs_ffmpeg
def test_musdb18_as_stem_mp4(tmp_path: Path) -> None:
    pytest.importorskip("musdb")
    rate = 44_100
    slow = np.ones(32) / 32
    stems = {
        name: np.stack([np.convolve(side, slow, "same") for side in noise(rate, seed=seed, level=0.5)]).astype(
            np.float32
        )
        for seed, name in enumerate(STEMS)
    }
    stem_mp4(tmp_path / "db" / "train" / "A - B.stem.mp4", stems, rate)
    (tmp_path / "db" / "test").mkdir()

    def songs() -> tuple[Multitrack, ...]:
        return open_musdb(tmp_path / "db", subset="train", stems=STEMS, sample_rate=rate, cache=tmp_path / "cache")

    (song,) = songs()
    assert (song.name, song.stems, song.origin.commercial_use) == ("A - B", STEMS, False)
    for name, samples in stems.items():
        assert sdr_db(samples, song.read(name, 0, rate)) > 15  # as AAC has it, and not a frame later
    assert songs() == (song,)
    with pytest.raises(InputError, match="no tracks"):
        open_musdb(tmp_path / "db", subset="test", stems=STEMS, sample_rate=rate, cache=tmp_path / "cache")
    (tmp_path / "db" / "train" / "A - B.stem.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and nothing else")
    with pytest.raises(InputError, match="A - B"):
        songs()


def test_musdb18_hq_and_its_split(tmp_path: Path) -> None:
    pytest.importorskip("musdb")
    held_out = "Leaf - Summerghost"  # one of the 14 songs that the package puts into `valid`
    for seed, name in enumerate((held_out, "X - Y")):
        make_song(tmp_path / "train" / name, {stem: noise(300, seed=seed) for stem in (*STEMS, "mixture")})

    def names(split: str | None) -> list[str]:
        songs = open_musdb(
            tmp_path, subset="train", split=split, is_wav=True, stems=STEMS, sample_rate=RATE, cache=tmp_path / "c"
        )
        assert all(np.array_equal(whole(song, "bass"), noise(300, seed=song.name == "X - Y")) for song in songs)
        return [song.name for song in songs]

    assert (names("train"), names("valid"), names(None)) == (["X - Y"], [held_out], [held_out, "X - Y"])
    (song,) = open_musdb(
        tmp_path,
        subset="train",
        split="train",
        is_wav=True,
        stems=("vocals", "accompaniment"),
        sample_rate=RATE,
        cache=tmp_path / "c",
    )
    np.testing.assert_allclose(whole(song, "accompaniment"), 3 * noise(300, seed=1), atol=1e-6)
    with pytest.raises(RequestError, match="split"):
        open_musdb(tmp_path, subset="test", split="valid", stems=STEMS, sample_rate=RATE, cache=tmp_path / "c")


def test_without_the_package_musdb_people_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "musdb", None)
    with pytest.raises(EngineError, match="musdb") as error:
        open_musdb(tmp_path, subset="test", stems=STEMS, sample_rate=RATE, cache=tmp_path)
    assert "revithion-stems[train]" in error.value.hint


# MIDI


def make_midi(path: Path, *, with_voice: bool = True) -> Path:
    """One second per stem: channel 10, a bass, a piano that turns into a choir while a note sounds."""
    file = mido.MidiFile(ticks_per_beat=480)
    meta, band = mido.MidiTrack(), mido.MidiTrack()
    file.tracks += [meta, band]
    meta.append(mido.MetaMessage("set_tempo", tempo=250_000))

    def note(channel: int, key: int, ticks: int = 480) -> None:
        band.append(mido.Message("note_on", channel=channel, note=key, velocity=100))
        band.append(mido.Message("note_off", channel=channel, note=key, time=ticks))

    band.append(mido.Message("program_change", channel=1, program=33))
    note(9, 38)
    note(1, 40)
    band.append(mido.Message("note_on", channel=2, note=60, velocity=90))
    if with_voice:
        band.append(mido.Message("program_change", channel=2, program=52))
        note(2, 64)
    band.append(mido.Message("note_on", channel=2, note=60, velocity=0, time=480))
    file.save(path)
    return path


def test_a_score_is_taken_apart_by_programs(tmp_path: Path) -> None:
    score = read_score(make_midi(tmp_path / "a.mid"))
    assert score.stems == ("drums", "bass", "other", "vocals")
    assert score.duration_s == pytest.approx(4 * 0.25)
    score.write(tmp_path / "all.mid", None)
    assert read_score(tmp_path / "all.mid").messages[-1] == score.messages[-1]
    began: list[tuple[int, int]] = []
    for stem in score.stems:
        score.write(tmp_path / "stem.mid", stem, transpose=2, tempo=2.0)
        part = read_score(tmp_path / "stem.mid")
        assert part.stems == (stem,)
        assert part.duration_s == pytest.approx(score.duration_s / 2)
        began += [(at, message.note) for at, message, of_stem in part.messages if of_stem]
    assert began == [(0, 38), (480, 42), (960, 62), (960, 66)]
    assert score.hits() == (Hit(at_s=0.0, key=38, velocity=100 / 127),)


@pytest.mark.parametrize("content", [b"", b"not MIDI", b"MThd\0\0\0\x06\0\1\0\1\0\x60MTrk\0\0\0\x04\0\xff\x2f\0"])
def test_scores_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.mid"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.mid"):
        read_score(path)


@settings(deadline=None, max_examples=60)
@given(position=st.integers(0, 200), value=st.integers(0, 255), cut=st.integers(0, 200))
def test_no_damage_to_a_score_gets_past_our_errors(
    position: int, value: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("midi")
    data = bytearray(make_midi(folder / "a.mid").read_bytes())
    data[position % len(data)] = value
    (folder / "b.mid").write_bytes(data[: len(data) - cut // 10])
    try:
        score = read_score(folder / "b.mid")
    except InputError:
        return
    score.write(folder / "c.mid", score.stems[0], transpose=-3, tempo=0.9)
    score.hits()


def test_plans_follow_from_the_seed_and_grow_at_the_end() -> None:
    midis, fonts = [Path("a.mid"), Path("b.mid")], [Path("x.sf2"), Path("y.sf2")]
    kits = [Path("kit/drumkit.xml")]
    plans = plan_renderings(midis, fonts, kits, seed=1, songs=20)
    assert plan_renderings(midis, fonts, kits, seed=1, songs=6) == plans[:6]
    assert plan_renderings(midis, fonts, kits, seed=2, songs=20) != plans
    assert len({plan.name for plan in plans}) == 20
    assert {plan.drum_kit for plan in plans} == {None, kits[0]}
    assert len(plan_renderings(midis, fonts, seed=1)) == 2


@needs_fluidsynth
def test_midi_is_rendered_and_what_is_there_is_kept(tmp_path: Path) -> None:
    make_midi(tmp_path / "a.mid", with_voice=False)
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    seen: list[DatasetProgress] = []
    kit = make_kit(tmp_path / "kit")
    arguments = ([tmp_path / "a.mid", tmp_path / "bad.mid"], SOUNDFONTS[:1], tmp_path / "out")

    def render() -> None:
        render_midi(*arguments, seed=0, songs=5, sample_rate=RATE, drum_kits=[kit], on_progress=seen.append)

    render()
    assert [event.notice is None for event in seen] == [True, False, True, False, True]
    songs = open_songs(tmp_path / "out", tmp_path / "cache")
    assert len(songs) == 3
    for song in songs.values():
        assert song.origin.labels == "rendered"
        assert song.stems == STEMS
        assert not whole(song, "vocals").any()
        assert all(np.abs(whole(song, stem)).max() > 0.01 for stem in ("drums", "bass", "other"))
        assert np.abs(sum(whole(song, stem) for stem in STEMS)).max() <= 0.91
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.flac")}
    shutil.rmtree(tmp_path / "out" / next(iter(songs)))
    render()
    after = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.flac")}
    assert before.keys() == after.keys()
    assert sum(before[file] == after[file] for file in before) == len(before) - 3
    again = open_songs(tmp_path / "out", tmp_path / "cache")
    assert list(again.values()) == list(songs.values())  # the cache knows the same bytes
    assert not [entry for entry in (tmp_path / "out").iterdir() if entry.name.startswith(".")]


@needs_fluidsynth
def test_rendered_stems_sum_to_the_rendered_song(tmp_path: Path) -> None:
    rate = 44_100
    score = read_score(make_midi(tmp_path / "a.mid"))
    plan = plan_renderings([tmp_path / "a.mid"], SOUNDFONTS[:1], seed=3)[0]
    sums: list[Float32] = []
    for stems in (score.stems, (None,)):
        total = np.zeros((2, 5 * rate), np.float32)
        for stem in stems:
            score.write(tmp_path / "part.mid", stem)
            midi_dataset._synthesise(tmp_path / "part.mid", tmp_path / "part.wav", plan, tmp_path, rate)
            samples = soundfile.read(tmp_path / "part.wav", dtype="float32")[0].T[:, : 5 * rate]
            total[:, : samples.shape[1]] += samples
        sums.append(total[:, :rate])
    assert sdr_db(sums[1], sums[0]) > 50  # a voice that decays may be taken away earlier


def test_without_fluidsynth_people_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    make_midi(tmp_path / "a.mid")
    (tmp_path / "a.sf2").write_bytes(b"")
    with pytest.raises(EngineError, match="fluidsynth") as error:
        render_midi([tmp_path / "a.mid"], [tmp_path / "a.sf2"], tmp_path / "out", seed=0)
    assert error.value.code == "engine.missing"
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["dataset.toml"]


def make_kit(folder: Path) -> Path:
    """A kick in two layers and a snare; a third drum's file is missing, a fourth's lies outside."""
    write(folder / "soft.wav", np.full((1, 40), 0.25, np.float32))
    write(folder / "hard.wav", np.full((1, 60), 0.5, np.float32))
    write(folder / "snare.wav", noise(800, level=0.2), 2 * RATE)
    layers = {
        35: [("soft.wav", 0.0, 0.5), ("hard.wav", 0.5, 1.0)],
        38: [("snare.wav", 0.0, 1.0)],
        49: [("gone.wav", 0.0, 1.0)],
        51: [("../outside.wav", 0.0, 1.0)],
    }
    write(folder.parent / "outside.wav", noise(10))

    def layer(name: str, low: float, high: float) -> str:
        return f"<layer><filename>{name}</filename><min>{low}</min><max>{high}</max><gain>1</gain></layer>"

    text = "".join(
        f"<instrument><midiOutNote>{key}</midiOutNote><volume>0.5</volume>{''.join(layer(*one) for one in files)}"
        "</instrument>"
        for key, files in layers.items()
    )
    path = folder / "drumkit.xml"
    path.write_text(f"<drumkit_info><instrumentList>{text}</instrumentList></drumkit_info>", encoding="utf-8")
    return path


def test_drum_kits_play_by_key_and_velocity(tmp_path: Path) -> None:
    kit = read_drum_kit(make_kit(tmp_path / "kit"), RATE)
    assert sorted(kit.instruments) == [35, 38]
    played = kit.play([Hit(at_s=0.0, key=35, velocity=0.25), Hit(at_s=0.01, key=36, velocity=1.0)])
    assert played is not None
    assert played.shape == (2, 80 + 60)
    np.testing.assert_allclose(played[:, :40], 0.25 * 0.5 * 0.25, atol=1e-4)
    np.testing.assert_allclose(played[:, 80:], 0.5 * 0.5, atol=1e-4)
    snare = kit.play([Hit(at_s=0.0, key=40, velocity=1.0)])
    assert snare is not None
    assert snare.shape == (2, 400)
    assert kit.play([Hit(at_s=0.0, key=81, velocity=1.0)]) is None
    (tmp_path / "kit" / "drumkit.xml").write_text("<drumkit_info/>", encoding="utf-8")
    with pytest.raises(InputError, match=r"drumkit\.xml"):
        read_drum_kit(tmp_path / "kit" / "drumkit.xml", RATE)


def test_old_kits_without_layers_and_keys_go_by_their_names(tmp_path: Path) -> None:
    make_kit(tmp_path)
    names = {"Kick 1": "hard", "Kick 2": "soft", "Snare": "snare", "Closed Hat": "soft", "Cat": "hard"}
    drums = "".join(
        f"<instrument><filename>{file}.wav</filename><name>{name}</name><midiOutNote>60</midiOutNote></instrument>"
        for name, file in names.items()
    )
    (tmp_path / "drumkit.xml").write_text(f"<drumkit_info>{drums}</drumkit_info>", encoding="utf-8")
    kit = read_drum_kit(tmp_path / "drumkit.xml", RATE)
    lengths = {key: layers[0].samples.shape[1] for key, layers in kit.instruments.items()}
    assert lengths == {36: 60, 38: 400, 42: 40, 40: 60}


def test_of_two_processes_that_make_a_song_the_first_one_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / f"{name}.wav", noise(10))
    publish_song(tmp_path / "a", tmp_path / "song")
    publish_song(tmp_path / "b", tmp_path / "song")
    assert [file.name for file in (tmp_path / "song").iterdir()] == ["a.wav"]
    with pytest.raises(OutputError, match="nowhere"):
        publish_song(tmp_path / "b", tmp_path / "nowhere" / "song")


# Teachers


def test_a_teacher_labels_songs_that_add_up_to_the_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_CACHE_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    mix, guitar = noise(RATE), noise(RATE, seed=1)
    make_song(tmp_path / "in" / "a song", {"song": mix, "guitar": guitar})
    make_song(tmp_path / "in" / "no song", {"guitar": guitar})
    seen: list[DatasetProgress] = []

    def label() -> None:
        pseudo_label(
            tmp_path / "in",
            "dsp",
            tmp_path / "out",
            parts={"Guitar": "other"},
            licence="CC BY-SA 3.0",
            commercial_use=True,
            on_progress=seen.append,
        )

    label()
    assert [event.song for event in seen] == ["a song"]
    song = open_songs(tmp_path / "out", tmp_path / "cache")["a song"]
    assert song.origin.labels == "dsp"
    assert "CC BY-SA 3.0" in song.origin.licence
    assert "MIT" in song.origin.licence
    assert song.origin.commercial_use
    total = sum(whole(song, stem) for stem in song.stems)
    np.testing.assert_allclose(total, mix + guitar, atol=4 * 2.0**-15)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.flac")}
    label()
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.flac")} == before
    assert not [entry for entry in (tmp_path / "out").iterdir() if entry.name.startswith(".")]


def test_where_lessons_are_found(tmp_path: Path) -> None:
    for name in ("b.wav", "a.flac", "sub/a.wav", "sub/song/x.wav"):
        write(tmp_path / name, noise(10))
    assert [lesson.name for lesson in find_lessons([tmp_path], {})] == ["a", "b"]
    with pytest.raises(RequestError, match="both become"):
        find_lessons([tmp_path, tmp_path / "sub"], {})
    with pytest.raises(InputError, match="no songs"):
        find_lessons([tmp_path / "sub" / "song"], {"guitar": "other"})
    with pytest.raises(InputError, match="nowhere"):
        find_lessons([tmp_path / "nowhere"], {})


# Configuration


def as_path(kind: type[Path], value: str) -> Path:
    return kind(value)


def test_datasets_of_a_configuration(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two", "three")):
        make_song(tmp_path / "data" / name, {"bass": noise(100, seed=number)})
    tables = [
        {"kind": "folder", "path": "data", "songs": ["t*"], "without": ["three"]},
        {"kind": "teacher", "path": "data", "weight": 0.5, "options": {"model": "dsp"}},
    ]
    configs = [config.rooted(tmp_path) for config in msgspec.convert(tables, list[DatasetConfig], dec_hook=as_path)]
    songs = [song for config in configs for song in open_dataset(config, STEMS, RATE, tmp_path / "cache")]
    assert [song.name for song in songs] == ["two", "one", "three", "two"]
    with pytest.raises(InputError, match=r"wanted \(it has: one, three, two\)"):
        open_dataset(msgspec.structs.replace(configs[0], songs=("x",)), STEMS, RATE, tmp_path / "cache")


def test_paths_in_options_start_from_the_configuration(tmp_path: Path) -> None:
    config = DatasetConfig(kind="midi", path=Path("out"), options={"midi": ["a", "/b/*.mid"], "seed": 3}).rooted(
        tmp_path
    )
    assert config.path == tmp_path / "out"
    assert config.options == {"midi": [str(tmp_path / "a"), str(Path("/b/*.mid"))], "seed": 3}


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        ("folder", {"subset": "train"}, "subset"),
        ("musdb", {"split": "dev"}, "split"),
        ("midi", {"seed": -1}, "seed"),
        ("midi", {"midi": ["nothing*.mid"]}, "nothing"),
        ("teacher", {"mixes": ["x"]}, "model"),
        ("teacher", {"mixs": ["x"]}, "mixs"),
    ],
)
def test_options_that_are_wrong_are_named(kind: str, options: dict[str, object], named: str, tmp_path: Path) -> None:
    config = msgspec.convert({"kind": kind, "path": str(tmp_path), "options": options}, DatasetConfig, dec_hook=as_path)
    with pytest.raises(ConfigError, match=named):
        open_dataset(config, STEMS, RATE, tmp_path / "cache")
