"""``dataset.toml``: what a folder of multitracks says about itself."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from revithion_stems.errors import ConfigError
from revithion_stems.output_errors import output_errors
from revithion_stems.training.datasets.multitrack import Origin

DATASET_FILE = "dataset.toml"
"""Its name, in the dataset's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFile:
    """The content of ``dataset.toml``; every key may be left out.

    Attributes:
        name: Of the dataset; the folder's where it is empty.
        licence: Of the recordings, as their publisher puts it.
        commercial_use: Whether it allows that, and a network trained on it, to be used commercially.
        labels: ``recorded``, ``rendered``, or the name of the teacher that separated them.
        complete: Whether a stem without a file is silent; otherwise it is unknown.
        notes: What else people should know: sources, terms of the teacher's weights.
        stems: File name without its ending → stem, for names that are not understood by themselves; an empty text
            leaves the file out.
    """

    name: str = ""
    licence: str = "not stated"
    commercial_use: bool = False
    labels: str = "recorded"
    complete: bool = True
    notes: str = ""
    stems: dict[str, str] = field(default_factory=dict[str, str])

    def origin(self, folder: Path) -> Origin:
        """The same for the model card; ``folder`` is where the file lies."""
        return Origin(
            dataset=self.name or folder.resolve().name,
            licence=self.licence,
            commercial_use=self.commercial_use,
            labels=self.labels,
        )


def read_dataset_file(folder: Path) -> DatasetFile:
    """What a dataset folder says about itself; all defaults where it has no ``dataset.toml``.

    Raises:
        ConfigError: The file is not TOML, or a key is unknown or of a wrong type.
    """
    path = folder / DATASET_FILE
    try:
        content = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return DatasetFile()
    except (OSError, UnicodeDecodeError) as exc:
        raise _unusable(path, str(exc)) from exc
    try:
        raw = tomllib.loads(content)
        unknown = sorted(set(raw) - set(DatasetFile.__dataclass_fields__))
        if unknown:
            known = ", ".join(DatasetFile.__dataclass_fields__)
            raise _unusable(path, f"unknown key {unknown[0]!r} (known: {known})")
        return msgspec.convert(raw, DatasetFile)
    except (ValueError, RecursionError, msgspec.MsgspecError) as exc:
        raise _unusable(path, str(exc)) from exc


def write_dataset_file(folder: Path, content: DatasetFile) -> None:
    """Writes ``dataset.toml``, whole or not at all.

    Raises:
        OutputError: It can't be written.
    """
    # A string of JSON is one of TOML too, but for DEL, which TOML wants escaped.
    text = {True: "true", False: "false"}
    lines = [
        f"{key} = {text[value] if isinstance(value, bool) else _quoted(value)}"
        for key, value in (
            ("name", content.name),
            ("licence", content.licence),
            ("commercial_use", content.commercial_use),
            ("labels", content.labels),
            ("complete", content.complete),
            ("notes", content.notes),
        )
    ]
    if content.stems:
        lines += ["", "[stems]", *(f"{_quoted(file)} = {_quoted(stem)}" for file, stem in content.stems.items())]
    path = folder / DATASET_FILE
    part = folder / f".{DATASET_FILE}.{os.getpid()}.part"
    with output_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        part.replace(path)


def publish_song(made: Path, place: Path) -> None:
    """Gives a finished song's folder its name; if another process was faster, its song stays.

    Raises:
        OutputError: It can't be written there.
    """
    with output_errors(place):
        try:
            made.replace(place)
        except OSError:
            if not place.is_dir():
                raise


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path}: {reason}",
        hint="Correct it, or remove it to go without; docs/datasets.md lists its keys.",
        code="config.dataset",
    )
