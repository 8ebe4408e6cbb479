"""The report: one HTML file with every picture inside it, that a person likes to read and a machine can archive."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ganexport.benchmark.environment import lines_from_environment
from ganexport.benchmark.plot import DARK, LIGHT, SIZE_PIXELS, png_from_result
from ganexport.benchmark.result import OFFLINE_HEADER, STREAM_HEADER, offline_rows, ratio_text, stream_rows
from ganexport.benchmark.result_text import notes
from ganexport.demo.options import IMAGES, IMAGES_SEED
from ganexport.demo.page import image
from ganexport.demo.pictures import Picture, losses_plot, shares_plot, sheet
from ganexport.demo.pipeline import STRIP_COLUMNS, DemoResult
from ganruntime import __version__
from gantrain.page_parts import card, code, figure, html_table, page, section, tiles

_BESIDE, _BESIDE_COLUMNS = 36, 6


def html_from_result(result: DemoResult) -> str:
    """The whole page."""
    show = result.options.show
    title = f"{show.title}: from training data to production images"
    return page(title, "\n".join([_header(result, title), *_sections(result), _footer(result)]))


def _sections(result: DemoResult) -> list[str]:
    return [
        _stages(result),
        _training(result),
        _beside(result),
        _judgement(result),
        _resemblance(result),
        _interpolation(result),
        _parity(result),
        _benchmark(result),
        _by_hand(result),
    ]


def _header(result: DemoResult, title: str) -> str:
    o, bench = result.options, result.bench
    largest = max(bench.offline)
    ours, stream = bench.offline[largest]["ganruntime"], bench.single_stream["ganruntime"]
    verdict = next(iter(result.verification.findings.values())).verdict
    judged = result.judgement
    items = [
        (
            "passed" if judged.passed else "failed",
            f"{sum(c.holds for c in judged.conditions)} of {len(judged.conditions)} conditions on the images hold",
            "good" if judged.passed else "bad",
        ),
        (f"{verdict.errors['max_abs']:.1e}", f"largest error of the graph over {verdict.latents:,} latents", "good"),
        (f"{ours.images_per_second.median:,.0f}/s", f"images from the runtime, batch {largest}", ""),
        (ratio_text(stream.ratio.median), "as fast as eager PyTorch, one image at a time", ""),
        (ratio_text(ours.ratio.median), f"as fast as eager PyTorch, batch {largest}", ""),
        (f"{_clock(result.seconds)} min", "for all of it, training included", ""),
    ]
    image_spec = result.spec.image
    assert image_spec is not None
    channels, height, width = image_spec.shape
    colour = "grey" if channels == 1 else "colour"
    article = "An" if o.recipe[0] in "aefhilmnorsx" else "A"  # before a name that is spelt out
    subtitle = (
        f"{article} {o.recipe.upper()} was trained on {len(result.source.images):,} {colour} images of "
        f"{width} × {height} pixels, "
        f"exported to ONNX, proven against PyTorch, and served by a runtime that needs no PyTorch."
    )
    when = result.environment["time_utc"][:16].replace("T", " ")
    return (
        f'<header><p class="kicker">ganexport {escape(__version__)} demo · {escape(when)} UTC · seed {o.seed}</p>'
        f'<h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p></header>{tiles(items)}' + _quiet_note(result)
    )


def _quiet_note(result: DemoResult) -> str:
    if result.bench.neighbours.quiet:
        return ""
    return (
        f'<div class="note warn">{escape(_sentence(result.bench.neighbours.sentence()))} The speeds here are of '
        f"a machine that had other work; everything else is not affected.</div>"
    )


def _stages(result: DemoResult) -> str:
    rows = [[s.name, _duration(s.seconds), s.outcome] for s in result.stages]
    return section(
        "done",
        "What was done",
        "Six stages, each a command of its own; the last section lists them.",
        card(html_table(["stage", "time", "outcome"], rows, frozenset({1}))),
    )


def _training(result: DemoResult) -> str:
    rows = []
    for step, images in result.timeline.items():
        strip = image(sheet(images, len(images)), f"{len(images)} samples after {step} steps", scale=2)
        rows.append(f'<div class="row"><span>step {step:,}</span>{strip}</div>')
    last = max(result.timeline)
    return section(
        "training",
        "Training",
        f"The same {len(next(iter(result.timeline.values())))} latents at every step: each column is one image coming "
        f"into being.",
        card(
            figure(
                "".join(rows),
                f"Drawn by the running average of the generator's weights, from step 0 (untrained layers) "
                f"to step {last:,}.",
            )
        ),
        card(
            figure(
                image(losses_plot(result.log), "losses and discriminator outputs over the steps", pixelated=False),
                "Left: what each network minimises. A GAN's losses do not fall to zero; they settle while the two keep "
                "each other busy. Right: the probability of being real that the discriminator gives to either side; "
                "the nearer the two curves, the harder it is to tell them apart. Thin: every tenth step. Bold: running "
                "mean.",
            )
        ),
    )


def _beside(result: DemoResult) -> str:
    noun = result.options.show.noun
    real_index = np.linspace(0, len(result.source.images) - 1, _BESIDE).astype(int)
    real = sheet(result.source.images[real_index], _BESIDE_COLUMNS)
    generated = sheet(result.images[:_BESIDE], _BESIDE_COLUMNS)
    left = card(figure(image(real, f"{_BESIDE} real {noun}", scale=2), f"From the {len(result.source.images):,} {noun} "
                       f"trained on, evenly spaced."), "Real")  # fmt: skip
    right = card(figure(image(generated, f"{_BESIDE} generated {noun}", scale=2), f"The first {_BESIDE} of seed "
                        f"{IMAGES_SEED}, not chosen, drawn by the runtime."), "Generated")  # fmt: skip
    return section(
        "beside", "Real beside generated", "Neither side was picked by hand.", f'<div class="two">{left}{right}</div>'
    )


def _judgement(result: DemoResult) -> str:
    judged = result.judgement
    lines = "".join(
        f'<li class="{"good" if c.holds else "bad"}"><b>{"✓" if c.holds else "✗"}</b><span>{escape(c.text)}</span>'
        f"<span>{escape(c.found)}</span></li>"
        for c in judged.conditions
    )
    verdict = "Every condition holds." if judged.passed else "Not every condition holds: train for more steps."
    caption = (
        f"Share of each class among the real images (grey) and among {IMAGES:,} generated ones (orange). A generator "
        f"that knows only part of its data shows gaps here."
    )
    return section(
        "judged",
        f"{IMAGES:,} images, judged",
        escape(judged.judge),
        card(f'<ul class="checks">{lines}</ul>'),
        f'<div class="note {"good" if judged.passed else "bad"}">{verdict}</div>',
        card(figure(image(shares_plot(judged.shares), "shares of classes", pixelated=False), caption)),
    )


def _resemblance(result: DemoResult) -> str:
    found = result.resemblance

    def pairs(chosen: Sequence[tuple[int, int]]) -> Picture:
        generated = result.images[[g for g, _ in chosen]]
        real = result.source.images[[r for _, r in chosen]]
        return sheet(np.concatenate([generated, real]), len(chosen))

    kinds = (
        ("Nearest of all", found.pairs[: found.nearest_pairs], "those that come closest to a training image"),
        ("Typical", found.pairs[found.nearest_pairs :], "from the middle of the field"),
    )
    cards = "".join(
        card(
            figure(
                image(pairs(chosen), f"{title}: generated above, nearest real below", scale=2),
                f"Top: generated, {text}. Bottom: for each, the training image nearest to it.",
            ),
            title,
        )
        for title, chosen, text in kinds
    )
    ratio = found.generated_distance / max(found.real_distance, 1e-9)
    return section(
        "copied",
        "Were they copied?",
        f"A generator that memorised its data would draw training images. The median generated image is "
        f"{found.generated_distance:.1f} grey levels from its nearest training image, and the median training image "
        f"{found.real_distance:.1f} from its nearest other one: {ratio:.2f} times as far. "
        f"{found.copies:.1%} of the generated images are nearer to a training image than the closest 1 % of training "
        f"images are to each other. Spread over the images: {found.diversity:.2f} of the real one.",
        f'<div class="two">{cards}</div>',
    )


def _interpolation(result: DemoResult) -> str:
    strips = image(sheet(result.strips, STRIP_COLUMNS), "images between two latents", scale=2)
    return section(
        "between",
        "Between two latents",
        "A good generator has no cracks: on the way from one latent to another, every image is one that could be real.",
        card(
            figure(
                strips,
                "Each row goes from one latent (left) to another (right), along the great circle between them, drawn "
                "by the runtime from latents given to it.",
            )
        ),
    )


def _parity(result: DemoResult) -> str:
    rows = []
    for name, finding in result.verification.findings.items():
        v, e = finding.verdict, finding.verdict.errors
        rows.append(
            [
                name,
                f"{v.backend} on {v.device}",
                f"{v.latents:,}",
                ", ".join(map(str, v.batches)),
                f"{e['max_abs']:.1e}",
                f"{v.bound:.0e}",
                f"{e['mean_abs']:.1e}",
                f"{e['max_uint8']:.0f}",
                f"{e['psnr_db']:.0f} dB",
                "holds" if v.passed else "FAILS",
            ]
        )
    header = ["variant", "where", "latents", "batches", "max error", "bound", "mean", "levels", "PSNR", ""]
    checks = "".join(
        f'<li class="{"bad" if problems else "good"}"><b>{"✗" if problems else "✓"}</b><span>{escape(check)}</span>'
        f"<span>{escape('; '.join(problems) or 'holds')}</span></li>"
        for check, problems in result.verification.checks.items()
    )
    reference = next(iter(result.verification.findings.values())).verdict.reference
    return section(
        "proof",
        "Proof",
        f"The exported graph against {escape(reference)}, over golden latents that are kept in the bundle, so that any "
        f"machine can repeat this without PyTorch.",
        card(
            html_table(header, rows, frozenset({2, 4, 5, 6, 7, 8}))
            + '<p class="small">Errors are in the output\'s own range, [−1, 1]. Levels: the most that a pixel differs, '
            "of 255.</p>"
        ),
        card(f'<ul class="checks">{checks}</ul>'),
    )


def _benchmark(result: DemoResult) -> str:
    bench = result.bench
    plot = Picture(png_from_result(bench, LIGHT), *SIZE_PIXELS, png_from_result(bench, DARK))
    lines = "".join(f"<li>{escape(_sentence(line))}</li>" for line in [*notes(bench), bench.neighbours.sentence()])
    return section(
        "benchmark",
        "Benchmark",
        "Eager PyTorch, a plain ONNX Runtime loop and the runtime, on the same latents and threads, in interleaved "
        "rounds. Outputs were checked against each other before anything was timed.",
        card(
            figure(
                image(plot, "throughput by batch size and latency of one image", pixelated=False),
                "Left: images a second when all latents are there at once; above each bar, how many times as fast as "
                "eager PyTorch with its faster number of threads; whiskers span the quartiles of the rounds. Right: "
                "the time of a single image: the dot is the median, the bar ends at the 90th percentile, its shadow at "
                "the 99th.",
            )
        ),
        card(html_table(OFFLINE_HEADER, offline_rows(bench), frozenset({0, 2, 3, 4, 5}))),
        card(html_table(STREAM_HEADER, stream_rows(bench), frozenset({1, 2, 3, 4, 5}))),
        f'<details class="small"><summary>How it was measured</summary><ul>{lines}</ul></details>',
    )


def _by_hand(result: DemoResult) -> str:
    commands = [s.command for s in result.stages if s.command]
    environment = "".join(f"<li>{escape(line)}</li>" for line in lines_from_environment(dict(result.environment)))
    in_python = [
        "import ganruntime",
        "",
        f'with ganruntime.load("{result.folder.bundle}") as generator:',
        f"    images = generator.generate(16, seed={IMAGES_SEED})   # uint8, the first 16 on this page",
        "    z = generator.latents(2, seed=7)",
        "    pair = generator(z)                        # images of latents of your own",
    ]
    return section(
        "by-hand",
        "By hand",
        "The same again, a command at a time. Each has --help.",
        card(code(commands), "Commands"),
        card(code(in_python), "In your own program, without PyTorch"),
        card(f'<div class="small"><ul>{environment}</ul></div>', "Environment"),
    )


def _footer(result: DemoResult) -> str:
    digest = result.bench.bundle_manifest_sha256
    return (
        f"<footer>{escape(result.spec.name)} · bundle manifest SHA-256 {escape(digest[:16])}… · graph "
        f"{result.graph_bytes / 2**20:.1f} MiB · {escape(str(result.folder.path))}</footer>"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{_clock(seconds)} min"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _sentence(text: str) -> str:
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else text + "."
