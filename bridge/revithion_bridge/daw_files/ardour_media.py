"""A clip's audio as an Ardour session has it: at the session's rate, one mono file in float32 for each channel."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from revithion_bridge.daw.bus_plan import PlannedClip
from revithion_bridge.daw_files.clip_audio import changed_clip, content_digest, open_clip, wav_file
from revithion_bridge.daw_files.project_files import flush_file
from revithion_bridge.errors import bridge_error
from revithion_stems.audio import Float32
from revithion_stems.audio_files import AudioReader, read_info
from revithion_stems.errors import InputError
from revithion_stems.output_errors import output_errors
from revithion_stems.paths import safe_component

_MOST_KEY_BYTES = 120
_OURS = re.compile(r"-[0-9a-f]{16}(%[A-Za-z])?\.wav\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAudio:
    """The files of a clip's file. Their names follow from the content, so that who has the names has the sound.

    Attributes:
        clip: Whose file it is.
        rate: Of the session, Hz.
        names: Of the files, one for each channel.
    """

    clip: PlannedClip
    rate: int
    names: tuple[str, ...]

    @property
    def frames(self) -> int:
        """Length of the files; Ardour has no empty ones."""
        return max(self.frame(self.clip.file_frames), 1)

    def frame(self, file_frame: int) -> int:
        """Where a frame of the clip's file is in these."""
        return round(Fraction(file_frame) * self.rate / (self.clip.sample_rate * Fraction(self.clip.play_rate)))

    def is_in(self, folder: Path) -> bool:
        """Whether the files are there, and of the right length."""
        with contextlib.suppress(InputError):
            return all(read_info(folder / name).frames == self.frames for name in self.names)
        return False

    def write(self, parts: Sequence[Path]) -> None:
        """Writes the files; memory does not grow with their length.

        Raises:
            InputError: The clip's file can't be read.
            OutputError: A file can't be written.
            RevithionError: ``daw.plan``: the clip's file is not what the plan says.
        """
        clip = self.clip
        with output_errors(parts[0]), contextlib.ExitStack() as stack:
            reader = stack.enter_context(open_clip(clip))
            files = [wav_file(part, channels=1, sample_rate=self.rate, frames=self.frames) for part in parts]
            writes = [stack.enter_context(file) for file in files]
            for block in self._resampled(reader):
                for channel, write in enumerate(writes):
                    write(block[channel : channel + 1])
        for part in parts:
            with output_errors(part):
                flush_file(part)

    def _resampled(self, reader: AudioReader) -> Iterator[Float32]:
        """The reader's audio at the session's rate, exactly ``frames`` long."""
        clip, left, read = self.clip, self.frames, 0
        speed = clip.sample_rate * clip.play_rate
        stream: Any = None
        if speed != self.rate:
            stream = soxr.ResampleStream(speed, self.rate, clip.channels, dtype="float32", quality="VHQ")
        for block in reader.blocks():
            read += block.shape[1]
            out = block if stream is None else _resample(stream, block, last=False)
            out = out[:, :left]
            left -= out.shape[1]
            yield out
        if read != clip.file_frames:
            raise changed_clip(clip)
        if stream is not None:
            out = _resample(stream, np.zeros((clip.channels, 0), np.float32), last=True)[:, :left]
            left -= out.shape[1]
            yield out
            # The filter's end is a frame short for some ratios: what is left there is silence.
            yield np.zeros((clip.channels, left), np.float32)


def session_audio(key: str, clip: PlannedClip, rate: int) -> SessionAudio:
    """How a session of that rate has the clip's file.

    Args:
        key: Of the track; files are named after it.
        clip: Of the plan.
        rate: Of the session, Hz.

    Raises:
        InputError: The clip's file can't be read.
        RevithionError: ``daw.plan``: the clip is stretched, which only Ardour itself can do.
    """
    if clip.preserve_pitch and clip.play_rate != 1.0:
        raise bridge_error("daw.plan", f"clip of {clip.file}: a closed Ardour session can't be given stretched clips")
    content = clip.sha256 or content_digest(Path(clip.file))
    digest = hashlib.sha256(f"{content}:{rate}:{clip.play_rate}".encode()).hexdigest()[:16]
    short = key.encode("utf-8", "replace")[:_MOST_KEY_BYTES].decode("utf-8", errors="ignore")
    base = f"{safe_component(short)}-{digest}"
    endings = {1: [""], 2: ["%L", "%R"]}.get(clip.channels) or [f"%{chr(ord('a') + c)}" for c in range(clip.channels)]
    return SessionAudio(clip=clip, rate=rate, names=tuple(f"{base}{ending}.wav" for ending in endings))


def is_ours(name: str) -> bool:
    """Whether a source of a session has a name as :func:`session_audio` makes them."""
    return _OURS.search(name) is not None


def _resample(stream: Any, block: Float32, *, last: bool) -> Float32:
    out: Any = stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
    return np.ascontiguousarray(out.reshape(-1, block.shape[0]).T)
