"""``revithion-stems models export``: a trained network, or a public checkpoint, as a file with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import json_option, print_json, printable
from revithion_stems.units import format_bytes

if TYPE_CHECKING:
    from revithion_stems.training.exporting import Exported

_FILE = click.Path(path_type=Path, dir_okay=False)
_EXAMPLES = """Examples:

\b
  revithion-stems models export runs/vocals -o nets
      nets/vocals.safetensors and its card, nets/vocals.safetensors.md
  revithion-stems separate song.wav --model nets/vocals.safetensors
  revithion-stems models export runs/preview --to onnx --half
  revithion-stems live --model preview.onnx
  revithion-stems models export --from-checkpoint model.ckpt --config model.yaml -o nets
"""


@click.command("export", context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES)
@click.argument("run_folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder.")
@click.option(
    "--to",
    type=click.Choice(["safetensors", "onnx"]),
    default="safetensors",
    show_default=True,
    help="safetensors for `separate --model`; onnx, of causal networks, for `live --model`.",
)
@click.option("--half", is_flag=True, help="ONNX: keep large weights in 16 bits.")
@click.option("--name", help="Of the files; by default that of the training, or of the checkpoint.")
@click.option("--licence", help="What you grant, such as MIT; the card says whether the data leave room for it.")
@click.option("--last", is_flag=True, help="The last checkpoint, not the best.")
@click.option("--from-checkpoint", type=_FILE, help="Convert a public RoFormer checkpoint instead.")
@click.option("--config", type=_FILE, help="The YAML file of that checkpoint.")
@json_option
def export_model_command(
    run_folder: Path | None,
    output: Path,
    to: str,
    half: bool,
    name: str | None,
    licence: str | None,
    last: bool,
    from_checkpoint: Path | None,
    config: Path | None,
    json_mode: bool,
) -> None:
    """Write the network of RUN_FOLDER (of `train`) as a file with a model card beside it."""
    if (run_folder is None) == (from_checkpoint is None):
        raise click.UsageError("Give either RUN_FOLDER or --from-checkpoint.")
    if (from_checkpoint is None) != (config is None):
        raise click.UsageError("--from-checkpoint and --config go together.")
    if half and to != "onnx":
        raise click.UsageError("--half goes with --to onnx.")
    if from_checkpoint is not None and (last or to != "safetensors"):
        raise click.UsageError("A public checkpoint becomes safetensors; --last and --to are for RUN_FOLDER.")
    if from_checkpoint is not None and config is not None:
        from revithion_stems.training.public_conversion import convert_checkpoint

        exported = convert_checkpoint(
            from_checkpoint, config, output, name=name or _plain(from_checkpoint.stem), licence=licence
        )
    else:
        from revithion_stems.training.exporting import ExportForm
        from revithion_stems.training.run_export import export_run

        assert run_folder is not None
        exported = export_run(run_folder, output, form=ExportForm(to), name=name, licence=licence, half=half, last=last)
    if json_mode:
        _print_json(exported)
        return
    licence_text = f"{exported.facts.licence.weights}; commercial use: {exported.facts.licence.commercial_use}"
    size = format_bytes(exported.weights.stat().st_size)
    click.echo(f"{printable(str(exported.weights))} ({size}), card in {printable(str(exported.card))}")
    click.echo(f"  licence: {licence_text}. {printable(exported.facts.licence.note)}")
    use = "live" if exported.weights.suffix == ".onnx" else "separate song.wav"
    click.echo(f"  use it: revithion-stems {use} --model {printable(str(exported.weights))}")


def _print_json(exported: Exported) -> None:
    import msgspec

    facts = msgspec.to_builtins(exported.facts)
    print_json({"type": "Exported", "path": str(exported.weights), "card": str(exported.card), "facts": facts})


def _plain(stem: str) -> str:
    """A file's stem as a name for files of ours."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem)
    return name.lstrip("_-")[:64] or "network"
