"""Settings: a TOML file in the user's configuration folder, overridden by REVITHION_* variables and by flags."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import platformdirs

from revithion_stems.errors import ConfigError

APP_NAME = "revithion-stems"
_DEFAULT_CACHE_SIZE = "20 GB"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


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


def cache_dir() -> Path:
    """Where finished and unfinished results are kept (``REVITHION_CACHE_DIR`` overrides)."""
    override = os.environ.get("REVITHION_CACHE_DIR")
    return Path(override).expanduser() if override else platformdirs.user_cache_path(APP_NAME)


def cache_limit_bytes() -> int:
    """How large that folder may grow: ``REVITHION_CACHE_SIZE``, such as ``5 GB`` or ``0`` for no cache; else 20 GB.

    Raises:
        ConfigError: The variable is not a size.
    """
    text = os.environ.get("REVITHION_CACHE_SIZE", "").strip() or _DEFAULT_CACHE_SIZE
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?", text, re.IGNORECASE)
    if found is None:
        raise ConfigError(
            f"REVITHION_CACHE_SIZE {text!r} is not a size",
            hint="Write a number with a unit, such as 500 MB, 20 GB or 0.",
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


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
