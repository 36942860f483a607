"""A session as doors hold it: real processes, a clock for a device, a file for a source."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from revithion_realtime.audio_path import FADE_OUT_FRAMES
from revithion_realtime.audio_process import STUCK
from revithion_realtime.session import LiveSession, open_live
from revithion_stems.errors import LiveError, RevithionError
from revithion_stems.live import LiveOptions, LivePhase, StripChange, StripSettings, Tier

RATE = 48_000
PATIENCE_S = 30.0
posix = pytest.mark.skipif(os.name == "nt", reason="stops a process by a signal")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def song(tmp_path) -> Path:
    """Five seconds of tones and hits."""
    rng = np.random.default_rng(7)
    at = np.arange(5 * RATE) / RATE
    left = 0.2 * np.sin(2 * np.pi * 80 * at) + 0.1 * np.sin(2 * np.pi * 440 * at)
    right = 0.2 * np.sin(2 * np.pi * 80 * at) - 0.1 * np.sin(2 * np.pi * 660 * at)
    hits = rng.standard_normal(len(at)) * 0.3 * np.exp(-(at % 0.5) * 40)
    path = tmp_path / "song.wav"
    soundfile.write(path, np.stack([left + hits, right + hits], axis=1), RATE, "FLOAT")
    return path


def options(song: Path, **other) -> LiveOptions:
    return LiveOptions(device="none", source=str(song), sample_rate=RATE, loop=True, **other)


def wait_for(condition, what: str):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE_S:g} s")


def child(session: LiveSession, name: str) -> psutil.Process:
    link = getattr(session._processes, name)
    return psutil.Process(link.pid)


def test_it_plays_a_file_with_the_latency_that_it_tells(song):
    with open_live(options(song)) as session:
        state = wait_for(lambda: (s := session.state()).counters.frames > RATE // 2 and s, "half a second")
        assert state.phase is LivePhase.PLAYING
        assert [strip.stem for strip in state.strips] == ["drums", "bass", "other", "vocals"]
        assert state.mix_peak_left_db > -30
        # 512 frames at the network's 44.1 kHz, and the conversion there and back.
        assert 512 < state.budget.algorithm_frames < 0.0135 * RATE
        assert state.budget.milliseconds(state.budget.total_frames) < 50
        processes = [child(session, "audio"), child(session, "inference")]
    assert session.state().phase is LivePhase.ENDED
    assert not any(process.is_running() for process in processes)


def test_a_file_without_a_loop_ends_the_session(song):
    short = song.with_name("short.wav")
    soundfile.write(short, np.full((RATE // 2, 2), 0.1), RATE)
    session = LiveSession(LiveOptions(device="none", source=str(short), sample_rate=RATE))
    state = wait_for(lambda: (s := session.state()).phase is LivePhase.ENDED and s, "the end")
    assert state.message == "the file has ended"
    assert state.counters.frames >= RATE // 2 + state.budget.path_frames
    session.stop()


def test_a_muted_stem_is_silent_and_solo_silences_the_others(song):
    with open_live(options(song)) as session:
        session.set_strip("bass", StripChange(solo=True))
        state = wait_for(
            lambda: (s := session.state()).strips[0].peak_left_db < -60 < s.strips[1].peak_left_db and s,
            "bass alone",
        )
        assert state.strips[1].settings == StripSettings(solo=True)
        session.set_strip("bass", StripChange(muted=True))
        wait_for(lambda: session.state().mix_peak_left_db < -60, "silence")


def test_scenes_bring_all_strips_back(song):
    with open_live(options(song)) as session:
        session.set_strip("drums", StripChange(gain_db=-6.0, low_db=-60.0))
        session.set_monitor_gain(-3.0)
        session.store_scene("break")
        session.set_strip("drums", StripChange(gain_db=0.0, low_db=0.0, pan=1.0))
        session.recall_scene("break")
        state = session.state()
        assert state.strips[0].settings == StripSettings(gain_db=-6.0, low_db=-60.0)
        assert state.monitor_gain_db == -3.0
        assert state.scenes == ("break",)


def test_a_take_sums_to_the_file(song, tmp_path):
    with open_live(options(song)) as session:
        session.set_strip("vocals", StripChange(muted=True))
        wait_for(lambda: session.state().counters.frames > RATE // 2, "half a second")
        folder = session.start_recording(str(tmp_path / "takes"))
        began = session.state()
        assert began.recording == folder
        wait_for(lambda: session.state().counters.frames > began.counters.frames + 2 * RATE, "two seconds")
        files = session.stop_recording()
        counters = session.state().counters
        delay = session.budget.path_frames
    stems = [soundfile.read(file, dtype="float32")[0] for file in files]
    total = np.sum(stems, axis=0)
    assert len(total) > RATE
    original = soundfile.read(song, dtype="float32")[0]
    # Where the take began is found by the sound itself; the file plays in a loop.
    spectrum = np.fft.rfft(total[:8_192, 0], len(original)).conj() * np.fft.rfft(original[:, 0])
    start = int(np.argmax(np.fft.irfft(spectrum, len(original))))
    there = np.take(original, np.arange(start, start + len(total)), axis=0, mode="wrap")
    assert counters.recorder_lost_frames == 0
    assert np.abs(total - there).max() < 1e-6
    assert delay > 0


@posix
def test_stopped_inference_is_dry_sound_and_then_stems_again(song):
    with open_live(options(song)) as session:
        wait_for(lambda: session.state().strips[0].tier is Tier.PREVIEW, "the preview")
        inference = child(session, "inference")
        before = session.state().counters
        inference.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: session.state().strips[0].tier is Tier.DRY, "dry sound")
            frames = session.state().counters.frames
            wait_for(lambda: session.state().counters.frames > frames + RATE // 2, "playing on")
        finally:
            inference.send_signal(signal.SIGCONT)
        wait_for(lambda: session.state().strips[0].tier is Tier.PREVIEW, "the preview again")
        after = session.state().counters
        assert after.late_times > before.late_times
        assert after.late_blocks > before.late_blocks
        assert after.skipped_frames > before.skipped_frames


def hog(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@posix
def test_random_stalls_and_a_busy_machine_are_heard_as_fades_and_never_as_clicks(song, tmp_path):
    """Played and recorded for real: what is on disk is what the callback played, before the faders."""
    at = np.arange(4 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 110 * at)  # whole periods: the loop has no step either
    soundfile.write(song, np.stack([tone, tone], axis=1), RATE, "FLOAT")
    rng = random.Random(11)
    hogs = [multiprocessing.get_context("spawn").Process(target=hog, args=(60.0,), daemon=True) for _ in range(4)]
    with open_live(options(song)) as session:
        wait_for(lambda: session.state().counters.frames > RATE // 2, "the tone, and not the silence before it")
        before = session.state().counters
        session.start_recording(str(tmp_path / "takes"))
        inference = child(session, "inference")
        for _ in range(8):
            inference.send_signal(signal.SIGSTOP)
            time.sleep(rng.uniform(0.005, 0.25))
            inference.send_signal(signal.SIGCONT)
            time.sleep(rng.uniform(0.0, 0.3))
        for process in hogs:
            process.start()
        time.sleep(1.5)
        for process in hogs:
            process.kill()
            process.join()
        wait_for(lambda: session.state().strips[0].tier is Tier.PREVIEW, "the preview again")
        files = session.stop_recording()
        after = session.state().counters
    stems = np.stack([soundfile.read(file, dtype="float32")[0] for file in files])
    total = stems.sum(axis=0)
    assert after.late_times > before.late_times + 3
    assert after.late_blocks - before.late_blocks >= after.late_times - before.late_times
    assert after.recorder_lost_frames == 0
    assert np.isfinite(stems).all()
    of_tone = 0.5 * 2 * np.pi * 110 / RATE
    of_fade = 0.5 / FADE_OUT_FRAMES
    assert np.abs(np.diff(stems, axis=1)).max() <= 1.5 * of_tone + of_fade
    # No frame is missing and none is silent: the sum is the tone from the first to the last.
    assert np.abs(total[2:] - 2 * np.cos(2 * np.pi * 110 / RATE) * total[1:-1] + total[:-2]).max() < 1e-5
    assert np.abs(total[:, 0]).reshape(-1)[: len(total) // 480 * 480].reshape(-1, 480).max(axis=1).min() > 0.45


def test_killed_inference_is_started_again_while_it_plays(song):
    with open_live(options(song)) as session:
        wait_for(lambda: session.state().strips[0].tier is Tier.PREVIEW, "the preview")
        child(session, "inference").kill()
        wait_for(lambda: session.state().counters.inference_restarts == 1, "the restart")
        wait_for(lambda: session.state().strips[0].tier is Tier.DRY, "dry sound")
        wait_for(lambda: session.state().strips[0].tier is Tier.PREVIEW, "the preview again")
        assert session.state().phase is LivePhase.PLAYING


def test_a_library_that_is_stuck_with_a_lost_device_is_left_behind_with_its_process(song):
    class Stuck:
        has_message = True

        def __init__(self, link):
            self.link, self.closed = link, False

        def receive(self, timeout_s):
            raise LiveError("PortAudio is stuck", hint="", code=STUCK)

        def close(self):
            self.closed = True
            self.link.close()

    with open_live(options(song)) as session:
        wait_for(lambda: session.state().counters.frames > RATE // 4, "playing")
        session.set_strip("drums", StripChange(muted=True))
        session.set_strip("bass", StripChange(solo=True))
        before = session._processes.audio.pid
        session._phase = LivePhase.LOST
        session._processes.audio = stuck = Stuck(session._processes.audio)
        wait_for(lambda: session.state().phase is LivePhase.PLAYING, "playing again")
        frames = session.state().counters.frames
        wait_for(lambda: session.state().counters.frames > frames + RATE // 4, "frames")
        assert stuck.closed
        assert session._processes.audio.pid != before
        wait_for(lambda: session.state().strips[0].peak_left_db < -60 < session.state().strips[1].peak_left_db, "solo")


def test_a_killed_audio_process_ends_the_session_with_a_message(song):
    session = LiveSession(options(song))
    child(session, "audio").kill()
    state = wait_for(lambda: (s := session.state()).phase is LivePhase.ENDED and s, "the end")
    assert "live audio ended" in state.message
    with pytest.raises(LiveError) as caught:
        session.start_recording("anywhere")
    assert caught.value.code == "live.idle"
    session.stop()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": "no such model"}, "live.model"),
        ({"device": "no such device"}, "live.device"),
        ({"source": "/no/such/file.wav"}, "input.missing"),
    ],
)
def test_what_can_not_be_had_is_told_and_leaves_nothing(song, change, code):
    before = {thread.name for thread in threading.enumerate()}
    children = {process.pid for process in psutil.Process().children(recursive=True)}
    wanted = {"device": "none", "source": str(song), "sample_rate": RATE} | change
    with pytest.raises(RevithionError) as caught:
        LiveSession(LiveOptions(**wanted))
    assert caught.value.code.startswith((code.partition(".")[0], "live.portaudio"))
    assert {thread.name for thread in threading.enumerate()} <= before
    left = {process.pid for process in psutil.Process().children(recursive=True)} - children
    assert all("resource_tracker" in " ".join(psutil.Process(pid).cmdline()) for pid in left)


def test_a_stem_that_is_not_there_and_a_value_out_of_range(song):
    with open_live(options(song)) as session:
        with pytest.raises(LiveError) as caught:
            session.set_strip("kazoo", StripChange(muted=True))
        assert caught.value.code == "live.stem"
        with pytest.raises(LiveError) as caught:
            session.set_strip("drums", StripChange(gain_db=float("nan")))
        assert caught.value.code == "live.value"
        with pytest.raises(LiveError) as caught:
            session.set_monitor_gain(99.0)
        assert caught.value.code == "live.value"
