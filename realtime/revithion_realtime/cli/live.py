"""``revithion-stems live``: the causal preview, from a device, from JACK or from a file, on a device's outputs."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import click

from revithion_realtime.cli.live_completion import (
    complete_devices,
    complete_midi_maps,
    complete_midi_ports,
    complete_models,
)
from revithion_realtime.cli.live_session import ending, open_session, pull_weights, stop_session
from revithion_stems.cli.console import json_option, print_json, printable, report_error
from revithion_stems.live import LiveControl, LiveOptions, LiveOutputs, LivePhase

if TYPE_CHECKING:
    from revithion_realtime.control.midi_desk import MidiDesk
    from revithion_stems.errors import RevithionError

_EXAMPLES = """Examples:

\b
  revithion-stems live song.wav
      plays a file through the preview, with faders in the terminal
  revithion-stems live --device jack --connect-from system:capture_1 --connect-from system:capture_2
  revithion-stems live --device "Scarlett 18i20" --outputs stems --block 128
      one stereo pair per stem, for a DJ mixer or a DAW
  revithion-stems live --device jack --measure
  revithion-stems live song.wav --record takes --seconds 60 --no-ui
  revithion-stems live --midi nanoKONTROL2 --midi-learn vocals.gain
  revithion-stems live --list-devices
"""

_PRINT_S = 1.0
_POLL_S = 0.1


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "-m",
    "--model",
    default="preview",
    show_default=True,
    shell_complete=complete_models,
    help="preview, dsp, a causal network (a path ending in .onnx), or an offline model, which looks back and is late.",
)
@click.option(
    "--look-back",
    type=float,
    metavar="SECONDS",
    default=1.0,
    show_default=True,
    help="How often an offline model runs: later, and less work, the larger.",
)
@click.option(
    "--device",
    metavar="NAME",
    default="default",
    show_default=True,
    shell_complete=complete_devices,
    help="Where it plays.",
)
@click.option(
    "--input",
    metavar="NAME",
    default="",
    shell_complete=complete_devices,
    help="Where it listens, if that is another device.",
)
@click.option("--list-devices", is_flag=True, help="Show the devices and end.")
@click.option("--block", type=int, metavar="FRAMES", default=256, show_default=True, help="Frames of a callback.")
@click.option("--rate", type=int, metavar="HZ", default=0, help="Sample rate; the device's own if left out.")
@click.option(
    "--outputs",
    type=click.Choice([outputs.value for outputs in LiveOutputs]),
    default=LiveOutputs.MIX.value,
    show_default=True,
    help="The monitor mix, a stereo pair per stem, or the mix and then the pairs.",
)
@click.option(
    "--safety", type=int, metavar="FRAMES", default=-1, help="How late inference may be; a block if left out."
)
@click.option("--loop", is_flag=True, help="Begin FILE again at its end.")
@click.option("--connect-from", metavar="PORT", multiple=True, help="JACK port for the next input; may be repeated.")
@click.option("--connect-to", metavar="PORT", multiple=True, help="JACK port for the next output; may be repeated.")
@click.option("--record", metavar="FOLDER", type=click.Path(path_type=Path), help="Record the stems into a take there.")
@click.option(
    "--midi",
    metavar="PORT",
    shell_complete=complete_midi_ports,
    help="A MIDI controller: its name, the beginning of it, or virtual.",
)
@click.option(
    "--midi-map",
    metavar="NAME|FILE",
    default="",
    shell_complete=complete_midi_maps,
    help="What its controls move: a preset or a file.",
)
@click.option(
    "--midi-learn", metavar="TARGET", help="Give TARGET, such as vocals.gain, to the next control that moves."
)
@click.option("--measure", is_flag=True, help="Measure the latency through a loop, print it and end.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so long; implies --no-ui.")
@click.option("--no-ui", is_flag=True, help="Print a line each second instead of the faders.")
@click.option("--stop", is_flag=True, help="End the session that the daemon plays.")
@click.option("--no-daemon", is_flag=True, help="Play from this process, even if a daemon runs.")
@json_option
def live_command(file: Path | None, json_mode: bool, **given: Any) -> int:
    """Separate what is playing, and play it on with a fader per stem; FILE instead of the device's input.

    Ctrl-C ends it.
    """
    if given["list_devices"]:
        from revithion_realtime.cli.live_texts import print_devices
        from revithion_realtime.devices.device_choice import list_devices

        print_devices(list_devices(), json_mode=json_mode)
        return 0
    if given["stop"]:
        stop_session()
        return 0
    if given["loop"] and file is None:
        raise click.UsageError("--loop needs a FILE.")
    options = LiveOptions(
        model=given["model"],
        device=given["device"],
        input_device=given["input"],
        source="" if file is None else str(file.absolute()),
        loop=given["loop"],
        outputs=LiveOutputs(given["outputs"]),
        sample_rate=given["rate"],
        block_frames=given["block"],
        safety_frames=given["safety"],
        connect_from=given["connect_from"],
        connect_to=given["connect_to"],
        look_back_hop_s=given["look_back"],
    )
    pull_weights(options.model, json_mode=json_mode)
    if given["measure"]:
        from revithion_realtime.cli.live_texts import print_measurement
        from revithion_realtime.measure import measure

        print_measurement(measure(options), json_mode=json_mode)
        return 0
    _play(options, given, json_mode=json_mode)
    return 0


def _play(options: LiveOptions, given: dict[str, Any], *, json_mode: bool) -> None:
    from revithion_stems.cli.interrupts import sigterm_interrupts
    from revithion_stems.errors import error_from_dict

    with sigterm_interrupts(), contextlib.suppress(KeyboardInterrupt):
        control = open_session(options, daemon=not given["no_daemon"])
        with ending(control, given["record"], json_mode=json_mode):
            _show(control, given, json_mode=json_mode)
            last = control.state()
        if last.code:
            hint = "See live.log in the state folder; start it again."
            raise error_from_dict({"code": last.code, "message": last.message, "hint": hint})


def _show(control: LiveControl, given: dict[str, Any], *, json_mode: bool) -> None:
    """Faders in the terminal, or lines; with a MIDI controller, if one is asked for. Until it ends, or is left."""
    printing = json_mode or given["no_ui"] or given["seconds"] is not None
    printing = printing or not (sys.stdin.isatty() and sys.stdout.isatty())
    record_to = str(given["record"] or "recordings")
    errors: SimpleQueue[RevithionError] = SimpleQueue()
    with contextlib.ExitStack() as stack:
        if given["midi"] is not None or given["midi_learn"] is not None:
            from revithion_realtime.control.midi_desk import open_midi

            # Nothing may be printed over the faders.
            notify = functools.partial(report_error, json_mode=json_mode) if printing else errors.put
            desk = stack.enter_context(
                open_midi(control, given["midi"] or "", given["midi_map"], record_to=record_to, notify=notify)
            )
            if given["midi_learn"] is not None:
                _learn(desk, given["midi_learn"], json_mode=json_mode)
        if printing:
            _print_states(control, given["seconds"], json_mode=json_mode)
        else:
            from revithion_realtime.control.terminal_ui import run_terminal

            run_terminal(control, record_to=record_to, errors=errors)


def _learn(desk: MidiDesk, target: str, *, json_mode: bool) -> None:
    """Waits for the control that is to have ``target``, and prints what was written down."""
    if json_mode:
        print_json({"type": "MidiLearning", "target": target})
        print_json({"type": "MidiLearned", "target": target, "lines": desk.learn(target)})
        return
    click.echo(f"move the control for {printable(target)}", err=True)
    for line in desk.learn(target).splitlines():
        click.echo(printable(line))


def _print_states(control: LiveControl, seconds: float | None, *, json_mode: bool) -> None:
    """A line each second, for so long, or until the session ends."""
    import msgspec

    from revithion_realtime.cli.live_texts import status_line

    started = print_at = time.monotonic()
    over = False
    while not over:
        state, now = control.state(), time.monotonic()
        over = state.phase is LivePhase.ENDED or (seconds is not None and now - started >= seconds)
        if over or now >= print_at:
            print_at += _PRINT_S
            if json_mode:
                print_json({"type": "LiveState", **msgspec.to_builtins(state)})
            else:
                click.echo(printable(status_line(state)))
                sys.stdout.flush()
        time.sleep(0.0 if over else _POLL_S)
