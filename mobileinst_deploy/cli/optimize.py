"""optimize: a pair that a phone runs faster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mobileinst_deploy.cli.console import answer, next_steps, progress_bar, show
from mobileinst_deploy.cli.options import Json, Output, PairFolder

if TYPE_CHECKING:
    from mobileinst_deploy.optimize.pair import GraphReport


def optimize(folder: PairFolder, output: Output = None, json: Json = False) -> None:
    """Rewrite both graphs so that a phone executes fewer instructions for the same numbers."""
    from mobileinst_deploy.workflows.optimize import optimize as work

    with progress_bar() as progress:
        done = work(folder, output, progress=progress)
    tell_rewrites(done.rewritten, json=json)
    target = done.pair.folder
    show(f"Wrote {target}.", json=json)
    next_steps(("verify", target), ("bench", target, "--device qemu --count"), json=json)
    answer(done.to_dict(), json=json)


def tell_rewrites(reports: Sequence[GraphReport], *, json: bool) -> None:
    """What became of each graph, a sentence each."""
    for report in reports:
        done = ", ".join(f"{p.name} {p.rewrites}" for p in report.passes if p.rewrites)
        show(
            f"{report.role}: {done or 'nothing to do'}. Outputs moved by at most"
            f" {report.max_abs:.2e}, {report.excess:.2f} of the tolerance"
            f" (Winograd tiles up to {report.largest_tile}).",
            json=json,
        )
