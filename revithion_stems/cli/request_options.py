"""The options that ``separate``, ``plan`` and ``batch`` share, and the requests that they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from revithion_stems.cli.completion import complete_models

if TYPE_CHECKING:
    from revithion_stems.outputs import OutputOptions
    from revithion_stems.requests import SeparationRequest

F = TypeVar("F", bound=Callable[..., Any])

ENGINES = ("auto", "torch", "onnx")

sources_argument = click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))


def _options(engines: Sequence[str]) -> tuple[Callable[[Any], Any], ...]:
    return (
        click.option("-o", "--output", type=click.Path(), default=".", help="Folder for stems."),
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
            type=click.Choice(["wav", "flac", "mp3", "ogg", "opus", "m4a", "stem.mp4"]),
            default="wav",
            show_default=True,
        ),
        click.option(
            "-b",
            "--bit-depth",
            type=click.Choice(["16", "24", "32f"]),
            help="WAV: 32f, 24, 16; FLAC: 24, 16; M4A, stem.mp4: 24, 16.",
        ),
        click.option("--archive-mix", is_flag=True, help="Keep a copy of the source beside its stems."),
        click.option("--segment", type=float, help="Seconds per network run, at most the model's own."),
        click.option(
            "--overlap", type=float, default=0.25, show_default=True, help="Fraction of a segment, not seconds."
        ),
        click.option("--shifts", type=int, default=0, show_default=True, help="Random time shifts to average over."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the shifts."),
        click.option("--engine", type=click.Choice(engines), default="auto", show_default=True),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True),
        click.option("--threads", type=int, help="CPU threads for the network."),
        click.option("--force-refresh", is_flag=True, help="Compute even what the cache has."),
        click.option("--offline", is_flag=True, help="Never use the network."),
    )


def request_options(engines: Sequence[str] = ENGINES) -> Callable[[F], F]:
    """A decorator that gives a command the options of a separation, with ``engines`` to choose from."""

    def decorate(command: F) -> F:
        for option in reversed(_options(engines)):
            command = option(command)
        return command

    return decorate


def build_request(options: dict[str, Any], source: Path, *, engine: str) -> SeparationRequest:
    """The request for a source.

    Raises:
        RequestError: A value is out of range.
    """
    from revithion_stems.requests import OtherMethod, SeparationRequest
    from revithion_stems.stems import ResidualPolicy

    return SeparationRequest(
        source=source,
        model=options["model"],
        stems=tuple(name.strip() for name in (options["stems"] or "").split(",") if name.strip()),
        two_stems=options["two_stems"],
        other_method=OtherMethod(options["other_method"]),
        residual=ResidualPolicy(options["residual"]),
        segment_s=options["segment"],
        overlap=options["overlap"],
        shifts=options["shifts"],
        seed=options["seed"],
        engine=engine,
        device=options["device"],
        precision=options["precision"],
        threads=options["threads"],
    )


def build_output(options: dict[str, Any], sources: Sequence[Path]) -> OutputOptions:
    """Where and how the stems of all ``sources``, which must not be overwritten, go.

    Raises:
        RequestError: The format does not have that bit depth.
    """
    from revithion_stems.output_format import BitDepth, Container, OutputFormat
    from revithion_stems.outputs import OutputOptions

    depth = options["bit_depth"]
    folder = Path(options["output"])
    return OutputOptions(
        folder=folder,
        template=options["template"],
        format=OutputFormat(container=Container(options["format"]), bit_depth=BitDepth(depth) if depth else None),
        # No stem gets out of the folder, so sources elsewhere are safe; each one costs a look per stem.
        keep=tuple(source for source in sources if _real(source).is_relative_to(_real(folder))),
        archive_mix=options["archive_mix"],
    )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path).casefold())  # some file systems don't tell upper from lower case


def build_requests(options: dict[str, Any]) -> tuple[list[SeparationRequest], OutputOptions]:
    """The requests, one per source, and where their stems go.

    Raises:
        RequestError: A value is out of range, or two sources would have the same stems' files.
    """
    from revithion_stems.batch_inputs import refuse_collisions

    sources: tuple[Path, ...] = options["sources"]
    output = build_output(options, sources)
    requests = [build_request(options, source, engine=options["engine"]) for source in sources]
    refuse_collisions((str(source), output) for source in sources)
    return requests, output
