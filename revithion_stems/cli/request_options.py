"""The options that ``separate`` and ``plan`` share, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from revithion_stems.cli.completion import complete_models

if TYPE_CHECKING:
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.requests import SeparationRequest

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path)),
    click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="Folder for stems."),
    click.option("--template", default="{track}/{stem}.{ext}", show_default=True, help="Names below the folder."),
    click.option(
        "-m",
        "--model",
        default="auto",
        show_default=True,
        help="Model; see `models list`.",
        shell_complete=complete_models,
    ),
    click.option("--stems", help="Only these stems, comma-separated; only what they need is computed."),
    click.option("--two-stems", metavar="STEM", help="STEM and the rest (no_STEM)."),
    click.option(
        "--other-method",
        type=click.Choice(["minus", "add", "none"]),
        default="minus",
        show_default=True,
        help="The rest of --two-stems: source minus STEM, sum of the model's others, or not at all.",
    ),
    click.option(
        "--residual",
        type=click.Choice(["fold", "stem", "exact"]),
        default="fold",
        show_default=True,
        help="What no stem claims: into `other`, a stem of its own, or fold and keep the part below 2^-24.",
    ),
    click.option(
        "-f",
        "--format",
        type=click.Choice(["wav", "flac", "mp3", "ogg"]),
        default="wav",
        show_default=True,
    ),
    click.option("-b", "--bit-depth", type=click.Choice(["16", "24", "32f"]), help="WAV: 32f, 24, 16; FLAC: 24, 16."),
    click.option("--segment", type=float, help="Seconds per network run, at most the model's own."),
    click.option("--overlap", type=float, default=0.25, show_default=True, help="Fraction of a segment, not seconds."),
    click.option("--shifts", type=int, default=0, show_default=True, help="Random time shifts to average over."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the shifts."),
    click.option("--engine", type=click.Choice(["auto", "torch", "onnx"]), default="auto", show_default=True),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True),
    click.option("--threads", type=int, help="CPU threads for the network."),
    click.option("--offline", is_flag=True, help="Never use the network."),
)


def request_options(command: F) -> F:
    """Decorates a command with the arguments and options of a separation."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def build_requests(options: dict[str, Any]) -> tuple[list[SeparationRequest], OutputOptions]:
    """The requests, one per source, and where their stems go.

    Raises:
        RequestError: A value is out of range, or two sources would have the same stems' files.
    """
    from revithion_stems.errors import RequestError
    from revithion_stems.output_format import BitDepth, Container, OutputFormat
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.requests import OtherMethod, SeparationRequest
    from revithion_stems.stems import ResidualPolicy

    depth = options["bit_depth"]
    output = OutputOptions(
        folder=options["output"],
        template=options["template"],
        format=OutputFormat(
            container=Container(options["format"]),
            bit_depth=BitDepth(depth) if depth else None,
        ),
        keep=tuple(options["sources"]),
    )
    stems = tuple(name.strip() for name in (options["stems"] or "").split(",") if name.strip())
    requests = [
        SeparationRequest(
            source=source,
            model=options["model"],
            stems=stems,
            two_stems=options["two_stems"],
            other_method=OtherMethod(options["other_method"]),
            residual=ResidualPolicy(options["residual"]),
            segment_s=options["segment"],
            overlap=options["overlap"],
            shifts=options["shifts"],
            seed=options["seed"],
            engine=options["engine"],
            device=options["device"],
            precision=options["precision"],
            threads=options["threads"],
        )
        for source in options["sources"]
    ]
    taken: dict[Path, Path] = {}
    for source in options["sources"]:
        path = output.paths(source, ("stem",), "model")["stem"]
        if path in taken:
            raise RequestError(
                f"{taken[path]} and {source} would have the same stems' files",
                hint="Add {source_ext} to --template, or separate them into different folders with -o.",
                code="output.collision",
            )
        taken[path] = source
    return requests, output
