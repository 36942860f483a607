"""The constants of the wire protocol as files of DAW scripts: plain Python and plain Lua, without imports.

Part of ``docs/make_protocol.py``, which writes them.
"""

from __future__ import annotations

import json
from typing import Any

from revithion_bridge.messages import (
    ERRORS,
    EVENTS,
    HEARTBEAT_S,
    MAX_MESSAGE_BYTES,
    MESSAGES,
    OSC_PREFIX,
    PROTOCOL_VERSION,
)
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority

CONNECTION_FILE = "connection.json"
OSC_SESSION = {name: f"{OSC_PREFIX}/{name}" for name in ("hello", "subscribe", "unsubscribe", "error")}


def constants() -> dict[str, tuple[str, Any]]:
    """Name → (what it is, value), of all that a script in a DAW needs."""
    requests_by_osc = {
        spec.osc: {
            "request": spec.name,
            "required": spec.osc_fields.partition("|")[0].split(),
            "optional": spec.osc_fields.partition("|")[2].split(),
            "reply": list(spec.osc_reply),
        }
        for spec in MESSAGES
        if spec.osc
    }
    events_by_name = {
        spec.kind.__name__: {"topic": spec.topic, "osc": spec.osc, "arguments": list(spec.osc_fields)}
        for spec in EVENTS
    }
    return {
        "PROTOCOL_VERSION": ("Of the messages.", PROTOCOL_VERSION),
        "MAX_MESSAGE_BYTES": ("Of one message in either direction.", MAX_MESSAGE_BYTES),
        "HEARTBEAT_S": ("Seconds between two Heartbeat events.", HEARTBEAT_S),
        "CONNECTION_FILE": ("In the folder `daemon` of the state folder: addresses, keys and token.", CONNECTION_FILE),
        "OSC_PREFIX": ("All OSC addresses begin with it.", OSC_PREFIX),
        "OSC_SESSION": ("What OSC has besides the requests.", OSC_SESSION),
        "DOORS": ("Request: the ZeroMQ socket that it goes to.", {spec.name: spec.door.value for spec in MESSAGES}),
        "OSC_REQUESTS": ("OSC address: its request, and fields as arguments after the token.", requests_by_osc),
        "EVENTS": ("Event: its ZeroMQ topic, OSC address and OSC arguments.", events_by_name),
        "JOB_STATES": ("State of a job: whether it is final.", {state.value: state.is_final for state in JobState}),
        "PRIORITIES": ("Classes of jobs; a class goes before all later ones.", [each.value for each in Priority]),
        "ERRORS": ("Codes of the daemon's errors; those of jobs stand in docs/exit-codes.md.", list(ERRORS)),
    }


_HEADER = (
    "Constants of the wire protocol, as bridge/PROTOCOL.md has them.",
    "Made by docs/make_protocol.py: don't edit.",
)


def python_constants() -> str:
    """protocol.py, for the Python of whichever DAW (3.7 and later)."""
    text = f'"""{_HEADER[0]}\n\n{_HEADER[1]} No imports: it is copied into the DAW\'s own interpreter.\n"""\n'
    for name, (meaning, value) in constants().items():
        text += f'\n{name} = {_python(value)}\n"""{meaning}"""\n'
    return text


def lua_constants() -> str:
    """protocol.lua, for Lua 5.3 and later: a file that returns a table."""
    text = f"-- {_HEADER[0]}\n-- {_HEADER[1]}\n\nreturn {{\n"
    for name, (meaning, value) in constants().items():
        text += f"  -- {meaning}\n  {name} = {_lua(value, 1)},\n"
    return text + "}\n"


def _python(value: Any, depth: int = 0) -> str:
    """A value as Python, laid out as a formatter does: lists and objects that hold anything take a line each."""
    inner, outer = "    " * (depth + 1), "    " * depth
    if isinstance(value, dict):
        body = "".join(f"{inner}{_python(k)}: {_python(v, depth + 1)},\n" for k, v in value.items())
        return f"{{\n{body}{outer}}}"
    if isinstance(value, list):
        if len(value) <= 1:
            return f"({_python(value[0])},)" if value else "()"
        return f"(\n{''.join(f'{inner}{_python(each, depth + 1)},{chr(10)}' for each in value)}{outer})"
    return f"{value:_}" if type(value) is int else json.dumps(value) if isinstance(value, str) else repr(value)


def _lua(value: Any, depth: int = 0) -> str:
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        body = "".join(f"{inner}[{json.dumps(k)}] = {_lua(v, depth + 1)},\n" for k, v in value.items())
        return f"{{\n{body}{outer}}}"
    if isinstance(value, list):
        return f"{{ {', '.join(_lua(each) for each in value)} }}" if value else "{}"
    return json.dumps(value)  # strings of ASCII, numbers, true and false are the same in Lua
