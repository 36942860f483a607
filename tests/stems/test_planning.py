"""Plans: what would run and what it would cost, without touching anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_stems import planning
from revithion_stems.catalog import load_catalog
from revithion_stems.engines import ENGINES
from revithion_stems.errors import InputError, OutputError, RequestError
from revithion_stems.outputs import OutputOptions
from revithion_stems.requests import SeparationRequest
from revithion_stems.weights import ModelStore


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    soundfile.write(path, np.zeros((48000 * 60, 2), np.int16), 48000)
    return path


def make_plan(song: Path, **fields: object) -> planning.SeparationPlan:
    request = SeparationRequest(source=song, device="cpu", **fields)
    store = ModelStore(song.parent / "models")
    return planning.plan_separation(request, OutputOptions(folder=song.parent / "out"), store=store)


def test_a_plan_counts_networks_runs_and_bytes_and_writes_nothing(song: Path) -> None:
    before = set(song.parent.rglob("*"))
    plan = make_plan(song, model="htdemucs_ft")
    assert (plan.duration_s, plan.sample_rate, plan.channels) == (60.0, 48000, 2)
    assert (plan.presence, plan.engine, plan.networks) == ("absent", "torch", 4)
    assert plan.runs == 4 * 11  # 60 s in steps of 5.85 s
    assert plan.download_bytes == load_catalog()["htdemucs_ft"].size
    assert plan.disk_bytes == 4 * 48000 * 60 * 2 * 4
    assert plan.disk_bytes < plan.journal_bytes < 2 * plan.disk_bytes
    assert list(plan.outputs) == ["drums", "bass", "other", "vocals"]
    assert set(song.parent.rglob("*")) == before


def test_fewer_stems_cost_less_where_networks_are_apart(song: Path) -> None:
    all_stems, vocals = make_plan(song, model="htdemucs_ft"), make_plan(song, model="htdemucs_ft", stems=("vocals",))
    assert vocals.runs * 4 == all_stems.runs
    assert vocals.memory_bytes < all_stems.memory_bytes
    one = make_plan(song, model="htdemucs")
    assert make_plan(song, model="htdemucs", two_stems="vocals").runs == one.runs
    assert make_plan(song, model="htdemucs", shifts=3).runs == 3 * one.runs


def test_time_is_rough_until_it_was_measured_here(song: Path) -> None:
    assert make_plan(song, model="htdemucs").estimate_basis == "rough"
    planning.record_run_s("htdemucs", "torch", "cpu", None, 2.0)
    plan = make_plan(song, model="htdemucs")
    assert (plan.estimate_basis, plan.estimated_s) == ("measured", 2.0 * plan.runs)
    planning.record_run_s("htdemucs", "torch", "cpu", None, 4.0)
    assert make_plan(song, model="htdemucs").estimated_s == 3.0 * plan.runs
    assert make_plan(song, model="htdemucs", threads=1).estimate_basis == "rough"


@pytest.mark.parametrize("content", ["", "not JSON", "[1, 2]", json.dumps({"htdemucs/torch/cpu/auto": "soon"})])
def test_broken_measurements_are_ignored_and_replaced(song: Path, tmp_path: Path, content: str) -> None:
    rates = tmp_path / "state" / "rates.json"
    rates.parent.mkdir()
    rates.write_text(content, encoding="utf-8")
    assert make_plan(song, model="htdemucs").estimate_basis == "rough"
    planning.record_run_s("htdemucs", "torch", "cpu", None, 2.0)
    assert make_plan(song, model="htdemucs").estimate_basis == "measured"


def test_a_state_folder_that_can_not_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "file"))
    planning.record_run_s("htdemucs", "torch", "cpu", None, 2.0)


def test_what_does_not_fit_is_warned_about(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_plan(song, model="dsp").warnings == ()
    monkeypatch.setattr(planning, "_disk_free", lambda _folder: 1000)
    monkeypatch.setattr(planning, "memory_bytes", lambda *_: 2**60)
    memory, disk, journal = make_plan(song, model="dsp").warnings
    assert "REVITHION_CACHE_DIR" in journal
    assert "memory" in memory
    assert "disk" in disk


def test_memory_grows_with_the_networks_that_run() -> None:
    spec = load_catalog()["htdemucs_ft"]
    entry = ENGINES[spec.architecture][0]
    one, four = (planning.memory_bytes(entry, spec, count) for count in (1, 4))
    assert four - one == pytest.approx(3 * spec.parameters / 4 * 4 * entry.weights_factor, rel=1e-6)


def test_what_would_stop_the_separation_stops_the_plan(song: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        make_plan(tmp_path / "missing.wav", model="dsp")
    with pytest.raises(RequestError, match="has no stem 'guitar'"):
        make_plan(song, model="dsp", stems=("guitar",))
    request = SeparationRequest(source=song, model="dsp")
    with pytest.raises(OutputError, match="written twice"):
        planning.plan_separation(request, OutputOptions(template="{track}.{ext}"), store=ModelStore(tmp_path))
