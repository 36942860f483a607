"""What must be known of a source before it is separated: found by one pass over it, or remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from revithion_stems.audio import AudioBuffer
from revithion_stems.audio_scan import ScanResult, scan
from revithion_stems.digests import sha256_file
from revithion_stems.errors import InputError
from revithion_stems.events import CancelToken
from revithion_stems.fingerprint import READERS, library_versions
from revithion_stems.store import ContentStore

_LAYOUT = 1


class SourceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts about one source.

    Attributes:
        scan: Length, levels, digest of the decoded audio.
        sample_rate: Hz.
        file_sha256: Of the file's bytes; None for audio in memory.
        file_bytes: Its size; 0 for audio in memory.
        tags_sha256: Digest of its tags; None for audio in memory.
        marked_stem: The stem that the file says it is, or None.
        shortfall: One line if less came out of a lossy file than it announces, or None.
        made_by: Layout of this record and versions of the decoders.
    """

    scan: ScanResult
    sample_rate: int
    file_sha256: str | None = None
    file_bytes: int = 0
    tags_sha256: str | None = None
    marked_stem: str | None = None
    shortfall: str | None = None
    made_by: dict[str, str] = {}


def buffer_facts(source: AudioBuffer, cancel: CancelToken) -> SourceFacts:
    """Facts about audio in memory."""
    found = scan(source.blocks(), channels=source.channels, sample_rate=source.sample_rate, cancel=cancel)
    return SourceFacts(scan=found, sample_rate=source.sample_rate)


def file_facts(
    path: Path, store: ContentStore, cancel: CancelToken, before_scan: Callable[[int, int], None]
) -> SourceFacts:
    """Facts about a file; decodes it only if its content was not seen before.

    Args:
        path: The file.
        store: Remembers facts by the digest of the file's bytes.
        cancel: Looked at between blocks.
        before_scan: Called with channels and rate before a file is decoded; raising from it prevents that.

    Raises:
        InputError: The file is unusable, or is being changed.
    """
    from revithion_stems.audio_files import AudioReader

    if not path.is_file():
        AudioReader(path).close()  # tells what is wrong with it
    try:
        before = path.stat()
        digest = sha256_file(path, cancel)
    except OSError:
        AudioReader(path).close()
        raise
    made_by = {"layout": str(_LAYOUT), **library_versions(READERS)}
    known = store.facts(digest)
    if known is not None:
        try:
            facts = msgspec.json.decode(known, type=SourceFacts)
        except msgspec.DecodeError:
            facts = None
        if facts is not None and facts.made_by == made_by and facts.file_sha256 == digest:
            return facts
    from revithion_stems.tags import digest as tags_digest
    from revithion_stems.tags import read_tags, stem_of

    with AudioReader(path) as reader:
        channels, sample_rate = reader.info.channels, reader.info.sample_rate
        before_scan(channels, sample_rate)
        found = scan(reader.blocks(), channels=channels, sample_rate=sample_rate, cancel=cancel)
        shortfall = reader.shortfall(found.frames)
    tags = read_tags(path)
    after = path.stat()
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise changed_error(str(path))
    facts = SourceFacts(
        scan=found,
        sample_rate=sample_rate,
        file_sha256=digest,
        file_bytes=after.st_size,
        tags_sha256=tags_digest(tags),
        marked_stem=stem_of(tags),
        shortfall=shortfall,
        made_by=made_by,
    )
    store.put_facts(digest, msgspec.json.encode(facts))
    return facts


def changed_error(name: str) -> InputError:
    """The error for a source that is not the same all the time."""
    return InputError(
        f"{name} changed while it was read",
        hint="Wait until the program that writes it has finished, and run the command again.",
        code="input.changed",
    )
