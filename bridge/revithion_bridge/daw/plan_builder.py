"""A plan from stems and a preset. Pure; any thread."""

from __future__ import annotations

import dataclasses
import hashlib
import string
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from revithion_bridge.daw.bus_plan import (
    PROJECT_START,
    BusPlan,
    PlannedBus,
    PlannedClip,
    PlannedGroup,
    PlannedSource,
    PlannedTrack,
    Position,
)
from revithion_bridge.daw.placement import SourceItem
from revithion_bridge.daw.plan_presets import BusRule, PlanPreset
from revithion_bridge.errors import bridge_error
from revithion_stems.stem_colours import stem_colour

MOST_NAME_CHARACTERS = 120
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # emoji and some scripts need them


@dataclass(frozen=True, slots=True, kw_only=True)
class StemFile:
    """A finished stem in a file.

    Attributes:
        stem: Its name.
        path: Its file, absolute.
        channels: 1 to 8.
        frames: Length, at ``sample_rate``.
        sample_rate: Hz.
        sha256: Of the file, or empty.
    """

    stem: str
    path: Path
    channels: int
    frames: int
    sample_rate: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StemPlacement:
    """The stems of one source, and where they go.

    Attributes:
        stems: All of one length.
        items: The places, in the order of time; empty for one place, ``position``, and the whole length.
        position: Where the stems begin if there are no items.
    """

    stems: Sequence[StemFile]
    items: Sequence[SourceItem] = ()
    position: Position = PROJECT_START


def plan_identity(*parts: str) -> str:
    """What a plan that replaces another one has in common with it: 16 hexadecimal digits of the parts' digest."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def shown_name(text: str) -> str:
    """``text`` as one line that every DAW can show: no control characters, not empty, at most 120 characters.

    Quotes, percent signs, emoji and letters of any script stay: names are data, and nobody runs them.
    """
    seen = "".join(
        character if character in _JOINERS or unicodedata.category(character) not in _UNSEEN else " "
        for character in unicodedata.normalize("NFC", text)
    )
    return " ".join(seen.split())[:MOST_NAME_CHARACTERS].strip() or "untitled"


def build_plan(
    placements: Sequence[StemPlacement],
    preset: PlanPreset,
    *,
    identity: str,
    title: str,
    model: str = "",
    gain_db: float = 0.0,
    source: PlannedSource | None = None,
    project_rate: int | None = None,
) -> BusPlan:
    """Tracks and buses for stems.

    Args:
        placements: One for each source; all with stems of the same names.
        preset: How they become tracks and buses.
        identity: See :func:`plan_identity`.
        title: Name of the song or of the track that was separated; ``{track}`` of the templates.
        model: ``{model}`` of the templates.
        gain_db: The gain that the stems' files share; tracks undo it, so that their sum is the source.
        source: What is muted if the preset says so.
        project_rate: See :class:`~revithion_bridge.daw.bus_plan.BusPlan`.

    Raises:
        RevithionError: ``daw.plan``: a template has an unknown field, a rule names an unknown bus, or no stem is left.
    """
    present = {stem.stem: stem for placement in placements for stem in placement.stems}
    names = [name for name in preset.order if name in present]
    names += [name for name in present if name not in names]
    if preset.stems:
        names = [name for name in names if name in preset.stems]
    if not names:
        raise bridge_error("daw.plan", f"stems: the preset wants {list(preset.stems)}, the job has {list(present)}")
    general = {"track": shown_name(title), "model": model}
    colours = {name: preset.colours.get(name, stem_colour(name)) for name in names}
    channels = {name: present[name].channels for name in names}
    buses, feeds = _buses(preset.bus, names, general, colours, channels)
    tracks = [
        PlannedTrack(
            key=name,
            name=_fill(preset.track, {**general, **_stem_fields(name), "n": str(number)}),
            colour=colours[name],
            channels=channels[name],
            clips=tuple(clip for placement in placements for clip in _clips(placement, name)),
            output=feeds.get(name, ""),
            gain_db=preset.gain_db.get(name, 0.0) - gain_db,
        )
        for number, name in enumerate(names, start=1)
    ]
    group = _fill(preset.group, general) if preset.group else ""
    return BusPlan(
        identity=identity,
        title=general["track"],
        tracks=tuple(tracks),
        buses=buses,
        group=PlannedGroup(name=group, folder=preset.folder) if group else None,
        vca=_fill(preset.vca, general) if preset.vca else "",
        source=source if source is not None and preset.mute_source else None,
        project_rate=project_rate,
    )


def _clips(placement: StemPlacement, name: str) -> list[PlannedClip]:
    return [
        PlannedClip(
            file=str(stem.path),
            channels=stem.channels,
            sample_rate=stem.sample_rate,
            file_frames=stem.frames,
            start_frame=item.start_frame,
            frames=item.frames,
            position=item.position,
            play_rate=item.play_rate,
            preserve_pitch=item.preserve_pitch,
            gain_db=item.gain_db,
            sha256=stem.sha256,
            item=item.item,
        )
        for stem in placement.stems
        if stem.stem == name
        for item in placement.items or [SourceItem(frames=stem.frames, position=placement.position)]
    ]


def _buses(
    rules: Sequence[BusRule],
    names: Sequence[str],
    general: Mapping[str, str],
    colours: Mapping[str, str],
    channels: Mapping[str, int],
) -> tuple[tuple[PlannedBus, ...], dict[str, str]]:
    """The buses that have something to carry, and stem → key of its bus."""
    feeds: dict[str, str] = {}
    made: list[tuple[BusRule, PlannedBus]] = []
    for rule in rules:
        mine = [name for name in names if name not in feeds and (name in rule.stems or "*" in rule.stems)]
        for members in [[name] for name in mine] if rule.each else [mine]:
            fed_by_others = any(other.output == rule.name for other in rules)
            if not members and not fed_by_others:
                continue
            fields = {**general, **(_stem_fields(members[0]) if rule.each else {})}
            name = _fill(rule.name, fields)
            key = members[0] if rule.each else name.lower()
            made.append(
                (
                    rule,
                    PlannedBus(
                        key=key,
                        name=name,
                        colour=rule.colour or colours[members[0] if members else names[0]],
                        channels=max(channels[member] for member in members or names),
                        gain_db=rule.gain_db,
                        muted=rule.muted,
                        sends=rule.sends,
                    ),
                )
            )
            feeds.update(dict.fromkeys(members, key))
    by_rule = {rule.name: bus.key for rule, bus in made}
    for rule, _ in made:
        if rule.output and rule.output not in by_rule:
            raise bridge_error("daw.plan", f"bus {rule.name!r}: output: there is no bus {rule.output!r}")
    finished = tuple(dataclasses.replace(bus, output=by_rule.get(rule.output, "")) for rule, bus in made)
    return finished, feeds


def _stem_fields(name: str) -> dict[str, str]:
    plain = name.replace("_", " ").strip()
    return {"stem": name, "Stem": plain[:1].upper() + plain[1:]}


def _fill(template: str, fields: Mapping[str, str]) -> str:
    """``template`` with its fields filled in, and nothing else: no attributes, no formats."""
    text = ""
    try:
        for literal, field, form, conversion in string.Formatter().parse(template):
            text += literal
            if field is None:
                continue
            if form or conversion or field not in fields:
                raise ValueError(f"{{{field}}} is unknown here; there are {', '.join(fields)}")
            text += fields[field]
    except ValueError as exc:
        raise bridge_error("daw.plan", f"name {template!r}: {exc}") from exc
    return shown_name(text)
