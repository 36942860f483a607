"""Draws docs/terminal.svg: runs real commands on a song and records what they print.

    python docs/make_terminal_svg.py audio_example.mp3

The output is shown as it came, with one exception: the scratch folder that the commands ran in is written as
``~/music``. Needs the weights of htdemucs (``revithion-stems models pull htdemucs``).
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 84
SHOWN_FOLDER = "~/music"
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"


def commands(song: str) -> tuple[tuple[str, ...], ...]:
    """What is typed in the picture."""
    return (
        ("separate", song, "-m", "htdemucs"),
        ("compare", song, Path(song).stem),
    )


def record(song: Path) -> Console:
    """Runs the commands in a folder of their own and returns a console that has recorded them."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        shutil.copyfile(song, folder / song.name)
        env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
        for arguments in commands(song.name):
            console.print(Text.assemble(("$ ", "bold green"), ("revithion-stems " + " ".join(arguments), "bold")))
            done = subprocess.run(
                [sys.executable, "-c", "from revithion_stems.cli.main import main; main()", *arguments],
                cwd=folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                check=True,
            )
            printed = done.stdout.replace(str(folder), SHOWN_FOLDER)
            console.print(Text.from_ansi(printed.rstrip("\n")), no_wrap=True, overflow="ignore", crop=False)
            console.print()
    return console


def draw(console: Console) -> str:
    """The recording as SVG that refers to nothing outside itself."""
    svg = console.export_svg(title="revithion-stems", unique_id="terminal")
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)  # rich names a font server there
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family:\s*[^;]*;", f"font-family: {FONTS};", svg)
    svg = "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"
    outside = [url for url in re.findall(r"(?:https?:)?//[^\s\"')]+", svg) if "www.w3.org" not in url]
    if outside:
        raise ValueError(f"the picture refers to {outside}")
    return svg


if __name__ == "__main__":
    target = Path(__file__).resolve().parent / "terminal.svg"
    target.write_text(draw(record(Path(sys.argv[1]))), encoding="utf-8")
