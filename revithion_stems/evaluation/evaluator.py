"""The evaluation itself: every model on every song, one after the other, and what it found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from revithion_stems.audio import Float32
from revithion_stems.errors import InputError
from revithion_stems.evaluation.estimators import Estimator
from revithion_stems.evaluation.scores import (
    DEFAULT_GROUPS,
    EvaluationReport,
    MetricGroup,
    ModelScores,
    SongScores,
)
from revithion_stems.evaluation.song_figures import stem_figures, sum_null_db
from revithion_stems.evaluation.truth import matched_stems, mix_of, reference
from revithion_stems.events import CancelToken
from revithion_stems.training.datasets.multitrack import Multitrack
from revithion_stems.version import __version__

_ESTIMATING = 0.8
"""Part of a song's work that is over when its estimates are made; only the bar of progress relies on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationProgress:
    """How far an evaluation is.

    Attributes:
        model: That is measured now.
        song: That is measured now.
        fraction: Done of all, 0–1.
        remaining_s: Seconds left, by the rate so far; None until there is one.
    """

    model: str
    song: str
    fraction: float
    remaining_s: float | None


class Listener(Protocol):
    """Sees each song's audio once it is measured, for pictures of it."""

    def heard(
        self, *, model: str, song: str, stem: str, reference: Float32, estimate: Float32, sample_rate: int
    ) -> None:
        """Takes reference and estimate, float32 ``[channels, frames]``; must not change or keep them."""
        ...

    def wants(self, *, model: str, song: str) -> bool:
        """Whether it is to see that."""
        ...


def evaluate(
    songs: Sequence[Multitrack],
    estimators: Sequence[Estimator],
    *,
    dataset: str,
    groups: frozenset[MetricGroup] = DEFAULT_GROUPS,
    on_progress: Callable[[EvaluationProgress], None] | None = None,
    listener: Listener | None = None,
    cancel: CancelToken | None = None,
) -> EvaluationReport:
    """Measures estimators on songs. Blocking; any thread.

    Memory is that of one song: its mix, its estimates and one reference.

    Args:
        songs: Whose stems are known.
        estimators: From :func:`~revithion_stems.evaluation.estimators.open_estimators`, or your own.
        dataset: Its name, for the report.
        groups: What to compute; energy is always.
        on_progress: Called several times per song, on the calling thread.
        listener: Sees the audio of the songs that it wants.
        cancel: Cancelling it stops the work at the next step.

    Raises:
        InputError: There are no songs, or one has no stems.
        RequestError: A model and a song have no stem in common, or shapes differ.
        EngineError: museval is wanted and not installed; besides what models raise.
        Cancelled: ``cancel`` was cancelled.
    """
    if not songs or any(not song.stems or song.frames < 1 for song in songs):
        raise InputError(
            f"{dataset}: there are no songs to evaluate, or one without stems",
            hint="Name a folder with a folder per song and a file per stem, or other songs with --song.",
            code="input.empty",
        )
    cancel = cancel or CancelToken()
    progress = _Progress(sum(song.frames for song in songs) * len(estimators), on_progress)
    models: list[ModelScores] = []
    for estimator in estimators:
        scores: list[SongScores] = []
        for song in songs:
            cancel.raise_if_cancelled()
            progress.enter(estimator.name, song)
            scores.append(_song_scores(song, estimator, groups, progress, listener, cancel))
            progress.leave()
        models.append(ModelScores(model=estimator.name, kind=estimator.kind, songs=tuple(scores)))
    return EvaluationReport(
        dataset=dataset,
        version=__version__,
        groups=groups | {MetricGroup.ENERGY},
        models=tuple(models),
        peak_memory_mib=peak_memory_mib(),
    )


def _song_scores(
    song: Multitrack,
    estimator: Estimator,
    groups: frozenset[MetricGroup],
    progress: _Progress,
    listener: Listener | None,
    cancel: CancelToken,
) -> SongScores:
    mix = mix_of(song)
    estimate = estimator.estimate(song, mix, on_fraction=progress.estimating, cancel=cancel)
    null_db = sum_null_db(mix, list(estimate.stems.values()))
    estimates = matched_stems(estimate.stems, song)
    progress.estimating(1.0)
    stems = stem_figures(
        lambda stem: reference(song, mix, stem),
        estimates,
        sample_rate=song.sample_rate,
        groups=groups,
        check_cancelled=cancel.raise_if_cancelled,
    )
    if listener is not None and listener.wants(model=estimator.name, song=song.name):
        for stem, samples in estimates.items():
            listener.heard(
                model=estimator.name,
                song=song.name,
                stem=stem,
                reference=reference(song, mix, stem),
                estimate=samples,
                sample_rate=song.sample_rate,
            )
    return SongScores(
        song=song.name,
        duration_s=song.frames / song.sample_rate,
        elapsed_s=estimate.elapsed_s,
        null_db=null_db,
        stems=stems,
    )


class _Progress:
    """Work is counted in frames of songs; time left follows from the rate of all before."""

    def __init__(self, total: int, callback: Callable[[EvaluationProgress], None] | None) -> None:
        self._total = total
        self._callback = callback
        self._done = 0
        self._began = time.monotonic()
        self._model, self._song, self._frames = "", "", 0

    def enter(self, model: str, song: Multitrack) -> None:
        self._model, self._song, self._frames = model, song.name, song.frames
        self._tell(0.0)

    def leave(self) -> None:
        self._done += self._frames
        self._tell(0.0)

    def estimating(self, fraction: float) -> None:
        self._tell(_ESTIMATING * fraction)

    def _tell(self, part: float) -> None:
        if self._callback is None:
            return
        fraction = (self._done + part * self._frames) / self._total
        elapsed_s = time.monotonic() - self._began
        remaining_s = elapsed_s / fraction * (1 - fraction) if fraction > 0 else None
        self._callback(
            EvaluationProgress(model=self._model, song=self._song, fraction=fraction, remaining_s=remaining_s)
        )


def peak_memory_mib() -> float | None:
    """Largest resident memory of this process so far, in MiB; None where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import psutil

    peak: int | None = getattr(psutil.Process().memory_info(), "peak_wset", None)  # on Windows
    return None if peak is None else peak / 2**20
