"""What a door needs of the daemon: somebody who answers requests, and who is asking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from revithion_bridge.messages import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        client: Its name, for quotas, fairness and logs.
        door: ``zmq`` or ``osc``.
        request_id: Of the request; events that follow from it carry it.
    """

    client: str
    door: str
    request_id: str


class Service(Protocol):
    """Answers requests; on the daemon's event loop."""

    async def handle(self, request: Request, caller: Caller) -> Reply:
        """The answer to a request.

        Raises:
            RevithionError: It was refused; nothing was done.
        """
        ...
