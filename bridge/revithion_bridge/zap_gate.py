"""Who may connect: the answer to libzmq's question for each new connection, by RFC 27 (ZAP)."""

from __future__ import annotations

import asyncio
import logging

import zmq
import zmq.asyncio
from zmq.utils import z85

_LOG = logging.getLogger(__name__)
_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"


class ZapGate:
    """Lets in who has one CURVE key, and nobody else. One loop thread.

    pyzmq's own authenticator for asyncio ends for good at its first error, and nobody can connect after that.

    Args:
        context: Of the sockets that it guards.
        domain: Their ``ZAP_DOMAIN``.
        client_key: Public key of the clients, in Z85.
    """

    def __init__(self, context: zmq.asyncio.Context, domain: str, client_key: str) -> None:
        self._domain = domain.encode()
        self._key = z85.decode(client_key)
        self._socket = context.socket(zmq.ROUTER)
        self._answering: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Opens the gate; before any guarded socket is bound, since libzmq lets all in where nobody answers."""
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(_ENDPOINT)
        self._answering = asyncio.create_task(self._answer())

    async def stop(self) -> None:
        """Closes it; nobody new gets in."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])
        self._socket.close()

    async def _answer(self) -> None:
        while True:
            try:
                # [route, empty, version, request id, domain, address, identity, mechanism, credentials]
                frames = await self._socket.recv_multipart()
                if len(frames) < 4:
                    continue
                allowed = (
                    frames[2] == _VERSION
                    and frames[4:5] == [self._domain]
                    and frames[7:] == [b"CURVE", self._key]  # which libzmq has proven: they know the secret half
                )
                status = [b"200", b"OK", b"user", b""] if allowed else [b"400", b"unknown key", b"", b""]
                if not allowed:
                    _LOG.warning("a connection without the key of this installation was refused")
                await self._socket.send_multipart([frames[0], b"", _VERSION, frames[3], *status])
            except Exception:  # noqa: BLE001 - one odd question must not lock everybody out
                _LOG.exception("a connection could not be judged")
            await asyncio.sleep(0)
