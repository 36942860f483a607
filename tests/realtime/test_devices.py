"""Audio devices that are not JACK's own: the clock, PortAudio's, and which one a name means."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jack_server import JackServer, require_jack
from revithion_realtime.devices.audio_device import AudioDevice, DeviceInfo
from revithion_realtime.devices.clock_device import ClockDevice
from revithion_realtime.devices.device_choice import choose_device, list_devices, open_device
from revithion_realtime.devices.portaudio_catalog import FoundDevice, find_devices, release
from revithion_realtime.devices.portaudio_device import PortAudioDevice
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import LiveOptions

MIX = ("mix_left", "mix_right")
WAIT_S = 30.0


class Listener:
    """A callback that keeps what it is given, and plays a ramp; it can be waited for."""

    def __init__(self, blocks: int) -> None:
        self.captured: list[Float32] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.freewheel: set[bool] = set()
        self._blocks = blocks
        self._frame = 0
        self._heard = threading.Event()

    def __call__(self, capture: Float32, outputs: Float32, freewheel: bool) -> None:
        frames = capture.shape[1]
        outputs[:] = np.arange(self._frame, self._frame + frames) / 2.0**20
        self._frame += frames
        if len(self.captured) < self._blocks:
            self.captured.append(capture.copy())
            self.shapes.add(outputs.shape)
            self.freewheel.add(freewheel)
        else:
            self._heard.set()

    def wait(self) -> Float32:
        assert self._heard.wait(WAIT_S), f"only {len(self.captured)} blocks"
        return np.concatenate(self.captured, axis=1)


def listen(device: AudioDevice, blocks: int = 20) -> Listener:
    listener = Listener(blocks)
    device.start(listener)
    try:
        listener.wait()
    finally:
        device.close()
    return listener


# The clock


@pytest.mark.parametrize("freewheel", [False, True])
def test_the_clock_calls_back_with_silence(freewheel: bool) -> None:
    device = ClockDevice(sample_rate=48_000, block_frames=64, output_channels=10, freewheel=freewheel)
    listener = listen(device)
    assert listener.shapes == {(10, 64)}
    assert listener.freewheel == {freewheel}
    assert not listener.wait().any()
    assert not device.lost


def test_the_clock_loops_its_outputs_back_one_block_later() -> None:
    device = ClockDevice(sample_rate=48_000, block_frames=64, output_channels=2, freewheel=True)
    device.loop_back()
    heard = listen(device).wait()[0] * 2.0**20
    np.testing.assert_array_equal(heard, [*np.zeros(device.latency_frames), *range(20 * 64 - 64)])


def test_the_clock_is_never_ahead_of_time() -> None:
    device = ClockDevice(sample_rate=48_000, block_frames=480, output_channels=2)
    began = time.perf_counter()
    listen(device, blocks=20)
    assert time.perf_counter() - began >= 0.2


def test_a_callback_that_takes_too_long_is_an_xrun_and_the_clock_goes_on() -> None:
    device = ClockDevice(sample_rate=48_000, block_frames=48, output_channels=2)
    blocks: list[int] = []
    done = threading.Event()

    def slow_at_first(_: Float32, __: Float32, ___: bool) -> None:
        if not blocks:
            time.sleep(0.05)
        blocks.append(1)
        if len(blocks) == 5:
            done.set()

    device.start(slow_at_first)
    assert done.wait(WAIT_S)
    device.close()
    assert device.xruns >= 1


# Which device a name means


def found(name: str, driver: str, *, inputs: int = 2, outputs: int = 2, default: bool = False) -> FoundDevice:
    info = DeviceInfo(
        name=name,
        driver=driver,
        input_channels=inputs,
        output_channels=outputs,
        sample_rate=48_000,
        is_default=default,
    )
    return FoundDevice(index=abs(hash((name, driver))), host_input=-1, info=info)


DEVICES = (
    found("Speakers (Realtek)", "Windows WASAPI", inputs=0, default=True),
    found("Scarlett 18i8", "ASIO"),
    found("Speakers (Realtek)", "MME", inputs=0),
    found("Scarlett Solo", "MME"),
    found("Microphone", "MME", outputs=0),
)


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("default", 0),
        ("Speakers (Realtek)", 0),
        ("speakers", 0),
        ("speakers (realtek), mme", 2),
        ("scarlett 18", 1),
        ("SCARLETT SOLO", 3),
    ],
)
def test_a_device_is_found_by_its_name_or_its_beginning(asked: str, place: int) -> None:
    assert choose_device(asked, DEVICES, output=True) is DEVICES[place]


@given(st.sampled_from(DEVICES[:4]), st.data())
def test_no_beginning_of_a_name_means_a_device_with_another_beginning(device: FoundDevice, data: st.DataObject) -> None:
    beginning = device.info.name[: data.draw(st.integers(1, len(device.info.name)))]
    try:
        chosen = choose_device(beginning, DEVICES, output=True)
    except LiveError as error:
        told = error.message.partition("more than one")[2]
    else:
        told = repr(chosen.info.name)
    assert repr(device.info.name) in told


@pytest.mark.parametrize("asked", ["scarlett", "realtek", "microphone", ""])
def test_a_name_that_means_none_or_several_is_told_those_there_are(asked: str) -> None:
    with pytest.raises(LiveError, match=r"Scarlett 18i8.*Scarlett Solo") as error:
        choose_device(asked, DEVICES, output=True)
    assert error.value.code == "live.device"


def test_without_any_device_it_is_said_what_there_is() -> None:
    with pytest.raises(LiveError, match=r"no audio device.*'none'"):
        choose_device("default", (), output=True)


def test_none_is_a_clock_with_as_many_outputs_as_are_named() -> None:
    device = open_device(LiveOptions(device="none", sample_rate=44_100, block_frames=128), output_names=MIX * 5)
    assert (device.sample_rate, device.block_frames, device.most_frames) == (44_100, 128, 128)
    assert listen(device, blocks=2).shapes == {(10, 128)}


# PortAudio, whose one device here is JACK's


@pytest.fixture(scope="module")
def server() -> Iterator[JackServer]:
    with JackServer(period=256) as server:
        yield server
        release()  # libjack does not survive that another server comes


def system() -> FoundDevice:
    return next(device for device in find_devices() if device.info.name == "system")


@pytest.mark.parametrize("block_frames", [128, 256, 512, 0])
def test_portaudio_calls_back_full_duplex_in_blocks_of_any_size(server: JackServer, block_frames: int) -> None:
    device = PortAudioDevice(system(), system(), output_channels=2, block_frames=block_frames)
    assert device.sample_rate == server.rate
    listener = listen(device)
    assert not listener.wait().any()  # the dummy driver captures silence
    assert all(frames <= device.most_frames for _, frames in listener.shapes)
    if block_frames:
        assert listener.shapes == {(2, block_frames)}


def test_portaudio_plays_without_an_input(server: JackServer) -> None:
    assert listen(PortAudioDevice(system(), None, output_channels=2)).captured


LOOP = """
import threading, time
import numpy as np
from jack_server import jack_module
from revithion_realtime.devices.portaudio_catalog import find_devices
from revithion_realtime.devices.portaudio_device import PortAudioDevice

system = next(device for device in find_devices() if device.info.name == "system")
device = PortAudioDevice(system, system, output_channels=2, block_frames=BLOCK)
client = jack_module().Client("probe", no_start_server=True)
client.activate()
frame, heard, begun, done = 0, [], threading.Event(), threading.Event()

def callback(capture, outputs, freewheel):
    global frame
    frames = capture.shape[1]
    if begun.is_set():
        # left a ramp that counts frames from 1, right its negative
        outputs[0] = np.arange(frame + 1, frame + frames + 1) / 2**20
        outputs[1] = -outputs[0]
        heard.append(capture.copy())
        frame += frames
        if frame > 20_000:
            done.set()
    else:
        outputs.fill(0.0)

device.start(callback)
ours = [port for port in client.get_ports("PortAudio.*", is_audio=True)]
for port in ours:
    for other in client.get_all_connections(port):
        client.disconnect(*((port, other) if port.is_output else (other, port)))
for output, into in zip([p for p in ours if p.is_output], [p for p in ours if p.is_input]):
    client.connect(output, into)
time.sleep(0.2)
begun.set()
assert done.wait(30)
latency = device.latency_frames
device.close()
client.close()
heard = np.concatenate(heard, axis=1) * 2**20
first = np.flatnonzero(heard[0])[0]
# A busy machine may lose a block now and then, which leaves a gap; between gaps each frame is one more.
steps = np.diff(heard[0][first:])
print(round(first + 1 - heard[0][first]), latency, np.mean(steps == 1), np.array_equal(heard[0], -heard[1]))
"""


def in_own_process(program: str, **env: str) -> str:
    """Runs a program with the real libraries, which may crash or hang it."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("block_frames", [128, 256, 512])
def test_what_portaudio_plays_comes_back_by_a_loop_when_its_latency_says(server: JackServer, block_frames: int) -> None:
    round_trip, latency, steady, mirrored = in_own_process(LOOP.replace("BLOCK", str(block_frames))).split()
    assert round_trip == latency
    assert float(steady) > 0.9
    assert mirrored == "True"


def test_portaudio_names_the_rate_that_the_device_has(server: JackServer) -> None:
    with pytest.raises(LiveError, match=r"44100 Hz.*48000 Hz") as error:
        PortAudioDevice(system(), system(), output_channels=2, sample_rate=44_100)
    assert error.value.code == "live.rate"


def test_portaudio_counts_the_outputs_that_stems_need(server: JackServer) -> None:
    with pytest.raises(LiveError, match=r"10 channels.*has 2") as error:
        PortAudioDevice(system(), system(), output_channels=10)
    assert error.value.code == "live.outputs"


def test_a_loop_at_portaudio_is_a_cable_that_is_there_already(server: JackServer) -> None:
    device = PortAudioDevice(system(), system(), output_channels=2)
    device.loop_back()
    assert listen(device).wait().shape[0] == 2


def test_the_list_has_jack_once_and_the_clock_always(server: JackServer) -> None:
    clock, jack = list_devices()
    assert (clock.name, clock.driver, clock.is_default) == ("none", "clock", False)
    assert (jack.name, jack.driver, jack.is_default) == ("jack", "JACK", True)
    assert (jack.sample_rate, jack.input_channels, jack.output_channels) == (server.rate, 2, 2)


def test_an_unknown_device_is_told_what_there_is(server: JackServer) -> None:
    with pytest.raises(LiveError, match=r"'nope'.*'jack', 'none'") as error:
        open_device(LiveOptions(device="nope"), output_names=MIX)
    assert error.value.code == "live.device"


LOST = """
import time
from jack_server import JackServer
from revithion_realtime.devices.portaudio_catalog import find_devices
from revithion_realtime.devices.portaudio_device import PortAudioDevice
from revithion_stems.errors import LiveError

with JackServer() as server:
    device = PortAudioDevice(find_devices()[0], find_devices()[0], output_channels=2)
    device.start(lambda capture, outputs, freewheel: outputs.fill(0.0))
    time.sleep(0.2)
    assert not device.lost
    server.kill()
    deadline = time.monotonic() + 20
    while not device.lost and time.monotonic() < deadline:
        time.sleep(0.05)
    print(device.lost)
    device.close()
try:
    find_devices()
except LiveError as error:
    print(error.code, error.message, error.hint)
"""


def test_a_driver_that_stops_asking_for_sound_is_lost_and_closes_and_the_process_ends() -> None:
    require_jack()
    said = in_own_process(LOST)
    assert "no sound for 1 s" in said
    assert "live.portaudio PortAudio is stuck" in said


MISSING = """
import ctypes.util, sys
find = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name in HIDDEN else find(name)
from revithion_realtime.devices.device_choice import list_devices, open_device
from revithion_stems.errors import LiveError
from revithion_stems.live import LiveOptions
try:
    open_device(LiveOptions(device="DEVICE"), output_names=("mix_left", "mix_right"))
except LiveError as error:
    print(error.code, error.message, error.hint)
print([info.name for info in list_devices()])
"""


@pytest.mark.parametrize(("device", "library"), [("default", "PortAudio"), ("jack", "JACK")])
def test_a_library_that_is_missing_is_told_with_the_one_command(device: str, library: str) -> None:
    program = MISSING.replace("HIDDEN", "('portaudio', 'jack')").replace("DEVICE", device)
    said, names = in_own_process(program).splitlines()
    assert said.startswith(f"live.{device if device == 'jack' else 'portaudio'} {library} is not installed")
    assert "Install it with `" in said
    assert names == "['none']"
