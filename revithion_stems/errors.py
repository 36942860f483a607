"""The exception tree: every error that leaves this package names what was wrong and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class RevithionError(Exception):
    """Base of every error raised by revithion-stems.

    Args:
        message: What went wrong, with the offending value and the allowed range, in one sentence.
        hint: The next step for the user, in one sentence.
        code: A stable dotted identifier for scripts, such as ``input.truncated``; each class has a default.

    Attributes:
        exit_code: The process exit status that the command line uses for this class of error.
    """

    default_code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross process boundaries.
        return (_rebuild, (type(self), self.message, self.hint, self.code))

    def as_dict(self) -> dict[str, str]:
        """The error as plain data for JSON: ``code``, ``message`` and ``hint``."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


def _rebuild(cls: type[RevithionError], message: str, hint: str, code: str) -> RevithionError:
    return cls(message, hint=hint, code=code)


class RequestError(RevithionError):
    """A parameter is out of range, unknown, or contradicts another one."""

    default_code = "request.invalid"
    exit_code = 2


class InputError(RevithionError):
    """The source audio can't be used: missing, empty, truncated, not audio, NaN, too many channels."""

    default_code = "input.unreadable"
    exit_code = 3


class ModelError(RevithionError):
    """A model is unknown, its weights are missing, or their bytes are not what the catalog promises."""

    default_code = "model.unavailable"
    exit_code = 4


class DownloadError(ModelError):
    """No source of a weights file delivered it: unreachable, 404, stalled, wrong size or wrong hash."""

    default_code = "model.download_failed"


class OutputError(RevithionError):
    """Stems can't be written: read-only folder, full disk, a template that leaves the output folder."""

    default_code = "output.unwritable"
    exit_code = 5


class EngineError(RevithionError):
    """An inference engine or device is not available, ran out of memory, or failed inside."""

    default_code = "engine.failed"
    exit_code = 6


class DaemonError(RevithionError):
    """The daemon can't be reached, refuses, or broke off; or a message to it is not what the protocol says."""

    default_code = "daemon.unreachable"
    exit_code = 7


class DawError(RevithionError):
    """A DAW or its project file can't be reached, found, or changed; it is as it was."""

    default_code = "daw.refused"
    exit_code = 8


class LiveError(RevithionError):
    """The live preview can't start or go on: an audio device, its driver, a model that is not causal, a fader."""

    default_code = "live.failed"
    exit_code = 9


def out_of_memory(doing: str) -> EngineError:
    """Memory ran out; ``doing`` says during what."""
    return EngineError(
        f"memory ran out {doing}",
        hint="Close other programs, or use a smaller --segment or model; `revithion-stems plan` tells what each needs.",
        code="engine.memory",
    )


class ConfigError(RevithionError):
    """The configuration file or an environment variable holds something unusable."""

    default_code = "config.invalid"
    exit_code = 2


class Cancelled(RevithionError):
    """The work was stopped on request; nothing half-written is left."""

    default_code = "job.cancelled"
    exit_code = 130


_BY_KIND: dict[str, type[RevithionError]] = {
    "request": RequestError,
    "config": ConfigError,
    "input": InputError,
    "model": ModelError,
    "output": OutputError,
    "engine": EngineError,
    "job": RequestError,
    "path": RequestError,
    "daw": DawError,
    "midi": DawError,
    "live": LiveError,
}


def error_from_dict(data: Mapping[str, str]) -> RevithionError:
    """The error that :meth:`RevithionError.as_dict` described in another process; its class follows from the code."""
    code = data["code"]
    kind = Cancelled if code == Cancelled.default_code else _BY_KIND.get(code.partition(".")[0])
    kind = kind or (RevithionError if code.startswith("error") else DaemonError)
    return kind(data["message"], hint=data["hint"], code=code)


def unexpected_error(error: BaseException) -> RevithionError:
    """A bug, as an error that can be shown and counted like the others."""
    return RevithionError(f"{type(error).__name__}: {error}", hint="Report this.", code="error.unexpected")
