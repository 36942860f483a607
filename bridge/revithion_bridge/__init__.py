"""revithion-stems: daemon, wire protocol, DAW adapters.

>>> import revithion_bridge
>>> with revithion_bridge.connect() as daemon:  # doctest: +SKIP
...     job = daemon.submit("song.wav", "stems", model="htdemucs")
...     for message in daemon.events(job.id):
...         print(message.event)

Importing this package imports nothing of it yet: neither ZeroMQ nor the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revithion_bridge.async_client import AsyncClient, connect_async
    from revithion_bridge.client import Client, connect
    from revithion_bridge.daw.connection import connect_daw
    from revithion_bridge.daw.session import DawSession

_EXPORTS: dict[str, str] = {
    "AsyncClient": "async_client",
    "Client": "client",
    "DawSession": "daw.session",
    "connect": "client",
    "connect_async": "async_client",
    "connect_daw": "daw.connection",
}

__all__ = ["AsyncClient", "Client", "DawSession", "connect", "connect_async", "connect_daw"]


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that importing the package stays cheap."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
