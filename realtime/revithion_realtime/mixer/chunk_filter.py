"""Linear filters for the audio callback: whole chunks by matrices, since numpy has no recursion and scipy allocates.

A filter with ``n`` states ``s``, one input ``x`` and some outputs is ``s' = A s + B x``, ``y = C s + D x`` for a frame.
Put in again and again, that makes the outputs of ``c`` frames, and the states after them, linear in
``z = [s, x_0, …, x_{c−1}]``:

    s_0 = s,   y_i = C s_i + D x_i,   s_{i+1} = A s_i + B x_i,

so that two products of ``z`` with fixed matrices replace ``c`` steps. As ``y_i`` does not know ``x_j`` for j > i, the
matrices for fewer frames are the corner of those for more.

All of it is float64: a filter at 20 Hz in float32 would be heard, and float32's denormals are ordinary numbers here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

CHUNK = 16
"""Frames of a chunk. Longer ones need fewer calls, but more memory and arithmetic, and sweeps move in such steps."""

_FLUSH = 1e-12
# Added and taken away again it leaves 0 of states below 1e-28 (−560 dB), which silence would turn into denormals.


class Circuit:
    """A network of filters of one input, written down as linear forms over ``[states, input]``.

    Every signal in it is such a form, float64 ``[positions, states + 1]``; forms may be added and scaled. ``positions``
    are variants of the same network with other frequencies. The sections are trapezoidal (Zavalishin, "The Art of VA
    Filter Design"; Simper, "Linear Trapezoidal Integrated SVF", 2013): their states are those of the analogue
    capacitors and mean the same at any frequency, so that frequencies may change at any frame.

    Args:
        states: One for each one-pole section, two for each two-pole section.
        sample_rate: Hz.
        positions: How many variants.

    Attributes:
        source: The input as a form.
        next: What the states become, float64 ``[positions, states, states + 1]``; complete when all sections are there.
    """

    def __init__(self, states: int, sample_rate: int, positions: int = 1) -> None:
        self.next: Float64 = np.zeros((positions, states, states + 1))
        self.source = self._unit(states)
        self._rate = sample_rate
        self._used = 0

    def one_pole(self, signal: Float64, frequency: Float64 | float) -> Float64:
        """Low-pass of 6 dB/octave; the high-pass is ``signal`` less it, the all-pass twice it less ``signal``."""
        g = self._warped(frequency)
        state = self._unit(self._used)
        low = (g * signal + state) / (1 + g)
        self.next[:, self._used] = 2 * low - state
        self._used += 1
        return low

    def two_pole(self, signal: Float64, frequency: Float64 | float, q: Float64 | float) -> tuple[Float64, Float64]:
        """Low-pass and band-pass ``(low, band)`` of 12 dB/octave.

        The high-pass is ``signal − band/q − low``, the all-pass ``signal − 2·band/q``.
        """
        g, k = self._warped(frequency), 1 / np.reshape(q, (-1, 1))
        s1, s2 = self._unit(self._used), self._unit(self._used + 1)
        # band = s1 + g·high, low = s2 + g·band, high = signal − k·band − low; solved for band:
        band = (s1 + g * (signal - s2)) / (1 + g * (g + k))
        low = s2 + g * band
        self.next[:, self._used] = 2 * band - s1
        self.next[:, self._used + 1] = 2 * low - s2
        self._used += 2
        return low, band

    def _unit(self, index: int) -> Float64:
        form = np.zeros((self.next.shape[0], self.next.shape[2]))
        form[:, index] = 1.0
        return form

    def _warped(self, frequency: Float64 | float) -> Float64:
        # The bilinear transform bends frequencies; this puts the cut-off where it is wanted.
        return np.tan(np.pi * np.reshape(frequency, (-1, 1)) / self._rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkMatrices:
    """A filter, ready for chunks.

    Attributes:
        outputs: ``z`` to the frames of each output, float64 ``[outputs, 1, states + CHUNK, CHUNK]``.
        following: ``z`` of ``c`` frames to the states after them, float64 ``[CHUNK + 1, states + CHUNK, states]``; of
            the c-th only the first ``states + c`` rows count.
    """

    outputs: Float64
    following: Float64


def chunk_matrices(circuit: Circuit, *outputs: Float64) -> list[ChunkMatrices]:
    """The matrices of each position of a circuit.

    Args:
        circuit: With all its sections.
        outputs: Forms that are to be heard.
    """
    positions, states, _ = circuit.next.shape
    out = np.stack(outputs, axis=1)  # [positions, outputs, states + 1]
    width = states + CHUNK
    frames = np.zeros((positions, out.shape[1], width, CHUNK))
    following = np.zeros((positions, CHUNK + 1, width, states))
    now = np.zeros((positions, states + 1, width))  # states and input of a frame, as forms over z
    now[:, :states, :states] = np.eye(states)
    for i in range(CHUNK):
        following[:, i] = now[:, :states].transpose(0, 2, 1)
        now[:, states] = 0.0
        now[:, states, states + i] = 1.0
        frames[..., i] = out @ now
        now[:, :states] = circuit.next @ now
    following[:, CHUNK] = now[:, :states].transpose(0, 2, 1)
    return [
        ChunkMatrices(outputs=frames[position, :, None], following=following[position]) for position in range(positions)
    ]


class ChunkFilter:
    """The states of a filter for two channels. No method allocates memory for samples, locks or raises; one thread.

    Args:
        states: As the circuit has.
        most_frames: No call has more.
    """

    def __init__(self, states: int, most_frames: int) -> None:
        self._state = np.zeros((2, states))
        self._rows = np.zeros((2, most_frames // CHUNK + 1, states + CHUNK))  # z of each chunk

    def reset(self) -> None:
        """Forgets all input."""
        self._state.fill(0.0)

    def run(self, matrices: ChunkMatrices, samples: Float64, out: Float64) -> None:
        """Filters the next frames, any number of them; other matrices of the same circuit may come with every call.

        Args:
            matrices: What to do.
            samples: float64 ``[2, n]``, contiguous along frames.
            out: float64 ``[outputs, 2, n]``, contiguous along frames; not where ``samples`` is.
        """
        whole = samples.shape[1] // CHUNK * CHUNK
        if whole:
            self._run(matrices, samples[:, :whole], out[:, :, :whole], CHUNK)
        if whole < samples.shape[1]:
            self._run(matrices, samples[:, whole:], out[:, :, whole:], samples.shape[1] - whole)
        np.add(self._state, _FLUSH, out=self._state)
        np.subtract(self._state, _FLUSH, out=self._state)

    def _run(self, matrices: ChunkMatrices, samples: Float64, out: Float64, length: int) -> None:
        states = self._state.shape[1]
        chunks, width = samples.shape[1] // length, states + length
        rows = self._rows[:, :chunks, :width]
        following = matrices.following[length, :width]
        # Splitting an axis that is contiguous makes a view, not a copy.
        np.copyto(rows[:, :, states:], samples.reshape(2, chunks, length))
        np.copyto(rows[:, 0, :states], self._state)
        for chunk in range(1, chunks):
            np.matmul(rows[:, chunk - 1], following, out=rows[:, chunk, :states])
        np.matmul(rows[:, chunks - 1], following, out=self._state)
        frames = out.reshape(out.shape[0], 2, chunks, length)
        np.matmul(rows, matrices.outputs[:, :, :width, :length], out=frames)
