"""Offline models used live: the newest of each window, without its edge, faded together, with an honest delay."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from processor_laws import check_laws, check_offline, music_like
from revithion_realtime.block_processor import run_offline
from revithion_realtime.models.look_back import LookBack, with_live_segment
from revithion_stems.audio import Float32
from revithion_stems.catalog import ModelSpec, load_catalog
from revithion_stems.engines import EngineOptions, Separator
from revithion_stems.engines.dsp import load as load_dsp
from revithion_stems.errors import LiveError
from revithion_stems.separator import LoadedModel

RATE = 8_000
SPEC = dataclasses.replace(load_catalog()["dsp"], sample_rate=RATE, segment="1")
DEMUCS = dataclasses.replace(load_catalog()["htdemucs"], sample_rate=RATE, segment="1")
REACH = 300


class Smoother:
    """Stands for a network that looks both ways: at each frame it needs 300 frames before and after.

    Its four stems are moving averages of different lengths, the last one closes the sum. Frames within 300 of either
    end come out otherwise than they would in a longer segment, as with a real model.
    """

    remark = None
    settled = True
    begun = 0

    def __init__(self) -> None:
        self.heard: list[Float32] = []

    def begin(self) -> None:
        self.begun += 1

    def separate_segment(self, mix: Float32) -> Float32:
        self.heard.append(mix.copy())
        return smoothed(mix)


def smoothed(mix: Float32) -> Float32:
    """The stems of :class:`Smoother`, ``[4, 2, frames]``."""
    padded = np.pad(mix.astype(np.float64), ((0, 0), (REACH, REACH)))
    kernels = [np.hanning(2 * half + 1) / (4 * half) for half in (20, 100, REACH)]
    stems = [
        [np.convolve(channel, kernel, "same")[REACH : REACH + mix.shape[1]] for channel in padded] for kernel in kernels
    ]
    return np.stack([*stems, mix - np.sum(stems, axis=0)]).astype(np.float32)


def loaded(*separators: Separator, spec: ModelSpec = SPEC) -> LoadedModel:
    return LoadedModel(
        spec=spec, separators=tuple((one, (1.0,) * len(spec.stems)) for one in separators), engine="test", device="cpu"
    )


def look_back(*, hop_s: float = 0.1, margin_s: float = 0.05) -> LookBack:
    return LookBack(SPEC, lambda: loaded(Smoother()), hop_s=hop_s, margin_s=margin_s)


def test_it_keeps_the_laws() -> None:
    check_laws(look_back, RATE, frames=6_000, sums=True)
    check_offline(look_back, RATE, frames=6_000)


def test_the_dsp_engine_keeps_the_laws_too() -> None:
    """A real engine; its stems ring by design before a sound begins, so that it shows what is cut away."""
    spec = dataclasses.replace(load_catalog()["dsp"], segment="1")
    check_laws(
        lambda: LookBack(spec, lambda: loaded(*load_dsp(spec, (), EngineOptions()), spec=spec), hop_s=0.3),
        spec.sample_rate,
        frames=40_000,
        sums=False,
        examples=2,
    )


@pytest.mark.parametrize("hop_s", [0.0375, 0.1, 0.3])
def test_it_gives_what_the_model_gives_offline_if_the_margin_covers_what_it_looks_ahead(hop_s: float) -> None:
    processor = look_back(hop_s=hop_s, margin_s=REACH / RATE)
    processor.prepare(RATE)
    samples = music_like(12_000, RATE)
    np.testing.assert_allclose(run_offline(processor, samples, [1, 700, 33]), smoothed(samples), atol=1e-5)


def test_without_a_margin_the_edge_is_heard() -> None:
    processor = look_back(margin_s=0.0)
    processor.prepare(RATE)
    samples = music_like(12_000, RATE)
    assert np.abs(run_offline(processor, samples) - smoothed(samples)).max() > 5e-4


def test_its_delay_is_hop_margin_and_fade() -> None:
    processor = LookBack(load_catalog()["spleeter_2stems"], lambda: loaded(Smoother()))
    assert processor.hop_frames == 44_100
    assert processor.latency_frames == round(44_100 * (1.0 + 0.25 + 0.05))


class Switcher(Smoother):
    """Says of each window something else than of the one before: all of the sound is in one stem, then in another."""

    def separate_segment(self, mix: Float32) -> Float32:
        self.heard.append(mix)
        stems = np.zeros((4, *mix.shape), np.float32)
        stems[len(self.heard) % 4] = mix
        return stems


def test_windows_that_disagree_are_faded_together() -> None:
    """50 ms at 8 kHz are 400 frames: no step above 1/400 of the signal, and the sum stands all the while."""
    processor = LookBack(SPEC, lambda: loaded(Switcher()), hop_s=0.1, margin_s=0.0)
    processor.prepare(RATE)
    out = run_offline(processor, np.full((2, 8_000), 0.5, np.float32))[..., :7_000]
    np.testing.assert_allclose(out.sum(axis=0), 0.5, atol=1e-6)
    assert out.max() == 0.5
    after_the_start = out[:, :, 1:] - out[:, :, :-1]
    assert np.abs(after_the_start).max() <= 0.5 / 400 + 1e-6


def test_demucs_gets_the_window_normalised_over_what_was_heard() -> None:
    separator = Smoother()
    processor = LookBack(DEMUCS, lambda: loaded(separator, spec=DEMUCS), hop_s=0.1)
    processor.prepare(RATE)
    samples = 0.01 * music_like(4_000, RATE) + np.float32(0.002)
    run_offline(processor, samples)
    first, fourth = separator.heard[0], separator.heard[3]
    assert first.shape == (2, 8_000)
    assert not first[:, :-800].any()
    for window, frames in ((first, 800), (fourth, 3_200)):
        mono = window[:, -frames:].mean(axis=0)
        assert (mono.mean(), mono.std()) == pytest.approx((0.0, 1.0), abs=1e-4)


def test_demucs_stems_come_back_at_the_level_of_the_input() -> None:
    """The smoother is linear, so that normalising and back changes nothing where there is no offset."""
    processor = LookBack(DEMUCS, lambda: loaded(Smoother(), spec=DEMUCS), hop_s=0.1, margin_s=0.05)
    processor.prepare(RATE)
    random = np.random.default_rng(3).uniform(-0.1, 0.1, (2, 1_500)).astype(np.float32)
    samples = np.concatenate([random, -random], axis=1)
    out = run_offline(processor, samples)
    assert np.abs(out[:, :, 700:2_000] - smoothed(samples)[:, :, 700:2_000]).max() < 2e-3


def test_the_networks_of_a_bag_are_averaged_by_their_weights() -> None:
    """As htdemucs_ft does: here one network speaks for the first two stems, the other for the rest."""

    class Louder(Smoother):
        def separate_segment(self, mix: Float32) -> Float32:
            return 3 * smoothed(mix)

    bag = LoadedModel(
        spec=SPEC,
        separators=((Smoother(), (1.0, 1.0, 0.0, 0.5)), (Louder(), (0.0, 0.0, 1.0, 0.5))),
        engine="test",
        device="cpu",
    )
    alone, together = (LookBack(SPEC, lambda model=model: model, hop_s=0.1) for model in (loaded(Smoother()), bag))
    samples = music_like(4_000, RATE)
    for processor in (alone, together):
        processor.prepare(RATE)
    gains = np.array([1, 1, 3, 2], np.float32)[:, None, None]
    np.testing.assert_allclose(run_offline(together, samples), gains * run_offline(alone, samples), atol=1e-5)


def test_silence_is_not_even_computed() -> None:
    separator = Smoother()
    processor = LookBack(SPEC, lambda: loaded(separator), hop_s=0.1)
    processor.prepare(RATE)
    assert not run_offline(processor, np.zeros((2, 3_000), np.float32)).any()
    assert separator.heard == []


def test_each_reset_begins_the_model_anew_and_it_is_loaded_once() -> None:
    models: list[Smoother] = []

    def load() -> LoadedModel:
        models.append(Smoother())
        return loaded(models[-1])

    processor = LookBack(SPEC, load, hop_s=0.1)
    processor.prepare(RATE)
    processor.prepare(RATE)
    processor.reset()
    assert [model.begun for model in models] == [3]


@pytest.mark.parametrize(
    ("hop_s", "columns"),
    [(0.25, 192), (1.0, 192), (2.0, 256), (10.0, 512)],  # 3 s before a hop and 0.3 s; never more than offline
)
def test_spleeter_hears_a_few_seconds_in_whole_steps_of_its_networks(hop_s: float, columns: int) -> None:
    spec = load_catalog()["spleeter_2stems"]
    live = with_live_segment(spec, hop_s)
    assert live.segment_frames == (columns - 1) * 1_024
    assert dataclasses.replace(live, segment=spec.segment) == spec
    assert LookBack(live, lambda: loaded(Smoother()), hop_s=hop_s).hop_frames == hop_s * 44_100


def test_a_model_whose_segment_is_fixed_keeps_it() -> None:
    spec = load_catalog()["htdemucs"]
    assert with_live_segment(spec, 1.0) == spec


def test_a_model_that_takes_any_length_hears_twelve_seconds_at_most() -> None:
    spec = with_live_segment(load_catalog()["hdemucs_mmi"], 1.0)
    separator = Smoother()
    processor = LookBack(spec, lambda: loaded(separator, spec=spec), hop_s=1.0)
    processor.prepare(44_100)
    processor.process(np.ones((2, 44_100), np.float32), np.empty((4, 2, 44_100), np.float32))
    assert [window.shape for window in separator.heard] == [(2, 12 * 44_100)]


def test_a_hop_that_is_longer_than_the_segment_is_refused() -> None:
    with pytest.raises(LiveError, match="a hop of 9 s") as caught:
        LookBack(load_catalog()["htdemucs"], lambda: loaded(Smoother()), hop_s=9.0)
    assert caught.value.code == "live.options"
    assert "7.50 s" in caught.value.hint


def test_it_plays_at_its_own_rate_only() -> None:
    with pytest.raises(LiveError, match="works at 8000 Hz, not at 48000 Hz"):
        look_back().prepare(48_000)
