"""``revithion-stems evaluate``: songs in, table, JSON and page out; and the gate that CI relies on."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from multitracks import write_song
from program import lines, posix_only, start
from revithion_stems.cli.main import main

FIGURES = Path(__file__).parent / "regression" / "synthetic.json"
STORE = "STORE_FIGURES"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of a few seconds, made from seeds; the last has no bass."""
    folder = tmp_path_factory.mktemp("evaluation") / "synthetic"
    write_song(folder / "one", 1, 4.0)
    write_song(folder / "two", 2, 5.5)
    write_song(folder / "three", 3, 4.0, ("drums", "other", "vocals"))
    return folder


@pytest.fixture(autouse=True)
def _no_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "none.toml"))
    monkeypatch.setenv("COLUMNS", "160")


def run(capsys, *args) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--offline", *map(str, args)])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def stored_models() -> set[str]:
    return set(json.loads(FIGURES.read_text(encoding="utf-8"))["models"]) if FIGURES.exists() else set()


@pytest.mark.parametrize("model", ["mix", "oracle", "dsp", "preview"])
def test_no_figure_fell_below_what_is_stored(capsys, dataset, model):
    """STORE_FIGURES=preview python -m pytest tests/stems/test_evaluation_cli.py -k stored  stores anew."""
    if model in os.environ.get(STORE, "").split(","):
        status, _, err = run(capsys, "-m", model, "-d", dataset, "--metrics", "energy", "-q", "--store", FIGURES)
        assert status == 0, err
    if model not in stored_models():
        pytest.skip(f"no figures of {model} are stored; with {STORE}={model} this test stores them")
    status, out, err = run(capsys, "-m", model, "-d", dataset, "--metrics", "energy", "--gate", FIGURES)
    assert status == 0, err
    assert "No figure is more than 0.05 dB below" in out


def test_a_figure_that_fell_is_named_and_fails(capsys, dataset, tmp_path):
    gate = tmp_path / "figures.json"
    arguments = ("-m", "mix", "-d", dataset, "--metrics", "energy", "-q")
    assert run(capsys, *arguments, "--store", gate)[0] == 0
    stored = json.loads(gate.read_text())
    assert stored["tolerance_reason"]
    assert run(capsys, *arguments, "--gate", gate)[0] == 0
    stored["models"]["mix"]["vocals"]["sdr_db"] += 0.2
    gate.write_text(json.dumps(stored))
    status, out, _ = run(capsys, *arguments, "--gate", gate, "--json")
    report, error = lines(out)
    assert (status, report["type"], error["code"]) == (4, "Evaluation", "model.regressed")
    assert re.search(r"1 figures? fell .*mix vocals SDR: -?\d+\.\d\d dB, stored", error["message"])
    stored["tolerance_db"] = 0.3
    gate.write_text(json.dumps(stored))
    assert run(capsys, *arguments, "--gate", gate)[0] == 0
    run(capsys, "-m", "oracle", *arguments[2:], "--store", gate)
    kept = json.loads(gate.read_text())
    assert (set(kept["models"]), kept["tolerance_db"]) == ({"mix", "oracle"}, 0.3)


def test_gates_that_cannot_tell(capsys, dataset, tmp_path):
    gate = tmp_path / "figures.json"
    arguments = ("-d", dataset, "--metrics", "energy", "--gate", gate, "--json")
    for content in ("{", "{}", '{"songs": {}, "tolerance_db": 0}'):
        gate.write_text(content)
        status, out, _ = run(capsys, "-m", "mix", *arguments)
        assert (status, lines(out)[-1]["code"]) == (2, "config.figures")
    run(capsys, "-m", "mix", "-d", dataset, "-q", "--metrics", "energy", "--store", tmp_path / "mix.json")
    gate.write_bytes((tmp_path / "mix.json").read_bytes())
    status, out, _ = run(capsys, "-m", "dsp", *arguments)
    assert (status, lines(out)[-1]["code"]) == (2, "request.figures")
    status, out, _ = run(capsys, "-m", "mix", *arguments, "--song", "one")
    assert "of other songs" in lines(out)[-1]["message"]


def test_json_has_every_figure_and_null_where_there_is_none(capsys, dataset, tmp_path):
    status, out, err = run(capsys, "-m", "mix", "-d", dataset, "--json", "-o", tmp_path / "out")
    assert (status, err) == (0, "")
    (report,) = lines(out)
    assert report == json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    (model,) = report["models"]
    assert (report["dataset"], model["kind"], report["groups"]) == ("synthetic", "floor", ["energy", "spectral"])
    names = {metric["name"] for metric in report["metrics"]}
    assert names == {"sdr_median_db", "sdr_db", "si_sdr_db", "bleedless", "fullness", "lsd_db"}
    songs = {song["song"]: song for song in model["songs"]}
    assert list(songs) == ["one", "three", "two"]
    stems = {stem["stem"]: stem for stem in songs["three"]["stems"]}
    assert stems["bass"]["silent_reference"]
    assert [stems["bass"][name] for name in names] == [None] * 6
    assert stems["bass"]["estimate_dbfs"] < 0
    assert all(isinstance(stems["drums"][name], float) for name in names)
    assert model["stems"]["bass"]["sdr_db"] == pytest.approx(
        sum(s["sdr_db"] for n in ("one", "two") for s in songs[n]["stems"] if s["stem"] == "bass") / 2
    )


class Page(HTMLParser):
    """Tags that are open, all that were seen, and whatever points outside."""

    VOID = frozenset({"meta", "img", "br", "link", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: dict[str, int] = {}
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen[tag] = self.seen.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("data:image/png", "#")):
                self.outside.append(value)

    def handle_startendtag(self, tag, attrs):
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_outside(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "<b>songs & more"
    write_song(folder / 'a "song" <i>', 1, 2.0)
    write_song(folder / "b", 2, 2.0)
    page = tmp_path / "page"
    status, out, err = run(capsys, "-m", "dsp,mix", "-d", folder, "--html", page, "--metrics", "energy")
    assert status == 0, err
    assert "evaluation.html" in out
    text = (page / "evaluation.html").read_text(encoding="utf-8")
    parser = Page()
    parser.feed(text)
    assert parser.open == []
    assert parser.outside == []
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", text)
    assert parser.seen["svg"] == 3  # a plot per figure
    assert parser.seen["img"] == 4 * 3  # the first song: stems of the model, target, estimate, error
    assert "<b>" not in text.split("<footer>")[0]
    assert "&lt;i&gt;" in text
    assert "var(--series-1)" in text
    assert "#030301" not in text
    assert "prefers-color-scheme: dark" in text
    other = tmp_path / "one.html"
    assert run(capsys, "-m", "mix", "-d", folder, "--html", other, "--metrics", "energy", "--show", "b", "-q")[0] == 0
    assert len(re.findall("<img", other.read_text(encoding="utf-8"))) == 4 * 3
    assert ">b<" in other.read_text(encoding="utf-8")


def test_the_table_tells_floors_and_ceilings(capsys, dataset):
    status, out, err = run(capsys, "-m", "mix,oracle", "-d", dataset, "--metrics", "energy", "--song", "o*")
    assert status == 0
    assert re.search(r"mix floor +│ .*\d\.\d\d", out)
    assert re.search(r"oracle ceiling", out)
    assert "1 song · peak" in out
    assert err.splitlines()[0].strip() == "0% mix: one"


@pytest.mark.parametrize("missing", ["matplotlib", "museval"])
def test_a_missing_package_is_told_with_the_way_to_get_it(capsys, dataset, tmp_path, monkeypatch, missing):
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    extra = ("--html", tmp_path / "x.html") if missing == "matplotlib" else ("--metrics", "bss")
    status, out, _ = run(capsys, "-m", "mix", "-d", dataset, "--song", "one", *extra, "--json")
    (error,) = lines(out)
    assert (status, error["code"]) == (6, "engine.missing")
    assert "revithion-stems[train]" in error["hint"]
    assert not (tmp_path / "x.html").exists()


def test_wrong_arguments_name_what_is_allowed(capsys, dataset, tmp_path):
    status, out, _ = run(capsys, "-m", "mix", "-d", dataset, "--metrics", "sdr", "--json")
    assert (status, lines(out)[0]["code"]) == (2, "request.metrics")
    status, out, _ = run(capsys, "-m", "mix", "-d", tmp_path / "nowhere", "--json")
    assert status == 3
    status, out, _ = run(capsys, "-m", "mix", "-d", dataset, "--song", "zzz", "--json")
    assert (status, lines(out)[0]["type"]) == (3, "Error")
    status, out, _ = run(capsys, "-m", "nonsense", "-d", dataset, "--json")
    assert (status, lines(out)[0]["type"]) == (4, "Error")


@posix_only
def test_ctrl_c_leaves_nothing(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    write_song(place / "songs" / "long", 1, 40.0)
    process = start(place, "evaluate", "-m", "dsp,oracle,mix", "-d", "songs", "-o", "out", "--store", "figures.json")
    assert process.stderr is not None
    for line in process.stderr:
        if "dsp: long" in line:
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "cancelling" in err
    assert sorted(path.name for path in place.iterdir()) == ["songs"]
