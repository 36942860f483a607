"""``revithion-stems daw midi``: a MIDI controller moves the faders of stems in DAWs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import click

from revithion_stems.cli.console import printable

if TYPE_CHECKING:
    import asyncio

    from revithion_bridge.async_client import AsyncClient
    from revithion_bridge.daw_desk.latest_moves import FaderMove
    from revithion_bridge.daw_desk.midi_faders import MidiFaders

_EXAMPLES = """Examples:

\b
  revithion-stems daw midi --list
  revithion-stems daw midi --port nanoKONTROL --gain-cc 0 --mute-cc 48
      its eight faders and mute buttons, for drums, bass, other, vocals, guitar, piano
  revithion-stems daw midi --stem vocals --stem "Drums Bus" --channel 1
"""
_POLL_S = 0.01
_TIMEOUT_S = 3.0


@click.command("midi", context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES)
@click.option("--port", metavar="NAME", help="Which port: its name, or the beginning of it.")
@click.option("--list", "list_ports", is_flag=True, help="Show the ports and end.")
@click.option("--stem", "stems", metavar="NAME", multiple=True, help="A stem or bus; repeat it for the next control.")
@click.option("--gain-cc", type=int, default=20, show_default=True, help="Controller of the first stem's gain.")
@click.option("--mute-cc", type=int, default=40, show_default=True, help="Controller of the first stem's mute.")
@click.option("--mute-note", type=int, help="Note of the first stem's mute, on while it sounds.")
@click.option("--channel", type=int, help="Only this one, 1 to 16.")
def midi_command(
    port: str | None,
    list_ports: bool,
    stems: tuple[str, ...],
    gain_cc: int,
    mute_cc: int,
    mute_note: int | None,
    channel: int | None,
) -> int:
    """Move the faders of stems in DAWs with a MIDI controller, until Ctrl-C.

    The stems' controls have numbers that follow each other. A fader is at 0 dB at 100 of 127. The daemon must run.
    """
    import asyncio

    from revithion_bridge.daw.plan_presets import PlanPreset
    from revithion_bridge.daw_desk.midi_faders import MidiFaders
    from revithion_stems.cli.interrupts import sigterm_interrupts

    with _midi_errors():
        import mido

        backend: Any = mido  # which makes these functions when it is imported
        names: list[str] = list(dict.fromkeys(backend.get_input_names()))
    if list_ports:
        for name in names:
            click.echo(printable(name))
        return 0
    faders = MidiFaders(
        stems=stems or PlanPreset().order, gain_cc=gain_cc, mute_cc=mute_cc, mute_note=mute_note, channel=channel
    )
    chosen = _choose(port, names)
    with _midi_errors():
        opened = backend.open_input(chosen)
    with (
        contextlib.closing(opened),
        contextlib.suppress(KeyboardInterrupt),
        sigterm_interrupts(),
        # A selector loop everywhere: the default loop of Windows can't watch ZeroMQ's sockets.
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
    ):
        runner.run(_follow(opened, chosen, faders))
    return 0


def _choose(wanted: str | None, names: list[str]) -> str:
    from revithion_bridge.errors import bridge_error

    known = ", ".join(names) or "none"
    if wanted in names:
        return wanted
    found = [name for name in names if wanted is None or name.lower().startswith(wanted.lower())]
    if len(found) != 1:
        missing = "no port" if not found else "more than one port"
        raise bridge_error("midi.port", f"{missing}{f' is called {wanted!r}' if wanted else ''}; there are: {known}")
    return found[0]


async def _follow(port: Any, name: str, faders: MidiFaders) -> None:
    import asyncio

    from revithion_bridge.async_client import connect_async
    from revithion_bridge.daw_desk.latest_moves import LatestMoves
    from revithion_bridge.errors import bridge_error

    async with await connect_async(client="midi", timeout_s=_TIMEOUT_S) as client:
        sender = _Sender(client)
        moves = LatestMoves(sender.send)
        click.echo(printable(f"{name}: {', '.join(faders.stems)}"))
        try:
            while not port.closed:
                for message in port.iter_pending():
                    move = faders.read(message)
                    if move is not None:
                        moves.put(*move).add_done_callback(sender.report)
                await asyncio.sleep(_POLL_S)
        finally:
            await moves.close()
    raise bridge_error("midi.port", f"{name} is gone")


class _Sender:
    """Sends moves to the daemon, and says what is wrong, but not again with each one."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._said = ""

    async def send(self, stem: str, move: FaderMove) -> None:
        await self._client.set_daw_fader(stem, move.gain_db, move.muted)

    def report(self, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        text = "" if error is None else str(error)
        if text and text != self._said:
            click.echo(printable(text), err=True)
        self._said = text


@contextlib.contextmanager
def _midi_errors() -> Generator[None]:
    """What a driver raises, as ours."""
    from revithion_bridge.errors import bridge_error

    try:
        yield
    except ImportError as exc:
        raise bridge_error("midi.backend", f"MIDI's driver is not installed: {exc}") from exc
    except Exception as exc:  # drivers have no common error
        raise bridge_error("midi.port", f"MIDI: {exc}") from exc
