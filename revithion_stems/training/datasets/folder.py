"""A plain folder of multitracks: a folder per song, a file per stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from revithion_stems.audio_files import AUDIO_SUFFIXES
from revithion_stems.errors import InputError
from revithion_stems.training.datasets.dataset_file import DatasetFile, read_dataset_file
from revithion_stems.training.datasets.dataset_progress import DatasetProgress, ProgressCallback
from revithion_stems.training.datasets.decoded_cache import DecodedAudio, DecodedCache
from revithion_stems.training.datasets.decoded_multitrack import DecodedMultitrack, join_parts
from revithion_stems.training.datasets.multitrack import Origin

ACCOMPANIMENT = "accompaniment"
"""All but the vocals, where a song has no finer stems."""

SYNONYMS: Mapping[str, str] = {
    "vox": "vocals",
    "vocal": "vocals",
    "voice": "vocals",
    "drum": "drums",
    "instrumental": ACCOMPANIMENT,
    "no_vocals": ACCOMPANIMENT,
}
"""Names of files that mean a stem of another name."""

EXTRA_STEMS = frozenset(
    ("guitar", "guitars", "piano", "keys", "keyboards", "synth", "synths", "strings", "brass", "residual")
)
"""Names that belong to ``other`` where they are not asked for."""

MIX_NAMES = frozenset(("mix", "mixture", "linear_mixture"))
"""Files that are left out: the mix is the sum of the stems."""


def open_folder(
    path: Path,
    *,
    stems: tuple[str, ...],
    sample_rate: int,
    cache: Path,
    origin: Origin | None = None,
    choose: Callable[[str], bool] | None = None,
    on_progress: ProgressCallback | None = None,
) -> tuple[DecodedMultitrack, ...]:
    """Opens a folder of multitracks; files that are not in the cache yet are decoded now.

    A stem is the file of its name, in any case (``Vocals.wav``), or of a synonym (:data:`SYNONYMS`). Guitar, piano and
    the like (:data:`EXTRA_STEMS`) are added to ``other`` where they are no stems themselves; so are drums and bass to
    ``accompaniment`` where only that is asked for. A mix is left out. ``dataset.toml`` may name others. A stem without
    a file is silent, unless ``dataset.toml`` says ``complete = false``: then it is unknown, and not among the song's
    stems. A song with ``accompaniment`` but no finer stems is known as that and its vocals.

    Args:
        path: The folder; its subfolders with audio in them are the songs.
        stems: That the training knows, such as ``("drums", "bass", "other", "vocals")``.
        sample_rate: Hz that the files are resampled to.
        cache: Folder for decoded audio.
        origin: Instead of what ``dataset.toml`` says.
        choose: Whether the song of this name is wanted; the others are not decoded.
        on_progress: Called for each song, on the calling thread.

    Returns:
        The songs, by name.

    Raises:
        InputError: No such folder, no song in it, a file that is damaged or whose stem nobody knows, two files for
            one stem.
        ConfigError: ``dataset.toml`` is unusable.
        OutputError: The cache can't be written.
    """
    about = read_dataset_file(path)
    origin = origin or about.origin(path)
    decoded = DecodedCache(cache, sample_rate=sample_rate)
    chosen = [folder for folder in _folders(path) if choose is None or choose(folder.name)]
    songs = [(folder, files) for folder in chosen if (files := audio_files(folder))]
    if not songs:
        raise _no_songs(path, {folder.name for folder in _folders(path)} - {folder.name for folder in chosen})
    opened: list[DecodedMultitrack] = []
    for folder, files in songs:
        notices: list[str] = []
        parts = {
            stem: tuple(_decode(decoded, file, notices) for file in of_stem)
            for stem, of_stem in assign_files(files, stems, about).items()
        }
        song = join_parts(name=folder.name, parts=parts, sample_rate=sample_rate, origin=origin)
        opened.append(song)
        if on_progress is not None:
            on_progress(
                DatasetProgress(
                    dataset=origin.dataset,
                    song=song.name,
                    done=len(opened),
                    total=len(songs),
                    notice="; ".join(notices) or None,
                )
            )
    return tuple(opened)


def assign_files(files: tuple[Path, ...], stems: tuple[str, ...], about: DatasetFile) -> dict[str, tuple[Path, ...]]:
    """Which files each known stem of a song is the sum of; pure.

    Raises:
        InputError: A name means no stem, or two files are the same one.
    """
    meant = _meanings(files, about)
    if ACCOMPANIMENT in meant.values():
        if set(meant.values()) - {"vocals", ACCOMPANIMENT}:
            meant = {file: stem for file, stem in meant.items() if stem != ACCOMPANIMENT}  # the finer stems' sum
        elif ACCOMPANIMENT not in stems:
            stems = ("vocals", ACCOMPANIMENT)
    chosen: dict[str, list[Path]] = {}
    for file, name in meant.items():
        chosen.setdefault(stem_for(name, stems, file), []).append(file)
    return {stem: tuple(chosen.get(stem, ())) for stem in stems if stem in chosen or about.complete}


def _meanings(files: tuple[Path, ...], about: DatasetFile) -> dict[Path, str]:
    """File → the stem that its name means, without those to be left out."""
    by_hand = {name.lower(): stem for name, stem in about.stems.items()}
    meant: dict[Path, str] = {}
    seen: dict[str, Path] = {}
    for file in files:
        name = file.stem.lower()
        stem = by_hand.get(name, SYNONYMS.get(name, name))
        if stem == "" or stem in MIX_NAMES:
            continue
        # By hand several files may be put into one stem; otherwise two of one meaning are the same music twice.
        first = seen.setdefault(name if name in by_hand else stem, file)
        if first is not file:
            raise InputError(
                f"{first} and {file} are both {stem}",
                hint="Remove one, or say in dataset.toml, under [stems], what each is.",
                code="input.ambiguous",
            )
        meant[file] = stem
    return meant


def stem_for(name: str, stems: tuple[str, ...], file: Path) -> str:
    """Which of ``stems`` the file of a stem ``name`` belongs to: itself, or else the one that holds the rest.

    Raises:
        InputError: None of them.
    """
    if name in stems:
        return name
    is_rest = name in EXTRA_STEMS or name in ("drums", "bass", "vocals", "other")
    rest = next((stem for stem in ("other", ACCOMPANIMENT) if stem in stems), None)
    if is_rest and rest is not None:
        return rest
    known = sorted({*stems, *SYNONYMS, *EXTRA_STEMS, *MIX_NAMES})
    raise InputError(
        f"{file} is of no known stem (known: {', '.join(known)})",
        hint='Rename it, or say in dataset.toml what it is: [stems], then "name" = "other", or "" to leave it out.',
        code="input.unknown_stem",
    )


def _decode(cache: DecodedCache, file: Path, notices: list[str]) -> DecodedAudio:
    decoded, notice = cache.file(file)
    if notice is not None:
        notices.append(notice)
    return decoded


def _no_songs(path: Path, passed_over: set[str]) -> InputError:
    if passed_over:
        return InputError(
            f"{path} has no songs of the names that are wanted (it has: {', '.join(sorted(passed_over)[:8])})",
            hint="Correct the patterns of songs to use and to leave out.",
            code="input.no_songs",
        )
    return InputError(
        f"{path} has no songs: no folders with audio files in them",
        hint="Make a folder for each song, and in it a file for each stem, such as vocals.wav.",
        code="input.no_songs",
    )


def _folders(path: Path) -> list[Path]:
    return [entry for entry in entries(path) if entry.is_dir() and not entry.name.startswith(".")]


def audio_files(folder: Path) -> tuple[Path, ...]:
    """The audio files of a folder, by name, without hidden ones; raises as :func:`entries`."""
    return tuple(
        file
        for file in entries(folder)
        if file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".") and file.is_file()
    )


def entries(folder: Path) -> list[Path]:
    """What is in a folder, by name.

    Raises:
        InputError: It isn't there, isn't a folder, or is closed to us.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as exc:
        raise InputError(
            f"{folder} can't be read as a folder: {exc.strerror or exc}",
            hint="Name the folder that holds the songs' folders, and see that it may be read.",
            code="input.missing",
        ) from exc
