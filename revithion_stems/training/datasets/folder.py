"""A plain folder of multitracks: a folder per song, a file per stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from revithion_stems.audio import Float32
from revithion_stems.audio_files import AUDIO_SUFFIXES
from revithion_stems.errors import InputError, RequestError
from revithion_stems.training.datasets.dataset_file import DatasetFile, read_dataset_file
from revithion_stems.training.datasets.dataset_progress import DatasetProgress, ProgressCallback
from revithion_stems.training.datasets.decoded_cache import DecodedAudio, DecodedCache
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedMultitrack:
    """A song whose files are in the cache: a :class:`~revithion_stems.training.datasets.multitrack.Multitrack`.

    It can go to other processes. Any thread.

    Attributes:
        name: For people, unique within its dataset.
        frames: Length of the longest stem; the others are silent from their end on.
        sample_rate: Hz.
        parts: Stem → the files that it is the sum of; none for one that is silent.
        origin: Where it comes from.
    """

    name: str
    frames: int
    sample_rate: int
    parts: Mapping[str, tuple[DecodedAudio, ...]]
    origin: Origin

    @property
    def stems(self) -> tuple[str, ...]:
        """That are known."""
        return tuple(self.parts)

    def read(self, stem: str, start: int, frames: int) -> Float32:
        """Part of a stem as float32 ``[2, frames]``, from ``start`` on; mono sources on both sides.

        Raises:
            RequestError: The stem is not known, or the span leaves the song.
            InputError: A file of the cache was removed meanwhile.
        """
        if stem not in self.parts or start < 0 or frames < 0 or start + frames > self.frames:
            raise RequestError(
                f"{self.name}: frames {start} to {start + frames} of {stem!r} (it has 0 to {self.frames} of "
                f"{', '.join(self.parts)})",
                hint="Ask for a part of a stem that it has.",
                code="request.span",
            )
        files = self.parts[stem] or (_SILENCE,)
        samples = files[0].read(start, frames)
        for file in files[1:]:
            samples += file.read(start, frames)
        return samples


_SILENCE = DecodedAudio(path=Path(), offset=0, channels=1, frames=0, exponent=0)


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
    songs = [(folder, files) for folder in chosen if (files := _audio_files(folder))]
    if not songs:
        raise InputError(
            f"{path} has no songs{'' if choose is None else ' of the names that are wanted'}: no folders with audio "
            "files in them",
            hint="Make a folder for each song, and in it a file for each stem, such as vocals.wav.",
            code="input.no_songs",
        )
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


def join_parts(
    *, name: str, parts: Mapping[str, tuple[DecodedAudio, ...]], sample_rate: int, origin: Origin
) -> DecodedMultitrack:
    """A song of decoded files; its length is that of the longest.

    Raises:
        InputError: It has no files at all.
    """
    frames = max((file.frames for files in parts.values() for file in files), default=0)
    if frames == 0:
        raise InputError(
            f"{name} ({origin.dataset}) has no stems that can be used",
            hint="Put at least one stem there, or remove the folder.",
            code="input.empty",
        )
    return DecodedMultitrack(name=name, frames=frames, sample_rate=sample_rate, parts=dict(parts), origin=origin)


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


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as exc:
        raise InputError(
            f"{path} can't be read as a folder: {exc.strerror or exc}",
            hint="Name the folder that holds the songs' folders.",
            code="input.missing",
        ) from exc


def _audio_files(folder: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
    )
