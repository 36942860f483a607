"""Whether our scripts are in a DAW as they should be, and whether the way from there to the daemon and back works."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from revithion_bridge.client import connect
from revithion_bridge.daw.mailbox import mailbox_folder, make_mailbox_folder, open_sessions, send_command
from revithion_bridge.daw_install.ardour_install import install_ardour, uninstall_ardour
from revithion_bridge.daw_install.install_receipt import installed_version
from revithion_bridge.daw_install.programs import DawFolder
from revithion_bridge.daw_install.reaper_install import install_reaper, uninstall_reaper
from revithion_bridge.daw_install.script_install import InstallReport, RegisteredAction
from revithion_bridge.errors import bridge_error
from revithion_bridge.remote_separation import CLIENT
from revithion_stems.errors import RevithionError

_ANSWER_S = 10.0
_NOBODY = "revithion-stems-test"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptState:
    """How the scripts in a DAW's folder are.

    Attributes:
        installed: Their version, ``?`` if that can't be told; None if there are none.
        current: Whether an install by this version would change nothing.
        problem: What it would change, or why it can't.
        actions: Of ours that the DAW knows.
        steps: What is left to the user.
    """

    installed: str | None
    current: bool = False
    problem: str = ""
    actions: tuple[RegisteredAction, ...] = ()
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: Of what was checked.
        text: What is so, or what is wrong.
        error: If something is.
    """

    name: str
    text: str
    error: RevithionError | None = None


def install_scripts(
    found: DawFolder, *, startup: bool = True, new_menus: bool = False, dry_run: bool = False
) -> InstallReport:
    """Puts our scripts into a DAW's folder; see the DAW's own function.

    Raises:
        RevithionError: ``daw.install``.
    """
    if found.daw == "ardour":
        return install_ardour(found.path, dry_run=dry_run)
    return install_reaper(found.path, startup=startup, new_menus=new_menus, dry_run=dry_run)


def uninstall_scripts(found: DawFolder, *, dry_run: bool = False) -> InstallReport:
    """Takes our scripts out of a DAW's folder.

    Raises:
        RevithionError: ``daw.install``.
    """
    uninstall = uninstall_ardour if found.daw == "ardour" else uninstall_reaper
    return uninstall(found.path, dry_run=dry_run)


def script_state(found: DawFolder) -> ScriptState:
    """How our scripts in a DAW's folder are. A REAPER without the listener at its start is as it should be, too."""
    try:
        installed = installed_version(found.path)
        if installed is None:
            return ScriptState(installed=None)
        reports = [install_scripts(found, startup=startup, dry_run=True) for startup in (True, False)]
    except RevithionError as exc:
        return ScriptState(installed="?", problem=exc.message)
    report = min(reports, key=lambda report: len(report.changes))
    return ScriptState(
        installed=installed,
        current=not report.changes,
        problem=", ".join(f"{change.path.name} would be {change.word}" for change in report.changes),
        actions=report.actions,
        steps=report.steps,
    )


def check_way(daw: str, folders: Sequence[DawFolder]) -> list[CheckResult]:
    """Checks files, actions, mailbox, daemon and open sessions. Starts the daemon if none runs.

    Args:
        daw: Whose sessions are asked.
        folders: Where the scripts should be.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        (f"scripts in {found.path}", lambda found=found: _check_scripts(found)) for found in folders
    ]
    checks += [("mailbox", _check_mailbox), ("daemon", _check_daemon), ("session", lambda: _check_sessions(daw))]
    results: list[CheckResult] = []
    for name, check in checks:
        try:
            results.append(CheckResult(name=name, text=check()))
        except RevithionError as exc:
            results.append(CheckResult(name=name, text=exc.message, error=exc))
    return results


def _check_scripts(found: DawFolder) -> str:
    state, again = script_state(found), f"run `revithion-stems daw install {found.daw}`"
    if state.installed is None:
        raise bridge_error("daw.install", f"not installed; {again}")
    if not state.current:
        raise bridge_error("daw.install", f"{state.problem}; {again}")
    actions = ", ".join(f"{action.name} ({action.command})" for action in state.actions)
    return "; ".join([f"as they should be: {actions or 'no action is registered'}", *state.steps])


def _check_mailbox() -> str:
    try:
        probe = make_mailbox_folder() / "test.part"
        probe.write_bytes(b"{}")
        probe.unlink()
    except OSError as exc:
        raise bridge_error("daw.install", f"can't write into {mailbox_folder()}: {exc.strerror or exc}") from exc
    return f"{mailbox_folder()} can be written"


def _check_daemon() -> str:
    with connect(client=CLIENT, start=True) as client:
        started = time.perf_counter()
        version = client.status().version
        return f"version {version} answers in {(time.perf_counter() - started) * 1000:.1f} ms"


def _check_sessions(daw: str) -> str:
    found: list[str] = []
    for box, session in open_sessions(daw).items():
        started = time.perf_counter()
        # A fader that nobody has: the script answers, and nothing changes.
        send_command(
            box, "fader", timeout_s=_ANSWER_S, identity=_NOBODY, role="bus", key=_NOBODY, gain_db=None, muted=None
        )
        found.append(f"{session.name!r} answers in {(time.perf_counter() - started) * 1000:.0f} ms")
    return ", ".join(found) or "none is open; open one and test again to see the whole way"
