"""Messages as bytes and back: JSON in an envelope. Bytes in, bytes out; no sockets here. Any thread.

What comes from a client is taken strictly: a field, a type or a size that is not in the protocol is an error. What
comes from the daemon is taken leniently: a newer one of the same version may say more than is known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, Union, cast

import msgspec
from msgspec import Meta

from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import (
    EVENTS,
    MAX_MESSAGE_BYTES,
    MESSAGES,
    PROTOCOL_VERSION,
    ClientName,
    DaemonEvent,
    Door,
    ErrorInfo,
    JobParameters,
    Reply,
    Request,
)
from revithion_bridge.reply_size import smaller_reply
from revithion_stems.errors import RevithionError, error_from_dict, unexpected_error
from revithion_stems.events import JobEvent, event_as_dict, event_from_dict

AnyEvent: TypeAlias = JobEvent | DaemonEvent
"""What is published: an event of a job or one of the daemon's own."""
RequestId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The request that an event follows from.

    Attributes:
        client: Who sent it.
        id: Its id in the envelope.
    """

    client: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventMessage:
    """An event as it was published.

    Attributes:
        epoch: Of the daemon's run.
        seq: Its number within the run: each is one more than the one before; a heartbeat has that of the last event.
        time: When, in seconds since 1970 (UTC).
        parent: The request that it follows from, or None.
        event: It; None if a newer daemon sent what is not known here.
    """

    epoch: str
    seq: int
    time: float
    parent: Parent | None
    event: AnyEvent | None


class _RequestEnvelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    v: int
    id: RequestId
    client: ClientName
    request: msgspec.Raw


class _ReplyEnvelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    v: int
    re: str | None
    reply: Any = None
    error: ErrorInfo | None = None


class _EventEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    v: int
    epoch: str
    seq: int
    time: float
    parent: Parent | None
    event: Any


class _Version(msgspec.Struct):
    v: int


class _Id(msgspec.Struct):
    id: RequestId


_REQUESTS = tuple(dict.fromkeys(spec.request for spec in MESSAGES))
_DOORS = {spec.request: spec.door for spec in MESSAGES}
_DAEMON_EVENTS: dict[str, type[DaemonEvent]] = {
    spec.kind.__name__: spec.kind for spec in EVENTS if issubclass(spec.kind, DaemonEvent)
}
_JSON = msgspec.json.Encoder()  # writes null for what JSON lacks: infinities and NaN
_ENVELOPE = msgspec.json.Decoder(_RequestEnvelope)
_VERSION = msgspec.json.Decoder(_Version)
_ID = msgspec.json.Decoder(_Id)
_REQUEST: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Union[_REQUESTS])  # noqa: UP007 - of a tuple
_REPLY = msgspec.json.Decoder(_ReplyEnvelope)
_REPLIES = cast("type[Reply]", Union[tuple(dict.fromkeys(spec.reply for spec in MESSAGES))])  # noqa: UP007
_PARAMETERS = frozenset(JobParameters.__struct_fields__)

# What decoders raise on bytes of strangers: not JSON or not of the type, not UTF-8, nested too deep, numbers too long.
_DECODE_ERRORS = (ValueError, RecursionError, OverflowError)


def encode_request(request: Request, *, id: str, client: str) -> bytes:
    """A request in its envelope.

    Raises:
        RevithionError: ``protocol.malformed``: it is larger than :data:`~revithion_bridge.messages.MAX_MESSAGE_BYTES`.
    """
    body = msgspec.Raw(_JSON.encode(request))
    data = _JSON.encode(_RequestEnvelope(v=PROTOCOL_VERSION, id=id, client=client, request=body))
    if len(data) > MAX_MESSAGE_BYTES:
        raise bridge_error(
            "protocol.malformed", f"the message has {len(data):,} bytes; the most are {MAX_MESSAGE_BYTES:,}"
        )
    return data


def decode_request(data: bytes, door: Door | None) -> tuple[str, str, Request]:
    """Id, client's name and request of a message.

    Args:
        data: One message.
        door: By which it came; None takes it wherever it came in.

    Raises:
        RevithionError: ``protocol.malformed``, ``protocol.version`` or ``protocol.door``.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise bridge_error("protocol.malformed", f"a message has at most {MAX_MESSAGE_BYTES:,} bytes")
    try:
        envelope = _ENVELOPE.decode(data)
    except _DECODE_ERRORS as exc:
        _check_version(data)  # a later version may well have another envelope
        raise _malformed(exc) from exc
    if envelope.v != PROTOCOL_VERSION:
        raise _other_version(envelope.v)
    try:
        request = _REQUEST.decode(envelope.request)
    except _DECODE_ERRORS as exc:
        raise _malformed(exc) from exc
    expected = _DOORS[type(request)]
    if door not in (None, expected):
        name = type(request).__struct_config__.tag
        raise bridge_error("protocol.door", f"{name} came by the {door.value} door; it belongs to {expected.value}")
    return envelope.id, envelope.client, request


def request_id(data: bytes) -> str | None:
    """The id of a message that is not good for anything else, for the answer; None if there is none to be read."""
    with contextlib.suppress(*_DECODE_ERRORS):
        return _ID.decode(data[: MAX_MESSAGE_BYTES + 1]).id
    return None


def encode_reply(re: str | None, reply: Reply | RevithionError) -> bytes:
    """The answer to the request with the id ``re``.

    What is larger than :data:`~revithion_bridge.messages.MAX_MESSAGE_BYTES` is cut, see
    :func:`~revithion_bridge.reply_size.smaller_reply`.
    """
    if isinstance(reply, RevithionError):
        error = ErrorInfo(code=reply.code, message=reply.message[:4096], hint=reply.hint[:4096])
        return _JSON.encode(_ReplyEnvelope(v=PROTOCOL_VERSION, re=re, error=error))
    while len(data := _JSON.encode(_ReplyEnvelope(v=PROTOCOL_VERSION, re=re, reply=reply))) > MAX_MESSAGE_BYTES:
        smaller = smaller_reply(reply)
        if smaller is reply:
            return encode_reply(re, unexpected_error(ValueError(f"the reply has {len(data):,} bytes")))
        reply = smaller
    return data


def decode_reply(data: bytes) -> tuple[str | None, Reply | RevithionError]:
    """The id that a message answers (None if the daemon could not read it), and the answer.

    An answer that is not known here is ``protocol.malformed`` or ``protocol.version`` in its place.

    Raises:
        RevithionError: ``protocol.malformed``: it is no answer to anything.
    """
    try:
        envelope = _REPLY.decode(data)
    except _DECODE_ERRORS as exc:
        raise _malformed(exc) from exc
    if envelope.v != PROTOCOL_VERSION:
        return envelope.re, _other_version(envelope.v)
    if envelope.error is not None:
        return envelope.re, error_from_dict(msgspec.structs.asdict(envelope.error))
    try:
        return envelope.re, _convert_reply(envelope.reply)
    except _DECODE_ERRORS as exc:
        return envelope.re, _malformed(exc)


def encode_event(event: AnyEvent, *, epoch: str, seq: int, time: float, parent: Parent | None) -> bytes:
    """An event in its envelope; ``time`` in seconds since 1970 (UTC)."""
    body = event if isinstance(event, DaemonEvent) else event_as_dict(event)
    return _JSON.encode(_EventEnvelope(v=PROTOCOL_VERSION, epoch=epoch, seq=seq, time=time, parent=parent, event=body))


def decode_event(data: bytes) -> EventMessage:
    """The event of a message.

    Raises:
        RevithionError: ``protocol.malformed`` or ``protocol.version``.
    """
    try:
        return event_message(msgspec.json.decode(data, type=dict[str, Any]))
    except _DECODE_ERRORS as exc:
        raise _malformed(exc) from exc


def event_message(data: Mapping[str, Any]) -> EventMessage:
    """The event of an envelope that is decoded already, as ``events.since`` gives it.

    Raises:
        RevithionError: ``protocol.malformed`` or ``protocol.version``.
    """
    try:
        envelope = msgspec.convert(data, _EventEnvelope)
    except _DECODE_ERRORS as exc:
        raise _malformed(exc) from exc
    if envelope.v != PROTOCOL_VERSION:
        raise _other_version(envelope.v)
    return EventMessage(
        epoch=envelope.epoch,
        seq=envelope.seq,
        time=envelope.time,
        parent=envelope.parent,
        event=_known_event(envelope.event),
    )


def _known_event(data: Any) -> AnyEvent | None:
    with contextlib.suppress(ValueError):  # of another type, or with fields of a newer daemon
        if isinstance(data, dict):
            fields = cast("dict[str, Any]", data)
            kind = _DAEMON_EVENTS.get(str(fields.get("type")))
            return msgspec.convert(fields, kind) if kind is not None else event_from_dict(fields)
    return None


def _convert_reply(data: Any) -> Reply:
    try:
        return msgspec.convert(data, _REPLIES)
    except msgspec.ValidationError:
        _drop_unknown_parameters(data)
        return msgspec.convert(data, _REPLIES)


def _drop_unknown_parameters(data: Any) -> None:
    """Removes what a newer daemon has in a job's parameters, which are strict for the requests' sake."""
    if isinstance(data, dict):
        fields = cast("dict[str, Any]", data)
        parameters = fields.get("parameters")
        if isinstance(parameters, dict):
            known = cast("dict[str, Any]", parameters)
            fields["parameters"] = {name: value for name, value in known.items() if name in _PARAMETERS}
        _drop_unknown_parameters(fields.get("job"))
        _drop_unknown_parameters(fields.get("jobs"))
    elif isinstance(data, list):
        for value in cast("list[Any]", data):
            _drop_unknown_parameters(value)


def _check_version(data: bytes) -> None:
    with contextlib.suppress(*_DECODE_ERRORS):
        version = _VERSION.decode(data).v
        if version != PROTOCOL_VERSION:
            raise _other_version(version)


def _other_version(version: int) -> RevithionError:
    return bridge_error("protocol.version", f"the message is of version {version}, not {PROTOCOL_VERSION}")


def _malformed(error: Exception) -> RevithionError:
    reason = "nested too deep" if isinstance(error, RecursionError) else str(error)[:500]
    return bridge_error("protocol.malformed", f"not a message of the protocol: {reason}")
