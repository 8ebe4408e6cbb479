"""Who is measured: names, defaults, what every contender says and draws, and those that cannot run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ganexport.benchmark.agreement import check_outputs
from ganexport.benchmark.contender import Arrays, EagerPyTorch, close_all
from ganexport.benchmark.lineup import KINDS, Lineup, Pick, lineup_for, pick_from_text, picks_for, why_from_error
from ganexport.benchmark.result import BenchResult
from ganexport.benchmark.runtime_contenders import Runtime
from ganexport.benchmark.scenarios import bench_bundle
from ganexport.benchmark.settings import Settings
from ganexport.benchmark.torch_contenders import Bfloat16Autocast, ChannelsLast, Compiled
from ganexport.benchmark.turns import pool_of
from ganexport.bundling import Exported
from ganexport.source import Source
from ganruntime.bundle import Bundle, read_bundle
from ganruntime.errors import BackendError, InputError, MissingDependencyError

QUICK = Settings(batches=(2,), seconds=0.02, rounds=2, threads=1)


@pytest.fixture(scope="module")
def bundle(exported_once: Exported) -> Bundle:
    return read_bundle(exported_once.path)


@pytest.fixture(scope="module")
def bundle_with_pixels(exported_with_pixels_once: Exported) -> Bundle:
    return read_bundle(exported_with_pixels_once.path)


def lineup_of(bundle: Bundle, source: Source, *names: str, threads: int = 1) -> Lineup:
    picks = picks_for(bundle, "cpu", threads, "onnxruntime", names, only=bool(names))
    variant = bundle.variant("fp32")
    return lineup_for(bundle, variant, source.module, picks, device="cpu", threads=threads, batches=(3,))


@pytest.mark.parametrize(
    ("text", "pick"),
    [
        ("torch-compile", Pick("torch_compile")),
        ("torch_compile", Pick("torch_compile")),
        ("onnxruntime:int8", Pick("onnxruntime", "int8")),
        ("ganruntime@openvino", Pick("ganruntime", None, "openvino")),
        ("ganruntime:int8@openvino/2", Pick("ganruntime", "int8", "openvino", 2)),
        ("ganruntime_uint8:fp32-uint8", Pick("ganruntime_uint8", "fp32-uint8")),
    ],
)
def test_names_are_read(text: str, pick: Pick) -> None:
    assert pick_from_text(text) == pick
    assert pick_from_text(pick.name) == pick


@pytest.mark.parametrize(
    "text", ["", "jax", "eager:fp32", "openvino@onnxruntime", "ganruntime@cpu", "ganruntime:int8@openvino/0", "eager\n"]
)
def test_names_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        pick_from_text(text)


def test_defaults_and_what_was_asked_for_come_once_and_in_families(bundle: Bundle) -> None:
    asked = ("ganruntime:fp32", "onnxruntime", "openvino", "channels-last")
    picks = picks_for(bundle, "cpu", 2, "onnxruntime", asked, only=False)
    assert [p.name for p in picks] == [
        "eager", "eager_1_thread", "channels_last", "onnxruntime", "openvino", "ganruntime", "ganruntime:fp32",
        "ganruntime_uint8",
    ]  # fmt: skip
    assert [p.name for p in picks_for(bundle, "cpu", 1, "onnxruntime", ("openvino",), only=True)] == [
        "eager",
        "openvino",
    ]
    assert [p.kind for p in picks_for(bundle, "cpu", 2, "openvino", (), only=False)] == [
        k for k in KINDS if k not in ("channels_last", "bf16_autocast", "torch_compile")
    ]
    with pytest.raises(InputError, match="no onnx variant 'int4'"):
        picks_for(bundle, "cpu", 1, "onnxruntime", ("openvino:int4",), only=False)


def test_contenders_say_what_they_are_timed_on(bundle: Bundle, source_once: Source) -> None:
    lineup = lineup_of(bundle, source_once, threads=2)
    for contender in lineup.contenders:
        assert "latents in host memory -> " in contender.includes
        assert ("1 thread(s)" if contender.name == "eager_1_thread" else "2 thread(s)") in contender.setting()
    assert "buckets [1, 3, 4, 16, 64]" in lineup.contenders[-1].setting()
    assert [c.gives_pixels for c in lineup.contenders] == [False, False, False, False, True]
    close_all(lineup.contenders)


@pytest.mark.parametrize("kind", [ChannelsLast, Bfloat16Autocast])
def test_ways_of_pytorch_draw_the_same_and_leave_the_network_alone(
    bundle: Bundle, source_once: Source, kind: type[EagerPyTorch]
) -> None:
    before = source_once.weights_sha256()
    eager = EagerPyTorch(source_once.module, bundle.spec, "cpu", 1)
    way = kind(source_once.module, bundle.spec, "cpu", 1)
    found, failures = check_outputs([eager, way], bundle.spec, pool_of(bundle, 3), "cpu")
    assert failures == {}
    assert (way.precision == "bf16") == (found[way.name]["max_abs"] > 1e-5)
    assert source_once.weights_sha256() == before
    assert next(source_once.module.parameters()).dtype == torch.float32
    outputs = way.run(pool_of(bundle, 3)[0])
    assert outputs["image"].dtype == np.float32


def test_autocast_is_held_to_the_floor_of_its_precision(
    bundle: Bundle, source_once: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over the bound of fp32 passes as bf16, and what is under its floor does not."""
    eager = EagerPyTorch(source_once.module, bundle.spec, "cpu", 1)
    way = Bfloat16Autocast(source_once.module, bundle.spec, "cpu", 1)
    way.precision, way.floors = "fp32", None
    _, failures = check_outputs([eager, way], bundle.spec, pool_of(bundle, 3), "cpu")
    assert "over the bound" in str(failures["bf16_autocast"])
    right = way.run

    def rough(inputs: Arrays) -> Arrays:
        return {name: np.round(array * 4) / 4 for name, array in right(inputs).items()}  # type: ignore[operator]

    way.precision, way.floors = Bfloat16Autocast.precision, Bfloat16Autocast.floors
    monkeypatch.setattr(way, "run", rough)
    _, failures = check_outputs([eager, way], bundle.spec, pool_of(bundle, 3), "cpu")
    assert "under the floor 37 dB" in str(failures["bf16_autocast"])


def test_a_variant_that_gives_pixels_is_compared_as_pixels(bundle_with_pixels: Bundle, source_once: Source) -> None:
    lineup = lineup_of(bundle_with_pixels, source_once, "onnxruntime:fp32-uint8", "ganruntime:fp32-uint8")
    assert [c.gives_pixels for c in lineup.contenders] == [False, True, True]
    assert "uint8 images" in lineup.contenders[1].includes
    found, failures = check_outputs(lineup.contenders, bundle_with_pixels.spec, pool_of(bundle_with_pixels, 2), "cpu")
    assert failures == {}
    assert set(found["ganruntime:fp32-uint8"]) == {"max_uint8", "psnr_db"}
    close_all(lineup.contenders)


def test_torch_compile_without_a_compiler_is_absent_and_says_why(
    bundle: Bundle, source_once: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCompiler(RuntimeError):
        pass

    def broken(module: object, **options: object) -> object:
        def call(*inputs: object) -> object:
            raise NoCompiler("no C++ compiler found\nmany lines")

        call.to = lambda device: call  # type: ignore[attr-defined]
        return call

    monkeypatch.setattr(torch, "compile", broken)
    limit = torch._dynamo.config.recompile_limit  # type: ignore[attr-defined]
    found = bench_bundle(bundle, source_once, "x", Settings(**_quick(contenders=("torch-compile",))))
    assert "torch_compile" not in found.contenders
    assert not found.absent["torch_compile"].failed
    assert "NoCompiler: no C++ compiler found" in found.absent["torch_compile"].why
    assert found.exit_code in (0, 3)
    assert torch._dynamo.config.recompile_limit == limit  # type: ignore[attr-defined]


@pytest.mark.slow
def test_torch_compile_draws_the_same_at_every_batch_size(bundle: Bundle, source_once: Source) -> None:
    eager = EagerPyTorch(source_once.module, bundle.spec, "cpu", 1)
    try:
        compiled = Compiled(source_once.module, bundle.spec, "cpu", 1, (2,))
    except BackendError as error:
        pytest.skip(f"torch.compile does not work here: {error.got}")
    for batch in (2, 3):
        _, failures = check_outputs([eager, compiled], bundle.spec, pool_of(bundle, batch)[:2], "cpu")
        assert failures == {}
    compiled.close()


def _quick(**changes: object) -> dict[str, object]:
    return {"batches": (2,), "seconds": 0.02, "rounds": 2, "threads": 1} | changes


def test_who_was_asked_for_and_is_not_installed_is_absent_and_a_default_is_an_error(
    bundle: Bundle, source_once: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ganexport.benchmark.plain_contenders as module

    def missing() -> None:
        raise MissingDependencyError("no openvino", remedy='pip install "ganexport[openvino]"')

    monkeypatch.setattr(module, "import_openvino", missing)
    lineup = lineup_of(bundle, source_once, "openvino", "ganruntime")
    assert [c.name for c in lineup.contenders] == ["eager", "ganruntime"]
    assert 'pip install "ganexport[openvino]"' in lineup.absent["openvino"].why
    close_all(lineup.contenders)
    monkeypatch.setattr(module, "import_onnxruntime", missing)
    with pytest.raises(MissingDependencyError):
        lineup_of(bundle, source_once)


def test_who_fails_while_it_is_timed_is_listed_and_the_others_go_on(
    bundle: Bundle, source_once: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, right = [0], Runtime.run

    def sometimes(self: Runtime, inputs: Arrays) -> Arrays:
        runs[0] += self.name == "ganruntime"
        if self.name == "ganruntime" and runs[0] > len(pool_of(bundle, 1)) + len(pool_of(bundle, 2)) + 3:
            raise RuntimeError("out of memory\nand more")
        return right(self, inputs)

    monkeypatch.setattr(Runtime, "run", sometimes)
    found: BenchResult = bench_bundle(bundle, source_once, "x", QUICK)
    assert found.absent["ganruntime"].why == "RuntimeError: out of memory"
    assert found.absent["ganruntime"].failed
    assert found.exit_code == 1
    assert list(found.single_stream) == ["eager", "onnxruntime", "ganruntime_uint8"]


def test_errors_in_one_line() -> None:
    error = BackendError("it broke", got="this", remedy="do that")
    assert why_from_error(error) == "it broke (got this); do that"
    assert why_from_error(KeyError()) == "KeyError: no message"
