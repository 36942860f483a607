"""The daemon's status in Prometheus' text format, for node_exporter's textfile collector and its like.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from revithion_bridge.messages import Latency, Status

PREFIX = "revithion"
_QUANTILES = (("0.5", "p50_s"), ("0.9", "p90_s"), ("0.99", "p99_s"))


def prometheus_text(status: Status) -> str:
    """All figures of ``status``, one metric each, with help and type; ends with a line end."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry).decode("utf-8")


class _StatusCollector(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        status = self._status
        yield _gauge("info", "Version of the program.", {(("version", status.version),): 1})
        yield _gauge("uptime_seconds", "Time since the daemon was started.", {(): status.uptime_s})
        yield _gauge("queue_paused", "Whether no more jobs are started.", {(): status.paused})
        yield _gauge("stopping", "Whether the daemon is about to end.", {(): status.stopping})
        yield _gauge("jobs", "Jobs by state, those that have ended included.", _by("state", status.jobs))
        yield _gauge("waiting_jobs", "Jobs that wait, by priority.", _by("priority", status.waiting))
        counted = CounterMetricFamily(f"{PREFIX}_happened", "What happened since the start, by name.", labels=["what"])
        for name, count in sorted(status.counters.items()):
            counted.add_metric([name], count)
        yield counted
        yield CounterMetricFamily(f"{PREFIX}_audio_seconds", "Audio separated since the start.", value=status.audio_s)
        yield _gauge("memory_bytes", "Resident memory of the daemon.", {(): status.memory_bytes})
        yield _gauge("memory_free_bytes", "Memory that the machine has left.", {(): status.memory_free_bytes})
        workers = status.workers
        yield _gauge(
            "worker_up",
            "Whether a device's process runs.",
            _by("device", {w.device: w.pid is not None for w in workers}),
        )
        yield _gauge(
            "worker_busy", "Whether it works on a job.", _by("device", {w.device: w.job is not None for w in workers})
        )
        yield _gauge(
            "worker_memory_bytes", "Its resident memory.", _by("device", {w.device: w.memory_bytes for w in workers})
        )
        restarts = CounterMetricFamily(f"{PREFIX}_worker_restarts", "How often it was lost.", labels=["device"])
        for worker in workers:
            restarts.add_metric([worker.device], worker.restarts)
        yield restarts
        yield from _latency("request_seconds", "Time from a request to its reply.", status.requests)
        yield from _latency("queued_seconds", "Time that jobs waited.", status.queued)
        yield from _latency(
            "first_segment_seconds", "Time from a job's start to its first network run's end.", status.first_segment
        )


def _by(label: str, values: dict[str, int] | dict[str, bool]) -> dict[tuple[tuple[str, str], ...], float]:
    return {((label, name),): value for name, value in sorted(values.items())}


def _gauge(name: str, text: str, values: dict[tuple[tuple[str, str], ...], float]) -> GaugeMetricFamily:
    labels = [label for label, _ in next(iter(values), ())]
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=labels)
    for labelled, value in values.items():
        family.add_metric([text for _, text in labelled], float(value))
    return family


def _latency(name: str, text: str, latency: Latency) -> Iterator[Metric]:
    """A summary has quantiles over the last ones and a count of all; the sum is not known, and left out."""
    family = SummaryMetricFamily(f"{PREFIX}_{name}", text)
    family.add_sample(f"{PREFIX}_{name}_count", {}, latency.count)
    for quantile, field in _QUANTILES:
        family.add_sample(f"{PREFIX}_{name}", {"quantile": quantile}, getattr(latency, field))
    yield family
