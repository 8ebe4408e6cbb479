"""Documentation that can be held against the code is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_overview_lists_every_file() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/make-overview"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
    assert len(pages) >= 4


def test_every_command_stands_in_the_readme_or_the_docs() -> None:
    from ganexport.commands import COMMANDS

    text = "".join(p.read_text(encoding="utf-8") for p in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    missing = [name for name in COMMANDS if f"ganexport {name}" not in text and f"`{name}`" not in text]
    assert missing == []
