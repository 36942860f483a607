"""Tags: read from every container, bounded, and the mark by which a stem is known again."""

from __future__ import annotations

import base64
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from revithion_stems.tags import STEM_MARK, Cover, Tags, digest, read_tags, stem_of, stem_tags

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")


def ffmpeg(*args) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-nostdin", *map(str, args)], check=True, timeout=60)


@pytest.fixture(scope="module")
def wav(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "a.wav"
    soundfile.write(path, np.random.default_rng(0).standard_normal((9600, 2)) * 0.1, 48000)
    return path


@pytest.fixture(scope="module")
def covers(wav) -> dict[str, Path]:
    paths = {kind: wav.with_name(f"cover.{kind}") for kind in ("png", "jpg")}
    for path in paths.values():
        ffmpeg("-f", "lavfi", "-i", "testsrc=s=40x40", "-frames:v", 1, path)
    return paths


WANTED = {"title": "Größe 曲", "artist": "Somebody", "album": "An Album", "genre": "Dub", "comment": "two\nlines"}
FORMATS = {
    "a.mp3": ["-c:a", "libmp3lame"],
    "a.flac": ["-c:a", "flac"],
    "a.ogg": ["-c:a", "libvorbis"],
    "a.opus": ["-c:a", "libopus"],
    "a.m4a": ["-c:a", "aac"],
    "b.m4a": ["-c:a", "alac"],
    "a.mkv": ["-c:a", "ac3"],
    "a.wma": ["-c:a", "wmav2"],
    "a.wv": ["-c:a", "wavpack"],
    "a.wav": ["-c:a", "pcm_s16le"],
    "a.aiff": ["-c:a", "pcm_s16be", "-write_id3v2", "1"],
}


@needs_ffmpeg
@pytest.mark.parametrize("name", FORMATS)
def test_text_of_every_format(tmp_path, wav, name):
    options = [option for item in WANTED.items() for option in ("-metadata", "=".join(item))]
    ffmpeg("-i", wav, *options, "-metadata", "date=1979", *FORMATS[name], tmp_path / name)
    tags = read_tags(tmp_path / name)
    assert dict(tags.text) == WANTED | {"date": "1979"}
    assert tags.cover is None
    assert tags.time_reference is None


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.m4a", "a.mka", "a.opus"])
def test_covers(tmp_path, wav, covers, name, kind):
    data = covers[kind].read_bytes()
    media_type = {"png": "image/png", "jpg": "image/jpeg"}[kind]
    if name == "a.mka":
        options = ["-attach", covers[kind], "-metadata:s:t", f"mimetype={media_type}", "-c:a", "flac"]
        ffmpeg("-i", wav, *options, tmp_path / name)
    elif name == "a.opus":
        mime = media_type.encode()
        block = struct.pack(">II", 3, len(mime)) + mime + bytes(4 + 16) + struct.pack(">I", len(data)) + data
        picture = "METADATA_BLOCK_PICTURE=" + base64.b64encode(block).decode()
        ffmpeg("-i", wav, "-c:a", "libopus", "-metadata:s:a", picture, tmp_path / name)
    else:
        codec = {"a.mp3": "libmp3lame", "a.flac": "flac", "a.m4a": "aac"}[name]
        maps = ["-map", "0", "-map", "1", "-c:v", "copy", "-disposition:v", "attached_pic", "-c:a", codec]
        ffmpeg("-i", wav, "-i", covers[kind], *maps, tmp_path / name)
    tags = read_tags(tmp_path / name)
    assert tags.cover == Cover(media_type=media_type, data=data)
    assert "metadata_block_picture" not in tags.text


@needs_ffmpeg
def test_the_front_cover_is_chosen_and_what_is_no_jpeg_or_png_is_left_out(tmp_path, wav, covers):
    inputs = ["-i", wav, "-i", covers["jpg"], "-i", covers["png"], "-map", "0", "-map", "1", "-map", "2"]
    kinds = ["-metadata:s:v:0", "comment=Cover (back)", "-metadata:s:v:1", "comment=Cover (front)"]
    ffmpeg(*inputs, *kinds, "-c:v", "copy", "-c:a", "libmp3lame", tmp_path / "a.mp3")
    cover = read_tags(tmp_path / "a.mp3").cover
    assert cover is not None
    assert cover.media_type == "image/png"
    path = mp3(tmp_path / "b.mp3", id3_frame(b"APIC", b"\x00image/png\x00\x03\x00GIF89a" + bytes(100)))
    assert read_tags(path).cover is None


def id3(frames: bytes) -> bytes:
    size = len(frames)
    return b"ID3\x04\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + frames


def id3_frame(name: bytes, body: bytes) -> bytes:
    return name + bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(2) + body


def mp3(path: Path, frames: bytes) -> Path:
    soundfile.write(path, np.random.default_rng(0).standard_normal((20_000, 1)) * 0.1, 44100, format="MP3")
    path.write_bytes(id3(frames) + path.read_bytes())
    return path


@pytest.mark.parametrize(("size", "taken"), [(16 * 2**20, True), (16 * 2**20 + 1, False)])
def test_a_cover_has_16_mib_at_most(tmp_path, size, taken):
    data = b"\x89PNG\r\n\x1a\n".ljust(size, b"x")
    path = mp3(tmp_path / "a.mp3", id3_frame(b"APIC", b"\x00image/png\x00\x03\x00" + data))
    assert (read_tags(path).cover is not None) == taken


def test_text_is_bounded_and_clean(tmp_path):
    frames = id3_frame(b"TIT2", b"\x03a\x1b[31m\tb\x00")
    frames += id3_frame(b"TPE1", b"\x03" + "曲".encode() * 3000)
    frames += b"".join(id3_frame(b"TXXX", b"\x03" + f"name{n}\0value{n}".encode()) for n in range(100))
    tags = read_tags(mp3(tmp_path / "a.mp3", frames))
    assert tags.text["title"] == "a[31mb"
    assert 4090 < len(tags.text["artist"].encode()) <= 4096
    assert len(tags.text) == 64
    assert all(len(value.encode()) <= 4096 for value in tags.text.values())


def riff(*chunks: tuple[bytes, bytes], kind: bytes = b"RIFF") -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return kind + struct.pack("<I", len(body) + 4) + b"WAVE" + body


FMT = (b"fmt ", struct.pack("<HHIIHH", 1, 1, 44100, 88200, 2, 16))
DATA = (b"data", bytes(2000))


@pytest.mark.parametrize("reference", [0, 1, 44100 * 3600, 2**33 + 5])
def test_the_time_reference_of_bwf(tmp_path, reference):
    bext = b"A description".ljust(256, b"\0") + b"somebody".ljust(32, b"\0") + bytes(32) + b"2020-01-0112:00:00"
    bext += struct.pack("<QH", reference, 1) + bytes(64 + 190)
    (tmp_path / "a.wav").write_bytes(riff(FMT, (b"bext", bext), DATA))
    tags = read_tags(tmp_path / "a.wav")
    assert tags.time_reference == reference
    assert dict(tags.text) == {"comment": "A description", "date": "2020-01-01"}
    ds64 = struct.pack("<QQQI", 0, 2000, 1000, 0)
    (tmp_path / "a.rf64").write_bytes(riff((b"ds64", ds64), FMT, (b"bext", bext), DATA, kind=b"RF64"))
    assert read_tags(tmp_path / "a.rf64").time_reference == reference


def test_text_of_windows_is_understood(tmp_path):
    info = b"INFO" + b"INAM" + struct.pack("<I", 6) + b"Gr\xf6\xdfe\0"
    (tmp_path / "a.wav").write_bytes(riff(FMT, (b"LIST", info), DATA))
    assert read_tags(tmp_path / "a.wav").text == {"title": "Größe"}


def test_what_has_no_tags_has_none(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "text.mp3").write_text("not a song " * 100)
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(50_000))
    soundfile.write(tmp_path / "plain.wav", np.zeros(100), 44100)
    for name in ("missing", ".", "empty", "text.mp3", "noise", "plain.wav"):
        assert read_tags(tmp_path / name) == Tags()


# --- the mark of a stem ---

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1, max_size=40)
TEXTS = st.dictionaries(st.sampled_from(["title", "artist", "comment", "date"]), st.text(max_size=400))


@given(text=TEXTS, stem=NAMES, model=NAMES, licence=st.text(max_size=60))
def test_a_stem_says_which_one_it_is(text, stem, model, licence):
    source = Tags(text=text, cover=Cover(media_type="image/png", data=b"x"), time_reference=7)
    tags = stem_tags(source, stem=stem, model=model, licence=licence)
    assert stem_of(tags) == stem
    comment = tags.text["comment"]
    assert len(comment.encode()) <= 250
    mark = comment.rpartition("\n")[2]
    assert mark.isascii()
    assert mark.isprintable()
    assert mark.startswith(f"revithion-stems: stem {stem}, model {model}")
    assert (tags.cover, tags.time_reference) == (source.cover, 7)
    if text.get("title"):
        assert tags.text["title"] == f"{text['title']} ({stem})"
    else:
        assert tags.text.get("title", "") == ""
    others = {name: value for name, value in text.items() if name not in ("title", "comment")}
    assert others.items() <= tags.text.items()


def test_the_mark():
    tags = stem_tags(Tags(text={"comment": "by hand"}), stem="vocals", model="htdemucs", licence="research use")
    mark = "revithion-stems: stem vocals, model htdemucs, weights: research use"
    assert tags.text == {"comment": f"by hand\n{mark}"}
    assert STEM_MARK.format(stem="vocals", model="htdemucs", licence="research use") == mark
    assert stem_of(Tags()) is None
    assert stem_of(Tags(text={"comment": "I like revithion-stems: stem by stem"})) is None
    # Containers cut comments, and make of a line break what they like.
    for text in (f"by hand {mark}", f"by hand; {mark[:50]}", mark + "\r\nmore"):
        assert stem_of(Tags(text={"comment": text})) == "vocals"


def test_a_stem_of_a_stem_has_one_mark():
    first = stem_tags(Tags(text={"comment": "by hand"}), stem="other", model="htdemucs", licence="free")
    second = stem_tags(first, stem="guitar", model="htdemucs_6s", licence="free")
    assert second.text["comment"] == "by hand\nrevithion-stems: stem guitar, model htdemucs_6s, weights: free"


def test_the_digest_is_of_everything():
    cover = Cover(media_type="image/png", data=b"x")
    different = [
        Tags(),
        Tags(text={"title": "a"}),
        Tags(text={"title": "b"}),
        Tags(text={"artist": "a"}),
        Tags(text={"title": "a", "artist": "ü"}),
        Tags(cover=cover),
        Tags(cover=Cover(media_type="image/jpeg", data=b"x")),
        Tags(cover=Cover(media_type="image/png", data=b"y")),
        Tags(time_reference=0),
        Tags(time_reference=1),
    ]
    digests = [digest(tags) for tags in different]
    assert len(set(digests)) == len(digests)
    assert all(len(value) == 64 for value in digests)
    assert digest(Tags(text={"artist": "ü", "title": "a"})) == digest(Tags(text={"title": "a", "artist": "ü"}))
    assert digest(Tags(cover=cover)) == digest(Tags(cover=Cover(media_type="image/png", data=b"x")))
