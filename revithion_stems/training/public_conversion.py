"""Public RoFormer checkpoints as network files of this program."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from revithion_stems.digests import sha256_file
from revithion_stems.models.checkpoint_layouts import load_public_checkpoint
from revithion_stems.training.exporting import Exported, Made, export_network


def convert_checkpoint(
    checkpoint: Path, config: Path, folder: Path, *, name: str, licence: str | None = None
) -> Exported:
    """Writes a public checkpoint as ``NAME.safetensors`` with a card. What it was trained with is not in it.

    Args:
        checkpoint: See :func:`~revithion_stems.models.checkpoint_layouts.load_public_checkpoint`.
        config: The community's YAML file that goes with it.
        folder: Where to.
        name: Of the files.
        licence: What its publisher states.

    Raises:
        ModelError: A file can't be read, or isn't what we have a network for.
        RequestError: The name is none.
        OutputError: Something can't be written.
    """
    network, public = load_public_checkpoint(checkpoint, config)
    segment = Fraction(public.segment_frames, public.sample_rate) if public.segment_frames else None
    made = Made(
        title=f"{public.architecture} of the public checkpoint {checkpoint.name}",
        segment=segment,
        provenance={
            "converted from": f"{checkpoint.name}, SHA-256 {sha256_file(checkpoint)}",
            "configuration": f"{config.name}, SHA-256 {sha256_file(config)}",
        },
        notes="Its publisher says what it was trained with, how good it is, and on which terms it may be used.",
    )
    return export_network(network, made, folder, name=name, licence=licence)
