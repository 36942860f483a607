"""The one interface of all audio devices: whatever calls back for blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from revithion_stems.audio import Float32

BlockCallback = Callable[[Float32, Float32, bool], None]
"""``callback(capture, outputs, freewheel)`` in the driver's thread.

``capture`` is float32 ``[2, n]`` (zeros where the device has no input), ``outputs`` float32 ``[channels, n]``, which
the callback fills whole; both belong to the device, are contiguous along frames, and stand for the time of the call.
With ``freewheel`` time does not count, and the callback may wait. It never raises.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """A device that was found.

    Attributes:
        name: What ``--device`` takes.
        driver: The host API: ``JACK``, ``ALSA``, ``Core Audio``, ``ASIO``, ``WASAPI``, ``clock``.
        input_channels: How many.
        output_channels: How many.
        sample_rate: Its own, in Hz.
        is_default: Whether ``default`` means it, as output.
    """

    name: str
    driver: str
    input_channels: int
    output_channels: int
    sample_rate: int
    is_default: bool = False


class AudioDevice(Protocol):
    """An open device. Made by :func:`~revithion_realtime.devices.device_choice.open_device`; not yet running.

    Attributes:
        name: Device and driver, for people.
        sample_rate: Hz.
        block_frames: Frames of each callback, or 0 where they change.
        most_frames: No callback has more.
        latency_frames: Input and output together, as the driver says.
        xruns: Overflows and underflows since it was started.
        lost: Why it is gone, or an empty text while it is there.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def sample_rate(self) -> int: ...  # noqa: D102
    @property
    def block_frames(self) -> int: ...  # noqa: D102
    @property
    def most_frames(self) -> int: ...  # noqa: D102
    @property
    def latency_frames(self) -> int: ...  # noqa: D102
    @property
    def xruns(self) -> int: ...  # noqa: D102
    @property
    def lost(self) -> str: ...  # noqa: D102

    def start(self, callback: BlockCallback, path_frames: int = 0) -> None:
        """Begins to call back.

        Args:
            callback: Fills the outputs.
            path_frames: By how much its outputs are later than its input: told to those who ask (JACK).

        Raises:
            LiveError: ``live.device``.
        """
        ...

    def loop_back(self) -> None:
        """Connects its first outputs to its inputs, where software can do that (JACK); else a cable must.

        Raises:
            LiveError: ``live.loop``: it has no inputs; ``live.jack``.
        """
        ...

    def close(self) -> None:
        """Stops and frees it; never raises."""
        ...
