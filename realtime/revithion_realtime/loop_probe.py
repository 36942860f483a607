"""The callback that measures: it sends impulses, and notes when they come back and when they leave the path."""

from __future__ import annotations

import numpy as np

from revithion_realtime.audio_path import AudioPath, PathPlan
from revithion_realtime.memory.figures import AudioFigure
from revithion_realtime.memory.live_memory import LiveMemory
from revithion_stems.audio import Float32

IMPULSE = 0.5
HEARD = 0.05
"""A cable and a converter may take much of the impulse away; noise is far below."""

_PAUSE_S = 0.25


class LoopProbe:
    """Plays impulses on all outputs in place of the path's sound, which goes nowhere: else it would go round for ever.

    Only rounds in which the stems were played count: dry sound is late by as much, whatever the model does.
    Rounds are told by the figures ``SENT_FRAME``, ``HEARD_FRAME``, ``PLAYED_FRAME`` and, last, ``ROUNDS``.

    Args:
        path: What is measured.
        plan: Of the path.
        memory: For the figures.
    """

    def __init__(self, path: AudioPath, plan: PathPlan, memory: LiveMemory) -> None:
        self._path = path
        self._audio = memory.audio
        self._played = np.zeros((2, plan.most_frames), np.float32)
        self._level = np.zeros(plan.most_frames, np.float32)
        self._pause_frames = round(_PAUSE_S * plan.sample_rate) + plan.algorithm_frames + plan.queue_frames
        self._sent = self._heard = self._next = 0

    def __call__(self, capture: Float32, outputs: Float32, freewheel: bool) -> None:
        """Plays a block."""
        frames, first = capture.shape[1], self._path.frame
        played = self._played[:, :frames]
        self._path(capture, played, freewheel)
        outputs.fill(0.0)
        if self._sent and not self._heard:
            self._heard = self._impulse(capture, first)
        elif self._sent and self._audio[AudioFigure.WET] == 1.0 and (left := self._impulse(played, first)):
            self._audio[AudioFigure.SENT_FRAME] = self._sent
            self._audio[AudioFigure.HEARD_FRAME] = self._heard
            self._audio[AudioFigure.PLAYED_FRAME] = left
            self._audio[AudioFigure.ROUNDS] += 1
            self._sent = self._heard = 0
        if first >= self._next:
            self._next = first + self._pause_frames
            self._sent, self._heard = first, 0
            if first:
                outputs[:, 0] = IMPULSE

    def _impulse(self, block: Float32, first: int) -> int:
        """Where the highest sample of the first channel is, or 0 if it is no impulse."""
        level = self._level[: block.shape[1]]
        np.abs(block[0], out=level)
        at = int(level.argmax())
        return first + at if level[at] > HEARD else 0
