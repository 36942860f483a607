"""Networks that describe themselves: a safetensors file whose header says all that the catalog says of its models.

``models export`` writes them, and ``--model PATH.safetensors`` takes them. The header names an architecture of this
program and gives its options; it can't choose any other code. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from revithion_stems.catalog import (
    Architecture,
    Catalog,
    Licence,
    ModelSpec,
    Network,
    Quality,
    WeightsFile,
    WeightsFormat,
)
from revithion_stems.catalog_rules import check_model
from revithion_stems.digests import sha256_file
from revithion_stems.errors import ModelError

SUFFIX = ".safetensors"
LAYOUT = "revithion-stems/network/1"
_KEY = "revithion_stems"
_MOST_TEXT = 1 << 20
_LARGEST_NUMBER = 1 << 18  # above any sample rate
_MOST_ITEMS = 4096
_RESTS = ("other", "accompaniment", "instrumental")


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a network file says of itself.

    Attributes:
        layout: Name and version of these fields.
        title: One line for people.
        architecture: As in :mod:`revithion_stems.models.architectures`.
        options: Of the architecture; its config dataclass checks them.
        stems: That the network gives, in its order.
        sample_rate: Hz.
        segment: Seconds per run of the network, as a fraction (``39/5``).
        parameters: How many weights.
        gflop_per_segment: Arithmetic of a run, in 10^9 floating point operations.
        licence: Of the weights.
        quality: Measured on songs that it did not learn from; empty where nobody did.
        provenance: Where it comes from, for people: seed, steps, commit, versions, date.
    """

    layout: Literal["revithion-stems/network/1"] = LAYOUT
    title: str
    architecture: str
    options: dict[str, Any]
    stems: tuple[str, ...]
    sample_rate: int
    segment: str
    parameters: int
    gflop_per_segment: float
    licence: Licence
    quality: tuple[Quality, ...] = ()
    provenance: dict[str, str] = {}

    def as_metadata(self) -> dict[str, str]:
        """The facts as safetensors' header takes them; under one key, since it writes several in any order."""
        return {_KEY: msgspec.json.encode(self).decode()}


def is_network_file(model: str) -> bool:
    """Whether what ``--model`` got is the path of a network file, and not a name of the catalog."""
    return model.lower().endswith(SUFFIX)


def read_facts(path: Path) -> NetworkFacts:
    """What a network file says of itself; its tensors are not read.

    Raises:
        ModelError: ``model.missing`` or ``model.unreadable``: it isn't there, or isn't such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:  # pyright: ignore[reportUnknownVariableType]
            metadata: Mapping[str, str] = file.metadata() or {}
    except FileNotFoundError as exc:
        if path.exists():  # safetensors says so of files that it may not open, too
            raise _unreadable(path, "can't be opened: see whether you may read it") from exc
        raise ModelError(
            f"no such file: {path}",
            hint="Name a file that `revithion-stems models export` wrote, or a model that `models list` shows.",
            code="model.missing",
        ) from exc
    except (OSError, SafetensorError) as exc:
        raise _unreadable(path, f"is not a safetensors file: {exc}") from exc
    text = metadata.get(_KEY)
    if text is None:
        raise _unreadable(path, "does not say what network it holds")
    if len(text) > _MOST_TEXT:
        raise _unreadable(path, f"says more than {_MOST_TEXT} characters about itself")
    try:
        facts = msgspec.json.decode(text, type=NetworkFacts)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _unreadable(path, f"does not say well what network it holds: {exc}") from exc
    _check_options(path, facts.options)
    return facts


def open_network_file(path: Path) -> ModelSpec:
    """A network file as a model, as if it stood in the catalog; its content is hashed.

    Its name is the file's. The weights file's ``name`` is an absolute path, which a store joins to its folder like any
    other name and gets that path: the file stays where it is, and is verified against the digest taken here.

    Raises:
        ModelError: As :func:`read_facts`; or what it says can't be.
    """
    path = path.absolute()
    facts = read_facts(path)
    stems = delivered_stems(facts.stems)
    spec = ModelSpec(
        name=re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).lstrip("_-")[:64] or "network",
        title=facts.title,
        architecture=Architecture.TRAINED,
        stems=stems,
        residual_stem=next(filter(_is_rest, stems), ""),
        sample_rate=facts.sample_rate,
        segment=facts.segment,
        segment_fixed=True,
        parameters=facts.parameters,
        gflop_per_segment=facts.gflop_per_segment,
        licence=facts.licence,
        quality=facts.quality,
    )
    try:
        check_model(spec)
    except ValueError as exc:
        raise _unreadable(path, f"holds no model that can be: {exc}") from exc
    try:
        digest, size = sha256_file(path), path.stat().st_size
    except OSError as exc:
        raise _unreadable(path, f"can't be read: {exc.strerror or exc}") from exc
    file = WeightsFile(
        name=str(path), format=WeightsFormat.SAFETENSORS, sources=(path.as_uri(),), size=size, sha256=digest
    )
    network = Network(signature=facts.architecture, stem_weights=(1.0,) * len(stems), files=(file,))
    return dataclasses.replace(spec, networks=(network,))


def named_model(model: str, catalog: Catalog) -> ModelSpec:
    """What ``--model`` got as a model: a network file by its path, or a row of the catalog by its name.

    Raises:
        ModelError: There is none.
    """
    if is_network_file(model):
        return open_network_file(Path(model))
    if model.lower().endswith(".onnx"):
        raise ModelError(
            f"{model} is a graph for `live`, which hears one column at a time",
            hint=f"For files export the same training with --to safetensors, and name the {SUFFIX} file.",
            code="model.unknown",
        )
    return catalog[model]


def delivered_stems(stems: tuple[str, ...]) -> tuple[str, ...]:
    """The stems of a model whose network gives ``stems``: one for the rest is added where none of them is for it.

    It is called ``no_vocals`` beside ``vocals``, as with ``--two-stems``, and ``other`` beside several.
    """
    if not stems or any(map(_is_rest, stems)):
        return stems
    return (*stems, f"no_{stems[0]}" if len(stems) == 1 else "other")


def _is_rest(stem: str) -> bool:
    return stem in _RESTS or stem.startswith("no_")


def _check_options(path: Path, value: Any) -> None:
    """Refuses numbers and lists that no network has: an architecture may make a table of that size from one.

    That a network as a whole is not larger than its file is checked where it is built.
    """
    match value:
        case bool() | None | str():
            pass
        case int() | float() if abs(value) <= _LARGEST_NUMBER:  # NaN is not
            pass
        case list() | dict() if len(value) <= _MOST_ITEMS:  # pyright: ignore[reportUnknownArgumentType]
            for item in value.values() if isinstance(value, dict) else value:  # pyright: ignore[reportUnknownVariableType]
                _check_options(path, item)
        case _:
            raise _unreadable(path, f"has an option out of range: {str(value)[:40]}")


def _unreadable(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path} {what}",
        hint="Use a file that `revithion-stems models export` wrote; it also converts public RoFormer checkpoints.",
        code="model.unreadable",
    )
