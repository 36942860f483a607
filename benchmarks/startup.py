"""How long the command line takes to answer: ``--help`` and ``--version`` beside a bare interpreter.

    python benchmarks/startup.py [--runs 15] [--json FILE]

Whole processes that take turns; medians and the ratio to ``python -c pass``. Files are in the disk cache after round 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

_MAIN = [sys.executable, "-c", "from revithion_stems.cli.main import main; main()"]
SIDES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import revithion_stems": [sys.executable, "-c", "import revithion_stems"],
    "--help": [*_MAIN, "--help"],
    "separate --help": [*_MAIN, "separate", "--help"],
    "models list": [*_MAIN, "models", "list"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(options.runs + 1):
        for side, command in SIDES.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                times[side].append(time.perf_counter() - started)
    base = times["python -c pass"]
    for side, values in times.items():
        ratio = statistics.median(own / other for own, other in zip(values, base, strict=True))
        spread = f"{min(values):.3f}–{max(values):.3f}"
        print(f"{side:<24} median {statistics.median(values):.3f} s ({spread}), {ratio:.1f} × a bare interpreter")
    if options.json:
        options.json.write_text(json.dumps(times, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
