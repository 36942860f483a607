"""``revithion-stems completion``: prints the script that teaches a shell our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_EXAMPLES = """Examples:

\b
  revithion-stems completion bash > ~/.local/share/bash-completion/completions/revithion-stems
  revithion-stems completion fish > ~/.config/fish/completions/revithion-stems.fish
"""


@click.command(epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script for SHELL; the shell's own folder for completions is where it belongs."""
    from revithion_stems.cli.main import cli

    completion_class = get_completion_class(shell)
    assert completion_class is not None  # click ships all three that Choice admits
    click.echo(completion_class(cli, {}, "revithion-stems", "_REVITHION_STEMS_COMPLETE").source())


def complete_models(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The catalog's names that begin with ``incomplete``, for the shell."""
    from revithion_stems.catalog import load_catalog

    return [spec.name for spec in load_catalog().models if spec.name.startswith(incomplete)]
