"""``revithion-stems cache``: what is kept of finished and interrupted separations, and how to be rid of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import json_option, print_json, printable

if TYPE_CHECKING:
    from revithion_stems.store import ContentStore, StoreUsage

_EXAMPLES = """Examples:

\b
  revithion-stems cache info
  revithion-stems cache clear
  REVITHION_CACHE_SIZE="100 GB" revithion-stems batch music/
"""


@click.group(epilog=_EXAMPLES)
def cache_group() -> None:
    """Show or empty the cache of results.

    The same song with the same model and parameters is not computed twice, and what was interrupted goes on where it
    stopped. REVITHION_CACHE_DIR names the folder, REVITHION_CACHE_SIZE its largest size (20 GB; 0 keeps no results).
    """


@cache_group.command("info")
@json_option
def info_command(json_mode: bool) -> None:
    """Show where the cache is, what it holds, and how large it may grow."""
    from revithion_stems.store import ContentStore

    store = ContentStore()
    _show(store, store.usage(), json_mode=json_mode)


@cache_group.command("clear")
@json_option
def clear_command(json_mode: bool) -> None:
    """Remove all results and all unfinished work, except that of jobs that are running."""
    from revithion_stems.store import ContentStore

    store = ContentStore()
    _show(store, store.clear(), json_mode=json_mode)


def _show(store: ContentStore, usage: StoreUsage, *, json_mode: bool) -> None:
    from revithion_stems.units import format_bytes

    if json_mode:
        print_json({"type": "Cache", "folder": str(store.root), **dataclasses.asdict(usage)})
        return
    click.echo(f"folder      {printable(str(store.root))}")
    click.echo(f"results     {usage.results}, {format_bytes(usage.results_bytes)}")
    click.echo(f"unfinished  {usage.unfinished}, {format_bytes(usage.unfinished_bytes)}")
    click.echo(f"limit       {format_bytes(usage.limit_bytes)}")
