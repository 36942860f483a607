"""Long audio through a network that takes short segments: triangular overlap-add as in Demucs, but streaming.

A segment starts every ``stride = int((1 − overlap)·segment)`` frames; outputs are weighted by a triangle and divided by
the sum of the weights. Demucs (Défossez et al. 2019–2023, ``demucs.apply``) does this on a whole song in memory; here
the input comes in blocks of any size and the output leaves as soon as no later segment can change it, so memory is a
few segments whatever the song's length. :func:`reference_overlap_add` is the plain form that tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from revithion_stems.audio import Float32
from revithion_stems.errors import RequestError

SegmentFunction = Callable[[Float32], Float32]
"""Mix float32 ``[channels, n]`` → stems float32 ``[stems, channels, n]``."""


def stride_frames(segment_frames: int, overlap: float) -> int:
    """Frames between the starts of segments; ``overlap`` is a fraction of a segment in [0, 1)."""
    stride = int((1 - overlap) * segment_frames)
    if stride < 1:
        raise RequestError(
            f"overlap {overlap} leaves no step between segments of {segment_frames} frames",
            hint="Use an overlap from 0 to 0.95; it is a fraction of a segment, not seconds.",
            code="request.overlap",
        )
    return stride


def segment_count(frames: int, segment_frames: int, overlap: float) -> int:
    """How many segments cover ``frames`` frames."""
    return -(-frames // stride_frames(segment_frames, overlap))


def triangle_window(frames: int) -> Float32:
    """Weights 1, 2, … up to the middle and down again, divided by the largest; float32 ``[frames]``, in (0, 1]."""
    half = frames // 2
    rise = np.arange(1, half + 1, dtype=np.float32)
    fall = np.arange(frames - half, 0, -1, dtype=np.float32)
    window = np.concatenate([rise, fall])
    return window / window.max()


class OverlapAdd:
    """Runs a segment function over a stream.

    Args:
        run: Called once per segment, in order, on the caller's thread.
        channels: Channels of the mix.
        stems: Stems that ``run`` returns.
        segment_frames: Length of a segment.
        overlap: Fraction of a segment, in [0, 1).
        fixed: Whether ``run`` must always get ``segment_frames`` frames. The last, shorter segment then is centred in
            the frame with real audio before it and zeros after the end, as Demucs does; otherwise it is given as it is.
        lead: Zeros put before the input and cut off the output again (the time shift of ``shifts``).
    """

    def __init__(
        self,
        run: SegmentFunction,
        *,
        channels: int,
        stems: int,
        segment_frames: int,
        overlap: float,
        fixed: bool,
        lead: int = 0,
    ) -> None:
        self._run = run
        self._segment = segment_frames
        self._stride = stride_frames(segment_frames, overlap)
        self._fixed = fixed
        self._lead = lead
        self._window = triangle_window(segment_frames)
        # Absolute positions count from the first frame of the lead.
        self._input = np.zeros((channels, lead), np.float32)  # frames [self._start, self._end)
        self._start = 0
        self._end = lead
        self._offset = 0  # where the next segment starts; everything before it is final
        self._sum = np.zeros((stems, channels, segment_frames), np.float32)  # from self._offset on
        self._weight = np.zeros(segment_frames, np.float32)

    def feed(self, block: Float32) -> Iterator[Float32]:
        """Takes mix ``[channels, n]``; yields the stems ``[stems, channels, m]`` that became final."""
        self._input = np.concatenate([self._input, block], axis=1)
        self._end += block.shape[1]
        while self._end - self._offset >= self._segment:
            yield from self._step(self._segment)

    def finish(self) -> Iterator[Float32]:
        """Yields what is left after the last block. Call it once, after the last :meth:`feed`."""
        while self._offset < self._end:
            yield from self._step(min(self._segment, self._end - self._offset))

    def _step(self, length: int) -> Iterator[Float32]:
        left = (self._segment - length) // 2 if self._fixed else 0
        frames = self._segment if self._fixed else length
        out = self._run(self._read(self._offset - left, frames))[..., left : left + length]
        self._sum[..., :length] += self._window[:length] * out
        self._weight[:length] += self._window[:length]
        # The last segments reach exactly to the end: what is final never goes beyond it.
        final = min(self._stride, self._end - self._offset)
        done = self._sum[..., :final] / self._weight[:final]
        self._shift(final)
        skip = max(0, min(self._lead - self._offset, final))
        self._offset += final
        keep = max(self._start, self._offset - self._segment // 2 - 1)  # left context of a centred last segment
        self._input = self._input[:, keep - self._start :]
        self._start = keep
        if skip < final:
            yield done[..., skip:]

    def _read(self, start: int, frames: int) -> Float32:
        first, last = max(start, self._start), min(start + frames, self._end)
        window = self._input[:, first - self._start : last - self._start]
        return np.pad(window, ((0, 0), (first - start, start + frames - last)))

    def _shift(self, frames: int) -> None:
        keep = self._segment - frames
        self._sum[..., :keep] = self._sum[..., frames:].copy()
        self._sum[..., keep:] = 0.0
        self._weight[:keep] = self._weight[frames:].copy()
        self._weight[keep:] = 0.0


def reference_overlap_add(
    run: SegmentFunction, mix: Float32, *, stems: int, segment_frames: int, overlap: float, fixed: bool
) -> Float32:
    """What :class:`OverlapAdd` computes, written plainly over the whole mix ``[channels, frames]``; for tests."""
    channels, total = mix.shape
    out = np.zeros((stems, channels, total), np.float32)
    weights = np.zeros(total, np.float32)
    window = triangle_window(segment_frames)
    for offset in range(0, total, stride_frames(segment_frames, overlap)):
        length = min(segment_frames, total - offset)
        missing = segment_frames - length if fixed else 0
        start = offset - missing // 2
        stop = start + length + missing
        chunk = np.pad(mix[:, max(start, 0) : min(stop, total)], ((0, 0), (max(-start, 0), max(stop - total, 0))))
        stems_out = run(chunk)[..., missing // 2 : missing // 2 + length]
        out[..., offset : offset + length] += window[:length] * stems_out
        weights[offset : offset + length] += window[:length]
    return out / weights
