"""What rendering a plan did: the same answer from a DAW that runs and from a writer of project files."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Outcome(enum.Enum):
    """What became of a track or bus. Ours that stood there is ``UNCHANGED`` if it was as planned already."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


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
        strips: All of the plan.
    """

    target: str
    strips: tuple[ImportedStrip, ...]

    @property
    def changed(self) -> bool:
        """Whether the project is another one than before."""
        return any(strip.outcome is not Outcome.UNCHANGED for strip in self.strips)
