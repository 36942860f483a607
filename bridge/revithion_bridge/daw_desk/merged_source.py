"""One file of several: a DAW may keep each channel in a file of its own, and a separation takes one file.

Audio libraries are imported when there is something to do, since the daemon's process lives with this module loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from revithion_bridge.daw.mailbox import SourceChannel
from revithion_bridge.errors import bridge_error
from revithion_stems.paths import jailed, safe_component

if TYPE_CHECKING:
    from revithion_stems.audio_files import AudioInfo

_SOURCES = "sources"
_BLOCK_FRAMES = 65_536
_BEFORE_SIDE = "%.-_ "


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSource:
    """A source that can be separated.

    Attributes:
        path: Of the file, absolute.
        channels: 1 to 8.
        frames: Length, in frames.
        sample_rate: Hz.
        digest: Tells it from others, and from what was at the same paths before; 16 hexadecimal digits.
    """

    path: Path
    channels: int
    frames: int
    sample_rate: int
    digest: str


def prepare_source(
    channels: Sequence[SourceChannel], folder: Path, check_cancelled: Callable[[], None]
) -> PreparedSource:
    """The file that holds ``channels`` as they are heard: one that is there, or a new one below ``folder``.

    Blocks for as long as it takes to write that; again it is found, and not written. Only one call at a time.

    Args:
        channels: In the order in which they are heard.
        folder: Where a new file goes, into ``sources``.
        check_cancelled: Called for each block; what it raises ends the work.

    Raises:
        InputError: A file is missing, is no audio, or is damaged.
        OutputError: The new one can't be written, or links lead out of ``folder``.
        RevithionError: ``daw.selection``: files of different rates, or a channel that a file has not.
    """
    from revithion_stems.audio_files import read_info

    check_cancelled()
    infos = {path: read_info(path) for path in dict.fromkeys(Path(channel.path) for channel in channels)}
    digest = _digest(channels)
    first = Path(channels[0].path)
    info = infos[first]
    if [(Path(c.path), c.channel) for c in channels] == [(first, number) for number in range(info.channels)]:
        return PreparedSource(
            path=first, channels=info.channels, frames=info.frames, sample_rate=info.sample_rate, digest=digest
        )
    for channel in channels:
        if channel.channel >= infos[Path(channel.path)].channels:
            raise bridge_error("daw.selection", f"{channel.path} has no channel {channel.channel + 1}")
    rates = {each.sample_rate for each in infos.values()}
    if len(rates) > 1:
        raise bridge_error(
            "daw.selection", f"the channels' files are of different sample rates: {sorted(rates)}, such as {first}"
        )
    name = f"{_common_name([path.stem for path in infos])}.wav"
    target = jailed(folder, PurePosixPath(_SOURCES, digest, name))
    if not target.is_file():
        _write(target, channels, infos, check_cancelled)
    return PreparedSource(
        path=target,
        channels=len(channels),
        frames=max(each.frames for each in infos.values()),
        sample_rate=info.sample_rate,
        digest=digest,
    )


def _digest(channels: Sequence[SourceChannel]) -> str:
    digest = hashlib.sha256()
    for channel in channels:
        status = os.stat(channel.path)  # noqa: PTH116 - a path as text, whatever is in it
        digest.update(
            f"{channel.path}\0{channel.channel}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(
                "utf-8", "surrogatepass"
            )
        )
    return digest.hexdigest()[:16]


def _common_name(names: Sequence[str]) -> str:
    """``Mix`` of ``Mix%L`` and ``Mix%R``; the first name where they have nothing in common."""
    if len(names) == 1:
        return safe_component(names[0])
    common = os.path.commonprefix(list(names)).rstrip(_BEFORE_SIDE)  # noqa: RUF071 - these are no paths
    return safe_component(common or names[0])


def _write(
    target: Path, channels: Sequence[SourceChannel], infos: dict[Path, AudioInfo], check_cancelled: Callable[[], None]
) -> None:
    import numpy as np

    from revithion_bridge.daw_files.clip_audio import EvenReader, wav_file
    from revithion_bridge.daw_files.project_files import session_hints
    from revithion_stems.audio_files import AudioReader
    from revithion_stems.output_errors import output_errors

    frames = max(info.frames for info in infos.values())
    rate = next(iter(infos.values())).sample_rate
    part = target.with_name(f"{target.name}.part")
    with session_hints(), output_errors(target), contextlib.ExitStack() as stack:
        target.parent.mkdir(parents=True, exist_ok=True)
        stack.callback(part.unlink, missing_ok=True)
        readers = {path: EvenReader(stack.enter_context(AudioReader(path))) for path in infos}
        # 32-bit float, in which all of the usual formats are exact
        with wav_file(part, channels=len(channels), sample_rate=rate, frames=frames) as write:
            for start in range(0, frames, _BLOCK_FRAMES):
                check_cancelled()
                count = min(_BLOCK_FRAMES, frames - start)
                blocks = {path: reader.take(count) for path, reader in readers.items()}
                write(np.stack([blocks[Path(c.path)][c.channel] for c in channels]))
        part.replace(target)
