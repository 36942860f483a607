"""Networks of :mod:`revithion_stems.models.architectures` out of self-described files, by PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import EngineOptions, Separator, WeightsPath
from revithion_stems.engines.torch_errors import torch_errors
from revithion_stems.errors import ConfigError, ModelError
from revithion_stems.models import architectures
from revithion_stems.models.causal_preview import CausalPreview
from revithion_stems.models.causal_song import separate_causally
from revithion_stems.network_files import NetworkFacts, read_facts


def load(spec: ModelSpec, paths: Sequence[WeightsPath], options: EngineOptions) -> list[Separator]:
    """A separator per file; see :data:`revithion_stems.engines.Factory`."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return [TrainedTorch(load_network(path)[0], spec, options) for _, path in paths]


_MAKERS: Final = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.arange})


class TrainedTorch:
    """One network, given segments of one length, with the rest as one more stem where the network has none for it."""

    def __init__(self, network: nn.Module, spec: ModelSpec, options: EngineOptions) -> None:
        self._network = network.eval().to(options.device)
        self._device = options.device
        self._frames = spec.segment_frames
        self._stems = len(spec.stems)

    def begin(self) -> None:
        """See :meth:`revithion_stems.engines.Separator.begin`: segments don't know of each other."""

    @property
    def remark(self) -> str | None:
        """See :attr:`revithion_stems.engines.Separator.remark`."""
        return None

    @property
    def settled(self) -> bool:
        """See :attr:`revithion_stems.engines.Separator.settled`."""
        return True

    def separate_segment(self, mix: Float32) -> Float32:
        """See :meth:`revithion_stems.engines.Separator.separate_segment`."""
        frames = mix.shape[1]
        padded = np.pad(mix, ((0, 0), (0, max(0, self._frames - frames)))).astype(np.float32)  # [2, segment]
        with torch_errors(self._device), torch.inference_mode():
            out = separate(self._network, torch.from_numpy(padded)[None].to(self._device))  # [1, S, 2, segment]
            stems: Float32 = out[0, ..., :frames].float().cpu().numpy()  # [S, 2, frames]
        if len(stems) == self._stems:
            return stems
        return np.concatenate([stems, (mix - stems.sum(axis=0))[None]])  # [S + 1, 2, frames]


def separate(network: nn.Module, mix: Tensor) -> Tensor:
    """The stems of mixes, whatever the network's own convention: a causal one takes spectra and starts cold.

    Args:
        network: Of :mod:`revithion_stems.models.architectures`.
        mix: float32 ``[B, 2, n]``.

    Returns:
        float32 ``[B, S, 2, n]``, without delay.
    """
    if not isinstance(network, CausalPreview):
        return network(mix)
    return separate_causally(network, mix)


def load_network(path: Path) -> tuple[nn.Module, NetworkFacts]:
    """The network in a file, on the CPU, and what the file says of it.

    Its class comes from the static table of architectures, and whatever the options say, it takes no more memory than
    the file accounts for.

    Raises:
        ModelError: The file can't be read, or its tensors are not those of the network that it names.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = read_facts(path)
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise _misfit(path, f"can't be read: {exc}") from exc
    try:
        with _Bounded(tensors=len(state), elements=sum(tensor.numel() for tensor in state.values())):
            network = architectures.build(facts.architecture, facts.options)
    except (ConfigError, ValueError, ArithmeticError, RuntimeError, MemoryError) as exc:  # options that nobody checks
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise _misfit(path, f"names a network that can't be built: {reason}") from exc
    config: Any = network.config
    if (tuple(config.stems), config.sample_rate) != (facts.stems, facts.sample_rate):
        raise _misfit(path, "says other stems or another rate of itself than its network has")
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise _misfit(path, f"is not a {facts.architecture} of those options: tensor {wrong[0]!r} does not fit")
    network.load_state_dict(state)
    return network, facts


class _Bounded(TorchFunctionMode):
    """Refuses to make more and larger tensors than a file's network can need, before their memory is taken.

    Twice what is in the file, for initial values on their way, and a little for windows and tables.
    """

    def __init__(self, *, tensors: int, elements: int) -> None:
        super().__init__()
        self._tensors = 2 * tensors + 256
        self._elements = 2 * elements + (1 << 20)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in _MAKERS:
            self._tensors -= 1
            self._elements -= func(*args, **{**given, "device": "meta"}).numel()
            if min(self._tensors, self._elements) < 0:
                raise ValueError("it is larger than the file")
        return func(*args, **given)


def _misfit(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} {what}",
        hint="Use a file that `revithion-stems models export` wrote, with this version or an older one.",
        code="model.unreadable",
    )
