"""Stems for a place that is perhaps far away, and the sets that stand there already."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import msgspec

from revithion_stems.file_sink import FileSink
from revithion_stems.manifest import Manifest, relative_path
from revithion_stems.outputs import OutputOptions
from revithion_stems.remote_files import RemoteFolder
from revithion_stems.requests import SeparationRequest
from revithion_stems.store import ContentStore


class RemoteSink(FileSink):
    """Writes stems as files, and then to a URL if that is where they go.

    Args:
        request: Its source is a path.
        output: Where the files of this source go below ``root``.
        root: The destination, or a scratch folder that stands for it.
        url: The destination, if it is a URL.
        source_name: The source, as the manifest names it.
        check: Called between files on their way; raising from it stops them.

    Raises:
        RequestError: The URL's protocol is unknown.
        EngineError: The package for the protocol is not installed.
    """

    def __init__(
        self,
        request: SeparationRequest,
        output: OutputOptions,
        *,
        root: Path,
        url: str | None,
        source_name: str,
        check: Callable[[], None],
    ) -> None:
        super().__init__(request, output)
        self._root = root.resolve()
        self._source_name = os.fsencode(source_name).decode("utf-8", "replace")
        self._is_far = url is not None
        self._there = RemoteFolder(url or str(self._root))
        self._check = check
        self._stands = False

    def place(self, path: Path) -> str:
        """Where a file that is written to ``path`` will be, as URL or path."""
        return self._there.url(self._relative(path)) if self._is_far else str(path)

    def standing(self, key: str) -> Manifest | None:
        """The manifest, less the original, of the set at the destination, if it is whole and of this key and layout.

        Raises:
            OutputError: The destination can't be looked at.
        """
        manifest = self._opened_paths.manifest
        found = self._there.complete_set(self._relative(manifest))
        self._stands = (
            found is not None
            and found.key == key
            and {file.path for file in found.files} == {relative_path(path, manifest.parent) for path in self._wanted}
        )
        if found is None or not self._stands:
            return None
        return msgspec.structs.replace(found, files=[file for file in found.files if file.role == "stem"])

    def publish(self, manifest: Manifest | None) -> Manifest | None:
        """See :meth:`Sink.publish`."""
        return self._send(super().publish(manifest and self._renamed(manifest)))

    def restore(self, manifest: Manifest, folder: Path) -> Manifest | None:
        """See :meth:`Sink.restore`; of a set that stands far away already, nothing is moved."""
        if not (self._stands and self._is_far):
            return self._send(super().restore(self._renamed(manifest), folder))
        self._take_over(manifest)
        return manifest

    @property
    def _wanted(self) -> list[Path]:
        """The files of a complete set, without its manifest."""
        paths = self._opened_paths
        return [*dict.fromkeys(paths.stems.values()), *((paths.mix,) if paths.mix is not None else ())]

    def _renamed(self, manifest: Manifest) -> Manifest:
        source = msgspec.structs.replace(manifest.source, path=self._source_name)
        return msgspec.structs.replace(manifest, source=source)

    def _send(self, manifest: Manifest | None) -> Manifest | None:
        if manifest is not None and self._is_far:
            paths = [*self._wanted, self._opened_paths.manifest]
            self._there.publish(self._root, [self._relative(path) for path in paths], self._check)
        return manifest

    def _relative(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self._root).as_posix())


class StandingFirst(ContentStore):
    """The content store of this machine, behind what stands at a sink's destination already."""

    def __init__(self, sink: RemoteSink) -> None:
        super().__init__()
        self._sink = sink

    def result(self, key: str) -> tuple[bytes, Path] | None:
        """See :meth:`ContentStore.result`."""
        standing = self._sink.standing(key)
        return (standing.encode(), Path()) if standing is not None else super().result(key)
