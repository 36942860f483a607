"""A DAW's session or project that stems are imported into: the same calls, whatever is behind them."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from revithion_bridge.daw.bus_plan import (
    SELECTED_ITEM,
    BusPlan,
    PlannedBus,
    PlannedClip,
    PlannedTrack,
    Position,
)
from revithion_bridge.daw.import_report import ImportReport
from revithion_bridge.daw.placement import parse_alignment
from revithion_bridge.daw.plan_builder import StemPlacement, build_plan, plan_identity, shown_name
from revithion_bridge.daw.plan_presets import DEFAULT_PRESET, PlanPreset, find_preset
from revithion_bridge.daw.stem_inputs import StemSource, find_stems
from revithion_stems import config
from revithion_stems.audio_files import read_info
from revithion_stems.digests import sha256_file
from revithion_stems.stem_colours import stem_colour


class DawSession(abc.ABC):
    """A session. Any one thread at a time; also a context manager.

    An adapter implements :meth:`render`, and nothing else of what is here.
    """

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What people call it."""

    @property
    @abc.abstractmethod
    def project_rate(self) -> int | None:
        """Its sample rate in Hz; None if that is not known, or not fixed yet."""

    @property
    def media_folder(self) -> Path:
        """Where stems that have no files yet are written."""
        return config.state_dir() / "daw-media"

    @abc.abstractmethod
    def render(self, plan: BusPlan) -> ImportReport:
        """Makes the session contain what the plan says; what an earlier plan of that identity put there is replaced.

        Raises:
            RevithionError: The session is as it was before.
        """

    def close(self) -> None:  # noqa: B027 - most adapters hold nothing
        """Ends the connection; again, it does nothing. The session stays as it is."""

    def import_stems(
        self,
        stems: StemSource,
        *,
        plan: BusPlan | PlanPreset | str | Path | None = None,
        align_to: str | float | Position = "project_start",
    ) -> ImportReport:
        """Puts stems on tracks and buses, all in one step.

        Args:
            stems: A job's id, what a separation returned, a folder of stems, or a manifest.
            plan: A preset (or its name, or a TOML file), or a whole plan; ``4-stems-to-buses`` if left out.
            align_to: ``project_start``, a time, or a bar; see :func:`~revithion_bridge.daw.placement.parse_alignment`.
                ``item`` is where the item begins that is selected in the DAW.

        Raises:
            RevithionError: The stems are not there, the plan is not sound, or the DAW can't do it.
        """
        if isinstance(plan, BusPlan):
            return self.render(plan)
        found = find_stems(stems, self.media_folder)
        preset = find_preset(plan if plan is not None else DEFAULT_PRESET)
        placement = StemPlacement(stems=found.stems, position=parse_alignment(align_to) or SELECTED_ITEM)
        return self.render(
            build_plan(
                [placement],
                preset,
                identity=found.identity,
                title=found.title,
                model=found.model,
                gain_db=found.gain_db,
                project_rate=self.project_rate,
            )
        )

    def import_audio(
        self,
        path: str | Path,
        *,
        target_bus: str = "",
        align_to: str | float | Position = "project_start",
        name: str = "",
    ) -> ImportReport:
        """Puts a file on a track of its own, which feeds a bus. Again, it replaces what it put there.

        Args:
            path: Of the audio file.
            target_bus: Name of the bus; made if we have not made it before. Empty: the master.
            align_to: As for :meth:`import_stems`.
            name: Of the track; the file's without its ending if left out.

        Raises:
            InputError: The file is not audio.
            RevithionError: The DAW can't do it.
        """
        file = Path(path).absolute()
        info = read_info(file)
        key = name or file.stem
        colour = stem_colour(key)
        bus = shown_name(target_bus) if target_bus else ""
        clip = PlannedClip(
            file=str(file),
            channels=info.channels,
            sample_rate=info.sample_rate,
            file_frames=info.frames,
            frames=info.frames,
            position=parse_alignment(align_to) or SELECTED_ITEM,
            sha256=sha256_file(file),
        )
        track = PlannedTrack(
            key=key, name=shown_name(key), colour=colour, channels=info.channels, clips=(clip,), output=bus
        )
        buses: Sequence[PlannedBus] = ()
        if bus:
            buses = (PlannedBus(key=bus, name=bus, colour=colour, channels=info.channels),)
        return self.render(
            BusPlan(
                identity=plan_identity("audio"),
                title=track.name,
                tracks=(track,),
                buses=tuple(buses),
                project_rate=self.project_rate,
                partial=True,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
