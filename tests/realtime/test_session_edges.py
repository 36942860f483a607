"""Sessions at the edges: every rate, the shortest and longest blocks, mono, and many threads that end one at once."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from revithion_realtime.session import LiveSession, open_live
from revithion_stems.errors import LiveError
from revithion_stems.live import LIVE_RATES, LiveOptions, LiveOutputs, LivePhase, StripChange, Tier

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def mono(tmp_path: Path) -> Path:
    """A second of a tone, one channel, at a rate that no device has."""
    path = tmp_path / "mono.flac"
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 200 * np.arange(32_000) / 32_000), 32_000)
    return path


def wait_for(condition, what: str):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE_S:g} s")


@pytest.mark.parametrize(
    ("rate", "block", "outputs"),
    [
        (LIVE_RATES[0], 2_048, LiveOutputs.BOTH),
        (LIVE_RATES[1], 32, LiveOutputs.STEMS),
        (LIVE_RATES[2], 441, LiveOutputs.MIX),
        (LIVE_RATES[3], 0, LiveOutputs.BOTH),
    ],
)
def test_every_rate_and_the_ends_of_blocks(mono: Path, rate: int, block: int, outputs: LiveOutputs):
    options = LiveOptions(
        device="none", source=str(mono), loop=True, sample_rate=rate, block_frames=block, outputs=outputs
    )
    with open_live(options) as session:
        state = wait_for(lambda: (s := session.state()).counters.frames > rate // 2 and s, "half a second")
        wait_for(lambda: session.state().strips[0].tier is Tier.PREVIEW, "the preview")
        assert (state.phase, state.budget.sample_rate, state.block_frames) == (LivePhase.PLAYING, rate, block or 256)
        # 0.5, also where the sound is dry: a channel of it on either side.
        assert abs(state.mix_peak_left_db + 6.0) < 1.0
        assert state.mix_peak_left_db == state.mix_peak_right_db


@pytest.mark.parametrize("seed", range(3))
def test_many_hands_and_ends_at_once(mono: Path, seed: int, tmp_path: Path):
    """Whatever happens meanwhile, nothing is raised but LiveErrors, and nothing is left running."""
    rng = random.Random(seed)
    before = set(threading.enumerate())
    session = LiveSession(LiveOptions(device="none", source=str(mono), loop=True))
    processes = psutil.Process().children(recursive=True)
    wrong: list[BaseException] = []
    ended = threading.Event()

    def hold(action) -> None:
        while not ended.is_set():
            try:
                action()
            except LiveError:
                pass
            except BaseException as exc:
                wrong.append(exc)
                return

    hands = [
        session.state,
        lambda: session.set_strip("bass", StripChange(gain_db=rng.uniform(-20, 0))),
        lambda: session.set_monitor_gain(rng.uniform(-20, 0)),
        lambda: session.store_scene("a"),
        lambda: session.recall_scene("a"),
        lambda: (session.start_recording(str(tmp_path / "takes")), session.stop_recording()),
    ]
    threads = [threading.Thread(target=hold, args=(action,)) for action in hands]
    for thread in threads:
        thread.start()
    time.sleep(rng.uniform(0.0, 0.3))
    if seed == 1:
        session._processes.inference._process.kill()
        time.sleep(rng.uniform(0.0, 0.3))
    ends = [threading.Thread(target=session.stop) for _ in range(3)]
    for thread in ends:
        thread.start()
    for thread in ends:
        thread.join(PATIENCE_S)
    time.sleep(0.05)
    ended.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert wrong == []
    assert session.state().phase is LivePhase.ENDED
    assert set(threading.enumerate()) <= before
    assert not [each for each in processes if each.is_running() and "resource_tracker" not in " ".join(each.cmdline())]
