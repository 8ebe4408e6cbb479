"""The page on adding a pass: its example is run as it stands there, and so is the example's test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnx.helper as oh
import pytest
from hand_made_graphs import graph_of, normal, operators

from ganexport.passes import pipeline
from ganexport.passes.pipeline import run_passes

PAGE = Path(__file__).parents[3] / "docs/adding-a-pass.md"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """The names that the page's two blocks of Python define."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_its_tests_pass(example: dict[str, Any]) -> None:
    tests = [name for name in example if name.startswith("test_")]
    assert tests == ["test_rule_1_two_negations_are_none", "test_rule_2_both_names_are_kept"]
    for name in tests:
        example[name]()


def test_it_runs_among_the_others_and_is_proven(example: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipeline.PASSES, "remove_double_negation", example["remove_double_negation"])
    nodes = [
        oh.make_node("Neg", ["x"], ["a"]),
        oh.make_node("Neg", ["a"], ["b"]),
        oh.make_node("Add", ["b", "a"], ["c"]),
        oh.make_node("Tanh", ["c"], ["y"]),
    ]
    model = graph_of(nodes, {}, {"x": ["n", 6]})
    report, _ = run_passes(model, {"x": normal(3, 6)}, ["remove_double_negation", "prune"])
    # The middle value is read elsewhere, so the inner negation stays.
    assert operators(model) == ["Neg", "Add", "Tanh"]
    assert (report.nodes_before, report.nodes_after, report.max_abs_change) == (4, 3, 0.0)


def test_every_pass_has_a_file_of_its_name_and_numbers_its_rules() -> None:
    folder = Path(pipeline.__file__).parent
    for name, function in pipeline.PASSES.items():
        module = folder / f"{function.__module__.rpartition('.')[2]}.py"
        text = module.read_text(encoding="utf-8")
        assert f"def {name}(" in text
        assert re.search(r"^1\. ", text, re.MULTILINE), module.name
