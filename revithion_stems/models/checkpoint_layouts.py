"""Public RoFormer checkpoints in our networks: the map of their names onto ours, and the loading.

The layout is that of lucidrains' BS-RoFormer up to 0.4 and of ZFTurbo's Music-Source-Separation-Training, which
ViperX', Kimberley Jensen's and most other public checkpoints have. Shapes are the same as ours; only names differ, by
:data:`KEY_MAP`.

Nothing in a file chooses what code runs: pickles are read with ``weights_only``, and there is one class for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from revithion_stems.errors import ModelError
from revithion_stems.models.band_split_roformer import BandSplitRoformer
from revithion_stems.models.masked_spectrogram import BandMap
from revithion_stems.models.public_configs import PublicConfig, load_public_config
from revithion_stems.models.rotary_transformer import standard_turns

KEY_MAP: Final[tuple[tuple[str, str], ...]] = (
    ("band_split.to_features.{band}.0.gamma", "encoders.{band}.norm.gamma"),
    ("band_split.to_features.{band}.1.{part}", "encoders.{band}.linear.{part}"),
    ("layers.{block}.{axis}.layers.{layer}.0.norm.gamma", "blocks.{block}.{axis}.layers.{layer}.attention.norm.gamma"),
    (
        "layers.{block}.{axis}.layers.{layer}.0.to_qkv.weight",
        "blocks.{block}.{axis}.layers.{layer}.attention.queries_keys_values.weight",
    ),
    (
        "layers.{block}.{axis}.layers.{layer}.0.to_gates.{part}",
        "blocks.{block}.{axis}.layers.{layer}.attention.gates.{part}",
    ),
    (
        "layers.{block}.{axis}.layers.{layer}.0.to_out.0.weight",
        "blocks.{block}.{axis}.layers.{layer}.attention.out.weight",
    ),
    ("layers.{block}.{axis}.layers.{layer}.0.rotary_embed.freqs", "{axis}_turns"),
    (
        "layers.{block}.{axis}.layers.{layer}.1.net.0.gamma",
        "blocks.{block}.{axis}.layers.{layer}.feed_forward.norm.gamma",
    ),
    (
        "layers.{block}.{axis}.layers.{layer}.1.net.1.{part}",
        "blocks.{block}.{axis}.layers.{layer}.feed_forward.widen.{part}",
    ),
    (
        "layers.{block}.{axis}.layers.{layer}.1.net.4.{part}",
        "blocks.{block}.{axis}.layers.{layer}.feed_forward.narrow.{part}",
    ),
    ("layers.{block}.{axis}.norm.gamma", "blocks.{block}.{axis}.norm.gamma"),
    ("final_norm.gamma", "norm.gamma"),
    ("mask_estimators.{stem}.to_freqs.{band}.0.{step}.{part}", "decoders.{stem}.bands.{band}.layers.{step}.{part}"),
)
"""Public name → ours. ``{axis}`` is 0 in theirs and ``time`` in ours, or 1 and ``band``; ``{step}`` counts layers and
the functions between them in theirs (0, 2, 4) and layers in ours (0, 1, 2); ``{part}`` is ``weight`` or ``bias``. One
frequency table serves all transformers of an axis, and stands in each of them in a public file."""

_AXES: Final = {"0": "time", "1": "band"}
_CONTAINERS: Final = ("state_dict", "model_state_dict", "state", "model")
_NUMBER: Final = "[0-9]{1,4}"
_FIELDS: Final = {"axis": "[01]", "part": "weight|bias"}
_HINT: Final = (
    "Take checkpoint and YAML file from the same publication; docs/architectures.md says which are understood."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCheckpoint:
    """What was loaded.

    Attributes:
        architecture: As in :mod:`revithion_stems.models.architectures`.
        stems: Names, in the order of the network's output.
        sample_rate: Hz.
        segment_frames: Length that it is best run with, or None where the YAML file doesn't say.
        parameters: How many numbers were learnt.
    """

    architecture: str
    stems: tuple[str, ...]
    sample_rate: int
    segment_frames: int | None
    parameters: int


def load_public_checkpoint(checkpoint: Path, config: Path) -> tuple[BandSplitRoformer, PublicCheckpoint]:
    """A public checkpoint as one of our networks, in float32, ready to run.

    Args:
        checkpoint: ``.ckpt``, ``.pt``, ``.pth`` or ``.safetensors``.
        config: Its YAML file.

    Raises:
        ModelError: ``model.config``, ``model.unreadable`` or ``model.layout``: a file that can't be read, an option
            that we don't have, tensors that are missing, too many, or of other shapes.
    """
    public = load_public_config(config)
    state = our_layout(read_tensors(checkpoint), checkpoint.name)
    return _network(public, state, checkpoint.name)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by their names there, on the CPU.

    Raises:
        ModelError: ``model.unreadable``: not readable without executing something, or no tensors in it.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # three libraries parse here, each with errors of its own
        first = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ModelError(f"{path.name} can't be read: {first}", hint=_HINT, code="model.unreadable") from exc
    for container in _CONTAINERS:
        if isinstance(found, Mapping) and isinstance(cast(Mapping[Any, Any], found).get(container), Mapping):
            found = cast(Mapping[Any, Any], found)[container]
    tensors = {str(k): v for k, v in cast(Mapping[Any, Any], found).items()} if isinstance(found, Mapping) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ModelError(f"{path.name} does not hold tensors by name", hint=_HINT, code="model.unreadable")
    if all(key.startswith("module.") for key in tensors):  # saved while on several GPUs
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def our_layout(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Public tensors under our names.

    Args:
        tensors: By public names.
        name: Of the file, for messages.

    Raises:
        ModelError: ``model.layout``: a name that :data:`KEY_MAP` doesn't have, or tables of an axis that differ.
    """
    state: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        ours = _translate(key)
        if ours is None:
            raise ModelError(
                f"{name}: tensor {key!r} is of no layout that is known{_guess(key)}", hint=_HINT, code="model.layout"
            )
        if ours in state and not torch.equal(state[ours], tensor.float()):
            raise ModelError(f"{name}: its tables {key!r} differ from each other", hint=_HINT, code="model.layout")
        state[ours] = tensor.float()
    return state


def _network(public: PublicConfig, state: dict[str, Tensor], name: str) -> tuple[BandSplitRoformer, PublicCheckpoint]:
    # Shapes only, at first: sizes that the file doesn't bear out must not cost memory, nor weights be drawn in vain.
    with torch.device("meta"):
        network = BandSplitRoformer(public.config)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    for table in ("time_turns", "band_turns"):  # some files leave out what follows from head_dim
        state.setdefault(table, standard_turns(public.config.head_dim))
    missing = sorted(set(shapes) - set(state))
    surplus = sorted(set(state) - set(shapes))
    wrong = sorted(key for key in set(shapes) & set(state) if shapes[key] != state[key].shape)
    for keys, reason in (
        (missing, "is missing"),
        (surplus, "is not in the network that the YAML file describes"),
        (wrong, "has another shape than the YAML file says"),
    ):
        if keys:
            more = f" (and so {len(keys) - 1} more)" if len(keys) > 1 else ""
            shape = f": {tuple(state[keys[0]].shape)}, not {tuple(shapes[keys[0]])}" if keys is wrong else ""
            raise ModelError(f"{name}: {keys[0]} {reason}{shape}{more}", hint=_HINT, code="model.layout")
    network.load_state_dict(state, assign=True)
    network.band_map = BandMap(public.config.division)
    network.eval()
    return network, PublicCheckpoint(
        architecture=public.architecture,
        stems=public.config.stems,
        sample_rate=public.config.sample_rate,
        segment_frames=public.segment_frames,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def _pattern(theirs: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", theirs)
    # text and fields alternate; what is no word in the table is a number
    named = [re.escape(p) if i % 2 == 0 else f"(?P<{p}>{_FIELDS.get(p, _NUMBER)})" for i, p in enumerate(parts)]
    return re.compile("".join(named))


_PATTERNS: Final = tuple((_pattern(theirs), ours) for theirs, ours in KEY_MAP)


def _translate(key: str) -> str | None:
    for pattern, ours in _PATTERNS:
        if found := pattern.fullmatch(key):
            fields = found.groupdict()
            if "axis" in fields:
                fields["axis"] = _AXES[fields["axis"]]
            if "step" in fields:
                if int(fields["step"]) % 2:
                    return None
                fields["step"] = str(int(fields["step"]) // 2)
            return ours.format(**fields)
    return None


def _guess(key: str) -> str:
    if "temperature" in key or re.match(r"layers\.\d+\.2\.", key):
        return " (linear attention, which is not supported)"
    if "value_residual" in key or ".branch." in key:
        return " (value residuals or hyper-connections of BS-RoFormer 0.5 and later, which are not supported)"
    return ""
