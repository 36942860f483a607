"""The protocol spoken by a program in another language, with another binding of ZeroMQ."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bridge_doors import DoorsThread
from daemon_program import DaemonProcess, noise
from node_client import installed_node_client, run_node_client
from revithion_bridge.connection import connection_path
from revithion_stems.jobs import JobState

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_node_client(tmp_path_factory.mktemp("node"))


def test_it_submits_and_follows_a_job(daemon_home, node_client):
    with DoorsThread() as doors:

        def finish() -> None:
            while not doors.jobs and time.monotonic() < deadline:
                time.sleep(0.01)
            doors.do(lambda: doors.service.finish("job-0"))

        deadline = time.monotonic() + 60
        finisher = threading.Thread(target=finish)
        finisher.start()
        lines = run_node_client(node_client, connection_path(), Path("/songs/a b.wav"), Path("/out"), model="dsp")
        finisher.join()
        status, submitted, *events, job = lines
        assert status["status"]["epoch"] == doors.connection.epoch
        assert submitted["submitted"]["client"] == "node"
        assert submitted["submitted"]["parameters"]["source"] == "/songs/a b.wav"
        assert [line["topic"] for line in events] == ["job/job-0/changed"] * 5
        assert [line["event"]["event"]["state"] for line in events] == [
            *("queued", "loading", "separating", "writing", "done")
        ]
        assert events[0]["event"]["parent"] == {"client": "node", "id": "node-1"}
        assert [line["event"]["seq"] for line in events] == [1, 2, 3, 4, 5]
        assert job["job"]["state"] == "done"
        assert doors.jobs["job-0"].state is JobState.DONE


def test_it_separates_a_song(daemon_home, node_client, tmp_path):
    song = noise(tmp_path / "Träume.wav", 2.0)
    with DaemonProcess():
        *_, job = run_node_client(node_client, connection_path(), song, tmp_path / "out", model="dsp")
    assert job["job"]["state"] == "done"
    paths = [Path(stem["path"]) for stem in job["job"]["stems"]]
    assert sorted(path.stem for path in paths) == ["bass", "drums", "other", "vocals"]
    assert all(path.is_file() for path in paths)
