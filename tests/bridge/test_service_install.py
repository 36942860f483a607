"""The daemon as a service: files that the systems' own parsers take, tools that are called, and nothing left behind."""

from __future__ import annotations

import json
import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program import environment, lines, run
from revithion_bridge.service_install import launch_agent, scheduled_task, systemd_unit

HOSTILE = [
    "/with space/ä 🎵",
    "quote \"double\" and 'single'",
    "100%h %% $HOME $$ ${X}",
    "back\\slash\\",
    "tab\tline\nend",
]
COMMAND = [sys.executable, "-m", "revithion_bridge.daemon", *(f"--root={text}" for text in HOSTILE)]
ENV = {f"REVITHION_TEST_{n}": text for n, text in enumerate(HOSTILE)}
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd")

# XML 1.0 has no other control characters, and no surrogates.
TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="￾￿"), min_size=1)


# --- the files ---


def systemd_words(line: str) -> list[str]:
    """The words of an ``ExecStart=``, by the rules of systemd.syntax(7): quotes, escapes, specifiers."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"', line, re.S)
    assert " ".join(f'"{word}"' for word in found) == line
    escapes = {"\\\\": "\\", '\\"': '"', "\\n": "\n", "\\t": "\t", "\\r": "\r"}
    plain = [re.sub(r"\\.", lambda escape: escapes[escape[0]], word) for word in found]
    for word in plain:
        assert "%" not in word.replace("%%", "")
    return [word.replace("%%", "%") for word in plain]


@given(st.lists(TEXTS), st.dictionaries(st.from_regex(r"REVITHION_[A-Z]+", fullmatch=True), TEXTS))
def test_a_unit_has_the_words_that_went_in(words: list[str], env: dict[str, str]) -> None:
    text = systemd_unit([*COMMAND, *words], env).decode()
    settings = [line.partition("=")[::2] for line in text.split("\n") if "=" in line and not line.startswith("#")]
    (line,) = [value for name, value in settings if name == "ExecStart"]
    read = systemd_words(line)
    for word in read[1:]:
        assert "$" not in word.replace("$$", "")
    assert [read[0], *(word.replace("$$", "$") for word in read[1:])] == [*COMMAND, *words]
    variables = [systemd_words(value)[0].split("=", 1) for name, value in settings if name == "Environment"]
    assert dict(variables) == env


@linux_only
def test_systemd_takes_the_unit_and_reads_the_same(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "revithion-stems.service"
    unit.write_bytes(systemd_unit(COMMAND, ENV))
    (tmp_path / "run").mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run"), "SYSTEMD_LOG_LEVEL": "info"}
    done = subprocess.run(
        [analyze, "--user", "verify", str(unit)], capture_output=True, text=True, env=env, check=False, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if "revithion-stems.service" in line]
    if not said and done.returncode:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.strip()[:200]}")
    assert said == []

    unit.write_bytes(systemd_unit(COMMAND, ENV).replace(b"Type=simple", b"Type=sinple"))
    done = subprocess.run(
        [analyze, "--user", "verify", str(unit)], capture_output=True, text=True, env=env, check=False, timeout=60
    )
    assert "sinple" in done.stderr, "it finds mistakes"


@given(st.lists(TEXTS), st.dictionaries(TEXTS, TEXTS))
def test_a_launch_agent_has_the_words_that_went_in(words: list[str], env: dict[str, str]) -> None:
    agent = plistlib.loads(launch_agent([*COMMAND, *words], env))
    assert agent["ProgramArguments"] == [*COMMAND, *words]
    assert agent["EnvironmentVariables"] == env
    assert agent["KeepAlive"] == {"SuccessfulExit": False}


def test_a_task_starts_the_same_with_the_same_variables(tmp_path: Path) -> None:
    """Windows hands the words to Python as its C library splits them; here they are split by a small copy of that."""
    (tmp_path / "told.py").write_text(
        "import json, os, sys\n"
        "env = {k: v for k, v in os.environ.items() if k.startswith('REVITHION_TEST_')}\n"
        "print(json.dumps([sys.argv[1:], env]))\n"
    )
    words = ["--root=C:\\my music\\", 'say "hi"', "ä 🎵", "100%"]
    for env in ({}, {"REVITHION_TEST_A": 'C:\\a b\\"c"\n', "REVITHION_TEST_B": "ü"}):
        task = ElementTree.fromstring(scheduled_task([sys.executable, "-m", "told", *words], env).decode("utf-16"))
        assert task.tag == f"{TASK}Task"
        assert [child.tag.removeprefix(TASK) for child in task] == [
            "RegistrationInfo", "Triggers", "Principals", "Settings", "Actions",
        ]  # fmt: skip
        command = task.findtext(f".//{TASK}Exec/{TASK}Command")
        arguments = task.findtext(f".//{TASK}Exec/{TASK}Arguments")
        assert command is not None
        assert arguments is not None
        done = subprocess.run(
            [command, *windows_words(arguments)],
            env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=60,
        )
        assert json.loads(done.stdout) == [words, env]


def windows_words(line: str) -> list[str]:
    """As ``CommandLineToArgvW`` splits: backslashes count only before a quote."""
    words: list[str] = []
    word, quoted, begun = "", False, False
    for slashes, other in re.findall(r"(\\*)([^\\]|$)", line, re.S):
        if other == '"':
            word += "\\" * (len(slashes) // 2)
            begun = True
            if len(slashes) % 2:
                word += '"'
            else:
                quoted = not quoted
            continue
        word += slashes
        begun = begun or bool(slashes)
        if other in (" ", "\t", "") and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word += other
            begun = True
    return words


def test_the_task_is_what_schtasks_reads() -> None:
    content = scheduled_task(COMMAND, ENV)
    assert content.startswith((b"\xff\xfe", b"\xfe\xff"))
    assert content.decode("utf-16").startswith('<?xml version="1.0" encoding="UTF-16"?>')
    task = ElementTree.fromstring(content.decode("utf-16"))
    for setting, value in (("ExecutionTimeLimit", "PT0S"), ("MultipleInstancesPolicy", "IgnoreNew")):
        assert task.findtext(f"{TASK}Settings/{TASK}{setting}") == value
    assert task.find(f"{TASK}Triggers/{TASK}LogonTrigger") is not None


# --- through the command, with the system's tool at the boundary ---


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def fake_systemctl(place: Path, status: int = 0) -> tuple[dict[str, str], Path]:
    """A folder with a ``systemctl`` that writes down how it is called; what to put into the environment."""
    folder = place.parent / "bin"
    folder.mkdir(exist_ok=True)
    record = folder / "calls"
    script = folder / "systemctl"
    script.write_text(
        f'#!/bin/sh\necho "$*" >> {shlex.quote(str(record))}\n[ {status} = 0 ] || echo "no bus" >&2\nexit {status}\n'
    )
    script.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"}, record


def files_of(place: Path) -> set[str]:
    home = place.parent / "home"
    return {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() and "systemd" in path.parts}


UNIT = ".config/systemd/user/revithion-stems.service"


@linux_only
def test_install_twice_and_uninstall_twice(place: Path) -> None:
    path, calls = fake_systemctl(place)
    args = ("serve", "--install", "--root", "music of 100%", "--osc-port", "off", "--idle-unload", "60")
    texts = []
    for _ in range(2):
        done = run(place, *args, **path)
        assert (done.returncode, done.stderr) == (0, "")
        assert UNIT in done.stdout
        assert files_of(place) == {UNIT}
        texts.append((place.parent / "home" / UNIT).read_text())
    assert texts[0] == texts[1]
    assert systemd_words(re.findall(r"^ExecStart=(.*)$", texts[0], re.M)[0]) == [
        sys.executable, "-m", "revithion_bridge.daemon",
        f"--root={place}/music of 100%", "--osc-port=-1", "--idle-unload=60",
    ]  # fmt: skip
    variables = dict(systemd_words(v)[0].split("=", 1) for v in re.findall(r"^Environment=(.*)$", texts[0], re.M))
    asked = environment(place)
    assert variables == {name: value for name, value in asked.items() if name.startswith("REVITHION_")}
    unit = "revithion-stems.service"
    installing = ["--user daemon-reload", f"--user enable {unit}", f"--user restart {unit}"]
    assert calls.read_text().splitlines() == installing * 2

    calls.unlink()
    for _ in range(2):
        done = run(place, "serve", "--uninstall", "--json", **path)
        (report,) = lines(done.stdout)
        assert (done.returncode, report["type"], report["installed"]) == (0, "Service", False)
        assert files_of(place) == set()
    assert calls.read_text().splitlines() == [f"--user disable --now {unit}", "--user daemon-reload"] * 2


@linux_only
def test_without_the_tool_it_says_what_to_do(place: Path) -> None:
    (place.parent / "empty").mkdir()
    path = {"PATH": str(place.parent / "empty")}
    done = run(place, "serve", "--install", **path)
    assert done.returncode == 0
    assert files_of(place) == {UNIT}
    assert "systemctl --user enable revithion-stems.service" in done.stdout
    done = run(place, "serve", "--uninstall", **path)
    assert "systemctl --user disable --now revithion-stems.service" in done.stdout
    assert files_of(place) == set()


@linux_only
def test_what_the_tool_says_is_told(place: Path) -> None:
    path, _ = fake_systemctl(place, status=1)
    (error,) = lines(run(place, "serve", "--install", "--json", **path).stdout)
    assert error["code"] == "daemon.service"
    assert "no bus" in error["message"]
    assert UNIT in error["message"]
    assert run(place, "serve", "--uninstall", **path).returncode == 0
    assert files_of(place) == set()


@linux_only
def test_a_folder_that_can_not_be_written_is_an_error(place: Path) -> None:
    path, _ = fake_systemctl(place)
    environment(place)
    (place.parent / "home" / ".config").write_text("no folder")
    done = run(place, "serve", "--install", **path)
    assert done.returncode == 7
    assert "can't write" in done.stderr
