"""Events get one number each, are kept for a while, and reach whoever subscribed."""

from __future__ import annotations

import logging

import pytest

from revithion_bridge.codec import decode_event, event_message
from revithion_bridge.event_hub import EventHub, Parent, Published
from revithion_bridge.messages import MAX_MESSAGE_BYTES, Heartbeat, JobDeleted, LiveChanged, QueueChanged
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged, Notice
from revithion_stems.jobs import JobState


def notice(text: str = "x") -> Notice:
    return Notice(job_id="job-1", seq=77, code="a.b", message=text)


def test_numbers_are_contiguous_whatever_the_event():
    hub = EventHub(first_seq=41)
    assert hub.last_seq == 40
    heard: list[Published] = []
    hub.subscribe(heard.append)
    for event in (
        notice(),
        QueueChanged(seq=9, paused=True),
        LiveChanged(seq=0, stem="bass", gain_db=0.0, muted=False),
    ):
        hub.publish(event)
    hub.publish(JobDeleted(seq=0, job_id="job-2"), Parent(client="c", id="7"))
    assert [published.seq for published in heard] == [41, 42, 43, 44]
    assert [published.event.seq for published in heard] == [41, 42, 43, 44]
    assert [published.topic for published in heard] == ["job/job-1/notice", "queue", "live/bass", "job/job-2/deleted"]
    messages = [decode_event(published.payload) for published in heard]
    assert [message.event for message in messages] == [published.event for published in heard]
    assert {message.epoch for message in messages} == {hub.epoch}
    assert [message.parent for message in messages] == [None, None, None, Parent(client="c", id="7")]


def test_a_heartbeat_takes_no_number():
    hub = EventHub()
    hub.publish(notice())
    beat = hub.publish(Heartbeat(seq=99, waiting=1, running=2))
    assert (beat.seq, beat.event, beat.topic) == (1, Heartbeat(seq=1, waiting=1, running=2), "heartbeat")
    assert hub.last_seq == 1
    assert len(hub.since(hub.epoch, 0, 500)[0]) == 1


def test_what_was_missed_can_be_had_again():
    hub = EventHub(first_seq=11)
    published = [hub.publish(notice(str(n))) for n in range(5)]
    events, last = hub.since(hub.epoch, 12, 2)
    assert last == 15
    assert [event_message(event).event for event in events] == [published[2].event, published[3].event]
    assert [event["seq"] for event in hub.since(hub.epoch, 10, 500)[0]] == [11, 12, 13, 14, 15]
    assert hub.since(hub.epoch, 15, 500) == ([], 15)


@pytest.mark.parametrize("seq", [9, 16, 10**30])
def test_what_is_not_there_is_gone(seq):
    hub = EventHub(first_seq=11)
    for _ in range(5):
        hub.publish(notice())
    for epoch, number in ((hub.epoch, seq), ("another", 12)):
        with pytest.raises(RevithionError) as caught:
            hub.since(epoch, number, 500)
        assert caught.value.code == "events.gone"


def test_only_so_many_are_kept():
    hub = EventHub(keep=3)
    for _ in range(5):
        hub.publish(notice())
    assert [event["seq"] for event in hub.since(hub.epoch, 2, 500)[0]] == [3, 4, 5]
    with pytest.raises(RevithionError):
        hub.since(hub.epoch, 1, 500)


def test_only_so_many_bytes_are_kept():
    hub = EventHub(keep_bytes=10_000)
    for _ in range(100):
        hub.publish(notice("x" * 1000))
    events, _ = hub.since(hub.epoch, 92, 500)
    assert len(events) == 8
    with pytest.raises(RevithionError):
        hub.since(hub.epoch, 50, 500)
    hub.publish(notice("x" * 20_000))
    assert hub.since(hub.epoch, hub.last_seq, 500) == ([], 101)


def test_an_answer_has_room_in_one_message():
    hub = EventHub(keep=1_000, keep_bytes=8 << 20)
    for _ in range(500):
        hub.publish(notice("x" * 2000))
    seen = 0
    while seen < 500:
        events, _ = hub.since(hub.epoch, seen, 500)
        assert 0 < len(events) * 2000 < MAX_MESSAGE_BYTES
        seen = events[-1]["seq"]


def test_runs_are_told_apart():
    assert EventHub().epoch != EventHub().epoch


def test_a_subscriber_at_fault_does_not_keep_events_from_others(caplog):
    hub = EventHub()
    heard: list[int] = []
    hub.subscribe(lambda _: 1 / 0)
    stop = hub.subscribe(lambda published: heard.append(published.seq))
    with caplog.at_level(logging.ERROR):
        hub.publish(notice())
    assert heard == [1]
    assert "ZeroDivisionError" in caplog.text
    stop()
    stop()
    hub.publish(notice())
    assert heard == [1]


def test_who_unsubscribes_while_being_told_keeps_nobody_waiting():
    hub = EventHub()
    heard: list[int] = []
    stop = hub.subscribe(lambda _: stop())
    hub.subscribe(lambda published: heard.append(published.seq))
    hub.publish(JobChanged(job_id="j", seq=0, state=JobState.QUEUED, source="/a"))
    hub.publish(notice())
    assert heard == [1, 2]
