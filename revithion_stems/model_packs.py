"""Packs: a folder with weights and a ``pack.json``, which another machine imports without a network.

A pack comes from outside and is not trusted: it can only name files of this program's own catalog, with the sizes and
digests that the catalog says; where nobody publishes a full digest, the one in the pack is recorded on import, exactly
as a first download would be.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from revithion_stems.catalog import Catalog, Licence, ModelSpec, WeightsFile
from revithion_stems.errors import ModelError, OutputError
from revithion_stems.weight_files import (
    appearing,
    copy_verified,
    is_published,
    require_space,
    sha256_file,
    storage_errors,
)

MANIFEST_NAME = "pack.json"
MANIFEST_SCHEMA = "revithion-stems-pack/1"
MAX_MANIFEST_BYTES = 1 << 20


class PackedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a pack, by its name in the catalog."""

    name: str
    size: int
    sha256: str


class PackedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model of a pack, with the terms of its weights for whoever receives the folder."""

    name: str
    licence: Licence
    files: tuple[PackedFile, ...]


class PackManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``pack.json``."""

    schema: str
    models: tuple[PackedModel, ...]


def write_pack(spec: ModelSpec, folder: Path, files: tuple[tuple[WeightsFile, Path, str], ...]) -> Path:
    """Adds a model to a pack, or starts one; the manifest is written last.

    Args:
        spec: The model.
        folder: Absent, empty, or a pack already.
        files: Verified files of the model, each with its path and full SHA-256.

    Returns:
        The path of ``pack.json``.

    Raises:
        OutputError: The folder holds something else, or can't be written.
        ModelError: Its ``pack.json`` is not one.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        manifest_path = folder / MANIFEST_NAME
        others: tuple[PackedModel, ...] = ()
        if manifest_path.exists():
            others = tuple(model for model in read_manifest(folder).models if model.name != spec.name)
        elif any(folder.iterdir()):
            raise OutputError(
                f"{folder} is neither empty nor a pack",
                hint="Name a new folder for the pack.",
                code="output.not_a_pack",
            )
        require_space(folder, sum(path.stat().st_size for _, path, _ in files))
        packed: list[PackedFile] = []
        for file, path, digest in files:
            try:
                copy_verified(path, folder / file.name, digest)
            except ValueError as exc:
                raise ModelError(str(exc), hint="Run the command again.", code="model.corrupt") from exc
            packed.append(PackedFile(name=file.name, size=path.stat().st_size, sha256=digest))
        model = PackedModel(name=spec.name, licence=spec.licence, files=tuple(packed))
        manifest = PackManifest(schema=MANIFEST_SCHEMA, models=(*others, model))
        with appearing(manifest_path) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return manifest_path


def read_manifest(folder: Path) -> PackManifest:
    """Reads ``pack.json`` and checks its form; what it says is checked by :func:`files_in_pack`.

    Raises:
        ModelError: Not there, too large, or not of this schema.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise _pack_error(folder, f"{MANIFEST_NAME} has more than {MAX_MANIFEST_BYTES} bytes")
        manifest = msgspec.json.decode(path.read_bytes(), type=PackManifest)
    except FileNotFoundError as exc:
        raise _pack_error(folder, f"it has no {MANIFEST_NAME}") from exc
    except OSError as exc:
        raise _pack_error(folder, f"{MANIFEST_NAME} can't be read: {exc.strerror or exc}") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise _pack_error(folder, f"{MANIFEST_NAME} is not of the schema: {exc}") from exc
    if manifest.schema != MANIFEST_SCHEMA:
        raise _pack_error(folder, f"its schema is {manifest.schema!r}, this program reads {MANIFEST_SCHEMA!r}")
    return manifest


def files_in_pack(folder: Path, catalog: Catalog) -> tuple[tuple[ModelSpec, WeightsFile, Path, str], ...]:
    """The files of a pack that this catalog knows, with path and stated SHA-256; no content is read yet.

    Raises:
        ModelError: The pack names anything that is not in the catalog with exactly that size and digest, or a file
            is missing, is a link, or has another size.
    """
    found: list[tuple[ModelSpec, WeightsFile, Path, str]] = []
    for model in read_manifest(folder).models:
        spec = catalog[model.name]
        known = {file.name: file for network in spec.networks for file in network.files}
        for packed in model.files:
            file = known.get(packed.name)
            if file is None:
                raise _pack_error(folder, f"{packed.name!r} is no file of model {spec.name}")
            if file.size is not None and packed.size != file.size:
                raise _pack_error(folder, f"{file.name} has {packed.size} bytes in it, the catalog says {file.size}")
            if not (is_published(file, packed.sha256) or (file.hub_digest and _is_digest(packed.sha256))):
                raise _pack_error(folder, f"{file.name} has another SHA-256 in it than the catalog says")
            path = folder / file.name
            if path.is_symlink() or not path.is_file() or path.stat().st_size != packed.size:
                raise _pack_error(folder, f"{file.name} is missing or not of {packed.size} bytes")
            found.append((spec, file, path, packed.sha256))
    return tuple(found)


def recognise_file(path: Path, catalog: Catalog) -> tuple[tuple[ModelSpec, WeightsFile, Path, str], ...]:
    """A single file as the models that take it, by its SHA-256; same form as :func:`files_in_pack`.

    Raises:
        ModelError: It can't be read, or no model takes it.
    """
    try:
        digest = sha256_file(path)
    except OSError as exc:
        raise ModelError(
            f"can't read {path}: {exc.strerror or exc}",
            hint=f"Name a weights file, or a folder with a {MANIFEST_NAME}.",
            code="model.unreadable",
        ) from exc
    found = tuple(
        (spec, file, path, digest)
        for spec in catalog.models
        for network in spec.networks
        for file in network.files
        if is_published(file, digest)
    )
    if not found:
        raise ModelError(
            f"{path} (SHA-256 {digest}) is no weights file of any known model",
            hint="Run `revithion-stems models info NAME` to see which files a model takes.",
            code="model.unknown_file",
        )
    return found


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _pack_error(folder: Path, text: str) -> ModelError:
    return ModelError(
        f"{folder} is not a usable pack: {text}",
        hint="Write it anew with `revithion-stems models pull NAME --pack DIR` on a machine with a network.",
        code="model.bad_pack",
    )
