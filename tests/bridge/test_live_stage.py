"""The live preview in the daemon: strips that stay, one session at a time, and everything that changes is told."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_desk import STEMS, DeskOpener
from revithion_bridge.event_hub import EventHub
from revithion_bridge.live_stage import LIVE_STEMS, LiveStage
from revithion_bridge.messages import (
    DaemonEvent,
    GetLive,
    Heartbeat,
    Live,
    LiveChanged,
    LiveLevels,
    LiveSessionChanged,
    LiveStem,
    LiveTake,
    RecallLiveScene,
    RecordLive,
    Request,
    SetLive,
    SetLiveMonitor,
    StartLive,
    StopLive,
    StoreLiveScene,
)
from revithion_bridge.path_jail import PathJail
from revithion_bridge.service_api import Caller
from revithion_stems.catalog import load_catalog
from revithion_stems.errors import LiveError, RevithionError
from revithion_stems.fader_law import fader_gain_db, fader_position
from revithion_stems.live import (
    HIGHEST_DB,
    LOWEST_DB,
    LiveCounters,
    LiveOptions,
    LivePhase,
    StripChange,
    StripSettings,
    Tier,
)

CALLER = Caller(client="test", door="zmq", request_id="1")


class Stage:
    """A stage with fake sessions, and what it published."""

    def __init__(self, root: Path) -> None:
        self.opener = DeskOpener()
        self.events: list[DaemonEvent] = []
        self.stage = LiveStage(self.opener, PathJail([root]), publish=self.events.append)

    async def ask(self, request: Request) -> Any:
        return await self.stage.answers[type(request)](request, CALLER)

    async def refused(self, request: Request) -> str:
        with pytest.raises(RevithionError) as caught:
            await self.ask(request)
        return caught.value.code

    def told(self, kind: type[DaemonEvent]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@contextlib.asynccontextmanager
async def on_stage(root: Path = Path("/nowhere")) -> AsyncIterator[Stage]:
    it = Stage(root)
    try:
        yield it
    finally:
        it.opener.gate.set()
        await it.stage.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.01)


def loop_test(body: Callable[..., Any]) -> Callable[..., None]:
    """Runs an async test, with a folder if it takes one."""

    def run(tmp_path: Path) -> None:
        asyncio.run(body(tmp_path) if inspect.signature(body).parameters else body())

    run.__name__, run.__doc__ = body.__name__, body.__doc__
    return run


# --- strips ---


@loop_test
async def test_strips_move_one_control_at_a_time_also_while_nothing_plays():
    async with on_stage() as it:
        await it.ask(SetLive(stem="bass", gain_db=-6.0))
        reply = await it.ask(SetLive(stem="bass", muted=True, low_db=-60.0))
        assert reply == Live(stems=(LiveStem(stem="bass", gain_db=-6.0, muted=True, low_db=-60.0),))
        assert await it.ask(SetLive(stem="bass", gain_db=-6.0)) == reply
        assert it.told(LiveChanged) == [
            LiveChanged(seq=0, stem="bass", gain_db=-6.0, muted=False, fader=fader_position(-6.0)),
            LiveChanged(seq=0, stem="bass", gain_db=-6.0, muted=True, fader=fader_position(-6.0), low_db=-60.0),
        ]
        assert [strip for strip in it.stage.strips() if strip != LiveStem(stem=strip.stem)] == list(reply.stems)


@loop_test
async def test_a_fader_is_moved_by_where_it_stands():
    async with on_stage() as it:
        for fader, gain_db in ((0.0, -60.0), (0.75, 0.0), (1.0, 12.0)):
            assert (await it.ask(SetLive(stem="bass", fader=fader))).stems[0].gain_db == gain_db


@loop_test
async def test_what_is_below_silence_is_silence_and_what_is_too_loud_is_refused():
    async with on_stage() as it:
        assert (await it.ask(SetLive(stem="bass", gain_db=-120.0))).stems[0].gain_db == LOWEST_DB
        assert await it.refused(SetLive(stem="bass", gain_db=24.0)) == "live.value"


@loop_test
async def test_there_is_no_strip_of_another_name():
    async with on_stage() as it:
        assert await it.refused(SetLive(stem="kazoo", gain_db=0.0)) == "live.stem"
        assert it.events == []


def test_each_stem_of_each_model_has_one():
    assert {stem for spec in load_catalog().models for stem in spec.stems} <= {*LIVE_STEMS, "residual"}


def test_the_wire_has_every_control_and_every_option():
    """The same names, and the same defaults, as the core's types."""
    settings = {field.name: field.default for field in dataclasses.fields(StripSettings)}
    assert {name: getattr(LiveStem(stem="x"), name) for name in settings} == settings
    assert {field.name for field in dataclasses.fields(StripChange)} == {*SetLive.__struct_fields__} - {"stem", "fader"}
    assert msgspec.structs.asdict(StartLive()) == dataclasses.asdict(LiveOptions())


# --- the law of the fader ---


@given(st.floats(LOWEST_DB, HIGHEST_DB))
def test_a_fader_stands_where_its_gain_is(gain_db: float):
    assert fader_gain_db(fader_position(gain_db)) == pytest.approx(gain_db, abs=1e-9)


@given(st.floats(0, 1), st.floats(0, 1))
def test_higher_is_louder_and_never_out_of_range(one: float, other: float):
    low, high = sorted((one, other))
    assert LOWEST_DB <= fader_gain_db(low) <= fader_gain_db(high) <= HIGHEST_DB


# --- a session ---


@loop_test
async def test_a_session_begins_with_the_strips_as_they_stand_and_leaves_them_so():
    async with on_stage() as it:
        await it.ask(SetLive(stem="drums", gain_db=-9.0, solo=True))
        live = await it.ask(StartLive(device="none"))
        (session,) = it.opener.sessions
        assert session.options == LiveOptions(device="none")
        assert session.settings("drums") == StripSettings(gain_db=-9.0, solo=True)
        assert [strip.stem for strip in live.stems] == list(STEMS)
        assert live.session.phase is LivePhase.PLAYING
        await it.ask(SetLive(stem="vocals", pan=-0.5))
        assert session.settings("vocals").pan == -0.5
        assert (await it.ask(StopLive())).session is None
        assert session.stopped == 1
        assert {s.stem: s.pan for s in it.stage.strips() if s.pan} == {"vocals": -0.5}


@loop_test
async def test_one_plays_at_a_time():
    async with on_stage() as it:
        it.opener.gate.clear()
        first = asyncio.create_task(it.ask(StartLive()))
        await asyncio.sleep(0)
        assert await it.refused(StartLive()) == "live.running"
        it.opener.gate.set()
        await first
        assert await it.refused(StartLive()) == "live.running"
        await it.ask(StopLive())
        await it.ask(StartLive())
        assert [session.stopped for session in it.opener.sessions] == [1, 0]


@loop_test
async def test_what_can_not_start_says_why_and_can_be_tried_again():
    async with on_stage() as it:
        it.opener.refusal = LiveError("JACK does not run", hint="Start it.", code="live.jack")
        assert await it.refused(StartLive()) == "live.jack"
        it.opener.refusal = None
        assert (await it.ask(StartLive())).session is not None


@loop_test
async def test_a_start_whose_client_is_gone_is_ended_with_the_daemon():
    async with on_stage() as it:
        it.opener.gate.clear()
        start = asyncio.create_task(it.ask(StartLive()))
        await asyncio.sleep(0.01)
        start.cancel()
        await asyncio.wait([start])
        await it.stage.close()
        assert it.opener.sessions == []


@loop_test
async def test_stopping_twice_at_once_stops_once():
    async with on_stage() as it:
        await it.ask(StopLive())
        await it.ask(StartLive())
        await asyncio.gather(it.ask(StopLive()), it.ask(StopLive()))
        assert it.opener.sessions[0].stopped == 1


@loop_test
async def test_what_needs_a_session_is_refused_without_one():
    async with on_stage() as it:
        for request in (
            SetLiveMonitor(gain_db=0.0),
            StoreLiveScene(name="a"),
            RecallLiveScene(name="a"),
            RecordLive(on=True),
            RecordLive(on=False),
        ):
            assert await it.refused(request) == "live.idle"


@loop_test
async def test_paths_stay_in_the_folders_of_the_daemon(root: Path):
    async with on_stage(root) as it:
        assert await it.refused(StartLive(source="/etc/passwd")) == "path.outside"
        assert await it.refused(StartLive(model="/etc/net.onnx")) == "path.outside"
        assert await it.refused(StartLive(model="net.onnx")) == "path.relative"
        assert it.opener.sessions == []
        await it.ask(StartLive(source=str(root / "a.wav"), model=str(root / "net.onnx")))
        assert await it.refused(RecordLive(on=True, folder="/etc")) == "path.outside"
        assert await it.ask(RecordLive(on=True, folder=str(root))) == LiveTake(folder=f"{root}/take-1")


# --- what is told ---


@loop_test
async def test_scenes_takes_and_the_monitor_are_told(root: Path):
    async with on_stage(root) as it:
        await it.ask(StartLive())
        await it.ask(SetLive(stem="bass", gain_db=-3.0))
        await it.ask(StoreLiveScene(name="break"))
        await it.ask(SetLive(stem="bass", gain_db=0.0))
        await it.ask(RecallLiveScene(name="break"))
        assert it.told(LiveChanged)[-1].gain_db == -3.0
        await it.ask(SetLiveMonitor(gain_db=-6.0))
        await it.ask(RecordLive(on=True, folder=str(root)))
        last = it.told(LiveSessionChanged)[-1]
        assert (last.scenes, last.monitor_gain_db, last.recording) == (("break",), -6.0, True)
        assert (last.sample_rate, last.latency_frames) == (48_000, 1_312)
        assert len((await it.ask(RecordLive(on=False))).files) == len(STEMS)
        assert it.told(LiveSessionChanged)[-1].recording is False
        assert await it.refused(RecallLiveScene(name="none")) == "live.scene"


@loop_test
async def test_a_scene_that_takes_long_to_store_holds_up_faders_and_nothing_else():
    async with on_stage() as it:
        await it.ask(StartLive())
        (session,) = it.opener.sessions
        disk, store = threading.Event(), session.store_scene
        session.store_scene = lambda name: (disk.wait(10.0), store(name))
        storing = asyncio.create_task(it.ask(StoreLiveScene(name="break")))
        moving = asyncio.create_task(it.ask(SetLive(stem="bass", gain_db=-3.0)))
        async with asyncio.timeout(5.0):
            assert (await it.ask(GetLive())).session.phase is LivePhase.PLAYING
        assert not moving.done()
        disk.set()
        await asyncio.gather(storing, moving)
        assert session.settings("bass").gain_db == -3.0
        session.recall_scene("break")
        assert session.settings("bass").gain_db == 0.0


@loop_test
async def test_a_session_that_ends_by_itself_is_told_with_its_message():
    async with on_stage() as it:
        await it.ask(StartLive())
        (session,) = it.opener.sessions
        session.end("the file is over")
        await until(lambda: session.stopped)
        await until(lambda: it.told(LiveSessionChanged)[-1].phase is LivePhase.ENDED)
        assert it.told(LiveSessionChanged)[-1].message == "the file is over"
        assert (await it.ask(GetLive())).message == "the file is over"
        await it.ask(StartLive())
        assert [event.phase.value for event in it.told(LiveSessionChanged)] == ["playing", "ended", "playing"]


@loop_test
async def test_a_session_that_breaks_is_ended():
    async with on_stage() as it:
        await it.ask(StartLive())
        (session,) = it.opener.sessions
        session.state = lambda: 1 / 0
        await until(lambda: session.stopped)
        await until(lambda: it.told(LiveSessionChanged)[-1].phase is LivePhase.ENDED)
        assert "ZeroDivisionError" in it.told(LiveSessionChanged)[-1].message


@loop_test
async def test_levels_come_while_it_plays_and_only_then():
    async with on_stage() as it:
        await it.ask(StartLive())
        it.opener.sessions[0].set_levels("vocals", -18.0, -20.0)
        it.opener.sessions[0].change(counters=LiveCounters(late_times=1))
        await until(lambda: it.told(LiveLevels) and it.told(LiveLevels)[-1].late_times)
        levels = it.told(LiveLevels)[-1]
        first = levels.stems[0]
        assert (first.stem, first.left_db, first.tier) == ("vocals", -18.0, Tier.PREVIEW)
        assert levels.late_times == 1
        await it.ask(StopLive())
        count = len(it.events)
        await asyncio.sleep(0.25)
        assert len(it.events) == count


def test_levels_take_no_number_and_are_not_kept():
    hub = EventHub(first_seq=7)
    hub.publish(LiveChanged(seq=0, stem="bass", gain_db=0.0, muted=False))
    levels = LiveLevels(
        seq=0, stems=(), left_db=0.0, right_db=0.0, late_times=0, xruns=0, callback_load=0.0, inference_load=0.0
    )
    for event in (levels, Heartbeat(seq=0, waiting=0, running=0)):
        assert hub.publish(event).seq == 7
    assert len(hub.since(hub.epoch, 6, 10)[0]) == 1


@loop_test
async def test_a_new_subscriber_is_told_how_it_stands():
    async with on_stage() as it:
        await it.ask(SetLive(stem="bass", gain_db=-3.0))
        assert [type(event) for event in it.stage.standing()] == [LiveChanged] * len(LIVE_STEMS)
        await it.ask(StartLive())
        first, *others = it.stage.standing()
        assert isinstance(first, LiveSessionChanged)
        assert {event.stem: event.gain_db for event in others} == {**dict.fromkeys(STEMS, 0.0), "bass": -3.0}


@loop_test
async def test_who_hears_that_a_session_has_ended_finds_all_of_it_ended():
    async with on_stage() as it:
        await it.ask(StartLive())
        (session,) = it.opener.sessions
        stop, may_end = session.stop, threading.Event()

        def slow_stop() -> None:
            assert may_end.wait(10.0)
            stop()

        session.stop = slow_stop
        session.change(phase=LivePhase.ENDED, message="the file has ended")
        asked = asyncio.create_task(it.ask(GetLive()))
        await asyncio.sleep(0.3)
        assert not asked.done()
        may_end.set()
        live = await asked
        assert (live.session, live.message) == (None, "the file has ended")
        assert session.stopped == 1
