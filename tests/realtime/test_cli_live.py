"""`revithion-stems live` as a user has it: a program of its own, a clock for a device, files, signals, a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import mido
import numpy as np
import pytest
import soundfile

from jack_server import JackServer, require_jack
from program import COMMAND, environment, lines, posix_only, run, start

RATE = 48_000
SONG_FRAMES = RATE
QUIET = ("--device", "none", "--no-ui", "--no-daemon")
LONG_S = 60.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a song of a second at the clock's rate, on the 24-bit grid."""
    folder = tmp_path / "work"
    folder.mkdir()
    song = np.random.default_rng(0).integers(-(2**21), 2**21, (SONG_FRAMES, 2)) / 2**24
    soundfile.write(folder / "song.wav", song, RATE, subtype="FLOAT")
    return folder


def test_a_file_is_played_to_its_end_and_recorded(place):
    done = run(place, "live", "song.wav", *QUIET, "--record", "takes", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    *states, take = lines(done.stdout)
    assert {state["type"] for state in states} == {"LiveState"}
    assert states[0]["budget"]["sample_rate"] == RATE
    assert [strip["stem"] for strip in states[0]["strips"]] == ["drums", "bass", "other", "vocals"]
    assert states[-1]["phase"] == "ended"
    assert states[-1]["counters"]["frames"] >= SONG_FRAMES
    assert take["type"] == "Take"
    assert [Path(path).parent for path in take["files"]] == [Path(states[-1]["recording"])] * 4


def test_a_take_sums_to_what_was_played(place):
    """In spite of what this machine may be late for: dry sound sums to the input too."""
    done = run(place, "live", "song.wav", *QUIET, "--record", "takes")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert all("preview on none" in line for line in shown[:-4])
    assert "the file has ended" in shown[-5]
    total = sum(soundfile.read(path, dtype="float32")[0] for path in shown[-4:])
    song = soundfile.read(place / "song.wav", dtype="float32")[0]
    middle = len(total) // 2
    (at,) = np.flatnonzero((np.abs(song - total[middle]) < 1e-6).all(axis=1))
    before, after = min(middle, at), min(len(total) - middle, len(song) - at)
    assert before + after > SONG_FRAMES // 2
    assert np.abs(total[middle - before : middle + after] - song[at - before : at + after]).max() < 1e-6


@posix_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(place, number):
    with start(place, "live", "song.wav", *QUIET, "--loop", "--record", "takes", "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)  # something is to be in the take
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, err
    assert err == ""
    take = lines(out)[-1]
    assert take["type"] == "Take"
    assert all(soundfile.info(path).frames > 0 for path in take["files"])


@pytest.mark.parametrize(
    ("args", "status", "code"),
    [
        (("missing.wav",), 3, "input.missing"),
        (("song.wav", "-m", "no-such-model"), 9, "live.model"),
        (("song.wav", "--device", "no such device"), 9, None),  # or no PortAudio at all
        (("song.wav", "--block", "5"), 9, "live.options"),
        (("song.wav", "--rate", "12345"), 9, "live.rate"),
        (("song.wav", "--outputs", "all"), 2, "usage"),
        (("song.wav", "--look-back", "0"), 9, "live.options"),
        (("--loop",), 2, "usage"),
        (("song.wav", "--record", "song.wav"), 9, "live.recording"),
        (("song.wav", "--midi", "no such port"), 8, None),  # or no driver
    ],
)
def test_what_can_not_be_is_told(place, args, status, code):
    done = run(place, "live", *QUIET, *args, "--json")
    *_, error = lines(done.stdout)
    assert done.returncode == status, done.stdout + done.stderr
    assert error["type"] == "Error"
    assert code in (None, error["code"])
    assert error["hint"]
    assert "Traceback" not in done.stderr  # libraries of drivers say there what they like


def test_a_disk_that_fills_up_ends_the_take_and_is_told_at_the_end(place, mounted):
    with mounted(place / "disk", "size=1m") as disk:
        done = run(place, "live", "song.wav", *QUIET, "--loop", "--seconds", "2", "--record", str(disk), "--json")
        *states, take, error = lines(done.stdout)
        assert (done.returncode, error["code"]) == (9, "live.recording")
        assert states[-1]["phase"] == "playing"
        assert {soundfile.info(path).frames for path in take["files"]} < set(range(1, 40_000))


def test_the_devices_there_are(place):
    done = run(place, "live", "--list-devices")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["NAME", "DRIVER", "IN", "OUT", "RATE"]
    (listed,) = lines(run(place, "live", "--list-devices", "--json").stdout)
    assert listed["type"] == "Devices"
    clock = next(device for device in listed["devices"] if device["name"] == "none")
    assert (clock["driver"], clock["input_channels"]) == ("clock", 0)


def test_a_setting_stands_in_for_an_option(place):
    config = place / "config.toml"
    config.write_text('[live]\ndevice = "none"\nno-ui = true\nno-daemon = true\nseconds = 0.5\n', encoding="utf-8")
    done = run(place, "live", "song.wav", REVITHION_CONFIG=str(config))
    assert done.returncode == 0, done.stderr
    assert "on none" in done.stdout


def test_weights_that_are_not_here_are_asked_for_before_anything_plays(place):
    done = run(
        place,
        *("live", "song.wav", *QUIET, "-m", "spleeter_2stems", "--json"),
        REVITHION_MODEL_DIR=str(place / "models"),
        REVITHION_OFFLINE="1",
    )
    (error,) = lines(done.stdout)
    assert (done.returncode, error["code"]) == (4, "model.offline")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("live --model ", {"preview", "dsp", "spleeter_2stems"}),
        ("live --device ", {"default", "none"}),
        ("live --device NO", {"none"}),
        ("live --midi ", {"virtual"}),
        ("live --midi-map ", {"generic", "midimix"}),
    ],
)
def test_the_shell_completes_models_devices_and_mappings(place, words, offered):
    program = shutil.which("revithion-stems", path=Path(sys.executable).parent)  # completion needs its own name
    assert program is not None
    asked = {"_REVITHION_STEMS_COMPLETE": "bash_complete", "COMP_WORDS": f"revithion-stems {words}"}
    done = subprocess.run(
        [program],
        env=environment(place, COMP_CWORD=str(len(words.split(" "))), **asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert offered <= {line.split(",", 1)[1] for line in done.stdout.splitlines()}


@posix_only
def test_faders_in_a_terminal(place):
    """The names of the stems are shown; q leaves, with status 0."""
    import pty

    own, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "live", "song.wav", "--loop", "--device", "none", "--no-daemon"],
        cwd=place,
        env=environment(place, TERM="xterm-256color", COLUMNS="80", LINES="24"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown, deadline, left = b"", time.monotonic() + LONG_S, False
    try:
        while time.monotonic() < deadline:
            if not select.select([own], [], [], 0.2)[0]:
                if process.poll() is not None:
                    break
                continue
            try:
                shown += os.read(own, 65_536)
            except OSError:  # the other end is closed
                break
            if not left and b"vocals" in shown:
                os.write(own, b"q")
                left = True
        assert process.wait(LONG_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(own)
    assert left


@posix_only
def test_with_a_daemon_it_is_the_daemon_that_plays(place):
    """So that its doors reach the faders: one session there is, whoever asks; its files come back."""
    with start(place, "serve", "--osc-port", "off", "--json") as daemon:
        assert daemon.stdout is not None
        assert lines(daemon.stdout.readline())[0]["type"] == "Serving"
        try:
            with start(place, "live", "song.wav", "--loop", "--device", "none", "--json") as first:
                assert first.stdout is not None
                assert lines(first.stdout.readline())[0]["type"] == "LiveState"
                second = run(place, "live", "song.wav", "--device", "none", "--json")
                first.send_signal(signal.SIGTERM)
                _, err = first.communicate(timeout=LONG_S)
            assert (first.returncode, err) == (0, "")
            assert (second.returncode, lines(second.stdout)[-1]["code"]) == (9, "live.running")
            with start(place, "live", "song.wav", "--loop", "--device", "none", "--json") as killed:
                assert killed.stdout is not None
                assert lines(killed.stdout.readline())[0]["type"] == "LiveState"
                killed.kill()  # the daemon plays on
            assert run(place, "live", "--stop").returncode == 0
            again = run(place, "live", "--stop", "--json")
            assert (again.returncode, lines(again.stdout)[-1]["code"]) == (9, "live.idle")
            third = run(place, "live", "song.wav", "--device", "none", "--record", "takes", "--json")
            assert third.returncode == 0, third.stdout
            assert [Path(path).parent.parent for path in lines(third.stdout)[-1]["files"]] == [place / "takes"] * 4
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.communicate(timeout=LONG_S)
    assert daemon.returncode == 0


def turned(value: int) -> mido.Message:
    return mido.Message("control_change", control=77, value=value)


def answer(stream: IO[str], ask: Callable[[], None]) -> str:
    """The next line, asked for again and again until it comes."""
    deadline = time.monotonic() + LONG_S
    while not select.select([stream], [], [], 0.1)[0]:
        assert time.monotonic() < deadline
        ask()
    return stream.readline()


def test_a_midi_controller_learns_a_fader_and_moves_it(place, monkeypatch):
    """By JACK's MIDI; soft-takeover too: the fader stands at 0 dB, which the knob has to pass."""
    require_jack()
    rtmidi = pytest.importorskip("rtmidi")
    if rtmidi.API_UNIX_JACK not in rtmidi.get_compiled_api():
        pytest.skip("python-rtmidi was built without JACK")
    monkeypatch.setenv("MIDO_BACKEND", "mido.backends.rtmidi/UNIX_JACK")
    backend = mido.Backend("mido.backends.rtmidi/UNIX_JACK")
    # The port is closed before the server ends, whatever happens: RtMidi crashes if it finds the server gone.
    with JackServer(), contextlib.closing(backend.open_output("knobs", virtual=True, client_name="desk")) as surface:
        options = ("--loop", "--midi", "desk", "--midi-map", "generic", "--midi-learn", "bass.gain", "--json")
        with start(place, "live", "song.wav", *QUIET, *options) as process:
            assert process.stdout is not None
            try:
                assert lines(process.stdout.readline())[0] == {"type": "MidiLearning", "target": "bass.gain"}
                learned = lines(answer(process.stdout, lambda: surface.send(turned(10))))[0]
                assert "cc = 77" in learned["lines"]
                gain, deadline = 0.0, time.monotonic() + LONG_S
                while gain > -20.0:
                    assert time.monotonic() < deadline
                    surface.send(turned(127))
                    surface.send(turned(20))
                    strips = lines(process.stdout.readline())[0]["strips"]
                    gain = next(strip["settings"]["gain_db"] for strip in strips if strip["stem"] == "bass")
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert "cc = 77" in (place.parent / "home" / "midi.toml").read_text(encoding="utf-8")
