"""Writes the man pages and the completion scripts that the wheel installs: docs/man and docs/completion.

Commands, synopses, options, choices, defaults and examples come from click, and what they mean from ``docs/cli.md``.
Run ``python docs/make_man.py`` after a change of either; a test compares the files with it.

Source: groff_man(7), man-pages(7).
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from revithion_stems.cli.main import COMMANDS, cli
from revithion_stems.version import __version__

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "revithion-stems"
SHELLS = ("bash", "zsh", "fish")

_GUIDE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
_SECTIONS = dict(re.findall(r"^#{2,3} ([^\n]+)\n(.*?)(?=^#{1,3} |\Z)", _GUIDE, re.M | re.S))
_OPTION_ROW = re.compile(r"^\| (`-.+?) \| (?:.* \| )?(.+) \|$", re.M)
# What roff takes for an escape, or prints as a typographic quote, hyphen or accent.
_LITERAL = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"})


def files() -> dict[str, str]:
    """Path in the repository → content, of all man pages and completion scripts."""
    root = click.Context(cli, info_name=PROGRAM, **cli.context_settings)
    children = {str(child.info_name): child for child in _children(root)}
    summaries = {PROGRAM: _help(cli), **{f"{PROGRAM}-{name}": COMMANDS[name][1] for name in children}}
    made = {f"docs/completion/{PROGRAM}.{shell}": _completion(shell) for shell in SHELLS}
    for context in (root, *children.values()):
        name = context.command_path.replace(" ", "-")
        summary = summaries[name].rstrip(".")
        others = ",\n".join(f".BR {_literal(other)} (1)" for other in sorted(summaries) if other != name)
        page = (
            '.\\" Written by docs/make_man.py.\n'
            f'.TH {_literal(name.upper())} 1 "" "{PROGRAM} {__version__}" "User Commands"\n'
            f".SH NAME\n{_literal(name)} \\- {_text(summary[0].lower() + summary[1:])}\n"
            f".SH SYNOPSIS\n{_synopsis(context)}"
            f"{_overview(context) if context is root else _command(context)}"
            f".SH EXAMPLES\n{_listing(_examples(context))}"
            f".SH SEE ALSO\n{others}\n"
        )
        made[f"docs/man/{name}.1"] = re.sub(r"^(\.SH .+\n)\.PP\n", r"\1", page, flags=re.M)
    return made


def _completion(shell: str) -> str:
    return CliRunner().invoke(cli, ["completion", shell], catch_exceptions=False).stdout


def _children(context: click.Context) -> Iterator[click.Context]:
    assert isinstance(context.command, click.Group)
    for name in context.command.list_commands(context):
        command = context.command.get_command(context, name)
        assert command is not None
        yield click.Context(command, info_name=name, parent=context, **command.context_settings)


def _overview(context: click.Context) -> str:
    """The root's page: its commands, and the sections of docs/cli.md that are not about one command."""
    rows = "".join(f".TP\n.BR {_literal(f'{PROGRAM}-{name}')} (1)\n{_text(row[1])}\n" for name, row in COMMANDS.items())
    general = {title: body for title, body in _SECTIONS.items() if title.split()[0] not in COMMANDS}
    return (
        f".SH DESCRIPTION\n{_text(_help(context.command))}\n{_options(context, '.SH OPTIONS')}.SH COMMANDS\n{rows}"
        + "".join(f".SH {_text(title.upper())}\n{_prose(body)}" for title, body in general.items())
    )


def _command(context: click.Context) -> str:
    """A command's page; the commands of a group are sections of the group's page."""
    body = f".SH DESCRIPTION\n{_description(context)}{_options(context, '.SH OPTIONS')}"
    if isinstance(context.command, click.Group):
        body += ".SH COMMANDS\n"
        for child in _children(context):
            body += f".SS {_literal(_title(child))}\n{_synopsis(child)}{_description(child)}{_options(child)}"
    return body + f".SH EXIT STATUS\n{_prose(_SECTIONS['Exit status'])}"


def _synopsis(context: click.Context) -> str:
    words = " ".join(context.command.collect_usage_pieces(context))
    return f"\\fB{_literal(context.command_path)}\\fP {_literal(words)}\n"


def _title(context: click.Context) -> str:
    return context.command_path.removeprefix(f"{PROGRAM} ")


def _description(context: click.Context) -> str:
    """What docs/cli.md says of a command, but for its usage, options and examples: those come from click."""
    blocks = re.split(r"\n{2,}", _SECTIONS.get(_title(context), "").strip("\n"))
    from_click = [block.startswith("    ") or bool(_OPTION_ROW.search(block)) for block in blocks]
    headed = [block.startswith("**") and block.endswith("**") for block in blocks]
    kept = [
        block
        for n, block in enumerate(blocks)
        if not from_click[n] and not (headed[n] and any(from_click[n + 1 : n + 2]))
    ]
    if isinstance(context.command, click.Group) or not any(kept):
        kept.insert(0, _help(context.command))
    return _prose("\n\n".join(kept))


def _options(context: click.Context, heading: str = "") -> str:
    """The options as click has them, each with what docs/cli.md or else its own help says of it."""
    own = _OPTION_ROW.findall(_SECTIONS.get(_title(context), ""))
    anywhere = [row for body in _SECTIONS.values() for row in _OPTION_ROW.findall(body)]
    text = ""
    for option in context.command.get_params(context):
        if not isinstance(option, click.Option) or option.hidden:
            continue
        spelt = sorted((*option.opts, *option.secondary_opts), key=len)  # click gives those of --help in any order
        names = ", ".join(f"\\fB{_literal(name)}\\fP" for name in spelt)
        value = "" if option.is_flag else f" \\fI{_literal(option.make_metavar(context))}\\fP"
        named = re.compile(rf"`(?:[^`]* )?{re.escape(spelt[-1])}[ `]")
        meaning = next((row[1] for row in own if named.search(row[0])), option.help)
        meaning = meaning or next((row[1] for row in anywhere if named.search(row[0])), "")
        default = f" The default is `{option.default}`." if option.show_default else ""
        text += f".TP\n{names}{value}\n{_text(meaning + default)}\n"
    return f"{heading}\n{text}".lstrip("\n") if text else ""


def _prose(markdown: str) -> str:
    """Paragraphs, lists, tables, indented code and bold headings of Markdown as roff."""
    text = ""
    for block in re.split(r"\n{2,}", markdown.strip("\n")):
        if block.startswith("    "):
            text += _listing(block)
        elif block.startswith("|"):
            rows = [line.strip("| ").split(" | ") for line in block.splitlines() if not line.startswith("|--")]
            for cells in rows:
                text += f".TP\n{_text(cells[0])}\n{_text('; '.join(cells[1:]))}\n"
        elif block.startswith("- "):
            text += "".join(f".IP \\(bu 2\n{_text(item)}\n" for item in re.split(r"^- ", block, flags=re.M)[1:])
        else:
            text += f".PP\n{_text(block)}\n"
    return text


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _examples(context: click.Context) -> str:
    return (context.command.epilog or "").removeprefix("Examples:").replace("\b", "")


def _listing(code: str) -> str:
    lines = textwrap.dedent(code).strip("\n").splitlines()
    return "".join((".PP\n.RS 4\n.nf\n", *(f"{_literal(line)}\n" for line in lines), ".fi\n.RE\n"))


def _text(markdown: str) -> str:
    """Words of Markdown as roff, a sentence per line: code is bold, emphasis italic, a link its text."""
    words = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", " ".join(markdown.split()))
    parts = [
        f"\\fB{_literal(part[1:-1])}\\fP"
        if part.startswith("`")
        else f"\\fI{_ascii(part.strip('*'))}\\fP"
        if part.startswith("*")
        else _ascii(part.replace("\\", "\\e"))
        for part in re.split(r"(`[^`]+`|\*\*[^*]+\*\*|\*\w+\*)", words)
    ]
    return _no_control(re.sub(r"(?<=[.;]) ", "\n", "".join(parts).strip()))


def _literal(text: str) -> str:
    """``text`` to be printed, searched and copied as it is."""
    return _no_control(_ascii(text.translate(_LITERAL)))


def _ascii(text: str) -> str:
    """``text`` with what is not ASCII as roff's escapes, or in words where ASCII terminals have no likeness of it."""
    text = text.replace("…", "...").replace("∞", "infinity")
    return "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)


def _no_control(text: str) -> str:
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.M)


if __name__ == "__main__":
    for name, content in files().items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(content, encoding="utf-8", newline="\n")
