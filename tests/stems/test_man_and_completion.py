"""Man pages and completion scripts: up to date, well-formed, in the wheel, and at work in real shells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from program import docs_script
from revithion_stems.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "man").glob("*"))
SCRIPTS = {shell: ROOT / "docs" / "completion" / f"revithion-stems.{shell}" for shell in ("bash", "zsh", "fish")}
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def program(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def test_the_files_are_those_of_the_commands_and_their_guide() -> None:
    made = docs_script("make_man").files()
    for name, content in made.items():
        assert (ROOT / name).read_bytes() == content.encode("utf-8"), f"{name}: run `python docs/make_man.py`"
    assert {*PAGES, *SCRIPTS.values()} == {ROOT / name for name in made}


# --- man pages ------------------------------------------------------------------------------------------------------


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {child}", c) for child, c in commands(command, click.Context(command)))
        yield name, command


def test_every_option_and_command_has_its_entry() -> None:
    for name, command in commands(cli, click.Context(cli)):
        page = (ROOT / "docs" / "man" / f"revithion-stems-{name.split()[0]}.1").read_text(encoding="ascii")
        if " " in name:
            page = page.split(f".SS {name}\n")[1].split("\n.S")[0]
        tags = "\n".join(re.findall(r"^\.TP\n(\\fB.*)", page, re.M))
        for option in (o for p in command.params if isinstance(p, click.Option) for o in p.opts):
            assert "\\fB" + option.replace("-", "\\-") + "\\fP" in tags, f"{name}: {option}"
    root = (ROOT / "docs" / "man" / "revithion-stems.1").read_text(encoding="ascii")
    assert re.findall(r"^\.BR revithion\\-stems\\-(\w+) \(1\)$", root, re.M)[: len(COMMANDS)] == list(COMMANDS)
    assert {"EXIT STATUS", "ENVIRONMENT", "FILES"} <= set(re.findall(r"^\.SH (.*)", root, re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_as_man_pages_are(page: Path) -> None:
    text = page.read_text(encoding="ascii")
    head = re.findall(r"^\.SH (.*)", text, re.M)
    assert head[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert head[-1] == "SEE ALSO"
    words = re.sub(r"\\fB.*?\\fP|^\.nf$.*?^\.fi$", "", text, flags=re.M | re.S)  # without code, which has its own
    for markdown in ("](", "**", "`", "\x08", "|-"):
        assert markdown not in words
    for meaning in re.findall(r"^\.TP\n.*\n(.*)", text, re.M):
        assert meaning
        assert not meaning.startswith(".")


@pytest.mark.parametrize(
    "lint",
    ["groff -ww -man -Tutf8 -z", "groff -ww -man -Tascii -z", "mandoc -T lint -W warning", "lexgrog"],
    ids=lambda lint: lint.split()[0] + ("-ascii" if "ascii" in lint else ""),
)
def test_the_formatters_have_nothing_against_them(lint: str) -> None:
    name, *arguments = lint.split()
    done = subprocess.run(
        [program(name), *arguments, *map(str, PAGES)], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if name == "lexgrog":  # how `whatis` and `apropos` will find them
        assert done.stdout.count(" - ") == len(PAGES)
        return
    found = [line for line in (done.stdout + done.stderr).splitlines() if "missing date" not in line]
    assert found == []  # they have no date: the same commands give the same pages


# --- the wheel ------------------------------------------------------------------------------------------------------


def test_the_wheel_installs_them_where_the_shells_and_man_look(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        shared = {
            name.partition(".data/data/")[2]: archive.read(name) for name in archive.namelist() if ".data/data/" in name
        }
    expected = {
        "share/bash-completion/completions/revithion-stems": SCRIPTS["bash"],
        "share/zsh/site-functions/_revithion-stems": SCRIPTS["zsh"],
        "share/fish/vendor_completions.d/revithion-stems.fish": SCRIPTS["fish"],
        **{f"share/man/man1/{page.name}": page for page in PAGES},
        **{f"share/revithion-stems/schemas/{path.name}": path for path in (ROOT / "docs" / "schemas").iterdir()},
    }
    assert shared == {name: path.read_bytes() for name, path in expected.items()}


# --- completion -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_what_the_command_prints_and_parse(shell: str) -> None:
    done = subprocess.run([program("revithion-stems"), "completion", shell], capture_output=True, check=True)
    assert done.stdout.replace(b"\r\n", b"\n") == SCRIPTS[shell].read_bytes()
    subprocess.run([program(shell), "-n", str(SCRIPTS[shell])], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with one song and one folder."""
    (tmp_path / "a song.wav").touch()
    (tmp_path / "packs").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", set(COMMANDS)),
        ("se", {"separate", "serve"}),
        ("models p", {"pull"}),
        ("separate --tw", {"--two-stems"}),
        ("separate --residual ", {"fold", "stem", "exact"}),
        ("separate -m htdemucs_", {"htdemucs_ft", "htdemucs_6s"}),
        ("models pull ds", {"dsp"}),
        ("completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes_words(words: str, expected: set[str], folder: Path) -> None:
    program("revithion-stems")
    ask = (
        'source "$0"; COMP_WORDS=(revithion-stems "$@"); COMP_CWORD=$#;'
        ' _revithion_stems_completion revithion-stems; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [program("bash"), "--norc", "-c", ask, str(SCRIPTS["bash"]), *words.split(" ")],
        cwd=folder,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("separate a\t", "separate a\\ song.wav "),
        ("compare packs a\t", "compare packs a\\ song.wav "),
        ("models pull dsp --pack \t", "--pack packs/"),
        ("separate --format fl\t", "--format flac "),
    ],
)
def test_bash_completes_what_is_typed(typed: str, shown: str, folder: Path) -> None:
    import pty
    import select

    program("revithion-stems")
    controller, terminal = pty.openpty()
    env = {**os.environ, "PATH": PATH, "TERM": "dumb", "PS1": "> ", "INPUTRC": os.devnull}
    with subprocess.Popen(
        [program("bash"), "--norc", "--noprofile", "-i"],
        cwd=folder,
        env=env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    ) as shell:
        os.close(terminal)
        os.write(controller, f"source '{SCRIPTS['bash']}'; echo re''ady\n".encode())
        seen, sent, until = "", False, time.monotonic() + 20
        while shown not in seen and time.monotonic() < until:
            if select.select([controller], [], [], 0.2)[0]:
                seen += os.read(controller, 4096).decode()
            if not sent and "ready" in seen:
                os.write(controller, f"revithion-stems {typed}".encode())
                sent = True
        shell.kill()
    os.close(controller)
    assert shown in seen
