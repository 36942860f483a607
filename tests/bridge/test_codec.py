"""Messages as bytes: what goes in comes out, and what is none is told so, whatever it is."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revithion_bridge.codec import (
    Parent,
    decode_event,
    decode_reply,
    decode_request,
    encode_event,
    encode_reply,
    encode_request,
    event_message,
    request_id,
)
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import (
    EVENTS,
    MAX_MESSAGE_BYTES,
    MESSAGES,
    Change,
    Done,
    Door,
    Events,
    GetStatus,
    Heartbeat,
    JobInfo,
    JobList,
    JobParameters,
    JobReply,
    Live,
    LiveChanged,
    LiveLevel,
    LiveLevels,
    LiveSessionChanged,
    LiveStem,
    Snapshot,
    SubmitJob,
    WaitJob,
)
from revithion_stems.errors import RevithionError
from revithion_stems.events import JobChanged, JobProgress, JobSummary, StemReady
from revithion_stems.jobs import JobState
from revithion_stems.live import LatencyBudget, LivePhase, LiveState, StripSettings, StripState, Tier
from revithion_stems.scheduler import Priority

JOB = JobParameters(source="/a.wav", folder="/out")
INFO = JobInfo(id="job-1", client="c", state=JobState.QUEUED, priority=Priority.NORMAL, parameters=JOB, created_at=1.0)


def refused(data: bytes, door: Door | None = None) -> str:
    with pytest.raises(RevithionError) as caught:
        decode_request(data, door)
    assert len(caught.value.message) < 1000
    return caught.value.code


def envelope(**changes: object) -> bytes:
    fields = {"v": 1, "id": "7", "client": "c", "request": {"type": "daemon.status"}, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


@pytest.mark.parametrize("spec", MESSAGES, ids=lambda spec: f"{spec.name}-{sorted(spec.example)}")
def test_every_request_of_the_table_survives_the_wire(spec):
    request = msgspec.convert(spec.example, spec.request, strict=False)
    data = encode_request(request, id="id-1", client="ardour 8")
    assert decode_request(data, spec.door) == ("id-1", "ardour 8", request)
    assert decode_request(data, None)[2] == request
    assert request_id(data) == "id-1"
    other = next(door for door in Door if door is not spec.door)
    assert refused(data, other) == "protocol.door"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "protocol.malformed"),
        (b"\xff\xfe\x00", "protocol.malformed"),
        (b'{"v":1,"id":"\xff"}', "protocol.malformed"),
        (b'{"v":1,"id":"\\ud800"}', "protocol.malformed"),
        (b"[" * 100_000, "protocol.malformed"),
        (b'{"a":' * 50_000, "protocol.malformed"),
        (b'{"v":1,"id":"7","client":"c","request":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "protocol.malformed"),
        (b"9" * 10_000, "protocol.malformed"),
        (b"1e999999", "protocol.malformed"),
        (b"NaN", "protocol.malformed"),
        (envelope() + b"x", "protocol.malformed"),
        (envelope(v=2), "protocol.version"),
        (envelope(v=2, more=1), "protocol.version"),
        (envelope(v=0, request=5), "protocol.version"),
        (envelope(v="1"), "protocol.malformed"),
        (envelope(v=True), "protocol.malformed"),
        (envelope(v=...), "protocol.malformed"),
        (envelope(id=...), "protocol.malformed"),
        (envelope(id=""), "protocol.malformed"),
        (envelope(id="x" * 65), "protocol.malformed"),
        (envelope(id=7), "protocol.malformed"),
        (envelope(client="a\nb"), "protocol.malformed"),
        (envelope(client="x" * 65), "protocol.malformed"),
        (envelope(more=1), "protocol.malformed"),
        (envelope(request=None), "protocol.malformed"),
        (envelope(request={}), "protocol.malformed"),
        (envelope(request={"type": "daemon.explode"}), "protocol.malformed"),
        (envelope(request={"type": "daemon.status", "more": 1}), "protocol.malformed"),
        (envelope(request={"type": "job.wait", "job_id": "../x"}), "protocol.malformed"),
        (envelope(request={"type": "job.wait", "job_id": "x", "timeout_s": 1e9}), "protocol.malformed"),
        (envelope(request={"type": "events.since", "epoch": "x", "seq": -1}), "protocol.malformed"),
        (
            envelope(request={"type": "job.submit", "job": {"source": "/a", "folder": "/b", "more": 1}}),
            "protocol.malformed",
        ),
        (b" " * (MAX_MESSAGE_BYTES + 1), "protocol.malformed"),
    ],
)
def test_what_is_no_message_is_refused(data, code):
    assert refused(data) == code


def test_the_field_that_is_wrong_is_named():
    data = envelope(request={"type": "job.submit", "job": {"source": "/a", "folder": "/b", "overlap": "much"}})
    with pytest.raises(RevithionError, match="overlap"):
        decode_request(data, None)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data):
    assert refused(data).startswith("protocol.")
    request_id(data)
    for decode in (decode_reply, decode_event):
        with pytest.raises(RevithionError):
            decode(data)


@given(st.data())
def test_no_change_of_a_byte_raises_anything_else(data):
    message = bytearray(encode_request(SubmitJob(job=JOB), id="1", client="c"))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_request(bytes(message), Door.WORK)
    except RevithionError as exc:
        code = exc.code
    else:
        code = "protocol."
    assert code.startswith("protocol.")


def test_the_id_is_found_in_what_is_otherwise_no_request():
    assert request_id(envelope(v=2, more=1)) == "7"
    assert request_id(envelope(request=5)) == "7"
    assert request_id(envelope(id="x" * 65)) is None
    assert request_id(b"[]") is None
    assert request_id(b"[" * 100_000) is None


def test_a_request_that_is_too_large_is_not_sent():
    job = msgspec.structs.replace(JOB, keep=("/" + "x" * 4000,) * 100)
    with pytest.raises(RevithionError, match="bytes"):
        encode_request(SubmitJob(job=job), id="1", client="c")


def test_replies_and_errors_survive_the_wire():
    reply = JobReply(job=INFO, created=True, history=(Change(at=1.0, state=JobState.QUEUED, attempt=0),))
    assert decode_reply(encode_reply("7", reply)) == ("7", reply)
    number, error = decode_reply(encode_reply(None, bridge_error("job.unknown", "there is no job x")))
    assert number is None
    assert isinstance(error, RevithionError)
    assert (error.code, error.message) == ("job.unknown", "there is no job x")
    assert error.hint
    assert json.loads(encode_reply("7", Done())) == {"v": 1, "re": "7", "reply": {"type": "done"}}
    assert set(json.loads(encode_reply(None, error))) == {"v", "re", "error"}


def test_infinities_become_null():
    info = msgspec.structs.replace(INFO, summary={"null_db": -math.inf, "x": math.nan})
    _, reply = decode_reply(encode_reply("7", JobReply(job=info)))
    assert isinstance(reply, JobReply)
    assert reply.job.summary == {"null_db": None, "x": None}


def test_a_newer_daemon_may_say_more():
    data = json.loads(encode_reply("7", JobList(jobs=(INFO,))))
    data["reply"]["more_than_that"] = data["more"] = data["reply"]["jobs"][0]["colour"] = 1
    data["reply"]["jobs"][0]["parameters"]["flavour"] = "sweet"
    assert decode_reply(json.dumps(data).encode()) == ("7", JobList(jobs=(INFO,)))
    data = json.loads(encode_reply("7", JobReply(job=INFO)))
    data["reply"]["job"]["parameters"]["flavour"] = "sweet"
    assert decode_reply(json.dumps(data).encode()) == ("7", JobReply(job=INFO))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"v": 2}, "protocol.version"),
        ({"reply": {"type": "surprise"}}, "protocol.malformed"),
        ({"reply": {"type": "job", "job": {"parameters": 3}}}, "protocol.malformed"),
        ({"reply": {"type": "jobs", "jobs": 3}}, "protocol.malformed"),
        ({"reply": None}, "protocol.malformed"),
    ],
)
def test_whoever_asked_hears_that_the_answer_is_not_known(changes, code):
    number, error = decode_reply(json.dumps({"v": 1, "re": "7", **changes}).encode())
    assert number == "7"
    assert isinstance(error, RevithionError)
    assert error.code == code


def events():
    yield JobChanged(job_id="job-1", seq=3, state=JobState.DONE, source="/a.wav")
    yield JobChanged(
        job_id="job-1", seq=3, state=JobState.FAILED, source="/a", error={"code": "x", "message": "y", "hint": "z"}
    )
    yield JobProgress(job_id="job-1", seq=3, done=1, total=2, elapsed_s=0.5, remaining_s=None)
    yield StemReady(job_id="job-1", seq=3, stem="bass", path="/b", frames=5, sample_rate=44_100, sha256="", stream=0)
    yield Heartbeat(seq=3, waiting=1, running=2)
    yield LiveChanged(seq=3, stem="bass", gain_db=-6.0, muted=True)
    yield LiveSessionChanged(
        seq=3, phase=LivePhase.LOST, model="dsp", device="jack", sample_rate=48_000, latency_frames=9, scenes=("a",)
    )
    yield LiveLevels(
        seq=3, stems=(LiveLevel(stem="bass", left_db=-6.0, right_db=-120.0, tier=Tier.MASTER),), left_db=0.0,
        right_db=0.0, late_times=1, xruns=2, callback_load=0.5, inference_load=0.25,
    )  # fmt: skip


@pytest.mark.parametrize("event", list(events()), ids=lambda event: type(event).__name__)
def test_events_survive_the_wire(event):
    parent = Parent(client="c", id="7")
    data = encode_event(event, epoch="e", seq=3, time=1.5, parent=parent)
    message = decode_event(data)
    assert (message.epoch, message.seq, message.time, message.parent, message.event) == ("e", 3, 1.5, parent, event)
    assert event_message(json.loads(data)) == message
    assert json.loads(data)["event"]["type"] == type(event).__name__
    assert type(event) in {spec.kind for spec in EVENTS}


def test_a_live_session_survives_the_wire():
    state = LiveState(
        phase=LivePhase.PLAYING,
        model="dsp",
        device="jack",
        block_frames=256,
        budget=LatencyBudget(sample_rate=48_000, device_frames=512, algorithm_frames=512, queue_frames=832),
        strips=(StripState(stem="bass", settings=StripSettings(pan=-0.5), tier=Tier.PREVIEW),),
        scenes=("a", "b"),
    )
    reply = Live(stems=(LiveStem(stem="bass", pan=-0.5),), session=state)
    assert decode_reply(encode_reply("7", reply)) == ("7", reply)


def test_an_exact_summary_is_exact_again():
    summary = JobSummary(
        job_id="job-1", seq=3, model="dsp", engine="dsp", device="cpu", licence="MIT", duration_s=1.0, elapsed_s=0.1,
        null_db=-math.inf, exact=True, gain_db=0.0, residual="fold", lag_frames=0, cached=False, resumed_runs=0,
        manifest=None,
    )  # fmt: skip
    data = encode_event(summary, epoch="e", seq=3, time=1.5, parent=None)
    assert b"Infinity" not in data
    assert decode_event(data).event == summary


def test_events_of_a_newer_daemon_are_passed_over_but_counted():
    data = {"v": 1, "epoch": "e", "seq": 9, "time": 1.0, "parent": None, "more": 1}
    for event in ({"type": "Surprise", "seq": 9}, {"type": "JobChanged", "seq": 9}, {}, None, 5):
        message = event_message({**data, "event": event})
        assert (message.seq, message.event) == (9, None)
    with pytest.raises(RevithionError) as caught:
        event_message({**data, "event": None, "v": 2})
    assert caught.value.code == "protocol.version"


def long_job(number: int, keep: int = 0) -> JobInfo:
    parameters = msgspec.structs.replace(JOB, source="/" + "s" * 4000, keep=("/" + "k" * 4000,) * keep)
    return msgspec.structs.replace(INFO, id=f"job-{number}", parameters=parameters)


@pytest.mark.parametrize(
    "reply",
    [
        JobReply(job=long_job(0, keep=63), history=(Change(at=1.0, state=JobState.QUEUED, attempt=0),) * 5000),
        JobList(jobs=tuple(long_job(n, keep=n % 2) for n in range(500))),
        Snapshot(epoch="e", seq=9, paused=False, jobs=tuple(long_job(n) for n in range(500))),
        Events(events=tuple({"seq": n, "x": "x" * 2000} for n in range(500)), last_seq=500),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_replies_are_cut_so_that_they_fit(reply):
    data = encode_reply("7", reply)
    assert MAX_MESSAGE_BYTES / 3 < len(data) <= MAX_MESSAGE_BYTES
    _, short = decode_reply(data)
    match short:
        case JobReply():
            assert short.job.parameters == msgspec.structs.replace(reply.job.parameters, keep=())
            assert 0 < len(short.history) < 5000
        case JobList() | Snapshot():
            assert short.more
            assert [job.id for job in short.jobs] == [f"job-{n}" for n in range(len(short.jobs))]
        case Events():
            assert short.events == reply.events[: len(short.events)]
            assert short.last_seq == 500
        case _:
            pytest.fail(f"{short}")


def test_a_reply_that_can_not_be_cut_is_an_error():
    _, error = decode_reply(encode_reply("7", Events(events=({"x": "x" * MAX_MESSAGE_BYTES},), last_seq=1)))
    assert isinstance(error, RevithionError)
    assert error.code == "error.unexpected"


def test_the_largest_job_that_can_be_asked_for_can_be_told_of():
    job = msgspec.structs.replace(JOB, keep=("/" + "x" * 2000,) * 125)
    data = encode_request(SubmitJob(job=job), id="1", client="c")
    assert len(data) > MAX_MESSAGE_BYTES * 0.9
    info = msgspec.structs.replace(INFO, parameters=job, stems=({"path": "/" + "p" * 4000},) * 8)
    _, reply = decode_reply(encode_reply("1", JobReply(job=info)))
    assert isinstance(reply, JobReply)
    assert reply.job.id == "job-1"


def test_one_door_for_each_request():
    assert {spec.request: spec.door for spec in MESSAGES}[WaitJob] is Door.WORK
    assert {spec.request: spec.door for spec in MESSAGES}[GetStatus] is Door.CONTROL
