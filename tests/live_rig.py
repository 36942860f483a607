"""The audio callback and inference in one thread, step by step: drivers and schedulers, but as a test says."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable

import numpy as np

from revithion_realtime.audio_path import AudioPath, PathPlan, queue_frames
from revithion_realtime.block_processor import BlockProcessor
from revithion_realtime.inference_process import CaptureFollower, Follow
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
from revithion_stems.audio import Float32
from revithion_stems.live import LiveOutputs

RATE = 48_000
SHARES = np.array([0.7, 0.1, 0.1, 0.1], np.float32)


class Shares:
    """A processor whose stems are fixed shares of the input, later by a hop and a half: easy to foretell."""

    name = "shares"
    stems = ("drums", "bass", "other", "vocals")
    hop_frames = 128
    latency_frames = 192

    def __init__(self) -> None:
        self.reset()

    def prepare(self, sample_rate: int) -> None:
        self.reset()

    def process(self, block: Float32, out: Float32) -> None:
        joined = np.concatenate([self._late, block], axis=1)
        self._late = joined[:, block.shape[1] :]
        out[:] = SHARES[:, None, None] * joined[:, : block.shape[1]]

    def reset(self) -> None:
        self._late = np.zeros((2, self.latency_frames), np.float32)


class LiveRig:
    """A path, its memory, and a model that follows when it is told to."""

    def __init__(
        self,
        processor: BlockProcessor,
        memory: LiveMemory,
        *,
        block_frames: int,
        safety_frames: int,
        outputs: LiveOutputs,
        from_file: bool,
    ) -> None:
        queue = queue_frames(block_frames, processor.hop_frames, safety_frames)
        self.memory = memory
        self._processor = processor
        self.delay = processor.latency_frames + queue
        self.plan = PathPlan(
            sample_rate=RATE,
            most_frames=block_frames,
            algorithm_frames=processor.latency_frames,
            queue_frames=queue,
            outputs=outputs,
            from_file=from_file,
        )
        self.path = AudioPath(self.plan, memory)
        self._follow = Follow(memory=memory.name, layout=memory.layout, sample_rate=RATE, queue_frames=queue)
        self.follower = CaptureFollower(processor, memory, self._follow)
        self._channels = len(outputs.names(processor.stems))

    def restart(self) -> None:
        """As if the process of inference had ended and been started again."""
        self.follower = CaptureFollower(self._processor, self.memory, self._follow)

    def infer(self) -> None:
        while self.follower.step():
            pass

    def play(self, samples: Float32, blocks: Iterable[int], stalled: Iterable[bool] = ()) -> Float32:
        """Plays samples ``[2, frames]`` in blocks; inference follows each block, unless it is stalled."""
        out: list[Float32] = []
        at, stalls = 0, iter(stalled)
        for size in blocks:
            capture = samples[:, at : at + size]
            if not capture.size:
                break
            outputs = np.full((self._channels, capture.shape[1]), np.nan, np.float32)
            self.path(capture, outputs, False)
            out.append(outputs)
            at += size
            if not next(stalls, False):
                self.infer()
        return np.concatenate(out, axis=1)


@contextlib.contextmanager
def live_rig(
    processor: BlockProcessor | None = None,
    *,
    block_frames: int = 256,
    safety_frames: int = 0,
    outputs: LiveOutputs = LiveOutputs.MIX,
    from_file: bool = False,
) -> Generator[LiveRig]:
    """A rig; its memory is real shared memory."""
    processor = Shares() if processor is None else processor
    memory = LiveMemory(LiveLayout.fitting(len(processor.stems), RATE, 4 * block_frames + safety_frames))
    rig = LiveRig(
        processor, memory, block_frames=block_frames, safety_frames=safety_frames, outputs=outputs, from_file=from_file
    )
    try:
        yield rig
    finally:
        del rig.path, rig.follower
        memory.close()
