"""JACK itself, by a real server without a sound card, and other clients of it as judges."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from jack_server import JackServer, jack_module
from revithion_realtime.devices.device_choice import open_device
from revithion_realtime.devices.jack_device import JackDevice
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import LARGEST_BLOCK, LiveOptions

MIX = ("mix_left", "mix_right")
STEMS = tuple(f"{stem}_{side}" for stem in ("drums", "bass", "other", "vocals") for side in ("left", "right"))
PERIODS = (128, 256, 512)
WAIT_S = 30.0


@pytest.fixture(params=PERIODS)
def any_server(request: pytest.FixtureRequest) -> Iterator[JackServer]:
    with JackServer(period=request.param) as server:
        yield server


@pytest.fixture(scope="module")
def server() -> Iterator[JackServer]:
    with JackServer(rate=44_100, period=256) as server:
        yield server


def wait_until(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, f"after {WAIT_S:g} s: {what}"
        time.sleep(0.01)


def silence(_: Float32, outputs: Float32, __: bool) -> None:
    outputs.fill(0.0)


def pass_on(capture: Float32, outputs: Float32, _: bool) -> None:
    """Pair number n of the outputs is the input times n."""
    for pair in range(len(outputs) // 2):
        np.multiply(capture, pair + 1, out=outputs[2 * pair : 2 * pair + 2])


class Probe:
    """Another client of JACK: it plays two channels of ramps that count its frames, and keeps what it hears."""

    def __init__(self, inputs: int = 2) -> None:
        self.client: Any = jack_module().Client("probe", no_start_server=True)
        self._outs = [self.client.outports.register(f"out_{n}") for n in range(2)]
        self._ins = [self.client.inports.register(f"in_{n}") for n in range(inputs)]
        self._heard: list[Float32] = []
        self._frame = 0
        self._most = 0
        self._done = threading.Event()
        self.client.set_process_callback(self._process)

    def __enter__(self) -> Probe:
        self.client.activate()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.deactivate()
        self.client.close()

    def _process(self, frames: int) -> None:
        if self._frame >= self._most:
            return
        ramp = np.arange(self._frame + 1, self._frame + frames + 1, dtype=np.float32) / 2.0**20
        self._outs[0].get_array()[:] = ramp
        self._outs[1].get_array()[:] = -ramp
        self._heard.append(np.stack([port.get_array() for port in self._ins]))
        self._frame += frames
        if self._frame >= self._most:
            self._done.set()

    def patch(self, outputs: tuple[str, ...], client: str = "revithion-stems") -> None:
        """Its outputs to our inputs, the named outputs of ours to its inputs."""
        self.client.connect("probe:out_0", f"{client}:in_left")
        self.client.connect("probe:out_1", f"{client}:in_right")
        for port, name in zip(self._ins, outputs, strict=True):
            self.client.connect(f"{client}:{name}", port)

    def exchange(self, frames: int) -> Float32:
        """Plays so many frames in JACK's freewheel; what it heard of its ramps, 1 per frame."""
        self.client.set_freewheel(True)
        try:
            self._most = frames
            assert self._done.wait(WAIT_S)
        finally:
            self.client.set_freewheel(False)
        return np.concatenate(self._heard, axis=1) * 2.0**20

    def connections(self, port: str) -> list[str]:
        return [other.name for other in self.client.get_all_connections(port)]


def unconnected(output_names: tuple[str, ...]) -> JackDevice:
    """A device that runs and is connected with nothing."""
    device = JackDevice(client_name="revithion-stems", output_names=output_names)
    device.start(pass_on)
    for port in (*device._client.inports, *device._client.outports):
        port.disconnect()
    return device


def delayed_ramp(heard: Float32) -> tuple[int, bool]:
    """By how much a ramp is late, and whether each of its frames is there, right after the other."""
    late = int(np.flatnonzero(heard)[0])
    return late, bool(np.array_equal(heard[late:], np.arange(1, len(heard) - late + 1)))


@pytest.mark.parametrize("outputs", [MIX, STEMS, MIX + STEMS], ids=["mix", "stems", "both"])
def test_each_frame_passes_through_to_each_named_port(server: JackServer, outputs: tuple[str, ...]) -> None:
    device = unconnected(outputs)
    with Probe(inputs=len(outputs)) as probe:
        probe.patch(outputs)
        heard = probe.exchange(20_000)
    device.close()
    for channel, samples in enumerate(heard):
        factor = (channel // 2 + 1) * (-1) ** channel
        assert delayed_ramp(samples / factor) == (server.period, True)


def test_a_client_that_sends_to_us_and_hears_us_is_one_period_late(any_server: JackServer) -> None:
    device = unconnected(MIX)
    with Probe() as probe:
        probe.patch(MIX)
        heard = probe.exchange(20_000)
    device.close()
    assert delayed_ramp(heard[0]) == (any_server.period, True)


def test_a_loop_of_our_own_takes_as_long_as_its_latency_says(any_server: JackServer) -> None:
    device = JackDevice(client_name="loop", output_names=MIX + STEMS)
    frame, heard, done = 0, list[Float32](), threading.Event()

    def callback(capture: Float32, outputs: Float32, freewheel: bool) -> None:
        nonlocal frame
        outputs.fill(0.0)
        if freewheel and not done.is_set():
            outputs[0] = np.arange(frame + 1, frame + capture.shape[1] + 1)
            heard.append(capture[0].copy())
            frame += capture.shape[1]
        if frame > 20_000:
            done.set()

    device.start(callback)
    device.loop_back()
    with Probe() as other:
        connected = {port.name: other.connections(port.name) for port in other.client.get_ports("loop:.*")}
        other.client.set_freewheel(True)
        assert done.wait(WAIT_S)
        other.client.set_freewheel(False)
    latency = device.latency_frames
    device.close()
    assert {name: others for name, others in connected.items() if others} == {
        "loop:mix_left": ["loop:in_left"],
        "loop:mix_right": ["loop:in_right"],
        "loop:in_left": ["loop:mix_left"],
        "loop:in_right": ["loop:mix_right"],
    }
    assert delayed_ramp(np.concatenate(heard)) == (latency, True)
    assert latency == any_server.period


def test_the_mix_is_connected_with_the_sound_card_and_stems_are_not(server: JackServer) -> None:
    device = open_device(LiveOptions(device="jack", client_name="auto"), output_names=MIX + STEMS)
    device.start(silence)
    with Probe() as other:
        assert other.connections("auto:in_left") == ["system:capture_1"]
        assert other.connections("auto:in_right") == ["system:capture_2"]
        assert other.connections("auto:mix_left") == ["system:playback_1"]
        assert other.connections("auto:mix_right") == ["system:playback_2"]
        assert not any(other.connections(f"auto:{name}") for name in STEMS)
    device.close()


def test_ports_are_connected_with_those_that_were_asked_for(server: JackServer) -> None:
    with Probe() as other:
        options = LiveOptions(
            device="jack", client_name="asked", connect_from=("probe:out_1",), connect_to=("probe:in_0", "probe:in_1")
        )
        device = open_device(options, output_names=STEMS)
        device.start(silence)
        assert other.connections("asked:in_left") == ["probe:out_1"]
        assert other.connections("asked:in_right") == []
        assert other.connections("asked:drums_left") == ["probe:in_0"]
        assert other.connections("asked:drums_right") == ["probe:in_1"]
        device.close()


def test_a_port_that_is_not_there_is_told_with_those_that_are(server: JackServer) -> None:
    options = LiveOptions(device="jack", connect_from=("deck:left",))
    device = open_device(options, output_names=MIX)
    with pytest.raises(LiveError, match=r"'deck:left'.*system:capture_1") as error:
        device.start(silence)
    device.close()
    assert error.value.code == "live.jack"


def test_without_an_input_there_are_only_outputs_and_nothing_to_loop_back_to(server: JackServer) -> None:
    device = open_device(LiveOptions(device="jack", client_name="player"), output_names=MIX, with_input=False)
    shapes: list[tuple[int, ...]] = []
    device.start(lambda capture, outputs, _: (shapes.append(capture.shape), outputs.fill(float(capture.any())))[1])
    wait_until(lambda: shapes, "no callback")
    with Probe() as other:
        assert sorted(port.shortname for port in other.client.get_ports("player:.*")) == sorted(MIX)
    with pytest.raises(LiveError, match="no inputs"):
        device.loop_back()
    device.close()
    assert shapes[0] == (2, server.period)


def test_jack_is_told_how_late_our_outputs_are(server: JackServer) -> None:
    device = open_device(LiveOptions(device="jack", client_name="late"), output_names=MIX)
    planned = device.latency_frames
    device.start(silence, path_frames=1_000)
    said = subprocess.run(["jack_lsp", "-l", "late:mix_left"], capture_output=True, text=True, check=True).stdout
    card = subprocess.run(["jack_lsp", "-l", "system:playback_1"], capture_output=True, text=True, check=True).stdout
    assert f"port capture latency = [ {server.period + 1000} {server.period + 1000} ] frames" in said
    assert f"port capture latency = [ {server.period + 1000} {server.period + 1000} ] frames" in card
    # The dummy driver: a period in, two out, since the server does not wait for its clients.
    assert device.latency_frames == planned == 3 * server.period
    device.close()


def test_freewheel_is_told_to_the_callback(server: JackServer) -> None:
    device = JackDevice(client_name="wheel", output_names=MIX)
    told: set[bool] = set()
    device.start(lambda _, outputs, freewheel: (told.add(freewheel), outputs.fill(0.0))[1])
    with Probe() as other:
        wait_until(lambda: False in told, "no callback")
        other.client.set_freewheel(True)
        wait_until(lambda: True in told, "no freewheel")
        other.client.set_freewheel(False)
        told.clear()
        wait_until(lambda: False in told, "freewheel does not end")
    device.close()


def test_blocks_follow_the_period_of_the_server() -> None:
    with JackServer(period=128) as server:
        device = JackDevice(client_name="period", output_names=MIX)
        sizes: set[int] = set()
        device.start(lambda _, outputs, __: (sizes.add(outputs.shape[1]), outputs.fill(0.0))[1])
        with Probe() as other:
            wait_until(lambda: server.period in sizes, "no callback")
            other.client.blocksize = 1_024
            wait_until(lambda: 1_024 in sizes, "the old period")
            assert device.block_frames == 1_024
            assert sizes == {128, 1_024}
            other.client.blocksize = 2 * LARGEST_BLOCK
            wait_until(lambda: device.lost, "a period that is too long")
            assert max(sizes) <= device.most_frames
        device.close()
    assert "8192 frames; at most 4096" in device.lost


def test_the_rate_is_the_servers(server: JackServer) -> None:
    device = open_device(LiveOptions(device="jack"), output_names=MIX)
    device.close()
    assert device.sample_rate == server.rate
    with pytest.raises(LiveError, match=r"48000 Hz.*44100 Hz") as error:
        open_device(LiveOptions(device="jack", sample_rate=48_000), output_names=MIX)
    assert error.value.code == "live.rate"


def test_a_server_at_a_rate_that_the_preview_does_not_play_at() -> None:
    with JackServer(rate=32_000), pytest.raises(LiveError, match=r"32000 Hz.*44100") as error:
        open_device(LiveOptions(device="jack"), output_names=MIX)
    assert error.value.code == "live.rate"


def test_a_server_that_dies_is_told_and_the_next_one_is_found() -> None:
    with JackServer() as server:
        for _ in range(2):
            device = open_device(LiveOptions(device="default"), output_names=MIX)
            called = threading.Event()
            device.start(lambda _, outputs, __, called=called: (outputs.fill(0.0), called.set())[0])
            assert called.wait(WAIT_S)
            assert not device.lost
            server.kill()
            wait_until(lambda device=device: device.lost, "it is not lost")
            device.close()
            with pytest.raises(LiveError, match="JACK is not running") as error:
                open_device(LiveOptions(device="jack"), output_names=MIX)
            assert error.value.code == "live.jack"
            assert "jackd" in error.value.hint
            server.start()
