"""``revithion-stems submit``: puts songs into the daemon's queue."""

from __future__ import annotations

from typing import Any

import click

from revithion_bridge.cli.job_ids import open_client
from revithion_bridge.cli.job_texts import print_job_json
from revithion_stems.cli.console import json_option, report_error
from revithion_stems.cli.request_options import build_requests, request_options, sources_argument

_EXAMPLES = """Examples:

\b
  revithion-stems submit song.mp3 -o stems
      prints the job's id; the daemon is started if none runs
  revithion-stems submit *.wav --priority batch
  revithion-stems submit song.wav --two-stems vocals --wait
  revithion-stems watch $(revithion-stems submit song.wav)
"""

priority_choice = click.Choice(["interactive", "normal", "batch"])


@click.command(epilog=_EXAMPLES)
@sources_argument
@request_options()
@click.option("--priority", type=priority_choice, default="normal", show_default=True, help="Class of the jobs.")
@click.option("--key", help="The same key with the same job gives the first one's job again; for one source.")
@click.option("--wait", is_flag=True, help="Follow the jobs to their end, as watch does.")
@json_option
def submit_command(priority: str, key: str | None, wait: bool, json_mode: bool, **options: Any) -> int:
    """Put SOURCES into the queue of the daemon, and print the ids of their jobs, one a line.

    The daemon is started if none runs. The jobs are on disk when this ends: they outlive it, and the daemon.
    """
    requests, output = build_requests(options)
    if key is not None and len(requests) > 1:
        raise click.UsageError("--key is for one source: with several, each would need its own.")

    from revithion_bridge.cli.watch import watch_job
    from revithion_bridge.parameters import to_parameters
    from revithion_stems.errors import RevithionError
    from revithion_stems.scheduler import Priority

    force_refresh, offline = options["force_refresh"], options["offline"]
    jobs, status = [], 0
    with open_client(start=True) as client:
        for request in requests:
            try:
                parameters = to_parameters(request, output, force_refresh=force_refresh, offline=offline, span_s=5.0)
                job = client.submit_job(parameters, Priority(priority), key)
            except RevithionError as exc:
                status = status or exc.exit_code
                report_error(exc, json_mode=json_mode)
                continue
            jobs.append(job)
            if json_mode:
                print_job_json(job)
            else:
                click.echo(job.id)
        if wait:
            for job in jobs:
                ended = watch_job(client, job, json_mode=json_mode)
                status = status or ended
                if ended == 130 and not client.job(job.id).state.is_final:
                    return ended  # Ctrl-C: the others are not followed either
    return status
