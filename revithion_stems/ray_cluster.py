"""A Ray cluster: connected to, or started on this machine, and how many workers its nodes can hold."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from revithion_stems.errors import EngineError, RequestError

_DEFAULT_CPUS = 4
_KNOCK_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShape:
    """What a worker takes of its node.

    Attributes:
        cpus: CPU cores, 1 or more.
        gpus: GPUs, 0 or more; a part of 1 lets workers share one.

    Raises:
        RequestError: A value is out of its range.
    """

    cpus: int
    gpus: float

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.gpus < 0:
            raise RequestError(
                f"a worker can't have {self} (at least 1 and 0)",
                hint="Correct --cpus-per-worker or --gpus-per-worker, or leave them out.",
                code="request.workers",
            )

    def __str__(self) -> str:
        return f"CPU cores: {self.cpus}" + (f", GPUs: {self.gpus:g}" if self.gpus else "")


@contextlib.contextmanager
def connect(address: str | None) -> Generator[Any]:
    """Ray, connected to a cluster for as long as the block runs.

    Args:
        address: ``host:port``, ``auto`` for the one that this machine belongs to, or ``local`` for one that is started
            here; by default ``RAY_ADDRESS``, else ``local``.

    Raises:
        EngineError: ``engine.missing`` without Ray, ``batch.cluster`` if there is no cluster or it does not answer.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # Ray would try a cluster that does not answer for a quarter of an hour.
    variables = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_gcs_server_port_wait_time_s": "1"}
    options: dict[str, Any] = {}
    if address == "local":
        # The first makes Ray's processes listen on the loopback interface, as they do on macOS and Windows; Ray reads
        # it when it is imported. The token keeps out other users of this machine.
        variables |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
        variables |= {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        options["include_dashboard"] = False
    with _environment(variables):
        try:
            import ray
            from ray.exceptions import RayError
        except ImportError as exc:
            raise EngineError(
                "the package ray is not installed",
                hint="Run `pip install 'revithion-stems[ray]'`, or leave out --engine ray to work on this machine.",
                code="engine.missing",
            ) from exc
        try:
            _knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
        except (OSError, RuntimeError, ValueError, RayError) as exc:
            raise EngineError(
                f"no Ray cluster can be used at {address!r}: {first_line(exc)}",
                hint="Run this on a node of the cluster, with --ray-address auto or its host:port.",
                code="batch.cluster",
            ) from exc
    try:
        yield ray
    finally:
        ray.shutdown()


def worker_shape(ray: Any, device: str, cpus: int | None, gpus: float | None) -> WorkerShape:
    """What a worker takes, where that was not said: a GPU if there is one and ``device`` allows, else CPU cores."""
    nodes = _nodes(ray)
    if gpus is None:
        gpus = 1.0 if device in ("auto", "cuda") and any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    if cpus is None:
        sizes = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        cpus = 1 if gpus else min([_DEFAULT_CPUS, *sizes])
    return WorkerShape(cpus=cpus, gpus=gpus)


def capacity(ray: Any, shape: WorkerShape) -> int:
    """How many workers all nodes together can hold, whether or not something else is there now."""
    wanted = {"CPU": shape.cpus, **({"GPU": shape.gpus} if shape.gpus else {})}
    return sum(min(math.floor(node.get(name, 0) / size) for name, size in wanted.items()) for node in _nodes(ray))


def no_room_error(shape: WorkerShape) -> EngineError:
    """The error where that is none."""
    return EngineError(
        f"no node of the cluster can take a worker ({shape})",
        hint="Lower --cpus-per-worker or --gpus-per-worker, or add nodes; a cluster that grows by demand must "
        "begin with one that fits.",
        code="batch.no_workers",
    )


def first_line(error: Exception) -> str:
    """An error's text without Ray's explanations, which can be pages."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _nodes(ray: Any) -> list[dict[str, float]]:
    """What each node has, used or not."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _knock(address: str) -> None:
    """Raises OSError at once where nobody listens; names such as ``auto`` are left to Ray."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None]:
    """Sets environment variables that are not set, and takes them away again."""
    new = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)
