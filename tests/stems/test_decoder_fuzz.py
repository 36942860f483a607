"""10,000 damaged files of every container through the decoders: no crash, no hang, no unbounded memory."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

CASES = 10_000
WORKERS = 2
CASE_LIMIT_S = 10
MEMORY_LIMIT = 1024 * 2**20
"""Address space beyond what a worker has after its imports."""

RSS_LIMIT_KIB = 384 * 2**10
"""Growth of the resident set over all cases of a worker."""

SNDFILE = {
    "a.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "MS_ADPCM"),
    "a.rf64": ("RF64", "PCM_24"),
    "a.w64": ("W64", "PCM_16"),
    "a.aiff": ("AIFF", "PCM_24"),
    "a.au": ("AU", "PCM_16"),
    "a.caf": ("CAF", "PCM_16"),
    "alac.caf": ("CAF", "ALAC_16"),
    "a.flac": ("FLAC", "PCM_16"),
    "a.ogg": ("OGG", "VORBIS"),
    "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"),
}
TAGS = ["-metadata", "title=Tïtle", "-metadata", "artist=Somebody", "-metadata", "comment=a comment"]
COVER = ["-map", "0:a", "-map", "1:v", "-c:v", "copy", "-disposition:v", "attached_pic"]
FFMPEG = {
    "aac.m4a": ["-c:a", "aac", *TAGS],
    "cover.m4a": [*COVER, "-c:a", "aac", *TAGS],
    "faststart.m4a": ["-c:a", "aac", "-movflags", "faststart"],
    "fragments.mp4": ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-frag_duration", "50000"],
    "alac.m4a": ["-c:a", "alac"],
    "pcm.mov": ["-c:a", "pcm_s24le"],
    "flac.mp4": ["-c:a", "flac", "-strict", "-2"],
    "a.aac": ["-c:a", "aac"],
    "a.ac3": ["-c:a", "ac3"],
    "a.eac3": ["-c:a", "eac3"],
    "a.dts": ["-c:a", "dca", "-strict", "-2"],
    "a.wma": ["-c:a", "wmav2", *TAGS],
    "opus.webm": ["-c:a", "libopus", *TAGS],
    "vorbis.mkv": ["-c:a", "libvorbis"],
    "flac.mkv": ["-c:a", "flac"],
    "cover.mp3": [*COVER, "-c:a", "libmp3lame", *TAGS],
    "cover.flac": [*COVER, "-c:a", "flac", *TAGS],
    "mp3.avi": ["-c:a", "libmp3lame"],
    "aac.flv": ["-c:a", "aac"],
    "aac.ts": ["-c:a", "aac"],
    "mp2.mpg": ["-c:a", "mp2"],
    "a.wv": ["-c:a", "wavpack", *TAGS],
    "a.tta": ["-c:a", "tta", *TAGS],
    "ac3.wav": ["-c:a", "ac3"],
    "a.spx": ["-c:a", "libspeex", "-ar", "16000"],
    "video.mp4": ["-map", "0:a", "-map", "1:v", "-c:a", "aac", "-c:v", "mpeg4", "-shortest"],
    "video.mkv": ["-map", "0:a", "-map", "1:v", "-c:a", "ac3", "-c:v", "mpeg4", "-shortest"],
}


def make_seeds(folder: Path) -> None:
    """Tiny files: 0.1 s of noise, with tags and covers in some."""
    samples = np.random.default_rng(0).standard_normal((4410, 2)) * 0.1
    for name, (kind, subtype) in SNDFILE.items():
        soundfile.write(folder / name, samples, 48000 if kind == "OGG" else 44100, format=kind, subtype=subtype)
    if shutil.which("ffmpeg") is None:
        return
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y"]
    source, cover = folder / "a.wav", folder.parent / "cover.png"
    subprocess.run([*command, "-f", "lavfi", "-i", "color=red:s=16x16", "-frames:v", "1", cover], check=True)
    for name, options in FFMPEG.items():
        inputs = ["-i", source, *(["-i", cover] if "1:v" in options else [])]
        done = subprocess.run([*command, *inputs, *options, folder / name], check=False, capture_output=True)
        if done.returncode:
            (folder / name).unlink(missing_ok=True)  # an ffmpeg without that encoder


def mutate(case: int, seeds: list[bytes]) -> bytes:
    """The bytes of a case: the same every time."""
    rng = random.Random(case)
    data = bytearray(seeds[case % len(seeds)])
    for _ in range(rng.choice((0, 1, 1, 2, 4, 8))):
        # Half of the hits in the header, where they hurt most.
        at = rng.randrange(min(256, len(data)) if rng.random() < 0.5 else len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.randrange(256)
            case _:
                number = rng.choice((0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, len(data), rng.getrandbits(32)))
                data[at : at + 4] = number.to_bytes(4, rng.choice(("big", "little")))
    start = rng.randrange(len(data))
    match rng.choice(("keep", "keep", "cut", "drop", "repeat", "splice")):
        case "cut":
            del data[start:]
        case "drop":
            del data[start : start + rng.randrange(1, 500)]
        case "repeat":
            data += data[start:]
        case "splice":
            other = rng.choice(seeds)
            data[start:] = other[rng.randrange(len(other)) :]
        case _:
            pass
    return bytes(data)


def work(folder: Path, worker: int, cases: range) -> None:
    """What a worker does: each case in turn, its number told before it starts."""
    import resource
    import signal

    from revithion_stems.audio_files import AudioReader
    from revithion_stems.errors import InputError
    from revithion_stems.tags import read_tags

    paths = sorted(folder.iterdir())
    seeds = [path.read_bytes() for path in paths]
    for path in paths:  # what is imported and allocated once comes before the limits
        with AudioReader(path) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) > 1000, path
        read_tags(path)
    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_LIMIT,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}
    for case in cases:
        print("case", case, flush=True)
        path = folder.parent / f"{worker}.{paths[case % len(paths)].name}"
        path.write_bytes(mutate(case, seeds))
        signal.setitimer(signal.ITIMER_REAL, CASE_LIMIT_S)  # its default action ends the process, in C code too
        try:
            with AudioReader(path) as reader:
                frames = 0
                for block in reader.blocks():
                    assert block.dtype == np.float32
                    assert block.shape[0] == reader.info.channels
                    frames += block.shape[1]
                reader.shortfall(frames)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
        tags = read_tags(path)
        assert len(tags.text) <= 64
        signal.setitimer(signal.ITIMER_REAL, 0)
        path.unlink()
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < RSS_LIMIT_KIB * (1024 if sys.platform == "darwin" else 1), f"{grown} more"
    print("done", outcomes["read"], outcomes["refused"], flush=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource limits of POSIX")
def test_ten_thousand_damaged_files(tmp_path):
    folder = tmp_path / "seeds"
    folder.mkdir()
    make_seeds(folder)
    step = -(-CASES // WORKERS)
    read = refused = 0
    with contextlib.ExitStack() as stack:
        workers = []
        for n in range(WORKERS):
            command = [sys.executable, __file__, folder, str(n), str(n * step), str(min(CASES, (n + 1) * step))]
            out = stack.enter_context((tmp_path / f"{n}.out").open("w"))
            err = stack.enter_context((tmp_path / f"{n}.err").open("w"))  # mpg123 reports damage there
            workers.append(stack.enter_context(subprocess.Popen(command, stdout=out, stderr=err)))
            stack.callback(workers[-1].kill)
        for n, worker in enumerate(workers):
            status = worker.wait()
            last = (tmp_path / f"{n}.out").read_text().splitlines()[-1:]
            assert status == 0, (status, last, (tmp_path / f"{n}.err").read_text()[-2000:])
            counts = last[0].split()
            read, refused = read + int(counts[1]), refused + int(counts[2])
    assert read + refused == CASES
    assert min(read, refused) > CASES // 10  # the damage is neither cosmetic nor total


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])))
