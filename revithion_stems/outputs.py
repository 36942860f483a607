"""Where stems are written: folder, template and format, and which file each stem of a source becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from revithion_stems.errors import OutputError
from revithion_stems.output_format import OutputFormat
from revithion_stems.paths import jailed, render_template

DEFAULT_TEMPLATE = "{track}/{stem}.{ext}"
_ONE_FILE_TEMPLATE = "{track}.{ext}"
"""Instead of the default where one file holds all stems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where and how stems are written.

    Attributes:
        folder: All files stay inside it.
        template: Path below it; fields ``{track} {stem} {model} {ext} {source_ext}``.
        format: Container and bit depth.
        archive_mix: Whether a copy of the source is put beside its stems.
        keep: Files that must not be overwritten, besides the source itself: the other sources of the same run.
    """

    folder: Path = field(default_factory=Path)
    template: str = DEFAULT_TEMPLATE
    format: OutputFormat = field(default_factory=OutputFormat)
    archive_mix: bool = False
    keep: tuple[Path, ...] = ()

    def paths(self, source: Path, names: Sequence[str], model: str) -> OutputPaths:
        """Where the files of one source go.

        Raises:
            RequestError: The template has an unknown field or leaves the folder.
            OutputError: Two files, or a file and a source, would be the same.
        """
        one_file = self.format.tracks_per_file > 1
        template = _ONE_FILE_TEMPLATE if one_file and self.template == DEFAULT_TEMPLATE else self.template
        taken: list[Path] = []

        def place(path: Path) -> Path:
            if path in taken or any(_same_file(path, other) for other in (source, *self.keep)):
                raise OutputError(
                    f"{path} would be written twice, or over a source",
                    hint="Use a --template with {stem} in it, or another folder with -o.",
                    code="output.collision",
                )
            taken.append(path)
            return path

        def render(stem: str, ext: str) -> Path:
            fields = {
                "track": source.stem,
                "stem": stem,
                "model": model,
                "ext": ext,
                "source_ext": source.suffix.lstrip("."),
            }
            return place(jailed(self.folder, render_template(template, fields)))

        def beside(name: str, ext: str) -> Path:
            """A file that is no stem: where a stem of that name would be, or named after the only file there is."""
            if "{stem}" in template:
                return render(name, ext)
            only = taken[0]
            return place(only.with_name(f"{only.name.removesuffix(f'.{container}')}.{name}.{ext}"))

        container = self.format.container.value
        if one_file:
            stems = dict.fromkeys(names, render("stems", container))
        else:
            stems = {name: render(name, container) for name in names}
        return OutputPaths(
            stems=stems,
            manifest=beside("manifest", "json"),
            mix=beside("mix", source.suffix.lstrip(".") or "audio") if self.archive_mix else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPaths:
    """Where the files of one source go.

    Attributes:
        stems: Stem → final path; the same one for all where one file holds them.
        manifest: Of the manifest.
        mix: Of the copy of the source, or None.
    """

    stems: dict[str, Path]
    manifest: Path
    mix: Path | None


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
