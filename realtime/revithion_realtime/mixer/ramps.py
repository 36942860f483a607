"""Values that move to where they are sent in a straight line, so that controls do not click. For the audio callback."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class Ramps:
    """A row of values, each of which moves by itself, exact to the frame.

    A move over ``n`` frames that is made now reaches its target with the last of the next ``n`` frames, and the frame
    after that is still there. What a frame gets is the same in whatever pieces time is taken. Nothing allocates memory
    for samples, locks or raises. One thread.

    Args:
        values: Where the values stand at first.
        most_frames: No piece of time is longer.
        dtype: float32 or float64, as the samples are that the values multiply.
    """

    def __init__(self, values: Sequence[float], most_frames: int, dtype: npt.DTypeLike) -> None:
        self._targets = [float(value) for value in values]
        self._steps = [0.0] * len(values)
        self._left = [0] * len(values)  # frames until it stands
        self._longest = 0
        self._count = np.arange(most_frames, dtype=dtype)
        self._line = np.empty(most_frames, dtype)

    def move(self, index: int, target: float, frames: int) -> None:
        """Sends a value to ``target`` in ``frames`` frames, or at once with 0.

        It starts from where the value is just then. A value that will be there by then anyway goes on as it was, so
        that a control that says the same thing again and again does not hold it up.
        """
        if target == self._targets[index] and self._left[index] <= frames:
            return
        before = self._targets[index] - self._steps[index] * self._left[index]
        self._targets[index] = target
        self._left[index] = max(0, frames)
        self._steps[index] = (target - before) / frames if frames > 0 else 0.0
        self._longest = max(self._left)

    def target(self, index: int) -> float:
        """Where a value is, or is on its way to."""
        return self._targets[index]

    def rests(self, index: int) -> bool:
        """Whether a value stands at its target."""
        return self._left[index] == 0

    def at(self, index: int, frame: int) -> float:
        """What a value is in a frame from now on, the next one being 0, and the last that passed −1."""
        # Counted back from the end: what a frame gets depends on how far the end is, not on when one asks.
        return self._targets[index] - self._steps[index] * max(0, self._left[index] - 1 - frame)

    def scale(self, index: int, samples: npt.NDArray[np.floating]) -> None:
        """Multiplies the next frames, ``[..., n]``, by a value in place; a value that stands at 1 costs nothing.

        Args:
            index: Which value.
            samples: Of the type that was named at construction. Time does not move on: see :meth:`advance`.
        """
        target = self._targets[index]
        moving = min(self._left[index], samples.shape[-1])
        if moving:
            line = self._line[:moving]
            np.subtract(self._left[index] - 1, self._count[:moving], out=line)
            np.multiply(line, self._steps[index], out=line)
            np.subtract(target, line, out=line)
            part = samples[..., :moving]
            np.multiply(part, line, out=part)
        if target != 1.0 and moving < samples.shape[-1]:
            rest = samples[..., moving:]
            np.multiply(rest, target, out=rest)

    def advance(self, frames: int) -> None:
        """Lets ``frames`` frames pass."""
        if self._longest:
            for index, left in enumerate(self._left):
                self._left[index] = max(0, left - frames)
            self._longest = max(0, self._longest - frames)
