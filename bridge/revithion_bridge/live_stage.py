"""The live preview as the daemon has it: the session that plays, and how the strips stand while none does."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import platformdirs

from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import (
    LEVELS_S,
    DaemonEvent,
    Done,
    GetLive,
    Live,
    LiveChanged,
    LiveLevel,
    LiveLevels,
    LiveSessionChanged,
    LiveStem,
    LiveTake,
    RecallLiveScene,
    RecordLive,
    Reply,
    Request,
    SetLive,
    SetLiveMonitor,
    StartLive,
    StopLive,
    StoreLiveScene,
)
from revithion_bridge.path_jail import PathJail
from revithion_bridge.service_api import Caller
from revithion_stems.errors import RevithionError, unexpected_error
from revithion_stems.events import CancelToken
from revithion_stems.fader_law import fader_gain_db, fader_position
from revithion_stems.live import (
    LOWEST_DB,
    LiveControl,
    LiveOptions,
    LivePhase,
    LiveState,
    StripChange,
    StripSettings,
)

_LOG = logging.getLogger(__name__)
LIVE_STEMS = ("vocals", "drums", "bass", "other", "guitar", "piano", "accompaniment")
"""All that any of the models gives."""
_ENDING_S = 0.02
OpenLive: TypeAlias = Callable[[LiveOptions, CancelToken], LiveControl]
"""Starts a session; blocks for seconds, or until the token is raised, and raises RevithionError."""


class LiveStage:
    """At most one live session, and its strips also while there is none. On the daemon's event loop.

    Args:
        open_live: Starts a session; called in a thread.
        jail: Which paths a client may name.
        publish: Gets the events; their ``seq`` is 0.
        stems: Whose strips are kept.
    """

    def __init__(
        self,
        open_live: OpenLive,
        jail: PathJail,
        *,
        publish: Callable[[DaemonEvent], object],
        stems: Sequence[str] = LIVE_STEMS,
    ) -> None:
        self._open_live = open_live
        self._jail = jail
        self._publish = publish
        self._kept = dict.fromkeys(stems, StripSettings())
        self._session: LiveControl | None = None
        self._told: LiveSessionChanged | None = None
        self._cancel = CancelToken()  # of the last start
        self._why = ("", "")  # message and code of what ended the last session by itself
        # Scenes are in a file, which is no work for the loop; what is moved after a scene still comes after it.
        self._order = asyncio.Lock()
        self._transition: asyncio.Task[Any] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ending = False  # by itself
        self.answers: Mapping[type[Request], Callable[[Any, Caller], Awaitable[Reply]]] = {
            SetLive: self._answer_set,
            GetLive: self._answer_get,
            StartLive: self._answer_start,
            StopLive: self._answer_stop,
            SetLiveMonitor: self._answer_monitor,
            StoreLiveScene: self._answer_store,
            RecallLiveScene: self._answer_recall,
            RecordLive: self._answer_record,
        }

    def strips(self) -> tuple[LiveStem, ...]:
        """Those of the session, or those that are kept."""
        return self._live().stems

    def standing(self) -> Iterator[DaemonEvent]:
        """How everything stands, as the events that would tell it."""
        live = self._live()
        if live.session is not None:
            yield _session_event(live.session)
        for strip in live.stems:
            yield _strip_event(strip.stem, self._kept[strip.stem])

    async def close(self) -> None:
        """Ends the session, also one that is just being started."""
        await self._stop()

    # --- requests ---

    async def _answer_get(self, _request: GetLive, _: Caller) -> Reply:
        # Who hears that it has ended finds its take whole.
        while self._ending or (self._session is not None and self._session.state().phase is LivePhase.ENDED):
            await asyncio.sleep(_ENDING_S)
        return self._live()

    async def _answer_set(self, request: SetLive, _: Caller) -> Reply:
        change = _change(request)
        async with self._order:
            if self._session is not None:
                after = self._session.set_strip(request.stem, change)
            elif request.stem in self._kept:
                after = change.apply(self._kept[request.stem])
            else:
                raise bridge_error("live.stem", f"there is no stem {request.stem!r}, only {', '.join(self._kept)}")
            self._keep(request.stem, after)
        return Live(stems=(_stem(request.stem, after),))

    async def _answer_start(self, request: StartLive, _: Caller) -> Reply:
        if self._session is not None or self._transition is not None:
            raise bridge_error("live.running", "the live preview plays, or is just starting or ending")
        if request.source:
            self._jail.check(request.source)
        if Path(request.model).name != request.model or request.model.lower().endswith(".onnx"):
            self._jail.check(request.model)
        await self._alone(self._start(LiveOptions(**msgspec.structs.asdict(request))))
        return self._live()

    async def _answer_stop(self, _request: StopLive, _: Caller) -> Reply:
        await self._stop()
        return self._live()

    async def _answer_monitor(self, request: SetLiveMonitor, _: Caller) -> Reply:
        async with self._order:
            self._playing().set_monitor_gain(request.gain_db)
            self._look()
        return Done()

    async def _answer_store(self, request: StoreLiveScene, _: Caller) -> Reply:
        async with self._order:
            await asyncio.to_thread(self._playing().store_scene, request.name)
        return self._live()

    async def _answer_recall(self, request: RecallLiveScene, _: Caller) -> Reply:
        async with self._order:
            await asyncio.to_thread(self._playing().recall_scene, request.name)
        return self._live()

    async def _answer_record(self, request: RecordLive, _: Caller) -> Reply:
        session = self._playing()
        if request.on:
            folder = request.folder or str(platformdirs.user_music_path() / "revithion-stems")
            self._jail.check(folder)
            take = LiveTake(folder=await asyncio.to_thread(session.start_recording, folder))
        else:
            take = LiveTake(files=await asyncio.to_thread(session.stop_recording))
        if self._session is session:
            self._look()
        return take

    # --- the session's life ---

    async def _alone(self, transition: Awaitable[None]) -> None:
        """A start or an end, to its end: whoever asked may go away, but the session must not be lost."""
        self._transition = asyncio.ensure_future(transition)
        self._transition.add_done_callback(self._forget_transition)
        await asyncio.shield(self._transition)

    def _forget_transition(self, transition: asyncio.Task[None]) -> None:
        self._transition = None
        if not transition.cancelled():
            transition.exception()  # it is told to who asked, if he is still there

    async def _start(self, options: LiveOptions) -> None:
        self._cancel = CancelToken()
        session = await asyncio.to_thread(self._open_live, options, self._cancel)
        try:
            for strip in session.state().strips:
                kept = self._kept.get(strip.stem, strip.settings)
                if kept != strip.settings:
                    session.set_strip(strip.stem, StripChange(**dataclasses.asdict(kept)))
        except BaseException:
            await asyncio.to_thread(session.stop)
            raise
        self._session = session
        self._watching = asyncio.create_task(self._watch(session))

    async def _stop(self) -> None:
        self._cancel.cancel()
        while self._transition is not None:
            await asyncio.wait((self._transition,))
        session, self._session, self._why = self._session, None, ("", "")
        if session is not None:
            await self._alone(self._end(session))

    async def _end(self, session: LiveControl, message: str = "", code: str = "") -> None:
        """Ends the session; message and code say why, if nobody asked for it."""
        try:
            await asyncio.to_thread(session.stop)
        finally:
            if self._told is not None:
                self._tell(
                    msgspec.structs.replace(
                        self._told, phase=LivePhase.ENDED, recording=False, folder="", message=message, code=code
                    )
                )
            self._told = None

    async def _watch(self, session: LiveControl) -> None:
        """Tells what happens in the session, until it ends; if by itself, this ends all of it."""
        while True:
            await asyncio.sleep(LEVELS_S)
            if self._session is not session:
                return
            try:
                state = self._look()
            except Exception as exc:  # noqa: BLE001 - a session at fault ends, and the daemon lives on
                _LOG.exception("the live session can't be asked how it stands")
                error = exc if isinstance(exc, RevithionError) else unexpected_error(exc)
                self._why = (error.message, error.code)
                break
            if state.phase is LivePhase.ENDED:
                self._why = (state.message, state.code)
                break
            self._publish(_levels_event(state))
        self._session, self._ending = None, True
        try:
            await self._alone(self._end(session, *self._why))
        except RevithionError as exc:
            _LOG.warning("the live session did not end well: %s", exc.message)
        finally:
            self._ending = False

    # --- what is told ---

    def _playing(self) -> LiveControl:
        if self._session is None:
            raise bridge_error("live.idle", "the live preview does not play")
        return self._session

    def _live(self) -> Live:
        if self._session is None:
            stems = tuple(_stem(stem, settings) for stem, settings in self._kept.items())
            return Live(stems=stems, message=self._why[0], code=self._why[1])
        state = self._look()
        return Live(stems=tuple(_stem(strip.stem, strip.settings) for strip in state.strips), session=state)

    def _look(self) -> LiveState:
        """How the session stands; what has changed since the last look is published."""
        state = self._playing().state()
        for strip in state.strips:
            self._keep(strip.stem, strip.settings)
        if state.phase is not LivePhase.ENDED:  # that is told when all of it has ended
            self._tell(_session_event(state))
        return state

    def _keep(self, stem: str, settings: StripSettings) -> None:
        if self._kept.get(stem) != settings:
            self._kept[stem] = settings
            self._publish(_strip_event(stem, settings))

    def _tell(self, event: LiveSessionChanged) -> None:
        if event != self._told:
            self._told = event
            self._publish(event)


def _change(request: SetLive) -> StripChange:
    values = msgspec.structs.asdict(request)
    fader = values.pop("fader")
    del values["stem"]
    if values["gain_db"] is not None:
        values["gain_db"] = max(values["gain_db"], LOWEST_DB)
    elif fader is not None:
        values["gain_db"] = fader_gain_db(fader)
    return StripChange(**values)


def _stem(stem: str, settings: StripSettings) -> LiveStem:
    return LiveStem(stem=stem, **dataclasses.asdict(settings))


def _strip_event(stem: str, settings: StripSettings) -> LiveChanged:
    return LiveChanged(seq=0, stem=stem, fader=fader_position(settings.gain_db), **dataclasses.asdict(settings))


def _session_event(state: LiveState) -> LiveSessionChanged:
    return LiveSessionChanged(
        seq=0,
        phase=state.phase,
        model=state.model,
        device=state.device,
        sample_rate=state.budget.sample_rate,
        latency_frames=state.budget.total_frames,
        monitor_gain_db=state.monitor_gain_db,
        recording=bool(state.recording),
        folder=state.recording,
        scenes=state.scenes,
        message=state.message,
        code=state.code,
    )


def _levels_event(state: LiveState) -> LiveLevels:
    return LiveLevels(
        seq=0,
        stems=tuple(
            LiveLevel(stem=strip.stem, left_db=strip.peak_left_db, right_db=strip.peak_right_db, tier=strip.tier)
            for strip in state.strips
        ),
        left_db=state.mix_peak_left_db,
        right_db=state.mix_peak_right_db,
        late_times=state.counters.late_times,
        xruns=state.counters.xruns,
        callback_load=state.counters.callback_load,
        inference_load=state.counters.inference_load,
    )
