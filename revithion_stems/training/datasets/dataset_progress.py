"""What happens while a dataset is opened or made, for whoever shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetProgress:
    """One song is ready.

    Attributes:
        dataset: Name of the dataset.
        song: Name of the song.
        done: How many songs are ready, this one included.
        total: Of how many.
        notice: One line for people, of a file that was cut short and used nevertheless or a song that was left out.
    """

    dataset: str
    song: str
    done: int
    total: int
    notice: str | None = None


ProgressCallback: TypeAlias = Callable[[DatasetProgress], None]
