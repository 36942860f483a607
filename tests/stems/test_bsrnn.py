"""BSRNN: against a plain computation step by step, by its laws, and its divisions by what the paper says of them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from revithion_stems.errors import ConfigError
from revithion_stems.models.architectures import ARCHITECTURES, build, config_of, options_of
from revithion_stems.models.bands import BSRNN_TABLES, bands_of_table, bands_of_widths
from revithion_stems.models.bsrnn import Bsrnn, BsrnnConfig

# float32 sums and sigmoids in another order, through two blocks; outputs are below 1.
TOLERANCE = 1e-5
# One item in a batch is computed by other kernels than alone.
BATCH_TOLERANCE = 1e-5

SMALL = {
    "stems": ["vocals", "other"],
    "fft_frames": 128,
    "hop_frames": 32,
    "bands": [[4000, 1000], [12_000, 4000]],
    "dim": 6,
    "blocks": 2,
}


def small() -> Bsrnn:
    torch.manual_seed(3)
    network = build("bsrnn", SMALL)
    assert isinstance(network, Bsrnn)
    with torch.no_grad():  # norms that do something
        for name, parameter in network.named_parameters():
            if ".norm." in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return network.eval()


def noise(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, 2, frames, generator=torch.Generator().manual_seed(seed)) * 0.2


def reference(network: Bsrnn, mix: Tensor) -> Tensor:
    """Stems ``[S, frames]`` of one channel ``[frames]``, one sequence and one step at a time."""
    state = network.state_dict()

    def norm(x: Tensor, prefix: str) -> Tensor:  # [length, features]
        x = (x - x.mean()) / (x.var(correction=0) + 1e-7).sqrt()
        return x * state[f"{prefix}.norm.weight"] + state[f"{prefix}.norm.bias"]

    def linear(x: Tensor, prefix: str) -> Tensor:
        return x @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"]

    def lstm(x: Tensor, prefix: str, suffix: str) -> Tensor:
        w, u = state[f"{prefix}.lstm.weight_ih_l0{suffix}"], state[f"{prefix}.lstm.weight_hh_l0{suffix}"]
        bias = state[f"{prefix}.lstm.bias_ih_l0{suffix}"] + state[f"{prefix}.lstm.bias_hh_l0{suffix}"]
        h = c = torch.zeros(u.shape[1])
        out: list[Tensor] = []
        for step in x if not suffix else x.flip(0):
            i, f, g, o = (w @ step + u @ h + bias).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            out.append(h)
        return torch.stack(out if not suffix else out[::-1])

    def residual(x: Tensor, prefix: str) -> Tensor:  # [length, D]
        y = norm(x, prefix)
        return x + linear(torch.cat([lstm(y, prefix, ""), lstm(y, prefix, "_reverse")], dim=1), f"{prefix}.linear")

    config = network.config
    window = torch.hann_window(config.fft_frames)
    spectrum = torch.stft(mix, config.fft_frames, config.hop_frames, window=window, return_complex=True)  # [F, T]
    bands = [spectrum[first:end] for first, end in config.division]
    x = torch.stack(
        [
            linear(norm(torch.view_as_real(band.T).flatten(1), f"encoders.{index}"), f"encoders.{index}.linear")
            for index, band in enumerate(bands)
        ]
    )  # [K, T, D]
    for block in range(config.blocks):
        x = torch.stack([residual(band, f"blocks.{block}.time") for band in x])
        x = torch.stack([residual(column, f"blocks.{block}.band") for column in x.transpose(0, 1)]).transpose(0, 1)
    stems: list[Tensor] = []
    for stem in range(len(config.stems)):
        masked: list[Tensor] = []
        for index, band in enumerate(bands):
            prefix = f"decoders.{stem}.bands.{index}"
            y = linear(torch.tanh(linear(norm(x[index], prefix), f"{prefix}.hidden")), f"{prefix}.out")
            half = y.shape[1] // 2
            y = (y[:, :half] * torch.sigmoid(y[:, half:])).unflatten(1, (-1, 2))  # [T, W, 2]
            masked.append(band * torch.complex(y[..., 0], y[..., 1]).T)
        full = torch.cat(masked)
        stems.append(torch.istft(full, config.fft_frames, config.hop_frames, window=window, length=len(mix)))
    return torch.stack(stems)


def test_it_is_what_a_plain_computation_gives() -> None:
    network, mix = small(), noise(2, 400)
    with torch.inference_mode():
        stems = network(mix)
        assert stems.shape == (2, 2, 2, 400)
        for item in range(2):
            for channel in range(2):
                plain = reference(network, mix[item, channel])
                assert plain.abs().max() > 0.01
                assert (stems[item, :, channel] - plain).abs().max() < TOLERANCE


@pytest.mark.parametrize("frames", [1, 31, 64, 65, 127, 128, 1000])
def test_stems_are_as_long_as_the_mix(frames: int) -> None:
    with torch.inference_mode():
        stems = small()(noise(1, frames))
    assert stems.shape == (1, 2, 2, frames)
    assert stems.isfinite().all()


def test_silence_stays_silent() -> None:
    with torch.inference_mode():
        assert not small()(torch.zeros(1, 2, 500)).any()


def test_items_of_a_batch_do_not_know_each_other() -> None:
    network, mix = small(), noise(3, 300)
    with torch.inference_mode():
        together, alone = network(mix), network(mix[1:2])
    assert (together[1:2] - alone).abs().max() < BATCH_TOLERANCE


def test_every_parameter_gets_a_gradient() -> None:
    network = small()
    network(noise(1, 400)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("target", "bands"), [("vocals", 41), ("bass", 30), ("drums", 55), ("other", 41)])
def test_divisions_have_as_many_bands_as_the_paper_says(target: str, bands: int) -> None:
    division = bands_of_table(BSRNN_TABLES[target], 44_100, 2048)
    assert len(division) == bands
    assert config_of("bsrnn", {"preset": target}).division == division


@given(
    rate=st.sampled_from([8000, 22_050, 44_100, 48_000, 96_000]),
    fft_frames=st.sampled_from([64, 512, 2048, 4096]),
    target=st.sampled_from(sorted(BSRNN_TABLES)),
)
def test_a_bin_is_in_the_band_of_its_frequency(rate: int, fft_frames: int, target: str) -> None:
    division = bands_of_table(BSRNN_TABLES[target], rate, fft_frames)
    assert division[0][0] == 0
    assert division[-1][1] == fft_frames // 2 + 1
    assert all(end == first for (_, end), (first, _) in pairwise(division))
    edges, low = {0.0}, 0.0
    for high, width in BSRNN_TABLES[target]:
        edges |= {low + width * i for i in range(1, round((high - low) / width) + 1)}
        low = high
    ordered = sorted(edges)
    for first, end in division:
        owners = {sum(edge * fft_frames <= bin_ * rate for edge in ordered) for bin_ in range(first, end)}
        assert len(owners) == 1


@settings(max_examples=30)
@given(widths=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_bands_of_widths_lie_side_by_side(widths: list[int]) -> None:
    division = bands_of_widths(widths, sum(widths))
    assert [bin_ for first, end in division for bin_ in range(first, end)] == list(range(sum(widths)))


def test_presets_have_the_stated_size() -> None:
    with torch.device("meta"):
        counts = {
            target: sum(p.numel() for p in build("bsrnn", {"preset": target}).parameters()) for target in BSRNN_TABLES
        }
    # docs/architectures.md
    assert {target: round(count / 1e6, 2) for target, count in counts.items()} == {
        "vocals": 25.65,
        "bass": 24.92,
        "drums": 26.58,
        "other": 25.65,
    }


def test_a_network_is_built_again_from_its_options() -> None:
    network = small()
    options = json.loads(json.dumps(options_of(network.config)))
    again = build("bsrnn", options)
    assert again.config == network.config
    again.load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bsrnnn", {}, "bsrnnn"),
        ("bsrnn", {"dims": 3}, "dims"),
        ("bsrnn", {"dim": 0}, "dim"),
        ("bsrnn", {"dim": "8"}, "dim"),
        ("bsrnn", {"stems": []}, "stems"),
        ("bsrnn", {"hop_frames": 1024}, "hop_frames"),
        ("bsrnn", {"bands": [[100, 200, 300]]}, "bands"),
        ("bsrnn", {"bands": [[1000, 100], [500, 100]]}, "500 Hz"),
        ("bsrnn", {"bands": [[1000, 0]]}, "0 Hz wide"),
        ("bsrnn", {"preset": "huge"}, "huge"),
        ("bsrnn", {"preset": 1}, "preset"),
        ("causal_preview", {"preset": "lite"}, "lite"),
        ("causal_preview", {"design": 1}, "design"),
        ("causal_preview", {"hop_frames": 100}, "hop of 100"),
        ("causal_preview", {"channels": 0}, "channels"),
        ("causal_preview", {"blocks": 0}, "blocks"),
        ("causal_preview", {"sample_rate": 0}, "sample_rate"),
        ("causal_preview", {"bands": [[1, 1000], [1, -1]]}, "bands"),
        ("causal_preview", {"stems": ["bass", "bass"]}, "distinct"),
        ("bsrnn", {"stems": ["../vocals"]}, "distinct names"),
    ],
)
def test_what_cannot_be_is_a_configuration_error(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build(name, options)
    assert caught.value.code == "config.model"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_builds_by_default_and_by_preset(name: str) -> None:
    row = ARCHITECTURES[name]
    for preset in (None, *row.presets):
        config = config_of(name, {} if preset is None else {"preset": preset})
        assert isinstance(config, row.config)
        assert config_of(name, json.loads(json.dumps(options_of(config)))) == config
    with torch.device("meta"):
        assert getattr(row.network(row.config()), "causal", True) is row.causal


def test_options_go_over_a_preset() -> None:
    config = config_of("bsrnn", {"preset": "bass", "dim": 32})
    assert isinstance(config, BsrnnConfig)
    assert (config.stems, config.dim) == (("bass",), 32)
