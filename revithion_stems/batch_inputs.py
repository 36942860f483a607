"""What the user names for a batch, as files: folders, patterns and lists, each file once."""

from __future__ import annotations

import glob
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from revithion_stems.audio_files import AUDIO_SUFFIXES
from revithion_stems.batch_items import BatchItem
from revithion_stems.errors import InputError, RequestError
from revithion_stems.manifest import find_manifest
from revithion_stems.outputs import OutputOptions
from revithion_stems.paths import safe_component

_MAGIC = re.compile(r"[*?[]")


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL (``scheme://…``) and not a path."""
    return "://" in text


def expand(
    arguments: Sequence[str], *, expand_url: Callable[[str], Iterable[BatchItem]] | None = None
) -> tuple[BatchItem, ...]:
    """The files that ``arguments`` name, in this order and each once.

    An argument is one of

    - a file;
    - a folder, for the audio files in it and in all folders below, sorted;
    - a pattern with ``*``, ``?`` or ``[]``, where ``**`` stands for any folders;
    - ``@list``, a text file in UTF-8 with a file, folder or URL per line, as seen from its own folder; blank lines and
      ``#`` comments count for nothing, and ``@-`` is standard input;
    - a URL.

    What exists is no pattern, whatever is in its name. Folders and patterns leave out hidden names, names that do not
    end like audio, and files that a manifest among them lists as its own.

    A missing file in a list is an item all the same, and fails when its turn comes: one line must not stop a catalogue.

    Args:
        arguments: What the user wrote.
        expand_url: Finds the files that a URL stands for. URLs in lists are files, and so are all without it.

    Raises:
        InputError: An argument names nothing, or a folder or list can't be read.
    """
    found: dict[str, BatchItem] = {}
    for argument in arguments:
        empty = True
        for item in _items(argument, expand_url or _one_file):
            empty = False
            found.setdefault(item.source if is_url(item.source) else os.path.realpath(item.source), item)
        if empty:
            raise InputError(
                f"{argument!r} names no audio file",
                hint="Check the spelling. In folders and patterns only names count that end like audio; a file with "
                "another ending has to be named itself.",
                code="batch.nothing",
            )
    return tuple(found.values())


def refuse_collisions(work: Iterable[tuple[str, OutputOptions]]) -> None:
    """Looks for sources, each with where its stems go, that would have the same stems' files.

    Raises:
        RequestError: There are two.
    """
    taken: dict[Path, str] = {}
    for source, output in work:
        path = output.paths(Path(source), ("stem",), "model").manifest
        other = taken.setdefault(path, source)
        if other is not source:
            raise RequestError(
                f"{other} and {source} would have the same stems' files",
                hint="Add {source_ext} to --template, or separate them into different folders with -o.",
                code="output.collision",
            )


def _one_file(source: str) -> tuple[BatchItem]:
    return (BatchItem(source=source),)


def _items(argument: str, expand_url: Callable[[str], Iterable[BatchItem]]) -> Iterable[BatchItem]:
    if argument.startswith("@"):
        return _listed(argument[1:])
    return expand_url(argument) if is_url(argument) else _named(argument)


def _named(argument: str) -> Iterator[BatchItem]:
    if not argument:
        return
    if _is_folder(argument):
        yield from _below(Path(argument), _walk(Path(argument)))
    elif os.path.lexists(argument):  # if it can't be read, whoever reads it says why
        yield BatchItem(source=argument)
    elif _MAGIC.search(argument):
        fixed = itertools.takewhile(lambda part: not _MAGIC.search(part), Path(argument).parts[:-1])
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207 — Path.glob does not pass over hidden names
        yield from _below(Path(*fixed), map(Path, matches))


def _listed(name: str) -> Iterator[BatchItem]:
    folder = Path() if name == "-" else Path(name).parent
    try:
        # Names that are not UTF-8 come through; a list in UTF-16, which some shells write, is full of zeros.
        with open(
            sys.stdin.fileno() if name == "-" else name,
            encoding="utf-8-sig",
            errors="surrogateescape",
            closefd=name != "-",
        ) as lines:
            for line in lines:
                if "\0" in line:
                    raise ValueError("not text in UTF-8 with a path per line")
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                source = line.rstrip("\n")
                path = folder / source
                if is_url(source):
                    yield BatchItem(source=source)
                elif _is_folder(path):
                    yield from _below(path, _walk(path))
                else:
                    yield BatchItem(source=str(path))
    except (OSError, ValueError) as exc:
        raise InputError(
            f"list {name!r} can't be read: {getattr(exc, 'strerror', None) or exc}",
            hint="Write @ and the name of a text file in UTF-8 that has a path per line.",
            code="batch.list",
        ) from exc


def _below(root: Path, paths: Iterable[Path]) -> Iterator[BatchItem]:
    found = [path for path in paths if path.suffix.lower() in AUDIO_SUFFIXES and not _is_folder(path)]
    ours = _manifest_files({folder for path in found for folder in path.parents if folder.is_relative_to(root)})
    for path in found:
        if os.path.normpath(path) not in ours:
            folders = path.relative_to(root).parts[:-1]
            yield BatchItem(source=str(path), folder=PurePosixPath(*map(safe_component, folders)))


def _manifest_files(folders: Iterable[Path]) -> set[str]:
    """The files that the manifests in ``folders`` list; what can't be read as a manifest is none."""
    files: set[str] = set()
    for folder in folders:
        for path in (*folder.glob("*manifest*.json"), *folder.glob("*manifest*/**/*.json")):
            manifest = find_manifest(path)
            if manifest is not None:
                files.update(os.path.normpath(path.parent / file.path) for file in manifest.files)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise InputError(
        f"{error.filename} can't be read: {error.strerror or error}",
        hint="Allow reading it, or name the folders that you want.",
    ) from error


def _is_folder(path: Path | str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 — Path.is_dir raises where a name is too long
