"""The files through which scripts inside DAWs and the rest of the program talk; ``bridge/MAILBOX.md`` describes them.

Any process, any thread: files appear whole, and a lock lets only one command at a time be on its way to a DAW.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import filelock
import msgspec
from msgspec import Meta

from revithion_bridge.connection import make_private
from revithion_bridge.daw.bus_plan import BusPlan, Position
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import ErrorInfo
from revithion_stems import config
from revithion_stems.errors import RevithionError, error_from_dict

MAILBOX_VERSION = 1
STALE_S = 5.0
"""A session file that is older belongs to a DAW that is gone, or hangs."""
ANSWER_S = 60.0
_MOST_BYTES = 1_048_576
_POLL_S = 0.02
_FILE = re.compile(
    r"([a-z]{2,16}-[0-9a-f]{16})\.(session|request|cancel|status|inbox|answer)(?:-([A-Za-z0-9_-]{1,64}))?\.json"
)

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
BoxName = Annotated[str, Meta(pattern=r"^[a-z]{2,16}-[0-9a-f]{16}$(?!\n)")]
PathText = Annotated[str, Meta(min_length=1, max_length=4096)]
Frames = Annotated[int, Meta(ge=0)]
_T = TypeVar("_T")


class Strip(msgspec.Struct, frozen=True, kw_only=True):
    """A track or bus in a session that is ours.

    Attributes:
        role: ``track`` or ``bus``.
        key: Of the plan.
        name: What people see.
        identity: Of the plan.
        gain_db: Of its fader.
        muted: Whether it is.
        outcome: In an answer: ``created``, ``replaced`` or ``unchanged``.
    """

    role: str
    key: str
    name: str = ""
    identity: str = ""
    gain_db: float = 0.0
    muted: bool = False
    outcome: str = ""


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is open in a DAW; its fields are explained in MAILBOX.md."""

    v: int
    daw: str
    program: str = ""
    name: str = ""
    path: str = ""
    sample_rate: int = 0
    at: float = 0.0
    strips: tuple[Strip, ...] = ()


class SourceChannel(msgspec.Struct, frozen=True, kw_only=True):
    """One channel of an item: a file, and which of its channels."""

    path: PathText
    channel: Annotated[int, Meta(ge=0, lt=8)] = 0


class RequestedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that is to be separated."""

    channels: Annotated[tuple[SourceChannel, ...], Meta(min_length=1, max_length=8)]
    start_frame: Frames = 0
    frames: Annotated[int, Meta(ge=1)]
    position: Position
    play_rate: float = 1.0
    preserve_pitch: bool = False
    gain_db: float = 0.0
    item: str = ""
    name: str = ""


class RequestedTrack(msgspec.Struct, frozen=True, kw_only=True):
    """The track that the items are on."""

    id: str
    name: str = ""


class DawRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a script asks for; its fields are explained in MAILBOX.md."""

    v: int
    id: Id
    box: BoxName
    preset: str = ""
    model: str = ""
    align_to: str = "item"
    project_rate: int | None = None
    folder: str = ""
    track: RequestedTrack
    items: Annotated[tuple[RequestedItem, ...], Meta(min_length=1, max_length=1000)]


class DawStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request stands."""

    v: int = MAILBOX_VERSION
    id: str
    state: str
    fraction: float = 0.0
    remaining_s: float | None = None
    text: str = ""
    error: ErrorInfo | None = None
    plan: BusPlan | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command."""

    v: int
    id: str
    ok: bool
    strips: tuple[Strip, ...] = ()
    error: ErrorInfo | None = None


class BoxFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the mailbox by its name."""

    box: str
    kind: str
    id: str
    path: Path


def mailbox_folder() -> Path:
    """The folder of all boxes; it may not be there."""
    return config.state_dir() / "daw"


def make_mailbox_folder() -> Path:
    """The folder of all boxes, made if needed, and closed to others."""
    return make_private(mailbox_folder())


def list_files(kind: str) -> list[BoxFile]:
    """All files of a kind, in the order of their names; none where there is no mailbox."""
    found: list[BoxFile] = []
    try:
        with os.scandir(mailbox_folder()) as entries:
            for entry in entries:
                name = _FILE.fullmatch(entry.name)
                if name is not None and name[2] == kind:
                    found.append(BoxFile(box=name[1], kind=kind, id=name[3] or "", path=Path(entry.path)))
    except OSError:
        return []
    return sorted(found, key=lambda file: file.path.name)


def box_path(box: str, kind: str, file_id: str = "") -> Path:
    """Where a file of a box is."""
    return mailbox_folder() / f"{box}.{kind}{'-' if file_id else ''}{file_id}.json"


def read_file(path: Path, kind: type[_T]) -> _T | None:
    """What a file says; None if it is gone.

    Raises:
        RevithionError: ``protocol.malformed``: it is too large, or not what it should be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError:
        return None
    try:
        if len(data) > _MOST_BYTES:
            raise ValueError("larger than 1 MiB")
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RevithionError) as exc:  # a plan in it may contradict itself
        raise bridge_error("protocol.malformed", f"{path.name}: {exc}") from exc


def write_file(path: Path, content: Any) -> None:
    """Puts a file in its place, all at once.

    Raises:
        OSError: It can't be written.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(msgspec.json.encode(content))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_sessions(daw: str = "") -> dict[str, OpenSession]:
    """Box → session, of all that are open now, or of those of one DAW. A damaged file is passed over."""
    found: dict[str, OpenSession] = {}
    for file in list_files("session"):
        with contextlib.suppress(OSError, RevithionError):
            if time.time() - file.path.stat().st_mtime > STALE_S:
                continue
            session = read_file(file.path, OpenSession)
            if session is not None and daw in ("", session.daw):
                found[file.box] = session
    return found


def send_command(box: str, kind: str, *, timeout_s: float = ANSWER_S, **fields: Any) -> Answer:
    """Sends a command to the DAW and waits for its answer.

    Args:
        box: Of the session.
        kind: ``import`` or ``fader``.
        timeout_s: How long to wait, for other commands and for the answer.
        fields: Of the command.

    Raises:
        RevithionError: ``daw.busy``: no answer; the command was taken back. What the DAW answered, if it refused.
    """
    command_id = secrets.token_hex(8)
    inbox, answer_path = box_path(box, "inbox"), box_path(box, "answer", command_id)
    deadline = time.monotonic() + timeout_s
    with _only_one(box, timeout_s):
        try:
            write_file(inbox, {"v": MAILBOX_VERSION, "id": command_id, "type": kind, **fields})
            while time.monotonic() < deadline:
                answer = read_file(answer_path, Answer)
                if answer is not None:
                    return _checked(answer)
                time.sleep(_POLL_S)
        except OSError as exc:
            raise bridge_error("daw.refused", f"can't write into {mailbox_folder()}: {exc}") from exc
        finally:
            inbox.unlink(missing_ok=True)
            answer_path.unlink(missing_ok=True)
    raise bridge_error("daw.busy", f"no answer from {box.partition('-')[0]} within {timeout_s:g} s")


@contextlib.contextmanager
def _only_one(box: str, timeout_s: float) -> Generator[None]:
    lock = filelock.FileLock(make_mailbox_folder() / f"{box}.lock", timeout=timeout_s)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise bridge_error("daw.busy", f"another program talks to {box.partition('-')[0]}") from None
    try:
        yield
    finally:
        lock.release()


def _checked(answer: Answer) -> Answer:
    if answer.ok:
        return answer
    if answer.error is None:
        raise bridge_error("daw.refused", "the DAW refused, and did not say why")
    raise error_from_dict({"code": answer.error.code, "message": answer.error.message, "hint": answer.error.hint})
