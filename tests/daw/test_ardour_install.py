"""What the installer writes is read by Ardour itself; what Ardour writes then is read by the installer."""

from __future__ import annotations

from pathlib import Path

import pytest

from ardour_desktop import ArdourDesktop, ArdourHome, wait_until
from revithion_bridge.daw_install.ardour_install import install_ardour, uninstall_ardour
from revithion_bridge.daw_install.ardour_ui_scripts import LuaScript, UiScripts, format_ui_scripts, parse_ui_scripts
from revithion_stems.errors import RevithionError

# Ardour removes a hook that fails, and then writes all that is left.
FAILING_HOOK = b"""ardour { ["type"] = "EditorHook", name = "Fails" }
function factory () return function () error ("as it should") end end
"""


def is_written(data: bytes) -> bool:
    return b'"77"' not in data and data.endswith(b"</UIScripts>\n")


def test_what_ardour_has_written_again_goes_through_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVITHION_STATE_DIR", str(tmp_path / "state"))
    home = ArdourHome(tmp_path / "home")
    home.install()
    file = home.config / "ui_scripts"
    ours = parse_ui_scripts(file.read_bytes())
    script = LuaScript(name="Fails", source=FAILING_HOOK, path=tmp_path / "fails.lua")
    (failing,) = UiScripts({}, ()).with_ours((), (script,)).hooks
    failing.set("id", "77")
    before = format_ui_scripts(UiScripts(ours.slots, (*ours.hooks, failing)))
    file.write_bytes(before)

    with ArdourDesktop(home, home.new_session(tmp_path / "Album")):
        wait_until(lambda: is_written(file.read_bytes()), 30, "Ardour did not write the file")
        with pytest.raises(RevithionError, match="close it first"):
            uninstall_ardour(home.config)

    written = parse_ui_scripts(file.read_bytes())
    assert format_ui_scripts(written) == file.read_bytes()
    assert written.our_slots() == ours.our_slots()
    assert written.slots != ours.slots  # it holds bytecode now
    (hook,) = written.hooks
    bits = hook.get("signals", "")[::-1]
    assert {place for place, bit in enumerate(bits) if bit == "1"} == {46, 47}
    assert not install_ardour(home.config).changes
    uninstall_ardour(home.config)
    assert list(parse_ui_scripts(file.read_bytes()).slots) == [1]  # the user's own
