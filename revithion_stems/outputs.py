"""Where stems are written: folder, template and format, and which file each stem of a source becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from revithion_stems.errors import OutputError
from revithion_stems.output_format import OutputFormat
from revithion_stems.paths import jailed, render_template

DEFAULT_TEMPLATE = "{track}/{stem}.{ext}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where and how stems are written.

    Attributes:
        folder: All files stay inside it.
        template: Path below it; fields ``{track} {stem} {model} {ext} {source_ext}``.
        format: Container and bit depth.
        keep: Files that must not be overwritten, besides the source itself: the other sources of the same run.
    """

    folder: Path = field(default_factory=Path)
    template: str = DEFAULT_TEMPLATE
    format: OutputFormat = field(default_factory=OutputFormat)
    keep: tuple[Path, ...] = ()

    def paths(self, source: Path, names: Iterable[str], model: str) -> dict[str, Path]:
        """Stem → final path for one source.

        Raises:
            RequestError: The template has an unknown field or leaves the folder.
            OutputError: Two stems, or a stem and a source, would be the same file.
        """
        result: dict[str, Path] = {}
        for name in names:
            fields = {
                "track": source.stem,
                "stem": name,
                "model": model,
                "ext": self.format.container.value,
                "source_ext": source.suffix.lstrip("."),
            }
            path = jailed(self.folder, render_template(self.template, fields))
            if path in result.values() or any(_same_file(path, other) for other in (source, *self.keep)):
                raise OutputError(
                    f"{path} would be written twice, or over a source",
                    hint="Use a --template with {stem} in it, or another folder with -o.",
                    code="output.collision",
                )
            result[name] = path
        return result


def _same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
