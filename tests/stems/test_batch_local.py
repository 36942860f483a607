"""A batch on this machine: three stages at once, each file's own fate, and the same bytes as file by file."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems import batch_local
from revithion_stems.api import separate_to_files
from revithion_stems.batch_items import Batch, BatchItem, BatchResult, BatchSummary, Outcome
from revithion_stems.batch_local import run_local
from revithion_stems.errors import Cancelled, InputError, OutputError
from revithion_stems.events import CancelToken, JobChanged
from revithion_stems.jobs import JobState
from revithion_stems.outputs import OutputOptions
from revithion_stems.reports import SeparationReport
from revithion_stems.requests import SeparationRequest

STAGES = ("prepare", "separate", "deliver")
WAIT_S = 10


def report(*, cached: bool = False) -> SeparationReport:
    return SeparationReport(
        model="dsp", engine="numpy", device="cpu", licence="none", stems=(), duration_s=2.0, elapsed_s=9.0,
        run_s=0.0, null_db=-math.inf, lag_frames=0, gain_db=0.0, cached=cached, manifest=Path("x/manifest.json"),
    )  # fmt: skip


class Workshop:
    """Stands for the jobs: what happens to a file is in its name, and who was where when is kept.

    A name is ``ok``, ``cached``, or a stage and an error, such as ``deliver-output``.
    """

    def __init__(self) -> None:
        self.open: set[FakeJob] = set()
        self.most_open = 0
        self.most_separated = 0
        self.calls: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.during = lambda job, stage: None

    def __call__(self, request, sink, *, on_event, cancel, store, models, force_refresh) -> FakeJob:
        job = FakeJob(self, request.source_name, on_event, cancel)
        with self.lock:
            self.open.add(job)
            self.most_open = max(self.most_open, len(self.open))
        return job


class FakeJob:
    def __init__(self, workshop, name, on_event, cancel) -> None:
        self.report: SeparationReport | None = None
        self.workshop = workshop
        self.name = name
        self.fate = name.partition(" ")[2] or name
        self.on_event = on_event
        self.cancel = cancel
        self.separated = False

    def prepare(self) -> None:
        self._stage("prepare")
        if self.fate == "cached":
            self.report = report(cached=True)

    def separate(self) -> None:
        self._stage("separate")
        self.separated = True
        with self.workshop.lock:
            separated = sum(job.separated for job in self.workshop.open)
            self.workshop.most_separated = max(self.workshop.most_separated, separated)

    def deliver(self) -> SeparationReport:
        self._stage("deliver")
        self.report = report()
        return self.report

    def close(self) -> None:
        with self.workshop.lock:
            self.workshop.open.discard(self)

    def _stage(self, stage: str) -> None:
        assert self.report is None
        with self.workshop.lock:
            self.workshop.calls.append((self.name, stage))
        self.on_event(JobChanged(job_id=self.name, seq=0, state=JobState.LOADING, source=self.name))
        self.workshop.during(self, stage)
        self.cancel.raise_if_cancelled()
        where, _, error = self.fate.partition("-")
        if where == stage:
            if error == "bug":
                raise ZeroDivisionError("oh")
            kind = {"input": InputError, "output": OutputError}[error]
            raise kind(f"{self.name} failed", hint="None.")


@pytest.fixture
def workshop(monkeypatch):
    return install(monkeypatch)


def install(monkeypatch) -> Workshop:
    workshop = Workshop()
    monkeypatch.setattr(batch_local, "StagedSeparation", workshop)
    return workshop


def batch_of(*names: str) -> Batch:
    items = tuple(BatchItem(source=f"{number} {name}") for number, name in enumerate(names))
    return Batch(items=items, request=SeparationRequest(source="", model="dsp"), output=OutputOptions())


# --- the line ---


def test_three_files_are_in_work_at_once_each_in_its_stage(workshop):
    meeting = threading.Barrier(3)  # is passed only by three at a time

    def meet(job, stage):
        if (job.name[0], stage) in (("2", "prepare"), ("1", "separate"), ("0", "deliver")):
            meeting.wait(WAIT_S)

    workshop.during = meet
    results = run_local(batch_of("ok", "ok", "ok", "ok"))
    assert not meeting.broken
    assert [result.outcome for result in results] == [Outcome.DONE] * 4


def test_the_networks_run_on_the_calling_thread(workshop):
    seen: dict[str, set[str]] = {stage: set() for stage in STAGES}
    workshop.during = lambda job, stage: seen[stage].add(threading.current_thread().name)
    run_local(batch_of(*["ok"] * 5))
    assert seen["separate"] == {threading.current_thread().name}
    assert seen["deliver"].isdisjoint(seen["separate"] | seen["prepare"])


@pytest.mark.parametrize("slow", STAGES)
def test_a_slow_stage_does_not_let_files_pile_up(workshop, slow):
    workshop.during = lambda job, stage: time.sleep(0.02 if stage == slow else 0)
    run_local(batch_of(*["ok"] * 12))
    assert workshop.most_open <= 3
    assert workshop.most_separated <= 2  # one that waits, one that is delivered: so much disk, and no more


FATES = ("ok", "cached", *(f"{stage}-{error}" for stage in STAGES for error in ("input", "output", "bug")))
EXPECTED = {"ok": (Outcome.DONE, 0, None), "cached": (Outcome.CACHED, 0, None)}
ENDS = {"input": (3, "input.unreadable"), "output": (5, "output.unwritable"), "bug": (1, "error.unexpected")}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(FATES), max_size=9))
def test_each_file_has_its_own_fate(fates):
    with pytest.MonkeyPatch.context() as patch:
        workshop = install(patch)
        inside = threading.Lock()
        ended: list[BatchResult] = []

        def one_at_a_time(value):
            assert inside.acquire(blocking=False)
            if isinstance(value, BatchResult):
                ended.append(value)
            inside.release()

        batch = batch_of(*fates)
        results = run_local(batch, on_event=one_at_a_time, on_result=one_at_a_time)
    assert [result.item for result in results] == list(batch.items)
    assert sorted(map(id, ended)) == sorted(map(id, results))
    assert not workshop.open
    assert workshop.most_open <= 3
    for fate, result in zip(fates, results, strict=True):
        stage, _, error = fate.partition("-")
        wanted = EXPECTED[fate] if fate in EXPECTED else (Outcome.FAILED, *ENDS[error])
        assert (result.outcome, result.exit_code, result.error and result.error["code"]) == wanted
        calls = [call for name, call in workshop.calls if name == result.item.source]
        last = {"ok": "deliver", "cached": "prepare"}.get(stage, stage)
        assert calls == list(STAGES[: STAGES.index(last) + 1])
    summary = BatchSummary.of(results, elapsed_s=1.0)
    assert summary.files == summary.done + summary.cached + summary.failed == len(fates)
    assert summary.exit_code == next((result.exit_code for result in results if result.exit_code), 0)
    assert summary.audio_s == 2.0 * summary.done


def test_a_result_carries_the_figures(workshop):
    workshop.during = lambda job, stage: time.sleep(0.01)
    (result,) = run_local(batch_of("ok"))
    assert (result.model, result.duration_s, result.exact, result.null_db) == ("dsp", 2.0, True, -math.inf)
    assert result.manifest == str(Path("x/manifest.json"))
    assert 0.03 <= result.elapsed_s < 5  # its own stages, and not the nine seconds of waiting in the report


def test_an_empty_batch(workshop):
    assert run_local(batch_of()) == []


# --- stopping ---


def test_cancelling_stops_every_stage_and_begins_nothing_new(workshop):
    cancel = CancelToken()
    meeting = threading.Barrier(3)

    def meet_and_cancel(job, stage):
        if (job.name[0], stage) in (("2", "prepare"), ("1", "separate"), ("0", "deliver")):
            meeting.wait(WAIT_S)
            cancel.cancel()

    workshop.during = meet_and_cancel
    results = run_local(batch_of(*["ok"] * 6), cancel=cancel)
    assert [result.outcome for result in results] == [Outcome.CANCELLED] * 6
    assert not workshop.open
    assert {name[0] for name, _ in workshop.calls} == {"0", "1", "2"}
    assert BatchSummary.of(results, elapsed_s=1.0).exit_code == Cancelled.exit_code


@pytest.mark.parametrize("which", ["on_event", "on_result"])
def test_an_exception_from_a_callback_stops_the_batch_and_comes_out(workshop, which):
    cancel = CancelToken()

    def gone(_):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_local(batch_of(*["ok"] * 20), cancel=cancel, **{which: gone})
    assert cancel.cancelled
    assert not workshop.open
    assert len({name for name, _ in workshop.calls}) <= 4


def test_an_interrupt_on_the_calling_thread_ends_all_jobs(workshop):
    def interrupt(job, stage):
        if (job.name[0], stage) == ("1", "separate"):
            raise KeyboardInterrupt

    workshop.during = interrupt
    with pytest.raises(KeyboardInterrupt):
        run_local(batch_of(*["ok"] * 6))
    assert not workshop.open


# --- the real thing ---


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("REVITHION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "music").mkdir()
    generator = np.random.default_rng(0)
    for number in range(4):
        samples = generator.standard_normal((30_000 + number, 2)) * 0.05
        soundfile.write(tmp_path / "music" / f"{number}.wav", samples, 44_100)
    (tmp_path / "music" / "2.wav").write_text("not audio")
    return tmp_path


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.wav")
    }


def test_the_bytes_are_those_of_single_runs_and_the_second_time_they_are_there_already(place):
    request = SeparationRequest(source="", model="dsp")
    items = tuple(
        BatchItem(source=str(place / "music" / f"{number}.wav"), folder=PurePosixPath("below")) for number in range(4)
    )
    batch = Batch(items=items, request=request, output=OutputOptions(folder=place / "out"))
    events = []
    results = run_local(batch, on_event=events.append)
    assert [result.outcome for result in results] == [Outcome.DONE, Outcome.DONE, Outcome.FAILED, Outcome.DONE]
    assert results[2].error is not None
    assert results[2].error["code"] == "input.not_audio"
    assert results[0].exact
    assert Path(results[0].manifest or "").parent == (place / "out" / "below" / "0").resolve()
    jobs = {event.job_id for event in events}
    assert len(jobs) == 4
    for job in jobs:
        own = [event for event in events if event.job_id == job]
        assert [event.seq for event in own] == list(range(len(own)))
        assert own[-1].state.is_final
    assert (place / "state" / "rates.json").exists()

    for result in results:
        if result.outcome is Outcome.DONE:
            separate_to_files(
                SeparationRequest(source=result.item.source, model="dsp"),
                OutputOptions(folder=place / "single" / "below"),
                force_refresh=True,
            )
    assert digests(place / "out") == digests(place / "single")
    assert len(digests(place / "out")) == 12

    again = [result.outcome for result in run_local(batch)]
    assert again == [Outcome.CACHED, Outcome.CACHED, Outcome.FAILED, Outcome.CACHED]
