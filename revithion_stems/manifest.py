"""The manifest: a JSON file beside the stems that says what they are, what they came from, and how they were made.

It is the last file of a set to get its name: where it stands, the set is complete. The content store keeps the same
record of a result. Its schema is ``docs/schemas/manifest.schema.json``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePath
from typing import Annotated, Literal

import msgspec

SCHEMA = "revithion-stems/manifest/1"
_MOST_BYTES = 1 << 20

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class ManifestSource(msgspec.Struct, frozen=True, kw_only=True):
    """The file that was separated.

    Attributes:
        path: As it was named when it was separated.
        size: Bytes.
        sha256: Of its bytes.
        audio_sha256: Of its rate, channel count and decoded float32 samples, interleaved.
        sample_rate: Hz.
        channels: 1–8.
        frames: Length.
    """

    path: str
    size: Count
    sha256: Sha256
    audio_sha256: Sha256
    sample_rate: int
    channels: int
    frames: Count


class ManifestModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model.

    Attributes:
        name: In the catalog.
        licence: Terms of the weights.
        commercial_use: ``yes``, ``no`` or ``unclear``.
        weights: SHA-256 of each file of weights that was used.
    """

    name: str
    licence: str
    commercial_use: str
    weights: list[Sha256]


class ManifestParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; see ``docs/cli.md``.

    Attributes:
        stems: Names of the delivered stems.
        two_stems: The stem of ``--two-stems``, or null.
        other_method: How its complement was made.
        residual: Policy.
        segment_s: Seconds per network run.
        overlap: Fraction of a segment.
        shifts: Number of random time shifts.
        seed: Of the shifts.
        precision: ``fp32`` or ``bf16``.
        threads: CPU threads, or null for the engine's choice.
        format: Container.
        bit_depth: ``16``, ``24``, ``32f``, or null where the container has none.
    """

    stems: list[str]
    two_stems: str | None
    other_method: str
    residual: str
    segment_s: float
    overlap: float
    shifts: int
    seed: int
    precision: str
    threads: int | None
    format: str
    bit_depth: str | None


class ManifestFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the set.

    Attributes:
        role: ``stem``, or ``mix`` for the archived original.
        stem: Name of the stem; empty for the original.
        path: Relative to the manifest's folder, with forward slashes.
        stream: Which audio stream of the file; 0 is the first. A ``.stem.mp4`` has the mix there and stems from 1.
        size: Bytes.
        sha256: Of its bytes.
    """

    role: Literal["stem", "mix"]
    stem: str
    path: str
    stream: int
    size: Count
    sha256: Sha256


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        schema: Name and version of this layout.
        created: When the stems were computed, UTC, ISO 8601.
        key: Digest of all that decides on the stems' bytes.
        source: The file that was separated.
        model: The model.
        parameters: What was asked for.
        engine: Name of the engine.
        device: Where it ran.
        versions: Program and libraries.
        elapsed_s: Time that the separation took.
        gain_db: The gain that all stems share.
        exact: Whether the stems' sum, less that gain, is the source bit for bit.
        null_db: Level of (Σ stems − source) relative to the source; null where ``exact``, or where it does not apply.
        lag_frames: How many frames later the stems are than the source; null where it could not be measured.
        files: The files, stems first.
    """

    schema: Literal["revithion-stems/manifest/1"] = SCHEMA
    created: str
    key: Sha256
    source: ManifestSource
    model: ManifestModel
    parameters: ManifestParameters
    engine: str
    device: str
    versions: dict[str, str]
    elapsed_s: float
    gain_db: float
    exact: bool
    null_db: float | None
    lag_frames: int | None
    files: list[ManifestFile]

    def encode(self) -> bytes:
        """The JSON text, indented, with a line feed at the end."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def decode_manifest(data: bytes) -> Manifest:
    """Reads :meth:`Manifest.encode`'s text; fields that are not known are passed over.

    Raises:
        ValueError: It is not a manifest of this layout.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc


def find_manifest(path: Path) -> Manifest | None:
    """The manifest in a file; None if there is none that can be read, or the file is larger than one can be."""
    with contextlib.suppress(OSError, ValueError):
        if path.stat().st_size <= _MOST_BYTES:
            return decode_manifest(path.read_bytes())
    return None


def relative_path(path: PurePath, folder: PurePath) -> str:
    """``path`` as seen from ``folder``, with forward slashes."""
    ups: list[str] = []
    while not path.is_relative_to(folder):
        folder = folder.parent
        ups.append("..")
    return "/".join([*ups, *path.relative_to(folder).parts])
