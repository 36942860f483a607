"""The map of the package is whole."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "realtime"


def test_the_readme_lists_every_module() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    listed = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    package = ROOT / "revithion_realtime"
    paths = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py")]
    present = {".".join(path.parts) for path in paths if path.name != "__init__"}
    assert set(listed) == present
    assert len(listed) == len(set(listed))
