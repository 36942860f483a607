"""The faders of the live preview as the daemon knows them: whoever plays it follows, and so do all panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import DaemonEvent, LiveChanged, LiveStem

LIVE_STEMS = ("vocals", "drums", "bass", "other", "guitar", "piano", "accompaniment")
"""All that any of the models gives."""


class LiveFaders:
    """One fader for each stem, at 0 dB and open at first. On the daemon's event loop.

    Args:
        stems: Their names.
        publish: Gets a :class:`~revithion_bridge.messages.LiveChanged` for each change; its ``seq`` is 0.
    """

    def __init__(self, stems: Sequence[str] = LIVE_STEMS, *, publish: Callable[[DaemonEvent], object]) -> None:
        self._faders = {stem: LiveStem(stem=stem) for stem in stems}
        self._publish = publish

    def set(self, stem: str, gain_db: float | None = None, muted: bool | None = None) -> LiveStem:
        """Moves a fader; None leaves what it stands for. What changes nothing is not published.

        Raises:
            RevithionError: ``live.stem``: there is none of that name.
        """
        before = self._faders.get(stem)
        if before is None:
            raise bridge_error("live.stem", f"there is no fader {stem!r}, only {', '.join(self._faders)}")
        after = msgspec.structs.replace(
            before,
            gain_db=before.gain_db if gain_db is None else gain_db,
            muted=before.muted if muted is None else muted,
        )
        if after != before:
            self._faders[stem] = after
            self._publish(LiveChanged(seq=0, stem=stem, gain_db=after.gain_db, muted=after.muted))
        return after

    def all(self) -> tuple[LiveStem, ...]:
        """All faders."""
        return tuple(self._faders.values())
