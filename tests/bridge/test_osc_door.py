"""OSC's door as programs meet it: oscsend and oscdump of liblo, python-osc, plain sockets, and bytes of no program.

The service behind it is a small one; tests of the daemon have the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import itertools
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.osc_tcp_server import MODE_1_0, MODE_1_1
from pythonosc.tcp_client import SimpleTCPClient
from pythonosc.udp_client import SimpleUDPClient

from revithion_bridge import osc_addresses, osc_door, osc_sessions, osc_streams
from revithion_bridge.errors import bridge_error
from revithion_bridge.event_hub import EventHub
from revithion_bridge.live_stage import LiveStage
from revithion_bridge.messages import (
    ERRORS,
    EVENTS,
    MAX_MESSAGE_BYTES,
    MESSAGES,
    CancelJob,
    Done,
    GetJob,
    GetStatus,
    Heartbeat,
    JobInfo,
    JobReply,
    Reply,
    Reprioritise,
    Request,
    SetLive,
    SubmitJob,
)
from revithion_bridge.osc_door import OscDoor
from revithion_bridge.osc_framing import Framing, encode_frame
from revithion_bridge.osc_packets import build_message, typed
from revithion_bridge.path_jail import PathJail
from revithion_bridge.service_api import Caller
from revithion_stems.errors import LiveError, RevithionError
from revithion_stems.events import JobChanged, JobProgress, JobSummary, StemReady
from revithion_stems.jobs import JobState
from revithion_stems.live import LiveControl, LiveOptions
from revithion_stems.scheduler import Priority

TOKEN = "correct-horse-battery-staple"
V1 = "/revithion/v1"
needs_liblo = pytest.mark.skipif(
    shutil.which("oscsend") is None or shutil.which("oscdump") is None, reason="liblo's programs are not installed"
)


class Clock:
    """Goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def open_nothing(options: LiveOptions) -> LiveControl:
    raise LiveError("nothing plays here", hint="Play elsewhere.")


class SmallService:
    """Jobs in a dict; it remembers what it was asked, and by whom."""

    def __init__(self, hub: EventHub) -> None:
        self.hub = hub
        self.jobs: dict[str, JobInfo] = {}
        self.stage = LiveStage(open_nothing, PathJail([]), publish=hub.publish)
        self.asked: list[Request] = []
        self.callers: list[Caller] = []
        self.gate: asyncio.Event | None = None

    async def handle(self, request: Request, caller: Caller) -> Reply:
        self.asked.append(request)
        self.callers.append(caller)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(request, SubmitJob):
            job = JobInfo(
                id=f"job-{len(self.jobs) + 1}",
                client=caller.client,
                state=JobState.QUEUED,
                priority=request.priority,
                parameters=request.job,
                created_at=0.0,
            )
            return self._changed(job)
        if isinstance(request, GetJob | CancelJob | Reprioritise):
            if request.job_id not in self.jobs:
                raise bridge_error("job.unknown", f"there is no job {request.job_id}")
            job = self.jobs[request.job_id]
            return JobReply(job=job) if isinstance(request, GetJob) else self._changed(job, JobState.CANCELLED)
        if isinstance(request, SetLive):
            return await self.stage.answers[SetLive](request, caller)
        if isinstance(request, GetStatus):
            raise ZeroDivisionError("a bug")
        return Done()

    def _changed(self, job: JobInfo, state: JobState = JobState.QUEUED) -> JobReply:
        self.jobs[job.id] = JobInfo(**{f: getattr(job, f) for f in job.__struct_fields__} | {"state": state})
        self.hub.publish(JobChanged(job_id=job.id, seq=0, state=state, source=job.parameters.source))
        return JobReply(job=self.jobs[job.id], created=True)


class Opened:
    """A door that is open, and what is behind it."""

    def __init__(self, door: OscDoor, service: SmallService, hub: EventHub, clock: Clock, ports: tuple[int, int]):
        self.door, self.service, self.hub, self.clock = door, service, hub, clock
        self.udp, self.tcp = ports


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Opened]:
    hub, clock = EventHub(), Clock()
    service = SmallService(hub)
    door = OscDoor(service, hub, TOKEN, clock=clock)
    ports = await door.start()
    try:
        yield Opened(door, service, hub, clock, ports)
    finally:
        await door.stop()


class Phone:
    """A program with a UDP port of its own."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.door_port = port

    def send(self, address: str, *arguments: object) -> None:
        self.send_bytes(build_message(address, map(typed, arguments)))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendto(data, ("127.0.0.1", self.door_port))

    async def receive(self, timeout_s: float = 5.0) -> list[Any]:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65_536), timeout_s)
        return as_list(data)

    async def ask(self, address: str, *arguments: object) -> list[Any]:
        self.send(address, *arguments)
        return await self.receive()

    async def silence(self, seconds: float = 0.15) -> None:
        with pytest.raises(TimeoutError):
            pytest.fail(f"nothing was expected: {await self.receive(seconds)}")

    async def code(self, address: str, *arguments: object) -> str:
        """Of the error that answers it."""
        got = await self.ask(address, *arguments)
        assert got[:2] == [f"{V1}/error", address]
        assert got[2].startswith("error.") or got[4] == ERRORS[got[2]][1]
        return got[2]

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def as_list(packet: bytes) -> list[Any]:
    message = OscMessage(packet)
    return [message.address, *message.params]


def loop_test(body: Callable[..., Any]) -> Callable[..., None]:
    """Runs a test that is a coroutine function."""

    def run(**fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(body(**fixtures), 60))

    run.__name__, run.__doc__, run.__module__ = body.__name__, body.__doc__, body.__module__
    run.__signature__ = inspect.signature(body)  # type: ignore[attr-defined] # where pytest looks for fixtures
    return run


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


# --- what is said ---


@loop_test
async def test_a_session_submits_asks_and_cancels():
    async with opened() as it:
        with Phone(it.udp) as phone:
            assert await phone.ask(f"{V1}/hello", TOKEN) == [f"{V1}/hello/reply", 1, 60]
            got = await phone.ask(f"{V1}/job/submit", "/music/né.wav", "/stems", "dsp", "batch")
            assert got == [f"{V1}/job/submit/reply", "job-1", "queued", 0, 0, None]
            assert await phone.ask(f"{V1}/job/status", "job-1") == [f"{V1}/job/status/reply", *got[1:]]
            assert (await phone.ask(f"{V1}/job/cancel", "job-1"))[1:3] == ["job-1", "cancelled"]
            assert await phone.code(f"{V1}/job/status", "job-9") == "job.unknown"
        (submitted, *_), (caller, *_) = it.service.asked, it.service.callers
        assert isinstance(submitted, SubmitJob)
        assert (submitted.job.source, submitted.job.folder, submitted.job.model) == ("/music/né.wav", "/stems", "dsp")
        assert submitted.priority is Priority.BATCH
        assert (caller.client, caller.door) == ("osc", "osc")
        assert len({caller.request_id for caller in it.service.callers}) == len(it.service.callers) == 4


@loop_test
async def test_each_address_of_the_table_reaches_its_request():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN)
            for spec in MESSAGES:
                if spec.osc is None:
                    continue
                arguments: list[object] = []
                for path in spec.osc_fields.replace("|", " ").split():
                    value: Any = spec.example
                    for name in path.split("."):
                        value = value[name]
                    arguments.append(value)
                address = spec.osc.format(**spec.example)
                got = await phone.ask(address, *arguments)
                assert isinstance(it.service.asked[-1], spec.request), address
                assert got[0] in (f"{address}/reply", f"{V1}/error")
                assert got[0].endswith("error") or len(got) == 1 + len(spec.osc_reply)


@loop_test
async def test_optional_arguments_may_be_left_out_or_nil():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN, None, "Ada's phone".replace("'", ""))
            await phone.ask(f"{V1}/job/submit", "/a", "/b")
            await phone.ask(f"{V1}/job/submit", "/a", "/b", None, "interactive")
            first, second = it.service.asked
            assert (first.job.model, first.priority) == ("auto", Priority.NORMAL)
            assert (second.job.model, second.priority) == ("auto", Priority.INTERACTIVE)
            assert it.service.callers[0].client == "Adas phone"
            for arguments in ((), ("/a",), ("/a", "/b", "m", "batch", "x"), ("/a", None), ("/a", 7), ("/a", "")):
                assert await phone.code(f"{V1}/job/submit", *arguments) == "protocol.malformed"
            assert await phone.code(f"{V1}/job/submit", "/a", "/b", "auto", "soon") == "protocol.malformed"
            assert await phone.code(f"{V1}/job/status", "../../etc") == "protocol.malformed"
            assert await phone.code(f"{V1}/no/such") == "protocol.malformed"
            assert await phone.code(f"{V1}/live//gain", 0) == "protocol.malformed"
            assert await phone.code("/") == "protocol.malformed"
            assert len(it.service.asked) == 2


@loop_test
async def test_numbers_come_as_controllers_send_them():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN)
            assert await phone.ask(f"{V1}/live/vocals/gain", -6.3) == [
                f"{V1}/live/vocals/gain/reply",
                "vocals",
                pytest.approx(-6.3),
                False,
            ]
            await phone.ask(f"{V1}/live/vocals/gain", -6)
            for on in (True, 1, 1.0):
                assert (await phone.ask(f"{V1}/live/drums/mute", on))[1:] == ["drums", 0.0, True]
                assert (await phone.ask(f"{V1}/live/drums/mute", 0))[1:] == ["drums", 0.0, False]
            asked = it.service.asked
            assert asked[0] == SetLive(stem="vocals", gain_db=-6.3)  # as from the other doors, not -6.300000190734863
            assert asked[1] == SetLive(stem="vocals", gain_db=-6.0)
            assert asked[2] == asked[4] == asked[6] == SetLive(stem="drums", muted=True)
            for bad in ("-6", 100.0, True):
                assert await phone.code(f"{V1}/live/vocals/gain", bad) == "protocol.malformed"
            for bad in ("yes", 2, 0.5):
                assert await phone.code(f"{V1}/live/vocals/mute", bad) == "protocol.malformed"
            assert await phone.code(f"{V1}/live/kazoo/gain", 0) == "live.stem"


@loop_test
async def test_a_bug_in_one_request_is_answered():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN)
            assert await phone.code(f"{V1}/status") == "error.unexpected"
            assert (await phone.ask(f"{V1}/queue/pause"))[0] == f"{V1}/queue/pause/reply"


@loop_test
async def test_a_bundle_is_done_in_order_and_its_bad_messages_alone_are_refused():
    async with opened() as it:
        with Phone(it.udp) as phone:
            parts = [
                build_message(f"{V1}/hello", [("s", TOKEN)]),
                build_message(f"{V1}/live/bass/gain", [("f", -1.0)]),
                b"/a\0\0,c\0\0\0\0\0a",
                build_message(f"{V1}/live/bass/gain", [("f", -2.0)]),
            ]
            later = struct.pack(">II", 0xFFFFFFFF, 0)  # a time tag of the year 2036
            packet = b"#bundle\0" + later + b"".join(struct.pack(">i", len(part)) + part for part in parts)
            phone.send_bytes(packet)
            got = [await phone.receive() for _ in parts]
            assert sorted(each[0] for each in got) == sorted(
                [f"{V1}/hello/reply", f"{V1}/error", *[f"{V1}/live/bass/gain/reply"] * 2]
            )
            assert [request.gain_db for request in it.service.asked] == [-1.0, -2.0]


@loop_test
async def test_requests_of_one_sender_keep_their_order_and_others_do_not_wait():
    async with opened() as it:
        with Phone(it.udp) as slow, Phone(it.udp) as quick:
            await slow.ask(f"{V1}/hello", TOKEN)
            await quick.ask(f"{V1}/hello", TOKEN)
            it.service.gate = asyncio.Event()
            slow.send(f"{V1}/live/bass/gain", -1.0)
            await until(lambda: it.service.asked)
            slow.send(f"{V1}/live/bass/gain", -2.0)
            quick.send(f"{V1}/live/drums/gain", -3.0)
            await until(lambda: len(it.service.asked) == 2)
            assert [request.gain_db for request in it.service.asked] == [-1.0, -3.0]
            it.service.gate.set()
            assert (await quick.receive())[1:3] == ["drums", -3.0]
            assert [(await slow.receive())[2] for _ in range(2)] == [-1.0, -2.0]


@loop_test
async def test_requests_that_wait_are_bounded():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN)
            it.service.gate = asyncio.Event()
            for _ in range(300):
                phone.send(f"{V1}/queue/pause")
                await asyncio.sleep(0)
            await until(lambda: it.door.counters["osc.protocol.rate"])
            await until(lambda: it.door.counters["osc.messages"] == 301)
            assert it.door.counters["osc.protocol.rate"] == 300 - 256
            it.service.gate.set()
            await until(lambda: len(it.service.asked) == 256)


# --- who may ---


@loop_test
async def test_without_the_token_nothing_is_done():
    async with opened() as it:
        with Phone(it.udp) as phone, Phone(it.udp) as other:
            for address, *arguments in (
                (f"{V1}/queue/pause",),
                (f"{V1}/live/vocals/gain", -6.0),
                (f"{V1}/job/submit", 1, "/b"),
                (f"{V1}/subscribe", 60, other.port),
                (f"{V1}/hello",),
                (f"{V1}/hello", other.port),
                (f"{V1}/hello", "wrong", other.port),  # answered to the sender, not to whom it names
                (f"{V1}/no/such",),
            ):
                assert await phone.code(address, *arguments) == "auth.token"
            await other.silence()
            it.hub.publish(Heartbeat(seq=0, waiting=0, running=0))
            await phone.silence()
            assert it.service.asked == []
            assert it.door.counters["osc.auth.token"] == 8


@loop_test
async def test_single_messages_carry_the_token_and_say_where_the_reply_goes():
    async with opened() as it:
        with Phone(it.udp) as phone, Phone(it.udp) as ear:
            assert (await phone.ask(f"{V1}/job/submit", TOKEN, "/a", "/b"))[1] == "job-1"
            for arguments in (["/a", "/b"], ["/a", "/b", "dsp"], ["/a", "/b", "dsp", "batch"]):
                phone.send(f"{V1}/job/submit", TOKEN, *arguments, ear.port)
                assert (await ear.receive())[0] == f"{V1}/job/submit/reply"
            phone.send(f"{V1}/live/bass/gain", TOKEN, -6, ear.port)
            assert (await ear.receive())[1:] == ["bass", -6.0, False]
            phone.send(f"{V1}/job/status", TOKEN, "job-99", ear.port)
            assert (await ear.receive())[2] == "job.unknown"
            phone.send(f"{V1}/job/status", TOKEN, "../x", ear.port)
            assert (await ear.receive())[2] == "protocol.malformed"
            assert await phone.code(f"{V1}/live/bass/gain", TOKEN, -6, 70_000) == "protocol.malformed"
            assert await phone.code(f"{V1}/live/bass/gain", TOKEN, -6, it.udp) == "protocol.malformed"
            assert await phone.code(f"{V1}/job/status", "job-1") == "auth.token"  # no lease came of all this
            await phone.silence()


@loop_test
async def test_senders_of_single_messages_leave_nothing_behind():
    async with opened() as it:
        for _ in range(20):  # as oscsend does it: a new port each time
            with Phone(it.udp) as phone:
                await phone.ask(f"{V1}/queue/pause", TOKEN)
                assert await phone.code(f"{V1}/job/status", TOKEN, "job-99") == "job.unknown"
        assert it.door._dialogue is not None
        await until(lambda: not it.door._dialogue._tasks)
        assert it.door._dialogue._lanes == {}
        assert it.door._sessions._sessions == {}


@loop_test
async def test_a_lease_ends_unless_the_sender_is_heard_of():
    async with opened() as it:
        with Phone(it.udp) as phone, Phone(it.udp) as other:
            await phone.ask(f"{V1}/hello", TOKEN)
            assert await other.code(f"{V1}/queue/pause") == "auth.token"  # a lease is the sender's alone
            for _ in range(3):
                it.clock.now += 59
                assert (await phone.ask(f"{V1}/queue/pause"))[0] == f"{V1}/queue/pause/reply"
            assert (await phone.ask(f"{V1}/queue/pause", TOKEN))[0] == f"{V1}/queue/pause/reply"
            it.clock.now += 60
            assert await phone.code(f"{V1}/queue/pause") == "auth.token"
            assert (await phone.ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"


@loop_test
async def test_wrong_tokens_are_limited_and_sessions_go_on():
    async with opened() as it:
        with Phone(it.udp) as known:
            await known.ask(f"{V1}/hello", TOKEN)
            with contextlib.ExitStack() as stack:
                phones = [stack.enter_context(Phone(it.udp)) for _ in range(3)]  # a new port is no new chance
                guesses = zip(range(6), itertools.cycle(phones), strict=False)
                codes = [await phone.code(f"{V1}/hello", f"guess-{n}") for n, phone in guesses]
                assert codes == ["auth.token"] * 6
                assert await phones[0].code(f"{V1}/hello", TOKEN) == "auth.limited"
                assert await phones[1].code(f"{V1}/queue/pause", TOKEN) == "auth.limited"
                assert (await known.ask(f"{V1}/queue/pause"))[0] == f"{V1}/queue/pause/reply"
                it.clock.now += 59.9
                assert await phones[0].code(f"{V1}/hello", TOKEN) == "auth.limited"
                it.clock.now += 0.2
                assert (await phones[0].ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"
            assert it.door.counters["osc.auth.limited"] == 3


@loop_test
async def test_slow_guesses_and_ended_leases_shut_nobody_out():
    async with opened() as it:
        with Phone(it.udp) as phone:
            for n in range(12):
                assert await phone.code(f"{V1}/hello", f"guess-{n}") == "auth.token"
                it.clock.now += 13
            for _ in range(12):  # a fader of a controller whose lease has ended
                assert await phone.code(f"{V1}/live/bass/gain", -3.0) == "auth.token"
            assert (await phone.ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"


def test_tokens_are_compared_as_texts():
    guard = osc_sessions.TokenGuard(TOKEN, Clock())
    assert guard.is_token(TOKEN)
    for wrong in (TOKEN[:-1], TOKEN + "x", "", "é", None, 5, True):
        assert not guard.is_token(wrong)


@loop_test
async def test_sessions_and_subscriptions_are_bounded():
    async with opened() as it:
        with contextlib.ExitStack() as stack:
            phones = [stack.enter_context(Phone(it.udp)) for _ in range(osc_sessions.MOST_SESSIONS + 1)]
            *first, last = phones
            for phone in first:
                assert (await phone.ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"
                assert (await phone.ask(f"{V1}/subscribe"))[0] == f"{V1}/subscribe/reply"
            assert await last.code(f"{V1}/hello", TOKEN) == "protocol.rate"
            assert await last.code(f"{V1}/subscribe", TOKEN) == "protocol.rate"
            assert (await first[0].ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"
            it.clock.now += 61
            assert (await last.ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"


@loop_test
async def test_a_sender_who_sends_too_much_is_slowed_and_others_are_not():
    async with opened() as it:
        with Phone(it.udp) as flood, Phone(it.udp) as other:
            await flood.ask(f"{V1}/hello", TOKEN)
            for n in range(700):
                flood.send(f"{V1}/live/bass/gain", float(n % 20))
                await asyncio.sleep(0)
            await until(lambda: it.door.counters["osc.protocol.rate"] == 201)
            assert len(it.service.asked) == 499
            assert (await other.ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"
            it.clock.now += 0.0015
            flood.send(f"{V1}/queue/pause")
            await until(lambda: len(it.service.asked) == 500)


@loop_test
async def test_strangers_get_few_errors():
    async with opened() as it:
        with contextlib.ExitStack() as stack:
            phones = [stack.enter_context(Phone(it.udp)) for _ in range(20)]
            for _ in range(20):
                for phone in phones:
                    phone.send(f"{V1}/status", 1)
                await asyncio.sleep(0.005)
            await until(lambda: it.door.counters["osc.auth.token"] == 400)
            await asyncio.sleep(0.05)
            answers, longest = 0, 0
            for phone in phones:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        longest = max(longest, len(phone.socket.recv(65_536)))
                        answers += 1
            assert answers == 50
            assert longest < 400


@loop_test
async def test_answers_are_never_answered():
    async with opened() as it:
        with Phone(it.udp) as phone:
            live = [f"{V1}/live/vocals/{name}" for name in ("state", "level")]
            addresses = [f"{V1}/error", f"{V1}/status/reply", f"{V1}/event/heartbeat", *live]
            for address in addresses:
                phone.send(address, "x", "y")
            await phone.silence()
            assert it.door.counters["osc.answers"] == len(addresses)
            assert [spec.osc for spec in EVENTS if not osc_addresses.is_answer(spec.osc)] == []
            assert [spec.osc for spec in MESSAGES if spec.osc and osc_addresses.is_answer(spec.osc)] == []


@loop_test
async def test_only_127_0_0_1_is_let_in():
    async with opened() as it:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
            try:
                stranger.bind(("127.0.0.2", 0))
            except OSError:
                pytest.skip("127.0.0.2 is not this machine's")
            stranger.sendto(build_message(f"{V1}/queue/pause", [("s", TOKEN)]), ("127.0.0.1", it.udp))
            with pytest.raises(OSError, match="ion"):  # refused, or reset, depending on the system
                await _ask_by_tcp_from("127.0.0.2", it.tcp)
            await asyncio.sleep(0.1)
            assert it.service.asked == []
            assert it.door.counters == {}


async def _ask_by_tcp_from(host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
    try:
        writer.write(encode_frame(build_message(f"{V1}/queue/pause", [("s", TOKEN)]), Framing.SLIP))
        if not await asyncio.wait_for(reader.read(1), 5):
            raise ConnectionResetError("closed without reset: connection ended")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# --- events ---


@loop_test
async def test_events_go_to_the_reply_port_until_the_lease_ends():
    async with opened() as it:
        with Phone(it.udp) as phone, Phone(it.udp) as ear:
            phone.send(f"{V1}/hello", TOKEN, ear.port, "desk")
            assert await ear.receive() == [f"{V1}/hello/reply", 1, 60]
            phone.send(f"{V1}/subscribe", 100)
            assert await ear.receive() == [f"{V1}/subscribe/reply", 100]
            phone.send(f"{V1}/live/vocals/gain", -9.0)
            assert await ear.receive() == [f"{V1}/live/vocals/state", -9.0, False]
            assert await ear.receive() == [f"{V1}/live/vocals/gain", -9.0]  # the address of the control, which follows
            feedback = [await ear.receive() for _ in range(8)]
            assert [f"{V1}/live/vocals/mute", False] in feedback
            assert await ear.receive() == [f"{V1}/live/vocals/gain/reply", "vocals", -9.0, False]
            it.clock.now += 99
            it.hub.publish(Heartbeat(seq=0, waiting=2, running=1))
            assert await ear.receive() == [f"{V1}/event/heartbeat", 1, 2, 1]
            it.clock.now += 1
            it.hub.publish(Heartbeat(seq=0, waiting=2, running=1))
            await ear.silence()


@loop_test
async def test_a_session_that_is_heard_of_keeps_its_events():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN)
            await phone.ask(f"{V1}/subscribe")
            for _ in range(3):
                it.clock.now += 50
                await phone.ask(f"{V1}/queue/pause")
            it.hub.publish(Heartbeat(seq=0, waiting=0, running=0))
            assert (await phone.receive())[0] == f"{V1}/event/heartbeat"
            assert await phone.ask(f"{V1}/unsubscribe") == [f"{V1}/unsubscribe/reply"]
            it.hub.publish(Heartbeat(seq=0, waiting=0, running=0))
            await phone.silence()
            for bad in ((0,), (3_601,), (1.5,), ("x",), (60, 9_000)):
                assert await phone.code(f"{V1}/subscribe", *bad) == "protocol.malformed"


@loop_test
async def test_a_single_message_subscribes_a_port():
    async with opened() as it:
        with Phone(it.udp) as phone, Phone(it.udp) as ear:
            phone.send(f"{V1}/subscribe", TOKEN, 10, ear.port)
            assert await ear.receive() == [f"{V1}/subscribe/reply", 10]
            it.hub.publish(Heartbeat(seq=0, waiting=0, running=0))
            assert (await ear.receive())[0] == f"{V1}/event/heartbeat"
            phone.send(f"{V1}/unsubscribe", TOKEN, ear.port)
            assert await ear.receive() == [f"{V1}/unsubscribe/reply"]
            it.hub.publish(Heartbeat(seq=0, waiting=0, running=0))
            await ear.silence()
            await phone.silence(0.01)


@loop_test
async def test_events_have_the_types_of_the_table():
    async with opened() as it:
        with Phone(it.udp) as phone:
            await phone.ask(f"{V1}/hello", TOKEN)
            await phone.ask(f"{V1}/subscribe")

            async def tags(event: Any) -> tuple[str, list[Any]]:
                it.hub.publish(event)
                data = await asyncio.get_running_loop().sock_recv(phone.socket, 65_536)
                return data.split(b",")[1].split(b"\0")[0].decode(), as_list(data)[1:]

            failed = JobChanged(
                job_id="j", seq=0, state=JobState.FAILED, source="/é", error={"code": "c", "message": "m", "hint": "h"}
            )
            assert await tags(failed) == ("sssss", ["j", "failed", "/é", "c", "m"])
            progress = JobProgress(job_id="j", seq=0, done=1, total=9, elapsed_s=1 / 3, remaining_s=None)
            assert await tags(progress) == ("siidN", ["j", 1, 9, 1 / 3, None])
            stem = StemReady(
                job_id="j",
                seq=0,
                stem="bass",
                path="/a",
                frames=2**31,
                sample_rate=44_100,
                sha256="",
                stream=0,
                start_frame=2**33,
                final=False,
            )
            assert await tags(stem) == ("ssshhiF", ["j", "bass", "/a", 2**33, 2**31, 44_100, False])
            summary: dict[str, Any] = dict.fromkeys(JobSummary.__slots__, "x")
            numbers = {"duration_s": 1.5, "elapsed_s": 2.5, "null_db": float("-inf"), "exact": True, "cached": False}
            summary |= {"job_id": "j", "seq": 0, "gain_db": 0.0, "lag_frames": 0, "resumed_runs": 0, **numbers}
            assert await tags(JobSummary(**summary)) == ("ssddTfF", ["j", "x", 1.5, 2.5, True, float("-inf"), False])


# --- TCP ---


@pytest.mark.parametrize("mode", [MODE_1_0, MODE_1_1])
@loop_test
async def test_python_osc_over_tcp(mode):
    async with opened() as it:

        def talk() -> list[list[Any]]:
            client = SimpleTCPClient("127.0.0.1", it.tcp, mode=mode, timeout=5.0)
            got: list[list[Any]] = []
            try:
                for address, *arguments in (
                    (f"{V1}/hello", TOKEN),
                    (f"{V1}/job/submit", "/a", "/b\u00c0"),
                    (f"{V1}/job/cancel", "job-1"),
                ):
                    client.send_message(address, arguments)
                    got += map(as_list, client.receive(5.0))
            finally:
                client.close()
            return got

        got = await asyncio.to_thread(talk)
        assert [each[0].rpartition("/v1")[2] for each in got] == [
            "/hello/reply",
            "/job/submit/reply",
            "/job/cancel/reply",
        ]
        assert got[2][1:3] == ["job-1", "cancelled"]
        assert it.service.asked[0].job.folder == "/b\u00c0"


@loop_test
async def test_python_osc_over_udp():
    async with opened() as it:

        def talk() -> list[list[Any]]:
            client = SimpleUDPClient("127.0.0.1", it.udp)
            got: list[list[Any]] = []
            with client._sock:
                for address, *arguments in ((f"{V1}/hello", TOKEN), (f"{V1}/live/vocals/mute", True)):
                    client.send_message(address, arguments)
                    got.append(as_list(client.receive(5.0)))
            return got

        assert (await asyncio.to_thread(talk))[1] == [f"{V1}/live/vocals/mute/reply", "vocals", 0.0, True]


class Wire:
    """A TCP connection to the door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, framing: Framing) -> None:
        self.reader, self.writer, self.framing = reader, writer, framing

    def send(self, address: str, *arguments: object) -> None:
        self.writer.write(encode_frame(build_message(address, map(typed, arguments)), self.framing))

    async def receive(self) -> list[Any]:
        if self.framing is Framing.LENGTH:
            (length,) = struct.unpack(">I", await asyncio.wait_for(self.reader.readexactly(4), 5))
            return as_list(await self.reader.readexactly(length))
        while not (frame := (await asyncio.wait_for(self.reader.readuntil(b"\xc0"), 5))[:-1]):
            pass
        return as_list(frame.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb"))

    async def closed(self, timeout_s: float = 5.0) -> bool:
        """Whether the door closes it in time, whatever it says before."""
        try:
            while await asyncio.wait_for(self.reader.read(65_536), timeout_s):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


@contextlib.asynccontextmanager
async def wire(port: int, framing: Framing = Framing.SLIP) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer, framing)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("framing", Framing)
@loop_test
async def test_events_over_tcp_come_in_the_peers_framing(framing):
    async with opened() as it, wire(it.tcp, framing) as one:
        one.send(f"{V1}/hello", TOKEN)
        one.send(f"{V1}/subscribe")
        assert [(await one.receive())[0] for _ in range(2)] == [f"{V1}/hello/reply", f"{V1}/subscribe/reply"]
        for n in range(300):
            it.hub.publish(Heartbeat(seq=0, waiting=n, running=0xC0DB))
        assert [(await one.receive())[2:] for _ in range(300)] == [[n, 0xC0DB] for n in range(300)]


@loop_test
async def test_what_is_no_osc_closes_the_connection_at_once():
    async with opened() as it:
        for garbage in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\0\0\0\0", b"\xc0\xdb\xc0", b"\0\xff\0\0"):
            async with wire(it.tcp) as one:
                one.writer.write(garbage)
                assert await one.closed()
        assert it.service.asked == []


@loop_test
async def test_a_peer_that_is_refused_too_often_is_dropped():
    async with opened() as it, wire(it.tcp) as known, wire(it.tcp) as stranger:
        known.send(f"{V1}/hello", TOKEN)
        await known.receive()
        for _ in range(osc_door.MOST_REFUSED):
            known.send(f"{V1}/no/such")
            stranger.send(f"{V1}/status")
        assert [(await stranger.receive())[2] for _ in range(5)] == ["auth.token"] * 5
        stranger.send(f"{V1}/status")
        assert await stranger.closed()
        known.send(f"{V1}/no/such")
        assert not await known.closed(0.2)


@loop_test
async def test_silent_connections_are_closed_and_those_with_events_are_not():
    async with opened() as it, wire(it.tcp) as silent, wire(it.tcp) as listener:
        listener.send(f"{V1}/subscribe", TOKEN, 3_600)
        assert await listener.receive() == [f"{V1}/subscribe/reply", 3_600]
        it.clock.now += 61
        assert await silent.closed()
        it.hub.publish(Heartbeat(seq=0, waiting=0, running=0))
        assert (await listener.receive())[0] == f"{V1}/event/heartbeat"
        it.clock.now += 3_600
        assert await listener.closed()


@loop_test
async def test_connections_are_bounded_and_strangers_give_way():
    async with opened() as it, contextlib.AsyncExitStack() as stack:
        wires = []
        for n in range(osc_door.MOST_CONNECTIONS):
            wires.append(await stack.enter_async_context(wire(it.tcp)))
            if n != 3:
                wires[n].send(f"{V1}/hello", TOKEN)
                await wires[n].receive()
        new = await stack.enter_async_context(wire(it.tcp))
        assert await wires[3].closed()  # the only one that never said hello
        new.send(f"{V1}/hello", TOKEN)
        assert (await new.receive())[0] == f"{V1}/hello/reply"
        assert await (await stack.enter_async_context(wire(it.tcp))).closed()
        assert it.door.counters["osc.turned_away"] == 1
        wires[0].send(f"{V1}/queue/pause")
        assert (await wires[0].receive())[0] == f"{V1}/queue/pause/reply"


@loop_test
async def test_a_reader_that_does_not_read_is_dropped_and_others_get_all():
    async with opened() as it, wire(it.tcp) as deaf, wire(it.tcp) as good:
        for each in (deaf, good):
            each.send(f"{V1}/subscribe", TOKEN)
            await each.receive()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        event = JobChanged(job_id="j", seq=0, state=JobState.QUEUED, source="/" + "x" * 4_000)
        sent = 0
        while it.door.counters["osc.unsent"] == 0:
            it.hub.publish(event)
            sent += 1
            assert (await good.receive())[1] == "j"
            assert sent * 4_000 < 64 << 20
        assert sent * 4_000 > osc_streams.MOST_UNSENT_BYTES / 2
        it.hub.publish(event)
        assert (await good.receive())[1] == "j"
        assert it.door.counters["osc.unsent"] == 1  # its subscription has gone with it


# --- what may come ---


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """Random bytes, and messages and bundles with some bytes changed, cut or doubled."""
    rng = random.Random(seed)
    good = [
        build_message(f"{V1}/hello", [("s", "guess")]),
        build_message(f"{V1}/job/submit", [("s", "/a"), ("s", "/b"), ("s", "dsp"), ("s", "batch")]),
        build_message(f"{V1}/live/vocals/gain", [("f", -3.0)]),
        build_message(f"{V1}/subscribe", [("i", 60), ("i", 9_000)]),
        b"/x\0\0,[[]i]\0\0" + bytes(4),
    ]
    good.append(b"#bundle\0" + bytes(8) + b"".join(struct.pack(">i", len(each)) + each for each in good))
    for _ in range(count):
        if rng.random() < 0.2:
            yield rng.randbytes(rng.randrange(64))
            continue
        data = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            match rng.randrange(4):
                case 0:
                    data[at] = rng.choice((0, 0xFF, 0xC0, 0xDB, ord(","), rng.randrange(256)))
                case 1:
                    del data[at : at + rng.randrange(1, 8)]
                case 2:
                    data[at:at] = data[at : at + rng.randrange(1, 40)]
                case _:
                    data[at : at + 4] = struct.pack(">i", rng.choice((-4, -1, 0, 2**31 - 1, -(2**31), 4)))
            data = data or bytearray(b"/")
        yield bytes(data)


@loop_test
async def test_ten_thousand_datagrams_of_no_program_leave_it_answering():
    async with opened() as it:
        with Phone(it.udp) as phone, Phone(it.udp) as noisy, Phone(it.udp) as leased:
            await leased.ask(f"{V1}/hello", TOKEN)

            async def burst(seed: int, count: int) -> None:
                for n, data in enumerate(mutants(seed, count)):
                    (leased if n % 2 else noisy).send_bytes(data)
                    it.clock.now += 0.001
                    await asyncio.sleep(0)  # the door takes one each time
                for each in (noisy, leased):
                    with contextlib.suppress(BlockingIOError):
                        while each.socket.recv(65_536):
                            pass
                it.service.asked.clear()
                it.service.callers.clear()
                it.service.jobs.clear()

            await burst(0, 2_000)
            gc.collect()
            tracemalloc.start()
            await burst(1, 500)
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await burst(2, 7_500)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert grown < 256 << 10
            assert it.door.counters["osc.protocol.malformed"] > 1_000
            assert it.door.counters["osc.error.unexpected"] == 0
            it.clock.now += 61  # guesses were among them
            assert (await phone.ask(f"{V1}/hello", TOKEN))[0] == f"{V1}/hello/reply"
            assert (await phone.ask(f"{V1}/queue/pause"))[0] == f"{V1}/queue/pause/reply"


@loop_test
async def test_ten_thousand_chunks_of_no_program_leave_it_answering():
    async with opened() as it:
        rng, chunks = random.Random(3), 0
        source = mutants(4, 1_000_000)
        for framing, greets in itertools.cycle(itertools.product(Framing, (True, False))):
            async with wire(it.tcp) as one:
                it.clock.now += 61  # guesses are among what is sent
                hello = build_message(f"{V1}/hello", [("s", TOKEN)]) if greets else b"/a\0\0"
                stream = b"".join(encode_frame(data, framing) for data in (hello, *itertools.islice(source, 20)))
                if rng.random() < 0.5:
                    at = rng.randrange(len(stream))
                    stream = stream[:at] + rng.randbytes(4) + stream[at:]
                while stream and not one.reader.at_eof() and one.reader.exception() is None:
                    size = rng.choice((1, 3, 17, 200, 5_000))
                    one.writer.write(stream[:size])
                    stream = stream[size:]
                    chunks += 1
                    await asyncio.sleep(0)
            if chunks >= 10_000:
                break
        assert it.door.counters["osc.messages"] > 1_000
        assert it.door.counters["osc.error.unexpected"] == 0
        it.clock.now += 61
        async with wire(it.tcp) as one:
            one.send(f"{V1}/hello", TOKEN)
            assert (await one.receive())[0] == f"{V1}/hello/reply"
        await until(lambda: not it.door._connections)


@loop_test
async def test_the_longest_packets_cost_little():
    async with opened() as it, wire(it.tcp, Framing.LENGTH) as one, wire(it.tcp) as other:
        size = MAX_MESSAGE_BYTES - 20
        packets = [
            b"/a\0\0," + b"i" * 52_000 + bytes(4),
            b"/a\0\0," + b"[" * 200_000 + bytes(4),
            b"#bundle\0" + bytes(8) + struct.pack(">i", 4) * (size // 4),
            b"#bundle\0" + bytes(8) + (b"\0\0\0\4/\0\0\0" * (size // 8)),
            b"/" + b"a" * size + bytes(3),
        ]
        begin = time.perf_counter()
        for packet in packets:
            one.writer.write(encode_frame(packet, Framing.LENGTH))
            assert (await one.receive())[2] == "protocol.malformed"
        assert time.perf_counter() - begin < 1.0  # 0.05 s here
        other.send(f"{V1}/hello", TOKEN)
        assert (await other.receive())[0] == f"{V1}/hello/reply"


# --- the ports ---


@loop_test
async def test_a_port_that_is_taken_is_named():
    async with opened() as it:
        for ports in ({"udp_port": it.udp}, {"tcp_port": it.tcp}):
            door = OscDoor(it.service, it.hub, TOKEN, **ports)
            with pytest.raises(RevithionError, match=str(next(iter(ports.values())))) as caught:
                await door.start()
            assert caught.value.code == "daemon.start_failed"
            await door.stop()


@loop_test
async def test_ports_are_free_again_after_stop_and_nothing_is_left():
    hub = EventHub()
    service = SmallService(hub)
    door = OscDoor(service, hub, TOKEN)
    tasks = asyncio.all_tasks()
    udp, tcp = await door.start()
    async with wire(tcp) as one:
        one.send(f"{V1}/subscribe", TOKEN)
        await one.receive()
        service.gate = asyncio.Event()
        one.send(f"{V1}/queue/pause", TOKEN)
        await until(lambda: service.asked)
        await door.stop()
        assert await one.closed()
    assert asyncio.all_tasks() == tasks
    hub.publish(Heartbeat(seq=0, waiting=0, running=0))
    again = OscDoor(service, hub, TOKEN, udp_port=udp, tcp_port=tcp)
    assert await again.start() == (udp, tcp)
    await again.stop()
    await again.stop()


# --- liblo ---


def oscsend(target: str | int, address: str, types: str, *values: object) -> None:
    """liblo's program, to a UDP port or a URL."""
    where = ["127.0.0.1", str(target)] if isinstance(target, int) else [target]
    command = ["oscsend", *where, address, types, *map(str, values)]
    subprocess.run(command, check=True, timeout=10, capture_output=True)


class Dump:
    """``oscdump`` on a port of its own."""

    def __init__(self, place: Path) -> None:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.path = place / "dump"
        with self.path.open("wb") as out:
            self.process = subprocess.Popen(
                ["oscdump", "-L", str(self.port)], stdout=out, env={**os.environ, "LC_ALL": "C.UTF-8"}
            )

    async def ready(self) -> Dump:
        """Waits until it listens."""
        mark = OscMessageBuilder("/mark").build().dgram
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            for _ in range(500):
                with contextlib.suppress(ConnectionRefusedError):
                    sender.sendto(mark, ("127.0.0.1", self.port))
                await asyncio.sleep(0.02)
                if "/mark" in self.path.read_text():
                    return self
        raise AssertionError("oscdump does not listen")

    async def line(self, beginning: str) -> str:
        """The line that shows a message, without its time; ``beginning`` is its address and more."""
        found: list[str] = []

        def seen() -> bool:
            lines = [line.partition(" ")[2] for line in self.path.read_text(encoding="utf-8").splitlines()]
            found[:] = [line for line in lines if line.startswith(beginning)]
            return bool(found)

        await until(seen)
        return found[0]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@needs_liblo
@loop_test
async def test_liblo_submits_asks_moves_and_cancels(tmp_path):
    async with opened() as it:
        dump = Dump(tmp_path)
        try:
            await dump.ready()

            async def send(address: str, types: str, *values: object) -> None:
                await asyncio.to_thread(oscsend, it.udp, f"{V1}{address}", types, *values)

            await send("/subscribe", "sii", TOKEN, 600, dump.port)
            assert await dump.line(f"{V1}/subscribe/reply") == f"{V1}/subscribe/reply i 600"
            await send("/job/submit", "sssssi", TOKEN, "/music/song é.wav", "/stems", "dsp", "interactive", dump.port)
            reply = await dump.line(f"{V1}/job/submit/reply")
            assert reply == f'{V1}/job/submit/reply ssiiN "job-1" "queued" 0 0 Nil'
            event = await dump.line(f"{V1}/event/changed")
            assert event == f'{V1}/event/changed sssNN "job-1" "queued" "/music/song é.wav" Nil Nil'
            await send("/job/status", "ssi", TOKEN, "job-1", dump.port)
            assert '"job-1" "queued"' in await dump.line(f"{V1}/job/status/reply")
            await send("/live/vocals/gain", "sfi", TOKEN, -4.5, dump.port)
            assert await dump.line(f"{V1}/live/vocals/state") == f"{V1}/live/vocals/state fF -4.500000 #F"
            assert '"vocals" -4.5' in await dump.line(f"{V1}/live/vocals/gain/reply")
            await send("/live/vocals/mute", "sT", TOKEN)
            await dump.line(f"{V1}/live/vocals/state fT")
            await send("/job/cancel", "ssi", TOKEN, "job-1", dump.port)
            assert '"job-1" "cancelled"' in await dump.line(f"{V1}/job/cancel/reply")
            await send("/job/status", "ssi", TOKEN, "job-7", dump.port)
            error = await dump.line(f"{V1}/error")
            assert error.startswith(f'{V1}/error ssss "{V1}/job/status" "job.unknown"')
            assert it.service.asked[0].job.source == "/music/song é.wav"
        finally:
            dump.close()


@needs_liblo
@loop_test
async def test_liblo_over_tcp(tmp_path):
    async with opened() as it:
        dump = Dump(tmp_path)
        try:
            await dump.ready()
            url = f"osc.tcp://127.0.0.1:{it.tcp}"
            await asyncio.to_thread(oscsend, url, f"{V1}/live/drums/gain", "sii", TOKEN, -7, dump.port)
            assert '"drums" -7.0' in await dump.line(f"{V1}/live/drums/gain/reply")
        finally:
            dump.close()


@pytest.mark.skipif(sys.platform == "win32", reason="the numbers are POSIX's")
def test_nothing_listens_beyond_this_machine():
    async def body() -> None:
        import psutil

        async with opened() as it:
            ours = {c.laddr for c in psutil.Process().net_connections("inet") if c.laddr.port in (it.udp, it.tcp)}
            assert {host for host, _ in ours} == {"127.0.0.1"}

    asyncio.run(body())
