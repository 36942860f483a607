"""The preview network played live: the default, with the laws of all models, and the stems that it gives offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from processor_laws import check_laws, check_sum, music_like
from program import run
from revithion_realtime.block_processor import run_offline
from revithion_realtime.models.model_choice import make_processor
from revithion_realtime.models.onnx_graph import OnnxGraph
from revithion_realtime.models.onnx_stream import OnnxStream
from revithion_stems.catalog import load_catalog
from revithion_stems.engines.preview_onnx import PreviewOnnx
from revithion_stems.live import LiveOptions
from revithion_stems.weights import ModelStore

RATE = 44_100
SPEC = load_catalog()["preview"]


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in the package; there is neither a store nor a network."""
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    ((_, path),) = ModelStore().open_paths(SPEC)
    return path


def test_it_is_what_plays_where_nothing_else_is_asked_for() -> None:
    assert LiveOptions().model == "preview"


def test_it_keeps_the_laws(graph: Path) -> None:
    check_laws(lambda: OnnxStream(graph), RATE, frames=6_000, tolerance=2e-6, examples=3)


@pytest.mark.parametrize("sample_rate", [44_100, 48_000, 96_000])
def test_it_plays_at_any_rate(graph: Path, sample_rate: int) -> None:
    check_sum(lambda: make_processor("preview"), sample_rate, frames=6_000)


def test_its_delay_is_that_of_the_preview_without_weights(graph: Path) -> None:
    preview, dsp = make_processor("preview"), make_processor("dsp")
    for processor in (preview, dsp):
        processor.prepare(RATE)
    assert preview.name == "preview"
    assert preview.stems == SPEC.stems == dsp.stems
    assert (preview.latency_frames, preview.hop_frames) == (dsp.latency_frames, dsp.hop_frames) == (512, 256)
    preview.prepare(48_000)
    assert preview.latency_frames < 0.014 * 48_000


def test_the_graph_keeps_the_contract(graph: Path) -> None:
    contract = OnnxGraph(graph).contract
    assert (contract.stems, contract.sample_rate) == (SPEC.stems, SPEC.sample_rate)
    assert (contract.analysis, contract.synthesis, contract.hop) == (2_048, 512, 256)


def test_live_gives_what_the_engine_gives(graph: Path) -> None:
    """From the same beginning, the delay aside; `live` begins with an empty memory as each segment does."""
    samples = music_like(20_000, RATE)
    offline = PreviewOnnx(SPEC, graph).separate_segment(samples)
    stream = OnnxStream(graph)
    stream.prepare(RATE)
    np.testing.assert_allclose(run_offline(stream, samples), offline, atol=2e-6)


def test_the_command_plays_it_by_default(tmp_path: Path) -> None:
    place = tmp_path / "work"
    place.mkdir()
    done = run(place, "live", "--device", "none", "--no-ui", "--no-daemon", "--seconds", "0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "preview on none" in done.stdout
