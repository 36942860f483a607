"""``revithion-stems export``: stems of a job into project files of DAWs, which need not run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from revithion_bridge.cli.job_ids import complete_ids
from revithion_stems.cli.console import json_option, print_json, printable

if TYPE_CHECKING:
    from revithion_bridge.daw.bus_plan import Tempo
    from revithion_bridge.daw.import_report import ImportReport
    from revithion_bridge.messages import JobInfo

_KINDS = ("dawproject", "rpp", "ardour", "folder", "stem.mp4")

_EXAMPLES = """Examples:

\b
  revithion-stems export --to dawproject job-7f3a
      TITLE.dawproject in this folder, for Bitwig Studio, Studio One, Cubase
  revithion-stems export --to rpp stems/song -o album.rpp
      into a project that is there; again, it replaces what it put there
  revithion-stems export --to ardour job-7f3a -o ~/sessions/Album
  revithion-stems export --to folder stems/song/manifest.json --align-to "bar 9" --tempo 96
  revithion-stems export --to stem.mp4 stems/song
"""


def _complete_presets(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of presets that begin with ``incomplete``, for the shell."""
    from revithion_bridge.daw.plan_presets import list_presets

    return [name for name in list_presets() if name.startswith(incomplete)]


@click.command(epilog=_EXAMPLES)
@click.argument("job", metavar="JOB", shell_complete=complete_ids)
@click.option("--to", "kind", type=click.Choice(_KINDS), required=True, help="What to write.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PATH", help="[default: TITLE here]")
@click.option(
    "--preset", metavar="NAME|FILE", shell_complete=_complete_presets, help="Plan of tracks and buses, or a TOML file."
)
@click.option("--align-to", default="project_start", show_default=True, help='Where: 12.5, 1:02.5, "bar 9", "beat 16".')
@click.option("--tempo", "bpm", type=click.FloatRange(min=1, max=999), help="By which bars and beats are counted.")
@click.option("--time-signature", metavar="N/M", help="The same.  [default: the project's, or 120 in 4/4]")
@click.option("-y", "--overwrite", is_flag=True, help="Replace a folder or .stem.mp4 that is there.")
@json_option
def export_command(
    job: str,
    kind: str,
    output: Path | None,
    preset: str | None,
    align_to: str,
    bpm: float | None,
    time_signature: str | None,
    overwrite: bool,
    json_mode: bool,
) -> int:
    """Write the stems of JOB into a project of a DAW.

    JOB is a job of the daemon (the beginning of its id is enough), a folder of stems, or a manifest.json. A project
    that is there keeps everything that is not ours, and what stood there before stays beside it as NAME.bak.
    """
    tempo = _tempo(bpm, time_signature)

    from revithion_bridge.daw.file_session import FileSession
    from revithion_bridge.daw.stem_inputs import find_stems
    from revithion_bridge.daw_files.project_files import WRITERS
    from revithion_stems.errors import OutputError
    from revithion_stems.paths import safe_component

    stems = _find(job)
    path = output
    if path is None:
        path = Path(safe_component(find_stems(stems, Path()).title) + (WRITERS[kind].suffix or " for DAWs"))
    if path.exists() and not WRITERS[kind].merges and not overwrite:
        raise OutputError(
            f"{path} exists", hint="Add --overwrite, or choose another path with -o.", code="output.collision"
        )
    session = FileSession(path, writer=kind, tempo=tempo)
    report = session.import_stems(stems, plan=preset, align_to=align_to)
    if json_mode:
        print_json({"type": "Export", "to": kind, **_as_dict(report)})
    else:
        _print_report(report)
    return 0


def _find(job: str) -> JobInfo | Path:
    """A folder or a manifest where it is one, else a job of the daemon."""
    path = Path(job)
    if path.is_dir() or path.suffix == ".json":
        return path
    from revithion_bridge.cli.job_ids import find_job, open_client

    with open_client() as client:
        return find_job(client, job)


def _tempo(bpm: float | None, time_signature: str | None) -> Tempo | None:
    from revithion_bridge.daw.bus_plan import Tempo

    if bpm is None and time_signature is None:
        return None
    found = re.fullmatch(r"([1-9]\d?)/(1|2|4|8|16|32)", time_signature or "4/4")
    if found is None:
        raise click.UsageError(f"--time-signature: {time_signature!r} is not like 4/4 or 7/8.")
    return Tempo(bpm=bpm if bpm is not None else 120.0, numerator=int(found[1]), denominator=int(found[2]))


def _as_dict(report: ImportReport) -> dict[str, Any]:
    strips = [
        {"role": strip.role, "key": strip.key, "name": strip.name, "outcome": strip.outcome.value}
        for strip in report.strips
    ]
    return {"path": report.target, "changed": report.changed, "strips": strips}


def _print_report(report: ImportReport) -> None:
    click.echo(printable(report.target))
    for strip in report.strips:
        click.echo(f"  {strip.role:5}  {printable(strip.name)}  {strip.outcome.value}")
