"""What ``revithion-stems live`` prints: devices, latency, how a session stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from revithion_realtime.control.terminal_panels import advice
from revithion_stems.cli.console import print_json, printable
from revithion_stems.live import LiveState, Tier

if TYPE_CHECKING:
    from revithion_realtime.devices.audio_device import DeviceInfo
    from revithion_realtime.measure import Measurement


def print_devices(devices: Sequence[DeviceInfo], *, json_mode: bool) -> None:
    """Prints a table of devices; ``*`` marks the default."""
    if json_mode:
        print_json({"type": "Devices", "devices": [dataclasses.asdict(device) for device in devices]})
        return
    rows = [("NAME", "DRIVER", "IN", "OUT", "RATE")]
    for device in devices:
        name = f"{device.name} *" if device.is_default else device.name
        channels = str(device.input_channels), str(device.output_channels)
        rows.append((name, device.driver, *channels, f"{device.sample_rate} Hz" if device.sample_rate else "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(printable("  ".join(cells).rstrip()))
    if all(device.driver == "clock" for device in devices):
        click.echo("nothing here plays sound; `revithion-stems doctor` says what is missing", err=True)


def print_measurement(measured: Measurement, *, json_mode: bool) -> None:
    """Prints where the time goes, as it was measured."""
    if json_mode:
        print_json({"type": "Measurement", **dataclasses.asdict(measured)})
        return
    budget, block = measured.budget, measured.block_frames
    click.echo(printable(f"{measured.model} on {measured.device}, blocks of {block} at {budget.sample_rate} Hz"))
    rows = (
        ("device", budget.device_frames, f"measured, median of {measured.rounds}"),
        ("algorithm", budget.algorithm_frames, ""),
        ("queue", budget.queue_frames, ""),
        ("total", budget.total_frames, ""),
    )
    for name, frames, note in rows:
        click.echo(f"  {name:<10}{frames:>7} frames  {budget.milliseconds(frames):>7.1f} ms  {note}".rstrip())
    click.echo(f"algorithm and queue measured together: {measured.path_frames} frames, expected {budget.path_frames}")


def status_line(state: LiveState) -> str:
    """How a session stands, in one line."""
    counters, budget = state.counters, state.budget
    dry = [strip.stem for strip in state.strips if strip.tier is Tier.DRY]
    facts = [
        state.phase.value,
        f"{counters.frames / budget.sample_rate:.0f} s",
        f"{state.model} on {state.device}",
        f"{budget.milliseconds(budget.total_frames):.1f} ms",
        f"callback {counters.callback_load:.0%}",
        f"inference {counters.inference_load:.0%}",
        f"late {counters.late_blocks}",
        f"xruns {counters.xruns}",
    ]
    if dry:
        facts.append("all dry" if len(dry) == len(state.strips) else f"dry: {', '.join(dry)}")
    if state.recording:
        facts.append("recording")
    if counters.faults:
        facts.append(f"faults {counters.faults}")
    if counters.recorder_lost_frames:
        facts.append(f"lost in recording {counters.recorder_lost_frames} frames")
    if message := state.message or advice(state):
        facts.append(message)
    return " · ".join(facts)
