"""Files by URL (``s3://``, ``file://``, whatever fsspec has a protocol for): found, fetched, and published whole."""

from __future__ import annotations

import contextlib
import posixpath
import secrets
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from revithion_stems.audio_files import AUDIO_SUFFIXES
from revithion_stems.batch_inputs import is_url
from revithion_stems.batch_items import BatchItem
from revithion_stems.errors import EngineError, InputError, OutputError, RequestError, RevithionError
from revithion_stems.manifest import Manifest, decode_manifest
from revithion_stems.output_errors import output_errors
from revithion_stems.paths import safe_component

_BLOCK_BYTES = 8 << 20
_MAGIC = frozenset("*?[")
_PUT_IS_ATOMIC = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"})
"""Object stores show an object when its last byte is there. Elsewhere a file gets its name by a move."""


def expand_url(url: str) -> Iterator[BatchItem]:
    """The files that a URL names: one file, all audio below a folder, or what matches a pattern (``*``, ``?``, ``**``).

    Of folders and patterns, hidden names, names that do not end like audio and stems that a manifest among the matches
    lists are left out. Sorted. A URL that names nothing is an item all the same, whose turn brings the error.

    Raises:
        RequestError: The protocol is unknown.
        EngineError: The package for the protocol is not installed.
        InputError: The place can't be listed.
    """
    files, path = _open(url)
    with _input_errors(url):
        if files.isfile(path):
            found, root = [], path
        elif _MAGIC.isdisjoint(path):
            found, root = files.find(path), path.rstrip("/")
        else:
            found = [name for name, info in files.glob(path, detail=True).items() if info["type"] == "file"]
            root = path[: min(path.find(mark) for mark in _MAGIC if mark in path)].rpartition("/")[0]
        manifests = [name for name in found if name.endswith("manifest.json")]
        ours = {listed for name in manifests for listed in _listed(name, files.cat_file(name))}
        if not found:
            yield BatchItem(source=url)
        for name in sorted(set(found) - ours):
            below = PurePosixPath(name).relative_to(root)
            if below.suffix.lower() in AUDIO_SUFFIXES and not any(part.startswith(".") for part in below.parts):
                folder = PurePosixPath(*map(safe_component, below.parts[:-1]))
                yield BatchItem(source=files.unstrip_protocol(name), folder=folder)


def fetch(url: str, folder: Path, check: Callable[[], None]) -> Path:
    """Copies a file into a local folder, under its own name; memory does not grow with its size.

    Args:
        url: Of the file.
        folder: Exists, and has no file of that name.
        check: Called between blocks; raising from it stops the copy.

    Raises:
        RequestError: The protocol is unknown.
        EngineError: The package for the protocol is not installed.
        InputError: The file can't be read.
        OutputError: The copy can't be written.
    """
    files, path = _open(url)
    target = folder / safe_component(PurePosixPath(path).name)
    copied = 0
    with _input_errors(url):
        info = files.info(path)
        if info["type"] == "directory":
            raise InputError(f"{url} is a folder", hint="Name a file.", code="input.is_folder")
        with files.open(path, "rb", block_size=_BLOCK_BYTES) as reader, target.open("xb") as writer:
            while chunk := reader.read(_BLOCK_BYTES):
                check()
                with output_errors(target):
                    writer.write(chunk)
                copied += len(chunk)
        if info["size"] not in (None, copied):
            raise InputError(
                f"{url} gave {copied} bytes of {info['size']}",
                hint="Wait until the program that writes it has finished, and run the command again.",
                code="input.changed",
            )
    return target


class RemoteFolder:
    """A folder by URL or path, in which sets of stems stand. Any thread.

    Args:
        place: URL, or a path on this machine.

    Raises:
        RequestError: The protocol is unknown.
        EngineError: The package for the protocol is not installed.
    """

    def __init__(self, place: str) -> None:
        self._place = place.rstrip("/")
        self._files, root = _open(place)
        self._root = root.rstrip("/")

    def url(self, relative: PurePosixPath) -> str:
        """Where a file of this folder is, for people."""
        return f"{self._place}/{relative}"

    def complete_set(self, manifest: PurePosixPath) -> Manifest | None:
        """The manifest that stands at this place, if all files that it lists are there in their size.

        Raises:
            OutputError: The place can't be looked at.
        """
        with self._output_errors(manifest):
            try:
                found = decode_manifest(self._files.cat_file(self._path(manifest)))
                sizes = [self._files.size(self._path(manifest.parent / file.path)) for file in found.files]
            except (FileNotFoundError, ValueError):
                return None
        return found if sizes == [file.size for file in found.files] else None

    def publish(self, folder: Path, names: Sequence[PurePosixPath], check: Callable[[], None]) -> None:
        """Copies files from a local folder to here, in this order. Each is seen whole or not at all.

        A manifest that stands there is taken away first: it does not speak of a set that is half replaced.

        Args:
            folder: Holds the files at the places that they get here.
            names: The files; the last one is their manifest.
            check: Called before each file; raising from it stops the copying.

        Raises:
            OutputError: A file can't be written.
        """
        with self._output_errors(names[-1]), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(names[-1]))
        for name in names:
            check()
            with self._output_errors(name):
                self._put(folder / name, self._path(name))

    def _put(self, source: Path, target: str) -> None:
        protocols = self._files.protocol
        if not _PUT_IS_ATOMIC.isdisjoint((protocols,) if isinstance(protocols, str) else protocols):
            self._files.put_file(str(source), target)
            return
        part = f"{posixpath.dirname(target)}/.{secrets.token_hex(8)}.part"
        self._files.makedirs(posixpath.dirname(target), exist_ok=True)
        try:
            self._files.put_file(str(source), part)
            self._files.mv(part, target)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(part)
            raise

    def _path(self, relative: PurePosixPath) -> str:
        path = posixpath.normpath(f"{self._root}/{relative}")
        if not path.startswith(f"{self._root}/"):
            raise OutputError(
                f"{str(relative)!r} leaves the output folder {self._place}",
                hint="Remove the manifest that says so.",
                code="output.outside",
            )
        return path

    @contextlib.contextmanager
    def _output_errors(self, relative: PurePosixPath) -> Generator[None]:
        try:
            yield
        except RevithionError:
            raise
        except Exception as exc:  # each protocol has errors of its own
            raise OutputError(
                f"can't write {self.url(relative)}: {_reason(exc)}",
                hint="Check the address, and that this machine is allowed to write there.",
            ) from exc


def _open(place: str) -> tuple[Any, str]:
    """The file system of a URL or path, and the path in it."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if not is_url(place):
        return LocalFileSystem(), Path(place).absolute().as_posix()
    try:
        return url_to_fs(place)
    except ImportError as exc:
        raise EngineError(
            f"{place} needs a package that is not installed: {exc}",
            hint="Install it where the command runs and on all nodes; for s3:// that is `pip install s3fs`.",
            code="engine.missing",
        ) from exc
    except Exception as exc:  # each protocol has errors of its own
        raise RequestError(
            f"{place} is not a URL that can be used: {_reason(exc)}",
            hint="Write something like s3://bucket/folder or file:///folder.",
            code="request.url",
        ) from exc


@contextlib.contextmanager
def _input_errors(url: str) -> Generator[None]:
    try:
        yield
    except RevithionError:
        raise
    except FileNotFoundError as exc:
        raise InputError(f"{url} does not exist", hint="Check the address.", code="input.missing") from exc
    except Exception as exc:  # each protocol has errors of its own
        raise InputError(
            f"can't read {url}: {_reason(exc)}",
            hint="Check the address, and that this machine is allowed to read there.",
        ) from exc


def _listed(manifest: str, data: bytes) -> Iterator[str]:
    with contextlib.suppress(ValueError):
        for file in decode_manifest(data).files:
            yield posixpath.normpath(f"{posixpath.dirname(manifest)}/{file.path}")


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
