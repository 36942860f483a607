"""A live session in the daemon that runs, in the hands of this process: as if it were one of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from revithion_bridge.messages import (
    GetLive,
    GetStatus,
    Live,
    RecallLiveScene,
    RecordLive,
    SetLive,
    SetLiveMonitor,
    StartLive,
    StopLive,
    StoreLiveScene,
)
from revithion_stems.errors import DaemonError, LiveError, RevithionError
from revithion_stems.live import (
    LiveControl,
    LiveOptions,
    LivePhase,
    LiveState,
    StripChange,
    StripSettings,
)
from revithion_stems.version import __version__

if TYPE_CHECKING:
    from revithion_bridge.client import Client

CLIENT = "live"
_FIRST_ANSWER_S = 0.5
_ANSWER_S = 5.0
_START_S = 60.0
"""A model may have to be loaded, and an offline one takes long for that."""


def find_daemon() -> bool:
    """Whether a daemon of this version runs, and is not about to end."""
    from revithion_bridge.client import connect

    try:
        with connect(client=CLIENT, timeout_s=_FIRST_ANSWER_S) as client:
            status = client.request(GetStatus(), timeout_s=_FIRST_ANSWER_S)
    except RevithionError:
        return False
    return status.version == __version__ and not status.stopping


def open_remote_live(options: LiveOptions) -> LiveControl:
    """Starts a session in the daemon; blocks until it plays. Paths are resolved here: the daemon is in another folder.

    Raises:
        LiveError: Why it does not play; ``live.failed`` if the daemon is gone or refuses the paths.
    """
    from revithion_bridge.client import connect

    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    if options.source:
        values["source"] = str(Path(options.source).absolute())
    if options.model.lower().endswith(".onnx"):
        values["model"] = str(Path(options.model).absolute())
    with contextlib.ExitStack() as stack, _live_errors():
        client = stack.enter_context(connect(client=CLIENT, timeout_s=_ANSWER_S))
        try:
            started = client.request(StartLive(**values), timeout_s=_START_S)
        except (DaemonError, KeyboardInterrupt):
            # Nobody waits for it any more; without this it would play once it is ready, with nobody to hold it.
            with contextlib.suppress(RevithionError):
                client.request(StopLive(), timeout_s=_FIRST_ANSWER_S)
            raise
        stack.pop_all()
    return RemoteLive(client, started)


def stop_remote_live() -> None:
    """Ends the session that the daemon plays, whoever started it.

    Raises:
        LiveError: ``live.idle``: none plays; ``live.failed`` if the daemon is gone.
    """
    from revithion_bridge.client import connect

    with _live_errors(), connect(client=CLIENT, timeout_s=_ANSWER_S) as client:
        if client.request(GetLive()).session is None:
            raise LiveError("no session plays in the daemon", hint="There is nothing to be done.", code="live.idle")
        client.request(StopLive(), timeout_s=_START_S)


class RemoteLive:
    """The daemon's session as a :class:`~revithion_stems.live.LiveControl`. Any thread; all errors are LiveErrors.

    Args:
        client: The connection; it is closed with the session.
        started: The daemon's answer to the start.
    """

    def __init__(self, client: Client, started: Live) -> None:
        assert started.session is not None
        self._client = client
        self._last = started.session
        self._stopping = threading.Lock()
        self._stopped = False

    def state(self) -> LiveState:
        """See :class:`~revithion_stems.live.LiveControl`. A session that has ended stands as it was last seen."""
        if self._last.phase is not LivePhase.ENDED and not self._stopped:
            with _live_errors():
                live = self._client.request(GetLive(), timeout_s=_ANSWER_S)
            self._last = live.session or self._ended(live.message, live.code)
        return self._last

    def set_strip(self, stem: str, change: StripChange) -> StripSettings:
        """See :class:`~revithion_stems.live.LiveControl`."""
        values = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
        with _live_errors():
            strip = self._client.request(SetLive(stem=stem, **values), timeout_s=_ANSWER_S).stems[0]
        return StripSettings(**{field.name: getattr(strip, field.name) for field in dataclasses.fields(StripSettings)})

    def set_monitor_gain(self, gain_db: float) -> None:
        """See :class:`~revithion_stems.live.LiveControl`."""
        with _live_errors():
            self._client.request(SetLiveMonitor(gain_db=gain_db), timeout_s=_ANSWER_S)

    def store_scene(self, name: str) -> None:
        """See :class:`~revithion_stems.live.LiveControl`."""
        with _live_errors():
            self._client.request(StoreLiveScene(name=name), timeout_s=_ANSWER_S)

    def recall_scene(self, name: str) -> None:
        """See :class:`~revithion_stems.live.LiveControl`."""
        with _live_errors():
            self._client.request(RecallLiveScene(name=name), timeout_s=_ANSWER_S)

    def start_recording(self, folder: str) -> str:
        """See :class:`~revithion_stems.live.LiveControl`."""
        request = RecordLive(on=True, folder=str(Path(folder).absolute()))
        with _live_errors():
            return self._client.request(request, timeout_s=_ANSWER_S).folder

    def stop_recording(self) -> tuple[str, ...]:
        """See :class:`~revithion_stems.live.LiveControl`."""
        with _live_errors():
            return self._client.request(RecordLive(on=False), timeout_s=_START_S).files

    def stop(self) -> None:
        """See :class:`~revithion_stems.live.LiveControl`."""
        with self._stopping:
            if self._stopped:
                return
            self._stopped = True
            ended = self._last.phase is LivePhase.ENDED
            self._last = self._ended(self._last.message, self._last.code)
            with _live_errors(), self._client as client:
                if not ended:  # what plays by now is somebody else's
                    client.request(StopLive(), timeout_s=_START_S)

    def _ended(self, message: str, code: str) -> LiveState:
        return dataclasses.replace(self._last, phase=LivePhase.ENDED, recording="", message=message, code=code)


@contextlib.contextmanager
def _live_errors() -> Generator[None]:
    """What the live preview says comes through; what the daemon or the way to it says is ``live.failed``.

    A value that the protocol does not take is refused by the daemon before the session sees it.
    """
    try:
        yield
    except LiveError:
        raise
    except RevithionError as exc:
        code = "live.value" if exc.code == "protocol.malformed" else "live.failed"
        raise LiveError(exc.message, hint=exc.hint, code=code) from exc
