"""The live preview in a terminal: strips with meters and faders, the latency budget, loads, counters, and keys."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widgets import Static

from revithion_realtime.control.strip_column import StripColumn, nudged_db, toggle
from revithion_realtime.control.terminal_panels import (
    SCENES,
    advice,
    budget_table,
    counter_table,
    scene_line,
    title_line,
)
from revithion_stems.errors import RevithionError
from revithion_stems.live import LiveControl, LivePhase, StripChange, StripSettings, StripState

REFRESH_S = 1 / 15
_FINE_DB = 0.1
_KEYS = "←→ strip  ↑↓ fader  m s  zxc kill  [] pan  <> filter  1-9 scene  r rec  ? keys"
_HELP = (
    ("← →", "choose a strip"),
    ("↑ ↓", "fader, 1 dB; with Shift 0.1 dB"),
    ("m  s", "mute, solo"),
    ("z x c", "kill low, middle, high"),
    ("[ ]", "pan left, right"),
    ("< >", "filter: low-pass, high-pass"),
    ("0", "reset the strip"),
    ("- +", "monitor mix, 1 dB"),
    ("1 … 9", "recall a scene"),
    ("F1 … F9", "store a scene"),
    ("r", "record, or end the take"),
    ("q", "leave"),
)


class HelpScreen(ModalScreen[None]):
    """The keys; any of them closes it."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen Static { width: auto; height: auto; padding: 1 3; background: $panel; }
    """

    def compose(self) -> ComposeResult:
        """The list."""
        table = Table.grid(padding=(0, 3))
        for keys, meaning in _HELP:
            table.add_row(Text(keys, "bold"), meaning)
        yield Static(table)

    def on_key(self, event: events.Key) -> None:
        """Closes it; the key does nothing else."""
        event.stop()
        self.dismiss()

    def on_click(self) -> None:
        """Closes it."""
        self.dismiss()


class LiveTerminal(App[None]):
    """The terminal UI as a Textual app; it ends with the session, or by ``q``, which leaves the session as it is.

    Args:
        control: The session.
        record_to: Folder that ``r`` records into.
        errors: Of others, such as a controller's; they are shown.
    """

    CSS = """
    Screen { layout: vertical; }
    #title, #scenes, #keys { height: 1; padding: 0 1; }
    #strips { height: 13; overflow-x: auto; scrollbar-size-horizontal: 0; }
    #panels { height: 8; }
    #budget, #counters { width: 1fr; padding: 0 1; border-top: solid $secondary; height: 8; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "choose(-1)"),
        Binding("right", "choose(1)"),
        Binding("up", "fade(1.0)"),
        Binding("down", "fade(-1.0)"),
        Binding("shift+up", f"fade({_FINE_DB})"),
        Binding("shift+down", f"fade({-_FINE_DB})"),
        Binding("m", "toggle_field('muted')"),
        Binding("s", "toggle_field('solo')"),
        Binding("z", "toggle_field('low_db')"),
        Binding("x", "toggle_field('mid_db')"),
        Binding("c", "toggle_field('high_db')"),
        Binding("left_square_bracket", "turn('pan', -0.1)"),
        Binding("right_square_bracket", "turn('pan', 0.1)"),
        Binding("less_than_sign,comma", "turn('filter', -0.05)"),
        Binding("greater_than_sign,full_stop", "turn('filter', 0.05)"),
        Binding("0", "reset_strip"),
        Binding("minus", "monitor(-1.0)"),
        Binding("plus,equals_sign", "monitor(1.0)"),
        *(Binding(str(number), f"recall('{number}')") for number in range(1, SCENES + 1)),
        *(Binding(f"f{number}", f"store('{number}')") for number in range(1, SCENES + 1)),
        Binding("r", "record"),
        Binding("question_mark,h", "show_keys"),
        Binding("q,ctrl+q", "quit"),
    ]

    def __init__(
        self, control: LiveControl, *, record_to: str = "recordings", errors: SimpleQueue[RevithionError] | None = None
    ) -> None:
        super().__init__()
        self._errors = errors
        self._control = control
        self._record_to = record_to
        self._state = control.state()
        self._chosen = 0
        self._columns: list[StripColumn] = []
        self._trouble = ""
        # Kept, for a query looks at the screen on top, which may be the help.
        self._title, self._scenes, self._keys = Static(id="title"), Static(id="scenes"), Static(id="keys")
        self._budget, self._counters = Static(id="budget"), Static(id="counters")
        self._strips = Horizontal(id="strips")

    def compose(self) -> ComposeResult:
        """The lines from top to bottom: 24 of them."""
        yield self._title
        yield self._strips
        yield Horizontal(self._budget, self._counters, id="panels")
        yield self._scenes
        yield self._keys

    async def on_mount(self) -> None:
        """Starts to look at the session, 15 times a second."""
        await self._build_columns()
        self._draw()
        self.set_interval(REFRESH_S, self.poll)

    async def poll(self) -> None:
        """Asks the session how it stands, and shows that."""
        while self._errors is not None and not self._errors.empty():
            self._tell(self._errors.get())
        try:
            self._state = self._control.state()
            self._trouble = ""
        except RevithionError as exc:
            self._trouble = exc.message
        if [column.stem for column in self._columns] != [strip.stem for strip in self._state.strips]:
            await self._build_columns()
        self._draw()
        if self._state.phase is LivePhase.ENDED:
            self.exit()

    def action_choose(self, step: int) -> None:
        """Chooses the strip to the left or right."""
        self._chosen = min(max(0, self._chosen + step), max(0, len(self._state.strips) - 1))
        self._draw()

    def action_fade(self, step_db: float) -> None:
        """Moves the chosen strip's fader."""
        if strip := self._strip():
            self._change(strip.stem, StripChange(gain_db=nudged_db(strip.settings.gain_db, step_db)))

    def action_toggle_field(self, field: str) -> None:
        """Turns a switch of the chosen strip over."""
        if strip := self._strip():
            self._change(strip.stem, toggle(strip, field))

    def action_turn(self, field: str, step: float) -> None:
        """Moves the chosen strip's pan or filter."""
        if strip := self._strip():
            value = round(min(1.0, max(-1.0, getattr(strip.settings, field) + step)), 3)
            self._change(strip.stem, StripChange(pan=value) if field == "pan" else StripChange(filter=value))

    def action_reset_strip(self) -> None:
        """Puts the chosen strip back to how a session begins."""
        if strip := self._strip():
            usual = StripSettings()
            self._change(strip.stem, StripChange(**{name: getattr(usual, name) for name in usual.__slots__}))

    def action_monitor(self, step_db: float) -> None:
        """Moves the fader of the monitor mix."""
        self._try(lambda: self._control.set_monitor_gain(nudged_db(self._state.monitor_gain_db, step_db)))

    def action_recall(self, name: str) -> None:
        """Recalls a scene."""
        self._try(lambda: self._control.recall_scene(name))

    def action_store(self, name: str) -> None:
        """Stores a scene."""
        if self._try(lambda: self._control.store_scene(name)):
            self.notify(f"Scene {name} is stored.")

    def action_record(self) -> None:
        """Begins a take, or ends it."""
        if not self._state.recording:
            self._try(lambda: self._control.start_recording(self._record_to))
            return
        folder = self._state.recording
        if self._try(self._control.stop_recording):
            self.notify(f"The take is in {folder}", markup=False)

    def action_show_keys(self) -> None:
        """Shows what the keys do."""
        self.push_screen(HelpScreen())

    def choose(self, stem: str) -> None:
        """Chooses the strip of a stem."""
        stems = [strip.stem for strip in self._state.strips]
        self.action_choose(stems.index(stem) - self._chosen if stem in stems else 0)

    def _strip(self) -> StripState | None:
        strips = self._state.strips
        return strips[self._chosen] if self._chosen < len(strips) else None

    def _change(self, stem: str, change: StripChange) -> None:
        self._try(lambda: self._control.set_strip(stem, change))

    def _try(self, call: Callable[[], object]) -> bool:
        try:
            call()
            # At once: a key that repeats is faster than the next look, and goes on from what it sees.
            self._state = self._control.state()
        except RevithionError as exc:
            self._tell(exc)
            return False
        self._draw()
        return True

    def _tell(self, error: RevithionError) -> None:
        self.notify(f"{error.message}\n{error.hint}", severity="error", markup=False)

    async def _build_columns(self) -> None:
        self._columns = [StripColumn(strip, self._change, self.choose) for strip in self._state.strips]
        self._chosen = min(self._chosen, max(0, len(self._columns) - 1))
        await self._strips.remove_children()
        await self._strips.mount(*self._columns)

    def _draw(self) -> None:
        state = self._state
        for number, (column, strip) in enumerate(zip(self._columns, state.strips, strict=False)):
            column.update(strip, selected=number == self._chosen)
            if number == self._chosen:
                column.scroll_visible(animate=False)
        self._title.update(title_line(state))
        self._budget.update(budget_table(state.budget, state.block_frames))
        self._counters.update(counter_table(state))
        self._scenes.update(scene_line(state))
        message = self._trouble or state.message or advice(state)
        self._keys.update(Text(message, "bold red") if message else Text(_KEYS, "dim"))


def run_terminal(
    control: LiveControl, *, record_to: str = "recordings", errors: SimpleQueue[RevithionError] | None = None
) -> None:
    """Shows a session in the terminal until it ends or the user leaves; who called this then ends the session, or not.

    From the main thread.

    Args:
        control: The session.
        record_to: Folder that ``r`` records into.
        errors: Of others, such as a controller's; they are shown.
    """
    LiveTerminal(control, record_to=record_to, errors=errors).run()
