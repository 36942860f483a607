"""Multitracks rendered from MIDI files with soundfonts, by the program ``fluidsynth``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from revithion_stems.audio import Float32
from revithion_stems.audio_files import read_audio
from revithion_stems.errors import EngineError, InputError, RequestError
from revithion_stems.output_errors import output_errors
from revithion_stems.paths import safe_component
from revithion_stems.training.datasets.dataset_file import DatasetFile, publish_song, write_dataset_file
from revithion_stems.training.datasets.dataset_progress import DatasetProgress, ProgressCallback
from revithion_stems.training.datasets.drum_kit import read_drum_kit
from revithion_stems.training.datasets.midi_score import MidiScore, read_score

_PROGRAM = "fluidsynth"
_TIMEOUT_S = 900.0
_PEAK = 0.9
_TRANSPOSITION = 3  # semitones up and down: more makes soundfonts sound like toys
_TEMPO_CHANGE = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How one song is rendered; all of it follows from the seed and the song's number.

    Attributes:
        name: Of the song's folder.
        midi: The score.
        soundfont: The instruments.
        drum_kit: ``drumkit.xml`` of the kit that plays the drum channel instead, or None.
        transpose: Semitones up.
        tempo: Ratio.
        room: Whether the synthesiser's reverb and chorus are on.
    """

    name: str
    midi: Path
    soundfont: Path
    drum_kit: Path | None
    transpose: int
    tempo: float
    room: bool


def render_midi(
    paths: Sequence[Path],
    soundfonts: Sequence[Path],
    destination: Path,
    *,
    seed: int,
    songs: int | None = None,
    sample_rate: int = 44_100,
    drum_kits: Sequence[Path] = (),
    licence: str = "not stated",
    commercial_use: bool = False,
    on_progress: ProgressCallback | None = None,
) -> None:
    """Makes a folder of multitracks, FLAC of 16 bits, that :func:`open_folder` opens. Songs that are there are kept.

    Each stem is synthesised by itself; levels between stems are the score's, and one gain for all of them brings the
    mix to −0.9 dBFS. Scores that can't be used are passed over with a notice.

    Args:
        paths: MIDI files.
        soundfonts: SF2 or SF3 files; one is drawn for each song.
        destination: The dataset's folder.
        seed: Of what is drawn: soundfont, drums, transposition, tempo, room.
        songs: How many to render; with more than there are files, each is rendered several times, in different ways.
            None for one of each.
        sample_rate: Hz.
        drum_kits: ``drumkit.xml`` files of Hydrogen; with some, half of the songs get one of them as their drums.
        licence: Of scores, soundfonts and kits together, for ``dataset.toml``.
        commercial_use: Whether all of them allow it.
        on_progress: Called for each song, on the calling thread.

    Raises:
        RequestError: No MIDI files or soundfonts.
        EngineError: fluidsynth is not installed, or failed.
        InputError: None of the scores can be used, or a soundfont or kit can't.
        OutputError: The folder can't be written.
    """
    if not paths or not soundfonts:
        raise RequestError(
            "rendering needs at least one MIDI file and one soundfont",
            hint="Free ones: the packages fluid-soundfont-gm and openttd-openmsx of Debian.",
            code="request.midi",
        )
    for file in (*paths, *soundfonts, *drum_kits):
        if not file.is_file():
            raise InputError(f"{file} does not exist", hint="Check the spelling and the folder.", code="input.missing")
    plans = plan_renderings(paths, soundfonts, drum_kits, seed=seed, songs=songs)
    write_dataset_file(
        destination,
        DatasetFile(
            name=destination.resolve().name,
            licence=licence,
            commercial_use=commercial_use,
            labels="rendered",
            notes=f"MIDI rendered with {', '.join(sorted({font.name for font in soundfonts}))}; seed {seed}",
        ),
    )
    usable = 0
    notice = None
    for done, plan in enumerate(plans, 1):
        notice = None
        if not (destination / plan.name).is_dir():
            try:
                score = read_score(plan.midi)
            except InputError as exc:
                notice = exc.message
            else:
                _render(plan, score, destination, sample_rate)
        usable += notice is None
        if on_progress is not None:
            on_progress(
                DatasetProgress(
                    dataset=destination.resolve().name, song=plan.name, done=done, total=len(plans), notice=notice
                )
            )
    if usable == 0:
        raise InputError(f"no MIDI file can be used: {notice}", hint="Name others.", code="input.midi")


def plan_renderings(
    paths: Sequence[Path],
    soundfonts: Sequence[Path],
    drum_kits: Sequence[Path] = (),
    *,
    seed: int,
    songs: int | None = None,
) -> tuple[Rendering, ...]:
    """What :func:`render_midi` will render; pure. The first songs stay the same when more are asked for."""
    plans: list[Rendering] = []
    for number in range(len(paths) if songs is None else songs):
        rng = np.random.default_rng((seed, number))
        midi = paths[number % len(paths)]
        soundfont = soundfonts[int(rng.integers(len(soundfonts)))]
        kit = drum_kits[int(rng.integers(len(drum_kits)))] if drum_kits and rng.random() < 0.5 else None
        plans.append(
            Rendering(
                name=safe_component(f"{number:04d} {midi.stem} {kit.parent.name if kit else soundfont.stem}"),
                midi=midi,
                soundfont=soundfont,
                drum_kit=kit,
                transpose=int(rng.integers(-_TRANSPOSITION, _TRANSPOSITION + 1)),
                tempo=float(rng.uniform(1 - _TEMPO_CHANGE, 1 + _TEMPO_CHANGE)),
                room=bool(rng.random() < 0.5),
            )
        )
    return tuple(plans)


def _render(plan: Rendering, score: MidiScore, destination: Path, sample_rate: int) -> None:
    with output_errors(destination):
        work = Path(tempfile.mkdtemp(prefix=".rendering-", dir=destination))
    try:
        stems: dict[str, Float32] = {}
        for stem in score.stems:
            midi, wav = work / f"{stem}.mid", work / f"{stem}.wav"
            with output_errors(midi):
                score.write(midi, stem, transpose=plan.transpose, tempo=plan.tempo)
            _synthesise(midi, wav, plan, work, sample_rate)
            stems[stem] = read_audio(wav).samples
        if plan.drum_kit is not None and (hits := score.hits(tempo=plan.tempo)):
            kit = read_drum_kit(plan.drum_kit, sample_rate)
            if (played := kit.play(hits)) is not None:
                loudness = float(np.sqrt(np.mean(np.square(stems["drums"])))) if "drums" in stems else 0.0
                own = float(np.sqrt(np.mean(np.square(played))))
                stems["drums"] = played * np.float32(loudness / own) if own > 0 else played
        folder = work / "song"
        with output_errors(folder):
            folder.mkdir()
            gain = _gain(stems)
            for stem, samples in stems.items():
                soundfile.write(folder / f"{stem}.flac", (samples * gain).T, sample_rate, subtype="PCM_16")
        publish_song(folder, destination / plan.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _gain(stems: dict[str, Float32]) -> np.float32:
    """What brings the mix, and every stem, below full scale."""
    mix = np.zeros((2, max(samples.shape[1] for samples in stems.values())), np.float32)
    for samples in stems.values():
        mix[:, : samples.shape[1]] += samples
    peak = max(float(np.abs(samples).max()) for samples in (mix, *stems.values()))
    return np.float32(_PEAK / peak) if peak > 0 else np.float32(1)


def _synthesise(midi: Path, wav: Path, plan: Rendering, work: Path, sample_rate: int) -> None:
    program = shutil.which(_PROGRAM)
    if program is None:
        raise EngineError(
            f"the program {_PROGRAM} is not installed, which renders MIDI",
            hint="Install it: `apt install fluidsynth`, `brew install fluid-synth`, or from fluidsynth.org.",
            code="engine.missing",
        )
    settings = work / "settings"
    settings.touch()  # instead of the user's own, which would make the result depend on the machine
    room = "1" if plan.room else "0"
    # fmt: off
    command = [
        program, "-n", "-i", "-q", "-f", str(settings), "-r", str(sample_rate), "-R", room, "-C", room,
        "-o", "synth.cpu-cores=1", "-T", "wav", "-O", "float", "-F", str(wav),
        str(plan.soundfont.absolute()), str(midi),
    ]
    # fmt: on
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise EngineError(
            f"{_PROGRAM} failed on {plan.midi}: {exc}", hint="Take the file out of the list.", code="engine.failed"
        ) from exc
    if done.returncode != 0 or not wav.is_file() or wav.stat().st_size == 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EngineError(
            f"{_PROGRAM} failed on {plan.midi} with {plan.soundfont.name}: {said[-1] if said else 'no reason given'}",
            hint="Try the soundfont with another program; it may be damaged.",
            code="engine.failed",
        )
