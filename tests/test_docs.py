"""What the README says about commands and models is what they say themselves."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_generated_parts_of_the_readme_are_up_to_date():
    check = [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"]
    assert subprocess.run(check, cwd=ROOT, timeout=300).returncode == 0, "run `make docs`"
