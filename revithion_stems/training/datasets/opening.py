"""From the tables ``[[data]]`` of a training configuration to songs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from revithion_stems.errors import ConfigError
from revithion_stems.training.datasets.dataset_progress import ProgressCallback
from revithion_stems.training.datasets.folder import open_folder
from revithion_stems.training.datasets.multitrack import Multitrack


class DatasetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One dataset.

    Attributes:
        kind: ``folder``; ``musdb``; ``midi`` and ``teacher`` make a folder of multitracks first, as far as it is not
            there yet.
        path: The dataset's folder.
        weight: How often it is drawn from, relative to the others' and for its length.
        songs: Patterns (``*``, ``?``) of the songs' names; empty for all.
        without: Patterns of songs to leave out.
        options: Of the kind: :class:`FolderOptions`, :class:`MusdbOptions`, :class:`MidiOptions` or
            :class:`TeacherOptions`.
    """

    kind: Literal["folder", "musdb", "midi", "teacher"]
    path: Path
    weight: Annotated[float, msgspec.Meta(gt=0.0)] = 1.0
    songs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    options: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])

    def rooted(self, folder: Path) -> DatasetConfig:
        """The same with its path, and those in its options, relative to a folder.

        Raises:
            ConfigError: An option is unknown or of a wrong type.
        """
        options = dict(self.options)
        for name, value in msgspec.to_builtins(_options(self)).items():
            if name in _PATH_OPTIONS and name in options:
                options[name] = [str(folder / Path(text).expanduser()) for text in value]
        return msgspec.structs.replace(self, path=folder / self.path.expanduser(), options=options)

    def wants(self, song: str) -> bool:
        """Whether the song of this name is among those to be used."""
        return (not self.songs or _matches(song, self.songs)) and not _matches(song, self.without)


class FolderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of kind ``folder``: none. What there is to say stands in its ``dataset.toml``."""


class MusdbOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of kind ``musdb``; see :func:`~revithion_stems.training.datasets.musdb_dataset.open_musdb`."""

    subset: Literal["train", "test"] = "train"
    split: Literal["train", "valid"] | None = None
    is_wav: bool = False


class MidiOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of kind ``midi``; see :func:`~revithion_stems.training.datasets.midi_dataset.render_midi`.

    ``midi``, ``soundfonts`` and ``drum_kits`` are files, folders or patterns.
    """

    midi: tuple[str, ...] = ()
    soundfonts: tuple[str, ...] = ()
    drum_kits: tuple[str, ...] = ()
    rendered: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    licence: str = "not stated"
    commercial_use: bool = False


class TeacherOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of kind ``teacher``; see :func:`~revithion_stems.training.datasets.teacher_dataset.pseudo_label`.

    ``mixes`` are files or folders.
    """

    mixes: tuple[str, ...] = ()
    model: str = ""
    parts: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    main: str = "song"
    device: str = "auto"
    licence: str = "not stated"
    commercial_use: bool = False


_OPTIONS: dict[str, type[msgspec.Struct]] = {
    "folder": FolderOptions,
    "musdb": MusdbOptions,
    "midi": MidiOptions,
    "teacher": TeacherOptions,
}
_PATH_OPTIONS = ("midi", "soundfonts", "drum_kits", "mixes")
_Options = TypeVar("_Options", bound=msgspec.Struct)


def open_datasets(
    configs: Sequence[DatasetConfig],
    stems: tuple[str, ...],
    sample_rate: int,
    cache: Path,
    on_event: ProgressCallback | None = None,
) -> tuple[Multitrack, ...]:
    """Opens all datasets, in order; see :func:`open_dataset`."""
    return tuple(
        song for config in configs for song in open_dataset(config, stems, sample_rate, cache, on_event=on_event)
    )


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
    _options(config)
    return target.folder(config.path)


def _open_musdb(config: DatasetConfig, target: _Target) -> tuple[Multitrack, ...]:
    from revithion_stems.training.datasets.musdb_dataset import open_musdb

    options = _as(MusdbOptions, config)
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

    options = _as(MidiOptions, config)
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

    options = _as(TeacherOptions, config)
    if options.mixes:
        if not options.model:
            raise _wrong(config, "model is missing: the name of the teacher")
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


def _options(config: DatasetConfig) -> msgspec.Struct:
    return _as(_OPTIONS[config.kind], config)


def _as(kind: type[_Options], config: DatasetConfig) -> _Options:
    try:
        return msgspec.convert(config.options, kind)
    except msgspec.ValidationError as exc:
        raise _wrong(config, str(exc)) from exc


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
            raise _wrong(config, f"{place} has no files ending in {' or '.join(endings)}")
        found.update(dict.fromkeys(files))
    return tuple(found)


def _matches(song: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(song, pattern) for pattern in patterns)


def _wrong(config: DatasetConfig, reason: str) -> ConfigError:
    return ConfigError(
        f"options of the {config.kind} dataset {config.path}: {reason}",
        hint="docs/datasets.md lists them by kind.",
        code="config.dataset",
    )
