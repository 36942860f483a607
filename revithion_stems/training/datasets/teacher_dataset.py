"""Multitracks made by a teacher: songs separated by a model of the catalog, taken for true stems."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.api import separate_to_files
from revithion_stems.catalog import ModelSpec, load_catalog
from revithion_stems.errors import InputError, RequestError
from revithion_stems.events import CancelToken
from revithion_stems.model_loading import ModelCache
from revithion_stems.output_errors import output_errors
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.outputs import OutputOptions
from revithion_stems.paths import safe_component
from revithion_stems.requests import SeparationRequest
from revithion_stems.store import ContentStore
from revithion_stems.training.datasets.dataset_file import DatasetFile, publish_song, write_dataset_file
from revithion_stems.training.datasets.dataset_progress import DatasetProgress, ProgressCallback
from revithion_stems.training.datasets.folder import audio_files, entries
from revithion_stems.weights import ModelStore

_FLAC = OutputFormat(container=Container.FLAC, bit_depth=BitDepth.INT16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A song for the teacher.

    Attributes:
        name: Of the song's folder in the dataset.
        mix: The file to separate.
        parts: Files that are stems already, by the name that they get.
    """

    name: str
    mix: Path
    parts: Mapping[str, Path]


def pseudo_label(
    mixes: Path | Sequence[Path],
    model: str,
    destination: Path,
    *,
    parts: Mapping[str, str] | None = None,
    main: str = "song",
    licence: str = "not stated",
    commercial_use: bool = False,
    device: str = "auto",
    on_progress: ProgressCallback | None = None,
    cancel: CancelToken | None = None,
    store: ModelStore | None = None,
    contents: ContentStore | None = None,
) -> None:
    """Makes a folder of multitracks, FLAC of 16 bits, that :func:`open_folder` opens. Songs that are there are kept.

    The stems of a song add up to it. A teacher with two stems leaves songs that are known as ``vocals`` and
    ``accompaniment`` only. What was interrupted goes on where it was.

    Args:
        mixes: Audio files, or folders of them; with ``parts``, folders in which each song is a folder.
        model: The teacher: a name of the catalog, whose weights are fetched if they are not here.
        destination: The dataset's folder.
        parts: For songs that come in parts, as Frets on Fire's do: name of a file without its ending → stem, such as
            ``{"guitar": "other"}``. Only the file called ``main`` is separated; the parts go to their stems as they
            are.
        main: See ``parts``.
        licence: Of the music, for ``dataset.toml``.
        commercial_use: Whether it allows that; the teacher's terms are looked up.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_progress: Called for each song, on the calling thread.
        cancel: Cancelling it stops the work before the next network run.
        store: Where weights are; by default the user's.
        contents: Where results are kept besides; by default the user's cache.

    Raises:
        ModelError: The teacher is unknown or can't be had.
        InputError: No songs, or one is unusable.
        RequestError: Two songs are called the same.
        OutputError: The folder can't be written.
        EngineError: Separation failed.
        Cancelled: ``cancel`` was cancelled.
    """
    spec = load_catalog()[model]
    lessons = find_lessons([mixes] if isinstance(mixes, Path) else mixes, parts or {}, main)
    write_dataset_file(destination, _about(destination, spec, licence, commercial_use, parts or {}))
    models = ModelCache()
    for done, lesson in enumerate(lessons, 1):
        if not (destination / lesson.name).is_dir():
            with output_errors(destination):
                work = Path(tempfile.mkdtemp(prefix=".teacher-", dir=destination))
            try:
                separate_to_files(
                    SeparationRequest(source=lesson.mix, model=model, device=device),
                    OutputOptions(folder=work, template="song/{stem}.{ext}", format=_FLAC),
                    cancel=cancel,
                    store=store,
                    models=models,
                    contents=contents,
                )
                with output_errors(destination / lesson.name):
                    for name, part in lesson.parts.items():
                        shutil.copyfile(part, work / "song" / f"{name}{part.suffix.lower()}")
                publish_song(work / "song", destination / lesson.name)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        if on_progress is not None:
            on_progress(
                DatasetProgress(dataset=destination.resolve().name, song=lesson.name, done=done, total=len(lessons))
            )


def find_lessons(places: Sequence[Path], parts: Mapping[str, str], main: str = "song") -> tuple[Lesson, ...]:
    """The songs in files and folders, in order; see :func:`pseudo_label`.

    Raises:
        InputError: There are none, or a place does not exist.
        RequestError: Two songs are called the same.
    """
    found: list[Lesson] = []
    for place in places:
        if not place.exists():
            raise InputError(f"{place} does not exist", hint="Check the spelling.", code="input.missing")
        if place.is_file():
            found.append(Lesson(name=safe_component(place.stem), mix=place, parts={}))
        elif parts:
            found += [lesson for folder in entries(place) if (lesson := _in_parts(folder, parts, main))]
        else:
            found += [Lesson(name=safe_component(file.stem), mix=file, parts={}) for file in audio_files(place)]
    if not found:
        raise InputError(
            f"no songs in {', '.join(map(str, places))}",
            hint=f"Name audio files, folders of them, or (with parts) folders that hold folders with a {main}.ogg.",
            code="input.no_songs",
        )
    names: dict[str, Path] = {}
    for lesson in found:
        other = names.setdefault(lesson.name.casefold(), lesson.mix)
        if other is not lesson.mix:
            raise RequestError(
                f"{other} and {lesson.mix} would both become {lesson.name}",
                hint="Rename one of them, or make two datasets.",
                code="request.names",
            )
    return tuple(found)


def _in_parts(folder: Path, parts: Mapping[str, str], main: str) -> Lesson | None:
    if not folder.is_dir():
        return None
    files = {file.stem.lower(): file for file in audio_files(folder)}
    if main.lower() not in files:
        return None
    return Lesson(
        name=safe_component(folder.name),
        mix=files[main.lower()],
        parts={name.lower(): files[name.lower()] for name in parts if name.lower() in files},
    )


def _about(
    destination: Path, spec: ModelSpec, licence: str, commercial_use: bool, parts: Mapping[str, str]
) -> DatasetFile:
    terms = spec.licence
    return DatasetFile(
        name=destination.resolve().name,
        licence=f"music: {licence}; labels: by {spec.name}, whose weights are under: {terms.weights}",
        commercial_use=commercial_use and terms.commercial_use == "yes",
        labels=spec.name,
        notes=f"{terms.note} ({terms.source})",
        stems={name.lower(): stem for name, stem in parts.items()},
    )
