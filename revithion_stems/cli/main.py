"""The root command: sub-commands are imported when they are used, so that ``--help`` stays fast."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from revithion_stems.cli.console import EXIT_UNEXPECTED, report_error
from revithion_stems.errors import ConfigError, RevithionError
from revithion_stems.version import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module:attribute, help line) — the help line stands here so that listing commands imports none of them.
    "separate": ("revithion_stems.cli.separate:separate_command", "Separate songs into stems that sum back exactly."),
    "batch": ("revithion_stems.cli.batch:batch_command", "Separate files, folders, patterns and lists of songs."),
    "plan": ("revithion_stems.cli.plan:plan_command", "Show what separate would do, without doing it."),
    "models": ("revithion_stems.cli.models:models_group", "List, pull, verify and move model weights."),
    "compare": ("revithion_stems.cli.compare:compare_command", "Measure SDR, SI-SDR, null depth and lag."),
    "evaluate": ("revithion_stems.cli.evaluate:evaluate_command", "Measure models on songs whose stems are known."),
    "train": ("revithion_stems.cli.train:train_command", "Train a network of your own."),
    "cache": ("revithion_stems.cli.cache:cache_group", "Show or empty the cache of results."),
    "submit": ("revithion_bridge.cli.submit:submit_command", "Put songs into the queue of the daemon."),
    "watch": ("revithion_bridge.cli.watch:watch_command", "Follow a job of the daemon, or all."),
    "jobs": ("revithion_bridge.cli.jobs:jobs_group", "List, retry, forget and rank the daemon's jobs."),
    "cancel": ("revithion_bridge.cli.cancel:cancel_command", "Stop jobs of the daemon."),
    "status": ("revithion_bridge.cli.status:status_command", "Show the daemon's queue, workers, memory and rates."),
    "daw": ("revithion_bridge.cli.daw:daw_group", "Put scripts into DAWs, and see what is open there."),
    "export": ("revithion_bridge.cli.export:export_command", "Write stems into project files of DAWs."),
    "live": ("revithion_realtime.cli.live:live_command", "Play a preview of the stems of what is playing, now."),
    "serve": ("revithion_bridge.cli.serve:serve_command", "Run the daemon, end it, or install it as a service."),
    "doctor": ("revithion_stems.cli.doctor:doctor_command", "Say what works on this machine and how to fix the rest."),
    "completion": ("revithion_stems.cli.completion:completion_command", "Print the shell completion script."),
}

_WITHOUT_SETTINGS = frozenset({"doctor", "completion"})

_EXAMPLES = """Examples:

\b
  revithion-stems separate song.mp3
  revithion-stems separate song.wav --two-stems vocals
  revithion-stems models pull htdemucs
  revithion-stems compare song.mp3 song/*.wav
"""


class LazyGroup(click.Group):
    """A click group that imports a sub-command on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All command names in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports and returns one command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module_name), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "REVITHION"},
    epilog=_EXAMPLES,
)
@click.version_option(__version__, prog_name="revithion-stems")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Separate music into stems that sum back to the original exactly."""
    ctx.default_map = _settings(ctx)


def _settings(ctx: click.Context) -> dict[str, Any]:
    """Defaults from the settings file, by option as it is written on the command line: ``two-stems`` or ``two_stems``.

    Raises:
        ConfigError: The file is unusable, or names an option that the command does not have. The commands that help to
            repair a machine go on without.
    """
    from revithion_stems.config import config_path, load_defaults

    name = ctx.invoked_subcommand
    if name in _WITHOUT_SETTINGS:
        return {}
    tables = {
        table: {option.replace("-", "_"): value for option, value in options.items()}
        for table, options in load_defaults().items()
    }
    command = cli.get_command(ctx, name) if name is not None else None
    if name is not None and command is not None and not isinstance(command, click.Group):
        known = {option.name for option in command.params if isinstance(option, click.Option) and option.name}
        unknown = sorted(set(tables.get(name, {})) - known)
        if unknown:
            raise ConfigError(
                f"{config_path()}: [{name}] has no option {unknown[0]!r} (it has: {', '.join(sorted(known))})",
                hint=f"Correct or remove that line; `revithion-stems {name} --help` tells what each option does.",
            )
    return tables


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``revithion-stems``: runs a command and exits with its status."""
    args = list(sys.argv[1:] if argv is None else argv)
    json_mode = "--json" in args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a pipe on Windows may not have our arrows: better escaped than dead
            stream.reconfigure(errors="backslashreplace")
    try:
        result: Any = cli.main(args=args, standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as exc:
        if json_mode:
            report_error(exc, json_mode=True)
        else:
            exc.show()
        sys.exit(exc.exit_code)
    except RevithionError as exc:
        report_error(exc, json_mode=json_mode)
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_UNEXPECTED)
    sys.exit(result if isinstance(result, int) else 0)
