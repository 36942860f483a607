"""Whether ``separate`` computes in this process or in the daemon; the bridge is imported only if one is there."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from revithion_stems.events import CancelToken, EventCallback
    from revithion_stems.model_loading import ModelCache
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.reports import SeparationReport
    from revithion_stems.requests import SeparationRequest
    from revithion_stems.weights import ModelStore

_HOOK = ("revithion_bridge.remote_separation", "open_door")
_CONNECTION = ("daemon", "connection.json")
"""Below the state folder: a daemon that runs, or that was killed."""


class Separation(Protocol):
    """What :func:`~revithion_stems.api.separate_to_files` and its like are to the command line."""

    def __call__(
        self,
        request: SeparationRequest,
        output: OutputOptions | None = None,
        *,
        on_event: EventCallback | None = None,
        cancel: CancelToken | None = None,
        store: ModelStore | None = None,
        models: ModelCache | None = None,
        force_refresh: bool = False,
    ) -> SeparationReport:
        """Separates a file into files."""
        ...


@contextlib.contextmanager
def open_separation(*, daemon: bool) -> Generator[Separation]:
    """The way to separate: through the daemon if one runs and ``daemon`` allows it, else in this process."""
    from revithion_stems.api import separate_to_files
    from revithion_stems.config import state_dir

    door = None
    if daemon and state_dir().joinpath(*_CONNECTION).is_file():
        with contextlib.suppress(ImportError):  # a wheel without the bridge
            door = getattr(importlib.import_module(_HOOK[0]), _HOOK[1])()
    if door is None:
        yield separate_to_files
        return
    with contextlib.closing(door):
        yield door
