"""From the name of a model to a processor that is ready to play: the only place where live models are chosen."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from revithion_realtime.block_processor import BlockProcessor
from revithion_realtime.models.mixture_consistent import MixtureConsistent
from revithion_realtime.models.rate_conversion import Resampled
from revithion_stems.audio import Float32
from revithion_stems.catalog import Architecture, ModelSpec, load_catalog
from revithion_stems.errors import LiveError
from revithion_stems.events import CancelToken, EventCallback, EventStream
from revithion_stems.model_loading import choose_model, load_model
from revithion_stems.network_files import is_network_file
from revithion_stems.requests import SeparationRequest, plan_stems
from revithion_stems.separator import LoadedModel
from revithion_stems.weights import ModelStore, Presence

PREVIEW = "preview"
DSP = "dsp"
NETWORK_SUFFIX = ".onnx"
_CAUSAL = (Architecture.CAUSAL_PREVIEW, Architecture.DSP)
_REST_STEMS = ("other", "accompaniment")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """A model that can be played live.

    Attributes:
        name: What ``--model`` takes.
        title: One line for people.
        causal: Whether its delay is a matter of milliseconds; the others look back, and are late by more than a hop.
    """

    name: str
    title: str
    causal: bool


def live_models() -> tuple[LiveModel, ...]:
    """The models that can be named; a causal network is given by the path of its ``.onnx`` file instead."""
    return (
        LiveModel(name=PREVIEW, title="our causal network, built in; plays at once on any machine", causal=True),
        LiveModel(name=DSP, title="no network: signal processing, which separates roughly", causal=True),
        *(LiveModel(name=s.name, title=f"{s.title}, looking back", causal=False) for s in _offline_models()),
    )


def weights_are_here(model: str) -> bool:
    """Whether a model can be loaded at once; also of one without weights, or that does not exist."""
    store = ModelStore()
    return all(store.presence(spec) is Presence.PRESENT for spec in _offline_models() if spec.name == model)


def pull_weights(model: str, *, events: EventStream, cancel: CancelToken) -> None:
    """Gets the weights of an offline model, if they are not here.

    Args:
        model: Its name.
        events: Gets notices and the progress of downloads.
        cancel: Stops it.

    Raises:
        RevithionError: They can't be had, or it was cancelled.
    """
    choose_model(SeparationRequest(source=Path("live"), model=model), ModelStore(), events, cancel)


class ChosenModel:
    """A :class:`~revithion_realtime.block_processor.BlockProcessor` for any device rate, whose stems sum to its input.

    Made by :func:`make_processor`. Around the model it puts a conversion, where the device's rate is another one than
    the model's, and around that the projection that closes the sum.

    Args:
        model: Plays at its own rate only.
        model_rate: That rate in Hz; None if it plays at any.
        fold: Index of the stem that takes what the model leaves of the input.
    """

    def __init__(self, model: BlockProcessor, model_rate: int | None, fold: int) -> None:
        self.name, self.stems = model.name, model.stems
        self._model = model
        self._model_rate = model_rate
        self._fold = fold
        self._playing: BlockProcessor = MixtureConsistent(model, fold)

    @property
    def latency_frames(self) -> int:
        """The model's delay and that of the conversion, in device frames."""
        return self._playing.latency_frames

    @property
    def hop_frames(self) -> int:
        """The model's hop in device frames."""
        return self._playing.hop_frames

    def prepare(self, sample_rate: int) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.prepare`; pulls weights that are not here.

        Raises:
            RevithionError: The rate can't be played, the weights can't be had, or the engine failed.
        """
        at_device_rate = self._model
        if self._model_rate not in (None, sample_rate):
            at_device_rate = Resampled(self._model, self._model_rate)
        self._playing = MixtureConsistent(at_device_rate, self._fold)
        self._playing.prepare(sample_rate)

    def process(self, block: Float32, out: Float32) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.process`."""
        self._playing.process(block, out)

    def reset(self) -> None:
        """See :meth:`revithion_realtime.block_processor.BlockProcessor.reset`."""
        self._playing.reset()


def make_processor(model: str, *, look_back_hop_s: float = 1.0, on_event: EventCallback | None = None) -> ChosenModel:
    """The model of a name, not yet prepared: that is when weights are pulled and loaded.

    Args:
        model: ``preview``, ``dsp``, an offline model of the catalog, or the path of a causal network (``.onnx``).
        look_back_hop_s: How often an offline model runs.
        on_event: Called with notices and the progress of downloads.

    Raises:
        LiveError: ``live.model``: there is no such model, or its file is not what it says.
        ModelError: The file of ``preview`` is damaged.
    """
    if model == PREVIEW:
        from revithion_realtime.models.onnx_stream import OnnxStream

        store = ModelStore()
        built_in = store.catalog[PREVIEW]
        ((_, path),) = store.open_paths(built_in)
        network = OnnxStream(path)
        return ChosenModel(network, network.sample_rate, built_in.stems.index(built_in.residual_stem))
    if model == DSP:
        from revithion_realtime.models.dsp_preview import DspPreview

        preview = DspPreview()
        return ChosenModel(preview, None, _rest(preview.stems))
    if model.lower().endswith(NETWORK_SUFFIX):
        from revithion_realtime.models.onnx_stream import OnnxStream

        network = OnnxStream(Path(model).expanduser())
        return ChosenModel(network, network.sample_rate, _rest(network.stems))
    spec = next((spec for spec in _offline_models() if spec.name == model), None)
    if spec is None:
        names = ", ".join(known.name for known in live_models())
        raise LiveError(
            f"there is no live model {model!r} (there are: {names}, or the path of a causal network, .onnx)",
            hint="Export it for `live`: `revithion-stems models export RUN_FOLDER --to onnx`, causal networks only."
            if is_network_file(model)
            else "Correct its name; `revithion-stems models list` says what each one does.",
            code="live.model",
        )
    from revithion_realtime.models.look_back import LookBack, with_live_segment

    spec = with_live_segment(spec, look_back_hop_s)
    looking_back = LookBack(spec, _loader(spec, on_event), hop_s=look_back_hop_s)
    return ChosenModel(looking_back, spec.sample_rate, spec.stems.index(spec.residual_stem))


def _loader(spec: ModelSpec, on_event: EventCallback | None) -> Callable[[], LoadedModel]:
    def load() -> LoadedModel:
        store = ModelStore()
        # Half of the cores, at most, or the callback and the DAW beside it would have none at each hop.
        threads = max(1, (os.cpu_count() or 1) // 2)
        request = SeparationRequest(source=Path("live"), model=spec.name, threads=threads)
        choose_model(request, store, EventStream("live", on_event), CancelToken())
        return load_model(request, spec, plan_stems(request, spec), store)

    return load


def _offline_models() -> tuple[ModelSpec, ...]:
    return tuple(spec for spec in load_catalog().models if spec.architecture not in _CAUSAL)


def _rest(stems: tuple[str, ...]) -> int:
    return next((stems.index(name) for name in _REST_STEMS if name in stems), len(stems) - 1)
