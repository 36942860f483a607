"""What the shell offers for options of ``revithion-stems live``: what is there on this machine, just now."""

from __future__ import annotations

import contextlib

import click
from click.shell_completion import CompletionItem

from revithion_stems.errors import RevithionError


def complete_models(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models, and files."""
    from revithion_realtime.models.model_choice import live_models

    models = [CompletionItem(m.name, help=m.title) for m in live_models() if m.name.startswith(incomplete)]
    return models or [CompletionItem(incomplete, type="file")]


def complete_devices(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Devices that are there."""
    from revithion_realtime.devices.device_choice import list_devices

    names = {"default": "the system's", **{device.name: device.driver for device in list_devices()}}
    wanted = incomplete.casefold()
    return [CompletionItem(name, help=driver) for name, driver in names.items() if name.casefold().startswith(wanted)]


def complete_midi_ports(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """MIDI inputs that are there."""
    from revithion_realtime.control.midi_ports import VIRTUAL, port_names

    inputs: tuple[str, ...] = ()
    with contextlib.suppress(RevithionError):
        inputs, _ = port_names()
    return [name for name in (*inputs, VIRTUAL) if name.casefold().startswith(incomplete.casefold())]


def complete_midi_maps(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Presets, and files."""
    from revithion_realtime.control.midi_map_file import midi_presets

    presets = [CompletionItem(name) for name in midi_presets() if name.startswith(incomplete)]
    return presets or [CompletionItem(incomplete, type="file")]
