"""The examples, each run as its docstring says."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

import ganruntime
from ganruntime.batcher import Batcher
from ganruntime.errors import BackendError
from ganruntime.generator import Generator
from ganruntime.sessions.fake import fake_generator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(name: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def pixels(data: bytes | Path) -> np.ndarray:
    return np.asarray(Picture.open(io.BytesIO(data) if isinstance(data, bytes) else data))


def expected(bundle: Path, seed: int, index: int, **arguments: Any) -> np.ndarray:
    with ganruntime.load(bundle, "cpu", "onnxruntime", threads=1, buckets=(1,)) as generator:
        return np.squeeze(generator.generate(1, seed=seed, first=index, **arguments)[0])


def is_same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """To within the level that another batch size may cost."""
    return found.shape == wanted.shape and int(np.abs(found.astype(int) - wanted).max()) <= 1


def test_every_example_is_tested_and_told_of() -> None:
    here, docs = Path(__file__).read_text(), (ROOT / "docs/embedding.md").read_text()
    for example in EXAMPLES.glob("*.py"):
        assert f'"{example.name}"' in here
        assert f"examples/{example.name}" in docs


# The script


def test_the_script_draws_a_sheet_and_one_image(bundle_path: Path, tmp_path: Path) -> None:
    done = run("draw.py", bundle_path, "--seed", 7, "-n", 6, "-o", tmp_path / "sheet.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 images on onnxruntime cpu" in done.stdout
    assert pixels(tmp_path / "sheet.png").size > 6 * 64
    assert is_same(pixels(tmp_path / "sheet.3.png"), expected(bundle_path, 7, 3))


def test_the_script_says_what_is_wrong(tmp_path: Path) -> None:
    done = run("draw.py", tmp_path / "none.gan", "-o", tmp_path / "sheet.png")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no bundle at")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-n", 0, "-o", "a.png"], 2, "-n is a count from 1 on"),
        (["-o", "sheet"], 2, "-o the name of a .png"),
        (["-o", "no/such/folder/a.png"], 1, "error: [Errno 2] No such file or directory"),
    ],
)
def test_the_script_refuses_what_it_cannot_do(
    bundle_path: Path, tmp_path: Path, arguments: list[Any], code: int, said: str
) -> None:
    done = run("draw.py", bundle_path, *arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


# The worker


def test_the_worker_answers_every_job(conditional_path: Path, tmp_path: Path) -> None:
    jobs = [{"id": f"job{i}", "seed": 7, "index": i, "label": "two", "truncation": i / 40} for i in range(40)]
    lines = [json.dumps(job) for job in jobs]
    lines += ['{"id": "odd", "seed": -1, "index": 0}', "not JSON", '{"id": "short"}', '{"id": "late", "seed": 1, "index": 1, "timeout_ms": 0}', "[]"]  # fmt: skip  # noqa: E501
    done = run("worker.py", conditional_path, "-o", tmp_path / "images", input="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    answers = {a["id"]: a for a in map(json.loads, done.stdout.splitlines())}
    for job in jobs:
        wanted = expected(conditional_path, 7, job["index"], label="two", truncation=job["truncation"])  # type: ignore[call-overload]
        assert is_same(pixels(Path(answers[job["id"]]["file"])), wanted)
    assert "seed" in answers["odd"]["error"]
    assert "time ran out" in answers["late"]["error"]
    assert len(done.stdout.splitlines()) == 45
    stats = json.loads(done.stderr)
    assert stats["completed"] == 40
    assert stats["batches"] < 40


def test_the_worker_reads_files_whatever_their_last_line(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("\n".join(json.dumps({"id": i, "seed": 1, "index": i}) for i in range(3)))
    for name, count in ((tmp_path / "jobs", 3), (Path(os.devnull), 0)):
        with name.open() as jobs:
            done = run("worker.py", bundle_path, "-o", tmp_path, stdin=jobs)
        assert done.returncode == 0, done.stderr
        assert sorted(json.loads(line)["id"] for line in done.stdout.splitlines()) == list(range(count))
    assert is_same(pixels(tmp_path / "2.png"), expected(bundle_path, 1, 2))


def test_the_worker_finishes_what_it_has_when_it_is_told_to_end(bundle_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "worker.py"), str(bundle_path), "-o", str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("".join(json.dumps({"id": i, "seed": 1, "index": i}) + "\n" for i in range(20)))
        worker.stdin.flush()
        first = worker.stdout.readline()
        worker.send_signal(signal.SIGTERM)  # the input stays open: the signal alone ends it
        rest = worker.stdout.read().splitlines()
        assert worker.wait(30) == 0
    answers = [json.loads(line) for line in [first, *rest]]
    assert all(Path(a["file"]).exists() for a in answers)


# The service


@pytest.fixture
def service() -> ModuleType:
    pytest.importorskip("fastapi", reason="FastAPI is not installed (extra: serve)")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra: serve)")
    pytest.importorskip("httpx", reason="httpx is not installed (extra: dev)")
    spec = importlib.util.spec_from_file_location("example_service", EXAMPLES / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI looks annotations up there
    spec.loader.exec_module(module)
    return module


def client(service: ModuleType, generator: Generator) -> Any:
    from fastapi.testclient import TestClient

    return TestClient(service.app_from(lambda: generator))


def test_the_service_draws_by_seed_and_index(service: ModuleType) -> None:
    generator = fake_generator(buckets=(4,))
    wanted = generator.generate(1, seed=7, first=3)[0]
    with client(service, generator) as http:
        answer = http.get("/images/7/3.png")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert "immutable" in answer.headers["cache-control"]
        assert np.array_equal(pixels(answer.content), wanted)
        health = http.get("/healthz")
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert health.json()["batcher"]["completed"] == 2
        assert health.json()["backend"] == "fake"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/images/-1/0.png", 422),
        ("/images/x/0.png", 422),
        ("/images/0/18446744073709551616.png", 422),
        ("/images/0/0.png?label=cat", 422),
        ("/images/0/0.png?truncation=2", 422),
        ("/images/0/0.png?truncation=nan", 422),
        ("/images/0", 404),
    ],
)
def test_what_does_not_fit_is_the_callers_error(service: ModuleType, path: str, status: int) -> None:
    with client(service, fake_generator()) as http:
        assert http.get(path).status_code == status
        assert http.get("/healthz").status_code == 200


def test_a_full_queue_is_429_and_says_when_to_come_back(service: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = fake_generator(buckets=(1,), seconds=0.3)
    monkeypatch.setattr(generator, "batcher", lambda: Batcher(generator, max_queue_images=1))
    with client(service, generator) as http:
        answers: list[Any] = []
        threads = [
            threading.Thread(target=lambda i=i: answers.append(http.get(f"/images/1/{i}.png"))) for i in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = sorted(a.status_code for a in answers)
        assert codes[0] == 200
        assert codes[-1] == 429
        refused = next(a for a in answers if a.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert "full" in refused.json()["error"]


def test_a_backend_that_fails_is_not_healthy(service: ModuleType) -> None:
    generator = fake_generator()
    with client(service, generator) as http:
        generator.session.fail_when = lambda inputs: True  # type: ignore[attr-defined]
        answer = http.get("/images/0/0.png")
        assert (answer.status_code, answer.json()) == (500, {"error": "the fake was told to fail"})
        health = http.get("/healthz")
        assert (health.status_code, health.json()["status"]) == (503, "the fake was told to fail")
        generator.session.fail_when = None  # type: ignore[attr-defined]
        assert http.get("/healthz").status_code == 200


def test_a_generator_that_does_not_load_keeps_the_service_from_starting(service: ModuleType) -> None:
    from fastapi.testclient import TestClient

    def load() -> Generator:
        raise BackendError("no such backend")

    with pytest.raises(BackendError), TestClient(service.app_from(load)):
        pass


def test_a_bundle_that_does_not_load_is_told_without_a_traceback(service: ModuleType, tmp_path: Path) -> None:
    done = run("service.py", tmp_path / "none.gan")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no bundle at")
    assert "Traceback" not in done.stderr


def test_the_service_serves_and_ends_when_it_is_told_to(service: ModuleType, conditional_path: Path) -> None:
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(EXAMPLES / "service.py"), str(conditional_path), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while True:
            try:
                assert httpx.get(f"{base}/healthz").json()["status"] == "ok"
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.1)
        answer = httpx.get(f"{base}/images/7/3.png", params={"label": "one", "truncation": 0.5})
        assert is_same(pixels(answer.content), expected(conditional_path, 7, 3, label="one", truncation=0.5))
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) in (0, -signal.SIGTERM)
        assert server.stderr is not None
        log = server.stderr.read()
    assert "Application shutdown complete" in log
    assert not re.search("Traceback|ERROR", log)
