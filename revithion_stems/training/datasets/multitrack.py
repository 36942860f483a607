"""A song in stems, as training and evaluation read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from revithion_stems.audio import Float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where material comes from, for the model card.

    Attributes:
        dataset: Name of the dataset.
        licence: Of the recordings, as their publisher puts it.
        commercial_use: Whether it allows that, and a network trained on it, to be used commercially.
        labels: ``recorded`` (true stems), ``rendered`` (synthesised), or the name of the teacher that separated them.
    """

    dataset: str
    licence: str
    commercial_use: bool
    labels: str = "recorded"


class Multitrack(Protocol):
    """A song whose stems can be read from any frame on. Its mix is the sum of its stems.

    Attributes:
        name: For people, unique within its dataset.
        frames: Length of all stems at ``sample_rate``.
        sample_rate: Hz.
        stems: That are known. One that is silent is known too; one that is not here may be in the others.
        origin: Where it comes from.
    """

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def frames(self) -> int:
        """Length."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    @property
    def stems(self) -> tuple[str, ...]:
        """That are known."""
        ...

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        ...

    def read(self, stem: str, start: int, frames: int) -> Float32:
        """Part of a stem.

        Args:
            stem: One of ``stems``.
            start: First frame, 0 or more.
            frames: As many; start + frames must not exceed the length.

        Returns:
            float32 ``[2, frames]``; mono sources on both sides.
        """
        ...
