"""A child process and its pipe: who closes it, and what those learn who still hold it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from revithion_realtime.inference_process import Describe, Described, run_inference
from revithion_realtime.process_link import ProcessLink
from revithion_stems.errors import LiveError

WAIT_S = 30.0


@pytest.fixture
def link() -> Iterator[ProcessLink]:
    link = ProcessLink(run_inference, "live inference")
    yield link
    link.close()


def test_its_errors_come_back_as_they_are(link: ProcessLink):
    link.send(Describe(model="no such model", look_back_hop_s=1.0))
    with pytest.raises(LiveError, match="no such model") as caught:
        link.receive(WAIT_S)
    assert caught.value.code == "live.model"


def test_closed_twice_it_is_closed_and_says_so(link: ProcessLink):
    link.send(Describe(model="dsp", look_back_hop_s=1.0))
    assert link.receive(WAIT_S) == Described(name="dsp", stems=("drums", "bass", "other", "vocals"))
    link.close()
    link.close()
    assert not link.alive
    for action in (lambda: link.receive(0.0), lambda: link.send(None)):
        with pytest.raises(LiveError, match="live inference ended") as caught:
            action()
        assert caught.value.code == "live.failed"


def test_who_waits_learns_that_another_thread_has_closed_it(link: ProcessLink):
    told: list[LiveError] = []

    def wait() -> None:
        with pytest.raises(LiveError) as caught:
            link.receive(WAIT_S)
        told.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    link.close()
    waiting.join(WAIT_S)
    assert [error.code for error in told] == ["live.failed"]


def test_one_that_does_not_answer_is_told_and_can_still_be_ended(link: ProcessLink):
    with pytest.raises(LiveError, match="did not answer within"):
        link.receive(0.1)
    link.close()
    assert not link.alive
