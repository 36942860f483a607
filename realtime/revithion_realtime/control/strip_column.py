"""One strip of the terminal UI: name, tier, meter, fader, mute, solo, kills, pan and filter, drawn as text."""

from __future__ import annotations

from collections.abc import Callable

from rich.style import Style
from rich.text import Text
from textual import events
from textual.widget import Widget

from revithion_stems.fader_law import fader_gain_db, fader_position
from revithion_stems.live import HIGHEST_DB, LOWEST_DB, StripChange, StripState, Tier
from revithion_stems.stem_colours import stem_colour

METER_ROWS = 6
"""Lines of the meter and the fader."""

_BARS = " ▁▂▃▄▅▆▇█"
_METER_FLOOR_DB = -60.0
_NEAR_FULL_DB = -1.0
_TIERS = {Tier.PREVIEW: "bold green", Tier.DRY: "bold yellow", Tier.MASTER: "bold cyan"}
_OFF = Style(dim=True)
_FIRST_METER_ROW = 2
_SWITCH_ROW = _FIRST_METER_ROW + METER_ROWS + 1
"""Lines from the top: name, tier, meter and fader, gain, then these."""

_SWITCHES: tuple[tuple[str, str, str], ...] = (
    ("M", "muted", "bold white on red"),
    ("S", "solo", "bold black on yellow"),
)
_KILLS: tuple[tuple[str, str, str], ...] = (
    ("L", "low_db", "bold white on magenta"),
    ("M", "mid_db", "bold white on magenta"),
    ("H", "high_db", "bold white on magenta"),
)


def toggle(strip: StripState, field: str) -> StripChange:
    """The change that turns ``muted``, ``solo``, or the kill of ``low_db``, ``mid_db`` or ``high_db`` over."""
    match field:
        case "muted":
            return StripChange(muted=not strip.settings.muted)
        case "solo":
            return StripChange(solo=not strip.settings.solo)
        case band:
            killed: bool = getattr(strip.settings, band) <= LOWEST_DB
            return StripChange(**{band: 0.0 if killed else LOWEST_DB})  # pyright: ignore[reportArgumentType]


def decibels(gain_db: float) -> str:
    """A gain in words: ``-6.0 dB``, or ``off`` for a fader that is down."""
    return "off" if gain_db <= LOWEST_DB else f"{gain_db:+.1f} dB"


def pan_text(pan: float) -> str:
    """``C``, or how far to a side in percent: ``L 30``."""
    percent = round(100 * abs(pan))
    return "C" if percent == 0 else f"{'L' if pan < 0 else 'R'} {percent}"


def filter_text(filter_: float) -> str:
    """``open``, or which filter and how far it is closed in percent: ``LP 40``."""
    percent = round(100 * abs(filter_))
    return "open" if percent == 0 else f"{'LP' if filter_ < 0 else 'HP'} {percent}"


def meter_rows(peak_db: float) -> list[str]:
    """A level as a bar of :data:`METER_ROWS` cells, top first; it is empty at -60 dBFS and full at 0."""
    eighths = round(8 * METER_ROWS * min(1.0, max(0.0, 1.0 - peak_db / _METER_FLOOR_DB)))
    return [_BARS[min(8, max(0, eighths - 8 * row))] for row in reversed(range(METER_ROWS))]


class StripColumn(Widget):
    """A strip that a mouse can move, too.

    Args:
        strip: How it stands.
        change: Called with the stem and what is to be changed.
        select: Called with the stem when it is clicked.
    """

    DEFAULT_CSS = "StripColumn { width: 1fr; min-width: 12; height: 100%; }"

    def __init__(
        self, strip: StripState, change: Callable[[str, StripChange], None], select: Callable[[str], None]
    ) -> None:
        super().__init__()
        self._strip = strip
        self._selected = False
        self._change = change
        self._select = select
        self._dragging = False

    @property
    def stem(self) -> str:
        """Whose strip it is."""
        return self._strip.stem

    def update(self, strip: StripState, *, selected: bool) -> None:
        """Shows how the strip stands now."""
        if (strip, selected) != (self._strip, self._selected):
            self._strip, self._selected = strip, selected
            self.refresh()

    def render(self) -> Text:
        """The strip, line by line."""
        strip, settings = self._strip, self._strip.settings
        colour = stem_colour(strip.stem)
        name = f"{'▶' if self._selected else ' '}{strip.stem}"[: max(1, self.size.width - 1)]
        text = Text(no_wrap=True)
        text.append(f"{name:<{max(1, self.size.width - 1)}}", Style(color=colour, bold=True, reverse=self._selected))
        text.append(f"\n {strip.tier.value.upper()}", _TIERS[strip.tier])
        knob = METER_ROWS - 1 - round(fader_position(settings.gain_db) * (METER_ROWS - 1))
        peaks = (strip.peak_left_db, strip.peak_right_db)
        for row, cells in enumerate(zip(*map(meter_rows, peaks), strict=True)):
            text.append("\n ")
            for cell, peak_db in zip(cells, peaks, strict=True):
                level = "green" if row else "red" if peak_db > _NEAR_FULL_DB else "yellow"
                text.append(cell, f"{level} on grey11")
            text.append("   ")
            text.append("━█━" if row == knob else " │ ", Style(color=colour, bold=row == knob, dim=row != knob))
        text.append(f"\n {decibels(settings.gain_db)}\n ")
        for label, field, style in _SWITCHES:
            text.append(f" {label} ", style if getattr(settings, field) else _OFF)
        text.append("\n ")
        for label, field, style in _KILLS:
            text.append(f" {label} ", style if getattr(settings, field) <= LOWEST_DB else _OFF)
        text.append(f"\n pan {pan_text(settings.pan)}", _OFF if settings.pan == 0.0 else "")
        text.append(f"\n flt {filter_text(settings.filter)}", _OFF if settings.filter == 0.0 else "")
        return text

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Selects the strip; takes its fader, or turns a switch over."""
        self._select(self._strip.stem)
        row = event.y - _SWITCH_ROW
        place = (event.x - 1) // 3
        switches = {0: _SWITCHES, 1: _KILLS}.get(row, ())
        if _FIRST_METER_ROW <= event.y < _FIRST_METER_ROW + METER_ROWS:
            self._dragging = True
            self.capture_mouse()
            self._drag(event.y)
        elif 0 <= place < len(switches):
            self._change(self._strip.stem, toggle(self._strip, switches[place][1]))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Moves the fader that is held."""
        if self._dragging:
            self._drag(event.y)

    def on_mouse_up(self) -> None:
        """Lets go of it."""
        self._dragging = False
        self.release_mouse()

    def on_mouse_scroll_up(self) -> None:
        """1 dB up."""
        self._nudge(1.0)

    def on_mouse_scroll_down(self) -> None:
        """1 dB down."""
        self._nudge(-1.0)

    def _nudge(self, step_db: float) -> None:
        self._change(self._strip.stem, StripChange(gain_db=nudged_db(self._strip.settings.gain_db, step_db)))

    def _drag(self, y: int) -> None:
        way = 1.0 - (y - _FIRST_METER_ROW) / (METER_ROWS - 1)
        self._change(self._strip.stem, StripChange(gain_db=round(fader_gain_db(min(1.0, max(0.0, way))), 1)))


def nudged_db(gain_db: float, step_db: float) -> float:
    """A gain one step on, within what is possible, without rests of a sum in its last digits."""
    return round(min(HIGHEST_DB, max(LOWEST_DB, gain_db + step_db)), 3)
