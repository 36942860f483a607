"""``revithion-stems jobs``: the daemon's queue and what became of earlier jobs."""

from __future__ import annotations

from typing import Any

import click

from revithion_bridge.cli.job_ids import find_job, id_argument, open_client, pages
from revithion_bridge.cli.job_texts import print_job, print_job_json, print_table, state_text
from revithion_bridge.cli.submit import priority_choice
from revithion_stems.cli.console import json_option, print_json
from revithion_stems.jobs import JobState

HELP = {"help_option_names": ["-h", "--help"]}


def _examples(*lines: str) -> str:
    return "Examples:\n\n\b\n" + "\n".join(f"  revithion-stems jobs {line}".rstrip() for line in lines)


@click.group(
    context_settings=HELP,
    invoke_without_command=True,
    epilog=_examples("", "--state failed --json", "show 5f0c", "retry 5f0c", "clear --older-than 24", "pause"),
)
@click.option(
    "--state",
    multiple=True,
    type=click.Choice([state.value for state in JobState]),
    help="Only these; may be repeated.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@json_option
@click.pass_context
def jobs_group(ctx: click.Context, state: tuple[str, ...], limit: int, json_mode: bool) -> None:
    """List the daemon's jobs, newest first; or look after one, or after the queue.

    IDs may be abbreviated to a beginning that only one job has; `job-` may be left out.
    """
    if ctx.invoked_subcommand is not None:
        return
    with open_client() as client:
        found = list(pages(client, [JobState(name) for name in state], limit))
    if json_mode:
        for job in found:
            print_job_json(job)
    else:
        print_table(found)


@jobs_group.command("show", context_settings=HELP, epilog=_examples("show 5f0c", "show 5f0c --json"))
@id_argument
@json_option
def show_command(job_id: str, json_mode: bool) -> None:
    """Show all that is known of a job, with its history."""
    with open_client() as client:
        job = find_job(client, job_id)
        history = client.history(job.id)
    if json_mode:
        import msgspec

        print_job_json(job, history=msgspec.to_builtins(history))
    else:
        print_job(job, history)


@jobs_group.command("retry", context_settings=HELP, epilog=_examples("retry 5f0c"))
@id_argument
@json_option
def retry_command(job_id: str, json_mode: bool) -> None:
    """Submit a job that failed or was cancelled again, as a new one; prints its id."""
    with open_client(start=True) as client:
        job = client.retry(find_job(client, job_id).id)
    if json_mode:
        print_job_json(job)
    else:
        click.echo(job.id)


@jobs_group.command("delete", context_settings=HELP, epilog=_examples("delete 5f0c"))
@id_argument
@json_option
def delete_command(job_id: str, json_mode: bool) -> None:
    """Forget a job that has ended; its stems stay."""
    with open_client() as client:
        client.delete(find_job(client, job_id).id)
    _print_deleted(1, json_mode=json_mode)


@jobs_group.command("clear", context_settings=HELP, epilog=_examples("clear", "clear --older-than 24"))
@click.option("--older-than", type=click.FloatRange(min=0), metavar="HOURS", default=0.0, help="Ended so long ago.")
@json_option
def clear_command(older_than: float, json_mode: bool) -> None:
    """Forget all jobs that have ended; their stems stay."""
    with open_client() as client:
        count = client.clear(older_than_s=older_than * 3600)
    _print_deleted(count, json_mode=json_mode)


@jobs_group.command("priority", context_settings=HELP, epilog=_examples("priority 5f0c interactive"))
@id_argument
@click.argument("priority", metavar="CLASS", type=priority_choice)
@json_option
def priority_command(job_id: str, priority: str, json_mode: bool) -> None:
    """Move a job that waits or runs into another CLASS: interactive, normal or batch."""
    from revithion_stems.scheduler import Priority

    with open_client() as client:
        job = client.reprioritise(find_job(client, job_id).id, Priority(priority))
    if json_mode:
        print_job_json(job)
    else:
        click.echo(f"{job.id}  {job.priority.value}, {state_text(job)}")


@jobs_group.command("pause", context_settings=HELP, epilog=_examples("pause"))
@json_option
def pause_command(json_mode: bool) -> None:
    """Start no more jobs, also after a restart of the daemon; what runs goes on."""
    with open_client() as client:
        client.pause_queue()
    _print_queue("paused", json_mode=json_mode)


@jobs_group.command("resume", context_settings=HELP, epilog=_examples("resume"))
@json_option
def resume_command(json_mode: bool) -> None:
    """Start jobs again."""
    with open_client(start=True) as client:
        client.resume_queue()
    _print_queue("running", json_mode=json_mode)


def _print_deleted(count: int, *, json_mode: bool) -> None:
    if json_mode:
        print_json({"type": "Deleted", "count": count})
    else:
        click.echo(f"{count} job{'' if count == 1 else 's'} forgotten")


def _print_queue(state: str, *, json_mode: bool) -> None:
    data: dict[str, Any] = {"type": "Queue", "paused": state == "paused"}
    if json_mode:
        print_json(data)
    else:
        click.echo(f"the queue is {state}")
