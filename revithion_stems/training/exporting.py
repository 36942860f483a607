"""Finished networks as files for others: safetensors for any, ONNX for the causal one, each with a model card."""

from __future__ import annotations

import datetime
import enum
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from torch import nn

from revithion_stems.catalog import Quality
from revithion_stems.catalog_rules import NAME
from revithion_stems.digests import sha256_file
from revithion_stems.errors import RequestError
from revithion_stems.models import architectures
from revithion_stems.models.causal_preview import CausalPreview
from revithion_stems.network_files import NetworkFacts
from revithion_stems.output_errors import output_errors
from revithion_stems.training.datasets.multitrack import Origin
from revithion_stems.training.model_card import licence_that_follows, write_card
from revithion_stems.training.network_cost import gflop
from revithion_stems.version import __version__
from revithion_stems.weight_files import appearing

CAUSAL_SEGMENT = Fraction(12)
"""Seconds of audio that a causal network gets at once offline, where it starts cold each time."""

OFFLINE_SEGMENT = Fraction(10)
"""The same of others, where nothing else is known; as in validation."""


class ExportForm(enum.Enum):
    """What kind of file it becomes."""

    SAFETENSORS = "safetensors"
    """For ``separate``, ``evaluate`` and all that separates files."""
    ONNX = "onnx"
    """For ``live``: one column at a time, causal networks only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        weights: The network's file.
        card: The model card.
        facts: What the file says of itself.
    """

    weights: Path
    card: Path
    facts: NetworkFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Where a network comes from: what only its maker knows of it.

    Attributes:
        title: One line for people.
        origins: Of all that it was trained with.
        segment: Seconds that it shall get at once, or None for what is usual here.
        quality: Measured on songs that it did not learn from.
        provenance: Seed, steps, commit and the like, for people.
        notes: A paragraph more for the card.
    """

    title: str
    origins: Sequence[Origin] = ()
    segment: Fraction | None = None
    quality: tuple[Quality, ...] = ()
    provenance: dict[str, str]
    notes: str = ""


def export_network(
    network: nn.Module,
    made: Made,
    folder: Path,
    *,
    name: str,
    form: ExportForm = ExportForm.SAFETENSORS,
    licence: str | None = None,
    half: bool = False,
) -> Exported:
    """Writes a network and its card, each whole or not at all.

    Args:
        network: On the CPU, its learnt weights in it.
        made: See there.
        folder: Made if it is not there.
        name: Of the files, without an ending.
        form: Kind of file.
        licence: What its maker grants; see :func:`~revithion_stems.training.model_card.licence_that_follows`.
        half: ONNX: keep large weights in 16 bits, which halves the file.

    Raises:
        RequestError: A name that is none, or ONNX for a network that is not causal.
        OutputError: Something can't be written.
    """
    if not NAME.fullmatch(name):
        raise RequestError(
            f"name {name!r} is not 1–64 letters, digits, '_' and '-'", hint="Choose another with --name."
        )
    if form is ExportForm.ONNX and not isinstance(network, CausalPreview):
        raise RequestError(
            "only causal_preview networks become ONNX: the others hear the future",
            hint="Use --to safetensors; `separate --model` takes that file.",
        )
    facts = facts_of(network, made, licence=licence)
    path = folder / f"{name}.{form.value}"
    card = folder / f"{path.name}.md"  # both forms of a network may lie in one folder, and each has a digest
    with output_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
    if isinstance(network, CausalPreview) and form is ExportForm.ONNX:
        _write_graph(path, network, facts, half=half)
    else:
        write_network(path, network, facts)
    text = write_card(
        name,
        facts,
        made.origins,
        file=path.name,
        size=path.stat().st_size,
        sha256=sha256_file(path),
        notes=made.notes,
    )
    with output_errors(card), appearing(card) as part:
        part.write_text(text, encoding="utf-8")
    return Exported(weights=path, card=card, facts=facts)


def facts_of(network: nn.Module, made: Made, *, licence: str | None) -> NetworkFacts:
    """What the network's file will say of itself."""
    config: Any = network.config
    segment = made.segment or (CAUSAL_SEGMENT if isinstance(network, CausalPreview) else OFFLINE_SEGMENT)
    frames = int(segment * config.sample_rate)
    return NetworkFacts(
        title=made.title,
        architecture=_architecture_of(network),
        options=architectures.options_of(config),
        stems=tuple(config.stems),
        sample_rate=config.sample_rate,
        segment=str(segment),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        gflop_per_segment=round(gflop(network, frames, sample_rate=config.sample_rate), 3),
        licence=licence_that_follows(made.origins, licence),
        quality=made.quality,
        provenance={**made.provenance, **export_provenance()},
    )


def export_provenance() -> dict[str, str]:
    """Program, libraries and day of an export."""
    return {
        "exported by": f"revithion-stems {__version__}, torch {importlib.metadata.version('torch')}",
        "exported on": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write_network(path: Path, network: nn.Module, facts: NetworkFacts) -> None:
    """Writes a safetensors file, whole or not at all; the same bytes for the same network and facts.

    Raises:
        OutputError: It can't be written.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with output_errors(path), appearing(path) as part:
        part.write_bytes(save(state, facts.as_metadata()))


def _write_graph(path: Path, network: CausalPreview, facts: NetworkFacts, *, half: bool) -> None:
    from revithion_stems.models.causal_preview_onnx import step_graph

    said = {
        "title": facts.title,
        "licence": facts.licence.weights,
        "commercial_use": facts.licence.commercial_use,
        "note": facts.licence.note,
        **facts.provenance,
    }
    graph = step_graph(network, metadata=said, half=half)
    with output_errors(path), appearing(path) as part:
        part.write_bytes(graph.SerializeToString(deterministic=True))


def _architecture_of(network: nn.Module) -> str:
    config: Any = network.config
    return next(name for name, row in architectures.ARCHITECTURES.items() if row.config is type(config))
