"""``revithion-stems cancel``: stops jobs of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from revithion_bridge.cli.job_ids import complete_ids, find_job, open_client, pages
from revithion_bridge.cli.job_texts import print_job_json
from revithion_stems.cli.console import json_option, report_error

if TYPE_CHECKING:
    from revithion_bridge.messages import JobInfo

_EXAMPLES = """Examples:

\b
  revithion-stems cancel 5f0c
  revithion-stems cancel --all
"""


@click.command(epilog=_EXAMPLES)
@click.argument("job_ids", metavar="[ID]...", nargs=-1, shell_complete=complete_ids)
@click.option("--all", is_flag=True, help="All jobs that wait or run, of all clients.")
@json_option
def cancel_command(job_ids: tuple[str, ...], all: bool, json_mode: bool) -> int:
    """Stop jobs: at once if they wait, after the segment that runs otherwise. What has ended stays as it is."""
    if all == bool(job_ids):
        raise click.UsageError("Give either IDs or --all.")

    from revithion_stems.errors import RevithionError
    from revithion_stems.jobs import JobState

    status = 0
    with open_client() as client:
        if all:
            running = [job.id for job in pages(client, [state for state in JobState if not state.is_final])]
            job_ids = tuple(reversed(running))
        for beginning in job_ids:
            try:
                job = client.cancel(find_job(client, beginning).id)
            except RevithionError as exc:
                status = status or exc.exit_code
                report_error(exc, json_mode=json_mode)
                continue
            if json_mode:
                print_job_json(job)
            else:
                click.echo(f"{job.id}  {_outcome(job)}")
    return status


def _outcome(job: JobInfo) -> str:
    if job.state.is_final:
        return job.state.value
    return "stops after the segment that runs"
