"""The part of JACK that tells how late sound is, which JACK-Client leaves out; by ctypes, from the same library."""

from __future__ import annotations

import ctypes
import enum
from collections.abc import Callable
from typing import Any


class LatencyMode(enum.IntEnum):
    """``jack_latency_callback_mode_t``: how old sound is at a port, or how long it takes from there to be heard."""

    CAPTURE = 0
    PLAYBACK = 1


class _Range(ctypes.Structure):
    """``jack_latency_range_t``."""

    _fields_ = (("least", ctypes.c_uint32), ("most", ctypes.c_uint32))


_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)


class JackLatency:
    """Latency of the ports of a client.

    Source: ``jack/jack.h``, "Managing and determining latency".

    Args:
        jack: JACK-Client's module.
        client: Its client, not yet active.
        changed: Is called, in a thread of JACK's, when it is to be said anew how late our ports are.
    """

    def __init__(self, jack: Any, client: Any, changed: Callable[[LatencyMode], None]) -> None:
        # JACK-Client keeps the library's name and all pointers to itself; its version is bound for this reason.
        library = ctypes.CDLL(jack._libname)
        self._get = library.jack_port_get_latency_range
        self._set = library.jack_port_set_latency_range
        for function in (self._get, self._set):
            function.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Range))
            function.restype = None
        self._address: Callable[[Any], int] = lambda pointer: int(jack._ffi.cast("intptr_t", pointer))

        def _call(mode: int, _: int | None) -> None:
            changed(LatencyMode(mode))

        # Kept, since C does not keep it.
        self._changed = _CALLBACK(_call)
        library.jack_set_latency_callback.argtypes = (ctypes.c_void_p, _CALLBACK, ctypes.c_void_p)
        library.jack_set_latency_callback(self._address(client._ptr), self._changed, None)

    def of(self, port: Any, mode: LatencyMode) -> tuple[int, int]:
        """Frames, at least and at most, by which a port is late."""
        found = _Range()
        self._get(self._address(port._ptr), mode, ctypes.byref(found))
        return found.least, found.most

    def say(self, port: Any, mode: LatencyMode, frames: tuple[int, int]) -> None:
        """Tells others of the latency of a port of ours; from ``changed`` only."""
        self._set(self._address(port._ptr), mode, ctypes.byref(_Range(*frames)))
