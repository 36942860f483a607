"""What a DAW's script asks for through the mailbox, with the real daemon behind it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

from daemon_program import RATE, DaemonProcess, noise
from mailbox_daw import MailboxDaw, item, stereo, strip
from revithion_bridge import connect
from revithion_bridge.connection import read_connection
from revithion_bridge.daw.bus_plan import decode_plan
from revithion_bridge.daw_desk.desk_files import sweep_mailbox
from revithion_bridge.daw_desk.desk_status import job_status
from revithion_bridge.messages import JobInfo, JobParameters, Snapshot
from revithion_bridge.osc_packets import build_message, typed
from revithion_stems.jobs import JobState
from revithion_stems.scheduler import Priority

SECONDS = 3.0
FRAMES = round(SECONDS * RATE)


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this user's presets, with one of a slow job in it."""
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "settings" / "config.toml"))
    folder = tmp_path / "settings" / "presets"
    folder.mkdir(parents=True)
    (folder / "slow.toml").write_text("job = { segment_s = 0.1, span_s = 0.0 }\n")
    return folder


@pytest.fixture
def daw(daemon_home: Path) -> MailboxDaw:
    return MailboxDaw()


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return noise(tmp_path / "song.wav", SECONDS)


def samples(path: str | Path) -> np.ndarray:
    return soundfile.read(path, dtype="float32", always_2d=True)[0].T


def stem_sum(plan: dict, clip: int = 0) -> np.ndarray:
    return sum(samples(track["clips"][clip]["file"]) for track in plan["tracks"])


def test_a_file_becomes_a_plan_whose_stems_are_the_file(daw: MailboxDaw, daemon: DaemonProcess, song: Path) -> None:
    request = daw.ask(stereo(song, FRAMES, at=96_000, item="i1"), project_rate=48_000)
    plan = daw.plan(request)
    assert decode_plan(json.dumps(plan).encode()).title == "Mix"
    assert plan["source"] == {"track_id": "7", "track_name": "Mix", "mute": True}
    assert plan["project_rate"] == 48_000
    assert [bus["name"] for bus in plan["buses"]] == ["Drums Bus", "Bass Bus", "Other Bus", "Vocals Bus"]
    for track in plan["tracks"]:
        (clip,) = track["clips"]
        info = soundfile.info(clip["file"])
        assert (info.frames, info.samplerate, info.channels) == (FRAMES, RATE, 2)
        assert (clip["file_frames"], clip["sample_rate"], clip["channels"]) == (FRAMES, RATE, 2)
        assert (clip["position"]["value"], clip["frames"], clip["item"]) == (96_000, FRAMES, "i1")
        assert Path(clip["file"]).is_relative_to(song.parent / "stems")
    np.testing.assert_array_equal(stem_sum(plan), samples(song))


def test_the_same_track_again_has_the_same_identity_and_files(
    daw: MailboxDaw, daemon: DaemonProcess, song: Path
) -> None:
    first, again = (daw.plan(daw.ask(stereo(song, FRAMES))) for _ in range(2))
    assert first == again
    other = daw.plan(daw.ask(stereo(song, FRAMES), preset="vocals-instrumental"))
    assert other["identity"] != first["identity"]
    files = [{clip["file"] for track in plan["tracks"] for clip in track["clips"]} for plan in (first, other)]
    assert not files[0] & files[1]


def test_mono_files_are_put_together(daw: MailboxDaw, daemon: DaemonProcess, song: Path, tmp_path: Path) -> None:
    whole = samples(song)
    left, right = tmp_path / "Mix%L.wav", tmp_path / "Mix%R.wav"
    for path, channel in ((left, 0), (right, 1)):
        soundfile.write(path, whole[channel], RATE, "PCM_16")
    plan = daw.plan(daw.ask(item(left, right, frames=FRAMES), folder=str(tmp_path / "out")))
    assert {track["channels"] for track in plan["tracks"]} == {2}
    np.testing.assert_array_equal(stem_sum(plan), whole)
    (merged,) = (tmp_path / "out" / "sources").rglob("*.wav")
    before = merged.stat().st_mtime_ns
    daw.plan(daw.ask(item(left, right, frames=FRAMES), folder=str(tmp_path / "out")))
    assert merged.stat().st_mtime_ns == before


def test_clips_of_several_sources_stand_in_the_order_of_time(
    daw: MailboxDaw, daemon: DaemonProcess, song: Path, tmp_path: Path
) -> None:
    """Clips of one source share its job; trims and rates survive; the same file name in two folders is no clash."""
    second = noise(tmp_path / "b" / "song.wav", 2.0, seed=1)
    request = daw.ask(
        stereo(song, 1_000, at=50_000, start_frame=500, play_rate=1.5, preserve_pitch=True, gain_db=-3.0),
        stereo(second, 10**9, at=20_000),
        stereo(song, 2_000, at=10),
        folder=str(tmp_path / "out"),
    )
    plan = daw.plan(request)
    for track in plan["tracks"]:
        clips = track["clips"]
        assert [clip["position"]["value"] for clip in clips] == [10, 20_000, 50_000]
        assert [clip["frames"] for clip in clips] == [2_000, 2 * RATE, 1_000]
        assert clips[0]["file"] == clips[2]["file"] != clips[1]["file"]
        last = clips[2]
        assert (last["start_frame"], last["play_rate"], last["gain_db"]) == (500, 1.5, -3.0)
        assert last["preserve_pitch"]
    np.testing.assert_array_equal(stem_sum(plan, 1), samples(second))
    with connect() as client:
        assert len(client.jobs(client="reaper")) == 2


def test_stems_can_go_to_a_place_of_their_own(daw: MailboxDaw, daemon: DaemonProcess, song: Path) -> None:
    plan = daw.plan(daw.ask(stereo(song, 1_000, at=50_000), align_to="bar 3"))
    (clip,) = plan["tracks"][0]["clips"]
    assert clip["position"] == {"value": 3.0, "unit": "bars"}
    assert (clip["start_frame"], clip["frames"]) == (0, FRAMES)


def test_hostile_names_are_data(daw: MailboxDaw, daemon: DaemonProcess, tmp_path: Path) -> None:
    name = "\"; os.execute('touch gone') \n\r\u202e%n%s {track} $(reboot) `x` ' 🎛️" + "x" * 300
    hostile = noise(tmp_path / "'; $(touch gone) {stem} %n 🎛️.wav", 1.0)
    plan = daw.plan(daw.ask(stereo(hostile, RATE), track={"id": name, "name": name}))
    assert plan["source"]["track_id"] == name
    shown = [plan["title"], plan["source"]["track_name"], plan["group"]["name"], plan["vca"]]
    assert all("\n" not in text and len(text) <= 120 and "os.execute('touch gone')" in text for text in shown)
    np.testing.assert_array_equal(stem_sum(plan), samples(hostile))


def test_what_can_not_be_done_is_said(daw: MailboxDaw, daemon: DaemonProcess, song: Path, tmp_path: Path) -> None:
    def failure(*items: dict, **fields: object) -> str:
        status = daw.wait(daw.ask(*items, **fields))
        assert status["state"] == "failed"
        assert status["plan"] is None
        assert status["error"]["hint"]
        assert status["text"] == status["error"]["message"]
        return status["error"]["code"]

    missing = tmp_path / "missing.wav"
    assert failure(stereo(missing, 10)) == "input.missing"
    broken = tmp_path / "nan.wav"
    soundfile.write(broken, np.full((RATE, 2), np.nan, np.float32), RATE, "FLOAT")
    assert failure(stereo(broken, RATE)) == "input.not_finite"
    text = tmp_path / "text.wav"
    text.write_text("no audio")
    assert failure(stereo(text, 10)).startswith("input.")
    assert failure(stereo(Path("/etc/passwd"), 10)) == "path.outside"
    assert failure(stereo(Path("song.wav"), 10)) == "path.relative"
    assert failure(stereo(song, 10), folder="/etc/stems") == "path.outside"
    assert failure(stereo(song, 10), preset="/etc/passwd.toml") == "path.outside"
    assert failure(stereo(song, 10), preset="no such") == "daw.plan"
    assert failure(stereo(song, 10), align_to="never").startswith("request.")
    assert failure(stereo(song, 10), model="no such").startswith("model.")
    assert failure(stereo(song, 10, start_frame=FRAMES)) == "daw.selection"
    assert failure(item((song, 0), (song, 5), frames=10)) == "daw.selection"
    assert failure(stereo(song, 10, play_rate=0.0)) == "daw.plan"
    assert failure(stereo(song, 10), project_rate=0) == "protocol.malformed"
    assert failure(stereo(song, 10), v=2) == "protocol.version"
    assert failure(stereo(song, 10), box="ardour-0000000000000001") == "protocol.malformed"
    assert failure() == "protocol.malformed"
    other = tmp_path / "other.wav"
    soundfile.write(other, np.zeros(100), 48_000)
    assert failure(item((song, 0), other, frames=10)) == "daw.selection"
    daw.write("request", "damaged", '{"v": 1, "id": ')
    assert daw.wait("damaged")["error"]["code"] == "protocol.malformed"


def test_a_preset_that_is_wrong_is_refused_before_the_work(
    daw: MailboxDaw, presets: Path, daemon: DaemonProcess, song: Path
) -> None:
    (presets / "template.toml").write_text('track = "{nothing}"')
    (presets / "job.toml").write_text("job = { overlap = 'much' }")
    for preset in ("template", "job"):
        assert daw.wait(daw.ask(stereo(song, 10), preset=preset))["error"]["code"] == "daw.plan"
    with connect() as client:
        assert client.jobs() == ()


def test_progress_is_told_and_a_cancelled_job_stops(
    daw: MailboxDaw, presets: Path, daemon: DaemonProcess, tmp_path: Path
) -> None:
    request = daw.ask(stereo(noise(tmp_path / "long.wav", 120.0), 10), preset="slow")
    daw.wait(request, "separating")
    seen = []
    while len(seen) < 3:
        status = daw.wait(request, "separating")
        if status["fraction"] and status["fraction"] not in seen:
            seen.append(status["fraction"])
            assert status["text"].startswith(f"separating {int(100 * status['fraction'])} %")
    assert seen == sorted(seen)
    assert 0.0 < seen[0] < seen[-1] < 1.0
    with connect() as client:
        (running,) = client.daw_sessions().requests
        assert (running.box, running.id, running.state) == (daw.box, request, "separating")
        daw.write("cancel", request, {"v": 1, "id": request})
        assert daw.wait(request)["state"] == "cancelled"
        assert client.wait(running.jobs[0], timeout_s=30.0).state.value == "cancelled"
        assert client.daw_sessions().requests == ()


def test_who_waits_is_told_for_what(daw: MailboxDaw, daemon: DaemonProcess, song: Path) -> None:
    with connect() as client:
        client.pause_queue()
        request = daw.ask(stereo(song, 10))
        assert "paused" in wait_for_text(daw, request, "waiting")
        client.resume_queue()
        assert daw.wait(request)["state"] == "done"


def wait_for_text(daw: MailboxDaw, request: str, beginning: str) -> str:
    while not (text := daw.wait(request, "queued")["text"]).startswith(beginning):
        time.sleep(0.01)
    return text


def test_a_request_that_is_taken_back_is_forgotten_but_its_job_goes_on(
    daw: MailboxDaw, presets: Path, daemon: DaemonProcess, tmp_path: Path
) -> None:
    request = daw.ask(stereo(noise(tmp_path / "long.wav", 20.0), 10), preset="slow")
    daw.wait(request, "separating")
    daw.path("request", request).unlink()
    with connect() as client:
        deadline = time.monotonic() + 10.0
        while client.daw_sessions().requests:
            assert time.monotonic() < deadline
        (job,) = client.jobs()
        assert client.wait(job.id, timeout_s=60.0).state.value == "done"


def test_a_daemon_that_was_killed_finishes_the_same_job(daw: MailboxDaw, presets: Path, tmp_path: Path) -> None:
    song = noise(tmp_path / "long.wav", 30.0)
    with DaemonProcess() as first:
        request = daw.ask(stereo(song, 30 * RATE), preset="slow")
        while daw.wait(request, "separating")["fraction"] < 0.05:
            time.sleep(0.01)
        first.kill()
    with DaemonProcess(), connect() as client:
        plan = daw.plan(request)
        (job,) = client.jobs()
        assert job.summary is not None
        assert job.summary["resumed_runs"] > 0
        np.testing.assert_array_equal(stem_sum(plan), samples(song))


def test_what_was_answered_is_not_done_again(daw: MailboxDaw, daemon_home: Path, song: Path) -> None:
    with DaemonProcess():
        request = daw.ask(stereo(song, 10))
        daw.plan(request)
        answer = daw.path("status", request).stat()
    with DaemonProcess(), connect() as client:
        assert daw.wait(daw.ask(stereo(song, 10), preset="no such"))["state"] == "failed"  # it has looked
        assert daw.path("status", request).stat().st_mtime_ns == answer.st_mtime_ns
        assert len(client.jobs()) == 1


def test_a_ring_is_faster_than_the_clock(daw: MailboxDaw, daemon: DaemonProcess, song: Path) -> None:
    """Left to the clock the middle of nine would take an eighth of a second."""
    connection = read_connection()
    assert connection is not None
    took = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        ring = build_message("/revithion/v1/daw/ring", map(typed, (connection.osc_token, daw.box)))
        for _ in range(9):
            request = daw.ask(stereo(song, 10), preset="no such")
            began = time.monotonic()
            sender.sendto(ring, ("127.0.0.1", connection.osc_udp_port or 0))
            daw.wait(request)
            took.append(time.monotonic() - began)
    assert sorted(took)[4] < 0.09, took


def test_open_sessions_are_listed(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    daw.announce(strip("vocals"), strip("vocals", "Vocals", "track"))
    MailboxDaw("ardour", 2).write("session", "", "{ damaged")
    with connect() as client:
        (session,) = client.daw_sessions().sessions
    assert (session.box, session.daw, session.name, session.sample_rate) == (daw.box, "reaper", "Album", 48_000)
    assert [(s.box, s.role, s.key, s.name) for s in session.strips] == [
        (daw.box, "bus", "vocals", "Vocals Bus"),
        (daw.box, "track", "vocals", "Vocals"),
    ]


def test_a_list_that_is_too_long_is_cut(daw: MailboxDaw, daemon: DaemonProcess) -> None:
    daw.announce(*(strip(f"stem {number}", "x" * 500) for number in range(1_000)))
    with connect() as client:
        listed = client.daw_sessions()
    assert listed.more
    assert 100 < len(listed.sessions[0].strips) < 1_000


def test_old_leftovers_are_swept(daemon_home: Path) -> None:
    gone, there = MailboxDaw(number=1), MailboxDaw(number=2)
    for daw in (gone, there):
        for kind, file_id in (("session", ""), ("request", "a"), ("status", "a"), ("cancel", "a"), ("answer", "b")):
            daw.write(kind, file_id, "{}")
            os.utime(daw.path(kind, file_id), (0, 0))
    there.announce()
    part = gone.path("status", "c").with_suffix(".json.1234.part")
    part.write_text("half")
    os.utime(part, (0, 0))
    gone.write("status", "new", "{}")
    sweep_mailbox()
    left = sorted(path.name for path in gone.folder.iterdir())
    assert left == sorted([gone.path("status", "new").name, *(p.name for p in gone.folder.glob(f"{there.box}.*"))])
    assert len(left) == 6


def test_an_idle_daemon_has_no_audio_library_in_memory() -> None:
    code = "import sys, revithion_bridge.daemon; print(*{'soundfile', 'soxr', 'av', 'mido'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


JOB = JobInfo(
    id="job-2",
    client="reaper",
    state=JobState.QUEUED,
    priority=Priority.INTERACTIVE,
    parameters=JobParameters(source="/a.wav", folder="/out"),
    created_at=10.0,
)


def test_several_jobs_are_one_progress() -> None:
    """The time that is left is known for the last one only."""
    job = msgspec.structs.replace(JOB, state=JobState.SEPARATING, done=1, total=4, remaining_s=65.04)
    middle = job_status("r", job, 1, ["job-1", "job-2", "job-3"])
    assert (middle.fraction, middle.remaining_s, middle.text) == (0.417, None, "2 of 3: separating 25 %, 1:05 left")
    last = job_status("r", job, 1, ["job-1", "job-2"])
    assert (last.fraction, last.remaining_s, last.text) == (0.625, 65.0, "2 of 2: separating 25 %, 1:05 left")
    assert job_status("r", msgspec.structs.replace(job, remaining_s=3_700.0), 0, ["job-2"]).text.endswith(
        "1:01:40 left"
    )


def test_only_jobs_that_go_first_are_counted() -> None:
    def other(number: int, **fields: object) -> JobInfo:
        return msgspec.structs.replace(JOB, id=f"other-{number}", **fields)

    jobs = (
        other(1, state=JobState.SEPARATING, priority=Priority.BATCH),
        other(2, created_at=9.0),
        other(3, created_at=11.0),
        other(4, created_at=1.0, priority=Priority.NORMAL),
        JOB,
    )
    snapshot = Snapshot(epoch="e", seq=0, paused=False, jobs=jobs)
    assert job_status("r", JOB, 0, ["job-2"], snapshot).text == "waiting: 2 jobs before this one"
    alone = msgspec.structs.replace(snapshot, jobs=(JOB,))
    assert job_status("r", JOB, 0, ["job-2"], alone).text == "waiting"


def test_the_dialogs_choices_are_offered_and_follow_the_presets(
    daw: MailboxDaw, presets: Path, daemon: DaemonProcess, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "daw" / "choices.json"

    def names() -> list[str]:
        return [preset["name"] for preset in json.loads(path.read_bytes())["presets"]] if path.is_file() else []

    wait_for(lambda: names()[-1:] == ["slow"])
    assert "htdemucs" in json.loads(path.read_bytes())["models"]
    (presets / "broken.toml").write_text("label = [")
    (presets / "mine.toml").write_text('label = "My way"\n')
    time.sleep(6.0)
    assert names()[-1] == "slow"  # what is not sound changes nothing
    (presets / "broken.toml").unlink()
    wait_for(lambda: "mine" in names())


def wait_for(happened: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
