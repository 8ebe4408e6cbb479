"""The progress of a training: one line on a terminal, a line now and then in a file."""

from __future__ import annotations

import shutil

from gantrain.progress import ProgressLine, StepReport


class Stream:
    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.text = ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def _report(step: int) -> StepReport:
    return StepReport(step, 200, 64 * step, 0.5, 1.25, 0.8, 0.3, 0.75, step * 0.1, 640.0)


def test_progress_on_a_terminal_is_one_line() -> None:
    stream = Stream(True)
    progress = ProgressLine(stream)  # type: ignore[arg-type]
    for step in (1, 100, 200):
        progress(_report(step))
    progress.close()
    assert stream.text.count("\n") == 1
    assert stream.text.endswith("\n")
    *_, last = stream.text.split("\r")
    assert "] 200/200  0:00 left  loss D 0.500 G 1.250  D(x) 0.80" in last
    assert len(last.rstrip("\n")) < shutil.get_terminal_size().columns


def test_progress_in_a_file_is_a_line_now_and_then() -> None:
    stream = Stream(False)
    progress = ProgressLine(stream)  # type: ignore[arg-type]
    for step in range(1, 201):
        progress(_report(step))
    progress.close()
    assert "\r" not in stream.text
    lines = stream.text.splitlines()
    assert len(lines) == 2  # the first and the last: no 15 seconds went by
    assert (
        lines[-1] == "step 200/200  0:00 left  loss D 0.500 G 1.250  D(x) 0.80 D(G(z)) 0.30  D right 75%  640 images/s"
    )
    assert "0:20 left" in lines[0]
