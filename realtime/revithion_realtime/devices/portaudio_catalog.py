"""The devices that PortAudio finds, and PortAudio itself."""

from __future__ import annotations

import importlib
import os
import sys
import weakref
from dataclasses import dataclass
from typing import Any

from revithion_realtime.devices.audio_device import DeviceInfo
from revithion_realtime.devices.device_errors import not_installed
from revithion_stems.errors import LiveError

open_streams: weakref.WeakSet[object] = weakref.WeakSet()
"""While one of these is open, PortAudio runs on."""

stuck_streams: list[object] = []
"""Streams that PortAudio did not come back from closing: in this process it is of no more use."""

# The same device is there once for each host API: those first that have the least latency.
_RANKS = ("ASIO", "Windows WASAPI", "Core Audio", "JACK Audio Connection Kit", "ALSA")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDevice:
    """A device and what PortAudio needs to open it.

    Attributes:
        index: Its number, which holds until PortAudio looks for devices again.
        host_input: The number of the default input of its host API, or −1.
        info: What it is.
    """

    index: int
    host_input: int
    info: DeviceInfo

    @property
    def label(self) -> str:
        """Name and driver, for people."""
        return f"{self.info.name} ({self.info.driver})"


def portaudio() -> Any:
    """The module `sounddevice`, which has no type stubs, with PortAudio running; importing it starts that too.

    Raises:
        LiveError: ``live.portaudio``: PortAudio is missing, does not start, or is stuck.
    """
    if stuck_streams:
        raise LiveError(
            "PortAudio is stuck since a device went away", hint="Start the session again.", code="live.portaudio"
        )
    if sys.platform == "win32":
        os.environ.setdefault("SD_ENABLE_ASIO", "1")  # of the two libraries in its wheel, the one with ASIO
    try:
        sd = importlib.import_module("sounddevice")
        if not sd._initialized:
            sd._initialize()
        return sd
    except OSError as exc:
        raise not_installed("PortAudio", "live.portaudio") from exc
    except Exception as exc:  # its own class of errors is not there when the import fails
        raise LiveError(
            f"PortAudio does not start: {exc}",
            hint="Restart the sound system of this computer, or use --device jack or --device none.",
            code="live.portaudio",
        ) from exc


def release() -> None:
    """Ends PortAudio unless a stream is open; it starts again when it is needed.

    It knows no devices but those that were there when it started; and it is a client of JACK all the time, with which
    libjack does not survive that the server ends and comes again.
    """
    sd: Any = sys.modules.get("sounddevice")
    while sd is not None and sd._initialized and not (open_streams or stuck_streams):
        sd._terminate()


def find_devices() -> tuple[FoundDevice, ...]:
    """Those that are there now: the default output first, then by driver, those with the least latency first.

    Raises:
        LiveError: ``live.portaudio``.
    """
    release()
    sd = portaudio()
    hosts: Any = sd.query_hostapis()
    default = _default_output(sd, hosts)
    found: list[FoundDevice] = []
    for index, row in enumerate(sd.query_devices()):
        host = hosts[row["hostapi"]]
        info = DeviceInfo(
            name=row["name"],
            driver=host["name"],
            input_channels=row["max_input_channels"],
            output_channels=row["max_output_channels"],
            sample_rate=round(row["default_samplerate"]),
            is_default=index == default,
        )
        found.append(FoundDevice(index=index, host_input=host["default_input_device"], info=info))
    return tuple(sorted(found, key=_order))


def _default_output(sd: Any, hosts: Any) -> int:
    # On Windows, PortAudio's own default is MME, which is late by a tenth of a second.
    names = [host["name"] for host in hosts]
    if not names:
        return -1
    best = names.index("Windows WASAPI") if "Windows WASAPI" in names else sd.default.hostapi
    return hosts[best]["default_output_device"]


def _order(found: FoundDevice) -> tuple[bool, int, int]:
    driver = found.info.driver
    return not found.info.is_default, _RANKS.index(driver) if driver in _RANKS else len(_RANKS), found.index
