"""What the README says about commands and models is what they say themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_the_generated_parts_of_the_readme_are_up_to_date():
    check = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    assert subprocess.run(check, cwd=ROOT, timeout=300).returncode == 0, "run `make docs`"


PROSE = [
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "faults.md"  # written by the tests from what they saw
]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_prose_is_longer_than_120_characters(path: Path):
    """Rows of tables and code cannot be broken; they are kept short by hand."""
    code, wide = False, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        code ^= line.startswith("```")
        if not code and not line.startswith("|") and len(line) > 120:
            wide.append(number)
    assert not wide
