"""How good live models are, song by song: what they play, measured against true stems, between a floor and a ceiling.

    python benchmarks/live_quality.py DATASET [--models preview,dsp] [--offline htdemucs] [--song PATTERN] [--json FILE]

DATASET is a folder with a folder per song and a file per stem in it. Each model hears the sum of the stems block by
block, as it does live; its delay is taken away. Whole-file SDR in dB. `mix` gives every stem a share of the mix, and
`oracle` ideal masks on the spectrogram of `preview`. `--offline` adds models of `evaluate`.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import time
from pathlib import Path

from revithion_realtime.block_processor import run_offline
from revithion_realtime.models.model_choice import make_processor
from revithion_stems.audio import Float32
from revithion_stems.config import cache_dir
from revithion_stems.evaluation import EstimatorKind, evaluate, open_estimators
from revithion_stems.evaluation.estimators import Estimate, OnFraction
from revithion_stems.evaluation.report_data import report_as_json
from revithion_stems.events import CancelToken
from revithion_stems.training.datasets.folder import open_folder
from revithion_stems.training.datasets.multitrack import Multitrack
from revithion_stems.weights import ModelStore

RATE = 44_100
STEMS = ("drums", "bass", "other", "vocals")


class LiveModel:
    """An estimator of `evaluate` that plays a live model over the song."""

    kind = EstimatorKind.MODEL

    def __init__(self, name: str) -> None:
        self.name = f"{Path(name).stem} live"
        self._processor = make_processor(name)
        self._processor.prepare(RATE)

    def estimate(self, song: Multitrack, mix: Float32, *, on_fraction: OnFraction, cancel: CancelToken) -> Estimate:
        """The stems that it plays."""
        began = time.monotonic()
        played = run_offline(self._processor, mix)
        stems = dict(zip(self._processor.stems, played, strict=True))
        return Estimate(stems=stems, elapsed_s=time.monotonic() - began)


def row(song: str, model: str, figures: list[float]) -> str:
    """A line of the table."""
    cells = " | ".join("–" if math.isnan(figure) else f"{figure:.2f}" for figure in figures)
    return f"| {song} | `{model}` | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--models", default="preview,dsp", help="that play live, or paths of graphs")
    parser.add_argument("--offline", default="", help="models of `evaluate` beside them")
    parser.add_argument("--song", default="*")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    songs = open_folder(
        options.dataset,
        stems=STEMS,
        sample_rate=RATE,
        cache=cache_dir() / "datasets",
        choose=lambda name: fnmatch.fnmatchcase(name, options.song),
    )
    offline = ["mix", "oracle", *filter(None, options.offline.split(","))]
    live = [LiveModel(name) for name in options.models.split(",")]
    report = evaluate(songs, [*live, *open_estimators(offline, store=ModelStore())], dataset=options.dataset.name)
    sdr = next(metric for metric in report.metrics if metric.name == "sdr_db")
    print(f"| song | model | {' | '.join(report.stems)} | mean |\n{'|---' * (len(report.stems) + 3)}|")
    for song in report.songs:
        for model in report.models:
            scores = next(scores for scores in model.songs if scores.song == song)
            by_stem = {stem.stem: stem.value(sdr) for stem in scores.stems}
            print(row(song, model.model, [*(by_stem.get(stem, math.nan) for stem in report.stems), scores.value(sdr)]))
    for model in report.models:
        figures = [model.value(sdr, stem) for stem in report.stems]
        print(row("*mean*", model.model, [*figures, model.value(sdr)]))
    if options.json:
        options.json.write_bytes(report_as_json(report))


if __name__ == "__main__":
    main()
