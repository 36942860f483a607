"""What rendering a plan did: the same answer from a DAW that runs and from a writer of project files."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from revithion_bridge.daw.bus_plan import BusPlan, PlannedBus, PlannedTrack

StripRef: TypeAlias = tuple[str, str]
"""Role and key of a strip: a ``track`` and a ``bus`` may have the same key."""


class Outcome(enum.Enum):
    """What became of a track or bus. Ours that stood there is ``UNCHANGED`` if it was as planned already.

    ``REMOVED`` are those of the same identity that the plan does not have.
    """

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedStrip:
    """A track or bus of the plan, in the project.

    Attributes:
        role: ``track`` or ``bus``.
        key: Of the plan.
        name: What the project calls it; DAWs make names unique.
        outcome: What became of it.
    """

    role: str
    key: str
    name: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What rendering a plan did.

    Attributes:
        target: The session's name or the file's path, for people.
        strips: All of the plan, and after them those that were removed.
    """

    target: str
    strips: tuple[ImportedStrip, ...]

    @property
    def changed(self) -> bool:
        """Whether the project is another one than before."""
        return any(strip.outcome is not Outcome.UNCHANGED for strip in self.strips)


def planned_strips(plan: BusPlan) -> dict[StripRef, PlannedTrack | PlannedBus]:
    """All tracks and then all buses of a plan, in their order."""
    return {
        **{("track", track.key): track for track in plan.tracks},
        **{("bus", bus.key): bus for bus in plan.buses},
    }


def imported_strips(
    names: Mapping[StripRef, str],
    *,
    created: Collection[StripRef],
    changed: Collection[StripRef],
    removed: Mapping[StripRef, str] | None = None,
) -> tuple[ImportedStrip, ...]:
    """What became of strips.

    Args:
        names: Strip → what the project calls it, in the order of the plan.
        created: Those that were not there.
        changed: Those that are not as they were.
        removed: Strip → name, of those that are not there any more.
    """
    kept = tuple(
        ImportedStrip(
            role=role,
            key=key,
            name=name,
            outcome=Outcome.CREATED
            if (role, key) in created
            else Outcome.REPLACED
            if (role, key) in changed
            else Outcome.UNCHANGED,
        )
        for (role, key), name in names.items()
    )
    gone = tuple(
        ImportedStrip(role=role, key=key, name=name, outcome=Outcome.REMOVED)
        for (role, key), name in (removed or {}).items()
    )
    return kept + gone
