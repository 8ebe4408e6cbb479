"""Two real processes that torchrun starts, over gloo: the same training as one process makes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_RECIPES, interrupted_after, same
from two_processes import RECIPES, STEPS, STOP, arguments, source

from ganruntime.errors import DeviceError, InputError
from gantrain.checkpoint import read_tensors
from gantrain.distributed import ALONE, Processes, processes_from_environment
from gantrain.loop import train
from gantrain.plan import device_from_name
from gantrain.run_folder import RunRecord, read_run, write_run
from gantrain.stop_signals import StopSignals, TrainingStopped

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have been through two_processes.py."""
    folder = tmp_path_factory.mktemp("two")
    stop = interrupted_after(STOP)
    with pytest.raises(TrainingStopped):
        train("dcgan", source("dcgan"), folder / "from-one", on_step=stop, **arguments("dcgan", accumulate=2))
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run([*TORCHRUN, script, folder], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    inner = run / "checkpoint" / "training"
    return {
        f"{name} {key}": tensor
        for name in ("generator", "discriminator", "optimisers")
        for key, tensor in read_tensors(inner / f"{name}.safetensors").items()
    }


def assert_close(left: Path, right: Path) -> None:
    """Four parts are added in another order by two processes: to a hundred-thousandth of each tensor's largest.
    1e-8 is for what has only begun to leave 0."""
    before, after = weights(left), weights(right)
    assert set(before) == set(after)
    for name, expected in before.items():
        assert float((after[name] - expected).abs().max()) <= 1e-5 * float(expected.abs().max()) + 1e-8, name


def assert_equal(left: Path, right: Path) -> None:
    before, after = weights(left), weights(right)
    assert set(before) == set(after)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_what_two_processes_make_of_a_training(one_thread: None, folder: Path, tmp_path: Path) -> None:
    """One test for one start of torchrun, which is most of what it costs."""
    found = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in (0, 1)]
    assert [each["threads left"] for each in found] == [[], []]
    for recipe, changes in RECIPES.items():
        # Two processes are two parts: a sum of two has the same bits in either order.
        parts = 2 * changes.get("accumulate", 1)
        train(recipe, source(recipe), tmp_path / recipe, **arguments(recipe, accumulate=parts))
        if parts == 2:
            assert_equal(tmp_path / recipe, folder / recipe)
        else:
            assert_close(tmp_path / recipe, folder / recipe)
        assert read_run(folder / recipe).processes == 2
        # SIGTERM came to the second process alone.
        for result in found:
            step, number = result[f"{recipe} stopped"]
            assert STOP <= step < STEPS
            assert number == signal.SIGTERM
        same(folder / recipe, folder / f"{recipe}-parts")  # resumed by two, bit for bit
        one = {"resume": True, "settings": {"accumulate": parts}}
        train(recipe, source(recipe), folder / f"{recipe}-kept", **one)  # and by one
        assert read_run(folder / f"{recipe}-kept").processes == 1
        (assert_equal if parts == 2 else assert_close)(folder / recipe, folder / f"{recipe}-kept")
    assert_equal(folder / "dcgan", folder / "from-one")  # begun by one, in two parts, and gone on with by two

    # What all find, the first process says; what one finds, that one does.
    assert [result["refused"][0] for result in found] == ["InputError", "PeerError"]
    assert [result["alone"][0] for result in found] == ["PeerError", "GanError"]
    assert [result["equal"] for result in found] == [[], []]
    assert [result["unequal"][:2] for result in found] == [
        ["TrainingError", "the hashes differ between the processes of this training"]
    ] * 2
    assert not (folder / "no").exists()
    twice = [(2 * torch.arange(24.0)).reshape(2, 3, 2, 2).tolist()]
    assert [result["sums"] for result in found] == [[[[3.0] * 3] * 2, 1.0, *twice]] * 2
    assert [result["largest"] for result in found] == [10, 10]


@pytest.mark.slow
def test_two_processes_are_two_parts_to_the_bit_for_every_recipe(one_thread: None, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run([*TORCHRUN, script, tmp_path, "every"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-5000:]
    runs = sorted(tmp_path.iterdir())
    assert len(runs) == len(TINY_RECIPES) + 2
    for run in runs:
        recipe, precision = run.name.rsplit("-", 1)
        given = arguments(recipe, precision=precision, accumulate=2)
        train(recipe, TINY_RECIPES[recipe][0], tmp_path / "one" / run.name, **given)
        assert_equal(run, tmp_path / "one" / run.name)


# --- by the command --------------------------------------------------------------------------------------------------

SMALL = [
    "--set",
    "size=8",
    "--set",
    "batch=8",
    "--set",
    "metrics_every=0",
    "--set",
    "images=50",
    "--set",
    "log_every=1",
]
MLP = ["mlp", "--data", "digits", *SMALL]


def started(run: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [*TORCHRUN, "-m", "ganexport", "train", *arguments, "--out", str(run)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(process: subprocess.Popen[str], run: Path) -> None:
    """Until a few lines are logged."""
    for _ in range(1200):
        if (run / "log.jsonl").is_file() and (run / "log.jsonl").read_text().count("\n") > 3:
            return
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.1)
    raise AssertionError("it never began")


def children(pid: int) -> list[int]:
    """Process numbers in the order of their ranks."""
    return sorted(int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["torchrun", "the second process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_with_one_checkpoint(tmp_path: Path, whom: str, number: signal.Signals) -> None:
    run = tmp_path / "run"
    process = started(run, *MLP, "--steps", "1000000")
    wait_for_steps(process, run)
    os.kill(process.pid if whom == "torchrun" else children(process.pid)[1], number)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("stopped after step") == 1, err
    assert "to go on: torchrun --nproc-per-node 2 -m ganexport train mlp" in err
    step = int(err.split("stopped after step ")[1].split(";")[0])
    state = json.loads((run / "checkpoint" / "training" / "state.json").read_text())
    assert state["step"] == step
    train("mlp", None, run, resume=True, steps=step + 1)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_others_with_an_error(tmp_path: Path, rank: int) -> None:
    run = tmp_path / "run"
    process = started(run, *MLP, "--steps", "1000000")
    wait_for_steps(process, run)
    os.kill(children(process.pid)[rank], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert f"error: process {1 - rank} of 2 has lost another process of this training" in err
    train("mlp", None, run, resume=True, steps=1, settings={"checkpoint_every": 1})


@pytest.mark.slow
def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    for given, problem in (
        ([*MLP, "--set", "accumulate=8"], "a batch cannot be taken in so many parts"),
        ([*MLP, "--set", "bitch=8"], "no setting is called 'bitch'"),
        ([*MLP, "--set", "generator_lr=1e30", "--set", "discriminator_lr=1e30"], "training has diverged"),
        (["mlp", "--data", str(tmp_path / "nothing")], "nothing"),
    ):
        _, err = started(tmp_path / "run", *given).communicate(timeout=120)
        assert err.count("error: ") == 1, err
        assert problem in err
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_train_together(tmp_path: Path) -> None:
    process = started(tmp_path / "run", *MLP, "--steps", "20", "--device", "cuda")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-5000:]
    record = read_run(tmp_path / "run")
    assert (record.device, record.processes) == ("cuda", 2)


# --- without any -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"WORLD_SIZE": "2"}, "not which one this is"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is no number"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost"}, "none of the processes"),
    ],
    ids=["no rank", "no number", "too high"],
)
def test_variables_that_make_no_sense_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=problem):
        processes_from_environment()


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes_from_environment() == ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes_from_environment() == ALONE
    tensor = torch.tensor([2.0])
    ALONE.sum_([tensor])
    ALONE.check_equal("nothing", lambda: pytest.fail("not even computed"))
    assert (float(tensor), ALONE.largest(7), ALONE.first) == (2.0, 7, True)


def test_under_torchrun_a_signal_that_comes_twice_is_one_wish() -> None:
    """torchrun passes on a signal that the process may have had already; the second must not cost the checkpoint."""
    with StopSignals(patient=True) as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_record_of_before_processes_is_one_of_one(tmp_path: Path) -> None:
    record = RunRecord("mlp", {}, {}, 0, "cpu", 1, {}, 3)
    write_run(tmp_path, record)
    assert read_run(tmp_path) == record
    table = json.loads((tmp_path / "run.json").read_text())
    del table["processes"]
    (tmp_path / "run.json").write_text(json.dumps(table))
    assert read_run(tmp_path).processes == 1


@pytest.mark.parametrize(("name", "problem"), [("cuda:1", "cannot share a GPU"), ("cuda", "cuda:5 is not there")])
def test_every_process_has_a_gpu_of_its_own(name: str, problem: str) -> None:
    with pytest.raises((InputError, DeviceError), match=problem):
        device_from_name(name, Processes(5, 6, 5))
