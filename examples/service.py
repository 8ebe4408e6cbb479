#!/usr/bin/env python3
"""A FastAPI service: PNG images by seed and index, many requests in one batch, and health that means something.

    pip install "ganexport[cpu,serve]"
    python examples/service.py digits.gan --port 8000
    curl http://localhost:8000/images/7/3.png > image.png
    curl http://localhost:8000/healthz

One process holds one generator. For more processes start more of them, each of which loads the bundle itself; do not
load before a fork.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

import ganruntime
from ganruntime.errors import BatcherClosed, DeadlineExceeded, GanError, InputError, Overloaded
from ganruntime.generator import Generator
from ganruntime.images import pil_from_image

TIMEOUT_MS = 5_000
# The first that fits; anything else that the runtime raises is a 500.
STATUSES: tuple[tuple[type[GanError], int], ...] = (
    (InputError, 422),
    (Overloaded, 429),
    (BatcherClosed, 503),
    (DeadlineExceeded, 504),
    (GanError, 500),
)


def app_from(load: Callable[[], Generator]) -> FastAPI:
    """The service. `load` is called when it starts, in the process that serves, and warms every bucket."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Until this is done the server takes no connection, so nobody meets a generator that is not warm.
        with await asyncio.to_thread(load) as generator, generator.batcher() as batcher:
            app.state.generator, app.state.batcher = generator, batcher
            yield
            # Closing, which waits for what is under way, would block the loop that delivers it.
            await asyncio.to_thread(batcher.close)

    app = FastAPI(title="images", lifespan=lifespan)

    @app.exception_handler(GanError)
    async def failed(request: Request, error: GanError) -> JSONResponse:
        status = next(code for kind, code in STATUSES if isinstance(error, kind))
        headers = {"Retry-After": str(math.ceil(error.retry_after_s))} if isinstance(error, Overloaded) else None
        # `problem` says what is wrong with the request; `got` may name files of this machine.
        return JSONResponse({"error": error.problem}, status, headers)

    @app.get("/images/{seed}/{index}.png")
    async def image(
        seed: int, index: int, label: str | None = None, truncation: Annotated[float | None, Query(ge=0, le=1)] = None
    ) -> Response:
        images = await app.state.batcher.submit_async(
            seed=seed, first=index, label=label, truncation=truncation, timeout_ms=TIMEOUT_MS
        )
        data = await asyncio.to_thread(png_from_image, images[0])
        # Image i of a seed is the same for ever, so every cache on the way may keep it.
        return Response(data, media_type="image/png", headers={"Cache-Control": "public, max-age=31536000, immutable"})

    @app.get("/healthz")
    async def healthz() -> JSONResponse:
        """200 if an image can be drawn within a second, ahead of what waits; else 503."""
        status, code = "ok", 200
        try:
            await app.state.batcher.submit_async(seed=0, timeout_ms=1_000, priority=1)
        except Overloaded:  # alive, with a full queue
            status = "overloaded"
        except GanError as error:
            status, code = error.problem, 503
        about: dict[str, Any] = app.state.generator.describe() | {"batcher": app.state.batcher.stats().to_json()}
        return JSONResponse(about | {"status": status}, code)

    return app


def png_from_image(image: np.ndarray) -> bytes:
    file = BytesIO()
    pil_from_image(image).save(file, "PNG")
    return file.getvalue()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bundle", type=Path, metavar="NAME.gan")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--device", default="auto")
    options.add_argument("--backend", default="auto")
    chosen = options.parse_args()
    try:
        # In this process, which serves, and before there is a server: a bundle that does not load is told in its own
        # words. Several workers (gunicorn) hand `app_from` the load itself, which runs in each of them.
        generator = ganruntime.load(chosen.bundle, chosen.device, chosen.backend)
    except GanError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    uvicorn.run(app_from(lambda: generator), host=chosen.host, port=chosen.port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
