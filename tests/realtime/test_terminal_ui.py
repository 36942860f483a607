from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Static

from live_desk import STEMS, LiveDesk
from revithion_realtime.control.strip_column import METER_ROWS, filter_text, meter_rows, nudged_db, pan_text
from revithion_realtime.control.terminal_panels import advice, title_line
from revithion_realtime.control.terminal_ui import LiveTerminal
from revithion_stems.errors import DaemonError, RevithionError
from revithion_stems.live import LatencyBudget, LiveCounters, LivePhase, LiveState, StripChange, StripSettings, Tier

SIZE = (80, 24)
TOP_OF_FADER, SWITCHES, KILLS = 3, 10, 11
"""Lines of the screen, from 0: the title is above the strips."""


def in_terminal(
    desk: LiveDesk, use: Callable[[Pilot[None]], Awaitable[object]], size: tuple[int, int] = SIZE
) -> LiveTerminal:
    async def main() -> LiveTerminal:
        app = LiveTerminal(desk, record_to="takes")
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await use(pilot)
            await pilot.pause()
        return app

    return asyncio.run(main())


def press(desk: LiveDesk, *keys: str) -> LiveTerminal:
    return in_terminal(desk, lambda pilot: pilot.press(*keys))


def screen(desk: LiveDesk, *keys: str, size: tuple[int, int] = SIZE, looks: int = 1) -> list[str]:
    """The lines that people see after some keys."""
    lines: list[str] = []

    async def look(pilot: Pilot[None]) -> None:
        await pilot.press(*keys)
        for _ in range(looks):
            await pilot.app.poll()  # pyright: ignore
        await pilot.pause()
        strips = pilot.app.screen._compositor.render_strips()  # pyright: ignore
        lines.extend(strip.text for strip in strips)

    in_terminal(desk, look, size)
    return lines


# what is seen


def test_everything_is_on_a_screen_of_80_by_24():
    desk = LiveDesk()
    desk.set_levels("bass", -3.0, -6.0, Tier.MASTER)
    desk.set_levels("other", -30.0, -30.0, Tier.DRY)
    desk.set_strip("drums", StripChange(gain_db=-60.0, pan=-0.3, filter=0.4))
    desk.start_recording("takes")
    desk.change(
        counters=LiveCounters(
            callback_load=0.05,
            inference_load=0.9,
            callback_ms=0.41,
            late_blocks=7,
            late_times=2,
            xruns=3,
            device_losses=1,
        )
    )
    lines = screen(desk)
    text = "\n".join(lines)
    assert len(lines) == 24
    for seen in (
        *STEMS,
        *("PLAYING", "preview", "none (clock)", "● REC takes/take-1"),
        *("PREVIEW", "DRY", "MASTER", "off", "+0.0 dB", "pan L 30", "flt HP 40", "flt open"),
        *("48000 Hz, blocks of 256", "0.41 of 5.33 ms", "90 %", "7 (2 ×)", "4 (3 / 1)", "scenes  1  2", "? keys"),
    ):
        assert seen in text, seen


def test_the_budget_adds_up_in_frames_and_ms():
    lines = screen(LiveDesk())
    rows = [line.split() for line in lines]
    shares = (["device", "512", "10.7"], ["algorithm", "480", "10.0"], ["queue", "320", "6.7"])
    for row in (*shares, ["total", "1312", "27.3"]):
        assert any(found[:3] == row for found in rows), row


def test_a_budget_that_was_measured_says_so():
    desk = LiveDesk()
    measured = LatencyBudget(
        sample_rate=44_100, device_frames=600, algorithm_frames=441, queue_frames=0, device_measured=True
    )
    desk.change(budget=measured)
    assert any("device, measured" in line and "600" in line for line in screen(desk))


def test_the_device_that_is_lost_is_told():
    desk = LiveDesk()
    desk.change(phase=LivePhase.LOST, message="the device is gone; it is looked for")
    lines = screen(desk)
    assert "LOST" in lines[0]
    assert "the device is gone" in lines[-1]


@pytest.mark.parametrize("phase", LivePhase)
def test_every_phase_has_a_look(phase: LivePhase):
    desk = LiveDesk()
    desk.change(phase=phase)
    line = title_line(desk.state())
    assert isinstance(line, Text)
    assert phase.value.upper() in line.plain


def test_more_stems_than_fit_can_be_reached():
    desk = LiveDesk([f"stem{number}" for number in range(9)])
    assert "stem8" not in "\n".join(screen(desk))
    assert "▶stem8" in "\n".join(screen(desk, *["right"] * 8))


def test_a_session_with_other_stems_gets_other_strips():
    desk = LiveDesk()
    two = LiveDesk(["vocals", "accompaniment"]).state().strips

    async def change(pilot: Pilot[None]) -> None:
        desk.change(strips=two)
        await pilot.app.poll()  # pyright: ignore
        await pilot.press("right", "right", "right", "m")

    in_terminal(desk, change)
    assert desk.settings("accompaniment").muted


@given(st.floats(-130.0, 10.0), st.floats(-130.0, 10.0))
def test_a_louder_meter_is_never_shorter(one: float, other: float):
    low, high = (" ▁▂▃▄▅▆▇█".index(rows[0]) for rows in ([meter_rows(db)[-1]] for db in sorted((one, other))))
    assert low <= high
    assert len(meter_rows(one)) == METER_ROWS


def test_a_meter_is_empty_at_its_floor_and_full_at_0():
    assert meter_rows(-120.0) == [" "] * METER_ROWS
    assert meter_rows(-30.0) == [" "] * 3 + ["█"] * 3
    assert meter_rows(0.0) == ["█"] * METER_ROWS


def test_pan_and_filter_are_said_in_words():
    assert [pan_text(value) for value in (-1.0, -0.004, 0.0, 0.25)] == ["L 100", "C", "C", "R 25"]
    assert [filter_text(value) for value in (-1.0, 0.0, 0.25)] == ["LP 100", "open", "HP 25"]


# keys


KEYS: dict[str, StripSettings] = {
    "up": StripSettings(gain_db=1.0),
    "down": StripSettings(gain_db=-1.0),
    "shift+up": StripSettings(gain_db=0.1),
    "shift+down": StripSettings(gain_db=-0.1),
    "m": StripSettings(muted=True),
    "s": StripSettings(solo=True),
    "z": StripSettings(low_db=-60.0),
    "x": StripSettings(mid_db=-60.0),
    "c": StripSettings(high_db=-60.0),
    "left_square_bracket": StripSettings(pan=-0.1),
    "right_square_bracket": StripSettings(pan=0.1),
    "less_than_sign": StripSettings(filter=-0.05),
    "greater_than_sign": StripSettings(filter=0.05),
}


def test_a_key_moves_the_strip_that_is_chosen_and_0_resets_it():
    desk = LiveDesk()
    moved: dict[str, StripSettings] = {}

    async def try_all(pilot: Pilot[None]) -> None:
        await pilot.press("right")
        for key in KEYS:
            await pilot.press(key)
            moved[key] = desk.settings("drums")
            await pilot.press("0")

    in_terminal(desk, try_all)
    assert moved == KEYS
    assert all(desk.settings(stem) == StripSettings() for stem in STEMS)


def test_a_switch_is_off_after_the_second_press():
    desk = LiveDesk()
    press(desk, *"msxzcmsxzc")
    assert desk.settings("vocals") == StripSettings()


def test_a_key_that_repeats_goes_on_from_where_it_is():
    desk = LiveDesk()
    press(desk, *["up"] * 5, *["shift+down"] * 3)
    assert desk.settings("vocals").gain_db == 4.7


def test_keys_stop_at_the_ends():
    desk = LiveDesk()
    desk.set_strip("vocals", StripChange(gain_db=11.5, pan=0.95))
    press(desk, "left", "up", "right_square_bracket")
    assert (desk.settings("vocals").gain_db, desk.settings("vocals").pan) == (12.0, 1.0)


@given(st.floats(-60.0, 12.0), st.floats(-100.0, 100.0))
def test_a_nudge_is_always_a_possible_gain(gain_db: float, step_db: float):
    StripSettings(gain_db=nudged_db(gain_db, step_db))


def test_a_scene_is_stored_and_recalled():
    desk = LiveDesk()
    press(desk, "m", "f2", "m", "2")
    assert desk.state().scenes == ("2",)
    assert desk.settings("vocals").muted


def test_r_begins_a_take_and_ends_it():
    desk = LiveDesk()
    press(desk, "r")
    assert desk.state().recording == "takes/take-1"
    press(desk, "r")
    assert desk.state().recording == ""


def test_the_monitor_mix_has_keys():
    desk = LiveDesk()
    press(desk, "minus", "minus", "plus")
    assert desk.state().monitor_gain_db == -1.0


def test_help_lists_the_keys_and_goes_away_with_any():
    desk = LiveDesk()
    assert any("recall a scene" in line for line in screen(desk, "question_mark"))
    assert not any("recall a scene" in line for line in screen(desk, "question_mark", "m"))
    assert not desk.settings("vocals").muted


def test_q_leaves_the_session_as_it_is():
    desk = LiveDesk()
    assert press(desk, "q").return_code == 0
    assert not desk.stopped


def test_the_ui_ends_with_the_session():
    desk = LiveDesk()

    async def end(pilot: Pilot[None]) -> None:
        desk.stop()
        await pilot.app.poll()  # pyright: ignore

    assert not in_terminal(desk, end).is_running


# mouse


def test_a_click_on_a_fader_moves_it_there():
    desk = LiveDesk()
    gains: list[float] = []

    async def move(pilot: Pilot[None]) -> None:
        for row in (0, METER_ROWS - 1):
            await pilot.click(offset=(27, TOP_OF_FADER + row))
            gains.append(desk.settings("drums").gain_db)

    in_terminal(desk, move)
    assert gains == [12.0, -60.0]


def test_a_fader_follows_the_mouse_until_it_lets_go():
    desk = LiveDesk()

    async def drag(pilot: Pilot[None]) -> None:
        await pilot.mouse_down(offset=(27, TOP_OF_FADER))
        await pilot.hover(offset=(70, TOP_OF_FADER + METER_ROWS - 1))
        await pilot.mouse_up(offset=(70, TOP_OF_FADER + METER_ROWS - 1))
        await pilot.hover(offset=(27, TOP_OF_FADER))

    in_terminal(desk, drag)
    assert desk.settings("drums").gain_db == -60.0


CLICKS: dict[tuple[int, int], StripSettings] = {
    (2, SWITCHES): StripSettings(muted=True),
    (5, SWITCHES): StripSettings(solo=True),
    (2, KILLS): StripSettings(low_db=-60.0),
    (5, KILLS): StripSettings(mid_db=-60.0),
    (8, KILLS): StripSettings(high_db=-60.0),
    (8, SWITCHES): StripSettings(),
    (2, KILLS + 1): StripSettings(),
}


def test_a_click_on_a_switch_turns_it_over():
    desk = LiveDesk()
    turned: dict[tuple[int, int], StripSettings] = {}

    async def try_all(pilot: Pilot[None]) -> None:
        for x, y in CLICKS:
            await pilot.click(offset=(40 + x, y))
            turned[x, y] = desk.settings("bass")
            await pilot.press("0")

    in_terminal(desk, try_all)
    assert turned == CLICKS


def test_a_click_chooses_the_strip():
    desk = LiveDesk()

    async def choose(pilot: Pilot[None]) -> None:
        await pilot.click(offset=(65, 1))
        await pilot.press("m")

    in_terminal(desk, choose)
    assert desk.settings("other").muted


# errors


def test_an_error_of_a_controller_is_a_notice():
    errors: SimpleQueue[RevithionError] = SimpleQueue()
    errors.put(DaemonError("the controller is gone", hint="Plug it in again."))
    notices: list[str] = []

    async def main() -> None:
        app = LiveTerminal(LiveDesk(), errors=errors)
        async with app.run_test(size=SIZE) as pilot:
            await app.poll()
            await pilot.pause()
            notices.extend(notice.message for notice in app._notifications)  # pyright: ignore

    asyncio.run(main())
    assert notices == ["the controller is gone\nPlug it in again."]


def test_what_the_session_refuses_is_a_notice():
    desk = LiveDesk()
    notices: list[str] = []

    async def recall(pilot: Pilot[None]) -> None:
        await pilot.press("7", "m")
        notices.extend(notice.message for notice in pilot.app._notifications)  # pyright: ignore

    in_terminal(desk, recall)
    assert notices == ["there is no scene '7'; there are: none\nLook at state()."]
    assert desk.settings("vocals").muted


class LostDesk(LiveDesk):
    """A session whose daemon does not answer after a while."""

    lost = False

    def state(self) -> LiveState:
        if self.lost:
            raise DaemonError("the daemon does not answer [/x]", hint="Start it.")
        return super().state()


def test_a_session_that_does_not_answer_is_told_and_asked_again():
    desk = LostDesk()

    async def lose(pilot: Pilot[None]) -> None:
        app = pilot.app
        desk.lost = True
        await app.poll()  # pyright: ignore
        assert "does not answer" in str(app.query_one("#keys", Static).content)
        desk.lost = False
        await app.poll()  # pyright: ignore
        assert "keys" in str(app.query_one("#keys", Static).content)

    in_terminal(desk, lose)


@pytest.mark.parametrize(
    ("late_blocks", "blocks", "algorithm_frames", "expected"),
    [
        (20, 2_000, 512, ""),  # now and then
        (90, 100, 512, ""),  # the first moments
        (600, 2_000, 512, "30% dry: too slow for this machine; a larger --safety or a simpler --model"),
        (600, 2_000, 57_000, "30% dry: too slow for this machine; a larger --look-back or a simpler --model"),
    ],
)
def test_a_model_that_does_not_keep_up_is_told_with_what_to_do(late_blocks, blocks, algorithm_frames, expected):
    desk = LiveDesk()
    counters = LiveCounters(frames=256 * blocks, blocks=blocks, late_blocks=late_blocks)
    budget = LatencyBudget(sample_rate=48_000, device_frames=0, algorithm_frames=algorithm_frames, queue_frames=832)
    desk.change(counters=counters, budget=budget)
    assert advice(desk.state()) == expected
    assert screen(desk)[-1].strip().startswith(expected or "←→ strip")
