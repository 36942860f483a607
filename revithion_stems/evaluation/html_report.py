"""An evaluation as one self-contained HTML file: tables, box plots and spectrograms, in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence

from revithion_stems.evaluation.html_page import Cell, page, table
from revithion_stems.evaluation.plots import SERIES_COLOURS, box_plot
from revithion_stems.evaluation.scores import (
    EstimatorKind,
    EvaluationReport,
    Metric,
    MetricGroup,
    ModelScores,
    SongScores,
)
from revithion_stems.evaluation.spectrogram_album import Spectrograms
from revithion_stems.units import format_duration

_COMPARED = (EstimatorKind.MODEL, EstimatorKind.ESTIMATES)
_OPEN_PLOTS = ("sdr_db", "sdr_median_db")

_MEANINGS = {
    "sdr_median_db": "median of the SDR of one-second windows, as museval (BSS Eval v4); over songs the median",
    "sdr_db": "of the whole song, 10·log10(Σs² / Σ(s − ŝ)²); over songs the mean",
    "si_sdr_db": "of the whole song, after the best gain; over songs the mean",
    "sir_db": "what other stems add, BSS Eval v4; over songs the median",
    "sar_db": "what no stem explains, BSS Eval v4; over songs the median",
    "isr_db": "what filtering and panning change, BSS Eval v4; over songs the median",
    "bleedless": "100 where nothing came in that was not there; mel spectra; over songs the mean",
    "fullness": "100 where nothing is missing; mel spectra; over songs the mean",
    "lsd_db": "distance of the power spectra in dB, less is better; over songs the mean",
}


def html_report(report: EvaluationReport, pictures: Sequence[Spectrograms] = ()) -> str:
    """The report as an HTML document.

    Args:
        report: What was found.
        pictures: Of chosen songs.

    Raises:
        EngineError: ``engine.missing``: matplotlib is not installed.
    """
    parts = [_header(report), _overview(report), *_plots(report), _songs(report), *_details(report)]
    parts += [*_spectrograms(pictures), _footer(report)]
    return page(f"Evaluation of {report.dataset}", "\n".join(parts))


def _header(report: EvaluationReport) -> str:
    songs = report.models[0].songs
    length = format_duration(math.fsum(song.duration_s for song in songs))
    names = ", ".join(html.escape(model.model) for model in report.models)
    return (
        f'<h1><span class="dim">Evaluation on</span> {html.escape(report.dataset)}</h1>'
        f'<p class="dim">{len(songs)} song{"s" * (len(songs) != 1)}, {length} · {names} · '
        f"revithion-stems {html.escape(report.version)}</p>"
    )


def _overview(report: EvaluationReport) -> str:
    sdr = next(metric for metric in report.metrics if metric.name == "sdr_db")
    by_stem = table(
        ["", *map(html.escape, report.stems), "mean"],
        (
            (
                _name(report, model),
                [_compared(report, model, sdr, stem) for stem in report.stems] + [_compared(report, model, sdr, None)],
            )
            for model in report.models
        ),
        caption="SDR of whole songs in dB, mean over songs; the best model in bold green",
    )
    speeds = any(not math.isnan(model.speed) for model in report.models)
    by_metric = table(
        ["", *(_label(metric) for metric in report.metrics), *(["× real time"] if speeds else [])],
        (
            (
                _name(report, model),
                [_compared(report, model, metric, None) for metric in report.metrics]
                + ([Cell(text=_number(model.speed, 1))] if speeds else []),
            )
            for model in report.models
        ),
        caption="All figures, mean over stems",
    )
    return f'<h2>Overview</h2><div class="card">{by_stem}</div><div class="card">{by_metric}</div>'


def _plots(report: EvaluationReport) -> Iterator[str]:
    legend = "".join(f"<span>{_name(report, model)}</span>" for model in report.models)
    yield f'<h2>Spread over songs</h2><div class="legend">{legend}</div>'
    for metric in report.metrics:
        figure = f'<figure class="card">{box_plot(report, metric)}<figcaption>{_title(metric)}</figcaption></figure>'
        if metric.name in _OPEN_PLOTS:
            yield figure
        else:
            yield f"<details><summary>{html.escape(metric.label)}</summary>{figure}</details>"


def _songs(report: EvaluationReport) -> str:
    sdr = next(metric for metric in report.metrics if metric.name == "sdr_db")
    floors = {s.song: s.value(sdr) for m in report.models if m.kind is EstimatorKind.FLOOR for s in m.songs}
    by_model = [{song.song: song for song in model.songs} for model in report.models]

    def cells(song: str) -> list[Cell]:
        made: list[Cell] = []
        for model, songs in zip(report.models, by_model, strict=True):
            value = songs[song].value(sdr)
            below = model.kind in _COMPARED and value < floors.get(song, -math.inf)
            made.append(Cell(text=_number(value) + (" ▾" if below else ""), style="bad" if below else ""))
        return made

    rows = (
        (f'{html.escape(song.song)}<span class="tag">{format_duration(song.duration_s)}</span>', cells(song.song))
        for song in report.models[0].songs
    )
    note = "SDR of the song in dB, mean over its stems" + ("; ▾ is below the mix" if floors else "")
    body = table(["", *(_name(report, model) for model in report.models)], rows, caption=note)
    return f'<h2>Songs</h2><div class="card">{body}</div>'


def _details(report: EvaluationReport) -> Iterator[str]:
    for model in report.models:
        heads = ["", "stem", *(_label(metric) for metric in report.metrics), "level", "truth"]
        rows = [row for song in model.songs for row in _song_rows(report, song)]
        body = table(heads, rows, caption="level and truth: RMS of estimate and reference in dBFS")
        summary = f"<summary>{_name(report, model)} per song and stem</summary>"
        yield f'<details>{summary}<div class="card">{body}</div></details>'


def _song_rows(report: EvaluationReport, song: SongScores) -> Iterator[tuple[str, list[Cell]]]:
    for index, stem in enumerate(song.stems):
        figures = [Cell(text=_number(stem.value(metric))) for metric in report.metrics]
        levels = [Cell(text=_number(stem.estimate_dbfs, 1)), Cell(text=_number(stem.reference_dbfs, 1))]
        yield html.escape(song.song) if index == 0 else "", [Cell(text=html.escape(stem.stem)), *figures, *levels]


def _spectrograms(pictures: Sequence[Spectrograms]) -> Iterator[str]:
    shown = dict.fromkeys((picture.song, picture.model) for picture in pictures)
    if shown:
        yield (
            '<h2>Spectrograms</h2><p class="dim">The loudest 20 seconds of each stem, 0 Hz to half the sample rate on '
            "a mel scale, 80 dB, the same colours for all three.</p>"
        )
    for song, model in shown:
        yield f'<h3>{html.escape(song)}<span class="tag">{html.escape(model)}</span></h3><div class="card">'
        yield '<div class="trio head"><span></span><span>target</span><span>estimate</span><span>error</span></div>'
        for p in pictures:
            if (p.song, p.model) != (song, model):
                continue
            when = f"{format_duration(p.start_s)}–{format_duration(p.stop_s)}"
            images = "".join(
                f'<img src="{source}" alt="{what} of {html.escape(p.stem, quote=True)}">'
                for what, source in (("target", p.target), ("estimate", p.estimate), ("error", p.error))
            )
            stem = f'<span>{html.escape(p.stem)}<br><span class="dim">{when}</span></span>'
            yield f'<div class="trio">{stem}{images}</div>'
        yield "</div>"


def _footer(report: EvaluationReport) -> str:
    meanings = "".join(
        f"<li><b>{html.escape(metric.label)}</b>: {html.escape(_MEANINGS[metric.name])}</li>"
        for metric in report.metrics
    )
    nulls = "; ".join(
        f"{html.escape(model.model)} {_number(max((song.null_db for song in model.songs), default=math.nan), 1)} dB"
        for model in report.models
    )
    bss = "" if MetricGroup.BSS in report.groups else " SIR, SAR and ISR: --metrics with bss."
    return (
        f"<footer><p>– : not defined, as where the reference is silent.{bss}</p><ul>{meanings}</ul>"
        f"<p>What the estimates' sum leaves of the mix, worst song: {nulls}.</p></footer>"
    )


def _name(report: EvaluationReport, model: ModelScores) -> str:
    index = report.models.index(model) % SERIES_COLOURS
    tag = "" if model.kind is EstimatorKind.MODEL else f'<span class="tag">{model.kind.value}</span>'
    return f'<span class="dot" style="background:var(--series-{index})"></span>{html.escape(model.model)}{tag}'


def _compared(report: EvaluationReport, model: ModelScores, metric: Metric, stem: str | None) -> Cell:
    """A figure, marked where it is the best of several models."""
    value = model.value(metric, stem)
    rivals = [m.value(metric, stem) for m in report.models if m.kind in _COMPARED]
    known = [rival for rival in rivals if not math.isnan(rival)]
    pick = max if metric.higher_is_better else min
    best = model.kind in _COMPARED and len(known) > 1 and value == pick(known)
    return Cell(text=_number(value), style="best" if best else "")


def _title(metric: Metric) -> str:
    return html.escape(f"{metric.label}: {_MEANINGS[metric.name]}")


def _label(metric: Metric) -> str:
    return html.escape(metric.label) + ("" if metric.higher_is_better else " ↓")


def _number(value: float, digits: int = 2) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}".replace("-", "−")
