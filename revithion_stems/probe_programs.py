"""Probes that start a program: helpers outside Python, and libraries that are better not imported here.

Libraries with native code that may crash or take seconds (torch, ONNX Runtime, PortAudio) are imported in a child
process, so that a broken one is a line in a table and not the end of the program.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from revithion_stems.diagnosis import CheckStatus, Finding

CHILD_TIMEOUT_S = 4.5
"""A child that has not ended by then is stopped; less than the time of the whole diagnosis."""

_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
mps = torch.backends.mps.is_available()
print(json.dumps({"version": torch.__version__, "built_for": torch.version.cuda, "gpus": names, "mps": mps}))
"""
_ONNXRUNTIME = """
import json, onnxruntime
print(json.dumps({"version": onnxruntime.__version__, "providers": onnxruntime.get_available_providers()}))
"""
_PORTAUDIO = """
import json, sounddevice
print(json.dumps({"version": sounddevice.get_portaudio_version()[1], "devices": len(sounddevice.query_devices())}))
"""

_JACK = """
import json, jack
jack.set_error_function(lambda text: None)
jack.set_info_function(lambda text: None)
try:
    client = jack.Client("revithion-stems-doctor", no_start_server=True)
except jack.JackOpenError:
    print(json.dumps({"rate": 0}))
else:
    print(json.dumps({"rate": client.samplerate, "block": client.blocksize}))
    client.close()
"""
_MIDI = """
import json, os, mido
try:
    import rtmidi
    drivers = [rtmidi.get_api_display_name(api) for api in rtmidi.get_compiled_api()]
except ModuleNotFoundError:
    if not os.environ.get("MIDO_BACKEND"):
        raise
    mido.Backend(os.environ["MIDO_BACKEND"], load=True)
    drivers = [os.environ["MIDO_BACKEND"]]
print(json.dumps({"version": str(mido.version_info), "drivers": drivers}))
"""


def run_command(command: Sequence[str]) -> tuple[int, str, str]:
    """Runs a program without a terminal; gives exit status, stdout and stderr.

    Raises:
        OSError: It can't be started.
        TimeoutError: It ran longer than ``CHILD_TIMEOUT_S`` and was stopped.
    """
    # Into files: a grandchild that outlives the time limit would keep a pipe open, and us waiting for its end.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=CHILD_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError(f"it took more than {CHILD_TIMEOUT_S:g} s") from exc
        texts: list[str] = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace").strip())
    return done.returncode, texts[0], texts[1]


def _ask_python(code: str, fix: str) -> tuple[dict[str, Any], Finding]:
    """Runs ``code`` in a child and reads the JSON it prints; the finding is the answer where that fails."""
    # -P: a file called torch.py in the current folder is not what we ask about.
    status, out, err = run_command([sys.executable, "-P", "-c", code])
    if status != 0:
        reason = err.splitlines()[-1] if err else f"importing it ended Python with status {status}"
        gone = "ModuleNotFoundError" in reason
        return {}, Finding(detail=reason, status=CheckStatus.MISSING if gone else CheckStatus.BROKEN, fix=fix)
    return json.loads(out.splitlines()[-1]), Finding(detail="")


def look_at_torch() -> Finding:
    """PyTorch and the devices it can compute on."""
    data, failure = _ask_python(_TORCH, "Run `python -m pip install --force-reinstall torch` in this environment.")
    if not data:
        return failure
    devices = [*(f"cuda ({name})" for name in data["gpus"]), *(["mps"] if data["mps"] else []), "cpu"]
    advice = ""
    if not data["gpus"] and shutil.which("nvidia-smi"):
        why = "is built without CUDA" if data["built_for"] is None else f"for CUDA {data['built_for']} can't use it"
        advice = f"There is an NVIDIA driver, but this torch {why}: install a matching build of torch."
    return Finding(detail=f"{data['version']}, devices: {', '.join(devices)}", fix=advice)


def look_at_onnxruntime() -> Finding:
    """ONNX Runtime and its execution providers."""
    data, failure = _ask_python(
        _ONNXRUNTIME, "Run `python -m pip install --force-reinstall onnxruntime`, or use torch."
    )
    if not data:
        return failure
    return Finding(detail=f"{data['version']}, providers: {', '.join(data['providers'])}")


def look_at_portaudio() -> Finding:
    """PortAudio, for the live preview."""
    data, failure = _ask_python(
        _PORTAUDIO, "Only for live use: install PortAudio (libportaudio2 on Debian and Ubuntu)."
    )
    if not data:
        # The Python part comes with us; what is usually not there is the system's library.
        status = CheckStatus.MISSING if "PortAudio library not found" in failure.detail else failure.status
        return Finding(detail=failure.detail, status=status, fix=failure.fix)
    return Finding(detail=f"{data['version']}, {data['devices']} devices")


def look_at_jack() -> Finding:
    """JACK, for the live preview: its library, and whether a server runs."""
    data, failure = _ask_python(
        _JACK, "Only for live use with JACK: install it (jackd2 on Debian and Ubuntu), or use PipeWire's pw-jack."
    )
    if not data:
        # Likewise: JACK-Client comes with us, and says so of the library.
        status = CheckStatus.MISSING if "library" in failure.detail.lower() else failure.status
        return Finding(detail=failure.detail, status=status, fix=failure.fix)
    if not data["rate"]:
        return Finding(detail="installed, no server runs", fix="Only for live use with JACK: start a server first.")
    return Finding(detail=f"a server runs at {data['rate']} Hz, {data['block']} frames a period")


def look_at_midi() -> Finding:
    """A driver for MIDI, for controllers of the live preview and of DAWs."""
    data, failure = _ask_python(
        _MIDI, "Only for MIDI controllers: run `python -m pip install 'revithion-stems[midi]'`."
    )
    if not data:
        return failure
    return Finding(detail=f"mido {data['version']}, drivers: {', '.join(data['drivers']) or 'none'}")


def look_at_program(name: str, version_flag: str, fix: str) -> Finding:
    """A program outside Python: where it is and the first line it says about its version."""
    path = shutil.which(name)
    if path is None:
        return Finding(detail=f"no {name} on the PATH", status=CheckStatus.MISSING, fix=fix)
    status, out, err = run_command([path, version_flag])
    if status != 0:
        reason = (err or out).splitlines()[-1:] or [f"status {status}"]
        return Finding(detail=f"{path}: {reason[0]}", status=CheckStatus.BROKEN, fix=fix)
    return Finding(detail=f"{(out or err).splitlines()[0]} ({path})")


def look_at_pip() -> Finding:
    """The pip of this interpreter, the one that model downloads use."""
    status, out, err = run_command([sys.executable, "-P", "-m", "pip", "--version"])
    if status != 0:
        fix = "Only for models in Python packages: run `python -m ensurepip`."
        return Finding(detail=(err.splitlines() or ["no pip"])[-1], status=CheckStatus.MISSING, fix=fix)
    return Finding(detail=" ".join(out.split()[:2]))


def look_at_npm() -> Finding:
    """The npm client, the one that model downloads use."""
    return look_at_program("npm", "--version", "Only for models in npm packages: install Node.js, which brings npm.")


def look_at_ffmpeg() -> Finding:
    """ffmpeg, for containers that libsndfile does not read."""
    return look_at_program("ffmpeg", "-version", "Only for sources like m4a and video: install ffmpeg.")
