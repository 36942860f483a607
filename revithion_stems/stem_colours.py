"""One colour per stem, the same wherever stems are shown: in players' files, on tracks and on buses."""

from __future__ import annotations

STEM_COLOURS = {
    "drums": "#009E73",
    "bass": "#D55E00",
    "other": "#CC79A7",
    "vocals": "#56B4E9",
    "guitar": "#E69F00",
    "piano": "#F0E442",
    "accompaniment": "#0072B2",
}
"""Stem → ``#RRGGBB``. Source: Okabe and Ito, Color Universal Design (2008): eight colours that colour-blind people
tell apart."""

_UNNAMED = "#999999"


def stem_colour(name: str) -> str:
    """The colour of a stem as ``#RRGGBB``; grey for one that has none of its own."""
    return STEM_COLOURS.get(name.lower(), _UNNAMED)
