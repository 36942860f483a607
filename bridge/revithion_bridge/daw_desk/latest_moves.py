"""Moves of faders that come faster than they can be done: of each fader only the newest one waits. On one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaderMove:
    """What becomes of a fader; None leaves a value as it is."""

    gain_db: float | None = None
    muted: bool | None = None

    def then(self, later: FaderMove) -> FaderMove:
        """Both moves as one."""
        return FaderMove(
            gain_db=self.gain_db if later.gain_db is None else later.gain_db,
            muted=self.muted if later.muted is None else later.muted,
        )


class LatestMoves(Generic[_Key]):
    """Does moves, one at a time for each fader, and of those that wait only the newest.

    Args:
        send: Does one.
    """

    def __init__(self, send: Callable[[_Key, FaderMove], Awaitable[None]]) -> None:
        self._send = send
        self._waiting: dict[_Key, tuple[FaderMove, asyncio.Future[None]]] = {}
        self._tasks: dict[_Key, asyncio.Task[None]] = {}

    def put(self, key: _Key, move: FaderMove) -> asyncio.Future[None]:
        """Has a move done; the future ends when this one, or a newer one in its place, was done or refused.

        Several may wait for the same future: who gives up must not cancel it.
        """
        if key in self._waiting:
            before, done = self._waiting[key]
            move = before.then(move)
        else:
            done = asyncio.get_running_loop().create_future()
            done.add_done_callback(_look)
        self._waiting[key] = (move, done)
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._work(key))
        return done

    async def close(self) -> None:
        """Drops what waits."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, done in self._waiting.values():
            done.cancel()
        self._waiting.clear()

    async def _work(self, key: _Key) -> None:
        try:
            while key in self._waiting:
                move, done = self._waiting.pop(key)
                try:
                    await self._send(key, move)
                except asyncio.CancelledError:
                    done.cancel()
                    raise
                except Exception as exc:  # noqa: BLE001 - it is told to those who asked
                    done.set_exception(exc)
                else:
                    done.set_result(None)
        finally:
            del self._tasks[key]


def _look(done: asyncio.Future[None]) -> None:
    """Nobody need ask what became of it."""
    if not done.cancelled():
        done.exception()
