"""The published JSON Schemas: made from the types, and true of what the real command prints and writes."""

from __future__ import annotations

import copy
import json
import signal
import typing
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from program import docs_script, posix_only, start
from revithion_stems.cli.console import finite_or_none
from revithion_stems.events import JobEvent, event_as_dict

ROOT = Path(__file__).resolve().parents[2]


def schema(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))


def strict(open_schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """The schema without room for later versions: no unknown type, no unknown field."""
    closed = copy.deepcopy(open_schema)
    if "oneOf" in closed:
        closed["oneOf"] = [kind for kind in closed["oneOf"] if "$ref" in kind]
    for definition in (closed, *closed["$defs"].values()):
        if "properties" in definition:
            definition["additionalProperties"] = False
    return jsonschema.Draft202012Validator(closed)


EVENTS, MANIFEST = strict(schema("events")), strict(schema("manifest"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a short song, a long one and a file that is no song."""
    (tmp_path / "work").mkdir()
    noise = np.random.default_rng(0).standard_normal((44_100 * 120, 2)) * 0.05
    soundfile.write(tmp_path / "work" / "short.wav", noise[:20_000], 44_100)
    soundfile.write(tmp_path / "work" / "long.wav", noise, 44_100)
    (tmp_path / "work" / "text.wav").write_text("no song")
    return tmp_path / "work"


def checked(output: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines:
        EVENTS.validate(line)
    return lines


def test_the_files_are_those_of_the_code() -> None:
    for name, content in docs_script("make_schemas").files().items():
        assert (ROOT / name).read_text(encoding="utf-8") == content, "run `python docs/make_schemas.py`"


def test_both_are_schemas() -> None:
    for name in ("events", "manifest"):
        jsonschema.Draft202012Validator.check_schema(schema(name))


def test_a_separation_a_second_one_and_its_manifest(place: Path) -> None:
    for cached in (False, True):
        with start(place, "separate", "short.wav", "-m", "dsp", "-b", "24", "--json") as process:
            lines = checked(process.communicate(timeout=60)[0])
        assert process.returncode == 0
        (summary,) = [line for line in lines if line["type"] == "JobSummary"]
        assert summary["cached"] is cached
        assert {"JobChanged", "StemReady"} <= {line["type"] for line in lines}
    (manifest,) = place.rglob("manifest.json")
    record = json.loads(manifest.read_bytes())
    MANIFEST.validate(record)
    for field, wrong in (("schema", "other/1"), ("key", "0"), ("files", {}), ("lag_frames", 0.5)):
        assert not MANIFEST.is_valid({**record, field: wrong}), field


def test_failures(place: Path) -> None:
    with start(place, "separate", "text.wav", "missing.wav", "-m", "dsp", "--json") as process:
        lines = checked(process.communicate(timeout=60)[0])
    assert process.returncode == 3
    assert [line["type"] for line in lines].count("Error") == 2
    assert [line["error"]["code"] for line in lines if line.get("state") == "failed"]


def test_a_wrong_command_line(place: Path) -> None:
    with start(place, "separate", "short.wav", "--overlap", "much", "--json") as process:
        (line,) = checked(process.communicate(timeout=60)[0])
    assert (process.returncode, line["code"]) == (2, "usage")


@posix_only
def test_cancelling(place: Path) -> None:
    with start(place, "separate", "long.wav", "-m", "dsp", "--segment", "1", "--json") as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if '"JobProgress"' in line:
                process.send_signal(signal.SIGINT)
                break
        lines = checked(seen + process.communicate(timeout=60)[0])
    assert process.returncode == 130
    assert [line["state"] for line in lines if line["type"] == "JobChanged"][-1] == "cancelled"
    assert lines[-1]["code"] == "job.cancelled"


def test_a_batch(place: Path) -> None:
    with start(place, "batch", "short.wav", "text.wav", "-m", "dsp", "--json") as process:
        lines = checked(process.communicate(timeout=60)[0])
    assert process.returncode == 3
    results = {line["source"]: line["outcome"] for line in lines if line["type"] == "BatchResult"}
    assert sorted(results.values()) == ["done", "failed"]
    assert lines[-1]["type"] == "BatchSummary"


# --- laws -----------------------------------------------------------------------------------------------------------


def fields(kind: type[JobEvent]) -> dict[str, st.SearchStrategy[Any]]:
    """How to make those fields whose types say less than what we put there: numbers are finite, problems whole."""
    problem = st.fixed_dictionaries({name: st.text() for name in ("code", "message", "hint")})
    known = {float: st.floats(allow_nan=False, allow_infinity=False), dict[str, str] | None: st.none() | problem}
    return {name: known[hint] for name, hint in typing.get_type_hints(kind).items() if hint in known}


KINDS = typing.get_args(JobEvent)
LINES = st.one_of([st.builds(kind, **fields(kind)) for kind in KINDS]).map(lambda e: finite_or_none(event_as_dict(e)))


@given(LINES)
def test_any_event_fits(line: dict[str, Any]) -> None:
    EVENTS.validate(line)


@given(LINES, st.data())
def test_a_field_less_or_of_another_kind_does_not_fit(line: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(line)))
    assert not EVENTS.is_valid({key: value for key, value in line.items() if key != name})
    assert not EVENTS.is_valid({**line, name: ["a list"]})


@given(LINES)
def test_readers_may_meet_what_is_yet_to_come(line: dict[str, Any]) -> None:
    reader = jsonschema.Draft202012Validator(schema("events"))
    for later in ({**line, "later": 1}, {"type": "Later"}):
        reader.validate(later)
        assert not EVENTS.is_valid(later)
