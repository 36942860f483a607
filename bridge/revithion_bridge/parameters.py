"""A job's parameters on the wire, and the request and output options of the core that they stand for."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TypeVar

from revithion_bridge.messages import JobParameters
from revithion_stems.audio import AudioBuffer
from revithion_stems.errors import InputError, RequestError
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.outputs import OutputOptions
from revithion_stems.requests import OtherMethod, SeparationRequest
from revithion_stems.stems import ResidualPolicy

_Choice = TypeVar("_Choice", bound=enum.Enum)


def to_request(parameters: JobParameters) -> tuple[SeparationRequest, OutputOptions]:
    """What the core is asked for. Looks at no file; any thread.

    Raises:
        RequestError: A value is out of its range, unknown, or contradicts another.
    """
    request = SeparationRequest(
        source=Path(parameters.source),
        model=parameters.model,
        stems=parameters.stems,
        two_stems=parameters.two_stems,
        other_method=_member("other_method", parameters.other_method, OtherMethod),
        residual=_member("residual", parameters.residual, ResidualPolicy),
        segment_s=parameters.segment_s,
        overlap=parameters.overlap,
        shifts=parameters.shifts,
        seed=parameters.seed,
        engine=parameters.engine,
        device=parameters.device,
        precision=parameters.precision,
        threads=parameters.threads,
    )
    depth = parameters.bit_depth
    output = OutputOptions(
        folder=Path(parameters.folder),
        template=parameters.template,
        format=OutputFormat(
            container=_member("format", parameters.format, Container),
            bit_depth=None if depth is None else _member("bit_depth", depth, BitDepth),
        ),
        archive_mix=parameters.archive_mix,
        keep=tuple(Path(path) for path in parameters.keep),
    )
    return request, output


def to_parameters(
    request: SeparationRequest, output: OutputOptions, *, force_refresh: bool, offline: bool, span_s: float
) -> JobParameters:
    """The same as :func:`to_request`, backwards; paths become absolute, and no symbolic link in them is followed.

    Args:
        request: Its source is a file.
        output: Where the stems go.
        force_refresh: Whether to compute what the cache has.
        offline: Whether downloads are forbidden.
        span_s: Length of spans in seconds; 0 for none.

    Raises:
        InputError: The source is audio in memory.
        RequestError: A path is not text, and can't be sent.
    """
    if isinstance(request.source, AudioBuffer):
        raise InputError(
            "audio in memory can't be sent to the daemon",
            hint="Write it to a file first, or separate it in this process.",
            code="input.no_path",
        )
    depth = output.format.bit_depth
    return JobParameters(
        source=_path_text("source", Path(request.source)),
        folder=_path_text("folder", output.folder),
        model=request.model,
        stems=request.stems,
        two_stems=request.two_stems,
        other_method=request.other_method.value,
        residual=request.residual.value,
        segment_s=request.segment_s,
        overlap=request.overlap,
        shifts=request.shifts,
        seed=request.seed,
        engine=request.engine,
        device=request.device,
        precision=request.precision,
        threads=request.threads,
        format=output.format.container.value,
        bit_depth=None if depth is None else depth.value,
        template=output.template,
        archive_mix=output.archive_mix,
        keep=tuple(_path_text("keep", path) for path in output.keep),
        force_refresh=force_refresh,
        offline=offline,
        span_s=span_s,
    )


def _member(field: str, value: str, kind: type[_Choice]) -> _Choice:
    try:
        return kind(value)
    except ValueError as exc:
        raise RequestError(
            f"{field} {value!r} is not one of {', '.join(str(member.value) for member in kind)}",
            hint="Correct it, or leave it out for the default.",
            code=f"request.{field}",
        ) from exc


def _path_text(field: str, path: Path) -> str:
    text = str(path.absolute())
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:  # on Linux a name can be any bytes; JSON is text
        raise RequestError(
            f"{field} {text!r} is not valid UTF-8",
            hint="Rename the file or folder, or separate it without the daemon.",
            code=f"request.{field}",
        ) from exc
    return text
