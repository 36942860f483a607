"""The causal network: it hears no future, goes on from chunk to chunk, and its stems are the mix."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.models.causal_preview import CausalPreview, CausalPreviewConfig
from revithion_stems.models.spectrogram import columns_first, synthesise
from revithion_stems.training.network_cost import gflop
from revithion_stems.training.separating import separate_song

SIZES: dict[str, Any] = {
    "sample_rate": 8_000,
    "analysis_frames": 256,
    "synthesis_frames": 128,
    "hop_frames": 64,
    "channels": 8,
    "blocks": 2,
    "bands": ((8, 4), (4, 8), (1, 65)),
}

CLOSE: dict[str, Any] = {"rtol": 0.0, "atol": 2e-5}
"""Float32 through a network whose last weights are eight times as large as they begin; what differs, does by 1e-3."""


def network(seed: int = 0, **options: Any) -> CausalPreview:
    torch.manual_seed(seed)
    made = CausalPreview(CausalPreviewConfig(**{**SIZES, **options})).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("decoder"):
                parameter.mul_(8)  # so that masks are not all near 1/S
    return made


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2


def columns_of_noise(net: CausalPreview, hops: int, *, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return columns_first(net.config.design, noise(batch, 2, hops * net.config.hop_frames, seed=seed))


@given(hops=st.integers(2, 30), cut=st.floats(0, 1), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_what_comes_later_changes_nothing_before(hops: int, cut: float, seed: int) -> None:
    net = network()
    columns = columns_of_noise(net, hops, seed=seed)
    at = min(hops - 1, int(cut * hops))
    changed = columns.clone()
    changed[:, at:] = columns_of_noise(net, hops, seed=seed + 100)[:, at:] * 30
    with torch.no_grad():
        (ours, _), (theirs, _) = net(columns), net(changed)
    torch.testing.assert_close(ours[:, :at], theirs[:, :at], **CLOSE)
    assert float((ours[:, at:] - theirs[:, at:]).abs().max()) > 1e-3  # and it does hear the present


def test_samples_are_decided_within_the_delay() -> None:
    """Of the whole chain: after ``latency_frames`` nothing that comes can change a frame."""
    net = network()
    frames, at = 3_000, 1_777
    mix = noise(2, frames)
    later = mix.clone()
    later[:, at:] = noise(2, frames - at, seed=1) * 10
    ours, theirs = (separate_song(net, signal, chunk_frames=frames) for signal in (mix, later))
    decided = at - net.config.design.latency_frames
    torch.testing.assert_close(ours[..., :decided], theirs[..., :decided], **CLOSE)
    assert float((ours[..., decided : at + 1] - theirs[..., decided : at + 1]).abs().max()) > 1e-3


@given(cuts=st.lists(st.integers(1, 24), max_size=4), batch=st.integers(1, 3), seed=st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_chunks_with_their_state_are_the_whole(cuts: list[int], batch: int, seed: int) -> None:
    net = network().double()  # in float32 the sums of other shapes differ by up to 2e-5, which is not what is asked
    columns = columns_of_noise(net, 25, batch=batch, seed=seed).to(torch.complex128)
    with torch.no_grad():
        whole, last = net(columns)
        state, parts = None, []
        edges = [0, *sorted(set(cuts)), 25]
        for start, stop in itertools.pairwise(edges):
            masks, state = net(columns[:, start:stop], state)
            parts.append(masks)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("chunk_frames", [64, 500, 1_024, 5_000])
@pytest.mark.parametrize("frames", [1, 64, 3_001])
def test_a_song_in_chunks_is_the_song_at_once(chunk_frames: int, frames: int) -> None:
    net = network()
    mix = noise(2, frames)
    stems = separate_song(net, mix, chunk_frames=chunk_frames)
    assert stems.shape == (4, 2, frames)
    torch.testing.assert_close(stems.sum(0), mix, rtol=0, atol=1e-5)
    design = net.config.design
    padded = torch.nn.functional.pad(mix, (0, design.synthesis_frames))
    columns = columns_first(design, padded[None])
    with torch.no_grad():
        masks, _ = net(columns)
    spectra = (masks * columns.unsqueeze(2)).permute(0, 2, 3, 1, 4)
    torch.testing.assert_close(stems, synthesise(design, spectra, frames)[0], rtol=0, atol=1e-5)


@given(level=st.sampled_from([0.0, 1e-6, 1.0, 1e3]), seed=st.integers(0, 9))
@settings(max_examples=12, deadline=None)
def test_masks_sum_to_one_at_any_level(level: float, seed: int) -> None:
    net = network(seed)
    with torch.no_grad():
        masks, _ = net(columns_of_noise(net, 12, batch=2, seed=seed) * level)
    assert masks.shape == (2, 12, 4, 2, net.config.design.bins)
    assert float(masks.min()) >= 0
    torch.testing.assert_close(masks.sum(2), torch.ones_like(masks[:, :, 0]), rtol=0, atol=1e-5)


def test_what_is_together_in_a_batch_does_not_meet() -> None:
    net = network()
    columns = columns_of_noise(net, 10, batch=3)
    with torch.no_grad():
        together, state = net(columns)
        for index in range(3):
            alone, own = net(columns[index : index + 1])
            torch.testing.assert_close(together[index], alone[0], **CLOSE)
            torch.testing.assert_close(state.unflatten(1, (3, -1))[:, index], own, **CLOSE)


def test_left_and_right_are_told_apart() -> None:
    net = network()
    columns = torch.zeros_like(columns_of_noise(net, 6))
    columns[:, :, 0] = columns_of_noise(net, 6)[:, :, 0]
    with torch.no_grad():
        (left, _), (right, _) = net(columns), net(columns.flip(2))
    assert float((left - right).abs().max()) > 1e-3


def test_every_parameter_is_used() -> None:
    net = network()
    masks, _ = net(columns_of_noise(net, 8))
    (masks * noise(*masks.shape)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_the_default_size_is_what_a_cpu_can_follow() -> None:
    config = CausalPreviewConfig()
    net = CausalPreview(config)
    assert sum(parameter.numel() for parameter in net.parameters()) <= 5_000_000
    gmac = gflop(net, config.sample_rate, sample_rate=config.sample_rate) / 2  # of one second
    assert 1.0 <= gmac <= 3.5
    # Counted by hand, per hop: GRU and both mixings of each block, both ends of each band.
    bands, c, s = sum(n for n, _ in config.bands), config.channels, 2 * len(config.stems)
    block = (
        bands * 6 * c * c + 2 * c * bands * bands * config.band_expansion + 2 * bands * c * c * config.channel_expansion
    )
    ends = config.design.bins * c * (4 + s) + bands * c * c
    by_hand = (config.blocks * block + ends) * config.sample_rate / config.hop_frames / 1e9
    assert gmac == pytest.approx(by_hand, rel=0.03)


def test_bands_must_cover_all_bins() -> None:
    with pytest.raises(ValueError, match="129 bins"):
        network(bands=((1, 100),))
