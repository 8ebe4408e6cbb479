"""The timing cache file: read, written whole, refused where it is another's, damaged or not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from imaginary_machine import FakeGpu, Machine
from tensorrt_bundles import write_bundle

from ganexport.tensorrt.into_bundle import engine_into_bundle
from ganexport.tensorrt.options import BuildOptions
from ganexport.tensorrt.timing_cache import TimingCacheFile, TimingCacheKey
from ganruntime.errors import InputError

KEY = TimingCacheKey("11.4.0.106", "sm89", "NVIDIA L4", "13.0")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = TimingCacheFile.at(tmp_path / "cache", KEY)
    assert file.read() == b""
    for blob in (b"timings\n\x00of kernels", b"", b"x" * 100_000):
        file.write(blob)
        assert file.read() == blob
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_a_folder_holds_one_file_per_environment(tmp_path: Path) -> None:
    other = TimingCacheKey("10.16.1.11", "sm90", "NVIDIA H200", "12.9")
    TimingCacheFile.at(tmp_path, KEY).write(b"one")
    TimingCacheFile.at(tmp_path, other).write(b"two")
    assert TimingCacheFile.at(tmp_path, KEY).read() == b"one"
    assert TimingCacheFile.at(tmp_path, other).read() == b"two"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "nvidia-h200.sm90.trt10.16.1.11.cuda12.9.timing",
        "nvidia-l4.sm89.trt11.4.0.106.cuda13.0.timing",
    ]


@pytest.mark.parametrize(
    "other",
    [
        TimingCacheKey("11.3.0.99", "sm89", "NVIDIA L4", "13.0"),
        TimingCacheKey("11.4.0.106", "sm90", "NVIDIA L4", "13.0"),
        TimingCacheKey("11.4.0.106", "sm89", "NVIDIA L40S", "13.0"),
        TimingCacheKey("11.4.0.106", "sm89", "NVIDIA L4", "12.9"),
    ],
)
def test_another_environment_is_refused(tmp_path: Path, other: TimingCacheKey) -> None:
    TimingCacheFile.at(tmp_path / "cache", other).write(b"theirs")
    with pytest.raises(InputError, match="of another environment") as caught:
        TimingCacheFile.at(tmp_path / "cache", KEY).read()
    assert str(other) in str(caught.value)
    assert str(KEY) in str(caught.value)


def test_damage_is_found_before_tensorrt_sees_it(tmp_path: Path) -> None:
    file = TimingCacheFile.at(tmp_path / "cache", KEY)
    file.write(b"timings of many kernels")
    whole = file.path.read_bytes()
    for damaged, problem in (
        (whole[:-1], "its hash does not match"),
        (whole[:-1] + b"S", "its hash does not match"),
        (whole[:60], "header that cannot be read"),
        (whole.replace(b'"sha256"', b'"sha257"'), "header that cannot be read"),
        (b"\x7fELF or trtexec's own cache", "not a timing cache that ganexport wrote"),
        (b"ganexport timing cache 1\n[]\nx", "header that cannot be read"),
        (b"", "not a timing cache that ganexport wrote"),
    ):
        file.path.write_bytes(damaged)
        with pytest.raises(InputError, match=problem) as caught:
            file.read()
        assert f"rm {file.path}" in str(caught.value)


def test_a_second_build_times_nothing(machine: Machine, bundle_path: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for expected in (4, 0):
        engine = engine_into_bundle(bundle_path, BuildOptions(buckets=(1, 2), timing_cache=cache))
        assert machine.builds[-1]["timed"] == expected
    assert engine.built.timing_cache_hit_bytes > 0


def test_another_machines_cache_stops_the_build(bundle_path: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    cache = tmp_path / "cache"
    Machine().install(monkeypatch)
    engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), timing_cache=cache))
    before = cache.read_bytes()
    for changes in ({"version": "10.16.1.11+double"}, {"gpus": [FakeGpu("Imaginary H200", 9, 0)]}):
        machine = Machine(**changes).install(monkeypatch)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="of another environment"):
            engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), timing_cache=cache))
        assert machine.builds == []
    assert cache.read_bytes() == before


def test_what_tensorrt_refuses_is_an_error(machine: Machine, bundle_path: Path, tmp_path: Path) -> None:
    engine = engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), timing_cache=tmp_path / "cache"))
    key = TimingCacheKey.of(engine.built.tensorrt_version, engine.built.gpu)
    for blob in (b"not TensorRT's", b'{"version": "9.9", "capability": [1, 0], "timings": {}}'):
        TimingCacheFile.at(tmp_path / "cache", key).write(blob)
        with pytest.raises(InputError, match="refuses the timing cache") as caught:
            engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), timing_cache=tmp_path / "cache"))
        assert "rm " in str(caught.value)


def test_two_builds_at_once_keep_the_timings_of_both(machine: Machine, bundle_path: Path, tmp_path: Path) -> None:
    """One reads the cache, another writes it meanwhile, the first writes: a third build finds what both timed."""
    cache = tmp_path / "cache"
    other = write_bundle(tmp_path / "other.gan", labelled=True).path
    options = BuildOptions(buckets=(1,), timing_cache=cache)
    built_meanwhile = False

    def at_step(step: int) -> None:
        nonlocal built_meanwhile
        if not built_meanwhile:
            built_meanwhile = True
            engine_into_bundle(other, options)

    machine.at_step = at_step
    engine_into_bundle(bundle_path, options)
    machine.at_step = None
    for path in (bundle_path, other):
        engine_into_bundle(path, options)
        assert machine.builds[-1]["timed"] == 0


def test_a_cache_that_was_damaged_meanwhile_is_not_written_over(
    machine: Machine, bundle_path: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"

    def at_step(step: int) -> None:
        cache.write_bytes(b"another program's file")

    machine.at_step = at_step
    with pytest.raises(InputError, match="is not a timing cache that ganexport wrote"):
        engine_into_bundle(bundle_path, BuildOptions(buckets=(1,), timing_cache=cache))
    assert cache.read_bytes() == b"another program's file"
