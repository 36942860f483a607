"""The one interface of all models that play live: any blocks in, as many frames of stems out, a fixed delay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from revithion_stems.audio import Float32


class BlockProcessor(Protocol):
    """A causal separator of a stream. One thread at a time; may allocate, since it runs in the process of inference.

    Laws (each a test of every implementation):

    - Frame ``k`` of the output are the stems of frame ``k − latency_frames`` of the input; zeros before.
    - Block sizes don't matter: the same input in other blocks gives the same output.
    - Causal: input from frame ``t`` on changes no output before frame ``t``; since output is delayed, nothing of the
      stems of a frame depends on input later than ``latency_frames`` after it.
    - After :meth:`reset` it answers like a new one.

    Attributes:
        name: What people know the model as.
        stems: Names, in the order of the output.
        latency_frames: The delay, at the rate that it was prepared for; whole hops are counted, so that it holds for
            any block size.
        hop_frames: It computes each time that so many frames have come; the room that its compute time needs.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def stems(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def latency_frames(self) -> int: ...  # noqa: D102
    @property
    def hop_frames(self) -> int: ...  # noqa: D102

    def prepare(self, sample_rate: int) -> None:
        """Makes ready for a rate: loads, allocates, resets. Before it nothing but ``name`` and ``stems`` may be asked.

        Raises:
            RevithionError: The rate can't be played, or the weights can't be had.
        """
        ...

    def process(self, block: Float32, out: Float32) -> None:
        """Takes frames and gives as many.

        Args:
            block: float32 ``[2, n]``, finite, n ≥ 1; is not changed.
            out: float32 ``[stems, 2, n]``; all of it is written.
        """
        ...

    def reset(self) -> None:
        """Forgets all input."""
        ...


def run_offline(processor: BlockProcessor, samples: Float32, blocks: Iterable[int] = ()) -> Float32:
    """What a processor makes of a whole recording, its delay taken away: the reference that the stream must equal.

    Args:
        processor: Is reset first.
        samples: float32 ``[2, frames]``.
        blocks: Block sizes to begin with; the rest goes in blocks of 1024.

    Returns:
        float32 ``[stems, 2, frames]``.
    """
    processor.reset()
    frames, latency = samples.shape[1], processor.latency_frames
    padded = np.concatenate([samples, np.zeros((2, latency), np.float32)], axis=1)
    out = np.empty((len(processor.stems), 2, frames + latency), np.float32)
    at = 0
    sizes = iter(blocks)
    while at < padded.shape[1]:
        end = min(padded.shape[1], at + next(sizes, 1_024))
        part = np.empty((len(processor.stems), 2, end - at), np.float32)
        processor.process(padded[:, at:end], part)
        out[:, :, at:end] = part
        at = end
    return out[:, :, latency:]
