"""The content store as one job sees it: its result, its journal, its temporary files. A store at fault is no error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import msgspec

from revithion_stems.events import CancelToken, EventStream
from revithion_stems.journal import SegmentJournal
from revithion_stems.manifest import Manifest, ManifestSource, decode_manifest
from revithion_stems.sinks import Sink
from revithion_stems.store import ContentStore
from revithion_stems.work_folders import Work


class JobStore:
    """What is kept for one job. One thread at a time.

    Args:
        contents: The store.
        key: Of the job.
        events: Gets the notices.
        cancel: Ends the wait for another process.
        force_refresh: Whether to pass over what is there.
    """

    def __init__(
        self, contents: ContentStore, key: str, events: EventStream, cancel: CancelToken, *, force_refresh: bool
    ) -> None:
        self._contents = contents
        self.key = key
        self._events = events
        self._cancel = cancel
        self._force_refresh = force_refresh
        self._held = contextlib.ExitStack()
        self._work: Work | None = None

    @property
    def note_temporary(self) -> Callable[[Path], None] | None:
        """Remembers temporary files for the next attempt, if this one is killed; None where nothing can be kept."""
        return self._work.note_temporary if self._work is not None else None

    def restore(self, sink: Sink, source: ManifestSource) -> Manifest | None:
        """Delivers the stored result into ``sink``, if there is one; a damaged one is removed."""
        found = None if self._force_refresh else self._contents.result(self.key)
        if found is None:
            return None
        try:
            manifest = sink.restore(msgspec.structs.replace(decode_manifest(found[0]), source=source), found[1])
        except (ValueError, KeyError):
            manifest = None
        if manifest is None:
            self._events.notice("cache.damaged", "the stored result is damaged: computing it again")
            self._contents.drop_result(self.key)
        elif self._work is None:
            self._contents.discard_work(self.key)  # of an attempt that was killed after it had delivered
        else:
            self._work.finish()
        return manifest

    def hold(self) -> SegmentJournal | None:
        """Waits until no other process is at this job; returns its journal, None where none can be kept."""

        def on_wait() -> None:
            self._events.notice("job.waiting", "waiting for another process that separates the same song")

        with self._store_errors():
            self._work = self._held.enter_context(
                self._contents.work(self.key, on_wait=on_wait, check=self._cancel.raise_if_cancelled)
            )
            if self._force_refresh:
                self._contents.drop_result(self.key)  # or the next attempt would take it, if this one is killed
            journal = self._work.journal(fresh=self._force_refresh)
            self._held.callback(journal.close)
            return journal
        return None

    def keep(self, manifest: Manifest, files: Iterable[Path]) -> None:
        """Puts copies of the stems into the store; the original is not kept."""
        stems = [file for file in manifest.files if file.role == "stem"]
        with self._store_errors():
            self._contents.put_result(self.key, msgspec.structs.replace(manifest, files=stems).encode(), files)

    def drop_journal(self) -> None:
        """Forgets what networks gave."""
        if self._work is not None:
            self._work.drop_journal()

    def finish(self) -> None:
        """Nobody needs the journal any more."""
        if self._work is not None:
            self._work.finish()

    def close(self) -> None:
        """Lets go of what is held; closing twice is harmless."""
        self._held.close()

    @contextlib.contextmanager
    def _store_errors(self) -> Generator[None]:
        try:
            yield
        except OSError as exc:
            self._events.notice(
                "cache.unusable",
                f"going on without the cache: {self._contents.root}: {exc.strerror or exc} "
                "(REVITHION_CACHE_DIR names another folder)",
            )
