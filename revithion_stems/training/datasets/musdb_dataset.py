"""MUSDB18, MUSDB18-HQ and MUSDB18-7: what is where tells the package ``musdb``, audio is read here.

Nothing is downloaded: MUSDB18 is to be had on request (Rafii et al., doi 10.5281/zenodo.1117371 and, HQ, 3338373).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from revithion_stems.audio import BLOCK_FRAMES, Float32
from revithion_stems.av_container import DECODERS, MediaFile, not_audio
from revithion_stems.errors import EngineError, InputError, RequestError
from revithion_stems.training.datasets.dataset_progress import DatasetProgress, ProgressCallback
from revithion_stems.training.datasets.decoded_cache import DecodedAudio, DecodedCache, source_digest
from revithion_stems.training.datasets.decoded_multitrack import DecodedMultitrack, join_parts
from revithion_stems.training.datasets.folder import entries, stem_for
from revithion_stems.training.datasets.multitrack import Origin

_LICENCE = "MUSDB18: for research and education only; songs under their authors' terms, many CC BY-NC-SA"
_MP4 = ".stem.mp4"


def open_musdb(
    path: Path,
    *,
    subset: str,
    split: str | None = None,
    is_wav: bool = False,
    stems: tuple[str, ...],
    sample_rate: int,
    cache: Path,
    choose: Callable[[str], bool] | None = None,
    on_progress: ProgressCallback | None = None,
) -> tuple[DecodedMultitrack, ...]:
    """Opens one of the MUSDB18 family; files that are not in the cache yet are decoded now.

    The mix is the sum of the four stems, also where the file has a mix of its own, which in MUSDB18 is coded apart.

    Args:
        path: The folder with ``train`` and ``test`` in it.
        subset: ``train`` or ``test``.
        split: Of ``train``: ``train`` (86 songs) or ``valid`` (14); None for both.
        is_wav: Whether it is the HQ edition, with folders of WAV files; else ``.stem.mp4`` files.
        stems: That the training knows; the four are added up where it has only a rest.
        sample_rate: Hz that the files are resampled to.
        cache: Folder for decoded audio.
        choose: Whether the song of this name is wanted; the others are not decoded.
        on_progress: Called for each song, on the calling thread.

    Raises:
        RequestError: No such subset or split.
        EngineError: The package ``musdb`` is not installed.
        InputError: No tracks there, or a file is damaged.
        OutputError: The cache can't be written.
    """
    if subset not in ("train", "test") or split not in (None, "train", "valid") or (split and subset != "train"):
        raise RequestError(
            f"MUSDB18 has no subset {subset!r} with split {split!r}",
            hint="Use subset train or test; with train, split train or valid divides it.",
            code="request.subset",
        )
    setup = _setup()
    wanted = [track for track in _tracks(path, setup, subset, split, is_wav) if choose is None or choose(track.name)]
    if not wanted:
        kind = "folders of WAV files" if is_wav else ".stem.mp4 files"
        raise InputError(
            f"{path} has no tracks of MUSDB18 that are wanted: none are {kind} in {path / subset}",
            hint=f"Name the folder with train and test in it; is_wav = {str(not is_wav).lower()} is the other edition.",
            code="input.no_songs",
        )
    decoded = DecodedCache(cache, sample_rate=sample_rate)
    origin = Origin(dataset="MUSDB18-HQ" if is_wav else "MUSDB18", licence=_LICENCE, commercial_use=False)
    opened: list[DecodedMultitrack] = []
    for track in wanted:
        parts: dict[str, tuple[DecodedAudio, ...]] = dict.fromkeys(stems, ())
        files = (_wav_stems if is_wav else _mp4_stems)(decoded, track, setup)
        for name, file in files.items():
            stem = stem_for(name, stems, track.path)
            parts[stem] = (*parts[stem], file)
        opened.append(join_parts(name=track.name, parts=parts, sample_rate=sample_rate, origin=origin))
        if on_progress is not None:
            on_progress(DatasetProgress(dataset=origin.dataset, song=track.name, done=len(opened), total=len(wanted)))
    return tuple(opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Track:
    """A song of MUSDB18: a ``.stem.mp4`` file, or a folder of the HQ edition."""

    name: str
    path: Path


def _setup() -> dict[str, Any]:
    """What the package knows about MUSDB18: names of files, numbers of streams, which songs validate.

    Its list of tracks is not used: it starts ffprobe for each of them.
    """
    try:
        import musdb
    except ImportError as exc:
        raise EngineError(
            f"MUSDB18 needs the package musdb, which is not installed: {exc}",
            hint="Install it with `pip install 'revithion-stems[train]'`.",
            code="engine.missing",
        ) from exc
    return musdb.DB(root="", subsets=[], download=False).setup


def _tracks(path: Path, setup: dict[str, Any], subset: str, split: str | None, is_wav: bool) -> list[_Track]:
    found: list[_Track] = []
    folder = path / subset
    for entry in entries(folder) if folder.is_dir() else []:
        name = entry.name if is_wav else entry.name.removesuffix(_MP4)
        if not (_has_wav(entry, setup) if is_wav else entry.name.endswith(_MP4) and entry.is_file()):
            continue
        if split is None or (name in setup["validation_tracks"]) == (split == "valid"):
            found.append(_Track(name=name, path=entry))
    return found


def _has_wav(folder: Path, setup: dict[str, Any]) -> bool:
    return any((folder / file).is_file() for file in setup["sources"].values())


def _wav_stems(cache: DecodedCache, track: _Track, setup: dict[str, Any]) -> dict[str, DecodedAudio]:
    return {name: cache.file(track.path / file)[0] for name, file in setup["sources"].items()}


def _mp4_stems(cache: DecodedCache, track: _Track, setup: dict[str, Any]) -> dict[str, DecodedAudio]:
    key = source_digest(track.path)
    numbers = {name: int(setup["stem_ids"][name]) for name in setup["sources"]}
    return {
        name: cache.find(key, number) or _decode(cache, key, track.path, number) for name, number in numbers.items()
    }


def _decode(cache: DecodedCache, key: str, path: Path, index: int) -> DecodedAudio:
    """Puts one audio stream of a media file into the cache. All streams of a file lose the same encoder delay."""
    try:
        with MediaFile(path) as container:
            streams = container.streams.audio
            if index >= len(streams) or getattr(streams[index].codec_context, "name", None) not in DECODERS:
                raise not_audio(path, f"it has no audio stream {index} (it has {len(streams)})")
            return cache.add(
                key,
                _blocks(container, streams[index], path),
                channels=2,
                sample_rate=streams[index].rate,
                origin=path,
                stream=index,
            )
    except OSError as exc:
        raise InputError(
            f"{path} can't be read: {exc.strerror or exc}", hint="Check its permissions.", code="input.unreadable"
        ) from exc


def _blocks(container: Any, stream: Any, path: Path) -> Iterator[Float32]:
    """A stream as float32 ``[2, n]``; a label with holes is no label, so damage is an error."""
    import av
    from av.error import FFmpegError

    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=stream.rate, frame_size=BLOCK_FRAMES)
    stream.codec_context.thread_count = 1
    try:
        for frame in container.decode(stream):
            yield from (_samples(part) for part in resampler.resample(frame))
        yield from (_samples(part) for part in resampler.resample(None))
    except FFmpegError as exc:
        raise not_audio(path, f"stream {stream.index} is damaged: {exc.strerror or exc}") from exc


def _samples(frame: Any) -> Float32:
    return np.asarray(frame.to_ndarray(), np.float32)
