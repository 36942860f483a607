"""A live session without sound: a `LiveControl` in memory, for tests of the doors (terminal, MIDI, OSC, ZeroMQ)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from revithion_stems.errors import LiveError
from revithion_stems.events import CancelToken
from revithion_stems.live import (
    LatencyBudget,
    LiveCounters,
    LiveOptions,
    LivePhase,
    LiveState,
    StripChange,
    StripSettings,
    StripState,
    Tier,
    check_gain_db,
)

STEMS = ("vocals", "drums", "bass", "other")


class LiveDesk:
    """Strips, scenes and a take that are only kept in memory; it refuses what a real session refuses.

    ``calls`` lists every call that changes something, in order: its name and its arguments. ``change(...)`` sets fields
    of the state as an engine would (``phase``, ``counters``, ``message``, …); ``set_levels`` moves meters and tiers.
    ``stopped`` counts.
    """

    def __init__(self, stems: Sequence[str] = STEMS, options: LiveOptions | None = None) -> None:
        self.options = options or LiveOptions()
        self.calls: list[tuple[object, ...]] = []
        self.stopped = 0
        self._lock = threading.Lock()
        self._scenes: dict[str, dict[str, StripSettings]] = {}
        self._takes = 0
        self._state = LiveState(
            phase=LivePhase.PLAYING,
            model=self.options.model,
            device="none (clock)",
            block_frames=self.options.block_frames,
            budget=LatencyBudget(sample_rate=48_000, device_frames=512, algorithm_frames=480, queue_frames=320),
            strips=tuple(StripState(stem=stem, settings=StripSettings(), tier=Tier.PREVIEW) for stem in stems),
            counters=LiveCounters(),
        )

    def change(self, **fields: object) -> None:
        with self._lock:
            self._state = dataclasses.replace(self._state, **fields)  # pyright: ignore[reportArgumentType]

    def set_levels(self, stem: str, left_db: float, right_db: float, tier: Tier = Tier.PREVIEW) -> None:
        with self._lock:
            self._put(dataclasses.replace(self._strip(stem), peak_left_db=left_db, peak_right_db=right_db, tier=tier))

    def end(self, message: str) -> None:
        self.change(phase=LivePhase.ENDED, message=message)

    def settings(self, stem: str) -> StripSettings:
        with self._lock:
            return self._strip(stem).settings

    # LiveControl

    def state(self) -> LiveState:
        with self._lock:
            return dataclasses.replace(self._state, scenes=tuple(sorted(self._scenes)))

    def set_strip(self, stem: str, change: StripChange) -> StripSettings:
        with self._lock:
            strip = self._strip(stem)
            settings = change.apply(strip.settings)
            self.calls.append(("set_strip", stem, change))
            self._put(dataclasses.replace(strip, settings=settings))
            return settings

    def set_monitor_gain(self, gain_db: float) -> None:
        check_gain_db(gain_db)
        self.calls.append(("set_monitor_gain", gain_db))
        self.change(monitor_gain_db=gain_db)

    def store_scene(self, name: str) -> None:
        if not name or "/" in name:
            raise _refused("live.scene", f"{name!r} is not a name for a scene")
        with self._lock:
            self.calls.append(("store_scene", name))
            self._scenes[name] = {strip.stem: strip.settings for strip in self._state.strips}

    def recall_scene(self, name: str) -> None:
        with self._lock:
            if name not in self._scenes:
                known = ", ".join(sorted(self._scenes)) or "none"
                raise _refused("live.scene", f"there is no scene {name!r}; there are: {known}")
            self.calls.append(("recall_scene", name))
            for stem, settings in self._scenes[name].items():
                self._put(dataclasses.replace(self._strip(stem), settings=settings))

    def start_recording(self, folder: str) -> str:
        with self._lock:
            if self._state.recording:
                raise _refused("live.recording", f"it records to {self._state.recording} already")
            self._takes += 1
            take = f"{folder}/take-{self._takes}"
            self.calls.append(("start_recording", folder))
            self._state = dataclasses.replace(self._state, recording=take)
            return take

    def stop_recording(self) -> tuple[str, ...]:
        with self._lock:
            take = self._state.recording
            self.calls.append(("stop_recording",))
            self._state = dataclasses.replace(self._state, recording="")
            return tuple(f"{take}/{strip.stem}.wav" for strip in self._state.strips) if take else ()

    def stop(self) -> None:
        self.change(phase=LivePhase.ENDED)
        self.stopped += 1

    # the lock is held

    def _strip(self, stem: str) -> StripState:
        for strip in self._state.strips:
            if strip.stem == stem:
                return strip
        names = ", ".join(strip.stem for strip in self._state.strips)
        raise _refused("live.stem", f"there is no stem {stem!r}; there are: {names}")

    def _put(self, strip: StripState) -> None:
        strips = tuple(strip if each.stem == strip.stem else each for each in self._state.strips)
        self._state = dataclasses.replace(self._state, strips=strips)


class DeskOpener:
    """Starts such sessions: `sessions` lists them; a start waits for `gate`, and raises `refusal` if there is one."""

    def __init__(self) -> None:
        self.sessions: list[LiveDesk] = []
        self.gate = threading.Event()
        self.gate.set()
        self.refusal: LiveError | None = None

    def __call__(self, options: LiveOptions, cancel: CancelToken) -> LiveDesk:
        while not self.gate.wait(0.01):
            cancel.raise_if_cancelled()
        if self.refusal is not None:
            raise self.refusal
        self.sessions.append(LiveDesk(options=options))
        return self.sessions[-1]


def _refused(code: str, reason: str) -> LiveError:
    return LiveError(reason, hint="Look at state().", code=code)
