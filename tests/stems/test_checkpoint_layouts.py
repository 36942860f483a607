"""Public RoFormer checkpoints: files made here in their layout, and a plain second computation of what they mean.

The names and shapes below are written out as lucidrains' BS-RoFormer 0.4 saves them, without use of our map; the
forward pass is that of the papers in loops and einsums.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from revithion_stems.errors import ModelError
from revithion_stems.models.bands import ROFORMER_WIDTHS
from revithion_stems.models.checkpoint_layouts import KEY_MAP, load_public_checkpoint, our_layout, read_tensors
from revithion_stems.models.public_configs import load_public_config

# float32 sums of some thousand products in another order; outputs are about 1.
TOLERANCE = 1e-5

RATE, N_FFT, HOP, DIM, DEPTH, HEADS, DIM_HEAD, STEMS = 44_100, 256, 64, 16, 2, 2, 8, 2
BINS = N_FFT // 2 + 1
WIDTHS = (2, 3, 4, 8, 16, 32, 64)
MEL_BANDS = 8


def mel_filters() -> np.ndarray:
    """Triangles on Slaney's mel scale, ``[bands, bins]``, as librosa draws them."""

    def to_hz(mel: float) -> float:
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) / 27 * (mel - 15))

    top = 15 + math.log(RATE / 2 / 1000) * 27 / math.log(6.4)
    edges = [to_hz(top * i / (MEL_BANDS + 1)) for i in range(MEL_BANDS + 2)]
    filters = np.zeros((MEL_BANDS, BINS), dtype=np.float32)
    for band in range(MEL_BANDS):
        low, centre, high = edges[band : band + 3]
        for index in range(BINS):
            hz = index * RATE / N_FFT
            filters[band, index] = max(0.0, min((hz - low) / (centre - low), (high - hz) / (high - centre)))
    filters[0, 0] = filters[-1, -1] = 1.0
    return filters


def bins_of(kind: str) -> list[list[int]]:
    """The bins of each band."""
    if kind == "mel":
        return [np.flatnonzero(row > 0).tolist() for row in mel_filters()]
    ends = np.cumsum(WIDTHS).tolist()
    return [list(range(end - width, end)) for width, end in zip(WIDTHS, ends, strict=True)]


def public_state(kind: str, *, mask_linears: int, expansion: int = 4) -> dict[str, Tensor]:
    """A checkpoint of small sizes with random weights, under public names."""
    generator = torch.Generator().manual_seed(7)

    def drawn(*shape: int) -> Tensor:
        fan_in = shape[-1] if len(shape) == 2 else 4
        return torch.randn(*shape, generator=generator) * fan_in**-0.5

    inner = HEADS * DIM_HEAD
    freqs = 1.0 / (10_000 ** (torch.arange(0, DIM_HEAD, 2).float() / DIM_HEAD))
    state: dict[str, Tensor] = {}
    for block in range(DEPTH):
        for axis in (0, 1):
            layer = f"layers.{block}.{axis}.layers.0"
            state |= {
                f"{layer}.0.rotary_embed.freqs": freqs.clone(),
                f"{layer}.0.norm.gamma": 1 + drawn(DIM),
                f"{layer}.0.to_qkv.weight": drawn(3 * inner, DIM),
                f"{layer}.0.to_gates.weight": drawn(HEADS, DIM),
                f"{layer}.0.to_gates.bias": drawn(HEADS),
                f"{layer}.0.to_out.0.weight": drawn(DIM, inner),
                f"{layer}.1.net.0.gamma": 1 + drawn(DIM),
                f"{layer}.1.net.1.weight": drawn(4 * DIM, DIM),
                f"{layer}.1.net.1.bias": drawn(4 * DIM),
                f"{layer}.1.net.4.weight": drawn(DIM, 4 * DIM),
                f"{layer}.1.net.4.bias": drawn(DIM),
            }
            if kind == "mel":
                state[f"layers.{block}.{axis}.norm.gamma"] = 1 + drawn(DIM)
    if kind == "bs":
        state["final_norm.gamma"] = 1 + drawn(DIM)
    for band, bins in enumerate(bins_of(kind)):
        size = 4 * len(bins)
        state |= {
            f"band_split.to_features.{band}.0.gamma": 1 + drawn(size),
            f"band_split.to_features.{band}.1.weight": drawn(DIM, size),
            f"band_split.to_features.{band}.1.bias": drawn(DIM),
        }
        sizes = [DIM, *[DIM * expansion] * (mask_linears - 1), 2 * size]
        for stem in range(STEMS):
            for step in range(mask_linears):
                key = f"mask_estimators.{stem}.to_freqs.{band}.0.{2 * step}"
                state[f"{key}.weight"] = drawn(sizes[step + 1], sizes[step])
                state[f"{key}.bias"] = drawn(sizes[step + 1])
    return state


def reference(kind: str, state: dict[str, Tensor], mix: Tensor) -> Tensor:
    """Stems ``[B, S, 2, frames]``, computed plainly."""

    def norm(x: Tensor, gamma: Tensor) -> Tensor:
        return x / x.square().mean(-1, keepdim=True).sqrt() * gamma

    def rotate(x: Tensor) -> Tensor:  # [..., L, E]
        out = torch.empty_like(x)
        for position in range(x.shape[-2]):
            for pair in range(DIM_HEAD // 2):
                angle = position * 10_000 ** (-2 * pair / DIM_HEAD)
                a, b = x[..., position, 2 * pair], x[..., position, 2 * pair + 1]
                out[..., position, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                out[..., position, 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def transformer(x: Tensor, prefix: str) -> Tensor:  # [N, L, D]
        def weight(name: str) -> Tensor:
            return state[f"{prefix}.layers.0.{name}"]

        y = norm(x, weight("0.norm.gamma"))
        qkv = torch.einsum("nld,ed->nle", y, weight("0.to_qkv.weight"))
        q, k, v = (part.unflatten(2, (HEADS, DIM_HEAD)).transpose(1, 2) for part in qkv.chunk(3, dim=2))  # [N, H, L, E]
        scores = torch.einsum("nhie,nhje->nhij", rotate(q), rotate(k)) / math.sqrt(DIM_HEAD)
        heads = torch.einsum("nhij,nhje->nhie", scores.softmax(-1), v)
        gates = torch.sigmoid(y @ weight("0.to_gates.weight").T + weight("0.to_gates.bias"))  # [N, L, H]
        heads = heads.transpose(1, 2) * gates[..., None]  # [N, L, H, E]
        x = x + heads.flatten(2) @ weight("0.to_out.0.weight").T
        y = norm(x, weight("1.net.0.gamma")) @ weight("1.net.1.weight").T + weight("1.net.1.bias")
        y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        x = x + y @ weight("1.net.4.weight").T + weight("1.net.4.bias")
        gamma = state.get(f"{prefix}.norm.gamma")
        return x if gamma is None else norm(x, gamma)

    batch, _, frames = mix.shape
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(mix.flatten(0, 1), N_FFT, HOP, window=window, return_complex=True).unflatten(0, (batch, 2))
    columns = spectrum.shape[3]
    bands = bins_of(kind)
    tokens: list[Tensor] = []
    for index, bins in enumerate(bands):
        numbers: list[Tensor] = []
        for bin_ in bins:
            for channel in (0, 1):
                numbers += [spectrum[:, channel, bin_].real, spectrum[:, channel, bin_].imag]
        x = norm(torch.stack(numbers, dim=-1), state[f"band_split.to_features.{index}.0.gamma"])
        weight, bias = (state[f"band_split.to_features.{index}.1.{part}"] for part in ("weight", "bias"))
        tokens.append(x @ weight.T + bias)
    x = torch.stack(tokens, dim=1)  # [B, K, T, D]
    for block in range(DEPTH):
        x = transformer(x.reshape(-1, columns, DIM), f"layers.{block}.0").reshape(x.shape)
        x = x.transpose(1, 2)  # [B, T, K, D]
        x = transformer(x.reshape(-1, len(bands), DIM), f"layers.{block}.1").reshape(x.shape).transpose(1, 2)
    if "final_norm.gamma" in state:
        x = norm(x, state["final_norm.gamma"])
    stems: list[Tensor] = []
    for stem in range(STEMS):
        mask = torch.zeros_like(spectrum)
        for index, bins in enumerate(bands):
            y, step = x[:, index], 0
            while (key := f"mask_estimators.{stem}.to_freqs.{index}.0.{step}") + ".weight" in state:
                y = (y if step == 0 else torch.tanh(y)) @ state[f"{key}.weight"].T + state[f"{key}.bias"]
                step += 2
            half = y.shape[-1] // 2
            y = (y[..., :half] * torch.sigmoid(y[..., half:])).reshape(batch, columns, len(bins), 2, 2)
            for place, bin_ in enumerate(bins):
                mask[:, :, bin_] += torch.complex(y[:, :, place, :, 0], y[:, :, place, :, 1]).transpose(1, 2)
        for bin_ in range(BINS):
            mask[:, :, bin_] /= sum(bin_ in bins for bins in bands)
        masked = (spectrum * mask).flatten(0, 1)
        stems.append(torch.istft(masked, N_FFT, HOP, window=window, length=frames).unflatten(0, (batch, 2)))
    return torch.stack(stems, dim=1)


def yaml_of(kind: str, **changes: Any) -> str:
    """A configuration as the community writes them."""
    model: dict[str, Any] = {
        "dim": DIM,
        "depth": DEPTH,
        "stereo": "true",
        "num_stems": STEMS,
        "time_transformer_depth": 1,
        "freq_transformer_depth": 1,
        "dim_head": DIM_HEAD,
        "heads": HEADS,
        "attn_dropout": 0,
        "ff_dropout": 0.1,
        "flash_attn": "true",
        "dim_freqs_in": BINS,
        "stft_n_fft": N_FFT,
        "stft_hop_length": HOP,
        "stft_win_length": N_FFT,
        "stft_normalized": "false",
        "mask_estimator_depth": 2,
        "multi_stft_resolution_loss_weight": 1.0,
        "multi_stft_hop_size": 147,
        "multi_stft_normalized": False,
    }
    if kind == "bs":
        model["freqs_per_bands"] = "!!python/tuple\n" + "\n".join(f"    - {width}" for width in WIDTHS)
        model["linear_transformer_depth"] = 0
    else:
        model |= {"num_bands": MEL_BANDS, "sample_rate": RATE}
    model |= changes
    lines = [f"  {key}: {value}" for key, value in model.items() if value is not None]
    return "\n".join(
        [
            f"audio:\n  chunk_size: 352800\n  num_channels: 2\n  sample_rate: {RATE}\n\nmodel:",
            *lines,
            "  multi_stft_resolutions_window_sizes: !!python/tuple\n  - 4096\n  - 2048\n",
            "training:\n  instruments:\n  - vocals\n  - other\n  target_instrument: null\n  lr: 1.0e-05\n",
        ]
    )


def files(folder: Path, kind: str, state: dict[str, Tensor], **changes: Any) -> tuple[Path, Path]:
    checkpoint, config = folder / "model.ckpt", folder / "model.yaml"
    torch.save(state, checkpoint)
    config.write_text(yaml_of(kind, **changes), encoding="utf-8")
    return checkpoint, config


@pytest.mark.parametrize(
    ("kind", "depth", "mask_linears", "changes"),
    [
        ("bs", 2, 2, {}),
        ("bs", 1, 1, {}),
        ("bs", 2, 2, {"mlp_expansion_factor": 2}),
        ("mel", 2, 3, {}),
        ("mel", None, 2, {}),  # the public class's default of 1
    ],
)
def test_a_public_checkpoint_gives_what_a_plain_computation_of_it_gives(
    tmp_path: Path, kind: str, depth: int | None, mask_linears: int, changes: dict[str, Any]
) -> None:
    state = public_state(kind, mask_linears=mask_linears, expansion=changes.get("mlp_expansion_factor", 4))
    network, info = load_public_checkpoint(*files(tmp_path, kind, state, mask_estimator_depth=depth, **changes))
    mix = torch.randn(2, 2, 1000, generator=torch.Generator().manual_seed(1)) * 0.3
    with torch.inference_mode():
        ours, plain = network(mix), reference(kind, state, mix)
    assert ours.shape == (2, STEMS, 2, 1000)
    assert plain.abs().max() > 0.05
    assert (ours - plain).abs().max() < TOLERANCE
    assert info.stems == ("vocals", "other")
    assert (info.sample_rate, info.segment_frames) == (RATE, 352_800)
    assert info.architecture == {"bs": "bs_roformer", "mel": "mel_band_roformer"}[kind]
    learnt = sum(value.numel() for key, value in state.items() if "rotary" not in key)
    assert info.parameters == learnt


@pytest.mark.parametrize("kind", ["bs", "mel"])
def test_the_map_reaches_every_tensor_once(kind: str) -> None:
    state = public_state(kind, mask_linears=3)
    ours = our_layout(state, "model.ckpt")
    tables = [key for key in state if "rotary" in key]
    assert len(ours) == len(state) - len(tables) + 2
    assert {"time_turns", "band_turns"} <= set(ours)


def test_no_row_of_the_map_is_idle() -> None:
    names = [*public_state("bs", mask_linears=2), *public_state("mel", mask_linears=2)]
    for theirs, _ in KEY_MAP:
        pattern = re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(theirs))
        assert any(re.fullmatch(pattern, name) for name in names), theirs


@pytest.mark.parametrize("container", ["state_dict", "model_state_dict", "module", "safetensors", "half", "bare"])
def test_files_come_in_several_wrappings(tmp_path: Path, container: str) -> None:
    state = public_state("bs", mask_linears=2)
    checkpoint, config = files(tmp_path, "bs", state)
    expected = load_public_checkpoint(checkpoint, config)[0].state_dict()
    tolerance = 0.0
    if container == "safetensors":
        checkpoint = tmp_path / "model.safetensors"
        save_file(state, checkpoint)
    elif container == "module":
        torch.save({f"module.{key}": value for key, value in state.items()}, checkpoint)
    elif container == "half":
        torch.save({key: value.half() for key, value in state.items()}, checkpoint)
        tolerance = 2e-3  # 11 bits of values up to 4
    elif container == "bare":  # without tables, which follow from head_dim
        torch.save({key: value for key, value in state.items() if "rotary" not in key}, checkpoint)
        tolerance = 1e-7
    else:
        torch.save({container: state, "epoch": 3}, checkpoint)
    found = load_public_checkpoint(checkpoint, config)[0].state_dict()
    assert set(found) == set(expected)
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert (value - expected[key]).abs().max() <= tolerance, key


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"linear_transformer_depth": 1}, "model.config", "linear_transformer_depth"),
        ({"skip_connection": True}, "model.config", "skip_connection"),
        ({"stereo": "false"}, "model.config", "stereo"),
        ({"stereo": None}, "model.config", "stereo"),
        ({"stft_win_length": 128}, "model.config", "window"),
        ({"num_residual_streams": 4}, "model.config", "num_residual_streams"),
        ({"secret_sauce": 1}, "model.config", "secret_sauce"),
        ({"num_stems": 3}, "model.config", "num_stems"),
        ({"heads": "many"}, "model.config", "heads"),
        ({"dim": -1}, "model.config", "dim"),
        ({"freqs_per_bands": [100, 100]}, "model.config", "bands"),
        ({"freqs_per_bands": None}, "model.config", "freqs_per_bands"),
        ({"dim": 32}, "model.layout", "shape"),
        ({"depth": 3}, "model.layout", "missing"),
        ({"depth": 1}, "model.layout", "not in the network"),
        ({"dim": 2**20}, "model.layout", "shape"),  # and no memory is taken for it
        ({"dim": 10**9}, "model.config", "dim"),
        ({"depth": 10**6}, "model.config", "depth"),
        ({"mlp_expansion_factor": 3}, "model.layout", "shape"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], code: str, words: str) -> None:
    checkpoint, config = files(tmp_path, "bs", public_state("bs", mask_linears=2), **change)
    with pytest.raises(ModelError, match=words) as caught:
        load_public_checkpoint(checkpoint, config)
    assert caught.value.code == code


@pytest.mark.parametrize("change", [{"flash_attn": "false"}, {"use_torch_checkpoint": True}, {"sage_attention": True}])
def test_options_without_effect_are_passed_over(tmp_path: Path, change: dict[str, Any]) -> None:
    load_public_checkpoint(*files(tmp_path, "bs", public_state("bs", mask_linears=2), **change))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("layers.0.0.layers.0.0.temperature", "linear attention"),
        ("layers.0.1.layers.0.0.to_value_residual_mix.weight", "value residuals"),
        ("mask_estimators.0.to_freqs.0.0.1.weight", "no layout"),
        ("layers.0.2.norm.gamma", "linear attention"),
        ("something", "no layout"),
    ],
)
def test_tensors_of_other_layouts_are_named(tmp_path: Path, key: str, words: str) -> None:
    state = {**public_state("bs", mask_linears=2), key: torch.ones(1)}
    with pytest.raises(ModelError, match=words) as caught:
        load_public_checkpoint(*files(tmp_path, "bs", state))
    assert caught.value.code == "model.layout"


def test_tables_that_differ_are_refused() -> None:
    state = public_state("bs", mask_linears=2)
    state["layers.1.0.layers.0.0.rotary_embed.freqs"] *= 2
    with pytest.raises(ModelError, match="differ"):
        our_layout(state, "model.ckpt")


class Surprise:
    """A pickle that would run something."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize("content", ["pickle", "garbage", "empty", "cut", "list", "numbers"])
def test_a_file_without_tensors_is_an_error_and_runs_nothing(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.ckpt"
    if content == "pickle":
        torch.save({"state_dict": Surprise()}, path)
    elif content == "list":
        torch.save([torch.ones(2)], path)
    elif content == "numbers":
        torch.save({"a": 1.0}, path)
    elif content == "cut":
        torch.save(public_state("bs", mask_linears=2), path)
        path.write_bytes(path.read_bytes()[:-500])
    else:
        path.write_bytes(b"" if content == "empty" else b"\x93not a checkpoint" * 20)
    with pytest.raises(ModelError) as caught:
        read_tensors(path)
    assert caught.value.code == "model.unreadable"
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:builtins.print ['executed']",
        "model: !!python/name:os.system ''",
        "model: !!python/tuple {a: 1}",
        "model: [1, 2",
        "audio: {}",
        "- 1",
        "",
        "model: {freqs_per_bands: [1], when: 2001-99-99}",
        "model: {freqs_per_bands: [1]}\ntraining: 3",
        "model: {dim: 8}\ntraining: {model_type: [bs_roformer]}",
    ],
)
def test_a_configuration_runs_nothing(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_public_config(path)
    assert caught.value.code == "model.config"
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(("inference", "segment"), [("chunk_size: 441000", 441_000), ("num_overlap: 2", 352_800)])
def test_the_segment_is_that_of_inference_first(tmp_path: Path, inference: str, segment: int) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(f"{yaml_of('mel')}inference:\n  {inference}\n", encoding="utf-8")
    assert load_public_config(path).segment_frames == segment


def test_viperx_1297_is_what_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "model_bs_roformer_ep_317_sdr_12.9755.yaml"
    widths = "\n".join(f"    - {width}" for width in ROFORMER_WIDTHS)
    path.write_text(
        "audio: {chunk_size: 352800, dim_f: 1024, dim_t: 801, hop_length: 441, n_fft: 2048, num_channels: 2,"
        " sample_rate: 44100, min_mean_abs: 0.000}\n"
        "model:\n  dim: 512\n  depth: 12\n  stereo: true\n  num_stems: 1\n  time_transformer_depth: 1\n"
        "  freq_transformer_depth: 1\n  linear_transformer_depth: 0\n  freqs_per_bands: !!python/tuple\n"
        f"{widths}\n  dim_head: 64\n  heads: 8\n  attn_dropout: 0.1\n  ff_dropout: 0.1\n  flash_attn: true\n"
        "  dim_freqs_in: 1025\n  stft_n_fft: 2048\n  stft_hop_length: 441\n  stft_win_length: 2048\n"
        "  stft_normalized: false\n  mask_estimator_depth: 2\n"
        "training: {instruments: [vocals, other], target_instrument: vocals, use_amp: true}\n"
        "inference: {batch_size: 4, dim_t: 801, num_overlap: 2}\n",
        encoding="utf-8",
    )
    public = load_public_config(path)
    config = public.config
    assert (public.architecture, public.segment_frames, config.stems) == ("bs_roformer", 352_800, ("vocals",))
    assert (config.dim, config.depth, config.heads, config.head_dim, config.hop_frames) == (512, 12, 8, 64, 441)
    assert (config.mask_layers, config.mask_expansion, len(config.division)) == (1, 4, 62)
