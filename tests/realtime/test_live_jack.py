"""The live preview in JACK itself: another client plays into it and hears what comes out, to the frame."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from jack_server import JackServer, jack_module
from revithion_realtime.block_processor import run_offline
from revithion_realtime.measure import measure
from revithion_realtime.models.model_choice import make_processor
from revithion_realtime.session import LiveSession, open_live
from revithion_stems.live import LiveOptions, LiveOutputs, LivePhase, StripChange

RATE = 48_000
WAIT_S = 60.0
TOLERANCE = 1e-6
LEAD_FRAMES = 32 * 1_024


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))


class Player:
    """A client of JACK that plays samples into the preview and keeps what it hears, from the same frame on."""

    def __init__(self, samples: np.ndarray, hears: tuple[str, ...], tail_frames: int, client: str = "revithion-stems"):
        self._samples = np.pad(samples, [(0, 0), (0, tail_frames)])
        self.heard = np.zeros((len(hears), self._samples.shape[1]), np.float32)
        self._at = 0
        self._armed = False
        self._done = threading.Event()
        self.client: Any = jack_module().Client("player", no_start_server=True)
        self._outs = [self.client.outports.register(f"out_{n}") for n in range(2)]
        self._ins = [self.client.inports.register(f"in_{n}") for n in range(len(hears))]
        self.client.set_process_callback(self._process)
        self.client.activate()
        for port, name in zip(self._outs, ("in_left", "in_right"), strict=True):
            self.client.connect(port, f"{client}:{name}")
        for port, name in zip(self._ins, hears, strict=True):
            self.client.connect(f"{client}:{name}", port)

    def _process(self, frames: int) -> None:
        at = self._at
        end = min(at + frames, self._samples.shape[1])
        for port, row in zip(self._outs, self._samples, strict=True):
            port.get_array().fill(0.0)
            if self._armed:
                port.get_array()[: end - at] = row[at:end]
        if not self._armed or self._done.is_set():
            return
        for port, row in zip(self._ins, self.heard, strict=True):
            row[at:end] = port.get_array()[: end - at]
        self._at = end
        if end == self._samples.shape[1]:
            self._done.set()

    def play(self, *, freewheel: bool) -> np.ndarray:
        try:
            if freewheel:
                self.client.set_freewheel(True)
            self._armed = True
            assert self._done.wait(WAIT_S)
        finally:
            if freewheel:
                self.client.set_freewheel(False)
            self.client.deactivate()
            self.client.close()
        return self.heard


def wait_until(happened, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, f"after {WAIT_S:g} s: {what}"
        time.sleep(0.02)


def music(frames: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    at = np.arange(frames) / RATE
    hits = rng.standard_normal(frames) * 0.3 * np.exp(-(at % 0.25) * 60)
    left = hits + 0.2 * np.sin(2 * np.pi * 70 * at) + 0.1 * np.sin(2 * np.pi * 900 * at)
    right = hits + 0.2 * np.sin(2 * np.pi * 70 * at) - 0.1 * np.sin(2 * np.pi * 1_300 * at)
    return np.stack([left, right]).astype(np.float32)


def jack_session(outputs: LiveOutputs) -> LiveSession:
    # Nothing is connected by itself: the dummy driver's ports are silent, but they are in the graph.
    return LiveSession(LiveOptions(device="jack", model="dsp", outputs=outputs))


@pytest.mark.parametrize(
    ("model", "most", "period"), [("dsp", 512, 128), ("dsp", 512, 256), ("dsp", 512, 512), ("preview", 640, 256)]
)  # the network plays at 44.1 kHz, and the conversion takes its time
def test_the_round_trip_through_jack_is_the_budget(model, most, period):
    """Both ways: our own loop tells the device's share, and another client's impulse needs as long as all of it."""
    with JackServer(rate=RATE, period=period):
        measured = measure(LiveOptions(device="jack", model=model))
        budget = measured.budget
        assert measured.path_frames == budget.path_frames
        assert budget.algorithm_frames <= most
        with open_live(LiveOptions(device="jack", model=model)) as session:
            assert session.budget.path_frames == budget.path_frames
            impulse = np.zeros((2, RATE // 4), np.float32)
            impulse[:, 3_333] = 0.5
            player = Player(impulse, ("mix_left", "mix_right"), RATE // 4)
            heard = player.play(freewheel=False)
        assert np.abs(heard).argmax(axis=1).tolist() == [3_333 + budget.total_frames] * 2
    if period <= 256:
        assert budget.milliseconds(budget.total_frames) < 50


@pytest.mark.parametrize(("period", "sessions"), [(64, 1), (256, 2), (1_024, 1)])
def test_in_freewheel_the_stream_is_the_offline_run_of_the_model(period, sessions):
    samples = music(RATE)
    processor = make_processor("dsp")
    processor.prepare(RATE)
    # Silence first, as a session hears it before anybody plays. Where in a hop the sound begins nobody can know.
    leads = range(LEAD_FRAMES, LEAD_FRAMES + max(processor.hop_frames, period), period)
    expected = [
        run_offline(processor, np.pad(samples, [(0, 0), (lead, 0)]))[:, :, lead:].reshape(8, -1) for lead in leads
    ]
    with JackServer(rate=RATE, period=period):
        for _ in range(sessions):  # a session that is started again gives the same
            with jack_session(LiveOutputs.STEMS) as session:
                stems = [strip.stem for strip in session.state().strips]
                ports = tuple(f"{stem}_{side}" for stem in stems for side in ("left", "right"))
                path = session.budget.path_frames
                wait_until(lambda: session.state().counters.frames > RATE // 4, "playing")
                # Room for a crossfade that the change to freewheel may have begun.
                player = Player(np.pad(samples, [(0, 0), (8_192, 0)]), ports, RATE // 4)
                heard = player.play(freewheel=True)
                late = 8_192 + path + measured_loop(period)
            heard = heard[:, late : late + samples.shape[1]]
            assert min(np.abs(heard - possible).max() for possible in expected) < TOLERANCE
            assert np.abs(heard.reshape(4, 2, -1).sum(axis=0) - samples).max() < TOLERANCE


def measured_loop(period: int) -> int:
    """What a client that plays into us and hears us loses in JACK's graph: the way back is a period late."""
    return period


def test_a_server_that_dies_and_comes_back_is_found_again():
    with JackServer(rate=RATE, period=256) as server, jack_session(LiveOutputs.MIX) as session:
        session.set_strip("drums", StripChange(muted=True))
        server.kill()
        wait_until(lambda: session.state().phase is LivePhase.LOST, "the loss")
        frames = session.state().counters.frames
        assert session.state().message
        server.start()
        wait_until(lambda: session.state().phase is LivePhase.PLAYING, "playing again")
        wait_until(lambda: session.state().counters.frames > frames + RATE // 4, "frames")
        assert session.state().counters.device_losses == 1
        assert session.state().strips[0].settings.muted


def test_a_server_that_is_back_before_the_ports_it_is_connected_with_is_waited_for():
    def player() -> Any:
        client = jack_module().Client("deck", no_start_server=True)
        for side in ("left", "right"):
            client.outports.register(side)
        client.activate()
        return client

    with JackServer(rate=RATE, period=256) as server:
        deck = player()
        with open_live(LiveOptions(device="jack", connect_from=("deck:left", "deck:right"))) as session:
            server.kill()
            wait_until(lambda: session.state().phase is LivePhase.LOST, "the loss")
            deck.close()
            server.start()
            wait_until(lambda: "deck:left" in session.state().message, "the missing port")
            deck = player()
            wait_until(lambda: session.state().phase is LivePhase.PLAYING, "playing again")
            assert session.state().counters.device_losses == 1
            deck.close()
