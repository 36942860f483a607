"""Where a DAW's request stands, in words for people. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from revithion_bridge.daw.mailbox import DawStatus
from revithion_bridge.messages import JobInfo, Snapshot
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority


def job_status(
    request_id: str, info: JobInfo, number: int, jobs: Sequence[str], snapshot: Snapshot | None = None
) -> DawStatus:
    """The status of a request whose jobs are done one after the other.

    Args:
        request_id: Of the request.
        info: The job that is next to be done.
        number: Its place among ``jobs``; those before are done.
        jobs: All jobs of the request.
        snapshot: The queue, for a job that waits.
    """
    done = min(1_000 * info.done // info.total, 1_000) / 1_000 if info.total else 0.0
    fraction = round((number + done) / len(jobs), 3)
    is_last = number == len(jobs) - 1
    remaining_s = info.remaining_s if info.state is JobState.SEPARATING else None
    match info.state:
        case JobState.QUEUED:
            text = _waiting(info, jobs, snapshot)
        case JobState.LOADING:
            text = "loading the model"
        case JobState.SEPARATING:
            text = f"separating {int(100 * done)} %"
            if remaining_s is not None:
                text += f", {_clock(remaining_s)} left"
        case _:
            text = "writing the stems"
    if len(jobs) > 1:
        text = f"{number + 1} of {len(jobs)}: {text}"
    return DawStatus(
        id=request_id,
        state=info.state.value,
        fraction=fraction,
        remaining_s=round(remaining_s, 1) if remaining_s is not None and is_last else None,
        text=text,
    )


def _waiting(info: JobInfo, own: Collection[str], snapshot: Snapshot | None) -> str:
    if snapshot is not None and snapshot.paused:
        return "waiting: the queue is paused"
    before = [job for job in snapshot.jobs if job.id not in own and _goes_before(job, info)] if snapshot else []
    if not before:
        return "waiting"
    return f"waiting: {len(before)} job{'s' if len(before) > 1 else ''} before this one"


def _goes_before(job: JobInfo, info: JobInfo) -> bool:
    if job.state is not JobState.QUEUED:
        return True
    return job.priority is Priority.INTERACTIVE and job.created_at < info.created_at


def _clock(seconds: float) -> str:
    whole = max(round(seconds), 0)
    if whole >= 3_600:
        return f"{whole // 3_600}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{whole // 60}:{whole % 60:02}"
