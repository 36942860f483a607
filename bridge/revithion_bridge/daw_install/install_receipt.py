"""What of ours is in a DAW's folder: ``installed.json``, which the scripts read too.

It says where the mailbox is and how the daemon is started, and what an uninstall has to remove.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from revithion_bridge import service_install
from revithion_bridge.connection import connection_path
from revithion_bridge.daw.mailbox import mailbox_folder
from revithion_bridge.daw_install.file_changes import read_bytes
from revithion_stems.version import __version__

ARDOUR_HOME, REAPER_HOME = OUR_FOLDERS = ("revithion_stems", "Scripts/revithion-stems")
RECEIPT = "installed.json"
_DAEMON = "revithion_bridge.daemon"
_FOLDERS = {"REVITHION_CONFIG", "REVITHION_MODEL_DIR", "REVITHION_STATE_DIR", "REVITHION_CACHE_DIR"}


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What ``installed.json`` says. Paths are relative to the DAW's folder, with ``/``.

    Attributes:
        v: Of this form.
        version: Of the program that installed.
        mailboxes: The folder of the mailbox.
        connection: The daemon's connection file.
        start: The command that starts the daemon.
        files: The scripts.
        made: Folders and files of the DAW that were not there before; they go again if nothing else is in them.
        windows: Whether this is Windows.
    """

    v: int = 1
    version: str
    mailboxes: str
    connection: str
    start: tuple[str, ...]
    files: tuple[str, ...]
    made: tuple[str, ...] = ()
    windows: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What shall be in a DAW's folder.

    Attributes:
        folder: The DAW's.
        home: Our own folder in it.
        prefix: How the names of our scripts in the DAW's own folders begin, such as ``scripts/revithion_stems_``.
        files: Relative path → content.
    """

    folder: Path
    home: str
    prefix: str = ""
    files: Mapping[str, bytes]

    @property
    def receipt(self) -> str:
        """Where ``installed.json`` is."""
        return f"{self.home}/{RECEIPT}"

    def is_ours(self, name: str) -> bool:
        """Whether a path may be one of ours: what else a damaged ``installed.json`` names must not be removed."""
        folder, _, last = name.rpartition("/")
        here = folder == self.home or (bool(self.prefix) and name.startswith(self.prefix) and name.count("/") == 1)
        return here and last.endswith(".lua") and not set(last) & set("/\\:")


def new_receipt(files: Iterable[str], made: Iterable[str]) -> Receipt:
    """What ``installed.json`` says after an install by this version, with the folders of this process."""
    return Receipt(
        version=__version__,
        mailboxes=str(mailbox_folder().absolute()),
        connection=str(connection_path().absolute()),
        start=start_command(),
        files=tuple(files),
        made=tuple(dict.fromkeys(made)),
        windows=sys.platform == "win32",
    )


def read_receipt(placement: Placement) -> Receipt | None:
    """What ``installed.json`` says; None if it is not there. A damaged one counts as if it named all that is ours.

    Raises:
        RevithionError: ``daw.install``: it can't be read.
    """
    data = read_bytes(placement.folder / placement.receipt)
    if data is None:
        return None
    try:
        receipt = msgspec.json.decode(data, type=Receipt)
    except (msgspec.DecodeError, UnicodeDecodeError):
        folders = {placement.home, placement.prefix.rpartition("/")[0]}
        files = [f"{folder}/{path.name}" for folder in folders for path in (placement.folder / folder).glob("*.lua")]
        receipt = Receipt(version="", mailboxes="", connection="", start=(), files=tuple(sorted(files)), windows=False)
    return msgspec.structs.replace(receipt, files=tuple(filter(placement.is_ours, receipt.files)))


def installed_version(folder: Path) -> str | None:
    """The version of the scripts in a DAW's folder, ``?`` if that can't be told; None if there are none."""
    for home in OUR_FOLDERS:
        receipt = read_receipt(Placement(folder=folder, home=home, files={}))
        if receipt is not None:
            return receipt.version or "?"
    return None


def start_command() -> tuple[str, ...]:
    """The command that starts the daemon with the folders of this process, whatever environment the DAW has."""
    python, kept = service_install.interpreter(), service_install.kept_environment()
    for name in kept.keys() & _FOLDERS:
        kept[name] = str(Path(kept[name]).expanduser().absolute())
    if not kept:
        return (python, "-m", _DAEMON)
    if sys.platform != "win32":
        return ("/usr/bin/env", *(f"{name}={text}" for name, text in sorted(kept.items())), python, "-m", _DAEMON)
    # No double quotes: the shell there has no way to pass them on.
    data = msgspec.json.encode(kept).hex()
    code = (
        f"import json, os, runpy; os.environ.update(json.loads(bytes.fromhex('{data}'))); "
        f"runpy.run_module('{_DAEMON}', run_name='__main__', alter_sys=True)"
    )
    return (python, "-c", code)
