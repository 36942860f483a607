"""A device without sound: it calls back at the pace of the clock, or as fast as it can."""

from __future__ import annotations

import threading
import time

import numpy as np

from revithion_realtime.devices.audio_device import BlockCallback
from revithion_stems.audio import Float32


class ClockDevice:
    """Silent input, outputs that nobody hears. For ``--device none``, tests and benchmarks; it is never lost.

    A block whose time has passed by more than a block counts as an xrun, and the clock goes on from there, as a sound
    card would.

    Args:
        sample_rate: Hz.
        block_frames: Frames of each callback.
        output_channels: How many.
        freewheel: Whether time does not count: callbacks follow each other at once.
    """

    lost = ""

    def __init__(self, *, sample_rate: int, block_frames: int, output_channels: int, freewheel: bool = False) -> None:
        self.name = "none (clock)"
        self.sample_rate = sample_rate
        self.block_frames = block_frames
        self.most_frames = block_frames
        self.xruns = 0
        self._freewheel = freewheel
        self._capture: Float32 = np.zeros((2, block_frames), np.float32)
        self._outputs: Float32 = np.zeros((output_channels, block_frames), np.float32)
        self._looped = False
        self._running = False
        self._thread: threading.Thread | None = None

    @property
    def latency_frames(self) -> int:
        """A block where it is looped back, else nothing."""
        return self.block_frames if self._looped else 0

    def start(self, callback: BlockCallback, path_frames: int = 0) -> None:
        """Begins to call back, in a thread of its own; ``path_frames`` interests nobody."""
        self._running = True
        self._thread = threading.Thread(target=self._run, args=(callback,), name="clock device", daemon=True)
        self._thread.start()

    def _run(self, callback: BlockCallback) -> None:
        capture, outputs, freewheel = self._capture, self._outputs, self._freewheel
        block_s = self.block_frames / self.sample_rate
        due = time.perf_counter()
        while self._running:
            if not freewheel:
                due += block_s
                ahead = due - time.perf_counter()
                if ahead > 0.0:
                    time.sleep(ahead)
                elif ahead < -block_s:
                    self.xruns += 1
                    due -= ahead
            callback(capture, outputs, freewheel)
            if self._looped:
                np.copyto(capture, outputs[:2])

    def loop_back(self) -> None:
        """From now on each block's first two outputs are the next block's input."""
        self._looped = True

    def close(self) -> None:
        """Stops; the last callback has returned then."""
        self._running = False
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
