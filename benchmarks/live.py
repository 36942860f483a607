"""How long models take per hop on one thread, and whether the whole live path keeps up in real time.

    python benchmarks/live.py [--models dsp,network,spleeter_2stems] [--hops 4000] [--seconds 600] [--play dsp,network]
                              [--source FILE] [--block 256] [--quick] [--json FILE]

Hops: each model in a process of its own whose libraries have one thread, at 44.1 kHz, from one hop's input to its
stems, the sum closed; `budget` is the hop itself, and `over` the share of hops that took longer. `network` is a
spectrum graph made on the spot, of about a million random weights and a GRU's state, the size of network that plays
live; what it separates is nonsense. Models whose weights are not there are left out.

Whole path: a session without a sound card (`--device none`, a clock) plays FILE, or noise and tones, over and over for
the given time: the blocks that came late, and the processor time of each process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

from revithion_realtime.models.model_choice import DSP, make_processor
from revithion_realtime.session import open_session
from revithion_stems.live import LiveOptions
from revithion_stems.weights import ModelStore, Presence

RATE = 44_100
NETWORK = "network"
SLOW_HOP_S = 0.1  # models with a longer hop get a hundredth of the hops
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
Row = dict[str, object]


def sound(seconds: float) -> np.ndarray:
    """Tones, beats and noise, float32 `[2, frames]`."""
    clock = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(1).uniform(-1, 1, (2, clock.size))
    tone = 0.3 * np.sin(2 * np.pi * 220 * clock) + 0.1 * np.sin(2 * np.pi * 1_760 * clock)
    return (tone + 0.2 * noise * np.exp(-20 * (clock % 0.5)) + 0.02 * noise).astype(np.float32)


def network(folder: Path) -> Path:
    """The graph that stands for a network: analysis 2048, synthesis 512, hop 256, 0.99 million weights."""
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from streaming_graphs import masking_gru

    return masking_gru(folder / f"{NETWORK}.onnx", bins=1_025, hidden=68, hop=256, synthesis=512)


# --- hops -----------------------------------------------------------------------------------------------------------


def time_hops(model: str, hops: int) -> Row:
    """Runs in a process of its own; see `ONE_THREAD`."""
    processor = make_processor(model)
    processor.prepare(RATE)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    hop = processor.hop_frames
    if hop > SLOW_HOP_S * RATE:
        hops = max(10, hops // 100)
    warm_up = max(2, hops // 100)
    music = sound(max(10.0, 2 * hop / RATE))
    out = np.empty((len(processor.stems), 2, hop), np.float32)
    times: list[float] = []
    for number in range(warm_up + hops):
        start = number * hop % (music.shape[1] - hop)
        block = music[:, start : start + hop]
        began = time.perf_counter()
        processor.process(block, out)
        times.append(1_000 * (time.perf_counter() - began))
    taken = np.array(times[warm_up:])
    budget = 1_000 * hop / RATE
    p50, p99, p999 = np.percentile(taken, [50, 99, 99.9])
    return {
        "model": processor.name,
        "hops": hops,
        "latency_ms": 1_000 * processor.latency_frames / RATE,
        "budget_ms": budget,
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": taken.max(),
        "load": taken.mean() / budget,
        "over": float(np.mean(taken > budget)),
    }


def hops_table(models: dict[str, str], hops: int) -> list[Row]:
    """Prints a line per model as it is done."""
    print(f"| model | hops | delay ms | budget ms | p50 | p99 | p99.9 | max | load | over |\n{'|---' * 10}|")
    rows: list[Row] = []
    for argument in models.values():
        command = [sys.executable, __file__, "--hops-of", argument, "--hops", str(hops)]
        done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, stdout=subprocess.PIPE, check=True)
        rows.append(row := json.loads(done.stdout))
        print(
            "| {model} | {hops} | {latency_ms:.1f} | {budget_ms:.2f} | {p50_ms:.3f} | {p99_ms:.3f} | {p999_ms:.3f} | "
            "{max_ms:.3f} | {load:.1%} | {over:.2%} |".format_map(row),
            flush=True,
        )
    return rows


# --- the whole path -------------------------------------------------------------------------------------------------


def processor_times() -> dict[str, float]:
    """Seconds of processor time of this process and of those of the session, so far."""
    processes = {child.name: child.pid for child in multiprocessing.active_children()} | {"control": os.getpid()}
    times = {name: psutil.Process(pid).cpu_times() for name, pid in processes.items()}
    return {name: spent.user + spent.system for name, spent in times.items()}


def play(model: str, source: Path, block: int, seconds: float) -> Row:
    """A session in real time."""
    options = LiveOptions(
        model=model, device="none", source=str(source), loop=True, sample_rate=RATE, block_frames=block
    )
    callback_ms = 0.0
    with open_session(options) as session:
        time.sleep(2.0)
        first, before, began = session.state(), processor_times(), time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(min(0.5, seconds - passed))
            callback_ms = max(callback_ms, session.state().counters.callback_ms)
        last, after, passed = session.state(), processor_times(), time.monotonic() - began
    counters, earlier = last.counters, first.counters
    return {
        "model": last.model,
        "seconds": passed,
        "latency_ms": last.budget.milliseconds(last.budget.total_frames),
        "blocks": counters.blocks - earlier.blocks,
        "late_blocks": counters.late_blocks - earlier.late_blocks,
        "late_times": counters.late_times - earlier.late_times,
        "skipped_frames": counters.skipped_frames - earlier.skipped_frames,
        "xruns": counters.xruns - earlier.xruns,
        "restarts": counters.inference_restarts,
        "callback_ms": callback_ms,
        "processors": {name: (after[name] - spent) / passed for name, spent in before.items() if name in after},
    }


def play_table(models: dict[str, str], source: Path, block: int, seconds: float) -> list[Row]:
    """Prints a line per model as it is done."""
    print(
        "| model | s | delay ms | blocks | late | times | frames skipped | xruns | restarts | longest callback ms | "
        f"processors |\n{'|---' * 11}|",
        flush=True,
    )
    rows: list[Row] = []
    for argument in models.values():
        rows.append(row := play(argument, source, block, seconds))
        shares = ", ".join(f"{name} {share:.1%}" for name, share in row["processors"].items())
        print(
            "| {model} | {seconds:.0f} | {latency_ms:.1f} | {blocks} | {late_blocks} | {late_times} | "
            "{skipped_frames} | {xruns} | {restarts} | {callback_ms:.2f} | ".format_map(row)
            + f"{shares} |",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{DSP},{NETWORK},spleeter_2stems", help="of which hops are timed")
    parser.add_argument("--hops", type=int, default=4_000, help="of each model; of those that look back, a hundredth")
    parser.add_argument("--play", default=DSP, help="models that play in real time; empty for none")
    parser.add_argument("--seconds", type=float, default=600.0, help="that each of them plays")
    parser.add_argument("--source", type=Path, help="file that is played")
    parser.add_argument("--block", type=int, default=256, help="frames of a callback")
    parser.add_argument("--quick", action="store_true", help="few hops, 10 seconds")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--hops-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hops_of:
        print(json.dumps(time_hops(options.hops_of, options.hops), default=float))
        return
    hops, seconds = (400, 10.0) if options.quick else (options.hops, options.seconds)
    figures: dict[str, list[Row]] = {}
    print(f"{os.cpu_count()} logical CPUs")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        os.environ["REVITHION_STATE_DIR"] = str(place / "state")
        made = str(network(place))
        figures["hops"] = hops_table(present(options.models, made), hops)
        if models := present(options.play, made):
            source = options.source
            if source is None:
                soundfile.write(source := place / "sound.wav", sound(20.0).T, RATE, subtype="FLOAT")
            figures["path"] = play_table(models, source, options.block, seconds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1, default=float), encoding="utf-8")


def present(names: str, made: str) -> dict[str, str]:
    """Name → what `--model` takes, of the models that need no download."""
    store = ModelStore()
    found: dict[str, str] = {}
    for name in filter(None, names.split(",")):
        argument = made if name == NETWORK else name
        if argument.endswith(".onnx") or name == DSP or store.presence(store.catalog[name]) is Presence.PRESENT:
            found[name] = argument
    return found


if __name__ == "__main__":
    main()
