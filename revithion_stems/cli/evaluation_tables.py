"""The tables that ``evaluate`` prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from revithion_stems.cli.console import printable

if TYPE_CHECKING:
    from revithion_stems.evaluation import EvaluationReport, ModelScores


def print_tables(report: EvaluationReport) -> None:
    """Prints SDR by stem, and then all figures as means over stems."""
    console = Console(highlight=False)
    sdr = next(metric for metric in report.metrics if metric.name == "sdr_db")
    stems = Table(title=Text(f"{printable(report.dataset)}: SDR of whole songs, dB"), title_justify="left")
    stems.add_column("model", overflow="fold")
    for heading in (*map(printable, report.stems), "mean"):
        stems.add_column(heading, justify="right", no_wrap=True)
    for model in report.models:
        figures = [model.value(sdr, stem) for stem in report.stems]
        stems.add_row(_name(model), *map(_number, figures), Text(_number(model.value(sdr)), style="bold"))
    console.print(stems)
    means = Table(title=Text("all figures, mean over stems"), title_justify="left")
    means.add_column("", no_wrap=True)
    for model in report.models:
        means.add_column(_name(model), justify="right", overflow="fold")
    for metric in report.metrics:
        label = metric.label + ("" if metric.higher_is_better else " ↓")
        means.add_row(label, *(_number(model.value(metric)) for model in report.models))
    if any(not math.isnan(model.speed) for model in report.models):
        means.add_row("× real time", *(_number(model.speed, digits=1) for model in report.models))
    console.print(means)
    if report.peak_memory_mib is not None:
        count = f"{len(report.songs)} song{'s' * (len(report.songs) != 1)}"
        click.echo(f"{count} · peak memory {report.peak_memory_mib:.0f} MiB, all models together")


def _name(model: ModelScores) -> Text:
    kind = model.kind.value
    text = Text(printable(model.model))
    return text if kind == "model" else text.append(f" {kind}", style="dim")


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
