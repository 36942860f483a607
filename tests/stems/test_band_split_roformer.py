"""Band-Split and Mel-Band RoFormer by their laws; ``test_checkpoint_layouts`` has a plain computation of both."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from revithion_stems.errors import ConfigError
from revithion_stems.models.architectures import build, options_of
from revithion_stems.models.band_split_roformer import BandSplitRoformer
from revithion_stems.models.bands import ROFORMER_WIDTHS, Bands, mel_bands, mel_frequencies
from revithion_stems.models.masked_spectrogram import BandMap, samples_of, spectrum_of
from revithion_stems.models.rotary_transformer import rotation_of, standard_turns, turned

# One item in a batch is computed by other kernels than alone.
BATCH_TOLERANCE = 1e-5
# There and back through a transform of 128 frames in float32.
TRANSFORM_TOLERANCE = 1e-5

KINDS = ["bs_roformer", "mel_band_roformer"]


def small(kind: str, **changes: object) -> BandSplitRoformer:
    torch.manual_seed(5)
    options: dict[str, object] = {
        "stems": ["drums", "bass", "other"],
        "fft_frames": 128,
        "hop_frames": 32,
        "dim": 12,
        "depth": 2,
        "heads": 2,
        "head_dim": 6,
    }
    options |= {"widths": [1, 4, 12, 48]} if kind == "bs_roformer" else {"bands": 5}
    network = build(kind, options | changes)
    assert isinstance(network, BandSplitRoformer)
    return network.eval()


def noise(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2, frames, generator=torch.Generator().manual_seed(seed)) * 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 63, 64, 65, 128, 1000])
def test_stems_are_as_long_as_the_mix(kind: str, frames: int) -> None:
    with torch.inference_mode():
        stems = small(kind)(noise(1, frames))
    assert stems.shape == (1, 3, 2, frames)
    assert stems.isfinite().all()
    assert stems.any()


@pytest.mark.parametrize("kind", KINDS)
def test_silence_stays_silent(kind: str) -> None:
    with torch.inference_mode():
        assert not small(kind)(torch.zeros(1, 2, 500)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_a_batch_do_not_know_each_other(kind: str) -> None:
    network, mix = small(kind), noise(3, 300)
    with torch.inference_mode():
        together, alone = network(mix), network(mix[1:2])
    assert (together[1:2] - alone).abs().max() < BATCH_TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_a_louder_mix_gives_louder_stems_and_nothing_else(kind: str) -> None:
    network, mix = small(kind), noise(1, 300)
    with torch.inference_mode():  # the first norm takes the level out of the masks; a power of two is exact
        assert torch.equal(network(mix * 4), network(mix) * 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_every_parameter_gets_a_gradient(kind: str, layers: int) -> None:
    network = small(kind, time_layers=layers, dropout=0.1, attention_dropout=0.1).train()
    network(noise(1, 400)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_silence_has_finite_gradients(kind: str) -> None:
    network = small(kind).train()
    mix = noise(1, 400)
    mix[..., 200:] = 0
    network(mix).abs().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_comes_near(kind: str) -> None:
    network, mix = small(kind), noise(1, 400)
    with torch.inference_mode():
        exact = network(mix)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(mix)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().sum() < 1e-2 * exact.square().sum()  # 8 bits, through some ten layers


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_is_built_again_from_its_options(kind: str) -> None:
    network = small(kind)
    again = build(kind, json.loads(json.dumps(options_of(network.config))))
    again.load_state_dict(network.state_dict())
    assert again.config == network.config


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("bs_roformer", {"widths": [1024]}, "1025"),
        ("bs_roformer", {"widths": [0, 1025]}, "bands"),
        ("bs_roformer", {"head_dim": 7}, "head_dim"),
        ("bs_roformer", {"hop_frames": 1024}, "hop_frames"),
        ("bs_roformer", {"bands": 60}, "bands"),
        ("bs_roformer", {"dropout": 1.0}, "dropout"),
        ("mel_band_roformer", {"bands": 600}, "600"),
        ("mel_band_roformer", {"bands": 1}, "bands"),
    ],
)
def test_what_cannot_be_is_a_configuration_error(kind: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(kind, options)


def test_attention_sees_distances_only() -> None:
    rotation = rotation_of(standard_turns(8), 40)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(2))
    products = [
        [float((turned(q, rotation[a : a + 1]) * turned(k, rotation[b : b + 1])).sum()) for b in (a, a + 3)]
        for a in (0, 7, 30)
    ]
    assert products[0] == pytest.approx(products[1], abs=1e-5)
    assert products[0] == pytest.approx(products[2], abs=1e-5)
    assert products[0][0] == pytest.approx(float((q * k).sum()), abs=1e-5)
    assert abs(products[0][0] - products[0][1]) > 1e-3


def test_the_slaney_scale_is_linear_then_logarithmic() -> None:
    # Slaney 1998: 200/3 Hz per mel up to 1 kHz at 15 mel; 27 mel further, 6.4 kHz
    frequencies = mel_frequencies(43, 6400.0)
    assert frequencies[:16] == pytest.approx(np.arange(16) * 200 / 3)
    assert frequencies[42] == pytest.approx(6400.0)
    assert np.diff(np.log(frequencies[15:])) == pytest.approx(np.log(6.4) / 27)


def test_kim_and_viperx_have_the_published_bands() -> None:
    assert (len(ROFORMER_WIDTHS), sum(ROFORMER_WIDTHS)) == (62, 1025)
    division = mel_bands(60, 44_100, 2048)
    assert len(division) == 60
    # Public exports of such networks give masks of 3958 numbers per column, of two channels.
    assert 2 * sum(end - first for first, end in division) == 3958
    held = np.bincount(np.concatenate([np.arange(*band) for band in division]))
    assert held.min() == 1
    assert held.max() == 2  # triangles that reach from centre to centre


@given(
    count=st.integers(2, 80), rate=st.sampled_from([16_000, 44_100, 48_000]), fft_frames=st.sampled_from([512, 2048])
)
def test_mel_bands_cover_all_bins_or_are_refused(count: int, rate: int, fft_frames: int) -> None:
    try:
        division = mel_bands(count, rate, fft_frames)
    except ValueError:
        assert count > 20  # these lengths have room for so many
        return
    assert set(np.concatenate([np.arange(*band) for band in division]).tolist()) == set(range(fft_frames // 2 + 1))
    assert list(division) == sorted(division)


@pytest.mark.parametrize("division", [((0, 3), (3, 9)), ((0, 4), (2, 9)), ((0, 5), (1, 7), (4, 9))])
def test_masks_of_bands_that_agree_are_the_mask_of_their_bins(division: Bands) -> None:
    spectrum = torch.randn(2, 2, 9, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    band_map = BandMap(division)
    parts = torch.cat(band_map.split(spectrum), dim=2)  # the spectrum itself as a mask: every band says the same
    joined = band_map.join(parts[:, None], 2)
    assert joined.shape == (2, 1, 2, 9, 5)
    assert (joined[:, 0] - spectrum).abs().max() < 1e-6


def test_where_bands_differ_the_mean_counts() -> None:
    band_map = BandMap(((0, 2), (1, 3)))
    masks = torch.tensor([1.0, 0, 2.0, 0, 4.0, 0, 8.0, 0])[None, None, None]  # bins 0 1, then 1 2, of one channel
    assert band_map.join(masks, 1).real.flatten().tolist() == [1.0, 3.0, 8.0]


@settings(max_examples=30, deadline=None)
@given(frames=st.integers(1, 700), hop=st.sampled_from([8, 20, 32]))
def test_the_spectrum_comes_back_as_it_was(frames: int, hop: int) -> None:
    mix = noise(1, frames)
    back = samples_of(spectrum_of(mix, 128, hop), 128, hop, frames)
    assert back.shape == mix.shape
    assert (back - mix).abs().max() < TRANSFORM_TOLERANCE


def test_presets_have_the_published_size() -> None:
    counts: dict[tuple[str, str], float] = {}
    with torch.device("meta"):
        for kind, preset in (
            ("bs_roformer", "lite"),
            ("bs_roformer", "paper_l6"),
            ("bs_roformer", "paper_l12"),
            ("bs_roformer", "viperx_1297"),
            ("mel_band_roformer", "lite"),
            ("mel_band_roformer", "kim"),
            ("mel_band_roformer", "viperx_1143"),
        ):
            network = build(kind, {"preset": preset})
            counts[kind, preset] = round(sum(p.numel() for p in network.parameters()) / 1e6, 1)
    assert counts == {
        ("bs_roformer", "lite"): 10.4,
        ("bs_roformer", "paper_l6"): 72.2,
        ("bs_roformer", "paper_l12"): 93.5,
        ("bs_roformer", "viperx_1297"): 159.8,  # 159 758 028: as many as lucidrains' class of these options has
        ("mel_band_roformer", "lite"): 14.7,
        ("mel_band_roformer", "kim"): 228.2,  # 228 202 788, the same way
        ("mel_band_roformer", "viperx_1143"): 251.9,
    }
