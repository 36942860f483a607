"""``revithion-stems daw``: our scripts in the DAWs of this machine, and the sessions that are open in them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from revithion_bridge.cli.midi import midi_command
from revithion_stems.cli.console import json_option, print_json, printable

if TYPE_CHECKING:
    from revithion_bridge.daw_install.programs import DawFolder, DawProgram
    from revithion_bridge.daw_install.script_check import ScriptState
    from revithion_bridge.daw_install.script_install import InstallReport

HELP = {"help_option_names": ["-h", "--help"]}


def _examples(*lines: str) -> str:
    return "Examples:\n\n\b\n" + "\n".join(f"  revithion-stems daw {line}" for line in lines)


@click.group(
    context_settings=HELP, epilog=_examples("list", "install ardour", "test ardour", "status", "uninstall ardour")
)
def daw_group() -> None:
    """Put the menu entries and actions into a DAW, and see what is open there."""


_daw_argument = click.argument("daw", metavar="DAW")
_folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The DAW's folder of settings, such as that of a portable REAPER.",
)
_version_option = click.option("--version", default="", metavar="NUMBER", help="Only for this version of the DAW.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@daw_group.command("list", context_settings=HELP, epilog=_examples("list", "list --json"))
@json_option
def list_command(json_mode: bool) -> None:
    """List the DAWs that there are scripts for, where they were found, and whether the scripts are there."""
    from revithion_bridge.daw_install.programs import PROGRAMS, find_executable

    programs = [(program, find_executable(program), _states(program)) for program in PROGRAMS.values()]
    if json_mode:
        rows = [
            {
                "daw": program.name,
                "title": program.title,
                "program": str(executable) if executable is not None else None,
                "folders": [_state_data(found, state) for found, state in states],
            }
            for program, executable, states in programs
        ]
        print_json({"type": "Daws", "daws": rows})
        return
    for program, executable, states in programs:
        where = printable(str(executable)) if executable is not None else "the program was not found"
        click.echo(f"{program.name:<8}  {program.title}: {where}")
        for found, state in states:
            click.echo(printable(f"          {found.path}: {_state_text(state)}"))
        if not states:
            click.echo("          no folder of settings; the program makes it when it starts")


@daw_group.command(
    "install",
    context_settings=HELP,
    epilog=_examples("install ardour", "install ardour --version 8", "install reaper --folder '/opt/REAPER'"),
)
@_daw_argument
@_version_option
@_folder_option
@click.option("--no-startup", is_flag=True, help="REAPER: don't run the listener from its start.")
@click.option(
    "--new-menus",
    is_flag=True,
    help="REAPER: put the entry also into menus that you have not customised; what they have moves into a submenu.",
)
@_dry_run_option
@json_option
def install_command(
    daw: str, version: str, folder: Path | None, no_startup: bool, new_menus: bool, dry_run: bool, json_mode: bool
) -> None:
    """Copy the scripts into a DAW's folder, and register actions and menu entries. Close the DAW first.

    Again, it replaces what is ours, and nothing else. All of it is done, or nothing.
    """
    from revithion_bridge.daw_install.script_check import install_scripts

    for found in _folders(daw, version, folder):
        report = install_scripts(found, startup=not no_startup, new_menus=new_menus, dry_run=dry_run)
        _print_report(report, dry_run=dry_run, json_mode=json_mode)


@daw_group.command(
    "uninstall", context_settings=HELP, epilog=_examples("uninstall ardour", "uninstall ardour --dry-run")
)
@_daw_argument
@_version_option
@_folder_option
@_dry_run_option
@json_option
def uninstall_command(daw: str, version: str, folder: Path | None, dry_run: bool, json_mode: bool) -> None:
    """Take the scripts out of a DAW's folder again. Close the DAW first."""
    from revithion_bridge.daw_install.script_check import uninstall_scripts

    for found in _folders(daw, version, folder):
        _print_report(uninstall_scripts(found, dry_run=dry_run), dry_run=dry_run, json_mode=json_mode)


@daw_group.command("status", context_settings=HELP, epilog=_examples("status", "status --json"))
@json_option
def status_command(json_mode: bool) -> None:
    """Show the daemon, the scripts, and the sessions that are open, with their tracks and buses of ours."""
    from revithion_bridge.daw.mailbox import open_sessions
    from revithion_bridge.daw_install.programs import PROGRAMS

    daemon, sessions = _daemon_text(), open_sessions()
    states = [each for program in PROGRAMS.values() for each in _states(program)]
    if json_mode:
        import msgspec

        opened = [{"box": box, **msgspec.to_builtins(session)} for box, session in sessions.items()]
        folders = [_state_data(found, state) for found, state in states]
        print_json({"type": "DawStatus", "daemon": daemon or None, "folders": folders, "sessions": opened})
        return
    click.echo(f"daemon    {printable(daemon) or 'none runs; a script starts it when it needs it'}")
    for found, state in states:
        click.echo(printable(f"scripts   {found.path}: {_state_text(state)}"))
    for session in sessions.values():
        rate = f", {session.sample_rate} Hz" if session.sample_rate else ""
        click.echo(printable(f"session   {session.daw} {session.program}: {session.name}{rate} ({session.path})"))
        for strip in session.strips:
            mute = ", muted" if strip.muted else ""
            click.echo(printable(f"            {strip.role:<6}{strip.name}  {strip.gain_db:+.1f} dB{mute}"))
    if not sessions:
        click.echo("session   none is open")


@daw_group.command("test", context_settings=HELP, epilog=_examples("test ardour", "test reaper --json"))
@_daw_argument
@_version_option
@_folder_option
@json_option
def test_command(daw: str, version: str, folder: Path | None, json_mode: bool) -> None:
    """Check the way from the DAW to the daemon and back: files, actions, mailbox, daemon, an open session.

    Starts the daemon if none runs. Status 8 if something is wrong.
    """
    from revithion_bridge.daw_install.script_check import check_way
    from revithion_bridge.errors import bridge_error

    results = check_way(daw.lower(), _folders(daw, version, folder))
    failed = next((result.error for result in results if result.error is not None), None)
    if json_mode:
        checks = [{"check": result.name, "ok": result.error is None, "text": result.text} for result in results]
        print_json({"type": "DawTest", "daw": daw.lower(), "ok": failed is None, "checks": checks})
    else:
        for result in results:
            click.echo(printable(f"{'ok   ' if result.error is None else 'WRONG'}  {result.name}: {result.text}"))
    if failed is not None:
        raise failed if failed.code.startswith("daw.") else bridge_error("daw.refused", failed.message) from failed


def _folders(daw: str, version: str, folder: Path | None) -> list[DawFolder]:
    """The folders that a command is for.

    Raises:
        RevithionError: ``daw.unknown``; ``daw.install``: there are none.
    """
    from revithion_bridge.daw_install.programs import DawFolder, find_folders, find_program
    from revithion_bridge.errors import bridge_error

    program = find_program(daw)
    if folder is not None:
        return [DawFolder(daw=program.name, version=version, path=folder.absolute())]
    found = find_folders(program, version)
    if not found:
        which = f"{program.title}, version {version}," if version else program.title
        raise bridge_error("daw.install", f"{which} has no settings here: start it once, or name its --folder")
    return found


def _states(program: DawProgram) -> list[tuple[DawFolder, ScriptState]]:
    from revithion_bridge.daw_install.programs import find_folders
    from revithion_bridge.daw_install.script_check import script_state

    return [(found, script_state(found)) for found in find_folders(program)]


def _state_data(found: DawFolder, state: ScriptState) -> dict[str, Any]:
    return {"daw": found.daw, "version": found.version, "path": str(found.path), **dataclasses.asdict(state)}


def _state_text(state: ScriptState) -> str:
    if state.installed is None:
        return "the scripts are not installed"
    if state.current:
        return f"scripts of version {state.installed}, current"
    return f"scripts of version {state.installed}, not as they should be: {state.problem}"


def _daemon_text() -> str:
    from revithion_bridge.cli.job_ids import open_client
    from revithion_stems.errors import RevithionError

    try:
        with open_client() as client:
            status = client.status()
    except RevithionError as exc:
        if exc.code != "daemon.unreachable":
            raise
        return ""
    return f"version {status.version}, process {status.pid}"


def _print_report(report: InstallReport, *, dry_run: bool, json_mode: bool) -> None:
    if json_mode:
        print_json(
            {
                "type": "DawScripts",
                "daw": report.daw,
                "folder": str(report.folder),
                "installed": report.installed,
                "dry_run": dry_run,
                "changes": [{"path": str(change.path), "change": change.word} for change in report.changes],
                "actions": [dataclasses.asdict(action) for action in report.actions],
                "steps": list(report.steps),
            }
        )
        return
    click.echo(f"{printable(str(report.folder))}{' (nothing is done)' if dry_run else ''}")
    for change in report.changes:
        click.echo(f"  {change.word:<9}{printable(str(change.path))}")
    if not report.changes:
        click.echo("  all is there already" if report.installed else "  nothing of ours is there")
    for action in report.actions:
        click.echo(printable(f"  action   {action.name}: {action.place}; {action.command}"))
    for step in report.steps:
        click.echo(printable(f"  left to do: {step}"))


daw_group.add_command(midi_command)
