"""Settings: a TOML file in the user's configuration folder, overridden by REVITHION_* variables and by flags."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import platformdirs

from revithion_stems.errors import ConfigError

APP_NAME = "revithion-stems"


def config_path() -> Path:
    """The configuration file: ``REVITHION_CONFIG``, else ``config.toml`` in the platform's folder for settings."""
    override = os.environ.get("REVITHION_CONFIG")
    return Path(override) if override else platformdirs.user_config_path(APP_NAME) / "config.toml"


def model_dir() -> Path:
    """Where weights are kept: ``REVITHION_MODEL_DIR``, else ``models`` in the platform's folder for data."""
    override = os.environ.get("REVITHION_MODEL_DIR")
    return Path(override).expanduser() if override else platformdirs.user_data_path(APP_NAME) / "models"


def state_dir() -> Path:
    """Where what this program measured about the machine is kept (``REVITHION_STATE_DIR`` overrides)."""
    override = os.environ.get("REVITHION_STATE_DIR")
    return Path(override).expanduser() if override else platformdirs.user_state_path(APP_NAME)


def offline_mode() -> bool:
    """Whether ``REVITHION_OFFLINE`` forbids the network: set and not 0, no, false or empty."""
    return os.environ.get("REVITHION_OFFLINE", "").lower() not in ("", "0", "no", "false")


def load_defaults() -> dict[str, Any]:
    """Defaults for the command line: a table per command (``[separate]`` with ``model = "htdemucs"``).

    Raises:
        ConfigError: The file can't be read, is not TOML, or holds something else than tables of settings.
    """
    path = config_path()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError(
            f"can't read settings from {path}: {exc}",
            hint="Correct or remove that file; REVITHION_CONFIG points to another one.",
        ) from exc
    for name, table in data.items():
        if not isinstance(table, dict):
            raise ConfigError(
                f"{path}: {name!r} is not a table of settings",
                hint='Put settings under the command they belong to, such as [separate] with model = "htdemucs".',
            )
    return data
