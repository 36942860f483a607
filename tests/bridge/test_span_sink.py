"""Spans: the beginning of the stems, early; the stems themselves do not notice."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from revithion_bridge.span_sink import SpanSink
from revithion_stems import OutputOptions, SeparationRequest
from revithion_stems.errors import Cancelled
from revithion_stems.events import CancelToken
from revithion_stems.file_sink import FileSink
from revithion_stems.output_format import Container, OutputFormat
from revithion_stems.runner import StagedSeparation
from revithion_stems.store import ContentStore

RATE = 8_000


class Heard:
    """What was announced, and whether its files were there at that moment."""

    def __init__(self) -> None:
        self.spans: dict[str, list[tuple[Path, int, int]]] = {}
        self.lost: list[str] = []

    def span(self, stem: str, path: Path, start_frame: int, frames: int, sample_rate: int) -> None:
        info = soundfile.info(path)
        assert (info.frames, info.samplerate, info.subtype) == (frames, sample_rate, "FLOAT")
        assert not [other for other in path.parent.iterdir() if other.name.startswith(".")]
        self.spans.setdefault(stem, []).append((path, start_frame, frames))

    def samples(self, stem: str) -> np.ndarray:
        return np.concatenate(
            [soundfile.read(path, dtype="float32", always_2d=True)[0] for path, *_ in self.spans[stem]]
        )


def write_song(path: Path, frames: int, channels: int) -> Path:
    noise = np.random.default_rng(frames).normal(0, 0.1, (frames, channels)).astype(np.float32)
    soundfile.write(path, noise, RATE, "FLOAT")
    return path


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".json"
    }


def separate(
    tmp_path: Path,
    song: Path,
    name: str,
    *,
    span_s: float | None,
    format_: OutputFormat | None = None,
    **fields: object,
) -> tuple[Path, Heard]:
    """Into a folder of that name; no run sees what another one kept."""
    request = SeparationRequest(source=song, model="dsp", segment_s=0.5, **fields)
    folder, heard = tmp_path / name, Heard()
    sink = FileSink(request, OutputOptions(folder=folder, format=format_ or OutputFormat()))
    wrapped = sink
    if span_s is not None:
        wrapped = SpanSink(
            sink, tmp_path / f"{name}-spans", span_s=span_s, on_span=heard.span, on_lost=heard.lost.append
        )
    StagedSeparation(request, wrapped, contents=ContentStore(tmp_path / f"{name}-cache")).run()
    return folder, heard


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2_399, 2_400, 2_401, 12_345])
def test_spans_are_the_stems_and_the_stems_do_not_change(tmp_path: Path, frames: int, channels: int) -> None:
    song = write_song(tmp_path / "song.wav", frames, channels)
    plain, _ = separate(tmp_path, song, "plain", span_s=None)
    with_spans, heard = separate(tmp_path, song, "out", span_s=0.3)
    assert digests(with_spans) == digests(plain)
    assert list(heard.spans) == ["drums", "bass", "other", "vocals"]
    for stem, spans in heard.spans.items():
        final, _ = soundfile.read(with_spans / "song" / f"{stem}.wav", dtype="float32", always_2d=True)
        np.testing.assert_array_equal(heard.samples(stem), final)
        assert [path.name for path, *_ in spans] == [f"{n:05d}-{stem}.wav" for n in range(-(-frames // 2400))]
        assert [start for _, start, _ in spans] == list(range(0, frames, 2400))
        assert {count for *_, count in spans[:-1]} <= {2400}
    assert heard.lost == []


@pytest.mark.parametrize(
    "fields",
    [{"two_stems": "vocals"}, {"stems": ("bass",)}, {"residual": "stem"}, {"residual": "exact"}],
    ids=lambda fields: next(iter(fields)),
)
def test_whatever_is_delivered_has_spans(tmp_path: Path, fields: dict[str, object]) -> None:
    song = write_song(tmp_path / "song.wav", 9_001, 2)
    out, heard = separate(tmp_path, song, "out", span_s=0.25, **fields)
    files = {path.stem: path for path in out.rglob("*.wav")}
    assert heard.spans.keys() == files.keys()
    for stem, path in files.items():
        np.testing.assert_array_equal(heard.samples(stem), soundfile.read(path, dtype="float32", always_2d=True)[0])


def test_spans_come_while_the_job_runs_and_are_whole_in_other_formats_too(tmp_path: Path) -> None:
    """The files of FLAC are only encoded at the end; the spans are not theirs, and are there before."""
    song = write_song(tmp_path / "song.wav", 5 * RATE, 2)
    flac = OutputFormat(container=Container.FLAC)
    seen: list[bool] = []

    class Early(Heard):
        def span(self, *args: object) -> None:
            super().span(*args)
            seen.append(bool(list(tmp_path.glob("out/song/*.flac"))))

    plain, _ = separate(tmp_path, song, "plain", span_s=None, format_=flac)
    request = SeparationRequest(source=song, model="dsp", segment_s=0.5)
    heard = Early()
    sink = SpanSink(
        FileSink(request, OutputOptions(folder=tmp_path / "out", format=flac)),
        tmp_path / "spans",
        span_s=1.0,
        on_span=heard.span,
        on_lost=heard.lost.append,
    )
    StagedSeparation(request, sink, contents=ContentStore(tmp_path / "cache")).run()
    assert digests(tmp_path / "out") == digests(plain)
    assert seen == [False] * 20
    final = [soundfile.read(path, dtype="float32")[0] for path in sorted(tmp_path.glob("out/song/*.flac"))]
    spans = [heard.samples(stem) for stem in sorted(heard.spans)]
    np.testing.assert_allclose(spans, final, atol=2**-23)


def test_what_the_cache_has_needs_no_spans(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.wav", 9_000, 2)
    separate(tmp_path, song, "out", span_s=0.25)
    _, heard = separate(tmp_path, song, "out", span_s=0.25)
    assert heard.spans == {}


@pytest.mark.parametrize("blocked", ["folder", "file"])
def test_spans_that_can_not_be_written_do_not_stop_the_job(tmp_path: Path, blocked: str) -> None:
    song = write_song(tmp_path / "song.wav", 9_000, 2)
    plain, _ = separate(tmp_path, song, "plain", span_s=None)
    spans = tmp_path / "out-spans"
    if blocked == "folder":
        spans.touch()
    else:
        (spans / "00001-bass.wav").mkdir(parents=True)  # the second span of the second stem can't have its name
    out, heard = separate(tmp_path, song, "out", span_s=0.25)
    assert digests(out) == digests(plain)
    assert len(heard.lost) == 1
    assert str(spans) in heard.lost[0]
    assert {len(found) for found in heard.spans.values()} == ({1} if blocked == "file" else set())
    if blocked == "file":
        assert not [path for path in spans.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a small file system")
def test_a_full_disk_ends_the_spans_only(
    tmp_path: Path, mounted: Callable[[Path, str], AbstractContextManager[Path]]
) -> None:
    song = write_song(tmp_path / "song.wav", 10 * RATE, 2)
    plain, _ = separate(tmp_path, song, "plain", span_s=None)
    with mounted(tmp_path / "out-spans", "size=1m"):
        out, heard = separate(tmp_path, song, "out", span_s=0.5)
        assert [len(found) > 1 for found in heard.spans.values()] == [True] * 4
        assert [heard.samples(stem).shape[0] for stem in heard.spans] == [len(heard.spans["bass"]) * RATE // 2] * 4
    assert digests(out) == digests(plain)
    assert len(heard.lost) == 1
    assert "no space left" in heard.lost[0]


def test_a_stopped_job_leaves_whole_spans_only_and_the_next_attempt_makes_the_same(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.wav", 18 * RATE, 2)
    whole, wanted = separate(tmp_path, song, "whole", span_s=0.7)
    request = SeparationRequest(source=song, model="dsp", segment_s=0.5)
    spans, cancel, heard = tmp_path / "spans", CancelToken(), Heard()
    contents = ContentStore(tmp_path / "cache")

    def attempt(on_span: Callable[..., None]) -> None:
        file_sink = FileSink(request, OutputOptions(folder=tmp_path / "out"))
        sink = SpanSink(file_sink, spans, span_s=0.7, on_span=on_span, on_lost=heard.lost.append)
        StagedSeparation(request, sink, contents=contents, cancel=cancel).run()

    with pytest.raises(Cancelled):
        attempt(lambda *_: cancel.cancel())
    left = sorted(path.name for path in spans.iterdir())
    count = len(left) // 4
    assert left == [f"{n:05d}-{stem}.wav" for n in range(count) for stem in ("bass", "drums", "other", "vocals")]
    assert 0 < count < len(wanted.spans["bass"])
    cancel = CancelToken()
    attempt(heard.span)
    assert digests(tmp_path / "out") == digests(whole)
    assert {stem: [entry[1:] for entry in found] for stem, found in heard.spans.items()} == {
        stem: [entry[1:] for entry in found] for stem, found in wanted.spans.items()
    }
    assert digests(spans) == digests(tmp_path / "whole-spans")
