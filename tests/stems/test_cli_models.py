"""`revithion-stems models`: what people read, what scripts read, and how it ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from revithion_stems import catalog as catalog_module
from revithion_stems import weights as weights_module
from revithion_stems.catalog import parse_catalog
from revithion_stems.cli.models import models_group
from revithion_stems.errors import DownloadError, ModelError

CONTENT = b"weights " * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()

CATALOG = """
schema_version = 1
[[model]]
name = "tiny"
title = "A model for tests"
architecture = "htdemucs"
stems = ["drums", "other"]
residual_stem = "other"
sample_rate = 44100
segment = "39/5"
segment_fixed = true
parameters = 3
gflop_per_segment = 1.5
  [model.licence]
  weights = "MIT"
  commercial_use = "yes"
  note = "a note"
  source = "a source"
  [[model.quality]]
  dataset = "a dataset"
  metric = "SDR"
  sdr_db = {{ drums = 3.0, other = 5.0, mean = 4.0 }}
  source = "a paper"
  [[model.networks]]
  signature = "abc"
  stem_weights = [1, 1]
    [[model.networks.files]]
    name = "abc.safetensors"
    format = "safetensors"
    size = {size}
    sha256 = "{digest}"
    sources = ["file:{share}/absent.bin", "file:{share}/share.bin"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    text = CATALOG.format(size=len(CONTENT), digest=DIGEST, share=tmp_path.as_posix())
    monkeypatch.setattr(weights_module, "load_catalog", lambda: parse_catalog(text))
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("REVITHION_OFFLINE", raising=False)
    (tmp_path / "share.bin").write_bytes(CONTENT)
    return tmp_path / "models"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(models_group, list(arguments))


def json_lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_life_of_a_model_as_json(folder: Path, tmp_path: Path) -> None:
    (listed,) = json_lines(run("list", "--json"))
    (row,) = listed["models"]
    assert (row["presence"], row["size"], row["mean_sdr_db"], row["licence"]) == ("absent", len(CONTENT), 4.0, "MIT")
    events = json_lines(run("pull", "tiny", "--json", "--pack", str(tmp_path / "pack")))
    assert events[0]["code"] == "model.source_failed"
    assert [event["type"] for event in events if event["type"] != "Notice"] == ["DownloadProgress", "Pulled"]
    assert events[-1]["presence"] == "present"
    assert events[-1]["pack"] == str(tmp_path / "pack" / "pack.json")
    (verified,) = json_lines(run("verify", "--json"))
    assert verified["usable"]
    assert verified["files"][0]["found"] == DIGEST
    assert json_lines(run("remove", "tiny", "--json")) == [
        {"type": "Removed", "model": "tiny", "freed_bytes": len(CONTENT)}
    ]
    assert json_lines(run("import", str(tmp_path / "pack"), "--json"))[0]["models"] == ["tiny"]
    (info,) = json_lines(run("info", "tiny", "--json"))
    assert info["presence"] == "present"
    assert info["segment_frames"] == 343_980
    assert info["licence"]["note"] == "a note"
    assert info["networks"][0]["files"][0]["sha256"] == DIGEST
    assert (folder / "abc.safetensors").read_bytes() == CONTENT


def test_life_of_a_model_for_people(folder: Path, tmp_path: Path) -> None:
    assert "tiny   no    7.81 KiB  4.00  MIT      drums, other" in run("list").stdout
    pulled = run("pull", "tiny")
    assert pulled.stdout == f"tiny: ready in {folder}\n"
    failed, came = pulled.stderr.splitlines()
    assert failed.startswith("abc.safetensors: file:")
    assert came.startswith("abc.safetensors: 7.81 KiB from file:")
    assert "already there" in run("pull", "tiny").stderr
    assert run("pull", "tiny", "--force", "--offline", "--pack", str(tmp_path / "p")).stdout.count("packed in") == 1
    info = run("info", "tiny").stdout
    assert all(text in info for text in ("a note", "a paper", "mean 4.00", DIGEST, "share.bin", "commercial use: yes"))
    assert run("verify").stdout.startswith("tiny: ok\n")
    assert run("remove", "tiny").stdout == "tiny: 7.81 KiB freed\n"
    assert "no weights are here" in run("verify").stdout
    assert run("import", str(tmp_path / "share.bin")).stdout.endswith("imported for tiny\n")


def test_verify_fails_on_damage_and_on_absence(folder: Path) -> None:
    assert run("verify", "tiny").exit_code == ModelError.exit_code
    run("pull", "tiny")
    (folder / "abc.safetensors").write_bytes(CONTENT[::-1])
    result = run("verify")
    assert result.exit_code == ModelError.exit_code
    assert "corrupt" in result.stdout
    assert f"expected {DIGEST}" in result.stdout
    assert "--force" in result.stdout
    caught = run("pull", "tiny").exception
    assert isinstance(caught, ModelError)
    assert caught.code == "model.corrupt"
    assert run("pull", "tiny", "--force").exit_code == 0
    assert run("verify").exit_code == 0


def test_errors_are_typed(folder: Path, tmp_path: Path) -> None:
    assert isinstance(run("info", "nope").exception, ModelError)
    (tmp_path / "share.bin").unlink()
    failure = run("pull", "tiny").exception
    assert isinstance(failure, DownloadError)
    assert failure.message.count("can't read") == 2
    assert isinstance(run("import", str(tmp_path / "nowhere")).exception, ModelError)
    assert not (folder / "abc.safetensors").exists()


@pytest.mark.parametrize("command", ["", "list", "info", "pull", "verify", "import", "remove"])
def test_help_has_examples(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert "revithion-stems models" in result.stdout


def test_the_shipped_models_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path))
    rows = run("list").stdout.splitlines()
    assert [row.split()[0] for row in rows[1:10]] == [spec.name for spec in catalog_module.load_catalog().models]
    assert max(map(len, rows[:10])) <= 120
    assert run("pull", "dsp").stdout == "dsp: needs no download\n"
    for spec in catalog_module.load_catalog().models:
        assert run("info", spec.name).exit_code == 0


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, revithion_stems.cli.models; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnxruntime", "httpx", "rich", "numpy", "filelock"} & set(loaded)


SLOW_PULL = """
import sys
from revithion_stems import weight_sources, weights
from revithion_stems.catalog import parse_catalog
from revithion_stems.cli import main
import pathlib, time
weights.load_catalog = lambda: parse_catalog(pathlib.Path(sys.argv[1]).read_text())
copy = weight_sources.FetchJob.progress
def slow(self, done, total):
    print("moving", flush=True)
    time.sleep(0.2)
    copy(self, done, total)
weight_sources.FetchJob.progress = slow
weight_sources.CHUNK_BYTES = 100
main.main(["models", "pull", "tiny"])
"""


@pytest.mark.skipif(os.name == "nt", reason="a console of its own would be needed to send Ctrl-C")
def test_ctrl_c_leaves_nothing_and_exits_130(folder: Path, tmp_path: Path) -> None:
    text = CATALOG.format(size=len(CONTENT), digest=DIGEST, share=tmp_path.as_posix())
    (tmp_path / "catalog.toml").write_text(text)
    puller = subprocess.Popen(
        [sys.executable, "-c", SLOW_PULL, str(tmp_path / "catalog.toml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert puller.stdout is not None
        assert puller.stdout.readline() == "moving\n"
        assert (folder / "abc.safetensors.part").exists()
        puller.send_signal(signal.SIGINT)
        started = time.monotonic()
        puller.communicate(timeout=20)
    finally:
        puller.kill()
        puller.wait()
    assert puller.returncode == 130
    assert time.monotonic() - started < 5
    assert sorted(path.name for path in folder.iterdir()) == [".locks"]


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are POSIX")
def test_a_terminal_gets_a_bar(folder: Path, tmp_path: Path) -> None:
    import pty

    text = CATALOG.format(size=len(CONTENT), digest=DIGEST, share=tmp_path.as_posix())
    (tmp_path / "catalog.toml").write_text(text)
    main_end, terminal = pty.openpty()
    code = SLOW_PULL.replace("time.sleep(0.2)", "time.sleep(0.01)")
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", code, str(tmp_path / "catalog.toml")]
    puller = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=env)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(main_end, 65536):
            shown += chunk
    except OSError:  # Linux says EIO where the other end is closed
        pass
    finally:
        os.close(main_end)
        puller.communicate(timeout=20)
    assert puller.returncode == 0
    assert b"/8.0 kB" in shown
    assert b"/s" in shown
    assert b"verified" in shown
