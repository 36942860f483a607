"""The beginning of a running job's stems, as short files that can be heard before the job is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec
from revithion_stems.encoders import Encoder, TrackInfo, open_encoder
from revithion_stems.errors import OutputError
from revithion_stems.manifest import Manifest
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import OutputFormat
from revithion_stems.paths import safe_component
from revithion_stems.requests import StemPlan
from revithion_stems.separator import StemBlock
from revithion_stems.sinks import NoteTemporary, Sink, delivered
from revithion_stems.stem_files import WrittenStem
from revithion_stems.tags import Tags

OnSpan = Callable[[str, Path, int, int, int], None]
"""Stem, file, first frame, frames, sample rate in Hz."""

_FORMAT = OutputFormat()  # 32-bit float WAV: what the networks gave, before any gain


class SpanFiles:
    """Cuts stems into spans; see :class:`~revithion_bridge.messages.Spans` for the names. One thread at a time.

    A file appears under its name when it is complete, and the spans of all stems are there before any is announced.
    Memory does not depend on the length of a span.

    Args:
        folder: Where they go; made if it is missing.
        stems: Names of the stems, in the order in which they come.
        channels: 1–8.
        sample_rate: Hz.
        span_frames: Frames of each span but the last.
        on_span: Called once per stem when a span is complete.

    Raises:
        OutputError: A file can't be written; from any method but :meth:`abort`, which must be called then.
    """

    def __init__(
        self,
        folder: Path,
        stems: Sequence[str],
        *,
        channels: int,
        sample_rate: int,
        span_frames: int,
        on_span: OnSpan,
    ) -> None:
        self._folder = folder
        self._stems = tuple(stems)
        self._channels = channels
        self._sample_rate = sample_rate
        self._span_frames = span_frames
        self._on_span = on_span
        self._number = 0
        self._frames = 0  # in the span that is being written
        self._encoders: list[Encoder] = []
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, stems: Float32) -> None:
        """Appends float32 ``[stems, channels, frames]``."""
        while stems.shape[2]:
            if not self._encoders:
                self._open()
            room = self._span_frames - self._frames
            for stem, encoder, samples in zip(self._stems, self._encoders, stems[..., :room], strict=True):
                with output_errors(self._path(stem)):
                    encoder.write(samples[None])
            self._frames += min(room, stems.shape[2])
            stems = stems[..., room:]
            if self._frames == self._span_frames:
                self.finish()

    def finish(self) -> None:
        """Completes the span that is being written, if there is one."""
        if not self._encoders:
            return
        for stem, encoder in zip(self._stems, self._encoders, strict=True):
            with output_errors(self._path(stem)):
                encoder.close()
                _part(self._path(stem)).replace(self._path(stem))
        paths = [self._path(stem) for stem in self._stems]
        start, frames = self._number * self._span_frames, self._frames
        self._encoders = []
        self._frames = 0
        self._number += 1
        for stem, path in zip(self._stems, paths, strict=True):
            self._on_span(stem, path, start, frames, self._sample_rate)

    def abort(self) -> None:
        """Removes what is not complete; complete spans stay."""
        encoders, self._encoders = self._encoders, []
        for encoder in encoders:
            with contextlib.suppress(OSError, RuntimeError):  # closing writes a header, and the disk may be full
                encoder.abort()
        for stem in self._stems:
            with contextlib.suppress(OSError):
                _part(self._path(stem)).unlink(missing_ok=True)

    def _open(self) -> None:
        for stem in self._stems:
            path = self._path(stem)
            with output_errors(path):
                encoder = open_encoder(
                    _part(path),
                    _FORMAT,
                    tracks=[TrackInfo(name=stem, tags=Tags())],
                    channels=self._channels,
                    sample_rate=self._sample_rate,
                    frames=self._span_frames,
                )
            self._encoders.append(encoder)

    def _path(self, stem: str) -> Path:
        return self._folder / f"{self._number:05d}-{safe_component(stem)}.wav"


class SpanSink:
    """A :class:`~revithion_stems.sinks.Sink` that passes everything on to another one, and writes spans beside it.

    Spans that can't be written end there, and the job goes on without them. A stored result is delivered without any.

    Args:
        sink: Where the stems go.
        folder: Where spans go.
        span_s: Their length in seconds, more than 0.
        on_span: See :class:`SpanFiles`.
        on_lost: Called once with the reason if spans can't be written any more.
    """

    def __init__(
        self, sink: Sink, folder: Path, *, span_s: float, on_span: OnSpan, on_lost: Callable[[str], None]
    ) -> None:
        self.grid_bits = sink.grid_bits
        self.format: OutputFormat | None = sink.format
        self._sink = sink
        self._folder = folder
        self._span_s = span_s
        self._on_span = on_span
        self._on_lost = on_lost
        self._plan: StemPlan | None = None
        self._channels = self._sample_rate = 0
        self._spans: SpanFiles | None = None

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        """See :meth:`Sink.open`."""
        self._plan, self._channels, self._sample_rate = plan, channels, sample_rate
        self._sink.open(spec, plan, channels, sample_rate)

    def probe(self) -> None:
        """See :meth:`Sink.probe`."""
        self._sink.probe()

    def begin(self, frames: int, note_temporary: NoteTemporary | None) -> None:
        """See :meth:`Sink.begin`."""
        self._sink.begin(frames, note_temporary)
        try:
            self._spans = SpanFiles(
                self._folder,
                self._opened_plan.all_names,
                channels=self._channels,
                sample_rate=self._sample_rate,
                span_frames=max(1, round(self._span_s * self._sample_rate)),
                on_span=self._on_span,
            )
        except OutputError as exc:
            self._on_lost(exc.message)

    def write(self, block: StemBlock) -> None:
        """See :meth:`Sink.write`."""
        self._sink.write(block)
        stems = delivered(block, with_residual=self._opened_plan.with_residual)
        self._with_spans(lambda spans: spans.write(stems))

    def encode(self, check_cancelled: Callable[[], None]) -> None:
        """See :meth:`Sink.encode`; the last span, which may be shorter, comes first."""
        self._with_spans(SpanFiles.finish)
        self._sink.encode(check_cancelled)

    def publish(self, manifest: Manifest | None) -> Manifest | None:
        """See :meth:`Sink.publish`."""
        return self._sink.publish(manifest)

    def restore(self, manifest: Manifest, folder: Path) -> Manifest | None:
        """See :meth:`Sink.restore`."""
        return self._sink.restore(manifest, folder)

    def abort(self) -> None:
        """See :meth:`Sink.abort`; complete spans stay."""
        self._sink.abort()
        self._drop_spans()

    @property
    def null_db(self) -> float | None:
        """See :meth:`Sink.null_db`."""
        return self._sink.null_db

    @property
    def lag_frames(self) -> int | None:
        """See :meth:`Sink.lag_frames`."""
        return self._sink.lag_frames

    @property
    def gain_db(self) -> float:
        """See :meth:`Sink.gain_db`."""
        return self._sink.gain_db

    @property
    def written(self) -> tuple[WrittenStem, ...]:
        """See :meth:`Sink.written`."""
        return self._sink.written

    @property
    def manifest_path(self) -> Path | None:
        """See :meth:`Sink.manifest_path`."""
        return self._sink.manifest_path

    @property
    def _opened_plan(self) -> StemPlan:
        assert self._plan is not None  # the runner opens before anything else
        return self._plan

    def _with_spans(self, action: Callable[[SpanFiles], None]) -> None:
        if self._spans is None:
            return
        try:
            action(self._spans)
        except OutputError as exc:
            self._drop_spans()
            self._on_lost(exc.message)

    def _drop_spans(self) -> None:
        spans, self._spans = self._spans, None
        if spans is not None:
            spans.abort()


def _part(path: Path) -> Path:
    """Where a span is until it is complete; the same for each attempt, so that nothing is left behind by one."""
    return path.with_name(f".{path.name}")
