"""The small vocabulary that everything else is written in: units, errors, jobs, events, and the table of exit codes."""

from __future__ import annotations

import ast
import itertools
import json
import math
import pickle
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import revithion_stems.errors as errors_module
from revithion_bridge.messages import ERRORS
from revithion_stems.cli.console import EXIT_UNEXPECTED, finite_or_none, print_json, printable
from revithion_stems.errors import (
    Cancelled,
    DownloadError,
    ModelError,
    RequestError,
    RevithionError,
    error_from_dict,
)
from revithion_stems.events import (
    CancelToken,
    DownloadProgress,
    EventStream,
    JobChanged,
    JobProgress,
    JobSummary,
    Notice,
    StemReady,
    event_as_dict,
    event_from_dict,
)
from revithion_stems.jobs import TRANSITIONS, Job, JobState
from revithion_stems.units import (
    db_from_ratio,
    format_bytes,
    format_db,
    format_duration,
    power_db,
    ratio_from_db,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def all_errors() -> list[type[RevithionError]]:
    found = [RevithionError]
    for cls in found:
        found.extend(sub for sub in cls.__subclasses__() if sub not in found)
    return [cls for cls in found if cls.__module__ == errors_module.__name__]


# --- units ---


@given(gain_db=st.floats(-300, 300))
def test_decibels_and_ratios_undo_each_other(gain_db):
    assert db_from_ratio(ratio_from_db(gain_db)) == pytest.approx(gain_db, abs=1e-9)


@given(ratio=st.floats(1e-12, 1e12))
def test_power_is_the_square_of_amplitude(ratio):
    assert power_db(ratio * ratio) == pytest.approx(db_from_ratio(ratio), abs=1e-9)


def test_ends_of_the_decibel_scale():
    assert db_from_ratio(0.0) == power_db(0.0) == -math.inf
    assert power_db(math.inf) == math.inf
    assert ratio_from_db(-math.inf) == 0.0
    assert ratio_from_db(20.0) == 10.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599, "59:59"),
        (3600, "1:00:00"),
        (37_230, "10:20:30"),
    ],
)
def test_format_duration(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1024, "1 KiB"),
        (174_263_526, "166 MiB"),
        (1536 << 20, "1.5 GiB"),
        (3 << 40, "3 TiB"),
    ],
)
def test_format_bytes(size, text):
    assert format_bytes(size) == text


def test_format_db():
    assert [format_db(v) for v in (-6.02, math.inf, -math.inf)] == ["-6.0 dB", "inf dB", "-inf dB"]


# --- errors ---


@pytest.mark.parametrize("cls", all_errors())
def test_errors_survive_pickling_with_everything(cls):
    for error in (cls("went wrong", hint="do this"), cls("went wrong", hint="do this", code="own.code")):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is cls
        assert str(copy) == "went wrong"
        assert copy.as_dict() == error.as_dict()
        assert copy.exit_code == cls.exit_code


@pytest.mark.parametrize("cls", all_errors())
def test_every_class_has_a_default_code_and_a_failing_status(cls):
    error = cls("m", hint="h")
    assert error.as_dict() == {"code": cls.default_code, "message": "m", "hint": "h"}
    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", cls.default_code)
    assert 0 < cls.exit_code < 256
    assert cls.__doc__


def test_a_download_error_is_a_model_error():
    with pytest.raises(ModelError):
        raise DownloadError("m", hint="h")


# --- the table of exit codes ---


def documented_classes() -> dict[str, int]:
    text = (REPOSITORY / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| ([^|]*)\|", text, flags=re.MULTILINE)
    return {name: int(status) for status, names in rows for name in re.findall(r"`([A-Z]\w+)`", names)}


def test_exit_codes_document_has_the_status_of_every_class():
    assert documented_classes() == {cls.__name__: cls.exit_code for cls in all_errors()}


def codes_in_source() -> set[str]:
    """Every literal error code: ``code="…"`` where an error is made, and each class's default."""
    found = {cls.default_code for cls in all_errors()}
    makers = {cls.__name__ for cls in all_errors()}
    for path in sorted((REPOSITORY / "revithion_stems").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in makers:
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        found.add(keyword.value.value)
    return found


def test_exit_codes_document_explains_every_error_code():
    text = (REPOSITORY / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z_.]+)` \|", text, flags=re.MULTILINE))
    assert codes_in_source() - explained == set(), "add these to docs/exit-codes.md"


def test_exit_codes_document_has_the_codes_of_the_bridge_below_their_status():
    text = (REPOSITORY / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    listed: dict[str, int] = {}
    for status, rows in re.findall(r"^### Status (\d+).*?$(.*?)(?=^### |\Z)", text, re.M | re.S):
        listed |= dict.fromkeys(re.findall(r"^\| `([a-z_.]+)` \|", rows, re.M), int(status))
    for code, (meaning, hint) in ERRORS.items():
        error = error_from_dict({"code": code, "message": meaning, "hint": hint})
        assert listed.get(code) == error.exit_code, code
        assert error.as_dict() == {"code": code, "message": meaning, "hint": hint}


def test_the_map_of_the_core_has_every_module():
    core = REPOSITORY / "revithion_stems"
    listed = set(re.findall(r"`([a-z0-9_/]+)`", (core / "README.md").read_text(encoding="utf-8")))
    paths = [path.relative_to(core) for path in core.rglob("*.py")]
    modules = {path.with_suffix("").as_posix() for path in paths if path.name != "__init__.py"}
    missing = {name for name in modules if not name.startswith("engines/")} - listed
    assert missing == set(), "add these to revithion_stems/README.md"


# --- jobs ---


@pytest.mark.parametrize(("before", "after"), list(itertools.product(JobState, JobState)))
def test_a_job_advances_where_the_table_allows_and_nowhere_else(before, after):
    job = Job(id="j1", source="song.wav", state=before)
    if after in TRANSITIONS[before]:
        assert job.advance(after) == Job(id="j1", source="song.wav", state=after)
    else:
        with pytest.raises(RequestError, match="can't follow") as caught:
            job.advance(after)
        assert caught.value.code == "job.transition"
    assert job.state is before


def test_the_life_of_a_job_is_this():
    working = [JobState.QUEUED, JobState.LOADING, JobState.SEPARATING, JobState.WRITING]
    final = {JobState.DONE, JobState.FAILED, JobState.CANCELLED}
    assert set(TRANSITIONS) == set(JobState) == final | set(working)
    assert {state for state in JobState if state.is_final} == final
    for state, following in zip(working, [*working[1:], JobState.DONE], strict=True):
        skips = {JobState.WRITING} if state is JobState.LOADING else set()  # what the cache has is only written
        back = set() if state is JobState.QUEUED else {JobState.QUEUED}  # it gave way, or its process was lost
        assert TRANSITIONS[state] == {following, JobState.FAILED, JobState.CANCELLED} | skips | back
    with pytest.raises(RequestError, match="nothing: it is final"):
        Job(id="j", source="s", state=JobState.DONE).advance(JobState.QUEUED)


def test_a_new_job_is_queued():
    assert Job(id="j", source="s").state is JobState.QUEUED


# --- events ---

FIELDS = {
    JobChanged: {"state": JobState.FAILED, "source": "s", "error": {"code": "c", "message": "m", "hint": "h"}},
    JobProgress: {"done": 1, "total": 2, "elapsed_s": 0.5, "remaining_s": None},
    StemReady: {
        "stem": "vocals",
        "path": "p",
        "frames": 1,
        "sample_rate": 44_100,
        "sha256": "",
        "stream": 0,
        "start_frame": 220_500,
        "final": False,
    },
    JobSummary: {
        "model": "m",
        "engine": "e",
        "device": "cpu",
        "licence": "MIT",
        "duration_s": 1.0,
        "elapsed_s": 1.0,
        "exact": False,
        "null_db": None,
        "gain_db": 0.0,
        "residual": "folded",
        "lag_frames": 0,
        "cached": False,
        "resumed_runs": 0,
        "manifest": "m",
    },
    Notice: {"code": "c", "message": "m"},
    DownloadProgress: {"file": "f", "source": "s", "done_bytes": 1, "total_bytes": None},
}


@pytest.mark.parametrize("kind", FIELDS)
def test_every_event_is_json(kind):
    event = kind(job_id="j", seq=0, **FIELDS[kind])
    data = json.loads(json.dumps(event_as_dict(event)))
    assert data["type"] == kind.__name__
    assert (data["job_id"], data["seq"]) == ("j", 0)
    assert data.get("state") in (None, "failed")
    assert event_from_dict(data) == event


def test_what_is_no_event_is_refused():
    for data in ({}, {"type": "Later"}, {"type": "Notice", "job_id": "j"}, {"type": "JobProgress", "done": "1"}):
        with pytest.raises(ValueError, match=r"\w"):
            event_from_dict(data)


def test_errors_of_other_processes_keep_class_and_code():
    for cls in all_errors():
        error = cls("m", hint="h")
        copy = error_from_dict(error.as_dict())
        assert (copy.as_dict(), copy.exit_code) == (error.as_dict(), error.exit_code)


def test_events_are_numbered_in_order_from_any_thread():
    events = []
    stream = EventStream("j", events.append)
    threads = [threading.Thread(target=lambda: [stream.notice("c", "m") for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.seq for event in events] == list(range(800))
    assert {event.job_id for event in events} == {"j"}


def test_events_without_a_listener_go_nowhere():
    EventStream("j").notice("c", "m")


def test_cancel_token_stays_cancelled():
    token = CancelToken()
    token.raise_if_cancelled()
    assert not token.cancelled
    token.cancel()
    token.cancel()
    assert token.cancelled
    with pytest.raises(Cancelled) as caught:
        token.raise_if_cancelled()
    assert caught.value.exit_code == 130


# --- what the command line prints with ---


def test_json_holds_no_infinities(capsys):
    print_json({"a": [math.inf, 1.5, (math.nan, "é")], "b": {"c": -math.inf}, "d": 3})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5, [None, "é"]], "b": {"c": None}, "d": 3}
    assert finite_or_none(2.5) == 2.5


def test_printable_keeps_letters_and_shows_control_characters():
    assert printable("Björk 感電 🎵") == "Björk 感電 🎵"
    assert printable("a\nb\x1b[0m") == "a\\nb\\x1b[0m"


def test_unexpected_errors_have_the_status_of_the_base_class():
    assert RevithionError.exit_code == EXIT_UNEXPECTED
