"""Files by URL: on a file system, and on a server that speaks S3."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from revithion_stems.api import separate_to_files
from revithion_stems.errors import Cancelled, EngineError, InputError, OutputError, RequestError
from revithion_stems.events import CancelToken
from revithion_stems.manifest import decode_manifest
from revithion_stems.outputs import OutputOptions
from revithion_stems.remote_files import RemoteFolder, expand_url, fetch
from revithion_stems.requests import SeparationRequest

MANIFEST = PurePosixPath("song/manifest.json")
SET = [*(PurePosixPath("song", f"{stem}.wav") for stem in ("bass", "drums", "other", "vocals")), MANIFEST]
needs_s3 = pytest.mark.skipif(
    None in map(importlib.util.find_spec, ("s3fs", "moto", "flask")), reason="s3fs and moto's server are not installed"
)


def _go_on() -> None:
    pass


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system on a server of its own, with a bucket ``music``."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()  # servers of one process share their buckets
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.mkdir("music")
    yield files
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``song/``: stems and their manifest, as a separation leaves them."""
    folder = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    source = folder / "song.wav"
    soundfile.write(source, rng.normal(scale=0.1, size=(44_100, 2)), 44_100, subtype="PCM_16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REVITHION_CACHE_DIR", str(folder / "cache"))
        separate_to_files(SeparationRequest(source=source, model="dsp"), OutputOptions(folder=folder / "out"))
    return folder / "out"


def _fill(root: str, files: Any) -> None:
    """Music, and what must not be taken for it, below ``root``."""
    names = ("b.flac", "a b.WAV", "x/y/c#1.mp3", "x/.hidden.wav", ".trash/d.wav", "notes.txt", "x/~tilde?.ogg")
    for name in names:
        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe_file(f"{root}/{name}", b"sound of " + name.encode())


def _names(url: str) -> dict[str, str]:
    return {item.source: str(item.folder) for item in expand_url(url)}


def _place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Any, str, str]:
    """A file system, a path in it, and the same as a URL."""
    from fsspec.implementations.local import LocalFileSystem

    if kind == "file":
        return LocalFileSystem(), tmp_path.as_posix(), tmp_path.as_uri()
    return request.getfixturevalue("s3"), "music", "s3://music"


both = pytest.mark.parametrize("kind", ["file", pytest.param("s3", marks=needs_s3)])


@both
def test_folders_and_patterns_become_items(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    files, root, url = _place(kind, tmp_path, request)
    _fill(f"{root}/in", files)
    everything = {
        f"{url}/in/a b.WAV": ".",
        f"{url}/in/b.flac": ".",
        f"{url}/in/x/y/c#1.mp3": "x/y",
        f"{url}/in/x/~tilde?.ogg": "x",
    }
    assert _names(f"{url}/in") == _names(f"{url}/in/") == everything
    assert list(_names(f"{url}/in")) == sorted(everything)
    assert _names(f"{url}/in/**/*.mp3") == {f"{url}/in/x/y/c#1.mp3": "x/y"}
    assert _names(f"{url}/in/*.flac") == {f"{url}/in/b.flac": "."}
    assert _names(f"{url}/in/notes.txt") == {f"{url}/in/notes.txt": "."}
    assert _names(f"{url}/in/x/~tilde?.ogg") == {f"{url}/in/x/~tilde?.ogg": "."}
    assert _names(f"{url}/none/*.wav") == {f"{url}/none/*.wav": "."}


@both
def test_a_file_is_fetched_whole_or_not(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    files, root, url = _place(kind, tmp_path, request)
    data = np.random.default_rng(1).bytes(20 << 20)
    files.makedirs(f"{root}/in", exist_ok=True)
    files.pipe_file(f"{root}/in/Long song.wav", data)
    here = tmp_path / "here"
    here.mkdir()
    copy = fetch(f"{url}/in/Long song.wav", here, _go_on)
    assert copy == here / "Long song.wav"
    assert copy.read_bytes() == data
    copy.unlink()
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        fetch(f"{url}/in/Long song.wav", here, cancel.raise_if_cancelled)
    with pytest.raises(InputError) as missing:
        fetch(f"{url}/in/no.wav", here, _go_on)
    assert missing.value.code == "input.missing"
    with pytest.raises(InputError) as folder:
        fetch(f"{url}/in", here, _go_on)
    assert folder.value.code == "input.is_folder"


@both
def test_a_set_is_complete_when_its_manifest_is_there(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, finished: Path
) -> None:
    files, root, url = _place(kind, tmp_path, request)
    there = RemoteFolder(f"{url}/out")
    assert there.complete_set(MANIFEST) is None
    order: list[set[str]] = []

    def look() -> None:
        files.invalidate_cache()
        order.append({name.rpartition("/")[2] for name in files.find(f"{root}/out")})

    there.publish(finished, SET, look)
    assert [sorted(names) for names in order] == [
        [],
        ["bass.wav"],
        ["bass.wav", "drums.wav"],
        ["bass.wav", "drums.wav", "other.wav"],
        ["bass.wav", "drums.wav", "other.wav", "vocals.wav"],
    ]
    complete = there.complete_set(MANIFEST)
    assert complete == decode_manifest((finished / "song" / "manifest.json").read_bytes())
    for file in complete.files:
        assert hashlib.sha256(files.cat_file(f"{root}/out/song/{file.path}")).hexdigest() == file.sha256
    # While a set is replaced, no manifest speaks of it.
    order.clear()
    there.publish(finished, SET, look)
    assert not any("manifest.json" in names for names in order)
    assert there.complete_set(MANIFEST) == complete
    # Stems are not sources.
    assert _names(f"{url}/out") == {}
    files.rm_file(f"{root}/out/song/bass.wav")
    assert there.complete_set(MANIFEST) is None
    files.pipe_file(f"{root}/out/song/bass.wav", b"short")
    assert there.complete_set(MANIFEST) is None


def test_nobody_sees_half_a_file(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    data = bytes(64 << 20)
    (source / "stem.wav").write_bytes(data)
    (source / "manifest.json").write_bytes(b"{}")
    seen: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        path = tmp_path / "out" / "stem.wav"
        while not over.is_set():
            if path.exists():
                seen.add(path.stat().st_size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            RemoteFolder((tmp_path / "out").as_uri()).publish(
                source, [PurePosixPath("stem.wav"), PurePosixPath("manifest.json")], _go_on
            )
    finally:
        over.set()
        watcher.join()
    assert seen == {len(data)}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "stem.wav"]


def test_copies_need_little_memory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "here").mkdir()
    with (tmp_path / "in" / "long.wav").open("wb") as file:
        file.truncate(300 << 20)
    tracemalloc.start()
    try:
        fetch((tmp_path / "in" / "long.wav").as_uri(), tmp_path / "here", _go_on)
        RemoteFolder((tmp_path / "out").as_uri()).publish(tmp_path / "here", [PurePosixPath("long.wav")], _go_on)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_a_place_that_can_not_be_written_is_an_output_error(tmp_path: Path, finished: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(OutputError, match="can't write file:"):
        RemoteFolder((tmp_path / "file").as_uri()).publish(finished, SET, _go_on)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_manifest_does_not_lead_out_of_the_folder(tmp_path: Path, finished: Path) -> None:
    data = (finished / "song" / "manifest.json").read_text(encoding="utf-8")
    (tmp_path / "out" / "song").mkdir(parents=True)
    (tmp_path / "out" / "song" / "manifest.json").write_text(data.replace('"drums.wav"', '"../../secret"'), "utf-8")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    there = RemoteFolder((tmp_path / "out").as_uri())
    with pytest.raises(OutputError) as error:
        there.complete_set(MANIFEST)
    assert error.value.code == "output.outside"
    (tmp_path / "out" / "song" / "manifest.json").write_text("no manifest", encoding="utf-8")
    assert there.complete_set(MANIFEST) is None


def test_urls_that_can_not_be_used_say_why(tmp_path: Path) -> None:
    with pytest.raises(RequestError) as unknown:
        list(expand_url("nonsense://music"))
    assert unknown.value.code == "request.url"
    with pytest.raises(EngineError) as package:
        fetch("dropbox://music/song.wav", tmp_path, _go_on)
    assert package.value.code == "engine.missing"


@needs_s3
def test_a_bucket_that_is_not_there_is_told(s3: Any, tmp_path: Path, finished: Path) -> None:
    with pytest.raises(InputError):
        fetch("s3://nobody/song.wav", tmp_path, _go_on)
    with pytest.raises(OutputError):
        RemoteFolder("s3://nobody/out").publish(finished, SET, _go_on)
