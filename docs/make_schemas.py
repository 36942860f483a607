"""Writes the JSON Schemas of what ``--json`` prints while it works, and of the manifest, to docs/schemas.

They come from the types and docstrings of ``events.py``, ``batch_items.py`` and ``manifest.py``. Run
``python docs/make_schemas.py`` after a change of these; a test compares the files with it.

Source: JSON Schema 2020-12, https://json-schema.org/draft/2020-12/schema.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from revithion_stems.batch_items import BatchItem, BatchResult, BatchSummary
from revithion_stems.events import JobEvent
from revithion_stems.manifest import Manifest

ROOT = Path(__file__).resolve().parent.parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"


def files() -> dict[str, str]:
    """Path in the repository → content, of both schemas."""
    made = {"events": events_schema(), "manifest": manifest_schema()}
    return {
        f"docs/schemas/{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in made.items()
    }


def events_schema() -> dict[str, Any]:
    """A line of ``separate --json`` or ``batch --json``: an object of a known type, or of one that is yet to come."""
    kinds = (*JobEvent.__args__, BatchResult, BatchSummary)
    definitions = _definitions(*kinds, BatchItem)
    result, item = definitions["BatchResult"], definitions.pop("BatchItem")
    del result["properties"]["item"]  # the item's own fields stand in the line instead
    result["properties"] = item["properties"] | result["properties"]
    problem = {name: {"type": "string"} for name in ("code", "message", "hint")}
    definitions["Problem"] = _object("What went wrong; the codes are those of docs/exit-codes.md.", problem)
    definitions["Error"] = _object("The end of a source, or of all, that failed.", dict(problem))
    names = [*(kind.__name__ for kind in kinds), "Error"]
    for name in names:
        definition = definitions[name]
        properties = {"type": {"const": name}} | definition["properties"]
        if "error" in properties:
            nullable = {"anyOf": [{"$ref": "#/$defs/Problem"}, {"type": "null"}]}
            properties["error"] = {key: text for key, text in properties["error"].items() if key == "description"}
            properties["error"] |= nullable
        definition |= {"properties": properties, "required": list(properties)}
    unknown = _object("A type of a later version: to be passed over.", {"type": {"not": {"enum": names}}})
    return {
        "$schema": DIALECT,
        "title": "Lines of --json",
        "description": "A line that `separate --json` or `batch --json` prints, by its type. Later versions may add "
        "types, and fields to these types: pass over what you don't know.",
        "oneOf": [*({"$ref": _REF.format(name=name)} for name in names), unknown],
        "$defs": definitions,
    }


def manifest_schema() -> dict[str, Any]:
    """A file ``manifest.json``."""
    definitions = _definitions(Manifest)
    return {
        "$schema": DIALECT,
        **definitions.pop("Manifest"),
        "title": "Manifest",
        "description": "The record beside a set of stems: what they are, what they came from, and how they were made. "
        "Later versions may add fields: pass over what you don't know.",
        "$defs": definitions,
    }


def _definitions(*kinds: type) -> dict[str, dict[str, Any]]:
    """The objects and enums that ``kinds`` are made of, by name, with what their docstrings say of them."""
    _, definitions = msgspec.json.schema_components(
        kinds, schema_hook=lambda _path: {"type": "string"}, ref_template=_REF
    )
    for definition in definitions.values():
        text, _, attributes = inspect.cleandoc(definition.get("description", "")).partition("\n\nAttributes:\n")
        definition["description"] = _line(text)
        if definition.get("type") != "object":
            continue
        attributes = attributes.partition("\n\n")[0]
        for name, meaning in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", attributes, re.M):
            definition["properties"][name]["description"] = _line(meaning)
        for schema in definition["properties"].values():
            schema.pop("default", None)
        definition["required"] = list(definition["properties"])  # a default is the reader's; we write all fields
    return definitions


def _object(description: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "type": "object", "properties": properties, "required": list(properties)}


def _line(text: str) -> str:
    """A docstring's words in those of JSON: null, and the values of enums, which are their names in lower case."""
    text = re.sub(r"``([A-Z]+)``", lambda name: name[0].lower(), " ".join(text.split()))
    return re.sub(r"\bNone\b", "null", text.replace("``", "`"))


if __name__ == "__main__":
    for name, content in files().items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(content, encoding="utf-8", newline="\n")
