"""Jobs by the beginning of their ids, for people and for the shell's completion; and how the commands connect."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from revithion_bridge.client import Client
    from revithion_bridge.messages import JobInfo
    from revithion_stems.jobs import JobState

_PREFIX = "job-"
_MOST_COMPLETED = 50


def open_client(*, start: bool = False) -> Client:
    """A connection to the daemon of this user, as a context manager; ``start`` starts one if none runs.

    Raises:
        DaemonError: There is none, or it does not start.
    """
    from revithion_bridge.client import connect
    from revithion_bridge.remote_separation import CLIENT

    return connect(client=CLIENT, start=start, **({} if start else {"timeout_s": 3.0}))


def pages(client: Client, states: Sequence[JobState] = (), limit: int | None = None) -> Iterator[JobInfo]:
    """Jobs, newest first, as many as there are or as ``limit`` says."""
    from revithion_bridge.messages import MAX_LISTED, ListJobs

    before, left = None, limit
    while left is None or left > 0:
        size = MAX_LISTED if left is None else min(left, MAX_LISTED)
        page = client.request(ListJobs(states=tuple(states), limit=size, before=before))
        yield from page.jobs
        if not page.more or not page.jobs:
            return
        before = page.jobs[-1].id
        left = None if left is None else left - len(page.jobs)


def find_job(client: Client, beginning: str) -> JobInfo:
    """The one job whose id is, or begins with, ``beginning``; ``job-`` may be left out.

    Raises:
        RequestError: There is none (``job.unknown``), or more than one.
    """
    from revithion_bridge.errors import bridge_error
    from revithion_stems.errors import RevithionError

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", beginning):
        raise bridge_error("job.unknown", f"{beginning!r} is not the id of a job")
    try:
        return client.job(beginning)
    except RevithionError as exc:
        if exc.code != "job.unknown":
            raise
    found = [job for job in pages(client) if job.id.startswith((beginning, _PREFIX + beginning))]
    if len(found) == 1:
        return found[0]
    if found:
        some = ", ".join(job.id for job in found[:3])
        raise bridge_error("job.unknown", f"{len(found)} jobs begin with {beginning!r}: {some}, ...")
    raise bridge_error("job.unknown", f"no job begins with {beginning!r}")


def complete_ids(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of jobs that begin with ``incomplete``, for the shell; none if no daemon runs."""
    from revithion_stems.errors import RevithionError

    with contextlib.suppress(RevithionError, OSError):
        from revithion_bridge.client import connect
        from revithion_bridge.remote_separation import CLIENT

        with connect(client=CLIENT, timeout_s=0.5) as client:
            jobs = pages(client, limit=500)
            return [job.id for job in jobs if job.id.startswith(incomplete)][:_MOST_COMPLETED]
    return []


id_argument = click.argument("job_id", metavar="ID", shell_complete=complete_ids)
