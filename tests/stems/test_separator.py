"""The invariants of a separation — exact null, zero lag, determinism, bounded memory — through the Python door."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from revithion_stems import AudioBuffer, OtherMethod, OutputOptions, ResidualPolicy, SeparationRequest, separate
from revithion_stems.api import separate_to_files
from revithion_stems.audio_scan import scan
from revithion_stems.catalog import load_catalog
from revithion_stems.errors import Cancelled, EngineError, InputError, RequestError
from revithion_stems.events import CancelToken, JobChanged, JobProgress, event_as_dict
from revithion_stems.jobs import TRANSITIONS, JobState
from revithion_stems.model_loading import ModelCache
from revithion_stems.requests import plan_stems
from revithion_stems.separator import LoadedModel, separate_blocks

DSP = load_catalog()["dsp"]
SAMPLE = st.one_of(st.floats(-1, 1, width=32), st.floats(-8, 8, width=32), st.sampled_from([0.0, 1e-40, -1e-45, 1.0]))


def assert_exact(stems, source: AudioBuffer) -> None:
    """Bit for bit, in the order of the set, in the reverse order, and with the residual last."""
    for order in (list(stems.stems), list(reversed(stems.stems))):
        total = np.zeros_like(source.samples)
        for name in order:
            assert stems[name].samples.shape == source.samples.shape
            assert stems[name].sample_rate == source.sample_rate
            total = total + stems[name].samples
        assert np.array_equal(total + stems.residual.samples, source.samples)


def noise(frames, channels=2, rate=44100, seed=0, level=0.3):
    samples = np.random.default_rng(seed).standard_normal((channels, frames)) * level
    return AudioBuffer(samples=samples.astype(np.float32), sample_rate=rate)


def digest(stems) -> str:
    parts = [*(stem.samples.tobytes() for stem in stems.stems.values()), stems.residual.samples.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


# --- invariant 1: exact null ---


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    samples=hnp.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(1, 300)), elements=SAMPLE),
    rate=st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000, 192_000]),
    scale=st.sampled_from([1.0, 1.0, 1e-38, 1e6, 1e11]),
    residual=st.sampled_from(list(ResidualPolicy)),
)
def test_stems_add_up_to_any_source_bit_for_bit(samples, rate, scale, residual):
    source = AudioBuffer(samples=samples * np.float32(scale), sample_rate=rate)
    stems = separate(source, model="dsp", residual=residual)
    if residual is ResidualPolicy.STEM:
        total = np.zeros(source.samples.shape)
        for stem in stems.stems.values():
            total = total + stem.samples
        magnitude = sum(np.abs(s.samples.astype(np.float64)) for s in (*stems.stems.values(), stems.residual))
        step = np.maximum(2.0**-24, magnitude * 2.0**-22)
        assert (np.abs(total + stems.residual.samples - source.samples) <= step / 2).all()
    else:
        assert_exact(stems, source)


@pytest.mark.parametrize("channels", range(1, 9))
def test_stems_of_every_channel_count_add_up(channels):
    source = noise(30_000, channels, seed=channels)
    stems = separate(source, model="dsp")
    assert list(stems.stems) == list(DSP.stems)
    assert_exact(stems, source)
    assert np.abs(stems.residual.samples).max() <= 2.0**-24  # a float source: what is below the grid


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000, 192_000])
def test_stems_at_every_rate_add_up_and_are_not_all_in_one(rate):
    source = noise(rate, 2, rate=rate)
    stems = separate(source, model="dsp")
    assert_exact(stems, source)
    energy = {name: float(np.square(stem.samples).sum()) for name, stem in stems.stems.items()}
    assert all(value > 0 for value in energy.values()), energy


def test_sixteen_bit_sources_leave_nothing():
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 50_000)) / 2**15
    source = AudioBuffer(samples=samples.astype(np.float32), sample_rate=44100)
    stems = separate(source, model="dsp")
    assert not stems.residual.samples.any()
    assert np.array_equal(stems.total(with_residual=False), source.samples)


@pytest.mark.parametrize("frames", [1, 2, 777, 50_000])
def test_silence_gives_silent_stems(frames):
    stems = separate(AudioBuffer(samples=np.zeros((2, frames), np.float32), sample_rate=48000), model="dsp")
    assert not any(stem.samples.any() for stem in (*stems.stems.values(), stems.residual))


def test_sides_that_cancel_out_reach_a_normalised_network_as_finite_numbers():
    """Demucs divides by the spread of the mono mix, which is zero here."""
    samples = noise(20_000, 1).samples
    source = AudioBuffer(samples=np.concatenate([samples, -samples]), sample_rate=44100)
    seen = []

    class Watch(Delay):
        def separate_segment(self, mix):
            seen.append(np.abs(mix).max())
            return super().separate_segment(mix)

    stems = run_fake(Watch(gains=(1, 1, 1, 1)), source, spec=load_catalog()["htdemucs"])
    np.testing.assert_allclose(stems[0], source.samples, rtol=0, atol=2e-6)
    assert max(seen) <= 1.01e6


@pytest.mark.parametrize("level", [1e-3, 1.0, 1e11])
def test_sides_that_cancel_out_are_separated_too(level):
    """Mono mix of zero: dividing by its standard deviation must not leave the range of numbers."""
    samples = noise(20_000, 1).samples * np.float32(level)
    source = AudioBuffer(samples=np.concatenate([samples, -samples]), sample_rate=44100)
    assert_exact(separate(source, model="dsp"), source)


def test_values_that_are_no_audio_are_refused():
    source = AudioBuffer(samples=np.full((1, 10), 3e38, np.float32), sample_rate=44100)
    with pytest.raises(InputError, match=r"3e\+38") as caught:
        separate(source, model="dsp")
    assert caught.value.code == "input.peak"


# --- what the options mean ---


@pytest.fixture(scope="module")
def song():
    return noise(60_000, 2, seed=5)


@pytest.fixture(scope="module")
def plain(song):
    return separate(song, model="dsp", residual=ResidualPolicy.STEM)


def close(first, second, steps=4):
    return np.abs(first.astype(np.float64) - second).max() <= steps * 2.0**-24


def test_fold_changes_only_the_stem_that_takes_the_rest(song, plain):
    folded = separate(song, model="dsp")
    for name in DSP.stems:
        rest = plain.residual.samples if name == DSP.residual_stem else 0
        assert close(folded[name].samples, plain[name].samples + rest), name


def test_exact_keeps_what_is_below_the_grid_as_a_stem(song):
    exact, folded = (separate(song, model="dsp", residual=policy) for policy in (ResidualPolicy.EXACT, "fold"))
    assert digest(exact) == digest(folded)
    assert exact.residual.samples.any()


def test_two_stems_minus_is_the_source_without_the_stem(song, plain):
    stems = separate(song, model="dsp", two_stems="vocals")
    assert list(stems.stems) == ["vocals", "no_vocals"]
    assert close(stems["vocals"].samples, plain["vocals"].samples)
    assert close(stems["no_vocals"].samples, song.samples - plain["vocals"].samples)
    assert_exact(stems, song)


def test_two_stems_add_is_the_sum_of_the_others(song, plain):
    stems = separate(song, model="dsp", two_stems="drums", other_method=OtherMethod.ADD)
    others = sum(plain[name].samples for name in DSP.stems if name != "drums")
    assert list(stems.stems) == ["drums", "no_drums"]
    assert close(stems["no_drums"].samples, others)


def test_two_stems_none_is_one_stem(song, plain):
    stems = separate(song, model="dsp", two_stems="bass", other_method=OtherMethod.NONE)
    assert list(stems.stems) == ["bass"]
    assert close(stems["bass"].samples, plain["bass"].samples)


def test_some_stems_come_in_the_model_s_order_and_leave_the_rest_to_the_residual(song, plain):
    stems = separate(song, model="dsp", stems=("vocals", "drums"))
    assert list(stems.stems) == [name for name in DSP.stems if name in ("vocals", "drums")]
    assert close(stems["drums"].samples, plain["drums"].samples)
    assert close(stems.total(), song.samples)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"stems": ("piano",)}, "request.stems"),
        ({"two_stems": "piano"}, "request.stems"),
        ({"stems": ("drums", "drums")}, "request.stems"),
        ({"stems": ("drums",), "two_stems": "vocals"}, "request.stems"),
        ({"overlap": 1.0}, "request.overlap"),
        ({"overlap": float("nan")}, "request.overlap"),
        ({"shifts": -1}, "request.shifts"),
        ({"shifts": 1.5}, "request.shifts"),
        ({"residual": "drop"}, "request.residual"),
        ({"other_method": "plus"}, "request.other_method"),
        ({"stems": "drums"}, "request.stems"),
        ({"seed": 2**32}, "request.seed"),
        ({"segment_s": 0.0}, "request.segment"),
        ({"threads": 0}, "request.threads"),
        ({"engine": "jax"}, "request.engine"),
        ({"engine": "onnx"}, "request.engine"),
        ({"device": "tpu"}, "request.device"),
        ({"precision": "fp16"}, "request.precision"),
        ({"precision": "bf16"}, "request.precision"),
    ],
)
def test_requests_that_make_no_sense(song, parameters, code):
    with pytest.raises(RequestError) as caught:
        separate(song, model="dsp", **parameters)
    assert caught.value.code == code
    assert caught.value.hint


# --- invariant 2: zero lag, by fakes that delay or don't ---


class Delay:
    """A separator whose stems are its input, some frames later, times a gain per stem."""

    remark = None
    settled = True

    def begin(self):
        pass

    def __init__(self, delay_frames: int = 0, gains=(0.25, 0.25, 0.25, 0.25)) -> None:
        self._delay = delay_frames
        self._gains = np.array(gains, np.float32)[:, None, None]

    def separate_segment(self, mix):
        late = np.concatenate([np.zeros_like(mix[:, : self._delay]), mix], axis=1)[:, : mix.shape[1]]
        return late[None] * self._gains


def run_fake(separator, source: AudioBuffer, *, block=65_536, spec=DSP, **parameters) -> np.ndarray:
    """float32 ``[stems, channels, frames]`` of a model that is ``separator``, residual apart."""
    request = SeparationRequest(source=source, model=spec.name, residual=ResidualPolicy.STEM, **parameters)
    model = LoadedModel(spec=spec, separators=((separator, (1.0,) * len(spec.stems)),), engine="fake", device="cpu")
    blocks = [source.samples[:, at : at + block] for at in range(0, source.frames, block)]
    found = scan(blocks, channels=source.channels, sample_rate=source.sample_rate, cancel=CancelToken())
    out = separate_blocks(
        blocks,
        model=model,
        plan=plan_stems(request, spec),
        request=request,
        sample_rate=source.sample_rate,
        scan=found,
        grid_bits=24,
        run_segment=lambda separator, mix, columns: separator.separate_segment(mix)[columns],
    )
    return np.concatenate([part.stems for part in out], axis=2)


@pytest.mark.parametrize("rate", [8000, 11025, 32000, 44100, 48000, 88200, 96000, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_an_impulse_stays_where_it_is(rate, channels):
    samples = np.zeros((channels, rate + 13), np.float32)
    places = [rate // 3, rate // 2 + 1]
    samples[:, places] = [0.9, -0.5]
    stems = run_fake(Delay(), AudioBuffer(samples=samples, sample_rate=rate))
    assert stems.shape == (4, *samples.shape)
    for stem in stems:
        for channel in stem:
            assert np.argmax(np.abs(channel)) == places[0]
            assert np.argmin(channel) == places[1]


def test_a_model_that_delays_is_seen_to_delay():
    """The measure above can fail: 7 frames at the model's rate are 7 frames in the stems."""
    samples = np.zeros((2, 44100), np.float32)
    samples[:, 20_000] = 1.0
    stems = run_fake(Delay(7), AudioBuffer(samples=samples, sample_rate=44100))
    assert np.argmax(np.abs(stems[0, 0])) == 20_007


@pytest.mark.parametrize("shifts", [0, 1, 3])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
@pytest.mark.parametrize("spec", [DSP, load_catalog()["htdemucs"]], ids=lambda spec: spec.name)
def test_an_identity_model_gives_the_source_back(shifts, overlap, spec):
    """Segments, shifts, normalising and weights all cancel out; float32 rounding is what is left."""
    source = noise(500_000, 2)
    stems = run_fake(Delay(gains=(1, 1, 1, 1)), source, shifts=shifts, overlap=overlap, spec=spec)
    np.testing.assert_allclose(stems[0], source.samples, rtol=0, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 3000),
    rate=st.sampled_from([8000, 12_345, 44100, 48000, 192_000]),
    channels=st.integers(1, 5),
    block=st.sampled_from([1, 100, 4096]),
)
def test_length_and_layout_are_kept(frames, rate, channels, block):
    block = max(block, frames // 50)
    source = noise(frames, channels, rate=rate)
    assert run_fake(Delay(), source, block=block).shape == (4, channels, frames)


# --- invariant 3: deterministic ---


def test_same_request_same_bytes(song):
    assert digest(separate(song, model="dsp")) == digest(separate(song, model="dsp"))


def test_shifts_follow_the_seed(song):
    one, again, other = (separate(song, model="dsp", shifts=2, seed=seed) for seed in (1, 1, 2))
    assert digest(one) == digest(again)
    assert digest(one) != digest(other)
    for stems in (one, other):
        assert_exact(stems, song)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_blocks_of_any_size_give_the_same_stems(rate):
    source = noise(90_000, 2, rate=rate)
    whole = run_fake(Delay(), source, block=90_000)
    for block in (1000, 65_536):
        # The spread of the source is summed over blocks in float64; the same after rounding to float32.
        assert np.array_equal(run_fake(Delay(), source, block=block), whole)


def test_a_buffer_and_a_file_give_the_same_bytes(tmp_path):
    source = noise(150_000, 2, rate=48000)
    soundfile.write(tmp_path / "song.wav", source.samples.T, 48000, subtype="FLOAT")
    from_file = separate(tmp_path / "song.wav", model="dsp")
    assert digest(from_file) == digest(separate(source, model="dsp"))
    assert digest(from_file) == digest(separate(str(tmp_path / "song.wav"), model="dsp"))
    report = separate_to_files(
        SeparationRequest(source=tmp_path / "song.wav", model="dsp"), OutputOptions(folder=tmp_path / "out")
    )
    for stem in report.stems:
        written, _ = soundfile.read(stem.path, dtype="float32", always_2d=True)
        assert np.array_equal(written.T, from_file[stem.stem].samples)


# --- events, cancelling, failing ---


def test_events_are_in_order_and_complete(song):
    events = []
    separate(song, model="dsp", on_event=events.append, shifts=2)
    assert [event.seq for event in events] == list(range(len(events)))
    assert len({event.job_id for event in events}) == 1
    states = [event.state for event in events if isinstance(event, JobChanged)]
    assert states[0] is JobState.QUEUED
    assert states[-1] is JobState.DONE
    assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(states))
    progress = [event for event in events if isinstance(event, JobProgress)]
    assert progress[-1].done == progress[-1].total > 0
    assert [p.done for p in progress] == sorted(p.done for p in progress)
    assert all(json.dumps(event_as_dict(event)) for event in events)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
@pytest.mark.parametrize("frames", [1, 100_000])
def test_progress_ends_at_all(rate, frames):
    events = []
    separate(noise(frames, 3, rate=rate), model="dsp", on_event=events.append, overlap=0.5, shifts=1)
    progress = [event for event in events if isinstance(event, JobProgress)]
    assert progress[-1].done == progress[-1].total > 0


def test_cancelling_stops_before_the_next_run(song):
    cancel, events = CancelToken(), []

    def on_event(event):
        events.append(event)
        if isinstance(event, JobProgress) and event.done == 1:
            cancel.cancel()

    with pytest.raises(Cancelled):
        separate(song, model="dsp", overlap=0.9, shifts=5, on_event=on_event, cancel=cancel)
    assert max(event.done for event in events if isinstance(event, JobProgress)) <= 2
    assert events[-1].state is JobState.CANCELLED
    assert events[-1].error["code"] == "job.cancelled"


class Broken:
    """A network that computes NaN, as half precision may."""

    remark = None
    settled = True

    def begin(self):
        pass

    def separate_segment(self, mix):
        return np.full((4, *mix.shape), np.nan, np.float32)


def test_a_network_that_computes_nan_is_an_error_and_no_stem():
    with pytest.raises(EngineError) as caught:
        run_fake(Broken(), noise(1000))
    assert caught.value.code == "engine.not_finite"


class Crashing(ModelCache):
    """A model that can't be loaded, for a reason nobody thought of."""

    def get(self, key, load):
        raise ZeroDivisionError("a bug")


def test_a_bug_is_not_hidden_but_the_job_ends(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    events = []
    with pytest.raises(ZeroDivisionError):
        separate_to_files(
            SeparationRequest(source=tmp_path / "a.wav", model="dsp"),
            OutputOptions(folder=tmp_path / "out"),
            on_event=events.append,
            models=Crashing(),
        )
    assert events[-1].state is JobState.FAILED
    assert events[-1].error["code"] == "error.unexpected"
    assert not (tmp_path / "out").exists()


def test_a_buffer_has_no_name_for_files(song):
    with pytest.raises(InputError) as caught:
        separate_to_files(SeparationRequest(source=song, model="dsp"))
    assert caught.value.code == "input.no_path"


# --- invariant 4: bounded memory ---

MEASURE = """
    import sys, threading, time
    from pathlib import Path
    import numpy as np, soundfile
    import psutil
    import revithion_stems.separator as separator
    from revithion_stems import OutputOptions, SeparationRequest
    from revithion_stems.api import separate_to_files
    import revithion_stems.engines.dsp as dsp

    class Cheap:  # a model that costs nothing: what is measured is everything around it
        remark = None
        settled = True
        def __init__(self, spec): pass
        def begin(self): pass
        def separate_segment(self, mix): return np.repeat(mix[None] / 4, 4, axis=0)

    dsp.DspSeparator = Cheap
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    rng = np.random.default_rng(0)
    source = folder / f"{seconds}.wav"
    with soundfile.SoundFile(source, "w", 48000, 2, subtype="PCM_16") as file:
        for _ in range(seconds):
            file.write(rng.standard_normal((48000, 2)) * 0.1)
    process, peak, done = psutil.Process(), 0, False
    def watch():
        global peak
        while not done:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.005)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    separate_to_files(SeparationRequest(source=source, model="dsp", segment_s=2.0), OutputOptions(folder=folder))
    done = True
    watcher.join()
    print(peak)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_song(tmp_path):
    def peak(seconds):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), tmp_path, str(seconds)],
            capture_output=True,
            text=True,
            check=True,
            timeout=250,
        )
        return int(done.stdout)

    short, long = peak(20), peak(160)  # some ten segments, and eight times as many
    assert long <= 1.15 * short, (short, long)
