"""The Python door: the same separation as every other door, in one call."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from revithion_stems.audio import AudioBuffer
from revithion_stems.errors import RequestError
from revithion_stems.events import CancelToken, EventCallback
from revithion_stems.file_sink import FileSink
from revithion_stems.model_loading import ModelCache
from revithion_stems.outputs import OutputOptions
from revithion_stems.reports import SeparationReport
from revithion_stems.requests import SeparationRequest
from revithion_stems.runner import StagedSeparation
from revithion_stems.sinks import MemorySink
from revithion_stems.stems import StemSet
from revithion_stems.store import ContentStore
from revithion_stems.weights import ModelStore


def separate(
    source: Path | str | AudioBuffer,
    *,
    on_event: EventCallback | None = None,
    cancel: CancelToken | None = None,
    store: ModelStore | None = None,
    **parameters: Any,
) -> StemSet:
    """Separates a file or a buffer into stems in memory. Blocking; any thread.

    Args:
        source: Path of an audio file, or audio in memory.
        on_event: Called with every :data:`~revithion_stems.events.JobEvent`, on the calling thread.
        cancel: Cancelling it stops the work before the next network run.
        store: Where weights are; by default the user's.
        **parameters: Fields of :class:`~revithion_stems.requests.SeparationRequest`, such as ``model="htdemucs"``.

    Returns:
        Stems of the source's own rate, length and channels.

    Raises:
        RequestError: A parameter is unknown or unusable.
        InputError: The source is unusable.
        ModelError: The model is unknown or can't be had.
        EngineError: Inference failed.
        Cancelled: ``cancel`` was cancelled.
    """
    known = [field.name for field in dataclasses.fields(SeparationRequest)]
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise RequestError(
            f"unknown parameter {unknown[0]!r} (known: {', '.join(known)})",
            hint="Correct its name.",
            code="request.parameter",
        )
    sink = MemorySink()
    request = SeparationRequest(source=source, **parameters)
    StagedSeparation(request, sink, on_event=on_event, cancel=cancel, store=store).run()
    return sink.stem_set()


def separate_to_files(
    request: SeparationRequest,
    output: OutputOptions | None = None,
    *,
    on_event: EventCallback | None = None,
    cancel: CancelToken | None = None,
    store: ModelStore | None = None,
    models: ModelCache | None = None,
    contents: ContentStore | None = None,
    force_refresh: bool = False,
) -> SeparationReport:
    """Separates a file into files, with memory that does not depend on its length. Blocking; any thread.

    What was separated before with the same parameters comes from the content store, and what was interrupted goes on
    from the network run that it had finished.

    Args:
        request: What to separate; its source must be a path.
        output: Where and how to write; by default ``./{track}/{stem}.wav`` in 32-bit float.
        on_event: As in :func:`separate`.
        cancel: As in :func:`separate`.
        store: As in :func:`separate`.
        models: Keeps the model for the next call.
        contents: Where results are kept; by default the user's cache.
        force_refresh: Whether to compute anew what is there already.

    Raises:
        OutputError: The files can't be written; besides the errors of :func:`separate`.
    """
    return StagedSeparation(
        request,
        FileSink(request, output or OutputOptions()),
        on_event=on_event,
        cancel=cancel,
        store=store,
        models=models,
        contents=contents,
        force_refresh=force_refresh,
    ).run()
