"""The process that holds the audio device: the callback, and a thread that sleeps until device or pipe is gone."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from multiprocessing.connection import Connection

from revithion_realtime.audio_path import AudioPath, PathPlan, queue_frames
from revithion_realtime.devices.audio_device import AudioDevice, BlockCallback
from revithion_realtime.devices.device_choice import open_device
from revithion_realtime.loop_probe import LoopProbe
from revithion_realtime.memory.figures import AudioFigure
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
from revithion_realtime.process_link import child_process
from revithion_stems.errors import LiveError
from revithion_stems.live import LiveOptions

RETRY_S = 1.0
"""How often a lost device is looked for."""

STUCK = "live.portaudio"
"""Code of the error that ends this process while a device is looked for: the library does not come back from a call."""

_WATCH_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDevice:
    """Asks for the device; the answer is :class:`DeviceOpened`."""

    options: LiveOptions
    stems: tuple[str, ...]
    measure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOpened:
    """A device, first or again.

    Attributes:
        name: Device and driver.
        sample_rate: Hz.
        block_frames: Of each callback, or 0.
        planned_frames: The block that the queue is made for.
        latency_frames: As the driver says.
    """

    name: str
    sample_rate: int
    block_frames: int
    planned_frames: int
    latency_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDevice:
    """Asks to play; the answer is :class:`DeviceStarted`.

    Attributes:
        memory: Name of the shared memory.
        layout: What is in it.
        algorithm_frames: Delay of the model.
        hop_frames: Its hop.
    """

    memory: str
    layout: LiveLayout
    algorithm_frames: int
    hop_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStarted:
    """It plays, with a queue for its blocks."""

    device: DeviceOpened
    queue_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLost:
    """The device is gone, and is looked for. ``reason`` is for people."""

    reason: str


def run_audio(pipe: Connection) -> None:
    """The process: opens the device, plays, finds it again when it is lost, until the pipe is closed."""
    with child_process(pipe):
        request: OpenDevice = pipe.recv()
        device = _open(request)
        try:
            pipe.send(_describe(device))
            start: StartDevice = pipe.recv()
        except BaseException:
            device.close()
            raise
        memory = LiveMemory(start.layout, start.memory)
        try:
            _Player(pipe, request, start, memory).play(device)
        finally:
            memory.close()


def _open(request: OpenDevice) -> AudioDevice:
    return open_device(
        request.options,
        output_names=request.options.outputs.names(request.stems),
        with_input=request.measure or not request.options.source,
    )


def _describe(device: AudioDevice) -> DeviceOpened:
    return DeviceOpened(
        name=device.name,
        sample_rate=device.sample_rate,
        block_frames=device.block_frames,
        planned_frames=_planned_frames(device),
        latency_frames=device.latency_frames,
    )


def _planned_frames(device: AudioDevice) -> int:
    return device.block_frames or device.most_frames


class _Player:
    """Plays on one device after the other; frames count on."""

    def __init__(self, pipe: Connection, request: OpenDevice, start: StartDevice, memory: LiveMemory) -> None:
        self._pipe = pipe
        self._request = request
        self._start = start
        self._memory = memory
        self._xruns = 0

    def play(self, device: AudioDevice) -> None:
        """Until the pipe is closed (EOFError); closes each device."""
        sample_rate = device.sample_rate
        path: AudioPath | None = None
        plan: PathPlan | None = None
        played = False
        gc.collect()
        gc.freeze()
        gc.disable()  # it would stop the callback now and then
        while True:
            try:
                before, plan = plan, self._plan(device)
                if path is None or plan != before:
                    path = AudioPath(plan, self._memory, self._memory.capture.end)
                device.start(self._callback(path, plan), plan.algorithm_frames + plan.queue_frames)
                if self._request.measure:
                    device.loop_back()
                self._pipe.send(DeviceStarted(device=_describe(device), queue_frames=plan.queue_frames))
                played = True
                reason = self._watch(device)
            except LiveError as exc:
                # Found again, but not all of it: the ports that it is to be connected with may come later.
                if not played:
                    raise
                reason = exc.message
            finally:
                device.close()
            self._xruns += device.xruns
            self._pipe.send(DeviceLost(reason=reason))
            device = self._find(sample_rate)

    def _plan(self, device: AudioDevice) -> PathPlan:
        return PathPlan(
            sample_rate=device.sample_rate,
            most_frames=device.most_frames,
            algorithm_frames=self._start.algorithm_frames,
            queue_frames=queue_frames(
                _planned_frames(device), self._start.hop_frames, self._request.options.safety_frames
            ),
            outputs=self._request.options.outputs,
            from_file=not self._request.measure and bool(self._request.options.source),
        )

    def _callback(self, path: AudioPath, plan: PathPlan) -> BlockCallback:
        return LoopProbe(path, plan, self._memory) if self._request.measure else path

    def _watch(self, device: AudioDevice) -> str:
        """Sleeps while the device plays; returns why it does not any more."""
        planned = _planned_frames(device)
        while not device.lost:
            if self._pipe.poll(_WATCH_S):
                self._pipe.recv()  # nothing is said any more: EOFError
            self._memory.audio[AudioFigure.XRUNS] = self._xruns + device.xruns
            if _planned_frames(device) != planned:
                return f"its block changed from {planned} to {device.block_frames} frames"
        return device.lost

    def _find(self, sample_rate: int) -> AudioDevice:
        """The device again, once it is there.

        Raises:
            LiveError: ``live.rate``: it came back at another rate. :data:`STUCK`: only another process can find it.
        """
        while True:
            if self._pipe.poll(RETRY_S):
                self._pipe.recv()
            try:
                device = _open(self._request)
            except LiveError as exc:
                if exc.code == STUCK:
                    raise
                continue
            if device.sample_rate == sample_rate:
                return device
            device.close()
            break
        raise other_rate(device.name, device.sample_rate, sample_rate)


def other_rate(name: str, sample_rate: int, before: int) -> LiveError:
    """A lost device came back, but not as it was."""
    return LiveError(
        f"{name} came back at {sample_rate} Hz, and was at {before} Hz before",
        hint="Start the live preview again.",
        code="live.rate",
    )
