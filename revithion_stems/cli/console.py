"""What the commands print with: JSON lines on stdout for scripts, errors with a hint on stderr for people."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import click

from revithion_stems.errors import RevithionError

EXIT_UNEXPECTED = 1


def finite_or_none(value: Any) -> Any:
    """``value`` with every non-finite float inside it replaced by None, which JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    return value


def print_json(data: Any) -> None:
    """Prints one JSON document on one line of stdout, at once. Non-finite numbers become null.

    What stdout's encoding lacks, names of files that are not UTF-8 included, is written as JSON's own escapes.
    """
    data = finite_or_none(data)
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, allow_nan=False)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """``text`` with control characters escaped, so that a hostile name can't drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def report_error(error: RevithionError | click.ClickException, *, json_mode: bool) -> None:
    """Says an error: one JSON line on stdout, or message and hint on stderr."""
    if isinstance(error, RevithionError):
        data = error.as_dict()
    else:
        data = {"code": "usage", "message": error.format_message(), "hint": "Run the command with --help."}
    if json_mode:
        print_json({"type": "Error", **data})
    else:
        click.echo(f"Error: {printable(data['message'])}\n  → {printable(data['hint'])}", err=True)


json_option = click.option("--json", "json_mode", is_flag=True, help="Print JSON lines on stdout, for scripts.")
