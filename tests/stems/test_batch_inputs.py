"""What `batch` is given on its command line, as files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.audio_files import AUDIO_SUFFIXES
from revithion_stems.batch_inputs import expand, refuse_collisions
from revithion_stems.batch_items import Batch, BatchItem
from revithion_stems.errors import InputError, OutputError, RequestError
from revithion_stems.manifest import Manifest, ManifestFile, ManifestModel, ManifestParameters, ManifestSource
from revithion_stems.outputs import OutputOptions
from revithion_stems.paths import safe_component
from revithion_stems.requests import SeparationRequest

SHA = "0" * 64


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with some files in it."""
    monkeypatch.chdir(tmp_path)
    make("music/b.wav", "music/a.MP3", "music/cover.jpg", "music/.hidden.wav", "music/rock/live/c.opus")
    make("music/rock/d.flac", "music/.git/e.wav", "f.aiff", "notes.txt")
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def pairs(*arguments: str) -> list[tuple[str, str]]:
    return [(Path(item.source).as_posix(), str(item.folder)) for item in expand(arguments)]


MUSIC = [
    ("music/a.MP3", "."),
    ("music/b.wav", "."),
    ("music/rock/d.flac", "rock"),
    ("music/rock/live/c.opus", "rock/live"),
]


def test_a_folder_stands_for_its_audio_files_and_keeps_its_shape(place):
    assert pairs("music") == MUSIC
    assert pairs("./music/") == MUSIC
    assert pairs(str(place / "music" / "rock")) == [
        ((place / "music/rock/d.flac").as_posix(), "."),
        ((place / "music/rock/live/c.opus").as_posix(), "live"),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("music/*.wav", [("music/b.wav", ".")]),
        ("music/**", MUSIC),
        ("music/**/*.[fo]*", MUSIC[2:]),
        ("*/rock/*", [("music/rock/d.flac", "music/rock")]),
        ("?.aiff", [("f.aiff", ".")]),
    ],
)
def test_a_pattern_keeps_the_shape_below_its_fixed_part(place, pattern, expected):
    assert sorted(pairs(pattern)) == expected


def test_a_file_is_taken_whatever_it_is_called_and_each_once(place):
    make("what [live] *.dat" if sys.platform != "win32" else "what [live].dat")
    (odd,) = [path.name for path in place.glob("what*")]
    assert pairs(odd, "notes.txt", "music/b.wav") == [(odd, "."), ("notes.txt", "."), ("music/b.wav", ".")]
    assert pairs("music/rock/../b.wav", "music", "music/**/*.wav")[0] == ("music/rock/../b.wav", ".")
    assert len(pairs("music/rock/../b.wav", "music", "music/**/*.wav")) == 4


def test_links(place):
    try:
        Path("music/again").symlink_to("rock", target_is_directory=True)
        Path("music/same.wav").symlink_to("b.wav")
        Path("broken.wav").symlink_to("nowhere")
    except OSError:
        pytest.skip("links need a privilege here")
    assert pairs("music") == MUSIC  # no link to a folder is followed, and what it points to is there once
    assert pairs("broken.wav") == [("broken.wav", ".")]  # whoever opens it says what is wrong


def test_urls_are_files(place):
    url = "s3://bucket//a*.wav"
    assert expand([url, "f.aiff", url]) == (BatchItem(source=url), BatchItem(source="f.aiff"))


def test_urls_can_stand_for_many_but_not_in_a_list(place):
    def found(url: str) -> list[BatchItem]:
        return [BatchItem(source=f"{url}/{name}", folder=PurePosixPath("deep")) for name in ("a.wav", "b.wav")]

    Path("list").write_text("m://x\n")
    assert expand(["m://x", "m://x", "@list"], expand_url=found) == (*found("m://x"), BatchItem(source="m://x"))
    with pytest.raises(InputError, match="'m://x' names no audio file"):
        expand(["m://x"], expand_url=lambda url: [])


def test_a_list_is_read_from_its_own_folder(place):
    make("music/# 1.wav", "music/ first.wav")
    Path("music/list.txt").write_bytes(
        "\ufeffb.wav\r\n\n  # a comment\r\nrock\n./# 1.wav\n first.wav\nno longer there.wav\ns3://bucket/x.wav\n"
        f"{place / 'f.aiff'}\na*.MP3\nb.wav".encode()
    )
    assert pairs("@music/list.txt") == [
        ("music/b.wav", "."),
        ("music/rock/d.flac", "."),
        ("music/rock/live/c.opus", "live"),
        ("music/# 1.wav", "."),
        ("music/ first.wav", "."),
        ("music/no longer there.wav", "."),  # its own error later: one line must not stop the others
        ("s3:/bucket/x.wav", "."),
        ((place / "f.aiff").as_posix(), "."),
        ("music/a*.MP3", "."),  # a line is a name and not a pattern
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are UTF-8 there")
def test_names_in_a_list_that_are_not_utf_8(place):
    name = os.fsdecode(b"latin-\xe9.wav")
    make(name)
    Path("list").write_bytes(b"latin-\xe9.wav\n")
    assert expand(["@list"]) == (BatchItem(source=name),)


def test_a_list_on_standard_input(place):
    script = "from revithion_stems.batch_inputs import expand; print(*(i.source for i in expand(['@-'])), sep='|')"
    done = subprocess.run(
        [sys.executable, "-c", script], input=b"music/b.wav\n\nf.aiff\n", stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.decode().strip().replace("\\", "/") == "music/b.wav|f.aiff"


@pytest.mark.parametrize("argument", ["", "no.wav", "music/*.ogg", "empty", "music/.git/x*", "@empty.txt", "x" * 300])
def test_what_names_nothing_is_an_error(place, argument):
    Path("empty").mkdir()
    make("empty.txt")
    with pytest.raises(InputError, match="names no audio file") as caught:
        expand(["f.aiff", argument])
    assert caught.value.code == "batch.nothing"


@pytest.mark.parametrize("content", [None, "a.wav\n".encode("utf-16"), b"a.wav\0b.wav\0"])
def test_an_unusable_list_is_an_error(place, content):
    if content is not None:
        Path("list.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"list 'list\.txt' can't be read") as caught:
        expand(["@list.txt"])
    assert caught.value.code == "batch.list"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="everything can be read")
def test_a_folder_that_cannot_be_read_is_an_error(place):
    Path("music/rock").chmod(0)
    try:
        with pytest.raises(InputError, match="rock can't be read"):
            expand(["music"])
    finally:
        Path("music/rock").chmod(0o700)


# --- our own stems ---


def manifest(*paths: str) -> bytes:
    files = [ManifestFile(role="stem", stem="x", path=path, stream=0, size=1, sha256=SHA) for path in paths]
    return Manifest(
        created="2020-01-01T00:00:00+00:00",
        key=SHA,
        source=ManifestSource(
            path="b.wav", size=1, sha256=SHA, audio_sha256=SHA, sample_rate=1, channels=1, frames=1
        ),
        model=ManifestModel(name="dsp", licence="x", commercial_use="yes", weights=[]),
        parameters=ManifestParameters(
            stems=["x"], two_stems=None, other_method="minus", residual="fold", segment_s=1.0, overlap=0.25, shifts=0,
            seed=0, precision="fp32", threads=None, format="wav", bit_depth="32f",
        ),
        engine="numpy",
        device="cpu",
        versions={},
        elapsed_s=1.0,
        gain_db=0.0,
        exact=True,
        null_db=None,
        lag_frames=0,
        files=files,
    ).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("where", "stems"),
    [
        ("music/b/manifest.json", ["drums.wav", "deep/vocals.wav"]),
        ("music/b.manifest.json", ["b.stem.mp4"]),
        ("music/manifest/b.json", ["../drums/b.wav", "../vocals/b.wav"]),
    ],
)
def test_stems_that_a_manifest_lists_are_no_sources(place, where, stems):
    path = Path(where)
    make(where, *(os.path.normpath(path.parent / stem) for stem in stems))
    path.write_bytes(manifest(*stems))
    assert sorted(pairs("music")) == MUSIC
    assert sorted(pairs("music/**")) == MUSIC
    own = os.path.normpath(path.parent / stems[0])
    assert pairs(own) == [(Path(own).as_posix(), ".")]  # named itself, it is meant


def test_other_manifests_hide_nothing(place):
    Path("music/manifest.json").write_text('{"files": ["b.wav"]}')
    Path("music/rock/manifest.json").write_bytes(b"\xff" * 100)
    Path("music/deep.manifest.json").write_bytes(b'{"x": ' + b"[" * 500_000)
    assert pairs("music") == MUSIC


# --- laws ---

NAMES = st.text("ab.:é 'CON", min_size=1, max_size=6).filter(lambda name: not name.endswith((" ", ".")))


@settings(max_examples=40, deadline=None)
@given(st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=8))
def test_a_folder_and_a_pattern_for_all_of_it_are_the_same(tree):
    with tempfile.TemporaryDirectory() as root:
        for *folders, name in tree:
            path = Path(root, *folders, f"{name}.wav")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError:
                continue  # a file of that name is in the way, or the system does not take the name
        shown = {
            p for p in Path(root).rglob("*") if p.is_file() and not any(q[0] == "." for q in p.relative_to(root).parts)
        }
        if not shown:
            with pytest.raises(InputError):
                expand([root])
            return
        items = expand([root])
        assert {Path(item.source) for item in items} == shown
        assert len(items) == len(shown)
        assert [item.source for item in expand([root, root])] == [item.source for item in items]
        assert set(expand([f"{root}/**"])) == set(items)
        for item in items:
            relative = Path(item.source).parent.relative_to(root)
            assert item.folder == PurePosixPath(*map(safe_component, relative.parts))


def test_suffixes_are_lower_case():
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in AUDIO_SUFFIXES)
    assert {".wav", ".flac", ".mp3", ".m4a", ".opus", ".mkv", ".w64", ".wma"} <= AUDIO_SUFFIXES


# --- where their stems go ---


def batch(*items: BatchItem, folder: str = "out", **options: str) -> Batch:
    return Batch(
        items=items, request=SeparationRequest(source=""), output=OutputOptions(folder=Path(folder), **options)
    )


def test_two_sources_with_the_same_stems_are_refused(place):
    make("music/rock/d.mp3")
    items = expand(["music"])
    for template, fits in (("{track}/{stem}.{ext}", False), ("{track}-{source_ext}/{stem}.{ext}", True)):
        work = batch(*items, template=template)
        outputs = [(item.source, work.output_for(item)) for item in items]
        if fits:
            refuse_collisions(outputs)
            continue
        with pytest.raises(RequestError, match=r"d\.flac and .*d\.mp3 would have the same") as caught:
            refuse_collisions(outputs)
        assert caught.value.code == "output.collision"


def test_a_folder_of_a_source_cannot_lead_out_of_the_output_folder(place):
    item = BatchItem(source="music/rock/d.flac", folder=PurePosixPath("rock"))
    work = batch(item)
    assert work.output_for(item).folder == place.resolve() / "out" / "rock"
    assert work.output_for(BatchItem(source="f.aiff")) is work.output
    Path("out").mkdir()
    try:
        Path("out/rock").symlink_to("..", target_is_directory=True)
    except OSError:
        pytest.skip("links need a privilege here")
    with pytest.raises(OutputError) as caught:
        work.output_for(item)
    assert caught.value.code == "output.outside"
