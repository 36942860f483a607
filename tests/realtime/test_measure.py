"""What is measured through a loop: the path as the budget says it, with the model in it; or why that can not be."""

from __future__ import annotations

import threading
import time

import numpy as np
import psutil
import pytest

from live_rig import LiveRig, live_rig
from revithion_realtime.loop_probe import LoopProbe
from revithion_realtime.measure import measure
from revithion_realtime.memory.figures import AudioFigure
from revithion_stems.errors import LiveError
from revithion_stems.live import LiveOptions

BLOCK = 256


def loop(rig: LiveRig, *, stalled: bool, blocks: int = 400) -> None:
    """Plays the probe through a cable that takes a block."""
    probe = LoopProbe(rig.path, rig.plan, rig.memory)
    cable, outputs = np.zeros((2, BLOCK), np.float32), np.zeros((2, BLOCK), np.float32)
    for _ in range(blocks):
        probe(cable, outputs, False)
        cable[:] = outputs
        if not stalled:
            rig.infer()


def test_a_round_is_the_cable_and_then_the_budget():
    with live_rig() as rig:
        loop(rig, stalled=False)
        audio = rig.memory.audio
        assert audio[AudioFigure.ROUNDS] >= 3
        assert audio[AudioFigure.HEARD_FRAME] - audio[AudioFigure.SENT_FRAME] == BLOCK
        assert audio[AudioFigure.PLAYED_FRAME] - audio[AudioFigure.HEARD_FRAME] == rig.delay


def test_dry_sound_is_no_measurement_of_the_model():
    with live_rig() as rig:
        loop(rig, stalled=True)
        assert rig.memory.audio[AudioFigure.ROUNDS] == 0


def test_a_session_that_ends_meanwhile_says_so_in_its_own_words(monkeypatch, tmp_path):
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))
    before = set(psutil.Process().children())
    over = threading.Event()

    def kill_what_plays() -> None:
        while not over.is_set():  # at any time: while it starts, while it measures, and what is started again
            for process in set(psutil.Process().children()) - before:
                if "resource_tracker" not in " ".join(process.cmdline()):
                    process.kill()
            time.sleep(0.3)

    killing = threading.Thread(target=kill_what_plays)
    killing.start()
    try:
        with pytest.raises(LiveError) as caught:
            measure(LiveOptions(device="none"))
    finally:
        over.set()
        killing.join()
    assert caught.value.code == "live.failed"
