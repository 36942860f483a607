"""A plan as Native Instruments' Stems: one ``.stem.mp4`` with the mix and four stems, as ``separate -f stem.mp4`` does.

The levels of tracks and buses are applied; the mix is the sum of the stems as they are in the file.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from revithion_bridge.daw.bus_plan import BusPlan, PlannedTrack, Tempo
from revithion_bridge.daw.import_report import ImportedStrip, ImportReport, Outcome
from revithion_bridge.daw_files.clip_audio import EvenReader, open_clip
from revithion_stems.audio import BLOCK_FRAMES, Float32
from revithion_stems.errors import RequestError
from revithion_stems.file_set import FileSet
from revithion_stems.output_format import Container, OutputFormat
from revithion_stems.stem_files import StemFiles
from revithion_stems.tags import Tags
from revithion_stems.units import ratio_from_db

_STEMS = 4


def write_stem_mp4(plan: BusPlan, path: Path, tempo: Tempo | None = None) -> ImportReport:
    """Writes the stems of a plan as one ``.stem.mp4`` (AAC), in the order of its tracks; an existing file is replaced.

    Args:
        plan: With four tracks, each with one clip, all of one length and rate. Places are not needed: frame 0 is the
            first frame of the clips.
        path: Of the file.
        tempo: Not needed.

    Raises:
        RequestError: ``request.format``: the plan does not fit.
        RevithionError: ``daw.plan``: a stem is not what the plan says.
        InputError: A stem can't be read.
        OutputError: The file can't be written.
    """
    _check(plan)
    form = OutputFormat(container=Container.STEM_MP4)
    first = plan.tracks[0].clips[0]
    form.check_source(channels=first.channels, sample_rate=first.sample_rate)
    existed = path.exists()
    paths = dict.fromkeys((track.key for track in plan.tracks), path)
    with FileSet() as file_set:
        files = StemFiles(
            file_set, paths, output_format=form, channels=first.channels, sample_rate=first.sample_rate, fold=None
        )
        try:
            files.begin(first.frames, lambda stem: Tags(text={"title": plan.title}))
            for block in _blocks(plan):
                files.write(block, block.sum(axis=0, dtype=np.float32))
            files.encode(lambda: None)
        finally:
            files.close()
        file_set.publish()
    outcome = Outcome.REPLACED if existed else Outcome.CREATED
    strips = [ImportedStrip(role="track", key=track.key, name=track.name, outcome=outcome) for track in plan.tracks]
    return ImportReport(target=str(path), strips=tuple(strips))


def _check(plan: BusPlan) -> None:
    names = ", ".join(track.name for track in plan.tracks)
    if len(plan.tracks) != _STEMS:
        raise RequestError(
            f".stem.mp4 holds {_STEMS} stems, not {len(plan.tracks)} ({names})",
            hint="Separate with a model of four stems, or export two stems with --to dawproject, rpp or folder.",
            code="request.format",
        )
    shapes = {(clip.frames, clip.sample_rate, clip.channels) for track in plan.tracks for clip in track.clips}
    if any(len(track.clips) != 1 for track in plan.tracks) or len(shapes) > 1:
        raise RequestError(
            f".stem.mp4 holds stems of one length, rate and layout, each in one piece ({names})",
            hint="Align the stems to project_start, so that each is one whole clip.",
            code="request.format",
        )


def _blocks(plan: BusPlan) -> Iterator[Float32]:
    """The stems ``[stems, channels, frames]`` in blocks of equal length, at the levels of the plan."""
    gains = np.array([_gain(plan, track) for track in plan.tracks], np.float32)[:, None, None]
    frames = plan.tracks[0].clips[0].frames
    with contextlib.ExitStack() as stack:
        readers = [
            EvenReader(stack.enter_context(open_clip(clip)), clip.start_frame)
            for clip in (track.clips[0] for track in plan.tracks)
        ]
        for start in range(0, frames, BLOCK_FRAMES):
            count = min(BLOCK_FRAMES, frames - start)
            yield np.stack([reader.take(count) for reader in readers]) * gains


def _gain(plan: BusPlan, track: PlannedTrack) -> float:
    """Of a track, its clip, and the buses on its way to the master."""
    buses = {bus.key: bus for bus in plan.buses}
    gain_db, at = track.gain_db + track.clips[0].gain_db, track.output
    while at:
        gain_db += buses[at].gain_db
        at = buses[at].output
    ratio = ratio_from_db(gain_db)
    # A gain that files share is a power of two, which decibels give back only nearly.
    power = 2.0 ** round(math.log2(ratio))
    return power if math.isclose(ratio, power, rel_tol=1e-9) else ratio
