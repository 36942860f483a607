"""Scenes: how all strips stood, kept under names in one file of the user's configuration folder."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import filelock
import msgspec

from revithion_stems.config import config_path
from revithion_stems.errors import LiveError
from revithion_stems.live import HIGHEST_DB, LOWEST_DB, StripSettings
from revithion_stems.paths import safe_component

MOST_SCENES = 64
LONGEST_NAME = 40
"""Characters."""

_LARGEST_FILE = 1 << 20
_LOCK_TIMEOUT_S = 5.0


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """How all strips stood.

    Attributes:
        strips: Stem → how its strip stood.
        monitor_gain_db: Gain of the monitor mix.
    """

    strips: dict[str, StripSettings]
    monitor_gain_db: Annotated[float, msgspec.Meta(ge=LOWEST_DB, le=HIGHEST_DB)] = 0.0


class _File(msgspec.Struct, kw_only=True):
    v: Literal[1] = 1
    scenes: dict[str, Scene]


def scenes_path() -> Path:
    """Where scenes are kept: ``scenes.json`` beside the settings file."""
    return config_path().with_name("scenes.json")


class SceneStore:
    """The file of scenes. Any thread, and any number of processes; each call looks into the file.

    A file that is damaged is never written over.

    Args:
        path: The file; made by the first :meth:`store`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = scenes_path() if path is None else path

    def names(self) -> tuple[str, ...]:
        """The names there are, oldest first.

        Raises:
            LiveError: ``live.scene``: the file is damaged or can't be read.
        """
        return tuple(self._read())

    def get(self, name: str) -> Scene:
        """The scene of that name.

        Raises:
            LiveError: ``live.scene``: there is none, or the file is damaged.
        """
        scenes = self._read()
        if name not in scenes:
            raise _scene_error(
                f"there is no scene {name!r}; there are: {', '.join(scenes) or 'none'}",
                hint="Store it first, or choose one of those.",
            )
        return scenes[name]

    def store(self, name: str, strips: Mapping[str, StripSettings], monitor_gain_db: float) -> None:
        """Keeps a scene; one of the same name is replaced.

        Raises:
            LiveError: ``live.scene``: not a name, too many scenes, the file is damaged or can't be written.
        """
        _check_name(name)
        scene = Scene(strips=dict(strips), monitor_gain_db=monitor_gain_db)
        part = self._path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self._path.with_name(f".{self._path.name}.lock"), timeout=_LOCK_TIMEOUT_S):
                scenes = self._read()
                if name not in scenes and len(scenes) >= MOST_SCENES:
                    raise _scene_error(
                        f"there are {len(scenes)} scenes, and no more are kept",
                        hint=f"Store it under a name that is there, or remove some from {self._path}.",
                    )
                part.write_bytes(msgspec.json.format(msgspec.json.encode(_File(scenes={**scenes, name: scene}))))
                part.replace(self._path)
        except (OSError, filelock.Timeout) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            raise _scene_error(
                f"scenes can't be written to {self._path}: {reason}",
                hint="Make room there or correct its permissions; REVITHION_CONFIG names another folder.",
            ) from exc
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _read(self) -> dict[str, Scene]:
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise _damaged(self._path, exc.strerror or str(exc)) from exc
        if len(data) > _LARGEST_FILE:
            raise _damaged(self._path, "it is too large")
        try:
            return msgspec.json.decode(data, type=_File).scenes
        except (msgspec.DecodeError, LiveError) as exc:  # a strip checks its values itself
            raise _damaged(self._path, str(exc)) from exc


def _check_name(name: str) -> None:
    """A scene's name is shown, sent and typed: what may stand in a file's name may stand there."""
    if len(name) > LONGEST_NAME or safe_component(name) != name:
        raise _scene_error(
            f"{name[: 2 * LONGEST_NAME]!r} is not a name for a scene",
            hint=f"Use 1 to {LONGEST_NAME} characters, without slashes, control characters and spaces at its ends.",
        )


def _damaged(path: Path, reason: str) -> LiveError:
    return _scene_error(f"the scenes in {path} can't be read: {reason}", hint="Correct or remove that file.")


def _scene_error(message: str, *, hint: str) -> LiveError:
    return LiveError(message, hint=hint, code="live.scene")
