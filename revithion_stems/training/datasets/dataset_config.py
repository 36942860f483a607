"""The tables ``[[data]]`` of a training configuration, as types."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from revithion_stems.errors import ConfigError


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
        for name, value in msgspec.to_builtins(options_of(self)).items():
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


def options_of(config: DatasetConfig) -> msgspec.Struct:
    """The options of a dataset, checked; raises :class:`ConfigError`."""
    return options_as(_OPTIONS[config.kind], config)


def options_as(kind: type[_Options], config: DatasetConfig) -> _Options:
    """The same as the type of its kind."""
    try:
        return msgspec.convert(config.options, kind)
    except msgspec.ValidationError as exc:
        raise wrong_options(config, str(exc)) from exc


def wrong_options(config: DatasetConfig, reason: str) -> ConfigError:
    """That an option of a dataset can't be, as an error to raise."""
    return ConfigError(
        f"options of the {config.kind} dataset {config.path}: {reason}",
        hint="docs/datasets.md lists them by kind.",
        code="config.dataset",
    )


def _matches(song: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(song, pattern) for pattern in patterns)
