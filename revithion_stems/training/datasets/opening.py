"""From the tables ``[[data]]`` of a training configuration to songs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.training.datasets.dataset_config import (
    DatasetConfig,
    MidiOptions,
    MusdbOptions,
    TeacherOptions,
    options_as,
    options_of,
    wrong_options,
)
from revithion_stems.training.datasets.dataset_progress import ProgressCallback
from revithion_stems.training.datasets.folder import open_folder
from revithion_stems.training.datasets.multitrack import Multitrack


def open_dataset(
    config: DatasetConfig,
    stems: tuple[str, ...],
    sample_rate: int,
    cache: Path,
    on_event: ProgressCallback | None = None,
) -> tuple[Multitrack, ...]:
    """Opens a dataset, after rendering or separating what of it is not there yet.

    Args:
        config: Which.
        stems: That the training knows.
        sample_rate: Hz.
        cache: Folder for decoded audio.
        on_event: Called for each song, on the calling thread.

    Raises:
        ConfigError: An option is unknown, missing or of a wrong type.
        InputError: A file or folder is unusable.
        RevithionError: What rendering and separating raise.
    """
    choose = config.wants if config.songs or config.without else None
    target = _Target(stems=stems, sample_rate=sample_rate, cache=cache, choose=choose, on_event=on_event)
    return _OPENERS[config.kind](config, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """What all kinds are told alike."""

    stems: tuple[str, ...]
    sample_rate: int
    cache: Path
    choose: Callable[[str], bool] | None
    on_event: ProgressCallback | None

    def folder(self, path: Path) -> tuple[Multitrack, ...]:
        return open_folder(
            path,
            stems=self.stems,
            sample_rate=self.sample_rate,
            cache=self.cache,
            choose=self.choose,
            on_progress=self.on_event,
        )


def _open_folder(config: DatasetConfig, target: _Target) -> tuple[Multitrack, ...]:
    options_of(config)
    return target.folder(config.path)


def _open_musdb(config: DatasetConfig, target: _Target) -> tuple[Multitrack, ...]:
    from revithion_stems.training.datasets.musdb_dataset import open_musdb

    options = options_as(MusdbOptions, config)
    return open_musdb(
        config.path,
        subset=options.subset,
        split=options.split,
        is_wav=options.is_wav,
        stems=target.stems,
        sample_rate=target.sample_rate,
        cache=target.cache,
        choose=target.choose,
        on_progress=target.on_event,
    )


def _open_midi(config: DatasetConfig, target: _Target) -> tuple[Multitrack, ...]:
    from revithion_stems.training.datasets.midi_dataset import render_midi

    options = options_as(MidiOptions, config)
    if options.midi:
        render_midi(
            _found(config, options.midi, (".mid", ".midi", ".kar")),
            _found(config, options.soundfonts, (".sf2", ".sf3")),
            config.path,
            seed=options.seed,
            songs=options.rendered,
            drum_kits=_found(config, options.drum_kits, ("drumkit.xml",)) if options.drum_kits else (),
            licence=options.licence,
            commercial_use=options.commercial_use,
            on_progress=target.on_event,
        )
    return target.folder(config.path)


def _open_teacher(config: DatasetConfig, target: _Target) -> tuple[Multitrack, ...]:
    from revithion_stems.training.datasets.teacher_dataset import pseudo_label

    options = options_as(TeacherOptions, config)
    if options.mixes:
        if not options.model:
            raise wrong_options(config, "model is missing: the name of the teacher")
        pseudo_label(
            [Path(place) for place in options.mixes],
            options.model,
            config.path,
            parts=options.parts,
            main=options.main,
            device=options.device,
            licence=options.licence,
            commercial_use=options.commercial_use,
            on_progress=target.on_event,
        )
    return target.folder(config.path)


_OPENERS: dict[str, Callable[[DatasetConfig, _Target], tuple[Multitrack, ...]]] = {
    "folder": _open_folder,
    "musdb": _open_musdb,
    "midi": _open_midi,
    "teacher": _open_teacher,
}


def _found(config: DatasetConfig, places: tuple[str, ...], endings: tuple[str, ...]) -> tuple[Path, ...]:
    """Files that are named, lie below a folder that is named, or fit a pattern; each once, in order."""
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place)
        if path.is_dir():
            inside = path.rglob("*")
        elif any(sign in path.name for sign in "*?["):
            inside = path.parent.glob(path.name)
        else:
            inside = (path,)
        files = sorted(file for file in inside if file == path or file.name.lower().endswith(endings))
        if not files:
            raise wrong_options(config, f"{place} has no files ending in {' or '.join(endings)}")
        found.update(dict.fromkeys(files))
    return tuple(found)
