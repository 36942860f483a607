"""What a training run is made of, as a TOML file says it. ``docs/training.md`` explains each key by example."""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from revithion_stems.errors import ConfigError
from revithion_stems.training.augment_config import AugmentConfig
from revithion_stems.training.datasets.dataset_config import DatasetConfig

Positive = Annotated[int, msgspec.Meta(ge=1)]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, msgspec.Meta(ge=0.0)]


class Precision(enum.Enum):
    """What networks are trained in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class LossWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much each loss counts; see :mod:`revithion_stems.training.losses`. One of weight 0 is not computed.

    Attributes:
        error: Root of error over mix of the spectrograms.
        sdr: Error over target of the spectrograms, in dB / 10.
        magnitude: L1 of magnitudes.
        complex: L1 of real and imaginary parts: phases count.
        multi_resolution: L1 of magnitudes, of the samples, at three resolutions.
        si_sdr: Scale-invariant SDR of the samples, in dB / 10.
    """

    error: Weight = 1.0
    sdr: Weight = 0.0
    magnitude: Weight = 0.0
    complex: Weight = 0.0
    multi_resolution: Weight = 0.0
    si_sdr: Weight = 0.0

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in self.__struct_fields__):
            raise ValueError("one loss at least must have a weight above 0")


class OptimiserKind(enum.Enum):
    """What moves the weights."""

    ADAMW = "adamw"
    MUON = "muon"


class OptimiserConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What moves the weights, and how its rate goes: a rise, a plateau, a fall to zero at the end.

    Attributes:
        kind: AdamW, or Muon, which learns faster per step and has AdamW for vectors.
        learning_rate: Of the plateau.
        weight_decay: On matrices; biases and norms have none.
        betas: Of AdamW.
        warmup_steps: Of the rise.
        decay_steps: Of the fall; it ends with the last step.
        clip_norm: Gradients are scaled to have no larger norm than that.
        accumulate: Batches per step.
        ema_decay: Of the running mean of the weights, which is what is validated and exported.
    """

    kind: OptimiserKind = OptimiserKind.ADAMW
    learning_rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 1e-3
    weight_decay: Weight = 1e-2
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    warmup_steps: Annotated[int, msgspec.Meta(ge=0)] = 100
    decay_steps: Annotated[int, msgspec.Meta(ge=0)] = 1000
    clip_norm: Annotated[float, msgspec.Meta(gt=0.0)] = 5.0
    accumulate: Positive = 1
    ema_decay: Fraction = 0.999


class ExampleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a batch holds.

    Attributes:
        seconds: Of an example.
        batch: Examples of a batch, on each process.
        remix: Probability that an example's stems come from different songs.
        absent: Probability of each stem to be left out of an example.
        workers: Processes that prepare batches; with 0 the training itself does.
    """

    seconds: Annotated[float, msgspec.Meta(gt=0.0, le=60.0)] = 3.0
    batch: Positive = 8
    remix: Fraction = 0.5
    absent: Fraction = 0.05
    workers: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1


class ValidationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the network is tried on songs that it does not learn from.

    Attributes:
        every_steps: Between validations; a checkpoint is written then too.
        patience: Validations without a better one, after which training ends; 0: never.
        max_seconds: Of each song, from its beginning; keeps long libraries from taking longer than the training.
    """

    every_steps: Positive = 500
    patience: Annotated[int, msgspec.Meta(ge=0)] = 0
    max_seconds: Annotated[float, msgspec.Meta(gt=0.0)] = 120.0


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training run.

    Attributes:
        name: Of the model that comes out: small letters, digits, ``_`` and ``-``.
        architecture: As in :mod:`revithion_stems.models.architectures`.
        model: Options of the architecture, its stems among them.
        data: To learn from.
        validation_data: To be tried on, and never learnt from.
        steps: Of the optimiser, altogether.
        seed: Of the weights, the choice of examples and their augmentation.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: Of the network's arithmetic.
        threads: Of the CPU, None: as many as PyTorch takes.
        initial: A checkpoint whose weights to begin with instead of random ones.
        examples, augment, losses, optimiser, validation: See there.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    architecture: str
    model: dict[str, Any] = msgspec.field(default_factory=dict)
    data: Annotated[tuple[DatasetConfig, ...], msgspec.Meta(min_length=1)]
    validation_data: tuple[DatasetConfig, ...] = ()
    steps: Positive
    seed: int = 0
    device: str = "cpu"
    precision: Precision = Precision.FLOAT32
    threads: Positive | None = None
    initial: Path | None = None
    examples: ExampleConfig = ExampleConfig()
    augment: AugmentConfig = AugmentConfig()
    losses: LossWeights = LossWeights()
    optimiser: OptimiserConfig = OptimiserConfig()
    validation: ValidationConfig = ValidationConfig()


def load_train_config(path: Path) -> TrainConfig:
    """Reads a configuration; paths in it are relative to its folder.

    Raises:
        ConfigError: It can't be read, or a value is not what it may be; the message names the key.
    """
    try:
        return parse_train_config(tomllib.loads(path.read_text(encoding="utf-8")), path.parent)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(
            f"{path} can't be read: {exc}", hint="docs/training.md has examples to begin with.", code="config.train"
        ) from exc


def parse_train_config(said: Mapping[str, Any], folder: Path) -> TrainConfig:
    """A configuration from its tables.

    Args:
        said: As TOML gives it.
        folder: That relative paths start from.

    Raises:
        ConfigError: As :func:`load_train_config`.
    """
    try:
        return _rooted(config_from_plain(said), folder.absolute())
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"training configuration: {exc}", hint="docs/training.md lists the keys.", code="config.train"
        ) from exc


def config_from_plain(said: Mapping[str, Any]) -> TrainConfig:
    """The reverse of :func:`config_as_plain`.

    Raises:
        msgspec.ValidationError: An unknown key, or a value that it can't have.
    """
    return msgspec.convert(dict(said), TrainConfig, dec_hook=lambda kind, value: kind(value))


def config_as_plain(config: TrainConfig) -> dict[str, Any]:
    """A configuration as plain data, for JSON and TOML."""
    return msgspec.to_builtins(config, enc_hook=str)


def _rooted(config: TrainConfig, folder: Path) -> TrainConfig:
    return msgspec.structs.replace(
        config,
        data=tuple(item.rooted(folder) for item in config.data),
        validation_data=tuple(item.rooted(folder) for item in config.validation_data),
        initial=None if config.initial is None else folder / config.initial.expanduser(),
    )
