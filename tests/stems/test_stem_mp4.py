"""``.stem.mp4``: five streams of one length, the mix first, and what DJ programs read about the stems."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from revithion_stems.alignment import find_lag
from revithion_stems.audio_files import read_audio
from revithion_stems.encoders import TrackInfo, check_encoded, open_encoder
from revithion_stems.mp4_boxes import box, find_last_box
from revithion_stems.mp4_encoder import Mp4Encoder
from revithion_stems.mp4_writer import Mp4Track, Mp4Writer, aac_entry
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.stem_colours import STEM_COLOURS, stem_colour
from revithion_stems.tags import Tags, read_tags

NAMES = ("mix", "drums", "bass", "other", "vocals")
AAC = OutputFormat(container=Container.STEM_MP4)
ALAC = [OutputFormat(container=Container.STEM_MP4, bit_depth=depth) for depth in (BitDepth.INT16, BitDepth.INT24)]
AAC_PACKET = 1024

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")


def tracks_of(frames: int, channels: int = 2, bits: int = 15) -> np.ndarray:
    """Mix and four stems ``[5, channels, frames]`` on a grid, low-passed; the stems add up to the mix exactly."""
    rng = np.random.default_rng(0)
    loud = rng.standard_normal((4, channels, frames + 15))
    smooth = sum(loud[..., k : k + frames] for k in range(16)) / 4
    stems = np.rint(0.05 * smooth * 2**bits) / 2**bits
    return np.concatenate([stems.sum(axis=0, keepdims=True), stems]).astype(np.float32)


def encode(folder, output_format, tracks, *, rate=44_100, tags=None, block=20_000) -> Path:
    path = folder / "song.stem.mp4"
    layout = {"channels": tracks.shape[1], "sample_rate": rate, "frames": tracks.shape[2]}
    infos = [TrackInfo(name=name, tags=tags if tags and name == "mix" else Tags()) for name in NAMES]
    encoder = open_encoder(path, output_format, tracks=infos, **layout)
    for at in range(0, tracks.shape[2], block):
        encoder.write(tracks[..., at : at + block])
    encoder.close()
    check_encoded(path, output_format, tracks=5, **layout)
    return path


def decode_with_ffmpeg(path: Path, stream: int) -> np.ndarray:
    command = ["ffmpeg", "-v", "error", "-i", path, "-map", f"0:a:{stream}", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    return np.frombuffer(done.stdout, "<f4").reshape(-1, 2).T


def boxes(data: bytes) -> dict[str, bytes]:
    """Type → content, read with other code than what writes."""
    found: dict[str, bytes] = {}
    stream = io.BytesIO(data)
    while header := stream.read(8):
        size, kind = struct.unpack(">I4s", header)
        size = struct.unpack(">Q", stream.read(8))[0] - 8 if size == 1 else size
        found[kind.decode("latin-1")] = stream.read(size - 8)
    return found


def stem_atom(path: Path) -> dict:
    return json.loads(boxes(boxes(boxes(path.read_bytes())["moov"])["udta"])["stem"])


@needs_ffmpeg
@pytest.mark.parametrize("output_format", ALAC, ids=["16", "24"])
@pytest.mark.parametrize("frames", [1, 1023, 44_101])
def test_lossless_stems_add_up_to_the_mix_exactly(tmp_path, output_format, frames):
    tracks = tracks_of(frames, bits=output_format.grid_bits)
    path = encode(tmp_path, output_format, tracks)
    decoded = np.stack([decode_with_ffmpeg(path, stream) for stream in range(5)])
    assert np.array_equal(decoded, tracks)
    assert np.array_equal(decoded[1:].sum(axis=0), decoded[0])


@needs_ffmpeg
@pytest.mark.parametrize("frames", [1, 100, 44_100, 100_001])
def test_lossy_streams_have_one_length_and_no_lag(tmp_path, frames):
    tracks = tracks_of(frames)
    path = encode(tmp_path, AAC, tracks)
    assert read_audio(path).samples.shape == (2, frames)  # ordinary players play the mix
    decoded = np.stack([decode_with_ffmpeg(path, stream) for stream in range(5)])
    # ffmpeg does not cut AAC in MP4 at the end of the edit list.
    assert frames <= decoded.shape[2] < frames + AAC_PACKET
    for track, found in zip(tracks, decoded, strict=True):
        if frames > 1_000:
            lag = find_lag(track, found[:, :frames], 2_000)
            assert lag.frames == 0
            assert lag.correlation > 0.95


@needs_ffmpeg
def test_stempeg_reads_it(tmp_path):
    import stempeg

    tracks = tracks_of(30_000, bits=23)
    path = encode(tmp_path, ALAC[1], tracks, rate=48_000)
    stems, rate = stempeg.read_stems(str(path), dtype=np.float32)
    assert rate == 48_000
    assert np.array_equal(stems, tracks.transpose(0, 2, 1))
    info = stempeg.Info(str(path))
    assert info.nb_samples_streams == [30_000] * 5
    assert info.title_streams == ["Mix", "Drums", "Bass", "Other", "Vocals"]


@needs_ffmpeg
@pytest.mark.parametrize("output_format", [AAC, ALAC[0]], ids=["aac", "alac"])
def test_ffprobe_shows_five_streams_of_which_the_mix_is_played(tmp_path, output_format):
    path = encode(tmp_path, output_format, tracks_of(5_000))
    entries = "stream=codec_type,codec_name,channels,sample_rate,duration_ts,start_pts:stream_disposition=default"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "json", path]
    streams = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["streams"]
    assert [stream["disposition"]["default"] for stream in streams] == [1, 0, 0, 0, 0]
    for stream in streams:
        assert stream["codec_type"] == "audio"
        assert stream["codec_name"] == ("alac" if output_format.bit_depth else "aac")
        assert (stream["channels"], stream["sample_rate"], stream["duration_ts"]) == (2, "44100", 5_000)
        assert stream["start_pts"] == 0


def test_the_stem_atom_names_and_colours_the_stems(tmp_path):
    atom = stem_atom(encode(tmp_path, AAC, tracks_of(3_000), tags=Tags(text={"title": "Song"})))
    assert atom["version"] == 1
    assert atom["stems"] == [
        {"color": STEM_COLOURS[name], "name": name.capitalize()} for name in ("drums", "bass", "other", "vocals")
    ]
    assert {name: settings["enabled"] for name, settings in atom["mastering_dsp"].items()} == {
        "compressor": False,
        "limiter": False,
    }


def test_tags_are_the_mixs(tmp_path):
    tags = Tags(text={"title": "Söng", "artist": "A", "comment": "of the mix"})
    path = encode(tmp_path, AAC, tracks_of(3_000), tags=tags)
    assert read_tags(path) == tags


def test_mono_becomes_two_equal_channels(tmp_path):
    tracks = tracks_of(3_000, channels=1)
    samples = read_audio(encode(tmp_path, ALAC[0], tracks)).samples
    assert np.array_equal(samples, np.repeat(tracks[0], 2, axis=0))


@pytest.mark.parametrize("output_format", [AAC, ALAC[0]], ids=["aac", "alac"])
def test_the_same_bytes_whatever_the_blocks_are(tmp_path, output_format):
    tracks = tracks_of(200_000)
    first = encode(tmp_path, output_format, tracks, rate=8_000, block=200_000).read_bytes()  # 25 s at once
    assert encode(tmp_path, output_format, tracks, rate=8_000, block=1_999).read_bytes() == first


def test_what_was_cut_is_noticed(tmp_path):
    path = encode(tmp_path, ALAC[0], tracks_of(3_000))
    with pytest.raises(OSError, match="were written instead of"):
        check_encoded(path, ALAC[0], tracks=5, channels=2, sample_rate=44_100, frames=3_001)
    with pytest.raises(OSError, match="were written instead of"):
        check_encoded(path, ALAC[0], tracks=4, channels=2, sample_rate=44_100, frames=3_000)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises((OSError, ValueError)):
        check_encoded(path, ALAC[0], tracks=5, channels=2, sample_rate=44_100, frames=3_000)


@needs_ffmpeg
def test_audio_of_more_than_4_gib_is_found(tmp_path):
    tracks = tracks_of(600_000, bits=15)
    infos = [TrackInfo(name=name, tags=Tags()) for name in NAMES]
    path = tmp_path / "large.stem.mp4"
    encoder = Mp4Encoder(path, ALAC[0], tracks=infos, channels=2, sample_rate=44_100, frames=600_000)
    encoder.write(tracks[..., :400_000])
    encoder._file.seek(2**32, 1)  # a hole takes no room on the disk
    encoder._writer._at += 2**32
    encoder.write(tracks[..., 400_000:])
    encoder.close()
    check_encoded(path, ALAC[0], tracks=5, channels=2, sample_rate=44_100, frames=600_000)
    assert path.stat().st_size > 2**32
    for stream in (0, 4):
        assert np.array_equal(decode_with_ffmpeg(path, stream), tracks[stream])


@pytest.mark.parametrize("frames", [2**32 - 1, 2**32 + 5])
def test_durations_may_take_64_bits(tmp_path, frames):
    path = tmp_path / "long.m4a"
    stereo_at_96_khz = b"\x10\x10"
    entry = aac_entry(stereo_at_96_khz, sample_rate=96_000, channels=2, bit_rate=1)
    track = Mp4Track(name="x", entry=entry, packet_frames=2**31, delay=0)
    with path.open("wb") as file:
        writer = Mp4Writer(file, [track], 96_000)
        for size in (10, 11, 12)[: -(-frames // 2**31)]:
            writer.write(0, bytes(size))
        writer.finish(frames, b"")
    check_encoded(path, OutputFormat(container=Container.M4A), tracks=1, channels=2, sample_rate=96_000, frames=frames)


@pytest.mark.parametrize("packets", [1, 3])
def test_another_number_of_packets_than_the_frames_take_is_an_error(packets):
    track = Mp4Track(name="x", entry=b"", packet_frames=1024, delay=0)
    writer = Mp4Writer(io.BytesIO(), [track], 44_100)
    for _ in range(packets):
        writer.write(0, b"packet")
    with pytest.raises(ValueError, match=f"{packets} packets of 1024 frames for 1500 frames"):
        writer.finish(1_500, b"")


@pytest.mark.parametrize("tail", [b"", box(b"free"), bytes(4) + b"skip"])
def test_another_box_at_the_end_is_noticed(tail):
    data = box(b"moov", box(b"mvhd")) + tail
    file = io.BytesIO(data)
    assert find_last_box(file, b"moov", 0, 16) == 0
    if tail:
        with pytest.raises(ValueError, match="the MP4 file ends with"):
            find_last_box(file, b"moov", 0, len(data))
    with pytest.raises(ValueError, match="the MP4 file ends with"):
        find_last_box(file, b"moov", 0, 15)


def test_colours_are_data_for_everyone():
    assert len(set(STEM_COLOURS.values())) == len(STEM_COLOURS)
    assert stem_colour("Vocals") == STEM_COLOURS["vocals"]
    assert stem_colour("no_vocals") not in STEM_COLOURS.values()


def test_every_stream_is_found_by_pyav_with_its_name(tmp_path):
    with av.open(encode(tmp_path, AAC, tracks_of(3_000))) as container:
        assert [stream.metadata["handler_name"] for stream in container.streams.audio] == [
            name.capitalize() for name in NAMES
        ]
