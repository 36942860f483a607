"""Whole runs of training: in one go, stopped, killed and gone on with, shared by processes, ended early, refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
import torch

from multitracks import STEMS, synthetic_stem
from program import COMMAND, environment, lines, posix_only, start
from revithion_stems.errors import Cancelled, ConfigError, EngineError, ModelError, OutputError, RevithionError
from revithion_stems.events import CancelToken
from revithion_stems.quality import sdr_db
from revithion_stems.training.checkpoints import BEST, LAST, Progress, load_checkpoint
from revithion_stems.training.losses import Estimates, weighted_loss
from revithion_stems.training.running import train
from revithion_stems.training.train_config import LossWeights, TrainConfig, load_train_config, parse_train_config
from revithion_stems.training.train_events import CheckpointSaved, StepDone, TrainEvent, ValidationDone

RATE = 8_000
MODEL = """
sample_rate = 8000
analysis_frames = 256
synthesis_frames = 128
hop_frames = 64
channels = 8
blocks = 1
bands = [[8, 4], [4, 8], [1, 65]]
"""
CONFIG = f"""
name = "tiny"
architecture = "causal_preview"
steps = 12
seed = 4
threads = 1

[model]
{MODEL}

[[data]]
kind = "folder"
path = "songs"

[[validation_data]]
kind = "folder"
path = "songs"
songs = ["one"]

[examples]
seconds = 0.25
batch = 2
workers = 0

[augment]
mp3_probability = 0.0

[optimiser]
warmup_steps = 2
decay_steps = 4

[validation]
every_steps = 4
max_seconds = 1.0
"""
STILL = {"optimiser": {"learning_rate": 1e-12, "warmup_steps": 0, "decay_steps": 0}}
"""A rate below the resolution of weights: they stay as they are."""


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Training in this process leaves it as it found it."""
    monkeypatch.setattr("revithion_stems.training.trainer._keep_freed_memory", lambda: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "place"
    for number, name in enumerate(("one", "two")):
        song = folder / "songs" / name
        song.mkdir(parents=True)
        for stem in STEMS:
            soundfile.write(song / f"{stem}.wav", synthetic_stem(stem, number, 2 * RATE, RATE).T, RATE)
    (folder / "tiny.toml").write_text(CONFIG, encoding="utf-8")
    return folder


def config(place: Path, **changes: Any) -> TrainConfig:
    """The one above with other values; a table's are put over its own."""
    import tomllib

    said = tomllib.loads(CONFIG)
    for key, value in changes.items():
        said[key] = {**said[key], **value} if isinstance(said.get(key), dict) else value
    return parse_train_config(said, place)


def run(settings: TrainConfig, folder: Path, *, until: int | None = None, processes: int = 1) -> list[TrainEvent]:
    """A run and what it told; it is cancelled after a step, if one is given."""
    seen: list[TrainEvent] = []
    cancel = CancelToken()

    def note(event: TrainEvent) -> None:
        seen.append(event)
        if isinstance(event, StepDone) and event.step == until:
            cancel.cancel()

    if until is None:
        train(settings, folder, on_event=note, cancel=cancel, processes=processes)
    else:
        with pytest.raises(Cancelled):
            train(settings, folder, on_event=note, cancel=cancel, processes=processes)
    return seen


def steps_in(events: list[TrainEvent]) -> list[int]:
    return [event.step for event in events if isinstance(event, StepDone)]


def same_state(ours: Path, theirs: Path) -> None:
    """Weights, their mean, and the optimiser's state, bit for bit."""
    mine, other = load_checkpoint(ours), load_checkpoint(theirs)
    for name in ("network", "mean"):
        ours_, theirs_ = getattr(mine, name), getattr(other, name)
        assert ours_.keys() == theirs_.keys()
        for key, tensor in ours_.items():
            assert torch.equal(tensor, theirs_[key]), (name, key)
    assert (mine.optimiser is None) == (other.optimiser is None)
    if mine.optimiser is not None and other.optimiser is not None:
        assert mine.optimiser["param_groups"] == other.optimiser["param_groups"]
        for index, moments in mine.optimiser["state"].items():
            for key, value in moments.items():
                others = other.optimiser["state"][index][key]
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(others)), (index, key)
    assert msgspec.structs.replace(mine.config, steps=1) == msgspec.structs.replace(other.config, steps=1)


def told(progress: Progress) -> tuple[Any, ...]:
    """All of it but the time."""
    figures = [
        progress.best_mean_db,
        *progress.sdr_db.values(),
        *(v for s in progress.songs.values() for v in s.values()),
    ]
    # Sums of squares depend on where an array lies in memory, in their last digits.
    return progress.step, progress.best_step, progress.stale, [None if v is None else round(v, 6) for v in figures]


@pytest.fixture(scope="module")
def whole(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps in one go, in a process of its own."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    command = [*COMMAND, "train", "tiny.toml", "-o", str(folder), "--quiet"]
    subprocess.run(command, cwd=place, env=environment(place), check=True, timeout=120)
    return folder


@pytest.mark.parametrize("optimiser", [{"accumulate": 1}, {"accumulate": 2, "kind": "muon"}])
def test_a_run_that_was_stopped_twice_is_the_run_in_one_go(
    place: Path, tmp_path: Path, optimiser: dict[str, Any]
) -> None:
    settings = config(place, steps=8, optimiser=optimiser)
    one = run(settings, tmp_path / "one")
    assert steps_in(one) == list(range(1, 9))
    parts: list[TrainEvent] = []
    for until in (1, 5, None):
        part = run(settings, tmp_path / "parts", until=until)
        if until is not None:
            assert part[-1] == CheckpointSaved(step=until, path=tmp_path / "parts" / LAST)
        parts += part
    assert steps_in(parts) == steps_in(one)
    losses = [[event.losses for event in events if isinstance(event, StepDone)] for events in (one, parts)]
    assert losses[0] == losses[1]
    checked = [[event for event in events if isinstance(event, ValidationDone)] for events in (one, parts)]
    assert checked[0] == checked[1]
    for name in (LAST, BEST):
        same_state(tmp_path / "parts" / name, tmp_path / "one" / name)
    ends = [load_checkpoint(tmp_path / name / LAST).progress for name in ("one", "parts")]
    assert told(ends[0]) == told(ends[1])


@posix_only
def test_a_run_that_was_killed_twice_is_the_run_in_one_go(place: Path, whole: Path, tmp_path: Path) -> None:
    """Once between checkpoints, once while a checkpoint's partner is not written yet, both without any warning."""
    folder = tmp_path / "run"
    random_step = random.Random(os.getpid()).randint(5, 7)
    kills: list[Callable[[dict[str, Any]], bool]] = [
        lambda event: event["type"] == "StepDone" and event["step"] == random_step,
        lambda event: event["type"] == "ValidationDone" and event["step"] == 8,
    ]
    begins: list[int] = []
    for kill in kills:
        process = start(place, "train", "tiny.toml", "-o", folder, "--json")
        assert process.stdout is not None
        seen: list[dict[str, Any]] = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if kill(seen[-1]):
                process.kill()
                break
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        begins.append(next(event["step"] for event in seen if event["type"] == "StepDone"))
    assert begins == [1, 5]  # after the checkpoint of step 4
    last = run(load_train_config(place / "tiny.toml"), folder)
    assert steps_in(last)[0] in (5, 9)  # the kill came before or after the second checkpoint
    assert steps_in(last)[-1] == 12
    for name in (LAST, BEST):
        same_state(folder / name, whole / name)
    assert told(load_checkpoint(folder / LAST).progress) == told(load_checkpoint(whole / LAST).progress)
    assert not [path for path in folder.iterdir() if path.suffix == ".part" and path.stat().st_size == 0]


def test_a_finished_run_stays_finished_and_can_be_made_longer(place: Path, tmp_path: Path) -> None:
    settings = config(place, steps=2, optimiser={"decay_steps": 0})
    run(settings, tmp_path)
    before = (tmp_path / LAST).read_bytes()
    assert steps_in(run(settings, tmp_path)) == []
    assert (tmp_path / LAST).read_bytes() == before
    longer = msgspec.structs.replace(settings, steps=4)
    assert steps_in(run(longer, tmp_path)) == [3, 4]
    run(longer, tmp_path / "one go")
    same_state(tmp_path / LAST, tmp_path / "one go" / LAST)


def test_a_stop_before_the_last_validation_does_not_lose_it(place: Path, tmp_path: Path) -> None:
    """The last step was done, the validation after it was not: the next start makes up for it."""
    settings = config(place, steps=4)
    assert not [event for event in run(settings, tmp_path / "parts", until=4) if isinstance(event, ValidationDone)]
    (late,) = (event for event in run(settings, tmp_path / "parts") if isinstance(event, ValidationDone))
    (early,) = (event for event in run(settings, tmp_path / "one") if isinstance(event, ValidationDone))
    assert late == early
    same_state(tmp_path / "parts" / BEST, tmp_path / "one" / BEST)
    assert run(settings, tmp_path / "parts") == run(settings, tmp_path / "one")  # and that is all


def test_what_a_step_tells(place: Path, tmp_path: Path) -> None:
    events = [event for event in run(config(place, steps=3), tmp_path) if isinstance(event, StepDone)]
    for event in events:
        assert set(event.losses) == {"total", "error"}
        assert event.losses["total"] == pytest.approx(event.losses["error"])
        assert event.gradient_norm > 0
        assert event.learning_rate > 0
    left = [event.seconds_left for event in events]
    assert left[-1] == 0
    assert left[0] is not None
    assert left[0] > 0


def test_it_ends_when_validations_get_no_better(place: Path, tmp_path: Path) -> None:
    settings = config(place, steps=50, validation={"every_steps": 2, "patience": 2}, **STILL)
    events = run(settings, tmp_path)
    assert steps_in(events) == [1, 2, 3, 4, 5, 6]  # the first validation is the best, two more are not better
    assert [event.best for event in events if isinstance(event, ValidationDone)] == [True, False, False]
    progress = load_checkpoint(tmp_path / LAST).progress
    assert (progress.best_step, progress.stale, progress.step) == (2, 2, 6)
    assert load_checkpoint(tmp_path / BEST).progress.step == 2
    assert steps_in(run(settings, tmp_path)) == []


def test_it_begins_with_the_mean_of_another_run(place: Path, tmp_path: Path, whole: Path) -> None:
    run(config(place, steps=1, initial=str(whole / BEST), seed=9, **STILL), tmp_path)
    begun, source = load_checkpoint(tmp_path / LAST), load_checkpoint(whole / BEST)
    assert begun.progress.step == 1
    for name, tensor in source.mean.items():
        torch.testing.assert_close(begun.network[name], tensor, rtol=0, atol=1e-9)
    assert any(not torch.equal(source.network[name], source.mean[name]) for name in source.mean)
    # What is in the folder goes before it.
    run(config(place, steps=2, initial=str(tmp_path / "gone.pt"), seed=9, **STILL), tmp_path)
    assert load_checkpoint(tmp_path / LAST).progress.step == 2


def test_gradients_that_are_not_finite_are_left_out(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def sometimes(estimates: Estimates, weights: LossWeights) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nonlocal asked
        asked += 1
        total, parts = weighted_loss(estimates, weights)
        return (total * float("nan") if asked == 2 else total), parts

    monkeypatch.setattr("revithion_stems.training.trainer.weighted_loss", sometimes)
    seen: list[TrainEvent] = []
    settings = config(place, steps=3)
    train(settings, tmp_path, on_event=seen.append, cancel=CancelToken())
    norms = [event.gradient_norm for event in seen if isinstance(event, StepDone)]
    assert [bool(np.isfinite(norm)) for norm in norms] == [True, False, True]
    held = load_checkpoint(tmp_path / LAST)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (*held.network.values(), *held.mean.values()))


def test_memory_that_runs_out_is_said(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(estimates: Estimates, weights: LossWeights) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return torch.empty(1 << 56).sum(), {}

    monkeypatch.setattr("revithion_stems.training.trainer.weighted_loss", too_much)
    with pytest.raises(EngineError, match="memory ran out on cpu in step 1") as caught:
        train(config(place, steps=3), tmp_path, on_event=lambda _: None, cancel=CancelToken())
    assert caught.value.code == "engine.memory"
    assert "batch" in (caught.value.hint or "")


def test_a_training_that_has_diverged_is_given_up(place: Path, tmp_path: Path) -> None:
    settings = config(place, steps=100, validation={"every_steps": 100}, losses={"sdr": 3e38})
    seen: list[TrainEvent] = []
    with pytest.raises(EngineError, match="no finite gradient since step 0") as caught:
        train(settings, tmp_path, on_event=seen.append, cancel=CancelToken())
    assert caught.value.code == "train.diverged"
    assert steps_in(seen) == list(range(1, 21))  # the patience
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize(
    ("changes", "told_"),
    [
        ({"model": {"channels": 4}}, "not the one of the configuration"),
        ({"architecture": "bsrnn", "model": {}}, "bsrnn|not the one|option"),
        ({"model": {"stems": ["vocals"]}}, "one alone is the mix"),
        ({"model": {"chanels": 4}}, "chanels"),
        ({"architecture": "nothing"}, "nothing"),
        ({"device": "abacus"}, "abacus"),
        ({"optimiser": {"kind": "muon"}}, "trained with adamw, .* no use to muon"),
        ({"optimiser": {"kind": "sgd"}}, "sgd"),
    ],
)
def test_what_does_not_fit_is_refused(
    place: Path, whole: Path, tmp_path: Path, changes: dict[str, Any], told_: str
) -> None:
    (tmp_path / LAST).write_bytes((whole / LAST).read_bytes())
    with pytest.raises(ConfigError, match=told_):
        run(config(place, **changes), tmp_path)
    assert (tmp_path / LAST).read_bytes() == (whole / LAST).read_bytes()


def test_other_weights_to_begin_with_are_refused(place: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the one of the configuration"):
        run(config(place, initial=str(whole / LAST), model={"channels": 4}), tmp_path)
    with pytest.raises(ModelError, match=r"gone\.pt"):
        run(config(place, initial="gone.pt"), tmp_path)


def test_checkpoints_that_no_run_can_go_on_from_are_refused(place: Path, whole: Path, tmp_path: Path) -> None:
    """The best one has no optimiser; a damaged one is not silently begun anew."""
    (tmp_path / LAST).write_bytes((whole / BEST).read_bytes())
    with pytest.raises(ModelError, match="optimiser") as caught:
        run(config(place), tmp_path)
    assert "initial" in caught.value.hint
    damaged = (whole / LAST).read_bytes()[:5_000]
    (tmp_path / LAST).write_bytes(damaged)
    with pytest.raises(ModelError, match="no checkpoint"):
        run(config(place), tmp_path)
    assert (tmp_path / LAST).read_bytes() == damaged


@pytest.mark.parametrize(
    ("line", "instead", "told_"),
    [
        ("seed = 4", "sead = 4", "sead"),
        ("batch = 2", "batches = 2", r"batches.*examples|examples.*batches"),
        ("batch = 2", "batch = 0", r"examples\.batch"),
        ("steps = 12", "steps = '12'", "steps"),
        ("steps = 12", "", "steps"),
        ('name = "tiny"', 'name = "../tiny"', "name"),
        ("warmup_steps = 2", "warmup_steps = -1", "warmup_steps"),
        ("threads = 1", 'precision = "float8"', "float8"),
        ("mp3_probability = 0.0", "mp3_probability = 2.0", "mp3_probability"),
        ('kind = "folder"', 'kind = "zip"', "zip"),
    ],
)
def test_the_key_that_is_wrong_is_named(tmp_path: Path, line: str, instead: str, told_: str) -> None:
    assert line in CONFIG
    (tmp_path / "c.toml").write_text(CONFIG.replace(line, instead), encoding="utf-8")
    with pytest.raises(ConfigError, match=told_) as caught:
        load_train_config(tmp_path / "c.toml")
    assert caught.value.hint


def test_a_file_that_is_no_configuration_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "no.toml").write_bytes(b"name = \xff")
    (tmp_path / "half.toml").write_text("[model\n", encoding="utf-8")
    for name in ("gone.toml", "no.toml", "half.toml"):
        with pytest.raises(ConfigError, match=name) as caught:
            load_train_config(tmp_path / name)
        assert caught.value.code == "config.train"


def test_paths_start_from_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    absolute = (tmp_path / "abs").absolute()
    text = CONFIG.replace("seed = 4", 'seed = 4\ninitial = "../older/last.pt"')
    text = text.replace('path = "songs"', f"path = {json.dumps(str(absolute))}", 1)
    (tmp_path / "deep" / "c.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for said in (Path("deep") / "c.toml", tmp_path / "deep" / "c.toml"):
        read = load_train_config(said)
        assert read.data[0].path == absolute
        assert read.validation_data[0].path == tmp_path / "deep" / "songs"
        assert read.initial is not None
        assert read.initial.is_absolute()
        assert read.initial.resolve() == (tmp_path / "older" / "last.pt").resolve()


def test_a_full_disk_ends_it_and_the_last_checkpoint_stays(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(place, steps=4, validation={"every_steps": 2}, validation_data=[])
    seen: list[TrainEvent] = []

    def note(event: TrainEvent) -> None:
        seen.append(event)
        if isinstance(event, CheckpointSaved):
            monkeypatch.setattr(os, "fsync", full)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError) as caught:
        train(settings, tmp_path, on_event=note, cancel=CancelToken())
    assert caught.value.code == "output.disk_full"
    assert load_checkpoint(tmp_path / LAST).progress.step == 2
    assert [file.name for file in tmp_path.iterdir()] == [LAST]


@pytest.mark.parametrize("how", ["killed", "its songs removed"])
def test_a_worker_that_fails_says_why(place: Path, tmp_path: Path, how: str) -> None:
    """On a thread, as the command line has it: on the main one PyTorch raises from a handler of SIGCHLD, anywhere."""
    settings = config(place, steps=500, examples={"workers": 1}, validation_data=[])

    def harm(event: TrainEvent) -> None:
        if not isinstance(event, StepDone):
            return
        if how == "killed":
            for worker in multiprocessing.active_children():
                worker.kill()
            return
        for file in Path(os.environ["REVITHION_CACHE_DIR"]).rglob("*"):
            if file.is_file():
                file.unlink()

    with ThreadPoolExecutor(1) as thread:
        outcome = thread.submit(train, settings, tmp_path, on_event=harm, cancel=CancelToken())
        reason = "." if how == "killed" else "InputError"  # of the killed one, whichever end notices first
        with pytest.raises(EngineError, match="prepares examples failed: .*" + reason) as caught:
            outcome.result(timeout=120)
    assert caught.value.code == "engine.failed"


RANK = """
import sys
from pathlib import Path
import torch
from revithion_stems.events import CancelToken
from revithion_stems.training import running, trainer
from revithion_stems.training.train_config import load_train_config

class Kept(trainer.Trainer):
    def run(self):
        progress = super().run()
        torch.save(self._network.state_dict(), sys.argv[3])
        return progress

if __name__ == "__main__":
    running.Trainer = Kept
    events = []
    running.train(load_train_config(Path(sys.argv[1])), Path(sys.argv[2]), on_event=events.append, cancel=CancelToken())
    print(len(events))
"""


@pytest.mark.slow
@posix_only
def test_two_processes_have_one_network_and_are_one_with_twice_the_batches(place: Path, tmp_path: Path) -> None:
    """As torchrun starts them, on a CPU. The same examples, so the same gradients but for the order of sums."""
    text = CONFIG.replace("steps = 12", "steps = 3").replace("decay_steps = 4", "decay_steps = 0")
    (place / "three.toml").write_text(text, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                RANK,
                str(place / "three.toml"),
                str(tmp_path / "run"),
                str(tmp_path / f"{rank}.pt"),
            ],
            env=environment(
                place,
                RANK=str(rank),
                WORLD_SIZE="2",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                GLOO_SOCKET_IFNAME="lo0" if sys.platform == "darwin" else "lo",
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told_ = [process.communicate(timeout=200)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert int(told_[1]) == 0  # only the first one reports
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    run(config(place, steps=3, optimiser={"accumulate": 2, "decay_steps": 0}), tmp_path / "one")
    alone = load_checkpoint(tmp_path / "one" / LAST)
    saved = load_checkpoint(tmp_path / "run" / LAST)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        assert torch.equal(tensor, saved.network[name]), name
        torch.testing.assert_close(tensor, alone.network[name], rtol=0, atol=1e-6)


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_gone_ends_the_others(place: Path, tmp_path: Path, rank: int) -> None:
    settings = config(place, steps=100_000, validation_data=[], validation={"every_steps": 2})
    killed: list[int] = []
    older = set(multiprocessing.active_children())

    def note(event: TrainEvent) -> None:
        if isinstance(event, StepDone) and event.step >= 3 and not killed:
            pids = sorted(child.pid or 0 for child in multiprocessing.active_children() if child not in older)
            assert len(pids) == 2
            killed.append(pids[rank])  # they were started in order
            os.kill(pids[rank], signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(EngineError) as caught:
        train(settings, tmp_path, on_event=note, cancel=CancelToken(), processes=2)
    assert caught.value.code == "engine.failed"
    assert killed
    assert time.monotonic() - began < 120
    assert set(multiprocessing.active_children()) <= older
    assert load_checkpoint(tmp_path / LAST).progress.step >= 2


@pytest.mark.slow
@posix_only
def test_an_error_of_one_process_is_the_run_s(place: Path, tmp_path: Path) -> None:
    """Typed and as it was, though it happened elsewhere; and a stop reaches all of them."""
    settings = config(place, steps=100, validation_data=[])
    diverging = config(place, steps=100, validation_data=[], losses={"sdr": 3e38})
    with pytest.raises(RevithionError) as caught:
        train(diverging, tmp_path / "a", on_event=lambda _: None, cancel=CancelToken(), processes=2)
    assert caught.value.code == "train.diverged"
    events = run(settings, tmp_path / "b", until=2, processes=2)
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert load_checkpoint(tmp_path / "b" / LAST).progress.step == saved[-1].step == steps_in(events)[-1]


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize(
    ("options", "at", "after_s"),
    [
        ((), "DatasetProgress", 0.6),  # while the worker starts and can't ignore anything yet
        ((), "StepDone", 0.0),
        (("--processes", "2"), "StepDone", 0.0),
    ],
    ids=["worker starts", "worker", "two processes with workers"],
)
def test_ctrl_c_on_a_terminal_reaches_all_and_saves(
    place: Path, tmp_path: Path, options: tuple[str, ...], at: str, after_s: float
) -> None:
    """A terminal sends it to every process of the foreground: the group gets it here."""
    (place / "workers.toml").write_text(CONFIG.replace("workers = 0", "workers = 1"), encoding="utf-8")
    process = subprocess.Popen(
        [*COMMAND, "train", "workers.toml", "-o", str(tmp_path / "run"), "--steps", "100000", "--json", *options],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        event = json.loads(line)
        if event["type"] == at and event.get("song", "one") == "one" and event.get("total", 1) == 1:
            time.sleep(after_s)
            os.killpg(process.pid, signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 130, rest + errors
    assert "Traceback" not in errors
    saved = [event for event in lines("".join(seen) + rest) if event["type"] == "CheckpointSaved"][-1]
    assert load_checkpoint(tmp_path / "run" / LAST).progress.step == saved["step"] >= 1


@pytest.mark.slow
def test_it_learns_a_song(place: Path, tmp_path: Path) -> None:
    """From nothing to a song known by heart: well above the mix divided by four, on the song as validation has it."""
    settings = config(
        place,
        steps=240,
        data=[{"kind": "folder", "path": "songs", "songs": ["one"]}],
        model={"channels": 24, "blocks": 1},
        examples={"seconds": 0.75, "batch": 4, "remix": 0.0, "absent": 0.0},
        augment=dict.fromkeys(_EFFECTS, 0.0),
        optimiser={"learning_rate": 1e-2, "warmup_steps": 10, "decay_steps": 80, "ema_decay": 0.9},
        validation={"every_steps": 240, "max_seconds": 2.0},
    )
    before = run(msgspec.structs.replace(settings, steps=1), tmp_path / "before")
    (untrained,) = (event for event in before if isinstance(event, ValidationDone))
    (trained,) = (event for event in run(settings, tmp_path / "run") if isinstance(event, ValidationDone))
    stems = [synthetic_stem(stem, 0, 2 * RATE, RATE) for stem in STEMS]
    quarter = np.sum(stems, axis=0) / 4
    floor = float(np.mean([sdr_db(stem, quarter) for stem in stems]))
    assert trained.mean >= untrained.mean + 6
    assert trained.mean >= floor + 4
    assert min(trained.sdr_db.values()) > max(0.0, floor)


_EFFECTS = (
    "gain_probability",
    "pan_probability",
    "polarity_probability",
    "swap_probability",
    "eq_probability",
    "reverb_probability",
    "speed_probability",
    "mp3_probability",
)
