"""Conversions between the units of audio, and their text for people. Pure functions, any thread."""

from __future__ import annotations

import math


def db_from_ratio(ratio: float) -> float:
    """Amplitude ratio (≥ 0) to decibels: 20·log10(ratio); 0 gives −inf."""
    return 20.0 * math.log10(ratio) if ratio > 0 else -math.inf


def ratio_from_db(gain_db: float) -> float:
    """Decibels to amplitude ratio: 10^(gain_db / 20); −inf gives 0."""
    return 10.0 ** (gain_db / 20.0)


def power_db(ratio: float) -> float:
    """Power ratio (≥ 0) to decibels: 10·log10(ratio); 0 gives −inf, inf gives inf."""
    if ratio <= 0:
        return -math.inf
    return math.inf if math.isinf(ratio) else 10.0 * math.log10(ratio)


def format_duration(seconds: float) -> str:
    """Seconds (≥ 0) as ``m:ss`` below an hour and ``h:mm:ss`` from there."""
    total = round(seconds)
    hours, rest = divmod(total, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


def format_bytes(size: int) -> str:
    """A byte count as text with a binary unit and three significant digits, such as ``166 MiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def format_db(value_db: float) -> str:
    """A level as text with one decimal and its unit; silence is ``-inf dB``."""
    return f"{value_db:.1f} dB" if math.isfinite(value_db) else f"{'-' if value_db < 0 else ''}inf dB"
