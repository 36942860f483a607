"""A MIDI controller in front of a live session: its moves go there, and its lights show how the session stands."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import mido

from revithion_realtime.control.midi_map import MidiAddress, MidiControl, MidiMap, address_of, control_for
from revithion_realtime.control.midi_map_file import append_control, load_midi_map, user_map_path
from revithion_realtime.control.midi_ports import open_midi_ports, port_error
from revithion_realtime.control.midi_target import MidiTarget, find_target, move_target, switch_target
from revithion_stems.errors import LiveError, RevithionError, unexpected_error
from revithion_stems.live import LiveControl, LiveState

_PUMP_S = 0.005
_FEEDBACK_S = 0.05


class MidiDesk:
    """Moves a live session by a MIDI controller.

    A knob or fader moves nothing until it has passed the value that it is to move (soft-takeover), so that a session
    never jumps to where a controller happens to stand; one with a motor follows, and moves at once.

    Args:
        control: The session.
        mapping: What moves what. Stems and strips that the session does not have are passed over.
        port_in: Mido's port that is read.
        port_out: Mido's port of the lights and motors, or None.
        record_to: Folder that the record button records into.
        notify: Called with what went wrong, on the thread that pumps; the same error is told once in a row.
    """

    def __init__(
        self,
        control: LiveControl,
        mapping: MidiMap,
        port_in: Any,
        port_out: Any = None,
        *,
        record_to: str = "recordings",
        notify: Callable[[RevithionError], None] | None = None,
    ) -> None:
        self._control = control
        self._mapping = mapping
        self._port_in = port_in
        self._port_out = port_out
        self._record_to = record_to
        self._notify = notify
        self._told = ""
        self._stood: dict[MidiAddress, int] = {}
        self._sent: dict[MidiAddress, int] = {}
        self._shown_at = -_FEEDBACK_S
        self._learning: tuple[MidiTarget, queue.SimpleQueue[MidiAddress]] | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def mapping(self) -> MidiMap:
        """What moves what, with what was learned."""
        return self._mapping

    def start(self) -> None:
        """Pumps in a thread of its own until :meth:`close`."""
        self._thread = threading.Thread(target=self._run, name="midi-desk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and turns the lights off; the ports stay open. Again, it does nothing."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for control in self._mapping.controls.values():
            if control.led is not None:
                self._send(control.led.address, control.led.off)
        self._port_out = None

    def pump(self) -> None:
        """Handles the messages that are there and, 20 times a second, brings lights and motors up to date.

        From one thread at a time: :meth:`start`'s, or the caller's if that was not called.

        Raises:
            DawError: ``midi.port``: the input port is gone.
        """
        try:
            messages: list[mido.Message] = list(self._port_in.iter_pending())
            gone = self._port_in.closed and not messages
        except (OSError, ValueError) as exc:
            raise port_error(f"the MIDI port can't be read any more: {exc}") from exc
        if gone:
            raise port_error("the MIDI port is gone")
        for message in messages:
            try:
                self._handle(message)
            except RevithionError as exc:
                self._tell(exc)
        if time.monotonic() - self._shown_at >= _FEEDBACK_S:
            self._shown_at = time.monotonic()
            try:
                self.show(self._control.state())
                self._told = ""
            except RevithionError as exc:
                self._tell(exc)

    def show(self, state: LiveState) -> None:
        """Sends what lights and motors do not show yet."""
        if self._port_out is None:
            return
        for control in self._mapping.controls.values():
            found = find_target(control.target, state)
            if found is None:
                continue
            current = found[1]
            if control.led is not None:
                self._send(control.led.address, control.led.on if current else control.led.off)
            elif control.motor:
                stands = self._sent.get(control.address)
                if stands is None or not control.stands_at(stands, current):
                    self._send(control.address, control.value_of(current))

    def learn(self, target: str, *, path: Path | None = None, timeout_s: float = 30.0) -> str:
        """Waits for the next control that is moved, gives it a target, and writes that to the user's mapping.

        From any thread but the one that pumps.

        Args:
            target: As in a mapping: ``vocals.gain``, ``2.mute``, ``scene.verse``.
            path: The file; None for :func:`user_map_path`.
            timeout_s: How long it waits.

        Returns:
            The lines that were written.

        Raises:
            LiveError: ``live.options``: not a target, nothing was moved, or the file can't be written.
        """
        moved: queue.SimpleQueue[MidiAddress] = queue.SimpleQueue()
        wanted = MidiTarget.parse(target)
        self._learning = wanted, moved
        deadline = time.monotonic() + timeout_s
        while moved.empty() and time.monotonic() < deadline:
            if self._thread is None:
                self.pump()
            time.sleep(_PUMP_S)
        self._learning = None
        if moved.empty():
            what = "knob or fader was moved" if wanted.moves else "button was pressed"
            raise LiveError(
                f"no {what} within {timeout_s:g} s",
                hint="Check that the controller sends on this port; a gain, band, pan or filter takes a cc.",
                code="live.options",
            )
        control = control_for(wanted, moved.get())
        lines = append_control(control, path or user_map_path())
        self._mapping = self._mapping.with_control(control)
        return lines

    def _run(self) -> None:
        while not self._ended.wait(_PUMP_S):
            try:
                self.pump()
            except Exception as exc:  # noqa: BLE001 - drivers have no common error, and a thread must not end unseen
                self._tell(exc if isinstance(exc, RevithionError) else unexpected_error(exc))
                return

    def _handle(self, message: mido.Message) -> None:
        found = address_of(message)
        if found is None:
            return
        address, value = found
        if self._learning is not None:
            target, moved = self._learning
            if address.kind == "cc" if target.moves else address.pressed(value):
                self._learning = None
                moved.put(address)
            return
        control = self._mapping.controls.get(address)
        aim = None if control is None else find_target(control.target, self._control.state())
        if control is None or aim is None:
            return
        stem, current = aim
        if control.target.moves:
            self._move(control, value, stem, current)
            return
        if control.led is not None:
            self._sent.pop(control.led.address, None)  # many buttons switch their light themselves
        pressed = address.pressed(value)
        hold = control.hold and control.target.sets != "scene"
        if pressed or hold:
            on = pressed if hold else not current
            switch_target(self._control, control.target, stem, on=on, record_to=self._record_to)

    def _move(self, control: MidiControl, value: int, stem: str, current: float) -> None:
        before = self._stood.get(control.address, value)
        self._stood[control.address] = value
        if control.motor:
            self._sent[control.address] = value
        elif not control.reached(before, value, current):
            return
        move_target(self._control, control.target, stem, control.values[value])

    def _send(self, address: MidiAddress, value: int) -> None:
        if self._port_out is None or self._sent.get(address) == value:
            return
        try:
            self._port_out.send(address.message(value))
        except (OSError, ValueError) as exc:
            self._port_out = None
            self._tell(port_error(f"the MIDI port of the lights is gone: {exc}"))
        self._sent[address] = value

    def _tell(self, error: RevithionError) -> None:
        if self._notify is not None and str(error) != self._told:
            self._notify(error)
        self._told = str(error)


@contextlib.contextmanager
def open_midi(
    control: LiveControl,
    port: str = "",
    which: str = "",
    *,
    record_to: str = "recordings",
    notify: Callable[[RevithionError], None] | None = None,
) -> Generator[MidiDesk]:
    """Opens a controller in front of a session; it works in a thread of its own for as long as the context lasts.

    Args:
        control: The session.
        port: As in :func:`open_midi_ports`.
        which: The mapping, as in :func:`load_midi_map`.
        record_to: Folder that the record button records into.
        notify: Called with what went wrong, on that thread.

    Raises:
        DawError: ``midi.backend``, ``midi.port``.
        LiveError: ``live.options``: the mapping can't be used.
    """
    with contextlib.closing(open_midi_ports(port)) as ports:
        mapping = load_midi_map(which, port_name=ports.name)
        desk = MidiDesk(control, mapping, ports.input, ports.output, record_to=record_to, notify=notify)
        desk.start()
        try:
            yield desk
        finally:
            desk.close()
