"""The session of ``revithion-stems live``: weights before it, the daemon or this process to play it, its take."""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import print_json, printable
from revithion_stems.errors import LiveError
from revithion_stems.live import LiveControl, LiveOptions, LivePhase

if TYPE_CHECKING:
    from collections.abc import Generator

_REMOTE = "revithion_bridge.remote_live"  # as text: the bridge is only imported if a daemon runs
_CONNECTION = ("daemon", "connection.json")
"""Below the state folder: a daemon that runs, or that was killed."""


def pull_weights(model: str, *, json_mode: bool) -> None:
    """Gets the weights of an offline model, if they are not here: before anything plays, with progress, and Ctrl-C.

    Raises:
        RevithionError: They can't be had, or it was cancelled.
    """
    from revithion_realtime.models import model_choice

    if model_choice.weights_are_here(model):
        return
    from revithion_stems.cli.interrupts import run_cancellable
    from revithion_stems.cli.pull_progress import pull_reporter
    from revithion_stems.events import CancelToken, EventStream

    cancel = CancelToken()
    with pull_reporter(json_mode=json_mode) as callback:
        events = EventStream(f"pull-{model}", callback)
        run_cancellable(
            lambda: model_choice.pull_weights(model, events=events, cancel=cancel),
            cancel,
            on_interrupt=lambda: events.notice("model.cancelling", "cancelling the download"),
        )


def open_session(options: LiveOptions, *, daemon: bool) -> LiveControl:
    """A session in the daemon, if one runs and ``daemon`` allows it, else in this process."""
    remote = _daemon() if daemon else None
    if remote is not None:
        return remote.open_remote_live(options)
    from revithion_realtime.session import open_live

    return open_live(options)


def stop_session() -> None:
    """Ends the session that the daemon plays.

    Raises:
        LiveError: ``live.idle``: none plays; ``live.failed``.
    """
    remote = _daemon()
    if remote is None:
        raise LiveError("no daemon runs", hint="A session without it ends with its program.", code="live.idle")
    remote.stop_remote_live()


def _daemon() -> Any:
    """The module that plays through the daemon, if one runs."""
    from revithion_stems.config import state_dir

    if state_dir().joinpath(*_CONNECTION).is_file():
        with contextlib.suppress(ImportError):  # a wheel without the bridge
            remote = importlib.import_module(_REMOTE)
            return remote if remote.find_daemon() else None
    return None


@contextlib.contextmanager
def ending(control: LiveControl, record: Path | None, *, json_mode: bool) -> Generator[None]:
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
