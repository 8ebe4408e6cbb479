"""`ganexport to-trt` in this process: what it answers."""

from __future__ import annotations

import pytest

from ganexport.commands import main


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, in which there is no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main(["to-trt", *map(str, words)])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return int(stopped.value.code or 0), out, err
