"""The bridge's errors, made from their codes: what to do next stands in the table of the protocol."""

from __future__ import annotations

from revithion_bridge.messages import ERRORS
from revithion_stems.errors import Cancelled, RevithionError, error_from_dict


def bridge_error(code: str, message: str) -> RevithionError:
    """The error of a code of :data:`~revithion_bridge.messages.ERRORS`, with its hint."""
    return error_from_dict({"code": code, "message": message, "hint": ERRORS[code][1]})


def cancelled_error() -> Cancelled:
    """How a job ends that somebody cancelled."""
    return Cancelled("cancelled on request", hint="Retry the job, or submit it again.")
