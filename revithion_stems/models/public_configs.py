"""The YAML files that go with public RoFormer checkpoints, read into our configurations.

They are those of ZFTurbo's Music-Source-Separation-Training, which the community trains with: sections ``audio``,
``model`` (arguments of lucidrains' classes), ``training`` and ``inference``. Nothing in them is executed: the loader is
PyYAML's safe one, and knows ``!!python/tuple`` besides, as a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml

from revithion_stems.errors import ConfigError, ModelError
from revithion_stems.models.architectures import config_of
from revithion_stems.models.band_split_roformer import RoformerConfig

_MAX_BYTES: Final = 1 << 20

_RENAMED: Final = {
    "dim": "dim",
    "depth": "depth",
    "heads": "heads",
    "dim_head": "head_dim",
    "time_transformer_depth": "time_layers",
    "freq_transformer_depth": "band_layers",
    "stft_n_fft": "fft_frames",
    "stft_hop_length": "hop_frames",
    "mlp_expansion_factor": "mask_expansion",
    "attn_dropout": "attention_dropout",
    "ff_dropout": "dropout",
    "freqs_per_bands": "widths",
    "num_bands": "bands",
    "sample_rate": "sample_rate",
}
"""Options of the public classes → ours."""

_PUBLIC_DEFAULTS: Final[dict[str, Any]] = {
    "stereo": False,
    "stft_hop_length": 512,
    "stft_n_fft": 2048,
    "time_transformer_depth": 2,
    "freq_transformer_depth": 2,
}
"""Where the public classes' defaults differ from ours."""

_DEPTH_DEFAULTS: Final = {"bs_roformer": 2, "mel_band_roformer": 1}
"""Of ``mask_estimator_depth``."""

_WITHOUT_EFFECT: Final = frozenset(
    {
        # how it is computed, not what
        "flash_attn",
        "sage_attention",
        "use_torch_checkpoint",
        "dim_freqs_in",
        # a factor that the first norm takes out and the inverse transform puts back
        "stft_normalized",
        # ours are always as long as the mix
        "match_input_audio_length",
        # of the loss
        "multi_stft_resolution_loss_weight",
        "multi_stft_resolutions_window_sizes",
        "multi_stft_hop_size",
        "multi_stft_normalized",
    }
)

_ONLY: Final[dict[str, tuple[Any, ...]]] = {
    "stereo": (True,),
    "linear_transformer_depth": (0,),
    "skip_connection": (False, None),
    "zero_dc": (False, None),
    "use_pope": (False, None),
    "add_value_residual": (False, None),
    "num_residual_streams": (1,),
    "num_residual_fracs": (1,),
    "freq_range": (None,),
}
"""Options of which we have one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicConfig:
    """What a YAML file says of a checkpoint.

    Attributes:
        architecture: As in :mod:`revithion_stems.models.architectures`.
        config: Of the network.
        segment_frames: Length that it is best run with, or None where the file doesn't say.
    """

    architecture: str
    config: RoformerConfig
    segment_frames: int | None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, and tuples."""


def _tuple(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple that is not a sequence", node.start_mark)
    return loader.construct_sequence(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def load_public_config(path: Path) -> PublicConfig:
    """Reads a YAML file.

    Raises:
        ModelError: ``model.config``: it can't be read, or describes something that our networks are not.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ModelError(f"{path.name} is over 1 MB: no configuration", hint=_HINT, code="model.config")
        said: Any = yaml.load(content, Loader=_Loader)
    except (
        OSError,
        ValueError,
        yaml.YAMLError,
        RecursionError,
    ) as exc:  # ValueError: text, dates, numbers that are none
        first = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ModelError(f"{path.name} can't be read: {first}", hint=_HINT, code="model.config") from exc
    return parse_public_config(said, path.name)


def parse_public_config(said: Any, name: str) -> PublicConfig:
    """A configuration from what a YAML file holds.

    Args:
        said: As the loader gives it.
        name: Of the file, for messages.

    Raises:
        ModelError: As :func:`load_public_config`.
    """
    model, audio = _section(said, "model", name), _section(said, "audio", name)
    architecture = _architecture(said, model, name)
    options: dict[str, Any] = {"stems": _stems(said, model, name)}
    for key, value in {**_PUBLIC_DEFAULTS, **model}.items():
        if key in _RENAMED:
            options[_RENAMED[key]] = value
        elif key in _ONLY:
            if value not in _ONLY[key]:
                raise _refusal(name, f"{key}: {value!r} is not supported, only {_ONLY[key][0]!r}")
        elif key not in _WITHOUT_EFFECT and key not in ("num_stems", "mask_estimator_depth", "stft_win_length"):
            raise _refusal(name, f"the option {key!r} is unknown, and may change the network")
    if model.get("stft_win_length", options["fft_frames"]) != options["fft_frames"]:
        raise _refusal(name, "a window shorter than the transform is not supported")
    options.setdefault("sample_rate", audio.get("sample_rate", 44_100))
    depth = model.get("mask_estimator_depth", _DEPTH_DEFAULTS[architecture])
    # The two public classes count differently: the linear layers in one, the hidden ones in the other.
    if isinstance(depth, int):
        options["mask_layers"] = depth - 1 if architecture == "bs_roformer" else depth
    try:
        config = cast(RoformerConfig, config_of(architecture, options))
    except ConfigError as exc:
        raise _refusal(name, exc.message) from exc
    segment = _section(said, "inference", name).get("chunk_size", audio.get("chunk_size"))
    return PublicConfig(
        architecture=architecture,
        config=config,
        segment_frames=segment if isinstance(segment, int) and segment > 0 else None,
    )


_HINT: Final = (
    "Take the YAML file that was published with the checkpoint; docs/architectures.md says which are understood."
)


def _architecture(said: Any, model: Mapping[str, Any], name: str) -> str:
    # Training code is told the kind on its command line; the file itself shows it by the bands.
    if ("num_bands" in model) != ("freqs_per_bands" in model):
        return "mel_band_roformer" if "num_bands" in model else "bs_roformer"
    kind = _section(said, "training", name).get("model_type")
    if isinstance(kind, str) and kind in _DEPTH_DEFAULTS and "num_bands" not in model:
        return kind
    raise _refusal(name, "neither freqs_per_bands (BS-RoFormer) nor num_bands (Mel-Band RoFormer) says what it is")


def _stems(said: Any, model: Mapping[str, Any], name: str) -> list[str]:
    training = _section(said, "training", name)
    target, instruments = training.get("target_instrument"), training.get("instruments")
    count = model.get("num_stems", 1)
    names = [target] if target is not None else instruments
    if not isinstance(names, list) or not all(isinstance(stem, str) for stem in cast(list[Any], names)):
        raise _refusal(name, "training.instruments and target_instrument don't name the stems")
    if len(cast(list[str], names)) != count:
        raise _refusal(name, f"num_stems is {count!r}, and the stems are {', '.join(cast(list[str], names))}")
    return cast(list[str], names)


def _section(said: Any, key: str, name: str) -> dict[str, Any]:
    section = cast(dict[Any, Any], said).get(key, {}) if isinstance(said, dict) else None
    if not isinstance(section, dict) or (key == "model" and not section):
        raise _refusal(name, f"its section {key!r} is missing or not a table")
    return {str(k): v for k, v in cast(dict[Any, Any], section).items()}


def _refusal(name: str, reason: str) -> ModelError:
    return ModelError(f"{name}: {reason}", hint=_HINT, code="model.config")
