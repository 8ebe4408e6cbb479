#!/usr/bin/env python3
"""What `import ganruntime` costs over `import numpy` alone (limit 50 ms), and `ganexport --help` in all (limit 0.3 s).

Every time is that of a fresh interpreter, all in interleaved rounds. Imports are timed inside the process, so that the
start of Python does not drown them; `--help` is timed from outside, as a person waits for it. `import ganruntime` is
lazy, so what a first `ganruntime.load` imports (Pillow among it) is timed as well, and reported beside it without a
limit. Afterwards neither torch nor a backend may have been loaded.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from report import Report, parser, run

from ganexport.benchmark.rounds import Spread
from ganexport.tables import table

LIMIT_MS, HELP_LIMIT_MS = 50.0, 300.0
FORBIDDEN = ("torch", "onnx", "onnxruntime", "tensorrt", "openvino", "sklearn", "matplotlib")
IMPORTS = {
    "numpy": "import numpy",
    "numpy + ganruntime": "import numpy, ganruntime",
    "numpy + ganruntime.load": "import numpy; from ganruntime import load",
}
TEMPLATE = """
import sys, time
start = time.perf_counter()
{statement}
seconds = time.perf_counter() - start
import json
print(json.dumps([seconds, sorted(set(sys.modules) & set({forbidden!r}))]))
"""


def import_seconds(statement: str) -> float:
    code = TEMPLATE.format(statement=statement, forbidden=FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, loaded = json.loads(done.stdout)
    if loaded:
        raise SystemExit(f"`{statement}` loads {', '.join(loaded)}")
    return float(seconds)


def help_seconds() -> float:
    script = Path(sys.executable).parent / "ganexport"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "ganexport"]
    start = time.perf_counter()
    subprocess.run([*command, "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


def main() -> int:
    chosen = parser(__doc__, rounds=15).parse_args()
    names = [*IMPORTS, "ganexport --help"]
    taken: dict[str, list[float]] = {name: [] for name in names}
    report = Report("import_time", chosen.output)
    for number in range(chosen.rounds + 1):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            seconds = import_seconds(IMPORTS[name]) if name in IMPORTS else help_seconds()
            if number:  # the first round fills the disk cache and writes the .pyc files
                taken[name].append(1e3 * seconds)
    rows, figures = [], {}
    for name in names:
        spread = Spread.of(taken[name])
        extra = Spread.of([a - b for a, b in zip(taken[name], taken["numpy"], strict=True)])
        figures[name] = {"ms": spread.to_json(), "over_numpy_ms": extra.to_json()}
        over = f"{extra.median:.1f}" if name in IMPORTS else ""
        rows.append([name, f"{spread.median:.1f}", f"{spread.low:.1f} – {spread.high:.1f}", over])
    print(f"fresh interpreters, {chosen.rounds} interleaved rounds")
    print(table(rows, ["", "ms", "quartiles", "over numpy"], frozenset({1, 2, 3})))
    report.put("contenders", figures)
    report.limit(
        "import ganruntime, over numpy alone", figures["numpy + ganruntime"]["over_numpy_ms"]["median"], LIMIT_MS, " ms"
    )
    report.limit("ganexport --help", figures["ganexport --help"]["ms"]["median"], HELP_LIMIT_MS, " ms")
    return report.finish()


if __name__ == "__main__":
    run(main)
