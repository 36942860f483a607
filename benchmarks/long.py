"""Peak memory and time of long files: the memory must not grow with the length, and the time not faster than it.

    python benchmarks/long.py [--minutes 3,30,180] [--rate 44100] [--model dsp] [--format wav] [--runs 1] [--json FILE]

Each run is a process of its own: `revithion-stems separate` of synthetic stereo (tones, beats and noise that never
repeat), with the cache of results off. Peak memory is that of the whole process. Needs disk: in 32-bit float about
0.3 GB a minute while a run lasts. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from whole_process import measure

CODE = "from revithion_stems.cli.main import main; main()"
BLOCK_S = 10


def write_song(path: Path, minutes: float, rate: int) -> None:
    """Stereo of 16 bits, block by block."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16", format="RF64") as file:
        for block in range(round(minutes * 60 / BLOCK_S)):
            time_s = np.arange(BLOCK_S * rate) / rate
            tone = np.sin(2 * np.pi * rng.uniform(80, 900) * time_s) + np.sin(2 * np.pi * rng.uniform(40, 100) * time_s)
            beat = rng.uniform(-1, 1, time_s.size) * np.exp(-20 * (time_s % rng.uniform(0.3, 0.7)))
            left = 0.15 * tone + 0.3 * beat
            file.write(np.stack([left, 0.8 * left + 0.02 * np.roll(beat, block % 50)], axis=1))


def separate(song: Path, out: Path, options: argparse.Namespace, scratch: Path) -> tuple[float, float]:
    """Wall seconds and peak MiB of one run."""
    arguments = [
        "separate",
        str(song),
        "-m",
        options.model,
        "-f",
        options.format,
        "-o",
        str(out),
        "-q",
        "--force-refresh",
    ]
    env = {"REVITHION_CACHE_SIZE": "0", "REVITHION_CACHE_DIR": str(scratch / "cache")}
    return measure(["-c", CODE, *arguments], env)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", default="3,30,180")
    parser.add_argument("--rate", type=int, default=44_100)
    parser.add_argument("--model", default="dsp")
    parser.add_argument("--format", default="wav")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, dict[str, object]] = {}
    print(f"{options.model} → {options.format}, {options.rate} Hz stereo, {os.cpu_count()} logical CPUs")
    for text in options.minutes.split(","):
        minutes = float(text)
        with tempfile.TemporaryDirectory() as folder:
            scratch = Path(folder)
            song = scratch / "song.wav"
            write_song(song, minutes, options.rate)
            runs = [separate(song, scratch / "out", options, scratch) for _ in range(options.runs)]
            stems = sorted((scratch / "out").rglob(f"*.{options.format}"))
            kinds = sorted(
                {soundfile.info(stem).format for stem in stems} if options.format == "wav" else {options.format}
            )
            frames = {soundfile.info(stem).frames for stem in stems} if options.format == "wav" else set[int]()
            assert frames <= {round(minutes * 60 / BLOCK_S) * BLOCK_S * options.rate}, frames
            size = sum(stem.stat().st_size for stem in stems)
        seconds, peak = (statistics.median(values) for values in zip(*runs, strict=True))
        report[text] = {"seconds": [r[0] for r in runs], "peak_mib": [r[1] for r in runs], "formats": kinds}
        first = statistics.median(r for r in report[next(iter(report))]["peak_mib"])  # type: ignore[union-attr]
        print(
            f"{minutes:6g} min: {seconds:8.1f} s ({minutes * 60 / seconds:5.1f} × real time), peak {peak:6.0f} MiB "
            f"({peak / first:.3f} of the first), {size / 1e9:.2f} GB as {', '.join(kinds)}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
