"""``revithion-stems watch``: follows jobs of the daemon; leaving it leaves them alone."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

import click

from revithion_bridge.cli.job_ids import complete_ids, find_job, open_client
from revithion_stems.cli.console import json_option, print_json, printable, report_error

if TYPE_CHECKING:
    from revithion_bridge.client import Client
    from revithion_bridge.codec import EventMessage
    from revithion_bridge.event_feed import Resynchronised
    from revithion_bridge.messages import JobInfo
    from revithion_stems.cli.progress import QuietDisplay
    from revithion_stems.events import JobEvent

_EXAMPLES = """Examples:

\b
  revithion-stems watch 5f0c
      follows the job whose id begins with job-5f0c to its end
  revithion-stems watch --json | jq -r 'select(.state == "done").source'
"""
_TICK_S = 0.2
_INTERRUPTED = 130


@click.command(epilog=_EXAMPLES)
@click.argument("job_id", metavar="[ID]", required=False, shell_complete=complete_ids)
@json_option
def watch_command(job_id: str | None, json_mode: bool) -> int:
    """Follow the job ID to its end, with its exit status; without ID, all jobs, until Ctrl-C.

    Ctrl-C ends the watching; the job goes on.
    """
    with open_client() as client:
        if job_id is None:
            return _watch_all(client, json_mode=json_mode)
        return watch_job(client, find_job(client, job_id), json_mode=json_mode)


def watch_job(client: Client, job: JobInfo, *, json_mode: bool) -> int:
    """Follows a job to its end; the exit status is that of the job, or 130 if the user had enough."""
    from pathlib import Path

    from revithion_bridge.cli.event_reader import EventReader
    from revithion_stems.cli.interrupts import sigterm_interrupts
    from revithion_stems.cli.progress import open_display
    from revithion_stems.events import event_as_dict
    from revithion_stems.requests import SeparationRequest

    request = SeparationRequest(source=Path(job.parameters.source))
    with open_display([request], quiet=json_mode) as display:
        feed_client = open_client()
        with EventReader(feed_client, job.id) as feed, sigterm_interrupts():
            try:
                _show_state(display, client.job(job.id))
                with contextlib.suppress(EOFError):
                    while True:
                        item = feed.next(_TICK_S)
                        event = None if item is None else _job_event(item)
                        if event is None:
                            continue
                        if json_mode:
                            print_json(event_as_dict(event))
                        display.show(event)
            except KeyboardInterrupt:
                display.pause(lambda: _say_that_it_goes_on(job.id))
                return _INTERRUPTED
        ended = client.job(job.id)
        return _report(display, ended, json_mode=json_mode)


def _report(display: QuietDisplay, job: JobInfo, *, json_mode: bool) -> int:
    from revithion_bridge.event_replay import report_of
    from revithion_stems.cli.separate import print_report
    from revithion_stems.errors import error_from_dict
    from revithion_stems.events import JobSummary, StemReady, event_from_dict

    if job.error is not None:
        error = error_from_dict({"code": job.error.code, "message": job.error.message, "hint": job.error.hint})
        display.pause(lambda: report_error(error, json_mode=json_mode))
        return error.exit_code
    if job.summary is not None and not json_mode:
        known = {"job_id": job.id, "seq": 0}
        stems = [event_from_dict({**known, **stem, "type": "StemReady"}) for stem in job.stems]
        summary = event_from_dict({**known, **job.summary, "type": "JobSummary"})
        assert isinstance(summary, JobSummary)
        report = report_of([stem for stem in stems if isinstance(stem, StemReady)], summary)
        display.pause(lambda: print_report(report, job.parameters.source))
    return 0


def _show_state(display: QuietDisplay, job: JobInfo) -> None:
    """Where the job stands already, so that the bar begins there."""
    from revithion_stems.events import JobChanged, JobProgress

    if job.state.is_final:
        return
    display.show(JobChanged(job_id=job.id, seq=0, state=job.state, source=job.parameters.source))
    if job.total:
        display.show(
            JobProgress(
                job_id=job.id,
                seq=0,
                done=job.done,
                total=job.total,
                elapsed_s=job.elapsed_s,
                remaining_s=job.remaining_s,
            )
        )


def _watch_all(client: Client, *, json_mode: bool) -> int:
    from revithion_bridge.cli.event_reader import EventReader
    from revithion_stems.cli.interrupts import sigterm_interrupts

    with _until_interrupted(), EventReader(client) as feed, sigterm_interrupts():
        while True:
            item = feed.next(_TICK_S)
            if item is None:
                continue
            if json_mode:
                _print_event(item)
            else:
                _print_line(item)
    return 0


@contextlib.contextmanager
def _until_interrupted() -> Generator[None]:
    """Ctrl-C is how one leaves: no error."""
    with contextlib.suppress(KeyboardInterrupt):
        yield


def _print_event(item: EventMessage | Resynchronised) -> None:
    import msgspec

    from revithion_bridge.messages import DaemonEvent, Heartbeat
    from revithion_stems.events import event_as_dict

    event = getattr(item, "event", None)
    if isinstance(event, DaemonEvent):
        if not isinstance(event, Heartbeat):
            print_json(msgspec.to_builtins(event))
    elif event is not None:
        print_json(event_as_dict(event))


def _print_line(item: EventMessage | Resynchronised) -> None:
    from revithion_bridge.messages import JobDeleted, QueueChanged
    from revithion_stems.events import JobChanged, Notice

    match getattr(item, "event", None):
        case JobChanged(job_id=job_id, state=state, source=source, error=error):
            why = "" if error is None else f"  {error['code']}: {error['message']}"
            click.echo(printable(f"{job_id}  {state.value:<10}  {source}{why}"))
        case Notice(job_id=job_id, message=message):
            click.echo(printable(f"{job_id}  {message}"))
        case QueueChanged(paused=paused, stopping=stopping):
            click.echo("the daemon ends" if stopping else f"the queue is {'paused' if paused else 'running'}")
        case JobDeleted(job_id=job_id):
            click.echo(f"{job_id}  forgotten")
        case _:
            pass


def _job_event(item: EventMessage | Resynchronised) -> JobEvent | None:
    from revithion_bridge.messages import DaemonEvent

    event = getattr(item, "event", None)
    return None if isinstance(event, DaemonEvent) else event


def _say_that_it_goes_on(job_id: str) -> None:
    click.echo(
        f"the job goes on: `revithion-stems watch {job_id}` follows it again, "
        f"`revithion-stems cancel {job_id}` stops it",
        err=True,
    )
