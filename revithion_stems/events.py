"""What happens while the product works, as data: one union of events, each with a job id and a monotonic ``seq``."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from revithion_stems.errors import Cancelled
from revithion_stems.jobs import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobChanged:
    """A job entered a state. ``error`` (code, message, hint) is set with ``FAILED`` and ``CANCELLED``."""

    job_id: str
    seq: int
    state: JobState
    source: str
    error: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Work done so far: ``done`` of ``total`` network runs; ``remaining_s`` is None until a rate is known."""

    job_id: str
    seq: int
    done: int
    total: int
    elapsed_s: float
    remaining_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StemReady:
    """A file with audio of a stem is complete: ``frames`` at ``sample_rate``, in stream ``stream``.

    With ``final`` it is the whole stem, under its final name. Else it is a span of it in 32-bit float WAV, from
    ``start_frame`` on, for those who want to hear the beginning while the rest is computed: only the daemon makes
    those, and it removes them some time after the job's end; their ``sha256`` is empty, and the gain that formats with
    a limit may need is not in them.
    """

    job_id: str
    seq: int
    stem: str
    path: str
    frames: int
    sample_rate: int
    sha256: str
    stream: int
    start_frame: int = 0
    final: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """The figures of a finished separation; levels in dB, times in seconds.

    ``exact`` says that the stems add up to the source bit for bit (``null_db`` then is minus infinity, null in JSON);
    ``null_db`` is None where they are not meant to, or where a lossy format came between. ``lag_frames`` is how many
    frames later the stems are than the source. ``cached`` says that the content store had them, ``resumed_runs`` how
    many network runs an earlier attempt had finished, ``manifest`` where the record of all this is.
    """

    job_id: str
    seq: int
    model: str
    engine: str
    device: str
    licence: str
    duration_s: float
    elapsed_s: float
    null_db: float | None
    exact: bool
    gain_db: float
    residual: str
    lag_frames: int | None
    cached: bool
    resumed_runs: int
    manifest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One line for people: which model was chosen and why, a source that failed, a gain that was needed."""

    job_id: str
    seq: int
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadProgress:
    """Bytes of a weights file so far; ``total_bytes`` is None where the source does not say."""

    job_id: str
    seq: int
    file: str
    source: str
    done_bytes: int
    total_bytes: int | None


JobEvent: TypeAlias = JobChanged | JobProgress | StemReady | JobSummary | Notice | DownloadProgress
EventCallback: TypeAlias = Callable[[JobEvent], None]


class EventStream:
    """Numbers events and hands them to one callback, in order, from any thread.

    Args:
        job_id: Put on every event.
        callback: Called on the emitting thread, one call at a time; None throws the events away.
    """

    def __init__(self, job_id: str, callback: EventCallback | None = None) -> None:
        self.job_id = job_id
        self._callback = callback
        self._lock = threading.Lock()
        self._seq = 0

    def emit(self, kind: type[JobEvent], **fields: Any) -> None:
        """Builds an event of ``kind`` with the next ``seq`` and delivers it."""
        with self._lock:
            event = kind(job_id=self.job_id, seq=self._seq, **fields)
            self._seq += 1
            if self._callback is not None:
                self._callback(event)

    def notice(self, code: str, message: str) -> None:
        """Shorthand for a :class:`Notice`."""
        self.emit(Notice, code=code, message=message)


def event_as_dict(event: JobEvent) -> dict[str, Any]:
    """An event as JSON-ready data, with its class name under ``type``; enums become their values."""
    data = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    state = data.get("state")
    if isinstance(state, JobState):
        data["state"] = state.value
    return {"type": type(event).__name__, **data}


_KINDS: dict[str, type[JobEvent]] = {kind.__name__: kind for kind in JobEvent.__args__}


def event_from_dict(data: Mapping[str, Any]) -> JobEvent:
    """The event that :func:`event_as_dict` described, in whichever process.

    Raises:
        ValueError: It is of no known type, or its fields are not those of its type.
    """
    fields = dict(data)
    kind = _KINDS.get(fields.pop("type", ""))
    if kind is None:
        raise ValueError(f"no event of type {data.get('type')!r} is known")
    if kind is JobSummary and fields.get("exact") is True:
        fields["null_db"] = float("-inf")  # which JSON does not have
    return msgspec.convert(fields, kind)


class CancelToken:
    """A flag that one thread raises and another one looks at between segments. Any thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Asks the work to stop at its next check; calling it again changes nothing."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._event.is_set()

    def raise_if_cancelled(self) -> None:
        """Raises :class:`~revithion_stems.errors.Cancelled` once the token is cancelled."""
        if self.cancelled:
            raise Cancelled("cancelled on request", hint="Run the same command again to go on from there.")
