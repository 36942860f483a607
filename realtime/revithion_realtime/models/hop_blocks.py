"""Blocks of any length in, whole hops to a model, blocks of the same length out: what makes block sizes not matter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from revithion_stems.audio import Float32

HopFunction = Callable[[Float32, Float32], None]
"""Takes a hop ``[2, hop]`` and writes its stems ``[stems, 2, hop]`` into the second array; keeps neither."""


class HopBlocks:
    """Gathers hops and gives each one's stems while the next one is gathered. One thread at a time.

    The last frame of a hop must have come before its first frame can go out, whatever the blocks: the delay is one hop.

    Args:
        step: Called once per hop, in order, on the caller's thread.
        stems: Stems that it writes.
        hop_frames: Frames of a hop, at least 1; also the delay.
    """

    def __init__(self, step: HopFunction, *, stems: int, hop_frames: int) -> None:
        self._step = step
        self._hop = hop_frames
        self._gathered = np.zeros((2, hop_frames), np.float32)
        self._ready = np.zeros((stems, 2, hop_frames), np.float32)
        self._fill = 0

    def process(self, block: Float32, out: Float32) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.process`."""
        done, frames = 0, block.shape[1]
        while done < frames:
            count = min(self._hop - self._fill, frames - done)
            span, hop_span = slice(done, done + count), slice(self._fill, self._fill + count)
            self._gathered[:, hop_span] = block[:, span]
            out[:, :, span] = self._ready[:, :, hop_span]
            self._fill += count
            done += count
            if self._fill == self._hop:
                self._step(self._gathered, self._ready)
                self._fill = 0

    def reset(self) -> None:
        """Forgets what was gathered; what comes out first is zeros again."""
        self._ready.fill(0.0)
        self._fill = 0
