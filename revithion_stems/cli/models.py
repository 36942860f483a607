"""`revithion-stems models`: what models there are, what is here of them, and how their weights get here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from revithion_stems.catalog import ModelSpec
from revithion_stems.cli.completion import complete_models
from revithion_stems.cli.console import json_option, print_json, printable
from revithion_stems.cli.export_model import export_model_command
from revithion_stems.cli.interrupts import run_cancellable
from revithion_stems.errors import ModelError
from revithion_stems.events import CancelToken, EventStream
from revithion_stems.network_files import named_model
from revithion_stems.units import format_bytes
from revithion_stems.weight_files import file_path
from revithion_stems.weights import FileReport, FileState, ModelStore, Presence

HELP = {"help_option_names": ["-h", "--help"]}
offline_option = click.option("--offline", is_flag=True, help="Never use the network (also REVITHION_OFFLINE=1).")


def _examples(*lines: str) -> str:
    return "Examples:\n\n\b\n" + "\n".join(f"  revithion-stems models {line}" for line in lines)


@click.group(
    context_settings=HELP,
    epilog=_examples("list", "pull htdemucs", "pull htdemucs --pack ./htdemucs-pack", "import ./htdemucs-pack"),
)
def models_group() -> None:
    """List, pull, verify and move model weights."""


@models_group.command("list", context_settings=HELP, epilog=_examples("list", "list --json"))
@json_option
def list_command(json_mode: bool) -> None:
    """List the models: stems, whether the weights are here, size, licence, published quality."""
    store = ModelStore()
    rows = [_summary(store, spec) for spec in store.catalog.models]
    if json_mode:
        print_json({"type": "Models", "folder": str(store.root), "models": rows})
        return
    table = [["MODEL", "HERE", "SIZE", "SDR", "LICENCE", "STEMS"]]
    for row in rows:
        sdr = row["mean_sdr_db"]
        size = "built in" if store.catalog[row["name"]].built_in else format_bytes(row["size"]) if row["size"] else "?"
        here = {"present": "yes", "partial": "partly", "absent": "no"}[row["presence"]]
        shown = "–" if sdr is None else f"{sdr:.2f}"
        table.append([row["name"], here, size, shown, row["licence"], ", ".join(row["stems"])])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    click.echo(f"\nSDR: published mean in dB. LICENCE: of the weights, see `models info`. Folder: {store.root}")


@models_group.command("info", context_settings=HELP, epilog=_examples("info htdemucs_ft", "info dsp --json"))
@click.argument("name", shell_complete=complete_models)
@json_option
def info_command(name: str, json_mode: bool) -> None:
    """Show all that is known of a model, or of a network file: licence, quality with its source, files, digests."""
    store = ModelStore()
    spec = named_model(name, store.catalog)
    if json_mode:
        print_json({"type": "Model", **_summary(store, spec), **_details(spec)})
        return
    click.echo(f"{spec.name}: {spec.title}")
    click.echo(f"  stems       {', '.join(spec.stems)} (the rest goes to {spec.residual_stem})")
    fixed = "always" if spec.segment_fixed else "by default"
    click.echo(f"  works at    {spec.sample_rate} Hz, {float(spec.segment_s):.6g} s at a time ({fixed})")
    click.echo(f"  size        {spec.parameters:,} parameters, networks: {len(spec.networks)}")
    click.echo(f"  cost        {spec.gflop_per_segment:g} GFLOP per network and segment")
    click.echo(f"  weights     {store.presence(spec).value} in {_place(store, spec)}")
    click.echo(f"  licence     {spec.licence.weights}; commercial use: {spec.licence.commercial_use}")
    click.echo(f"              {spec.licence.note}\n              ({spec.licence.source})")
    for quality in spec.quality:
        figures = ", ".join(f"{stem} {value:.2f}" for stem, value in quality.sdr_db.items())
        click.echo(f"  quality     {figures} dB; {quality.metric}; {quality.dataset}\n              ({quality.source})")
    for network in spec.networks:
        click.echo(f"  network {network.signature}, any one of:")
        for file in network.files:
            size = format_bytes(file.size) if file.size else "size not published"
            digest = file.sha256 or (f"{file.sha256_prefix}…" if file.sha256_prefix else "as the hub states it")
            click.echo(f"    {file.name} ({file.format.value}, {size})\n      sha256 {digest}")
            for source in file.sources:
                click.echo(f"      from {source}")


@models_group.command(
    "pull",
    context_settings=HELP,
    epilog=_examples("pull htdemucs", "pull htdemucs_ft spleeter_2stems", "pull htdemucs --pack ./htdemucs-pack"),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_models)
@click.option("--force", is_flag=True, help="Fetch anew, and replace files that do not verify.")
@click.option("--pack", type=click.Path(path_type=Path, file_okay=False), help="Then write a folder to carry over.")
@offline_option
@json_option
def pull_command(names: tuple[str, ...], force: bool, pack: Path | None, offline: bool, json_mode: bool) -> None:
    """Get a model's weights, from the first source that delivers; verified before they get their name."""
    store = ModelStore(offline=offline)
    specs = [store.catalog[name] for name in names]
    from revithion_stems.cli.pull_progress import pull_reporter

    # The job of the events carries the model's name; its callback prints, draws or streams.
    cancel = CancelToken()
    with pull_reporter(json_mode=json_mode) as callback:
        for spec in specs:
            events = EventStream(f"pull-{spec.name}", callback)
            run_cancellable(
                lambda spec=spec, events=events: store.pull(spec, events=events, cancel=cancel, force=force),
                cancel,
                on_interrupt=lambda events=events: events.notice("model.cancelling", "cancelling the download"),
            )
    for spec in specs:
        written = store.write_pack(spec, pack) if pack is not None and spec.networks else None
        if json_mode:
            data = {"type": "Pulled", "model": spec.name, "presence": store.presence(spec).value}
            print_json({**data, "folder": str(store.root), "pack": str(written) if written else None})
        else:
            note = "needs no download" if spec.built_in else f"ready in {store.root}"
            click.echo(f"{spec.name}: {note}" + (f", packed in {pack}" if written else ""))


@models_group.command("verify", context_settings=HELP, epilog=_examples("verify htdemucs", "verify --json"))
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_models)
@json_option
def verify_command(names: tuple[str, ...], json_mode: bool) -> None:
    """Hash the weights that are here and compare (all models by default); exit 4 if any is damaged or missing."""
    store = ModelStore()
    chosen = [store.catalog[name] for name in names] or [
        spec for spec in store.catalog.models if spec.networks and store.presence(spec) is not Presence.ABSENT
    ]
    failed = False
    for spec in chosen:
        reports = store.verify(spec)
        usable = all(_network_is_usable(network.signature, reports) for network in spec.networks)
        damaged = any(report.state is FileState.CORRUPT for report in reports)
        failed = failed or damaged or not usable
        if json_mode:
            files = [_report_as_dict(report) for report in reports]
            print_json({"type": "Verified", "model": spec.name, "usable": usable, "files": files})
            continue
        click.echo(f"{spec.name}: {'ok' if usable else 'not usable'}")
        for report in reports:
            if report.state is not FileState.MISSING:
                click.echo(f"  {report.file.name}: {report.state.value}, sha256 {report.found}")
            if report.state is FileState.CORRUPT:
                help_is = (
                    "install revithion-stems again" if report.file.built_in else f"`models pull {spec.name} --force`"
                )
                click.echo(f"    expected {report.expected}; to replace it: {help_is}")
    if not chosen and not json_mode:
        click.echo("no weights are here; `revithion-stems models pull NAME` gets some")
    if failed:
        click.get_current_context().exit(ModelError.exit_code)


@models_group.command(
    "import",
    context_settings=HELP,
    epilog=_examples("import ./htdemucs-pack", "import ~/Downloads/955717e8-8726e21a.th"),
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=Path))
@json_option
def import_command(paths: tuple[Path, ...], json_mode: bool) -> None:
    """Take in packs, or single weights files recognised by their SHA-256. Needs no network."""
    store = ModelStore()
    for path in paths:
        names = store.import_path(path)
        if json_mode:
            print_json({"type": "Imported", "path": str(path), "models": list(names), "folder": str(store.root)})
        else:
            click.echo(f"{printable(str(path))}: imported for {', '.join(names)}")


@models_group.command("remove", context_settings=HELP, epilog=_examples("remove mdx_extra_q"))
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_models)
@json_option
def remove_command(names: tuple[str, ...], json_mode: bool) -> None:
    """Delete a model's weights, except files that another model here needs."""
    store = ModelStore()
    for spec in [store.catalog[name] for name in names]:
        freed = store.remove(spec)
        if json_mode:
            print_json({"type": "Removed", "model": spec.name, "freed_bytes": freed})
        else:
            click.echo(f"{spec.name}: {format_bytes(freed)} freed")


models_group.add_command(export_model_command)


def _summary(store: ModelStore, spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "title": spec.title,
        "stems": list(spec.stems),
        "presence": store.presence(spec).value,
        "size": spec.size,
        "networks": len(spec.networks),
        "licence": spec.licence.weights,
        "commercial_use": spec.licence.commercial_use,
        "mean_sdr_db": next((quality.sdr_db.get("mean") for quality in spec.quality), None),
    }


def _details(spec: ModelSpec) -> dict[str, Any]:
    import msgspec

    data: dict[str, Any] = msgspec.to_builtins(spec)
    return {**data, "segment_s": float(spec.segment_s), "segment_frames": spec.segment_frames}


def _place(store: ModelStore, spec: ModelSpec) -> str:
    """Where the weights are or would be, for people."""
    if spec.built_in:
        return "this program"
    return printable(str(file_path(store.root, spec.networks[0].files[0]).parent))


def _network_is_usable(signature: str, reports: tuple[FileReport, ...]) -> bool:
    return any(report.network == signature and report.state is FileState.OK for report in reports)


def _report_as_dict(report: FileReport) -> dict[str, Any]:
    data = {"name": report.file.name, "network": report.network, "path": str(report.path)}
    return {**data, "state": report.state.value, "expected": report.expected, "found": report.found}
