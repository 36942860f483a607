"""OSC's addresses and arguments, made from the tables of the protocol: nothing here knows a message by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, cast

import msgspec
from msgspec import inspect

from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import EVENTS, MESSAGES, OSC_PREFIX, EventSpec, MessageSpec, Reply, Request
from revithion_bridge.osc_packets import Typed, Value, build_message, typed
from revithion_stems.errors import RevithionError

HELLO = f"{OSC_PREFIX}/hello"
SUBSCRIBE = f"{OSC_PREFIX}/subscribe"
UNSUBSCRIBE = f"{OSC_PREFIX}/unsubscribe"
ERROR = f"{OSC_PREFIX}/error"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a request that is an argument.

    Attributes:
        path: Where it is in the request.
        required: Whether it must be given.
        kind: ``text``, ``int``, ``float`` or ``bool``.
    """

    path: tuple[str, ...]
    required: bool
    kind: str


@dataclass(frozen=True, slots=True)
class Route:
    """An address and the request that it stands for.

    Attributes:
        spec: Of the request.
        pattern: Matches the address.
        fields: Its arguments, the required ones first.
    """

    spec: MessageSpec
    pattern: re.Pattern[str]
    fields: tuple[Field, ...]

    def request(self, address: str, arguments: Sequence[Value]) -> Request:
        """The request of a message; an optional argument that is nil is one that was left out.

        Raises:
            RevithionError: ``protocol.malformed``: too few or too many arguments, or they don't fit.
        """
        least = sum(field.required for field in self.fields)
        if not least <= len(arguments) <= len(self.fields):
            names = " ".join(".".join(field.path) for field in self.fields)
            raise _malformed(
                f"{address} takes {least} to {len(self.fields)} arguments ({names or 'none'}), not {len(arguments)}"
            )
        match = self.pattern.fullmatch(address)
        data: dict[str, Any] = dict(match.groupdict()) if match else {}
        for field, value in zip(self.fields, arguments, strict=False):
            if value is None and not field.required:
                continue
            inner = data
            for name in field.path[:-1]:
                inner = inner.setdefault(name, {})
            inner[field.path[-1]] = _as_kind(value, field.kind)
        try:
            return msgspec.convert(data, self.spec.request)
        except msgspec.ValidationError as exc:
            raise _malformed(f"{address}: {exc}") from exc

    def split_port(self, arguments: Sequence[Value]) -> tuple[Sequence[Value], int | None]:
        """The fields and the reply port of a message with a token.

        The port is a number after the last field; where fields are left out, and the first of them is a text, it stands
        in its place.

        Raises:
            RevithionError: ``protocol.malformed``: there is no such port.
        """
        count = len(arguments) - 1
        if count < 0 or isinstance(arguments[-1], (bool, str, NoneType)):
            return arguments, None
        if count < len(self.fields) and (self.fields[count].required or self.fields[count].kind != "text"):
            return arguments, None
        return arguments[:-1], checked_port(arguments[-1])


def checked_port(value: Value) -> int:
    """A port that replies can go to.

    Raises:
        RevithionError: ``protocol.malformed``.
    """
    return checked_number(value, "the reply port", 1, 65_535)


def checked_number(value: Value, what: str, least: int, most: int) -> int:
    """A whole number from ``least`` to ``most``, which may come as a float.

    Raises:
        RevithionError: ``protocol.malformed``; ``what`` says what is wrong.
    """
    value = _as_kind(value, "int")
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _malformed(f"{what} must be a whole number from {least} to {most}, not {_shown(value)}")
    return value


def find_route(address: str) -> Route:
    """What an address stands for.

    Raises:
        RevithionError: ``protocol.malformed``: there is no such address.
    """
    for route in _ROUTES:
        if route.pattern.fullmatch(address):
            return route
    raise _malformed(f"there is no OSC address {address[:100]}")


def is_answer(address: str) -> bool:
    """Whether only the daemon sends to this address; a daemon that gets such a message must never answer it."""
    return address == ERROR or address.endswith("/reply") or any(p.fullmatch(address) for p in _EVENT_PATTERNS)


def reply_message(address: str, spec: MessageSpec, reply: Reply) -> bytes:
    """The reply to a message that came to ``address``."""
    return build_message(f"{address}/reply", _arguments(reply, spec.osc_reply))


def error_message(address: str, error: RevithionError) -> bytes:
    """The answer to a message that was refused."""
    texts = (address[:256], error.code, error.message[:1_000], error.hint[:500])
    return build_message(ERROR, map(typed, texts))


def event_messages(event: object) -> list[bytes]:
    """An event and its feedback; nothing if it has no address."""
    spec = _EVENT_SPECS.get(type(event))
    if spec is None:
        return []
    found = [_filled(spec.osc, event, spec.osc_fields)]
    for feedback in spec.feedback:
        items = getattr(event, feedback.each) if feedback.each else (event,)
        found += (_filled(feedback.osc, item, feedback.osc_fields) for item in items)
    return found


def _filled(address: str, data: object, paths: Sequence[str]) -> bytes:
    address = _PLACEHOLDER.sub(lambda match: str(getattr(data, match[1])), address)
    return build_message(address, _arguments(data, paths))


def _arguments(data: object, paths: Sequence[str]) -> Iterator[Typed]:
    for path in paths:
        yield typed(_value_at(data, path), double=path.endswith("_s"))  # times need more than 24 bits


def _value_at(data: object, path: str) -> object:
    for name in path.split("."):
        if isinstance(data, Mapping):
            data = cast("Mapping[str, object]", data).get(name)
        elif isinstance(data, (tuple, list)):
            items = cast("Sequence[object]", data)
            data = items[int(name)] if int(name) < len(items) else None
        else:
            data = getattr(data, name, None)
    return data


def _as_kind(value: Value, kind: str) -> Value:
    """Controllers send all numbers as floats, and switches as 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if kind == "bool" and value in (0, 1):
        return bool(value)
    return int(value) if kind == "int" and value == int(value) else value


def _pattern(address: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(address)  # text and names take turns
    return re.compile("".join(f"(?P<{p}>[^/]+)" if n % 2 else re.escape(p) for n, p in enumerate(parts)))


def _kind(request: type[Any], path: tuple[str, ...]) -> str:
    name, *others = path
    info = inspect.type_info(request)
    assert isinstance(info, inspect.StructType)
    found = next(field.type for field in info.fields if field.name == name)
    choices = found.types if isinstance(found, inspect.UnionType) else (found,)
    for choice in choices:
        if others and isinstance(choice, inspect.StructType):
            return _kind(choice.cls, tuple(others))
        for kind, name in ((inspect.BoolType, "bool"), (inspect.IntType, "int"), (inspect.FloatType, "float")):
            if isinstance(choice, kind):
                return name
    return "text"


def _fields(spec: MessageSpec) -> Iterator[Field]:
    required, _, optional = spec.osc_fields.partition("|")
    for names, is_required in ((required, True), (optional, False)):
        for name in names.split():
            path = tuple(name.split("."))
            yield Field(path, is_required, _kind(spec.request, path))


def _shown(value: Value) -> str:
    return repr(value)[:100]


def _malformed(message: str) -> RevithionError:
    return bridge_error("protocol.malformed", message)


_ROUTES = tuple(Route(spec, _pattern(spec.osc), tuple(_fields(spec))) for spec in MESSAGES if spec.osc is not None)
_EVENT_SPECS = {spec.kind: spec for spec in EVENTS}


def _answers(spec: EventSpec) -> Iterator[re.Pattern[str]]:
    """Addresses of an event that are no request's too: feedback often goes to where a control sends."""
    requests = {message.osc for message in MESSAGES}
    return (_pattern(osc) for osc in (spec.osc, *(each.osc for each in spec.feedback)) if osc not in requests)


_EVENT_PATTERNS = tuple(pattern for spec in EVENTS for pattern in _answers(spec))
