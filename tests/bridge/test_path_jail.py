"""Which paths a client may name, against real links, and against what Windows makes of names."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from program import posix_only
from revithion_bridge.path_jail import MAX_PATH, PathJail, default_roots, unusable
from revithion_stems.errors import RequestError


def refusal(jail, path):
    with pytest.raises(RequestError) as caught:
        jail.check(str(path))
    assert caught.value.hint
    return caught.value


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.wav").write_bytes(b"x")
    return folder


@pytest.fixture
def jail(root):
    return PathJail([root])


def link(at, to):
    try:
        at.symlink_to(to)
    except OSError:
        pytest.skip("links can't be made here")


def test_what_is_inside_comes_back_as_it_was_given(jail, root):
    (root / "song.wav").write_bytes(b"x")
    for path in (root, root / "song.wav", root / "new" / "deep" / "x.wav", root / "a" / ".." / "b", root / "…é 🎵"):
        assert jail.check(str(path)) == path


@pytest.mark.parametrize("path", ["", ".", "song.wav", "./song.wav", "../song.wav", "~", "~/song.wav", "~root", "\0"])
def test_relative_paths(jail, path):
    assert refusal(jail, path).code == "path.relative"


def test_what_is_outside(jail, root, tmp_path):
    paths = [
        tmp_path,
        tmp_path / "outside" / "secret.wav",
        tmp_path / "rootless",
        root / ".." / "outside",
        root / "new" / ".." / ".." / "outside",
        root / "a" / ".." / ".." / "root2",
        Path(root.anchor),
    ]
    for path in paths:
        error = refusal(jail, path)
        assert error.code == "path.outside"
        assert str(root) in error.message


def test_links_that_leave(jail, root, tmp_path):
    link(root / "file", tmp_path / "outside" / "secret.wav")
    link(root / "folder", tmp_path / "outside")
    link(root / "relative", Path("..") / "outside")
    link(root / "dangling", tmp_path / "outside" / "not there yet")
    link(root / "first", root / "folder")
    link(root / "up", root / "..")
    for name in ("file", "folder", "relative", "dangling", "first", "up"):
        assert refusal(jail, root / name).code == "path.outside"
    for name in ("folder/secret.wav", "folder/new/deep.wav", "dangling/x", "first/x", "up/outside", "new/../folder/x"):
        error = refusal(jail, root / name)
        assert error.code == "path.outside"
        assert "leads to" in error.message


def test_links_that_stay(jail, root):
    (root / "real").mkdir()
    link(root / "link", root / "real")
    link(root / "round", Path("..") / "root" / "real")
    for name in ("link", "link/new/x.wav", "round/x", "link/../real"):
        assert jail.check(str(root / name)) == root / name


def test_the_parent_of_a_link_is_the_parent_of_where_it_leads(jail, root, tmp_path):
    """Text alone would say that ``link/../x`` is inside."""
    (tmp_path / "outside" / "deep").mkdir()
    link(root / "link", tmp_path / "outside" / "deep")
    assert refusal(jail, root / "link" / ".." / "secret.wav").code == "path.outside"


def test_links_in_a_circle(jail, root):
    link(root / "a", root / "b")
    link(root / "b", root / "a")
    assert refusal(jail, root / "a" / "x").code == "path.outside"


def test_a_root_that_is_a_link(root, tmp_path):
    link(tmp_path / "link", root)
    for jail in (PathJail([tmp_path / "link"]), PathJail([root])):
        assert jail.check(str(tmp_path / "link" / "x")) == tmp_path / "link" / "x"
        assert jail.check(str(root / "x")) == root / "x"
        assert refusal(jail, tmp_path / "link" / ".." / "outside").code == "path.outside"


def test_a_root_that_becomes_a_link_leads_nowhere_else(root, tmp_path):
    jail = PathJail([root, tmp_path / "later"])
    root.rename(tmp_path / "moved")
    link(root, tmp_path / "outside")
    link(tmp_path / "later", tmp_path / "outside")
    assert refusal(jail, root / "secret.wav").code == "path.outside"
    assert refusal(jail, tmp_path / "later" / "secret.wav").code == "path.outside"


def test_several_roots_or_none(root, tmp_path):
    jail = PathJail([root, tmp_path / "later", root])
    assert jail.roots == (root.resolve(), (tmp_path / "later").resolve())
    assert jail.check(str(tmp_path / "later" / "x"))
    assert "no folders" in refusal(PathJail([]), root).message


@posix_only
def test_slashes_at_the_start_and_in_between(jail, root):
    for path in (f"/{root}/x", f"//{root}/x", f"{root}//x/.//y/"):
        assert jail.check(path)
    assert PathJail([Path(f"/{root}")]).check(f"{root}/x")
    assert refusal(jail, "//etc/passwd").code == "path.outside"


@posix_only
def test_everything_may_be_allowed():
    assert PathJail([Path("/")]).check("/etc/passwd") == Path("/etc/passwd")


@pytest.mark.skipif(not Path("/proc/self/root").exists(), reason="links of Linux that are no files")
def test_magic_links(jail):
    for path in ("/proc/self/root/etc/passwd", "/proc/self/cwd/x", "/dev/fd/0"):
        assert refusal(jail, path).code == "path.outside"


@posix_only
def test_what_no_system_can_open(jail, root):
    for path in (
        f"{root}/a\0b",
        f"{root}/{'x' * 256}",
        f"{root}/new/{'x' * 256}",
        f"{root}/" + "x/" * MAX_PATH,
        f"{root}/\ud800",
    ):
        error = refusal(jail, path)
        assert error.code == "path.outside"
        assert len(error.message) < 1000
        error.message.encode()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts bytes")
def test_what_this_file_system_can_t_hold(jail, root):
    assert refusal(jail, root / ("é" * 200)).code == "path.outside"


@posix_only
def test_the_message_is_one_line(jail):
    assert refusal(jail, "/x\n\x1b[31m\u202e").message.isprintable()


@posix_only
def test_a_folder_that_may_not_be_looked_into(jail, root):
    (root / "locked").mkdir(mode=0)
    try:
        assert jail.check(str(root / "locked" / "x"))
    finally:
        (root / "locked").chmod(0o700)


@pytest.mark.parametrize(
    "path",
    [
        r"\\.\COM1",
        r"\\?\C:\home\song.wav",
        r"\\.\PhysicalDrive0",
        r"C:\home\NUL",
        r"C:\home\con.wav",
        r"C:\home\Com¹ .txt",
        r"C:\home\song.wav:stream",
        r"C:\home\song.wav::$DATA",
        r"C:\home.\song.wav",
        r"C:\home \song.wav",
        r"C:\home\.. \song.wav",
        r"C:\home\...\song.wav",
        "C:\\home\\a\tb",
        r"C:\home\what?.wav",
    ],
)
def test_what_windows_would_read_otherwise(path):
    assert unusable(path, PureWindowsPath(path))


@pytest.mark.parametrize(
    "path",
    [
        r"C:\home\song.wav",
        r"c:/home/song.wav",
        r"C:\home\..\other\x",
        r"C:\home\console.wav",
        r"C:\home\.config\é…",
        r"\\server\share\song.wav",
        r"C:\home\COM10",
    ],
)
def test_what_windows_reads_as_it_stands(path):
    assert not unusable(path, PureWindowsPath(path))


def test_default_roots_exist(tmp_path, monkeypatch):
    roots = default_roots()
    assert Path.home() in roots
    assert Path(tempfile.gettempdir()) in roots
    assert all(folder.is_dir() for folder in roots)
    assert PathJail(roots).check(str(tmp_path / "x"))


@posix_only
@pytest.mark.parametrize("home", ["/", "/nowhere"])
def test_a_home_that_is_none(home, monkeypatch):
    monkeypatch.setenv("HOME", home)
    assert Path(home) not in default_roots()
    assert refusal(PathJail(default_roots()), "/etc/passwd").code == "path.outside"


@pytest.fixture(scope="module")
def maze(tmp_path_factory):
    """Folders and links in a root and beside it, under the same names."""
    base = tmp_path_factory.mktemp("maze").resolve()
    for folder in ("root/a/b", "out/a/b"):
        (base / folder).mkdir(parents=True)
    try:
        (base / "root/in").symlink_to(base / "root/a")
        (base / "root/away").symlink_to(base / "out/a")
        (base / "root/a/up").symlink_to("..")
        (base / "root/a/b/high").symlink_to("../../..")
        (base / "out/back").symlink_to(base / "root/a/b")
        (base / "root/a/dangling").symlink_to(base / "out/new")
    except OSError:
        pytest.skip("links can't be made here")
    return base


NAMES = ["a", "b", "in", "away", "up", "high", "back", "dangling", "root", "out", "..", ".", "new", "...", "x.wav"]


@posix_only
@given(st.lists(st.sampled_from(NAMES), max_size=8))
@example(["a", "b", "high", "out", "back", "..", "up"])
@example(["new", "..", "away", "x.wav"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_whatever_is_let_in_is_inside_for_the_system(maze, names):
    """The system itself walks to the deepest folder of the path that there is; what it finds decides."""
    path = "/".join([str(maze / "root"), *names])
    try:
        given_back = PathJail([maze / "root"]).check(path)
    except RequestError:
        given_back = None
    opened = os.path.exists(path)  # noqa: PTH110 - without pathlib's reading of the text
    if opened:
        here = os.open(path, os.O_RDONLY)
        try:
            there = Path(f"/proc/self/fd/{here}").readlink() if sys.platform.startswith("linux") else Path(path)
        finally:
            os.close(here)
        inside = there.resolve().is_relative_to(maze / "root")
        assert (given_back is not None) == inside
    if given_back is not None:
        assert given_back == Path(path)


@posix_only
@given(st.lists(st.text(st.characters(), max_size=6), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_let_in_or_refused_as_ours(maze, names):
    path = "/".join([str(maze / "root"), *names])
    try:
        allowed = PathJail([maze / "root"]).check(path)
    except RequestError as refused:
        allowed = None
        refused.message.encode()
    assert allowed is None or allowed.resolve().is_relative_to(maze / "root")
