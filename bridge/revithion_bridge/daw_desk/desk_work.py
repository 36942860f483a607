"""What a DAW's request comes to: sources, jobs, and in the end a plan. Blocks on files; any thread."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from revithion_bridge.daw.bus_plan import BusPlan, PlannedSource, Position, Tempo, encode_plan
from revithion_bridge.daw.mailbox import (
    MAILBOX_VERSION,
    BoxFile,
    DawRequest,
    RequestedItem,
    SourceChannel,
    read_file,
)
from revithion_bridge.daw.placement import SourceItem, parse_alignment
from revithion_bridge.daw.plan_builder import StemFile, StemPlacement, build_plan, plan_identity, shown_name
from revithion_bridge.daw.plan_presets import DEFAULT_PRESET, PlanPreset, find_preset
from revithion_bridge.daw_desk.merged_source import PreparedSource, prepare_source
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import JobInfo, JobParameters
from revithion_bridge.path_jail import PathJail

MOST_PLAN_BYTES = 1_000_000
"""A file of the mailbox is at most 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskJob:
    """A source and how it is separated.

    Attributes:
        source: What is separated.
        items: Where the DAW has it, in the DAW's order.
        parameters: Of the job.
        key: The same for the same job of the same request.
    """

    source: PreparedSource
    items: tuple[RequestedItem, ...]
    parameters: JobParameters
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskWork:
    """A request that can be done.

    Attributes:
        request: What was asked for.
        preset: How stems become tracks and buses.
        position: Where the stems go; None for the places of the items.
        jobs: One for each source.
    """

    request: DawRequest
    preset: PlanPreset
    position: Position | None
    jobs: tuple[DeskJob, ...]

    def plan(self, infos: Sequence[JobInfo]) -> BusPlan:
        """What to render, once all jobs are done; ``infos`` are in the order of :attr:`jobs`.

        Raises:
            RevithionError: ``daw.plan``, ``daw.selection``: nothing of it can be rendered.
        """
        summary = infos[0].summary or {}
        stems = [_stems(job.source, info) for job, info in zip(self.jobs, infos, strict=True)]
        return self._plan(stems, str(summary.get("model") or ""), float(summary.get("gain_db") or 0.0))

    def check(self) -> None:
        """Raises as :meth:`plan` will, as far as that can be told before anything is separated."""
        names = self.preset.stems or self.preset.order or ("vocals",)
        self._plan([[_stem(job.source, name, job.source.path) for name in names] for job in self.jobs], "", 0.0)

    def _plan(self, stems: Sequence[Sequence[StemFile]], model: str, gain_db: float) -> BusPlan:
        request = self.request
        plan = build_plan(
            self._placements(stems),
            self.preset,
            identity=plan_identity("track", request.box, request.track.id, request.preset or DEFAULT_PRESET),
            title=request.track.name,
            model=model,
            gain_db=gain_db,
            source=PlannedSource(track_id=request.track.id, track_name=shown_name(request.track.name)),
            project_rate=request.project_rate,
        )
        if len(encode_plan(plan)) > MOST_PLAN_BYTES:
            raise bridge_error("daw.plan", f"a plan of {len(request.items)} clips is too large: select fewer of them")
        return plan

    def _placements(self, stems: Sequence[Sequence[StemFile]]) -> list[StemPlacement]:
        if self.position is not None:
            return [StemPlacement(stems=each, position=self.position) for each in stems]
        found: list[tuple[float, StemPlacement]] = []
        for job, each in zip(self.jobs, stems, strict=True):
            rate, frames = each[0].sample_rate, each[0].frames
            for item in job.items:
                if item.start_frame < frames:  # what is behind the end is silence, of the source and of its stems
                    start_s = Tempo().seconds(item.position, self.request.project_rate or rate)
                    found.append((start_s, StemPlacement(stems=each, items=[_source_item(item, frames)])))
        if not found:
            raise bridge_error("daw.selection", "the clips begin behind the end of their files")
        return [placement for _, placement in sorted(found, key=lambda pair: pair[0])]


def read_request(file: BoxFile) -> DawRequest:
    """A request from its file.

    Raises:
        RevithionError: ``protocol.malformed``, ``protocol.version``: it is not one, or not of this file.
    """
    request = read_file(file.path, DawRequest)
    if request is None:
        raise bridge_error("protocol.malformed", f"{file.path.name} is gone")
    if request.v != MAILBOX_VERSION:
        raise bridge_error("protocol.version", f"{file.path.name}: v is {request.v}; {MAILBOX_VERSION} is known")
    if (request.box, request.id) != (file.box, file.id):
        raise bridge_error("protocol.malformed", f"{file.path.name}: it says that it is {request.id} of {request.box}")
    if request.project_rate is not None and request.project_rate < 1:
        raise bridge_error("protocol.malformed", f"{file.path.name}: project_rate: {request.project_rate} is no rate")
    return request


def prepare_work(request: DawRequest, jail: PathJail, check_cancelled: Callable[[], None]) -> DeskWork:
    """Looks at the files of a request, puts channels together, and says which jobs it takes.

    Only one call at a time; see :func:`~revithion_bridge.daw_desk.merged_source.prepare_source`.

    Args:
        request: What was asked for.
        jail: Which paths are allowed.
        check_cancelled: Called again and again; what it raises ends the work.

    Raises:
        RevithionError: It can't be done; the message says why.
    """
    if request.preset.endswith(".toml"):
        jail.check(request.preset)
    preset = find_preset(request.preset or DEFAULT_PRESET)
    position = parse_alignment(request.align_to)
    by_channels: dict[tuple[SourceChannel, ...], list[RequestedItem]] = {}
    for item in request.items:
        by_channels.setdefault(item.channels, []).append(item)
    for channel in (channel for channels in by_channels for channel in channels):
        jail.check(channel.path)
    jobs: list[DeskJob] = []
    for channels, items in by_channels.items():
        folder = jail.check(request.folder or str(Path(channels[0].path).parent / "stems"))
        source = prepare_source(channels, folder, check_cancelled)
        parameters = _parameters(request, preset, source, folder, tuple(dict.fromkeys(c.path for c in channels)))
        key = f"{request.box}/{request.id}/{_digest(parameters)}"
        jobs.append(DeskJob(source=source, items=tuple(items), parameters=parameters, key=key))
    work = DeskWork(request=request, preset=preset, position=position, jobs=tuple(jobs))
    work.check()
    return work


def _parameters(
    request: DawRequest, preset: PlanPreset, source: PreparedSource, folder: Path, keep: tuple[str, ...]
) -> JobParameters:
    wanted = {
        **preset.job,
        **({"model": request.model} if request.model else {}),
        "source": str(source.path),
        "folder": str(folder),
        "format": "wav",
        "bit_depth": "32f",
        "keep": keep,
    }
    try:
        parameters = msgspec.convert({**wanted, "template": "{stem}"}, JobParameters)
    except msgspec.ValidationError as exc:
        raise bridge_error("daw.plan", f"preset {request.preset or DEFAULT_PRESET!r}: job: {exc}") from exc
    # Other sources, models and parameters get other files: nothing that a DAW plays, or gets back by undo, is replaced.
    folder_name = f"{{model}}-{hashlib.sha256(f'{source.digest}{_digest(parameters)}'.encode()).hexdigest()[:8]}"
    return msgspec.structs.replace(parameters, template=f"{{track}}/{folder_name}/{{stem}}.{{ext}}")


def _digest(parameters: JobParameters) -> str:
    return hashlib.sha256(msgspec.json.encode(parameters)).hexdigest()[:16]


def _source_item(item: RequestedItem, frames: int) -> SourceItem:
    return SourceItem(
        start_frame=item.start_frame,
        frames=min(item.frames, frames - item.start_frame),
        position=item.position,
        play_rate=item.play_rate,
        preserve_pitch=item.preserve_pitch,
        gain_db=item.gain_db,
        item=item.item,
    )


def _stems(source: PreparedSource, info: JobInfo) -> list[StemFile]:
    """From what the job says of its stems: no file is opened."""
    return [
        StemFile(
            stem=stem["stem"],
            path=Path(stem["path"]),
            channels=source.channels,
            frames=stem["frames"],
            sample_rate=stem["sample_rate"],
            sha256=str(stem.get("sha256") or ""),
        )
        for stem in info.stems
    ]


def _stem(source: PreparedSource, name: str, path: Path) -> StemFile:
    return StemFile(
        stem=name, path=path, channels=source.channels, frames=source.frames, sample_rate=source.sample_rate
    )
