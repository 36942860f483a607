"""The doors as strangers and clumsy clients find them: by real sockets, with a small service behind them."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from bridge_doors import DoorsThread, ask, raw_socket
from program import posix_only
from revithion_bridge.codec import decode_event, decode_reply, encode_request
from revithion_bridge.connection import Connection, load_keys
from revithion_bridge.event_hub import EventHub
from revithion_bridge.messages import (
    MAX_MESSAGE_BYTES,
    MESSAGES,
    GetJob,
    GetStatus,
    Heartbeat,
    JobParameters,
    JobReply,
    PauseQueue,
    Status,
    SubmitJob,
    WaitJob,
)
from revithion_bridge.zmq_doors import DoorLimits, ZmqDoors
from revithion_stems.errors import RevithionError
from revithion_stems.events import Notice

JOB = JobParameters(source="/a.wav", folder="/out")
QUIET_MS = 700
pytestmark = pytest.mark.usefixtures("daemon_home")


@pytest.fixture
def doors(daemon_home: Path) -> Iterator[DoorsThread]:
    with DoorsThread() as thread:
        yield thread


def code(answer: object) -> str:
    assert isinstance(answer, RevithionError), answer
    return answer.code


def still_answers(connection: Connection) -> None:
    for endpoint, request, kind in (
        (connection.control, GetStatus(), Status),
        (connection.work, SubmitJob(job=JOB), JobReply),
    ):
        with raw_socket(connection, zmq.DEALER, endpoint) as socket:
            assert isinstance(ask(socket, request, "still")[1], kind)


def test_both_doors_answer_and_the_caller_is_known(doors):
    with raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as work:
        number, reply = ask(work, SubmitJob(job=JOB), "id-9")
    assert number == "id-9"
    assert isinstance(reply, JobReply)
    assert reply.created
    with raw_socket(doors.connection, zmq.DEALER, doors.connection.control) as control:
        assert isinstance(ask(control, GetJob(job_id=reply.job.id))[1], JobReply)
    caller = doors.service.callers[0]
    assert (caller.client, caller.door, caller.request_id) == ("test", "zmq", "id-9")


def test_a_req_socket_is_answered_too(doors):
    with raw_socket(doors.connection, zmq.REQ, doors.connection.control) as socket:
        assert isinstance(ask(socket, GetStatus())[1], Status)
        assert code(ask(socket, b"x")[1]) == "protocol.malformed"


def test_events_come_under_their_topics(doors):
    with raw_socket(doors.connection, zmq.SUB, doors.connection.events) as events:
        assert isinstance(decode_event(events.recv_multipart()[1]).event, Heartbeat)
        with raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as work:
            ask(work, SubmitJob(job=JOB), "id-9")
        topic, payload = events.recv_multipart()
        while topic == b"heartbeat":
            topic, payload = events.recv_multipart()
        assert topic == b"job/job-0/changed"
        message = decode_event(payload)
        assert message.epoch == doors.connection.epoch
        assert message.parent is not None
        assert (message.parent.client, message.parent.id) == ("test", "id-9")


@pytest.mark.parametrize("keys", ["none", "other", "half"])
def test_without_the_key_there_is_no_answer_and_no_event(doors, keys):
    pair = {
        "none": None,
        "other": zmq.curve_keypair(),
        "half": (doors.connection.client_public.encode(), zmq.curve_keypair()[1]),
    }[keys]
    for kind, endpoint in (
        (zmq.DEALER, doors.connection.work),
        (zmq.DEALER, doors.connection.control),
        (zmq.SUB, doors.connection.events),
    ):
        with raw_socket(doors.connection, kind, endpoint, keys=pair) as socket:
            socket.setsockopt(zmq.RCVTIMEO, QUIET_MS)
            if kind == zmq.DEALER:
                socket.send(encode_request(GetStatus(), id="1", client="test"))
            with pytest.raises(zmq.Again):
                socket.recv_multipart()
    assert not doors.service.asked
    still_answers(doors.connection)


def test_another_server_key_is_not_believed(doors):
    impostor = msgspec.structs.replace(doors.connection, server_key=zmq.curve_keypair()[0].decode())
    with raw_socket(impostor, zmq.DEALER, impostor.control) as socket:
        socket.setsockopt(zmq.RCVTIMEO, QUIET_MS)
        socket.send(encode_request(GetStatus(), id="1", client="test"))
        with pytest.raises(zmq.Again):
            socket.recv()


@posix_only
def test_sockets_are_files_in_a_private_folder_that_goes_with_them(daemon_home):
    with DoorsThread() as doors:
        paths = {Path(endpoint.removeprefix("ipc://")) for endpoint in
                 (doors.connection.work, doors.connection.control, doors.connection.events)}  # fmt: skip
        (folder,) = {path.parent for path in paths}
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in paths} == {"work", "control", "events"}
        assert all(path.is_socket() for path in paths)
    assert not folder.exists()


def test_where_the_path_is_too_long_the_doors_are_on_loopback_only(daemon_home, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with DoorsThread() as doors:
        for endpoint in (doors.connection.work, doors.connection.control, doors.connection.events):
            assert endpoint.startswith("tcp://127.0.0.1:")
        still_answers(doors.connection)
        test_a_stranger_hears_nothing_while_others_hear(doors)
    assert list(long.iterdir()) == []


def test_a_stranger_hears_nothing_while_others_hear(doors):
    with (
        raw_socket(doors.connection, zmq.SUB, doors.connection.events) as own,
        raw_socket(doors.connection, zmq.SUB, doors.connection.events, keys=zmq.curve_keypair()) as stranger,
    ):
        for _ in range(3):
            own.recv_multipart()
        assert stranger.poll(0) == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "protocol.malformed"),
        (b"{", "protocol.malformed"),
        (b"[" * 100_000, "protocol.malformed"),
        (b'{"v":1,"id":"\xff\xff"}', "protocol.malformed"),
        (b'{"v":2,"id":"1"}', "protocol.version"),
        (b'{"v":1,"id":"1","client":"c","request":{"type":"daemon.explode"}}', "protocol.malformed"),
        (b'{"v":1,"id":"1","client":"c","request":{"type":"daemon.status","more":1}}', "protocol.malformed"),
        (encode_request(WaitJob(job_id="x"), id="1", client="c"), "protocol.door"),
        (encode_request(GetJob(job_id="x"), id="1", client="c"), "job.unknown"),
        (encode_request(PauseQueue(), id="1", client="c"), "error.unexpected"),
        (b" " * MAX_MESSAGE_BYTES, "protocol.malformed"),
        (b" " * (MAX_MESSAGE_BYTES + 1), "protocol.malformed"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value,
)
def test_whatever_is_wrong_is_answered(doors, data, expected):
    with raw_socket(doors.connection, zmq.DEALER, doors.connection.control) as socket:
        number, reply = ask(socket, data)
        assert code(reply) == expected
        assert number == ("1" if b'"id":"1"' in data else None)
        assert isinstance(ask(socket, GetStatus())[1], Status)


def test_several_frames_are_no_message(doors):
    with raw_socket(doors.connection, zmq.DEALER, doors.connection.control) as socket:
        good = encode_request(GetStatus(), id="1", client="c")
        for frames in ([b"x", good], [b"", b"", good], [good, good, good], [b"", b"x", b"y", good], [good, b""]):
            socket.send_multipart(frames)
            assert code(decode_reply(socket.recv_multipart()[-1])[1]) == "protocol.malformed"
        assert isinstance(ask(socket, good)[1], Status)


def test_who_sends_too_much_is_dropped_and_the_others_are_not(doors):
    with raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as good:
        assert isinstance(ask(good, SubmitJob(job=JOB))[1], JobReply)
        with raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as bad:
            bad.setsockopt(zmq.RCVTIMEO, QUIET_MS)
            bad.send(b" " * (2 * MAX_MESSAGE_BYTES))
            with pytest.raises(zmq.Again):
                bad.recv()
            assert isinstance(ask(good, SubmitJob(job=JOB))[1], JobReply)
    still_answers(doors.connection)


def test_a_message_may_be_as_large_as_the_protocol_says(doors):
    job = JobParameters(source="/a.wav", folder="/out", template="t" * 1000)
    data = encode_request(SubmitJob(job=job), id="1", client="c")
    with raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as socket:
        assert isinstance(ask(socket, data + b" " * (MAX_MESSAGE_BYTES - len(data)))[1], JobReply)


def test_waiting_holds_nobody_up(doors):
    with (
        raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as work,
        raw_socket(doors.connection, zmq.DEALER, doors.connection.control) as control,
    ):
        _, reply = ask(work, SubmitJob(job=JOB))
        assert isinstance(reply, JobReply)
        for number in range(20):
            work.send(encode_request(WaitJob(job_id=reply.job.id, timeout_s=30.0), id=f"w{number}", client="c"))
        began = time.monotonic()
        assert ask(work, SubmitJob(job=JOB), "fast")[0] == "fast"
        assert isinstance(ask(control, GetStatus())[1], Status)
        assert time.monotonic() - began < 5.0
        doors.do(lambda: doors.service.finish(reply.job.id))
        assert {decode_reply(work.recv())[0] for _ in range(20)} == {f"w{n}" for n in range(20)}


def test_only_so_many_at_the_same_time(daemon_home):
    with DoorsThread(limits=DoorLimits(requests=3, all_requests=5)) as doors:
        work = doors.connection.work
        with raw_socket(doors.connection, zmq.DEALER, work) as a, raw_socket(doors.connection, zmq.DEALER, work) as b:
            _, reply = ask(a, SubmitJob(job=JOB))
            assert isinstance(reply, JobReply)
            wait = WaitJob(job_id=reply.job.id, timeout_s=30.0)
            for socket in (a, b):
                for number in range(3):
                    socket.send(encode_request(wait, id=str(number), client="c"))
                time.sleep(0.2)
            assert code(decode_reply(b.recv())[1]) == "protocol.rate"  # five are enough for the door
            number, error = ask(a, wait, "more")  # three for one
            assert (number, code(error)) == ("more", "protocol.rate")
            with raw_socket(doors.connection, zmq.DEALER, doors.connection.control) as control:
                assert isinstance(ask(control, GetStatus())[1], Status)
            doors.do(lambda: doors.service.finish(reply.job.id))
            for _ in range(3):
                assert isinstance(decode_reply(a.recv())[1], JobReply)
            assert isinstance(ask(a, wait, "again")[1], JobReply)


def test_who_asks_too_often_is_told_so_and_the_others_are_not(daemon_home):
    with DoorsThread(limits=DoorLimits(rate_per_s=20.0, burst=10.0)) as doors:
        control = doors.connection.control
        with (
            raw_socket(doors.connection, zmq.DEALER, control) as a,
            raw_socket(doors.connection, zmq.DEALER, control) as b,
        ):
            for number in range(50):
                a.send(encode_request(GetStatus(), id=str(number), client="c"))
            answers = [decode_reply(a.recv()) for _ in range(50)]
            refused = [number for number, answer in answers if isinstance(answer, RevithionError)]
            assert 30 <= len(refused) <= 40
            assert None not in refused
            assert isinstance(ask(b, GetStatus())[1], Status)
            time.sleep(0.3)
            assert isinstance(ask(a, GetStatus())[1], Status)


def mutated(rng: random.Random, samples: list[bytes]) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    data = bytearray(rng.choice(samples))
    if kind == 1:
        return bytes(data[: rng.randrange(len(data))])
    if kind == 2:
        return bytes(data + rng.choice(samples))
    for _ in range(rng.randrange(1, 8)):
        position = rng.randrange(len(data))
        data[position : position + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(data)


@pytest.mark.slow
def test_a_flood_of_nonsense_leaves_the_doors_open(daemon_home):
    rng = random.Random(4)
    samples = [json.dumps({"v": 1, "id": "1", "client": "c", "request": {"type": spec.name, **spec.example}}).encode()
               for spec in MESSAGES]  # fmt: skip
    with DoorsThread(limits=DoorLimits(rate_per_s=1e9, burst=1e9)) as doors:
        for endpoint in (doors.connection.work, doors.connection.control):
            with raw_socket(doors.connection, zmq.DEALER, endpoint) as socket:
                answers = 0
                for number in range(5_000):
                    frames = [mutated(rng, samples) for _ in range(rng.choice((1, 1, 1, 1, 2, 3)))]
                    socket.send_multipart(frames)
                    if number % 100 == 99:
                        still_answers(doors.connection)
                        while socket.poll(50):
                            socket.recv_multipart()
                            answers += 1
                assert answers > 4_000
        still_answers(doors.connection)
        assert doors.failure is None


def test_the_end_answers_those_who_wait(daemon_home):
    with DoorsThread() as doors, raw_socket(doors.connection, zmq.DEALER, doors.connection.work) as work:
        _, reply = ask(work, SubmitJob(job=JOB))
        assert isinstance(reply, JobReply)
        work.send(encode_request(WaitJob(job_id=reply.job.id, timeout_s=60.0), id="w", client="c"))
        time.sleep(0.2)
        began = time.monotonic()
        doors.stop()
        assert time.monotonic() - began < 5.0
        number, error = decode_reply(work.recv())
        assert (number, code(error)) == ("w", "daemon.stopping")


def test_who_does_not_read_events_costs_nobody_else(daemon_home):
    with (
        DoorsThread(limits=DoorLimits(unsent_events=10)) as doors,
        raw_socket(doors.connection, zmq.SUB, doors.connection.events) as lazy,
        raw_socket(doors.connection, zmq.SUB, doors.connection.events) as eager,
    ):
        lazy.recv_multipart()
        eager.recv_multipart()
        heard: list[int] = []

        def read() -> None:
            while not heard or heard[-1] < 2000:
                heard.append(decode_event(eager.recv_multipart()[1]).seq)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(2000):
            doors.do(lambda: doors.hub.publish(Notice(job_id="j", seq=0, code="a.b", message="x" * 5000)))
        reader.join(20)
        assert heard[-1] == 2000
        assert heard == sorted(heard)


def test_doors_that_can_not_be_opened_leave_nothing_behind(daemon_home, tmp_path, monkeypatch):
    """The second socket finds its place taken; warnings about anything left open are errors here."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    async def start() -> None:
        doors = ZmqDoors(None, EventHub(), load_keys())  # type: ignore[arg-type] - nobody comes
        bind, count = doors._bind, iter(range(10))

        def second_fails(socket, name):
            if next(count) == 1:
                raise OSError("no place")
            return bind(socket, name)

        monkeypatch.setattr(doors, "_bind", second_fails)
        with pytest.raises(OSError, match="no place"):
            await doors.start()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(start())
    assert list(folder.iterdir()) == []
