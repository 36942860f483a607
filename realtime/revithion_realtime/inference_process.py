"""The process in which the model runs: frames of the capture ring in, stems into the stems ring; in its own time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from revithion_realtime.block_processor import BlockProcessor
from revithion_realtime.memory.figures import InferenceFigure
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
from revithion_realtime.process_link import child_process

MOST_FRAMES = 2_048
"""Taken at once."""

BEHIND_S = 0.25
"""Further behind than this and the path's delay, it leaves frames out rather than computing what nobody will hear."""

_IDLE_S = 0.0005
_COMMANDS_S = 0.05
_LOAD_S = 3.0
"""The load is that of about so many last seconds: a model that looks back computes once a second or less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """Asks for the stems of a model; the answer is :class:`Described`."""

    model: str
    look_back_hop_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What the audio device must be opened for."""

    name: str
    stems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Asks to get ready for a rate; the answer is :class:`Prepared`."""

    sample_rate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the path's delay is made from."""

    latency_frames: int
    hop_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Asks to follow the capture ring, from its end if somebody did so before; no answer."""

    memory: str
    layout: LiveLayout
    sample_rate: int
    queue_frames: int


def run_inference(pipe: Connection) -> None:
    """The process: answers commands, then follows the capture ring until the pipe is closed."""
    with child_process(pipe):
        from revithion_realtime.models.model_choice import make_processor

        describe: Describe = pipe.recv()
        processor = make_processor(describe.model, look_back_hop_s=describe.look_back_hop_s)
        pipe.send(Described(name=processor.name, stems=processor.stems))
        prepare: Prepare = pipe.recv()
        processor.prepare(prepare.sample_rate)
        pipe.send(Prepared(latency_frames=processor.latency_frames, hop_frames=processor.hop_frames))
        follow: Follow = pipe.recv()
        memory = LiveMemory(follow.layout, follow.memory)
        try:
            follower = CaptureFollower(processor, memory, follow)
            while True:
                # Nothing is said any more: a message is the pipe's end, EOFError, which ends the process.
                if pipe.poll(0.0):
                    pipe.recv()
                look = time.perf_counter() + _COMMANDS_S
                while time.perf_counter() < look:
                    if not follower.step():
                        time.sleep(_IDLE_S)
        finally:
            memory.close()


class CaptureFollower:
    """Follows the capture ring with a model. Where somebody followed it before, it goes on from what comes now.

    Args:
        processor: The model, prepared.
        memory: With the rings.
        follow: Rate and queue.
    """

    def __init__(self, processor: BlockProcessor, memory: LiveMemory, follow: Follow) -> None:
        self._processor = processor
        self._memory = memory
        self._sample_rate = follow.sample_rate
        self._behind_frames = round(BEHIND_S * follow.sample_rate) + follow.queue_frames
        self._block = np.zeros((2, MOST_FRAMES), np.float32)
        self._out = np.zeros((memory.layout.stems, 2, MOST_FRAMES), np.float32)
        self._queue_frames = follow.queue_frames
        self._done = 0
        self._busy_s = self._heard_s = 0.0
        self._anew = bool(memory.stems.end)

    def step(self) -> bool:
        """Takes what is there, up to :data:`MOST_FRAMES`; returns whether there was something."""
        capture, stems, figures = self._memory.capture, self._memory.stems, self._memory.inference
        if self._anew:
            # What somebody gave before is still to be played; the path fades at its end, and would click before.
            if self._memory.played.end - self._queue_frames < stems.end:
                return False
            self._anew = False
            self._skip(stems.end)
        there = capture.end - self._done
        if there <= 0:
            return False
        frames = min(there, MOST_FRAMES)
        block, out = self._block[:, :frames], self._out[:, :, :frames]
        if there > self._behind_frames or not capture.read(self._done, block):
            self._skip(self._done)
            return True
        began = time.perf_counter()
        self._processor.process(block, out)
        busy_s, heard_s = time.perf_counter() - began, frames / self._sample_rate
        kept = math.exp(-heard_s / _LOAD_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._heard_s = self._heard_s * kept + heard_s
        # After a gap the delay is still filled with silence, which is nobody's stem.
        late = min(frames, max(0, stems.begin - self._done))
        if late < frames:
            stems.write(self._out.reshape(-1, MOST_FRAMES)[:, late:frames])
        self._done += frames
        figures[InferenceFigure.LOAD] = self._busy_s / self._heard_s
        return True

    def _skip(self, from_frame: int) -> None:
        """Leaves out what has been heard up to now, and begins anew."""
        self._processor.reset()
        self._done = self._memory.capture.end
        self._memory.inference[InferenceFigure.SKIPPED_FRAMES] += max(0, self._done - from_frame)
        self._memory.stems.skip_to(self._done + self._processor.latency_frames)
