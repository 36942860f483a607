"""Projects by their paths, and ``revithion-stems export``."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from daemon_program import DaemonProcess
from project_mixdown import mix, read_dawproject, read_rpp
from revithion_bridge.client import connect
from revithion_bridge.daw.file_session import open_project
from revithion_bridge.daw_files.project_files import WRITERS, find_writer
from revithion_bridge.parameters import JobParameters
from revithion_stems.cli.main import cli
from revithion_stems.errors import OutputError, RevithionError
from stem_plans import RATE, write_stems


def _export(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)], catch_exceptions=False)


def test_the_words_of_the_readme_work(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    session = open_project(tmp_path / "song.rpp")
    for stem, bus in (("vocals", "Vocals"), ("drums", "Drums"), ("bass", "Low"), ("other", "Low")):
        session.import_audio(tmp_path / "stems" / f"{stem}.wav", target_bus=bus, align_to="project_start")
    strips, master = read_rpp(tmp_path / "song.rpp")
    assert sorted(strip.name for strip in strips) == ["Drums", "Low", "Vocals", "bass", "drums", "other", "vocals"]
    np.testing.assert_array_equal(mix(strips, master), source)


@pytest.mark.parametrize("suffix", ["rpp", "dawproject"])
def test_one_call_imports_all(tmp_path: Path, suffix: str) -> None:
    source = write_stems(tmp_path / "stems")
    path = tmp_path / f"song.{suffix}"
    with open_project(path) as session:
        assert len(session.import_stems(tmp_path / "stems").strips) == 8
        assert not session.import_stems(tmp_path / "stems").changed
    read = read_rpp if suffix == "rpp" else read_dawproject
    np.testing.assert_array_equal(mix(*read(path)), source)


def test_a_session_has_the_projects_rate_and_name(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    assert open_project(tmp_path / "song.rpp").project_rate is None
    open_project(tmp_path / "song.rpp").import_stems(tmp_path / "stems")
    session = open_project(tmp_path / "song.rpp")
    assert (session.project_rate, session.name) == (RATE, "song")


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("a.RPP", "rpp"),
        ("a.dawproject", "dawproject"),
        ("a.stem.mp4", "stem.mp4"),
        ("a", "folder"),
        ("a.ardour", "ardour"),
    ],
)
def test_writers_are_found_by_their_suffix(tmp_path: Path, name: str, writer: str) -> None:
    assert find_writer(tmp_path / name) == writer


def test_a_folder_with_a_session_is_ardours(tmp_path: Path) -> None:
    (tmp_path / "Album").mkdir()
    assert find_writer(tmp_path / "Album") == "folder"
    (tmp_path / "Album" / "Album.ardour").touch()
    assert find_writer(tmp_path / "Album") == "ardour"


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RevithionError, match=r"\.dawproject") as failure:
        open_project(tmp_path / "song.als")
    assert failure.value.code == "daw.unknown"


def test_a_sessions_hints_name_no_options_of_the_command_line(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError) as failure:
        open_project(tmp_path / "taken" / "song.dawproject").import_stems(tmp_path / "stems")
    assert "-o" not in failure.value.hint


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_writer_can_be_loaded(name: str) -> None:
    assert callable(WRITERS[name].load())


@pytest.mark.parametrize("kind", ["dawproject", "rpp", "folder", "stem.mp4"])
def test_export_names_the_file_after_the_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    write_stems(tmp_path / "My song")
    monkeypatch.chdir(tmp_path)
    done = _export("--to", kind, "My song", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert said["type"] == "Export"
    suffix = WRITERS[kind].suffix or " for DAWs"
    assert Path(said["path"]) == tmp_path / f"My song{suffix}"
    assert Path(said["path"]).exists()
    assert {strip["outcome"] for strip in said["strips"]} == {"created"}


def test_export_takes_preset_place_and_tempo(tmp_path: Path) -> None:
    source = write_stems(tmp_path / "stems")
    path = tmp_path / "song.rpp"
    options = ["--preset", "vocals-instrumental", "--align-to", "bar 2", "--tempo", "90", "--time-signature", "3/4"]
    assert _export("--to", "rpp", tmp_path / "stems", "-o", path, *options).exit_code == 0
    strips, master = read_rpp(path)
    assert [strip.name for strip in strips][-2:] == ["Vocals Bus", "Instrumental Bus"]
    np.testing.assert_array_equal(mix(strips, master)[2 * RATE :], source)


def test_export_goes_into_a_project_but_not_over_a_folder(tmp_path: Path) -> None:
    write_stems(tmp_path / "stems")
    for kind, path in (
        ("rpp", tmp_path / "a.rpp"),
        ("folder", tmp_path / "out"),
        ("stem.mp4", tmp_path / "a.stem.mp4"),
    ):
        assert _export("--to", kind, tmp_path / "stems", "-o", path).exit_code == 0
        if kind == "rpp":
            assert "unchanged" in _export("--to", kind, tmp_path / "stems", "-o", path).output
            continue
        with pytest.raises(OutputError, match="exists"):
            _export("--to", kind, tmp_path / "stems", "-o", path)
        assert _export("--to", kind, tmp_path / "stems", "-o", path, "--overwrite").exit_code == 0


def test_export_refuses_a_wrong_time_signature(tmp_path: Path) -> None:
    done = _export("--to", "rpp", tmp_path, "--time-signature", "4/5")
    assert done.exit_code == 2
    assert "4/5" in done.output


def test_help_shows_examples() -> None:
    assert "revithion-stems export --to dawproject" in _export("--help").output


def test_export_of_a_job_by_the_beginning_of_its_id(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile

    source = np.random.default_rng(3).integers(-(2**20), 2**20, (RATE, 2)) / 2.0**23
    soundfile.write(tmp_path / "song.wav", source, RATE, subtype="FLOAT")
    monkeypatch.chdir(tmp_path)
    with connect() as client:
        parameters = JobParameters(source=str(tmp_path / "song.wav"), model="dsp", folder=str(tmp_path / "stems"))
        job = client.submit_job(parameters)
        client.wait(job.id)
    done = _export("--to", "dawproject", job.id.removeprefix("job-")[:10])
    assert done.exit_code == 0, done.output
    played = mix(*read_dawproject(tmp_path / "song.dawproject"))
    np.testing.assert_array_equal(played, source)
    with zipfile.ZipFile(tmp_path / "song.dawproject") as archive:
        assert b"<Title>song</Title>" in archive.read("metadata.xml")
