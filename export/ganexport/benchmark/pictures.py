"""The pictures of a result, by file name."""

from __future__ import annotations

from ganexport.benchmark.plot import png_from_result
from ganexport.benchmark.quality_plot import quality_png_from_result
from ganexport.benchmark.result import BenchResult
from ganexport.benchmark.server_plot import server_png_from_result

PICTURES = frozenset({"bench.png", "bench-quality.png", "bench-server.png"})


def pictures_from_result(result: BenchResult) -> dict[str, bytes]:
    """{file name: PNG}: throughput and latency; speed over quality; and the server scenario, where it was measured."""
    pictures = {"bench.png": png_from_result(result), "bench-quality.png": quality_png_from_result(result)}
    if result.server:
        pictures["bench-server.png"] = server_png_from_result(result)
    return pictures
