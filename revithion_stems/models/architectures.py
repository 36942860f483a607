"""The architectures that this program knows, by name, and named sizes of them. No file and no request can add one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

import msgspec
from torch import nn

from revithion_stems.catalog_rules import NAME
from revithion_stems.errors import ConfigError
from revithion_stems.models.band_split_roformer import BandSplitRoformer, BandSplitRoformerConfig, MelBandRoformerConfig
from revithion_stems.models.bands import BSRNN_TABLES
from revithion_stems.models.bsrnn import Bsrnn, BsrnnConfig
from revithion_stems.models.causal_preview import CausalPreview, CausalPreviewConfig

PRESET: Final = "preset"
"""The option that names a preset; the other options go over it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureRow:
    """An architecture.

    Attributes:
        config: Dataclass of its options.
        network: Makes the network of them.
        causal: True: ``forward(spectrum, state) -> (masks, state)``, for streaming; see
            :class:`~revithion_stems.models.causal_preview.CausalPreview`. False:
            ``forward(mix [B, 2, frames]) -> stems [B, S, 2, frames]``.
        presets: Options by name.
    """

    config: type[Any]
    network: Callable[[Any], nn.Module]
    causal: bool = False
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_BSRNN_PRESETS: Final = {
    target: {"stems": [target], "bands": [list(step) for step in table]} for target, table in BSRNN_TABLES.items()
}
_LITE: Final = {"dim": 128, "depth": 4, "heads": 4, "head_dim": 32, "hop_frames": 512}

ARCHITECTURES: Final[Mapping[str, ArchitectureRow]] = MappingProxyType(
    {
        "bsrnn": ArchitectureRow(
            config=BsrnnConfig,
            network=Bsrnn,
            presets={
                **_BSRNN_PRESETS,
                "lite": {"dim": 64, "blocks": 6},
            },
        ),
        "bs_roformer": ArchitectureRow(
            config=BandSplitRoformerConfig,
            network=BandSplitRoformer,
            presets={
                "lite": _LITE,
                "paper_l6": {"dim": 384, "depth": 6, "heads": 8, "head_dim": 48},
                "paper_l12": {"dim": 384, "depth": 12, "heads": 8, "head_dim": 48},
                "viperx_1297": {"dim": 512, "depth": 12, "heads": 8, "head_dim": 64},
            },
        ),
        "mel_band_roformer": ArchitectureRow(
            config=MelBandRoformerConfig,
            network=BandSplitRoformer,
            presets={
                "lite": {**_LITE, "mask_layers": 1},
                "kim": {"dim": 384, "depth": 6, "heads": 8, "head_dim": 64},
                "viperx_1143": {"dim": 384, "depth": 12, "heads": 8, "head_dim": 64},
            },
        ),
        "causal_preview": ArchitectureRow(config=CausalPreviewConfig, network=CausalPreview, causal=True),
    }
)
"""Names are part of training configurations and of exported models: they don't change."""


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """A network with random weights.

    Args:
        name: Of :data:`ARCHITECTURES`.
        options: Of its config, as plain data; what is missing is the preset's (``preset``), else the default.

    Raises:
        ConfigError: ``config.model``: an unknown architecture, preset or option, or a value that it can't have.
    """
    return row_of(name).network(config_of(name, options))


def config_of(name: str, options: Mapping[str, Any]) -> Any:
    """The sizes of a network, checked; arguments and errors as :func:`build`."""
    row = row_of(name)
    said = dict(options)
    preset = said.pop(PRESET, None)
    if preset is not None:
        if not isinstance(preset, str) or preset not in row.presets:
            raise ConfigError(
                f"{name} has no preset {preset!r} (it has: {', '.join(row.presets) or 'none'})",
                hint="Name one of these, or leave preset out; docs/architectures.md shows them.",
                code="config.model",
            )
        said = {**row.presets[preset], **said}
    known = [f.name for f in fields(row.config) if f.init]
    if unknown := sorted(set(said) - set(known)):
        raise ConfigError(
            f"{name} has no option {unknown[0]!r} (it has: {', '.join(known)})",
            hint="Correct the name, or leave it out; docs/architectures.md explains them.",
            code="config.model",
        )
    try:
        config = msgspec.convert(said, row.config, strict=True)
        if len(set(config.stems)) != len(config.stems) or not all(map(NAME.fullmatch, config.stems)):
            raise msgspec.ValidationError("stems are distinct names of 1–64 letters, digits, '_' and '-'")
        return config
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"options of {name}: {exc}", hint="docs/architectures.md says what each may be.", code="config.model"
        ) from exc


def row_of(name: str) -> ArchitectureRow:
    """An architecture by name.

    Raises:
        ConfigError: ``config.model``: there is none of that name.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise ConfigError(
            f"there is no architecture {name!r} (there are: {', '.join(ARCHITECTURES)})",
            hint="Name one of these.",
            code="config.model",
        ) from None


def options_of(config: Any) -> dict[str, Any]:
    """The sizes of a network as plain data for JSON; :func:`build` makes the same network of it.

    Args:
        config: What :func:`config_of` gives, or a network's ``config``.
    """
    said = {f.name: getattr(config, f.name) for f in fields(config) if f.init}
    return msgspec.json.decode(msgspec.json.encode(said))  # lists for tuples, as JSON reads them back
