"""The daemon's end of faders in DAWs: who asks for a stem's gain gets it, in each session that has the stem.

The way is the mailbox, which every script understands; Ardour is faster by its own OSC, where the user has that on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from revithion_bridge.daw.mailbox import OpenSession, Strip, open_sessions, send_command
from revithion_bridge.daw_desk.ardour_osc import ARDOUR_OSC_PORT, ArdourOsc
from revithion_bridge.daw_desk.latest_moves import FaderMove, LatestMoves
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import DawStrip, DawStrips, Reply, Request, SetDawFader
from revithion_bridge.service_api import Caller
from revithion_stems.errors import RevithionError

FADER_S = 3.0
"""How long a DAW has time for a fader: shorter than clients wait before they ask again."""
_OSC_S = 0.3
_OSC_PAUSE_S = 30.0
"""So long Ardour's OSC is not tried again after it was not there: to find that out takes longer than the mailbox."""


@dataclass(frozen=True, slots=True)
class _Fader:
    """A strip of a session, by what does not change with its fader."""

    box: str
    identity: str
    role: str
    key: str


class StripFaders:
    """Moves faders of what we put into DAWs. On the daemon's loop.

    Args:
        ardour_port: Of Ardour's own OSC.
    """

    def __init__(self, ardour_port: int = ARDOUR_OSC_PORT) -> None:
        self._ardour_port = ardour_port
        self._osc_from = 0.0
        self._moves = LatestMoves(self._send)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def answers(self) -> dict[type[Request], Callable[[Any, Caller], Awaitable[Reply]]]:
        """The requests that it answers."""
        return {SetDawFader: self._set}

    async def close(self) -> None:
        """Drops what waits."""
        await self._moves.close()

    async def _set(self, request: SetDawFader, caller: Caller) -> DawStrips:
        strips = find_strips(await asyncio.to_thread(open_sessions), request)
        move = FaderMove(gain_db=request.gain_db, muted=request.muted)
        if move != FaderMove():
            done = [self._moves.put(_Fader(s.box, s.identity, s.role, s.key), move) for s in strips]
            # OSC's requests are answered one after the other: a fader that is being moved would crawl after the hand.
            if caller.door != "osc":
                await asyncio.gather(*map(asyncio.shield, done))
        return DawStrips(strips=tuple(_moved(strip, move) for strip in strips))

    async def _send(self, fader: _Fader, move: FaderMove) -> None:
        turn = self._turns.setdefault(fader.box, asyncio.Lock())
        async with turn:  # the mailbox takes one at a time; who waits here holds no thread
            await asyncio.to_thread(self._send_blocking, fader, move)

    def _send_blocking(self, fader: _Fader, move: FaderMove) -> None:
        if fader.box.startswith("ardour-") and time.monotonic() >= self._osc_from:
            try:
                if self._send_by_osc(fader, move):
                    return
            except RevithionError:
                self._osc_from = time.monotonic() + _OSC_PAUSE_S
        send_command(
            fader.box,
            "fader",
            timeout_s=FADER_S,
            identity=fader.identity,
            role=fader.role,
            key=fader.key,
            gain_db=move.gain_db,
            muted=move.muted,
        )

    def _send_by_osc(self, fader: _Fader, move: FaderMove) -> bool:
        """Whether Ardour got it by OSC: only if it is certain which strip of which session would move.

        Raises:
            RevithionError: There is no such OSC.
        """
        sessions = open_sessions("ardour")
        if list(sessions) != [fader.box]:
            return False
        ours = sessions[fader.box].strips
        strip = next((s for s in ours if (s.identity, s.role, s.key) == (fader.identity, fader.role, fader.key)), None)
        if strip is None:
            return False
        with ArdourOsc(self._ardour_port, timeout_s=_OSC_S) as ardour:
            present = ardour.strips()
            names = {each.name for each in present}
            same = [each.ssid for each in present if each.name == strip.name]
            if len(same) != 1 or not all(each.name in names for each in ours):
                return False
            if move.gain_db is not None:
                ardour.gain_db(same[0], move.gain_db)
            if move.muted is not None:
                ardour.mute(same[0], move.muted)
        return True


def find_strips(sessions: dict[str, OpenSession], request: SetDawFader) -> list[DawStrip]:
    """The strips that a request means.

    Raises:
        RevithionError: ``daw.absent``: no such session is open. ``daw.strip``: none has a strip of that name.
    """
    if request.box is not None:
        sessions = {box: session for box, session in sessions.items() if box == request.box}
    if not sessions:
        raise bridge_error("daw.absent", f"no session is open{f' as {request.box}' if request.box else ''}")
    strips = [strip for box, session in sessions.items() for strip in session_strips(box, session)]
    found = [s for s in strips if s.role == request.role and request.stem in (s.key, s.name)]
    if not found:
        known = ", ".join(sorted({s.key for s in strips if s.role == request.role})[:50]) or "none"
        raise bridge_error("daw.strip", f"there is no {request.role} {request.stem!r}; there are: {known}")
    return found


def session_strips(box: str, session: OpenSession) -> tuple[DawStrip, ...]:
    """The strips of a session, as clients see them."""
    return tuple(_shown(box, strip) for strip in session.strips)


def _shown(box: str, strip: Strip) -> DawStrip:
    return DawStrip(
        box=box,
        role=strip.role,
        key=strip.key,
        name=strip.name,
        identity=strip.identity,
        gain_db=strip.gain_db,
        muted=strip.muted,
    )


def _moved(strip: DawStrip, move: FaderMove) -> DawStrip:
    return msgspec.structs.replace(
        strip,
        gain_db=strip.gain_db if move.gain_db is None else move.gain_db,
        muted=strip.muted if move.muted is None else move.muted,
    )
