"""The daemon's log: one JSON object a line, in files of bounded size."""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
from pathlib import Path

FILE_BYTES = 5_000_000
OLD_FILES = 3


class JsonLines(logging.Formatter):
    """A record as a JSON object: ``time`` (UTC), ``level``, ``logger``, ``message``, ``job``, ``client``."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        data: dict[str, str] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("job", "client"):
            value = getattr(record, name, None)
            if value:
                data[name] = str(value)
        if record.exc_info:
            data["exception"] = self.formatException(record.exc_info)
        return json.dumps(data, ensure_ascii=False)


def open_log(path: Path) -> logging.Handler:
    """Sends the bridge's log to ``path``, rotating it; returns the handler, to be closed at the end."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("revithion_bridge")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler
