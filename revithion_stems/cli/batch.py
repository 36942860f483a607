"""``revithion-stems batch``: a catalogue in, stems out, on this machine or on a cluster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import json_option, print_json, printable, report_error
from revithion_stems.cli.request_options import ENGINES, build_output, build_request, request_options

if TYPE_CHECKING:
    from revithion_stems.batch_items import Batch, BatchResult
    from revithion_stems.events import CancelToken, EventCallback, JobEvent
    from revithion_stems.planning import SeparationPlan

_RAY = "ray"
_RAY_OPTIONS = ("ray_address", "cpus_per_worker", "gpus_per_worker")

_EXAMPLES = """Examples:

\b
  revithion-stems batch music -o stems -f flac
      music/rock/song.mp3 becomes stems/rock/song/drums.flac, ...
  revithion-stems batch "music/**/*.flac" --two-stems vocals
  revithion-stems batch @songs.txt -o stems --json
  find music -name "*.mp3" -newer last-run | revithion-stems batch @-
  revithion-stems batch music --dry-run
  revithion-stems batch s3://bucket/music -o s3://bucket/stems --engine ray --ray-address auto
"""


@click.command(epilog=_EXAMPLES)
@click.argument("sources", nargs=-1, required=True, type=click.Path())
@request_options((*ENGINES, _RAY))
@click.option(
    "--ray-address", help="With --engine ray: the cluster; by default RAY_ADDRESS, else one that is started here."
)
@click.option("--cpus-per-worker", type=click.IntRange(min=1), help="With --engine ray: CPU cores of a worker.")
@click.option("--gpus-per-worker", type=click.FloatRange(min=0), help="With --engine ray: GPUs of a worker, or a part.")
@click.option("--dry-run", is_flag=True, help="List what would be done and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@json_option
def batch_command(dry_run: bool, quiet: bool, json_mode: bool, **options: Any) -> int:
    """Separate many SOURCES: files, folders, patterns, and @LIST, a text file with a source per line.

    Folders are searched with all below them, and their stems go to folders of the same names. A file that fails does
    not stop the others: the status is that of the first failure.
    """
    batch = _build_batch(options)
    if dry_run:
        return _list_items(batch, json_mode) if options["engine"] == _RAY else _show_plans(batch, json_mode)

    from revithion_stems.batch_items import BatchSummary, Outcome
    from revithion_stems.cli.batch_display import open_batch_display, print_results
    from revithion_stems.cli.interrupts import run_cancellable
    from revithion_stems.errors import RevithionError
    from revithion_stems.events import CancelToken, event_as_dict

    cancel = CancelToken()
    started = time.monotonic()
    with open_batch_display(len(batch.items), quiet=quiet or json_mode) as display:

        def on_event(event: JobEvent) -> None:
            if json_mode:
                print_json(event_as_dict(event))
            display.show(event)

        def on_result(result: BatchResult) -> None:
            display.finish(result)
            if json_mode:
                print_json(_result_as_dict(result))
            elif result.error is not None and result.outcome is Outcome.FAILED:
                error = RevithionError(**result.error)
                display.pause(lambda: report_error(error, json_mode=False))

        results = run_cancellable(
            lambda: _run_engine(batch, options, on_event=on_event, on_result=on_result, cancel=cancel),
            cancel,
            on_interrupt=display.cancelling,
        )
    summary = BatchSummary.of(results, elapsed_s=time.monotonic() - started)
    if json_mode:
        print_json({"type": "BatchSummary", **dataclasses.asdict(summary)})
    elif not quiet:
        print_results(results, summary)
    return summary.exit_code


def _build_batch(options: dict[str, Any]) -> Batch:
    from revithion_stems.batch_inputs import expand, is_url, refuse_collisions
    from revithion_stems.batch_items import Batch

    if options["engine"] == _RAY:
        from revithion_stems.remote_files import expand_url

        engine, items = "auto", expand(options["sources"], expand_url=expand_url)
    else:
        engine, items = options["engine"], expand(options["sources"])
        _refuse_for_one_machine(options, [options["output"], *(item.source for item in items)])
    output_url = options["output"] if is_url(options["output"]) else None
    if output_url is None:
        output = build_output(options, [Path(item.source) for item in items if not is_url(item.source)])
    else:
        output = build_output({**options, "output": "."}, [])
    batch = Batch(
        items=items,
        request=build_request(options, Path(), engine=engine),
        output=output,
        output_url=output_url,
        force_refresh=options["force_refresh"],
        offline=options["offline"],
    )
    refuse_collisions((item.source, batch.output_for(item)) for item in items)
    return batch


def _refuse_for_one_machine(options: dict[str, Any], places: list[str]) -> None:
    from revithion_stems.batch_inputs import is_url
    from revithion_stems.errors import RequestError

    given = [f"--{name.replace('_', '-')}" for name in _RAY_OPTIONS if options[name] is not None]
    given += [place for place in places if is_url(place)]
    if given:
        raise RequestError(
            f"{given[0]} works with --engine ray only",
            hint="Add --engine ray, or use files and folders of this machine.",
            code="request.engine",
        )


def _run_engine(
    batch: Batch,
    options: dict[str, Any],
    *,
    on_event: EventCallback,
    on_result: Callable[[BatchResult], None],
    cancel: CancelToken,
) -> list[BatchResult]:
    if options["engine"] == _RAY:
        from revithion_stems.batch_ray import run_ray

        return run_ray(
            batch,
            on_event=on_event,
            on_result=on_result,
            cancel=cancel,
            address=options["ray_address"],
            cpus_per_worker=options["cpus_per_worker"],
            gpus_per_worker=options["gpus_per_worker"],
        )
    from revithion_stems.batch_local import run_local

    return run_local(batch, on_event=on_event, on_result=on_result, cancel=cancel)


def _result_as_dict(result: BatchResult) -> dict[str, Any]:
    """A result as JSON-ready data."""
    data = {field.name: getattr(result, field.name) for field in dataclasses.fields(result) if field.name != "item"}
    place = {"source": result.item.source, "folder": str(result.item.folder)}
    return {"type": "BatchResult", **place, **data, "outcome": result.outcome.value}


def _list_items(batch: Batch, json_mode: bool) -> int:
    """Lists files that are perhaps not for this machine to read."""
    for item in batch.items:
        if json_mode:
            print_json({"type": "BatchItem", "source": item.source, "folder": str(item.folder)})
        else:
            click.echo(printable(f"{item.source} → {batch.output_url or batch.output.folder}/{item.folder}"))
    return 0


def _show_plans(batch: Batch, json_mode: bool) -> int:
    from revithion_stems.cli.plan import show_plans
    from revithion_stems.units import format_duration

    shown: list[SeparationPlan] = []

    def show(plan: SeparationPlan, notices: list[str]) -> None:
        for notice in notices if not shown else ():  # the choice of a model, which is the same for all
            click.echo(printable(notice), err=True)
        shown.append(plan)
        folder = Path(next(iter(plan.outputs.values()))).parent
        facts = f"{format_duration(plan.duration_s)}, {plan.model}, about {format_duration(plan.estimated_s)}"
        click.echo(printable(f"{plan.source} → {folder} ({facts})"))

    status = show_plans(
        ((batch.request_for(item), batch.output_for(item)) for item in batch.items),
        offline=batch.offline,
        json_mode=json_mode,
        show=show,
    )
    if not json_mode:
        audio_s, estimated_s = sum(p.duration_s for p in shown), sum(p.estimated_s for p in shown)
        click.echo(f"{len(shown)} files, {format_duration(audio_s)} of audio: about {format_duration(estimated_s)}")
    return status
