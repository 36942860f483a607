"""A live session: its processes, started in order, watched, ended in reverse; and the controls doors hold it by."""

from __future__ import annotations

import contextlib
import math
import threading
from pathlib import Path
from typing import Self

from revithion_realtime.audio_process import RETRY_S, STUCK, DeviceLost, DeviceStarted
from revithion_realtime.control.file_source import FileSource
from revithion_realtime.control.recorder import Recorder
from revithion_realtime.control.scenes import SceneStore
from revithion_realtime.control.strip_targets import targets
from revithion_realtime.memory.figures import AudioFigure, InferenceFigure
from revithion_realtime.memory.live_memory import LiveMemory
from revithion_realtime.memory.move_ring import NOW
from revithion_realtime.session_processes import SessionProcesses
from revithion_stems.errors import LiveError, RevithionError, unexpected_error
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

_WATCH_S = 0.05
_SILENT_DB = -120.0
_MOST_RESTARTS = 5
"""Of inference, one after the other without having played a second: then it is broken for good."""


class LiveSession:
    """A live session, playing from the constructor on. Implements :class:`~revithion_stems.live.LiveControl`.

    Any thread may call any method. Python programs that start one at their top level need the usual
    ``if __name__ == "__main__"``, since the processes are spawned.

    Args:
        options: How it runs.
        measure: It plays impulses through a loop in place of stems; see :mod:`revithion_realtime.measure`.
        cancel: Gives up the start.

    Raises:
        RevithionError: The device, the model or the file can't be used; nothing is left behind.
    """

    def __init__(self, options: LiveOptions, *, measure: bool = False, cancel: CancelToken | None = None) -> None:
        self._options = options
        self._lock = threading.RLock()
        self._over, self._closed = threading.Event(), threading.Event()
        self._scenes = SceneStore()
        self._scene_names = self._scenes.names()
        self._phase, self._message = LivePhase.STARTING, ""
        self._restarts = self._losses = 0
        self._sent: dict[int, float] = {}
        self._unsent = False
        self._recorder: Recorder | None = None
        self._files: tuple[Path, ...] = ()
        self._source: FileSource | None = None
        self._last: LiveState | None = None
        with contextlib.ExitStack() as stack:
            self._memory: LiveMemory | None = None
            stack.callback(self._free)
            self._processes = SessionProcesses(options, measure=measure, cancel=cancel)
            stack.callback(self._processes.close)
            self._start(measure=measure)
            self._cleanup = stack.pop_all()
        self._watcher = threading.Thread(target=self._watch, name="live session", daemon=True)
        self._watcher.start()

    def _start(self, *, measure: bool) -> None:
        options, processes = self._options, self._processes
        rate, stems = processes.device.sample_rate, processes.described.stems
        self._memory = memory = LiveMemory(processes.layout)
        self._strips = dict.fromkeys(stems, StripSettings())
        self._monitor_gain_db = 0.0
        if options.source and not measure:
            self._source = FileSource(
                Path(options.source),
                sample_rate=rate,
                ring=memory.source,
                position=self._position,
                loop=options.loop,
            )
            self._source.start()
        self._hear(processes.play(memory))
        self._recorder = Recorder(memory.played, stems, sample_rate=rate, latency_frames=self.budget.path_frames)

    def _free(self) -> None:
        """Ends what works on the shared memory, then the memory."""
        if self._recorder is not None:
            with contextlib.suppress(LiveError):
                self._files = self._recorder.close()
        if self._source is not None:
            self._source.close()
        self._recorder = self._source = None
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def _position(self) -> int:
        memory = self._memory
        return int(memory.audio[AudioFigure.FRAMES]) if memory is not None else 0

    # --- the processes ---

    def _watch(self) -> None:
        """Its thread: hears what the processes say, starts inference again, sends what did not fit, ends at the end."""
        played_at_restart, restarts = -math.inf, 0
        while not self._over.wait(_WATCH_S):
            try:
                self._hear_audio()
                if not self._processes.inference.alive:
                    played = self._position() - played_at_restart
                    restarts = restarts + 1 if played < self._processes.device.sample_rate else 1
                    self._restart_inference(last=restarts > _MOST_RESTARTS)
                    played_at_restart = self._position()  # a model that takes long to load has not played meanwhile
                with self._lock:
                    if self._unsent:
                        self._send_targets()
                self._watch_source()
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody else would hear of it
                error = exc if isinstance(exc, RevithionError) else unexpected_error(exc)
                self._end(error.message, error.code)

    def _hear_audio(self) -> None:
        try:
            while self._processes.audio.has_message:
                self._hear(self._processes.audio.receive(0.0))
        except LiveError as exc:
            if exc.code != STUCK or self._phase is not LivePhase.LOST:
                raise
            self._find_device()

    def _hear(self, message: object) -> None:
        with self._lock:
            match message:
                case DeviceStarted(device=device, queue_frames=frames):
                    self._processes.device, self._queue_frames = device, frames
                    self._phase, self._message = LivePhase.PLAYING, ""
                case DeviceLost(reason=reason):
                    self._losses += self._phase is not LivePhase.LOST
                    self._phase, self._message = LivePhase.LOST, reason
                case _:
                    pass

    def _restart_inference(self, *, last: bool) -> None:
        if last:
            raise LiveError(
                f"{self._processes.described.name} ends again and again",
                hint=f"See {self._processes.log}; try another model.",
                code="live.model",
            )
        if self._memory is not None:
            self._restarts += 1
            self._processes.restart_inference(self._memory)

    def _find_device(self) -> None:
        """Looks for a lost device whose library is stuck, until it is there or the session ends."""
        while not self._over.wait(RETRY_S) and self._memory is not None:
            try:
                self._hear(self._processes.find_device(self._memory))
            except LiveError as exc:
                if exc.code == "live.rate":
                    raise
            else:
                return

    def _watch_source(self) -> None:
        source = self._source
        if source is None:
            return
        if source.error is not None:
            raise source.error
        if source.ended is not None and self._position() >= source.ended + self.budget.path_frames:
            self._end("the file has ended")

    def _end(self, message: str, code: str = "") -> None:
        """Everything is closed, and the state says why."""
        with self._lock:
            if self._memory is None or self._over.is_set():
                return
            self._last = self._state(self._memory, LivePhase.ENDED, message, code)
            self._over.set()
        # Without the lock: processes may take seconds to end, and doors look how it stands meanwhile.
        try:
            self._cleanup.close()
        finally:
            self._closed.set()

    def stop(self) -> None:
        """Ends the session; again, it does nothing."""
        self._end("")
        self._closed.wait()
        if threading.current_thread() is not self._watcher:
            self._watcher.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- LiveControl ---

    def state(self) -> LiveState:
        """How it stands now."""
        with self._lock:
            if self._last is not None or self._memory is None:
                assert self._last is not None, "it plays from the constructor on"
                return self._last
            return self._state(self._memory, self._phase, self._message)

    def _state(self, memory: LiveMemory, phase: LivePhase, message: str, code: str = "") -> LiveState:
        audio, inference, peaks, recorder = memory.audio, memory.inference, memory.peaks, self._recorder
        wet = audio[AudioFigure.WET] > 0.5
        if not code and recorder is not None and recorder.error is not None:
            message, code = recorder.error.message, recorder.error.code
        return LiveState(
            phase=phase,
            model=self._processes.described.name,
            device=self._processes.device.name,
            block_frames=self._processes.device.block_frames,
            budget=self.budget,
            strips=tuple(
                StripState(
                    stem=stem,
                    settings=settings,
                    peak_left_db=_decibels(peaks[number, 0]),
                    peak_right_db=_decibels(peaks[number, 1]),
                    tier=Tier.PREVIEW if wet else Tier.DRY,
                )
                for number, (stem, settings) in enumerate(self._strips.items())
            ),
            mix_peak_left_db=_decibels(peaks[-1, 0]),
            mix_peak_right_db=_decibels(peaks[-1, 1]),
            monitor_gain_db=self._monitor_gain_db,
            counters=LiveCounters(
                frames=int(audio[AudioFigure.FRAMES]),
                blocks=int(audio[AudioFigure.BLOCKS]),
                late_blocks=int(audio[AudioFigure.LATE_BLOCKS]),
                late_times=int(audio[AudioFigure.LATE_TIMES]),
                xruns=int(audio[AudioFigure.XRUNS] + audio[AudioFigure.STARVED_BLOCKS]),
                faults=int(audio[AudioFigure.FAULTS]),
                device_losses=self._losses,
                inference_restarts=self._restarts,
                skipped_frames=int(inference[InferenceFigure.SKIPPED_FRAMES]),
                callback_ms=1_000.0 * float(audio[AudioFigure.CALLBACK_S]),
                callback_load=float(audio[AudioFigure.CALLBACK_LOAD]),
                inference_load=float(inference[InferenceFigure.LOAD]),
                recorder_lost_frames=recorder.lost_frames if recorder is not None else 0,
            ),
            recording=str((recorder.folder if recorder is not None else None) or ""),
            scenes=self._scene_names,
            message=message,
            code=code,
        )

    @property
    def budget(self) -> LatencyBudget:
        """Where the time goes; the device's share as its driver says it."""
        return LatencyBudget(
            sample_rate=self._processes.device.sample_rate,
            device_frames=self._processes.device.latency_frames,
            algorithm_frames=self._processes.prepared.latency_frames,
            queue_frames=self._queue_frames,
        )

    @property
    def loop_rounds(self) -> tuple[int, int, int] | None:
        """When measuring: frames at which the last impulse was sent, heard, and played; None before the first."""
        with self._lock:
            if self._memory is None or not self._memory.audio[AudioFigure.ROUNDS]:
                return None
            figures = (AudioFigure.SENT_FRAME, AudioFigure.HEARD_FRAME, AudioFigure.PLAYED_FRAME)
            sent, heard, played = (int(self._memory.audio[figure]) for figure in figures)
            return sent, heard, played

    def set_strip(self, stem: str, change: StripChange, *, at_frame: int = NOW) -> StripSettings:
        """Moves controls of a strip, all at the same frame: ``at_frame`` of the device's count, or the next block.

        Moves are made in the order of the calls: one that lies ahead holds up all that follow it.

        Raises:
            LiveError: ``live.stem``, ``live.value``.
        """
        with self._lock:
            before = self._strips.get(stem)
            if before is None:
                raise LiveError(
                    f"there is no stem {stem!r}, only {', '.join(self._strips)}",
                    hint="Use one of these.",
                    code="live.stem",
                )
            self._strips[stem] = after = change.apply(before)
            if after != before:
                self._send_targets(at_frame)
            return after

    def set_monitor_gain(self, gain_db: float) -> None:
        """Moves the fader of the monitor mix.

        Raises:
            LiveError: ``live.value``.
        """
        check_gain_db(gain_db)
        with self._lock:
            self._monitor_gain_db = gain_db
            self._send_targets()

    def store_scene(self, name: str) -> None:
        """Keeps how all strips stand under a name, for later sessions too.

        Raises:
            LiveError: ``live.scene``.
        """
        with self._lock:
            strips, monitor_gain_db = dict(self._strips), self._monitor_gain_db
        # Without the lock: the file has one of its own, which another process may hold for seconds.
        self._scenes.store(name, strips, monitor_gain_db)
        self._scene_names = self._scenes.names()

    def recall_scene(self, name: str) -> None:
        """Moves all strips to how they stood in a scene, at the same frame; stems that it does not know stay.

        Raises:
            LiveError: ``live.scene``.
        """
        scene = self._scenes.get(name)
        with self._lock:
            self._strips |= {stem: strip for stem, strip in scene.strips.items() if stem in self._strips}
            self._monitor_gain_db = scene.monitor_gain_db
            self._send_targets()

    def start_recording(self, folder: str) -> str:
        """Records the stems, before their faders, into a new take below a folder; returns the take's folder.

        Raises:
            LiveError: ``live.recording``.
        """
        recorder = self._recorder
        if recorder is None or self._over.is_set():
            raise LiveError("the session has ended", hint="Start another one.", code="live.idle")
        return str(recorder.start(Path(folder)))

    def stop_recording(self) -> tuple[str, ...]:
        """Ends the take; returns its files, none if there was no take.

        Raises:
            LiveError: ``live.recording``.
        """
        recorder = self._recorder
        files = recorder.stop() if recorder is not None else self._files  # those of a take that ended with the session
        self._files = ()
        return tuple(map(str, files))

    def _send_targets(self, at_frame: int = NOW) -> None:
        """Sends what is not as it was sent last."""
        if self._memory is None or self._over.is_set():
            return
        wanted = targets(tuple(self._strips.values()), self._monitor_gain_db)
        moves = {slot: value for slot, value in wanted.items() if self._sent.get(slot) != value}
        for slot, value in moves.items():
            self._memory.targets[slot] = value  # where a callback that begins anew finds them
        self._unsent = not self._memory.moves.put(moves.items(), at_frame)
        if not self._unsent:
            self._sent |= moves


def _decibels(peak: float) -> float:
    return round(20.0 * math.log10(peak), 1) if peak > 1e-6 else _SILENT_DB


def open_live(options: LiveOptions, cancel: CancelToken | None = None) -> LiveSession:
    """Starts a live session, which takes a second or some.

    Args:
        options: How it runs.
        cancel: Gives up the start; another thread's.

    Raises:
        RevithionError: The device, the model or the file can't be used, or it was cancelled; nothing is left behind.
    """
    return LiveSession(options, cancel=cancel)
