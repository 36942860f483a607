"""Reading: every format in its length and place, and every broken file as an error that says what to do."""

from __future__ import annotations

import functools
import os
import shutil
import stat
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revithion_stems import separate
from revithion_stems.audio import AudioBuffer, channel_pairs
from revithion_stems.audio_files import AudioReader, read_audio, read_info
from revithion_stems.audio_scan import scan
from revithion_stems.errors import Cancelled, InputError
from revithion_stems.events import CancelToken, Notice
from revithion_stems.mpeg_frames import IndexedStream, read_index

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file system")


@functools.cache
def ffmpeg_encodes(encoder: str) -> bool:
    program = shutil.which("ffmpeg")
    if program is None:
        return False
    done = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return f" {encoder} " in done.stdout


needs_lame = pytest.mark.skipif(not ffmpeg_encodes("libmp3lame"), reason="no ffmpeg with libmp3lame here")


def ffmpeg(*args) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-nostdin", *map(str, args)], check=True, timeout=60)


def tone(frames, channels=2, rate=44100, seed=0) -> np.ndarray:
    """Low-passed noise ``[frames, channels]``: survives any codec, and its correlation has one sharp peak."""
    noise = np.random.default_rng(seed).standard_normal((frames + 15, channels))
    smooth = sum(noise[k : k + frames] for k in range(16)) / 16
    return (smooth * 0.4).astype(np.float32)


def lag(reference: np.ndarray, other: np.ndarray) -> int:
    """Frames by which ``other`` is late."""
    size = 1 << (2 * max(len(reference), len(other))).bit_length()
    product = np.fft.rfft(reference[:, 0], size).conj() * np.fft.rfft(other[:, 0], size)
    place = int(np.argmax(np.abs(np.fft.irfft(product, size))))
    return place if place < size // 2 else place - size


def read(path, block=65_536) -> np.ndarray:
    with AudioReader(Path(path)) as reader:
        return np.concatenate(list(reader.blocks(block)), axis=1).T


# --- every format ---

LOSSLESS = [
    *(("WAV", kind) for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")),
    *(("AIFF", kind) for kind in ("PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")),
    *(("CAF", kind) for kind in ("PCM_16", "PCM_24", "FLOAT", "ALAC_16", "ALAC_24")),
    *(("FLAC", kind) for kind in ("PCM_S8", "PCM_16", "PCM_24")),
    *((kind, sub) for kind in ("RF64", "W64", "AU") for sub in ("PCM_16", "PCM_24", "FLOAT")),
    ("WAVEX", "PCM_24"),
]
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "ALAC_16": 16, "ALAC_24": 24}


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS)
def test_lossless_formats_are_read_exactly(tmp_path, kind, subtype, channels):
    bits = BITS.get(subtype, 24)
    frames = 5002 if subtype == "PCM_S8" else 5001  # libsndfile writes odd 8-bit AIFF with a frame too many
    samples = (np.round(tone(frames, channels) * 2 ** (bits - 1)) / 2 ** (bits - 1)).astype(np.float32)
    path = tmp_path / "a.bin"
    soundfile.write(path, samples, 48000, format=kind, subtype=subtype)
    info = read_info(path)
    assert (info.channels, info.sample_rate, info.frames) == (channels, 48000, frames)
    assert info.exact_bits == BITS.get(subtype)
    assert info.duration_s == pytest.approx(frames / 48000)
    assert np.array_equal(read(path), samples)
    assert np.array_equal(read(path, 777), samples)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", 8000), ("VORBIS", 44100), ("VORBIS", 96000), ("OPUS", 48000)])
def test_ogg_has_no_lag_and_the_exact_length(tmp_path, subtype, rate, channels):
    samples = tone(rate + 77, channels)
    soundfile.write(tmp_path / "a.ogg", samples, rate, format="OGG", subtype=subtype)
    got = read(tmp_path / "a.ogg")
    assert got.shape == samples.shape
    assert lag(samples, got) == 0
    assert np.array_equal(read(tmp_path / "a.ogg", 1000), got)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000])
def test_mp3_has_no_lag_and_the_exact_length(tmp_path, rate, channels, mode):
    samples = tone(rate // 2 + 77, channels)
    path = tmp_path / "a.mp3"
    soundfile.write(path, samples, rate, bitrate_mode=mode, compression_level=0.2)
    got = read(path)
    assert got.shape == samples.shape
    assert lag(samples, got) == 0


FFMPEG_MP3 = {
    "128k": ["-b:a", "128k"],
    "320k": ["-b:a", "320k"],
    "best variable": ["-q:a", "0"],
    "worst variable": ["-q:a", "9"],
    "average": ["-abr", "1", "-b:a", "100k"],
    "mono": ["-ac", "1", "-b:a", "64k"],
    "22050 Hz": ["-ar", "22050", "-b:a", "64k"],
    "8000 Hz, little bit rate": ["-ar", "8000", "-ac", "1", "-b:a", "8k"],
}


@needs_lame
@pytest.mark.parametrize("options", FFMPEG_MP3.values(), ids=FFMPEG_MP3)
@pytest.mark.parametrize("tagged", [True, False], ids=["tag", "no tag"])
def test_mp3_is_decoded_as_ffmpeg_decodes_it(tmp_path, options, tagged):
    """With a LAME tag at the encoder's input; without one from the first frame on, all of it, variable rate or not."""
    samples = tone(3 * 44100 + 123)
    samples[20_000:] *= 0.05  # so that the first frame's bit rate says nothing about the rest
    source, path, decoded = (tmp_path / name for name in ("a.wav", "a.mp3", "b.wav"))
    soundfile.write(source, samples, 44100, subtype="FLOAT")
    ffmpeg("-i", source, "-c:a", "libmp3lame", *options, "-write_xing", int(tagged), path)
    ffmpeg("-i", path, "-c:a", "pcm_f32le", decoded)
    expected, rate = soundfile.read(decoded, dtype="float32", always_2d=True)
    got = read(path)
    assert got.shape == expected.shape
    assert read_info(path).frames == len(expected)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)  # two decoders, both in float
    for block in (1000, 4096):
        assert np.array_equal(read(path, block), got)
    with AudioReader(path) as reader:
        passes = [np.concatenate(list(reader.blocks()), axis=1) for _ in range(3)]
        assert np.array_equal(passes[0].T, got)
        assert all(np.array_equal(passes[0], later) for later in passes[1:])
        assert reader.shortfall(len(got)) is None
    if rate == 44100 and "-ac" not in options:
        # LAME's own delay and the decoder's: what a file without a tag does not tell and no decoder can know.
        assert lag(samples, got) == (0 if tagged else 576 + 529)
        assert len(got) == len(samples) or not tagged


@needs_lame
def test_mp3_with_a_cover_and_tags(tmp_path):
    samples = tone(44100)
    soundfile.write(tmp_path / "a.wav", samples, 44100)
    ffmpeg("-f", "lavfi", "-i", "color=red:s=300x300", "-frames:v", 1, tmp_path / "cover.png")
    for tagged in (1, 0):
        maps = ["-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v", "attached_pic"]
        meta = ["-metadata", "title=" + "Ü" * 3000, "-id3v2_version", 3, "-write_id3v1", 1, "-write_xing", tagged]
        ffmpeg("-i", tmp_path / "a.wav", "-i", tmp_path / "cover.png", *maps, *meta, "-q:a", 2, tmp_path / "a.mp3")
        ffmpeg("-i", tmp_path / "a.mp3", "-map", "0:a", "-c:a", "pcm_f32le", tmp_path / "b.wav")
        expected, _ = soundfile.read(tmp_path / "b.wav", dtype="float32")
        np.testing.assert_allclose(read(tmp_path / "a.mp3"), expected, rtol=0, atol=2e-6)


@needs_lame
def test_mp3_in_wav_is_no_lossless_format(tmp_path):
    """Its length is an estimate from the size of the data, which is no sign that something is missing."""
    soundfile.write(tmp_path / "a.wav", tone(30_123), 44100)
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", "libmp3lame", tmp_path / "b.wav")
    ffmpeg("-i", tmp_path / "b.wav", "-c:a", "pcm_f32le", tmp_path / "c.wav")
    expected, _ = soundfile.read(tmp_path / "c.wav", dtype="float32")
    np.testing.assert_allclose(read(tmp_path / "b.wav"), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_the_frames_of_an_mp3_are_counted(tmp_path, rate):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(rate, 1), rate, bitrate_mode="VARIABLE")
    data = path.read_bytes()
    tagged = read_index(path)
    assert tagged is not None
    assert tagged.tagged
    # Without its first frame (the tag), with what taggers put around: the same frames are found.
    header = int.from_bytes(data[tagged.start : tagged.start + 4], "big")
    assert header == tagged.header
    second = data.index(data[tagged.start : tagged.start + 2], tagged.start + 4)
    id3 = b"ID3\x04\x00\x00\x00\x00\x01\x05" + bytes(133)
    path.write_bytes(id3 + data[second:] + b"TAG" + bytes(125))
    index = read_index(path)
    assert index is not None
    assert (index.start, index.tagged) == (len(id3), False)
    assert rate <= index.frames <= rate + 4 * 1152
    with IndexedStream(path, index) as stream:
        whole = stream.read()
        assert whole.endswith(data[second:] + b"TAG" + bytes(125))
        assert stream.seek(0, 2) == len(whole)
        assert stream.seek(-5, 1) == len(whole) - 5 == stream.tell()
        assert stream.read(9) == bytes(5)
    assert len(read(path)) == index.frames


def test_what_is_no_mpeg_has_no_index(tmp_path):
    for data in (b"x", b"\xff" * 5000, b"ID3" + bytes(6), bytes(100_000)):
        (tmp_path / "a").write_bytes(data)
        assert read_index(tmp_path / "a") is None


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff", "au", "w64"])
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_streamed_files_whose_header_tells_no_length(tmp_path, kind):
    samples = np.round(tone(30_001) * 2**15) / 2**15
    soundfile.write(tmp_path / "a.wav", samples, 44100)
    with (tmp_path / "b").open("wb") as file:
        command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-f", kind, "-"]
        subprocess.run(command, stdout=file, check=True, timeout=60)
    assert read_info(tmp_path / "b").frames == 30_001
    assert np.array_equal(read(tmp_path / "b"), samples)


def test_rates_and_lengths_at_the_edges(tmp_path):
    for frames, rate in ((1, 44100), (1, 4000), (2, 192_000), (30, 768_000)):
        soundfile.write(tmp_path / "a.wav", tone(frames), rate, subtype="FLOAT")
        assert np.array_equal(read(tmp_path / "a.wav"), tone(frames))
        assert read_info(tmp_path / "a.wav").sample_rate == rate


# --- what can't be used ---


def refuse(path, code) -> InputError:
    with pytest.raises(InputError) as caught:
        read_audio(Path(path))
    assert caught.value.code == code, caught.value
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 3
    return caught.value


def test_missing_folder_empty(tmp_path):
    refuse(tmp_path / "no.wav", "input.missing")
    refuse(tmp_path / "no" / "no.wav", "input.missing")
    refuse(tmp_path, "input.is_folder")
    (tmp_path / "empty.wav").touch()
    refuse(tmp_path / "empty.wav", "input.empty")


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "FLAC", "W64", "AU", "RF64"])
def test_a_header_without_audio(tmp_path, kind):
    soundfile.write(tmp_path / "a", np.zeros((0, 2)), 44100, format=kind, subtype="PCM_16")
    refuse(tmp_path / "a", "input.empty")


def test_too_many_channels_and_rates_out_of_range(tmp_path):
    soundfile.write(tmp_path / "nine.wav", np.zeros((10, 9)), 44100)
    assert "9 channels" in refuse(tmp_path / "nine.wav", "input.channels").message
    for rate in (3999, 768_001):
        soundfile.write(tmp_path / "rate.wav", np.zeros((10, 1)), rate)
        assert str(rate) in refuse(tmp_path / "rate.wav", "input.sample_rate").message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("frame", [0, 70_001])
def test_the_first_sample_that_is_no_number_is_named(tmp_path, value, frame):
    samples = tone(80_000)
    samples[frame, 1] = samples[-1, 0] = value
    soundfile.write(tmp_path / "a.wav", samples, 44100, subtype="FLOAT")
    assert f"frame {frame} " in refuse(tmp_path / "a.wav", "input.not_finite").message
    with pytest.raises(InputError, match=f"frame {frame} "):
        AudioBuffer(samples=samples.T, sample_rate=44100)


@pytest.mark.parametrize("part", [0.999, 0.6, 0.05])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "AIFF", "FLAC", "W64", "AU", "RF64", "CAF"])
def test_truncated_lossless_files(tmp_path, kind, subtype, part):
    path = tmp_path / "a.bin"
    soundfile.write(path, tone(50_000), 44100, format=kind, subtype=subtype)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    error = refuse(path, "input.truncated")
    assert "of 50000 frames" in error.message or (kind == "CAF" and part < 0.9)


def test_a_recorder_that_did_not_finish_the_header_is_no_truncation(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(5000), 44100)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    at = data.index(b"data") + 4
    for size in (0, 0xFFFF_FFFF, 0x7FFF_FFFF):
        data[at : at + 4] = size.to_bytes(4, "little")
        data[4:8] = (8 if size == 0 else size).to_bytes(4, "little")
        (tmp_path / "b.wav").write_bytes(data)
        assert len(read(tmp_path / "b.wav")) == 5000


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.opus"])
def test_a_lossy_stream_that_was_cut_short_is_read_as_far_as_it_goes_and_that_is_said(tmp_path, name, capfd):
    options = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    path = tmp_path / name
    soundfile.write(path, tone(3 * 48000), 48000, **options)
    events = []
    separate(path, model="dsp", on_event=events.append)
    assert not [event for event in events if isinstance(event, Notice)]

    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    stems = separate(path, model="dsp", on_event=events.append)
    frames = stems.residual.frames
    assert 0.2 * 3 * 48000 < frames < 0.8 * 3 * 48000  # Opus has a page a second
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.code == "input.short"
    assert str(path) in notice.message

    path.write_bytes(data[:60])
    with pytest.raises(InputError):
        read_audio(path)
    capfd.readouterr()  # mpg123 has its say on stderr


def test_names_that_lie(tmp_path):
    soundfile.write(tmp_path / "a.mp3", tone(44100), 44100)
    (tmp_path / "a.mp3").rename(tmp_path / "really mp3.wav")
    assert len(read(tmp_path / "really mp3.wav")) == 44100
    soundfile.write(tmp_path / "a.flac", tone(100), 44100)
    (tmp_path / "a.flac").rename(tmp_path / "no extension")
    assert len(read(tmp_path / "no extension")) == 100
    for name in ("text.wav", "text.mp3", "text.flac", "text.raw"):
        (tmp_path / name).write_text("This is a text, not a song.\n" * 50)
        refuse(tmp_path / name, "input.not_audio")


@posix_only
@pytest.mark.timeout(20)
def test_pipes_and_devices_are_refused_and_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refuse(tmp_path / "pipe.wav", "input.not_a_file")
    refuse("/dev/null", "input.not_a_file")
    refuse("/dev/zero", "input.not_a_file")


@posix_only
def test_links_that_lead_nowhere(tmp_path):
    (tmp_path / "a.wav").symlink_to(tmp_path / "b.wav")
    refuse(tmp_path / "a.wav", "input.missing")
    (tmp_path / "b.wav").symlink_to(tmp_path / "a.wav")
    refuse(tmp_path / "a.wav", "input.unreadable")


@posix_only
def test_no_permission(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    soundfile.write(tmp_path / "a.wav", tone(10), 44100)
    (tmp_path / "a.wav").chmod(0)
    refuse(tmp_path / "a.wav", "input.unreadable")
    (tmp_path / "a.wav").chmod(stat.S_IRUSR)
    read(tmp_path / "a.wav")


NAMES = ["Größe 曲 🎵.wav", "-rf", "--help.wav", "two words .wav", "x" * 251 + ".wav", "é" * 125 + ".wav", "%s%n.wav"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(tmp_path, name):
    path = tmp_path / name
    soundfile.write(os.fspath(path), tone(100), 44100, format="WAV")
    assert len(read(path)) == 100


@posix_only
@pytest.mark.parametrize("name", [b"line\nbreak.wav", b"tab\t\x1b[31m.wav", b"latin-\xe9.wav", b"mp3-\xff.mp3"])
def test_names_of_any_bytes(tmp_path, name):
    if sys.platform == "darwin":
        pytest.skip("names are UTF-8 there")
    soundfile.write(tmp_path / "a.wav", tone(2000), 44100, format="MP3" if name.endswith(b"mp3") else "WAV")
    path = tmp_path / os.fsdecode(name)
    (tmp_path / "a.wav").rename(path)
    assert len(read(path)) == 2000
    path.write_bytes(b"no audio at all")
    refuse(path, "input.not_audio")


def test_reading_two_files_at_once_and_closing(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(300_000), 44100, subtype="FLOAT")
    results = {}

    def work(number):
        results[number] = read(tmp_path / "a.wav")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(result, tone(300_000)) for result in results.values())
    reader = AudioReader(tmp_path / "a.wav")
    reader.close()
    reader.close()


# --- the scan ---


def test_scan_gathers_what_a_whole_song_would_say():
    samples = (np.random.default_rng(0).standard_normal((5, 10_000)) * 0.2 + 0.1).astype(np.float32)
    results = [
        scan(np.array_split(samples, parts, axis=1), channels=5, sample_rate=44100, cancel=CancelToken())
        for parts in (1, 7, 100)
    ]
    for result in results:
        assert result.frames == 10_000
        assert result.peak == np.abs(samples).max()
        assert result.sha256 == results[0].sha256
        for index, group in enumerate(channel_pairs(5)):
            mono = samples[list(group)].astype(np.float64).mean(axis=0)
            assert result.mean[index] == pytest.approx(mono.mean(), rel=1e-12)
            assert result.std[index] == pytest.approx(mono.std(ddof=1), rel=1e-12)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        scan([samples], channels=5, sample_rate=44100, cancel=cancel)


# --- fuzzing the boundary ---


@functools.cache
def seeds() -> dict[str, bytes]:
    import io

    made = {}
    for kind, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", None),
        ("AIFF", "PCM_24"),
        ("W64", "PCM_16"),
        ("CAF", "ALAC_16"),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone(2000), 44100, format=kind, subtype=subtype)
        made[f"{kind} {subtype}"] = buffer.getvalue()
    mp3 = made["MP3 None"]
    made["MP3 without its first frame"] = mp3[mp3.index(mp3[:2], 200) :]
    return made


@st.composite
def damaged(draw):
    data = bytearray(seeds()[draw(st.sampled_from(sorted(seeds())))])
    for _ in range(draw(st.integers(0, 6))):
        # Half of the hits in the header, where they hurt most.
        at = draw(st.one_of(st.integers(0, min(100, len(data) - 1)), st.integers(0, len(data) - 1)))
        data[at] = draw(st.one_of(st.sampled_from([0, 1, 127, 128, 255]), st.integers(0, 255)))
    match draw(st.sampled_from(["keep", "keep", "cut", "drop", "repeat"])):
        case "cut":
            data = data[: draw(st.integers(0, len(data)))]
        case "drop":
            start = draw(st.integers(0, len(data)))
            del data[start : start + draw(st.integers(1, 300))]
        case "repeat":
            data += data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@pytest.mark.timeout(60)
@settings(max_examples=300, deadline=5000, suppress_health_check=list(HealthCheck))
@given(data=damaged())
def test_whatever_the_bytes_only_input_errors_come_out(tmp_path_factory, data, capfd):
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "a"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with AudioReader(path) as reader:
            frames = 0
            for block in reader.blocks(4096):
                assert block.dtype == np.float32
                assert block.shape[0] == reader.info.channels
                assert np.isfinite(block).all()
                frames += block.shape[1]
            assert frames > 0
            reader.shortfall(frames)
    except InputError:
        pass  # any other exception fails the test
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        path.unlink()
        path.parent.rmdir()
        capfd.readouterr()  # mpg123 reports damage on stderr
    assert peak < 32 << 20


@pytest.mark.parametrize("frames", [2**31 - 1, 2**36 - 1])
def test_a_header_that_announces_hours_costs_no_memory(tmp_path, frames):
    """FLAC's length is a 36-bit number that nobody checks before the data ends."""
    soundfile.write(tmp_path / "a.flac", tone(5000), 44100)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21:26] = ((data[21] & 0xF0) << 32 | frames).to_bytes(5, "big")
    (tmp_path / "a.flac").write_bytes(data)
    tracemalloc.start()
    refuse(tmp_path / "a.flac", "input.truncated")
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
