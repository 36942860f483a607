"""`train` and `models export` as users have them: to the end, stopped and gone on with, and what they refuse."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from multitracks import RATE, synthetic_stem, write_song
from program import lines, posix_only, run, start

CONFIG = """
name = "tiny"
architecture = "causal_preview"
steps = 3
seed = 4
threads = 1

[model]
channels = 4
blocks = 1

[[data]]
kind = "folder"
path = "songs"

[[validation_data]]
kind = "folder"
path = "songs"

[examples]
seconds = 0.3
batch = 1
workers = 0

[augment]
mp3_probability = 0.0

[optimiser]
warmup_steps = 1
decay_steps = 1

[validation]
every_steps = 2
max_seconds = 1.0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train") / "place"
    folder.mkdir()
    write_song(folder / "songs" / "one", 1, 1.5)
    (folder / "tiny.toml").write_text(CONFIG, encoding="utf-8")
    return folder


def means(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["mean"]


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """A run that went to its end at once."""
    done = run(place, "train", "tiny.toml", "--tensorboard", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    events = lines(done.stdout)
    assert [event["step"] for event in events if event["type"] == "StepDone"] == [1, 2, 3]
    validations = [event for event in events if event["type"] == "ValidationDone"]
    assert [event["step"] for event in validations] == [2, 3]
    assert set(validations[0]["sdr_db"]) == {"drums", "bass", "other", "vocals"}
    assert events[-1]["type"] == "Trained"
    assert events[-1]["step"] == 3
    assert events[-1]["best_mean_db"] == max(event["mean"] for event in validations)
    return place / "runs" / "tiny"


def test_a_run_leaves_what_the_manual_lists(trained: Path) -> None:
    assert {"last.pt", "best.pt", "config.toml", "log.jsonl", "tensorboard"} <= {
        path.name for path in trained.iterdir()
    }
    logged = lines((trained / "log.jsonl").read_text("utf-8"))
    assert [event["step"] for event in logged if event["type"] == "StepDone"] == [1, 2, 3]
    assert (trained / "config.toml").read_text("utf-8") == CONFIG
    assert list((trained / "tensorboard").iterdir())


def test_the_run_becomes_a_file_that_separates(trained: Path, place: Path) -> None:
    exported = run(place, "models", "export", "runs/tiny", "-o", "nets", "--licence", "MIT", "--json")
    assert exported.returncode == 0, exported.stderr
    (told,) = lines(exported.stdout)
    assert told["facts"]["licence"]["commercial_use"] == "no"  # nothing says what that folder may be used for
    card = (place / "nets" / "tiny.safetensors.md").read_text("utf-8")
    assert "- seed: 4" in card
    assert "| one |" in card  # the song's own figures
    soundfile.write(place / "mix.wav", synthetic_stem("vocals", 2, RATE).T, RATE)
    done = run(place, "separate", "mix.wav", "-m", told["path"], "--json")
    assert done.returncode == 0, done.stderr
    total = sum(soundfile.read(place / "mix" / f"{s}.wav", dtype="float32")[0] for s in told["facts"]["stems"])
    np.testing.assert_array_equal(total, soundfile.read(place / "mix.wav", dtype="float32")[0])
    assert run(place, "models", "export", "runs/tiny", "-o", "nets", "--to", "onnx").returncode == 0
    for form in ("safetensors", "onnx"):  # in one folder, each with a card of its own
        digest = hashlib.sha256((place / "nets" / f"tiny.{form}").read_bytes()).hexdigest()
        assert digest in (place / "nets" / f"tiny.{form}.md").read_text("utf-8")
    info = run(place, "models", "info", told["path"])
    assert "causal_preview network of the training tiny" in info.stdout
    assert f"present in {place / 'nets'}" in info.stdout.replace("\n", "")


def test_the_running_mean_is_exported(trained: Path, place: Path) -> None:
    from safetensors.torch import load_file

    assert run(place, "models", "export", "runs/tiny", "-o", "last", "--last").returncode == 0
    exported = load_file(place / "last" / "tiny.safetensors")
    held = torch.load(trained / "last.pt", weights_only=True)
    for name, tensor in held["mean"].items():
        assert torch.equal(exported[name], tensor)
    assert any(not torch.equal(held["mean"][name], held["network"][name]) for name in exported)


def test_a_run_in_parts_is_the_run_in_one(trained: Path, place: Path) -> None:
    """Stopped after its first step by --minutes, then gone on with."""
    paused = run(place, "train", "tiny.toml", "-o", "parts", "--minutes", "0.00001", "--json")
    assert paused.returncode == 0, paused.stderr
    assert lines(paused.stdout)[-1] == {"type": "Paused", "folder": "parts", "step": 1, "steps": 3}
    refused = run(place, "train", "tiny.toml", "-o", "parts", "--no-resume", "--json")
    assert refused.returncode == 2
    assert "no-resume" in lines(refused.stdout)[-1]["message"]
    done = run(place, "train", "tiny.toml", "-o", "parts", "--json")
    assert [event["step"] for event in lines(done.stdout) if event["type"] == "StepDone"] == [2, 3]
    whole, parts = means(trained / "last.pt"), means(place / "parts" / "last.pt")
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name
    logged = lines((place / "parts" / "log.jsonl").read_text("utf-8"))
    assert [event["step"] for event in logged if event["type"] == "StepDone"] == [1, 2, 3]


@posix_only
def test_ctrl_c_saves_and_says_how_to_go_on(place: Path) -> None:
    process = start(place, "train", "tiny.toml", "-o", "stopped", "--steps", "100000", "--json")
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if json.loads(line)["type"] == "StepDone":
            process.send_signal(signal.SIGINT)
            break
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    end = lines(rest)[-1]
    assert end["code"] == "job.cancelled"
    assert "same command goes on" in end["message"]
    saved = [event for event in lines("".join(seen) + rest) if event["type"] == "CheckpointSaved"][-1]
    assert f"step {saved['step']} " in end["message"]
    assert (place / "stopped" / "last.pt").is_file()


def test_what_can_not_be_is_refused(place: Path) -> None:
    (place / "bad.toml").write_text(CONFIG.replace("seed", "sead"), encoding="utf-8")
    (place / "aimless.toml").write_text(f"{CONFIG}\n[losses]\nerror = 0.0\n", encoding="utf-8")
    (place / "broken").mkdir()
    (place / "broken" / "last.pt").write_text("hello", encoding="utf-8")
    for arguments, status, code in (
        (("train", "bad.toml"), 2, "config.train"),
        (("train", "gone.toml"), 2, "config.train"),
        (("train", "aimless.toml"), 2, "config.train"),
        (("train", "tiny.toml", "-o", "broken"), 4, "model.unreadable"),
        (("models", "export", "songs"), 4, "model.missing"),
        (("models", "export"), 2, "usage"),
    ):
        done = run(place, *arguments, "--json")
        assert (done.returncode, lines(done.stdout)[-1]["code"]) == (status, code)


def test_without_tensorboard_the_error_says_what_to_install(place: Path, tmp_path: Path) -> None:
    (tmp_path / "tensorboard.py").write_text("raise ImportError('not here')", encoding="utf-8")
    done = run(place, "train", "tiny.toml", "-o", "none", "--tensorboard", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 6
    assert "revithion-stems[train]" in lines(done.stdout)[-1]["hint"]
    assert not (place / "none").exists()
