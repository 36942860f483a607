"""What makes an MP4 file a ``.stem.mp4``, which players of music play as the mix and DJ programs as four stems.

Five stereo streams of equal length; the mix comes first and is the only one that is enabled. Names and colours stand as
JSON in a box of type ``stem`` in ``moov/udta``, with settings of a compressor and a limiter for the sum of the stems,
which are off: the stems add up to the mix as they are.

Source: Native Instruments' Stems format, as its own tool writes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from revithion_stems.mp4_boxes import box
from revithion_stems.stem_colours import stem_colour

_MASTERING_DSP = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.5,
        "output_gain": 0.5,
        "threshold": 0.0,
        "ratio": 3.0,
        "attack": 0.003,
        "release": 0.3,
        "hp_cutoff": 300,
        "dry_wet": 50,
    },
    "limiter": {"enabled": False, "threshold": 0.0, "ceiling": -0.35, "release": 0.05},
}
"""What Native Instruments' tool writes, but off."""


def stem_box(names: Sequence[str]) -> bytes:
    """The ``stem`` box for stems of these names, in the order of their streams after the mix."""
    stems = [{"color": stem_colour(name), "name": name} for name in names]
    content = {"version": 1, "mastering_dsp": _MASTERING_DSP, "stems": stems}
    return box(b"stem", json.dumps(content).encode("utf-8"))
