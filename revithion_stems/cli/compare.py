"""``revithion-stems compare``: SDR, SI-SDR, null depth and lag as a table or as JSON."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import json_option, print_json, printable

if TYPE_CHECKING:
    from revithion_stems.comparison import Comparison, ComparisonReport

EXIT_NOT_BELOW = 1


@click.command(
    epilog="Examples:\n\n\b\n"
    "  revithion-stems compare song.mp3 song/*.wav        each stem, and the null of their sum\n"
    "  revithion-stems compare song.mp3 song              the same: all audio files in that folder\n"
    "  revithion-stems compare truth/ song/               stems matched by name, and their mean\n"
    "  revithion-stems compare vocals.wav mine.wav --json\n"
    "  revithion-stems compare song.wav song --null-below -120 && echo good"
)
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("estimates", metavar="ESTIMATE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--null-below",
    "null_below_db",
    type=float,
    metavar="DB",
    help="Exit with status 1 unless the null is below DB: of the sum, or of each row where there is no sum.",
)
@json_option
def compare_command(reference: Path, estimates: tuple[Path, ...], null_below_db: float | None, json_mode: bool) -> int:
    """Measure how close each ESTIMATE is to REFERENCE.

    SDR is given as the median of one-second windows (as museval does for MUSDB18) and over the whole file; SI-SDR
    forgives a wrong level; the null is what is left after subtraction, and its peak; the lag is in samples, positive
    when the estimate is late. Rate, channels and length must be equal.
    """
    from revithion_stems.comparison import compare

    report = compare(reference, estimates)
    if json_mode:
        print_json({"type": "Comparison", **_as_dict(report)})
    else:
        _print_table(report)
    if null_below_db is None:
        return 0
    too_loud = [row for row in ([report.total] if report.total else report.rows) if not row.null_db < null_below_db]
    for row in too_loud:
        click.echo(f"{printable(row.name)}: null {_db(row.null_db)} dB is not below {null_below_db:g} dB", err=True)
    return EXIT_NOT_BELOW if too_loud else 0


def _as_dict(report: ComparisonReport) -> dict[str, object]:
    return {
        "reference": str(report.reference),
        "rows": [dataclasses.asdict(row) for row in report.rows],
        "sum": dataclasses.asdict(report.total) if report.total else None,
        "mean": dataclasses.asdict(report.mean) if report.mean else None,
        "unmatched": [str(path) for path in report.unmatched],
    }


def _print_table(report: ComparisonReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(title=Text(f"against {printable(str(report.reference))}"), title_justify="left")
    table.add_column("estimate", overflow="fold")
    for heading in ("SDR median", "SDR", "SI-SDR", "null", "peak", "lag"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(Text(printable(row.name)), *_cells(row))
    if report.total:
        table.add_section()
        table.add_row("sum of all", *_cells(report.total))
    if report.mean:
        table.add_section()
        mean = report.mean
        table.add_row("mean", _db(mean.sdr_median_db), _db(mean.sdr_db), _db(mean.si_sdr_db), "", "", "")
    console.print(table)
    click.echo("SDR, SI-SDR, null: dB · peak of the difference: dBFS · lag: samples, + is late")
    scaled = [row for row in report.rows if row.gain_db]
    if scaled:
        names = ", ".join(printable(row.name) for row in scaled)
        click.echo(f"A gain of {scaled[0].gain_db:.2f} dB, which manifest.json tells of, was undone: {names}", err=True)
    for path in report.unmatched:
        click.echo(f"Not compared, it has no counterpart: {printable(str(path))}", err=True)


def _cells(row: Comparison) -> list[str]:
    null = "bit-exact" if row.identical else _db(row.null_db)
    return [_db(row.sdr_median_db), _db(row.sdr_db), _db(row.si_sdr_db), null, _db(row.peak_dbfs), _lag(row)]


def _db(value_db: float) -> str:
    return "–" if math.isnan(value_db) else f"{value_db:.2f}"


def _lag(row: Comparison) -> str:
    if row.lag_frames is None:
        return "–"
    text = f"{row.lag_frames:+d}" if row.lag_frames else "0"
    # Below one half of the energy explained (r² < 0.5), the lag may be that of a neighbouring beat or of nothing.
    return text if abs(row.lag_correlation) >= math.sqrt(0.5) else f"{text}?"
