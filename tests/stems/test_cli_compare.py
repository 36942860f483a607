"""The compare command through its real door: files in, table or JSON and an exit status out."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from revithion_stems import BitDepth, Container, OutputFormat, OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.cli.main import main
from revithion_stems.comparison import compare
from revithion_stems.errors import InputError, RequestError

RATE = 8000


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("COLUMNS", "140")


def grid_noise(seed: int, seconds: float = 3.5, channels: int = 2) -> np.ndarray:
    """Noise on the 24-bit grid, so that files and sums hold it exactly."""
    noise = np.random.default_rng(seed).uniform(-0.2, 0.2, (channels, int(seconds * RATE)))
    return (np.round(noise * 2**23) / 2**23).astype(np.float32)


def write(path, samples, rate=RATE, subtype="FLOAT"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples.T, rate, subtype=subtype)
    return path


def run(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["compare", *map(str, args)])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture
def song(tmp_path):
    stems = {name: grid_noise(seed) for seed, name in enumerate(("vocals", "drums", "bass", "other"))}
    for name, samples in stems.items():
        write(tmp_path / "song" / f"{name}.wav", samples)
    write(tmp_path / "song.wav", sum(stems.values()))
    return tmp_path


def test_stems_that_sum_to_the_mix_null_bit_for_bit(capsys, song):
    status, out, err = run(capsys, song / "song.wav", *sorted((song / "song").glob("*.wav")), "--json")
    data = json.loads(out)
    assert (status, err) == (0, "")
    assert data["type"] == "Comparison"
    assert [row["name"] for row in data["rows"]] == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]
    assert data["sum"]["identical"] is True
    assert data["sum"]["null_db"] is None  # −inf has no JSON number; "identical" says it
    assert data["sum"]["lag_frames"] == 0
    assert data["sum"]["windows"] == 3
    assert data["rows"][0]["identical"] is False
    assert data["mean"] is None


def test_a_folder_as_estimate_means_the_audio_files_in_it(capsys, song):
    (song / "song" / "notes.txt").write_text("not audio")
    by_folder = run(capsys, song / "song.wav", song / "song", "--json")
    by_files = run(capsys, song / "song.wav", *sorted((song / "song").glob("*.wav")), "--json")
    assert by_folder == by_files


def test_table_for_people(capsys, song):
    status, out, _ = run(capsys, song / "song.wav", song / "song")
    assert status == 0
    assert "sum of all" in out
    assert "bit-exact" in out
    assert "vocals.wav" in out
    assert "SDR median" in out


def test_known_error_gives_known_figures_and_lag(capsys, tmp_path):
    reference = grid_noise(1)
    late = np.concatenate([np.zeros((2, 25), np.float32), reference[:, :-25]], axis=1)
    status, out, _ = run(
        capsys,
        write(tmp_path / "reference.wav", reference),
        write(tmp_path / "half.wav", reference / 2),
        write(tmp_path / "late.flac", late, subtype="PCM_24"),
        "--json",
    )
    half, delayed = json.loads(out)["rows"]
    assert status == 0
    assert half["sdr_db"] == half["sdr_median_db"] == pytest.approx(20 * math.log10(2))
    assert half["null_db"] == pytest.approx(-20 * math.log10(2))
    assert half["si_sdr_db"] is None or half["si_sdr_db"] > 140
    assert delayed["lag_frames"] == 25
    assert delayed["lag_correlation"] == pytest.approx(1.0)


def test_folders_are_matched_by_name_with_a_mean_row(capsys, song):
    truth = song / "truth"
    for path in (song / "song").glob("*.wav"):
        samples, _ = soundfile.read(path, dtype="float32")
        write(truth / f"{path.stem}.flac", samples.T * 2, subtype="PCM_24")
    write(truth / "piano.flac", grid_noise(9), subtype="PCM_24")
    status, out, err = run(capsys, truth, song / "song", "--json")
    data = json.loads(out)
    assert (status, err) == (0, "")
    assert [row["name"] for row in data["rows"]] == ["bass", "drums", "other", "vocals"]
    assert data["mean"]["sdr_db"] == pytest.approx(20 * math.log10(2))
    assert data["sum"] is None
    assert data["unmatched"] == [str(truth / "piano.flac")]
    status, out, err = run(capsys, truth, song / "song")
    assert "mean" in out
    assert "piano.flac" in err


def test_windows_silent_in_one_stem_count_for_none(tmp_path):
    vocals, drums = grid_noise(1), grid_noise(2)
    vocals[:, RATE : 2 * RATE] = 0
    silent = np.zeros_like(vocals)
    for name, samples in {"vocals": vocals, "drums": drums, "bass": silent}.items():
        write(tmp_path / "truth" / f"{name}.wav", samples)
        write(tmp_path / "guess" / f"{name}.wav", samples * np.float32(0.5))
    write(tmp_path / "guess" / "bass.wav", drums)
    rows = {row.name: row for row in compare(tmp_path / "truth", [tmp_path / "guess"]).rows}
    assert (rows["vocals"].windows, rows["drums"].windows, rows["bass"].windows) == (2, 2, 0)
    assert math.isnan(rows["bass"].sdr_median_db)
    report = compare(tmp_path / "truth", [tmp_path / "guess"])
    assert report.mean is not None
    assert report.mean.sdr_db == pytest.approx(20 * math.log10(2))  # the silent stem has no part in it
    alone = compare(tmp_path / "truth" / "drums.wav", [tmp_path / "guess" / "drums.wav"]).rows[0]
    assert alone.windows == 3


def test_folders_of_songs_of_different_length_keep_their_own_windows(tmp_path):
    for name, seconds in (("one", 2.5), ("two", 4.5)):
        for folder in ("truth", "guess"):
            write(tmp_path / folder / f"{name}.wav", grid_noise(3, seconds))
    assert [row.windows for row in compare(tmp_path / "truth", [tmp_path / "guess"]).rows] == [2, 4]


def test_silence_prints_dashes(capsys, tmp_path):
    silent = write(tmp_path / "silent.wav", np.zeros((2, RATE)))
    status, out, _ = run(capsys, silent, silent)
    assert status == 0
    assert "–" in out


def test_uncertain_lag_is_marked(capsys, tmp_path):
    _, out, _ = run(
        capsys, write(tmp_path / "a.wav", grid_noise(1, 0.5)), write(tmp_path / "b.wav", grid_noise(2, 0.5))
    )
    assert "?" in out


@pytest.mark.parametrize(("limit", "status"), [("-20", 0), ("-60", 1)])
def test_null_below_sets_the_exit_status(capsys, tmp_path, limit, status):
    reference = grid_noise(1)
    estimate = write(tmp_path / "b.wav", reference * np.float32(0.99))
    code, out, err = run(capsys, write(tmp_path / "a.wav", reference), estimate, "--null-below", limit, "--json")
    assert code == status
    assert json.loads(out)["rows"]
    assert ("is not below" in err) == (status == 1)


def test_null_below_judges_the_sum_where_there_is_one(capsys, song):
    assert run(capsys, song / "song.wav", song / "song", "--null-below", "-300")[0] == 0


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda p: write(p, grid_noise(1), rate=RATE * 2), "compare.sample_rate"),
        (lambda p: write(p, grid_noise(1, channels=1)), "compare.channels"),
        (lambda p: write(p, grid_noise(1, seconds=3.0)), "compare.frames"),
        (lambda p: write(p, grid_noise(1, seconds=20.0)), "compare.frames"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_a_hint(capsys, tmp_path, make, code):
    reference = write(tmp_path / "a.wav", grid_noise(1))
    status, out, _ = run(capsys, reference, make(tmp_path / "b.wav"), "--json")
    error = json.loads(out)
    assert (status, error["type"], error["code"]) == (2, "Error", code)
    assert error["hint"]


def test_unreadable_files_are_input_errors(capsys, tmp_path):
    reference = write(tmp_path / "a.wav", grid_noise(1))
    (tmp_path / "text.wav").write_text("this is no audio")
    for bad in (tmp_path / "missing.wav", tmp_path / "text.wav"):
        assert run(capsys, reference, bad)[0] == 3
        with pytest.raises(InputError):
            compare(bad, [reference])


def test_folders_that_do_not_fit_are_refused(tmp_path):
    one = write(tmp_path / "one" / "vocals.wav", grid_noise(1))
    write(tmp_path / "two" / "drums.wav", grid_noise(1))
    write(tmp_path / "twice" / "vocals.wav", grid_noise(1))
    write(tmp_path / "twice" / "vocals.flac", grid_noise(1), subtype="PCM_24")
    (tmp_path / "empty").mkdir()
    for reference, estimates, code in (
        (tmp_path / "one", [one], "compare.folders"),
        (tmp_path / "one", [tmp_path / "two", tmp_path / "two"], "compare.folders"),
        (tmp_path / "one", [tmp_path / "two"], "compare.nothing"),
        (tmp_path / "one", [tmp_path / "twice"], "compare.ambiguous"),
        (one, [tmp_path / "empty"], "compare.nothing"),
    ):
        with pytest.raises(RequestError) as caught:
            compare(reference, estimates)
        assert caught.value.code == code


def test_hostile_names_do_not_drive_the_terminal(capsys, tmp_path):
    name = "[bold]\x1b[31mred\n.wav" if sys.platform != "win32" else "[bold]red.wav"
    _, out, _ = run(capsys, write(tmp_path / "a.wav", grid_noise(1, 0.5)), write(tmp_path / name, grid_noise(1, 0.5)))
    assert "\x1b[31m" not in out
    assert "[bold]" in out


def test_usage_and_help(capsys):
    assert run(capsys, "one.wav")[0] == 2
    status, out, _ = run(capsys, "one.wav", "--json")
    assert (status, json.loads(out)["code"]) == (2, "usage")
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "compare song.mp3 song/*.wav" in out


def test_importing_the_command_loads_neither_rich_nor_numpy():
    code = "import sys, revithion_stems.cli.compare; print([m for m in ('rich', 'numpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_memory_does_not_grow_with_the_length(tmp_path):
    def peak(minutes):
        part = grid_noise(1, 60.0)
        mix = write(tmp_path / "mix.wav", np.tile(part, minutes))
        halves = [write(tmp_path / f"{name}.wav", np.tile(part / 2, minutes)) for name in ("left", "right")]
        tracemalloc.start()
        report = compare(mix, halves)
        bytes_at_most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert report.total is not None
        assert report.total.identical
        return bytes_at_most

    peak(1)  # what is loaded on the first use is not counted
    assert peak(12) < 1.1 * peak(3)


def test_the_gain_that_stems_share_is_undone(capsys, tmp_path):
    write(tmp_path / "song.wav", np.clip(grid_noise(1) * 9, -1.9, 1.9))
    request = SeparationRequest(source=tmp_path / "song.wav", model="dsp")
    output = OutputFormat(container=Container.FLAC, bit_depth=BitDepth.INT24)
    separate_to_files(request, OutputOptions(folder=tmp_path, format=output))
    data = json.loads(run(capsys, tmp_path / "song.wav", tmp_path / "song", "--json")[1])
    assert data["rows"][0]["gain_db"] < -5
    assert data["sum"]["null_db"] is None or data["sum"]["null_db"] < -110
    assert "gain" in run(capsys, tmp_path / "song.wav", tmp_path / "song")[2]
    (tmp_path / "song" / "manifest.json").unlink()  # now nothing tells of it
    data = json.loads(run(capsys, tmp_path / "song.wav", tmp_path / "song", "--json")[1])
    assert data["sum"]["null_db"] > -10


def test_the_archived_original_is_no_stem(capsys, tmp_path):
    write(tmp_path / "song.wav", grid_noise(1))
    request = SeparationRequest(source=tmp_path / "song.wav", model="dsp")
    separate_to_files(request, OutputOptions(folder=tmp_path, archive_mix=True))
    assert (tmp_path / "song" / "mix.wav").exists()
    status, out, _ = run(capsys, tmp_path / "song.wav", tmp_path / "song", "--json")
    data = json.loads(out)
    assert status == 0
    assert len(data["rows"]) == 4
    assert data["sum"]["identical"] is True
