"""The stems that go into a DAW, whatever they are named by: a job, a report, a manifest, a folder, arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import soundfile

from revithion_bridge.daw.plan_builder import StemFile, plan_identity
from revithion_bridge.errors import bridge_error
from revithion_bridge.messages import JobInfo
from revithion_stems.audio_files import AUDIO_SUFFIXES, read_info
from revithion_stems.digests import sha256_file
from revithion_stems.errors import OutputError, RequestError
from revithion_stems.jobs import JobState
from revithion_stems.manifest import find_manifest
from revithion_stems.paths import safe_component
from revithion_stems.reports import SeparationReport
from revithion_stems.stems import StemSet

StemSource: TypeAlias = "str | Path | JobInfo | SeparationReport | Mapping[str, Path] | StemSet"
"""A job's id or JobInfo, a report, a folder of stems, a manifest, stem → file, or stems in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StemInput:
    """Stems in files.

    Attributes:
        stems: All of one length.
        title: Name of the song.
        model: That made them, or empty.
        gain_db: The gain that they share.
        origin: What tells this song from others: the source's path, or the folder.
    """

    stems: Sequence[StemFile]
    title: str
    model: str = ""
    gain_db: float = 0.0
    origin: str

    @property
    def identity(self) -> str:
        """Of the plan for these stems: the same song replaces what was there, with another preset too."""
        return plan_identity("song", self.origin)


def stems_of_job(info: JobInfo) -> StemInput:
    """The stems of a job that is done.

    Raises:
        RevithionError: ``job.transition``: it is not done. ``daw.plan``: its stems are streams of one file.
        InputError: A stem is gone.
    """
    if info.state is not JobState.DONE:
        raise bridge_error("job.transition", f"{info.id} is {info.state.value}: it has no stems")
    summary = info.summary or {}
    source = Path(info.parameters.source)
    files = {stem["stem"]: Path(stem["path"]) for stem in info.stems}
    digests = {stem["stem"]: str(stem.get("sha256") or "") for stem in info.stems}
    return StemInput(
        stems=_stem_files(files, digests),
        title=source.stem,
        model=str(summary.get("model") or ""),
        gain_db=float(summary.get("gain_db") or 0.0),
        origin=str(source),
    )


def find_stems(source: StemSource, media_folder: Path) -> StemInput:
    """The stems that ``source`` names; a job's id is looked up in the daemon.

    Args:
        source: See :data:`StemSource`.
        media_folder: Where stems in memory are written, in a folder of their own.

    Raises:
        RevithionError: There are none, the job is not done, no daemon answers, or the stems are streams of one file.
        InputError: A file is gone, or is no audio.
        OutputError: Stems in memory can't be written.
    """
    if isinstance(source, JobInfo):
        return stems_of_job(source)
    if isinstance(source, SeparationReport):
        if source.manifest is None:
            raise RequestError("this report is of stems in memory", hint="Give the stems themselves.")
        return _stems_of_folder(source.manifest)
    if isinstance(source, StemSet):
        return _written(source, media_folder)
    if isinstance(source, Mapping):
        files = {name: Path(path).absolute() for name, path in source.items()}
        folder = next(iter(files.values())).parent if files else Path()
        return StemInput(stems=_stem_files(files), title=folder.name, origin=str(folder))
    path = Path(source)
    if path.is_dir() or path.name.endswith(".json"):
        return _stems_of_folder(path)
    from revithion_bridge.client import connect  # only here ZeroMQ is needed

    with connect() as daemon:
        return stems_of_job(daemon.job(str(source)))


def _written(stem_set: StemSet, media_folder: Path) -> StemInput:
    """Stems in memory as 32-bit float WAV; the same stems are the same files."""
    stems = dict(stem_set.stems)
    if stem_set.residual.samples.any():
        stems["residual"] = stem_set.residual
    digest = hashlib.sha256()
    for name, audio in stems.items():
        digest.update(f"{name} {audio.sample_rate} {audio.samples.shape}".encode())
        digest.update(audio.samples.tobytes())
    folder = media_folder / "stems" / digest.hexdigest()[:16]
    files = {name: folder / f"{safe_component(name)}.wav" for name in stems}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            if not path.exists():
                part = path.with_suffix(".part")
                soundfile.write(part, stems[name].samples.T, stems[name].sample_rate, "FLOAT", format="WAV")
                part.replace(path)
    except (OSError, soundfile.SoundFileError) as exc:
        raise OutputError(f"can't write {folder}: {exc}", hint="Free some space, or allow writing there.") from exc
    return StemInput(
        stems=_stem_files(files), title="stems", model=stem_set.model, gain_db=stem_set.gain_db, origin=str(folder)
    )


def _stems_of_folder(path: Path) -> StemInput:
    manifest_path = path / "manifest.json" if path.is_dir() else path
    folder = manifest_path.parent
    manifest = find_manifest(manifest_path)
    if manifest is not None:
        kept = [file for file in manifest.files if file.role == "stem"]
        files = {file.stem: (folder / file.path).absolute() for file in kept}
        return StemInput(
            stems=_stem_files(files, {file.stem: file.sha256 for file in kept}),
            title=Path(manifest.source.path).stem,
            model=manifest.model.name,
            gain_db=manifest.gain_db,
            origin=manifest.source.path,
        )
    files = {file.stem: file.absolute() for file in sorted(folder.iterdir()) if file.suffix.lower() in AUDIO_SUFFIXES}
    if not files or not path.is_dir():
        raise RequestError(f"{path}: no stems there", hint="Name a job, a folder of stems, or a manifest.json.")
    return StemInput(stems=_stem_files(files), title=folder.absolute().name, origin=str(folder.absolute()))


def _stem_files(files: Mapping[str, Path], digests: Mapping[str, str] | None = None) -> list[StemFile]:
    if len(set(files.values())) < len(files):
        raise bridge_error("daw.plan", "the stems are streams of one file: DAWs need a file for each (`-f wav`)")
    stems: list[StemFile] = []
    for name, path in files.items():
        info = read_info(path)
        stems.append(
            StemFile(
                stem=name,
                path=path,
                channels=info.channels,
                frames=info.frames,
                sample_rate=info.sample_rate,
                sha256=(digests or {}).get(name) or sha256_file(path),
            )
        )
    if len({(stem.frames, stem.sample_rate) for stem in stems}) > 1:
        raise bridge_error("daw.plan", "the files differ in length or rate: they are not stems of one song")
    return stems
