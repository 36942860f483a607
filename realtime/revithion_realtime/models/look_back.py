"""An offline model used live: it looks back over the last seconds again and again, and only the newest of it is played.

Every hop the model separates the last segment of what was heard. At the end of its segment a model guesses badly, as it
has not heard what follows: a margin there is left out. What one window gives fades over into what the next one gives:

    window at time T      [T − segment, T)
    taken of it           [T − margin − hop − fade, T − margin)
    its first fade        over the last fade frames of the window before, which are of the same time

So at time T the frames from T − margin − hop − fade on are final, a hop of them, and go out until T + hop: the delay is
hop + margin + fade. That is seconds, not milliseconds; it is said where latency is said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from revithion_realtime.models.hop_blocks import HopBlocks
from revithion_stems.audio import Float32
from revithion_stems.catalog import Architecture, ModelSpec
from revithion_stems.engines import DEMUCS_FAMILY
from revithion_stems.errors import LiveError
from revithion_stems.separator import LoadedModel

MARGIN_S = 0.25
FADE_S = 0.05
_LONGEST_SEGMENT_S = 12  # of a model that takes any length
_PAST_S = 3.0  # that Spleeter hears before what is taken
_SPLEETER_HOP_FRAMES = 1_024
_SPLEETER_COLUMNS = 64  # its networks halve time six times
_STD_FLOOR = 1e-5  # −100 dBFS: quieter windows are not blown up; nor are those whose left and right cancel out


def with_live_segment(spec: ModelSpec, hop_s: float) -> ModelSpec:
    """The model with a segment that is short enough to be computed at each hop, where it can have a shorter one.

    Spleeter's networks take any multiple of 64 columns. It hears 3 s before what is taken: with a hop of 1 s that makes
    192 columns, 4.4 s. Vocals of two rock songs above their difference from those of the offline run, and the time that
    a window takes on one thread of a shared server:

    ======= ====== ========= ======= ======
    columns s      Britpop   Punk    ms
    ======= ====== ========= ======= ======
    64      1.5    7.9 dB    20.8 dB 84
    128     2.9    10.2 dB   21.0 dB 142
    192     4.4    10.3 dB   21.2 dB 200
    256     5.9    10.5 dB   21.2 dB 259
    512     11.9   10.5 dB   21.2 dB 543
    ======= ====== ========= ======= ======

    Args:
        spec: An offline model.
        hop_s: How often it will run, in seconds.
    """
    if spec.architecture is Architecture.SPLEETER:
        wanted = (_PAST_S + FADE_S + hop_s + MARGIN_S) * spec.sample_rate
        columns = _SPLEETER_COLUMNS * math.ceil((wanted / _SPLEETER_HOP_FRAMES + 1) / _SPLEETER_COLUMNS)
        longest = (columns - 1) * _SPLEETER_HOP_FRAMES
    elif spec.segment_fixed:
        return spec
    else:
        longest = _LONGEST_SEGMENT_S * spec.sample_rate
    frames = min(longest, spec.segment_frames)
    return dataclasses.replace(spec, segment=str(Fraction(frames, spec.sample_rate)))


class LookBack:
    """A :class:`~revithion_realtime.block_processor.BlockProcessor` around a model of the catalog, at its own rate.

    Args:
        spec: The model; its segment is what it hears each time, see :func:`with_live_segment`.
        load: Loads it, or says by a RevithionError why not; called by the first :meth:`prepare`.
        hop_s: How often it runs; it must take less time than that.
        margin_s: How much of the end of its output is left out. With Spleeter and a hop of 1 s, the vocals of a rock
            song were 9.8 dB above their difference from those of the offline run without a margin, 10.7 dB with
            0.1 s, 11.2 dB with 0.25 s, 11.5 dB with 0.5 s.

    Attributes:
        name: What people know the model as.
        stems: Names, in the order of the output.
        sample_rate: Hz; the only rate that it can be prepared for.
        latency_frames: The delay.
        hop_frames: It computes each time that so many frames have come.

    Raises:
        LiveError: ``live.options``: hop and margin don't fit into the model's segment.
    """

    def __init__(
        self,
        spec: ModelSpec,
        load: Callable[[], LoadedModel],
        *,
        hop_s: float = 1.0,
        margin_s: float = MARGIN_S,
    ) -> None:
        self.name = spec.name
        self.stems = spec.stems
        self.sample_rate = spec.sample_rate
        self.hop_frames = round(hop_s * spec.sample_rate)
        self._margin = round(margin_s * spec.sample_rate)
        self._fade = min(self.hop_frames, round(FADE_S * spec.sample_rate))
        self.latency_frames = self.hop_frames + self._margin + self._fade
        segment = spec.segment_frames
        if segment < self.latency_frames:
            longest = (segment - self._margin - self._fade) / spec.sample_rate
            raise LiveError(
                f"a hop of {hop_s:g} s and {margin_s + FADE_S:g} s of margin are more than {self.name} hears at a time",
                hint=f"Choose a hop of {longest:.2f} s at most.",
                code="live.options",
            )
        self._load = load
        self._model: LoadedModel | None = None
        self._as_demucs = spec.architecture in DEMUCS_FAMILY
        self._heard = 0
        self._window = np.zeros((2, segment), np.float32)  # the newest frame last; zeros before the first one
        self._rest = np.zeros((len(self.stems), 2, self._fade), np.float32)  # what the last window gave after its hop
        self._rise = ((np.arange(self._fade) + 0.5) / self._fade).astype(np.float32)
        self._blocks = HopBlocks(self._step, stems=len(self.stems), hop_frames=self.hop_frames)

    def prepare(self, sample_rate: int) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.prepare`.

        Raises:
            LiveError: ``live.rate``: not the model's own.
            RevithionError: The model can't be loaded.
        """
        if sample_rate != self.sample_rate:
            raise LiveError(
                f"{self.name} works at {self.sample_rate} Hz, not at {sample_rate} Hz",
                hint="Wrap it in Resampled, as revithion_realtime.models.model_choice does.",
                code="live.rate",
            )
        self._model = self._model or self._load()
        self.reset()

    def process(self, block: Float32, out: Float32) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.process`."""
        self._blocks.process(block, out)

    def reset(self) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.reset`."""
        for separator, _ in self._loaded().separators:
            separator.begin()
        self._heard = 0
        self._window.fill(0.0)
        self._rest.fill(0.0)
        self._blocks.reset()

    def _step(self, samples: Float32, stems: Float32) -> None:
        hop, fade = self.hop_frames, self._fade
        self._window[:, :-hop] = self._window[:, hop:]
        self._window[:, -hop:] = samples
        self._heard = min(self._heard + hop, self._window.shape[1])
        end = self._window.shape[1] - self._margin
        taken = self._separate()[..., end - hop - fade : end]  # [stems, 2, hop + fade]
        stems[...] = taken[..., :hop]
        stems[..., :fade] = self._rest + self._rise * (taken[..., :fade] - self._rest)
        self._rest[...] = taken[..., hop:]

    def _separate(self) -> Float32:
        """The stems of the window, ``[stems, 2, segment]``: the networks' average, as in the core."""
        window = self._window
        if not window.any():
            return np.zeros((len(self.stems), *window.shape), np.float32)
        mean, spread = self._level()
        heard = slice(window.shape[1] - self._heard, None)
        mix = np.zeros_like(window)
        mix[:, heard] = (window[:, heard] - mean) / spread
        total = np.zeros((len(self.stems), 1, 1), np.float32)
        summed = np.zeros((len(self.stems), *window.shape), np.float32)
        for separator, stem_weights in self._loaded().separators:
            weights = np.array(stem_weights, np.float32)[:, None, None]
            summed += separator.separate_segment(mix) * weights
            total += weights
        stems = np.zeros_like(summed)
        stems[..., heard] = summed[..., heard] / total * spread + mean
        return stems

    def _level(self) -> tuple[np.float32, np.float32]:
        """Mean and spread of what was heard, by which Demucs wants its input normalised; 0 and 1 for the others."""
        if not self._as_demucs:
            return np.float32(0.0), np.float32(1.0)
        mono = self._window[:, -self._heard :].mean(axis=0)
        return mono.mean(), np.maximum(mono.std(), np.float32(_STD_FLOOR))

    def _loaded(self) -> LoadedModel:
        assert self._model is not None, "prepare comes first"
        return self._model
