"""--batch and its fellows: what is taken, what is refused and in which words, and the profiles that come of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_bundles import spec_of

from ganexport.tensorrt.options import BuildOptions, buckets_from_text, text_from_buckets
from ganexport.tensorrt.profiles import Profile, profiles_from_buckets
from ganruntime.errors import InputError
from ganruntime.spec import GeneratorSpec, Image, Latent, TensorSpec


@pytest.mark.parametrize(
    ("text", "buckets"), [("1,8,64", (1, 8, 64)), (" 64, 1 ,8 ", (1, 8, 64)), ("7", (7,)), ("65536", (65536,))]
)
def test_batches_are_read_in_any_order(text: str, buckets: tuple[int, ...]) -> None:
    assert buckets_from_text(text) == buckets


@given(st.sets(st.integers(1, 65536), min_size=1, max_size=8))
def test_batches_go_to_text_and_back(buckets: set[int]) -> None:
    assert buckets_from_text(text_from_buckets(buckets)) == tuple(sorted(buckets))


@pytest.mark.parametrize(
    "text", ["", "0", "1,0", "-1", "1,,8", "1,8,", "eight", "1.5", "1e3", "0x8", "٣", "65537", "9" * 40, "1;8", "+8"]
)
def test_what_is_no_batch_is_named(text: str) -> None:
    with pytest.raises(InputError, match="is not a batch size") as caught:
        buckets_from_text(text)
    assert "1,8,64" in str(caught.value)


def test_a_batch_twice_is_an_error_with_the_right_list() -> None:
    with pytest.raises(InputError, match="8 stands there twice") as caught:
        buckets_from_text("8,1,8")
    assert "--batch 1,8" in str(caught.value)


def test_one_profile_per_bucket_and_a_dynamic_one() -> None:
    assert profiles_from_buckets((1, 8)) == (Profile(1, 1, 1), Profile(8, 8, 8), Profile(1, 8, 8))
    assert profiles_from_buckets((1,)) == (Profile(1, 1, 1),)
    assert profiles_from_buckets((4,)) == (Profile(4, 4, 4), Profile(1, 4, 4))
    assert [p.static for p in profiles_from_buckets((1, 8))] == [True, True, False]
    assert Profile(1, 4, 8).shapes(spec_of()) == {"z": ((1, 16), (4, 16), (8, 16))}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"precision": "fp8"}, "--precision is not one that to-trt builds"),
        ({"buckets": ()}, "do not rise"),
        ({"buckets": (8, 1)}, "do not rise"),
        ({"buckets": (1, 1)}, "do not rise"),
        ({"buckets": (0, 1)}, "do not rise"),
        ({"device": -1}, "--device"),
        ({"workspace_mib": 0}, "--workspace-mib"),
        ({"optimization_level": 6}, "--optimization-level"),
        ({"optimization_level": -1}, "--optimization-level"),
    ],
)
def test_options_out_of_range(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        BuildOptions(**changes)  # type: ignore[arg-type]


def test_tensors_that_are_too_large() -> None:
    wide = GeneratorSpec(
        "wide",
        (TensorSpec("z", "float32", (8,), Latent()),),
        (TensorSpec("image", "float32", (3, 1024, 1024), Image()),),
    )
    BuildOptions(buckets=(682,)).fitted(wide)
    with pytest.raises(InputError, match="--batch 683 is too large: 'image'") as caught:
        BuildOptions(buckets=(1, 683)).fitted(wide)
    assert "at most 682" in str(caught.value)
    assert BuildOptions().fitted(spec_of()) == BuildOptions()


def test_the_command_of_an_engine_can_be_pasted() -> None:
    assert BuildOptions().command("digits.gan") == "ganexport to-trt digits.gan --precision fp32 --batch 1,8,64"
    long = BuildOptions("tf32", (2,), 1, 512, 5).command("my digits.gan")
    assert long == (
        "ganexport to-trt 'my digits.gan' --precision tf32 --batch 2 --device 1 --workspace-mib 512 "
        "--optimization-level 5"
    )
