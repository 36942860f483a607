"""The protocol's document, its tables and the constants of DAW scripts: made from the table, and true of the code."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from program import docs_script
from revithion_bridge import codec, connection, job_queue, messages, osc_addresses, osc_sessions, zmq_doors
from revithion_stems import scheduler
from revithion_stems.jobs import JobState

ROOT = Path(__file__).resolve().parents[2]
BRIDGE = ROOT / "bridge" / "revithion_bridge"
DOCUMENT = (ROOT / "bridge" / "PROTOCOL.md").read_text(encoding="utf-8")
SCRIPTS = ROOT / "daw_scripts" / "revithion_daw_scripts"
EXAMPLES = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", DOCUMENT, re.M | re.S)]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return docs_script("make_protocol")


def constants() -> dict[str, Any]:
    """protocol.py, run as a DAW does: without anything around it."""
    namespace: dict[str, Any] = {}
    exec(compile((SCRIPTS / "protocol.py").read_text(encoding="utf-8"), "protocol.py", "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.isupper()}


def test_the_files_are_those_of_the_table(script: ModuleType) -> None:
    for name, content in script.files().items():
        assert (ROOT / name).read_text(encoding="utf-8") == content, "run `python docs/make_protocol.py`"


def test_a_stale_table_is_noticed(script: ModuleType) -> None:
    stale = DOCUMENT.replace("There is no job of that id.", "No such job.")
    assert stale != DOCUMENT
    assert script.with_sections(stale) == DOCUMENT
    with pytest.raises(ValueError, match="exactly one"):
        script.with_sections(DOCUMENT.replace("<!-- events:end -->", ""))


# --- the document ---------------------------------------------------------------------------------------------------


def test_every_request_reply_event_and_error_has_a_place() -> None:
    headings = set(re.findall(r"^#### (.*)$", DOCUMENT, re.M))
    for spec in messages.MESSAGES:
        assert {f"`{spec.name}`", f"Reply `{spec.reply.__struct_config__.tag}`"} <= headings
    assert {f"Event `{spec.kind.__name__}`" for spec in messages.EVENTS} <= headings
    for code in messages.ERRORS:
        assert f"| `{code}` |" in DOCUMENT
    every = DOCUMENT[DOCUMENT.index("Every request may be answered with") :].split("\n\n")[0]
    assert set(re.findall(r"`([a-z.]+)`", every)) == set(messages.MessageSpec.any_errors)


def test_every_field_is_explained(script: ModuleType) -> None:
    """Fields of the core's events are explained in docs/cli.md, which has a test of its own."""
    core = {spec.kind.__name__ for spec in messages.EVENTS if not issubclass(spec.kind, messages.DaemonEvent)}
    for name, definition in script.DESCRIBED.items():
        assert definition["description"], name
        for field, schema in definition.get("properties", {}).items():
            if name not in core and field != "type":
                assert schema.get("description"), f"{name}.{field}"


def test_numbers_in_the_prose_are_those_of_the_code() -> None:
    prose = " ".join(DOCUMENT.split())
    assert f"A message is at most {messages.MAX_MESSAGE_BYTES:,} bytes, in either direction" in prose
    doors, queue = zmq_doors.DoorLimits(), job_queue.QueueLimits()
    assert f"{doors.rate_per_s:.0f} requests a second, and after a pause {doors.burst:,.0f} at once" in prose
    assert f"who has {doors.requests} requests in work at once" in prose
    assert f"{doors.unsent_events:,} events are kept" in prose
    assert f"{queue.waiting_per_client:,} jobs of one client and {queue.waiting:,} of all may wait" in prose
    assert f"newest {queue.ended:,} jobs that have ended" in prose
    assert f"After {['no', 'one', 'two', 'three', 'four', 'five'][scheduler.MOST_PREEMPTIONS]} times" in prose
    assert f"*lease* of {osc_sessions.LEASE_S:.0f} seconds" in prose
    assert f"{osc_sessions.MOST_LEASE_S:,} at most" in prose
    assert f"At most {osc_sessions.MOST_SESSIONS} leases" in prose
    assert f"Version {messages.PROTOCOL_VERSION}." in prose
    assert f"begin with `{messages.OSC_PREFIX}`" in prose


def test_links_inside_resolve() -> None:
    plain = re.sub(r"^```.*?^```$", "", DOCUMENT, flags=re.M | re.S)
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", plain, re.M)
    }
    anchors |= set(re.findall(r'<a id="(\w+)">', plain))
    links = re.findall(r"\]\(([^)\s]+)\)", plain)
    assert len(links) > 50
    for target in links:
        name, _, anchor = target.partition("#")
        if name:
            assert (ROOT / "bridge" / name).exists(), target
        else:
            assert anchor in anchors, target


def test_every_request_has_an_example_for_each_of_its_forms() -> None:
    kinds = [example["request"]["type"] for example in EXAMPLES]
    for spec in messages.MESSAGES:
        assert kinds.count(spec.name) == sum(each.name == spec.name for each in messages.MESSAGES)
    assert {example["request"]["type"] for example in EXAMPLES} == {spec.name for spec in messages.MESSAGES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["request"]["type"])
def test_examples_are_messages(example: dict[str, Any], script: ModuleType) -> None:
    spec = next(spec for spec in messages.MESSAGES if spec.name == example["request"]["type"])
    request_id, client, request = codec.decode_request(json.dumps(example).encode(), spec.door)
    assert (request_id, client) == (script.EXAMPLE_ID, script.EXAMPLE_CLIENT)
    assert type(request) is spec.request
    for field, value in example["request"].items():
        if isinstance(value, (int, float)):
            assert getattr(request, field) == value


def test_fields_of_the_connection_file() -> None:
    section = DOCUMENT[DOCUMENT.index("## Finding the daemon") : DOCUMENT.index("## ZeroMQ")]
    described = {name for row in re.findall(r"^\| (`\w.*?) \| ", section, re.M) for name in re.findall(r"`(\w+)`", row)}
    annotations = set(connection.Connection.__annotations__)
    assert described == annotations
    assert f"`{constants()['CONNECTION_FILE']}`" in section
    assert connection.daemon_folder().name == "daemon"


# --- error codes ----------------------------------------------------------------------------------------------------


def used_codes() -> set[str]:
    """Codes that the code of the bridge makes errors of."""
    found: set[str] = set()
    for path in BRIDGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "bridge_error":
                found |= {n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant)}
    return found


def test_every_error_that_is_raised_stands_in_the_table() -> None:
    codes = used_codes()
    assert len(codes) > 5
    assert codes <= set(messages.ERRORS), codes - set(messages.ERRORS)


def test_errors_that_requests_name_exist() -> None:
    """A code is the bridge's or the core's; ``x.*`` needs one that begins like that."""
    core = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    known = set(messages.ERRORS) | set(re.findall(r"^\| `([a-z_.]+)` \|", core, re.M))
    for spec in messages.MESSAGES:
        for code in (*spec.errors, *spec.any_errors):
            assert any(each.startswith(code[:-1]) if code.endswith("*") else each == code for each in known), code


# --- the constants --------------------------------------------------------------------------------------------------


def test_the_constants_of_python(script: ModuleType) -> None:
    values = constants()
    assert values["DOORS"] == {spec.name: spec.door.value for spec in messages.MESSAGES}
    assert values["JOB_STATES"] == {
        state.value: state in {JobState.DONE, JobState.FAILED, JobState.CANCELLED} for state in JobState
    }
    assert values["PRIORITIES"][0] == "interactive"
    assert set(values["OSC_REQUESTS"]) == {spec.osc for spec in messages.MESSAGES if spec.osc}
    assert values["ERRORS"] == tuple(messages.ERRORS)
    session = (osc_addresses.HELLO, osc_addresses.SUBSCRIBE, osc_addresses.UNSUBSCRIBE, osc_addresses.ERROR)
    assert tuple(values["OSC_SESSION"].values()) == session
    assert set(values["EVENTS"]) == {spec.kind.__name__ for spec in messages.EVENTS}


def test_the_constants_import_nothing() -> None:
    """The DAW's own interpreter may be of Python 3.7."""
    tree = ast.parse((SCRIPTS / "protocol.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    command = [sys.executable, "-I", "-S", str(SCRIPTS / "protocol.py")]
    assert subprocess.run(command, check=False, timeout=30).returncode == 0


def test_the_constants_of_lua() -> None:
    """Read by a real Lua where there is one; its syntax is looked at in any case."""
    path = SCRIPTS / "protocol.lua"
    text = path.read_text(encoding="utf-8")
    bare = re.sub(r'"(?:\\.|[^"\\])*"|--[^\n]*', "", text)
    assert bare.count("{") == bare.count("}") > 10
    assert text.split("\n\n", 1)[1].startswith("return {")
    assert not re.search(r"\b(?:None|True|False|null)\b|:", bare)
    for spec in messages.MESSAGES:
        assert f'["{spec.name}"] = "{spec.door.value}"' in text
    lua = shutil.which("lua") or shutil.which("lua5.3") or shutil.which("lua5.4") or shutil.which("luajit")
    if lua:
        code = f"local p = dofile([[{path}]]); print(p.PROTOCOL_VERSION, p.DOORS['job.submit'], #p.ERRORS)"
        done = subprocess.run([lua, "-e", code], capture_output=True, text=True, check=True, timeout=30)
        assert done.stdout.split() == [str(messages.PROTOCOL_VERSION), "work", str(len(messages.ERRORS))]
