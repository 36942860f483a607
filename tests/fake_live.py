"""A live session without sound: the strips, scenes and takes of a real one, and levels and ends as a test says."""

from __future__ import annotations

import dataclasses
import threading

from revithion_stems.errors import LiveError
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
)

STEMS = ("vocals", "drums", "bass", "other")


class FakeLive:
    """Implements :class:`~revithion_stems.live.LiveControl`."""

    def __init__(self, options: LiveOptions) -> None:
        self.options = options
        self.lock = threading.Lock()
        self.strips = dict.fromkeys(STEMS, StripSettings())
        self.scenes: dict[str, dict[str, StripSettings]] = {}
        self.phase, self.message, self.recording, self.stopped = LivePhase.PLAYING, "", "", 0
        self.monitor_gain_db, self.peak_db = 0.0, -18.0
        self.counters = LiveCounters()

    def state(self) -> LiveState:
        with self.lock:
            return LiveState(
                phase=self.phase,
                model=self.options.model,
                device=f"fake {self.options.device}",
                block_frames=self.options.block_frames,
                budget=LatencyBudget(sample_rate=44_100, device_frames=512, algorithm_frames=512, queue_frames=576),
                strips=tuple(
                    StripState(stem=stem, settings=settings, peak_left_db=self.peak_db, tier=Tier.PREVIEW)
                    for stem, settings in self.strips.items()
                ),
                monitor_gain_db=self.monitor_gain_db,
                counters=self.counters,
                recording=self.recording,
                scenes=tuple(sorted(self.scenes)),
                message=self.message,
            )

    def set_strip(self, stem: str, change: StripChange) -> StripSettings:
        with self.lock:
            if stem not in self.strips:
                raise LiveError(f"there is no stem {stem!r}", hint="Take another.", code="live.stem")
            self.strips[stem] = change.apply(self.strips[stem])
            return self.strips[stem]

    def set_monitor_gain(self, gain_db: float) -> None:
        self.monitor_gain_db = StripSettings(gain_db=gain_db).gain_db

    def store_scene(self, name: str) -> None:
        self.scenes[name] = dict(self.strips)

    def recall_scene(self, name: str) -> None:
        if name not in self.scenes:
            raise LiveError(f"there is no scene {name!r}", hint="Store it.", code="live.scene")
        with self.lock:
            self.strips = dict(self.scenes[name])

    def start_recording(self, folder: str) -> str:
        if self.recording:
            raise LiveError("a take runs", hint="Stop it.", code="live.recording")
        self.recording = f"{folder}/take 1"
        return self.recording

    def stop_recording(self) -> tuple[str, ...]:
        folder, self.recording = self.recording, ""
        return tuple(f"{folder}/{stem}.wav" for stem in STEMS) if folder else ()

    def stop(self) -> None:
        self.stopped += 1
        self.phase = LivePhase.ENDED

    def end(self, message: str) -> None:
        """As if the file were over, or a process had failed."""
        with self.lock:
            self.message, self.phase = message, LivePhase.ENDED

    def play_late(self) -> None:
        """As if inference had been late once."""
        self.counters = dataclasses.replace(self.counters, late_times=self.counters.late_times + 1)


class FakeOpener:
    """Starts fake sessions.

    Attributes:
        sessions: All that were started.
        gate: A start waits until this is set.
        refusal: What it raises instead, or None.
    """

    def __init__(self) -> None:
        self.sessions: list[FakeLive] = []
        self.gate = threading.Event()
        self.gate.set()
        self.refusal: LiveError | None = None

    def __call__(self, options: LiveOptions) -> FakeLive:
        assert self.gate.wait(10.0)
        if self.refusal is not None:
            raise self.refusal
        self.sessions.append(FakeLive(options))
        return self.sessions[-1]
