"""Write the generated parts of README.md again: the commands and the zoo.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. With ``--check`` nothing is
written, and the exit code is 1 when a part is out of date.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import typer

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.cli.tables import zoo_rows

README = Path(__file__).parent.parent / "README.md"


def commands() -> str:
    """A row per command: its name and the first sentence of its help."""
    rows = ["| command | |", "|---|---|"]
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        sentence = " ".join(command.help.split("\n\n")[0].split())
        rows.append(f"| `mobileinst {name}` | {sentence} |")
    return "\n".join(rows)


def zoo() -> str:
    """A row per model of the zoo."""
    rows = [
        "| id | backbone | input | classes | parameters | MACs | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in zoo_rows():
        macs = row["macs"]
        size = f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M"
        height, width = row["input_size"]
        rows.append(
            f"| [`{row['id']}`](models/{row['id']}/MODEL_CARD.md) | {row['backbone']} "
            f"| {height}x{width} | {row['classes']} | {row['parameters'] / 1e6:.2f} M | {size} "
            f"| {'trained' if row['trained_weights'] else 'none: random'} |"
        )
    return "\n".join(rows)


PARTS: dict[str, Callable[[], str]] = {"commands": commands, "zoo": zoo}


def generated(text: str) -> str:
    """The document with every generated part made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- generated: (\w+) -->)\n.*?\n(<!-- end -->)", fill, text, flags=re.DOTALL)


if __name__ == "__main__":
    before = README.read_text(encoding="utf-8")
    after = generated(before)
    if "--check" in sys.argv:
        sys.exit(before != after)
    README.write_text(after, encoding="utf-8")
