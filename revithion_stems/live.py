"""The live preview as data: what is asked of it, how its strips stand, what it reports. Pure; nothing here plays."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from revithion_stems.errors import LiveError

LIVE_RATES = (44_100, 48_000, 88_200, 96_000)
"""Device rates that the preview plays at, in Hz."""

SMALLEST_BLOCK = 16
LARGEST_BLOCK = 4_096
"""Frames of one callback; 32 to 2048 are usual."""

LOWEST_DB = -60.0
"""A fader or a band that stands here, or lower, is silent: a kill."""

HIGHEST_DB = 12.0
RAMP_S = 0.005
"""How long a fader takes to where it was moved, so that it does not click."""


def check_live_rate(sample_rate: int, *, origin: str = "sample_rate") -> None:
    """Raises :class:`LiveError` ``live.rate`` unless the preview plays at that rate, in Hz; ``origin`` is named."""
    if sample_rate not in LIVE_RATES:
        rates = ", ".join(map(str, LIVE_RATES))
        raise LiveError(
            f"{origin}: {sample_rate} Hz; {rates} are possible",
            hint=f"Set the device to one of these, or try --rate {LIVE_RATES[1]}.",
            code="live.rate",
        )


def check_gain_db(gain_db: float, *, origin: str = "gain_db") -> None:
    """Raises :class:`LiveError` ``live.value`` unless a fader or a band can stand there; ``origin`` is named."""
    if not LOWEST_DB <= gain_db <= HIGHEST_DB:
        raise _wrong(f"{origin}: {gain_db}; {LOWEST_DB:g} to {HIGHEST_DB:g} dB are possible", code="live.value")


class LiveOutputs(enum.Enum):
    """What the device's outputs carry: the monitor mix, one stereo pair per stem, or the mix and then the pairs."""

    MIX = "mix"
    STEMS = "stems"
    BOTH = "both"

    def names(self, stems: Sequence[str]) -> tuple[str, ...]:
        """Names of the output channels in their order, such as ``mix_left``."""
        mix = () if self is LiveOutputs.STEMS else ("mix",)
        pairs = () if self is LiveOutputs.MIX else tuple(stems)
        return tuple(f"{bus}_{side}" for bus in (*mix, *pairs) for side in ("left", "right"))


class Tier(enum.Enum):
    """What a stem is played from just now."""

    DRY = "dry"
    PREVIEW = "preview"
    MASTER = "master"


class LivePhase(enum.Enum):
    """Where a live session stands. ``LOST``: the device is gone, and is looked for; ``ENDED`` is final."""

    STARTING = "starting"
    PLAYING = "playing"
    LOST = "lost"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live session is to run.

    Attributes:
        model: ``preview`` (our causal network), ``dsp`` (no network), an offline model of the catalog that is then used
            with look-back (``spleeter_2stems``), or the path of a causal network (``.onnx``).
        device: ``default``, ``jack`` (JACK itself: named ports, freewheel), ``none`` (no sound: a clock), or the name
            of a device as ``live --list-devices`` prints it, or its beginning.
        input_device: The same for the input, if it is another one; empty for ``device``.
        source: Path of a file that is played as if it were live; empty for the device's input.
        loop: Whether the file begins again at its end; else the session ends with it.
        outputs: What the outputs carry.
        sample_rate: Hz, or 0 for the device's own.
        block_frames: Frames of a callback, or 0 for the device's own.
        safety_frames: Frames that inference may be later than its hop takes, or −1 for one block.
        connect_from: JACK ports to be connected to our inputs, in their order.
        connect_to: JACK ports to be connected to our outputs, in their order.
        client_name: What the client is called in JACK.
        look_back_hop_s: With an offline model: how often it runs; its latency follows.

    Raises:
        LiveError: ``live.options``: a value is out of range.
    """

    model: str = "preview"
    device: str = "default"
    input_device: str = ""
    source: str = ""
    loop: bool = False
    outputs: LiveOutputs = LiveOutputs.MIX
    sample_rate: int = 0
    block_frames: int = 256
    safety_frames: int = -1
    connect_from: tuple[str, ...] = ()
    connect_to: tuple[str, ...] = ()
    client_name: str = "revithion-stems"
    look_back_hop_s: float = 1.0

    def __post_init__(self) -> None:
        if self.sample_rate:
            check_live_rate(self.sample_rate)
        if self.block_frames and not SMALLEST_BLOCK <= self.block_frames <= LARGEST_BLOCK:
            raise _wrong(f"block_frames: {self.block_frames}; {SMALLEST_BLOCK} to {LARGEST_BLOCK} are possible")
        if not -1 <= self.safety_frames <= 96_000:
            raise _wrong(f"safety_frames: {self.safety_frames}; -1 to 96000 are possible")
        if not 0.1 <= self.look_back_hop_s <= 10.0:
            raise _wrong(f"look_back_hop_s: {self.look_back_hop_s}; 0.1 to 10 are possible")


@dataclass(frozen=True, slots=True, kw_only=True)
class StripSettings:
    """How the strip of a stem stands.

    Attributes:
        gain_db: Its fader, −60 (silent) to 12.
        pan: Balance, −1 (left) to 1 (right); in the middle both channels are as they are.
        muted: Whether it is silent.
        solo: Whether it is heard alone, with others that are.
        low_db: Low band of its equaliser, −60 (killed) to 12.
        mid_db: Middle band.
        high_db: High band.
        filter: −1 (low-pass closed) to 1 (high-pass closed); 0 is open.

    Raises:
        LiveError: ``live.value``: a value is out of range or not a number.
    """

    gain_db: float = 0.0
    pan: float = 0.0
    muted: bool = False
    solo: bool = False
    low_db: float = 0.0
    mid_db: float = 0.0
    high_db: float = 0.0
    filter: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain_db", "low_db", "mid_db", "high_db"):
            check_gain_db(getattr(self, name), origin=name)
        for name in ("pan", "filter"):
            value = getattr(self, name)
            if not -1.0 <= value <= 1.0:
                raise _wrong(f"{name}: {value}; -1 to 1 are possible", code="live.value")


@dataclass(frozen=True, slots=True, kw_only=True)
class StripChange:
    """New values for a strip; None leaves one as it is."""

    gain_db: float | None = None
    pan: float | None = None
    muted: bool | None = None
    solo: bool | None = None
    low_db: float | None = None
    mid_db: float | None = None
    high_db: float | None = None
    filter: float | None = None

    def apply(self, before: StripSettings) -> StripSettings:
        """The settings with the change made.

        Raises:
            LiveError: ``live.value``.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return dataclasses.replace(before, **{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyBudget:
    """Where the time goes, in frames at the device's rate.

    Attributes:
        sample_rate: Hz.
        device_frames: From the input connector to the callback and from there to the output, as the driver says it, or
            as it was measured.
        algorithm_frames: What the model needs to have heard, resampling included.
        queue_frames: The room that inference has in its own process: a hop, a crossfade, and safety.
        device_measured: Whether ``device_frames`` was measured through a loop.
    """

    sample_rate: int
    device_frames: int
    algorithm_frames: int
    queue_frames: int
    device_measured: bool = False

    @property
    def path_frames(self) -> int:
        """Algorithm and queue: by how much the stems are later than the callback's input."""
        return self.algorithm_frames + self.queue_frames

    @property
    def total_frames(self) -> int:
        """All of it."""
        return self.device_frames + self.path_frames

    def milliseconds(self, frames: int) -> float:
        """Frames as a time."""
        return 1_000.0 * frames / self.sample_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCounters:
    """What happened since the session began.

    Attributes:
        frames: Played by the device.
        blocks: Callbacks.
        late_blocks: Callbacks in which some of the sound was dry because inference was late.
        late_times: How often it fell back to dry.
        xruns: Overflows and underflows that the driver told of, and blocks for which a file was not read in time.
        device_losses: How often the device went away.
        inference_restarts: How often the process of inference ended and was started again.
        skipped_frames: Input that inference left out to catch up.
        faults: Callbacks that a bug ended; they are silent.
        callback_ms: Longest callback, in the last second or so.
        callback_load: Share of its time that the callback needs, 0 to 1, averaged.
        inference_load: Share of real time that inference needs, 0 to 1, averaged.
        recorder_lost_frames: Frames that the recorder came too late for; they are silent in the files.
    """

    frames: int = 0
    blocks: int = 0
    late_blocks: int = 0
    late_times: int = 0
    xruns: int = 0
    device_losses: int = 0
    inference_restarts: int = 0
    skipped_frames: int = 0
    faults: int = 0
    callback_ms: float = 0.0
    callback_load: float = 0.0
    inference_load: float = 0.0
    recorder_lost_frames: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StripState:
    """A strip as it is heard.

    Attributes:
        stem: Name of the stem.
        settings: How it stands.
        peak_left_db: Level after the fader, dBFS, falling back slowly; −120 for silence.
        peak_right_db: The same, right.
        tier: What it is played from.
    """

    stem: str
    settings: StripSettings
    peak_left_db: float = -120.0
    peak_right_db: float = -120.0
    tier: Tier = Tier.DRY


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveState:
    """A live session as it stands.

    Attributes:
        phase: Where it stands.
        model: The model's name.
        device: Name of the device, with its driver.
        block_frames: Frames of a callback; 0 where they change.
        budget: Where the time goes.
        strips: One for each stem.
        mix_peak_left_db: Level of the monitor mix, dBFS.
        mix_peak_right_db: The same, right.
        monitor_gain_db: Gain of the monitor mix.
        counters: What happened.
        recording: Folder that is recorded to, or empty.
        scenes: Names of the scenes that are kept.
        message: What people should know: why the device is lost, why the session or its take ended; or empty.
        code: Of the error behind the message, if the session or its take ended by one; else empty.
    """

    phase: LivePhase
    model: str
    device: str
    block_frames: int
    budget: LatencyBudget
    strips: tuple[StripState, ...]
    mix_peak_left_db: float = -120.0
    mix_peak_right_db: float = -120.0
    monitor_gain_db: float = 0.0
    counters: LiveCounters = LiveCounters()
    recording: str = ""
    scenes: tuple[str, ...] = ()
    message: str = ""
    code: str = ""


class LiveControl(Protocol):
    """A live session in the hands of a door: terminal, MIDI, OSC, ZeroMQ. Any thread; no method waits for audio."""

    def state(self) -> LiveState:
        """How it stands now."""
        ...

    def set_strip(self, stem: str, change: StripChange) -> StripSettings:
        """Moves controls of a strip, all at the same frame; returns how it stands then.

        Raises:
            LiveError: ``live.stem``, ``live.value``.
        """
        ...

    def set_monitor_gain(self, gain_db: float) -> None:
        """Moves the fader of the monitor mix.

        Raises:
            LiveError: ``live.value``.
        """
        ...

    def store_scene(self, name: str) -> None:
        """Keeps how all strips stand under a name, for later sessions too.

        Raises:
            LiveError: ``live.scene``: not a name, or it can't be written.
        """
        ...

    def recall_scene(self, name: str) -> None:
        """Moves all strips to how they stood in a scene, at the same frame.

        Raises:
            LiveError: ``live.scene``: there is none of that name.
        """
        ...

    def start_recording(self, folder: str) -> str:
        """Records the stems, before their faders, into a new take below a folder; returns the take's folder.

        Raises:
            LiveError: ``live.recording``: there is a take already, or the folder can't be written.
        """
        ...

    def stop_recording(self) -> tuple[str, ...]:
        """Ends the take; returns its files, none if there was no take.

        Raises:
            LiveError: ``live.recording``: the files could not be finished.
        """
        ...

    def stop(self) -> None:
        """Ends the session; again, it does nothing."""
        ...


def _wrong(reason: str, *, code: str = "live.options") -> LiveError:
    return LiveError(reason, hint="See `revithion-stems live --help`.", code=code)
