"""The diagnosis: probes can't break or hold up one another, and each says how to fix what it finds."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import namedtuple

import pytest

from revithion_stems import probe_programs, probes
from revithion_stems.catalog import load_catalog
from revithion_stems.cli.main import cli
from revithion_stems.diagnosis import CheckStatus, Finding, Probe, diagnose
from revithion_stems.errors import ConfigError

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="fakes of programs are shell scripts")

FAKE_TORCH = """
from types import SimpleNamespace
__version__ = "9.9"
version = SimpleNamespace(cuda={built_for!r})
gpus = {gpus!r}
cuda = SimpleNamespace(
    is_available=lambda: bool(gpus), device_count=lambda: len(gpus), get_device_name=gpus.__getitem__
)
backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: {mps!r}))
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with nothing on the PATH, no settings and no models."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    monkeypatch.setenv("REVITHION_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("REVITHION_OFFLINE", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    return tmp_path


def fake_module(machine, name, source):
    (machine / "lib" / f"{name}.py").write_text(source)


def fake_program(machine, name, script):
    path = machine / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run_doctor(capsys, monkeypatch, fakes, *, json_mode):
    monkeypatch.setattr(probes, "PROBES", tuple(fakes))
    # As a user calls it: click remembers a command's --help from its first use, with or without the program's -h.
    status = cli.main(["doctor", *(["--json"] if json_mode else [])], standalone_mode=False)
    return status, capsys.readouterr().out


def ok():
    return Finding(detail="fine")


def boom():
    raise ValueError("no good")


def test_order_is_kept_and_a_probe_that_raises_is_broken():
    checks = diagnose([Probe(name="one", look=boom, required=True), Probe(name="two", look=ok)])
    assert [check.name for check in checks] == ["one", "two"]
    assert checks[0].status is CheckStatus.BROKEN
    assert checks[0].detail == "ValueError: no good"
    assert checks[0].fix
    assert checks[0].fails
    assert checks[1].status is CheckStatus.OK


def test_a_hint_of_an_error_is_the_fix():
    def misconfigured():
        raise ConfigError("bad file", hint="Remove it.")

    assert diagnose([Probe(name="settings", look=misconfigured)])[0].fix == "Remove it."


def test_a_probe_that_hangs_is_unknown_and_holds_up_nothing():
    release = threading.Event()

    def hang():
        release.wait(10)
        return ok()

    started = time.monotonic()
    try:
        slow, fast = diagnose([Probe(name="slow", look=hang, required=True), Probe(name="fast", look=ok)], 0.2)
    finally:
        release.set()
    assert time.monotonic() - started < 2
    assert slow.status is CheckStatus.UNKNOWN
    assert not slow.fails  # slowness is no proof of a fault
    assert fast.status is CheckStatus.OK


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("status", list(CheckStatus))
def test_only_what_is_required_and_known_to_fail_sets_the_exit_status(capsys, monkeypatch, status, required):
    fake = Probe(name="thing", look=lambda: Finding(detail="d", status=status, fix="f"), required=required)
    fails = required and status in (CheckStatus.MISSING, CheckStatus.BROKEN)
    code, out = run_doctor(capsys, monkeypatch, [fake], json_mode=True)
    data = json.loads(out)
    assert code == (6 if fails else 0)
    assert data["ok"] is not fails
    assert data["checks"] == [
        {"name": "thing", "required": required, "status": status.value, "detail": "d", "fix": "f"}
    ]


def test_table_names_what_to_do(capsys, monkeypatch):
    bad = Probe(
        name="torch",
        look=lambda: Finding(detail="\x1b[31mgone", status=CheckStatus.MISSING, fix="Install torch."),
        required=True,
    )
    odd = Probe(name="npm", look=lambda: Finding(detail="gone", status=CheckStatus.MISSING))
    code, out = run_doctor(capsys, monkeypatch, [bad, odd, Probe(name="x", look=ok)], json_mode=False)
    assert code == 6
    assert "Install torch." in out
    assert "missing (optional)" in out
    assert "before this is fixed: torch" in out
    assert "\x1b[31m" not in out
    code, out = run_doctor(capsys, monkeypatch, [odd], json_mode=False)
    assert code == 0
    assert "Ready" in out


def test_whole_diagnosis_of_this_machine_is_quick_and_complete():
    started = time.monotonic()
    checks = {check.name: check for check in diagnose(probes.PROBES)}
    assert time.monotonic() - started < 8  # 5 s and what a busy machine adds
    assert len(checks) == len(probes.PROBES)
    for name in ("python", "libsndfile", "mp3, ogg", "resampler", "settings", "model folder"):
        assert checks[name].status is CheckStatus.OK, checks[name]
    assert all(check.fix for check in checks.values() if check.status is not CheckStatus.OK)


def test_no_npm_on_the_path(machine):
    finding = probe_programs.look_at_npm()
    assert finding.status is CheckStatus.MISSING
    assert "no npm on the PATH" in finding.detail
    assert "Node.js" in finding.fix


@posix_only
def test_programs_that_work_fail_and_hang(machine, monkeypatch):
    fake_program(machine, "npm", "echo 12.3.4")
    assert probe_programs.look_at_npm().detail == f"12.3.4 ({machine / 'bin' / 'npm'})"
    fake_program(machine, "ffmpeg", "echo cannot load libx >&2; exit 127")
    finding = probe_programs.look_at_ffmpeg()
    assert finding.status is CheckStatus.BROKEN
    assert "cannot load libx" in finding.detail
    monkeypatch.setattr(probe_programs, "CHILD_TIMEOUT_S", 0.2)
    fake_program(machine, "ffmpeg", "/bin/sleep 5 & wait")
    check = diagnose([Probe(name="ffmpeg", look=probe_programs.look_at_ffmpeg)], 4)[0]
    assert check.status is CheckStatus.UNKNOWN
    assert check.detail == "it took more than 0.2 s"


def test_pip_missing(machine):
    assert probe_programs.look_at_pip().status is CheckStatus.OK
    fake_module(machine, "pip", "raise SystemExit('No module named pip')")
    finding = probe_programs.look_at_pip()
    assert finding.status is CheckStatus.MISSING
    assert "ensurepip" in finding.fix


@pytest.mark.parametrize(
    ("gpus", "mps", "detail"),
    [
        ([], False, "9.9, devices: cpu"),
        (["RTX 4090", "L4"], False, "9.9, devices: cuda (RTX 4090), cuda (L4), cpu"),
        ([], True, "9.9, devices: mps, cpu"),
    ],
)
def test_devices_of_torch(machine, gpus, mps, detail):
    fake_module(machine, "torch", FAKE_TORCH.format(gpus=gpus, mps=mps, built_for="12.8"))
    finding = probe_programs.look_at_torch()
    assert (finding.status, finding.detail, finding.fix) == (CheckStatus.OK, detail, "")


@posix_only
@pytest.mark.parametrize(("built_for", "words"), [(None, "without CUDA"), ("12.8", "for CUDA 12.8")])
def test_a_gpu_that_torch_can_not_use_is_said(machine, built_for, words):
    fake_program(machine, "nvidia-smi", "exit 0")
    fake_module(machine, "torch", FAKE_TORCH.format(gpus=[], mps=False, built_for=built_for))
    finding = probe_programs.look_at_torch()
    assert finding.status is CheckStatus.OK
    assert words in finding.fix


@pytest.mark.parametrize(
    ("source", "status", "detail"),
    [
        ("raise ModuleNotFoundError('No module named torch')", CheckStatus.MISSING, "No module named torch"),
        ("raise OSError('libtorch_cpu.so: cannot open')", CheckStatus.BROKEN, "libtorch_cpu.so"),
        ("import os; os._exit(11)", CheckStatus.BROKEN, "status 11"),
        ("import time; time.sleep(9)", CheckStatus.UNKNOWN, "more than"),
    ],
)
def test_a_torch_that_is_gone_broken_crashing_or_slow(machine, monkeypatch, source, status, detail):
    if status is CheckStatus.UNKNOWN:
        monkeypatch.setattr(probe_programs, "CHILD_TIMEOUT_S", 0.3)
    fake_module(machine, "torch", source)
    check = diagnose([Probe(name="torch", look=probe_programs.look_at_torch)])[0]
    assert check.status is status
    assert detail in check.detail
    assert check.fix


def test_onnxruntime_providers(machine):
    fake_module(
        machine, "onnxruntime", "__version__ = '1.0'\ndef get_available_providers(): return ['AProvider', 'BProvider']"
    )
    assert probe_programs.look_at_onnxruntime().detail == "1.0, providers: AProvider, BProvider"
    fake_module(machine, "onnxruntime", "raise ImportError('DLL load failed')")
    assert probe_programs.look_at_onnxruntime().status is CheckStatus.BROKEN


def test_portaudio_there_and_not(machine):
    source = "def get_portaudio_version(): return (1, 'PortAudio V19')\ndef query_devices(): return [1, 2]"
    fake_module(machine, "sounddevice", source)
    assert probe_programs.look_at_portaudio().detail == "PortAudio V19, 2 devices"
    fake_module(machine, "sounddevice", "raise OSError('PortAudio library not found')")
    assert probe_programs.look_at_portaudio().status is CheckStatus.MISSING
    fake_module(machine, "sounddevice", "raise RuntimeError('host error')")
    assert probe_programs.look_at_portaudio().status is CheckStatus.BROKEN


FAKE_JACK = """
class JackOpenError(Exception): pass
def set_error_function(function): pass
set_info_function = set_error_function
class Client:
    samplerate, blocksize = 48_000, 256
    def __init__(self, name, no_start_server):
        assert no_start_server, "the diagnosis starts nothing"
        if not {running}: raise JackOpenError(name)
    def close(self): pass
"""


@pytest.mark.parametrize(
    ("source", "status", "detail"),
    [
        (FAKE_JACK.format(running=True), CheckStatus.OK, "a server runs at 48000 Hz, 256 frames a period"),
        (FAKE_JACK.format(running=False), CheckStatus.OK, "installed, no server runs"),
        ("raise OSError('JACK library not found')", CheckStatus.MISSING, "JACK library not found"),
        ("raise RuntimeError('protocol error')", CheckStatus.BROKEN, "protocol error"),
    ],
)
def test_jack_there_stopped_gone_and_broken(machine, source, status, detail):
    fake_module(machine, "jack", source)
    finding = probe_programs.look_at_jack()
    assert finding.status is status
    assert detail in finding.detail
    assert bool(finding.fix) is ("a server runs" not in detail)


def test_a_driver_for_midi_there_chosen_and_gone(machine, monkeypatch):
    monkeypatch.delenv("MIDO_BACKEND", raising=False)
    fake_module(machine, "rtmidi", "def get_compiled_api(): return [1]\ndef get_api_display_name(api): return 'Waves'")
    assert probe_programs.look_at_midi().detail.endswith("drivers: Waves")
    fake_module(machine, "rtmidi", "raise ModuleNotFoundError('No module named rtmidi')")
    finding = probe_programs.look_at_midi()
    assert finding.status is CheckStatus.MISSING
    assert "revithion-stems[midi]" in finding.fix
    monkeypatch.setenv("MIDO_BACKEND", "tape")
    fake_module(machine, "tape", "def get_devices(): return []")
    assert probe_programs.look_at_midi().detail.endswith("drivers: tape")


def test_a_module_in_the_current_folder_is_not_asked(machine, monkeypatch):
    (machine / "sounddevice.py").write_text("raise SystemExit('trap')")
    monkeypatch.chdir(machine)
    assert "trap" not in probe_programs.look_at_portaudio().detail


def test_model_folder_that_can_not_be_made(machine, monkeypatch):
    (machine / "file").write_text("in the way")
    monkeypatch.setenv("REVITHION_MODEL_DIR", str(machine / "file" / "models"))
    finding = probes.look_at_model_folder()
    assert finding.status is CheckStatus.BROKEN
    assert "REVITHION_MODEL_DIR" in finding.fix


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_model_folder_that_is_read_only(machine):
    (machine / "models").mkdir(mode=0o500)
    assert probes.look_at_model_folder().status is CheckStatus.BROKEN


def test_looking_at_the_model_folder_leaves_nothing(machine):
    assert probes.look_at_model_folder().detail.endswith("(not made yet)")
    assert not (machine / "models").exists()
    (machine / "models").mkdir()
    assert probes.look_at_model_folder().detail == str(machine / "models")
    assert list((machine / "models").iterdir()) == []


def test_little_disk_and_memory_are_said(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(probes.shutil, "disk_usage", lambda path: usage(10, 5, 5))
    assert probes.look_at_disk().status is CheckStatus.MISSING
    monkeypatch.setattr(probes, "LOW_MEMORY_BYTES", 1 << 60)
    assert probes.look_at_memory().status is CheckStatus.MISSING


def test_settings(machine):
    assert probes.look_at_settings().detail.startswith("none")
    (machine / "config.toml").write_text('[separate]\nmodel = "htdemucs"\n')
    assert probes.look_at_settings().detail == f"{machine / 'config.toml'} (separate)"
    (machine / "config.toml").write_text("not = [toml")
    check = diagnose([Probe(name="settings", look=probes.look_at_settings, required=True)])[0]
    assert check.status is CheckStatus.BROKEN
    assert str(machine / "config.toml") in check.detail
    assert check.fails


def test_models_none_incomplete_and_ready(machine):
    assert probes.look_at_models().status is CheckStatus.MISSING

    def pretend(file):  # presence goes by names and sizes, so a hole of the right size will do
        (machine / "models").mkdir(exist_ok=True)
        with (machine / "models" / file.name).open("wb") as stream:
            stream.truncate(file.size)

    sized = {
        spec.name: [next((f for f in network.files if f.size), None) for network in spec.networks]
        for spec in load_catalog().models
    }
    many = next(name for name, files in sized.items() if len(files) > 1 and files[0])
    pretend(sized[many][0])
    finding = probes.look_at_models()
    assert finding.status is CheckStatus.MISSING
    assert f"incomplete: {many}" in finding.detail
    one = next(name for name, files in sized.items() if len(files) == 1 and files[0])
    pretend(sized[one][0])
    finding = probes.look_at_models()
    assert finding.status is CheckStatus.OK
    assert f"ready: {one}" in finding.detail
    assert f"models pull {many}" in finding.fix


def test_offline_mode_is_said(monkeypatch):
    assert "allowed" in probes.look_at_network().detail
    monkeypatch.setenv("REVITHION_OFFLINE", "1")
    assert "offline" in probes.look_at_network().detail


def test_a_libsndfile_without_mp3(monkeypatch):
    import soundfile

    real_write = soundfile.write

    def write(file, data, rate, format):
        if format == "MP3":
            raise ValueError("Unknown format: 'MP3'")
        real_write(file, data, rate, format=format)

    monkeypatch.setattr(soundfile, "write", write)
    assert probes.look_at_libsndfile().status is CheckStatus.OK
    finding = probes.look_at_lossy_codecs()
    assert finding.status is CheckStatus.BROKEN
    assert finding.detail == "does not read back MP3"


def test_a_codec_that_loses_frames(monkeypatch):
    import soundfile

    monkeypatch.setattr(soundfile, "read", lambda file: ([0.0] * 10, 44_100))
    assert probes.look_at_libsndfile().detail.endswith("does not read back WAV, FLAC")


def test_a_resampler_that_is_off(monkeypatch):
    import soxr

    monkeypatch.setattr(soxr, "resample", lambda *args, **options: [0.0] * 440)
    assert probes.look_at_resampler().status is CheckStatus.BROKEN
