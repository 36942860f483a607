"""``revithion-stems plan``: what ``separate`` would do with the same options."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import json_option, print_json, printable, report_error
from revithion_stems.cli.request_options import build_requests, request_options, sources_argument

if TYPE_CHECKING:
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.planning import SeparationPlan
    from revithion_stems.requests import SeparationRequest


@click.command(
    epilog="Examples:\n\n\b\n  revithion-stems plan song.mp3\n  revithion-stems plan *.wav -m htdemucs_ft --json"
)
@sources_argument
@request_options()
@json_option
def plan_command(json_mode: bool, **options: Any) -> int:
    """Show what separate would do with SOURCES: model, engine, time, memory and disk. Changes nothing."""
    requests, output = build_requests(options)
    return show_plans(((request, output) for request in requests), offline=options["offline"], json_mode=json_mode)


def show_plans(
    work: Iterable[tuple[SeparationRequest, OutputOptions]],
    *,
    offline: bool,
    json_mode: bool,
    show: Callable[[SeparationPlan, list[str]], None] | None = None,
) -> int:
    """Prints a plan per request; returns the exit status.

    Args:
        work: Requests, each with where its stems go.
        offline: Whether the network is off.
        json_mode: Whether to print JSON lines.
        show: Prints a plan and its notices for people; by default all of it.
    """
    import dataclasses

    from revithion_stems.errors import RevithionError
    from revithion_stems.events import EventStream, JobEvent, Notice
    from revithion_stems.planning import plan_separation
    from revithion_stems.weights import ModelStore

    store = ModelStore(offline=offline)
    status = 0
    for request, output in work:
        notices: list[str] = []

        def note(event: JobEvent, notices: list[str] = notices) -> None:
            if isinstance(event, Notice):
                notices.append(event.message)

        try:
            plan = plan_separation(request, output, store=store, events=EventStream("plan", note))
        except RevithionError as exc:
            status = status or exc.exit_code
            report_error(exc, json_mode=json_mode)
            continue
        if json_mode:
            extra = {"warnings": plan.warnings, "notices": notices}
            print_json({"type": "SeparationPlan", **dataclasses.asdict(plan), **extra})
        else:
            (show or _print_plan)(plan, notices)
    return status


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_plan(plan: SeparationPlan, notices: list[str]) -> None:
    from revithion_stems.units import format_bytes, format_duration

    def line(label: str, text: str) -> None:
        click.echo(f"  {label:<9}{printable(text)}")

    click.echo(printable(plan.source))
    line("source", f"{format_duration(plan.duration_s)}, {plan.sample_rate} Hz, {_count(plan.channels, 'channel')}")
    line("model", f"{plan.model} ({plan.presence}); weights: {plan.licence}")
    line("engine", f"{plan.engine} on {plan.device}: {_count(plan.networks, 'network')}, {_count(plan.runs, 'run')}")
    line("time", f"about {format_duration(plan.estimated_s)} ({plan.estimate_basis})")
    line("memory", f"about {format_bytes(plan.memory_bytes)}; {format_bytes(plan.memory_free_bytes)} free")
    line("disk", f"{format_bytes(plan.disk_bytes)} while working; {format_bytes(plan.disk_free_bytes)} free")
    line("cache", f"{format_bytes(plan.journal_bytes)} while working; {format_bytes(plan.cache_free_bytes)} free")
    if plan.download_bytes != 0:
        size = "size not published" if plan.download_bytes is None else format_bytes(plan.download_bytes)
        line("download", size)
    for path in plan.outputs.values():
        line("writes", path)
    for notice in notices:
        line("note", notice)
    for warning in plan.warnings:
        line("warning", warning)
