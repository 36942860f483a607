"""JACK, as a client of its own: named ports, freewheel, latency that others can compensate."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from revithion_realtime.devices.audio_device import BlockCallback, DeviceInfo
from revithion_realtime.devices.device_errors import check_rate, no_such_port, not_installed, wrong_rate
from revithion_realtime.devices.jack_latency import JackLatency, LatencyMode
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import LARGEST_BLOCK

INPUT_NAMES = ("in_left", "in_right")


def _silent(_: str) -> None:
    return None


def _module() -> Any:
    """JACK-Client's module, which has no type stubs; ``live.jack`` without libjack."""
    try:
        jack = importlib.import_module("jack")
    except OSError as exc:
        raise not_installed("JACK", "live.jack") from exc
    # Else the library prints on stderr; what matters comes as an error too.
    jack.set_error_function(_silent)
    jack.set_info_function(_silent)
    return jack


def _client(jack: Any, name: str) -> Any:
    try:
        return jack.Client(name, no_start_server=True)
    except jack.JackOpenError as exc:
        raise LiveError(
            "JACK is not running",
            hint="Start it, such as `jackd -d alsa -r 48000 -p 256` or from QjackCtl; "
            "with PipeWire, put `pw-jack` before this command.",
            code="live.jack",
        ) from exc


def find_jack() -> DeviceInfo:
    """What the server that runs has to offer: its physical ports.

    Raises:
        LiveError: ``live.jack``: libjack is missing, or no server runs.
    """
    client = _client(_module(), "revithion-stems-list")
    try:
        inputs = len(client.get_ports(is_audio=True, is_physical=True, is_output=True))
        outputs = len(client.get_ports(is_audio=True, is_physical=True, is_input=True))
        rate: int = client.samplerate
    finally:
        client.close()
    return DeviceInfo(name="jack", driver="JACK", input_channels=inputs, output_channels=outputs, sample_rate=rate)


class JackDevice:
    """A client of the JACK server that runs. An :class:`AudioDevice`.

    The callback runs in JACK's real-time thread. The server's period is taken as it is; when somebody changes it, so do
    the blocks.

    Args:
        client_name: JACK adds a number if the name is taken.
        output_names: One port for each, such as ``mix_left``.
        with_input: Whether there are ports ``in_left`` and ``in_right``.
        sample_rate: Hz that the server must have, or 0 for any.
        connect_from: Ports to be connected to our inputs, in their order; none for the first physical ones.
        connect_to: Ports to be connected to our outputs, in their order; none for the first physical ones, if the first
            outputs are the mix.

    Raises:
        LiveError: ``live.jack``; ``live.rate``.
    """

    def __init__(
        self,
        *,
        client_name: str,
        output_names: Sequence[str],
        with_input: bool = True,
        sample_rate: int = 0,
        connect_from: Sequence[str] = (),
        connect_to: Sequence[str] = (),
    ) -> None:
        self._jack = _module()
        self._client = client = _client(self._jack, client_name)
        self._path_frames = 0
        self._looped = False
        self._connect_from, self._connect_to = tuple(connect_from), tuple(connect_to)
        self.xruns = 0
        self._lost = ""
        self._freewheel = False
        self._callback: BlockCallback | None = None
        try:
            self.name = f"{client.name} (JACK)"
            self.sample_rate = check_rate("the JACK server", sample_rate, client.samplerate)
            if self.sample_rate != client.samplerate:
                raise wrong_rate("the JACK server", self.sample_rate, client.samplerate)
            self.most_frames = LARGEST_BLOCK
            self._all_capture: Float32 = np.zeros((2, self.most_frames), np.float32)
            self._all_outputs: Float32 = np.zeros((len(output_names), self.most_frames), np.float32)
            self._ins = [client.inports.register(name) for name in INPUT_NAMES if with_input]
            self._outs = [client.outports.register(name) for name in output_names]
            self._set_block(client.blocksize)
            client.set_process_callback(self._process)
            client.set_blocksize_callback(self._set_block)
            client.set_freewheel_callback(self._set_freewheel)
            client.set_xrun_callback(self._count_xrun)
            client.set_shutdown_callback(self._shut_down)
            self._latency = JackLatency(self._jack, client, self._say_latency)
        except self._jack.JackError as exc:
            client.close()
            raise self._failed(exc) from exc
        except LiveError:
            client.close()
            raise

    def _failed(self, exc: Exception) -> LiveError:
        return LiveError(f"JACK refuses: {exc}", hint="See what the JACK server prints.", code="live.jack")

    def _set_block(self, frames: int) -> None:
        # JACK does not process while this is called. The views are made here, so that the callback makes none.
        if frames > self.most_frames:
            self._lost = f"its period is {frames} frames; at most {self.most_frames} are possible"
        self.block_frames = min(frames, self.most_frames)
        self._capture: Float32 = self._all_capture[:, : self.block_frames]
        self._outputs: Float32 = self._all_outputs[:, : self.block_frames]

    def _process(self, frames: int) -> None:
        # JACK's buffers lie anywhere, and may move from block to block; ours stay.
        callback, capture, outputs = self._callback, self._capture, self._outputs
        if callback is None or frames != self.block_frames:
            for port in self._outs:
                port.get_array().fill(0.0)
            return
        for row, port in enumerate(self._ins):
            capture[row] = port.get_array()
        callback(capture, outputs, self._freewheel)
        for row, port in enumerate(self._outs):
            port.get_array()[:] = outputs[row]

    def _set_freewheel(self, begins: bool) -> None:
        self._freewheel = begins

    def _count_xrun(self, _: float) -> None:
        self.xruns += 1

    def _shut_down(self, _: Any, reason: str) -> None:
        self._lost = reason or "the server has stopped"

    def _say_latency(self, mode: LatencyMode) -> None:
        # How old our outputs are follows from our inputs; how long our inputs take to be heard, from our outputs.
        known, told = (self._ins, self._outs) if mode is LatencyMode.CAPTURE else (self._outs, self._ins)
        ranges = [self._latency.of(port, mode) for port in known]
        least = min((at_least for at_least, _ in ranges), default=0) + self._path_frames
        most = max((at_most for _, at_most in ranges), default=0) + self._path_frames
        for port in told:
            self._latency.say(port, mode, (least, most))

    @property
    def latency_frames(self) -> int:
        """From the connectors to our inputs and from our outputs to the connectors, as JACK knows it.

        Before the start, what it will be when the ports are connected; in a loop, a block.
        """
        if self._lost or self._looped:
            return self.block_frames if self._looped else 0
        sources, targets = (self._sources(), self._targets()) if self._callback is None else (self._ins, self._outs)
        ins = (self._latency.of(port, LatencyMode.CAPTURE)[1] for port in sources)
        outs = (self._latency.of(port, LatencyMode.PLAYBACK)[1] for port in targets)
        return max(ins, default=0) + max(outs, default=0)

    @property
    def lost(self) -> str:
        """Why it is gone, or an empty text while it is there."""
        return f"{self.name}: {self._lost}" if self._lost else ""

    def start(self, callback: BlockCallback, path_frames: int = 0) -> None:
        """Begins to call back, and connects the ports, which tell JACK of ``path_frames``.

        Raises:
            LiveError: ``live.jack``: it refuses, or a port that was asked for is not there.
        """
        self._path_frames = path_frames
        try:
            pairs = [*zip(self._sources(), self._ins, strict=False), *zip(self._targets(), self._outs, strict=False)]
            self._callback = callback
            self._client.activate()
            for other, port in pairs:
                if not port.is_connected_to(other):
                    port.connect(other)
        except self._jack.JackError as exc:
            raise self._failed(exc) from exc

    def _sources(self) -> list[Any]:
        """The ports that our inputs are to be connected with."""
        return self._others(self._connect_from, is_output=True) if self._ins else []

    def _targets(self) -> list[Any]:
        """The ports that our outputs are to be connected with: stems only if it is said with which."""
        if not self._connect_to and not self._outs[0].shortname.startswith("mix"):
            return []
        return self._others(self._connect_to, is_input=True)

    def _others(self, asked: Sequence[str], **flow: bool) -> list[Any]:
        if not asked:
            return self._client.get_ports(is_audio=True, is_physical=True, **flow)[:2]
        there = {port.name: port for port in self._client.get_ports(is_audio=True, **flow)}
        for name in asked:
            if name not in there:
                raise no_such_port(name, [other for other in there if not other.startswith(f"{self._client.name}:")])
        return [there[name] for name in asked]

    def loop_back(self) -> None:
        """Connects the first two outputs with the inputs, and nothing else. JACK lets such a loop take one block.

        Raises:
            LiveError: ``live.jack``; ``live.loop``: it has no inputs.
        """
        if not self._ins:
            raise LiveError("there are no inputs to loop back to", hint="Leave --source out.", code="live.loop")
        try:
            for port in (*self._ins, *self._outs):
                port.disconnect()
            for output, into in zip(self._outs, self._ins, strict=False):
                output.connect(into)
            self._looped = True
        except self._jack.JackError as exc:
            raise self._failed(exc) from exc

    def close(self) -> None:
        """Stops and frees it, also when the server is gone."""
        self._client.deactivate()
        self._client.close()
