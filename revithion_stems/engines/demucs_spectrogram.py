"""The spectrogram of HTDemucs in plain NumPy, which the exported graph leaves to its caller.

Conventions of ``demucs.htdemucs`` (Rouard et al. 2023): Hann window of 4096, hop 1024, scaled by 1/sqrt(4096); the
signal is reflected at both ends so that there are exactly ceil(frames / 1024) columns; the Nyquist row is dropped.
:func:`inverse` relies on every kept frame being covered by four windows, whose squares add up to 3/2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from revithion_stems.audio import Float32

N_FFT = 4096
HOP = 1024
_PAD = HOP // 2 * 3
_SCALE = np.float32(np.sqrt(N_FFT))
_WINDOW: Float32 = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
_WINDOW_SQUARES = np.float32(1.5)


def forward(mix: Float32) -> Float32:
    """Spectrogram of a segment, real and imaginary parts as channels.

    Args:
        mix: float32 ``[channels, frames]``, frames > 2048.

    Returns:
        float32 ``[2·channels, 2048, columns]`` (re and im of channel 0, then of channel 1, …).
    """
    channels, frames = mix.shape
    columns = -(-frames // HOP)
    x = np.pad(mix, ((0, 0), (_PAD, _PAD + columns * HOP - frames)), mode="reflect")
    x = np.pad(x, ((0, 0), (N_FFT // 2, N_FFT // 2)), mode="reflect")
    # [channels, columns, 4096]; the first two and the last two of columns + 4 windows hold reflections only
    windows = np.lib.stride_tricks.sliding_window_view(x, N_FFT, axis=1)[:, 2 * HOP : (columns + 2) * HOP : HOP]
    spectrum: npt.NDArray[np.complex64] = _rfft(windows * (_WINDOW / _SCALE))  # [channels, columns, 2049]
    out = np.empty((channels, 2, N_FFT // 2, columns), np.float32)
    out[:, 0] = spectrum.real[..., :-1].transpose(0, 2, 1)
    out[:, 1] = spectrum.imag[..., :-1].transpose(0, 2, 1)
    return out.reshape(2 * channels, N_FFT // 2, columns)


def inverse(spectrogram: npt.NDArray[Any], frames: int) -> Float32:
    """Signals of spectrograms laid out as :func:`forward` gives them.

    Args:
        spectrogram: float32 ``[signals, 2, 2048, columns]``.
        frames: Length wanted, columns = ceil(frames / 1024).

    Returns:
        float32 ``[signals, frames]``.
    """
    signals, _, bins, columns = spectrogram.shape
    out = np.zeros((signals, columns + N_FFT // HOP - 1, HOP), np.float32)
    for index in range(signals):  # one at a time keeps the scratch memory small
        spectrum = np.zeros((columns, bins + 1), np.complex64)
        spectrum.real[:, :-1] = spectrogram[index, 0].T
        spectrum.imag[:, :-1] = spectrogram[index, 1].T
        windows = _irfft(spectrum) * (_WINDOW * (_SCALE / _WINDOW_SQUARES))  # [columns, 4096]
        parts = windows.reshape(columns, N_FFT // HOP, HOP)
        for part in range(N_FFT // HOP):
            out[index, part : part + columns] += parts[:, part]
    # Column 0 here is Demucs' column 2, two hops in; frame 0 of the mix stands n_fft/2 + _PAD after column −2's start.
    first = N_FFT // 2 + _PAD - 2 * HOP
    return out.reshape(signals, -1)[:, first : first + frames]


def _rfft(x: Any) -> Any:
    return scipy.fft.rfft(x, axis=-1)  # keeps float32 → complex64, unlike numpy.fft before 2.0


def _irfft(x: npt.NDArray[np.complex64]) -> Any:
    return scipy.fft.irfft(x, n=N_FFT, axis=-1)
