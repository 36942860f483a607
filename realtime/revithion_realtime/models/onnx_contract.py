"""What an ONNX graph that plays live says of itself; ``realtime/MODELS.md`` is the authority.

It says so in its ``metadata_props`` under keys that begin with ``revithion.``, or in a TOML file of the same name
beside it, with the same keys less that beginning. Graphs of StemgenRT say the same under names of their own, which are
translated (``hs_tasnet.…``: github.com/sweetspotsoundsystem/HS-TasNet, ``models/README.md`` and its exporter).
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from revithion_stems.errors import LiveError

PREFIX = "revithion."
STEMGEN_PREFIX = "hs_tasnet."
_FROM_STEMGEN = {
    "source_order": "stems",
    "sample_rate": "sample_rate",
    "hop_samples": "hop",
    "graph_output_delay_samples": "latency",
}

StemName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Frames = Annotated[int, msgspec.Meta(ge=1, le=65_536)]


class GraphKind(enum.Enum):
    """What goes in and out: a hop of samples, or one column of a spectrogram."""

    WAVEFORM = "waveform"
    SPECTRUM = "spectrum"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphContract:
    """How a graph is to be run.

    Attributes:
        kind: What goes in and out.
        stems: Names, in the order of the output.
        sample_rate: Hz that it was trained at.
        hop: Frames from one call to the next.
        latency: Waveform: by how many frames a call's output is later than its input.
        analysis: Spectrum: frames of the analysis window; there are half as many bins and one more.
        synthesis: Spectrum: frames of the synthesis window.
    """

    kind: GraphKind
    stems: Annotated[tuple[StemName, ...], msgspec.Meta(min_length=2, max_length=16)]
    sample_rate: Annotated[int, msgspec.Meta(ge=8_000, le=192_000)]
    hop: Frames
    latency: Annotated[int, msgspec.Meta(ge=0, le=1_048_576)] | None = None
    analysis: Frames | None = None
    synthesis: Frames | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the audio that goes in."""
        return (1, 2, *self._column)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the stems that come out."""
        return (1, len(self.stems), 2, *self._column)

    @property
    def _column(self) -> tuple[int, ...]:
        return (self.hop,) if self.analysis is None else (self.analysis // 2 + 1, 2)


def read_contract(path: Path, metadata: Mapping[str, str]) -> GraphContract:
    """The contract of a graph, from its metadata or else from the TOML file beside it.

    Args:
        path: Of the graph.
        metadata: Its ``metadata_props``.

    Raises:
        LiveError: ``live.model``: nothing is said, or what is said is incomplete or out of range.
    """
    beside = path.with_suffix(".toml")
    if own := _without(PREFIX, metadata):
        return _convert(own, f"the metadata of {path.name}")
    if foreign := _without(STEMGEN_PREFIX, metadata):
        translated = {ours: foreign[theirs] for theirs, ours in _FROM_STEMGEN.items() if theirs in foreign}
        return _convert({"kind": "waveform", **translated}, f"the metadata of {path.name}")
    try:
        return _convert(tomllib.loads(beside.read_text(encoding="utf-8")), beside.name)
    except FileNotFoundError:
        raise contract_error(
            f"{path.name} does not say how it is run: its metadata has no {PREFIX} keys, and there is no {beside.name}"
        ) from None
    except (OSError, ValueError, RecursionError) as exc:  # ValueError: bad TOML, or not UTF-8
        raise contract_error(f"{beside.name} can't be read: {exc}") from exc


def contract_error(reason: str) -> LiveError:
    """The error of a graph that can't be played, for ``reason``."""
    return LiveError(
        reason,
        hint="Export it as realtime/MODELS.md says, or use another --model: `revithion-stems live --help`.",
        code="live.model",
    )


def _without(prefix: str, metadata: Mapping[str, str]) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}


def _convert(said: Mapping[str, Any], origin: str) -> GraphContract:
    fields = dict(said)
    if isinstance(names := fields.get("stems"), str):
        fields["stems"] = [name.strip() for name in names.split(",")]
    try:
        contract = msgspec.convert(fields, GraphContract, strict=False)
    except msgspec.ValidationError as exc:
        raise contract_error(f"{origin}: {exc}") from exc
    if len(set(contract.stems)) != len(contract.stems):
        raise contract_error(f"{origin}: stems names one twice: {', '.join(contract.stems)}")
    _check_delay(contract, origin)
    return contract


def _check_delay(contract: GraphContract, origin: str) -> None:
    given = [name for name in ("latency", "analysis", "synthesis") if getattr(contract, name) is not None]
    wanted = {GraphKind.WAVEFORM: ["latency"], GraphKind.SPECTRUM: ["analysis", "synthesis"]}[contract.kind]
    if given != wanted:
        raise contract_error(
            f"{origin}: a {contract.kind.value} graph states {' and '.join(wanted)}; "
            f"this one states {' and '.join(given) or 'neither'}"
        )
