"""What several test modules need: real weights where they are wanted, real music where it is present."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from revithion_stems.errors import DownloadError
from revithion_stems.events import CancelToken, EventStream
from revithion_stems.weights import ModelStore, Presence

# A shell starts background jobs with Ctrl-C ignored, and so does what they start; tests send that signal to programs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A content store for each test, also in processes that it starts: no test gets what another one computed."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("REVITHION_CACHE_DIR", str(folder))
    return folder


def _weights(name: str) -> ModelStore:
    store = ModelStore()
    spec = store.catalog[name]
    try:
        if store.presence(spec) is not Presence.PRESENT:
            store.pull(spec, events=EventStream("tests"), cancel=CancelToken())
    except DownloadError as exc:
        if os.environ.get("REVITHION_REQUIRE_WEIGHTS"):
            raise
        pytest.skip(f"real weights can't be had here: {exc.message}")
    return store


@pytest.fixture(scope="session")
def htdemucs_store() -> ModelStore:
    """The user's model folder, with htdemucs in it (pulled if it was not)."""
    return _weights("htdemucs")


@pytest.fixture(scope="session")
def spleeter_store() -> ModelStore:
    """The user's model folder, with spleeter_2stems in it (pulled if it was not)."""
    return _weights("spleeter_2stems")


@pytest.fixture(scope="session")
def music_folder() -> Path:
    """Real multitracks for development; not part of the repository."""
    folder = Path(os.environ.get("REVITHION_TEST_MUSIC", Path(__file__).parents[3] / "shared" / "music"))
    if not (folder / "dev").is_dir():
        pytest.skip(f"no real music in {folder} (REVITHION_TEST_MUSIC names another folder)")
    return folder


@pytest.fixture(scope="session")
def falcon69(music_folder: Path) -> dict[str, np.ndarray]:
    """Stems ``[2, frames]`` at 44.1 kHz of the song that ``stempeg`` carries, 6 s."""
    from revithion_stems.audio_files import read_audio

    return {path.stem: read_audio(path).samples for path in sorted((music_folder / "dev" / "falcon69").iterdir())}


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system in memory, where this process may mount one."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def mounted() -> Callable[[Path, str], contextlib.AbstractContextManager[Path]]:
    """Mounts a file system in memory on a new folder, with mount's options such as ``size=1m``."""
    return _mounted
