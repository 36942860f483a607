"""Writes what derives from the table of messages: the tables of bridge/PROTOCOL.md and the constants of DAW scripts.

They come from ``revithion_bridge/messages.py`` and from the events of the core. Run ``python docs/make_protocol.py``
after a change of these; a test compares the files with it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from revithion_bridge.messages import (
    ERRORS,
    EVENTS,
    MESSAGES,
    PROTOCOL_VERSION,
    EventSpec,
    MessageSpec,
)
from revithion_stems.jobs import JobState
from revithion_stems.live import LiveOutputs, LivePhase, Tier
from revithion_stems.scheduler import Priority

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "docs") not in sys.path:
    sys.path.append(str(ROOT / "docs"))

import make_schemas  # noqa: E402 — beside this script, in a folder that is no package
import protocol_constants  # noqa: E402 — likewise

DOCUMENT = "bridge/PROTOCOL.md"
SCRIPTS = "daw_scripts/revithion_daw_scripts/protocol"
BEGIN, END = "<!-- {name}:begin -->", "<!-- {name}:end -->"
EXAMPLE_ID, EXAMPLE_CLIENT = "7c1d-42", "ardour"
ENUMS = (JobState, Priority, LiveOutputs, LivePhase, Tier)

_UNITS = {"_s": "s", "_db": "dB", "_bytes": "bytes", "_frames": "frames", "_frame": "frames", "_at": "s since 1970"}
_WHOLE_NAMES = {"frames": "frames", "sample_rate": "Hz", "at": "s since 1970"}
_KINDS = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean", "object": "object"}
_KINDS |= {"array": "array", "null": "null"}


def files() -> dict[str, str]:
    """Path in the repository → content, of all that derives from the table."""
    return {
        DOCUMENT: with_sections((ROOT / DOCUMENT).read_text(encoding="utf-8")),
        f"{SCRIPTS}.py": protocol_constants.python_constants(),
        f"{SCRIPTS}.lua": protocol_constants.lua_constants(),
    }


def with_sections(text: str) -> str:
    """``text`` with what stands between each section's two markers made anew."""
    for name, make in SECTIONS.items():
        begin, end = BEGIN.format(name=name), END.format(name=name)
        pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"expected exactly one {begin} … {end}")
        section = f"{begin}\n\n{make()}\n{end}"
        text = pattern.sub(lambda _, section=section: section, text)
    return text


# --- the document ---


def overview() -> str:
    """One row per request."""
    rows = [["request", "socket", "reply", "OSC"]]
    for specs in _by_name().values():
        osc = "<br>".join(f"`{spec.osc}`" for spec in specs if spec.osc) or "–"
        name, reply = specs[0].name, _tag(specs[0].reply)
        rows.append(
            [f"[`{name}`]({_anchor(name)})", specs[0].door.value, f"[`{reply}`]({_anchor('Reply ' + reply)})", osc]
        )
    return _table(rows)


def requests() -> str:
    """A part for each request: fields, reply, errors, OSC, and the whole envelope of an example."""
    return "\n".join(_request(name, specs) for name, specs in _by_name().items())


def replies() -> str:
    """A part for each type of reply."""
    kinds = dict.fromkeys(spec.reply for spec in MESSAGES)
    return "\n".join(_part(f"Reply `{_tag(kind)}`", kind.__name__) for kind in sorted(kinds, key=_tag))


def structs() -> str:
    """A part for each object inside requests and replies."""
    own = {kind.__name__ for spec in MESSAGES for kind in (spec.request, spec.reply)}
    own |= {kind.__name__ for kind in (*ENUMS, *(event.kind for event in EVENTS))}
    return "\n".join(_part(f"`{name}`", name) for name in sorted(DEFINITIONS) if name not in own)


def enums() -> str:
    """A row for each enumeration, its values in their order."""
    rows = [["type", "values", "meaning"]]
    for kind in ENUMS:
        meaning = DESCRIBED[kind.__name__]["description"]
        rows.append([f'<a id="{kind.__name__.lower()}"></a>`{kind.__name__}`', _names(m.value for m in kind), meaning])
    return _table(rows)


def events() -> str:
    """A part for each event: topic, OSC, fields."""
    return "\n".join(_event(spec) for spec in EVENTS)


def errors() -> str:
    """A row for each error code."""
    rows = [["code", "meaning", "what to do"]]
    return _table([*rows, *([f"`{code}`", meaning, hint] for code, (meaning, hint) in ERRORS.items())])


def envelope(spec: MessageSpec) -> dict[str, Any]:
    """The whole message of a request's example."""
    request = {"type": spec.name, **spec.example}
    return {"v": PROTOCOL_VERSION, "id": EXAMPLE_ID, "client": EXAMPLE_CLIENT, "request": request}


def _request(name: str, specs: list[MessageSpec]) -> str:
    spec = specs[0]
    lines = [
        f"- Socket: {spec.door.value}. Reply: [`{_tag(spec.reply)}`]({_anchor('Reply ' + _tag(spec.reply))}).",
        f"- Errors: {_names(spec.errors) or 'only those of every request'}.",
    ]
    for each in specs:
        if each.osc:
            required, _, optional = each.osc_fields.partition("|")
            inside = re.findall(r"{(\w+)}", each.osc)
            taken = [*(_osc(each.request, f) for f in required.split())]
            taken += [f"[{_osc(each.request, f)}]" for f in optional.split()]
            given = [_osc(each.reply, field) for field in each.osc_reply]
            where = f" (`{inside[0]}` in the address)" if inside else ""
            lines.append(f"- OSC: `{each.osc}`{where}, arguments {_code(taken)}; reply with {_code(given)}.")
    examples = "".join(f"\n```json\n{json.dumps(envelope(each), ensure_ascii=False)}\n```\n" for each in specs)
    part = _part(f"`{name}`", spec.request.__name__, "\n".join(lines))
    return part + examples


def _event(spec: EventSpec) -> str:
    topic = f"- Topic: `{spec.topic}`{', without a number of its own and not kept' if spec.transient else ''}."
    lines = [topic, _sent(spec.osc, spec.kind, spec.osc_fields)]
    for feedback in spec.feedback:
        inside = f"{feedback.each}.0." if feedback.each else ""
        each = f", for each of `{feedback.each}`" if feedback.each else ""
        lines.append(_sent(feedback.osc, spec.kind, [inside + field for field in feedback.osc_fields], each))
    return _part(f"Event `{spec.kind.__name__}`", spec.kind.__name__, "\n".join(lines))


def _sent(address: str, kind: type[Any], fields: Iterable[str], each: str = "") -> str:
    return f"- OSC: `{address}`{each}, arguments {_code(_osc(kind, field) for field in fields)}."


def _part(title: str, name: str, how: str = "") -> str:
    text = [f"#### {title}", DESCRIBED[name]["description"]]
    text += [how] if how else []
    properties = {field: s for field, s in DEFINITIONS[name]["properties"].items() if field != "type"}
    if properties:
        rows = [["field", "type", "default", "unit", "range", "meaning"]]
        needed = DEFINITIONS[name].get("required", ())
        for field, schema in properties.items():
            meaning = DESCRIBED[name]["properties"][field].get("description", "")
            default = "–" if field in needed else _default(schema.get("default"))
            rows.append([f"`{field}`", _type(schema), default, _unit(field), _range(schema), meaning])
        used = [column for column in zip(*rows, strict=True) if any(cell not in ("", "–") for cell in column[1:])]
        text.append(_table([list(row) for row in zip(*used, strict=True)]).rstrip("\n"))
    return "\n\n".join(text) + "\n"


def _default(value: Any) -> str:
    """A default, but for an object's: it stands with the object."""
    return "its own" if value and isinstance(value, dict) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(kind) for kind in schema["anyOf"])
    kind = _KINDS.get(schema.get("type", ""), "anything")
    inside = schema.get("items") or schema.get("additionalProperties")
    return f"{kind} of {_type(inside)}" if isinstance(inside, dict) and inside else kind


def _range(schema: dict[str, Any]) -> str:
    for kind in schema.get("anyOf", ()):
        if _range(kind):
            return _range(kind)
    said = []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None or high is not None:
        said.append(f"at least {low:g}" if high is None else f"{low:g} to {high:g}")
    if "pattern" in schema:
        said.append(f"`{schema['pattern']}`")
    if "maxLength" in schema:
        said.append(f"{schema.get('minLength', 0)} to {schema['maxLength']} characters")
    if "maxItems" in schema:
        said.append(f"at most {schema['maxItems']}")
    if each := _range(schema["items"]) if "items" in schema else "":
        said.append(f"each {each}")
    return ", ".join(said)


def _unit(field: str) -> str:
    return _WHOLE_NAMES.get(field) or next((unit for end, unit in _UNITS.items() if field.endswith(end)), "")


def _osc(kind: type[Any], path: str) -> str:
    """An argument, such as ``done:i``: the field and OSC's letter of its type; what it is inside of is left out."""
    schema: dict[str, Any] = {"$ref": f"#/$defs/{kind.__name__}"}
    nullable = False
    for name in path.split("."):
        schema = schema["items"] if name.isdigit() else _object(schema)["properties"][name]
        if name == "error":  # of an event: the schema says less of it than the code puts there
            schema = {"anyOf": [{"$ref": "#/$defs/ErrorInfo"}, {"type": "null"}]}
        nullable |= {"type": "null"} in schema.get("anyOf", ())
    flat = [_resolved(each) for each in schema.get("anyOf", (schema,))]
    number = "d" if path.endswith("_s") else "f"  # times need more than 24 bits
    letters = {"string": "s", "integer": "i", "number": number, "boolean": "T/F"}
    found = [letters[each.get("type", "string")] for each in flat if each.get("type") != "null"]  # enums are strings
    names = [part for part in path.split(".") if not part.isdigit()]
    shown = names if names[0] == "error" else names[1:] or names
    return f"{'.'.join(shown)}:{'/'.join([*found, 'N'] if nullable else found)}"


def _object(schema: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in map(_resolved, schema.get("anyOf", (schema,))) if "properties" in each)


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return DEFINITIONS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _by_name() -> dict[str, list[MessageSpec]]:
    grouped: dict[str, list[MessageSpec]] = {}
    for spec in MESSAGES:
        grouped.setdefault(spec.name, []).append(spec)
    return grouped


def _tag(kind: type[Any]) -> str:
    return str(kind.__struct_config__.tag)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(words: Iterable[str]) -> str:
    text = " ".join(words)
    return f"`{text}`" if text else "none"


def _anchor(heading: str) -> str:
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows]
    return lines[0] + f"|{'---|' * len(rows[0])}\n" + "".join(lines[1:])


SECTIONS = {
    "overview": overview,
    "requests": requests,
    "replies": replies,
    "structs": structs,
    "enums": enums,
    "events": events,
    "errors": errors,
}

_TYPES = tuple(dict.fromkeys([*(kind for s in MESSAGES for kind in (s.request, s.reply)), *(e.kind for e in EVENTS)]))
_, DEFINITIONS = msgspec.json.schema_components(_TYPES, ref_template="#/$defs/{name}")
"""Type → its JSON Schema, with defaults and ranges."""
DESCRIBED = make_schemas._definitions(*_TYPES)
"""Type → the same with meanings, from the docstrings."""


if __name__ == "__main__":
    for name, content in files().items():
        (ROOT / name).write_text(content, encoding="utf-8", newline="\n")
