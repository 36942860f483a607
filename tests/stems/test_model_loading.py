"""Which model a request gets: what is here, what can be pulled, and what is said about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from revithion_stems.catalog import Catalog, ModelSpec, load_catalog
from revithion_stems.errors import DownloadError, ModelError, RequestError
from revithion_stems.events import CancelToken, EventStream, JobEvent, Notice
from revithion_stems.model_loading import auto_candidates, choose_model, find_engine, load_model, wanted_networks
from revithion_stems.requests import SeparationRequest, plan_stems
from revithion_stems.weights import ModelStore


class Shelf(ModelStore):
    """A store whose sources deliver the models that are on the shelf, without a network."""

    def __init__(self, root: Path, *, can_pull: tuple[str, ...] = (), offline: bool = False) -> None:
        # Sparse files stand for weights here; what a store calls present is a file of the right size.
        super().__init__(root, offline=offline)
        self.can_pull = can_pull
        self.pulled: list[str] = []

    def put(self, spec: ModelSpec) -> None:
        self.root.mkdir(exist_ok=True)
        for network in spec.networks:
            file = next(file for file in network.files if file.size is not None)
            with (self.root / file.name).open("wb") as out:
                out.truncate(file.size)

    def pull(self, spec: ModelSpec, **_: Any) -> None:
        self.pulled.append(spec.name)
        if spec.name not in self.can_pull:
            raise DownloadError(f"{spec.name} is on no server", hint="Try later.")
        self.put(spec)


def request(**fields: Any) -> SeparationRequest:
    return SeparationRequest(source=Path("song.wav"), **fields)


def choose(store: ModelStore, **fields: Any) -> tuple[str, list[str]]:
    events: list[JobEvent] = []
    may_pull = fields.pop("may_pull", True)
    stream = EventStream("test", events.append)
    spec = choose_model(request(**fields), store, stream, CancelToken(), may_pull=may_pull)
    return spec.name, [event.message for event in events if isinstance(event, Notice) and event.code == "model.auto"]


def test_auto_takes_the_best_that_is_here(tmp_path: Path) -> None:
    store = Shelf(tmp_path)
    for name in ("htdemucs_ft", "htdemucs"):
        store.put(load_catalog()[name])
    assert choose(store) == ("htdemucs_ft", ["model htdemucs_ft: the best that is here"])
    assert store.pulled == []


def test_auto_pulls_the_best_before_it_takes_a_lesser_one(tmp_path: Path) -> None:
    store = Shelf(tmp_path, can_pull=("htdemucs_ft",))
    store.put(load_catalog()["htdemucs"])
    assert choose(store)[0] == "htdemucs_ft"
    assert store.pulled == ["htdemucs_ft"]


@pytest.mark.parametrize(
    ("can_pull", "offline", "expected", "said"),
    [
        (("htdemucs",), False, "htdemucs", "htdemucs_ft could not be pulled"),
        ((), False, "preview", "htdemucs could not be pulled"),
        ((), True, "preview", "the network is off"),
    ],
)
def test_auto_never_goes_down_silently(
    tmp_path: Path, can_pull: tuple[str, ...], offline: bool, expected: str, said: str
) -> None:
    store = Shelf(tmp_path, can_pull=can_pull, offline=offline)
    name, notices = choose(store)
    assert name == expected
    (notice,) = notices
    assert said in notice
    assert (name == "preview") == ("separates only roughly" in notice)
    assert (store.pulled == []) == offline


def test_auto_follows_the_stems_that_are_wanted(tmp_path: Path) -> None:
    store = Shelf(tmp_path)
    assert [spec.name for spec in auto_candidates(request(), store)] == ["htdemucs_ft", "htdemucs", "preview"]
    assert [spec.name for spec in auto_candidates(request(stems=("guitar",)), store)] == ["htdemucs_6s"]
    with pytest.raises(RequestError, match=r"no model separates voclas .known stems: drums"):
        choose(store, stems=("voclas",))
    with pytest.raises(ModelError, match="htdemucs_6s could not be pulled"):
        choose(store, two_stems="guitar")


def test_a_named_model_is_pulled_or_the_error_is_told(tmp_path: Path) -> None:
    store = Shelf(tmp_path, can_pull=("htdemucs",))
    assert choose(store, model="htdemucs") == ("htdemucs", [])
    with pytest.raises(DownloadError, match="on no server"):
        choose(store, model="mdx_extra")
    with pytest.raises(ModelError, match="unknown model 'nonsense'"):
        choose(store, model="nonsense")


def test_a_plan_pulls_nothing(tmp_path: Path) -> None:
    store = Shelf(tmp_path)
    name, notices = choose(store, may_pull=False)
    assert (name, store.pulled) == ("htdemucs_ft", [])
    assert "if it can be pulled" in notices[0]
    assert choose(store, model="mdx_extra", may_pull=False)[0] == "mdx_extra"


def test_only_the_networks_that_a_stem_needs_are_wanted() -> None:
    catalog = load_catalog()

    def networks(model: str, **fields: Any) -> tuple[int, ...]:
        spec = catalog[model]
        return wanted_networks(spec, plan_stems(request(**fields), spec))

    assert networks("htdemucs_ft") == (0, 1, 2, 3)
    assert networks("htdemucs_ft", stems=("vocals",)) == (3,)
    assert networks("htdemucs_ft", two_stems="drums") == (0,)
    assert networks("htdemucs_ft", two_stems="drums", other_method="add") == (0, 1, 2, 3)
    assert networks("spleeter_2stems", stems=("vocals",)) == (0, 1)  # the masks of all stems share out the mix
    assert networks("dsp") == ()


def test_the_engine_of_an_absent_model_is_that_of_what_can_be_pulled(tmp_path: Path) -> None:
    store = Shelf(tmp_path)
    spec = load_catalog()["htdemucs_ft"]
    entry, device = find_engine(request(device="cpu"), spec, (0, 1, 2, 3), store)
    assert (entry.name, device) == ("torch", "cpu")
    # On disk only as ONNX: then an engine for other forms is refused, not promised.
    htdemucs = load_catalog()["htdemucs"]
    onnx = dataclasses.replace(htdemucs.networks[0], files=htdemucs.networks[0].files[-1:])
    only_onnx = Shelf(tmp_path / "onnx")
    only_onnx.put(dataclasses.replace(htdemucs, networks=(onnx,)))
    assert find_engine(request(engine="onnx", device="cpu"), htdemucs, (0,), only_onnx)[0].name == "onnx"


def test_weights_that_are_not_what_they_should_be_are_not_opened(tmp_path: Path) -> None:
    store = Shelf(tmp_path)
    spec = load_catalog()["htdemucs"]
    store.put(spec)  # the right size, and all zeros
    with pytest.raises(ModelError) as caught:
        load_model(request(device="cpu"), spec, plan_stems(request(), spec), store)
    assert caught.value.code == "model.corrupt"
    assert "--force" in caught.value.hint


def test_the_weightless_model_loads_from_an_empty_catalog_of_weights(tmp_path: Path) -> None:
    dsp = load_catalog()["dsp"]
    store = ModelStore(tmp_path, catalog=Catalog(models=(dsp,)))
    model = load_model(request(model="dsp"), dsp, plan_stems(request(), dsp), store)
    assert (model.engine, model.device, len(model.separators)) == ("numpy", "cpu", 1)
