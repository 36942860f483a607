"""Eight clients by both doors at once, messages that are none, and memory that stays where it is."""

from __future__ import annotations

import random
import socket
import threading
import time

import msgspec
import psutil
import pytest
import zmq
from pythonosc.osc_message_builder import OscMessageBuilder

from daemon_program import noise
from revithion_bridge import connect
from revithion_bridge.connection import Connection, read_connection
from revithion_bridge.messages import MESSAGES, OSC_PREFIX
from revithion_stems.events import StemReady
from revithion_stems.jobs import JobState

FLOOD = 10_000


def connection() -> Connection:
    found = read_connection()
    assert found is not None
    return found


class OscClient:
    """A surface: sends by UDP from one port, and listens there."""

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(20.0)
        self.target = ("127.0.0.1", connection().osc_udp_port)
        self.send("/hello", connection().osc_token, self.socket.getsockname()[1], name)
        self.receive("/hello/reply")

    def send(self, address: str, *arguments: object) -> None:
        builder = OscMessageBuilder(OSC_PREFIX + address)
        for argument in arguments:
            builder.add_arg(argument)
        self.socket.sendto(builder.build().dgram, self.target)

    def receive(self, address: str) -> list[object]:
        """Arguments of the next message to that address; others are passed over."""
        from pythonosc.osc_message import OscMessage

        while True:
            message = OscMessage(self.socket.recv(65_536))
            assert message.address != f"{OSC_PREFIX}/error", message.params
            if message.address == OSC_PREFIX + address:
                return message.params

    def __enter__(self) -> OscClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.mark.slow
def test_eight_clients_by_both_doors(daemon, tmp_path):
    """Each submits, follows, cancels and asks, all at once; everybody's jobs end as they should."""
    songs = [noise(tmp_path / f"song{n}.wav", 2.0, seed=n) for n in range(4)]
    failures: list[BaseException] = []
    ended: dict[str, JobState] = {}

    def by_zmq(number: int) -> None:
        with connect(client=f"client-{number}", timeout_s=30.0) as client:
            for song in songs:
                job = client.submit(song, tmp_path / f"zmq{number}", model="dsp", seed=number, span_s=1.0)
                ready = [
                    message.event.stem
                    for message in client.events(job.id)
                    if isinstance(message.event, StemReady) and message.event.final
                ]
                assert len(ready) == 4
                ended[job.id] = client.job(job.id).state
            stopped = client.submit(songs[0], tmp_path / f"stop{number}", model="dsp", priority="batch")
            client.cancel(stopped.id)
            ended[stopped.id] = client.wait(stopped.id, timeout_s=60.0).state
            assert client.status().version

    def by_osc(number: int) -> None:
        with OscClient(f"surface {number}") as surface:
            surface.send("/subscribe", 300)
            surface.receive("/subscribe/reply")
            for song in songs:
                surface.send("/job/submit", str(song), str(tmp_path / f"osc{number}"), "dsp")
                job_id = surface.receive("/job/submit/reply")[0]
                while surface.receive("/event/changed")[:2] != [job_id, "done"]:
                    pass
                surface.send("/job/status", job_id)
                assert surface.receive("/job/status/reply")[:2] == [job_id, "done"]
                ended[str(job_id)] = JobState.DONE
            surface.send("/live/vocals/gain", -6.0)
            surface.receive("/live/vocals/gain/reply")

    def guarded(action, number: int) -> None:
        try:
            action(number)
        except BaseException as exc:  # told to the test
            failures.append(exc)

    threads = [threading.Thread(target=guarded, args=(by_zmq, n)) for n in range(5)]
    threads += [threading.Thread(target=guarded, args=(by_osc, n)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(250.0)
    assert failures == []
    states = list(ended.values())
    assert len(states) == 5 * 5 + 3 * 4
    assert states.count(JobState.DONE) >= 5 * 4 + 3 * 4
    assert set(states) <= {JobState.DONE, JobState.CANCELLED}
    for folder in [*(f"zmq{n}" for n in range(5)), *(f"osc{n}" for n in range(3))]:
        assert len(list((tmp_path / folder).rglob("*.wav"))) == 4 * 4


def mutated(rng: random.Random, samples: list[bytes]) -> bytes:
    """A message cut, spliced, or with some bytes changed; sometimes mere noise."""
    data = bytearray(rng.choice(samples))
    for _ in range(rng.randrange(1, 6)):
        kind = rng.randrange(4)
        at = rng.randrange(len(data) + 1)
        if kind == 0:
            data[at:at] = rng.randbytes(rng.randrange(1, 40))
        elif kind == 1:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 2 and data:
            data[at % len(data)] = rng.randrange(256)
        else:
            data += rng.choice(samples)[: rng.randrange(60)]
    return bytes(data)


@pytest.mark.slow
def test_ten_thousand_messages_that_are_none(daemon):
    """By the right key and the right token, so that all are looked at: the daemon answers, its memory is flat."""
    rng = random.Random(7)
    samples = [
        msgspec.json.encode({"v": 1, "id": str(n), "client": "fuzz", "request": {"type": spec.name, **spec.example}})
        for n, spec in enumerate(MESSAGES)
        if spec.name not in ("daemon.shutdown", "job.submit", "job.wait")
    ]
    found = connection()
    context = zmq.Context()
    sockets = []
    for endpoint in (found.work, found.control):
        dealer = context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.CURVE_SERVERKEY, found.server_key.encode())
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, found.client_public.encode())
        dealer.setsockopt(zmq.CURVE_SECRETKEY, found.client_secret.encode())
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(endpoint)
        sockets.append(dealer)
    packets = []
    for spec in MESSAGES:
        if spec.osc is not None and "submit" not in spec.osc:
            builder = OscMessageBuilder(spec.osc.replace("{stem}", "vocals"))
            builder.add_arg(found.osc_token)
            builder.add_arg("job-1")
            packets.append(builder.build().dgram)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def flood(count: int) -> None:
        for number in range(count):
            if number % 3 == 2:
                udp.sendto(mutated(rng, packets)[:60_000], ("127.0.0.1", found.osc_udp_port))
            else:
                sockets[number % 2].send(mutated(rng, samples))
            for dealer in sockets:
                while dealer.poll(0):
                    dealer.recv_multipart()
            if number % 200 == 0:
                time.sleep(0.05)
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            for dealer in sockets:
                if dealer.poll(20):
                    dealer.recv_multipart()

    try:
        flood(FLOOD // 4)
        process = psutil.Process(daemon.pid)
        before = process.memory_info().rss
        flood(FLOOD * 3 // 4)
        after = process.memory_info().rss
        with connect(timeout_s=30.0) as client:
            client.resume_queue()
            assert client.status().pid == daemon.pid
        assert after < before * 1.05 + 2 * 2**20, (before, after)
    finally:
        udp.close()
        for dealer in sockets:
            dealer.close()
        context.term()
