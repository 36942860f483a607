"""What stands around the strips of the terminal UI, as text: title, latency budget, loads, counters, scenes. Pure."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from revithion_realtime.control.strip_column import decibels
from revithion_stems.live import LatencyBudget, LivePhase, LiveState

SCENES = 9
"""Scenes that have a key."""

_BUSY = 0.8
_OFTEN_LATE = 0.1
_JUDGED_AFTER_S = 5.0  # of play: a start is bumpy on any machine
_LOOKS_BACK_S = 0.3  # no causal model needs so long
_PHASES = {
    LivePhase.STARTING: "bold yellow",
    LivePhase.PLAYING: "bold green",
    LivePhase.LOST: "bold white on red",
    LivePhase.ENDED: "bold red",
}


def title_line(state: LiveState) -> Text:
    """Phase, model, device and recording."""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f" {state.phase.value.upper()} ", _PHASES[state.phase])
    line.append(f" {state.model} · {state.device}")
    if state.recording:
        line.append("  ● REC ", "bold red").append(state.recording)
    return line


def advice(state: LiveState) -> str:
    """What to do where the model does not keep up with this machine; empty where it does.

    Told by late blocks since the beginning and not by the load of inference, which is high now and then in good health.
    """
    counters = state.counters
    share = counters.late_blocks / max(1, counters.blocks)
    if share < _OFTEN_LATE or counters.frames < _JUDGED_AFTER_S * state.budget.sample_rate:
        return ""
    looks_back = state.budget.algorithm_frames > _LOOKS_BACK_S * state.budget.sample_rate
    option = "--look-back" if looks_back else "--safety"
    return f"{share:.0%} dry: too slow for this machine; a larger {option} or a simpler --model"


def budget_table(budget: LatencyBudget, block_frames: int) -> Table:
    """Where the time goes, in frames and ms."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    table.add_row(Text("latency", "bold"), Text("frames", "dim"), Text("ms", "dim"))
    rows = (
        ("device, measured" if budget.device_measured else "device", budget.device_frames, ""),
        ("algorithm", budget.algorithm_frames, ""),
        ("queue", budget.queue_frames, ""),
        ("total", budget.total_frames, "bold"),
    )
    for name, frames, style in rows:
        table.add_row(Text(name, style), Text(str(frames), style), Text(f"{budget.milliseconds(frames):.1f}", style))
    block = f"blocks of {block_frames}" if block_frames else "blocks that change"
    table.add_row(Text(f"{budget.sample_rate} Hz, {block}", "dim"))
    return table


def counter_table(state: LiveState) -> Table:
    """Loads, what went wrong so far, and the monitor mix."""
    counters = state.counters
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column()
    table.add_column(justify="right")
    block_ms = 1_000.0 * state.block_frames / state.budget.sample_rate
    limit = f" of {block_ms:.2f}" if state.block_frames else ""
    table.add_row("callback", _load(counters.callback_load))
    table.add_row("longest callback", f"{counters.callback_ms:.2f}{limit} ms")
    table.add_row("inference", _load(counters.inference_load))
    table.add_row("late blocks", _count(counters.late_blocks, f" ({counters.late_times} ×)"))
    lost = counters.device_losses + counters.inference_restarts + counters.faults
    table.add_row("xruns / restarts", _count(counters.xruns + lost, f" ({counters.xruns} / {lost})"))
    table.add_row("not recorded", _count(counters.recorder_lost_frames, " frames"))
    peak = max(state.mix_peak_left_db, state.mix_peak_right_db)
    table.add_row("mix", f"{decibels(state.monitor_gain_db)}, peak {peak:.0f}")
    return table


def scene_line(state: LiveState) -> Text:
    """The scenes of the keys 1 to 9, and how many there are besides."""
    line = Text("scenes ", "dim", no_wrap=True)
    keys = [str(number) for number in range(1, SCENES + 1)]
    for key in keys:
        line.append(f" {key} ", "bold black on green" if key in state.scenes else "dim")
    others = [name for name in state.scenes if name not in keys]
    return line.append(f"  and {', '.join(others)}" if others else "", "dim")


def _load(share: float) -> Text:
    return Text(f"{100 * share:.0f} %", "bold red" if share > _BUSY else "")


def _count(number: int, more: str) -> Text:
    return Text(f"{number}{more}", "bold yellow") if number else Text("0", "dim")
