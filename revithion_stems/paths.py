"""Names of output files: text made safe for any file system, templates, and the folder they can't leave.

:func:`safe_component` and :func:`render_template` are pure; :func:`jailed` looks at the file system. Any thread.
Different texts can become the same name (``a:b`` and ``a?b`` both give ``a_b``): whoever writes files must check.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from revithion_stems.errors import OutputError, RequestError

MAX_COMPONENT_BYTES = 200
"""File systems take 255 bytes (or UTF-16 units); the rest is room for a temporary prefix and suffix while writing."""

UNTITLED = "untitled"

# Forbidden by Windows, separators on any system, and what a terminal or a line-based tool would act upon: control
# characters, line and paragraph separators, the marks that reverse the direction of text (gpj.exe), and surrogates,
# which stand for bytes of a file name that were not UTF-8 and can't be encoded. Joiners stay: emoji need them.
_ILLEGAL = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')
# Device names on Windows, in any case and with any extension; the superscript digits count there.
_RESERVED = re.compile(r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])\s*(?:\.|$)", re.IGNORECASE)


def safe_component(text: str) -> str:
    """``text`` as one path component that is valid on Linux, macOS and Windows.

    The text is brought to NFC; separators, control characters and what Windows forbids become ``_``; white space and
    dots at both ends and hyphens at the start go; names of Windows devices get a ``_`` in front; what is longer than
    ``MAX_COMPONENT_BYTES`` in UTF-8 is cut between two characters. Letters of any script and emoji stay.
    Applying it twice is the same as once.

    Args:
        text: Any text, hostile or empty.

    Returns:
        1 to ``MAX_COMPONENT_BYTES`` bytes in UTF-8; ``untitled`` where nothing else is left.
    """
    name = _trim(_ILLEGAL.sub("_", unicodedata.normalize("NFC", text)))
    name = _trim(_cut(name, MAX_COMPONENT_BYTES))
    if _RESERVED.match(name):
        name = _trim(_cut("_" + name, MAX_COMPONENT_BYTES))
    return name or UNTITLED


def render_template(template: str, fields: Mapping[str, str]) -> PurePosixPath:
    """Fills a template such as ``{track}/{stem}.{ext}``.

    ``/`` in the template makes folders; in a value it becomes ``_``, so that no value adds a folder or leaves one.
    ``{{`` and ``}}`` stand for braces. A component that gets too long loses the end of its longest values, never
    text of the template, so an extension survives. Not more than text is substituted: no attributes, indices,
    conversions or format specifications.

    Args:
        template: Relative, not empty, with names from ``fields`` in braces.
        fields: What the names stand for; each is made safe by :func:`safe_component`.

    Returns:
        A relative path of components that :func:`safe_component` leaves as they are.

    Raises:
        RequestError: Unknown name, broken braces, absolute, empty, ``..``, or a character that no file name can hold.
    """
    components: list[list[_Part]] = [[]]
    for part in _parse(template, fields):
        if part.is_value:
            components[-1].append(part)
            continue
        first, *others = part.text.split("/")
        components[-1].append(_Part(text=first, is_value=False))
        components.extend([_Part(text=text, is_value=False)] for text in others)
    return PurePosixPath(*(_render_component(template, parts) for parts in components))


def jailed(root: Path, relative: PurePosixPath) -> Path:
    """``root / relative`` with all symbolic links followed, if that is still inside ``root``.

    The answer holds for the moment of the call: somebody who may write in ``root`` can put a link there afterwards.

    Args:
        root: A folder; it need not exist.
        relative: Where in it, as :func:`render_template` gives it.

    Raises:
        OutputError: The result is ``root`` itself or outside it, or can't be resolved.
    """
    try:
        real_root = root.resolve()
        path = real_root.joinpath(*relative.parts).resolve()
    except (OSError, RuntimeError, ValueError) as exc:  # a loop of links is a RuntimeError before Python 3.13
        raise _escape(root, relative, f"can't be resolved: {exc}") from exc
    if path == real_root or not path.is_relative_to(real_root):
        raise _escape(root, relative, f"would be {path}")
    return path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    text: str
    is_value: bool

    @property
    def size(self) -> int:
        return len(self.text.encode("utf-8"))


def _parse(template: str, fields: Mapping[str, str]) -> Iterator[_Part]:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as exc:
        raise _template_error(template, f"{exc}") from exc
    for literal, name, spec, conversion in pieces:
        bad = _ILLEGAL.search(literal.replace("/", ""))
        if bad:
            raise _template_error(template, f"{bad.group()!r} can't be part of a file name")
        yield _Part(text=literal, is_value=False)
        if name is None:
            continue
        if name not in fields or spec or conversion:
            allowed = ", ".join(f"{{{field}}}" for field in sorted(fields))
            raise _template_error(template, f"{{{name}}} must be one of {allowed}, without anything after the name")
        yield _Part(text=safe_component(fields[name]), is_value=True)


def _render_component(template: str, parts: list[_Part]) -> str:
    plain = "".join(part.text for part in parts)
    if not any(part.is_value for part in parts) and plain in ("", ".", ".."):
        raise _template_error(template, "it must be relative, without empty, '.' or '..' parts")
    excess = sum(part.size for part in parts) - MAX_COMPONENT_BYTES
    while excess > 0:
        longest = max((p for p in range(len(parts)) if parts[p].is_value), key=lambda p: parts[p].size, default=None)
        if longest is None or len(parts[longest].text) == 1:
            raise _template_error(template, f"a part of it is longer than {MAX_COMPONENT_BYTES} bytes")
        text = parts[longest].text
        shorter = _cut(text, max(parts[longest].size - excess, 1)) or text[0]
        parts[longest] = _Part(text=shorter, is_value=True)
        excess = sum(part.size for part in parts) - MAX_COMPONENT_BYTES
    return safe_component("".join(part.text for part in parts))


def _cut(text: str, size: int) -> str:
    return text.encode("utf-8")[:size].decode("utf-8", errors="ignore")


def _trim(text: str) -> str:
    start, end = 0, len(text)
    while start < end and (text[start].isspace() or text[start] in ".-"):
        start += 1
    while start < end and (text[end - 1].isspace() or text[end - 1] == "."):
        end -= 1
    return text[start:end]


def _template_error(template: str, reason: str) -> RequestError:
    return RequestError(
        f"template {template!r}: {reason}",
        hint="Write something like {track}/{stem}.{ext}; '/' makes folders, {{ and }} are braces.",
        code="request.template",
    )


def _escape(root: Path, relative: PurePosixPath, reason: str) -> OutputError:
    return OutputError(
        f"{str(relative)!r} leaves the output folder {root}: it {reason}",
        hint="Choose another --template or output folder, or remove the symbolic link in it.",
        code="output.outside",
    )
