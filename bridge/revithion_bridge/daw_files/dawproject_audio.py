"""The audio in a DAWproject file: which names it has, what is added, and what nobody plays any more."""

from __future__ import annotations

from pathlib import Path

from revithion_bridge.daw_files.clip_audio import content_digest, write_wav
from revithion_bridge.daw_files.xml_tree import Element
from revithion_stems.paths import safe_component

_FOLDER = "audio"
_AS_IT_IS = (".wav", ".wave", ".bwf", ".aif", ".aiff", ".flac")
"""What every DAW reads in the same way. Decoders differ in the delay of lossy formats, which are decoded here."""

_DIGEST_CHARACTERS = 16
_NAME_CHARACTERS = 40


class AudioEntries:
    """The names under which files stand in a project. A name follows from the content: the same is there only once.

    Args:
        names: Of all that is in the project's ZIP.

    Attributes:
        added: Name → file, for those that are not in it yet.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self._known: dict[str, str] = {}
        self._replaced: set[str] = set()
        self.added: dict[str, Path] = {}

    def name(self, file: str) -> str:
        """The name of a file's content in the project.

        Raises:
            InputError: It can't be read.
        """
        if file not in self._known:
            path = Path(file)
            suffix = path.suffix.lower() if path.suffix.lower() in _AS_IT_IS else ".wav"
            digest = content_digest(path)[:_DIGEST_CHARACTERS]
            name = f"{_FOLDER}/{safe_component(path.stem[:_NAME_CHARACTERS])} {digest}{suffix}"
            self._known[file] = name
            if name not in self._names:
                self.added[name] = path
        return self._known[file]

    def release(self, clips: Element) -> None:
        """Says that clips of ours are taken away; what they play may not be needed any more."""
        self._replaced |= _played(clips)

    def stale(self, root: Element) -> set[str]:
        """The names that only clips used which were taken away."""
        return (self._replaced & self._names) - _played(root)


def read_source(file: Path, scratch: Path) -> Path:
    """The file that is put into the project: ``file``, or what is decoded from it into the folder ``scratch``."""
    if file.suffix.lower() in _AS_IT_IS:
        return file
    decoded = scratch / "decoded.wav"
    write_wav(file, decoded)
    return decoded


def _played(node: Element) -> set[str]:
    return {file.get("path", "") for file in node.iter("File") if file.get("external") != "true"}
