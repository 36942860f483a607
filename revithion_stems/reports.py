"""What a finished separation gave, as a report for callers and as a manifest for files."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.catalog import ModelSpec
from revithion_stems.fingerprint import READERS, engine_versions, library_versions
from revithion_stems.manifest import Manifest, ManifestModel, ManifestParameters, ManifestSource
from revithion_stems.output_format import OutputFormat
from revithion_stems.requests import SeparationRequest, StemPlan
from revithion_stems.sinks import Sink
from revithion_stems.source_facts import SourceFacts
from revithion_stems.stem_files import WrittenStem


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationReport:
    """What a finished separation gave.

    Attributes:
        model: Name of the model.
        engine: Name of the engine.
        device: Where it ran.
        licence: Terms of the weights.
        stems: The files, in the model's order; empty where the stems stay in memory.
        duration_s: Length of the source.
        elapsed_s: Time spent on it, the choice and the download of the model aside.
        run_s: Mean time of a network run, in seconds; 0 if none was needed.
        null_db: Level of (Σ stems − source) relative to the source; −inf where they are equal bit for bit, None where
            the stems are not meant to add up to it, or a lossy format came between.
        lag_frames: How many frames later the stems are than the source; None where that can't be told.
        gain_db: The gain that all stems share.
        cached: Whether the stems came from the content store.
        resumed_runs: How many network runs an earlier attempt had finished.
        manifest: The manifest's path; None where the stems stay in memory.
    """

    model: str
    engine: str
    device: str
    licence: str
    stems: tuple[WrittenStem, ...]
    duration_s: float
    elapsed_s: float
    run_s: float
    null_db: float | None
    lag_frames: int | None
    gain_db: float
    cached: bool = False
    resumed_runs: int = 0
    manifest: Path | None = None

    @property
    def exact(self) -> bool:
        """Whether the stems add up to the source bit for bit."""
        return self.null_db == float("-inf")


def make_manifest(
    *,
    key: str,
    facts: SourceFacts,
    spec: ModelSpec,
    weights: tuple[str, ...],
    plan: StemPlan,
    request: SeparationRequest,
    output_format: OutputFormat,
    report: SeparationReport,
) -> Manifest:
    """The manifest of a result, without its files."""
    return Manifest(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        key=key,
        source=manifest_source(facts, request),
        model=ManifestModel(
            name=spec.name,
            licence=spec.licence.weights,
            commercial_use=spec.licence.commercial_use,
            weights=list(weights),
        ),
        parameters=ManifestParameters(
            stems=list(plan.all_names),
            two_stems=request.two_stems,
            other_method=request.other_method.value,
            residual=request.residual.value,
            segment_s=plan.segment_frames / spec.sample_rate,
            overlap=request.overlap,
            shifts=request.shifts,
            seed=request.seed,
            precision=request.precision,
            threads=request.threads,
            format=output_format.container.value,
            bit_depth=output_format.bit_depth and output_format.bit_depth.value,
        ),
        engine=report.engine,
        device=report.device,
        versions={**engine_versions(report.engine), **library_versions(READERS)},
        elapsed_s=report.elapsed_s,
        gain_db=report.gain_db,
        exact=report.exact,
        null_db=None if report.exact else report.null_db,
        lag_frames=report.lag_frames,
        files=[],
    )


def manifest_source(facts: SourceFacts, request: SeparationRequest) -> ManifestSource:
    """The source as a manifest names it."""
    assert facts.file_sha256 is not None  # only files have a manifest
    return ManifestSource(
        path=os.fsencode(request.source_name).decode("utf-8", "replace"),
        size=facts.file_bytes,
        sha256=facts.file_sha256,
        audio_sha256=facts.scan.sha256,
        sample_rate=facts.sample_rate,
        channels=facts.scan.channels,
        frames=facts.scan.frames,
    )


def cached_report(manifest: Manifest, sink: Sink, elapsed_s: float) -> SeparationReport:
    """The report of a result that came from the content store."""
    return SeparationReport(
        model=manifest.model.name,
        engine=manifest.engine,
        device=manifest.device,
        licence=manifest.model.licence,
        stems=sink.written,
        duration_s=manifest.source.frames / manifest.source.sample_rate,
        elapsed_s=elapsed_s,
        run_s=0.0,
        null_db=float("-inf") if manifest.exact else manifest.null_db,
        lag_frames=manifest.lag_frames,
        gain_db=manifest.gain_db,
        cached=True,
        manifest=sink.manifest_path,
    )
