"""Checkpoints: what is written is read, whatever else is there is refused, and nobody sees half of one."""

from __future__ import annotations

import contextlib
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revithion_stems.errors import ModelError, OutputError
from revithion_stems.training.checkpoints import Checkpoint, Progress, load_checkpoint, save_checkpoint
from revithion_stems.training.datasets.multitrack import Origin
from revithion_stems.training.datasets.opening import DatasetConfig
from revithion_stems.training.train_config import OptimiserConfig, Precision, TrainConfig

CONFIG = TrainConfig(
    name="tiny",
    architecture="causal_preview",
    model={"stems": ["a", "b"], "bands": [[1, 2]]},
    data=(DatasetConfig(kind="folder", path=Path("songs"), weight=2.0, without=("x*",)),),
    steps=7,
    precision=Precision.BFLOAT16,
    initial=Path("older") / "last.pt",
    optimiser=OptimiserConfig(betas=(0.8, 0.9)),
)
PROGRESS = Progress(
    step=3, seconds=1.25, best_mean_db=-0.1, best_step=2, stale=1, sdr_db={"a": 0.3}, songs={"ä song": {"a": 0.1}}
)


def checkpoint(size: int = 10, **changes: Any) -> Checkpoint:
    torch.manual_seed(size)
    net = torch.nn.Linear(size, 3)
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.randn(2, size)).sum().backward()
    optimiser.step()
    whole: dict[str, Any] = {
        "config": CONFIG,
        "options": {"stems": ["a", "b"], "channels": 4},
        "progress": PROGRESS,
        "origins": (Origin(dataset="d", licence="CC0 1.0", commercial_use=True, labels="rendered"),),
        "commit": "abc",
        "network": net.state_dict(),
        "mean": {name: tensor / 2 for name, tensor in net.state_dict().items()},
        "optimiser": optimiser.state_dict(),
    }
    return Checkpoint(**{**whole, **changes})


def same(ours: Any, theirs: Any) -> None:
    """Bit for bit, in tensors and in all that holds them."""
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            same(value, theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            same(mine, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("changes", [{}, {"optimiser": None, "commit": None, "progress": Progress(), "origins": ()}])
def test_what_is_written_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    written = checkpoint(**changes)
    save_checkpoint(tmp_path / "c.pt", written)
    read = load_checkpoint(tmp_path / "c.pt")
    for name in Checkpoint.__dataclass_fields__:
        same(getattr(read, name), getattr(written, name))
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def refused(path: Path, told: str | None = None) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        load_checkpoint(path)
    assert caught.value.code == "model.unreadable"
    assert str(path) in caught.value.message


@given(share=st.floats(0, 0.999))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_that_is_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    save_checkpoint(tmp_path / "c.pt", checkpoint())
    content = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(share * len(content))])
    refused(tmp_path / "cut.pt")


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_an_error_of_ours_or_in_a_tensor_s_numbers(tmp_path: Path, data: st.DataObject) -> None:
    save_checkpoint(tmp_path / "c.pt", checkpoint())
    content = bytearray((tmp_path / "c.pt").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    (tmp_path / "bad.pt").write_bytes(content)
    with contextlib.suppress(ModelError):
        load_checkpoint(tmp_path / "bad.pt")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "gone.pt")
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt")
    foreign: dict[str, Any] = {
        "tensor": torch.zeros(3),
        "list": [1, 2],
        "empty": {},
        "weights": torch.nn.Linear(2, 2).state_dict(),
        "format": {"format": 99, "about": "{}"},
        "about": {"format": 1, "about": "{", "network": {}, "mean": {}, "optimiser": None},
        "config": {"format": 1, "about": '{"config": {"name": "x"}}', "network": {}, "mean": {}, "optimiser": None},
    }
    for name, held in foreign.items():
        torch.save(held, tmp_path / f"{name}.pt")
        refused(tmp_path / f"{name}.pt")
    refused(tmp_path / "format.pt", "99")
    for name, content in (("empty", b""), ("text", b"hello"), ("zeros", bytes(1000))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("some/data.pkl", b"no pickle")
    refused(tmp_path / "archive.pt")


class Touch:
    """What a hostile file holds: to be unpickled is to write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    torch.save({"format": 1, "about": Touch(touched)}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"format": 1, "about": Touch(touched)}))
    for name in ("zip.pt", "plain.pt"):
        refused(tmp_path / name)
        assert not touched.exists()
    torch.load(tmp_path / "zip.pt", weights_only=False)
    assert touched.exists()  # so the file was hostile indeed


def test_a_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint())
    before = path.read_bytes()

    def half(held: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OutputError, match="Input/output error"):
        save_checkpoint(path, checkpoint(size=5))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_it_has_its_name_only_when_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, checkpoint())
    before = path.read_bytes()
    seen: list[tuple[bool, bytes]] = []

    def look(_: int) -> None:
        (part,) = (file for file in tmp_path.iterdir() if file != path)
        seen.append((zipfile.is_zipfile(part), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", look)
    save_checkpoint(path, checkpoint(size=5))
    assert seen == [(True, before)]  # the whole of the new one is there, under another name, beside the old one
    assert path.read_bytes() != before


def test_a_full_disk_says_so_and_leaves_the_old_one(
    tmp_path: Path, mounted: Callable[[Path, str], AbstractContextManager[Path]]
) -> None:
    """A tensor for which there is no room; PyTorch itself does not say why it can't write."""
    with mounted(tmp_path / "disk", "size=3m") as disk:
        save_checkpoint(disk / "c.pt", checkpoint())
        before = (disk / "c.pt").read_bytes()
        with pytest.raises(OutputError) as caught:
            save_checkpoint(disk / "c.pt", checkpoint(network={"w": torch.zeros(2_000_000)}))
        assert caught.value.code == "output.disk_full"
        assert (disk / "c.pt").read_bytes() == before
        assert [file.name for file in disk.iterdir()] == ["c.pt"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        save_checkpoint(tmp_path / "gone" / "c.pt", checkpoint())
