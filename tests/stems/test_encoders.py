"""Every format: exact samples or exact length and no lag, tags and covers, the same bytes twice, errors."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from revithion_stems.alignment import find_lag
from revithion_stems.audio_files import read_audio
from revithion_stems.encoders import TrackInfo, check_encoded, open_encoder
from revithion_stems.errors import OutputError
from revithion_stems.ogg_comments import comment_packet, replace_comments
from revithion_stems.ogg_pages import checksum
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.tags import Cover, Tags, read_tags

LOSSLESS = [
    OutputFormat(container=container, bit_depth=depth)
    for container in (Container.WAV, Container.FLAC, Container.M4A)
    for depth in (BitDepth.INT16, BitDepth.INT24)
] + [OutputFormat()]
LOSSY = [OutputFormat(container=Container(name)) for name in ("mp3", "ogg", "opus", "m4a")]
LENGTHS = (1, 100, 1023, 44_100, 123_457)
AAC_PACKET = 1024
"""ffmpeg does not cut AAC in MP4 at the end of the edit list: its decode ends with the last packet."""

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def name_of(output_format: OutputFormat) -> str:
    depth = output_format.bit_depth
    return output_format.container.value + (f"-{depth.value}" if depth else "")


each_lossless = pytest.mark.parametrize("output_format", LOSSLESS, ids=name_of)
each_lossy = pytest.mark.parametrize("output_format", LOSSY, ids=name_of)
each_format = pytest.mark.parametrize("output_format", LOSSLESS + LOSSY, ids=name_of)


def noise(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Float32 ``[channels, frames]``, low-passed so that lossy formats keep it."""
    samples = np.random.default_rng(seed).standard_normal((channels, frames + 15))
    return (0.2 * sum(samples[:, k : k + frames] for k in range(16)) / 4).astype(np.float32)


def encode(folder, output_format, samples, *, rate=44_100, tags=None, block=30_000) -> Path:
    path = folder / f"out.{output_format.container.value}"
    channels, frames = samples.shape
    encoder = open_encoder(
        path,
        output_format,
        tracks=[TrackInfo(name="vocals", tags=tags or Tags(text={"comment": "one"}))],
        channels=channels,
        sample_rate=rate,
        frames=frames,
    )
    for at in range(0, frames, block):
        encoder.write(samples[None, :, at : at + block])
    encoder.close()
    check_encoded(path, output_format, tracks=1, channels=channels, sample_rate=rate, frames=frames)
    return path


def ffmpeg_decode(path: Path, channels: int) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", path, "-map", "0:a:0", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    return np.frombuffer(done.stdout, "<f4").reshape(-1, channels).T


# --- samples ---


@each_lossless
@pytest.mark.parametrize(("channels", "rate"), [(1, 44_100), (2, 44_101), (2, 192_000), (6, 48_000), (8, 96_000)])
def test_lossless_formats_keep_every_sample(tmp_path, output_format, channels, rate):
    if output_format.container is Container.M4A:
        channels = min(channels, 2)
    scale = 2.0**output_format.grid_bits
    samples = (np.rint(noise(9_001, channels) * scale) / scale).astype(np.float32)
    samples[:, :2] = -1.0, 1 - 1 / scale
    path = encode(tmp_path, output_format, samples, rate=rate, block=4_000)
    read = read_audio(path)
    assert read.sample_rate == rate
    assert np.array_equal(read.samples, samples)


@needs_ffmpeg
@each_lossless
@pytest.mark.parametrize("frames", LENGTHS)
def test_ffmpeg_decodes_the_same_samples(tmp_path, output_format, frames):
    scale = 2.0**output_format.grid_bits
    samples = (np.rint(noise(frames) * scale) / scale).astype(np.float32)
    assert np.array_equal(ffmpeg_decode(encode(tmp_path, output_format, samples), 2), samples)


@pytest.mark.parametrize("depth", [BitDepth.INT16, BitDepth.INT24])
def test_what_is_beyond_full_scale_is_clipped_and_does_not_wrap(tmp_path, depth):
    samples = np.array([[1.0, 2.5, -1.0, -7.0]], np.float32)
    read = read_audio(encode(tmp_path, OutputFormat(container=Container.FLAC, bit_depth=depth), samples)).samples
    highest = 1 - 2.0 ** -(15 if depth is BitDepth.INT16 else 23)
    assert read.tolist() == [[pytest.approx(highest), pytest.approx(highest), -1.0, -1.0]]


@needs_ffmpeg
@each_lossy
@pytest.mark.parametrize("frames", LENGTHS)
def test_lossy_formats_keep_length_and_place(tmp_path, output_format, frames):
    samples = noise(frames)
    path = encode(tmp_path, output_format, samples)
    stored, rate = output_format.stored_length(frames=frames, sample_rate=44_100)
    expected = samples if rate == 44_100 else soxr.resample(samples.T, 44_100, rate, quality="VHQ").T[:, :stored]
    ours = read_audio(path)
    assert (ours.sample_rate, ours.samples.shape) == (rate, (2, stored))
    theirs = ffmpeg_decode(path, 2)
    if output_format.container is Container.M4A:
        assert stored <= theirs.shape[1] < stored + AAC_PACKET
        theirs = theirs[:, :stored]
    if output_format.container is Container.OGG and frames < 44_100:
        # ffmpeg cuts a Vorbis stream of one page of audio by whole blocks only.
        assert abs(theirs.shape[1] - stored) <= 128
    else:
        assert theirs.shape == (2, stored)
    if frames >= 1023:
        for decoded in (ours.samples, theirs):
            lag = find_lag(expected[:, : decoded.shape[1]], decoded[:, : expected.shape[1]], 500)
            assert lag.frames == 0
            assert lag.correlation > 0.95


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    frames=st.integers(1, 5_000),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]),
    output_format=st.sampled_from(LOSSY),
)
@example(frames=1_153, channels=2, rate=44_100, output_format=LOSSY[0])  # more padding than the last packet has
@example(frames=40, channels=1, rate=22_050, output_format=LOSSY[0])
def test_no_length_or_rate_gains_or_loses_a_frame(tmp_path, frames, channels, rate, output_format):
    path = encode(tmp_path, output_format, noise(frames, channels), rate=rate)
    stored, stored_rate = output_format.stored_length(frames=frames, sample_rate=rate)
    assert read_audio(path).samples.shape == (channels, stored)
    assert stored == max(1, int(frames * stored_rate / rate + 0.5))


@each_format
def test_the_same_bytes_whatever_the_blocks_are_and_no_versions_in_them(tmp_path, output_format):
    samples = noise(50_000)
    tags = Tags(text={"title": "Song", "comment": "mark"}, time_reference=5)
    first = encode(tmp_path, output_format, samples, tags=tags, block=50_000).read_bytes()
    assert encode(tmp_path, output_format, samples, tags=tags, block=777).read_bytes() == first
    versions = rb"(Lav[cf]|libopus|libFLAC|libsndfile|libVorbis)[ -]?(I )?\d"  # LAME fills frames up with its own
    assert not re.search(versions, first)


# --- tags ---

TEXT = {
    "title": "Für Elise ♪ (vocals)",
    "artist": "Ludwig",
    "album": "Bagatellen",
    "date": "1810-04-27",
    "track": "3/12",
    "genre": "Klassik",
    "copyright": "none",
    "comment": "of the source: 1 = 1\nrevithion-stems: stem vocals, model htdemucs, weights: research use",
}
TYPES = {"mjpeg": "image/jpeg", "png": "image/png"}


@functools.cache
def cover(codec: str, size: str = "64x48") -> Cover:
    source = ["-f", "lavfi", "-i", f"testsrc2=size={size}:duration=0.04", "-frames:v", "1"]
    command = ["ffmpeg", "-v", "error", *source, "-c:v", codec, "-f", "image2pipe", "-"]
    return Cover(media_type=TYPES[codec], data=subprocess.run(command, capture_output=True, check=True).stdout)


@each_format
def test_tags_come_back(tmp_path, output_format):
    path = encode(tmp_path, output_format, noise(3_000), tags=Tags(text=TEXT))
    assert read_tags(path) == Tags(text=TEXT)
    path = encode(tmp_path, output_format, noise(3_000), tags=Tags())
    assert read_tags(path) == Tags()


@pytest.mark.parametrize("container", [c for c in Container if c not in (Container.WAV, Container.STEM_MP4)])
def test_tags_beyond_the_common_ones_come_back(tmp_path, container):
    text = {"isrc": "US1234567890", "album_artist": "Wer", "composer": "Was", "disc": "1/2", "track": "7", "mood": "ß"}
    path = encode(tmp_path, OutputFormat(container=container), noise(3_000), tags=Tags(text=text))
    assert read_tags(path).text == text


@each_format
def test_long_texts_survive(tmp_path, output_format):
    text = {name: "äé—" * 500 + name for name in TEXT if name not in ("track", "date")}
    assert read_tags(encode(tmp_path, output_format, noise(300), tags=Tags(text=text))).text == text


@needs_ffmpeg
@each_format
@pytest.mark.parametrize("codec", TYPES)
def test_covers_come_back(tmp_path, output_format, codec):
    picture = cover(codec)
    path = encode(tmp_path, output_format, noise(30_000), tags=Tags(text=TEXT, cover=picture))
    found = read_tags(path)
    assert dict(found.text) == TEXT
    assert found.cover == (None if output_format.container is Container.WAV else picture)
    assert read_audio(path).samples.shape[1] in (30_000, 32_653)


@needs_ffmpeg
@pytest.mark.parametrize("container", [Container.OGG, Container.OPUS, Container.FLAC])
def test_a_large_cover_fills_many_pages(tmp_path, container):
    picture = cover("png", "1500x1000")
    grown = Cover(media_type=picture.media_type, data=picture.data + bytes(1_000_000))
    path = encode(tmp_path, OutputFormat(container=container), noise(5_000), tags=Tags(text=TEXT, cover=grown))
    assert read_tags(path).cover == grown
    width_at = path.read_bytes().find(b"image/png") + len(b"image/png") + 4
    if container is Container.FLAC:
        assert path.read_bytes()[width_at : width_at + 8].hex() == "000005dc000003e8"


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xc4\x00\x00" * 9])
@each_format
def test_a_cover_that_is_no_picture_is_left_out(tmp_path, output_format, data):
    broken = Tags(text=TEXT, cover=Cover(media_type="image/png", data=data))
    found = read_tags(encode(tmp_path, output_format, noise(3_000), tags=broken))
    assert (dict(found.text), found.cover) == (TEXT, None)


@pytest.mark.parametrize("rf64", [False, True])
@pytest.mark.parametrize("depth", [BitDepth.FLOAT32, BitDepth.INT24])
def test_wav_keeps_the_time_reference_and_its_samples(tmp_path, monkeypatch, depth, rf64):
    if rf64:
        monkeypatch.setattr("revithion_stems.output_format._RF64_FROM_BYTES", 1000)
    output_format = OutputFormat(bit_depth=depth)
    plain = encode(tmp_path, output_format, noise(5_001), tags=Tags()).read_bytes()
    assert plain.startswith(b"RF64" if rf64 else b"RIFF")
    tags = Tags(text=TEXT, time_reference=12_345_678_901)
    path = encode(tmp_path, output_format, noise(5_001), tags=tags)
    assert read_tags(path) == tags
    tagged = path.read_bytes()
    size = 5_001 * 2 * (4 if depth is BitDepth.FLOAT32 else 3)
    start = plain.index(b"data")
    assert plain[start + 8 : start + 8 + size] in tagged
    assert soundfile.info(path).frames == 5_001


@pytest.mark.parametrize("container", [c for c in Container if c not in (Container.WAV, Container.STEM_MP4)])
def test_other_formats_keep_the_time_reference_at_their_rate(tmp_path, container):
    path = encode(tmp_path, OutputFormat(container=container), noise(3_000), tags=Tags(time_reference=441_000_000))
    assert read_tags(path).time_reference == (480_000_000 if container is Container.OPUS else 441_000_000)


def test_names_that_vorbis_can_not_hold_are_left_out(tmp_path):
    text = {"a=b": "1", "ü": "2", "comment": "kept", "album_artist": "mapped"}
    found = read_tags(encode(tmp_path, OutputFormat(container=Container.OGG), noise(300), tags=Tags(text=text)))
    assert found.text == {"comment": "kept", "album_artist": "mapped"}


# --- the pages of Ogg ---


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    length=st.one_of(st.integers(0, 3_000), st.integers(60_000, 70_000)),
    comment=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), max_size=50),
)
def test_new_comments_leave_whole_pages_and_the_same_audio(tmp_path, length, comment):
    path = tmp_path / "a.ogg"
    with soundfile.SoundFile(path, "w", 44_100, 1, format="OGG") as file:
        file.comment = " " * (length + len(comment.encode()) + 100)
        file.write(noise(2_000, 1)[0])
    before = soundfile.read(path)[0]
    size = path.stat().st_size
    replace_comments(path, comment_packet(Tags(text={"comment": comment, "filler": "x" * length})))
    data = path.read_bytes()
    assert len(data) == size
    at = 0
    while at < size:
        lacing = data[at + 27 : at + 27 + data[at + 26]]
        page = data[at : at + 27 + len(lacing) + sum(lacing)]
        if len(page) < 10_000:  # the plain checksum takes its time
            assert int.from_bytes(page[22:26], "little") == checksum(page[:22] + bytes(4) + page[26:])
        at += len(page)
    assert np.array_equal(soundfile.read(path)[0], before)


def test_comments_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(2_000)[0], 44_100)
    with pytest.raises(ValueError, match="bytes in a packet of"):
        replace_comments(path, bytes(1_000))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="ends within"):
        replace_comments(path, bytes(1_000))


# --- errors ---


def open_handles() -> set[str]:
    return {file.path for file in psutil.Process().open_files()}


@each_format
def test_an_aborted_file_is_closed(tmp_path, output_format):
    path = tmp_path / "part"
    tracks = [TrackInfo(name="vocals", tags=Tags(text=TEXT))]
    for blocks in range(3):
        encoder = open_encoder(path, output_format, tracks=tracks, channels=2, sample_rate=44_100, frames=100_000)
        for _ in range(blocks):
            encoder.write(noise(30_000)[None])
        encoder.abort()
        encoder.abort()
        assert str(path) not in open_handles()
        path.unlink()


@each_format
def test_what_was_cut_is_noticed(tmp_path, output_format):
    path = encode(tmp_path, output_format, noise(60_000))
    whole = path.read_bytes()
    for keep in (0, 10, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:keep])
        with pytest.raises(OutputError), output_errors(path):
            check_encoded(path, output_format, tracks=1, channels=2, sample_rate=44_100, frames=60_000)


def write_noise(path: Path, output_format: OutputFormat) -> None:
    layout = {"channels": 2, "sample_rate": 44_100, "frames": 200_000}
    encoder = open_encoder(path, output_format, tracks=[TrackInfo(name="vocals", tags=Tags())], **layout)
    try:
        for _ in range(4):
            encoder.write(noise(50_000)[None])
        encoder.close()
        check_encoded(path, output_format, tracks=1, **layout)
    finally:
        encoder.abort()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@each_format
def test_a_full_disk_is_an_error(output_format):
    path = Path("/dev/full")
    with pytest.raises(OutputError) as caught, output_errors(path):
        write_noise(path, output_format)
    assert str(path) not in open_handles()
    if output_format.container not in (Container.WAV, Container.OGG):  # libsndfile does not tell why
        assert caught.value.code == "output.disk_full"


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    for output_format in LOSSLESS + LOSSY:
        with pytest.raises(OutputError), output_errors(tmp_path):
            write_noise(tmp_path / "none" / "a", output_format)


def test_importing_the_interface_loads_neither_library():
    code = "import sys, revithion_stems.encoders; print([m for m in ('av', 'soundfile', 'soxr') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("channels", range(3, 9))
def test_surround_keeps_its_order_in_ogg(tmp_path, channels):
    """Each channel is a tone of its own; Vorbis orders them otherwise than WAV, and both ends must know."""
    time_s = np.arange(44_100) / 44_100
    source = np.stack([0.3 * np.sin(2 * np.pi * 300 * (k + 1) * time_s) for k in range(channels)]).astype(np.float32)
    path = encode(tmp_path, OutputFormat(container=Container.OGG), source)
    got = read_audio(path).samples
    alike = np.abs(got @ source.T) / (np.linalg.norm(source, axis=1) ** 2)
    assert list(alike.argmax(axis=1)) == list(range(channels))
    if channels == 6:
        command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-c:a", "pcm_f32le", "-"]
        theirs = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4").reshape(-1, 6).T
        assert np.abs(theirs - got).max() < 1e-3
