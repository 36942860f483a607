"""Which paths a client may name: those that are in one of the daemon's folders once all links are followed.

The answer holds for the moment of the call: somebody who may write in these folders can put a link there afterwards,
so the daemon asks again before a job starts.

Letter case: pathlib compares as the system does, so ``C:\\Users`` is ``c:\\users`` on Windows. macOS takes the same
file under any case too, but there a path must be spelled as the root is; what differs is refused, which is safe.
"""

from __future__ import annotations

import os
import re
import string
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePath, PureWindowsPath

from revithion_bridge.errors import bridge_error

MAX_PATH = 4096
"""Characters of a path; Linux takes as many bytes, the others less."""
MAX_COMPONENT = 255
"""Characters of a name between separators; no system takes more."""

_MOUNT_POINTS = ("/media", "/run/media", "/mnt", "/Volumes")

# Windows drops dots and spaces at the end of a name, reads what follows a colon as a stream of the file, and takes
# some names for devices in every folder: what is checked would not be what is opened.
_WINDOWS_NAME = re.compile(
    r'[<>:"|?*\x00-\x1f]|[. ]$|^(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³])\s*(?:\.|$)', re.IGNORECASE
)


class PathJail:
    """Folders that paths must be in. Any thread.

    Args:
        roots: The folders; they need not exist. Links in them are followed now: a root that becomes a link later on
            leads nowhere else.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._given = tuple(roots)
        self._roots = tuple(dict.fromkeys(Path(os.path.realpath(root)) for root in roots))

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders, links followed."""
        return self._roots

    def check(self, path: str) -> Path:
        """``path`` as it was given, if it is one of the roots or inside one; it need not exist.

        Raises:
            RequestError: ``path.relative``: it is not absolute. ``path.outside``: it leads elsewhere, or is nothing
                that the system could open.
        """
        given = Path(path)
        if not given.is_absolute():
            raise bridge_error("path.relative", f"{_shown(path)} is not absolute")
        reason = unusable(path, given)
        if reason:
            raise bridge_error("path.outside", f"{_shown(path)}: {reason}")
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass  # whoever opens it will see
        except (OSError, ValueError) as exc:  # a name too long for this file system; a character that can't be encoded
            raise bridge_error("path.outside", f"{_shown(path)}: {getattr(exc, 'strerror', None) or exc}") from exc
        try:
            real = given.resolve()
        except (OSError, RuntimeError, ValueError) as exc:  # a loop of links is a RuntimeError before Python 3.13
            raise bridge_error("path.outside", f"{_shown(path)}: {exc}") from exc
        if not any(real.is_relative_to(root) for root in self._roots):
            leads = "" if real == given else f" leads to {_shown(str(real))}, which"
            roots = ", ".join(map(str, self._given)) or "no folders"
            raise bridge_error("path.outside", f"{_shown(path)}{leads} is in none of {roots}")
        return given


def unusable(text: str, path: PurePath) -> str:
    """Why no system of the kind of ``path`` (POSIX or Windows) can open ``text`` as what it says, or nothing."""
    if "\0" in text:
        return "it has a NUL character in it"
    if len(text) > MAX_PATH:
        return f"it has {len(text)} characters; {MAX_PATH} are allowed"
    names = path.parts[1:]
    if any(len(name) > MAX_COMPONENT for name in names):
        return f"a name in it has more than {MAX_COMPONENT} characters"
    if isinstance(path, PureWindowsPath):
        if path.drive.startswith(("\\\\.", "\\\\?")):
            return "it is a name of a device"
        bad = next((name for name in names if name != ".." and _WINDOWS_NAME.search(name)), None)
        if bad is not None:
            return f"{bad!r} is no name of a file"
    return ""


def default_roots() -> list[Path]:
    """Home, the folder for temporary files, and where disks are mounted: the folders of these that exist."""
    found = [Path(tempfile.gettempdir())]
    try:
        home = Path.home()
    except RuntimeError:  # no such user in the system's list
        home = None
    if home is not None and home != Path(home.anchor):  # of some services it is the root of everything
        found.insert(0, home)
    if sys.platform == "win32":
        own = (home or found[0]).drive.upper()
        drives = [f"{letter}:" for letter in string.ascii_uppercase]
        found += [Path(f"{drive}\\") for drive in drives if drive != own and os.path.exists(f"{drive}\\")]  # noqa: PTH110
    else:
        found += [Path(place) for place in _MOUNT_POINTS]
    return [folder for folder in dict.fromkeys(found) if folder.is_dir()]


def _shown(path: str) -> str:
    """The path for a message: one line, not too long."""
    shown = ascii(path) if not path.isprintable() else repr(path)
    return shown if len(shown) <= 300 else f"{shown[:297]}..."
