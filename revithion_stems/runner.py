"""One job from queued to done: source, model and sink brought together, with events and cancelling."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.audio import AudioBuffer, Float32, check_peak
from revithion_stems.audio_files import BLOCK_FRAMES, AudioReader
from revithion_stems.audio_scan import ScanResult, scan
from revithion_stems.errors import Cancelled, EngineError, InputError, RevithionError
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
from revithion_stems.requests import SeparationRequest, StemPlan, plan_stems
from revithion_stems.separator import LoadedModel, StemBlock, network_runs, separate_blocks
from revithion_stems.sinks import Sink
from revithion_stems.stem_files import WrittenStem
from revithion_stems.weights import ModelStore

_job_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationReport:
    """What a finished separation gave.

    Attributes:
        model: Name of the model.
        engine: Name of the engine.
        device: Where it ran.
        licence: Terms of the weights.
        stems: The files, in the model's order; empty where the stems stay in memory.
        duration_s: Length of the source.
        elapsed_s: Time from when the model was at hand (downloads aside) to the last file.
        run_s: Mean time of a network run, in seconds.
        null_db: Level of (Σ stems − source) relative to the source; −inf where they are equal bit for bit, None where
            the stems are not meant to add up to it, or a lossy format came between.
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

    @property
    def exact(self) -> bool:
        """Whether the stems add up to the source bit for bit."""
        return self.null_db == float("-inf")


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


def run_job(
    request: SeparationRequest,
    sink: Sink,
    *,
    on_event: EventCallback | None,
    cancel: CancelToken | None,
    store: ModelStore | None,
    models: ModelCache | None,
) -> SeparationReport:
    """Runs a request into a sink; see :mod:`revithion_stems.api` for arguments and errors."""
    cancel = cancel or CancelToken()
    runner = _Runner(request, sink, EventStream(f"job-{next(_job_numbers)}", on_event), cancel)
    try:
        return runner.run(store or ModelStore(), models or ModelCache())
    except RevithionError as exc:
        runner.end(exc)
        raise
    except MemoryError as exc:
        error = EngineError(
            "memory ran out during the separation",
            hint="Close other programs, or use a smaller model; `revithion-stems plan` tells what each needs.",
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
    def __init__(self, request: SeparationRequest, sink: Sink, events: EventStream, cancel: CancelToken) -> None:
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

    def run(self, store: ModelStore, models: ModelCache) -> SeparationReport:
        request, cancel, sink = self._request, self._cancel, self._sink
        self._enter(JobState.LOADING)
        with contextlib.ExitStack() as stack:
            reader, channels, sample_rate = self._open_source(stack)
            spec = choose_model(request, store, self._events, cancel)
            at_hand = time.monotonic()
            plan = plan_stems(request, spec)
            sink.open(spec, plan, channels, sample_rate)
            found = scan(_read(reader), channels=channels, sample_rate=sample_rate, cancel=cancel)
            self._check_source(reader, found)
            key = (spec, plan.model_stems, request.engine, request.device, request.threads, request.precision)
            model = models.get(key, lambda: load_model(request, spec, plan, store))
            for separator, _ in model.separators:
                separator.begin()
            self._enter(JobState.SEPARATING)
            frames = 0
            for block in self._separate(reader, model, plan, found, sample_rate):
                sink.write(block)
                frames += block.source.shape[1]
            if frames != found.frames:
                raise InputError(
                    f"{request.source_name} changed while it was read: {found.frames} frames, then {frames}",
                    hint="Wait until the program that writes it has finished.",
                    code="input.changed",
                )
            self._total = self._done  # the number of runs was right but for rounding at the end
            self._progress()
            for remark in dict.fromkeys(separator.remark for separator, _ in model.separators if separator.remark):
                self._events.notice("engine.precision", remark)
            run_s = (time.monotonic() - self._first_run) / max(1, self._done)
        self._enter(JobState.WRITING)
        sink.close(cancel.raise_if_cancelled)
        report = SeparationReport(
            model=spec.name,
            engine=model.engine,
            device=model.device,
            licence=spec.licence.weights,
            stems=sink.written,
            duration_s=found.frames / sample_rate,
            elapsed_s=time.monotonic() - at_hand,
            run_s=run_s,
            null_db=sink.null_db,
            gain_db=sink.gain_db,
        )
        self._finish(report, found, sample_rate)
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
        reader = stack.enter_context(AudioReader(Path(source)))
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
        sample_rate: int,
    ) -> Iterator[StemBlock]:
        runs = network_runs(
            plan,
            self._request,
            frames=found.frames,
            sample_rate=sample_rate,
            channels=found.channels,
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

    def _finish(self, report: SeparationReport, found: ScanResult, sample_rate: int) -> None:
        if report.gain_db:
            self._events.notice(
                "output.gain",
                f"a stem would clip: all stems are {-report.gain_db:.2f} dB lower (32-bit float WAV needs no gain)",
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
            exact=report.exact,
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
