"""Which job runs next, and which one gives way: by priority, then fairly between clients, then in order of arrival."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass

MOST_PREEMPTIONS = 5
"""After so many a job is left to run: it would else never end beside somebody who keeps clicking."""
MOST_REMEMBERED = 1024
"""So many clients per class are known by their last start."""

_IN_FRONT, _NEVER = -2, -1
"""Before all numbers of starts."""


class Priority(enum.Enum):
    """Classes of jobs; a class goes before all later ones."""

    INTERACTIVE = "interactive"
    """Somebody sits before the screen and waits."""
    NORMAL = "normal"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 for the first class."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that waits.

    Attributes:
        job_id: Which.
        client: Who asked for it.
        priority: Its class.
        front: Whether it goes before all of its class that were put in the common way.
        order: Order of arrival; of two in front, the later one goes first.
        not_before_s: It is passed over until then, on the clock of whoever asks.
    """

    job_id: str
    client: str
    priority: Priority
    front: bool
    order: int
    not_before_s: float = 0.0


class Schedule:
    """The jobs that wait. One thread at a time; memory grows with the jobs that wait, not with those that were.

    Clients take turns: of those that have a job ready in the first class, the one whose last start in that class was
    the longest ago goes, and one that never had any goes before them. So a thousand jobs of one do not keep another's
    first one waiting, and between two starts of one client each other one that waits has one. Turns are counted when
    jobs start, not when they come: jobs that were removed, or that must not start yet, neither cost nor earn any.

    Only the last ``MOST_REMEMBERED`` clients that started something are known as such. It bounds memory, and whoever
    comes under ever new names can't keep others waiting for ever: the one that waits becomes as new as they are.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._last_start: dict[Priority, dict[str, int]] = {priority: {} for priority in Priority}
        self._starts = itertools.count()
        self._order = itertools.count()

    def add(
        self, job_id: str, client: str, priority: Priority, *, not_before_s: float = 0.0, front: bool = False
    ) -> None:
        """Puts a job in, behind its client's others; ``front`` before all others of its class: it has begun already,
        and going on costs its client no turn. A job that is there already is moved."""
        self.remove(job_id)
        order = next(self._order)
        self._waiting[job_id] = Waiting(
            job_id=job_id, client=client, priority=priority, front=front, order=order, not_before_s=not_before_s
        )

    def remove(self, job_id: str) -> bool:
        """Takes a job out; whether it was there."""
        return self._waiting.pop(job_id, None) is not None

    def next(self, now_s: float) -> Waiting | None:
        """The job that goes next, which stays in until it is removed."""
        ready = (waiting for waiting in self._waiting.values() if waiting.not_before_s <= now_s)
        return min(ready, key=self._rank, default=None)

    def start(self, now_s: float) -> Waiting | None:
        """Takes the next job out: it runs."""
        chosen = self.next(now_s)
        if chosen is not None:
            self.remove(chosen.job_id)
            if not chosen.front:
                self._note_start(chosen)
        return chosen

    def counts(self) -> dict[Priority, int]:
        """Class → how many wait."""
        found = dict.fromkeys(Priority, 0)
        for waiting in self._waiting.values():
            found[waiting.priority] += 1
        return found

    def count_of(self, client: str) -> int:
        """How many of one client wait."""
        return sum(waiting.client == client for waiting in self._waiting.values())

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def _rank(self, waiting: Waiting) -> tuple[int, int, int]:
        if waiting.front:
            return waiting.priority.rank, _IN_FRONT, -waiting.order
        last_start = self._last_start[waiting.priority].get(waiting.client, _NEVER)
        return waiting.priority.rank, last_start, waiting.order

    def _note_start(self, started: Waiting) -> None:
        starts = self._last_start[started.priority]
        starts.pop(started.client, None)  # so that the dictionary is in order of last starts
        starts[started.client] = next(self._starts)
        if len(starts) > MOST_REMEMBERED:
            del starts[next(iter(starts))]


def gives_way(running: Priority, preemptions: int, waiting: Priority) -> bool:
    """Whether a running job stops after its segment, to go on later, for one that waits: only for somebody who waits
    before the screen."""
    return waiting is Priority.INTERACTIVE and running is not Priority.INTERACTIVE and preemptions < MOST_PREEMPTIONS
