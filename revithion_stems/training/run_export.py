"""From the folder of a training run to a file with a card."""

from __future__ import annotations

from pathlib import Path

from revithion_stems.catalog import Quality
from revithion_stems.errors import ModelError
from revithion_stems.models import architectures
from revithion_stems.training.checkpoints import BEST, LAST, Checkpoint, load_checkpoint
from revithion_stems.training.exporting import Exported, ExportForm, Made, export_network
from revithion_stems.training.model_card import cell
from revithion_stems.units import format_duration


def export_run(
    run_folder: Path,
    folder: Path,
    *,
    form: ExportForm = ExportForm.SAFETENSORS,
    name: str | None = None,
    licence: str | None = None,
    half: bool = False,
    last: bool = False,
) -> Exported:
    """Writes the network of a run, the running mean of its weights, as :func:`export_network` does.

    Args:
        run_folder: Where the run was.
        folder: Where to.
        form: Kind of file.
        name: Of the files; None for the one in the run's configuration.
        licence: What its maker grants.
        half: ONNX: keep large weights in 16 bits.
        last: Take the newest checkpoint, even if an earlier one did better in validation.

    Raises:
        ModelError: There is no such checkpoint, or it is damaged.
        RequestError, OutputError: As :func:`export_network`.
    """
    candidates = [LAST] if last else [BEST, LAST]  # without validation there is no best one
    path = next((run_folder / file for file in candidates if (run_folder / file).is_file()), None)
    if path is None:
        raise ModelError(
            f"{run_folder} has no checkpoint ({' or '.join(candidates)})",
            hint="Name the folder that `revithion-stems train` wrote to, after its first checkpoint.",
            code="model.missing",
        )
    checkpoint = load_checkpoint(path)
    config = checkpoint.config
    network = architectures.build(config.architecture, checkpoint.options)
    try:
        network.load_state_dict(checkpoint.mean)
    except RuntimeError as exc:
        raise ModelError(
            f"{path} is not of the network that it names: {str(exc).splitlines()[0]}",
            hint="Export with the version of this program that trained it.",
            code="model.unreadable",
        ) from exc
    made = Made(
        title=f"{config.architecture} network of the training {config.name}",
        origins=checkpoint.origins,
        quality=_quality(checkpoint),
        provenance=_provenance(checkpoint, path.name),
        notes=_songs(checkpoint),
    )
    return export_network(network, made, folder, name=name or config.name, form=form, licence=licence, half=half)


def _quality(checkpoint: Checkpoint) -> tuple[Quality, ...]:
    figures = checkpoint.progress.sdr_db
    if not figures:
        return ()
    mean = sum(figures.values()) / len(figures)
    data = ", ".join(str(item.path.name) for item in checkpoint.config.validation_data)
    songs = len(checkpoint.progress.songs)
    return (
        Quality(
            dataset=f"{songs} {'song' if songs == 1 else 'songs'} of {data}" if songs else data,
            metric="whole-file SDR, mean over songs",
            sdr_db={**figures, "mean": mean},
            source="the last validation of the training",
        ),
    )


def _songs(checkpoint: Checkpoint) -> str:
    songs, stems = checkpoint.progress.songs, list(checkpoint.progress.sdr_db)
    if not songs:
        return ""
    lines = [f"| song | {' | '.join(stems)} |", "|---" * (len(stems) + 1) + "|"]
    for song, figures in songs.items():
        cells = [f"{figures[stem]:.2f}" if stem in figures else "–" for stem in stems]
        lines.append(f"| {cell(song)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _provenance(checkpoint: Checkpoint, file: str) -> dict[str, str]:
    progress, config = checkpoint.progress, checkpoint.config
    said = {
        "seed": str(config.seed),
        "steps": f"{progress.step} of {config.steps}",
        "time": f"{format_duration(progress.seconds)} on {config.device}",
        "checkpoint": f"{file}, running mean of the weights",
        "commit": checkpoint.commit or "not of a checkout",
    }
    if config.initial is not None:
        said["began with"] = config.initial.name
    return said
