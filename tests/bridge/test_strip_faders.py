"""Faders of stems in DAWs: from clients and OSC, through the daemon, to the script's inbox."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon_program import DaemonProcess
from mailbox_daw import MailboxDaw, strip
from revithion_bridge import connect
from revithion_bridge.connection import read_connection
from revithion_bridge.daw_desk.latest_moves import FaderMove, LatestMoves
from revithion_bridge.errors import bridge_error
from revithion_bridge.osc_packets import build_message, parse_message, typed
from revithion_stems.errors import RevithionError

moves = st.builds(
    FaderMove, gain_db=st.none() | st.floats(-120, 24), muted=st.none() | st.booleans()
)  # fmt: skip


@pytest.fixture
def daw(daemon_home: Path) -> MailboxDaw:
    return MailboxDaw()


def refused(stem: str, **fields: object) -> RevithionError:
    with connect() as client, pytest.raises(RevithionError) as caught:
        client.set_daw_fader(stem, 0.0, **fields)
    return caught.value


def test_a_fader_reaches_the_script(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    daw.announce(strip("vocals", identity="a" * 16), strip("vocals", "Vocals", "track"), strip("drums"))
    with daw.answering() as commands, connect() as client:
        (moved,) = client.set_daw_fader("vocals", -6.0)
        assert (moved.box, moved.name, moved.gain_db, moved.muted) == (daw.box, "Vocals Bus", -6.0, False)
        client.set_daw_fader("Drums Bus", muted=True)
        client.set_daw_fader("vocals", 1.5, True, role="track")
    for command in commands:
        assert (command.pop("v"), command.pop("type")) == (1, "fader")
        assert command.pop("id")
    assert commands == [
        {"identity": "a" * 16, "role": "bus", "key": "vocals", "gain_db": -6.0, "muted": None},
        {"identity": "0" * 16, "role": "bus", "key": "drums", "gain_db": None, "muted": True},
        {"identity": "0" * 16, "role": "track", "key": "vocals", "gain_db": 1.5, "muted": True},
    ]


def test_all_open_sessions_follow_or_only_one(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    other = MailboxDaw("bitwig", 2)
    for each in (daw, other):
        each.announce(strip("vocals"))
    with daw.answering() as first, other.answering() as second, connect() as client:
        assert {moved.box for moved in client.set_daw_fader("vocals", -6.0)} == {daw.box, other.box}
        client.set_daw_fader("vocals", -7.0, box=other.box)
    assert [command["gain_db"] for command in first] == [-6.0]
    assert [command["gain_db"] for command in second] == [-6.0, -7.0]


def test_asking_for_nothing_sends_nothing(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    daw.announce(strip("vocals"))
    with connect() as client:
        assert [moved.name for moved in client.set_daw_fader("vocals")] == ["Vocals Bus"]
    assert not daw.path("inbox").exists()


def test_hostile_names_are_data(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    name = "\"; os.execute('x') \n 🎛️ %n"
    daw.announce(strip("odd", name))
    with daw.answering() as commands, connect() as client:
        client.set_daw_fader(name, -3.0)
    assert [command["key"] for command in commands] == ["odd"]


def test_what_is_wrong_is_said(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    assert refused("vocals").code == "daw.absent"
    daw.announce(strip("vocals"))
    assert refused("vocals", box="ardour-0000000000000009").code == "daw.absent"
    missing = refused("piano")
    assert (missing.code, "vocals" in missing.message) == ("daw.strip", True)
    assert refused("vocals", role="track").code == "daw.strip"
    error = {"code": "daw.refused", "message": "no such bus", "hint": "h"}
    with daw.answering(ok=False, error=error):
        told = refused("vocals")
    assert (told.code, told.message) == ("daw.refused", "no such bus")


def test_a_daw_that_does_not_answer_holds_nobody_else(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    daw.announce(strip("vocals"))
    began = time.monotonic()
    with connect() as client, pytest.raises(RevithionError) as caught:
        client.set_daw_fader("vocals", -6.0)
    assert caught.value.code == "daw.busy"
    assert 2.0 < time.monotonic() - began < 5.0
    assert not daw.path("inbox").exists()


def test_a_controller_by_osc_is_not_held_up(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    """The DAW takes a tenth of a second for each: a hundred values are answered at once, and the last one arrives."""
    daw.announce(strip("vocals"), strip("drums"))
    connection = read_connection()
    assert connection is not None
    with daw.answering(pause_s=0.1) as commands, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
        phone.settimeout(10.0)
        phone.connect(("127.0.0.1", connection.osc_udp_port or 0))

        def ask(address: str, *arguments: object) -> tuple[object, ...]:
            phone.send(build_message(f"/revithion/v1{address}", map(typed, arguments)))
            call = parse_message(phone.recv(65_536))
            assert call.address == f"/revithion/v1{address}/reply", call
            return call.arguments

        ask("/hello", connection.osc_token)
        began = time.monotonic()
        for value in range(100):
            assert ask("/daw/vocals/gain", -value / 10) == ("Vocals Bus", pytest.approx(-value / 10), False)
        assert time.monotonic() - began < 3.0
        assert ask("/daw/drums/mute", 1.0) == ("Drums Bus", 0.0, True)
        deadline = time.monotonic() + 10.0
        while not {("vocals", -9.9, None), ("drums", None, True)} <= {
            (c["key"], c["gain_db"], c["muted"]) for c in commands
        }:
            assert time.monotonic() < deadline, commands
            time.sleep(0.01)
    gains = [command["gain_db"] for command in commands if command["key"] == "vocals"]
    assert gains == sorted(gains, reverse=True)
    assert len(gains) < 50


# --- only the newest move waits -------------------------------------------------------------------------------------


@given(moves, moves, moves)
def test_moves_are_put_together(first: FaderMove, second: FaderMove, third: FaderMove) -> None:
    assert first.then(second).then(third) == first.then(second.then(third))
    assert first.then(FaderMove()) == first == FaderMove().then(first)


@given(st.lists(st.tuples(st.sampled_from("ab"), moves, st.booleans()), max_size=12))
def test_each_fader_ends_where_it_was_last_sent(sequence: list[tuple[str, FaderMove, bool]]) -> None:
    """However they come and however long each takes: nothing is lost, and no two of a fader are on their way."""

    async def play() -> None:
        at: dict[str, FaderMove] = {"a": FaderMove(), "b": FaderMove()}
        sending: set[str] = set()

        async def send(key: str, move: FaderMove) -> None:
            assert key not in sending
            sending.add(key)
            await asyncio.sleep(0)
            at[key] = at[key].then(move)
            sending.remove(key)

        wanted = dict(at)
        latest: LatestMoves[str] = LatestMoves(send)
        done = []
        for key, move, waits in sequence:
            wanted[key] = wanted[key].then(move)
            done.append(latest.put(key, move))
            if waits:
                await asyncio.sleep(0)
        await asyncio.gather(*done)
        assert at == wanted

    asyncio.run(play())


def test_an_error_is_told_to_all_whose_move_it_was_and_the_next_is_sent() -> None:
    async def play() -> None:
        sent = []

        async def send(_key: str, move: FaderMove) -> None:
            sent.append(move.gain_db)
            await asyncio.sleep(0.01)
            if move.gain_db == 2.0:
                raise bridge_error("daw.busy", "no")

        latest: LatestMoves[str] = LatestMoves(send)
        futures = [latest.put("a", FaderMove(gain_db=1.0))]
        await asyncio.sleep(0.005)
        futures += [latest.put("a", FaderMove(gain_db=gain)) for gain in (5.0, 2.0)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert sent == [1.0, 2.0]
        assert results[0] is None
        assert [getattr(result, "code", None) for result in results[1:]] == ["daw.busy"] * 2
        await latest.put("a", FaderMove(gain_db=3.0))
        waiting = latest.put("a", FaderMove(gain_db=4.0))
        await latest.close()
        assert waiting.cancelled()
        assert sent == [1.0, 2.0, 3.0]

    asyncio.run(play())
