"""Separated songs in project files: what other programs and parsers play from them is the original."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
import soundfile

from project_mixdown import mix, read_dawproject, read_rpp
from revithion_bridge.daw.file_session import open_project
from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.alignment import find_lag
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.reports import SeparationReport

RATE = 44_100
NULL_DB = -120.0
LMMS_BLOCK = 256

READERS = {"rpp": read_rpp, "dawproject": read_dawproject}


def _song(seconds: float, peak: float) -> np.ndarray:
    """A beat, a bass and chords of 24 bits: float32 ``[frames, 2]``, with so high a peak."""
    noise = np.random.default_rng(11)
    time = np.arange(round(seconds * RATE)) / RATE
    drums = noise.standard_normal((time.size, 2)) * np.exp(-25.0 * (time % 0.5))[:, None]
    tones = [0.4 * np.sin(2 * np.pi * 55 * time), *(0.2 * np.sin(2 * np.pi * f * time + f) for f in (220, 277, 330))]
    song = 0.1 * drums + np.stack([sum(tones), sum(tones[1:]) - 0.5 * tones[0]], axis=1)
    return (np.rint(song * (peak / np.abs(song).max()) * 2**23) / 2**23).astype(np.float32)


def _separate(folder: Path, song: np.ndarray, output_format: OutputFormat) -> SeparationReport:
    soundfile.write(folder / "song.wav", song, RATE, subtype="FLOAT")
    request = SeparationRequest(source=folder / "song.wav", model="dsp")
    return separate_to_files(request, OutputOptions(folder=folder / "stems", format=output_format))


def _assert_null(played: np.ndarray, wanted: np.ndarray) -> None:
    assert played.shape == wanted.shape
    assert find_lag(wanted.T.astype(np.float64), played.T, 2_000).frames == 0
    error = np.sum((played - wanted) ** 2) / np.sum(wanted.astype(np.float64) ** 2)
    assert 10 * np.log10(error + 1e-30) <= NULL_DB


@pytest.mark.parametrize("suffix", ["rpp", "dawproject"])
def test_a_project_plays_the_original_bit_for_bit(tmp_path: Path, suffix: str) -> None:
    song = _song(2.0, 0.9)
    report = _separate(tmp_path, song, OutputFormat())
    path = tmp_path / f"song.{suffix}"
    open_project(path).import_stems(report)
    np.testing.assert_array_equal(mix(*READERS[suffix](path)).astype(np.float32), song)


@pytest.mark.parametrize("suffix", ["rpp", "dawproject"])
@pytest.mark.parametrize("preset", ["4-stems-to-buses", "vocals-instrumental", "tracks-only"])
def test_every_preset_sums_to_the_original(tmp_path: Path, suffix: str, preset: str) -> None:
    song = _song(1.0, 0.9)
    report = _separate(tmp_path, song, OutputFormat())
    path = tmp_path / f"song.{suffix}"
    open_project(path).import_stems(report, plan=preset)
    _assert_null(mix(*READERS[suffix](path)), song)


@pytest.mark.parametrize("suffix", ["rpp", "dawproject"])
def test_a_gain_that_the_files_share_is_undone(tmp_path: Path, suffix: str) -> None:
    song = _song(1.0, 3.0)
    form = OutputFormat(container=Container.FLAC, bit_depth=BitDepth.INT24)
    report = _separate(tmp_path, song, form)
    path = tmp_path / f"song.{suffix}"
    open_project(path).import_stems(report)
    strips, master = READERS[suffix](path)
    assert {strip.gain for strip in strips if strip.audio} != {1.0}
    _assert_null(mix(strips, master), song)


@pytest.mark.parametrize("suffix", ["rpp", "dawproject"])
def test_a_real_song_plays_the_original(
    tmp_path: Path, music_folder: Path, falcon69: dict[str, np.ndarray], suffix: str
) -> None:
    song = np.sum([samples for name, samples in falcon69.items() if name != "mix"], axis=0, dtype=np.float32).T
    report = _separate(tmp_path, np.ascontiguousarray(song), OutputFormat())
    path = tmp_path / f"song.{suffix}"
    open_project(path).import_stems(report)
    _assert_null(mix(*READERS[suffix](path)), song)


@pytest.fixture
def lmms(tmp_path: Path):
    """Renders a project of LMMS to 32-bit float WAV."""
    if shutil.which("lmms") is None:
        if os.environ.get("CI"):
            pytest.fail("LMMS is not installed")
        pytest.skip("LMMS is not installed")

    def render(project: Path) -> np.ndarray:
        out = tmp_path / "lmms.wav"
        command = ["lmms", "--allowroot", "render", str(project), "-f", "wav", "-a", "-s", str(RATE), "-x", "1"]
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path)}
        subprocess.run([*command, "-o", str(out)], env=environment, check=True, capture_output=True, timeout=60)
        return soundfile.read(out)[0]

    return render


def test_lmms_plays_the_numbered_folder_as_the_original(tmp_path: Path, lmms) -> None:
    song = _song(2.0, 0.9)
    report = _separate(tmp_path, song, OutputFormat())
    folder = tmp_path / "for DAWs"
    folder.mkdir()
    open_project(folder).import_stems(report)
    project = tmp_path / "song.mmp"
    project.write_text(_lmms_project(folder), encoding="utf-8")
    played = lmms(project)
    whole = len(song) // LMMS_BLOCK * LMMS_BLOCK  # LMMS leaves out the rest of the last block
    _assert_null(played[:whole], song[:whole])


def _lmms_project(folder: Path) -> str:
    """The tracks and buses of ``plan.json``, wired in LMMS's mixer."""
    said = json.loads((folder / "plan.json").read_bytes())
    places = {bus["key"]: place for place, bus in enumerate(said["plan"]["buses"], start=1)}
    channels = '<fxchannel num="0" name="Master" volume="1" muted="0"/>'
    for bus in said["plan"]["buses"]:
        name = quoteattr(bus["name"])
        send = '<send channel="0" amount="1"/>'
        channels += f'<fxchannel num="{places[bus["key"]]}" name={name} volume="1" muted="0">{send}</fxchannel>'
    tracks = ""
    for track in said["plan"]["tracks"]:
        (file,) = said["files"][track["key"]]
        clip = f'<sampletco pos="0" len="384" muted="0" src={quoteattr(str(folder / file))}/>'
        strip = f'<sampletrack vol="100" pan="0" fxch="{places[track["output"]]}"/>'
        tracks += f'<track type="2" name={quoteattr(track["name"])} muted="0" solo="0">{strip}{clip}</track>'
    return (
        '<?xml version="1.0"?><lmms-project version="1.0" creator="LMMS" creatorversion="1.2.2" type="song">'
        '<head timesig_numerator="4" timesig_denominator="4" bpm="120" mastervol="100" masterpitch="0"/>'
        f'<song><trackcontainer type="song">{tracks}</trackcontainer><fxmixer>{channels}</fxmixer></song>'
        "</lmms-project>"
    )


def test_ffprobe_reads_the_time_reference(tmp_path: Path) -> None:
    report = _separate(tmp_path, _song(1.0, 0.9), OutputFormat())
    folder = tmp_path / "for DAWs"
    folder.mkdir()
    open_project(folder).import_stems(report, align_to="1:00")
    command = ["ffprobe", "-v", "error", "-show_entries", "format_tags=time_reference", "-of", "csv=p=0"]
    for file in folder.glob("*.wav"):
        said = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True, timeout=60).stdout
        assert int(said) == 60 * RATE


def test_a_stem_mp4_of_a_separation_has_five_streams_of_equal_length(tmp_path: Path) -> None:
    song = _song(1.0, 0.9)
    report = _separate(tmp_path, song, OutputFormat())
    path = tmp_path / "song.stem.mp4"
    open_project(path).import_stems(report)
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_name,duration", "-of", "csv=p=0", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    assert said == ["aac,1.000000"] * 5
    data = path.read_bytes()
    at = data.index(b"stem{")
    (size,) = struct.unpack(">I", data[at - 4 : at])
    assert len(json.loads(data[at + 4 : at - 4 + size])["stems"]) == 4
