"""The builder in a process of its own: it really crashes, is really killed, and this process goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from imaginary_machine import Machine
from tensorrt_bundles import onnx_generator, spec_of

from ganexport.commands import main
from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.isolated import run_isolated
from ganexport.tensorrt.job import Job, run_job
from ganexport.tensorrt.options import BuildOptions
from ganruntime.bundle import read_bundle
from ganruntime.errors import DeviceError, EngineError, InputError, MissingDependencyError, OutputError

OPTIONS = BuildOptions(buckets=(1, 4))
# In the builder's own thread, as its crashes are: sent to the process, it could be served after the build had ended.
CRASH = "import signal, threading\nif step == 2: signal.pthread_kill(threading.get_ident(), signal.{})"


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def describe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **changes: object) -> Machine:
    machine = Machine(**changes).install(monkeypatch)  # type: ignore[arg-type]
    machine.describe(monkeypatch, tmp_path)
    return machine


def job(options: BuildOptions = OPTIONS) -> Job:
    return Job(onnx_generator(), spec_of(), options, "tiny.gan")


def test_the_engine_is_the_one_that_this_process_would_build(
    bundle_path: Path, tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = describe(monkeypatch, tmp_path)
    seen: list[tuple[float, str]] = []
    engine = engine_into_bundle(bundle_path, OPTIONS, on_progress=lambda *progress: seen.append(progress))
    assert machine.builds == []  # not here
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert {"Building Engine", "Timing"} <= {phase for _, phase in seen}
    bundle = read_bundle(bundle_path)
    here = run_job(Job(bundle.graph(bundle.variant("fp32")), bundle.spec, OPTIONS))
    assert engine.built.plan == here.built.plan == bundle.read(engine.variant.file)
    assert engine.readback == here.readback
    assert (engine.built.gpu, engine.built.tensorrt_version) == (here.built.gpu, here.built.tensorrt_version)
    assert list(temporary_folder.iterdir()) == []


def test_a_crash_in_the_engines_first_run_is_told_too(
    bundle_path: Path, tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, signal\nif shapes['z'][0] == 1:\n    os.kill(os.getpid(), signal.SIGSEGV)"
    describe(monkeypatch, tmp_path, run_code=code)
    with pytest.raises(EngineError, match=r"TensorRT crashed while it built the engine \(SIGSEGV\)") as caught:
        engine_into_bundle(bundle_path, OPTIONS)
    assert "SIGSEGV, in the phase 'first run of profile 1'" in str(caught.value)
    assert "do it again with:" in str(caught.value)
    assert [v.format for v in read_bundle(bundle_path).manifest.variants] == ["onnx"]


@pytest.mark.parametrize(
    ("name", "problem", "remedy"),
    [
        ("SIGSEGV", r"TensorRT crashed while it built the engine \(SIGSEGV\)", "another TensorRT release"),
        ("SIGABRT", r"TensorRT crashed while it built the engine \(SIGABRT\)", "--precision fp32 --batch 1"),
        ("SIGKILL", "was killed while it built .* for want of memory", "dmesg | grep -i oom"),
        ("SIGTERM", "was ended from outside by SIGTERM", "build again"),
    ],
)
def test_a_signal_ends_the_build_and_nothing_else(
    name: str,
    problem: str,
    remedy: str,
    bundle_path: Path,
    tmp_path: Path,
    temporary_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    describe(monkeypatch, tmp_path, step_code=CRASH.format(name))
    before = (bundle_path / "manifest.json").read_bytes()
    with pytest.raises(EngineError, match=problem) as caught:
        engine_into_bundle(bundle_path, OPTIONS)
    text = str(caught.value)
    assert f"{name}, in the phase 'Timing'" in text
    assert remedy in text
    (kept,) = temporary_folder.iterdir()
    assert f"ganexport.tensorrt.job_process {kept}" in text
    assert (kept / "model.onnx").read_bytes() == (bundle_path / "model.onnx").read_bytes()
    assert (bundle_path / "manifest.json").read_bytes() == before


def test_abort_in_native_code_leaves_the_stack_in_the_log(
    tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(monkeypatch, tmp_path, step_code="import os\nos.abort()")
    with pytest.raises(EngineError, match="SIGABRT"):
        run_isolated(job())
    (kept,) = temporary_folder.iterdir()
    assert "Fatal Python error: Aborted" in (kept / "log.txt").read_text()


def test_a_build_that_fails_again_takes_no_more_room(
    tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(monkeypatch, tmp_path, step_code="import os\nos.abort()")
    for expected in (1, 1):
        with pytest.raises(EngineError):
            run_isolated(job())
        assert len(list(temporary_folder.iterdir())) == expected
    with pytest.raises(EngineError):
        run_isolated(job(BuildOptions(buckets=(2,))))
    assert len(list(temporary_folder.iterdir())) == 2


def test_what_tensorrt_said_last_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe(
        monkeypatch,
        tmp_path,
        step_code="import sys\nfrom ganruntime.sessions import tensorrt_library as t\n"
        "import tensorrt, os\nt.shared_logger().log(tensorrt.ILogger.Severity.WARNING, 'memory is running low')\n"
        "os._exit(7)",
    )
    with pytest.raises(EngineError, match="ended without a word") as caught:
        run_isolated(job())
    assert "exit status 7" in str(caught.value)
    assert "memory is running low" in str(caught.value)


def test_the_command_in_the_error_does_it_again(
    tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(monkeypatch, tmp_path, build_errors=["Error Code 2: Internal Error (Assertion x failed.)"])
    with pytest.raises(EngineError, match="could not build") as caught:
        run_isolated(job())
    (kept,) = temporary_folder.iterdir()
    (command,) = (x.partition(": ")[2] for x in str(caught.value).splitlines() if "do it again with" in x)
    assert command == f"{sys.executable} -m ganexport.tensorrt.job_process {kept}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    again = subprocess.run(command.split(), env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "error: TensorRT could not build the engine" in again.stderr
    assert "Assertion x failed." in again.stderr
    # The same where the fault is mended: a release that builds it.
    (tmp_path / "machine.json").write_text(
        json.dumps(json.loads((tmp_path / "machine.json").read_text()) | {"build_errors": []})
    )
    mended = subprocess.run(command.split(), env=environment, capture_output=True, text=True, check=False)
    assert mended.returncode == 0, mended.stderr
    assert f"built {kept}/engine.plan" in mended.stdout


@pytest.mark.parametrize(
    ("changes", "kind", "problem", "is_kept"),
    [
        ({"unsupported": {"Tanh": "No importer registered for op: Tanh"}}, EngineError, "does not support Tanh", True),
        ({"ignores_hardware_level": True}, EngineError, "another hardware compatibility than was asked", True),
        ({"driver_cuda": 0}, DeviceError, "no NVIDIA driver", False),
        ({"version": "10.11.0.33"}, MissingDependencyError, "not a version that this release drives", False),
    ],
)
def test_errors_cross_the_pipe_as_they_are(
    changes: dict[str, object],
    kind: type[Exception],
    problem: str,
    is_kept: bool,
    tmp_path: Path,
    temporary_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    describe(monkeypatch, tmp_path, **changes)
    with pytest.raises(kind, match=problem) as caught:
        run_isolated(job(BuildOptions(buckets=(1, 4), hardware="ampere+")))
    assert type(caught.value) is kind
    assert len(list(temporary_folder.iterdir())) == is_kept
    assert ("do it again with" in str(caught.value)) == is_kept


def test_ctrl_c_stops_the_process_and_keeps_the_timings(
    tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(monkeypatch, tmp_path, step_code="import time\ntime.sleep(0.3)")
    cache = tmp_path / "timings"
    phases: list[str] = []

    def on_progress(fraction: float, phase: str) -> None:
        phases.append(phase)
        if phase == "Timing" and phases.count("Timing") == 2:
            os.kill(os.getpid(), signal.SIGINT)

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_isolated(job(BuildOptions(buckets=(1,), timing_cache=cache)), on_progress)
    assert phases[-1] == "stopping at the next step"
    assert time.monotonic() - started_s < 30
    assert cache.is_file()
    assert list(temporary_folder.iterdir()) == []


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A builder that does not come back: it holds its step for ten minutes.
    describe(monkeypatch, tmp_path, step_code="import time\ntime.sleep(600)")
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        os.kill(os.getpid(), signal.SIGINT)

    def on_progress(fraction: float, phase: str) -> None:
        if phase == "Timing":
            interrupt()
        elif phase == "stopping at the next step":
            threading.Timer(0.2, interrupt).start()

    started_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_isolated(job(), on_progress)
    assert interrupts == 2
    assert time.monotonic() - started_s < 60
    assert list(temporary_folder.iterdir()) == []


def test_the_process_ends_with_who_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that is killed leaves no builder behind: the steps stop being written."""
    steps = tmp_path / "steps"
    describe(monkeypatch, tmp_path, step_code=f"import time\nopen({str(steps)!r}, 'a').write('x')\ntime.sleep(1)")
    code = (
        "from tensorrt_bundles import onnx_generator, spec_of\n"
        "from ganexport.tensorrt.isolated import run_isolated\n"
        "from ganexport.tensorrt.job import Job\n"
        "from ganexport.tensorrt.options import BuildOptions\n"
        "run_isolated(Job(onnx_generator(), spec_of(), BuildOptions(buckets=(1,))))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        deadline_s = time.monotonic() + 60
        while not steps.exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        parent.kill()
    time.sleep(2.5)
    assert 1 <= len(steps.read_text()) <= 3  # of four


def test_the_command_line_says_it_and_goes_on(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(monkeypatch, tmp_path, step_code=CRASH.format("SIGKILL"))
    with pytest.raises(SystemExit) as stopped:
        main(["to-trt", str(bundle_path), "--batch", "1"])
    err = capsys.readouterr().err
    assert stopped.value.code == 1
    assert "error: TensorRT's process was killed" in err
    assert "do it again with: " in err
    assert "Traceback" not in err


def test_no_room_for_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not there"))
    with pytest.raises(OutputError, match="cannot make a temporary folder") as caught:
        run_isolated(job())
    assert "TMPDIR" in str(caught.value)


def test_a_folder_that_is_no_jobs(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(InputError, match="is not the folder of a build that failed"):
        Job.read(tmp_path)


def test_a_job_goes_into_its_folder_and_back(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    options = BuildOptions("tf32", (2, 8), 1, 512, 5, Path("/caches/here"))
    whole = Job(onnx_generator(labelled=True), spec_of(labelled=True), options, "a bundle.gan")
    whole.write(folder)
    assert Job.read(folder) == whole
