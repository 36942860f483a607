"""Runs checks of this machine side by side, none of which can break or hold up another. No printing."""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

TIMEOUT_S = 5.0
"""A diagnosis takes no longer than this; what has not answered by then is ``UNKNOWN``."""


class CheckStatus(enum.Enum):
    """The outcome of a check."""

    OK = "ok"
    MISSING = "missing"  # not there; nothing is wrong with what is there
    BROKEN = "broken"  # there, but does not work
    UNKNOWN = "unknown"  # no answer in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a probe returns.

    Attributes:
        detail: What was found: versions, paths, sizes.
        status: The outcome.
        fix: The next step for the user; empty where there is none. Advice may stand beside ``OK``.
    """

    detail: str
    status: CheckStatus = CheckStatus.OK
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One thing to look at.

    Attributes:
        name: Short, for people and scripts; unique in a diagnosis.
        look: Does the looking, on a thread of its own; may raise anything.
        required: Whether no song can be separated by a network without it.
    """

    name: str
    look: Callable[[], Finding]
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A probe's outcome; the attributes are those of :class:`Probe` and :class:`Finding`."""

    name: str
    required: bool
    status: CheckStatus
    detail: str
    fix: str

    @property
    def fails(self) -> bool:
        """Whether something that is required is known not to work."""
        return self.required and self.status in (CheckStatus.MISSING, CheckStatus.BROKEN)

    def as_dict(self) -> dict[str, object]:
        """The check as plain data for JSON."""
        return {
            "name": self.name,
            "required": self.required,
            "status": self.status.value,
            "detail": self.detail,
            "fix": self.fix,
        }


def diagnose(probes: Sequence[Probe], timeout_s: float = TIMEOUT_S) -> tuple[Check, ...]:
    """Runs all probes at once, each on a thread of its own.

    A probe that raises is ``BROKEN`` with the error's text. One that raises ``TimeoutError`` is ``UNKNOWN``, and so is
    one that has not returned within ``timeout_s``; its thread, a daemon, is left behind.

    Returns:
        A check per probe, in the order of ``probes``.
    """
    findings: dict[str, Finding] = {}

    def run(probe: Probe) -> None:
        try:
            findings[probe.name] = probe.look()
        except TimeoutError as exc:
            findings[probe.name] = _late(str(exc))
        except Exception as exc:  # noqa: BLE001 - a probe may fail in any way, and that is what it is for
            text = f"{type(exc).__name__}: {exc}".rstrip(": ")
            fix = str(getattr(exc, "hint", "")) or "Reinstall revithion-stems; if that does not help, report this text."
            findings[probe.name] = Finding(detail=text, status=CheckStatus.BROKEN, fix=fix)

    deadline = time.monotonic() + timeout_s
    threads = [threading.Thread(target=run, args=(probe,), daemon=True) for probe in probes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = _late(f"no answer within {timeout_s:g} s")
    checks: list[Check] = []
    for probe in probes:
        finding = findings.get(probe.name, late)
        checks.append(
            Check(
                name=probe.name,
                required=probe.required,
                status=finding.status,
                detail=finding.detail,
                fix=finding.fix,
            )
        )
    return tuple(checks)


def _late(detail: str) -> Finding:
    fix = "Run it again: the first start after an installation is the slowest."
    return Finding(detail=detail, status=CheckStatus.UNKNOWN, fix=fix)
