"""What mkdocs cannot do alone: pages from outside docs/, their links, and the Python API.

The README, the glossary and the model cards stand where people look for them in a repository. Here
they become pages of the site as well. A link between two documents is a path in the repository, so
that it works there too; in the site it leads to that document's page. A link to a file that is no
page, such as a script, becomes plain text. A link to a file that does not exist stops the build.

The page of the API has a section for every name that the package exports, and none is listed by
hand.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
API_PLACE = "<!-- every public name -->"
_LINK = re.compile(r"(!?)\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]\(([^()\s]+)\)")
_DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)


def pages() -> dict[str, str]:
    """Documents outside docs/ by their path in the repository, and the page that each becomes."""
    fixed = {
        "README.md": "index.md",
        "CONTEXT.md": "words.md",
        "CONTRIBUTING.md": "contributing.md",
        "CHANGELOG.md": "changelog.md",
        "android_bench/README.md": "runner.md",
        "examples/README.md": "examples.md",
    }
    cards = sorted((ROOT / "models").glob("*/MODEL_CARD.md"))
    return fixed | {
        card.relative_to(ROOT).as_posix(): f"models/{card.parent.name}.md" for card in cards
    }


def page_of(path: str) -> str | None:
    """The page of a document, by its path in the repository; None when it is not in the site."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return pages().get(path)


def relink(text: str, source: str) -> str:
    """A document's text with links that lead to pages of the site.

    Args:
        text: Markdown.
        source: The document's path in the repository.

    Raises:
        PluginError: A link leads to a file that does not exist.
    """
    here = posixpath.dirname(page_of(source) or "")

    def resolve(target: str) -> str | None:
        if re.match(r"[a-z]+:|#", target):
            return target
        path, hash_, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / path).exists():
            raise PluginError(f"{source} links to {target}, which does not exist")
        page = page_of(path)
        return page and posixpath.relpath(page, here or ".") + hash_ + anchor

    def link(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        if words.startswith("!["):  # a picture that is a link
            words = _LINK.sub(link, words)
        resolved = resolve(target)
        return words if resolved is None else f"{mark}[{words}]({resolved})"

    def definition(match: re.Match[str]) -> str:
        return f"[{match[1]}]: {resolve(match[2]) or match[2]}"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    for index in range(0, len(parts), 2):  # every second part is a block of code
        parts[index] = _DEFINITION.sub(definition, _LINK.sub(link, parts[index]))
    return "".join(parts)


def public_api() -> str:
    """A section for each public name, under that name."""
    import mobileinst_deploy

    sections = []
    for name in mobileinst_deploy.__all__:
        value = getattr(mobileinst_deploy, name)
        # Where it is written, which may be under another name.
        where = f"{value.__module__}.{value.__qualname__}"
        options = f"    options:\n      heading: mobileinst.{name}\n      toc_label: {name}"
        sections.append(f"::: {where}\n{options}")
    return "\n\n".join(sections)


def models() -> str:
    """The page that lists the model cards: the zoo's table out of the README."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- generated: zoo -->\n(.*?)<!-- end -->", readme, re.DOTALL)
    if found is None:
        raise ValueError("README.md has no generated list of models")
    return "# Models\n\n" + relink(found[1], "README.md")


def on_files(files: Files, config: Any) -> Files:
    """Add the documents from outside docs/."""
    for source, page in pages().items():
        if (ROOT / source).exists():
            text = relink((ROOT / source).read_text(encoding="utf-8"), source)
            files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "models.md", content=models()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turn the links of a page of docs/ into the site's, and fill in the API."""
    if page.file.generated_by is None:
        markdown = relink(markdown, f"docs/{page.file.src_uri}")
    return markdown.replace(API_PLACE, public_api())
