"""Devices of the system's drivers, by PortAudio: Core Audio, ASIO, WASAPI, ALSA."""

from __future__ import annotations

import atexit
import sys
import threading
import time
from typing import Any

import numpy as np

from revithion_realtime.devices.audio_device import BlockCallback
from revithion_realtime.devices.device_errors import check_rate, too_few_outputs, wrong_rate
from revithion_realtime.devices.portaudio_catalog import FoundDevice, open_streams, portaudio, release, stuck_streams
from revithion_stems.audio import Float32
from revithion_stems.errors import LiveError
from revithion_stems.live import LARGEST_BLOCK

SILENCE_S = 1.0
"""A driver that has not called back for so long is gone: some just stop when a plug is pulled."""

CLOSE_S = 2.0
"""How long a lost stream may take to close: some drivers wait for a callback that will never come."""

_INVALID_SAMPLE_RATE = -9997
"""``paInvalidSampleRate`` of ``portaudio.h``."""


def _silence(_: Float32, outputs: Float32, __: bool) -> None:
    outputs.fill(0.0)


class PortAudioDevice:
    """A stream of PortAudio, full duplex where there is an input. An :class:`AudioDevice`.

    Args:
        output: The device that plays.
        source: The device that is captured, or None for no input. One channel is heard on both sides.
        output_channels: How many of its channels to open.
        sample_rate: Hz, or 0 for the output's own.
        block_frames: Frames of each callback, or 0 for what the driver likes.

    Raises:
        LiveError: ``live.portaudio``; ``live.outputs``: it has not so many; ``live.rate``; ``live.device``: it does not
            open.
    """

    def __init__(
        self,
        output: FoundDevice,
        source: FoundDevice | None,
        *,
        output_channels: int,
        sample_rate: int = 0,
        block_frames: int = 0,
    ) -> None:
        if output.info.output_channels < output_channels:
            raise too_few_outputs(output.label, output_channels, output.info.output_channels)
        self.name = output.label if source in (None, output) else f"{source.label} to {output.label}"
        self.sample_rate = check_rate(self.name, sample_rate, output.info.sample_rate)
        self.block_frames = block_frames
        self.most_frames = block_frames or LARGEST_BLOCK
        self.xruns = 0
        self._lost = ""
        self._callback: BlockCallback = _silence
        self._called_at = float("inf")
        self._capture: Float32 = np.zeros((2, self.most_frames), np.float32)
        self._outputs: Float32 = np.zeros((output_channels, self.most_frames), np.float32)
        self._stream = self._open(output, source)
        open_streams.add(self)

    def _open(self, output: FoundDevice, source: FoundDevice | None) -> Any:
        sd, outputs = portaudio(), len(self._outputs)
        settings: dict[str, Any] = {
            "samplerate": self.sample_rate,
            "blocksize": self.block_frames,
            "dtype": "float32",
            "latency": "low",
            "finished_callback": self._finished,
        }
        try:
            if source is None:
                return sd.OutputStream(device=output.index, channels=outputs, callback=self._play, **settings)
            inputs = min(2, source.info.input_channels)
            pair = (source.index, output.index)
            return sd.Stream(device=pair, channels=(inputs, outputs), callback=self._exchange, **settings)
        except sd.PortAudioError as exc:
            if _INVALID_SAMPLE_RATE in exc.args:
                raise wrong_rate(self.name, self.sample_rate, output.info.sample_rate) from exc
            raise self._failed("does not open", exc) from exc

    def _failed(self, what: str, exc: Exception) -> LiveError:
        return LiveError(
            f"device: {self.name} {what}: {exc.args[0]}",
            hint="Close other programs that use it, or choose another --device or --block-frames.",
            code="live.device",
        )

    def _exchange(self, indata: Float32, outdata: Float32, frames: int, _: Any, status: Any) -> None:
        # In the driver's thread. `indata` is [n, 1 or 2]: one channel spreads over both rows of `capture`.
        self._note(status)
        for at in range(0, frames, self.most_frames):
            part = indata[at : at + self.most_frames]
            np.copyto(self._capture[:, : len(part)], part.T)
            self._fill(outdata[at : at + self.most_frames])

    def _play(self, outdata: Float32, frames: int, _: Any, status: Any) -> None:
        self._note(status)
        for at in range(0, frames, self.most_frames):
            self._fill(outdata[at : at + self.most_frames])

    def _note(self, status: Any) -> None:
        self._called_at = time.monotonic()
        # Its other flag, priming, is no fault.
        if status and (
            status.input_overflow or status.output_underflow or status.input_underflow or status.output_overflow
        ):
            self.xruns += 1

    def _fill(self, outdata: Float32) -> None:
        frames = len(outdata)
        outputs = self._outputs[:, :frames]
        self._callback(self._capture[:, :frames], outputs, False)
        np.copyto(outdata, outputs.T)

    def _finished(self) -> None:
        # PortAudio calls it when the stream ends, whoever ended it.
        self._lost = self._lost or "the driver has stopped"

    @property
    def latency_frames(self) -> int:
        """Input and output together, as the driver says."""
        return round(float(np.sum(self._stream.latency)) * self.sample_rate)

    @property
    def lost(self) -> str:
        """Why it is gone, or an empty text while it is there."""
        if not self._lost and time.monotonic() - self._called_at > SILENCE_S:
            self._lost = f"the driver has asked for no sound for {SILENCE_S:g} s"
        return f"{self.name}: {self._lost}" if self._lost else ""

    def start(self, callback: BlockCallback, path_frames: int = 0) -> None:
        """Begins to call back, in the driver's thread; ``path_frames`` can't be told to it.

        Raises:
            LiveError: ``live.device``.
        """
        self._callback = callback
        self._called_at = time.monotonic()
        try:
            self._stream.start()
        except portaudio().PortAudioError as exc:
            raise self._failed("does not start", exc) from exc

    def loop_back(self) -> None:
        """Nothing: a cable has to do it, and whether there is one is heard."""

    def close(self) -> None:
        """Stops and frees it; a lost one that does not close is left behind, and PortAudio with it."""
        if self.lost:
            closing = threading.Thread(target=self._stream.close, daemon=True)
            closing.start()
            closing.join(CLOSE_S)
            if closing.is_alive():
                atexit.unregister(sys.modules["sounddevice"]._exit_handler)  # it would wait for the same
                stuck_streams.append(self)
        else:
            self._stream.close()
        open_streams.discard(self)
        release()
