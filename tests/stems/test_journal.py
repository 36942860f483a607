"""The journal gives back what was put in, up to the first record that is not whole, whatever was cut or changed."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revithion_stems.journal import SegmentJournal


def segment(number: int, frames: int = 50) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    return rng.standard_normal((2, frames), np.float32), rng.standard_normal((3, 2, frames), np.float32)


def record(path: Path, numbers: range) -> None:
    journal = SegmentJournal(path)
    for number in numbers:
        mix, stems = segment(number)
        if (found := journal.recall(mix)) is None:
            journal.append(mix, stems)
        else:
            assert np.array_equal(found, stems)
    journal.close()


def recalled(path: Path, numbers: range) -> int:
    journal = SegmentJournal(path)
    for number in numbers:
        mix, stems = segment(number)
        found = journal.recall(mix)
        if found is None:
            break
        assert found.dtype == np.float32
        assert np.array_equal(found, stems)
    journal.close()
    return journal.recalled


def test_what_was_recorded_is_recalled_in_order(tmp_path):
    path = tmp_path / "journal"
    record(path, range(5))
    assert recalled(path, range(7)) == 5
    record(path, range(8))
    assert recalled(path, range(8)) == 8


def test_another_input_ends_what_can_be_recalled(tmp_path):
    path = tmp_path / "journal"
    record(path, range(5))
    assert recalled(path, range(1, 5)) == 0
    journal = SegmentJournal(path)
    assert journal.recall(segment(0)[0]) is not None
    assert journal.recall(segment(7)[0]) is None
    assert journal.recall(segment(1)[0]) is None  # what comes after it is not trusted either
    journal.append(*segment(7))
    journal.close()
    assert recalled(path, range(5)) == 1


def test_a_wider_shape_than_the_file_can_hold_is_not_believed(tmp_path):
    path = tmp_path / "journal"
    record(path, range(1))
    data = bytearray(path.read_bytes())
    data[12:24] = b"\xff" * 12  # the shape: 2^96 samples
    path.write_bytes(data)
    assert recalled(path, range(1)) == 0


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_cut_or_change_loses_no_more_than_what_follows(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal"
    record(path, range(4))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:at])
    else:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :])
    assert recalled(path, range(4)) == at * 4 // len(whole)
    record(path, range(4))
    assert path.read_bytes() == whole


def test_a_full_disk_is_the_caller_s_to_handle():
    journal = SegmentJournal(Path("/dev/full")) if Path("/dev/full").exists() else pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        journal.append(*segment(0))
    assert caught.value.errno == errno.ENOSPC
    journal.close()
