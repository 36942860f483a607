"""Whole-process time and peak memory: ours against demucs 4.1's own API, same weights, song, threads and output.

    python benchmarks/offline.py SONG [--runs 5] [--seconds 30] [--threads N] [--json FILE]

Each run is a process of its own that loads the model, reads the song, separates it without random shifts and writes
four float WAV files. The sides take turns, so that a drift of the machine hits them alike; ratios are taken round by
round. Needs htdemucs in the model folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import soundfile
from whole_process import measure

NO_CACHE = {"REVITHION_CACHE_SIZE": "0"}
SIDES = ("demucs", "ours-onnx", "ours-torch")


def run_side(side: str, song: Path, repository: Path, out: Path, threads: int | None) -> None:
    """The body of a child process."""
    if side == "demucs":
        import demucs.api
        import torch
        from demucs_reference import open_separator

        if threads is not None:
            torch.set_num_threads(threads)
        separator = open_separator(repository)
        _, stems = separator.separate_audio_file(song)
        for name, stem in stems.items():
            demucs.api.save_audio(stem, out / f"{name}.wav", separator.samplerate, clip="none", as_float=True)
        return
    import revithion_stems

    request = revithion_stems.SeparationRequest(
        source=song, model="htdemucs", engine=side.removeprefix("ours-"), threads=threads
    )
    revithion_stems.separate_to_files(request, revithion_stems.OutputOptions(folder=out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("song", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="use only the beginning of the song")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--repository", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as out:
            run_side(options.child, options.song, options.repository, Path(out), options.threads)
        return

    from demucs_reference import export_repository

    import revithion_stems

    sides = options.sides.split(",")
    figures: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as scratch:
        store = revithion_stems.ModelStore()
        repository = export_repository(store, store.catalog["htdemucs"], Path(scratch) / "repository")
        samples, rate = soundfile.read(options.song, dtype="float32", always_2d=True)
        if options.seconds is not None:
            samples = samples[: int(options.seconds * rate)]
        song = Path(scratch) / "song.wav"  # the same decoded audio for all sides
        soundfile.write(song, samples, rate, subtype="FLOAT")
        common = [str(song), "--repository", str(repository)]
        common += ["--threads", str(options.threads)] if options.threads else []
        print(f"{options.song.name}: {len(samples) / rate:.1f} s, {options.runs} rounds, {os.cpu_count()} logical CPUs")
        for number in range(options.runs + 1):  # round 0 warms the disk cache and is not counted
            for side in sides:
                result = measure([__file__, *common, "--child", side], NO_CACHE)
                if number:
                    figures[side].append(result)
                print(f"  round {number} {side:<11}{result[0]:8.2f} s {result[1]:8.0f} MiB", flush=True)
    report = {}
    for side, rows in figures.items():
        times, memory = [r[0] for r in rows], [r[1] for r in rows]
        ratios = [base[0] / own[0] for base, own in zip(figures[sides[0]], rows, strict=True)]
        report[side] = {"seconds": times, "peak_mib": memory, f"speed_over_{sides[0]}": ratios}
        base = statistics.median(row[1] for row in figures[sides[0]])
        print(
            f"{side:<11} median {statistics.median(times):7.2f} s ({min(times):.2f}–{max(times):.2f}), "
            f"peak {statistics.median(memory):5.0f} MiB; against {sides[0]}: speed {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}–{max(ratios):.2f}), memory {statistics.median(memory) / base:.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
