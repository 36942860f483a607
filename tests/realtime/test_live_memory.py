"""The memory that the processes of a session share: cut into parts that do not touch, and there or refused."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import pytest

from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory

LAYOUT = LiveLayout(stems=2, path_frames=64, ring_frames=64)

LATE_LOOK = """
import numpy as np
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
memory = LiveMemory(LiveLayout(stems=4, path_frames=1 << 16, ring_frames=1 << 16))
memory.audio[0] = 7.0
memory.played.write(np.zeros((8, 3), np.float32))
memory.close()
print(memory.audio[0], memory.played.end)
"""

TOO_LARGE = """
from revithion_realtime.memory.live_memory import LiveLayout, LiveMemory
from revithion_stems.errors import LiveError
try:
    LiveMemory(LiveLayout(stems=4, path_frames=1 << 36, ring_frames=1 << 36))
except LiveError as exc:
    print(exc.code)
"""


def test_what_one_writes_the_other_reads_and_nothing_else():
    mine = LiveMemory(LAYOUT)
    theirs = LiveMemory(LAYOUT, mine.name)
    mine.stems.write(np.arange(4 * 64, dtype=np.float32).reshape(4, 64))
    mine.audio[-1], mine.peaks[-1] = 7.0, 0.5
    mine.moves.put([(3, 0.25)])
    out = np.zeros((4, 8), np.float32)
    assert theirs.stems.read(32, out)
    assert out[3].tolist() == list(range(3 * 64 + 32, 3 * 64 + 40))
    assert (theirs.audio[-1], theirs.peaks[-1].tolist(), theirs.moves.take()) == (7.0, [0.5, 0.5], (3, 0.25))
    assert (theirs.capture.end, theirs.source.end, theirs.played.end) == (0, 0, 0)
    assert not theirs.inference.any()
    theirs.close()
    name = mine.name
    mine.close()
    with pytest.raises(FileNotFoundError):
        SharedMemory(name=name)


def test_a_thread_that_still_looks_into_a_closed_one_does_no_harm():
    """In a process of its own, which a view of unmapped pages would end."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", LATE_LOOK], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [b"7.0", b"3"], b"")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others refuse at once")
def test_more_than_there_is_is_refused_and_no_crash_later():
    done = subprocess.run([sys.executable, "-c", TOO_LARGE], capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "live.failed", "")


@pytest.mark.parametrize("stems", [1, 2, 6])
def test_every_part_is_aligned(stems: int):
    at = 0
    for kind, shape in LiveLayout(stems=stems, path_frames=64, ring_frames=64).parts.values():
        assert at % np.dtype(kind).itemsize == 0
        at += np.dtype(kind).itemsize * int(np.prod(shape))
