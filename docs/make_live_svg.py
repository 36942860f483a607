"""Draws docs/live/terminal.svg: the terminal UI of the live preview, in front of a session without sound.

python docs/make_live_svg.py
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

from make_terminal_svg import FONTS  # noqa: E402

from live_desk import LiveDesk  # noqa: E402
from revithion_realtime.control.terminal_ui import LiveTerminal  # noqa: E402
from revithion_stems.live import LiveCounters, StripChange, Tier  # noqa: E402


def desk() -> LiveDesk:
    """A session in the middle of a song."""
    desk = LiveDesk()
    for stem, left, right in (("vocals", -9.0, -10.5), ("drums", -4.0, -5.0), ("bass", -14.0, -13.0)):
        desk.set_levels(stem, left, right)
    desk.set_levels("other", -22.0, -26.0, Tier.DRY)
    desk.set_strip("vocals", StripChange(gain_db=2.5, solo=True))
    desk.set_strip("drums", StripChange(gain_db=-3.0, low_db=-60.0, pan=-0.3))
    desk.set_strip("bass", StripChange(filter=-0.4))
    desk.set_strip("other", StripChange(gain_db=-12.0, muted=True))
    desk.store_scene("1")
    desk.store_scene("3")
    desk.change(
        mix_peak_left_db=-3.0,
        mix_peak_right_db=-4.0,
        counters=LiveCounters(
            frames=1_000_000,
            blocks=4_000,
            callback_ms=0.41,
            callback_load=0.05,
            inference_load=0.23,
            late_blocks=2,
            late_times=1,
        ),
    )
    return desk


async def draw() -> str:
    """The picture as SVG that refers to nothing outside itself."""
    app = LiveTerminal(desk())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        svg = app.export_screenshot(title="revithion-stems live")
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family:\s*[^;]*;", f"font-family: {FONTS};", svg)
    # The names of its classes are random: without that the picture would differ each time.
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    outside = [url for url in re.findall(r"(?:https?:)?//[^\s\"')]+", svg) if "www.w3.org" not in url]
    if outside:
        raise ValueError(f"the picture refers to {outside}")
    return svg


if __name__ == "__main__":
    target = REPOSITORY / "docs" / "live" / "terminal.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text(asyncio.run(draw()), encoding="utf-8")
