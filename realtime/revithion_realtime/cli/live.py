"""``revithion-stems live``: the causal preview, from a device, from JACK or from a file, on a device's outputs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from revithion_stems.cli.console import json_option, print_json, printable, report_error
from revithion_stems.errors import RevithionError
from revithion_stems.live import LiveControl, LiveOptions, LiveOutputs, LivePhase

if TYPE_CHECKING:
    from collections.abc import Generator

    from revithion_realtime.control.midi_desk import MidiDesk

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

_REMOTE = "revithion_bridge.remote_live"  # as text: the bridge is only imported if a daemon runs
_CONNECTION = ("daemon", "connection.json")
"""Below the state folder: a daemon that runs, or that was killed."""

_PRINT_S = 1.0
_POLL_S = 0.1


def _complete_models(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from revithion_realtime.models.model_choice import live_models

    models = [CompletionItem(m.name, help=m.title) for m in live_models() if m.name.startswith(incomplete)]
    return models or [CompletionItem(incomplete, type="file")]


def _complete_devices(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from revithion_realtime.devices.device_choice import list_devices

    names = {"default": "the system's", **{device.name: device.driver for device in list_devices()}}
    wanted = incomplete.casefold()
    return [CompletionItem(name, help=driver) for name, driver in names.items() if name.casefold().startswith(wanted)]


def _complete_midi_ports(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from revithion_realtime.control.midi_ports import VIRTUAL, port_names

    inputs: tuple[str, ...] = ()
    with contextlib.suppress(RevithionError):
        inputs, _ = port_names()
    return [name for name in (*inputs, VIRTUAL) if name.casefold().startswith(incomplete.casefold())]


def _complete_midi_maps(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from revithion_realtime.control.midi_map_file import midi_presets

    presets = [CompletionItem(name) for name in midi_presets() if name.startswith(incomplete)]
    return presets or [CompletionItem(incomplete, type="file")]


@click.command(epilog=_EXAMPLES)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "-m",
    "--model",
    default="dsp",
    show_default=True,
    shell_complete=_complete_models,
    help="dsp, a causal network (a path ending in .onnx), or an offline model, which looks back and is late.",
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
    shell_complete=_complete_devices,
    help="Where it plays.",
)
@click.option(
    "--input",
    metavar="NAME",
    default="",
    shell_complete=_complete_devices,
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
    shell_complete=_complete_midi_ports,
    help="A MIDI controller: its name, the beginning of it, or virtual.",
)
@click.option(
    "--midi-map",
    metavar="NAME|FILE",
    default="",
    shell_complete=_complete_midi_maps,
    help="What its controls move: a preset or a file.",
)
@click.option(
    "--midi-learn", metavar="TARGET", help="Give TARGET, such as vocals.gain, to the next control that moves."
)
@click.option("--measure", is_flag=True, help="Measure the latency through a loop, print it and end.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="End after so long; implies --no-ui.")
@click.option("--no-ui", is_flag=True, help="Print a line each second instead of the faders.")
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
    _pull_weights(options.model, json_mode=json_mode)
    if given["measure"]:
        from revithion_realtime.cli.live_texts import print_measurement
        from revithion_realtime.measure import measure

        print_measurement(measure(options), json_mode=json_mode)
        return 0
    _play(options, given, json_mode=json_mode)
    return 0


def _pull_weights(model: str, *, json_mode: bool) -> None:
    """Gets the weights of an offline model, if they are not here: before anything plays, with progress, and Ctrl-C.

    Raises:
        RevithionError: They can't be had, or it was cancelled.
    """
    from revithion_realtime.models.model_choice import pull_weights, weights_are_here

    if weights_are_here(model):
        return
    from revithion_stems.cli.interrupts import run_cancellable
    from revithion_stems.cli.pull_progress import pull_reporter
    from revithion_stems.events import CancelToken, EventStream

    cancel = CancelToken()
    with pull_reporter(json_mode=json_mode) as callback:
        events = EventStream(f"pull-{model}", callback)
        run_cancellable(
            lambda: pull_weights(model, events=events, cancel=cancel),
            cancel,
            on_interrupt=lambda: events.notice("model.cancelling", "cancelling the download"),
        )


def _play(options: LiveOptions, given: dict[str, Any], *, json_mode: bool) -> None:
    from revithion_stems.cli.interrupts import sigterm_interrupts
    from revithion_stems.errors import error_from_dict

    with sigterm_interrupts(), contextlib.suppress(KeyboardInterrupt):
        control = _open(options, daemon=not given["no_daemon"])
        with _ending(control, given["record"], json_mode=json_mode):
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
    with contextlib.ExitStack() as stack:
        if given["midi"] is not None or given["midi_learn"] is not None:
            from revithion_realtime.control.midi_desk import open_midi

            # Nothing may be printed over the faders.
            notify = functools.partial(report_error, json_mode=json_mode) if printing else None
            desk = stack.enter_context(
                open_midi(control, given["midi"] or "", given["midi_map"], record_to=record_to, notify=notify)
            )
            if given["midi_learn"] is not None:
                _learn(desk, given["midi_learn"], json_mode=json_mode)
        if printing:
            _print_states(control, given["seconds"], json_mode=json_mode)
        else:
            from revithion_realtime.control.terminal_ui import run_terminal

            run_terminal(control, record_to=record_to)


def _open(options: LiveOptions, *, daemon: bool) -> LiveControl:
    """A session in the daemon, if one runs and ``daemon`` allows it, else in this process."""
    from revithion_stems.config import state_dir

    bridge = None
    if daemon and state_dir().joinpath(*_CONNECTION).is_file():
        with contextlib.suppress(ImportError):  # a wheel without the bridge
            bridge = importlib.import_module(_REMOTE)
    if bridge is not None and bridge.find_daemon():
        return bridge.open_remote_live(options)
    from revithion_realtime.session import open_live

    return open_live(options)


@contextlib.contextmanager
def _ending(control: LiveControl, record: Path | None, *, json_mode: bool) -> Generator[None]:
    """Records, if a folder is given; ends take and session, however they are left, and says what was recorded."""
    take, files = "", []
    try:
        if record is not None:
            take = control.start_recording(str(record.absolute()))
        yield
    finally:
        try:
            files = _end(control)
        finally:
            if take:  # which may have ended with the session, or by a key
                files = sorted({*files, *map(str, Path(take).glob("*.wav"))})
            if json_mode and files:
                print_json({"type": "Take", "files": files})
            for path in () if json_mode else files:
                click.echo(printable(path))


def _end(control: LiveControl) -> list[str]:
    try:
        playing = control.state().phase is not LivePhase.ENDED
        return list(control.stop_recording()) if playing else []
    finally:
        control.stop()


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
