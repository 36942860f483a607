"""What our Lua scripts share, in a real Lua: JSON against Python's, files that appear whole, quoting for the shell."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lupa.lua54 import LuaError, LuaRuntime

import revithion_daw_scripts

SCRIPTS = Path(revithion_daw_scripts.__file__).parent
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def lua() -> LuaRuntime:
    return LuaRuntime(encoding=None)


@pytest.fixture(scope="module")
def common(lua: LuaRuntime) -> Any:
    path = SCRIPTS / "lua" / "common.lua"
    return lua.eval(b"function(path) return assert(loadfile(path))() end")(str(path).encode())


def through(lua: LuaRuntime, common: Any, text: bytes) -> bytes:
    """Decoded and encoded again."""
    return lua.eval(b"function(m, text) return m.encode(m.decode(text)) end")(common, text)


@given(value=VALUES)
def test_json_survives_lua(lua: LuaRuntime, common: Any, value: Any) -> None:
    for ascii_only in (False, True):
        text = json.dumps(value, ensure_ascii=ascii_only).encode()
        assert json.loads(through(lua, common, text)) == value


@given(text=st.text('0123456789.eE+-[]{}",: \\u\ttrueflsn', max_size=12))
@example("01")
@example("1.")
@example("1e")
@example("-")
def test_lua_takes_for_json_what_python_does(lua: LuaRuntime, common: Any, text: str) -> None:
    try:
        wanted = json.loads(text)
    except ValueError:
        with pytest.raises(LuaError, match="JSON: "):
            through(lua, common, text.encode())
    else:
        again = through(lua, common, text.encode())
        assert json.loads(again) == wanted or "\\u" in text or again == b"null"  # half characters, and what has no end


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1,]", b'{"a"}', b'"abc', b"nul", b"1 2", b'"\n"', b"[1 2]", b'{"a":1,}', b"[" * 100, b'"\\x"'],
)
def test_broken_json_is_an_error_with_a_place(lua: LuaRuntime, common: Any, text: bytes) -> None:
    with pytest.raises(LuaError, match=r"JSON: .* at byte \d+"):
        through(lua, common, text)


def test_numbers_keep_all_their_digits(lua: LuaRuntime, common: Any) -> None:
    for number in (0.1, 1 / 3, 1e300, 5e-324, math.pi, -0.0):
        assert json.loads(through(lua, common, repr(number).encode())) == number


def test_null_keeps_its_place(lua: LuaRuntime, common: Any) -> None:
    assert through(lua, common, b'[1,null,{"a":null}]') == b'[1,null,{"a":null}]'
    assert lua.eval(b"function(m) local t = m.decode('{\"a\":null}') return m.get(t, 'a') == nil end")(common)


def test_names_that_are_not_utf_8_become_json_all_the_same(common: Any) -> None:
    assert json.loads(common.encode(b"caf\xe9")) == "caf\ufffd"


def test_files_appear_whole(common: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"before")
    assert common.write(str(path).encode(), b"after")
    assert path.read_bytes() == b"after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
    done, why = common.write(str(tmp_path / "absent" / "a.json").encode(), b"x")
    assert done is None
    assert b"No such file" in why


def test_a_damaged_file_reads_as_none(common: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for data in (b"", b"{", b"[", b"\xff", b"1"):
        path.write_bytes(data)
        assert common.read_json(str(path).encode()) is None
    assert common.read_json(str(tmp_path / "gone").encode()) is None


def test_digests_are_stable_and_tell_texts_apart(common: Any) -> None:
    assert common.digest(b"abc") == b"e71fa2190541574b"  # FNV-1a, 64 bits
    assert len({common.digest(str(number).encode()) for number in range(10_000)}) == 10_000


def test_ids_are_new_each_time(common: Any) -> None:
    assert len({common.new_id() for _ in range(1_000)}) == 1_000


@given(text=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_the_shell_gives_back_what_was_quoted(common: Any, text: str) -> None:
    quoted = common.quote(text.encode(), False)
    assert quoted.startswith(b"'")
    # What a POSIX shell does with single quotes, without one: their content stands for itself.
    assert quoted[1:-1].replace(b"'\\''", b"'") == text.encode()


@pytest.mark.parametrize("text", ["$(reboot)", "a'b", '"; os.execute', "100% `x` \\ 🎸", "-n", "two\nlines"])
def test_a_real_shell_gives_back_what_was_quoted(common: Any, text: str) -> None:
    command = b"printf %s " + common.quote(text.encode(), False)
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, timeout=10)
    assert done.stdout.decode() == text
