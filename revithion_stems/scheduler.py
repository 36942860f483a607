"""Which job runs next, and which one gives way: by priority, then fairly between clients, then in order of arrival."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass

MOST_PREEMPTIONS = 5
"""After so many a job is left to run: it would else never end beside somebody who keeps clicking."""


class Priority(enum.Enum):
    """Classes of jobs; a class goes before all later ones."""

    INTERACTIVE = "interactive"
    """Somebody sits before the screen and waits."""
    NORMAL = "normal"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 for the first class."""
        return list(Priority).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that waits.

    Attributes:
        job_id: Which.
        client: Who asked for it.
        priority: Its class.
        turn: When its client's turn is, in jobs; given by the schedule.
        order: Order of arrival.
        not_before_s: It is passed over until then, on the clock of whoever asks.
    """

    job_id: str
    client: str
    priority: Priority
    turn: int
    order: int
    not_before_s: float = 0.0


class Schedule:
    """The jobs that wait. One thread at a time; memory grows with the jobs that wait, not with those that were.

    Clients take turns: each job takes its client's next turn, and a client that comes anew starts where the others
    are, so that a thousand jobs of one do not keep another's first one waiting.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}
        self._next_turn: dict[tuple[Priority, str], int] = {}
        self._now: dict[Priority, int] = dict.fromkeys(Priority, 0)
        self._order = itertools.count()
        self._front = itertools.count(-1, -1)

    def add(
        self, job_id: str, client: str, priority: Priority, *, not_before_s: float = 0.0, front: bool = False
    ) -> None:
        """Puts a job in; ``front`` before all others of its class: it has begun already."""
        self.remove(job_id)
        turn = self._now[priority] if front else self._take_turn(client, priority)
        order = next(self._front) if front else next(self._order)
        if front:
            turn = min((w.turn for w in self._waiting.values() if w.priority is priority), default=turn)
        self._waiting[job_id] = Waiting(
            job_id=job_id, client=client, priority=priority, turn=turn, order=order, not_before_s=not_before_s
        )

    def remove(self, job_id: str) -> bool:
        """Takes a job out; whether it was there."""
        return self._waiting.pop(job_id, None) is not None

    def next(self, now_s: float) -> Waiting | None:
        """The job that goes next, which stays in until it is removed."""
        ready = (waiting for waiting in self._waiting.values() if waiting.not_before_s <= now_s)
        return min(ready, key=lambda w: (w.priority.rank, w.turn, w.order), default=None)

    def start(self, now_s: float) -> Waiting | None:
        """Takes the next job out: it runs."""
        chosen = self.next(now_s)
        if chosen is not None:
            self.remove(chosen.job_id)
            self._now[chosen.priority] = max(self._now[chosen.priority], chosen.turn)
            if not any(w.priority is chosen.priority for w in self._waiting.values()):
                self._next_turn = {key: turn for key, turn in self._next_turn.items() if key[0] is not chosen.priority}
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

    def _take_turn(self, client: str, priority: Priority) -> int:
        turn = max(self._next_turn.get((priority, client), 0), self._now[priority])
        self._next_turn[priority, client] = turn + 1
        return turn


def gives_way(running: Priority, preemptions: int, waiting: Priority) -> bool:
    """Whether a running job stops after its segment, to go on later, for one that waits: only for somebody who waits
    before the screen."""
    return waiting is Priority.INTERACTIVE and running is not Priority.INTERACTIVE and preemptions < MOST_PREEMPTIONS
