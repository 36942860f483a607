"""A batch as data: what is to be separated, and how each file ended."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from revithion_stems.errors import Cancelled, RevithionError
from revithion_stems.outputs import OutputOptions
from revithion_stems.paths import jailed
from revithion_stems.requests import SeparationRequest

if TYPE_CHECKING:
    from revithion_stems.reports import SeparationReport


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One file of a batch.

    Attributes:
        source: Path or URL, as the user will read it.
        folder: Where its stems go below the output folder: the source's place in the folder that was named, made safe.
    """

    source: str
    folder: PurePosixPath = field(default_factory=PurePosixPath)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Files with the parameters that they share.

    Attributes:
        items: What to separate, in this order.
        request: Parameters; its source is replaced by each item's.
        output: Where and how to write; its folder gets each item's folder below it.
        output_url: Where stems go if that is a URL; the folder of ``output`` then is not used.
        force_refresh: Whether to compute what the cache already has.
        offline: Whether the network is off for weights.
    """

    items: tuple[BatchItem, ...]
    request: SeparationRequest
    output: OutputOptions
    output_url: str | None = None
    force_refresh: bool = False
    offline: bool = False

    def request_for(self, item: BatchItem) -> SeparationRequest:
        """The parameters with the item's own source, which is a path."""
        return replace(self.request, source=Path(item.source))

    def output_for(self, item: BatchItem) -> OutputOptions:
        """Where the item's stems go.

        Raises:
            OutputError: A link in the output folder leads the item's folder out of it.
        """
        if not item.folder.parts:
            return self.output
        return replace(self.output, folder=jailed(self.output.folder, item.folder))


class Outcome(enum.Enum):
    """How one file of a batch ended."""

    DONE = "done"
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """How one file of a batch ended.

    Attributes:
        item: The file.
        outcome: ``CACHED`` if its stems came from the cache, or stood there complete already.
        error: Code, message and hint of a failure.
        exit_code: Of that failure; 0 otherwise.
        model: Name of the model, or None if it did not come to that.
        duration_s: Length of the audio; 0 if it did not come to that.
        elapsed_s: Time spent on it.
        null_db: Level of (Σ stems − source) relative to the source; None where it does not apply.
        exact: Whether the sum is exact bit for bit.
        manifest: Path or URL of its manifest.
        worker: Who did it; empty for this process.
    """

    item: BatchItem
    outcome: Outcome
    error: dict[str, str] | None = None
    exit_code: int = 0
    model: str | None = None
    duration_s: float = 0.0
    elapsed_s: float = 0.0
    null_db: float | None = None
    exact: bool = False
    manifest: str | None = None
    worker: str = ""

    @classmethod
    def of(
        cls, item: BatchItem, end: SeparationReport | RevithionError, *, elapsed_s: float, worker: str = ""
    ) -> BatchResult:
        """The result of a file that ended with a report or an error."""
        if isinstance(end, RevithionError):
            return cls(
                item=item,
                outcome=Outcome.CANCELLED if isinstance(end, Cancelled) else Outcome.FAILED,
                error=end.as_dict(),
                exit_code=end.exit_code,
                elapsed_s=elapsed_s,
                worker=worker,
            )
        return cls(
            item=item,
            outcome=Outcome.CACHED if end.cached else Outcome.DONE,
            model=end.model,
            duration_s=end.duration_s,
            elapsed_s=elapsed_s,
            null_db=end.null_db,
            exact=end.exact,
            manifest=None if end.manifest is None else str(end.manifest),
            worker=worker,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """The figures of a batch that is over.

    Attributes:
        files: How many there were; the next four add up to it.
        done: Separated.
        cached: Not computed again.
        failed: Not separated for an error of their own.
        cancelled: Not finished, or not begun.
        audio_s: Length of what was separated.
        elapsed_s: Time from start to end.
        exit_code: 130 if the batch was cancelled; else that of the first failure in the order of files, or 0.
    """

    files: int
    done: int
    cached: int
    failed: int
    cancelled: int
    audio_s: float
    elapsed_s: float
    exit_code: int

    @classmethod
    def of(cls, results: Iterable[BatchResult], *, elapsed_s: float) -> BatchSummary:
        """Counts results, which are in the order of files."""
        results = tuple(results)
        counts = Counter(result.outcome for result in results)
        failures = (result.exit_code for result in results if result.outcome is Outcome.FAILED)
        cancelled = counts[Outcome.CANCELLED]
        return cls(
            files=len(results),
            done=counts[Outcome.DONE],
            cached=counts[Outcome.CACHED],
            failed=counts[Outcome.FAILED],
            cancelled=cancelled,
            audio_s=sum(result.duration_s for result in results if result.outcome is Outcome.DONE),
            elapsed_s=elapsed_s,
            exit_code=Cancelled.exit_code if cancelled else next(failures, 0),
        )
