"""What a network was made of and what follows for who uses it, as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from revithion_stems.catalog import Licence, load_catalog
from revithion_stems.network_files import NetworkFacts, delivered_stems
from revithion_stems.training.datasets.multitrack import Origin

OWN_LABELS = frozenset({"recorded", "rendered"})
"""Labels of an origin that no teacher made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherTerms:
    """A network that labelled material, and what its weights allow.

    Attributes:
        name: As origins name it.
        terms: Licence of its weights.
        commercial_use: Whether they plainly allow that.
    """

    name: str
    terms: str
    commercial_use: bool


def teachers_of(origins: Sequence[Origin]) -> tuple[TeacherTerms, ...]:
    """The teachers behind the labels, each once. One that the catalog does not know counts as of unknown terms."""
    known = {spec.name: spec.licence for spec in load_catalog().models}
    found: list[TeacherTerms] = []
    for name in dict.fromkeys(origin.labels for origin in origins if origin.labels not in OWN_LABELS):
        licence = known.get(name)
        terms = "unknown terms" if licence is None else licence.weights
        allowed = licence is not None and licence.commercial_use == "yes"
        found.append(TeacherTerms(name=name, terms=terms, commercial_use=allowed))
    return tuple(found)


def licence_that_follows(origins: Sequence[Origin], stated: str | None) -> Licence:
    """The terms of weights made of that material.

    One source or teacher that does not plainly allow commercial use decides for all: what was learnt from it can't be
    taken out again. That is caution, not law: whether weights are a derived work at all differs from place to place.

    Args:
        origins: Of all material, training and starting point alike; none at all counts as unknown.
        stated: What whoever trained it grants, as far as it is theirs to grant; SPDX where possible.
    """
    barred = [f"{origin.dataset} ({origin.licence})" for origin in origins if not origin.commercial_use]
    barred += [
        f"the teacher {teacher.name} ({teacher.terms})"
        for teacher in teachers_of(origins)
        if not teacher.commercial_use
    ]
    barred = list(dict.fromkeys(barred))
    source = "the model card beside the file"
    if barred:
        note = f"Not for commercial use: trained with {_listed(barred)}."
        return Licence(weights=stated or "non-commercial", commercial_use="no", note=note, source=source)
    if not origins:
        note = "What it was trained with is not recorded."
        return Licence(weights=stated or "not stated", commercial_use="unclear", note=note, source=source)
    if stated is None:
        note = "All material allows commercial use; whoever trained it has stated no licence."
        return Licence(weights="not stated", commercial_use="unclear", note=note, source=source)
    note = "All material allows commercial use."
    return Licence(weights=stated, commercial_use="yes", note=note, source=source)


def write_card(
    name: str, facts: NetworkFacts, origins: Sequence[Origin], *, file: str, size: int, sha256: str, notes: str = ""
) -> str:
    """The card, in Markdown.

    Args:
        name: Of the model.
        facts: What the network file says of itself.
        origins: Of the material.
        file: Name of the weights file beside the card.
        size: Of that file, in bytes.
        sha256: Of that file.
        notes: A paragraph more, such as what was not measured.
    """
    licence = facts.licence
    lines = [
        f"# {name}",
        "",
        f"{facts.title}.",
        "",
        f"Licence of the weights: **{licence.weights}**; commercial use: **{licence.commercial_use}**. {licence.note}",
        "",
        "## The network",
        "",
        f"- Architecture: `{facts.architecture}`, {facts.parameters:,} parameters",
        f"- Stems: {', '.join(facts.stems)}" + _rest(facts.stems),
        f"- Works at {facts.sample_rate} Hz, {facts.segment} s at a time: {facts.gflop_per_segment:.4g} GFLOP",
        f"- File: `{file}`, {size:,} bytes, SHA-256 `{sha256}`",
        "",
        "## Use",
        "",
        "```bash",
        f"revithion-stems {'live --model' if file.endswith('.onnx') else 'separate song.wav --model'} {file}",
        "```",
        "",
        "## Data",
        "",
    ]
    if origins:
        lines += ["| dataset | licence | commercial use | stems are |", "|---|---|---|---|"]
        lines += [
            f"| {cell(o.dataset)} | {cell(o.licence)} | {'yes' if o.commercial_use else 'no'} | {cell(_labels(o))} |"
            for o in dict.fromkeys(origins)
        ]
    else:
        lines.append("Not recorded.")
    teachers = teachers_of(origins)
    if teachers:
        said = "; ".join(f"{t.name}, whose weights are under: {t.terms}" for t in teachers)
        lines += ["", f"Teacher: {said}."]
    lines += ["", "## Quality", ""]
    for quality in facts.quality:
        lines += [f"{quality.metric} on {quality.dataset} ({quality.source}):", "", "| stem | SDR in dB |", "|---|---|"]
        lines += [f"| {cell(stem)} | {value:.2f} |" for stem, value in quality.sdr_db.items()]
    if not facts.quality:
        lines.append("Not measured.")
    if notes:
        lines += ["", notes]
    lines += ["", "## How it was made", ""]
    lines += [f"- {key}: {value}" for key, value in facts.provenance.items()]
    return "\n".join(lines) + "\n"


def _labels(origin: Origin) -> str:
    return origin.labels if origin.labels in OWN_LABELS else f"estimates of {origin.labels}"


def _rest(stems: tuple[str, ...]) -> str:
    rest = delivered_stems(stems)[len(stems) :]
    return f" (and `{rest[0]}`, the rest of the mix)" if rest else ""


def cell(text: str) -> str:
    """A text as a cell of a table, on one line and without characters that would drive a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "\\|")


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
