"""Who makes the estimates that are measured: models, a floor, a ceiling, or files that are there already."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from revithion_stems.audio import AudioBuffer, Float32
from revithion_stems.audio_files import AUDIO_SUFFIXES, read_audio
from revithion_stems.errors import InputError, RequestError
from revithion_stems.evaluation.scores import EstimatorKind
from revithion_stems.events import CancelToken, JobChanged, JobEvent, JobProgress
from revithion_stems.jobs import JobState
from revithion_stems.model_loading import ModelCache
from revithion_stems.network_files import named_model
from revithion_stems.requests import SeparationRequest
from revithion_stems.runner import StagedSeparation
from revithion_stems.sinks import MemorySink
from revithion_stems.stems import ResidualPolicy
from revithion_stems.training.datasets.folder import ACCOMPANIMENT, entries
from revithion_stems.training.datasets.multitrack import Multitrack
from revithion_stems.weights import ModelStore

MIX = "mix"
ORACLE = "oracle"
ESTIMATES = "estimates:"
"""What ``--model`` takes besides names of models; the last one is followed by a folder."""

OnFraction = Callable[[float], None]
"""Called with the part of a song's work that is done, 0–1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Estimates of a song's stems.

    Attributes:
        stems: By name, float32 ``[channels, frames]`` of the mix's shape.
        elapsed_s: Seconds that it took, loading aside; NaN where nothing was separated.
    """

    stems: Mapping[str, Float32]
    elapsed_s: float = math.nan


class Estimator(Protocol):
    """Makes estimates of one song after the other. One thread at a time."""

    @property
    def name(self) -> str:
        """As it was asked for."""
        ...

    @property
    def kind(self) -> EstimatorKind:
        """What its estimates are."""
        ...

    def estimate(self, song: Multitrack, mix: Float32, *, on_fraction: OnFraction, cancel: CancelToken) -> Estimate:
        """Stems of a song.

        Args:
            song: For its name, rate and stems; models must not read it.
            mix: The sum of its stems, float32 ``[2, frames]``.
            on_fraction: Called while it works.
            cancel: Looked at now and then.

        Raises:
            RevithionError: Whatever keeps it from its work.
        """
        ...


class MixFloor:
    """Every stem is the mix divided by the number of stems: what is had without separation."""

    name = MIX
    kind = EstimatorKind.FLOOR

    def estimate(self, song: Multitrack, mix: Float32, *, on_fraction: OnFraction, cancel: CancelToken) -> Estimate:
        """See :meth:`Estimator.estimate`."""
        share = mix / np.float32(len(song.stems))
        return Estimate(stems=dict.fromkeys(song.stems, share))


class OracleCeiling:
    """Ideal ratio masks; see :mod:`revithion_stems.evaluation.oracle`."""

    name = ORACLE
    kind = EstimatorKind.CEILING

    def estimate(self, song: Multitrack, mix: Float32, *, on_fraction: OnFraction, cancel: CancelToken) -> Estimate:
        """See :meth:`Estimator.estimate`."""
        from revithion_stems.evaluation.oracle import oracle_stems

        def read(stem: str, start: int, frames: int) -> Float32:
            cancel.raise_if_cancelled()
            on_fraction(start / song.frames)
            return song.read(stem, start, frames)

        return Estimate(stems=oracle_stems(read, song.stems, song.frames))


class CatalogModel:
    """A model of the catalog or a network file, loaded once; its plain estimates, without what closes the null.

    Args:
        name: In the catalog, or the path of the file, by which reports name it too: a file may be called like a model.
        store: Where weights are.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        threads: CPU threads for the network; None leaves it to the engine.
        on_event: Gets notices and downloads.

    Raises:
        ModelError: There is no such model, or the file is none.
    """

    kind = EstimatorKind.MODEL

    def __init__(
        self,
        name: str,
        *,
        store: ModelStore,
        device: str = "auto",
        threads: int | None = None,
        on_event: Callable[[JobEvent], None] | None = None,
    ) -> None:
        named_model(name, store.catalog)  # one that there isn't is told of now, not when its turn comes
        self.name = name
        self._store = store
        self._device = device
        self._threads = threads
        self._on_event = on_event
        self._models = ModelCache()

    def estimate(self, song: Multitrack, mix: Float32, *, on_fraction: OnFraction, cancel: CancelToken) -> Estimate:
        """See :meth:`Estimator.estimate`."""
        began = math.nan

        def on_event(event: JobEvent) -> None:
            nonlocal began
            if isinstance(event, JobChanged) and event.state is JobState.SEPARATING:
                began = time.perf_counter()  # the model is loaded
            elif isinstance(event, JobProgress):
                on_fraction(event.done / max(1, event.total))
            if self._on_event is not None:
                self._on_event(event)

        request = SeparationRequest(
            source=AudioBuffer(samples=mix, sample_rate=song.sample_rate),
            model=self.name,
            residual=ResidualPolicy.STEM,
            device=self._device,
            threads=self._threads,
        )
        sink = MemorySink()
        StagedSeparation(request, sink, on_event=on_event, cancel=cancel, store=self._store, models=self._models).run()
        elapsed_s = time.perf_counter() - began
        return Estimate(
            stems={name: buffer.samples for name, buffer in sink.stem_set().stems.items()}, elapsed_s=elapsed_s
        )


class EstimateFolder:
    """Files that were made elsewhere: ``FOLDER/song/stem.wav``, or any other format of audio.

    Args:
        path: The folder.

    Raises:
        InputError: There is no such folder.
    """

    kind = EstimatorKind.ESTIMATES

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(
                f"{path} is not a folder of estimates",
                hint="Name a folder with a folder per song and a file per stem, such as song/vocals.wav.",
                code="input.missing",
            )
        self.name = path.resolve().name
        self._path = path

    def estimate(self, song: Multitrack, mix: Float32, *, on_fraction: OnFraction, cancel: CancelToken) -> Estimate:
        """See :meth:`Estimator.estimate`.

        Raises:
            InputError: The song has no folder or no stems there, or their shape or rate is not the song's.
        """
        folder = self._path / song.name
        files = entries(folder) if folder.is_dir() else []
        audio = {file.stem.lower(): file for file in files if file.suffix.lower() in AUDIO_SUFFIXES}
        wanted = {stem: audio[stem] for stem in (*song.stems, ACCOMPANIMENT) if stem in audio}
        if not wanted:
            raise InputError(
                f"{folder} has no estimate of {', '.join(song.stems)}",
                hint="Put a folder of the song's name there, with a file per stem, or choose songs with --song.",
                code="input.missing",
            )
        stems: dict[str, Float32] = {}
        for index, (stem, file) in enumerate(wanted.items()):
            cancel.raise_if_cancelled()
            on_fraction(index / len(wanted))
            stems[stem] = _as_song(file, read_audio(file), song)
        return Estimate(stems=stems)


def open_estimators(
    names: Sequence[str],
    *,
    store: ModelStore,
    device: str = "auto",
    threads: int | None = None,
    on_event: Callable[[JobEvent], None] | None = None,
) -> tuple[Estimator, ...]:
    """Estimators by name: a model of the catalog, a network file, ``mix``, ``oracle`` or ``estimates:FOLDER``.

    Raises:
        ModelError: A model is unknown.
        InputError: A folder is not there.
        RequestError: No name, or one twice.
    """
    estimators: list[Estimator] = []
    for name in names:
        if name == MIX:
            estimators.append(MixFloor())
        elif name == ORACLE:
            estimators.append(OracleCeiling())
        elif name.startswith(ESTIMATES):
            estimators.append(EstimateFolder(Path(name.removeprefix(ESTIMATES))))
        else:
            estimators.append(CatalogModel(name, store=store, device=device, threads=threads, on_event=on_event))
    found = [estimator.name for estimator in estimators]
    if not found or len(set(found)) != len(found):
        raise RequestError(
            f"models {', '.join(found) or '(none)'}: there must be at least one, and none twice",
            hint=f"Name models of `revithion-stems models list`, {MIX}, {ORACLE} or {ESTIMATES}FOLDER.",
            code="request.model",
        )
    return tuple(estimators)


def _as_song(file: Path, audio: AudioBuffer, song: Multitrack) -> Float32:
    samples = np.broadcast_to(audio.samples, (2, audio.frames)) if audio.channels == 1 else audio.samples
    if (audio.sample_rate, samples.shape) != (song.sample_rate, (2, song.frames)):
        raise InputError(
            f"{file} has {audio.channels} channels and {audio.frames} frames at {audio.sample_rate} Hz, the song has 2 "
            f"and {song.frames} at {song.sample_rate}",
            hint="Export the estimates at the song's rate and length.",
            code="input.shape",
        )
    return samples
