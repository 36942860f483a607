"""What the diagnosis looks at, all in one table; here also what can be looked at within this process."""

from __future__ import annotations

import dataclasses
import io
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from revithion_stems.config import config_path, load_defaults, model_dir, offline_mode
from revithion_stems.diagnosis import CheckStatus, Finding, Probe
from revithion_stems.probe_programs import (
    look_at_ffmpeg,
    look_at_jack,
    look_at_midi,
    look_at_npm,
    look_at_onnxruntime,
    look_at_pip,
    look_at_portaudio,
    look_at_torch,
)
from revithion_stems.units import format_bytes

LOW_MEMORY_BYTES = 2 << 30
"""Below this, a rule of thumb for one network of HTDemucs' size; `plan` estimates the real need of a request."""

LOW_DISK_BYTES = 1 << 30
"""Below this, the weights of a four-network model and the stems of a few songs do not fit."""


def look_at_python() -> Finding:
    """Interpreter and operating system."""
    interpreter = f"{platform.python_version()} ({platform.python_implementation()})"
    return Finding(detail=f"{interpreter} on {platform.platform(terse=True)}, {platform.machine()}")


def look_at_processor() -> Finding:
    """Cores, and how many of them this process may use."""
    total = os.cpu_count() or 1
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else total
    return Finding(detail=f"{usable} of {total} logical cores usable")


def look_at_memory() -> Finding:
    """RAM in total and free."""
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{format_bytes(memory.available)} free of {format_bytes(memory.total)}"
    if memory.available < LOW_MEMORY_BYTES:
        fix = "Close other programs, or use a shorter --segment."
        return Finding(detail=detail, status=CheckStatus.MISSING, fix=fix)
    return Finding(detail=detail)


def look_at_libsndfile() -> Finding:
    """libsndfile with the lossless formats, each proven by a short tone through it and back."""
    import soundfile

    finding = _round_trips(("WAV", "FLAC"))
    return dataclasses.replace(finding, detail=f"libsndfile {soundfile.__libsndfile_version__}, {finding.detail}")


def look_at_lossy_codecs() -> Finding:
    """libsndfile's MP3 and Ogg Vorbis, which older builds come without."""
    return _round_trips(("MP3", "OGG"))


def _round_trips(formats: tuple[str, ...]) -> Finding:
    import numpy as np
    import soundfile

    tone = (0.5 * np.sin(np.arange(4410) * 0.05)).astype(np.float32)
    fails: list[str] = []
    for name in formats:
        buffer = io.BytesIO()
        try:
            soundfile.write(buffer, tone, 44100, format=name)
            buffer.seek(0)
            decoded, _ = soundfile.read(buffer)
            if len(decoded) < tone.size:
                fails.append(name)
        except (soundfile.SoundFileError, ValueError, TypeError):
            fails.append(name)
    if fails:
        fix = "Run `python -m pip install --force-reinstall soundfile`: its wheels bring a libsndfile with all codecs."
        return Finding(detail=f"does not read back {', '.join(fails)}", status=CheckStatus.BROKEN, fix=fix)
    return Finding(detail=f"reads and writes {', '.join(formats)}")


def look_at_resampler() -> Finding:
    """soxr, proven by resampling a little."""
    import numpy as np
    import soxr

    frames = len(soxr.resample(np.zeros(480, np.float32), 48000, 44100, quality="VHQ"))
    if frames != 441:
        fix = "Run `python -m pip install --force-reinstall soxr`."
        return Finding(detail=f"480 frames became {frames}, not 441", status=CheckStatus.BROKEN, fix=fix)
    return Finding(detail=f"soxr {soxr.__version__}")


def look_at_settings() -> Finding:
    """The configuration file; a bad one raises ConfigError, whose hint becomes the fix."""
    path = config_path()
    tables = load_defaults()
    return Finding(detail=f"{path} ({', '.join(tables) or 'empty'})" if path.exists() else f"none ({path})")


def look_at_model_folder() -> Finding:
    """Whether weights can be written where they belong. Creates nothing that stays."""
    folder, existing = _model_folder()
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as exc:
        fix = "Give yourself the right to write there, or point REVITHION_MODEL_DIR to another folder."
        return Finding(detail=f"{folder} can't be written: {exc.strerror}", status=CheckStatus.BROKEN, fix=fix)
    return Finding(detail=f"{folder}{'' if existing == folder else ' (not made yet)'}")


def look_at_disk() -> Finding:
    """Free space on the disk of the model folder."""
    _, existing = _model_folder()
    free = shutil.disk_usage(existing).free
    if free < LOW_DISK_BYTES:
        fix = "Free some space, or point REVITHION_MODEL_DIR to another disk."
        return Finding(detail=f"{format_bytes(free)} free for models", status=CheckStatus.MISSING, fix=fix)
    return Finding(detail=f"{format_bytes(free)} free for models")


def _model_folder() -> tuple[Path, Path]:
    """The model folder, and the nearest path from it upwards that exists."""
    folder = model_dir().absolute()
    return folder, next(path for path in (folder, *folder.parents) if path.exists())


def look_at_models() -> Finding:
    """Which models of the catalog have their weights here."""
    from revithion_stems.catalog import load_catalog
    from revithion_stems.weights import ModelStore, Presence

    store = ModelStore(model_dir())
    ready: list[str] = []
    partial: list[str] = []
    for spec in load_catalog().models:
        presence = store.presence(spec)
        if not spec.built_in and presence is not Presence.ABSENT:
            (ready if presence is Presence.PRESENT else partial).append(spec.name)
    detail = "; ".join(
        f"{words}: {', '.join(names)}" for words, names in (("ready", ready), ("incomplete", partial)) if names
    )
    if not ready:
        fix = "Run `revithion-stems models pull htdemucs`; until then the built-in `preview` is what there is."
        return Finding(detail=detail or "none with weights", status=CheckStatus.MISSING, fix=fix)
    return Finding(detail=detail, fix=f"Run `revithion-stems models pull {partial[0]}`." if partial else "")


def look_at_network() -> Finding:
    """Whether downloads are allowed; nothing is sent."""
    return Finding(detail="offline (REVITHION_OFFLINE): no downloads" if offline_mode() else "downloads allowed")


PROBES: tuple[Probe, ...] = (
    Probe(name="python", look=look_at_python, required=True),
    Probe(name="processor", look=look_at_processor),
    Probe(name="memory", look=look_at_memory),
    Probe(name="torch", look=look_at_torch, required=True),
    Probe(name="onnxruntime", look=look_at_onnxruntime),
    Probe(name="libsndfile", look=look_at_libsndfile, required=True),
    Probe(name="mp3, ogg", look=look_at_lossy_codecs),
    Probe(name="resampler", look=look_at_resampler, required=True),
    Probe(name="settings", look=look_at_settings, required=True),
    Probe(name="model folder", look=look_at_model_folder),
    Probe(name="disk", look=look_at_disk),
    Probe(name="models", look=look_at_models),
    Probe(name="network", look=look_at_network),
    Probe(name="npm", look=look_at_npm),
    Probe(name="pip", look=look_at_pip),
    Probe(name="ffmpeg", look=look_at_ffmpeg),
    Probe(name="portaudio", look=look_at_portaudio),
    Probe(name="jack", look=look_at_jack),
    Probe(name="midi", look=look_at_midi),
)
"""All probes, in the order that they are shown in."""
