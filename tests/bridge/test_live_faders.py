"""The faders of the live preview: what moves is told, what does not is not."""

from __future__ import annotations

import pytest

from revithion_bridge.event_hub import EventHub
from revithion_bridge.live_faders import LIVE_STEMS, LiveFaders
from revithion_bridge.messages import LiveChanged, LiveStem
from revithion_stems.catalog import load_catalog
from revithion_stems.errors import RevithionError


def test_faders_move_one_thing_at_a_time():
    published = []
    faders = LiveFaders(publish=published.append)
    assert faders.all() == tuple(LiveStem(stem=stem) for stem in LIVE_STEMS)
    assert faders.set("bass", gain_db=-6.0) == LiveStem(stem="bass", gain_db=-6.0, muted=False)
    assert faders.set("bass", muted=True) == LiveStem(stem="bass", gain_db=-6.0, muted=True)
    assert faders.set("bass", gain_db=-6.0, muted=True) == faders.set("bass")
    assert published == [
        LiveChanged(seq=0, stem="bass", gain_db=-6.0, muted=False),
        LiveChanged(seq=0, stem="bass", gain_db=-6.0, muted=True),
    ]
    assert [fader for fader in faders.all() if fader != LiveStem(stem=fader.stem)] == [faders.set("bass")]


def test_the_hub_numbers_what_they_publish():
    hub, seen = EventHub(first_seq=7), []
    hub.subscribe(lambda published: seen.append((published.seq, published.topic, published.event.seq)))
    LiveFaders(publish=hub.publish).set("vocals", muted=True)
    assert seen == [(7, "live/vocals", 7)]


def test_there_is_no_fader_of_another_name():
    faders = LiveFaders(("vocals",), publish=lambda event: pytest.fail("nothing moved"))
    with pytest.raises(RevithionError, match="'drums'") as caught:
        faders.set("drums", gain_db=0.0)
    assert caught.value.code == "live.stem"


def test_each_stem_of_each_model_has_one():
    assert {stem for spec in load_catalog().models for stem in spec.stems} <= {*LIVE_STEMS, "residual"}
