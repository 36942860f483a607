"""Ardour with its windows on a screen of its own, without a sound card, driven over OSC."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
import soundfile
from pythonosc.osc_message_builder import OscMessageBuilder

from ardour_export import agreed_export
from revithion_bridge.daw.mailbox import OpenSession, open_sessions
from revithion_bridge.daw_install.ardour_install import install_ardour

PROGRAMS = ("ardour", "ardour7-new_session", "ardour7-export", "Xvfb")
START_S = 120.0
"""Now and then, `ardour7-export` writes single samples of 1e37 at the begin of its blocks, and not the next time."""

# A user's own script in the first slot: it does what the file says, as a user's hand would.
USER_ACTION = """ardour { ["type"] = "EditorAction", name = "By hand", author = "a user", description = "" }
function factory () return function ()
	assert (loadfile (ARDOUR.user_config_directory (-1) .. "/by_hand.lua")) ()
	Session:save_state ("", false, false, false, false, false)
end end
"""

_BRING_IN = """
local files = C.StringVector ()
for _, path in ipairs ({ %s }) do files:push_back (path) end
Editor:do_import (files, Editing.ImportDistinctFiles, Editing.ImportAsTrack, ARDOUR.SrcQuality.SrcBest,
	ARDOUR.MidiTrackNameSource.SMFTrackName, ARDOUR.MidiTempoMapDisposition.SMFTempoIgnore,
	Temporal.timepos_t (%d), ARDOUR.PluginInfo (), ARDOUR.Track (), false)
"""

_CONFIG = """<?xml version="1.0" encoding="UTF-8"?>
<Ardour>
  <Config>
    <Option name="try-autostart-engine" value="1"/>
    <Option name="hide-dummy-backend" value="0"/>
    <Option name="copy-demo-sessions" value="0"/>
    <Option name="osc-port" value="{port}"/>
    <Option name="discover-plugins-on-start" value="0"/>
  </Config>
  <Extra>
    <AudioMIDISetup>
      <EngineStates>
        <State backend="None (Dummy)" driver="Normal Speed" device="Silence" input-device="" output-device=""
          sample-rate="{rate}" buffer-size="1024" n-periods="0" input-latency="0" output-latency="0" lm-input=""
          lm-output="" active="1" use-buffered-io="0" midi-option="1 in, 1 out, Silence" lru="{now}">
          <MIDIDevices/>
        </State>
      </EngineStates>
    </AudioMIDISetup>
  </Extra>
  <ControlProtocols>
    <Protocol name="Open Sound Control (OSC)" feedback="0" debugmode="0" address-only="0" remote-port="8000"
      banksize="0" striptypes="31" gainmode="0" send-page-size="0" plug-page-size="0" active="1"/>
  </ControlProtocols>
</Ardour>
"""


_WRAPPED = "local function ardour(t) end\n{source}\nreturn factory(...)"


def _quoted(text: str) -> str:
    """As Lua's ``%q`` writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\\n") + '"'


def require_ardour() -> None:
    """Skips the test where Ardour is not installed; in CI it has to be."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert not missing, f"CI needs {missing}"


def wait_until(happened: Callable[[], object], timeout_s: float, what: str) -> None:
    """Waits, and fails with ``what`` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"after {timeout_s:g} s: {what}"
        time.sleep(0.05)


class ArdourHome:
    """Ardour's settings for tests: no dialogs at the start, no sound card, OSC, and our scripts installed as users do.

    Args:
        folder: A home for Ardour, made if needed.
        rate: Of the audio engine, Hz.
    """

    def __init__(self, folder: Path, rate: int = 44_100) -> None:
        require_ardour()
        self.folder = folder
        self.config = folder / ".config" / "ardour7"
        self.config.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.osc_port: int = probe.getsockname()[1]
        (self.config / ".a7").touch()
        text = _CONFIG.format(port=self.osc_port, rate=rate, now=int(time.time()))
        (self.config / "config").write_text(text, encoding="utf-8")
        self.rate = rate
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "REVITHION_"))},
            "HOME": str(folder),
            "NO_AT_BRIDGE": "1",
        }
        self.commands: dict[str, str] = {}

    def install(self) -> None:
        """Our scripts, beside one of the user's own in the first slot."""
        source, wrapped = _quoted(USER_ACTION), _quoted(_WRAPPED.replace("{source}", USER_ACTION))
        state = (
            f'scripts = {{}} scripts[1] = {{}} scripts[1]["n"] = "By hand" scripts[1]["s"] = {source} '
            f'scripts[1]["f"] = {wrapped} scripts[1]["c"] = "" scripts[1]["a"] = {{}} '
        )
        coded = base64.b64encode(state.encode()).decode()
        text = f'<UIScripts>\n  <ActionScript lua="Lua 5.3">{coded}</ActionScript>\n  <ActionHooks/>\n</UIScripts>\n'
        (self.config / "ui_scripts").write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}', encoding="utf-8")
        report = install_ardour(self.config)
        self.commands = {"By hand": "LuaAction/script-1", **{action.name: action.command for action in report.actions}}

    def new_session(self, folder: Path) -> Path:
        """An empty session with a master bus."""
        command = ["ardour7-new_session", "-s", str(self.rate), str(folder), folder.name]
        subprocess.run(command, env=self.env, check=True, capture_output=True, timeout=60)
        assert (folder / f"{folder.name}.ardour").is_file()
        return folder

    def export(self, session: Path, target: Path) -> Path:
        """The master of a session as 32-bit float WAV. Judged by the file: the program may crash when it ends."""
        command = ["ardour7-export", "-b", "float", "-o", str(target), str(session), session.name]

        def export() -> np.ndarray | None:
            target.unlink(missing_ok=True)
            done = subprocess.run(command, env=self.env, capture_output=True, timeout=120)
            print(done.stdout.decode(errors="replace")[-500:], done.stderr.decode(errors="replace")[-500:])
            return soundfile.read(target, dtype="float32")[0] if target.is_file() else None

        agreed_export(export)
        return target


class ArdourDesktop:
    """Ardour with a session open; also a context manager, which ends it.

    Args:
        home: Its settings.
        session: The session's folder.
    """

    def __init__(self, home: ArdourHome, session: Path) -> None:
        self.home = home
        self.session = session
        self._processes: list[subprocess.Popen[bytes]] = []
        self._display = ""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def _start(self) -> None:
        reading, writing = os.pipe()
        screen = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1500x940x24", "-nolisten", "tcp"]
        self._run(screen, {}, pass_fds=[writing])
        os.close(writing)
        with os.fdopen(reading) as answer:
            self._display = f":{answer.readline().strip()}"
        if shutil.which("openbox"):
            self._run(["openbox"], {"DISPLAY": self._display})
        command = ["ardour", "--no-splash", "--no-announcements", str(self.session)]
        self._run(command, {"DISPLAY": self._display})
        wait_until(self.announced, START_S, f"Ardour is not up: {self.log()[-2000:]}")

    def _run(self, command: list[str], env: dict[str, str], pass_fds: list[int] | None = None) -> None:
        with (self.home.folder / f"{command[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**self.home.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds or (),
                start_new_session=True,
            )
        self._processes.append(process)

    def _end(self) -> None:
        for process in reversed(self._processes):
            # Ardour is started by a shell script: its group is ended, and it has saved what matters before.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        self._processes.clear()
        for file in self._session_files():
            file.unlink(missing_ok=True)

    def _session_files(self) -> list[Path]:
        from revithion_bridge.daw.mailbox import list_files

        return [file.path for file in list_files("session")]

    def log(self) -> str:
        """What Ardour printed."""
        return (self.home.folder / "ardour.log").read_text(errors="replace")

    def announced(self) -> OpenSession | None:
        """The session as our script in Ardour announces it; None while it does not."""
        path = str(self.session)
        return next((session for session in open_sessions("ardour").values() if session.path == path), None)

    def osc(self, address: str, *arguments: str | float) -> None:
        """Sends a message to Ardour's own OSC surface."""
        message = OscMessageBuilder(address)
        for argument in arguments:
            message.add_arg(argument)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.sendto(message.build().dgram, ("127.0.0.1", self.home.osc_port))

    def action(self, name: str) -> None:
        """Does what a menu entry or a key would do; also our own actions, by their names."""
        self.osc("/access_action", self.home.commands.get(name, name))

    def by_hand(self, script: str) -> None:
        """Does in Ardour what a Lua script says, and saves."""
        file = self.session / f"{self.session.name}.ardour"
        before = file.stat().st_mtime_ns
        (self.home.config / "by_hand.lua").write_text(script, encoding="utf-8")
        self.action("By hand")
        wait_until(lambda: file.stat().st_mtime_ns != before, 30, f"not done: {script}; {self.log()[-500:]}")

    def bring_in(self, *files: Path, position: int = 0) -> None:
        """Imports files onto new tracks, as dragging them in does."""
        self.by_hand(_BRING_IN % (", ".join(_quoted(str(file)) for file in files), position))

    def select(self, strip: int) -> None:
        """Selects a track or bus by its number, 1 the first in the mixer."""
        self.osc("/strip/select", strip, 0)  # what counts as selected already is not selected again
        self.osc("/strip/select", strip, 1)
        time.sleep(0.3)

    def save(self) -> str:
        """Saves the session; its text."""
        file = self.session / f"{self.session.name}.ardour"
        before = file.stat().st_mtime_ns
        self.action("Common/Save")
        wait_until(lambda: file.stat().st_mtime_ns != before, 20, "the session was not saved")
        return self.text()

    def quiet_copy(self, folder: Path) -> None:
        """A copy of the session as it is on the disk now."""
        shutil.copytree(self.session, folder / self.session.name)

    def text(self) -> str:
        """The session's file as it is now."""
        return (self.session / f"{self.session.name}.ardour").read_text(encoding="utf-8")

    def windows(self) -> list[str]:
        """Titles of the windows that are open."""
        done = subprocess.run(
            ["wmctrl", "-l"], env={**self.home.env, "DISPLAY": self._display}, capture_output=True, timeout=20
        )
        return [line.split(maxsplit=3)[-1] for line in done.stdout.decode(errors="replace").splitlines()]

    def close_window(self, title: str) -> None:
        """As a click on the window's closing button."""
        env = {**self.home.env, "DISPLAY": self._display}
        subprocess.run(["wmctrl", "-c", title], env=env, check=True, timeout=20)

    def key(self, title: str, key: str) -> None:
        """Presses a key in a window."""
        env = {**self.home.env, "DISPLAY": self._display}
        command = ["xdotool", "search", "--name", f"^{title}$", "windowactivate", "--sync", "key", key]
        subprocess.run(command, env=env, check=True, timeout=20)

    def screenshot(self, path: Path) -> None:
        """A picture of the screen, maximised."""
        env = {**self.home.env, "DISPLAY": self._display}
        title = f"{self.session.name} - Ardour"
        subprocess.run(["wmctrl", "-r", title, "-b", "add,maximized_vert,maximized_horz"], env=env, timeout=20)
        time.sleep(1.0)
        subprocess.run(["import", "-window", "root", str(path)], env=env, check=True, timeout=20)
