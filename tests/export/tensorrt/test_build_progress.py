"""Phases to one fraction that never falls, a bar that shows on terminals only, callbacks that never raise."""

from __future__ import annotations

import io
import threading

from imaginary_machine import Machine

from ganexport.tensorrt.progress import PhaseTree, ProgressBar, monitor_from_phases


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nested_phases_are_one_fraction() -> None:
    seen: list[tuple[float, str]] = []
    tree = PhaseTree(lambda fraction, phase: seen.append((round(fraction, 3), phase)))
    tree.start("build", None, 2)
    assert tree.step("build", 0)
    tree.start("time", "build", 4)
    tree.step("time", 0)
    tree.step("time", 1)
    tree.start("compile", "time", 2)
    tree.step("compile", 0)
    tree.finish("compile")
    tree.finish("time")
    tree.step("build", 1)
    tree.finish("build")
    fractions = [f for f, _ in seen]
    assert fractions == [0.0, 0.5, 0.5, 0.625, 0.75, 0.75, 0.812, 0.875, 1.0, 1.0, 1.0]
    assert seen[3][1] == "time"


def test_the_fraction_never_falls_and_strange_orders_do_no_harm() -> None:
    seen: list[float] = []
    tree = PhaseTree(lambda fraction, phase: seen.append(fraction))
    tree.finish("never started")
    tree.step("never started", 3)
    tree.start("build", None, 10)
    tree.step("build", 4)
    tree.start("build", None, 10)
    tree.start("orphan", "unknown parent", 0)
    tree.step("orphan", 5)
    tree.finish("orphan")
    tree.finish("build")
    assert seen == sorted(seen)
    assert all(0.0 <= f <= 1.0 for f in seen)


def test_many_threads_report_at_once() -> None:
    tree = PhaseTree()
    tree.start("build", None, 800)

    def work(first: int) -> None:
        for step in range(first, first + 100):
            tree.start(f"node {step}", "build", 1)
            tree.step(f"node {step}", 0)
            tree.finish(f"node {step}")
            tree.step("build", step)

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tree.finish("build")
    assert tree.fraction == 1.0


def test_cancelling_asks_tensorrt_to_stop(machine: Machine) -> None:
    tree = PhaseTree()
    monitor = monitor_from_phases(tree)
    monitor.phase_start("build", None, 3)
    assert monitor.step_complete("build", 0) is True
    tree.cancelled.set()
    assert monitor.step_complete("build", 1) is False


def test_a_broken_terminal_does_not_break_the_build(machine: Machine) -> None:
    def broken(fraction: float, phase: str) -> None:
        raise OSError("the terminal is gone")

    tree = PhaseTree(broken)
    monitor = monitor_from_phases(tree)
    monitor.phase_start("build", None, 1)
    assert monitor.step_complete("build", 0) is True
    monitor.phase_finish("build")
    tree.cancelled.set()
    assert monitor.step_complete("build", 0) is False


def test_bar_shows_on_a_terminal_only() -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        bar = ProgressBar("building", stream)
        bar.update(0.5, "a phase with a name that goes on and on and on and on")
        bar.update(1.0, "done")
        bar.close()
    assert file.getvalue() == ""
    shown = terminal.getvalue()
    assert "building [###############---------------]  50%" in shown
    assert "100%" in shown
    assert shown.endswith("\r")
    last = shown.rstrip("\r").rsplit("\r", 1)[-1]
    assert last.strip() == ""
