"""Scenes in a file: kept over programs, bounded, never lost to a damaged file or two writers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revithion_realtime.control.scenes import LONGEST_NAME, MOST_SCENES, SceneStore, scenes_path
from revithion_stems.errors import LiveError
from revithion_stems.live import StripSettings

levels = st.floats(-60, 12)
sides = st.floats(-1, 1)
strips = st.builds(
    StripSettings,
    gain_db=levels,
    pan=sides,
    muted=st.booleans(),
    solo=st.booleans(),
    low_db=levels,
    mid_db=levels,
    high_db=levels,
    filter=sides,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "scenes.json"


def refused(action) -> LiveError:
    with pytest.raises(LiveError) as caught:
        action()
    assert caught.value.code == "live.scene"
    return caught.value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(["vocals", "drums", "bass", "other"]), strips, min_size=1), levels)
def test_a_scene_comes_back_as_it_was(path, stood, monitor):
    SceneStore(path).store("drop", stood, monitor)
    scene = SceneStore(path).get("drop")
    assert scene.strips == stood
    assert scene.monitor_gain_db == monitor


def test_names_are_in_the_order_in_which_they_came(path):
    store = SceneStore(path)
    assert store.names() == ()
    for name in ("intro", "drop", "break", "drop"):
        store.store(name, {"vocals": StripSettings()}, 0.0)
    assert store.names() == ("intro", "drop", "break")


def test_an_unknown_scene_is_told_with_those_there_are(path):
    store = SceneStore(path)
    store.store("intro", {}, 0.0)
    assert "'drop'" in refused(lambda: store.get("drop")).message
    assert "intro" in refused(lambda: store.get("drop")).message


@pytest.mark.parametrize(
    "name", ["", " ", "../evil", "a/b", "a\\b", "a\nb", "\x1b[2J", "a\u202eb", " a", "a ", "x" * (LONGEST_NAME + 1)]
)
def test_hostile_names_are_refused(path, name):
    refused(lambda: SceneStore(path).store(name, {}, 0.0))
    assert not path.exists()


@pytest.mark.parametrize("name", ["drop", "1", "Größe", "ドロップ", "🎛 kill all", "x" * LONGEST_NAME])
def test_names_of_any_script_are_taken(path, name):
    SceneStore(path).store(name, {}, 0.0)
    assert SceneStore(path).names() == (name,)


def test_there_is_an_end_to_scenes_but_not_to_changing_them(path):
    store = SceneStore(path)
    for number in range(MOST_SCENES):
        store.store(f"scene {number}", {}, 0.0)
    assert str(MOST_SCENES) in refused(lambda: store.store("one more", {}, 0.0)).message
    store.store("scene 0", {}, -6.0)
    assert store.get("scene 0").monitor_gain_db == -6.0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[]",
        '{"scenes": {"a": {"strips": {"vocals": {"gain_db": "loud"}}}}}',
        '{"scenes": {"a": {"strips": {"vocals": {"gain_db": 99}}}}}',
        '{"scenes": {"a": {"strips": {}, "monitor_gain_db": 99}}}',
        '{"v": 2, "scenes": {}}',
        '{"scenes": {}}' + " " * (2 << 20),
    ],
)
def test_a_damaged_file_is_told_and_left_alone(path, content):
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    store = SceneStore(path)
    for action in (store.names, lambda: store.get("a"), lambda: store.store("a", {}, 0.0)):
        assert str(path) in refused(action).message
    assert path.read_text(encoding="utf-8") == content


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    refused(lambda: SceneStore(tmp_path / "file" / "scenes.json").store("a", {}, 0.0))


def test_a_full_disk_leaves_what_was_there(tmp_path, mounted):
    with mounted(tmp_path / "disk", "size=64k") as disk:
        store = SceneStore(disk / "scenes.json")
        store.store("a", {"vocals": StripSettings(gain_db=-3.0)}, 0.0)
        (disk / "filler").write_bytes(b"x" * (disk / "filler").parent.stat().st_blksize)
        with pytest.raises(OSError, match="No space"):
            (disk / "filler").write_bytes(b"x" * 100_000)
        refused(lambda: store.store("b", {"vocals": StripSettings()}, 0.0))
        assert store.names() == ("a",)
        assert store.get("a").strips["vocals"].gain_db == -3.0


def test_two_who_store_at_once_lose_nothing(path):
    def store(who: int) -> None:
        for number in range(8):
            SceneStore(path).store(f"{who} {number}", {}, 0.0)

    threads = [threading.Thread(target=store, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(SceneStore(path).names()) == 24
    assert not [left for left in path.parent.iterdir() if left.suffix == ".part"]


def test_they_are_kept_beside_the_settings(monkeypatch, tmp_path):
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))
    assert scenes_path() == tmp_path / "scenes.json"
