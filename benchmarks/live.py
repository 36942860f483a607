"""How long models and the callback take on one thread, and whether the whole live path keeps up in real time.

    python benchmarks/live.py [--models preview,dsp,spleeter_2stems] [--hops 4000] [--runs 3] [--blocks 20000]
                              [--play preview] [--devices none,jack] [--seconds 600] [--source FILE] [--block 256]
                              [--look-back 1] [--quick] [--json FILE]

Hops: each model in a process of its own whose libraries have one thread, at 44.1 kHz, from one hop's input to its
stems, the sum closed; `budget` is the hop itself, and `over` the share of hops that took longer. Models whose weights
are not there are left out.

Callback: the block's way through the callback with four strips, at 48 kHz, in the same way; strips in their neutral
position, and with everything moved (pan, three bands of the equaliser, filter).

Of several runs, which take turns, the medians of the figures are printed, and the longest of all.

Whole path: a session plays FILE, or tones, beats and noise, over and over for the given time, by a clock in place of a
device (`none`) and through a JACK server of its own with the dummy driver (`jack`, where jackd is installed): the
blocks that came late, and the processor time of each process. Both can only be as good as what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from revithion_realtime.control.strip_targets import targets
from revithion_realtime.models.model_choice import DSP, PREVIEW, make_processor
from revithion_realtime.session import open_live
from revithion_stems.live import LiveOptions, StripSettings
from revithion_stems.weights import ModelStore, Presence

RATE = 44_100
JACK = "jack"
STRIPS = {
    "neutral": StripSettings(),
    "all moved": StripSettings(gain_db=-3, pan=0.2, low_db=-6, mid_db=3, high_db=-60, filter=0.4),
}
SLOW_HOP_S = 0.1  # models with a longer hop get a hundredth of the hops
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
Row = dict[str, Any]

sys.path.append(str(Path(__file__).parents[1] / "tests"))


def sound(seconds: float) -> np.ndarray:
    """Tones, beats and noise, float32 `[2, frames]`."""
    clock = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(1).uniform(-1, 1, (2, clock.size))
    tone = 0.3 * np.sin(2 * np.pi * 220 * clock) + 0.1 * np.sin(2 * np.pi * 1_760 * clock)
    return (tone + 0.2 * noise * np.exp(-20 * (clock % 0.5)) + 0.02 * noise).astype(np.float32)


# --- on one thread ---------------------------------------------------------------------------------------------------


def spread(times_ms: list[float], budget_ms: float) -> Row:
    """How calls that may take the budget at most have been."""
    taken = np.array(times_ms)
    p50, p99, p999 = np.percentile(taken, [50, 99, 99.9])
    return {
        "calls": taken.size,
        "budget_ms": budget_ms,
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": taken.max(),
        "load": taken.mean() / budget_ms,
        "over": float(np.mean(taken > budget_ms)),
    }


def time_hops(model: str, hops: int, look_back_s: float) -> Row:
    """Runs in a process of its own; see `ONE_THREAD`."""
    processor = make_processor(model, look_back_hop_s=look_back_s)
    processor.prepare(RATE)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    hop = processor.hop_frames
    if hop > SLOW_HOP_S * RATE:
        hops = max(10, hops // 100)
    warm_up = max(5, hops // 100)
    music = sound(max(10.0, 2 * hop / RATE))
    out = np.empty((len(processor.stems), 2, hop), np.float32)
    times: list[float] = []
    for number in range(warm_up + hops):
        start = number * hop % (music.shape[1] - hop)
        block = music[:, start : start + hop]
        began = time.perf_counter()
        processor.process(block, out)
        times.append(1_000 * (time.perf_counter() - began))
    row = spread(times[warm_up:], 1_000 * hop / RATE)
    return {"name": processor.name, "delay_ms": 1_000 * processor.latency_frames / RATE, **row}


def time_callback(strips: str, block: int, blocks: int) -> Row:
    """Runs in a process of its own, without the garbage collector, as the callback does."""
    from live_rig import RATE as RIG_RATE
    from live_rig import live_rig
    from revithion_stems.live import LiveOutputs

    music = sound(10.0)
    times: list[float] = []
    with live_rig(block_frames=block, outputs=LiveOutputs.BOTH) as rig:
        rig.memory.moves.put(targets((STRIPS[strips],) * 4, 0.0).items())
        outputs = np.empty((len(LiveOutputs.BOTH.names("abcd")), block), np.float32)
        gc.collect()
        gc.disable()
        for number in range(200 + blocks):
            start = number * block % (music.shape[1] - block)
            capture = music[:, start : start + block]
            began = time.perf_counter()
            rig.path(capture, outputs, False)
            times.append(1_000 * (time.perf_counter() - began))
            rig.infer()
        delay_ms = 1_000 * rig.delay / RIG_RATE
    return {"name": strips, "delay_ms": delay_ms, **spread(times[200:], 1_000 * block / RIG_RATE)}


def one_thread_table(title: str, jobs: list[list[str]], runs: int) -> list[Row]:
    """A row for each job, a command line of this program; printed when all runs are done."""
    done: list[list[Row]] = [[] for _ in jobs]
    for _ in range(runs):
        for rows, job in zip(done, jobs, strict=True):
            command = [sys.executable, __file__, *job]
            child = subprocess.run(command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, check=True)
            rows.append(json.loads(child.stdout))
    table: list[Row] = []
    print(f"\n| {title} | calls | budget ms | p50 | p99 | p99.9 | max | load | over |\n{'|---' * 9}|")
    for rows in done:
        row = {key: statistics.median(r[key] for r in rows) for key in rows[0] if key != "name"}
        row |= {"name": rows[0]["name"], "max_ms": max(r["max_ms"] for r in rows)}
        table.append(row)
        print(
            "| {name} | {calls} | {budget_ms:.2f} | {p50_ms:.3f} | {p99_ms:.3f} | {p999_ms:.3f} | "
            "{max_ms:.3f} | {load:.1%} | {over:.2%} |".format_map(row),
            flush=True,
        )
    return table


# --- the whole path -------------------------------------------------------------------------------------------------


def processor_times() -> dict[str, float]:
    """Seconds of processor time of this process and of those of the session, so far."""
    processes = {child.name: child.pid for child in multiprocessing.active_children()} | {"control": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in processes.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


@contextlib.contextmanager
def jack_server(block: int) -> Generator[None]:
    """JACK's own server with its dummy driver."""
    from jack_server import JackServer

    with JackServer(RATE, block):
        yield


def play(model: str, device: str, source: Path, asked: argparse.Namespace) -> Row:
    """A session in real time."""
    options = LiveOptions(
        model=model,
        device=device,
        source=str(source),
        loop=True,
        sample_rate=RATE,
        block_frames=asked.block,
        look_back_hop_s=asked.look_back,
    )
    longest_ms = 0.0
    loads: list[float] = []
    with open_live(options) as session:
        time.sleep(3.0)
        first, before, began = session.state(), processor_times(), time.monotonic()
        while (passed := time.monotonic() - began) < asked.seconds:
            time.sleep(min(0.5, asked.seconds - passed))
            counters = session.state().counters
            longest_ms = max(longest_ms, counters.callback_ms)
            loads.append(counters.callback_load)
        last, after, passed = session.state(), processor_times(), time.monotonic() - began
    counters, earlier = last.counters, first.counters
    return {
        "model": last.model,
        "device": device,
        "seconds": passed,
        "latency_ms": last.budget.milliseconds(last.budget.total_frames),
        "blocks": counters.blocks - earlier.blocks,
        "late_blocks": counters.late_blocks - earlier.late_blocks,
        "late_times": counters.late_times - earlier.late_times,
        "skipped_frames": counters.skipped_frames - earlier.skipped_frames,
        "xruns": counters.xruns - earlier.xruns,
        "restarts": counters.inference_restarts - earlier.inference_restarts,
        "longest_callback_ms": longest_ms,
        "callback_load": statistics.median(loads),
        "processors": {name: (after[name] - spent) / passed for name, spent in before.items() if name in after},
    }


def play_table(models: list[str], source: Path, asked: argparse.Namespace) -> list[Row]:
    """Prints a line per model and device as it is done.

    What the callback says of its own time: its load, and its longest time with all that came between.
    """
    print(
        "\n| model | device | s | delay ms | blocks | late blocks | times | frames skipped | xruns | restarts | "
        f"callback's load | longest ms | processor |\n{'|---' * 13}|",
        flush=True,
    )
    rows: list[Row] = []
    devices = [device for device in asked.devices.split(",") if device != JACK or shutil.which("jackd")]
    for argument in models:
        for device in devices:
            with jack_server(asked.block) if device == JACK else contextlib.nullcontext():
                rows.append(row := play(argument, device, source, asked))
            row["shares"] = ", ".join(f"{name} {share:.1%}" for name, share in row["processors"].items())
            print(
                "| {model} | {device} | {seconds:.0f} | {latency_ms:.1f} | {blocks} | {late_blocks} | {late_times} | "
                "{skipped_frames} | {xruns} | {restarts} | {callback_load:.1%} | {longest_callback_ms:.2f} | "
                "{shares} |".format_map(row),
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{PREVIEW},{DSP},spleeter_2stems", help="of which hops are timed")
    parser.add_argument("--hops", type=int, default=4_000, help="of each model; of those that look back, a hundredth")
    parser.add_argument("--runs", type=int, default=3, help="of each model and of the callback")
    parser.add_argument("--blocks", type=int, default=20_000, help="of the callback; 0 leaves it out")
    parser.add_argument("--play", default=PREVIEW, help="models that play in real time; empty for none")
    parser.add_argument("--devices", default=f"none,{JACK}", help="that they play on")
    parser.add_argument("--seconds", type=float, default=600.0, help="that each of them plays on each")
    parser.add_argument("--look-back", type=float, default=1.0, help="seconds; the hop of models that look back")
    parser.add_argument("--source", type=Path, help="file that is played")
    parser.add_argument("--block", type=int, default=256, help="frames of a callback")
    parser.add_argument("--quick", action="store_true", help="few hops and blocks, one run, 10 seconds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hops-of", help=argparse.SUPPRESS)
    parser.add_argument("--callback-of", choices=STRIPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.hops, options.blocks, options.runs, options.seconds = 400, 2_000, 1, 10.0
    if options.hops_of:
        print(json.dumps(time_hops(options.hops_of, options.hops, options.look_back), default=float))
    elif options.callback_of:
        print(json.dumps(time_callback(options.callback_of, options.block, options.blocks), default=float))
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """All tables."""
    figures: dict[str, list[Row]] = {}
    print_load()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        os.environ["REVITHION_STATE_DIR"] = str(place / "state")
        if models := present(options.models):
            sizes = ["--hops", str(options.hops), "--look-back", str(options.look_back)]
            jobs = [["--hops-of", model, *sizes] for model in models]
            figures["hops"] = one_thread_table("model", jobs, options.runs)
        if options.blocks:
            sizes = ["--block", str(options.block), "--blocks", str(options.blocks)]
            jobs = [["--callback-of", strips, *sizes] for strips in STRIPS]
            figures["callback"] = one_thread_table("strips", jobs, options.runs)
        if models := present(options.play):
            source = options.source
            if source is None:
                soundfile.write(source := place / "sound.wav", sound(20.0).T, RATE, subtype="FLOAT")
            figures["path"] = play_table(models, source, options)
    print_load()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1, default=float), encoding="utf-8")


def print_load() -> None:
    """What else the machine does: a figure that belongs to all others."""
    loads = ", ".join(f"{load:.1f}" for load in psutil.getloadavg())
    print(f"{os.cpu_count()} logical CPUs; load of the last 1, 5 and 15 minutes: {loads}", flush=True)


def present(names: str) -> list[str]:
    """The models that need no download."""
    store = ModelStore()
    return [
        name
        for name in filter(None, names.split(","))
        if name.endswith(".onnx") or store.presence(store.catalog[name]) is Presence.PRESENT
    ]


if __name__ == "__main__":
    main()
