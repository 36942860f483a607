"""The store of model weights: what is there, whether it is genuine, and how to get the rest. Imports no torch."""

from __future__ import annotations

import enum
from collections.abc import Container, Sequence
from contextlib import suppress
from pathlib import Path

from revithion_stems.catalog import Catalog, ModelSpec, Network, WeightsFile, WeightsFormat, load_catalog
from revithion_stems.config import model_dir, offline_mode
from revithion_stems.errors import ModelError
from revithion_stems.events import CancelToken, EventStream
from revithion_stems.model_packs import files_in_pack, recognise_file, write_pack
from revithion_stems.weight_files import (
    REINSTALL,
    FileReport,
    FileState,
    copy_verified,
    corrupt_error,
    expected_sha256,
    file_path,
    inspect_file,
    is_present,
    record_digest,
    record_path,
    require_space,
    sha256_file,
    storage_errors,
)
from revithion_stems.weight_pull import pull_file, pull_lock
from revithion_stems.weight_sources import FetchLimits

__all__ = ["FileReport", "FileState", "ModelStore", "Presence"]


class Presence(enum.Enum):
    """How much of a model is in the store, by names and sizes."""

    PRESENT = "present"
    PARTIAL = "partial"
    ABSENT = "absent"


class ModelStore:
    """A folder of weights. Any number of processes may use it at once; each method may be called on any thread.

    Args:
        root: The folder; by default :func:`revithion_stems.config.model_dir`. Made on the first write.
        catalog: The models it may hold; by default the catalog that ships.
        offline: Never use the network; where ``REVITHION_OFFLINE`` forbids it, it is not used in any case.
        limits: Timeouts of downloads.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        catalog: Catalog | None = None,
        offline: bool = False,
        limits: FetchLimits | None = None,
    ) -> None:
        self.root = (root if root is not None else model_dir()).absolute()
        self.catalog = catalog if catalog is not None else load_catalog()
        self.offline = offline or offline_mode()
        self.limits = limits or FetchLimits()

    def presence(self, spec: ModelSpec) -> Presence:
        """How much of a model is there, without reading any content; a model without weights is always there."""
        have = [any(is_present(self.root, file) for file in network.files) for network in spec.networks]
        if all(have):
            return Presence.PRESENT
        return Presence.PARTIAL if any(have) else Presence.ABSENT

    def open_paths(
        self,
        spec: ModelSpec,
        networks: Sequence[int] | None = None,
        formats: Container[WeightsFormat] | None = None,
    ) -> tuple[tuple[WeightsFile, Path], ...]:
        """For each network, the first file that is there and has its SHA-256; hashed anew on every call.

        Args:
            spec: The model.
            networks: Indices into ``spec.networks``; all by default.
            formats: Formats that the caller can read; all by default.

        Raises:
            ModelError: ``model.missing``, ``model.format`` or ``model.corrupt``, with the command that helps.
        """
        chosen = range(len(spec.networks)) if networks is None else networks
        return tuple(self._open_network(spec, spec.networks[index], formats) for index in chosen)

    def digests(
        self,
        spec: ModelSpec,
        networks: Sequence[int],
        formats: Container[WeightsFormat],
    ) -> tuple[str, ...]:
        """For each network, the SHA-256 that :meth:`open_paths` will ask of its first file; reads one only if unknown.

        Raises:
            ModelError: As :meth:`open_paths`, where a file has to be read.
        """
        found: list[str] = []
        for index in networks:
            network = spec.networks[index]
            readable = (f for f in network.files if f.format in formats and is_present(self.root, f))
            file = next(readable, None)
            known = expected_sha256(self.root, file) if file is not None else None
            if known is None:
                file, path = self._open_network(spec, network, formats)
                known = sha256_file(path)
            found.append(known)
        return tuple(found)

    def _open_network(
        self, spec: ModelSpec, network: Network, formats: Container[WeightsFormat] | None
    ) -> tuple[WeightsFile, Path]:
        present = [file for file in network.files if is_present(self.root, file)]
        readable = [file for file in present if formats is None or file.format in formats]
        bad: FileReport | None = None
        for file in readable:
            report = inspect_file(self.root, network.signature, file)
            if report.state is FileState.OK:
                return file, report.path
            bad = bad or report
        if bad is not None:
            raise corrupt_error(spec, bad)
        if present:
            there = ", ".join(sorted({file.format.value for file in present}))
            raise ModelError(
                f"model {spec.name}: network {network.signature} is here only as {there}, which this engine can't read",
                hint=f"Choose --engine auto, or run `revithion-stems models pull {spec.name} --force`.",
                code="model.format",
            )
        place = file_path(self.root, network.files[0]).parent
        raise ModelError(
            f"model {spec.name}: no weights of network {network.signature} in {place}",
            hint=REINSTALL
            if network.files[0].built_in
            else f"Run `revithion-stems models pull {spec.name}`, or import a pack made on another machine.",
            code="model.missing",
        )

    def pull(self, spec: ModelSpec, *, events: EventStream, cancel: CancelToken, force: bool = False) -> None:
        """Brings every network of a model into the store, from the first source that delivers.

        A file appears under its name only after its size and SHA-256 were verified. What is already there and genuine
        is not fetched again; what is there and is not genuine stays, unless ``force`` replaces it.

        Args:
            spec: The model; nothing happens for one without weights, and those that come with this program are only
                verified.
            events: Gets a notice per failed source and per file, and :class:`DownloadProgress` meanwhile.
            cancel: Stops the download within 0.2 s and removes what is unfinished.
            force: Fetch anew, and replace what does not verify.

        Raises:
            DownloadError: No source delivered, or ``model.offline``.
            ModelError: ``model.corrupt`` without ``force``.
            OutputError: The folder can't be written, or the disk is full.
            Cancelled: The token was raised.
        """
        if spec.built_in:
            for file, _ in self.open_paths(spec):
                events.notice("model.present", f"{file.name}: comes with this program, SHA-256 verified")
            return
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            for network in spec.networks:
                with pull_lock(self.root, network.files[0].name, cancel):
                    self._pull_network(spec, network, events, cancel, force)

    def _pull_network(
        self, spec: ModelSpec, network: Network, events: EventStream, cancel: CancelToken, force: bool
    ) -> None:
        # Under the lock: another process may have finished this file while we waited.
        reports = [
            inspect_file(self.root, network.signature, file, cancel)
            for file in network.files
            if is_present(self.root, file)
        ]
        good = [report for report in reports if report.state is FileState.OK]
        bad = [report for report in reports if report.state is FileState.CORRUPT]
        if not force:
            if good:
                events.notice("model.present", f"{good[0].file.name}: already there, SHA-256 verified")
                return
            if bad:
                raise corrupt_error(spec, bad[0])
        file = pull_file(
            network.files, self.root, events=events, cancel=cancel, offline=self.offline, limits=self.limits
        )
        for report in bad:
            if report.file != file:  # the user asked for its replacement, and another format of it came
                report.path.unlink(missing_ok=True)

    def verify(self, spec: ModelSpec) -> tuple[FileReport, ...]:
        """Hashes every file of a model that is there.

        Raises:
            ModelError: A file can't be read.
        """
        return tuple(
            inspect_file(self.root, network.signature, file) for network in spec.networks for file in network.files
        )

    def remove(self, spec: ModelSpec) -> int:
        """Deletes a model's files, except those that another model in the store needs; returns the bytes freed.

        Raises:
            OutputError: A file can't be deleted.
        """
        others = [other for other in self.catalog.models if other.name != spec.name and other.networks]
        kept = {
            file.name
            for other in others
            if self.presence(other) is Presence.PRESENT
            for network in other.networks
            for file in network.files
        }
        freed = 0
        with storage_errors(self.root):
            for file in (file for network in spec.networks for file in network.files if file.name not in kept):
                if file.built_in:
                    continue
                path = file_path(self.root, file)
                beside = (path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json"))
                for victim in (path, record_path(self.root, file), *beside):
                    with suppress(FileNotFoundError):
                        size = victim.lstat().st_size
                        victim.unlink()
                        freed += size
        return freed

    def import_path(self, path: Path) -> tuple[str, ...]:
        """Takes weights in from a pack, or a single file recognised by its SHA-256.

        Returns:
            Names of the models that got a file, in the catalog's order.

        Raises:
            ModelError: Not a pack, not a known file, or not what it says it is. Nothing was changed then.
            OutputError: The store can't be written.
        """
        found = files_in_pack(path, self.catalog) if path.is_dir() else recognise_file(path, self.catalog)
        wanted = [(file, source, digest) for _, file, source, digest in found if not file.built_in]
        with storage_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            require_space(self.root, sum(source.stat().st_size for _, source, _ in wanted))
            for file, source, digest in wanted:
                try:
                    copy_verified(source, self.root / file.name, digest)
                except ValueError as exc:
                    raise ModelError(
                        f"{source} does not have the SHA-256 {digest[:16]}… that it should",
                        hint="Copy it again from where it came.",
                        code="model.corrupt",
                    ) from exc
                record_digest(self.root, file, digest)
        names = {spec.name for spec, _, _, _ in found}
        return tuple(spec.name for spec in self.catalog.models if spec.name in names)

    def write_pack(self, spec: ModelSpec, folder: Path) -> Path:
        """Writes a model's verified files and a ``pack.json`` into a folder; returns the path of the latter.

        Raises:
            ModelError: The model is not (wholly) there, or has no weights to pack.
            OutputError: The folder holds something else, or can't be written.
        """
        if not spec.networks:
            raise ModelError(
                f"model {spec.name} has no weights to pack",
                hint="It is part of the program; nothing needs to be carried over.",
                code="model.no_weights",
            )
        opened = self.open_paths(spec)
        return write_pack(spec, folder, tuple((file, path, sha256_file(path)) for file, path in opened))
