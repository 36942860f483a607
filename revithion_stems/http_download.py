"""Downloads over HTTP that resume: Range with If-Range, bounded retries, every announced size checked.

Beside ``NAME.part`` stands ``NAME.part.json`` with the URL and the validator (ETag or date) that the bytes belong to;
without it, or when the server's copy changed, a download starts from zero. Source: RFC 9110, sections 13.1.5 and 14.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

import httpx

from revithion_stems.events import CancelToken
from revithion_stems.version import __version__
from revithion_stems.weight_sources import (
    MAX_FILE_BYTES,
    FetchJob,
    HubSource,
    SourceError,
    discard,
    is_allowed_url,
    resume_path,
)

DEFAULT_HUB = "https://huggingface.co"
MAX_REDIRECTS = 5
MAX_ATTEMPTS = 20


class _RetryError(Exception):
    """This attempt ended early, and another one may go on from where it ended."""


@dataclass(frozen=True, slots=True)
class _Resume:
    """What a ``.part`` belongs to."""

    url: str
    validator: str


def fetch_hub(source: HubSource, job: FetchJob) -> str | None:
    """Downloads a file of the model hub; returns the SHA-256 that the hub states, if any.

    ``HF_ENDPOINT`` names another hub, ``HF_TOKEN`` is sent to the hub only (never along a redirect to another host).
    """
    hub = os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_HUB
    url = f"{hub}/{source.repo}/resolve/{quote(source.revision)}/{quote(source.path)}"
    token = os.environ.get("HF_TOKEN", "").strip()
    return fetch_url(url, job, headers={"Authorization": f"Bearer {token}"} if token else {})


def fetch_url(url: str, job: FetchJob, *, headers: dict[str, str] | None = None) -> str | None:
    """Downloads ``url`` to ``job.part``, going on from what is there; returns the SHA-256 that a hub states, if any.

    Raises:
        SourceError: Unreachable, refused, stalled, cut off, or not of the size that the catalog says.
    """
    if not is_allowed_url(url):
        raise SourceError(f"{_without_query(url)} is neither https nor on this machine")
    limits = job.limits
    try:
        client = httpx.Client(
            timeout=httpx.Timeout(limits.stall_s, connect=limits.connect_s),
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            headers={"User-Agent": f"revithion-stems/{__version__}", "Accept-Encoding": "identity"},
            event_hooks={"request": [_refuse_plain_http]},
        )
    except (ValueError, OSError, httpx.HTTPError) as exc:  # a proxy variable or a certificate file that is no good
        raise SourceError(f"the proxy or certificate settings can't be used: {exc}") from exc
    with client:
        fruitless, best = 0, _size(job.part)
        for attempt in range(MAX_ATTEMPTS):
            job.cancel.raise_if_cancelled()
            try:
                return _attempt(client, url, headers or {}, job)
            except _RetryError as exc:
                reached = _size(job.part)
                fruitless = 0 if reached > best else fruitless + 1
                best = max(best, reached)
                if fruitless > limits.retries or attempt == MAX_ATTEMPTS - 1:
                    raise SourceError(f"{exc} (given up after {attempt + 1} attempts)") from exc
            _sleep(limits.backoff_s * 2 ** min(fruitless, 6), job.cancel)
    raise AssertionError("unreachable: the last attempt raises")


def _attempt(client: httpx.Client, url: str, headers: dict[str, str], job: FetchJob) -> str | None:
    done = 0
    resume = _read_resume(job.part)
    if resume is not None and resume.url == url:
        done = _size(job.part)
    if resume is not None and done:
        headers = {**headers, "Range": f"bytes={done}-", "If-Range": resume.validator}
    try:
        with client.stream("GET", url, headers=headers) as response, _woken_by(response, job.cancel):
            stated = _check_stated(response, job)
            if response.status_code == 416 and done:
                # Nothing after `done`: it is all there, or it belongs to a file that has shrunk since.
                if response.headers.get("content-range") == f"bytes */{done}" and done == (job.size or done):
                    return stated
                discard(job.part)
                raise _RetryError("the server's copy changed")
            start, total = _check_head(response, done, job)
            _write_resume(job.part, url, response)
            _receive(response, start, total, job)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as exc:
        raise SourceError(f"can't connect to {urlsplit(url).hostname}: {str(exc) or 'no answer'}") from exc
    except httpx.ReadTimeout as exc:
        raise _RetryError(f"stalled: no byte for {job.limits.stall_s:g} s") from exc
    except httpx.TransportError as exc:
        job.cancel.raise_if_cancelled()
        raise _RetryError(f"cut off: {str(exc) or type(exc).__name__}") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise SourceError(str(exc) or type(exc).__name__) from exc
    return stated


def _check_stated(response: httpx.Response, job: FetchJob) -> str | None:
    # The hub answers with a redirect to its storage; the digest stands on the redirect, not on the last response.
    stated: str | None = None
    for hop in (*response.history, response):
        digest = hop.headers.get("x-linked-etag", "").strip('"').lower()
        if re.fullmatch(r"[0-9a-f]{64}", digest):
            stated = digest
    if job.sha256 and stated and stated != job.sha256:
        raise SourceError(f"the hub states SHA-256 {stated[:16]}…, the catalog says {job.sha256[:16]}…")
    if job.needs_hub_digest and response.is_success and not stated:
        raise SourceError("the hub states no SHA-256 for it, and no other is known")
    return stated


def _check_head(response: httpx.Response, done: int, job: FetchJob) -> tuple[int, int | None]:
    """Position of the body's first byte, and the whole size that the server announces."""
    status = response.status_code
    if status in (408, 429) or status >= 500:
        raise _RetryError(f"HTTP {status}")
    if status not in (200, 206):
        raise SourceError(f"HTTP {status} {response.reason_phrase}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise SourceError("the server compressed what must come as it is")
    length = response.headers.get("content-length", "")
    total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
    start = 0
    if status == 206:
        match = re.fullmatch(
            r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})", response.headers.get("content-range", "")
        )
        if match is None or int(match[1]) != done:
            discard(job.part)
            raise _RetryError("the server sent another range than was asked for")
        start, total = done, int(match[2])
    if job.size is not None and total is not None and total != job.size:
        raise SourceError(f"the server announces {total} bytes, the catalog says {job.size}")
    if total is not None and total > MAX_FILE_BYTES:
        raise SourceError(f"the server announces {total} bytes, more than any weights file has")
    return start, total


def _receive(response: httpx.Response, start: int, total: int | None, job: FetchJob) -> None:
    expected = job.size if job.size is not None else total
    done = start
    with job.part.open("r+b" if start else "wb") as out:
        out.seek(start)
        for chunk in response.iter_raw():  # as it comes: what a chunk size would hold back is lost when cut off
            done += len(chunk)
            if done > (expected if expected is not None else MAX_FILE_BYTES):
                raise SourceError(f"the server sends more than the {expected or MAX_FILE_BYTES} bytes that it should")
            out.write(chunk)
            job.progress(done, expected)
        out.truncate()
    if expected is not None and done < expected:
        raise _RetryError(f"cut off after {done} of {expected} bytes")


def _refuse_plain_http(request: httpx.Request) -> None:
    # Called for every hop of a redirect.
    if not is_allowed_url(str(request.url)):
        raise SourceError(f"redirects to {_without_query(str(request.url))}, which is neither https nor this machine")


@contextmanager
def _woken_by(response: httpx.Response, cancel: CancelToken) -> Generator[None, None, None]:
    """Ends a blocking read as soon as the token is raised: only shutting the socket down wakes the reader."""
    over = threading.Event()
    stream: Any = response.extensions.get("network_stream")
    sock = cast("socket.socket | None", stream.get_extra_info("socket") if stream is not None else None)

    def watch() -> None:
        while not over.wait(0.1):
            if cancel.cancelled and sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, name="download-cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _read_resume(part: Path) -> _Resume | None:
    try:
        data: Any = json.loads(resume_path(part).read_text(encoding="utf-8"))
        return _Resume(str(data["url"]), str(data["validator"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_resume(part: Path, url: str, response: httpx.Response) -> None:
    etag = response.headers.get("etag", "")
    # If-Range takes strong validators only.
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")
    if validator:
        resume_path(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
    else:
        resume_path(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _sleep(seconds: float, cancel: CancelToken) -> None:
    over = threading.Event()
    for _ in range(max(1, round(seconds / 0.1))):
        cancel.raise_if_cancelled()
        over.wait(min(seconds, 0.1))


def _without_query(url: str) -> str:
    # Queries of storage URLs carry signatures.
    return url.partition("?")[0]
