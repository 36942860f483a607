"""Whether a job fits into memory before it is started: a rule without side effects, and the looks at the machine."""

from __future__ import annotations

import ctypes
import enum
import gc
import sys
from dataclasses import dataclass
from typing import Any

import psutil

from revithion_stems.errors import EngineError, out_of_memory
from revithion_stems.model_loading import ModelCache
from revithion_stems.units import format_bytes


class Verdict(enum.Enum):
    """Whether a job can be started."""

    FITS = "fits"
    LATER = "later"
    """Others have the memory at the moment."""
    NEVER = "never"
    """There is not so much in the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Memory of a device as this process sees it, in bytes.

    Attributes:
        own_bytes: What this process has of it.
        free_bytes: What it could have besides.
        total_bytes: What there is in all.
    """

    own_bytes: int
    free_bytes: int
    total_bytes: int

    def missing(self, needed_bytes: int) -> int:
        """What a process with a peak of ``needed_bytes`` needs beyond what this one has."""
        return max(0, needed_bytes - self.own_bytes)


def judge(needed_bytes: int, memory: DeviceMemory) -> Verdict:
    """The rule.

    Args:
        needed_bytes: Expected peak of the whole process.
        memory: What there is.
    """
    if needed_bytes > memory.total_bytes:
        return Verdict.NEVER
    return Verdict.FITS if memory.missing(needed_bytes) <= memory.free_bytes else Verdict.LATER


def probe(device: str) -> DeviceMemory:
    """Looks at the memory that a network on ``device`` would use; only of ``cuda`` it is not the machine's own."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return DeviceMemory(own_bytes=torch.cuda.memory_reserved(), free_bytes=free, total_bytes=total)
    machine = psutil.virtual_memory()
    return DeviceMemory(own_bytes=resident_bytes(), free_bytes=machine.available, total_bytes=machine.total)


def admit(needed_bytes: int, device: str, models: ModelCache) -> tuple[Verdict, DeviceMemory]:
    """The verdict on a job, and the memory that it is based on; a warm model goes if the job does not fit beside it."""
    memory = probe(device)
    verdict = judge(needed_bytes, memory)
    if verdict is Verdict.LATER:
        models.clear()
        release_memory()
        memory = probe(device)
        verdict = judge(needed_bytes, memory)
    return verdict, memory


def too_large(needed_bytes: int, memory: DeviceMemory) -> EngineError:
    """The error for a job that never fits."""
    needed, total = format_bytes(needed_bytes), format_bytes(memory.total_bytes)
    return out_of_memory(f"before the job was started: it needs about {needed}, and there are {total} in all")


def resident_bytes() -> int:
    """Resident memory of this process."""
    return psutil.Process().memory_info().rss


def release_memory() -> None:
    """Gives memory that nothing refers to any more back to the system, on the GPU too."""
    gc.collect()
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    if sys.platform == "linux":
        # Only glibc has it; it keeps what was freed below the top of a heap otherwise.
        trim: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
