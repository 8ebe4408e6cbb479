"""Runs the command line: in this process where that shows the same, and as a process of its own where it matters."""

from __future__ import annotations

import shlex

import pytest
from command_line import Answer, Ganexport, Pictures, Process, Words, started

from ganexport.commands import main


@pytest.fixture
def ganexport(capsys: pytest.CaptureFixture[str]) -> Ganexport:
    """`ganexport("inspect", path)` -> exit code, stdout, stderr."""

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Answer(stop.value.code, out, err)

    return run


@pytest.fixture
def ganexport_process() -> Process:
    return started


@pytest.fixture
def go_on() -> Words:
    """The words of the command that an interrupted run prints, as a shell would read them."""

    def words(err: str) -> list[str]:
        (line,) = [line for line in err.splitlines() if "go on with: " in line]
        name, *arguments = shlex.split(line.partition("go on with: ")[2])
        assert name == "ganexport"
        return arguments

    return words


@pytest.fixture
def pictures() -> Pictures:
    """Every file of a folder, hidden ones too."""
    return lambda folder: {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
