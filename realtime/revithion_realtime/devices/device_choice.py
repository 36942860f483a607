"""Which devices there are, and the one that a name means."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from revithion_realtime.devices.audio_device import AudioDevice, DeviceInfo
from revithion_realtime.devices.clock_device import ClockDevice
from revithion_realtime.devices.device_errors import no_such_device
from revithion_realtime.devices.jack_device import JackDevice, find_jack
from revithion_realtime.devices.portaudio_catalog import FoundDevice, find_devices, release
from revithion_realtime.devices.portaudio_device import PortAudioDevice
from revithion_stems.errors import LiveError
from revithion_stems.live import LIVE_RATES, LiveOptions

CLOCK_BLOCK = 256
"""Frames of a block of the clock, where none are asked for."""

_CLOCK = DeviceInfo(name="none", driver="clock", input_channels=0, output_channels=0, sample_rate=LIVE_RATES[1])
_JACK_BY_PORTAUDIO = "JACK Audio Connection Kit"


def list_devices() -> tuple[DeviceInfo, ...]:
    """What ``--device`` takes: the clock, JACK if a server answers, and PortAudio's, looked for again each time.

    Not PortAudio's own way to JACK: it shows no names, has no more outputs than the sound card, and does not survive
    the server.
    """
    found: tuple[FoundDevice, ...] = ()
    jack: list[DeviceInfo] = []
    with contextlib.suppress(LiveError):
        found = find_devices()
    release()
    with contextlib.suppress(LiveError):
        jack.append(dataclasses.replace(find_jack(), is_default=_means_jack("default", found)))
    return (_CLOCK, *jack, *(device.info for device in _without_jack(found)))


def _without_jack(devices: Sequence[FoundDevice]) -> list[FoundDevice]:
    return [device for device in devices if device.info.driver != _JACK_BY_PORTAUDIO]


def open_device(options: LiveOptions, *, output_names: Sequence[str], with_input: bool = True) -> AudioDevice:
    """Opens the device that the options ask for; it does not run yet.

    ``default`` is the system's default output; where that is JACK, JACK itself.

    Args:
        options: Device, rate, block, and JACK's names.
        output_names: One for each output channel, such as ``mix_left``.
        with_input: Whether sound is captured too.

    Raises:
        LiveError: ``live.device``, ``live.rate``, ``live.outputs``, ``live.jack``, ``live.portaudio``.
    """
    if options.device == "none":
        return ClockDevice(
            sample_rate=options.sample_rate or _CLOCK.sample_rate,
            block_frames=options.block_frames or CLOCK_BLOCK,
            output_channels=len(output_names),
        )
    found = () if options.device == "jack" else find_devices()
    if not _means_jack(options.device, found):
        try:
            return _open_portaudio(options, _without_jack(found), len(output_names), with_input)
        except LiveError:
            release()
            raise
    release()
    return JackDevice(
        client_name=options.client_name,
        output_names=output_names,
        with_input=with_input,
        sample_rate=options.sample_rate,
        connect_from=options.connect_from,
        connect_to=options.connect_to,
    )


def _open_portaudio(
    options: LiveOptions, devices: Sequence[FoundDevice], output_channels: int, with_input: bool
) -> PortAudioDevice:
    output = choose_device(options.device, devices, output=True)
    return PortAudioDevice(
        output,
        _source(options.input_device, output, devices) if with_input else None,
        output_channels=output_channels,
        sample_rate=options.sample_rate,
        block_frames=options.block_frames,
    )


def _means_jack(asked: str, found: Sequence[FoundDevice]) -> bool:
    default = any(device.info.is_default and device.info.driver == _JACK_BY_PORTAUDIO for device in found)
    return asked == "jack" or (asked == "default" and default)


def _source(asked: str, output: FoundDevice, devices: Sequence[FoundDevice]) -> FoundDevice | None:
    """The input that belongs to an output: the one asked for, else its own, else the default of its driver."""
    if asked and asked != "default":
        return choose_device(asked, devices, output=False)
    if output.info.input_channels:
        return output
    return next((device for device in devices if device.index == output.host_input), None)


def choose_device(asked: str, devices: Sequence[FoundDevice], *, output: bool) -> FoundDevice:
    """The device that a name means: all of it, with its driver or without, else its beginning; case does not count.

    Args:
        asked: ``default`` or a name, such as ``Scarlett``, or ``Speakers, Windows WASAPI``.
        devices: Those there are, the preferred first.
        output: Whether it is to play; else it is to capture.

    Raises:
        LiveError: ``live.device``: there is none, or more than one.
    """
    usable = [each for each in devices if (each.info.output_channels if output else each.info.input_channels)]
    names = list(dict.fromkeys(each.info.name for each in usable))
    possible = ["jack", "none", *names] if output else names
    if asked == "default":
        if usable:
            return usable[0]
        raise no_such_device(asked, possible, "this system has no audio device")
    wanted = asked.casefold()
    for each in usable:
        if wanted in (each.info.name.casefold(), f"{each.info.name}, {each.info.driver}".casefold()):
            return each
    begun = [each for each in usable if f"{each.info.name}, {each.info.driver}".casefold().startswith(wanted)]
    if not begun or not wanted:
        raise no_such_device(asked, possible)
    if len({each.info.name for each in begun}) > 1:
        raise no_such_device(asked, dict.fromkeys(each.info.name for each in begun), "more than one begin so")
    return begun[0]
