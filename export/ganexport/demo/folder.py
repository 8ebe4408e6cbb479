"""The demo's folder: whose it is, whether a demo in it was interrupted, and what may be replaced there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ganexport.demo.options import Options
from ganruntime.errors import InputError, OutputError
from ganruntime.files import write_atomically

MARK = "demo.json"
KIND = "ganexport-demo"
SCHEMA_VERSION = 1


class DemoFolder:
    """Paths of what a demo makes.

    Attributes:
        path: the folder.
        run: the training's run folder.
        bundle: NAME.gan, named after the data.
        images: images.npz, the thousand generated images.
        bench: where bench.json and bench.png go.
        report: report.html.
    """

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self.run = path / "run"
        self.bundle = path / f"{options.data}.gan"
        self.images = path / "images.npz"
        self.bench = path / "bench"
        self.report = path / "report.html"
        self._options = options

    def open(self) -> str:
        """Makes the folder ready, and says what was found, one line; nothing where there was nothing.

        A demo that was interrupted and is asked for again with the same arguments stays as it is, so that its training
        goes on. Any other demo is replaced: what a demo makes is removed, and nothing else.

        Raises:
            InputError: there is something here that is no demo. Nothing is touched.
            OutputError: the folder cannot be made or written to.
        """
        found = self._found()
        try:
            if found is None:
                self.path.mkdir(parents=True, exist_ok=True)
                line = ""
            elif not found.get("finished") and found.get("options") == self._options.to_json():
                return f"going on with the demo in {self.path}, which was interrupted"
            else:
                self._remove()
                line = f"replacing the demo in {self.path}"
        except OSError as error:
            raise OutputError(
                f"cannot use the folder {self.path}",
                got=error.strerror or str(error),
                remedy="choose another one with --out",
            ) from error
        self.mark(finished=False)
        return line

    def mark(self, *, finished: bool, result: dict[str, Any] | None = None) -> None:
        """Writes demo.json: what the demo is of, whether it was finished, and what it found."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "options": self._options.to_json(),
            "finished": finished,
            "result": result or {},
        }
        write_atomically(self.path / MARK, (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode())

    def _found(self) -> dict[str, Any] | None:
        """The demo.json that is there; None where the folder is missing or empty."""
        if not self.path.exists() and not self.path.is_symlink():
            return None
        if not self.path.is_dir():
            raise InputError(f"{self.path} is a file", expected="a folder", remedy="choose another one with --out")
        if not any(self.path.iterdir()):
            return None
        try:
            found = json.loads((self.path / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.get("kind") != KIND:
            raise InputError(
                f"{self.path} exists and is no demo of ours",
                expected=f"a new folder, an empty one, or one with the {MARK} of an earlier demo",
                remedy="choose another one with --out; nothing was touched",
            )
        return found

    def _remove(self) -> None:
        for path in (self.run, self.bench, *(self.path / f"{name}.gan" for name in ("digits", "faces"))):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
        for path in (self.images, self.report):
            path.unlink(missing_ok=True)
