"""One job from queued to done: source, model, content store and sink brought together, with events and cancelling.

A job has three stages. :meth:`StagedSeparation.run` runs them one after the other, a batch those of several at once:
*prepare* reads the source and looks whether the result is there already, *separate* computes, *deliver* writes.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from revithion_stems.audio import AudioBuffer, check_peak
from revithion_stems.audio_files import AudioReader
from revithion_stems.audio_scan import AudioDigest
from revithion_stems.catalog import ModelSpec
from revithion_stems.errors import Cancelled, RevithionError, out_of_memory, unexpected_error
from revithion_stems.events import CancelToken, EventCallback, EventStream
from revithion_stems.fingerprint import result_key
from revithion_stems.job_record import JobRecord
from revithion_stems.job_store import JobStore
from revithion_stems.jobs import JobState
from revithion_stems.model_loading import ModelCache, choose_model, find_engine, load_model, wanted_networks
from revithion_stems.reports import SeparationReport, cached_report, make_manifest, manifest_source
from revithion_stems.requests import SeparationRequest, StemPlan, plan_stems
from revithion_stems.segment_runs import SegmentRuns
from revithion_stems.separator import LoadedModel, StemBlock, network_runs, separate_blocks
from revithion_stems.sinks import Sink
from revithion_stems.source_facts import SourceFacts, buffer_facts, changed_error, file_facts
from revithion_stems.store import ContentStore
from revithion_stems.weights import ModelStore

_job_numbers = itertools.count(1)


class StagedSeparation:
    """A job whose stages are run by somebody else, in order, each on any thread; :meth:`close` ends it in any case.

    Each stage raises :class:`RevithionError` after the job's last event was emitted and what it began was removed.
    Whoever runs the stages need not look at :attr:`report` in between: once it is there, stages do nothing.

    Args:
        request: What to separate.
        sink: Where stems go.
        on_event: Called with each event, on the thread that runs the stage.
        cancel: Cancelling it stops the work before the next network run.
        store: Where weights are; by default the user's.
        models: Keeps the model for the next job.
        contents: Where results are kept; by default the user's cache.
        force_refresh: Whether to compute what is there already, and to forget what an earlier attempt left.
        job_id: Put on its events; by default ``job-1`` and so on in this process.

    Attributes:
        report: What came of it; None until it is done.
    """

    def __init__(
        self,
        request: SeparationRequest,
        sink: Sink,
        *,
        on_event: EventCallback | None = None,
        cancel: CancelToken | None = None,
        store: ModelStore | None = None,
        models: ModelCache | None = None,
        contents: ContentStore | None = None,
        force_refresh: bool = False,
        job_id: str | None = None,
    ) -> None:
        self.report: SeparationReport | None = None
        self._request = request
        self._sink = sink
        self._events = EventStream(job_id or f"job-{next(_job_numbers)}", on_event)
        self._cancel = cancel or CancelToken()
        self._store = store or ModelStore()
        self._models = models or ModelCache()
        self._contents = contents or ContentStore()
        self._force_refresh = force_refresh
        self._record = JobRecord(request, self._events)
        self._spent = self._choosing = 0.0
        self._stage_began = time.monotonic()
        self._kept: JobStore | None = None
        self._weights: tuple[str, ...] = ()

    def run(self) -> SeparationReport:
        """All stages and the end; for who has no other job to run beside it."""
        try:
            self.prepare()
            self.separate()
            return self.deliver()
        finally:
            self.close()

    def prepare(self) -> None:
        """Identifies the source, chooses the model, and delivers at once what the content store has."""
        with self._stage():
            self._record.enter(JobState.LOADING)
            source = self._request.source
            if isinstance(source, AudioBuffer):
                self._choose(source.channels, source.sample_rate)
                self._facts = buffer_facts(source, self._cancel)
            else:
                chosen = False

                def before_scan(channels: int, sample_rate: int) -> None:
                    nonlocal chosen
                    self._choose(channels, sample_rate)
                    self._sink.probe()
                    chosen = True

                self._facts = file_facts(Path(source), self._contents, self._cancel, before_scan)
                if not chosen:
                    self._choose(self._facts.scan.channels, self._facts.sample_rate)
            check_peak(self._facts.scan.peak, origin=self._request.source_name)
            self._record.note_source(self._facts)
            self._open_store()
            self._restore()

    def separate(self) -> None:
        """Runs the networks and hands the stems to the sink."""
        if self.report is not None:
            return
        with self._stage():
            journal = self._kept.hold() if self._kept is not None else None
            self._restore()  # another process may have delivered it meanwhile
            if self.report is not None:
                return
            drop_journal = self._kept.drop_journal if self._kept is not None else lambda: None
            self._runs = SegmentRuns(self._events, self._cancel, journal, drop_journal)
            facts, plan = self._facts, self._plan
            self._sink.begin(facts.scan.frames, self._kept.note_temporary if self._kept is not None else None)
            request = self._request
            key = (self._spec, plan.model_stems, request.engine, request.device, request.threads, request.precision)
            self._model: LoadedModel = self._models.get(key, lambda: load_model(request, self._spec, plan, self._store))
            model = self._model
            for separator, _ in model.separators:
                separator.begin()
            self._record.enter(JobState.SEPARATING)
            for block in self._separated(model, plan, facts):
                self._sink.write(block)
            self._run_s = self._runs.finish()
            for remark in dict.fromkeys(separator.remark for separator, _ in model.separators if separator.remark):
                self._events.notice("engine.precision", remark)

    def deliver(self) -> SeparationReport:
        """Writes the stems and their manifest, and keeps a copy in the content store."""
        if self.report is not None:
            return self.report
        with self._stage():
            self._record.enter(JobState.WRITING)
            self._sink.encode(self._cancel.raise_if_cancelled)
            model = self._model
            report = SeparationReport(
                model=self._spec.name,
                engine=model.engine,
                device=model.device,
                licence=self._spec.licence.weights,
                stems=self._sink.written,
                duration_s=self._facts.scan.frames / self._facts.sample_rate,
                elapsed_s=self._elapsed_s(),
                run_s=self._run_s,
                null_db=self._sink.null_db,
                lag_frames=self._sink.lag_frames,
                gain_db=self._sink.gain_db,
                resumed_runs=self._runs.recalled,
                manifest=self._sink.manifest_path,
            )
            manifest = None
            if self._kept is not None and self._sink.format is not None:
                manifest = make_manifest(
                    key=self._kept.key,
                    facts=self._facts,
                    spec=self._spec,
                    weights=self._weights,
                    plan=self._plan,
                    request=self._request,
                    output_format=self._sink.format,
                    report=report,
                )
            manifest = self._sink.publish(manifest)
            if manifest is not None and self._kept is not None:
                self._kept.keep(manifest, dict.fromkeys(stem.path for stem in report.stems))
                self._kept.finish()
            self._finish(report)
        return report

    def close(self) -> None:
        """Throws away what was not delivered and lets go of what is held; the journal of a killed job stays."""
        self._sink.abort()
        if self._kept is not None:
            self._kept.close()

    @contextlib.contextmanager
    def _stage(self) -> Generator[None]:
        self._stage_began = time.monotonic()
        try:
            self._cancel.raise_if_cancelled()
            yield
            self._spent += time.monotonic() - self._stage_began
        except RevithionError as exc:
            self._fail(exc)
            raise
        except MemoryError as exc:
            error = out_of_memory("during the separation")
            self._fail(error)
            raise error from exc
        except BaseException as exc:
            # A bug, or Ctrl-C where nobody caught it: it goes on as it is, but whoever follows the job sees it end.
            with contextlib.suppress(Exception):
                self._fail(_unexpected(exc))
            raise

    def _elapsed_s(self) -> float:
        """Time in the stages so far; downloads aside, and the time between stages."""
        return self._spent + time.monotonic() - self._stage_began - self._choosing

    def _fail(self, error: RevithionError) -> None:
        if self._kept is not None and error.code == "input.changed":
            self._kept.finish()  # nobody will ask for that key again
        elif self._kept is not None and error.code == "engine.not_finite":
            self._kept.drop_journal()
        self.close()
        self._record.fail(error)

    def _choose(self, channels: int, sample_rate: int) -> None:
        began = time.monotonic()
        self._spec: ModelSpec = choose_model(self._request, self._store, self._events, self._cancel)
        self._choosing = time.monotonic() - began
        self._plan: StemPlan = plan_stems(self._request, self._spec)
        self._sink.open(self._spec, self._plan, channels, sample_rate)

    def _open_store(self) -> None:
        if self._sink.format is None or self._facts.tags_sha256 is None:
            return  # of stems in memory nothing is kept
        networks = wanted_networks(self._spec, self._plan)
        entry, device = find_engine(self._request, self._spec, networks, self._store)
        self._weights = self._store.digests(self._spec, networks, entry.formats)
        key = result_key(
            audio_sha256=self._facts.scan.sha256,
            tags_sha256=self._facts.tags_sha256,
            spec=self._spec,
            weights=self._weights,
            plan=self._plan,
            request=self._request,
            engine=entry.name,
            device=device,
            output_format=self._sink.format,
        )
        self._kept = JobStore(self._contents, key, self._events, self._cancel, force_refresh=self._force_refresh)

    def _restore(self) -> None:
        """Delivers what the content store has, and ends the job by that."""
        if self._kept is None:
            return
        manifest = self._kept.restore(self._sink, manifest_source(self._facts, self._request))
        if manifest is not None:
            self._record.enter(JobState.WRITING)
            self._finish(cached_report(manifest, self._sink, self._elapsed_s()))

    def _finish(self, report: SeparationReport) -> None:
        self._record.finish(report, self._facts)
        self.report = report

    def _separated(self, model: LoadedModel, plan: StemPlan, facts: SourceFacts) -> Iterator[StemBlock]:
        source = self._request.source
        sample_rate = facts.sample_rate
        runs = network_runs(
            plan,
            self._request,
            frames=facts.scan.frames,
            sample_rate=sample_rate,
            channels=facts.scan.channels,
            spec=model.spec,
        )
        self._runs.expect(runs * len(model.separators))
        digest = AudioDigest(channels=facts.scan.channels, sample_rate=sample_rate)
        with contextlib.ExitStack() as stack:
            if isinstance(source, AudioBuffer):
                blocks = source.blocks()
            else:
                reader = stack.enter_context(AudioReader(Path(source)))
                if (reader.info.channels, reader.info.sample_rate) != (facts.scan.channels, sample_rate):
                    raise changed_error(self._request.source_name)
                blocks = reader.blocks()
            yield from separate_blocks(
                digest.follow(blocks),
                model=model,
                plan=plan,
                request=self._request,
                sample_rate=sample_rate,
                scan=facts.scan,
                grid_bits=self._sink.grid_bits,
                run_segment=self._runs.run,
            )
        if digest.hexdigest() != facts.scan.sha256:
            raise changed_error(self._request.source_name)


def _unexpected(error: BaseException) -> RevithionError:
    if isinstance(error, KeyboardInterrupt):
        return Cancelled("interrupted", hint="Run the same command again to go on.")
    return unexpected_error(error)
