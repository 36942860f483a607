"""A song of files in the cache of decoded audio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.audio import Float32
from revithion_stems.errors import InputError, RequestError
from revithion_stems.training.datasets.decoded_cache import DecodedAudio
from revithion_stems.training.datasets.multitrack import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedMultitrack:
    """A song whose files are in the cache: a :class:`~revithion_stems.training.datasets.multitrack.Multitrack`.

    It can go to other processes. Any thread.

    Attributes:
        name: For people, unique within its dataset.
        frames: Length of the longest stem; the others are silent from their end on.
        sample_rate: Hz.
        parts: Stem → the files that it is the sum of; none for one that is silent.
        origin: Where it comes from.
    """

    name: str
    frames: int
    sample_rate: int
    parts: Mapping[str, tuple[DecodedAudio, ...]]
    origin: Origin

    @property
    def stems(self) -> tuple[str, ...]:
        """That are known."""
        return tuple(self.parts)

    def read(self, stem: str, start: int, frames: int) -> Float32:
        """Part of a stem as float32 ``[2, frames]``, from ``start`` on; mono sources on both sides.

        Raises:
            RequestError: The stem is not known, or the span leaves the song.
            InputError: A file of the cache was removed meanwhile.
        """
        if stem not in self.parts or start < 0 or frames < 0 or start + frames > self.frames:
            raise RequestError(
                f"{self.name}: frames {start} to {start + frames} of {stem!r} (it has 0 to {self.frames} of "
                f"{', '.join(self.parts)})",
                hint="Ask for a part of a stem that it has.",
                code="request.span",
            )
        files = self.parts[stem] or (_SILENCE,)
        samples = files[0].read(start, frames)
        for file in files[1:]:
            samples += file.read(start, frames)
        return samples


_SILENCE = DecodedAudio(path=Path(), offset=0, channels=1, frames=0, exponent=0)


def join_parts(
    *, name: str, parts: Mapping[str, tuple[DecodedAudio, ...]], sample_rate: int, origin: Origin
) -> DecodedMultitrack:
    """A song of decoded files; its length is that of the longest.

    Raises:
        InputError: It has no files at all.
    """
    frames = max((file.frames for files in parts.values() for file in files), default=0)
    if frames == 0:
        raise InputError(
            f"{name} ({origin.dataset}) has no stems that can be used",
            hint="Put at least one stem there, or remove the folder.",
            code="input.empty",
        )
    return DecodedMultitrack(name=name, frames=frames, sample_rate=sample_rate, parts=dict(parts), origin=origin)
