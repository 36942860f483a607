"""OSC over TCP: one connection, bounded in both directions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from revithion_bridge.osc_framing import FrameDecoder, Framing, FramingError, encode_frame

MOST_UNSENT_BYTES = 1 << 20
"""What is kept for a reader that is slow; one that is slower is dropped."""
_LOG = logging.getLogger(__name__)


class OscConnection(asyncio.Protocol):
    """A peer and its stream. On the daemon's loop.

    Args:
        name: For sessions; never used again.
        clock: In seconds.
        on_open: Called with it when the peer is there; False turns it away.
        on_packet: Called with each packet and it.
        on_closed: Called with it at the end, if it was not turned away.

    Attributes:
        heard_at: When something came last, on the clock.
        refused: How many of its messages were, since it last had a lease.
    """

    def __init__(
        self,
        name: tuple[str, int],
        clock: Callable[[], float],
        *,
        on_open: Callable[[OscConnection], bool],
        on_packet: Callable[[bytes, OscConnection], None],
        on_closed: Callable[[OscConnection], None],
    ) -> None:
        self.name = name
        self.refused = 0
        self._clock = clock
        self._on_open = on_open
        self._on_packet = on_packet
        self._on_closed = on_closed
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._is_open = False
        self.heard_at = clock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asks whether the peer is welcome."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._is_open = bool(peer) and peer[0] == "127.0.0.1" and self._on_open(self)
        if not self._is_open:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Hands on the packets that are whole."""
        self.heard_at = self._clock()
        try:
            for packet in self._decoder.feed(data):
                if not self._is_open:  # dropped because of one of them
                    return
                self._on_packet(packet, self)
        except FramingError as exc:
            _LOG.debug("an OSC connection is dropped: %s", exc)
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer has closed, or was dropped."""
        self._end()

    def send(self, packet: bytes) -> bool:
        """Sends a packet the way the peer sends its own; False if that dropped it, or it was gone."""
        if not self._is_open or self._transport is None:
            return False
        frame = encode_frame(packet, self._decoder.framing or Framing.SLIP)
        if self._transport.get_write_buffer_size() + len(frame) > MOST_UNSENT_BYTES:
            _LOG.debug("an OSC connection is dropped: it does not read")
            self.drop()
            return False
        self._transport.write(frame)
        return True

    def drop(self) -> None:
        """Closes it at once."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._on_closed(self)
