"""``revithion-stems evaluate``: figures of models on songs whose stems are known, as a table, JSON and HTML."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.completion import complete_models
from revithion_stems.cli.console import json_option, print_json, printable
from revithion_stems.cli.evaluation_display import EvaluationDisplay, open_evaluation_display
from revithion_stems.cli.interrupts import run_cancellable

if TYPE_CHECKING:
    from revithion_stems.evaluation import EvaluationReport, MetricGroup
    from revithion_stems.events import CancelToken
    from revithion_stems.training.datasets.dataset_progress import DatasetProgress, ProgressCallback
    from revithion_stems.training.datasets.multitrack import Multitrack

_EXAMPLES = """Examples:

\b
  revithion-stems evaluate -m htdemucs,mix,oracle -d songs --html report.html
      songs/NAME/{drums,bass,other,vocals}.wav; a floor and a ceiling beside the model
  revithion-stems evaluate -m estimates:mine,htdemucs -d songs -o report
      mine/NAME/vocals.wav and so on; writes report/evaluation.json
  revithion-stems evaluate -m htdemucs -d musdb:musdb18 --metrics energy,bss
  revithion-stems evaluate -m preview -d songs --gate figures.json || echo worse
"""

_MUSDB = "musdb:"
_STEMS = ("drums", "bass", "other", "vocals")
_SAMPLE_RATE = 44_100
_CACHE = "datasets"
"""Where decoded songs are kept, below the user's cache; training uses the same."""
_NAME = "evaluation"


@click.command(epilog=_EXAMPLES)
@click.option(
    "-m",
    "--model",
    "models",
    required=True,
    metavar="M,...",
    help="Models, comma-separated; also `mix` (floor), `oracle` (ceiling), `estimates:FOLDER`.",
    shell_complete=complete_models,
)
@click.option(
    "-d", "--dataset", required=True, metavar="D", help="Folder with a folder of stems per song, or `musdb:FOLDER`."
)
@click.option("--subset", type=click.Choice(["train", "test"]), default="test", show_default=True, help="Of MUSDB18.")
@click.option("--song", "songs", multiple=True, metavar="PATTERN", help="Only songs of this name; may be repeated.")
@click.option(
    "--metrics",
    default="energy,spectral",
    show_default=True,
    metavar="GROUP,...",
    help="energy (SDR, SI-SDR), spectral (bleedless, fullness, LSD), bss (SIR, SAR, ISR; slow), or all.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for evaluation.json.")
@click.option(
    "--html", "html_path", type=click.Path(path_type=Path), help="Write a report with plots: a file or a folder."
)
@click.option(
    "--show", multiple=True, metavar="PATTERN", help="Songs with spectrograms in the HTML; by default the first."
)
@click.option("--gate", type=click.Path(path_type=Path), metavar="FILE", help="Fail if a figure fell below FILE's.")
@click.option("--store", type=click.Path(path_type=Path), metavar="FILE", help="Put the figures into FILE.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--threads", type=int, help="CPU threads for the network.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@json_option
def evaluate_command(models: str, metrics: str, quiet: bool, json_mode: bool, **options: Any) -> int:
    """Measure how well models separate the songs of a dataset, whose true stems are known."""
    from revithion_stems.evaluation.regression_gate import check_figures, read_figures, store_figures
    from revithion_stems.events import CancelToken

    output, html_path, gate, store = options["output"], options["html_path"], options["gate"], options["store"]
    if gate is not None:
        read_figures(gate)  # an unusable file is told of now, not after hours
    work = _Work(
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        groups=_groups(metrics),
        options=options,
    )
    cancel = CancelToken()
    with open_evaluation_display(quiet=quiet or json_mode) as display:
        report, page = run_cancellable(lambda: work.run(display, cancel), cancel, on_interrupt=display.cancelling)
    written = _write(report, page, output, html_path)
    if json_mode:
        from revithion_stems.evaluation.report_data import report_as_dict

        print_json(report_as_dict(report))
    elif not quiet:
        from revithion_stems.cli.evaluation_tables import print_tables

        print_tables(report)
        for path in written:
            click.echo(f"→ {printable(str(path))}")
    if store is not None:
        store_figures(store, report)
    if gate is not None:
        tolerance_db = check_figures(gate, report).tolerance_db
        if not (quiet or json_mode):
            click.echo(f"No figure is more than {tolerance_db:g} dB below {printable(str(gate))}.")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What runs beside the main thread."""

    models: tuple[str, ...]
    groups: frozenset[MetricGroup]
    options: dict[str, Any]

    def run(self, display: EvaluationDisplay, cancel: CancelToken) -> tuple[EvaluationReport, str | None]:
        """The report, and its HTML page if one is wanted."""
        from revithion_stems.evaluation import EstimatorKind, evaluate, open_estimators
        from revithion_stems.weights import ModelStore

        options = self.options
        estimators = open_estimators(
            self.models,
            store=ModelStore(offline=options["offline"]),
            device=options["device"],
            threads=options["threads"],
            on_event=display.event,
        )
        with_page = options["html_path"] is not None
        if with_page:
            from revithion_stems.evaluation.plots import require_plots

            require_plots()

        def opening(progress: DatasetProgress) -> None:
            cancel.raise_if_cancelled()
            display.opening(progress)

        def chosen(name: str) -> bool:
            patterns = options["songs"]
            return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

        dataset, songs = _open_dataset(options["dataset"], options["subset"], chosen, opening)
        album = None
        if with_page:
            from revithion_stems.evaluation.spectrogram_album import SpectrogramAlbum

            made = [e.name for e in estimators if e.kind in (EstimatorKind.MODEL, EstimatorKind.ESTIMATES)]
            album = SpectrogramAlbum(
                songs=options["show"] or [glob.escape(song.name) for song in songs[:1]],
                models=made or [e.name for e in estimators],
            )
        report = evaluate(
            songs,
            estimators,
            dataset=dataset,
            groups=self.groups,
            on_progress=display.measuring,
            listener=album,
            cancel=cancel,
        )
        if album is None:
            return report, None
        from revithion_stems.evaluation.html_report import html_report

        return report, html_report(report, album.pages)


def _groups(text: str) -> frozenset[MetricGroup]:
    from revithion_stems.errors import RequestError
    from revithion_stems.evaluation import MetricGroup

    known = {group.value: group for group in MetricGroup}
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known and name != "all"]
    if unknown or not names:
        raise RequestError(
            f"--metrics {text!r} is not a list of {', '.join(known)} or all",
            hint="Write, for example, --metrics energy,spectral.",
            code="request.metrics",
        )
    return frozenset(MetricGroup if "all" in names else (known[name] for name in names))


def _open_dataset(
    text: str, subset: str, chosen: Callable[[str], bool], on_progress: ProgressCallback
) -> tuple[str, tuple[Multitrack, ...]]:
    """The dataset's name and its chosen songs."""
    from revithion_stems.config import cache_dir

    cache = cache_dir() / _CACHE
    if text.startswith(_MUSDB):
        from revithion_stems.training.datasets.musdb_dataset import open_musdb

        path = Path(text.removeprefix(_MUSDB))
        opened: tuple[Multitrack, ...] = open_musdb(
            path,
            subset=subset,
            is_wav=not any((path / subset).glob("*.stem.mp4")),
            stems=_STEMS,
            sample_rate=_SAMPLE_RATE,
            cache=cache,
            choose=chosen,
            on_progress=on_progress,
        )
        return f"{path.resolve().name} ({subset})", opened
    from revithion_stems.training.datasets.folder import open_folder

    opened = open_folder(
        Path(text), stems=_STEMS, sample_rate=_SAMPLE_RATE, cache=cache, choose=chosen, on_progress=on_progress
    )
    return opened[0].origin.dataset, opened


def _write(report: EvaluationReport, page: str | None, output: Path | None, html_path: Path | None) -> list[Path]:
    """Writes what was asked for, all or nothing, and returns the paths."""
    from revithion_stems.evaluation.report_data import report_as_json
    from revithion_stems.file_set import FileSet

    contents: dict[Path, bytes] = {}
    if output is not None:
        contents[output / f"{_NAME}.json"] = report_as_json(report)
    if html_path is not None and page is not None:
        is_file = html_path.suffix.lower() in (".html", ".htm") and not html_path.is_dir()
        contents[html_path if is_file else html_path / f"{_NAME}.html"] = page.encode()
    if contents:
        with FileSet() as files:
            for path, content in contents.items():
                files.add(path, content)
            files.publish()
    return list(contents)
