"""The batch sizes of a proof, as the commands take them: obeyed, in the manifest, refused where they prove little."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Ganexport

from ganexport.commands.proof_batches import proof_batches_from_text
from ganexport.gate import BATCHES
from ganruntime.bundle import read_bundle
from ganruntime.errors import InputError


@pytest.mark.parametrize(
    ("text", "batches"), [("1,2", (1, 2)), ("8, 1,3", (1, 3, 8)), (",".join(map(str, BATCHES)), BATCHES)]
)
def test_batches_come_in_rising_order(text: str, batches: tuple[int, ...]) -> None:
    assert proof_batches_from_text(text) == batches


@pytest.mark.parametrize("text", ["", "1", "0,1", "1,1", "2,1,2", "1,,2", "1;2", "-1,2", "1.5,2", "a,b", "١,2", "²,3"])
def test_what_proves_little_or_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a list of batch sizes to prove in"):
        proof_batches_from_text(text)


@pytest.mark.parametrize("command", ["to-onnx", "precision", "verify"])
def test_by_default_they_are_those_of_the_gate(ganexport: Ganexport, command: str) -> None:
    assert f"[default: {','.join(map(str, BATCHES))}]" in " ".join(ganexport(command, "--help").out.split())


def test_each_command_proves_in_those_that_it_is_given(
    ganexport: Ganexport, checkpoint_once: Path, tmp_path: Path
) -> None:
    bundle, few = tmp_path / "few.gan", ("--batch", "1,3")
    made = ganexport("to-onnx", checkpoint_once, "-o", bundle, "--latents", 6, "--no-uint8", *few)
    assert (made.code, "verified over 6 latents in batches 1, 3" in made.out) == (0, True)
    added = ganexport("precision", bundle, "bf16", "--latents", 6, "--calibration-latents", 8, *few)
    assert added.code == 0, added.err
    verdicts = [v for variant in read_bundle(bundle).manifest.variants for v in variant.verdicts]
    assert [(v.latents, v.batches) for v in verdicts] == [(6, (1, 3))] * 2
    held = ganexport("verify", bundle, "--batch", "2,5")
    assert (held.code, "batches 2, 5" in held.out) == (0, True)
    assert {v.batches for variant in read_bundle(bundle).manifest.variants for v in variant.verdicts} == {(2, 5)}


def test_a_list_that_is_none_is_refused_before_anything_runs(ganexport: Ganexport, tmp_path: Path) -> None:
    for command in (("precision", tmp_path / "none.gan", "bf16"), ("verify", tmp_path / "none.gan")):
        answer = ganexport(*command, "--batch", "3")
        assert (answer.code, answer.out) == (1, "")
        assert "--batch is not a list of batch sizes to prove in" in answer.err
