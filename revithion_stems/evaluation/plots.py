"""Pictures of an evaluation: box plots as SVG that follow the page's light or dark colours, spectrograms as PNG.

matplotlib draws in stand-in colours, which are then replaced by the page's CSS variables: one drawing for both schemes.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import EngineError
from revithion_stems.evaluation.scores import EvaluationReport, Metric
from revithion_stems.evaluation.spectral_distances import mel_filters, spectra

SERIES_COLOURS: Final = 8
"""Variables ``--series-0`` … that a page must have; more models begin again."""

_INK, _FAINT = "#010101", "#020202"
_SERIES = tuple(f"#03030{index}" for index in range(SERIES_COLOURS))
_VARIABLES: Final = {_INK: "var(--ink)", _FAINT: "var(--faint)"} | {
    colour: f"var(--series-{index})" for index, colour in enumerate(_SERIES)
}
_GROUP_WIDTH: Final = 0.8

SPECTROGRAM_RANGE_DB: Final = 80.0
SPECTROGRAM_S: Final = 20.0
_SPECTROGRAM_BANDS: Final = 160
_SPECTROGRAM_COLUMNS: Final = 640
_SHADES: Final = 64  # steps of 1.25 dB, which nobody sees; a third of the bytes of full colour


def box_plot(report: EvaluationReport, metric: Metric) -> str:
    """A figure's spread over songs: a group per stem, a box per model, a dot per song.

    Boxes span the quartiles, the line is the median, whiskers reach to the farthest song within 1.5 spans.

    Returns:
        An ``<svg>`` element; its colours are CSS variables ``--ink``, ``--faint`` and ``--series-0`` … ``--series-7``.

    Raises:
        EngineError: ``engine.missing``: matplotlib is not installed.
    """
    matplotlib, figure_module = _matplotlib()
    settings = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": metric.name,  # ids that don't change from run to run, nor clash with another plot's
        "font.family": "sans-serif",
        "font.size": 10.0,
    }
    with matplotlib.rc_context(settings):
        figure = figure_module.Figure(figsize=(9.2, 3.4), layout="constrained")
        axes = figure.add_subplot()
        slot = _GROUP_WIDTH / max(1, len(report.models))
        for index, model in enumerate(report.models):
            colour = _SERIES[index % SERIES_COLOURS]
            for group, stem in enumerate(report.stems):
                values = [value for value in model.values(metric, stem) if math.isfinite(value)]
                if not values:
                    continue
                at = group - _GROUP_WIDTH / 2 + slot * (index + 0.5)
                _box(axes, values, at, slot, colour)
        axes.set_xticks(range(len(report.stems)), report.stems)
        axes.set_xlim(-0.5, len(report.stems) - 0.5)
        axes.set_ylabel(f"{metric.label} [{metric.unit}]" if metric.unit else metric.label, color=_INK)
        axes.tick_params(colors=_INK, length=0)
        axes.grid(axis="y", color=_FAINT, linewidth=0.6)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if metric.unit == "dB":
            axes.axhline(0.0, color=_FAINT, linewidth=1.4)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r'\1role="img"', svg, count=1)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


def spectrogram_levels(samples: Float32, sample_rate: int) -> Float32:
    """What a picture shows of a signal: its level in mel bands over time.

    Args:
        samples: float32 ``[channels, frames]``.
        sample_rate: Hz.

    Returns:
        dB re full scale, about, float32 ``[bands, columns]``, low bands first.
    """
    bank: Any = mel_filters(sample_rate, _SPECTROGRAM_BANDS)
    widths = bank.sum(axis=1)[:, None]  # each band gives the mean of its bins
    columns = [bank @ np.sqrt(np.square(part).mean(axis=0)).T for part in spectra(samples)]
    magnitudes = np.concatenate(columns, axis=1) / np.maximum(widths, 1e-12)
    if magnitudes.shape[1] > _SPECTROGRAM_COLUMNS:
        edges = np.linspace(0, magnitudes.shape[1], _SPECTROGRAM_COLUMNS, endpoint=False).astype(int)
        magnitudes = np.maximum.reduceat(magnitudes, edges, axis=1)
    return (20 * np.log10(np.maximum(magnitudes / 1024.0, 1e-9))).astype(np.float32)  # 1024: a sine of full scale


def spectrogram_png(levels_db: Float32, top_db: float) -> str:
    """A picture of levels as a ``data:`` URL, 80 dB from ``top_db`` down, the same colours for all.

    Raises:
        EngineError: ``engine.missing``: matplotlib is not installed.
    """
    matplotlib, _ = _matplotlib()
    from PIL import Image  # matplotlib needs it too

    steps = (levels_db[::-1] - top_db) / SPECTROGRAM_RANGE_DB + 1.0  # low bands at the bottom
    picture = Image.fromarray(np.rint(steps.clip(0, 1) * (_SHADES - 1)).astype(np.uint8), mode="P")
    shades: Any = matplotlib.colormaps["magma"](np.linspace(0, 1, _SHADES))
    picture.putpalette(np.rint(shades[:, :3] * 255).astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _box(axes: Any, values: Sequence[float], at: float, slot: float, colour: str) -> None:
    if len(values) > 2:
        axes.boxplot(
            [values],
            positions=[at],
            widths=slot * 0.72,
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "alpha": 0.28, "linewidth": 0},
            medianprops={"color": colour, "linewidth": 2.2},
            whiskerprops={"color": colour, "linewidth": 1.2},
            capprops={"linewidth": 0},
        )
    # Dots side by side in the order of songs, so that two with the same value are both seen.
    spread = np.linspace(-0.22, 0.22, len(values)) * slot if len(values) > 1 else [0.0]
    axes.plot(at + np.asarray(spread), values, ".", color=colour, markersize=5.5, markeredgewidth=0)


def _matplotlib() -> tuple[Any, Any]:
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError as exc:
        raise EngineError(
            f"plots need the package matplotlib, which can't be imported: {exc}",
            hint="pip install 'revithion-stems[train]', or leave out --html.",
            code="engine.missing",
        ) from exc
    return matplotlib, matplotlib.figure


def require_plots() -> None:
    """Raises :class:`EngineError` now, not after hours of work, where matplotlib is not installed."""
    _matplotlib()
