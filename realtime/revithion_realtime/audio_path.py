"""What happens in the audio callback: stems of a moment ago out, sound of now in, and dry sound where stems are late.

    device ─→ capture ring ─→ inference (another process) ─→ stems ring ─┐
                   │                                                     ├─ crossfade ─→ played ring ─→ strips ─→ device
                   └──────────────── delayed as much ────────────────────┘

Nothing here allocates memory for samples, locks, does I/O, logs, or raises.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from revithion_realtime.memory.figures import AudioFigure
from revithion_realtime.memory.frame_ring import FrameRing
from revithion_realtime.memory.live_memory import LiveMemory
from revithion_realtime.memory.move_ring import NOW
from revithion_realtime.mixer.strip_mixer import StripMixer
from revithion_stems.audio import Float32
from revithion_stems.live import RAMP_S, LiveOutputs

FADE_OUT_FRAMES = 64
"""Stems that are held in reserve: when no more come, they fade to dry over these."""

FADE_IN_FRAMES = 512
"""And so slowly back."""

DRY_HOLD_S = 0.02
"""It stays dry for so long, lest it flutters."""

FREEWHEEL_PATIENCE_S = 10.0
"""How long a callback of a freewheeling device waits for inference."""

_HIGHEST_INPUT = 1e4
"""Beyond 80 dB above full scale it is no sound: a broken driver must not send it through filters that remember."""

AVERAGED_S = 1.0
"""Over so long loads are averaged, and the longest callback is forgotten."""


def queue_frames(block_frames: int, hop_frames: int, safety_frames: int) -> int:
    """Frames between what inference has heard and what is played, so that it is never waited for.

    When a block is played, inference has heard what came before it, at best: so a block. A hop's computation may take
    a hop's time, and the reserve must still be there then. The safety is for a machine that does other things too: one
    block unless it is given.
    """
    safety = block_frames if safety_frames < 0 else safety_frames
    return block_frames + hop_frames + FADE_OUT_FRAMES + safety


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPlan:
    """How the callback is to work.

    Attributes:
        sample_rate: Hz.
        most_frames: The longest block.
        algorithm_frames: Delay of the model.
        queue_frames: See :func:`queue_frames`.
        outputs: What the device's outputs carry.
        from_file: Whether the sound comes from the source ring, and not from the device.
    """

    sample_rate: int
    most_frames: int
    algorithm_frames: int
    queue_frames: int
    outputs: LiveOutputs
    from_file: bool


class AudioPath:
    """The callback of a device: ``path(capture, outputs, freewheel)``. It outlives the device: frames count on.

    Args:
        plan: How to work.
        memory: Shared with inference and control.
        first_frame: Position of the first block.
    """

    def __init__(self, plan: PathPlan, memory: LiveMemory, first_frame: int = 0) -> None:
        stems, most = memory.layout.stems, plan.most_frames
        self._memory = memory
        self._plan = plan
        self._frame = first_frame
        self.mixer = StripMixer(stems, plan.sample_rate, most)
        for slot, value in enumerate(memory.targets):
            self.mixer.move(slot, float(value), 0)
        self._ramp_frames = round(RAMP_S * plan.sample_rate)
        self._stem_count = stems
        self._input = np.zeros((2, most), np.float32)
        self._finite = np.zeros((2, most), np.bool_)
        self._flat = np.zeros((2 * stems, most), np.float32)
        self._stems = self._flat.reshape(stems, 2, most)
        self._dry = np.zeros((2, most), np.float32)
        self._mix = np.zeros((2, most), np.float32)
        self._wet_ramp = np.zeros(most, np.float32)
        self._dry_ramp = np.zeros(most, np.float32)
        self._count = np.arange(1, most + 1, dtype=np.float32)
        self._wet = self._wanted = 1.0 if first_frame == 0 else 0.0
        self._hold_frames = 0
        self._longest_s = 0.0
        self._load = 0.0

    @property
    def frame(self) -> int:
        """The next frame."""
        return self._frame

    def __call__(self, capture: Float32, outputs: Float32, freewheel: bool) -> None:
        """Plays a block; see :data:`~revithion_realtime.devices.audio_device.BlockCallback`."""
        began = time.perf_counter()
        try:
            self._play(capture, outputs, freewheel)
        except BaseException:  # noqa: BLE001 - nothing may leave a callback; silence and a count tell of it
            outputs.fill(0.0)
            self._memory.audio[AudioFigure.FAULTS] += 1
        self._frame = self._memory.capture.end  # a fault may have come before the block was counted there
        self._measure(time.perf_counter() - began, capture.shape[1])

    def _play(self, capture: Float32, outputs: Float32, freewheel: bool) -> None:
        frames = capture.shape[1]
        self._take_input(capture, frames, freewheel)
        if freewheel:
            _wait_for(self._memory.stems, self._frame - self._plan.queue_frames + frames + FADE_OUT_FRAMES)
        self._take_stems(frames)
        self._memory.played.write(self._flat[:, :frames])
        self._render_strips(frames)
        at = 0
        if self._plan.outputs is not LiveOutputs.STEMS:
            outputs[:2] = self._mix[:, :frames]
            at = 2
        if self._plan.outputs is not LiveOutputs.MIX:
            outputs[at:] = self._flat[:, :frames]

    def _take_input(self, capture: Float32, frames: int, freewheel: bool) -> None:
        block = self._input[:, :frames]
        if self._plan.from_file:
            source = self._memory.source
            if freewheel:
                _wait_for(source, self._frame + frames)
            if not _read(source, self._frame, block):
                self._memory.audio[AudioFigure.STARVED_BLOCKS] += 1
        else:
            np.copyto(block, capture)
        finite = self._finite[:, :frames]
        np.isfinite(block, out=finite)
        np.logical_not(finite, out=finite)
        np.copyto(block, 0.0, where=finite)
        np.clip(block, -_HIGHEST_INPUT, _HIGHEST_INPUT, out=block)
        self._memory.capture.write(block)

    def _take_stems(self, frames: int) -> None:
        """Fills the stems of this block: wet, dry, or from one to the other."""
        ring = self._memory.stems
        start = self._frame - self._plan.queue_frames
        there = ring.end - start
        ready = ring.begin <= max(start, 0) and there >= frames + FADE_OUT_FRAMES
        if self._wanted and not ready:
            self._wanted = 0.0
            self._hold_frames = round(DRY_HOLD_S * self._plan.sample_rate)
            self._memory.audio[AudioFigure.LATE_TIMES] += 1
        elif not self._wanted:
            self._hold_frames -= frames
            if ready and self._hold_frames <= 0:
                self._wanted = 1.0
        if self._wet or self._wanted:
            stems = self._flat[:, :frames]
            got = max(0, min(frames, there))
            stems[:, got:] = 0.0
            if not _read(ring, start, self._flat[:, :got]):
                self._wet = self._wanted = 0.0
        if not self._wet == self._wanted == 1.0:
            self._memory.audio[AudioFigure.LATE_BLOCKS] += 1
            self._mix_dry(frames)

    def _mix_dry(self, frames: int) -> None:
        """Crossfades from where the share of stems is towards where it is wanted."""
        dry = self._dry[:, :frames]
        plan = self._plan
        _read(self._memory.capture, self._frame - plan.queue_frames - plan.algorithm_frames, dry)
        wet, rest = self._wet_ramp[:frames], self._dry_ramp[:frames]
        step = 1.0 / FADE_IN_FRAMES if self._wanted else -1.0 / FADE_OUT_FRAMES
        np.multiply(self._count[:frames], np.float32(step), out=wet)
        np.add(wet, np.float32(self._wet), out=wet)
        np.clip(wet, 0.0, 1.0, out=wet)
        self._wet = float(wet[-1])
        # The stems share the dry sound, so that they still add up to the input.
        np.subtract(np.float32(1.0), wet, out=rest)
        np.multiply(rest, np.float32(1.0 / self._stem_count), out=rest)
        # Row by row: numpy copies an operand that it broadcasts another one over in place.
        for side in dry:
            np.multiply(side, rest, out=side)
        for number, row in enumerate(self._flat[:, :frames]):
            np.multiply(row, wet, out=row)  # what stands there from before is finite, and counts for nothing at 0
            np.add(row, dry[number % 2], out=row)

    def _render_strips(self, frames: int) -> None:
        moves = self._memory.moves
        at = 0
        while (frame := moves.next_frame()) >= 0:
            due = at if frame == NOW else max(at, frame - self._frame)
            if due >= frames:
                break
            if due > at:
                self.mixer.render(self._stems, at, due - at, self._mix)
                at = due
            slot, value = moves.take()
            self.mixer.move(slot, value, self._ramp_frames)
        if at < frames:
            self.mixer.render(self._stems, at, frames - at, self._mix)
        np.copyto(self._memory.peaks, self.mixer.peaks)

    def _measure(self, seconds: float, frames: int) -> None:
        audio, period_s = self._memory.audio, frames / self._plan.sample_rate
        # By time and not by blocks, of which there are 20 to 1500 in a second.
        kept = math.exp(-period_s / AVERAGED_S)
        self._longest_s = max(seconds, self._longest_s * kept)
        self._load = kept * self._load + (1.0 - kept) * seconds / period_s
        audio[AudioFigure.FRAMES] = self._frame
        audio[AudioFigure.BLOCKS] += 1
        audio[AudioFigure.WET] = self._wet
        audio[AudioFigure.CALLBACK_S] = self._longest_s
        audio[AudioFigure.CALLBACK_LOAD] = self._load
        audio[AudioFigure.BLOCK_FRAMES] = frames


def _read(ring: FrameRing, start: int, out: Float32) -> bool:
    """Reads frames; those before the beginning are silence, and so are all if some are not there."""
    before = min(out.shape[1], max(0, -start))
    out[:, :before] = 0.0
    if ring.read(start + before, out[:, before:]):
        return True
    out.fill(0.0)
    return False


def _wait_for(ring: FrameRing, end: int) -> None:
    """Until a ring's writer has got that far; only where time does not count."""
    patience = time.perf_counter() + FREEWHEEL_PATIENCE_S
    while ring.end < end and time.perf_counter() < patience:
        time.sleep(0.0002)
