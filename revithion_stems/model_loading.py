"""From a model's name to networks in memory: the choice of ``auto``, pulling what is missing, and the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from revithion_stems.catalog import ModelSpec
from revithion_stems.engines import ENGINES, EngineEntry, EngineOptions, choose_engine, load_separators
from revithion_stems.errors import ModelError, RequestError, out_of_memory
from revithion_stems.events import CancelToken, EventStream
from revithion_stems.network_files import named_model
from revithion_stems.requests import SeparationRequest, StemPlan
from revithion_stems.separator import LoadedModel
from revithion_stems.weight_files import is_present
from revithion_stems.weights import ModelStore, Presence

AUTO = "auto"
AUTO_ORDER = ("htdemucs_ft", "htdemucs", "htdemucs_6s", "preview")
"""What ``auto`` tries, best first. Models that lack a wanted stem are passed over; six stems come only on demand."""


class ModelCache:
    """Keeps the last model loaded, for the next source with the same parameters. One thread at a time."""

    def __init__(self) -> None:
        self._key: object = None
        self._model: LoadedModel | None = None

    def get(self, key: object, load: Callable[[], LoadedModel]) -> LoadedModel:
        """The model under ``key``, loaded if it is not the one that is here."""
        if self._model is None or self._key != key:
            self._model = None  # frees the old one before the new one needs its memory
            self._model = load()
            self._key = key
        return self._model

    @property
    def loaded(self) -> str | None:
        """Name of the model that is here, or None."""
        return None if self._model is None else self._model.spec.name

    def clear(self) -> None:
        """Lets go of the model; whoever wants its memory back at once collects garbage afterwards."""
        self._model = None
        self._key = None


def choose_model(
    request: SeparationRequest, store: ModelStore, events: EventStream, cancel: CancelToken, *, may_pull: bool = True
) -> ModelSpec:
    """The model of a request, pulled if it was not there; ``auto`` says in one notice which it is and why.

    Args:
        request: Its ``model`` and wanted stems are read.
        store: Where weights are.
        events: Gets the notices and the progress of downloads.
        cancel: Stops a download.
        may_pull: False only looks (for a plan): a missing model is then chosen as if it could be had.

    Raises:
        ModelError: The model is unknown or can't be had.
        RequestError: With ``auto``, no model has the wanted stems.
    """
    if request.model != AUTO:
        spec = named_model(request.model, store.catalog)
        if may_pull and store.presence(spec) is not Presence.PRESENT:
            _pull(spec, store, events, cancel)
        return spec
    failures: list[str] = []
    candidates = auto_candidates(request, store)
    if not candidates:
        known = dict.fromkeys(stem for name in AUTO_ORDER for stem in store.catalog[name].stems)
        raise RequestError(
            f"no model separates {', '.join(request.wanted_stems)} (known stems: {', '.join(known)})",
            hint="Correct the names; `revithion-stems models list` shows which model has which.",
            code="request.stems",
        )
    for spec in candidates:
        if store.presence(spec) is Presence.PRESENT:
            events.notice("model.auto", f"model {spec.name}: {_reason('the best that is here', spec, failures)}")
            return spec
        if store.offline:
            failures.append(f"{spec.name} is not here and the network is off")
            continue
        if not may_pull:
            events.notice("model.auto", f"model {spec.name}: the best there is, if it can be pulled")
            return spec
        try:
            _pull(spec, store, events, cancel)
        except ModelError:
            failures.append(f"{spec.name} could not be pulled")
            continue
        events.notice("model.auto", f"model {spec.name}: {_reason('the best that could be pulled', spec, failures)}")
        return spec
    raise ModelError(
        f"no model with the stems {', '.join(request.wanted_stems)} is here or can be pulled ({'; '.join(failures)})",
        hint="Ask for stems that `revithion-stems models list` shows, or import a pack with models import.",
        code="model.unavailable",
    )


def auto_candidates(request: SeparationRequest, store: ModelStore) -> list[ModelSpec]:
    """The models that ``auto`` considers for a request, best first."""
    wanted = set(request.wanted_stems)
    specs = [store.catalog[name] for name in AUTO_ORDER]
    basic = set(specs[0].stems)
    return [s for s in specs if wanted <= set(s.stems) and (set(s.stems) <= basic or not wanted <= basic)]


def wanted_networks(spec: ModelSpec, plan: StemPlan) -> tuple[int, ...]:
    """The networks that a plan needs; all of them where the architecture joins its networks."""
    if ENGINES[spec.architecture][0].joins_networks:
        return tuple(range(len(spec.networks)))
    return spec.networks_for(plan.model_stems)


def find_engine(
    request: SeparationRequest, spec: ModelSpec, networks: Sequence[int], store: ModelStore
) -> tuple[EngineEntry, str]:
    """Engine and device for a request, by the weights that are here, or by all that can be pulled where some are not.

    Raises:
        RequestError: The engine, device or precision does not fit the model.
        EngineError: The device is missing, or no weights that the engine reads are here.
    """
    complete = store.presence(spec) is Presence.PRESENT
    formats = [
        frozenset(f.format for f in spec.networks[i].files if not complete or is_present(store.root, f))
        for i in networks
    ]
    return choose_engine(
        spec, engine=request.engine, device=request.device, precision=request.precision, present=formats
    )


def load_model(request: SeparationRequest, spec: ModelSpec, plan: StemPlan, store: ModelStore) -> LoadedModel:
    """Verifies the weights that a plan needs and loads them.

    Raises:
        ModelError: Weights are missing or corrupt.
        RequestError: Engine, device or precision don't fit the model.
        EngineError: The engine or the device failed, or memory ran out.
    """
    networks = wanted_networks(spec, plan)
    entry, device = find_engine(request, spec, networks, store)
    paths = store.open_paths(spec, networks, entry.formats)
    options = EngineOptions(device=device, threads=request.threads, precision=request.precision)
    try:
        separators = load_separators(entry, spec, paths, options)
    except MemoryError as exc:
        raise out_of_memory(f"while {spec.name} was loaded") from exc
    if entry.joins_networks:
        weights = [(1.0,) * len(spec.stems)]
    else:
        weights = [spec.networks[index].stem_weights for index in networks]
    return LoadedModel(
        spec=spec,
        separators=tuple(zip(separators, weights, strict=True)),
        engine=entry.name,
        device=device,
    )


def _pull(spec: ModelSpec, store: ModelStore, events: EventStream, cancel: CancelToken) -> None:
    if not store.offline:
        events.notice(
            "model.pulling",
            f"pulling {spec.name}; terms of its weights: {spec.licence.weights} (see models info {spec.name})",
        )
    store.pull(spec, events=events, cancel=cancel)


def _reason(reason: str, spec: ModelSpec, failures: list[str]) -> str:
    text = f"{reason}; {'; '.join(failures)}" if failures else reason
    return f"{text}. It comes with this program and separates only roughly" if spec.built_in else text
