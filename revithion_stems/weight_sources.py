"""Where weights come from: the kinds of source as types, and one fetch for all of them. No network by itself."""

from __future__ import annotations

import enum
import ipaddress
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

from revithion_stems.errors import DownloadError
from revithion_stems.events import CancelToken

MAX_FILE_BYTES = 8 << 30
"""No weights file is larger than this, whatever a server or an archive says."""

CHUNK_BYTES = 1 << 18
PROGRESS_INTERVAL_S = 0.1


class Registry(enum.Enum):
    """A package registry, reached through its own client as that is configured on the machine."""

    NPM = "npm"
    PYPI = "pypi"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSource:
    """A file behind an ``https://`` URL; plain ``http://`` only on the loopback interface."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """A file of a repository on the model hub (``HF_ENDPOINT``), which states the file's SHA-256 by itself."""

    repo: str
    revision: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySource:
    """A member of a package of that exact version."""

    registry: Registry
    package: str
    version: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """A file on this machine or on a mounted share."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSource:
    """A file of this program, in the folder of :mod:`revithion_stems.models`; it is used where it stands."""

    path: Path


Source: TypeAlias = HttpSource | HubSource | RegistrySource | FileSource | PackageSource

PACKAGE_PREFIX = "package:"

_VERSION = r"(?P<version>[0-9A-Za-z][0-9A-Za-z.+_-]*)"
_MEMBER = r"(?P<member>[A-Za-z0-9_@][A-Za-z0-9._@/ +-]*)"
_HUB = re.compile(rf"hf:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w.-]+)#{_MEMBER}", re.ASCII)
_NPM = re.compile(rf"npm:(?P<package>(@[a-z0-9][\w.-]*/)?[a-z0-9][\w.-]*)@{_VERSION}#{_MEMBER}", re.ASCII)
_PACKAGE = re.compile(rf"{PACKAGE_PREFIX}(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)", re.ASCII)
_PYPI = re.compile(rf"pypi:(?P<package>[A-Za-z0-9][\w.-]*)=={_VERSION}#{_MEMBER}", re.ASCII)


def parse_source(text: str) -> Source:
    """Reads a source of the catalog.

    Raises:
        ValueError: Not one of the known kinds, a path that climbs with ``..``, or plain http to another machine.
    """
    if match := _HUB.fullmatch(text):
        found: Source = HubSource(repo=match["repo"], revision=match["revision"], path=match["member"])
        climbing = ".." in (*match["repo"].split("/"), match["revision"], *match["member"].split("/"))
    elif match := _NPM.fullmatch(text) or _PYPI.fullmatch(text):
        registry = Registry(text.partition(":")[0])
        found = RegistrySource(
            registry=registry, package=match["package"], version=match["version"], member=match["member"]
        )
        climbing = ".." in match["member"].split("/")
    elif match := _PACKAGE.fullmatch(text):
        return PackageSource(path=Path(__file__).parent / "models" / match["name"])
    elif text.startswith("file://"):
        return FileSource(path=Path(url2pathname(urlsplit(text).path)))
    elif text.startswith("file:") and len(text) > len("file:"):
        return FileSource(path=Path(text.removeprefix("file:")).expanduser())
    elif is_allowed_url(text):
        return HttpSource(url=text)
    else:
        raise ValueError(
            f"source {text!r} is not https:, hf:, npm:, pypi:, file: or package: (plain http only to this machine)"
        )
    if climbing:
        raise ValueError(f"source {text!r} climbs with '..'")
    return found


def is_allowed_url(url: str) -> bool:
    """Whether a URL may be asked for weights: https to anywhere, plain http to the loopback interface only."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and is_loopback(host)


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class SourceError(DownloadError):
    """One source did not deliver; the next one may. The message is one line without the source's name."""

    default_code = "model.source_failed"

    def __init__(self, message: str, *, hint: str = "The next source is tried.", code: str | None = None) -> None:
        super().__init__(one_line(message), hint=hint, code=code)


def one_line(text: str, limit: int = 300) -> str:
    """``text`` on one line of at most ``limit`` characters, without credentials inside URLs."""
    flat = re.sub(r"//[^/@\s]+@", "//***@", " ".join(text.split()))
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How long to wait for others, in seconds; small in tests.

    Attributes:
        connect_s: For a connection.
        stall_s: Without a single byte.
        retries: Further attempts in a row that bring no new byte.
        backoff_s: Before the first further attempt; doubles each time.
        client_s: For a package client as a whole.
    """

    connect_s: float = 5.0
    stall_s: float = 20.0
    retries: int = 2
    backoff_s: float = 0.5
    client_s: float = 1800.0


@dataclass(slots=True, kw_only=True)
class FetchJob:
    """One file from one source.

    Attributes:
        part: Where the bytes go; in the folder where the file will stand.
        size: Bytes it must have, or None.
        sha256: SHA-256 it must have where that is known; a hub that states another one is refused before the body.
        needs_hub_digest: Refuse a hub that states no SHA-256.
        cancel: Looked at between chunks.
        limits: Timeouts.
        report: Called with bytes so far and bytes in all (or None), at most every 0.1 s and at the end.
    """

    part: Path
    size: int | None
    sha256: str | None
    needs_hub_digest: bool
    cancel: CancelToken
    limits: FetchLimits
    report: Callable[[int, int | None], None]
    _next_report: float = field(default=0.0, init=False)

    def progress(self, done: int, total: int | None) -> None:
        """Reports, unless the last report was just now; raises if the work was cancelled."""
        self.cancel.raise_if_cancelled()
        now = time.monotonic()
        if now >= self._next_report or done == total:
            self._next_report = now + PROGRESS_INTERVAL_S
            self.report(done, total)

    def copy(self, stream: IO[bytes], announced: int) -> None:
        """Writes a stream of ``announced`` bytes to :attr:`part`; refuses any other length.

        Raises:
            SourceError: The stream, or what was announced, is not of the expected size.
        """
        if announced != (self.size or announced) or announced > MAX_FILE_BYTES:
            raise SourceError(f"has {announced} bytes, the catalog says {self.size or f'at most {MAX_FILE_BYTES}'}")
        done = 0
        with self.part.open("wb") as out:
            while chunk := stream.read(CHUNK_BYTES):
                done += len(chunk)
                if done > announced:
                    break
                out.write(chunk)
                self.progress(done, announced)
        if done != announced:
            raise SourceError(
                f"ends after {done} of {announced} bytes" if done < announced else "is longer than it says"
            )


def fetch(source: Source, job: FetchJob) -> str | None:
    """Brings the bytes of one source to ``job.part``; the caller verifies their digest.

    Returns:
        The SHA-256 that the hub states for the file, or None from other sources.

    Raises:
        SourceError: This source does not deliver.
        Cancelled: The token was raised.
        OSError: The model folder can't be written.
    """
    if isinstance(source, FileSource | PackageSource):
        return _fetch_file(source, job)
    if isinstance(source, RegistrySource):
        from revithion_stems.registry_clients import fetch_member

        return fetch_member(source, job)
    from revithion_stems.http_download import fetch_hub, fetch_url

    return fetch_hub(source, job) if isinstance(source, HubSource) else fetch_url(source.url, job)


def _fetch_file(source: FileSource | PackageSource, job: FetchJob) -> None:
    try:
        stream = source.path.open("rb")
        size = source.path.stat().st_size
    except OSError as exc:
        raise SourceError(f"can't read {source.path}: {exc.strerror or exc}") from exc
    with stream:
        job.copy(stream, size)


def resume_path(part: Path) -> Path:
    """Where it stands what the bytes of an unfinished download belong to."""
    return part.with_name(part.name + ".json")


def discard(part: Path) -> None:
    """Removes an unfinished download and what it belongs to, if they are there."""
    part.unlink(missing_ok=True)
    resume_path(part).unlink(missing_ok=True)
