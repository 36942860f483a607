"""``revithion-stems doctor``: what works on this machine, and how to fix the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import json_option, print_json, printable
from revithion_stems.errors import EngineError

if TYPE_CHECKING:
    from revithion_stems.diagnosis import Check

_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red", "unknown": "yellow"}


@click.command(
    epilog="Examples:\n\n\b\n"
    "  revithion-stems doctor\n"
    "  revithion-stems doctor --json\n"
    "  revithion-stems doctor > /dev/null && revithion-stems separate song.mp3"
)
@json_option
def doctor_command(json_mode: bool) -> int:
    """Check this machine: engines, devices, codecs, models, folders and the programs that models are pulled with.

    Nothing is changed and nothing is sent. Takes at most five seconds. The exit status is 0 unless something without
    which no song can be separated is missing or broken; then it is 6.
    """
    from revithion_stems.diagnosis import diagnose
    from revithion_stems.probes import PROBES

    checks = diagnose(PROBES)
    failed = [check for check in checks if check.fails]
    if json_mode:
        print_json({"type": "Diagnosis", "ok": not failed, "checks": [check.as_dict() for check in checks]})
    else:
        _print_checks(checks)
        names = ", ".join(check.name for check in failed)
        click.echo(f"Songs can't be separated before this is fixed: {names}" if failed else "Ready to separate songs.")
    return EngineError.exit_code if failed else 0


def _print_checks(checks: tuple[Check, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        status = check.status.value
        # In words and not only in colour; "optional" says that the song can still be separated.
        label = status if status == "ok" or check.required else f"{status} (optional)"
        table.add_row(Text(label, style=_COLOURS[status]), check.name, Text(printable(check.detail)))
        if check.fix:
            table.add_row("", "", Text(f"-> {printable(check.fix)}", style="dim" if status == "ok" else "bold"))
    Console(highlight=False).print(table)
