"""Jobs and their life: which state may follow which is data, and code enforces it."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass

from revithion_stems.errors import RequestError


class JobState(enum.Enum):
    """Where a job stands. ``DONE``, ``FAILED`` and ``CANCELLED`` are final."""

    QUEUED = "queued"
    LOADING = "loading"
    SEPARATING = "separating"
    WRITING = "writing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows this state."""
        return not TRANSITIONS[self]


_ENDS = frozenset({JobState.FAILED, JobState.CANCELLED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: _ENDS | {JobState.LOADING},
    # What the cache has is only written. Back to the queue: given up for another job, or the process was lost.
    JobState.LOADING: _ENDS | {JobState.SEPARATING, JobState.WRITING, JobState.QUEUED},
    JobState.SEPARATING: _ENDS | {JobState.WRITING, JobState.QUEUED},
    JobState.WRITING: _ENDS | {JobState.DONE, JobState.QUEUED},
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""State → the states that may follow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One separation of one source. Immutable: :meth:`advance` gives the next one.

    Attributes:
        id: Unique within a process or a daemon's store.
        source: What is separated, as text for people (a path, or ``<buffer>``).
        state: Where it stands.
    """

    id: str
    source: str
    state: JobState = JobState.QUEUED

    def advance(self, state: JobState) -> Job:
        """This job in ``state``.

        Raises:
            RequestError: ``TRANSITIONS`` does not allow ``state`` after the current one.
        """
        if state not in TRANSITIONS[self.state]:
            allowed = ", ".join(sorted(s.value for s in TRANSITIONS[self.state])) or "nothing: it is final"
            raise RequestError(
                f"job {self.id}: {state.value!r} can't follow {self.state.value!r} (allowed: {allowed})",
                hint="Ask for the job's status first; a final job must be submitted again.",
                code="job.transition",
            )
        return dataclasses.replace(self, state=state)
