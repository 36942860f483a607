"""What estimates are measured against: which stem of a song each belongs to, and the truth of that stem."""

from __future__ import annotations

from collections.abc import Mapping

from revithion_stems.audio import Float32
from revithion_stems.errors import RequestError
from revithion_stems.training.datasets.folder import ACCOMPANIMENT
from revithion_stems.training.datasets.multitrack import Multitrack


def matched_stems(estimates: Mapping[str, Float32], song: Multitrack) -> dict[str, Float32]:
    """Estimates by the stems that the song has a truth for.

    What a model has and the song lacks (guitar, piano) adds to ``other`` where both have that. ``accompaniment`` is
    kept where the song knows its vocals.

    ``accompaniment`` is a stem of models that only know vocals and the rest.

    Args:
        estimates: By stem, float32 ``[2, frames]``.
        song: Of which they are.

    Raises:
        RequestError: They have no stem in common.
    """
    derived = {ACCOMPANIMENT} if "vocals" in song.stems else set[str]()
    matched = {name: samples for name, samples in estimates.items() if name in {*song.stems, *derived}}
    extra = [samples for name, samples in estimates.items() if name not in matched]
    if extra and "other" in matched:
        for samples in extra:
            matched["other"] = matched["other"] + samples
    if not matched:
        raise RequestError(
            f"{song.name} has the stems {', '.join(song.stems)}, and the model {', '.join(estimates)}: none in common",
            hint="Choose another model or dataset.",
            code="request.stems",
        )
    return matched


def reference(song: Multitrack, mix: Float32, stem: str) -> Float32:
    """The truth of a stem of :func:`matched_stems`, float32 ``[2, frames]``."""
    if stem not in song.stems:  # ACCOMPANIMENT
        return mix - song.read("vocals", 0, song.frames)
    return song.read(stem, 0, song.frames)


def mix_of(song: Multitrack) -> Float32:
    """The sum of all stems, float32 ``[2, frames]``."""
    mix = song.read(song.stems[0], 0, song.frames)
    for stem in song.stems[1:]:
        mix = mix + song.read(stem, 0, song.frames)
    return mix
