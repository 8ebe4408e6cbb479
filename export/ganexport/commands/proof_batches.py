"""The batch sizes of a proof, as an option of the commands that prove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_DEFAULT = "1,2,3,64,257"  # ganexport.gate.BATCHES, whose import would cost every --help its time

proof_batches_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--batch",
    "batches",
    default=_DEFAULT,
    show_default=True,
    metavar="N,N,…",
    help="Batch sizes to prove it in, two or more; they stand in the verdict. Every batch is run full, so that large "
    "images take their time in large ones.",
)


def proof_batches_from_text(text: str) -> tuple[int, ...]:
    """`1,2,8` as batch sizes, in rising order.

    Raises:
        InputError: they are no whole numbers of 1 or more, one stands there twice, or there is one alone: what is
            frozen to a batch size shows in another one only.
    """
    from ganruntime.errors import InputError

    parts = [part.strip() for part in text.split(",")]
    known = all(part.isascii() and part.isdecimal() and int(part) >= 1 for part in parts)
    batches = tuple(sorted({int(part) for part in parts})) if known else ()
    if len(batches) < 2 or len(batches) < len(parts):
        raise InputError(
            "--batch is not a list of batch sizes to prove in",
            got=repr(text),
            expected="two or more different whole numbers from 1 on, such as 1,2,3,8",
        )
    return batches
