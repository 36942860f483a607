"""Writing: exact samples, exact sums, the same bytes twice, and all files or none."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revithion_stems import BitDepth, Container, OutputFormat, OutputOptions, SeparationRequest
from revithion_stems.api import separate_to_files
from revithion_stems.errors import Cancelled, OutputError, RequestError
from revithion_stems.events import CancelToken, Notice, StemReady
from revithion_stems.file_set import FileSet
from revithion_stems.ogg_pages import SERIAL, checksum, fix_serial, has_end
from revithion_stems.stem_files import StemFiles
from revithion_stems.stems import NullMeter, close_null
from revithion_stems.tags import Tags

WAV = OutputFormat()
FORMATS = [
    OutputFormat(container=Container.WAV, bit_depth=BitDepth.FLOAT32),
    OutputFormat(container=Container.WAV, bit_depth=BitDepth.INT24),
    OutputFormat(container=Container.WAV, bit_depth=BitDepth.INT16),
    OutputFormat(container=Container.FLAC, bit_depth=BitDepth.INT24),
    OutputFormat(container=Container.FLAC, bit_depth=BitDepth.INT16),
]
LOSSY = [OutputFormat(container=Container.MP3), OutputFormat(container=Container.OGG)]


def name_of(output_format: OutputFormat) -> str:
    depth = output_format.bit_depth
    return output_format.container.value + (f"-{depth.value}" if depth else "")


each_format = pytest.mark.parametrize("output_format", FORMATS, ids=name_of)
any_format = pytest.mark.parametrize("output_format", FORMATS + LOSSY, ids=name_of)


def noise(frames=20_000, channels=2, level=0.2, seed=0) -> np.ndarray:
    """Float32 ``[channels, frames]``, low-passed so that lossy formats keep it."""
    samples = np.random.default_rng(seed).standard_normal((channels, frames + 15))
    return (level * sum(samples[:, k : k + frames] for k in range(16)) / 4).astype(np.float32)


def stems_of(source, grid_bits, count=3, seed=1) -> np.ndarray:
    estimates = np.stack([noise(source.shape[1], source.shape[0], 0.05, seed + k) for k in range(count)])
    return close_null(estimates, source, count - 1, grid_bits)[0]


class Writing:
    """A set of stems and its files together, as a sink has them."""

    def __init__(self, paths, *, frames, output_format=WAV, channels=1, sample_rate=44100, fold=None, note=None):
        self.set = FileSet(note)
        self._begin = (frames, lambda stem: Tags())
        layout = {"channels": channels, "sample_rate": sample_rate, "fold": fold}
        try:
            self.files = StemFiles(self.set, paths, output_format=output_format, **layout)
        except BaseException:
            self.set.abort()
            raise

    def __enter__(self):
        self.files.begin(*self._begin)
        return self

    def __exit__(self, *_):
        self.files.close()
        self.set.abort()

    def commit(self, check_cancelled=lambda: None):
        written = self.files.encode(check_cancelled)
        self.files.close()
        self.set.publish()
        return written


def write(folder, stems, output_format, *, rate=44100, fold=None, block=7000):
    names = [f"s{index}" for index in range(len(stems))]
    ext = output_format.container.value
    one_file = output_format.tracks_per_file > 1
    paths = {name: folder / (f"all.{ext}" if one_file else f"{name}.{ext}") for name in names}
    layout = {"channels": stems.shape[1], "sample_rate": rate, "fold": fold, "frames": stems.shape[2]}
    with Writing(paths, output_format=output_format, **layout) as writing:
        for at in range(0, stems.shape[2], block):
            span = stems[..., at : at + block]
            writing.files.write(span, span.sum(axis=0))
        return writing.commit(), writing.files.gain_db


def read(path, dtype="float32"):
    samples, rate = soundfile.read(path, dtype=dtype, always_2d=True)
    return samples.T, rate


def leftovers(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- samples ---


@pytest.mark.parametrize("channels", [1, 2, 8])
@each_format
def test_what_is_on_the_grid_is_read_back_exactly(tmp_path, output_format, channels):
    source = noise(channels=channels, level=0.1)
    stems = stems_of(source, output_format.grid_bits)
    written, gain_db = write(tmp_path / "new" / "folder", stems, output_format, rate=48000, fold=2)
    assert gain_db == 0.0
    for index, stem in enumerate(written):
        samples, rate = read(stem.path)
        assert rate == 48000
        assert np.array_equal(samples, stems[index])
        assert stem.sha256 == hashlib.sha256(stem.path.read_bytes()).hexdigest()
    subtype = {"32f": "FLOAT", "24": "PCM_24", "16": "PCM_16"}[output_format.bit_depth.value]
    assert soundfile.info(written[0].path).subtype == subtype
    assert leftovers(tmp_path) == sorted(["new", "new/folder", *(f"new/folder/{stem.path.name}" for stem in written)])


def separated(tmp_path, samples, subtype, output_format, **parameters):
    source = tmp_path / "song.wav"
    soundfile.write(source, samples.T, 44100, subtype=subtype)
    events = []
    report = separate_to_files(
        SeparationRequest(source=source, model="dsp", **parameters),
        OutputOptions(folder=tmp_path, format=output_format),
        on_event=events.append,
    )
    return report, events


@pytest.mark.parametrize("container", [Container.WAV, Container.FLAC])
@pytest.mark.parametrize("two_stems", [None, "vocals"])
def test_sixteen_bit_stems_of_a_sixteen_bit_source_add_up_as_integers(tmp_path, container, two_stems):
    samples = (np.round(noise(level=0.15) * 2**15) / 2**15).astype(np.float32)
    output_format = OutputFormat(container=container, bit_depth=BitDepth.INT16)
    report, _ = separated(tmp_path, samples, "PCM_16", output_format, two_stems=two_stems)
    source, _ = read(tmp_path / "song.wav", "int16")
    total = sum(read(stem.path, "int16")[0].astype(np.int64) for stem in report.stems)
    assert np.array_equal(total, source)
    assert report.null_db == -np.inf
    assert report.gain_db == 0.0


@pytest.mark.parametrize("container", [Container.WAV, Container.FLAC])
@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_twenty_four_bit_stems_are_within_one_step(tmp_path, container, subtype):
    output_format = OutputFormat(container=container, bit_depth=BitDepth.INT24)
    report, _ = separated(tmp_path, noise(level=0.15), subtype, output_format)
    source, _ = read(tmp_path / "song.wav", "float64")
    total = sum(read(stem.path, "int32")[0].astype(np.int64) >> 8 for stem in report.stems)
    error = np.abs(total - source * 2**23).max()
    assert error == 0 if subtype == "PCM_24" else error <= 0.5


@pytest.mark.parametrize(
    ("low", "high", "gain_halvings"),
    [(-1.0, 1 - 2.0**-15, 0), (-1.0, 1.0, 1), (-1 - 2.0**-15, 0.5, 1), (-1.5, 1.0, 1), (0.0, 1.9, 1), (0.0, 5.0, 3)],
)
@pytest.mark.parametrize("output_format", FORMATS[1:], ids=name_of)
def test_stems_beyond_full_scale_share_one_power_of_two(tmp_path, output_format, low, high, gain_halvings):
    grid_bits = output_format.grid_bits
    source = noise(500, 1)
    stems = stems_of(source, grid_bits)
    stems[0, 0, :2] = low, high
    stems[2] = source - stems[0] - stems[1]
    written, gain_db = write(tmp_path, stems[:2], output_format)  # two that need not add up to anything
    assert gain_db == pytest.approx(-6.0206 * gain_halvings, abs=1e-3)
    for index, stem in enumerate(written):
        scaled = stems[index].astype(np.float64) / 2**gain_halvings
        assert np.abs(read(stem.path, "float64")[0] - scaled).max() <= 2.0**-grid_bits / 2


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), depth=st.sampled_from([BitDepth.INT16, BitDepth.INT24]))
def test_no_integer_wraps_around_whatever_the_peaks(tmp_path_factory, data, depth):
    """A stem just below a power of two, halved, may round up to it; the stem that closes the sum takes even more."""
    output_format = OutputFormat(container=Container.WAV, bit_depth=depth)
    steps = 2**output_format.grid_bits
    near = st.builds(lambda power, off: power * steps + off, st.sampled_from([-4, -2, -1, 1, 2, 4]), st.integers(-3, 3))
    values = data.draw(st.lists(st.lists(near, min_size=3, max_size=3), min_size=2, max_size=2))
    stems = (np.array(values, np.float64).T[:, None, :] / steps).astype(np.float32)
    folder = tmp_path_factory.mktemp("wrap", numbered=True)
    written, gain_db = write(folder, stems, output_format, fold=2)
    gain = 10 ** (gain_db / 20)
    got = np.stack([read(stem.path, "float64")[0] for stem in written])
    assert np.abs(got - stems * gain).max() <= 3 / steps
    assert np.abs(got.sum(axis=0) - stems.sum(axis=0, dtype=np.float64) * gain).max() <= 1 / steps


def test_a_gain_is_said_and_the_sum_stays_exact(tmp_path):
    samples = (np.round(np.clip(noise(level=1.5), -7, 7) * 2**10) / 2**10).astype(np.float32)
    report, events = separated(tmp_path, samples, "FLOAT", OutputFormat(bit_depth=BitDepth.INT16))
    assert report.gain_db < 0
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.code == "output.gain"
    gain = 2.0 ** round(report.gain_db / 6.0206)
    total = sum(read(stem.path, "int16")[0].astype(np.int64) for stem in report.stems)
    assert np.abs(total / 2**15 - samples * gain).max() <= 2.0**-16


def test_float_wav_needs_no_gain(tmp_path):
    samples = noise(level=5)
    report, _ = separated(tmp_path, samples, "FLOAT", OutputFormat())
    assert report.gain_db == 0.0
    total = np.zeros_like(samples)
    for stem in report.stems:
        total = total + read(stem.path)[0]
    assert np.abs(total - samples).max() <= 2.0**-20  # samples of some 20 have a coarser grid
    assert report.null_db is not None
    assert report.null_db < -120


def lag(reference, other) -> int:
    size = 1 << (2 * len(reference)).bit_length()
    place = int(np.argmax(np.fft.irfft(np.fft.rfft(reference, size).conj() * np.fft.rfft(other, size), size)))
    return place if place < size // 2 else place - size


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("output_format", LOSSY, ids=name_of)
def test_lossy_stems_have_no_lag_and_the_same_length(tmp_path, output_format, channels, rate):
    stems = noise(rate + 77, channels)[None]
    written, _ = write(tmp_path, stems, output_format, rate=rate)
    samples, got_rate = read(written[0].path)
    assert got_rate == rate
    assert samples.shape == stems[0].shape
    assert lag(stems[0, 0], samples[0]) == 0
    error = np.square(samples - stems[0]).mean() / np.square(stems[0]).mean()
    assert error < 0.05


@pytest.mark.parametrize("frames", [1, 100])
@any_format
def test_the_shortest_songs(tmp_path, output_format, frames):
    written, _ = write(tmp_path, np.full((1, 2, frames), 0.25, np.float32), output_format)
    assert soundfile.info(written[0].path).frames == frames


# --- invariant 3: the same bytes twice ---


@any_format
def test_same_stems_same_bytes(tmp_path, output_format):
    stems = noise(100_000)[None]
    digests = []
    for folder in ("a", "b"):
        written, _ = write(tmp_path / folder, stems, output_format, block=1000 if folder == "a" else 65_536)
        digests.append([stem.sha256 for stem in written])
    assert digests[0] == digests[1]


def pages(data: bytes):
    at = 0
    while at < len(data):
        segments = data[at + 27 : at + 27 + data[at + 26]]
        length = 27 + len(segments) + sum(segments)
        yield data[at : at + length]
        at += length


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_ogg_page_gets_the_serial_and_its_checksum(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(30_000).T, 48000, format="OGG", subtype=subtype)
    before = path.read_bytes()
    samples, _ = read(path)
    assert has_end(path)
    fix_serial(path)
    after = path.read_bytes()
    assert len(after) == len(before)
    for old, new in zip(pages(before), pages(after), strict=True):
        for page in (old, new):
            assert checksum(page[:22] + bytes(4) + page[26:]) == int.from_bytes(page[22:26], "little")
        assert int.from_bytes(new[14:18], "little") == SERIAL
        assert (old[:14], old[18:22], old[26:]) == (new[:14], new[18:22], new[26:])
    assert np.array_equal(read(path)[0], samples)
    fix_serial(path)
    assert path.read_bytes() == after


def test_ogg_pages_that_are_none(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(3000).T, 48000, format="OGG", subtype="VORBIS")
    data = path.read_bytes()
    path.write_bytes(data + b"no page")
    with pytest.raises(ValueError, match="no Ogg page"):
        fix_serial(path)
    other = path.with_name("b.ogg")
    other.write_bytes(data)
    fix_serial(other)
    path.write_bytes(data + other.read_bytes())
    with pytest.raises(ValueError, match="more than one stream"):
        fix_serial(path)
    path.write_bytes(data[:-1000])
    assert not has_end(path)


# --- formats ---


@pytest.mark.parametrize(
    ("container", "depth", "default"),
    [("wav", None, "32f"), ("flac", None, "24"), ("mp3", None, None), ("ogg", None, None), ("wav", "24", "24")],
)
def test_bit_depths(container, depth, default):
    chosen = OutputFormat(container=Container(container), bit_depth=BitDepth(depth) if depth else None)
    assert (chosen.bit_depth.value if chosen.bit_depth else None) == default


@pytest.mark.parametrize(("container", "depth"), [("flac", "32f"), ("mp3", "16"), ("ogg", "24")])
def test_bit_depths_that_a_container_lacks(container, depth):
    with pytest.raises(RequestError) as caught:
        OutputFormat(container=Container(container), bit_depth=BitDepth(depth))
    assert caught.value.code == "request.bit_depth"


@pytest.mark.parametrize(
    ("container", "channels", "rate", "fits"),
    [
        ("mp3", 2, 48000, True),
        ("mp3", 3, 48000, False),
        ("mp3", 2, 96000, False),
        ("ogg", 8, 192_000, True),
        ("ogg", 2, 192_001, False),
        ("flac", 8, 655_350, True),
        ("flac", 1, 655_360, False),
        ("wav", 8, 768_000, True),
    ],
)
def test_layouts_that_a_container_holds_are_known_before_work_starts(tmp_path, container, channels, rate, fits):
    output_format = OutputFormat(container=Container(container))
    if fits:
        output_format.check_source(channels=channels, sample_rate=rate)
        written, _ = write(tmp_path, noise(500, channels)[None], output_format, rate=rate)
        info = soundfile.info(written[0].path)
        assert (info.channels, info.samplerate) == (channels, rate)
    else:
        with pytest.raises(RequestError) as caught:
            output_format.check_source(channels=channels, sample_rate=rate)
        assert caught.value.code == "request.format"


@pytest.mark.parametrize(
    ("depth", "channels", "frames", "major"),
    [
        ("32f", 2, 499_999_000, "WAV"),
        ("32f", 2, 500_001_000, "RF64"),
        ("24", 2, 660_000_000, "WAV"),
        ("24", 2, 670_000_000, "RF64"),
        ("16", 2, 990_000_000, "WAV"),
        ("16", 8, 251_000_000, "RF64"),
    ],
)
def test_wav_becomes_rf64_before_its_sizes_overflow(depth, channels, frames, major):
    chosen = OutputFormat(bit_depth=BitDepth(depth))
    assert chosen.major_format(frames=frames, channels=channels) == major
    width = {"32f": 4, "24": 3, "16": 2}[depth]
    assert (frames * channels * width + 100 < 2**32) == (major == "WAV") or major == "RF64"
    assert OutputFormat(container=Container.FLAC).major_format(frames=frames, channels=channels) == "FLAC"


def test_rf64_is_written_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("revithion_stems.output_format._RF64_FROM_BYTES", 1000)
    stems = noise()[None]
    written, _ = write(tmp_path, stems, OutputFormat())
    assert soundfile.info(written[0].path).format == "RF64"
    assert np.array_equal(read(written[0].path)[0], stems[0])


# --- invariant 5: all or nothing ---


def test_nothing_is_visible_before_all_of_it_is(tmp_path):
    """A reader that only looks at names that don't begin with a dot sees no file until the first StemReady."""
    soundfile.write(tmp_path / "song.wav", noise(300_000).T, 44100)
    seen = []

    def watch(event):
        visible = [path for path in tmp_path.rglob("*.flac") if not path.name.startswith(".")]
        if isinstance(event, StemReady):
            assert len(visible) == 4
            assert soundfile.info(event.path).frames == event.frames == 300_000
            assert hashlib.sha256(Path(event.path).read_bytes()).hexdigest() == event.sha256
        else:
            seen.append(len(visible))

    separate_to_files(
        SeparationRequest(source=tmp_path / "song.wav", model="dsp", overlap=0.5),
        OutputOptions(folder=tmp_path / "out", format=OutputFormat(container=Container.FLAC)),
        on_event=watch,
    )
    assert set(seen[:-2]) == {0}
    assert not list(tmp_path.rglob("*.part"))


class Stop(Exception):
    """Raised by a test from inside."""


def raise_stop():
    raise Stop


@any_format
def test_stopping_while_encoding_leaves_nothing(tmp_path, output_format):
    paths = {"a": tmp_path / "x" / "y" / "a", "b": tmp_path / "x" / "b"}
    with Writing(paths, output_format=output_format, sample_rate=8000, frames=100) as writing:
        writing.files.write(np.zeros((2, 1, 100), np.float32), np.zeros((1, 100), np.float32))
        assert [path for path in leftovers(tmp_path) if not path.endswith(".part")] == ["x", "x/y"]
        with pytest.raises(Stop):
            writing.commit(raise_stop)
    assert leftovers(tmp_path) == []


def test_stopping_leaves_other_people_s_files_and_folders(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("older")
    paths = {"a": tmp_path / "x" / "a", "b": tmp_path / "new" / "b"}
    with Writing(paths, sample_rate=8000, frames=100) as writing:
        writing.files.write(np.zeros((2, 1, 100), np.float32), np.zeros((1, 100), np.float32))
        (tmp_path / "new" / "theirs").write_text("put there meanwhile")
    assert leftovers(tmp_path) == ["new", "new/theirs", "x", "x/a"]
    assert (tmp_path / "x" / "a").read_text() == "older"


def test_finished_stems_replace_older_ones(tmp_path):
    (tmp_path / "s0.wav").write_text("older")
    write(tmp_path, noise(100)[None], OutputFormat())
    assert soundfile.info(tmp_path / "s0.wav").frames == 100


@pytest.mark.parametrize("at", ["separating", "writing"])
def test_cancelling_leaves_nothing(tmp_path, at):
    soundfile.write(tmp_path / "song.wav", noise(100_000).T, 44100)
    cancel = CancelToken()

    def on_event(event):
        if getattr(getattr(event, "state", None), "value", "") == at:
            cancel.cancel()

    with pytest.raises(Cancelled):
        separate_to_files(
            SeparationRequest(source=tmp_path / "song.wav", model="dsp"),
            OutputOptions(folder=tmp_path / "a" / "b"),
            on_event=on_event,
            cancel=cancel,
        )
    assert leftovers(tmp_path) == ["song.wav"]


def test_a_name_that_is_taken_at_the_end_takes_the_others_back(tmp_path):
    paths = {"a": tmp_path / "a", "b": tmp_path / "b"}
    with Writing(paths, sample_rate=8000, frames=100) as writing:
        writing.files.write(np.zeros((2, 1, 100), np.float32), np.zeros((1, 100), np.float32))
        (tmp_path / "b").mkdir()  # somebody is faster
        (tmp_path / "b" / "theirs").touch()
        with pytest.raises(OutputError):
            writing.commit()
    assert leftovers(tmp_path) == ["b", "b/theirs"]


# --- places that can't be written ---


def fail(folder, code, stems=None, template="{stem}.wav") -> OutputError:
    stems = np.zeros((2, 2, 50_000), np.float32) if stems is None else stems
    paths = {name: folder / template.format(stem=name) for name in ("a", "b")}

    def attempt():
        with Writing(paths, channels=2, frames=stems.shape[2]) as writing:
            writing.files.write(stems, stems.sum(axis=0))
            writing.commit()

    with pytest.raises(OutputError) as caught:
        attempt()
    assert caught.value.code == code, caught.value
    assert caught.value.hint
    assert caught.value.exit_code == 5
    return caught.value


def test_a_file_where_a_folder_must_be(tmp_path):
    (tmp_path / "file").write_text("x")
    fail(tmp_path / "file", "output.unwritable")
    fail(tmp_path / "file" / "deeper", "output.unwritable")
    assert leftovers(tmp_path) == ["file"]


def test_a_folder_where_a_file_must_be(tmp_path):
    (tmp_path / "b.wav").mkdir()
    assert "folder has that name" in fail(tmp_path, "output.unwritable").message
    assert leftovers(tmp_path) == ["b.wav"]


def test_a_folder_that_may_not_be_written(tmp_path):
    if sys.platform == "win32" or os.geteuid() == 0:
        pytest.skip("root may write everywhere; Windows has other rights")
    tmp_path.chmod(0o500)
    fail(tmp_path, "output.unwritable")
    fail(tmp_path / "new", "output.unwritable")
    tmp_path.chmod(0o700)


def test_read_only_file_system(tmp_path, mounted):
    with mounted(tmp_path / "disk", "size=1m,ro") as disk:
        assert "Read-only" in fail(disk, "output.unwritable").message
        assert leftovers(disk) == []


# 2 × 400 KB of float WAV are written at once; 24 bits need 800 KB of raw samples, and 2 × 300 KB afterwards.
@pytest.mark.parametrize(("depth", "size_kib"), [("32f", 300), ("32f", 600), ("24", 600), ("24", 1000), ("24", 1300)])
def test_full_disk(tmp_path, mounted, depth, size_kib):
    stems = noise(50_000)[None].repeat(2, axis=0)
    output_format = OutputFormat(bit_depth=BitDepth(depth))
    with mounted(tmp_path / "disk", f"size={size_kib}k") as disk:
        with pytest.raises(OutputError) as caught:
            write(disk / "song", stems, output_format)
        assert caught.value.code == "output.disk_full"
        assert "no space left" in caught.value.message
        assert leftovers(disk) == []
    with mounted(tmp_path / "big", f"size={900 if depth == '32f' else 1500}k") as disk:
        write(disk / "song", stems, output_format)


@pytest.mark.parametrize("container", list(Container))
def test_full_disk_in_every_format(tmp_path, mounted, container):
    """Encoders hide failed writes in different ways; none may pass as success."""
    count = 4 if container is Container.STEM_MP4 else 1
    stems = np.random.default_rng(0).uniform(-0.9, 0.9, (count, 2, 44_000)).astype(np.float32)  # hard to compress
    raw_kib = 0 if container is Container.WAV else -(-(count + (count > 1)) * 2 * 4 * 44_000 // 1024)
    with mounted(tmp_path / "disk", f"size={raw_kib + 16}k") as disk:
        with pytest.raises(OutputError) as caught:
            write(disk, stems, OutputFormat(container=container))
        assert caught.value.code == "output.disk_full"
        assert leftovers(disk) == []


# --- names ---


def test_stems_never_overwrite_a_source(tmp_path):
    soundfile.write(tmp_path / "drums.wav", noise(1000).T, 44100)
    before = (tmp_path / "drums.wav").read_bytes()
    for folder, keep in ((tmp_path, ()), (tmp_path, (tmp_path / "drums.wav",))):
        source = tmp_path / ("song.wav" if keep else "drums.wav")
        if keep:
            soundfile.write(source, noise(1000).T, 44100)
        with pytest.raises(OutputError) as caught:
            separate_to_files(
                SeparationRequest(source=source, model="dsp"),
                OutputOptions(folder=folder, template="{stem}.wav", keep=keep),
            )
        assert caught.value.code == "output.collision"
        assert (tmp_path / "drums.wav").read_bytes() == before


def test_a_template_without_the_stem_would_write_one_file_twice(tmp_path):
    with pytest.raises(OutputError) as caught:
        OutputOptions(folder=tmp_path, template="{track}.wav").paths(Path("song.wav"), ("a", "b"), "dsp")
    assert caught.value.code == "output.collision"


def test_paths(tmp_path):
    options = OutputOptions(folder=tmp_path, template="{model}/{source_ext}/{track}-{stem}.{ext}")
    paths = options.paths(Path("in") / "a b.mp3", ("drums",), "dsp")
    assert paths.stems == {"drums": tmp_path.resolve() / "dsp" / "mp3" / "a b-drums.wav"}
    assert paths.manifest == tmp_path.resolve() / "dsp" / "mp3" / "a b-manifest.json"
    assert paths.mix is None


def test_the_null_is_that_of_what_is_in_the_files(tmp_path):
    # An MP3-like source has values below the grid of 24 bits; `exact` can't keep them there, and the figure says so.
    source = noise(20_000) * np.float32(0.3)
    request = SeparationRequest(source=tmp_path / "song.wav", model="dsp", residual="exact")
    soundfile.write(request.source, source.T, 44100, subtype="FLOAT")
    for output_format in (
        OutputFormat(),
        OutputFormat(bit_depth=BitDepth.INT24),
        OutputFormat(container=Container.FLAC),
    ):
        report = separate_to_files(request, OutputOptions(folder=tmp_path / "out", format=output_format))
        total = sum(soundfile.read(stem.path, dtype="float32")[0].T for stem in report.stems)
        meter = NullMeter()
        meter.add(total, source)
        assert report.null_db == pytest.approx(meter.null_db, abs=0.01)
        assert report.exact == (output_format == OutputFormat()) == bool(np.array_equal(total, source))


def test_the_null_counts_the_rounding_after_a_shared_gain(tmp_path):
    stems = np.full((2, 1, 1000), 0.75, np.float32) * np.linspace(-1.5, 1.5, 1000, dtype=np.float32)
    paths = {name: tmp_path / f"{name}.wav" for name in "ab"}
    output_format = OutputFormat(bit_depth=BitDepth.INT16)
    grid = np.float32(2.0**15)
    stems = np.rint(stems * grid) / grid
    with Writing(paths, output_format=output_format, fold=1, frames=1000) as writing:
        writing.files.write(stems, stems.sum(axis=0))
        writing.commit()
    files = writing.files
    gain = np.float32(10 ** (files.gain_db / 20))
    assert files.gain_db == pytest.approx(-6.02, abs=0.01)
    total = sum(soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in paths.values())
    meter = NullMeter()
    meter.add(total / gain, stems.sum(axis=0))
    assert files.null.null_db == pytest.approx(meter.null_db, abs=0.01)
