"""Results on paper: JSON there and back, Markdown, and pictures, of a result that has everything in it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import PIL.Image
import pytest

from ganexport.benchmark import quality_plot
from ganexport.benchmark.environment import environment
from ganexport.benchmark.lineup import Absent
from ganexport.benchmark.neighbours import Neighbours
from ganexport.benchmark.pictures import PICTURES, pictures_from_result
from ganexport.benchmark.plot import DARK, LIGHT, MOST_IN_BARS, Theme, png_from_result
from ganexport.benchmark.quality_plot import quality_png_from_result
from ganexport.benchmark.result import BenchResult, Latency, RepeatCheck, Served, Throughput
from ganexport.benchmark.result_text import best_lines, markdown_from_result, text_from_result
from ganexport.benchmark.rounds import Spread
from ganexport.benchmark.server_plot import server_png_from_result
from ganexport.benchmark.trial import Trial

FAMILIES = {"eager": "pytorch", "onnxruntime": "plain", "ganruntime": "ours", "ganruntime:int8@openvino": "ours"}


def trial(rate: float, p99_ms: float | None, late: int = 0) -> Trial:
    p50_ms, p90_ms = (None, None) if p99_ms is None else (p99_ms / 5, p99_ms / 2)
    return Trial(rate, 1000, late, 0, p50_ms, p90_ms, p99_ms, 40.0, 1.0)


def made(names: dict[str, str] | None = None) -> BenchResult:
    """Contender k is k + 1 times as fast as the first, and 200, 150, 100, … dB from it."""
    names = FAMILIES if names is None else names
    speeds = {name: float(k + 1) for k, name in enumerate(names)}
    fine, stopped = trial(800.0, 18.0), trial(1600.0, None, 500)
    return BenchResult(
        generator="made",
        bundle="made.gan",
        bundle_manifest_sha256="0123456789abcdef" * 4,
        checkpoint="runs/made",
        variant="fp32",
        device="cpu",
        threads=2,
        seconds=5.0,
        rounds=7,
        contenders={
            name: {"label": f"label of {name}", "includes": "i", "setting": "s", "family": family, "precision": "fp32"}
            for name, family in names.items()
        },
        absent={
            "torch_compile": Absent("torch.compile", "no compiler", failed=False),
            "openvino": Absent("plain OpenVINO", "it draws something else", failed=True),
        },
        agreement={
            8: {
                name: {"max_abs": 1e-7 * k, "max_uint8": 0.0, "bound": 1e-5, "psnr_db": max(45.0, 250.0 - 50 * k)}
                for k, name in enumerate(names)
                if k
            }
        },
        offline={
            8: {
                n: Throughput(
                    Spread(100 * s, 90 * s, 110 * s),
                    Spread(80 / s, 70 / s, 90 / s),
                    Spread(s, s, s),
                    800,
                    (70 / s, 80 / s, 90 / s),
                )
                for n, s in speeds.items()
            }
        },
        single_stream={n: Latency(8 / s, 9 / s, 30 / s, Spread(s, s, s), 1000) for n, s in speeds.items()},
        repeats={n: RepeatCheck(1.01, 1.10) for n in names},
        slo_ms=20.0,
        server={
            "onnxruntime": Served("by lock", "i", 0.0, None, 0.0, 0.0, (stopped,)),
            "ganruntime": Served("by batcher", "i", 800.0, fine, fine.confidence, 7.5, (stopped, fine, fine)),
        },
        neighbours=Neighbours(0.01),
        environment=environment(),
    )


def of_rounds(*rounds_ms: float) -> Throughput:
    rates = Spread.of([8e3 / ms for ms in rounds_ms])
    return Throughput(rates, Spread.of(rounds_ms), Spread(1.0, 1.0, 1.0), 80, rounds_ms)


def test_one_is_as_fast_as_another_round_by_round() -> None:
    """The machine was slower in two rounds of five for the one, and in three for the other."""
    ours, plain = of_rounds(1.0, 1.0, 1.0, 2.0, 2.0), of_rounds(1.1, 1.1, 2.2, 2.2, 2.2)
    assert ours.times_as_fast(plain) == pytest.approx(1.1)
    assert plain.times_as_fast(ours) == pytest.approx(1 / 1.1)
    before = replace(ours, rounds_ms=())
    assert before.times_as_fast(plain) == pytest.approx(2.2)


def test_a_record_without_rounds_is_read() -> None:
    result = made()
    data = json.loads(json.dumps(result.to_json()))
    for found in data["offline"]["8"].values():
        del found["rounds_ms"]
    before = BenchResult.from_json(data).offline[8]
    assert before == {name: replace(found, rounds_ms=()) for name, found in result.offline[8].items()}


def test_everything_comes_back_from_json() -> None:
    data = json.loads(json.dumps(made().to_json(), allow_nan=False))
    again = BenchResult.from_json(data)
    assert again == made().__class__(**{**vars(made()), "environment": again.environment})
    assert again.to_json() == data
    assert again.server["ganruntime"].trials[0].p99_ms is None
    assert data["flags"] == ["plain OpenVINO failed: it draws something else"]


def test_the_exit_code_says_what_is_wrong() -> None:
    assert made().exit_code == 1
    fine = replace(made(), absent={"torch_compile": Absent("torch.compile", "no compiler", failed=False)})
    assert (fine.exit_code, fine.flags) == (0, [])
    cached = replace(fine, repeats={"ganruntime": RepeatCheck(1.11, 1.10, looks=2)})
    assert cached.exit_code == 3
    (flag,) = cached.flags
    assert "label of ganruntime is 1.11× as fast over one latent" in flag


def test_both_texts_say_everything() -> None:
    for text in (text_from_result(made()), markdown_from_result(made(), ["bench.png"])):
        for label in (c["label"] for c in made().contenders.values()):
            assert text.count(label) >= 3
        for line in (
            "torch.compile: not measured: no compiler",
            "plain OpenVINO: FAILED: it draws something else",
            "identical",
            "none, down to 1,600",
            "99 % were answered within 20 ms of their scheduled time",
            "> 99.9%",
            "commit" if made().environment["commit"] else "python",
        ):
            assert line in text


def test_markdown_is_tables_with_a_warning_on_top() -> None:
    page = markdown_from_result(replace(made(), neighbours=Neighbours(0.4)), ["bench.png"])
    head = page.partition("## Offline")[0]
    assert "> **plain OpenVINO failed: it draws something else**" in head
    assert "> **NOT A QUIET MACHINE: other processes took 40% of the cores" in head
    assert "![bench.png](bench.png)" in head
    tables = [block for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for block in tables:
        counts = {line.count("|") for line in block.splitlines()}
        assert len(counts) == 1  # every row has as many cells as the header
    assert page.endswith("\n")


def test_the_best_of_ours_is_held_against_the_best_of_the_others() -> None:
    assert best_lines(made()) == [
        "batch 8: label of ganruntime:int8@openvino is 2.00× as fast as label of onnxruntime, the fastest that is not "
        "ours"
    ]
    assert best_lines(made({"eager": "pytorch", "onnxruntime": "plain"})) == []


def colours_in(png: bytes) -> set[tuple[int, ...]]:
    with PIL.Image.open(io.BytesIO(png)) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 24) or []}  # type: ignore[misc]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_pictures_have_the_colours_of_all_who_are_in_them(theme: Theme) -> None:
    result = made()
    colours = {name: tuple(bytes.fromhex(c[1:])) for name, c in theme.colours(result).items()}
    assert len(set(colours.values())) == len(colours)
    served = server_png_from_result(result, theme)
    assert colours["ganruntime"] in colours_in(served)
    assert colours["onnxruntime"] not in colours_in(served)  # it kept the limit at no rate
    compared = colours_in(quality_png_from_result(result, theme))
    assert {colours[name] for name in list(FAMILIES)[1:]} <= compared


def test_many_contenders_are_drawn_in_rows_and_the_picture_grows() -> None:
    names = {"eager": "pytorch", "onnxruntime": "plain"} | {f"ganruntime:v{k}": "ours" for k in range(9)}
    sizes = []
    for count in (MOST_IN_BARS, MOST_IN_BARS + 1, len(names)):
        result = replace(made(dict(list(names.items())[:count])), server={}, slo_ms=None)
        png = png_from_result(result)
        with PIL.Image.open(io.BytesIO(png)) as picture:
            sizes.append(picture.size)
        shades = {tuple(bytes.fromhex(c[1:])) for c in LIGHT.colours(result).values()}
        assert shades <= colours_in(png)
    assert sizes[0][0] == sizes[1][0] == sizes[2][0]
    assert sizes[2][1] > sizes[1][1]


def test_captions_lie_on_no_point_even_where_points_crowd_at_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half as fast as the reference up to five times: nowhere along the line is a caption's length without a point.
    names = {"eager": "pytorch"} | {f"ganruntime:v{k}": "ours" for k in range(9)}
    near = {name: {"max_abs": 0.1, "psnr_db": 48.1 + 3 * (-1) ** k} for k, name in enumerate(names) if k}
    speeds = {name: 1.0 if k == 0 else 0.5 * k for k, name in enumerate(names)}
    offline = {
        n: Throughput(Spread(100 * s, 90 * s, 110 * s), Spread(80 / s, 70 / s, 90 / s), Spread(s, s, s), 800)
        for n, s in speeds.items()
    }
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(quality_plot, "_labels", lambda *arguments: seen.append(arguments))
    quality_png_from_result(replace(made(names), agreement={8: near}, offline={8: offline}))
    ((axes, _, points, _, captions),) = seen
    assert (len(points), len(captions)) == (9, 2)
    for x, y in axes.transData.transform([point[:2] for point in points]):
        assert not any(caption.contains(x, y) for caption in captions)


def test_who_failed_half_way_is_no_reason_for_no_picture() -> None:
    result = made()
    partial = {8: {k: v for k, v in result.offline[8].items() if k != "onnxruntime"}}
    many = made({**FAMILIES, **{f"ganruntime:v{k}": "ours" for k in range(9)}})
    partial_many = {8: {k: v for k, v in many.offline[8].items() if k != "onnxruntime"}}
    for found in (replace(result, offline=partial), replace(many, offline=partial_many, server={})):
        assert png_from_result(found).startswith(b"\x89PNG")
        assert quality_png_from_result(found).startswith(b"\x89PNG")


def test_pictures_by_name() -> None:
    assert set(pictures_from_result(made())) == PICTURES
    assert set(pictures_from_result(replace(made(), server={}, slo_ms=None))) == {"bench.png", "bench-quality.png"}
