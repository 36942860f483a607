"""What happened in a run, a JSON object a line, and the configuration as it was written: for people and plots."""

from __future__ import annotations

import json
import math
import shutil
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

import msgspec

from revithion_stems.output_errors import output_errors
from revithion_stems.training.datasets.dataset_progress import DatasetProgress
from revithion_stems.training.train_events import TrainEvent

LOG: Final = "log.jsonl"
CONFIG: Final = "config.toml"


class RunLog:
    """Appends a run's events to :data:`LOG`. One thread at a time.

    A run that was killed goes on from its last checkpoint: steps after it then stand there twice; the later ones count.

    Args:
        run_folder: Of the run.
        config: The configuration's file; a copy of it is kept as :data:`CONFIG`.
    """

    def __init__(self, run_folder: Path, config: Path) -> None:
        self._folder = run_folder
        self._config = config
        self._file: TextIOWrapper | None = None

    def show(self, event: TrainEvent) -> None:
        """Notes an event; reading datasets is none.

        Raises:
            OutputError: It can't be written.
        """
        if isinstance(event, DatasetProgress):
            return
        with output_errors(self._folder / LOG):
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                if self._config.resolve() != (self._folder / CONFIG).resolve():
                    shutil.copyfile(self._config, self._folder / CONFIG)
                self._file = (self._folder / LOG).open("a", encoding="utf-8", newline="\n")
            self._file.write(json.dumps(event_as_dict(event)) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def event_as_dict(event: TrainEvent) -> dict[str, Any]:
    """An event as a JSON object: its type and its fields; numbers that are not finite become null."""
    return {"type": type(event).__name__, **_plain(msgspec.to_builtins(event, enc_hook=str))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
