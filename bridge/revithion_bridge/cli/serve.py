"""``revithion-stems serve``: the daemon in the foreground, ended, shown, or installed as a service."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from revithion_stems.cli.console import json_option, print_json, printable

if TYPE_CHECKING:
    from revithion_bridge.connection import Connection
    from revithion_bridge.daemon import DaemonOptions
    from revithion_bridge.service_install import ServiceReport

_EXAMPLES = """Examples:

\b
  revithion-stems serve
      runs in the foreground; Ctrl-C ends it after the segment that runs
  revithion-stems serve --root /srv/music
  revithion-stems serve --install
      runs it as a service of this user, from now on and at each log-in
  revithion-stems serve --show-osc
  revithion-stems serve --stop
"""
_STOP_S = 90.0
_POLL_S = 0.1
_NO_OSC = "off"


@click.command(epilog=_EXAMPLES)
@click.option(
    "--root",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Only files below this folder may be used; may be repeated.",
)
@click.option(
    "--osc-port",
    metavar="PORT",
    default="0",
    show_default=True,
    help="UDP and TCP port of OSC; 0 for free ones, or off.",
)
@click.option("--idle-unload", type=click.FloatRange(min=0), metavar="SECONDS", help="Idle time that ends a worker.")
@click.option("--stop", is_flag=True, help="End the daemon that runs, and wait for that.")
@click.option("--show-osc", is_flag=True, help="Print the ports and the token of OSC.")
@click.option("--install", is_flag=True, help="Run it as a service of this user, with these options.")
@click.option("--uninstall", is_flag=True, help="Remove that service.")
@json_option
def serve_command(
    root: tuple[Path, ...],
    osc_port: str,
    idle_unload: float | None,
    stop: bool,
    show_osc: bool,
    install: bool,
    uninstall: bool,
    json_mode: bool,
) -> None:
    """Run the daemon, which does jobs one after the other and keeps its model warm.

    It listens on this machine only, and to this user only. Other commands start one when they need it; this one is for
    those who want to see it, to give it options, or to install it.
    """
    if sum((stop, show_osc, install, uninstall)) > 1:
        raise click.UsageError("--stop, --show-osc, --install and --uninstall exclude each other.")
    port = _port(osc_port)
    if stop:
        _stop(json_mode=json_mode)
    elif show_osc:
        _show_osc(json_mode=json_mode)
    elif uninstall:
        from revithion_bridge import service_install

        _print_service(service_install.uninstall(), json_mode=json_mode)
    elif install:
        _install(_arguments(root, port, idle_unload), json_mode=json_mode)
    else:
        _serve(_options(root, port, idle_unload), json_mode=json_mode)


def _port(text: str) -> int | None:
    if text.lower() == _NO_OSC:
        return None
    if text.isascii() and text.isdigit() and int(text) < 65_536:
        return int(text)
    raise click.BadParameter(f"{text!r} is not a port from 0 to 65535, nor {_NO_OSC!r}.", param_hint="'--osc-port'")


def _options(roots: tuple[Path, ...], port: int | None, idle_unload_s: float | None) -> DaemonOptions:
    from revithion_bridge.daemon import DaemonOptions

    more = {} if idle_unload_s is None else {"idle_unload_s": idle_unload_s}
    return DaemonOptions(roots=tuple(root.absolute() for root in roots), osc_port=port, **more)


def _arguments(roots: tuple[Path, ...], port: int | None, idle_unload_s: float | None) -> list[str]:
    """The same for ``python -m revithion_bridge.daemon``."""
    arguments = [f"--root={root.absolute()}" for root in roots]
    if port != 0:
        arguments.append(f"--osc-port={-1 if port is None else port}")
    if idle_unload_s is not None:
        arguments.append(f"--idle-unload={idle_unload_s:g}")
    return arguments


def _serve(options: DaemonOptions, *, json_mode: bool) -> None:
    from revithion_bridge.connection import daemon_folder
    from revithion_bridge.daemon import run_daemon

    def on_ready(connection: Connection) -> None:
        if json_mode:
            print_json({"type": "Serving", "pid": connection.pid, "folder": str(daemon_folder()), **_osc(connection)})
            return
        click.echo(f"serving {printable(connection.work)}, process {connection.pid}")
        if connection.osc_udp_port is not None:
            ports = f"UDP 127.0.0.1:{connection.osc_udp_port}, TCP 127.0.0.1:{connection.osc_tcp_port}"
            click.echo(f"OSC on {ports}; the token: revithion-stems serve --show-osc")
        click.echo(f"log and queue in {printable(str(daemon_folder()))}")
        click.echo("Ctrl-C, or `revithion-stems serve --stop`, ends it after the segment that runs")
        sys.stdout.flush()

    run_daemon(options, on_ready)
    if not json_mode:
        click.echo("ended; jobs that were not finished go on at the next start")


def _stop(*, json_mode: bool) -> None:
    if not end_daemon():
        from revithion_bridge.errors import bridge_error

        raise bridge_error("daemon.unreachable", "no daemon runs")
    if json_mode:
        print_json({"type": "Stopped"})
    else:
        click.echo("ended; jobs that were not finished go on at the next start")


def end_daemon() -> bool:
    """Ends the daemon that runs, and waits for its process; whether there was one.

    Raises:
        DaemonError: It answers, but does not end.
    """
    import psutil

    from revithion_bridge.cli.job_ids import open_client
    from revithion_bridge.errors import bridge_error
    from revithion_stems.errors import RevithionError

    try:
        client = open_client()
    except RevithionError as exc:
        if exc.code == "daemon.unreachable":
            return False
        raise
    with client:
        pid = client.status().pid
        client.shutdown()
    until = time.monotonic() + _STOP_S
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        # One that has ended is a zombie until whoever started it looks after it: no reason to wait.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > until:
                raise bridge_error("daemon.stopping", f"process {pid} has not ended after {_STOP_S:g} s")
            time.sleep(_POLL_S)
    return True


def _show_osc(*, json_mode: bool) -> None:
    from revithion_bridge.cli.job_ids import open_client
    from revithion_bridge.connection import read_connection
    from revithion_bridge.errors import bridge_error

    with open_client() as client:
        client.status()  # the file of a daemon that was killed would name dead ports
    connection = read_connection()
    if connection is None:
        raise bridge_error("daemon.unreachable", "no daemon runs")
    if json_mode:
        print_json({"type": "Osc", **_osc(connection), "token": connection.osc_token})
    elif connection.osc_udp_port is None:
        click.echo("the daemon runs without OSC")
    else:
        click.echo(f"udp    127.0.0.1:{connection.osc_udp_port}")
        click.echo(f"tcp    127.0.0.1:{connection.osc_tcp_port}")
        click.echo(f"token  {connection.osc_token}")


def _osc(connection: Connection) -> dict[str, int | None]:
    return {"osc_udp_port": connection.osc_udp_port, "osc_tcp_port": connection.osc_tcp_port}


def _install(arguments: list[str], *, json_mode: bool) -> None:
    from revithion_bridge import service_install

    end_daemon()  # the service takes over its queue
    command = [service_install.interpreter(), "-m", "revithion_bridge.daemon", *arguments]
    _print_service(service_install.install(command, service_install.kept_environment()), json_mode=json_mode)


def _print_service(report: ServiceReport, *, json_mode: bool) -> None:
    if json_mode:
        print_json({"type": "Service", **dataclasses.asdict(report), "path": str(report.path)})
        return
    click.echo(f"service {'installed' if report.installed else 'removed'}: {printable(str(report.path))}")
    if report.steps:
        click.echo("this is left to do:")
        for step in report.steps:
            click.echo(f"  {printable(step)}")
