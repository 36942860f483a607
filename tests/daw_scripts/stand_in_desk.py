"""What the daemon does with a request, without a daemon: the real types, stems, the real plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile

from revithion_bridge.daw import mailbox
from revithion_bridge.daw.bus_plan import BusPlan, PlannedSource
from revithion_bridge.daw.mailbox import DawRequest, DawStatus
from revithion_bridge.daw.placement import SourceItem, parse_alignment
from revithion_bridge.daw.plan_builder import StemFile, StemPlacement, build_plan, plan_identity
from revithion_bridge.daw.plan_presets import DEFAULT_PRESET, find_preset
from revithion_bridge.messages import ErrorInfo

STEMS = ("vocals", "drums", "bass", "other")


def split(source: Path, folder: Path, names: Sequence[str] = STEMS, seed: int = 0) -> dict[str, StemFile]:
    """Stems that sum to the source exactly: all samples are multiples of 2^-15, so that float32 rounds nothing."""
    samples, rate = soundfile.read(source, dtype="float64", always_2d=True)
    random, rest = np.random.default_rng(seed), samples
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, StemFile] = {}
    for index, name in enumerate(names):
        last = index == len(names) - 1
        stem = rest if last else np.round(random.normal(0, 0.05, samples.shape) * 2**15) / 2**15
        rest = rest - stem
        path = folder / f"{name}.wav"
        soundfile.write(path, stem.astype(np.float32), rate, "FLOAT")
        found[name] = StemFile(
            stem=name,
            path=path,
            channels=samples.shape[1],
            frames=len(samples),
            sample_rate=rate,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
    return found


class Desk:
    """Answers requests. ``made`` remembers the stems of a source, as the daemon's store does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Mapping[str, StemFile]] = {}
        self.seed = 0

    def requests(self) -> list[DawRequest]:
        found = [mailbox.read_file(file.path, DawRequest) for file in mailbox.list_files("request")]
        return [request for request in found if request is not None]

    def request(self) -> DawRequest:
        (request,) = self.requests()
        return request

    def say(self, request: DawRequest, state: str, **fields: object) -> None:
        status = DawStatus(id=request.id, state=state, **fields)  # pyright: ignore[reportArgumentType]
        mailbox.write_file(mailbox.box_path(request.box, "status", request.id), status)

    def fail(self, request: DawRequest, message: str, hint: str) -> None:
        self.say(request, "failed", error=ErrorInfo(code="input.missing", message=message, hint=hint))

    def stems(self, source: str) -> Mapping[str, StemFile]:
        if source not in self.made:
            name = hashlib.sha256(source.encode()).hexdigest()[:8]
            self.made[source] = split(Path(source), self.folder / name, seed=self.seed)
        return self.made[source]

    def plan(self, request: DawRequest) -> BusPlan:
        by_source: dict[str, list[SourceItem]] = {}
        for item in request.items:
            paths = {channel.path for channel in item.channels}
            assert len(paths) == 1, "a file's channels, all of them"
            assert [channel.channel for channel in item.channels] == list(range(len(item.channels)))
            by_source.setdefault(paths.pop(), []).append(
                SourceItem(
                    start_frame=item.start_frame,
                    frames=item.frames,
                    position=item.position,
                    play_rate=item.play_rate,
                    preserve_pitch=item.preserve_pitch,
                    gain_db=item.gain_db,
                    item=item.item,
                )
            )
        where = parse_alignment(request.align_to)
        placements = [
            StemPlacement(stems=list(self.stems(source).values()), items=items)
            if where is None
            else StemPlacement(stems=list(self.stems(source).values()), position=where)
            for source, items in by_source.items()
        ]
        preset = request.preset or DEFAULT_PRESET
        return build_plan(
            placements,
            find_preset(preset),
            identity=plan_identity("track", request.box, request.track.id, preset),
            title=request.track.name,
            source=PlannedSource(track_id=request.track.id, track_name=request.track.name),
            project_rate=request.project_rate,
        )

    def finish_all(self) -> list[BusPlan]:
        """Answers all requests with the plan."""
        plans: list[BusPlan] = []
        for request in self.requests():
            plans.append(self.plan(request))
            self.say(request, "done", fraction=1.0, plan=plans[-1])
        return plans
