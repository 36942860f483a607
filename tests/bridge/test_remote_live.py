"""The daemon's live session in another process's hands: as one of its own, through real sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge_doors import DoorsThread
from live_desk import STEMS, DeskOpener
from revithion_bridge import connect
from revithion_bridge.live_stage import LiveStage
from revithion_bridge.path_jail import PathJail
from revithion_bridge.remote_live import find_daemon, open_remote_live
from revithion_stems.errors import LiveError, RequestError
from revithion_stems.live import LiveOptions, LiveOutputs, LivePhase, StripChange, StripSettings, Tier


class Played:
    """Doors with a stage behind them that plays fake sessions."""

    def __init__(self, doors: DoorsThread, root: Path) -> None:
        self.doors, self.opener = doors, DeskOpener()
        self.stage = LiveStage(self.opener, PathJail([root]), publish=doors.hub.publish)
        doors.service.others = self.stage.answers


@pytest.fixture
def played(daemon_home: Path, tmp_path: Path) -> Iterator[Played]:
    with DoorsThread() as doors:
        played = doors.do(lambda: Played(doors, tmp_path))
        yield played


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(LiveError) as caught:
        action()
    return caught.value.code


def test_a_remote_session_is_held_like_one_of_this_process(played: Played, tmp_path: Path) -> None:
    options = LiveOptions(device="none", source=str(tmp_path / "a.wav"), outputs=LiveOutputs.BOTH, connect_to=("a:1",))
    live = open_remote_live(options)
    (session,) = played.opener.sessions
    assert session.options == options
    assert live.set_strip("bass", StripChange(gain_db=-6.0, low_db=-60.0)) == StripSettings(gain_db=-6.0, low_db=-60.0)
    live.set_monitor_gain(-3.0)
    live.store_scene("break")
    state = live.state()
    assert state == session.state()
    assert (state.scenes, state.monitor_gain_db, state.strips[0].tier) == (("break",), -3.0, Tier.PREVIEW)
    live.set_strip("bass", StripChange(gain_db=0.0))
    live.recall_scene("break")
    assert session.settings("bass").gain_db == -6.0
    assert live.start_recording(str(tmp_path)) == f"{tmp_path}/take-1"
    assert len(live.stop_recording()) == len(STEMS)
    live.stop()
    live.stop()
    assert session.stopped == 1
    assert live.state().phase is LivePhase.ENDED


def test_its_errors_are_those_of_the_session(played: Played, tmp_path: Path) -> None:
    live = open_remote_live(LiveOptions(device="none"))
    assert refusal(lambda: live.set_strip("kazoo", StripChange(gain_db=0.0))) == "live.stem"
    assert refusal(lambda: live.set_strip("bass", StripChange(pan=7.0))) == "live.value"
    assert refusal(lambda: live.set_monitor_gain(99.0)) == "live.value"
    assert refusal(lambda: live.recall_scene("none")) == "live.scene"
    assert refusal(lambda: live.start_recording("/etc")) == "live.failed"
    assert refusal(lambda: open_remote_live(LiveOptions(device="none"))) == "live.running"
    live.stop()
    played.opener.refusal = LiveError("JACK does not run", hint="Start it.", code="live.jack")
    assert refusal(lambda: open_remote_live(LiveOptions(device="jack"))) == "live.jack"


def test_a_session_that_ended_says_why(played: Played) -> None:
    live = open_remote_live(LiveOptions(device="none"))
    played.opener.sessions[0].end("the file is over")
    deadline = time.monotonic() + 10.0
    while live.state().phase is not LivePhase.ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    while not played.opener.sessions[0].stopped:
        time.sleep(0.02)
    assert live.state().message == "the file is over"
    live.stop()


def test_a_daemon_that_is_gone_is_a_live_error(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    live = open_remote_live(LiveOptions(device="none"))
    played.doors.stop(crash=True)
    monkeypatch.setattr("revithion_bridge.remote_live._ANSWER_S", 0.2)
    assert refusal(live.state) == "live.failed"


def test_there_is_no_daemon_to_be_found(daemon_home: Path) -> None:
    assert not find_daemon()


def test_a_daemon_of_another_version_is_not_used(played: Played) -> None:
    assert not find_daemon()


def test_others_are_answered_while_a_session_starts(played: Played) -> None:
    played.opener.gate.clear()
    starting = threading.Thread(target=lambda: open_remote_live(LiveOptions(device="none")).stop())
    starting.start()
    with connect(timeout_s=10.0) as client:
        assert client.live_session() is None
        assert client.set_live("bass", solo=True).solo
    played.opener.gate.set()
    starting.join(10.0)
    assert played.opener.sessions[0].settings("bass").solo


def test_a_start_that_takes_too_long_is_taken_back(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    played.opener.gate.clear()
    with monkeypatch.context() as patch:
        patch.setattr("revithion_bridge.remote_live._START_S", 0.2)
        assert refusal(lambda: open_remote_live(LiveOptions(device="none"))) == "live.failed"
    played.opener.gate.set()
    open_remote_live(LiveOptions(device="none")).stop()
    assert [session.stopped for session in played.opener.sessions] == [1]


def test_what_has_ended_is_not_ended_again_when_somebody_else_plays(played: Played) -> None:
    live = open_remote_live(LiveOptions(device="none"))
    played.opener.sessions[0].end("the file is over")
    deadline = time.monotonic() + 10.0
    while live.state().phase is not LivePhase.ENDED:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with connect(timeout_s=10.0) as client:
        while client.live_session() is not None:
            time.sleep(0.02)
        client.start_live(device="none")
        live.stop()
        assert client.live_session() is not None
        client.stop_live()


def test_the_client_has_the_same_in_its_own_words(played: Played, tmp_path: Path) -> None:
    with connect(timeout_s=10.0) as client:
        assert client.start_live(device="none", outputs="stems").phase is LivePhase.PLAYING
        assert played.opener.sessions[0].options.outputs is LiveOutputs.STEMS
        assert client.set_live("bass", fader=0.75, filter=-1.0).filter == -1.0
        session = client.live_session()
        assert session is not None
        assert session.strips[2].settings.filter == -1.0
        assert [strip.stem for strip in client.live()] == list(STEMS)
        for action in (lambda: client.set_live("bass", wah=1.0), lambda: client.start_live(colour="red")):
            with pytest.raises(RequestError):
                action()
        client.stop_live()
        assert client.live_session() is None
