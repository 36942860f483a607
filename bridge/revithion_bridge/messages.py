"""The wire protocol as data: every message once, and everything else derives from it.

The codec, the doors, OSC's addresses, the tables of ``bridge/PROTOCOL.md`` and the constants of the DAW scripts are
made from :data:`MESSAGES`, :data:`EVENTS` and :data:`ERRORS`; tests compare them. Types and ranges stand in the
annotations, units in the names (``_s`` seconds, ``_db`` decibels, ``_bytes``, ``_frames``), meanings in the docstrings.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import Meta

from revithion_stems.events import DownloadProgress, JobChanged, JobProgress, JobSummary, Notice, StemReady
from revithion_stems.jobs import JobState
from revithion_stems.live import HIGHEST_DB, LOWEST_DB, LiveOutputs, LivePhase, LiveState, Tier
from revithion_stems.scheduler import Priority

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 262_144
"""Of one message in either direction: a peer that sends more is dropped, and replies are cut so that they fit."""
OSC_PREFIX = f"/revithion/v{PROTOCOL_VERSION}"
HEARTBEAT_S = 1.0
LEVELS_S = 0.1
"""Between two :class:`LiveLevels`, while the live preview plays."""
MAX_LISTED = 500

JobId: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
ClientName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._ -]{1,64}$(?!\n)")]
PathText: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
GainDb: TypeAlias = Annotated[float, Meta(ge=-120.0, le=24.0)]
BandDb: TypeAlias = Annotated[float, Meta(ge=LOWEST_DB, le=HIGHEST_DB)]
Balance: TypeAlias = Annotated[float, Meta(ge=-1.0, le=1.0)]
Position: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
PortNames: TypeAlias = Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=320)], ...], Meta(max_length=32)]
BoxName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z]{2,16}-[0-9a-f]{16}$(?!\n)")]
StripRole: TypeAlias = Annotated[str, Meta(pattern=r"^(?:bus|track)$(?!\n)")]
StripName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]


class Door(enum.Enum):
    """Where a request goes: ``CONTROL`` answers at once, whatever happens behind ``WORK``."""

    WORK = "work"
    CONTROL = "control"


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Base of all requests; a field that is not known is an error."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all replies; later versions may add fields."""


class DaemonEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag=True):
    """Base of the events that are the daemon's own; those of jobs are :data:`revithion_stems.events.JobEvent`."""


# --- what messages are made of ---


class JobParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is separated, how, and where it goes; the defaults are those of the command line.

    Attributes:
        source: Absolute path of the audio file.
        folder: Absolute path of the folder that the stems' files stay in.
        model: A model's name, or ``auto``.
        stems: Which stems; empty for all.
        two_stems: One stem and the rest, instead of ``stems``.
        other_method: How that rest is made: ``minus``, ``add`` or ``none``.
        residual: What no stem claims: ``fold``, ``stem`` or ``exact``.
        segment_s: Seconds per network run; null for the model's own.
        overlap: Fraction of a segment.
        shifts: Random time shifts to average over.
        seed: Of the shifts.
        engine: ``auto``, ``torch`` or ``onnx``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: ``fp32`` or ``bf16``.
        threads: CPU threads for the network; null leaves it to the engine.
        format: Container of the files, such as ``wav`` or ``flac``.
        bit_depth: ``16``, ``24`` or ``32f``; null for the format's own.
        template: Names below ``folder``; fields ``{track} {stem} {model} {ext} {source_ext}``.
        archive_mix: Whether a copy of the source is put beside its stems.
        keep: Absolute paths that must not be overwritten.
        force_refresh: Whether to compute what the cache has.
        offline: Whether downloads are forbidden.
        span_s: Length of the spans that are published while the job runs, in seconds; 0 for none.
    """

    source: PathText
    folder: PathText
    model: Name = "auto"
    stems: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    two_stems: Name | None = None
    other_method: Name = "minus"
    residual: Name = "fold"
    segment_s: float | None = None
    overlap: float = 0.25
    shifts: int = 0
    seed: int = 0
    engine: Name = "auto"
    device: Name = "auto"
    precision: Name = "fp32"
    threads: int | None = None
    format: Name = "wav"
    bit_depth: Name | None = None
    template: Annotated[str, Meta(min_length=1, max_length=1024)] = "{track}/{stem}.{ext}"
    archive_mix: bool = False
    keep: Annotated[tuple[PathText, ...], Meta(max_length=1024)] = ()
    force_refresh: bool = False
    offline: bool = False
    span_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 5.0


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong.

    Attributes:
        code: Stable, dotted, for scripts; see the table of error codes.
        message: For people.
        hint: What to do next.
    """

    code: str
    message: str
    hint: str


class Spans(msgspec.Struct, frozen=True, kw_only=True):
    """The beginning of a running job's stems, as files; also announced one by one as ``StemReady`` events.

    Span *n* of a stem is ``folder/NNNNN-STEM.wav``, *n* in five digits, and starts at frame *n* · ``span_frames``.

    Attributes:
        folder: Where they are; removed some time after the job's end.
        stems: Names of the stems.
        span_frames: Frames of each span but the last.
        sample_rate: Hz.
        count: How many spans of each stem there are.
    """

    folder: str
    stems: tuple[str, ...]
    span_frames: int
    sample_rate: int
    count: int


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One job, as everybody sees it. Times are seconds since 1970 (UTC).

    Attributes:
        id: Of the job.
        client: Who asked for it.
        state: Where it stands.
        priority: Its class.
        parameters: What was asked for.
        created_at: When it was accepted.
        started_at: When its last attempt started, or null.
        finished_at: When it ended, or null.
        attempts: How often it was started.
        cancelling: Whether it will stop after the segment that runs.
        done: Network runs done.
        total: Network runs in all; 0 until they are known.
        elapsed_s: Time in the running stage, as ``JobProgress`` tells it.
        remaining_s: Expected time left, or null.
        error: Why it failed or was cancelled, or null.
        summary: The ``JobSummary`` event's fields, once it is done.
        stems: The fields of the final ``StemReady`` events, once it is done.
        spans: What can be heard of a running job, or null.
        retry_of: The job that this one repeats, or null.
        last_seq: ``seq`` of its last event.
    """

    id: str
    client: str
    state: JobState
    priority: Priority
    parameters: JobParameters
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    attempts: int = 0
    cancelling: bool = False
    done: int = 0
    total: int = 0
    elapsed_s: float = 0.0
    remaining_s: float | None = None
    error: ErrorInfo | None = None
    summary: dict[str, Any] | None = None
    stems: tuple[dict[str, Any], ...] = ()
    spans: Spans | None = None
    retry_of: str | None = None
    last_seq: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a job's history.

    Attributes:
        at: When, in seconds since 1970 (UTC).
        state: The state that was entered.
        attempt: During which attempt; 0 before the first.
        reason: Why, where that is not plain: ``preempted``, ``restart``, ``worker lost``, ``memory`` or an error code.
    """

    at: float
    state: JobState
    attempt: int
    reason: str = ""


class LiveStem(msgspec.Struct, frozen=True, kw_only=True):
    """A strip of the live preview.

    Attributes:
        stem: Name of the stem.
        gain_db: Gain of its fader; -60 is silent.
        muted: Whether it is silent.
        pan: -1 (left) to 1 (right).
        solo: Whether it is heard alone, with others that are.
        low_db: Low band of its equaliser; -60 is a kill.
        mid_db: Middle band.
        high_db: High band.
        filter: -1 (low-pass closed) to 1 (high-pass closed); 0 is open.
    """

    stem: str
    gain_db: float = 0.0
    muted: bool = False
    pan: float = 0.0
    solo: bool = False
    low_db: float = 0.0
    mid_db: float = 0.0
    high_db: float = 0.0
    filter: float = 0.0


class LiveLevel(msgspec.Struct, frozen=True, kw_only=True):
    """How loud a stem of the live preview is, after its fader.

    Attributes:
        stem: Name of the stem.
        left_db: Peak level, dBFS, falling back slowly; -120 for silence.
        right_db: The same, right.
        tier: What it is played from.
    """

    stem: str
    left_db: float
    right_db: float
    tier: Tier


class DawStrip(msgspec.Struct, frozen=True, kw_only=True):
    """A track or bus in a DAW that we put there.

    Attributes:
        box: Of the session that it is in.
        role: ``track`` or ``bus``.
        key: Of its plan: the stem, for most.
        name: What people see.
        identity: Of its plan.
        gain_db: Gain of its fader.
        muted: Whether it is silent.
    """

    box: str
    role: str
    key: str
    name: str
    identity: str
    gain_db: float
    muted: bool


class DawSessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is open in a DAW with our script in it.

    Attributes:
        box: Its name in the mailbox.
        daw: Which program: ``ardour``, ``reaper``, ...
        program: Its version.
        name: Of the session.
        path: Its folder or file, or empty if it was never saved.
        sample_rate: Hz.
        strips: What is in it that is ours.
    """

    box: str
    daw: str
    program: str
    name: str
    path: str
    sample_rate: int
    strips: tuple[DawStrip, ...]


class DawRequestInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a DAW has asked for and does not have yet.

    Attributes:
        box: Of the session that asks.
        id: Of the request.
        state: As of a job.
        fraction: How much is done, 0 to 1.
        remaining_s: Expected time left, or null.
        text: For people.
        jobs: Its jobs, as far as they are submitted.
    """

    box: str
    id: str
    state: str
    fraction: float = 0.0
    remaining_s: float | None = None
    text: str = ""
    jobs: tuple[str, ...] = ()


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The process that owns a device.

    Attributes:
        device: Which.
        pid: Of the process; null while it is not running (it ends after some idle time, to free its memory).
        job: What it works on, or null.
        model: What is warm, or null.
        memory_bytes: Resident memory.
        restarts: How often it was lost since the daemon started.
    """

    device: str
    pid: int | None = None
    job: str | None = None
    model: str | None = None
    memory_bytes: int = 0
    restarts: int = 0


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Percentiles over the last 1,024 of something, in seconds; 0 where there was none.

    Attributes:
        count: How many there were in all.
        p50_s: Median.
        p90_s: 90 % are below it.
        p99_s: 99 % are below it.
    """

    count: int = 0
    p50_s: float = 0.0
    p90_s: float = 0.0
    p99_s: float = 0.0


# --- requests and replies ---


class SubmitJob(Request, tag="job.submit", frozen=True, kw_only=True):
    """Puts a job into the queue; it is on disk when the reply comes.

    Attributes:
        job: What to do.
        priority: ``interactive`` goes first and makes others give way, ``batch`` goes last.
        idempotency_key: The same key with the same job gives the first one's job again, whatever became of it.
    """

    job: JobParameters
    priority: Priority = Priority.NORMAL
    idempotency_key: Key | None = None


class ListJobs(Request, tag="job.list", frozen=True, kw_only=True):
    """Jobs, newest first.

    Attributes:
        states: Only these; empty for all.
        client: Only of this client.
        limit: At most so many.
        before: Only jobs older than this one: the last one of the previous page.
    """

    states: tuple[JobState, ...] = ()
    client: ClientName | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = 100
    before: JobId | None = None


class WaitJob(Request, tag="job.wait", frozen=True, kw_only=True):
    """Answers when the job has ended, or when the time is over.

    Attributes:
        job_id: Which.
        timeout_s: How long to wait.
    """

    job_id: JobId
    timeout_s: Annotated[float, Meta(ge=0.0, le=3600.0)] = 60.0


class RetryJob(Request, tag="job.retry", frozen=True, kw_only=True):
    """Submits a job that failed or was cancelled again, as a new one; the same message again gives the same new job.

    Attributes:
        job_id: Which.
    """

    job_id: JobId


class DeleteJob(Request, tag="job.delete", frozen=True, kw_only=True):
    """Forgets a job that has ended; its stems stay.

    Attributes:
        job_id: Which.
    """

    job_id: JobId


class ClearJobs(Request, tag="job.clear", frozen=True, kw_only=True):
    """Forgets all jobs that have ended; their stems stay.

    Attributes:
        older_than_s: Only those that ended so long ago.
        client: Only of this client.
    """

    older_than_s: Annotated[float, Meta(ge=0.0)] = 0.0
    client: ClientName | None = None


class GetJob(Request, tag="job.status", frozen=True, kw_only=True):
    """One job, with its history.

    Attributes:
        job_id: Which.
    """

    job_id: JobId


class CancelJob(Request, tag="job.cancel", frozen=True, kw_only=True):
    """Stops a job: at once if it waits, after the segment that runs otherwise. An ended one stays as it is.

    Attributes:
        job_id: Which.
    """

    job_id: JobId


class Reprioritise(Request, tag="job.priority", frozen=True, kw_only=True):
    """Moves a job that waits or runs into another class.

    Attributes:
        job_id: Which.
        priority: The new one.
    """

    job_id: JobId
    priority: Priority


class PauseQueue(Request, tag="queue.pause", frozen=True, kw_only=True):
    """Starts no more jobs; what runs goes on. It holds over restarts."""


class ResumeQueue(Request, tag="queue.resume", frozen=True, kw_only=True):
    """Starts jobs again."""


class GetStatus(Request, tag="daemon.status", frozen=True, kw_only=True):
    """How the daemon is."""


class GetSnapshot(Request, tag="events.snapshot", frozen=True, kw_only=True):
    """All jobs that have not ended, and the ``seq`` up to which this is told: what a subscriber asks for first."""


class GetEvents(Request, tag="events.since", frozen=True, kw_only=True):
    """Events again, for those who missed some.

    Attributes:
        epoch: Of the daemon's run that they are of.
        seq: The last one that was seen.
        limit: At most so many.
    """

    epoch: Annotated[str, Meta(max_length=64)]
    seq: Count
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = MAX_LISTED


class Shutdown(Request, tag="daemon.shutdown", frozen=True, kw_only=True):
    """Ends the daemon after the segment that runs; its jobs go on when it is started again."""


class SetLive(Request, tag="live.set", frozen=True, kw_only=True):
    """Moves controls of a strip of the live preview, all at the same frame; null leaves one as it is.

    While nothing plays they are kept, and the next session begins with them.

    Attributes:
        stem: Which.
        gain_db: New gain; -60 and less is silent, and 12 is the most.
        fader: Where the fader stands, instead of ``gain_db``: 0 is silent, 0.75 is 0 dB, 1 is 12 dB.
        muted: Whether it is silent.
        pan: -1 (left) to 1 (right).
        solo: Whether it is heard alone, with others that are.
        low_db: Low band of its equaliser; -60 is a kill.
        mid_db: Middle band.
        high_db: High band.
        filter: -1 (low-pass closed) to 1 (high-pass closed); 0 is open.
    """

    stem: Name
    gain_db: GainDb | None = None
    fader: Position | None = None
    muted: bool | None = None
    pan: Balance | None = None
    solo: bool | None = None
    low_db: BandDb | None = None
    mid_db: BandDb | None = None
    high_db: BandDb | None = None
    filter: Balance | None = None


class GetLive(Request, tag="live.get", frozen=True, kw_only=True):
    """All strips of the live preview, and the session that plays."""


class StartLive(Request, tag="live.start", frozen=True, kw_only=True):
    """Starts a session of the live preview; answers once it plays. One at a time.

    Attributes:
        model: ``preview``, ``dsp``, an offline model, which is then used with look-back, or the absolute path of a
            causal network (``.onnx``).
        device: ``default``, ``jack``, ``none`` (no sound: a clock), or the name of a device or its beginning.
        input_device: The same for the input, if it is another one; empty for ``device``.
        source: Absolute path of a file that is played as if it were live; empty for the device's input.
        loop: Whether the file begins again at its end; else the session ends with it.
        outputs: What the outputs carry.
        sample_rate: Hz, or 0 for the device's own.
        block_frames: Frames of a callback, or 0 for the device's own.
        safety_frames: Frames that inference may be later than its hop takes, or -1 for one block.
        connect_from: JACK ports to be connected to the inputs, in their order.
        connect_to: JACK ports to be connected to the outputs, in their order.
        client_name: What the client is called in JACK.
        look_back_hop_s: With an offline model: how often it runs.
    """

    model: PathText = "preview"
    device: StripName = "default"
    input_device: Annotated[str, Meta(max_length=200)] = ""
    source: Annotated[str, Meta(max_length=4096)] = ""
    loop: bool = False
    outputs: LiveOutputs = LiveOutputs.MIX
    sample_rate: int = 0
    block_frames: int = 256
    safety_frames: int = -1
    connect_from: PortNames = ()
    connect_to: PortNames = ()
    client_name: Name = "revithion-stems"
    look_back_hop_s: float = 1.0


class StopLive(Request, tag="live.stop", frozen=True, kw_only=True):
    """Ends the session of the live preview, and the recording that runs; harmless if nothing plays."""


class SetLiveMonitor(Request, tag="live.monitor", frozen=True, kw_only=True):
    """Moves the fader of the monitor mix.

    Attributes:
        gain_db: New gain; -60 is silent.
    """

    gain_db: BandDb


class StoreLiveScene(Request, tag="live.scene.store", frozen=True, kw_only=True):
    """Keeps how all strips stand under a name, for later sessions too.

    Attributes:
        name: Of the scene.
    """

    name: Name


class RecallLiveScene(Request, tag="live.scene.recall", frozen=True, kw_only=True):
    """Moves all strips to how they stood in a scene, at the same frame.

    Attributes:
        name: Of the scene.
    """

    name: Name


class RecordLive(Request, tag="live.record", frozen=True, kw_only=True):
    """Begins to record the stems, before their faders, as a new take, or ends that; ended twice is harmless.

    Attributes:
        on: Whether to record.
        folder: Absolute path of the folder for takes; null for ``revithion-stems`` in the user's music folder.
    """

    on: bool
    folder: PathText | None = None


class RingDaw(Request, tag="daw.ring", frozen=True, kw_only=True):
    """Says that something new is in the mailbox of the DAW scripts, so that it is looked at now.

    Attributes:
        box: Whose it is, or null.
    """

    box: BoxName | None = None


class ListDaws(Request, tag="daw.sessions", frozen=True, kw_only=True):
    """The sessions that are open in DAWs, and what they wait for."""


class SetDawFader(Request, tag="daw.fader", frozen=True, kw_only=True):
    """Moves faders of stems in DAWs. By OSC the answer does not wait for the DAW's.

    Attributes:
        stem: Key or name of the tracks or buses.
        gain_db: New gain; null leaves it.
        muted: Whether they are silent; null leaves it.
        role: ``bus`` or ``track``.
        box: Only in this session; null for all that are open.
    """

    stem: StripName
    gain_db: GainDb | None = None
    muted: bool | None = None
    role: StripRole = "bus"
    box: BoxName | None = None


class JobReply(Reply, tag="job", frozen=True, kw_only=True):
    """One job.

    Attributes:
        job: It.
        created: Whether this request made it.
        history: Its states; empty unless it was asked for.
    """

    job: JobInfo
    created: bool = False
    history: tuple[Change, ...] = ()


class JobList(Reply, tag="jobs", frozen=True, kw_only=True):
    """Some jobs.

    Attributes:
        jobs: Newest first.
        more: Whether there are older ones.
    """

    jobs: tuple[JobInfo, ...]
    more: bool = False


class Deleted(Reply, tag="deleted", frozen=True, kw_only=True):
    """Jobs were forgotten.

    Attributes:
        count: How many.
    """

    count: int


class Status(Reply, tag="status", frozen=True, kw_only=True):
    """How the daemon is.

    Attributes:
        version: Of the program.
        pid: Of the daemon.
        epoch: Of this run.
        seq: Of the last event.
        uptime_s: Since it was started.
        paused: Whether the queue is.
        stopping: Whether it is about to end.
        jobs: State → number of jobs, those that have ended included.
        waiting: Priority → number of jobs that wait.
        counters: What happened since it was started, by name.
        audio_s: Seconds of audio that were separated since then.
        memory_bytes: Resident memory of the daemon.
        memory_free_bytes: What the machine has left.
        workers: One per device in use.
        requests: Time from a request to its reply.
        queued: Time that jobs waited.
        first_segment: Time from a job's start to its first network run's end.
        roots: Folders that paths must be in.
        folders: Where models, cache and state are; whoever wants the same result must use the same.
    """

    version: str
    pid: int
    epoch: str
    seq: int
    uptime_s: float
    paused: bool
    stopping: bool
    jobs: dict[str, int]
    waiting: dict[str, int]
    counters: dict[str, int]
    audio_s: float
    memory_bytes: int
    memory_free_bytes: int
    workers: tuple[WorkerInfo, ...]
    requests: Latency
    queued: Latency
    first_segment: Latency
    roots: tuple[str, ...]
    folders: dict[str, str]


class Snapshot(Reply, tag="snapshot", frozen=True, kw_only=True):
    """Where things stand after event ``seq``.

    Attributes:
        epoch: Of the daemon's run.
        seq: Events up to this one are in it.
        paused: Whether the queue is.
        jobs: All that have not ended, oldest first.
        more: Whether there are others, which did not fit: ``job.list`` has them.
        live: Strips of the live preview.
    """

    epoch: str
    seq: int
    paused: bool
    jobs: tuple[JobInfo, ...]
    more: bool = False
    live: tuple[LiveStem, ...] = ()


class Events(Reply, tag="events", frozen=True, kw_only=True):
    """Events again, as they were published.

    Attributes:
        events: Oldest first.
        last_seq: Of the last event that there is.
    """

    events: tuple[dict[str, Any], ...]
    last_seq: int


class Done(Reply, tag="done", frozen=True, kw_only=True):
    """It was done."""


class Live(Reply, tag="live", frozen=True, kw_only=True):
    """The live preview.

    Attributes:
        stems: All strips, or the one that was moved.
        session: The session that plays, as it stands; null if none does, or only a strip was moved.
        message: Why the last session ended by itself, or empty.
        code: Of the error that ended it, or empty.
    """

    stems: tuple[LiveStem, ...]
    session: LiveState | None = None
    message: str = ""
    code: str = ""


class LiveTake(Reply, tag="take", frozen=True, kw_only=True):
    """A recording of the live preview.

    Attributes:
        folder: Of the take that began, or empty.
        files: Of the take that ended; none if there was no take.
    """

    folder: str = ""
    files: tuple[str, ...] = ()


class DawSessions(Reply, tag="sessions", frozen=True, kw_only=True):
    """Sessions that are open in DAWs.

    Attributes:
        sessions: With our script in them.
        requests: What they wait for.
        more: Whether there is more than fitted.
    """

    sessions: tuple[DawSessionInfo, ...]
    requests: tuple[DawRequestInfo, ...] = ()
    more: bool = False


class DawStrips(Reply, tag="strips", frozen=True, kw_only=True):
    """Tracks and buses in DAWs.

    Attributes:
        strips: Those that were set, as they are now.
    """

    strips: tuple[DawStrip, ...]


# --- the daemon's own events ---


class Heartbeat(DaemonEvent, frozen=True, kw_only=True):
    """Sent each second, without a ``seq`` of its own: who has seen less than ``seq`` has missed something.

    Attributes:
        seq: Of the last event.
        waiting: Jobs that wait.
        running: Jobs that run.
    """

    seq: int
    waiting: int
    running: int


class QueueChanged(DaemonEvent, frozen=True, kw_only=True):
    """The queue was paused or resumed, or the daemon is about to end.

    Attributes:
        seq: As in the envelope.
        paused: Whether no more jobs are started.
        stopping: Whether the daemon ends.
    """

    seq: int
    paused: bool
    stopping: bool = False


class JobDeleted(DaemonEvent, frozen=True, kw_only=True):
    """A job was forgotten.

    Attributes:
        seq: As in the envelope.
        job_id: Which.
    """

    seq: int
    job_id: str


class LiveChanged(DaemonEvent, frozen=True, kw_only=True):
    """A control of a strip of the live preview was moved.

    Attributes:
        seq: As in the envelope.
        stem: Which.
        gain_db: Its gain; -60 is silent.
        muted: Whether it is silent.
        fader: Where its fader stands: 0 is silent, 0.75 is 0 dB, 1 is 12 dB.
        pan: -1 (left) to 1 (right).
        solo: Whether it is heard alone, with others that are.
        low_db: Low band of its equaliser; -60 is a kill.
        mid_db: Middle band.
        high_db: High band.
        filter: -1 (low-pass closed) to 1 (high-pass closed); 0 is open.
    """

    seq: int
    stem: str
    gain_db: float
    muted: bool
    fader: float = 0.75
    pan: float = 0.0
    solo: bool = False
    low_db: float = 0.0
    mid_db: float = 0.0
    high_db: float = 0.0
    filter: float = 0.0


class LiveSessionChanged(DaemonEvent, frozen=True, kw_only=True):
    """A session of the live preview began, ended, lost or found its device, records, or has another scene.

    Attributes:
        seq: As in the envelope.
        phase: Where it stands; ``ended`` is final.
        model: Name of the model.
        device: Name of the device, with its driver.
        sample_rate: Hz.
        latency_frames: From the input to the output, all of it.
        monitor_gain_db: Gain of the monitor mix.
        recording: Whether a take is recorded.
        folder: Of that take, or empty.
        scenes: Names of the scenes that are kept.
        message: What people should know: why the device is lost, why the session ended; or empty.
        code: Of the error behind it, if it ended by one; else empty.
    """

    seq: int
    phase: LivePhase
    model: str
    device: str
    sample_rate: int
    latency_frames: int
    monitor_gain_db: float = 0.0
    recording: bool = False
    folder: str = ""
    scenes: tuple[str, ...] = ()
    message: str = ""
    code: str = ""


class LiveLevels(DaemonEvent, frozen=True, kw_only=True):
    """Sent ten times a second while the live preview plays, without a ``seq`` of its own; not kept.

    Attributes:
        seq: Of the last event.
        stems: Their levels.
        left_db: Peak level of the monitor mix, dBFS; -120 for silence.
        right_db: The same, right.
        late_times: How often it fell back to dry sound because inference was late, since the session began.
        xruns: Overflows and underflows that the driver told of.
        callback_load: Share of its time that the callback needs, 0 to 1.
        inference_load: Share of real time that inference needs, 0 to 1.
    """

    seq: int
    stems: tuple[LiveLevel, ...]
    left_db: float
    right_db: float
    late_times: int
    xruns: int
    callback_load: float
    inference_load: float


# --- the tables ---


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSpec:
    """A request and all that is known of it.

    Attributes:
        request: Its type; the tag is its name on the wire.
        reply: The type of its answer.
        door: Where it goes.
        errors: Codes that it may be answered with, besides those of every request; ``x.*`` stands for all of a kind.
        osc: Its OSC address, or None; ``{field}`` in it is a field of the request.
        osc_fields: Arguments after the token: fields of the request, dotted for those inside, the ones after the ``|``
            optional.
        osc_reply: Arguments of the reply, dotted.
        example: Fields of the request, as in the document.
    """

    any_errors: ClassVar[tuple[str, ...]] = (
        "protocol.malformed",
        "protocol.version",
        "protocol.door",
        "protocol.rate",
        "daemon.stopping",
        "error.unexpected",
    )

    request: type[Request]
    reply: type[Reply]
    door: Door
    errors: tuple[str, ...] = ()
    osc: str | None = None
    osc_fields: str = ""
    osc_reply: tuple[str, ...] = ()
    example: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name on the wire."""
        return str(self.request.__struct_config__.tag)


_JOB = ("job.id", "job.state", "job.done", "job.total", "job.remaining_s")
_AN_ID = "job-5f0c2a9b71d34e86"
_STRIP = ("strips.0.name", "strips.0.gain_db", "strips.0.muted")
_DAW_ERRORS = ("daw.absent", "daw.strip", "daw.busy", "daw.refused")
_A_BOX = "ardour-1f0c2a9b71d34e86"

MESSAGES: tuple[MessageSpec, ...] = (
    MessageSpec(
        request=SubmitJob,
        reply=JobReply,
        door=Door.WORK,
        errors=("request.*", "path.outside", "path.relative", "job.key_reused", "job.quota", "daemon.disk_full"),
        osc=f"{OSC_PREFIX}/job/submit",
        osc_fields="job.source job.folder | job.model priority",
        osc_reply=_JOB,
        example={
            "job": {"source": "/home/ada/song.wav", "folder": "/home/ada/stems", "model": "htdemucs"},
            "priority": "interactive",
            "idempotency_key": "ardour-track-7-take-2",
        },
    ),
    MessageSpec(
        request=ListJobs,
        reply=JobList,
        door=Door.WORK,
        errors=("job.unknown",),
        example={"states": ["queued", "separating"]},
    ),
    MessageSpec(
        request=WaitJob,
        reply=JobReply,
        door=Door.WORK,
        errors=("job.unknown",),
        example={"job_id": _AN_ID, "timeout_s": 30.0},
    ),
    MessageSpec(
        request=RetryJob,
        reply=JobReply,
        door=Door.WORK,
        errors=("job.unknown", "job.transition", "path.outside", "job.quota", "daemon.disk_full"),
        osc=f"{OSC_PREFIX}/job/retry",
        osc_fields="job_id",
        osc_reply=_JOB,
        example={"job_id": _AN_ID},
    ),
    MessageSpec(
        request=DeleteJob,
        reply=Deleted,
        door=Door.WORK,
        errors=("job.unknown", "job.transition"),
        example={"job_id": _AN_ID},
    ),
    MessageSpec(request=ClearJobs, reply=Deleted, door=Door.WORK, example={"older_than_s": 86400.0}),
    MessageSpec(
        request=GetJob,
        reply=JobReply,
        door=Door.CONTROL,
        errors=("job.unknown",),
        osc=f"{OSC_PREFIX}/job/status",
        osc_fields="job_id",
        osc_reply=_JOB,
        example={"job_id": _AN_ID},
    ),
    MessageSpec(
        request=CancelJob,
        reply=JobReply,
        door=Door.CONTROL,
        errors=("job.unknown",),
        osc=f"{OSC_PREFIX}/job/cancel",
        osc_fields="job_id",
        osc_reply=_JOB,
        example={"job_id": _AN_ID},
    ),
    MessageSpec(
        request=Reprioritise,
        reply=JobReply,
        door=Door.CONTROL,
        errors=("job.unknown", "job.transition"),
        osc=f"{OSC_PREFIX}/job/priority",
        osc_fields="job_id priority",
        osc_reply=_JOB,
        example={"job_id": _AN_ID, "priority": "batch"},
    ),
    MessageSpec(request=PauseQueue, reply=Done, door=Door.CONTROL, osc=f"{OSC_PREFIX}/queue/pause"),
    MessageSpec(request=ResumeQueue, reply=Done, door=Door.CONTROL, osc=f"{OSC_PREFIX}/queue/resume"),
    MessageSpec(
        request=GetStatus,
        reply=Status,
        door=Door.CONTROL,
        osc=f"{OSC_PREFIX}/status",
        osc_reply=("version", "paused", "seq", "uptime_s"),
    ),
    MessageSpec(request=GetSnapshot, reply=Snapshot, door=Door.CONTROL),
    MessageSpec(
        request=GetEvents,
        reply=Events,
        door=Door.CONTROL,
        errors=("events.gone",),
        example={"epoch": "9d2e4c1f", "seq": 1041},
    ),
    MessageSpec(request=Shutdown, reply=Done, door=Door.CONTROL),
    *(
        MessageSpec(
            request=SetLive,
            reply=Live,
            door=Door.CONTROL,
            errors=("live.stem", "live.value"),
            osc=f"{OSC_PREFIX}/live/{{stem}}/{control}",
            osc_fields=field,
            osc_reply=("stems.0.stem", "stems.0.gain_db", "stems.0.muted"),
            example={"stem": "vocals", field: value},
        )
        for control, field, value in (
            ("gain", "gain_db", -6.0),
            ("fader", "fader", 0.75),
            ("mute", "muted", True),
            ("pan", "pan", -0.5),
            ("solo", "solo", True),
            ("low", "low_db", -60.0),
            ("mid", "mid_db", 3.0),
            ("high", "high_db", 0.0),
            ("filter", "filter", 0.25),
        )
    ),
    MessageSpec(request=GetLive, reply=Live, door=Door.CONTROL),
    MessageSpec(
        request=StartLive,
        reply=Live,
        door=Door.WORK,
        errors=("live.*", "model.*", "input.*", "path.outside", "path.relative"),
        osc=f"{OSC_PREFIX}/live/start",
        osc_fields="| source model device",
        osc_reply=("session.model", "session.device", "session.budget.sample_rate"),
        example={"source": "/home/ada/song.wav", "model": "preview", "device": "jack", "outputs": "both"},
    ),
    MessageSpec(
        request=StopLive,
        reply=Live,
        door=Door.WORK,
        errors=("live.recording",),
        osc=f"{OSC_PREFIX}/live/stop",
    ),
    MessageSpec(
        request=SetLiveMonitor,
        reply=Done,
        door=Door.CONTROL,
        errors=("live.idle",),
        osc=f"{OSC_PREFIX}/live/monitor",
        osc_fields="gain_db",
        example={"gain_db": -3.0},
    ),
    *(
        MessageSpec(
            request=request,
            reply=Live,
            door=Door.CONTROL,
            errors=("live.idle", "live.scene"),
            osc=f"{OSC_PREFIX}/live/scene{address}",
            osc_fields=fields,
            example={"name": name},
        )
        for request, verb in ((StoreLiveScene, "store"), (RecallLiveScene, "recall"))
        for address, fields, name in ((f"/{verb}", "name", "break"), (f"/{{name}}/{verb}", "", "1"))
    ),
    MessageSpec(
        request=RecordLive,
        reply=LiveTake,
        door=Door.WORK,
        errors=("live.idle", "live.recording", "path.outside", "path.relative"),
        osc=f"{OSC_PREFIX}/live/record",
        osc_fields="on | folder",
        osc_reply=("folder",),
        example={"on": True, "folder": "/home/ada/takes"},
    ),
    MessageSpec(
        request=RingDaw,
        reply=Done,
        door=Door.CONTROL,
        osc=f"{OSC_PREFIX}/daw/ring",
        osc_fields="| box",
        example={"box": _A_BOX},
    ),
    MessageSpec(request=ListDaws, reply=DawSessions, door=Door.WORK),
    MessageSpec(
        request=SetDawFader,
        reply=DawStrips,
        door=Door.WORK,
        errors=_DAW_ERRORS,
        osc=f"{OSC_PREFIX}/daw/{{stem}}/gain",
        osc_fields="gain_db | role box",
        osc_reply=_STRIP,
        example={"stem": "vocals", "gain_db": -6.0, "role": "bus", "box": _A_BOX},
    ),
    MessageSpec(
        request=SetDawFader,
        reply=DawStrips,
        door=Door.WORK,
        errors=_DAW_ERRORS,
        osc=f"{OSC_PREFIX}/daw/{{stem}}/mute",
        osc_fields="muted | role box",
        osc_reply=_STRIP,
        example={"stem": "vocals", "muted": True, "role": "track", "box": _A_BOX},
    ),
)
"""Every request. Those with several OSC addresses stand here as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A further OSC message of an event, for surfaces whose controls each have an address.

    Attributes:
        osc: Its address, ``{field}`` filled in; it may be that of a request, so that a control follows what it moves.
        osc_fields: Arguments there.
        each: Field with several items, each of which is a message; address and arguments are then the item's.
    """

    osc: str
    osc_fields: tuple[str, ...]
    each: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSpec:
    """An event and how it is published.

    Attributes:
        kind: Its type; the class's name is its ``type`` on the wire.
        topic: First frame of its message, ``{field}`` filled in; subscriptions are by prefix.
        osc: Its OSC address, ``{field}`` filled in.
        osc_fields: Arguments there.
        feedback: Its further OSC messages.
        transient: Whether it takes no number and is not kept for those who missed it.
    """

    kind: type[Any]
    topic: str
    osc: str
    osc_fields: tuple[str, ...]
    feedback: tuple[Feedback, ...] = ()
    transient: bool = False


def _job_event(kind: type[Any], name: str, *osc_fields: str) -> EventSpec:
    return EventSpec(
        kind=kind,
        topic=f"job/{{job_id}}/{name}",
        osc=f"{OSC_PREFIX}/event/{name}",
        osc_fields=("job_id", *osc_fields),
    )


EVENTS: tuple[EventSpec, ...] = (
    _job_event(JobChanged, "changed", "state", "source", "error.code", "error.message"),
    _job_event(JobProgress, "progress", "done", "total", "elapsed_s", "remaining_s"),
    _job_event(StemReady, "stem", "stem", "path", "start_frame", "frames", "sample_rate", "final"),
    _job_event(JobSummary, "summary", "model", "duration_s", "elapsed_s", "exact", "null_db", "cached"),
    _job_event(Notice, "notice", "code", "message"),
    _job_event(DownloadProgress, "download", "file", "done_bytes", "total_bytes"),
    EventSpec(kind=JobDeleted, topic="job/{job_id}/deleted", osc=f"{OSC_PREFIX}/event/deleted", osc_fields=("job_id",)),
    EventSpec(kind=QueueChanged, topic="queue", osc=f"{OSC_PREFIX}/event/queue", osc_fields=("paused", "stopping")),
    EventSpec(
        kind=LiveChanged,
        topic="live/{stem}",
        osc=f"{OSC_PREFIX}/live/{{stem}}/state",
        osc_fields=("gain_db", "muted"),
        feedback=tuple(
            Feedback(osc=spec.osc, osc_fields=(spec.osc_fields,))
            for spec in MESSAGES
            if spec.request is SetLive and spec.osc is not None
        ),
    ),
    EventSpec(
        kind=LiveSessionChanged,
        topic="live",
        osc=f"{OSC_PREFIX}/live/state",
        osc_fields=("phase", "model", "device", "sample_rate", "latency_frames", "message"),
        feedback=(
            Feedback(osc=f"{OSC_PREFIX}/live/monitor", osc_fields=("monitor_gain_db",)),
            Feedback(osc=f"{OSC_PREFIX}/live/record", osc_fields=("recording", "folder")),
        ),
    ),
    EventSpec(
        kind=LiveLevels,
        topic="levels",
        osc=f"{OSC_PREFIX}/live/level",
        osc_fields=("left_db", "right_db", "late_times", "xruns", "callback_load", "inference_load"),
        feedback=(
            Feedback(osc=f"{OSC_PREFIX}/live/{{stem}}/level", osc_fields=("left_db", "right_db", "tier"), each="stems"),
        ),
        transient=True,
    ),
    EventSpec(
        kind=Heartbeat,
        topic="heartbeat",
        osc=f"{OSC_PREFIX}/event/heartbeat",
        osc_fields=("seq", "waiting", "running"),
        transient=True,
    ),
)
"""Every event, in no particular order."""
TRANSIENT = tuple(spec.kind for spec in EVENTS if spec.transient)
"""Those that say how things stand, and that nobody needs to hear again."""


ERRORS: dict[str, tuple[str, str]] = {
    # code: (meaning, what to do)
    "protocol.malformed": ("The message is not JSON, or does not fit its type.", "Correct the field that is named."),
    "protocol.version": (
        f"The message is not of version {PROTOCOL_VERSION}.",
        "Install the same version of the program on both sides.",
    ),
    "protocol.door": ("The request came by the wrong socket.", "Send it to the one that the table names."),
    "protocol.rate": (
        "Too many messages in too short a time.",
        "Wait; subscribe to events instead of asking.",
    ),
    "auth.token": ("The OSC token is missing or wrong.", "Take it from the connection file: `serve --show-osc`."),
    "auth.limited": ("Too many wrong OSC tokens.", "Wait a minute, then send the right one."),
    "job.unknown": ("There is no job of that id.", "See `revithion-stems jobs`."),
    "job.transition": ("The job's state does not allow that.", "See its state in `revithion-stems jobs`."),
    "job.key_reused": ("The idempotency key belongs to another job.", "Use a new key for each new job."),
    "job.quota": ("This client, or all together, have too many jobs waiting.", "Wait until some are done."),
    "path.relative": ("A path is not absolute.", "Send the whole path."),
    "path.outside": (
        "A path is outside the folders that the daemon may use.",
        "Move the file, or start the daemon with `serve --root FOLDER`.",
    ),
    "events.gone": ("These events are no longer kept, or are of another run.", "Ask for a snapshot."),
    "live.stem": ("The live preview has no such stem.", "See `live.get`."),
    "live.running": ("The live preview plays already.", "Stop it: `revithion-stems live --stop`, or `live.stop`."),
    "live.idle": ("The live preview does not play.", "Start it first: `live.start`."),
    "daemon.unreachable": ("No daemon answers.", "Start it with `revithion-stems serve`."),
    "daemon.running": ("Another daemon runs already for this user.", "Use it, or end it with `serve --stop`."),
    "daemon.start_failed": ("The daemon could not be started.", "See its log; the message names it."),
    "daemon.stopping": ("The daemon is about to end.", "Start it again, then send the request again."),
    "daemon.disk_full": ("The queue can't be written to the disk.", "Free some space in the folder that is named."),
    "daemon.ledger": ("The file with the queue can't be used.", "Move it away; the message names it."),
    "daemon.service": ("The service could not be installed or removed.", "See the message of the system's tool."),
    "daw.plan": ("A plan of tracks and buses, or a preset, is not sound.", "Correct the field that is named."),
    "daw.unknown": ("There is no adapter or writer for that program or file.", "See `revithion-stems daw list`."),
    "daw.absent": (
        "No session of that program is open with our script in it.",
        "Open one; `revithion-stems daw status` says what is missing.",
    ),
    "daw.ambiguous": ("More than one session is open.", "Say which: `revithion-stems daw status` names them."),
    "daw.busy": ("The DAW does not answer.", "Close its dialogs, then try again."),
    "daw.refused": ("The DAW could not do it; the message is its own.", "See the page of the DAW in docs/daw/."),
    "daw.selection": ("Nothing is selected that could be separated.", "Select an audio track, or clips of it."),
    "daw.project": (
        "A project file can't be read, or is not what it says.",
        "See the message; the file was left alone.",
    ),
    "daw.in_use": ("The project is open in its program.", "Close it there, or use the program's own menu."),
    "daw.strip": (
        "No open session has a track or bus of ours of that name.",
        "See `daw.sessions` for those that there are.",
    ),
    "daw.install": ("A script could not be installed or removed.", "See the message; nothing else was changed."),
    "midi.backend": (
        "There is no driver for MIDI.",
        "Install the extra: `pip install 'revithion-stems[midi]'`, or name another in MIDO_BACKEND.",
    ),
    "midi.port": ("The MIDI port is not there, or is in use.", "`revithion-stems daw midi --list` names those there."),
    "worker.lost": (
        "The process that computes ended twice during this job.",
        "Try another --engine or --device, and report it.",
    ),
}
"""Every error code of the bridge; the core's are in docs/exit-codes.md, and come through as they are."""
