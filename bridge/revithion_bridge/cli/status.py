"""``revithion-stems status``: how the daemon is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from revithion_bridge.cli.job_ids import open_client
from revithion_stems.cli.console import json_option, print_json, printable

if TYPE_CHECKING:
    from revithion_bridge.messages import Latency, Status

_EXAMPLES = """Examples:

\b
  revithion-stems status
  revithion-stems status --json | jq .waiting
  revithion-stems status --prometheus > /var/lib/node_exporter/revithion.prom
"""


@click.command(epilog=_EXAMPLES)
@click.option("--prometheus", is_flag=True, help="Print it in Prometheus' text format.")
@json_option
def status_command(prometheus: bool, json_mode: bool) -> None:
    """Show the daemon's queue, workers, memory, rates, cache hits and latencies. Status 7 if none runs."""
    if prometheus and json_mode:
        raise click.UsageError("Choose --json or --prometheus.")
    with open_client() as client:
        status = client.status()
    if json_mode:
        import msgspec

        print_json({**msgspec.to_builtins(status), "type": "Status"})
    elif prometheus:
        from revithion_bridge.prometheus_text import prometheus_text

        click.echo(prometheus_text(status), nl=False)
    else:
        _print_status(status)


def _print_status(status: Status) -> None:
    from revithion_stems.units import format_bytes, format_duration

    def line(label: str, text: str) -> None:
        click.echo(f"{label:<10}{printable(text)}")

    line("daemon", f"version {status.version}, process {status.pid}, up {format_duration(status.uptime_s)}")
    state = "stopping" if status.stopping else "paused" if status.paused else "running"
    waiting = ", ".join(f"{count} {name}" for name, count in status.waiting.items() if count)
    line("queue", f"{state}; {f'waiting: {waiting}' if waiting else 'nothing waits'}")
    line("jobs", ", ".join(f"{count} {name}" for name, count in status.jobs.items() if count) or "none")
    for worker in status.workers:
        facts = [f"process {worker.pid}" if worker.pid is not None else "not running"]
        facts += [
            text for text in (worker.model and f"{worker.model} is warm", worker.job and f"at {worker.job}") if text
        ]
        if worker.pid is not None:
            facts.append(format_bytes(worker.memory_bytes))
        if worker.restarts:
            facts.append(f"lost {worker.restarts} times")
        line("worker", f"{worker.device}: {', '.join(facts)}")
    line("memory", f"{format_bytes(status.memory_bytes)} here; {format_bytes(status.memory_free_bytes)} free")
    line("audio", f"{format_duration(status.audio_s)} separated since the start")
    if status.counters:
        line("counted", ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in sorted(status.counters.items())))
    line("requests", _latency(status.requests))
    line("waits", _latency(status.queued))
    line("first run", _latency(status.first_segment))
    for root in status.roots:
        line("folder", root)


def _latency(latency: Latency) -> str:
    if not latency.count:
        return "none yet"
    figures = ", ".join(
        f"{name} {value * 1000:.1f} ms" if value < 1 else f"{name} {value:.1f} s"
        for name, value in (("median", latency.p50_s), ("90 %", latency.p90_s), ("99 %", latency.p99_s))
    )
    return f"{figures} (of {latency.count})"
