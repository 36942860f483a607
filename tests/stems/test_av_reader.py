"""What FFmpeg decodes for us: the same frames as ffmpeg's own decode, in their place, and nothing but local audio."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_stems.alignment import find_lag
from revithion_stems.audio_files import AudioReader, read_audio, read_info
from revithion_stems.errors import InputError

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file system")

FRAMES = 30_123
ROUNDING = 2e-7
"""Of two versions of the same float decoder."""

ENCODER_PADDING = 1024
"""The last packet of AAC and Opus in MP4 is filled up; ffmpeg gives that out, we do not."""


def ffmpeg(*args) -> bytes:
    command = ["ffmpeg", "-v", "error", "-y", "-nostdin", *map(str, args)]
    return subprocess.run(command, check=True, timeout=60, capture_output=True).stdout


def tone(frames=FRAMES, channels=2, seed=0) -> np.ndarray:
    """Low-passed noise ``[channels, frames]`` in 16 bits: survives any codec, its correlation has one sharp peak."""
    noise = np.random.default_rng(seed).standard_normal((channels, frames + 15))
    smooth = sum(noise[:, k : k + frames] for k in range(16)) / 16
    return (np.round(smooth * 0.4 * 2**15) / 2**15).astype(np.float32)


def read(path, block=65_536) -> np.ndarray:
    with AudioReader(Path(path)) as reader:
        return np.concatenate(list(reader.blocks(block)), axis=1)


def ffmpeg_read(path, channels, *options) -> np.ndarray:
    """ffmpeg's own decode ``[channels, frames]``."""
    raw = ffmpeg("-i", path, "-map", "0:a:0", *options, "-f", "f32le", "-")
    return np.frombuffer(raw, "<f4").reshape(-1, channels).T


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[tuple[int, int], Path]:
    folder = tmp_path_factory.mktemp("sources")
    paths = {}
    for rate, channels in ((44100, 2), (48000, 1), (48000, 2), (48000, 6), (48000, 8)):
        paths[rate, channels] = folder / f"{rate}.{channels}.wav"
        soundfile.write(paths[rate, channels], tone(channels=channels).T, rate)
    return paths


def encode(sources, path, *options, rate=44100, channels=2) -> Path:
    ffmpeg("-i", sources[rate, channels], *options, path)
    return path


# --- every format in its place ---

LOSSLESS = {
    "alac.m4a": ["alac"],
    "alac.caf": ["alac"],
    "alac.mkv": ["alac"],
    "flac.mkv": ["flac"],
    "flac.mp4": ["flac", "-strict", "-2"],
    "flac.ogg": ["flac"],
    "pcm_s16le.mov": ["pcm_s16le"],
    "pcm_s24be.mov": ["pcm_s24be"],
    "pcm_f32le.mov": ["pcm_f32le"],
    "pcm_s16le.mkv": ["pcm_s16le"],
    "pcm_s16le.avi": ["pcm_s16le"],
    "wavpack.wv": ["wavpack"],
    "tta.tta": ["tta"],
}
DELAY_TOLD = {
    "aac.m4a": ["aac"],
    "aac.mov": ["aac"],
    "aac.3gp": ["aac"],
    "opus.mkv": ["libopus"],
    "opus.webm": ["libopus"],
    "opus.mp4": ["libopus"],
}
DELAY_UNKNOWN = {
    "aac.aac": ["aac"],
    "aac.mkv": ["aac"],
    "aac.flv": ["aac"],
    "aac.ts": ["aac"],
    "aac.latm": ["aac"],
    "ac3.ac3": ["ac3"],
    "ac3.mp4": ["ac3"],
    "ac3.wav": ["ac3"],
    "ac3.vob": ["ac3"],
    "eac3.eac3": ["eac3"],
    "dts.dts": ["dca", "-strict", "-2"],
    "mp2.mpg": ["mp2"],
    "mp3.mp4": ["libmp3lame"],
    "mp3.mkv": ["libmp3lame"],
    "mp3.avi": ["libmp3lame"],
    "vorbis.mkv": ["libvorbis"],
    "vorbis.webm": ["libvorbis"],
    "wmav1.wma": ["wmav1"],
    "wmav2.wma": ["wmav2"],
}
MONO_TOO = ["alac.m4a", "flac.mkv", "wavpack.wv", "aac.m4a", "aac.aac", "opus.webm", "ac3.ac3", "wmav2.wma", "mp3.mkv"]
SURROUND_TOO = [
    "alac.m4a",
    "pcm_s24be.mov",
    "aac.m4a",
    "aac.ts",
    "opus.mkv",
    "ac3.mp4",
    "eac3.eac3",
    "dts.dts",
    "vorbis.mkv",
]


@pytest.mark.parametrize(
    ("name", "rate", "channels"),
    [
        *((name, 44100, 2) for name in [*LOSSLESS, *DELAY_TOLD, *DELAY_UNKNOWN]),
        *((name, 48000, 1) for name in MONO_TOO),
        *((name, 48000, 6) for name in SURROUND_TOO),
    ],
)
def test_every_format_is_decoded_as_ffmpeg_decodes_it(tmp_path, sources, name, rate, channels):
    codec, *options = (LOSSLESS | DELAY_TOLD | DELAY_UNKNOWN)[name]
    if codec == "libopus":
        rate = 48000  # its only rate
    path = encode(sources, tmp_path / name, "-c:a", codec, *options, rate=rate, channels=channels)
    got, expected, source = read(path), ffmpeg_read(path, channels), tone(channels=channels)
    info = read_info(path)
    assert (info.channels, info.sample_rate) == (channels, rate)
    assert abs(info.frames - expected.shape[1]) < rate / 4  # an estimate where the header does not tell

    padding = expected.shape[1] - got.shape[1]
    assert 0 <= padding < (ENCODER_PADDING if name in DELAY_TOLD else 1)
    expected = expected[:, : got.shape[1]]
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING)
    assert find_lag(expected, got, 5000).frames == 0
    if name in LOSSLESS:
        assert np.array_equal(got, source)
    if name in DELAY_TOLD:
        assert got.shape == source.shape
        lag = find_lag(source, got, 5000)
        assert lag.frames == 0
        assert abs(lag.correlation) > 0.5

    with AudioReader(path) as reader:
        blocks = list(reader.blocks(1000))
        assert {block.shape[1] for block in blocks[:-1]} == {1000}
        assert all(block.flags.c_contiguous and block.dtype == np.float32 for block in blocks)
        assert np.array_equal(np.concatenate(blocks, axis=1), got)
        assert np.array_equal(np.concatenate(list(reader.blocks()), axis=1), got)  # a second pass
        assert reader.shortfall(got.shape[1]) is None


@pytest.mark.parametrize(
    ("codec", "frames"),
    [
        *(("aac", frames) for frames in (1, 1023, 1024, 1025)),
        *(("alac", frames) for frames in (1, 4096, 4097)),
        *(("libopus", frames) for frames in (960 - 312, 960, 2 * 960 - 312 + 1)),
    ],
)
def test_lengths_at_the_edges_of_a_packet(tmp_path, codec, frames):
    soundfile.write(tmp_path / "a.wav", tone(frames).T, 48000)
    # By default ffmpeg writes the edit list in milliseconds, and then drops a last packet that is shorter.
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", codec, "-movie_timescale", 48000, tmp_path / "a.mp4")
    assert read(tmp_path / "a.mp4").shape == (2, frames)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32be", "pcm_f64le"])
def test_samples_are_scaled_by_powers_of_two(tmp_path, codec):
    bits = {"pcm_u8": 8, "pcm_s16be": 16}.get(codec, 24)
    steps = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 5000))
    steps[:, :2] = [[-(2 ** (bits - 1))], [2 ** (bits - 1) - 1]]
    soundfile.write(tmp_path / "a.wav", (steps / 2 ** (bits - 1)).T, 44100, subtype="DOUBLE")
    container = "avi" if codec == "pcm_u8" else "mov"
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", codec, tmp_path / f"a.{container}")
    assert np.array_equal(read(tmp_path / f"a.{container}"), steps / 2 ** (bits - 1))


def test_a_double_beyond_float32_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full((100, 1), 1e300), 44100, subtype="DOUBLE")
    ffmpeg("-i", tmp_path / "a.wav", "-c:a", "pcm_f64le", tmp_path / "a.mov")
    refuse(tmp_path / "a.mov", "input.not_finite")


@pytest.mark.parametrize("name", ["aac.m4a", "libopus.mkv", "flac.mkv"])
def test_eight_channels(tmp_path, sources, name):
    path = encode(sources, tmp_path / name, "-c:a", name.partition(".")[0], rate=48000, channels=8)
    got = read(path)
    np.testing.assert_allclose(got, ffmpeg_read(path, 8)[:, : got.shape[1]], rtol=0, atol=ROUNDING)
    assert got.shape == (8, FRAMES)


def test_the_channels_of_surround_ogg_are_in_the_order_of_wave(tmp_path, sources):
    for codec in ("libvorbis", "libopus"):
        for channels in (6, 8):
            path = encode(sources, tmp_path / "a.ogg", "-c:a", codec, "-b:a", "600k", rate=48000, channels=channels)
            got = read(path)
            assert got.shape == (channels, FRAMES)  # ffmpeg 5 does not cut the end of Vorbis
            np.testing.assert_allclose(got, ffmpeg_read(path, channels)[:, :FRAMES], rtol=0, atol=0.01)


def test_a_length_that_nothing_tells_is_counted(tmp_path, sources):
    path = encode(sources, tmp_path / "a.latm", "-c:a", "aac")
    assert read_info(path).frames == read(path).shape[1]


# --- gapless tags ---


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    return found


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def edit(data: bytes, path: tuple[bytes, ...], change) -> bytes:
    """An MP4 in which the body of the box at ``path`` is ``change(body)``."""
    if not path:
        return change(data)
    return b"".join(box(kind, edit(body, path[1:], change) if kind == path[0] else body) for kind, body in boxes(data))


def gapless_tag(delay: int, padding: int, length: int) -> bytes:
    text = f" 00000000 {delay:08X} {padding:08X} {length:016X}" + " 00000000" * 8
    item = box(b"mean", bytes(4) + b"com.apple.iTunes") + box(b"name", bytes(4) + b"iTunSMPB")
    item += box(b"data", struct.pack(">II", 1, 0) + text.encode())
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    return box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", box(b"----", item))))


def untrimmed_m4a(tmp_path, sources) -> bytes:
    """AAC whose MP4 says nothing about delay and padding, as iTunes writes it."""
    path = encode(sources, tmp_path / "a.m4a", "-c:a", "aac", "-use_editlist", "0", "-map_metadata", "-1")
    data = path.read_bytes()
    packets = -(-(FRAMES + 1024) // 1024)
    stts = struct.pack(">IIII", 0, 1, packets, 1024)
    data = edit(data, (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"), lambda _: stts)
    return edit(
        data,
        (b"moov", b"trak", b"mdia", b"mdhd"),
        lambda body: body[:16] + struct.pack(">I", packets * 1024) + body[20:],
    )


def test_the_gapless_tag_of_itunes(tmp_path, sources):
    data = untrimmed_m4a(tmp_path, sources)
    (tmp_path / "b.m4a").write_bytes(data)
    whole = read(tmp_path / "b.m4a")
    assert find_lag(tone(), whole[:, :FRAMES], 5000).frames == 1024
    padding = whole.shape[1] - FRAMES - 1024
    assert 0 < padding < 1024

    def tagged(length: int) -> np.ndarray:
        tag = gapless_tag(1024, padding, length)
        # ffmpeg wrote a udta of its own; the index stands after the samples, so that nothing moves.
        strip = lambda body: b"".join(box(k, b) for k, b in boxes(body) if k != b"udta")  # noqa: E731
        (tmp_path / "c.m4a").write_bytes(edit(data, (b"moov",), lambda body: strip(body) + tag))
        return read(tmp_path / "c.m4a")

    assert np.array_equal(tagged(FRAMES), whole[:, 1024 : 1024 + FRAMES])
    # A tag that does not fit the stream (left over from before a cut, or broken) takes nothing away at the end.
    assert tagged(FRAMES - 20_000).shape[1] == tagged(0).shape[1] == whole.shape[1] - 1024


# --- video, covers, several streams, names ---

VIDEO = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=10:d=0.6"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.avi", "a.wmv"])
def test_a_video_gives_its_sound(tmp_path, sources, name):
    path = tmp_path / name
    codec = ["-c:v", "wmv2", "-c:a", "wmav2"] if name == "a.wmv" else ["-c:v", "mpeg4", "-c:a", "ac3"]
    ffmpeg(*VIDEO, "-i", sources[48000, 2], "-map", "0:v", "-map", "1:a", *codec, path)
    got = read(path)
    np.testing.assert_allclose(got, ffmpeg_read(path, 2), rtol=0, atol=ROUNDING)
    with AudioReader(path) as reader:
        assert reader.shortfall(got.shape[1]) is None


def test_a_video_without_sound(tmp_path):
    ffmpeg(*VIDEO, "-c:v", "mpeg4", tmp_path / "a.mp4")
    assert "no audio" in refuse(tmp_path / "a.mp4", "input.no_audio").message
    ffmpeg(*VIDEO, "-frames:v", 1, tmp_path / "a.png")
    refuse(tmp_path / "a.png", "input.not_audio")


def test_a_cover_is_no_obstacle(tmp_path, sources):
    ffmpeg(*VIDEO, "-frames:v", 1, tmp_path / "cover.jpg")
    for name, codec in (("a.m4a", "aac"), ("b.m4a", "alac"), ("a.wma", "wmav2")):
        cover = ["-i", tmp_path / "cover.jpg", "-map", "0", "-map", "1", "-c:v", "copy"]
        path = encode(sources, tmp_path / name, *cover, "-disposition:v", "attached_pic", "-c:a", codec)
        got = read(path)
        np.testing.assert_allclose(got, ffmpeg_read(path, 2)[:, : got.shape[1]], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["a.mp4", "a.mka"])
@pytest.mark.parametrize("default", [0, 1])
def test_of_several_streams_the_default_one_is_read(tmp_path, name, default):
    for n in (0, 1):
        soundfile.write(tmp_path / f"{n}.wav", tone(seed=n).T, 44100)
    marks = [f"-disposition:a:{default}", "default", f"-disposition:a:{1 - default}", "0"]
    inputs = ["-i", tmp_path / "0.wav", "-i", tmp_path / "1.wav", "-map", "0", "-map", "1"]
    ffmpeg(*inputs, "-c:a", "alac", *marks, tmp_path / name)
    assert np.array_equal(read(tmp_path / name), tone(seed=default))


@pytest.mark.parametrize(
    "name", ["Größe 曲 🎵.m4a", "-i.m4a", "concat:a.m4a", "http:x.m4a", "a%03d.m4a", "m4a", "a.wav"]
)
def test_odd_names_and_wrong_extensions(tmp_path, sources, name):
    if sys.platform == "win32" and ":" in name:
        pytest.skip("no such names there")
    encode(sources, tmp_path / "x.m4a", "-c:a", "alac").rename(tmp_path / name)
    assert np.array_equal(read(tmp_path / name), tone())


@posix_only
@pytest.mark.parametrize("name", [b"latin-\xe9.m4a", b"line\nbreak.m4a", b"a.\xff"])
def test_names_of_any_bytes(tmp_path, sources, name):
    if sys.platform == "darwin":
        pytest.skip("names are UTF-8 there")
    path = encode(sources, tmp_path / "x.m4a", "-c:a", "alac").rename(tmp_path / os.fsdecode(name))
    assert np.array_equal(read(path), tone())


# --- what can't be used ---


def refuse(path, code) -> InputError:
    with pytest.raises(InputError) as caught:
        read_audio(path)
    assert caught.value.code == code, caught.value
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def test_lists_of_other_files_are_refused(tmp_path, sources):
    encode(sources, tmp_path / "a.m4a", "-c:a", "aac")
    encode(sources, tmp_path / "a.ts", "-c:a", "aac")
    lists = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\na.ts\n#EXT-X-ENDLIST\n",
        "net.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "a.ffconcat": "ffconcat version 1.0\nfile a.m4a\n",
        "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    }
    for name, text in lists.items():
        for extension in ("", ".m4a"):
            (tmp_path / (name + extension)).write_text(text)
            refuse(tmp_path / (name + extension), "input.not_audio")


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (44100, 1)])
def test_rate_or_channels_that_change_midway(tmp_path, sources, rate, channels):
    encode(sources, tmp_path / "a.aac", "-c:a", "aac")
    ffmpeg("-i", sources[44100, 2], "-ar", rate, "-ac", channels, "-c:a", "aac", tmp_path / "b.aac")
    (tmp_path / "c.aac").write_bytes((tmp_path / "a.aac").read_bytes() + (tmp_path / "b.aac").read_bytes())
    error = refuse(tmp_path / "c.aac", "input.changed_layout")
    assert f"to {channels} channels at {rate} Hz" in error.message


@pytest.mark.parametrize("name", ["fast.m4a", "a.mkv", "a.wma", "a.tta"])
def test_what_was_cut_short_is_read_as_far_as_it_goes_and_that_is_said(tmp_path, sources, name):
    long = tmp_path / "long.wav"
    soundfile.write(long, tone(4 * 44100).T, 44100)
    codec = {"m4a": "aac", "mkv": "ac3", "wma": "wmav2", "tta": "tta"}[name.partition(".")[2]]
    ffmpeg("-i", long, "-c:a", codec, *(["-movflags", "faststart"] if name == "fast.m4a" else []), tmp_path / name)
    whole = read(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 6 // 10])
    with AudioReader(tmp_path / name) as reader:
        got = np.concatenate(list(reader.blocks()), axis=1)
        assert 0.4 < got.shape[1] / whole.shape[1] < 0.7
        shortfall = reader.shortfall(got.shape[1])
    assert shortfall is not None
    assert "cut short" in shortfall or "is damaged" in shortfall
    good = got.shape[1] - 4096  # the last packets may be damaged
    assert np.array_equal(got[:, :good], whole[:, :good])


def test_an_mp4_without_its_index_is_refused(tmp_path, sources):
    path = encode(sources, tmp_path / "a.m4a", "-c:a", "aac")  # the index stands at the end
    path.write_bytes(path.read_bytes()[:-500])
    refuse(path, "input.not_audio")


def test_damage_inside(tmp_path, sources):
    path = encode(sources, tmp_path / "a.m4a", "-c:a", "aac", "-movflags", "faststart")
    whole = read(path)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 600] = bytes(600)
    path.write_bytes(data)
    with AudioReader(path) as reader:
        got = np.concatenate(list(reader.blocks()), axis=1)
        assert 0.8 * whole.shape[1] < got.shape[1] < whole.shape[1]
        assert "could not be decoded" in (reader.shortfall(got.shape[1]) or "")
    data[start:] = bytes(len(data) - start)
    path.write_bytes(data)
    refuse(path, "input.truncated")


def test_a_file_that_goes_away_or_changes_between_passes(tmp_path, sources):
    path = encode(sources, tmp_path / "a.m4a", "-c:a", "alac")
    with AudioReader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == FRAMES
        encode(sources, path, "-c:a", "alac", rate=48000, channels=1)
        with pytest.raises(InputError, match="changed while it was read"):
            list(reader.blocks())
        path.unlink()
        with pytest.raises(InputError, match="does not exist"):
            list(reader.blocks())


def test_reading_on_after_closing_is_an_error(tmp_path, sources):
    path = encode(sources, tmp_path / "a.m4a", "-c:a", "alac")
    with AudioReader(path) as reader:
        blocks = reader.blocks(1000)
        next(blocks)
    with pytest.raises(ValueError, match="closed"):
        list(blocks)


# --- what a few bytes can declare ---

MEASURE = """
import re, sys
from pathlib import Path
from revithion_stems.audio_files import AudioReader
from revithion_stems.errors import InputError
for path in map(Path, sys.argv[1:]):
    try:
        with AudioReader(path) as reader:
            print(sum(block.shape[1] for block in reader.blocks()))
    except InputError as error:
        print(error.code)
# Not getrusage: that also counts what the process was before it became this program, a copy of the one that tests.
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""
MOST_RSS_KIB = 450 * 2**10


@pytest.mark.skipif(sys.platform != "linux", reason="/proc; folder of FFmpeg's library")
def test_an_index_that_declares_millions_of_samples_costs_no_gigabytes(tmp_path, sources):
    path = encode(sources, tmp_path / "a.m4a", "-c:a", "aac")
    table = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    for number, count in enumerate((5_000_000, 80_000_000)):
        data = edit(path.read_bytes(), (*table, b"stsz"), lambda _, n=count: struct.pack(">III", 0, 10, n))
        data = edit(data, (*table, b"stts"), lambda _, n=count: struct.pack(">IIII", 0, 1, n, 1024))
        data = edit(data, (*table, b"stsc"), lambda _, n=count: struct.pack(">IIIII", 0, 1, 1, n, 1))
        (tmp_path / f"{number}.m4a").write_bytes(data)
    path = encode(sources, tmp_path / "b.mp4", "-c:a", "aac", "-movflags", "empty_moov+frag_keyframe")
    run = lambda _: struct.pack(">III", 1, 80_000_000, 0)  # noqa: E731
    (tmp_path / "2.mp4").write_bytes(edit(path.read_bytes(), (b"moof", b"traf", b"trun"), run))
    command = [sys.executable, "-c", MEASURE, *(tmp_path / name for name in ("0.m4a", "1.m4a", "2.mp4"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout.split()[-1]) < MOST_RSS_KIB, done.stdout


@pytest.mark.timeout(30)
def test_an_index_that_points_at_the_same_bytes_again_and_again_ends(tmp_path, sources):
    path = encode(sources, tmp_path / "a.mov", "-c:a", "pcm_s16le", "-use_editlist", "0")
    table = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
    first = path.read_bytes().index(b"mdat") + 4
    chunks, each = 60_000, 100
    places = [first + (80_000 if n % 2 else 0) for n in range(chunks)]
    data = edit(path.read_bytes(), (*table, b"stco"), lambda _: struct.pack(f">II{chunks}I", 0, chunks, *places))
    data = edit(data, (*table, b"stsc"), lambda _: struct.pack(">IIIII", 0, 1, 1, each, 1))
    data = edit(data, (*table, b"stsz"), lambda _: struct.pack(">III", 0, 4, chunks * each))
    data = edit(data, (*table, b"stts"), lambda _: struct.pack(">IIII", 0, 1, chunks * each, 1))
    path.write_bytes(data)
    assert "again and again" in refuse(path, "input.truncated").message
