"""The Python door: the same separation as every other door, in one call."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from revithion_stems.audio import AudioBuffer, Float32, check_peak
from revithion_stems.audio_files import BLOCK_FRAMES, AudioReader, ScanResult, scan
from revithion_stems.catalog import ModelSpec
from revithion_stems.errors import Cancelled, EngineError, InputError, OutputError, RevithionError
from revithion_stems.events import (
    CancelToken,
    EventCallback,
    EventStream,
    JobChanged,
    JobProgress,
    JobSummary,
    StemReady,
)
from revithion_stems.jobs import Job, JobState
from revithion_stems.model_loading import choose_model, load_model
from revithion_stems.paths import jailed, render_template
from revithion_stems.requests import SeparationRequest, StemPlan, plan_stems
from revithion_stems.separator import LoadedModel, StemBlock, network_runs, separate_blocks
from revithion_stems.stem_files import OutputFormat, StemFiles, WrittenStem
from revithion_stems.stems import FLOAT_GRID_BITS, NullMeter, StemSet
from revithion_stems.weights import ModelStore

DEFAULT_TEMPLATE = "{track}/{stem}.{ext}"
_job_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where and how stems are written.

    Attributes:
        folder: All files stay inside it.
        template: Path below it; fields ``{track} {stem} {model} {ext} {source_ext}``.
        format: Container and bit depth.
        keep: Files that must not be overwritten, besides the source itself: the other sources of the same run.
    """

    folder: Path = field(default_factory=Path)
    template: str = DEFAULT_TEMPLATE
    format: OutputFormat = field(default_factory=OutputFormat)
    keep: tuple[Path, ...] = ()

    def paths(self, source: Path, names: Iterable[str], model: str) -> dict[str, Path]:
        """Stem → final path for one source.

        Raises:
            RequestError: The template has an unknown field or leaves the folder.
            OutputError: Two stems, or a stem and a source, would be the same file.
        """
        result: dict[str, Path] = {}
        for name in names:
            fields = {
                "track": source.stem,
                "stem": name,
                "model": model,
                "ext": self.format.container.value,
                "source_ext": source.suffix.lstrip("."),
            }
            path = jailed(self.folder, render_template(self.template, fields))
            if path in result.values() or any(_same_file(path, other) for other in (source, *self.keep)):
                raise OutputError(
                    f"{path} would be written twice, or over a source",
                    hint="Use a --template with {stem} in it, or another folder with -o.",
                    code="output.collision",
                )
            result[name] = path
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationReport:
    """What a finished separation gave.

    Attributes:
        model: Name of the model.
        engine: Name of the engine.
        device: Where it ran.
        licence: Terms of the weights.
        stems: The files, in the model's order.
        duration_s: Length of the source.
        elapsed_s: Time from the start of the separation to the last file.
        run_s: Mean time of a network run, in seconds.
        null_db: Level of (Σ stems − source) relative to the source; None where the stems are not meant to add up to it,
            or a lossy format came between.
        gain_db: The gain that all stems share.
    """

    model: str
    engine: str
    device: str
    licence: str
    stems: tuple[WrittenStem, ...]
    duration_s: float
    elapsed_s: float
    run_s: float
    null_db: float | None
    gain_db: float


class ModelCache:
    """Keeps the last model loaded, for the next source with the same parameters. One thread at a time."""

    def __init__(self) -> None:
        self._key: object = None
        self._model: LoadedModel | None = None

    def get(self, key: object, load: Callable[[], LoadedModel]) -> LoadedModel:
        """The model under ``key``, loaded if it is not the one that is here."""
        if self._model is None or self._key != key:
            self._model = None  # frees the old one before the new one needs its memory
            self._model = load()
            self._key = key
        return self._model


class _Sink(Protocol):
    """Where blocks go."""

    grid_bits: int

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None: ...

    def write(self, block: StemBlock, plan: StemPlan) -> None: ...

    def close(self, check_cancelled: Callable[[], None]) -> None: ...

    def abort(self) -> None: ...


def separate(
    source: Path | str | AudioBuffer,
    *,
    on_event: EventCallback | None = None,
    cancel: CancelToken | None = None,
    store: ModelStore | None = None,
    **parameters: Any,
) -> StemSet:
    """Separates a file or a buffer into stems in memory. Blocking; any thread.

    Args:
        source: Path of an audio file, or audio in memory.
        on_event: Called with every :data:`~revithion_stems.events.JobEvent`, on the calling thread.
        cancel: Cancelling it stops the work before the next network run.
        store: Where weights are; by default the user's.
        **parameters: Fields of :class:`~revithion_stems.requests.SeparationRequest`, such as ``model="htdemucs"``.

    Returns:
        Stems of the source's own rate, length and channels.

    Raises:
        RequestError: A parameter is unusable.
        InputError: The source is.
        ModelError: The model is unknown or can't be had.
        EngineError: Inference failed.
        Cancelled: ``cancel`` was cancelled.
    """
    request = SeparationRequest(source=Path(source) if isinstance(source, str) else source, **parameters)
    sink = _MemorySink()
    report = _run(request, sink, on_event, cancel, store, None)
    return sink.stem_set(report)


def separate_to_files(
    request: SeparationRequest,
    output: OutputOptions | None = None,
    *,
    on_event: EventCallback | None = None,
    cancel: CancelToken | None = None,
    store: ModelStore | None = None,
    models: ModelCache | None = None,
) -> SeparationReport:
    """Separates a file into files, with memory that does not depend on its length. Blocking; any thread.

    Args:
        request: What to separate; its source must be a path.
        output: Where and how to write; by default ``./{track}/{stem}.wav`` in 32-bit float.
        on_event: As in :func:`separate`.
        cancel: As in :func:`separate`.
        store: As in :func:`separate`.
        models: Keeps the model for the next call.

    Raises:
        OutputError: The files can't be written; besides the errors of :func:`separate`.
    """
    sink = _FileSink(request, output or OutputOptions())
    return _run(request, sink, on_event, cancel, store, models, sink)


class _MemorySink:
    """Collects blocks."""

    grid_bits = FLOAT_GRID_BITS

    def __init__(self) -> None:
        self._stems: list[Float32] = []
        self._residual: list[Float32] = []
        self._names: tuple[str, ...] = ()
        self._sample_rate = 0

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        self._names, self._sample_rate = plan.names, sample_rate

    def write(self, block: StemBlock, plan: StemPlan) -> None:
        self._stems.append(block.stems)
        self._residual.append(block.residual)

    def close(self, check_cancelled: Callable[[], None]) -> None:
        pass

    def abort(self) -> None:
        pass

    def stem_set(self, report: SeparationReport) -> StemSet:
        def buffer(samples: Float32) -> AudioBuffer:
            return AudioBuffer(samples=samples, sample_rate=self._sample_rate)

        stems = np.concatenate(self._stems, axis=2)
        return StemSet(
            stems={name: buffer(stem) for name, stem in zip(self._names, stems, strict=True)},
            residual=buffer(np.concatenate(self._residual, axis=1)),
            gain_db=0.0,
            model=report.model,
            licence=report.licence,
        )


class _FileSink:
    """Writes blocks."""

    def __init__(self, request: SeparationRequest, output: OutputOptions) -> None:
        if not isinstance(request.source, Path):
            raise InputError(
                "audio in memory has no name for its stems' files",
                hint="Use separate() for buffers, or write the buffer to a file first.",
                code="input.no_path",
            )
        self._source = request.source
        self._output = output
        self._files: StemFiles | None = None
        self.grid_bits = output.format.grid_bits
        self.written: list[WrittenStem] = []

    def open(self, spec: ModelSpec, plan: StemPlan, channels: int, sample_rate: int) -> None:
        self._output.format.check_source(channels=channels, sample_rate=sample_rate)
        self._files = StemFiles(
            self._output.paths(self._source, plan.all_names, spec.name),
            output_format=self._output.format,
            channels=channels,
            sample_rate=sample_rate,
            fold=plan.fold,
        )

    def write(self, block: StemBlock, plan: StemPlan) -> None:
        assert self._files is not None  # the runner opens before it writes
        stems = np.concatenate([block.stems, block.residual[None]]) if plan.with_residual else block.stems
        self._files.write(stems)

    def close(self, check_cancelled: Callable[[], None]) -> None:
        assert self._files is not None
        self.written = self._files.commit(check_cancelled)

    def abort(self) -> None:
        if self._files is not None:
            self._files.abort()

    @property
    def gain_db(self) -> float:
        return self._files.gain_db if self._files is not None else 0.0

    @property
    def lossy(self) -> bool:
        return self._output.format.lossy


def _run(
    request: SeparationRequest,
    sink: _Sink,
    on_event: EventCallback | None,
    cancel: CancelToken | None,
    store: ModelStore | None,
    models: ModelCache | None,
    files: _FileSink | None = None,
) -> SeparationReport:
    cancel = cancel or CancelToken()
    runner = _Runner(request, sink, EventStream(f"job-{next(_job_numbers)}", on_event), cancel)
    try:
        return runner.run(store or ModelStore(), models or ModelCache(), files)
    except RevithionError as exc:
        runner.end(exc)
        raise
    except MemoryError as exc:
        error = EngineError(
            "memory ran out during the separation",
            hint="Close other programs, use a smaller --segment, or a smaller model.",
            code="engine.memory",
        )
        runner.end(error)
        raise error from exc
    except BaseException as exc:
        # A bug, or Ctrl-C where nobody caught it: it goes on as it is, but whoever follows the job sees it end.
        with contextlib.suppress(Exception):
            runner.end(_unexpected(exc))
        raise
    finally:
        sink.abort()


def _unexpected(error: BaseException) -> RevithionError:
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("interrupted", hint="Run the same command again to start over.")
    return RevithionError(f"{type(error).__name__}: {error}", hint="Report this.", code="error.unexpected")


class _Runner:
    """One job from queued to done."""

    def __init__(self, request: SeparationRequest, sink: _Sink, events: EventStream, cancel: CancelToken) -> None:
        self._request = request
        self._sink = sink
        self._events = events
        self._cancel = cancel
        self._job = Job(id=events.job_id, source=request.source_name)
        self._started = time.monotonic()
        self._done = 0
        self._total = 0
        self._first_run = 0.0
        self._events.emit(JobChanged, state=self._job.state, source=self._job.source)

    def run(self, store: ModelStore, models: ModelCache, files: _FileSink | None) -> SeparationReport:
        request, cancel = self._request, self._cancel
        self._enter(JobState.LOADING)
        with contextlib.ExitStack() as stack:
            reader, channels, sample_rate = self._open_source(stack)
            spec = choose_model(request, store, self._events, cancel)
            plan = plan_stems(request, spec)
            self._sink.open(spec, plan, channels, sample_rate)
            found = scan(_read(reader), channels=channels, sample_rate=sample_rate, cancel=cancel)
            self._check_source(reader, found)
            key = (spec, plan.model_stems, request.engine, request.device, request.threads, request.precision)
            model = models.get(key, lambda: load_model(request, spec, plan, store))
            self._enter(JobState.SEPARATING)
            meter, frames = NullMeter(), 0
            for block in self._separate(reader, model, plan, found, channels, sample_rate):
                self._sink.write(block, plan)
                total = block.stems.sum(axis=0)
                meter.add(total + block.residual if plan.with_residual else total, block.source)
                frames += block.source.shape[1]
            if frames != found.frames:
                raise InputError(
                    f"{request.source_name} changed while it was read: {found.frames} frames, then {frames}",
                    hint="Wait until the program that writes it has finished.",
                    code="input.changed",
                )
            self._total = self._done  # the number of runs was right but for rounding at the end
            self._progress()
            run_s = (time.monotonic() - self._first_run) / max(1, self._done)
        self._enter(JobState.WRITING)
        self._sink.close(cancel.raise_if_cancelled)
        lossy = files is not None and files.lossy
        report = SeparationReport(
            model=spec.name,
            engine=model.engine,
            device=model.device,
            licence=spec.licence.weights,
            stems=tuple(files.written) if files is not None else (),
            duration_s=found.frames / sample_rate,
            elapsed_s=time.monotonic() - self._started,
            run_s=run_s,
            null_db=meter.null_db if plan.sums_to_source and not lossy else None,
            gain_db=files.gain_db if files is not None else 0.0,
        )
        self._finish(report, plan, found, sample_rate)
        return report

    def end(self, error: RevithionError) -> None:
        """Records how the job failed."""
        if not self._job.state.is_final:
            state = JobState.CANCELLED if isinstance(error, Cancelled) else JobState.FAILED
            self._enter(state, error=error.as_dict())

    def _open_source(self, stack: contextlib.ExitStack) -> tuple[AudioReader | AudioBuffer, int, int]:
        source = self._request.source
        if isinstance(source, AudioBuffer):
            return source, source.channels, source.sample_rate
        reader = stack.enter_context(AudioReader(source))
        return reader, reader.info.channels, reader.info.sample_rate

    def _check_source(self, reader: AudioReader | AudioBuffer, found: ScanResult) -> None:
        check_peak(found.peak, origin=self._request.source_name)
        shortfall = reader.shortfall(found.frames) if isinstance(reader, AudioReader) else None
        if shortfall is not None:
            self._events.notice("input.short", shortfall)

    def _separate(
        self,
        reader: AudioReader | AudioBuffer,
        model: LoadedModel,
        plan: StemPlan,
        found: ScanResult,
        channels: int,
        sample_rate: int,
    ) -> Iterator[StemBlock]:
        runs = network_runs(
            plan,
            self._request,
            frames=found.frames,
            sample_rate=sample_rate,
            channels=channels,
            spec=model.spec,
        )
        self._total = runs * len(model.separators)
        self._first_run = time.monotonic()
        return separate_blocks(
            _read(reader),
            model=model,
            plan=plan,
            request=self._request,
            sample_rate=sample_rate,
            scan=found,
            grid_bits=self._sink.grid_bits,
            before_run=self._before_run,
        )

    def _before_run(self) -> None:
        self._cancel.raise_if_cancelled()
        self._progress()
        self._done += 1

    def _progress(self) -> None:
        done = min(self._done, self._total)
        spent = time.monotonic() - self._first_run
        self._events.emit(
            JobProgress,
            done=done,
            total=self._total,
            elapsed_s=time.monotonic() - self._started,
            remaining_s=spent / done * (self._total - done) if done else None,
        )

    def _finish(self, report: SeparationReport, plan: StemPlan, found: ScanResult, sample_rate: int) -> None:
        if report.gain_db:
            self._events.notice(
                "output.gain",
                f"a stem would clip: all stems are {report.gain_db:.2f} dB lower (32-bit float WAV needs no gain)",
            )
        for stem in report.stems:
            self._events.emit(
                StemReady,
                stem=stem.stem,
                path=str(stem.path),
                frames=found.frames,
                sample_rate=sample_rate,
                sha256=stem.sha256,
            )
        self._events.emit(
            JobSummary,
            model=report.model,
            engine=report.engine,
            device=report.device,
            licence=report.licence,
            duration_s=report.duration_s,
            elapsed_s=report.elapsed_s,
            null_db=report.null_db,
            gain_db=report.gain_db,
            residual=self._request.residual.value,
        )
        self._enter(JobState.DONE)

    def _enter(self, state: JobState, error: dict[str, str] | None = None) -> None:
        self._job = self._job.advance(state)
        self._events.emit(JobChanged, state=state, source=self._job.source, error=error)


def _read(reader: AudioReader | AudioBuffer) -> Iterable[Float32]:
    if isinstance(reader, AudioReader):
        return reader.blocks()
    # The same blocks as from a file: sums over blocks then round alike, and stems are the same bytes.
    return (reader.samples[:, at : at + BLOCK_FRAMES] for at in range(0, reader.frames, BLOCK_FRAMES))


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
