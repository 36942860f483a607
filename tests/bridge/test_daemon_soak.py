"""Five hundred short jobs: the daemon and its worker are then as large as they were after fifty."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from daemon_program import noise
from revithion_bridge import connect
from revithion_stems.jobs import JobState

WARM = 50


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("jobs", [200, pytest.param(500, marks=pytest.mark.long)])
def test_memory_and_descriptors_stay(daemon, tmp_path, capsys, jobs: int):
    """All kinds of ends: computed, from the cache, failed, cancelled; with spans and without."""
    (worker,) = daemon.worker_pids()
    processes = {"daemon": psutil.Process(daemon.pid), "worker": psutil.Process(worker)}

    def sizes() -> dict[str, tuple[int, int]]:
        return {
            name: (process.memory_info().rss, process.num_fds() if hasattr(process, "num_fds") else 0)
            for name, process in processes.items()
        }

    after: dict[int, dict[str, tuple[int, int]]] = {}
    with connect(client="soak", timeout_s=30.0) as client:
        for number in range(1, jobs + 1):
            song = noise(tmp_path / "songs" / f"{number % 40}.wav", 1.0, seed=number % 400)
            kind = number % 10
            source = song if kind != 7 else tmp_path / "missing.wav"
            info = client.submit(source, tmp_path / "out", model="dsp", span_s=0.5 if kind % 2 else 0.0)
            if kind == 8:
                client.cancel(info.id)
            state = client.wait(info.id, timeout_s=60.0).state
            expected = {7: {JobState.FAILED}, 8: {JobState.CANCELLED, JobState.DONE}}.get(kind, {JobState.DONE})
            assert state in expected
            if number in (WARM, jobs) or number % 100 == 0:
                after[number] = sizes()
        assert client.status().workers[0].pid == worker
    figures = {
        f"{name} after {number}": {"rss_mib": round(rss / 2**20, 1), "descriptors": descriptors}
        for number, found in after.items()
        for name, (rss, descriptors) in found.items()
    }
    with capsys.disabled():
        print(f"\nsoak: {json.dumps(figures)}")
    for name in processes:
        (rss_before, fds_before), (rss_after, fds_after) = after[WARM][name], after[jobs][name]
        assert rss_after <= rss_before * 1.05, figures
        assert fds_after <= fds_before, figures
    assert not list(Path(tmp_path).rglob("*.part"))
