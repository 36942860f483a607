"""Stems as files, with their manifest: all of them under their final names, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import soxr

from revithion_stems.audio_files import AudioReader
from revithion_stems.catalog import ModelSpec
from revithion_stems.errors import InputError
from revithion_stems.file_set import FileSet
from revithion_stems.manifest import Manifest, ManifestFile, relative_path
from revithion_stems.output_format import OutputFormat
from revithion_stems.outputs import OutputOptions, OutputPaths
from revithion_stems.requests import SeparationRequest, StemPlan
from revithion_stems.restoring import restore
from revithion_stems.separator import StemBlock
from revithion_stems.sinks import NoteTemporary, delivered
from revithion_stems.source_facts import changed_error
from revithion_stems.stem_files import StemFiles, WrittenStem
from revithion_stems.tags import Tags, read_tags, stem_tags

_LAG_FRAMES = 1 << 18
_LAG_SEARCH_FRAMES = 1 << 14
_NEAR_NULL_DB = -60.0
"""Below this, what is delivered is the source frame by frame, so that its lag is 0; a shift of one frame gives far
more."""


class FileSink:
    """Writes stems as files; see :class:`~revithion_stems.stem_files.StemFiles`.

    Raises:
        InputError: The request's source is audio in memory, which has no name.
    """

    def __init__(self, request: SeparationRequest, output: OutputOptions) -> None:
        if not isinstance(request.source, Path):
            raise InputError(
                "audio in memory has no name for its stems' files",
                hint="Use separate() for buffers, or write the buffer to a file first.",
                code="input.no_path",
            )
        self.grid_bits = output.format.grid_bits
        self.format: OutputFormat | None = output.format
        self.lag_frames: int | None = None
        self._source = request.source
        self._output = output
        self._spec: ModelSpec | None = None
        self._plan: StemPlan | None = None
        self._paths: OutputPaths | None = None
        self._channels = 0
        self._sample_rate = 0
        self._set = FileSet()
        self._stem_files: StemFiles | None = None
        self._written: list[WrittenStem] = []

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """See :meth:`Sink.open`."""
        self._output.format.check_source(channels=channels, sample_rate=sample_rate)
        self._output.format.check_stems(plan.all_names)
        self._spec, self._plan = spec, plan
        self._channels, self._sample_rate = channels, sample_rate
        self._paths = self._output.paths(self._source, plan.all_names, spec.name)

    def probe(self) -> None:
        """See :meth:`Sink.probe`."""
        with FileSet() as probe:
            for path in dict.fromkeys(self._opened_paths.stems.values()):
                probe.new_part(path)

    def begin(self, frames: int, note_temporary: NoteTemporary | None) -> None:
        """See :meth:`Sink.begin`."""
        spec, plan = self._opened
        self._set = FileSet(note_temporary)
        self._stem_files = StemFiles(
            self._set,
            self._opened_paths.stems,
            output_format=self._output.format,
            channels=self._channels,
            sample_rate=self._sample_rate,
            fold=plan.fold,
        )
        tags = read_tags(self._source)

        def tags_of(stem: str | None) -> Tags:
            return tags if stem is None else stem_tags(tags, stem=stem, model=spec.name, licence=spec.licence.weights)

        self._stem_files.begin(frames, tags_of)

    def write(self, block: StemBlock) -> None:
        """See :meth:`Sink.write`."""
        self._begun.write(delivered(block, with_residual=self._opened[1].with_residual), block.source)

    def encode(self, check_cancelled: Callable[[], None]) -> None:
        """See :meth:`Sink.encode`."""
        self._written = self._begun.encode(check_cancelled)
        if self._output.format.lossy:
            self.lag_frames = self._measured_lag()
        elif self.null_db is not None and self.null_db < _NEAR_NULL_DB:
            self.lag_frames = 0

    def publish(self, manifest: Manifest | None) -> Manifest | None:
        """See :meth:`Sink.publish`."""
        self._begun.close()
        if manifest is not None:
            manifest = self._add_sidecars(manifest)
        self._set.publish()
        return manifest

    def restore(self, manifest: Manifest, folder: Path) -> Manifest | None:
        """See :meth:`Sink.restore`."""
        self.abort()
        self._set = FileSet()
        if not restore(self._set, manifest, folder, self._opened_paths.stems):
            self.abort()
            return None
        self._take_over(manifest)
        manifest = self._add_sidecars(manifest)
        self._set.publish()
        return manifest

    def abort(self) -> None:
        """See :meth:`Sink.abort`."""
        if self._stem_files is not None:
            self._stem_files.close()
        self._set.abort()

    @property
    def null_db(self) -> float | None:
        """See :meth:`Sink.null_db`; None too where a lossy format comes between."""
        if not self._opened[1].sums_to_source or self._output.format.lossy:
            return None
        return self._begun.null.null_db

    @property
    def gain_db(self) -> float:
        """See :meth:`Sink.gain_db`."""
        return self._begun.gain_db

    @property
    def written(self) -> tuple[WrittenStem, ...]:
        """See :meth:`Sink.written`."""
        return tuple(self._written)

    @property
    def manifest_path(self) -> Path | None:
        """See :meth:`Sink.manifest_path`."""
        return self._opened_paths.manifest

    @property
    def _opened(self) -> tuple[ModelSpec, StemPlan]:
        assert self._spec is not None  # the runner opens before anything else
        assert self._plan is not None
        return self._spec, self._plan

    @property
    def _opened_paths(self) -> OutputPaths:
        assert self._paths is not None
        return self._paths

    @property
    def _begun(self) -> StemFiles:
        assert self._stem_files is not None
        return self._stem_files

    def _take_over(self, manifest: Manifest) -> None:
        """Takes the stems of a stored result for those that were written."""
        self._written = [
            WrittenStem(
                stem=file.stem,
                path=self._opened_paths.stems[file.stem],
                size=file.size,
                sha256=file.sha256,
                stream=file.stream,
            )
            for file in manifest.files
        ]

    def _add_sidecars(self, manifest: Manifest) -> Manifest:
        """Adds the original, if it is wanted, and the manifest, which comes last."""
        paths = self._opened_paths
        folder = paths.manifest.parent
        files = [
            ManifestFile(
                role="stem",
                stem=stem.stem,
                path=relative_path(stem.path, folder),
                stream=stem.stream,
                size=stem.size,
                sha256=stem.sha256,
            )
            for stem in self._written
        ]
        if paths.mix is not None:
            size, digest = self._set.add(paths.mix, self._source)
            if digest != manifest.source.sha256:
                raise changed_error(str(self._source))
            path = relative_path(paths.mix, folder)
            files.append(ManifestFile(role="mix", stem="", path=path, stream=0, size=size, sha256=digest))
        manifest = msgspec.structs.replace(manifest, files=files)
        self._set.add(paths.manifest, manifest.encode())
        return manifest

    def _measured_lag(self) -> int | None:
        """By cross-correlation of the beginning of the loudest stream, as it was encoded and as it decodes."""
        from revithion_stems.alignment import find_lag

        streams = self._begun.first_frames(_LAG_FRAMES).mean(axis=1)
        # Only the first stream of a file is what readers give.
        rows = [row for row in range(len(streams)) if self._begun.encoded_path(row)[1] == 0]
        loudest = max(rows, key=lambda row: float(np.square(streams[row], dtype=np.float64).sum()))
        reference = streams[loudest][None]
        with AudioReader(self._begun.encoded_path(loudest)[0]) as reader:
            rate = reader.info.sample_rate
            decoded = next(iter(reader.blocks(_LAG_FRAMES))).mean(axis=0, keepdims=True)
        if rate != self._sample_rate:
            reference = soxr.resample(reference.T, self._sample_rate, rate).T
        frames = min(reference.shape[1], decoded.shape[1])
        lag = find_lag(reference[:, :frames], decoded[:, :frames], min(_LAG_SEARCH_FRAMES, frames - 1)).frames
        return None if lag is None else round(lag * self._sample_rate / rate)
