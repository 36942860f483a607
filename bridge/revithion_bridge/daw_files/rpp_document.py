"""REAPER's project text: blocks of lines, read and changed in single lines, so that all others stay byte for byte.

A block begins with a line ``<TAG ...`` and ends with a line ``>``; the lines between are words, quoted where needed, or
data of plug-ins. A line of text in it begins with ``|``, so that none is taken for a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_MOST_LEVELS = 100
_QUOTES = "\"'`"
_PLAIN = re.compile(r"[\w.:+{}/\\-]+")
# Control characters, ends of lines, and surrogates, but for those that stand for the bytes of a name that is not UTF-8.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udc7f\udd00-\udfff]")
_INDENT = "  "


@dataclass(slots=True, eq=False)
class Block:
    """A block, with its lines as they stand in the file.

    Attributes:
        head: Its first line.
        children: Lines and blocks between the first and the last line.
        tail: Its last line.
    """

    head: str
    children: list[str | Block] = field(default_factory=list)
    tail: str = ">\n"

    @property
    def tag(self) -> str:
        """The first word, without ``<``."""
        return split_words(self.head)[0][1:]

    def words(self, tag: str) -> list[str] | None:
        """The words after ``tag`` of the first line that begins with it, or None."""
        at = self._find(tag)
        return None if at is None else split_words(str(self.children[at]))[1:]

    def word(self, tag: str, default: str = "") -> str:
        """The first word after ``tag``."""
        return next(iter(self.words(tag) or []), default)

    def set_words(self, tag: str, words: Sequence[str]) -> None:
        """Makes that line say ``words``, which are quoted where needed; a new line comes first in the block."""
        at = self._find(tag)
        if at is None:
            self.children.insert(0, self.line(tag, words))
        else:
            self.children[at] = self.line(tag, words)

    def blocks(self, tag: str) -> list[Block]:
        """The blocks in it with that tag, without those inside them."""
        return [child for child in self.children if isinstance(child, Block) and child.tag == tag]

    def line(self, tag: str, words: Sequence[str]) -> str:
        """A line as it stands in this block."""
        indent = self.head[: len(self.head) - len(self.head.lstrip())] + _INDENT
        return indent + " ".join([tag, *map(quoted, words)]) + self._newline

    def add_block(self, tag: str, words: Sequence[str] = (), at: int | None = None) -> Block:
        """A new, empty block in it, at an index of ``children`` or at the end."""
        head = self.line("<" + tag, words)
        block = Block(head=head, tail=head[: head.index("<")] + ">" + self._newline)
        self.children.insert(len(self.children) if at is None else at, block)
        return block

    def text(self) -> Iterator[str]:
        """All of its lines."""
        yield self.head
        for child in self.children:
            if isinstance(child, Block):
                yield from child.text()
            else:
                yield child
        yield self.tail

    @property
    def _newline(self) -> str:
        return "\r\n" if self.head.endswith("\r\n") else "\n"

    def _find(self, tag: str) -> int | None:
        return next((at for at, child in enumerate(self.children) if line_tag(child) == tag), None)


@dataclass(slots=True, eq=False)
class Document:
    """A project: one block, and what stands before and after it (nothing, but for empty lines)."""

    before: str
    root: Block
    after: str

    def encode(self) -> bytes:
        """The bytes of the file."""
        return (self.before + "".join(self.root.text()) + self.after).encode("utf-8", "surrogateescape")


def parse_document(data: bytes) -> Document:
    """Reads a project.

    Raises:
        ValueError: It is none; the message says why.
    """
    # What is not UTF-8 (old projects) comes out of `encode` as it was. Other characters that end lines are in names.
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    lines = [line + "\n" for line in lines[:-1]] + lines[-1:]
    outside: list[list[str]] = [[], []]
    root: Block | None = None
    open_blocks: list[Block] = []
    for number, line in enumerate(lines, start=1):
        bare = line.strip(" \t\r\n")
        if bare.startswith("<"):
            block = Block(head=line)
            if open_blocks:
                open_blocks[-1].children.append(block)
            elif root is None and bare.split(maxsplit=1)[0] == "<REAPER_PROJECT":
                root = block
            else:
                raise ValueError(f"line {number} is not of one REAPER project")
            open_blocks.append(block)
            if len(open_blocks) > _MOST_LEVELS:
                raise ValueError(f"line {number}: more than {_MOST_LEVELS} levels")
        elif bare == ">" and open_blocks:
            open_blocks.pop().tail = line
        elif open_blocks:
            open_blocks[-1].children.append(line)
        elif bare.lstrip("\ufeff"):
            raise ValueError(f"line {number} is outside of the project")
        else:
            outside[root is not None].append(line)
    if root is None or open_blocks:
        raise ValueError("it ends early" if root else "it is no REAPER project")
    return Document(before="".join(outside[0]), root=root, after="".join(outside[1]))


def line_tag(child: str | Block) -> str:
    """The first word of a line; empty for a line without words, and for a block."""
    return next(iter(child.split(maxsplit=1)), "") if isinstance(child, str) else ""


def split_words(line: str) -> list[str]:
    """The words of a line, without their quotes."""
    words: list[str] = []
    rest = line.strip()
    while rest:
        if rest[0] in _QUOTES:
            word, _, rest = rest[1:].partition(rest[0])
        else:
            word, *left = rest.split(maxsplit=1)
            rest = left[0] if left else ""
        words.append(word)
        rest = rest.lstrip()
    return words


def quoted(word: str) -> str:
    """A word as REAPER writes it: in the first kind of quotes that it does not hold itself.

    The format has no way to write a word that holds all three: its backticks become apostrophes. Line breaks, of which
    it has none, and other control characters become spaces.
    """
    word = _UNWRITABLE.sub(" ", word)
    if _PLAIN.fullmatch(word):
        return word
    for quote in _QUOTES:
        if quote not in word:
            return quote + word + quote
    return "`" + word.replace("`", "'") + "`"
