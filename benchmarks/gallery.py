"""The gallery: trains, exports, verifies and scores every case of `gallery_cases`, and writes its records, pictures and
page.

    benchmarks/gallery.py --work FOLDER [NAME …]     the named cases, or all; what is done already is not done again
    benchmarks/gallery.py --work FOLDER --page       records, pictures and page of what is there, nothing trained

FOLDER keeps runs and bundles, which are not committed. `docs/gallery/` gets a record (JSON) and a sheet (PNG) of each
case, `docs/gallery.md` its sections, and `train/gantrain/previews/` what `ganexport recipes --preview` shows. A
training that was stopped is gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
from gallery_cases import CASES, Case
from gallery_page import page_with
from gallery_pictures import png_of, preview_of, preview_of_vectors, sheet_of, sheet_of_vectors

from ganruntime.files import write_atomically
from gantrain.recipes import recipe_from_name
from gantrain.run_folder import read_run

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"
PREVIEWS = ROOT / "train" / "gantrain" / "previews"
SCHEMA_VERSION = 1


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", metavar="NAME", help="cases; all if left out")
    options.add_argument("--work", type=Path, required=True, help="where runs and bundles are kept")
    options.add_argument("--page", action="store_true", help="train nothing")
    given = options.parse_args()
    unknown = set(given.names) - set(CASES)
    if unknown:
        options.error(f"no case is called {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    given.work.mkdir(parents=True, exist_ok=True)
    cases = [CASES[name] for name in given.names or CASES]
    if not given.page:
        for case in cases:
            for seed in case.seeds:
                make(case, given.work, seed)
    for case in cases:
        publish(case, given.work)
    records = {file.stem: json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))}
    page = page_with(PAGE.read_text(), [records[name] for name in CASES if name in records])
    write_atomically(PAGE, page.encode())
    return 0


def make(case: Case, work: Path, seed: int) -> None:
    """Trains, exports, verifies and scores one run, as far as that is not done; each leaves a file that says so.

    What follows a step that had to be done is done again. A training that was begun with other arguments is not gone on
    with: `--resume` would go on with the old ones.
    """
    afresh = False
    for step, arguments in case.commands(work, seed).items():
        done = work / f"{case.name}-{seed}.{step}.json"
        if not afresh and done.is_file() and json.loads(done.read_text())["arguments"] == arguments:
            continue
        afresh = True
        begun = step == "train" and _begun(case, work, seed, arguments)
        extra = ["--resume"] if begun else []
        print(f"ganexport {' '.join([*arguments, *extra])}", flush=True)
        output, seconds, cpu_seconds = _ganexport([*arguments, *extra], quiet=step == "train")
        answer = json.loads(output) if "--json" in arguments else None
        entry = {
            "arguments": arguments,
            # Of a training that was stopped nobody knows what its first part took.
            "seconds": None if begun else round(seconds, 1),
            "cpu_seconds": None if begun else round(cpu_seconds, 1),
            "answer": answer,
        }
        write_atomically(done, json.dumps(entry, indent=1).encode())


def _begun(case: Case, work: Path, seed: int, arguments: Sequence[str]) -> bool:
    """Whether this training was begun and stopped; notes that it is begun otherwise."""
    folder, note = case.run(work, seed), work / f"{case.name}-{seed}.begun.json"
    if not folder.is_dir():
        write_atomically(note, json.dumps(list(arguments)).encode())
        return False
    if not note.is_file() or json.loads(note.read_text()) != list(arguments):
        raise SystemExit(f"{folder} was begun with other arguments than the case has now: remove it to train it anew")
    return True


def publish(case: Case, work: Path) -> None:
    """Writes the case's record, sheet and preview from runs that are whole; nothing where none is."""
    runs = [run for run in (_run_record(case, work, seed) for seed in case.seeds) if run is not None]
    if not runs:
        print(f"{case.name}: no run is whole, and its record stays as it is")
        return
    first = int(runs[0]["seed"])
    bundle = case.bundle(work, first)
    record = {
        "schema_version": SCHEMA_VERSION,
        "name": case.name,
        "recipe": case.recipe,
        "data": case.data,
        "shows": case.shows,
        "neighbours": case.neighbours,
        "runs": runs,
    }
    RECORDS.mkdir(parents=True, exist_ok=True)
    write_atomically(RECORDS / f"{case.name}.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    vectors = recipe_from_name(case.recipe).kind == "vector"
    run = case.run(work, first)
    write_atomically(RECORDS / f"{case.name}.png", sheet_of_vectors(run) if vectors else sheet_of(bundle, first))
    neighbours = Path(f"{case.run(work, first)}-scores") / "neighbours.png"
    if neighbours.is_file() and case.neighbours:
        with PIL.Image.open(neighbours) as picture:
            write_atomically(RECORDS / f"{case.name}-neighbours.png", png_of(picture.convert("RGB")))
    if case.preview:
        png = preview_of_vectors(run) if vectors else preview_of(bundle, first)
        write_atomically(PREVIEWS / f"{case.recipe.replace('-', '_')}.png", png)


def _run_record(case: Case, work: Path, seed: int) -> dict[str, Any] | None:
    """What is committed of a run: its commands, without this machine's folders, and what they said."""
    entries = {}
    for step, arguments in case.commands(work, seed).items():
        file = work / f"{case.name}-{seed}.{step}.json"
        if not file.is_file():
            return None
        entries[step] = json.loads(file.read_text())
        if entries[step]["arguments"] != arguments:
            return None
    record = read_run(case.run(work, seed))
    scores, verdict = entries["evaluate"]["answer"], entries["verify"]["answer"]
    last = json.loads((case.run(work, seed) / "log.jsonl").read_text().splitlines()[-1])
    return {
        "seed": seed,
        "commands": [" ".join(["ganexport", *c]) for c in case.commands(Path("runs"), seed).values()],
        "settings": dict(record.settings),
        "threads": record.threads,
        "versions": dict(record.versions),
        "steps": last["step"],
        "images": last["images"],
        "seconds": entries["train"]["seconds"],
        "cpu_seconds": entries["train"]["cpu_seconds"],
        "verify": {
            "passed": verdict["passed"],
            "variants": {
                name: {key: v[key] for key in ("passed", "backend", "device", "latents", "batches", "bound")}
                | {"max_abs": v["errors"]["max_abs"]}
                for name, v in verdict["variants"].items()
            },
        },
        "real": scores["real"],
        "judge_accuracy": scores["judge_accuracy"],
        "figures": scores["figures"],
    }


def _ganexport(arguments: Sequence[str], quiet: bool) -> tuple[str, float, float]:
    """Runs it. Its standard output, its seconds, and those of its processor; its own message stands on stderr."""
    before, started = os.times(), time.perf_counter()
    command = [sys.executable, "-m", "ganexport", *arguments, *(["--quiet"] if quiet else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    after = os.times()
    if done.returncode:
        raise SystemExit(f"ganexport {arguments[0]} ended with {done.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, time.perf_counter() - started, cpu


if __name__ == "__main__":
    sys.exit(main())
