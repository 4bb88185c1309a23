"""The documentation site: built without a warning, complete, and loading nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import mobileinst_deploy
from mobileinst_deploy.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
PAGES = [page for page in PAGES if page.name != "faults.md"]  # written by the tests


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_has_a_section(site: Path):
    page = (site / "api.html").read_text()
    for name in mobileinst_deploy.__all__:
        assert f"mobileinst.{name}" in page


def test_a_page_loads_nothing_from_another_host(site: Path):
    loads = re.compile(
        r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?(?:https?:)?//"
    )
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        found = loads.search(page.read_text())
        # `rel="canonical"` and the like name an address and load nothing; there are none either.
        assert found is None, f"{page.name}: {found}"


def commands() -> dict[str, set[str]]:
    """Each command of the program with its options, `device prepare` and the like included."""
    known: dict[str, set[str]] = {}

    def add(name: str, command: object) -> None:
        known[name] = {"--help"}
        for parameter in command.params:  # type: ignore[attr-defined]
            known[name] |= {*parameter.opts, *parameter.secondary_opts}
        for child, below in getattr(command, "commands", {}).items():
            add(f"{name} {child}".strip(), below)

    add("", typer.main.get_command(app))
    return known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_command_in_a_document_is_one_that_the_program_has(page: Path):
    known = commands()
    text = re.sub(r"\\\n", " ", page.read_text())
    for line in re.findall(r"(?:`|^\$? ?)mobileinst ([^`\n#>|]*)", text, re.MULTILINE):
        words = line.split()
        if not words or words[0] not in known:
            # `mobileinst COMMAND --help` and `mobileinst --debug`; prose after a back-quote
            assert not words or words[0].isupper() or words[0].startswith("-"), line
            continue
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        for option in (word.partition("=")[0] for word in words if word.startswith("-")):
            assert option in known[name] | known[""], f"`{name}` has no {option}: {line}"
