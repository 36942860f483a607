"""The two processes of a live session: started side by side, asked in order, started anew when one is lost."""

from __future__ import annotations

import threading

from revithion_realtime.audio_path import queue_frames
from revithion_realtime.audio_process import DeviceOpened, DeviceStarted, OpenDevice, StartDevice, other_rate, run_audio
from revithion_realtime.inference_process import Describe, Described, Follow, Prepare, Prepared, run_inference
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
from revithion_realtime.process_link import ProcessLink
from revithion_stems.config import state_dir
from revithion_stems.errors import LiveError
from revithion_stems.events import CancelToken
from revithion_stems.live import LiveOptions

OPEN_S = 30.0
"""How long a device may take to open."""

LOAD_S = 600.0
"""How long a model may take to load: its weights may have to be pulled first."""


class SessionProcesses:
    """An audio process with its device open, and a process of inference with its model prepared for it.

    One thread at a time, but any may :meth:`close` them: who is at work with them then gets an error.

    Args:
        options: Of the session.
        measure: See :mod:`revithion_realtime.measure`.
        cancel: Gives up the start.

    Attributes:
        audio: The link to the audio process.
        inference: The link to the other one.
        described: What the model is.
        prepared: Its delay and hop at the device's rate.
        device: The device; it may be another one when it was lost and found.

    Raises:
        RevithionError: The device or the model can't be used; both processes have ended then.
    """

    def __init__(self, options: LiveOptions, *, measure: bool = False, cancel: CancelToken | None = None) -> None:
        self._options = options
        self._measure = measure
        self._cancel = cancel
        self._lock = threading.Lock()
        self._closed = False
        self.log = state_dir() / "live.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")  # what libraries print is of this session alone
        self.inference = ProcessLink(run_inference, "live inference", self.log)
        self.audio = ProcessLink(run_audio, "live audio", self.log)
        try:
            self.described = self._describe()
            self.device = self._open_device()
            self.prepared = self._prepare()
        except BaseException:
            self.close()
            raise

    @property
    def layout(self) -> LiveLayout:
        """Of the memory that they are to share."""
        path_frames = self.prepared.latency_frames + self._queue_frames
        return LiveLayout.fitting(len(self.described.stems), self.device.sample_rate, path_frames)

    def play(self, memory: LiveMemory) -> DeviceStarted:
        """Has the model follow, and the device play.

        Raises:
            RevithionError: The device can't be started, or its ports can't be connected.
        """
        self._follow(memory)
        return self._start(memory)

    def restart_inference(self, memory: LiveMemory) -> None:
        """Starts another process in place of one that has ended.

        Raises:
            RevithionError: The model can't be loaded any more, or the processes were closed.
        """
        self.inference = self._another(self.inference, "live inference")
        self._describe()
        self._prepare()
        self._follow(memory)

    def find_device(self, memory: LiveMemory) -> DeviceStarted:
        """Opens and starts the device in another process, since the library of this one is stuck.

        Raises:
            RevithionError: It is not there; ``live.rate``: it came back at another rate; or the processes were closed.
        """
        self.audio = self._another(self.audio, "live audio")
        before, opened = self.device, self._open_device()
        if opened.sample_rate != before.sample_rate:
            raise other_rate(opened.name, opened.sample_rate, before.sample_rate)
        return self._start(memory)

    def close(self) -> None:
        """Ends both, the one that sounds first; again, it does nothing."""
        with self._lock:
            self._closed = True
        self.audio.close()
        self.inference.close()

    @property
    def _queue_frames(self) -> int:
        return queue_frames(self.device.planned_frames, self.prepared.hop_frames, self._options.safety_frames)

    def _another(self, link: ProcessLink, name: str) -> ProcessLink:
        link.close()
        with self._lock:
            if self._closed:
                raise LiveError("the session has ended", hint="Start another one.", code="live.idle")
            return ProcessLink(run_audio if link is self.audio else run_inference, name, self.log)

    def _describe(self) -> Described:
        self.inference.send(Describe(model=self._options.model, look_back_hop_s=self._options.look_back_hop_s))
        return self.inference.receive(LOAD_S, self._cancel)

    def _prepare(self) -> Prepared:
        self.inference.send(Prepare(sample_rate=self.device.sample_rate))
        return self.inference.receive(LOAD_S, self._cancel)

    def _open_device(self) -> DeviceOpened:
        self.audio.send(OpenDevice(options=self._options, stems=self.described.stems, measure=self._measure))
        return self.audio.receive(OPEN_S, self._cancel)

    def _follow(self, memory: LiveMemory) -> None:
        self.inference.send(
            Follow(
                memory=memory.name,
                layout=memory.layout,
                sample_rate=self.device.sample_rate,
                queue_frames=self._queue_frames,
            )
        )

    def _start(self, memory: LiveMemory) -> DeviceStarted:
        self.audio.send(
            StartDevice(
                memory=memory.name,
                layout=memory.layout,
                algorithm_frames=self.prepared.latency_frames,
                hop_frames=self.prepared.hop_frames,
            )
        )
        started: DeviceStarted = self.audio.receive(OPEN_S, self._cancel)
        self.device = started.device
        return started
