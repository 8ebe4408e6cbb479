"""The one command: help, exit codes, errors that a person can read, and nothing heavy for nothing."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest
from command_line import Ganexport, Process

from ganexport.bundling import Exported
from ganexport.commands import COMMANDS, main
from ganexport.commands import ganexport as group
from ganruntime import __version__, backend_log
from ganruntime.backend_log import backends_are_quiet

HEAVY = {
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "tensorrt",
    "numpy",
    "PIL",
    "sklearn",
    "matplotlib",
    "safetensors",
}


def test_each_command_fits_a_line_of_eighty_columns(ganexport: Ganexport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = ganexport("--help").out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command_with_a_line(ganexport: Ganexport, flag: str) -> None:
    answer = ganexport(flag)
    assert (answer.code, answer.err) == (0, "")
    for name, (_, line) in COMMANDS.items():
        assert name in answer.out
        assert line.split()[0] in answer.out
    assert "Example:" in answer.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(ganexport: Ganexport, name: str) -> None:
    answer = ganexport(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "Example:" in answer.out
    assert f"ganexport {name} " in answer.out.partition("Example:")[2]
    assert answer.out.startswith(f"Usage: ganexport {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_help_are_commands_that_parse(name: str) -> None:
    import shlex

    command = group.get_command(click.Context(group), name)
    assert command is not None
    lines = [line.strip() for line in (command.help or "").partition("Example:")[2].splitlines()]
    examples = [line for line in lines if line.startswith("ganexport ")]
    words = [shlex.split(line, comments=True)[1:] for line in examples]
    assert name in [called for called, *_ in words]
    for called, *arguments in words:  # the next step may be shown as well
        other = group.get_command(click.Context(group), called)
        assert other is not None
        other.make_context(called, arguments)  # raises where an option is not one


def test_the_version_is_that_of_the_package(ganexport: Ganexport) -> None:
    assert ganexport("--version").out == f"ganexport, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["generate", "--help"], ["verify", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from ganexport.commands import main\n"
        "try:\n    main(json.loads(sys.argv[1]))\n"
        "finally:\n    print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stderr))
    assert "click" in loaded
    assert not loaded & HEAVY


def test_help_answers_at_once() -> None:
    """CPU seconds, the best of three: other work on the machine does not count."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "ganexport", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["verfy"], "verify"),
        (["to-onx"], "to-onnx"),
        (["to_onnx"], "to-onnx"),
        (["generat"], "generate"),
        (["inspct"], "inspect"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(ganexport: Ganexport, arguments: list[str], word: str) -> None:
    answer = ganexport(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert f"No such command '{arguments[0]}'" in answer.err
    assert f"Did you mean '{word}'?" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["inspect"],
        ["inspect", "a.gan", "b.gan"],
        ["generate", "a.gan"],
        ["generate", "a.gan", "-o", "x", "-n", "many"],
        ["generate", "a.gan", "-o", "x", "-n", "0"],
        ["generate", "a.gan", "-o", "x", "--seed", "-1"],
        ["generate", "a.gan", "-o", "x", "--seed", str(2**64)],
        ["generate", "a.gan", "-o", "x", "--truncation", "half"],
        ["verify", "a.gan", "--latents", "0", "--against", "run"],
        ["verify", "a.gan", "--latents", "5"],
        ["verify", "a.gan", "--seed", "5"],
        ["to-onnx", "run"],
        ["to-onnx", "-o", "a.gan"],
        ["to-onnx", "run", "--factory", "a:b", "-o", "a.gan"],
        ["to-onnx", "--spec", "s.json", "-o", "a.gan"],
        ["to-onnx", "run", "-o", "a.gan", "--random", "keep"],
        ["spec", "-o", "s.json"],
        ["to-onnx", "run", "--spec", "s.json", "-o", "a.gan"],
        ["to-onnx", "run", "-o", "a.gan", "--opset", "17"],
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_word_on_stderr(
    ganexport: Ganexport, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ganexport(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Error: " in answer.err
    assert "Usage: ganexport" in answer.err
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_ours_is_exit_code_1_with_its_remedy_and_no_traceback(ganexport: Ganexport, tmp_path: Path) -> None:
    for command in (["inspect"], ["verify"], ["generate", "-o", tmp_path / "x"]):
        answer = ganexport(command[0], tmp_path / "no.gan", *command[1:])
        assert (answer.code, answer.out) == (1, "")
        assert answer.err == (
            f"error: no bundle at {tmp_path / 'no.gan'}\n"
            "  remedy:   ganexport to-onnx CHECKPOINT -o NAME.gan makes one\n"
        )


def test_with_debug_set_an_error_comes_with_its_traceback(ganexport_process: Process, tmp_path: Path) -> None:
    process = ganexport_process("inspect", tmp_path / "no.gan", env=os.environ | {"GANEXPORT_DEBUG": "1"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "Traceback (most recent call last)" in err
    assert "ganruntime.errors.BundleError: no bundle at" in err


def test_a_reader_that_went_away_is_no_error(ganexport_process: Process, exported_once: Exported) -> None:
    """`ganexport inspect NAME.gan | head -1`, with a head that is gone before the first byte."""
    for arguments in (["inspect", exported_once.path], ["inspect", exported_once.path, "--json"], ["--help"]):
        read, write = os.pipe()
        os.close(read)
        process = ganexport_process(*arguments, stdout=write)
        os.close(write)
        _, err = process.communicate(timeout=60)
        assert err == ""
        assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_standard_output_on_a_full_disk_is_an_error(ganexport_process: Process, exported_once: Exported) -> None:
    for arguments in (["inspect", exported_once.path], ["recipes"], ["--help"]):
        with Path("/dev/full").open("w") as full:
            process = ganexport_process(*arguments, stdout=full)
        _, err = process.communicate(timeout=60)
        assert err == "error: cannot read or write standard output\n  got:      No space left on device\n"
        assert process.returncode == 1


def test_a_shell_pipe_into_head_is_quiet(exported_once: Exported) -> None:
    done = subprocess.run(
        f"{sys.executable} -m ganexport inspect {exported_once.path} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{exported_once.path}: dcgan-generator\n"
    assert done.stderr == ""


def test_ctrl_c_within_a_command_is_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], exported_once: Exported
) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ganruntime.bundle.read_bundle", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(exported_once.path)])
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == "stopped"


@pytest.mark.parametrize(("debug", "quiet"), [("", True), ("1", False)])
def test_commands_keep_backends_quiet_unless_they_are_debugged(
    monkeypatch: pytest.MonkeyPatch, debug: str, quiet: bool
) -> None:
    monkeypatch.setattr(backend_log, "_quiet", False)
    monkeypatch.setenv("GANEXPORT_DEBUG", debug)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert backends_are_quiet() is quiet
