"""``revithion-stems train``: a network from a configuration, with progress and a way to stop and go on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import json_option, print_json, printable
from revithion_stems.cli.interrupts import run_cancellable

if TYPE_CHECKING:
    from revithion_stems.training.tensorboard_log import TensorboardLog
    from revithion_stems.training.train_config import TrainConfig
    from revithion_stems.training.train_events import TrainEvent

_EXAMPLES = """Examples:

\b
  revithion-stems train preview.toml
      into runs/NAME; Ctrl-C saves, and the same command goes on
  revithion-stems train vocals.toml -o runs/vocals --device cuda --processes 2
  revithion-stems train preview.toml --minutes 30 --tensorboard
  revithion-stems models export runs/preview --to onnx
"""


@click.command(epilog=_EXAMPLES)
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; runs/NAME by default, NAME being the configuration's.",
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on with the run in the folder, or refuse to."
)
@click.option("--device", type=click.Choice(["cpu", "cuda", "mps"]), help="Instead of the configuration's.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads of each process.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="One per GPU.")
@click.option("--steps", type=click.IntRange(1), help="Altogether, instead of the configuration's.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Then save and stop, to go on another time.")
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard's event files into the folder.")
@click.option("-q", "--quiet", is_flag=True, help="Print the end and errors only.")
@json_option
def train_command(
    config: Path,
    output: Path | None,
    resume: bool,
    device: str | None,
    threads: int | None,
    processes: int,
    steps: int | None,
    minutes: float | None,
    tensorboard: bool,
    quiet: bool,
    json_mode: bool,
) -> int:
    """Train the network that CONFIG, a TOML file, describes; docs/training.md explains its keys."""
    from revithion_stems.cli.train_display import open_train_display
    from revithion_stems.errors import Cancelled
    from revithion_stems.events import CancelToken
    from revithion_stems.training.run_log import RunLog
    from revithion_stems.training.running import train
    from revithion_stems.training.train_config import load_train_config
    from revithion_stems.training.train_events import CheckpointSaved

    chosen = _changed(load_train_config(config), device=device, threads=threads, steps=steps)
    folder = output or Path("runs") / chosen.name
    if not resume:
        _refuse_run(folder)
    cancel, time_is_up = CancelToken(), threading.Event()
    logs: list[RunLog | TensorboardLog] = [RunLog(folder, config)]
    if tensorboard:
        from revithion_stems.training.tensorboard_log import TensorboardLog

        logs.append(TensorboardLog(folder))

    def stop() -> None:
        time_is_up.set()
        cancel.cancel()

    timer = threading.Timer((minutes or 0) * 60, stop)
    timer.daemon = True
    reached = 0
    try:
        with open_train_display(json_mode=json_mode, quiet=quiet) as display:

            def on_event(event: TrainEvent) -> None:
                nonlocal reached
                reached = event.step if isinstance(event, CheckpointSaved) else reached
                display.show(event)
                for log in logs:
                    log.show(event)

            if minutes is not None:
                timer.start()
            result = run_cancellable(
                lambda: train(chosen, folder, on_event=on_event, cancel=cancel, processes=processes),
                cancel,
                on_interrupt=display.cancelling,
            )
    except Cancelled as exc:
        how = f"step {reached} of {chosen.steps} is saved; the same command goes on"
        if not reached:
            how = "nothing was to be saved yet"
        if not time_is_up.is_set():
            raise Cancelled(f"stopped: {how}", hint=f"The run is in {folder}.") from exc
        if json_mode:
            print_json({"type": "Paused", "folder": str(folder), "step": reached, "steps": chosen.steps})
        else:
            click.echo(f"time is up: {how} ({printable(str(folder))})")
        return 0
    finally:
        timer.cancel()
        for log in logs:
            log.close()
    if json_mode:
        best = result.best_mean_db
        print_json({"type": "Trained", "folder": str(folder), "step": result.step, "best_mean_db": best})
        return 0
    best = "" if result.best_mean_db is None else f", best SDR {result.best_mean_db:.2f} dB at step {result.best_step}"
    click.echo(f"trained {chosen.name}: {result.step} steps{best}")
    form = " --to onnx" if chosen.architecture == "causal_preview" else ""
    click.echo(f"  export it: revithion-stems models export {printable(str(folder))}{form}")
    return 0


def _changed(config: TrainConfig, *, device: str | None, threads: int | None, steps: int | None) -> TrainConfig:
    """The configuration with what the command line says instead."""
    import msgspec

    said = {"device": device, "threads": threads, "steps": steps}
    return msgspec.structs.replace(config, **{key: value for key, value in said.items() if value is not None})


def _refuse_run(folder: Path) -> None:
    """Raises RequestError if a run is in the folder."""
    from revithion_stems.errors import RequestError
    from revithion_stems.training.checkpoints import LAST

    if (folder / LAST).exists():
        raise RequestError(
            f"{folder} has a run already, and --no-resume forbids to go on with it",
            hint="Choose another folder with -o, or remove that one.",
        )
