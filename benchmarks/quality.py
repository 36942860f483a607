"""SDR per stem of our engines and of demucs 4.1's own API, on the same weights and the same real music.

    python benchmarks/quality.py [FOLDER ...] [--json FILE]

Each folder holds the stems of one song (drums, bass, other, vocals; any format; a missing one is silence), and the mix
is their sum. Without folders, the song inside the package ``stempeg`` is used (needs ffmpeg). Weights: htdemucs in the
model folder (``revithion-stems models pull htdemucs``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from demucs_reference import export_repository, open_separator

import revithion_stems
from revithion_stems.quality import sdr_db, sdr_median_db

STEMS = ("drums", "bass", "other", "vocals")


def load_folder(folder: Path) -> tuple[dict[str, np.ndarray], int]:
    """Stems ``[2, frames]`` of one song and their rate."""
    buffers = {p.stem: revithion_stems.read_audio(p) for p in sorted(folder.iterdir()) if p.stem in STEMS}
    shape = next(iter(buffers.values())).samples.shape
    stems = {name: buffers[name].samples if name in buffers else np.zeros(shape, np.float32) for name in STEMS}
    return stems, next(iter(buffers.values())).sample_rate


def load_stempeg_example() -> tuple[dict[str, np.ndarray], int]:
    """The song that ``stempeg`` carries: The Easton Ellises, Falcon 69, 6 seconds, from the MUSDB18 test set."""
    import stempeg

    audio, rate = stempeg.read_stems(stempeg.example_stem_path())
    names = ("mix", "drums", "bass", "other", "vocals")
    stems = {name: np.ascontiguousarray(audio[i].T, dtype=np.float32) for i, name in enumerate(names)}
    return {name: stems[name] for name in STEMS}, int(rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    songs = {folder.name: load_folder(folder) for folder in options.folders}
    if not songs:
        songs = {"falcon69 (stempeg)": load_stempeg_example()}
    store = revithion_stems.ModelStore()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        reference = open_separator(export_repository(store, store.catalog["htdemucs"], Path(scratch)))
        for song, (stems, rate) in songs.items():
            mix = np.sum(list(stems.values()), axis=0, dtype=np.float32)
            _, theirs = reference.separate_tensor(torch.from_numpy(mix.copy()), rate)
            sides = {"demucs 4.1": {name: tensor.numpy() for name, tensor in theirs.items()}}
            buffer = revithion_stems.AudioBuffer(samples=mix, sample_rate=rate)
            for engine in ("torch", "onnx"):
                # The plain estimates, as demucs gives them: the residual stays out of `other`.
                ours = revithion_stems.separate(
                    buffer, model="htdemucs", engine=engine, residual=revithion_stems.ResidualPolicy.STEM
                )
                sides[f"ours {engine}"] = {name: stem.samples for name, stem in ours.stems.items()}
            ours = revithion_stems.separate(buffer, model="htdemucs", engine="onnx")
            sides["ours onnx, null closed"] = {name: stem.samples for name, stem in ours.stems.items()}
            for side, estimates in sides.items():
                for name in STEMS:
                    if not stems[name].any():
                        continue
                    difference = float(np.abs(estimates[name] - sides["demucs 4.1"][name]).max())
                    results.append(
                        {
                            "song": song,
                            "side": side,
                            "stem": name,
                            "sdr_db": sdr_db(stems[name], estimates[name]),
                            "sdr_median_db": sdr_median_db(stems[name], estimates[name], rate),
                            "max_difference": difference,
                        }
                    )
            _print_song(song, [r for r in results if r["song"] == song])
    worst = max(
        abs(r["sdr_db"] - _figure(results, r["song"], "demucs 4.1", r["stem"]))
        for r in results
        if r["side"] in ("ours torch", "ours onnx")
    )
    print(f"largest |ΔSDR| of our engines against demucs 4.1: {worst:.6f} dB")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def _figure(results: list[dict], song: str, side: str, stem: str) -> float:
    return next(r["sdr_db"] for r in results if (r["song"], r["side"], r["stem"]) == (song, side, stem))


def _print_song(song: str, rows: list[dict]) -> None:
    print(f"\n{song}: SDR in dB, whole excerpt (median of 1 s frames)")
    for side in dict.fromkeys(row["side"] for row in rows):
        cells = [
            f"{row['stem']} {row['sdr_db']:7.4f} ({row['sdr_median_db']:6.2f})" for row in rows if row["side"] == side
        ]
        difference = max(row["max_difference"] for row in rows if row["side"] == side)
        print(f"  {side:<24}{'  '.join(cells)}   max |Δ| {difference:.1e}")


if __name__ == "__main__":
    main()
