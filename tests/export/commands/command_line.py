"""What the tests of commands say of the command line: its answers, and processes of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    code: int | None
    out: str
    err: str


Ganexport = Callable[..., Answer]
Process = Callable[..., "subprocess.Popen[str]"]
Words = Callable[[str], list[str]]
Pictures = Callable[[Path], dict[str, bytes]]


def started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A process of its own. It listens to Ctrl-C even where the tests themselves run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "ganexport", *map(str, arguments)],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=options.pop("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)),
        **options,
    )
