"""What the scripts here share: their options, a result file with environment and neighbours, and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ganexport.benchmark.environment import environment, lines_from_environment
from ganexport.benchmark.neighbours import NeighbourWatch
from ganruntime.errors import GanError
from ganruntime.files import write_atomically

RESULTS = Path(__file__).parent / "results"


class Report:
    """Collects figures against limits; `finish` prints them, writes results/NAME.json and says whether all hold."""

    def __init__(self, name: str, output: Path | None) -> None:
        self.name = name
        self._output = output or RESULTS / f"{name}.json"
        self.environment = environment()
        self._watch = NeighbourWatch()
        self._data: dict[str, Any] = {}
        self._limits: list[dict[str, Any]] = []

    def put(self, key: str, value: Any) -> None:
        self._data[key] = value

    def limit(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """A figure that may not be over its limit."""
        self._limits.append({"what": what, "value": value, "limit": limit, "unit": unit, "holds": value <= limit})

    def finish(self) -> int:
        """0 if every limit holds, else 1."""
        neighbours = self._watch.found()
        for entry in self._limits:
            verdict = "holds" if entry["holds"] else "DOES NOT HOLD"
            value, limit = f"{entry['value']:.3g}{entry['unit']}", f"{entry['limit']:g}{entry['unit']}"
            print(f"{entry['what']}: {value}, limit {limit}: {verdict}")
        print(*lines_from_environment(self.environment), neighbours.sentence(), sep="\n")
        data = {
            "schema_version": 1,
            "name": self.name,
            **self._data,
            "limits": self._limits,
            "neighbours": {"share": neighbours.share, "quiet": neighbours.quiet},
            "environment": self.environment,
        }
        self._output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._output, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())
        print(f"written: {self._output}")
        return 0 if all(entry["holds"] for entry in self._limits) else 1


def parser(description: str | None, rounds: int, seconds: float | None = None) -> argparse.ArgumentParser:
    """--rounds, --output, and with a default --seconds."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--rounds", type=_at_least_one, default=rounds, help="interleaved rounds (default %(default)s)"
    )
    if seconds is not None:
        options.add_argument(
            "--seconds",
            type=float,
            default=seconds,
            help="time of each contender over all rounds (default %(default)s)",
        )
    options.add_argument("-o", "--output", type=Path, help="result file (default benchmarks/results/NAME.json)")
    return options


def run(main: Callable[[], int]) -> NoReturn:
    """Ends the script with what `main` returns: 0 where every limit holds, 1 where one does not; and with 2, and the
    error on stderr, where nothing could be measured."""
    try:
        status = main()
    except GanError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value
