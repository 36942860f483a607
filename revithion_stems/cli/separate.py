"""``revithion-stems separate``: files in, stems out, with progress and a clean way to stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import json_option, print_json, printable, report_error
from revithion_stems.cli.interrupts import run_cancellable
from revithion_stems.cli.request_options import build_requests, request_options, sources_argument

if TYPE_CHECKING:
    from revithion_stems.events import JobEvent
    from revithion_stems.reports import SeparationReport

_EXAMPLES = """Examples:

\b
  revithion-stems separate song.mp3
      song/drums.wav, bass.wav, other.wav, vocals.wav: they sum to song.mp3
  revithion-stems separate song.wav --two-stems vocals -f flac
      song/vocals.flac and song/no_vocals.flac
  revithion-stems separate *.wav -o stems --template "{stem}/{track}.{ext}"
  revithion-stems separate song.wav --stems drums -m htdemucs_ft
      runs one of its four networks
  revithion-stems separate song.mp3 --json | jq -r 'select(.type=="StemReady").path'
"""


@click.command(epilog=_EXAMPLES)
@sources_argument
@request_options()
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--no-daemon", is_flag=True, help="Compute in this process, even if a daemon runs.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@json_option
def separate_command(dry_run: bool, no_daemon: bool, quiet: bool, json_mode: bool, **options: Any) -> int:
    """Separate SOURCES into stems of the same rate, length and channels that sum back to them exactly."""
    requests, output = build_requests(options)
    if dry_run:
        from revithion_stems.cli.plan import show_plans

        return show_plans(((request, output) for request in requests), offline=options["offline"], json_mode=json_mode)

    from revithion_stems.cli.daemon_door import open_separation
    from revithion_stems.cli.progress import open_display
    from revithion_stems.errors import Cancelled, RevithionError
    from revithion_stems.events import CancelToken, event_as_dict
    from revithion_stems.model_loading import ModelCache
    from revithion_stems.planning import record_run_s
    from revithion_stems.weights import ModelStore

    store = ModelStore(offline=options["offline"])
    models, cancel, status = ModelCache(), CancelToken(), 0
    with (
        open_display(requests, quiet=quiet or json_mode) as display,
        open_separation(daemon=not no_daemon) as separate,
    ):
        for request in requests:

            def on_event(event: JobEvent) -> None:
                if json_mode:
                    print_json(event_as_dict(event))
                display.show(event)

            try:
                report = run_cancellable(
                    lambda request=request, on_event=on_event: separate(
                        request,
                        output,
                        on_event=on_event,
                        cancel=cancel,
                        store=store,
                        models=models,
                        force_refresh=options["force_refresh"],
                    ),
                    cancel,
                    on_interrupt=display.cancelling,
                )
            except RevithionError as exc:
                status = status or exc.exit_code
                display.pause(lambda exc=exc: report_error(exc, json_mode=json_mode))
                if cancel.cancelled:
                    return Cancelled.exit_code
                continue
            record_run_s(report.model, report.engine, report.device, request.threads, report.run_s)
            if not (quiet or json_mode):
                display.pause(lambda report=report, request=request: print_report(report, request.source_name))
    return status


def print_report(report: SeparationReport, source_name: str) -> None:
    """Prints what came of a separation: files and figures."""
    from revithion_stems.units import format_db, format_duration

    click.echo(f"{printable(source_name)} →")
    for path in dict.fromkeys(stem.path for stem in report.stems):
        click.echo(f"  {printable(_short(path))}")
    facts = [
        f"{report.model} ({report.engine}, {report.device})",
        f"{format_duration(report.duration_s)} of audio in {format_duration(report.elapsed_s)}",
    ]
    if report.cached:
        facts[1] = f"{format_duration(report.duration_s)} of audio from the cache"
    elif report.resumed_runs:
        facts.append("resumed")
    if report.null_db is not None:
        facts.append("sum equals the source exactly" if report.exact else f"null {format_db(report.null_db)}")
    click.echo(f"  {' · '.join(facts)}\n  weights: {report.licence}")
    sys.stdout.flush()


def _short(path: Path) -> str:
    """``path`` as seen from the current folder, if it is below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
