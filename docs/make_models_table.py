"""Writes the models tables of README.md, SKILL.md and docs/models.md from the catalog.

Run ``python docs/make_models_table.py`` after a change of ``catalog.toml``; a test compares the files with it.
"""

from __future__ import annotations

import re
from pathlib import Path

from revithion_stems.catalog import ModelSpec, load_catalog
from revithion_stems.units import format_bytes

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- {name}:begin -->", "<!-- {name}:end -->"


def summary_table() -> str:
    """One row per model: stems, size, published mean, terms."""
    rows = [
        ["model", "stems", "weights", "mean SDR", "licence of the weights", "commercial use"],
        *(
            [
                f"`{spec.name}`",
                ", ".join(spec.stems),
                _size(spec),
                _figure(spec, "mean"),
                spec.licence.weights,
                spec.licence.commercial_use,
            ]
            for spec in load_catalog().models
        ),
    ]
    return _markdown(rows)


def quality_table() -> str:
    """One row per model: SDR per stem and the test set."""
    stems = ("vocals", "drums", "bass", "other", "mean")
    rows = [["model", *stems, "test set"]]
    rows += [
        [f"`{spec.name}`", *(_figure(spec, stem) for stem in stems), spec.quality[0].dataset]
        for spec in load_catalog().models
        if spec.quality
    ]
    return _markdown(rows)


def technical_table() -> str:
    """One row per model: networks, parameters, segment, arithmetic, kinds of source."""
    rows = [["model", "networks", "parameters", "segment", "GFLOP per network and segment", "sources, in order"]]
    for spec in load_catalog().models:
        sources = [source for network in spec.networks[:1] for file in network.files for source in file.sources]
        kinds = ["model hub" if s.startswith("hf:") else _known(s) or "the authors' server" for s in sources]
        segment = f"{float(spec.segment_s):.3g} s, {'fixed' if spec.segment_fixed else 'by default'}"
        rows.append(
            [
                f"`{spec.name}`",
                str(len(spec.networks)),
                f"{spec.parameters:,}",
                segment,
                f"{spec.gflop_per_segment:g}",
                ", ".join(dict.fromkeys(kinds)) or "built in",
            ]
        )
    return _markdown(rows)


TABLES = {"models": summary_table, "quality": quality_table, "technical": technical_table}
FILES = {"README.md": ("models",), "SKILL.md": ("models",), "docs/models.md": ("models", "quality", "technical")}


def with_tables(text: str, names: tuple[str, ...]) -> str:
    """``text`` with what stands between each table's two markers replaced by the table."""
    for name in names:
        begin, end = BEGIN.format(name=name), END.format(name=name)
        pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"expected exactly one {begin} … {end}")
        table = f"{begin}\n{TABLES[name]()}{end}"
        text = pattern.sub(lambda _, table=table: table, text)
    return text


def _size(spec: ModelSpec) -> str:
    return "built in" if spec.built_in else format_bytes(spec.size) if spec.size else "?"


def _figure(spec: ModelSpec, stem: str) -> str:
    value = spec.quality[0].sdr_db.get(stem) if spec.quality else None
    return "–" if value is None else f"{value:.2f}"


def _known(source: str) -> str | None:
    kind, _, rest = source.partition(":")
    if kind == "package":
        return "built in"
    return f"{kind} `{rest.partition('#')[0]}`" if kind in ("npm", "pypi") else None


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |\n" for row in rows]
    return lines[0] + f"|{'---|' * len(rows[0])}\n" + "".join(lines[1:])


if __name__ == "__main__":
    for name, tables in FILES.items():
        path = ROOT / name
        path.write_text(with_tables(path.read_text(encoding="utf-8"), tables), encoding="utf-8")
