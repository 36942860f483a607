"""What each container holds, and which words a request gets that does not fit."""

from __future__ import annotations

import pytest

from revithion_stems.errors import RequestError
from revithion_stems.output_format import BitDepth, Container, OutputFormat

FOUR = ("drums", "bass", "other", "vocals")


@pytest.mark.parametrize(
    ("container", "default", "others", "lossy"),
    [
        ("wav", BitDepth.FLOAT32, {BitDepth.INT24, BitDepth.INT16}, False),
        ("flac", BitDepth.INT24, {BitDepth.INT16}, False),
        ("m4a", None, {BitDepth.INT24, BitDepth.INT16}, True),
        ("stem.mp4", None, {BitDepth.INT24, BitDepth.INT16}, True),
        ("mp3", None, set(), True),
        ("ogg", None, set(), True),
        ("opus", None, set(), True),
    ],
)
def test_bit_depths(container, default, others, lossy):
    chosen = OutputFormat(container=Container(container))
    assert (chosen.bit_depth, chosen.lossy) == (default, lossy)
    for depth in BitDepth:
        if depth in others or depth is default:
            found = OutputFormat(container=Container(container), bit_depth=depth)
            assert not found.lossy
            assert found.grid_bits == {"16": 15, "24": 23, "32f": 24}[depth.value]
            assert found.clips == (depth is not BitDepth.FLOAT32)
        else:
            with pytest.raises(RequestError, match="it has") as caught:
                OutputFormat(container=Container(container), bit_depth=depth)
            assert caught.value.code == "request.bit_depth"
    assert chosen.clips or container == "wav"


@pytest.mark.parametrize(
    ("container", "depth", "channels", "rate", "reason"),
    [
        ("mp3", None, 2, 48_000, None),
        ("mp3", None, 1, 96_000, "96000 Hz: its rates are 8000, "),
        ("mp3", None, 3, 96_000, "3 channels: it has at most 2"),
        ("opus", None, 2, 768_000, None),
        ("opus", None, 6, 48_000, "6 channels: it has at most 2"),
        ("m4a", None, 2, 96_000, None),
        ("m4a", None, 2, 192_000, "192000 Hz: its rates are"),
        ("m4a", "24", 2, 192_000, None),
        ("stem.mp4", "16", 1, 44_100, None),
        ("stem.mp4", None, 3, 44_100, "3 channels: it has at most 2"),
        ("flac", None, 8, 655_360, "655360 Hz: it goes up to 655350 Hz"),
        ("wav", None, 8, 768_000, None),
    ],
)
def test_sources_that_do_not_fit_are_refused_for_the_right_reason(container, depth, channels, rate, reason):
    chosen = OutputFormat(container=Container(container), bit_depth=BitDepth(depth) if depth else None)
    if reason is None:
        chosen.check_source(channels=channels, sample_rate=rate)
        return
    with pytest.raises(RequestError) as caught:
        chosen.check_source(channels=channels, sample_rate=rate)
    assert reason in caught.value.message
    assert caught.value.code == "request.format"


@pytest.mark.parametrize("names", [("vocals", "no_vocals"), (*FOUR, "guitar", "piano"), (*FOUR, "residual"), ()])
def test_a_stem_mp4_has_four_stems(names):
    chosen = OutputFormat(container=Container.STEM_MP4)
    chosen.check_stems(FOUR)
    OutputFormat().check_stems(names)
    with pytest.raises(RequestError, match=f"holds 4 stems, not {len(names)}") as caught:
        chosen.check_stems(names)
    assert caught.value.code == "request.format"


def test_one_file_holds_all_streams_of_a_stem_mp4():
    assert {c.value: OutputFormat(container=c).tracks_per_file for c in Container} == {
        **{c.value: 1 for c in Container},
        "stem.mp4": 5,
    }


@pytest.mark.parametrize(
    ("frames", "rate", "stored"), [(1, 768_000, 1), (441, 44_100, 480), (3, 96_000, 2), (1, 1, 48_000)]
)
def test_opus_is_stored_at_48_khz(frames, rate, stored):
    assert OutputFormat(container=Container.OPUS).stored_length(frames=frames, sample_rate=rate) == (stored, 48_000)
    assert OutputFormat().stored_length(frames=frames, sample_rate=rate) == (frames, rate)
