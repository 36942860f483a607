"""The daemon as a service of the user: a systemd unit, a launchd agent, or a scheduled task of Windows.

Each system's file is made by a plain function, which runs anywhere; :func:`install` writes the one of this system and
calls its tool. Doing it twice is the same as once. One process at a time.

Sources: systemd.service(5), systemd.syntax(7), systemd.exec(5); launchd.plist(5), launchctl(1); Task Scheduler Schema
(MS-TSCH 2.5) and schtasks.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import plistlib
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from revithion_bridge.errors import bridge_error
from revithion_stems.config import APP_NAME
from revithion_stems.errors import DaemonError

LABEL = f"{APP_NAME}.daemon"
DESCRIPTION = "revithion-stems: separates music into stems"
_TOOL_S = 60.0
_TASK_NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_BASE_FOLDERS = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReport:
    """What was done.

    Attributes:
        installed: Whether the service is installed now.
        path: Its file.
        steps: Commands that are left to the user, because the system's tool is not there.
    """

    installed: bool
    path: Path
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """How a system does it.

    Attributes:
        path: Of the service's file.
        render: Command and environment → the file.
        start: Commands that make the system take up the file, also one that replaces another.
        stop: Commands that end the service; that there is none is no error.
        forget: Commands for when the file is gone.
    """

    path: Path
    render: Callable[[Sequence[str], Mapping[str, str]], bytes]
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    forget: tuple[tuple[str, ...], ...] = ()


def install(command: Sequence[str], env: Mapping[str, str]) -> ServiceReport:
    """Installs the service and starts it; replaces one that is there.

    Args:
        command: ``python -m MODULE ARGUMENT...``, the program by its whole path.
        env: Variables that it gets beside those that the system gives.

    Raises:
        DaemonError: ``daemon.service``: the file can't be written, or the system's tool refuses it.
    """
    system = _this_system()
    try:
        system.path.parent.mkdir(parents=True, exist_ok=True)
        system.path.write_bytes(system.render(command, env))
    except OSError as exc:
        raise bridge_error("daemon.service", f"can't write {system.path}: {exc.strerror or exc}") from exc
    if shutil.which(system.start[0][0]) is None:
        return ServiceReport(installed=True, path=system.path, steps=tuple(map(shlex.join, system.start)))
    for words in system.stop:
        if words[0] == "launchctl":  # it does not replace an agent that is loaded
            _call(words)
    for words in system.start:
        failure = _call(words)
        if failure is not None:
            raise bridge_error("daemon.service", f"{system.path} is written, but `{shlex.join(words)}` says: {failure}")
    return ServiceReport(installed=True, path=system.path)


def uninstall() -> ServiceReport:
    """Ends the service and removes its file; that there is none is no error.

    Raises:
        DaemonError: ``daemon.service``: the file can't be removed.
    """
    system = _this_system()
    steps: tuple[str, ...] = ()
    if shutil.which(system.start[0][0]) is None:
        steps = tuple(map(shlex.join, (*system.stop, *system.forget))) if system.path.exists() else ()
    else:
        for words in system.stop:
            _call(words)
    try:
        system.path.unlink(missing_ok=True)
    except OSError as exc:
        raise bridge_error("daemon.service", f"can't remove {system.path}: {exc.strerror or exc}") from exc
    if not steps and shutil.which(system.start[0][0]) is not None:
        for words in system.forget:
            _call(words)
    return ServiceReport(installed=False, path=system.path, steps=steps)


def status() -> ServiceReport:
    """Whether the service is installed, and where its file is."""
    path = _this_system().path
    return ServiceReport(installed=path.exists(), path=path)


def interpreter() -> str:
    """The Python that runs the service: this one; on Windows the one without a console window."""
    windowless = Path(sys.executable).with_name("pythonw.exe")
    return str(windowless) if sys.platform == "win32" and windowless.exists() else sys.executable


def kept_environment() -> dict[str, str]:
    """The variables of this process that say where its files are: the service must have the same folders."""
    return {name: value for name, value in os.environ.items() if name.startswith("REVITHION_") or name in _BASE_FOLDERS}


# --- systemd ---


def systemd_unit(command: Sequence[str], env: Mapping[str, str]) -> bytes:
    """A unit for the user's own systemd."""
    words = [_systemd_text(command[0]), *(_systemd_text(word, dollar="$$") for word in command[1:])]
    lines = [
        "[Unit]",
        f"Description={DESCRIPTION}",
        "",
        "[Service]",
        "Type=simple",
        f"ExecStart={' '.join(words)}",
        *(f"Environment={_systemd_text(f'{name}={value}')}" for name, value in sorted(env.items())),
        "Restart=on-failure",
        "RestartSec=2",
        "# What can't be done can't be done two seconds later: another daemon runs, or the queue is damaged.",
        f"RestartPreventExitStatus={DaemonError.exit_code}",
        "# Only the daemon gets the signal; it lets its workers finish their segment.",
        "KillMode=mixed",
        "TimeoutStopSec=90",
        "# Files stay open to it: music may be anywhere, and what it writes has the user's own permissions.",
        "NoNewPrivileges=yes",
        "LockPersonality=yes",
        "RestrictSUIDSGID=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _systemd_text(text: str, dollar: str = "$") -> str:
    """A word in double quotes; ``%`` begins a specifier, and ``$`` a variable in arguments, unless doubled."""
    escapes = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": dollar, "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def _systemd() -> _System:
    unit = f"{APP_NAME}.service"
    base = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    control = ("systemctl", "--user")
    return _System(
        path=folder / "systemd" / "user" / unit,
        render=systemd_unit,
        start=((*control, "daemon-reload"), (*control, "enable", unit), (*control, "restart", unit)),
        stop=((*control, "disable", "--now", unit),),
        forget=((*control, "daemon-reload"),),
    )


# --- launchd ---


def launch_agent(command: Sequence[str], env: Mapping[str, str]) -> bytes:
    """A property list for launchd; no ``ProcessType``, because a background process is slowed down."""
    return plistlib.dumps(
        {
            "Label": LABEL,
            "ProgramArguments": list(command),
            "EnvironmentVariables": dict(env),
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 10,
            "ExitTimeOut": 90,
        }
    )


def _launchd() -> _System:
    path = Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"
    user: int = getattr(os, "getuid", lambda: 0)()  # macOS has it
    return _System(
        path=path,
        render=launch_agent,
        start=(("launchctl", "bootstrap", f"gui/{user}", str(path)),),
        stop=(("launchctl", "bootout", f"gui/{user}/{LABEL}"),),
    )


# --- Windows ---


def scheduled_task(command: Sequence[str], env: Mapping[str, str]) -> bytes:
    """A task that starts at the user's log-on, for ``schtasks /XML``: UTF-16, which is what that writes itself."""
    ElementTree.register_namespace("", _TASK_NAMESPACE)
    domain = os.environ.get("USERDOMAIN", "")
    user = f"{domain}\\{getpass.getuser()}" if domain else getpass.getuser()
    words = _with_environment(command, env)
    task = _element("Task", version="1.2")
    _below(task, "RegistrationInfo", Description=DESCRIPTION)
    _below(_below(task, "Triggers"), "LogonTrigger", Enabled="true", UserId=user)
    principals = _below(task, "Principals")
    _below(principals, "Principal", UserId=user, LogonType="InteractiveToken", RunLevel="LeastPrivilege").set(
        "id", "user"
    )
    settings = _below(
        task,
        "Settings",
        MultipleInstancesPolicy="IgnoreNew",
        DisallowStartIfOnBatteries="false",
        StopIfGoingOnBatteries="false",
        ExecutionTimeLimit="PT0S",
        Priority="6",
    )
    _below(settings, "RestartOnFailure", Interval="PT1M", Count="3")
    actions = _below(task, "Actions")
    actions.set("Context", "user")
    _below(actions, "Exec", Command=words[0], Arguments=subprocess.list2cmdline(words[1:]))
    text = ElementTree.tostring(task, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-16"?>\n{text}\n'.encode("utf-16")


def _with_environment(command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """A task has no variables of its own: Python sets them before the module."""
    if not env:
        return list(command)
    python, dash_m, module, *arguments = command
    assert dash_m == "-m"
    code = (
        f"import os, runpy, sys; os.environ.update({dict(env)!r}); sys.argv[1:] = {arguments!r}; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [python, "-c", code]


def _element(tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.Element(f"{{{_TASK_NAMESPACE}}}{tag}", attributes)


def _below(parent: ElementTree.Element, tag: str, **texts: str) -> ElementTree.Element:
    """A new element at the end of ``parent``, with an element for each text."""
    element = _element(tag)
    parent.append(element)
    for name, text in texts.items():
        child = _element(name)
        child.text = text
        element.append(child)
    return element


def _task_scheduler() -> _System:
    path = platformdirs.user_data_path(APP_NAME) / "service" / f"{LABEL}.xml"
    return _System(
        path=path,
        render=scheduled_task,
        start=(
            ("schtasks", "/Create", "/TN", LABEL, "/XML", str(path), "/F"),
            ("schtasks", "/Run", "/TN", LABEL),
        ),
        stop=(("schtasks", "/End", "/TN", LABEL), ("schtasks", "/Delete", "/TN", LABEL, "/F")),
    )


# --- all ---


def _this_system() -> _System:
    if sys.platform == "win32":
        return _task_scheduler()
    return _launchd() if sys.platform == "darwin" else _systemd()


def _call(words: Sequence[str]) -> str | None:
    """Runs the system's tool; what it says against it, or None."""
    program = shutil.which(words[0])
    if program is None:
        return "there is no such program"
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TOOL_S,
            check=False,
        )
        if done.returncode == 0:
            return None
        return (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").replace("\n", " ")
    return f"no answer within {_TOOL_S:g} s"
