"""What the daemon costs beside the bare engine, and how many events it can publish.

    python benchmarks/daemon.py [--model dsp,htdemucs] [--seconds 12] [--rounds 20] [--quick] [--json FILE]

Jobs: the engine in this process, with its model warm, against `submit` and `wait` of the client library, with and
without spans. The sides take turns, each with a song of its own, so that the cache answers only where that is what is
measured (`cached`); overheads are taken round by round. `first` is the time to the first network run's end as a
listener hears of it. Events: published by the real hub and doors to subscribers in processes of their own, at twice the
rate each time, until one of them misses something.

Everything is in a temporary folder: a daemon that runs already is left alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import soundfile
import zmq

from revithion_bridge import connect
from revithion_bridge.connection import load_keys
from revithion_bridge.event_hub import EventHub
from revithion_bridge.messages import QueueChanged, Reply, Request
from revithion_bridge.service_api import Caller
from revithion_bridge.zmq_doors import ZmqDoors
from revithion_stems import OutputOptions, SeparationRequest, separate_to_files
from revithion_stems.events import JobEvent, JobProgress
from revithion_stems.model_loading import ModelCache
from revithion_stems.weights import ModelStore, Presence

RATE = 44_100
SIDES = ("engine", "daemon", "daemon, spans")
Figures = dict[str, dict[str, list[float]]]


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def songs(folder: Path, seconds: float) -> Iterator[Path]:
    """Songs of 16-bit stereo without end, all different."""
    clock = np.arange(int(seconds * RATE)) / RATE
    for number in itertools.count():
        generator = np.random.default_rng(number)
        tone = 0.3 * np.sin(2 * np.pi * (220 + number) * clock)
        beat = generator.uniform(-1, 1, (2, clock.size)) * np.exp(-30 * (clock % 0.5))
        path = folder / f"song{number:05d}.wav"
        soundfile.write(path, (tone + 0.3 * beat).T, RATE, subtype="PCM_16")
        yield path


# --- jobs -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def daemon_running() -> Iterator[None]:
    """A daemon of its own, in the folders that the environment names."""
    command = [sys.executable, "-m", "revithion_bridge.daemon", "--osc-port", "-1"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    with connect(timeout_s=1.0) as client:
                        client.status()
                    break
                except Exception:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(120)


class Sides:
    """The three ways to do a job; each gives the time to its first network run and to its end."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folders = itertools.count()
        self._models = ModelCache()
        self._client = connect(client="benchmark")
        self._listener = connect(client="listener")
        self._first: dict[str, float] = {}
        self._listening = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self._client.close()

    def run(self, side: str, song: Path, model: str) -> dict[str, float]:
        folder = self._out / f"{next(self._folders)}"
        if side == "engine":
            return self._engine(song, folder, model)
        began = time.perf_counter()
        job = self._client.submit(song, folder, model=model, span_s=5.0 if "spans" in side else 0.0)
        ended = self._client.wait(job.id)
        took = time.perf_counter() - began
        if ended.state.value != "done":
            raise SystemExit(f"a job failed: {ended.error}")
        return {"first": self._first.get(job.id, began) - began, "whole": took}

    def _engine(self, song: Path, folder: Path, model: str) -> dict[str, float]:
        first: list[float] = []

        def on_event(event: JobEvent) -> None:
            if isinstance(event, JobProgress) and event.done and not first:
                first.append(time.perf_counter())

        began = time.perf_counter()
        request = SeparationRequest(source=song, model=model)
        separate_to_files(request, OutputOptions(folder=folder), models=self._models, on_event=on_event)
        took = time.perf_counter() - began
        return {"first": (first or [began])[0] - began, "whole": took}

    def _listen(self) -> None:
        with contextlib.suppress(Exception):  # it was closed
            for message in self._listener.events():
                event = getattr(message, "event", None)
                if isinstance(event, JobProgress) and event.done:
                    self._first.setdefault(event.job_id, time.perf_counter())


def compare(sides: Sides, name: str, next_song: Callable[[], Path], model: str, rounds: int) -> Figures:
    """Runs all sides in turn, the first round unmeasured, and prints their figures."""
    figures: Figures = {side: {"first": [], "whole": []} for side in SIDES}
    for number in range(-1, rounds):
        order = SIDES if number % 2 else SIDES[::-1]
        for side in order:
            row = sides.run(side, next_song(), model)
            if number >= 0:
                for kind, seconds in row.items():
                    figures[side][kind].append(seconds)
    print(f"\n{name}, {rounds} rounds")
    for kind in ("first", "whole"):
        if not any(figures["engine"][kind]):
            continue  # what is cached has no network run
        for side in SIDES:
            values = figures[side][kind]
            middle = f"p50 {percentile(values, 50) * 1000:8.1f} ms   p99 {percentile(values, 99) * 1000:8.1f} ms"
            if side != "engine":
                over = [1000 * (a - b) for a, b in zip(values, figures["engine"][kind], strict=True)]
                low, high = percentile(over, 10), percentile(over, 90)
                middle += f"   overhead {statistics.median(over):+.1f} ms (10–90 %: {low:+.1f} to {high:+.1f})"
            print(f"  {kind:<6}{side:<15}{middle}", flush=True)
    return figures


# --- events ---------------------------------------------------------------------------------------------------------


class _Mark(msgspec.Struct):
    paused: bool = False


class _Numbered(msgspec.Struct):
    seq: int
    event: _Mark  # what it is made of is passed over, but for a mark's field


class _Nobody:
    """The doors need a service; nobody asks it."""

    async def handle(self, request: Request, caller: Caller) -> Reply:
        raise NotImplementedError


def subscribe() -> None:
    """A subscriber's process: prints at each mark which it is, and how many events came since the one before."""
    endpoint, server_key, public, secret = json.loads(sys.stdin.readline())
    decoder = msgspec.json.Decoder(_Numbered)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (
            key.encode() for key in (server_key, public, secret)
        )
        socket.linger = 0
        socket.connect(endpoint)
        socket.subscribe(b"")
        came = 0
        while True:
            topic, data = socket.recv_multipart()
            message = decoder.decode(data)
            came += 1
            if topic == b"queue":
                print(json.dumps([message.event.paused, came - 1]), flush=True)
                came = 0


async def publish(subscribers: int, seconds: float, highest: int) -> dict[str, object]:
    """The highest rate at which nobody missed anything."""
    keys = load_keys()
    hub = EventHub()
    doors = ZmqDoors(_Nobody(), hub, keys)
    endpoints = await doors.start()
    told = json.dumps([endpoints.events, keys.server_public, keys.client_public, keys.client_secret]) + "\n"
    command = (sys.executable, __file__, "--subscriber")
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe) for _ in range(subscribers)]
    result: dict[str, object] = {"subscribers": subscribers, "lossless_per_s": 0}
    try:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(told.encode())
            await process.stdin.drain()
        await joined(hub, processes)
        rate = 1000
        while rate <= highest:
            published, took = await publish_at(hub, rate, seconds)
            await asyncio.sleep(1.0)  # so that the mark finds room
            hub.publish(QueueChanged(seq=0, paused=True))
            counts = await asyncio.wait_for(asyncio.gather(*map(counted, processes)), 30)
            missed = published - min(counts)
            reached = published / took
            print(f"  {subscribers} subscribers, {reached:9,.0f} events/s of {rate:,}: {missed:,} missed", flush=True)
            if missed:
                result["loss_at_per_s"] = reached
                break
            result["lossless_per_s"] = max(reached, float(str(result["lossless_per_s"])))
            if reached < 0.8 * rate:
                print("  more can't be published by one core")
                break
            rate *= 2
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await doors.stop()
    return result


async def publish_at(hub: EventHub, rate: int, seconds: float) -> tuple[int, float]:
    """Publishes as evenly as the loop allows; how many events, and how long it took."""
    began, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(min(200, int(passed * rate) - count)):
            hub.publish(JobProgress(job_id="job-0", seq=0, done=count, total=1000, elapsed_s=passed, remaining_s=1.0))
            count += 1
        await asyncio.sleep(0)  # the doors send on this loop
    return count, time.perf_counter() - began


async def joined(hub: EventHub, processes: list[asyncio.subprocess.Process]) -> None:
    """Publishes marks that don't count until all subscribers have heard one."""
    waiting = {asyncio.ensure_future(line(process)) for process in processes}
    deadline = time.monotonic() + 60
    while waiting:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(waiting)} of {len(processes)} subscribers do not hear anything")
        hub.publish(QueueChanged(seq=0, paused=False))
        heard, waiting = await asyncio.wait(waiting, timeout=0.2)
        for task in heard:
            task.result()


async def counted(process: asyncio.subprocess.Process) -> int:
    """How many events a subscriber had got at the next mark that counts."""
    while True:
        counts, came = await line(process)
        if counts:
            return came


async def line(process: asyncio.subprocess.Process) -> tuple[bool, int]:
    """What a subscriber prints next."""
    assert process.stdout is not None
    text = await process.stdout.readline()
    if not text:
        raise EOFError("a subscriber has ended")
    counts, came = json.loads(text)
    return counts, came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dsp,htdemucs", help="those whose weights are not there are left out")
    parser.add_argument("--seconds", type=float, default=12.0, help="of a song")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few rounds, dsp only")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--subscriber", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.subscriber:
        subscribe()
        return
    models, rounds, seconds = options.model.split(","), options.rounds, 3.0
    if options.quick:
        models, rounds, seconds = ["dsp"], 5, 1.0
    store = ModelStore()
    models = [name for name in models if store.presence(store.catalog[name]) is Presence.PRESENT]
    print(f"{os.cpu_count()} logical CPUs; songs of {options.seconds:g} s; {', '.join(models)}")
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        os.environ.update(REVITHION_STATE_DIR=str(place / "state"), REVITHION_CACHE_DIR=str(place / "cache"))
        with daemon_running(), contextlib.closing(Sides(place / "out")) as sides:
            different = songs(place, options.seconds)
            same = next(different)
            figures["cached"] = compare(sides, "cached", lambda: same, "dsp", 2 * rounds)
            for model in models:
                some = rounds if model == "dsp" else max(3, rounds // 4)
                figures[model] = compare(sides, f"{model}, warm", lambda: next(different), model, some)
        print("\nevents")
        highest = 16_000 if options.quick else 256_000
        figures["events"] = [asyncio.run(publish(subscribers, seconds, highest)) for subscribers in (1, 8)]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
