"""Who may speak OSC: leases, subscriptions, and how wrong tokens are met. Without I/O; all on the daemon's loop.

OSC over UDP has no connections: what a sender is known by is its port, which another program may get once it is free.
So what was granted to it holds for a short time only, unless the sender is heard of.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from revithion_bridge.errors import bridge_error

Name: TypeAlias = tuple[str, int]
"""Of a sender, and of where answers go: ``udp`` and its port, or ``tcp`` and the number of its connection."""
LEASE_S = 60.0
"""How long a sender is known after its last message."""
MOST_LEASE_S = 3_600
"""The longest subscription."""
MOST_SESSIONS = 64
"""And as many subscriptions."""
MOST_WRONG_TOKENS = 5
WRONG_TOKENS_S = 60.0


class TokenGuard:
    """Compares tokens, and stops doing so for a while after too many wrong ones.

    They are counted over all senders together: all are on this machine, and a sender's port is its own choice.

    Args:
        token: The right one.
        clock: In seconds.
    """

    def __init__(self, token: str, clock: Callable[[], float]) -> None:
        self._token = token.encode()
        self._clock = clock
        self._wrong_at: deque[float] = deque(maxlen=MOST_WRONG_TOKENS + 1)
        self._shut_until = float("-inf")

    def is_token(self, value: object) -> bool:
        """Whether it is the right token. Only for those who have proved already that they know it."""
        return isinstance(value, str) and hmac.compare_digest(value.encode(), self._token)

    def check(self, value: object) -> None:
        """Passes the right token.

        What is not text is no guess, only a sender whose lease has ended: it is refused, but not counted.

        Raises:
            RevithionError: ``auth.token``; or ``auth.limited``, and it was not looked at.
        """
        now = self._clock()
        if now < self._shut_until:
            raise bridge_error("auth.limited", "too many wrong tokens: none is looked at for a minute")
        if self.is_token(value):
            return
        if isinstance(value, str):
            self._wrong_at.append(now)
            if len(self._wrong_at) > MOST_WRONG_TOKENS and now - self._wrong_at[0] <= WRONG_TOKENS_S:
                self._shut_until = now + WRONG_TOKENS_S
                self._wrong_at.clear()
            raise bridge_error("auth.token", "the token is wrong")
        raise bridge_error("auth.token", "the first argument must be the token, as text, or a hello must come before")


@dataclass(slots=True, kw_only=True)
class Session:
    """A sender that has shown the token.

    Attributes:
        target: Where its replies and events go.
        client: Its name.
        until: When its lease ends, on the clock.
    """

    target: Name
    client: str
    until: float


class Sessions:
    """The senders that are known, and the targets that get events.

    Args:
        clock: In seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sessions: dict[Name, Session] = {}
        self._subscribed: dict[Name, float] = {}

    def open(self, sender: Name, target: Name, client: str) -> Session:
        """Gives a sender a lease, in place of the one it may have.

        Raises:
            RevithionError: ``protocol.rate``: there are too many.
        """
        self.sweep()
        if sender not in self._sessions and len(self._sessions) >= MOST_SESSIONS:
            raise bridge_error("protocol.rate", f"{MOST_SESSIONS} OSC sessions are open, which is the most")
        session = Session(target=target, client=client, until=self._clock() + LEASE_S)
        self._sessions[sender] = session
        return session

    def find(self, sender: Name) -> Session | None:
        """The session of a sender whose lease has not ended."""
        session = self._sessions.get(sender)
        return session if session is not None and self._clock() < session.until else None

    def renew(self, session: Session) -> None:
        """A sender was heard of: its lease starts again, and its events do not end before it does."""
        session.until = self._clock() + LEASE_S
        if session.target in self._subscribed:
            self._subscribed[session.target] = max(self._subscribed[session.target], session.until)

    def subscribe(self, target: Name, lease_s: float) -> None:
        """Sends events to a target for so long from now on.

        Raises:
            RevithionError: ``protocol.rate``: there are too many.
        """
        self.sweep()
        if target not in self._subscribed and len(self._subscribed) >= MOST_SESSIONS:
            raise bridge_error("protocol.rate", f"there are {MOST_SESSIONS} OSC subscriptions, which is the most")
        self._subscribed[target] = self._clock() + lease_s

    def unsubscribe(self, target: Name) -> None:
        """Sends no more events there; harmless if none were sent."""
        self._subscribed.pop(target, None)

    def is_subscribed(self, target: Name) -> bool:
        """Whether events go there."""
        return self._clock() < self._subscribed.get(target, float("-inf"))

    def subscribed(self) -> list[Name]:
        """All targets that get events."""
        now = self._clock()
        return [target for target, until in self._subscribed.items() if now < until]

    def forget(self, sender: Name) -> None:
        """A connection is closed: nothing is left of it."""
        self._sessions.pop(sender, None)
        self._subscribed.pop(sender, None)

    def sweep(self) -> None:
        """Lets go of what has ended."""
        now = self._clock()
        self._sessions = {sender: session for sender, session in self._sessions.items() if now < session.until}
        self._subscribed = {target: until for target, until in self._subscribed.items() if now < until}
