"""Presets: how stems become tracks and buses, in TOML. Those of the program, and the user's own."""

from __future__ import annotations

import functools
import importlib.resources
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from revithion_bridge.daw.bus_plan import HIGHEST_GAIN_DB, LOWEST_GAIN_DB, Send
from revithion_bridge.errors import bridge_error
from revithion_stems import config

DEFAULT_PRESET = "4-stems-to-buses"
_MOST_BYTES = 65_536

GainDb = Annotated[float, Meta(ge=LOWEST_GAIN_DB, le=HIGHEST_GAIN_DB)]
Colour = Annotated[str, Meta(pattern=r"^#[0-9A-Fa-f]{6}$")]
Template = Annotated[str, Meta(max_length=200)]


class BusRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bus, or with ``each`` one for each stem; the fields are explained in ``presets.toml``."""

    name: Template = "{Stem} Bus"
    stems: tuple[str, ...] = ("*",)
    each: bool = False
    colour: Colour | None = None
    gain_db: GainDb = 0.0
    muted: bool = False
    output: str = ""
    sends: tuple[Send, ...] = ()


class PlanPreset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How stems become tracks and buses; the fields are explained in ``presets.toml``."""

    label: str = ""
    job: dict[str, Any] = {}
    order: tuple[str, ...] = ("drums", "bass", "other", "vocals", "guitar", "piano")
    stems: tuple[str, ...] = ()
    track: Template = "{Stem}"
    group: Template = ""
    vca: Template = ""
    folder: bool = True
    mute_source: bool = True
    colours: dict[str, Colour] = {}
    gain_db: dict[str, GainDb] = {}
    bus: tuple[BusRule, ...] = ()


def presets_folder() -> Path:
    """Where the user's own presets are; it may not be there."""
    return config.config_path().parent / "presets"


def list_presets() -> dict[str, PlanPreset]:
    """Name → preset; the user's own come after the program's, and replace those of the same name.

    Raises:
        RevithionError: ``daw.plan``: a file is not a preset; the message names file and field.
    """
    found = dict(_own_presets())
    folder = presets_folder()
    if folder.is_dir():
        for path in sorted(folder.glob("*.toml")):
            found[path.stem] = _read(path)
    return found


def find_preset(name: str | Path | PlanPreset) -> PlanPreset:
    """A preset by its name, or from a TOML file.

    Raises:
        RevithionError: ``daw.plan``: there is none, or it is not sound.
    """
    if isinstance(name, PlanPreset):
        return name
    if isinstance(name, Path) or name.endswith(".toml"):
        return _read(Path(name))
    known = list_presets()
    if name not in known:
        raise bridge_error("daw.plan", f"preset: there is no {name!r}; there are {', '.join(known)}")
    return known[name]


@functools.cache
def _own_presets() -> dict[str, PlanPreset]:
    text = importlib.resources.files("revithion_bridge.daw").joinpath("presets.toml").read_text(encoding="utf-8")
    return {name: msgspec.convert(table, PlanPreset) for name, table in tomllib.loads(text).items()}


def _read(path: Path) -> PlanPreset:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES).decode("utf-8")
        return msgspec.convert(tomllib.loads(data), PlanPreset)
    except (OSError, ValueError) as exc:  # of decoding, of TOML, and of the fields
        raise bridge_error("daw.plan", f"preset {path}: {exc}") from exc
