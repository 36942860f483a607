"""The schedule as laws: nothing is lost, classes go in order, clients take turns, and what was is forgotten."""

from __future__ import annotations

import pickle
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revithion_stems.scheduler import MOST_PREEMPTIONS, MOST_REMEMBERED, Priority, Schedule, gives_way

INTERACTIVE, NORMAL, BATCH = Priority
priorities = st.sampled_from(list(Priority))
clients = st.sampled_from("abcde")


def drain(schedule, now_s=0.0):
    """All jobs that are ready, in the order in which they start."""
    started = []
    while (waiting := schedule.start(now_s)) is not None:
        started.append(waiting)
    return started


def ids(waiting):
    return [w.job_id for w in waiting]


def test_an_empty_one_has_nothing_to_start():
    schedule = Schedule()
    assert schedule.next(1e9) is None
    assert schedule.start(1e9) is None
    assert not schedule.remove("x")
    assert len(schedule) == 0
    assert schedule.counts() == {INTERACTIVE: 0, NORMAL: 0, BATCH: 0}


@given(st.lists(st.tuples(clients, priorities), max_size=40))
def test_all_start_once_by_class_and_in_order_within_a_client(jobs):
    schedule = Schedule()
    for number, (client, priority) in enumerate(jobs):
        schedule.add(str(number), client, priority)
    assert schedule.counts() == {priority: sum(p is priority for _, p in jobs) for priority in Priority}
    assert all(schedule.count_of(client) == sum(c == client for c, _ in jobs) for client in "abcdef")
    started = drain(schedule)
    assert sorted(ids(started), key=int) == [str(number) for number in range(len(jobs))]
    assert [w.priority.rank for w in started] == sorted(w.priority.rank for w in started)
    for priority in Priority:
        for client in "abcde":
            own = [int(w.job_id) for w in started if (w.client, w.priority) == (client, priority)]
            assert own == sorted(own)


@given(
    st.dictionaries(clients, st.integers(min_value=5, max_value=20), min_size=2),
    st.lists(st.tuples(clients, st.booleans()), max_size=30),
    priorities,
)
def test_clients_with_many_jobs_take_turns(many, past, priority):
    """Whatever was before, in any stretch of starts in which all have jobs, no one has two more than another."""
    schedule = Schedule()
    for number, (client, starts) in enumerate(past):
        schedule.add(f"past-{number}", client, priority)
        if starts:
            schedule.start(0.0)
    for number in range(len(past)):
        schedule.remove(f"past-{number}")
    for client, count in many.items():
        for number in range(count):
            schedule.add(f"{client}{number}", client, priority)
    started = [w.client for w in drain(schedule)]
    stretch = started[: len(many) * min(many.values())]
    for first in range(len(stretch)):
        for last in range(first, len(stretch)):
            counts = {client: stretch[first : last + 1].count(client) for client in many}
            assert max(counts.values()) - min(counts.values()) <= 1


@given(st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=50), priorities)
def test_a_late_client_goes_next(waiting, started, priority):
    schedule = Schedule()
    for number in range(waiting + started):
        schedule.add(f"old-{number}", "old", priority)
    for _ in range(started):
        schedule.start(0.0)
    schedule.add("new-0", "new", priority)
    schedule.add("new-1", "new", priority)
    assert schedule.start(0.0).job_id == "new-0"
    assert schedule.start(0.0).client == "old"
    assert schedule.start(0.0).job_id == "new-1"


def test_one_who_submits_one_at_a_time_does_not_pass_another_each_time():
    schedule = Schedule()
    for number in range(10):
        schedule.add(f"many-{number}", "many", NORMAL)
    started = []
    for number in range(5):
        schedule.add(f"single-{number}", "single", NORMAL)
        started += [schedule.start(0.0).client, schedule.start(0.0).client]
    assert started == ["many", "single"] * 5


def test_removed_jobs_cost_no_turns():
    schedule = Schedule()
    for number in range(100):
        schedule.add(f"a{number}", "a", NORMAL)
    for number in range(20):
        schedule.add(f"b{number}", "b", NORMAL)
    for number in range(99):
        assert schedule.remove(f"a{number}")
    assert ids(drain(schedule))[:2] == ["a99", "b0"]


def test_jobs_that_waited_for_their_time_earn_no_turns():
    schedule = Schedule()
    for number in range(20):
        schedule.add(f"late-{number}", "late", NORMAL, not_before_s=10.0)
        schedule.add(f"soon-{number}", "soon", NORMAL)
    for _ in range(10):
        assert schedule.start(9.9).client == "soon"
    clients_then = [w.client for w in drain(schedule, 10.0)]
    assert clients_then[:20] == ["late", "soon"] * 10


def test_a_job_is_passed_over_until_its_time():
    schedule = Schedule()
    schedule.add("later", "a", INTERACTIVE, not_before_s=5.0, front=True)
    schedule.add("now", "a", BATCH)
    assert schedule.next(4.9).job_id == "now"
    assert schedule.next(5.0).job_id == "later"
    assert ids(drain(schedule, 0.0)) == ["now"]
    assert "later" in schedule
    assert ids(drain(schedule, 5.0)) == ["later"]


@given(st.lists(st.tuples(clients, st.booleans()), max_size=20), st.lists(clients, max_size=5), priorities)
def test_in_front_is_before_all_of_its_class_whoever_comes_later(before, after, priority):
    schedule = Schedule()
    for number, (client, starts) in enumerate(before):
        schedule.add(str(number), client, priority)
        if starts:
            schedule.start(0.0)
    schedule.add("begun", "a", priority, front=True)
    for number, client in enumerate(after):
        schedule.add(f"after-{number}", client, priority)
    schedule.add("new", "somebody new", priority)
    assert schedule.start(0.0).job_id == "begun"


def test_in_front_stays_behind_better_classes_and_costs_no_turn():
    schedule = Schedule()
    for number in range(2):
        schedule.add(f"a{number}", "a", NORMAL)
        schedule.add(f"b{number}", "b", NORMAL)
    assert ids([schedule.start(0.0), schedule.start(0.0)]) == ["a0", "b0"]
    schedule.add("a0", "a", NORMAL, front=True)
    schedule.add("click", "c", INTERACTIVE)
    assert ids(drain(schedule)) == ["click", "a0", "a1", "b1"]


def test_adding_again_moves():
    schedule = Schedule()
    schedule.add("a0", "a", NORMAL)
    schedule.add("a1", "a", NORMAL)
    schedule.add("a0", "a", NORMAL)
    assert len(schedule) == 2
    assert [w.job_id for w in (schedule.next(0.0),)] == ["a1"]
    schedule.add("a0", "a", INTERACTIVE)
    assert len(schedule) == 2
    assert ids(drain(schedule)) == ["a0", "a1"]


def test_nothing_is_kept_of_clients_that_are_gone():
    """Names come from outside: a million of them must not stay."""
    schedule = Schedule()

    def pass_through(count, start):
        for number in range(count):
            schedule.add("job", f"client {number}", NORMAL)
            schedule.start(0.0) if start else schedule.remove("job")

    pass_through(MOST_REMEMBERED + 1, start=True)
    full = len(pickle.dumps(vars(schedule)))
    pass_through(5 * MOST_REMEMBERED, start=True)
    pass_through(5 * MOST_REMEMBERED, start=False)
    assert len(pickle.dumps(vars(schedule))) < 1.5 * full


def test_those_that_started_last_are_remembered():
    schedule = Schedule()

    def start(client):
        schedule.add(client, client, NORMAL)
        assert schedule.start(0.0).client == client

    start("busy")
    for number in range(MOST_REMEMBERED - 1):
        start(f"client {number}")
    start("busy")
    start("one more")
    schedule.add("of busy", "busy", NORMAL)
    schedule.add("of a new one", "new", NORMAL)
    assert ids(drain(schedule)) == ["of a new one", "of busy"]


def test_ever_new_names_do_not_keep_one_waiting_for_ever():
    schedule = Schedule()
    schedule.add("a0", "a", NORMAL)
    schedule.add("a1", "a", NORMAL)
    schedule.start(0.0)
    for number in range(2 * MOST_REMEMBERED):
        schedule.add(f"n{number}", f"name {number}", NORMAL)
        if schedule.start(0.0).job_id == "a1":
            return
    pytest.fail("a1 never started")


def test_ten_thousand_jobs_wait_without_a_request_feeling_it():
    schedule = Schedule()
    for number in range(10_000):
        schedule.add(str(number), f"client {number % 50}", NORMAL)
    before = time.perf_counter()
    schedule.next(0.0)
    assert time.perf_counter() - before < 0.5  # 5 ms where nothing else runs


@pytest.mark.parametrize("running", list(Priority))
@pytest.mark.parametrize("waiting", list(Priority))
def test_only_the_interactive_class_makes_others_give_way(running, waiting):
    expected = waiting is INTERACTIVE and running is not INTERACTIVE
    assert gives_way(running, 0, waiting) is expected
    assert gives_way(running, MOST_PREEMPTIONS - 1, waiting) is expected
    assert gives_way(running, MOST_PREEMPTIONS, waiting) is False


class AnySchedule(RuleBasedStateMachine):
    """A schedule beside a plain dictionary, under any sequence of calls."""

    def __init__(self):
        super().__init__()
        self.schedule = Schedule()
        self.waiting = {}
        self.number = 0
        self.now_s = 0.0

    @rule(client=clients, priority=priorities, delay_s=st.sampled_from([0.0, 0.0, 3.0]), front=st.booleans())
    def add(self, client, priority, delay_s, front):
        self.number += 1
        self._add(f"job-{self.number}", client, priority, delay_s, front)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), priority=priorities, delay_s=st.sampled_from([0.0, 3.0]), front=st.booleans())
    def add_again(self, data, priority, delay_s, front):
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        self._add(job_id, self.waiting[job_id][0], priority, delay_s, front)

    def _add(self, job_id, client, priority, delay_s, front):
        not_before_s = self.now_s + delay_s if delay_s else 0.0
        self.schedule.add(job_id, client, priority, not_before_s=not_before_s, front=front)
        self.waiting.pop(job_id, None)
        self.waiting[job_id] = (client, priority, not_before_s, front)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data):
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.schedule.remove(job_id)
        assert not self.schedule.remove(job_id)
        del self.waiting[job_id]

    @rule()
    def time_passes(self):
        self.now_s += 1.0

    @rule()
    def start(self):
        ready = {job_id: job for job_id, job in self.waiting.items() if job[2] <= self.now_s}
        expected = self.schedule.next(self.now_s)
        chosen = self.schedule.start(self.now_s)
        assert chosen == expected
        if not ready:
            assert chosen is None
            return
        client, priority, _, front = ready[chosen.job_id]
        assert priority.rank == min(job[1].rank for job in ready.values())
        alike = [job_id for job_id, job in ready.items() if job[1] is priority]
        in_front = [job_id for job_id in alike if ready[job_id][3]]
        if in_front:
            assert chosen.job_id == in_front[-1]
        else:
            assert not front
            assert chosen.job_id == next(job_id for job_id in alike if ready[job_id][0] == client)
        del self.waiting[chosen.job_id]

    @invariant()
    def the_same_jobs_wait(self):
        assert len(self.schedule) == len(self.waiting)
        assert all(job_id in self.schedule for job_id in self.waiting)
        assert sum(self.schedule.counts().values()) == len(self.waiting)


TestAnySchedule = AnySchedule.TestCase
TestAnySchedule.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(min_value=2, max_value=5), st.integers(min_value=2, max_value=8))
def test_the_rotation_is_the_same_in_each_round(clients_count, rounds):
    schedule = Schedule()
    for number in range(rounds):
        for client in range(clients_count):
            schedule.add(f"{client}-{number}", str(client), NORMAL)
    started = [w.client for w in drain(schedule)]
    parts = [started[n : n + clients_count] for n in range(0, len(started), clients_count)]
    assert all(first == second for first, second in pairwise(parts))
