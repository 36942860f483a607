"""Parameters on the wire are the core's: none is missing, none is changed, and wrong ones are named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from program import posix_only
from revithion_bridge.messages import JobParameters
from revithion_bridge.parameters import to_parameters, to_request
from revithion_stems.audio import AudioBuffer
from revithion_stems.errors import InputError, RequestError
from revithion_stems.output_format import BitDepth, Container, OutputFormat
from revithion_stems.outputs import OutputOptions
from revithion_stems.requests import DEVICE_NAMES, ENGINE_NAMES, PRECISIONS, OtherMethod, SeparationRequest
from revithion_stems.stems import ResidualPolicy

HERE = Path.cwd()
names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1, max_size=20)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map(
    lambda parts: HERE.joinpath(*parts)
)
formats = st.sampled_from(
    [
        OutputFormat(),
        OutputFormat(bit_depth=BitDepth.INT24),
        OutputFormat(container=Container.FLAC, bit_depth=BitDepth.INT16),
        OutputFormat(container=Container.M4A),
        OutputFormat(container=Container.STEM_MP4, bit_depth=BitDepth.INT24),
    ]
)
requests = st.builds(
    SeparationRequest,
    source=paths,
    model=names,
    stems=st.lists(names, unique=True, max_size=3).map(tuple),
    two_stems=st.none(),
    other_method=st.sampled_from(OtherMethod),
    residual=st.sampled_from(ResidualPolicy),
    segment_s=st.none() | st.floats(0.1, 600.0),
    overlap=st.floats(0.0, 0.95),
    shifts=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
    engine=st.sampled_from(ENGINE_NAMES),
    device=st.sampled_from(DEVICE_NAMES),
    precision=st.sampled_from(PRECISIONS),
    threads=st.none() | st.integers(1, 1024),
)
outputs = st.builds(
    OutputOptions,
    folder=paths,
    template=names,
    format=formats,
    archive_mix=st.booleans(),
    keep=st.lists(paths, max_size=2).map(tuple),
)


@given(request_=requests, output=outputs, two_stems=st.none() | names, flags=st.tuples(st.booleans(), st.booleans()))
def test_there_and_back(
    request_: SeparationRequest, output: OutputOptions, two_stems: str | None, flags: tuple[bool, bool]
) -> None:
    if two_stems is not None:
        request_ = dataclasses.replace(request_, stems=(), two_stems=two_stems)
    sent = to_parameters(request_, output, force_refresh=flags[0], offline=flags[1], span_s=2.0)
    received = msgspec.json.decode(msgspec.json.encode(sent), type=JobParameters)
    assert received == sent
    assert to_request(received) == (request_, output)
    assert (received.force_refresh, received.offline, received.span_s) == (*flags, 2.0)


def test_every_field_of_the_core_has_its_place() -> None:
    core = {field.name for kind in (SeparationRequest, OutputOptions) for field in dataclasses.fields(kind)}
    inside_format = {"container": "format", "bit_depth": "bit_depth"}
    assert {field.name for field in dataclasses.fields(OutputFormat)} == inside_format.keys()
    not_of_the_core = {"force_refresh", "offline", "span_s"}
    assert set(JobParameters.__struct_fields__) == core | set(inside_format.values()) | not_of_the_core


def test_defaults_are_those_of_the_core() -> None:
    source, folder = str(HERE / "song.wav"), str(HERE / "stems")
    request, output = to_request(JobParameters(source=source, folder=folder))
    assert request == SeparationRequest(source=source)
    assert output == OutputOptions(folder=Path(folder))


def test_paths_become_absolute_and_links_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    try:
        (tmp_path / "link").symlink_to("real", target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    monkeypatch.chdir(tmp_path)
    request = SeparationRequest(source="link/song.wav")
    output = OutputOptions(folder=Path("link"), keep=(Path("link/other.wav"),))
    sent = to_parameters(request, output, force_refresh=False, offline=False, span_s=0.0)
    assert sent.source == str(tmp_path / "link" / "song.wav")
    assert sent.folder == str(tmp_path / "link")
    assert sent.keep == (str(tmp_path / "link" / "other.wav"),)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("other_method", "plus"),
        ("residual", "gone"),
        ("format", "aiff"),
        ("bit_depth", "8"),
        ("engine", "abacus"),
        ("device", "tpu"),
        ("precision", "fp8"),
        ("overlap", float("nan")),
        ("shifts", 21),
        ("seed", -1),
        ("threads", 0),
    ],
)
def test_wrong_values_are_named(field: str, value: object) -> None:
    parameters = JobParameters(source=str(HERE / "song.wav"), folder=str(HERE), **{field: value})
    with pytest.raises(RequestError) as caught:
        to_request(parameters)
    assert caught.value.code == f"request.{field}"
    assert str(value) in caught.value.message
    assert caught.value.hint


def test_audio_in_memory_is_not_sent() -> None:
    buffer = AudioBuffer(samples=np.zeros((1, 10), np.float32), sample_rate=44_100)
    with pytest.raises(InputError) as caught:
        to_parameters(SeparationRequest(source=buffer), OutputOptions(), force_refresh=False, offline=False, span_s=0.0)
    assert caught.value.code == "input.no_path"


@posix_only
def test_a_name_that_is_not_text_is_refused_and_told() -> None:
    request = SeparationRequest(source=Path("song\udcff.wav"))
    with pytest.raises(RequestError, match="not valid UTF-8") as caught:
        to_parameters(request, OutputOptions(), force_refresh=False, offline=False, span_s=0.0)
    assert caught.value.code == "request.source"


def test_neither_parameters_nor_the_worker_import_torch_before_a_model_wants_it() -> None:
    code = "import sys, revithion_bridge.parameters, revithion_bridge.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
