"""A DAW's script as the rest of the program sees it: it reads and writes the files of the mailbox, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from revithion_stems import config

WAIT_S = 60.0
FINAL = ("done", "failed", "cancelled")


class MailboxDaw:
    """One open session of a DAW."""

    def __init__(self, daw: str = "reaper", number: int = 1, name: str = "Album") -> None:
        self.daw, self.name = daw, name
        self.box = f"{daw}-{number:016x}"
        self.folder = config.state_dir() / "daw"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.serial = 0

    def path(self, kind: str, file_id: str = "") -> Path:
        return self.folder / f"{self.box}.{kind}{'-' if file_id else ''}{file_id}.json"

    def write(self, kind: str, file_id: str, content: Any) -> None:
        path = self.path(kind, file_id)
        part = path.with_name(path.name + ".part")
        part.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        part.replace(path)

    def read(self, kind: str, file_id: str = "") -> dict[str, Any] | None:
        try:
            return json.loads(self.path(kind, file_id).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def announce(self, *strips: dict[str, Any]) -> None:
        session = {"v": 1, "daw": self.daw, "program": "7.0", "name": self.name, "path": "/music/Album"}
        self.write("session", "", {**session, "sample_rate": 48_000, "at": time.time(), "strips": strips})

    # --- requests ---

    def ask(self, *items: dict[str, Any], **fields: Any) -> str:
        """Writes a request; its id."""
        self.serial += 1
        request_id = f"r{self.serial}-{os.getpid()}"
        request = {"v": 1, "id": request_id, "box": self.box, "model": "dsp", "track": {"id": "7", "name": "Mix"}}
        self.write("request", request_id, {**request, "items": items, **fields})
        return request_id

    def wait(self, request_id: str, *states: str) -> dict[str, Any]:
        """The status once it is in one of the states; in a final one if none is named."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            status = self.read("status", request_id)
            if status is not None and status["state"] in (states or FINAL):
                return status
            time.sleep(0.005)
        raise AssertionError(f"{request_id}: still {self.read('status', request_id)}")

    def plan(self, request_id: str) -> dict[str, Any]:
        status = self.wait(request_id)
        assert status["state"] == "done", status["error"]
        return status["plan"]

    # --- commands ---

    @contextlib.contextmanager
    def answering(self, *, pause_s: float = 0.0, **answer: Any) -> Iterator[list[dict[str, Any]]]:
        """Takes commands as a script does; what came. ``pause_s`` is how long each takes."""
        commands: list[dict[str, Any]] = []
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.005):
                command = self.read("inbox")
                if command is None:
                    continue
                self.path("inbox").unlink()
                commands.append(command)
                time.sleep(pause_s)
                self.write("answer", command["id"], {"v": 1, "id": command["id"], "ok": True, **answer})

        thread = threading.Thread(target=work, name="daw")
        thread.start()
        try:
            yield commands
        finally:
            over.set()
            thread.join()


def item(*channels: tuple[Path, int] | Path, frames: int, at: int = 0, **fields: Any) -> dict[str, Any]:
    """An item as a request has it, at a position in frames of the project."""
    pairs = [channel if isinstance(channel, tuple) else (channel, 0) for channel in channels]
    return {
        "channels": [{"path": str(path), "channel": number} for path, number in pairs],
        "frames": frames,
        "position": {"value": at, "unit": "frames"},
        **fields,
    }


def stereo(path: Path, frames: int, **fields: Any) -> dict[str, Any]:
    """An item of a stereo file."""
    return item((path, 0), (path, 1), frames=frames, **fields)


def strip(key: str, name: str = "", role: str = "bus", identity: str = "0" * 16) -> dict[str, Any]:
    """A strip as a session has it."""
    name = name or f"{key.capitalize()} Bus"
    return {"identity": identity, "role": role, "key": key, "name": name, "gain_db": 0.0, "muted": False}
