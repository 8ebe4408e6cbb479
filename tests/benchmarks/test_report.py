"""What benchmark scripts share: limits that hold or do not, the file that says so, and how a script ends."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from report import Report, parser, run

from ganruntime.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("value", "status"), [(4.0, 0), (5.0, 0), (5.1, 1)])
def test_a_figure_over_its_limit_is_a_status_of_1_and_in_the_file(
    value: float, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("made", tmp_path / "new" / "made.json")
    report.put("figures", {"µ": value})
    report.limit("overhead", value, 5.0, " %")
    assert report.finish() == status
    assert ("DOES NOT HOLD" in capsys.readouterr().out) == (status == 1)
    found = json.loads((tmp_path / "new" / "made.json").read_text(encoding="utf-8"))
    assert found["figures"] == {"µ": value}
    assert found["limits"] == [{"what": "overhead", "value": value, "limit": 5.0, "unit": " %", "holds": status == 0}]
    assert {"share", "quiet"} == set(found["neighbours"])
    assert {"time_utc", "cpu"} <= found["environment"].keys()


def ended(main: object) -> object:
    with pytest.raises(SystemExit) as stop:
        run(main)  # type: ignore[arg-type]
    return stop.value.code


def test_a_script_ends_with_its_status_and_an_error_is_one_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise InputError("no generator is called 'x'", expected="digits")

    assert (ended(lambda: 0), ended(lambda: 1), ended(fails)) == (0, 1, 2)
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[0]) == ("", "error: no generator is called 'x'")


def test_a_fault_of_the_script_itself_keeps_its_traceback() -> None:
    def faulty() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(faulty)


def test_every_measuring_script_ends_by_it() -> None:
    scripts = {path.name: path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("*.py")}
    measuring = {name for name, text in scripts.items() if "__main__" in text and "from report import" in text}
    assert len(measuring) > 10
    for name in measuring:
        last = ast.parse(scripts[name]).body[-1]
        assert ast.unparse(last).splitlines()[1:] == ["    run(main)"], name


@pytest.mark.parametrize("rounds", ["0", "-3", "2.5"])
def test_rounds_are_one_at_least(rounds: str) -> None:
    with pytest.raises(SystemExit):
        parser("made", 3).parse_args(["--rounds", rounds])
