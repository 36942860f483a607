"""A session that is open in a DAW, reached through the mailbox of our script in it. Any one thread at a time."""

from __future__ import annotations

from pathlib import Path

import msgspec

from revithion_bridge.daw.bus_plan import BusPlan
from revithion_bridge.daw.import_report import ImportedStrip, ImportReport, Outcome
from revithion_bridge.daw.mailbox import OpenSession, open_sessions, send_command
from revithion_bridge.daw.session import DawSession
from revithion_bridge.errors import bridge_error

IMPORT_TIMEOUT_S = 300.0
"""Importing copies all stems into the session; that takes its time with long songs."""


class LiveSession(DawSession):
    """A session in a DAW that runs.

    Args:
        box: Its box.
        session: What it says of itself.
    """

    def __init__(self, box: str, session: OpenSession) -> None:
        self.box = box
        self._session = session

    @property
    def name(self) -> str:
        """See :class:`~revithion_bridge.daw.session.DawSession`."""
        return self._session.name

    @property
    def project_rate(self) -> int | None:
        """See :class:`~revithion_bridge.daw.session.DawSession`."""
        return self._session.sample_rate or None

    @property
    def media_folder(self) -> Path:
        """See :class:`~revithion_bridge.daw.session.DawSession`."""
        path = Path(self._session.path)
        if not self._session.path:
            return super().media_folder
        return path if path.is_dir() else path.parent

    def render(self, plan: BusPlan) -> ImportReport:
        """See :class:`~revithion_bridge.daw.session.DawSession`.

        Raises:
            RevithionError: ``daw.busy``: no answer; it was taken back unless the DAW is at it. ``daw.refused``.
        """
        answer = send_command(self.box, "import", timeout_s=IMPORT_TIMEOUT_S, plan=msgspec.to_builtins(plan))
        strips = tuple(
            ImportedStrip(role=strip.role, key=strip.key, name=strip.name, outcome=Outcome(strip.outcome))
            for strip in answer.strips
        )
        return ImportReport(target=self.name, strips=strips)

    def set_fader(self, key: str, *, gain_db: float | None = None, muted: bool | None = None, role: str = "bus") -> int:
        """Moves the fader of our strips of that key or name, or mutes them.

        Args:
            key: Of the plan, such as ``vocals``, or the strip's name.
            gain_db: -120 to 24; None leaves it.
            muted: None leaves it.
            role: ``bus`` or ``track``.

        Returns:
            How many strips there were.

        Raises:
            RevithionError: ``daw.busy``: no answer.
        """
        answer = send_command(self.box, "fader", identity="", role=role, key=key, gain_db=gain_db, muted=muted)
        return len(answer.strips)


def find_session(daw: str, name: str = "") -> LiveSession:
    """The open session of a DAW.

    Args:
        daw: Such as ``ardour``.
        name: Of the session, where more than one is open.

    Raises:
        RevithionError: ``daw.absent``: none is open. ``daw.ambiguous``: several are.
    """
    found = {box: session for box, session in open_sessions(daw).items() if name in ("", session.name, session.path)}
    if not found:
        what = f"no session {name!r} is" if name else "no session is"
        raise bridge_error("daw.absent", f"{what} open in {daw} with our script")
    if len(found) > 1:
        names = ", ".join(sorted(f"{session.name} ({session.path})" for session in found.values()))
        raise bridge_error("daw.ambiguous", f"several sessions are open in {daw}: {names}")
    box, session = next(iter(found.items()))
    return LiveSession(box, session)
