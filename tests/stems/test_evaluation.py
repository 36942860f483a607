"""Evaluations of fake models on fake songs: what is measured against what, what is averaged how, what is let go of."""

from __future__ import annotations

import dataclasses
import gc
import math
import subprocess
import sys
import weakref
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from multitracks import RATE, STEMS, synthetic_stem, write_song
from revithion_stems.errors import Cancelled, InputError, ModelError, RequestError
from revithion_stems.evaluation import (
    METRICS,
    Estimate,
    EstimatorKind,
    EvaluationProgress,
    MetricGroup,
    ModelScores,
    SongScores,
    StemScores,
    evaluate,
    open_estimators,
)
from revithion_stems.evaluation.estimators import CatalogModel
from revithion_stems.evaluation.regression_gate import StoredFigures, find_falls
from revithion_stems.evaluation.truth import matched_stems, mix_of, reference
from revithion_stems.events import CancelToken
from revithion_stems.quality import sdr_db
from revithion_stems.training.datasets.folder import ACCOMPANIMENT
from revithion_stems.training.datasets.multitrack import Origin
from revithion_stems.weights import ModelStore

ENERGY = frozenset({MetricGroup.ENERGY})
SDR_MEDIAN, SDR = METRICS[:2]
ORIGIN = Origin(dataset="fake", licence="none", commercial_use=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeSong:
    name: str
    parts: Mapping[str, np.ndarray]
    sample_rate: int = RATE
    origin: Origin = ORIGIN

    @property
    def frames(self) -> int:
        return next(iter(self.parts.values())).shape[1]

    @property
    def stems(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def read(self, stem: str, start: int, frames: int) -> np.ndarray:
        assert 0 <= start <= start + frames <= self.frames
        return self.parts[stem][:, start : start + frames].copy()


class Damper:
    """A model whose estimates are the truth, damped."""

    kind = EstimatorKind.MODEL

    def __init__(self, name: str, gain: float, songs: list[FakeSong]) -> None:
        self.name = name
        self._gain = np.float32(gain)
        self._songs = {song.name: song for song in songs}
        self.made: list[weakref.ref[np.ndarray]] = []
        self.alive: list[int] = []

    def estimate(self, song, mix, *, on_fraction, cancel) -> Estimate:
        gc.collect()
        self.alive.append(sum(made() is not None for made in self.made))
        on_fraction(0.5)
        stems = {name: part * self._gain for name, part in self._songs[song.name].parts.items()}
        self.made += [weakref.ref(samples) for samples in stems.values()]
        return Estimate(stems=stems, elapsed_s=0.5)


def fake_song(name: str, seed: int, frames: int = 3 * RATE, stems: tuple[str, ...] = STEMS) -> FakeSong:
    return FakeSong(name=name, parts={stem: synthetic_stem(stem, seed, frames) for stem in stems})


@pytest.fixture(scope="module")
def songs() -> list[FakeSong]:
    return [fake_song("one", 1), fake_song("two", 2, 2 * RATE), fake_song("three", 3)]


def floor(name: str = "mix"):
    return open_estimators([name], store=ModelStore(offline=True))[0]


def test_a_model_is_measured_against_the_truth_of_each_stem(songs):
    report = evaluate(songs, [Damper("half", 0.5, songs), floor()], dataset="fakes", groups=ENERGY)
    half, mix = report.models
    assert (report.dataset, report.songs, report.stems) == ("fakes", ("one", "two", "three"), STEMS)
    assert (half.kind, mix.kind) == (EstimatorKind.MODEL, EstimatorKind.FLOOR)
    for song in half.songs:
        assert [stem.sdr_db for stem in song.stems] == pytest.approx([20 * math.log10(2)] * 4, abs=1e-4)
        assert song.null_db == pytest.approx(-20 * math.log10(2), abs=1e-4)
    assert half.speed == pytest.approx(8 / 1.5)
    assert math.isnan(mix.speed)
    for song, scores in zip(songs, mix.songs, strict=True):
        quarter = mix_of(song) / 4
        expected = [sdr_db(song.parts[stem], quarter) for stem in STEMS]
        assert [stem.sdr_db for stem in scores.stems] == pytest.approx(expected, abs=1e-6)
        assert scores.null_db == -math.inf


def test_estimates_of_a_song_are_let_go_before_the_next(songs):
    damper = Damper("half", 0.5, songs)
    evaluate(songs, [damper], dataset="fakes", groups=ENERGY)
    assert damper.alive == [0, 0, 0]


def test_progress_only_grows_and_ends_at_all(songs):
    seen: list[EvaluationProgress] = []
    evaluate(songs, [Damper("a", 1, songs), floor()], dataset="fakes", groups=ENERGY, on_progress=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert seen[0].remaining_s is None
    assert seen[-1].remaining_s == 0.0
    assert {(p.model, p.song) for p in seen} == {(m, s.name) for m in ("a", "mix") for s in songs}


def test_cancelling_stops_at_the_next_step(songs):
    cancel = CancelToken()
    seen: list[str] = []

    def on_progress(progress: EvaluationProgress) -> None:
        seen.append(progress.song)
        if progress.song == "two":
            cancel.cancel()

    with pytest.raises(Cancelled):
        evaluate(songs, [Damper("a", 1, songs)], dataset="fakes", groups=ENERGY, on_progress=on_progress, cancel=cancel)
    assert "three" not in seen


def test_nothing_to_evaluate_is_told(songs):
    with pytest.raises(InputError, match="no songs"):
        evaluate([], [floor()], dataset="fakes")
    store = ModelStore(offline=True)
    strings = FakeSong(name="quartet", parts={"cello": np.ones((2, 100), np.float32)})
    with pytest.raises(RequestError, match="none in common"):
        evaluate([strings], [CatalogModel("dsp", store=store)], dataset="fakes")
    with pytest.raises(ModelError, match="nonsense"):
        open_estimators(["nonsense"], store=store)
    with pytest.raises(RequestError, match="none twice"):
        open_estimators(["mix", "mix"], store=store)
    with pytest.raises(InputError, match="not a folder of estimates"):
        open_estimators(["estimates:nowhere"], store=store)


def test_the_oracle_sums_to_the_mix_without_lag_and_its_steps_leave_no_trace():
    oracle_stems = pytest.importorskip("revithion_stems.evaluation.oracle").oracle_stems
    song = fake_song("one", 1, 30_001)
    whole = oracle_stems(song.read, song.stems, song.frames)
    steps = oracle_stems(song.read, song.stems, song.frames, span_frames=4096)
    for stem in STEMS:
        assert whole[stem].shape == (2, 30_001)
        np.testing.assert_allclose(steps[stem], whole[stem], rtol=0, atol=1e-6)
    np.testing.assert_allclose(sum(whole.values()), mix_of(song), rtol=0, atol=1e-5)


def test_the_oracle_is_far_above_the_floor(songs):
    report = evaluate(songs[:1], [floor("oracle"), floor()], dataset="fakes", groups=ENERGY)
    oracle, mix = (model.value(SDR) for model in report.models)
    assert oracle > mix + 8
    assert report.models[0].kind is EstimatorKind.CEILING


def test_stems_of_a_model_that_a_song_lacks_belong_to_other():
    song = fake_song("one", 1, 1000)
    ones = np.ones((2, 1000), np.float32)
    six = Estimate(stems=dict.fromkeys((*STEMS, "guitar", "piano"), ones))
    matched = matched_stems(six.stems, song)
    assert list(matched) == list(STEMS)
    assert (matched["other"] == 3).all()
    assert (ones == 1).all()
    assert (matched["drums"] == 1).all()


def test_accompaniment_is_the_mix_without_vocals():
    song = fake_song("one", 1, 1000)
    two = Estimate(stems={"vocals": np.zeros((2, 1000), np.float32), ACCOMPANIMENT: np.zeros((2, 1000), np.float32)})
    assert list(matched_stems(two.stems, song)) == ["vocals", ACCOMPANIMENT]
    truth = reference(song, mix_of(song), ACCOMPANIMENT)
    np.testing.assert_allclose(truth, sum(song.parts[s] for s in STEMS if s != "vocals"), rtol=0, atol=1e-6)


def test_a_catalog_model_gives_its_plain_estimates_and_is_loaded_once(monkeypatch):
    import revithion_stems.runner as runner

    loads: list[str] = []
    original = runner.load_model

    def counted(*args):
        loads.append(args[1].name)
        return original(*args)

    monkeypatch.setattr(runner, "load_model", counted)
    model = CatalogModel("dsp", store=ModelStore(offline=True))
    songs = [fake_song("one", 1, RATE), fake_song("two", 2, RATE)]
    report = evaluate(songs, [model], dataset="fakes", groups=ENERGY)
    assert loads == ["dsp"]
    assert report.models[0].stems == STEMS
    assert all(song.elapsed_s > 0 for song in report.models[0].songs)
    assert report.peak_memory_mib is None or report.peak_memory_mib > 50


def test_estimates_from_files(tmp_path, songs):
    folder = write_song(tmp_path / "mine" / "one", 1, 3.0, ("drums", "vocals"))
    estimator = floor(f"estimates:{tmp_path / 'mine'}")
    report = evaluate(songs[:1], [estimator], dataset="fakes", groups=ENERGY)
    assert report.models[0].model == "mine"
    assert report.models[0].stems == ("drums", "vocals")
    assert report.models[0].value(SDR, "drums") > 60  # 16 bits
    with pytest.raises(InputError, match="two"):
        evaluate(songs[1:2], [estimator], dataset="fakes", groups=ENERGY)
    soundfile.write(folder / "drums.wav", np.zeros((50, 2)), RATE)
    with pytest.raises(InputError, match="50 frames"):
        evaluate(songs[:1], [estimator], dataset="fakes", groups=ENERGY)


def scores(sdrs: Mapping[str, list[float]], model: str = "m") -> ModelScores:
    """A model whose songs have these SDRs, whole and median."""
    count = len(next(iter(sdrs.values())))
    return ModelScores(
        model=model,
        kind=EstimatorKind.MODEL,
        songs=tuple(
            SongScores(
                song=str(index),
                duration_s=1.0,
                elapsed_s=0.0,
                null_db=-math.inf,
                stems=tuple(
                    StemScores(stem=stem, sdr_db=values[index], sdr_median_db=values[index])
                    for stem, values in sdrs.items()
                ),
            )
            for index in range(count)
        ),
    )


def test_medians_of_seconds_are_medians_over_songs_and_whole_songs_are_means():
    model = scores({"drums": [1.0, 2.0, 9.0], "bass": [math.nan, 5.0, 6.0]})
    assert model.value(SDR, "drums") == 4.0
    assert model.value(SDR_MEDIAN, "drums") == 2.0
    assert model.value(SDR, "bass") == 5.5
    assert model.value(SDR) == pytest.approx((4.0 + 5.5) / 2)
    assert math.isnan(model.value(METRICS[3], "drums"))


def test_a_gate_finds_what_fell_and_nothing_else():
    stored = StoredFigures(
        songs={},
        tolerance_db=0.1,
        models={"m": {"drums": {"sdr_db": 4.0}, "bass": {"sdr_db": 5.0, "sdr_median_db": 1.0}}, "absent": {}},
    )
    assert find_falls(stored, [scores({"drums": [3.91], "bass": [7.0]})]) == ()
    (fall,) = find_falls(stored, [scores({"drums": [3.89], "bass": [7.0]})])
    assert (fall.stem, fall.stored_db, fall.found_db) == ("drums", 4.0, 3.89)
    assert str(fall) == "m drums SDR: 3.89 dB, stored 4.00 dB"
    gone = find_falls(stored, [scores({"drums": [4.0]})])
    assert [fall.metric.name for fall in gone] == ["sdr_median_db", "sdr_db"]
    assert find_falls(stored, [scores({"drums": [-9.0]}, model="another")]) == ()


def test_importing_it_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys, revithion_stems.evaluation, revithion_stems.cli.evaluate\n"
        "print({'torch', 'matplotlib', 'museval'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "set()"
