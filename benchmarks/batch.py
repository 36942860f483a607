"""One `batch` process over many short songs against a `separate` process for each of them.

    python benchmarks/batch.py [MUSIC] [--files 50] [--seconds 6] [--rounds 3] [--model htdemucs] [--json FILE]

Songs are cut from the audio files in the folder MUSIC, each from another place; without one they are synthetic. The
sides take turns, so that a drift of the machine hits both alike; ratios are taken round by round. The cache is off for
both. Of the batch, memory in use is noted at the end of each song: it should not grow. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

from revithion_stems.batch_inputs import expand

RATE = 44_100
COMMAND = [sys.executable, "-c", "from revithion_stems.cli.main import main; main()"]
MIB = 2**20


def cut_songs(music: Path | None, folder: Path, files: int, seconds: float) -> None:
    """Writes ``files`` songs of 16-bit stereo; each begins somewhere else."""
    sources = [Path(item.source) for item in expand([str(music)])] if music else []
    generator = np.random.default_rng(0)
    for number in range(files):
        if sources:
            info = soundfile.info(sources[number % len(sources)])
            frames = min(info.frames, int(seconds * info.samplerate))
            start = int(generator.integers(0, info.frames - frames + 1))
            samples, rate = soundfile.read(sources[number % len(sources)], frames=frames, start=start)
        else:
            clock = np.arange(int(seconds * RATE)) / RATE
            tone = np.sin(2 * np.pi * (220 + 10 * number) * clock)
            beat = generator.uniform(-1, 1, clock.size) * np.exp(-30 * (clock % 0.5))
            samples, rate = np.stack([0.3 * tone + 0.3 * beat, 0.3 * tone + 0.2 * beat], axis=1), RATE
        soundfile.write(folder / f"song{number:04d}.wav", samples, rate, subtype="PCM_16")


def run(arguments: list[str]) -> tuple[int, list[int]]:
    """Runs the command; its peak memory in bytes, and what it used as each ``BatchResult`` came."""
    in_use: list[int] = []
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, "REVITHION_CACHE_SIZE": "0"}
    ) as process:
        assert process.stdout is not None
        own = psutil.Process(process.pid)
        for line in process.stdout:
            if json.loads(line)["type"] == "BatchResult":
                in_use.append(own.memory_info().rss)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"a run failed: {arguments}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), in_use


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", type=Path, nargs="?")
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="htdemucs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    early = min(10, options.files)
    figures: dict[str, list[dict[str, float]]] = {"single": [], "batch": []}
    with tempfile.TemporaryDirectory() as scratch:
        songs, out = Path(scratch) / "songs", Path(scratch) / "out"
        songs.mkdir()
        cut_songs(options.music, songs, options.files, options.seconds)
        common = ["-m", options.model, "-o", str(out), "--json"]
        print(f"{options.files} songs of {options.seconds:g} s, {options.model}, {os.cpu_count()} logical CPUs")
        for number in range(options.rounds):
            for side in figures:
                started = time.perf_counter()
                if side == "batch":
                    peak, in_use = run(["batch", str(songs), *common])
                else:
                    peak, in_use = max(run(["separate", str(song), *common])[0] for song in sorted(songs.iterdir())), []
                row = {"seconds": time.perf_counter() - started, "peak_mib": peak / MIB}
                if in_use:
                    row |= {"mib_early": in_use[early - 1] / MIB, "mib_after_all": in_use[-1] / MIB}
                figures[side].append(row)
                print(f"  round {number} {side:<7}{row['seconds']:8.2f} s {row['peak_mib']:8.0f} MiB", flush=True)
                shutil.rmtree(out)
    for side, rows in figures.items():
        times = [row["seconds"] for row in rows]
        peak = statistics.median(row["peak_mib"] for row in rows)
        spread = f"{min(times):.2f}–{max(times):.2f}"
        print(f"{side:<7} median {statistics.median(times):.2f} s ({spread}), peak {peak:.0f} MiB")
    ratios = [one["seconds"] / many["seconds"] for one, many in zip(figures["single"], figures["batch"], strict=True)]
    print(f"batch is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f}–{max(ratios):.2f})")
    first = statistics.median(row["mib_early"] for row in figures["batch"])
    growth = [row["mib_after_all"] - row["mib_early"] for row in figures["batch"]]
    print(
        f"memory in use after song {early}: {first:.0f} MiB, then {statistics.median(growth):+.0f} MiB to song "
        f"{options.files} ({min(growth):+.0f} to {max(growth):+.0f})"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
