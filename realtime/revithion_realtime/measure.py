"""Latency that is measured, not claimed: an impulse goes out, comes back through a loop, and through the whole path."""

from __future__ import annotations

import dataclasses
import statistics
import time
from dataclasses import dataclass

from revithion_realtime.session import LiveSession
from revithion_stems.errors import LiveError, error_from_dict
from revithion_stems.live import LatencyBudget, LiveOptions, LiveOutputs, Tier

ROUNDS = 5
TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured.

    Attributes:
        device: Name of the device.
        model: Name of the model.
        block_frames: Frames of a callback.
        budget: With the device's share as it was measured.
        path_frames: From the callback's input to the path's output, measured; what the budget says, unless something
            is wrong.
        rounds: How many impulses that is the median of.
    """

    device: str
    model: str
    block_frames: int
    budget: LatencyBudget
    path_frames: int
    rounds: int


def measure(options: LiveOptions) -> Measurement:
    """Measures a device and a model. JACK's ports are connected by software; other outputs by a cable to the input.

    Raises:
        LiveError: ``live.loop``: no impulse came back. Others as of a session.
    """
    session = LiveSession(dataclasses.replace(options, outputs=LiveOutputs.MIX), measure=True)
    try:
        rounds = _rounds(session, options)
        state = session.state()
    finally:
        session.stop()
    device = round(statistics.median(heard - sent for sent, heard, _ in rounds))
    path = round(statistics.median(played - heard for _, heard, played in rounds))
    return Measurement(
        device=state.device,
        model=state.model,
        block_frames=state.block_frames,
        budget=dataclasses.replace(state.budget, device_frames=device, device_measured=True),
        path_frames=path,
        rounds=len(rounds),
    )


def _rounds(session: LiveSession, options: LiveOptions) -> list[tuple[int, int, int]]:
    rounds: list[tuple[int, int, int]] = []
    deadline = time.monotonic() + TIMEOUT_S
    while len(rounds) < ROUNDS:
        if time.monotonic() > deadline:
            if any(strip.tier is Tier.DRY for strip in session.state().strips):
                raise LiveError(
                    f"{options.model} is too late: {len(rounds)} of {ROUNDS} impulses were heard through it",
                    hint="Use a larger --block or --safety, or another --model.",
                    code="live.loop",
                )
            raise LiveError(
                f"{len(rounds)} of {ROUNDS} impulses came back within {TIMEOUT_S:g} s",
                hint="Connect the first output with the first input by a cable, and turn both levels up.",
                code="live.loop",
            )
        state = session.state()
        if state.message:
            hint = "Look whether the device is there: `revithion-stems live --list-devices`; then try again."
            raise error_from_dict({"code": state.code or "live.device", "message": state.message, "hint": hint})
        if (done := session.loop_rounds) is not None and done not in rounds:
            rounds.append(done)
        time.sleep(0.02)
    return rounds
