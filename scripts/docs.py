"""Write what is generated again: the zoo's costs; the documents' commands, zoo and map.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``. With ``--check`` nothing is
written, and the exit code is 1 when a part is out of date.
"""

import ast
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.zoo import load_model_toml, zoo_folder, zoo_ids
from mobileinst_deploy.network.peers.catalogue import PEERS
from mobileinst_deploy.workflows.models import COSTS_FILE, count_cost, models, peers as list_peers

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / "docs" / name for name in ("networks.md", "tables.md")),
)
#: What scripts/peer_figures.py measured.
FIGURES = ROOT / "scripts" / "peer_figures.json"
#: What a row of the paper's Table 1 or 2 is held to: its own network there, and its milliseconds.
MOBILEINST = {1: ("mobileinst-topformer-640", 433), 2: ("mobileinst-topformer-vis", 188)}
WIDTH = 120


def commands() -> str:
    """A row per command: its name and the first sentence of its help."""
    rows = ["| command | |", "|---|---|"]
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        sentence = " ".join(command.help.split("\n\n")[0].split())
        rows.append(f"| `mobileinst {name}` | {sentence} |")
    return "\n".join(rows)


def zoo() -> str:
    """A row per model of the zoo, and where each one's card is."""
    rows = [
        "| id | backbone | input | classes | parameters | MACs | weights |",
        "|---|---|---|---|---|---|---|",
    ]
    cards = []
    for row in models():
        macs = row.macs
        size = f"{macs / 1e9:.2f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M"
        height, width = row.input_size
        rows.append(
            f"| [{row.id}] | {row.backbone} "
            f"| {height}x{width} | {row.classes} | {row.parameters / 1e6:.2f} M | {size} "
            f"| {'trained' if row.trained_weights else 'none: random'} |"
        )
        cards.append(f"[{row.id}]: models/{row.id}/MODEL_CARD.md")
    return "\n".join([*rows, "", *cards])


def peers() -> str:
    """A row per peer: what it costs here, and the paper's figures with what they come to."""
    rows = [
        "| id | input | parameters | MACs | of a reuse frame | paper ms | ms per G | paper AP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in list_peers():
        height, width = row.input_size
        giga = row.macs / 1e9
        figures = "| | | "
        if row.paper_ms is not None:
            figures = f"| {row.paper_ms:g} | {row.paper_ms / giga:.1f} | {row.paper_ap:g} "
        rows.append(
            f"| `{row.id}` | {height}x{width} | {row.parameters / 1e6:.2f} M | {giga:.2f} G "
            f"| {row.reuse_macs / 1e9:.2f} G {figures}|"
        )
    return "\n".join(rows)


def ratios() -> str:
    """A row per peer: what it costs in shares of MobileInst, by the paper and by what is here."""
    rows = [
        "| network | paper ms | of MobileInst's | MACs of its "
        "| instructions of its: ONNX Runtime | ncnn | time of its, here |",
        "|---|---|---|---|---|---|---|",
    ]
    own = {row.id: row.macs for row in models()}
    record = json.loads(FIGURES.read_text(encoding="utf-8"))
    figures = record["networks"]
    for row in list_peers():
        published = PEERS[row.id].published
        beside, beside_ms = MOBILEINST[published.table if published else 1]
        cells = [f"`{row.id}`", "", ""]
        if published:
            cells[1:] = f"{published.ms:g}", f"{published.ms / beside_ms:.2f}"
        cells += [f"{row.macs / own[beside]:.2f}"]
        height, width = figures.get(row.id, {}).get("size", record["size"])
        if [height, width] != record["size"]:  # a ratio is of networks at one size
            beside = f"{beside}@{height}x{width}"
            cells[0] += f", counted at {height}x{width}"
        for runtime in ("onnxruntime", "ncnn"):
            counts = [_keyframe(figures, name, runtime) for name in (row.id, beside)]
            cells += [f"{counts[0] / counts[1]:.2f}" if all(counts) else ""]
        times = [figures.get(name, {}).get("host", 0) for name in (row.id, beside)]
        cells += [f"{times[0] / times[1]:.2f}" if all(times) else ""]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _keyframe(figures: dict[str, Any], name: str, runtime: str) -> int:
    return int(figures.get(name, {}).get(runtime, {}).get("instructions", {}).get("frame", 0))


def _off(parity: dict[str, Any]) -> str:
    alike, n = parity["instances"]
    return f"{parity['off']:.0e}" + f", {alike} of {n}" * (alike < n)


def figures() -> str:
    """A row per measured network: its parity in each runtime, and what both graphs execute."""
    rows = [
        "| network | off: host | ONNX Runtime, qemu | ncnn, qemu "
        "| instructions: ONNX Runtime | ncnn |",
        "|---|---|---|---|---|---|",
    ]
    record = json.loads(FIGURES.read_text(encoding="utf-8"))
    for name, found in record["networks"].items():
        both = [found[runtime] for runtime in ("onnxruntime", "ncnn")]
        height, width = found.get("size", record["size"])
        at = "" if [height, width] == record["size"] else f" at {height}x{width}"
        cells = [f"`{name.partition('@')[0]}`{at}", _off(found["cpu"])]
        cells += [_off(each["qemu"]) if "qemu" in each else "refused" for each in both]
        counts = [each.get("instructions") for each in both]
        cells += [
            f"{each['frame'] / 1e6:,.1f} M, {each['mask_head'] / 1e6:,.1f} M" if each else ""
            for each in counts
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def module_map(package: Path = ROOT / "mobileinst_deploy") -> str:
    """Every module with the first line of its docstring, layer by layer from the top down.

    A folder of the package is a layer. It stands above every layer that it imports from.
    """
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    lines = [_entry("`__init__.py`", modules[package / "__init__.py"])]
    for layer in _from_the_top(package, modules):
        folder = package / layer
        lines += ["", f"### {layer}/", _first_line(modules[folder / "__init__.py"]), ""]
        for path in sorted(modules):
            if path.is_relative_to(folder) and path != folder / "__init__.py":
                lines.append(_entry(f"`{path.relative_to(folder)}`", modules[path]))
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _first_line(module: ast.Module) -> str:
    return (ast.get_docstring(module) or "").partition("\n")[0].replace("``", "`")


def _entry(name: str, module: ast.Module) -> str:
    return textwrap.fill(
        f"- {name}: {_first_line(module)}",
        WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _from_the_top(package: Path, modules: dict[Path, ast.Module]) -> list[str]:
    """The package's folders, each before all those that it imports from."""
    layers = sorted(path.parent.name for path in package.glob("*/__init__.py"))
    below: dict[str, set[str]] = {layer: set() for layer in layers}
    for path, module in modules.items():
        layer = path.relative_to(package).parts[0]
        for node in ast.walk(module):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in filter(None, names):
                root, _, rest = name.partition(".")
                imported = rest.partition(".")[0]
                if layer in below and root == package.name and imported in below:
                    below[layer] |= {imported} - {layer}
    order: list[str] = []
    while len(order) < len(layers):
        order.append(next(a for a in layers if a not in order and below[a] <= {*order}))
    return order[::-1]


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "zoo": zoo,
    "peers": peers,
    "ratios": ratios,
    "figures": figures,
    "map": module_map,
}


def generated(text: str) -> str:
    """The document with every generated part made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- generated: (\w+) -->)\n.*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def costs() -> str:
    """What each model of the zoo costs, for ``mobileinst models`` to read."""
    counted = {model_id: count_cost(load_model_toml(model_id).config) for model_id in zoo_ids()}
    return json.dumps(counted, indent=2) + "\n"


if __name__ == "__main__":
    outdated = False
    # The README's zoo reads the costs, so that they come first.
    for document in (zoo_folder() / COSTS_FILE, *DOCUMENTS):
        before = document.read_text(encoding="utf-8") if document.exists() else ""
        after = costs() if document.name == COSTS_FILE else generated(before)
        outdated |= before != after
        if "--check" not in sys.argv:
            document.write_text(after, encoding="utf-8")
    if "--check" in sys.argv:
        sys.exit(outdated)
