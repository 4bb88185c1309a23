"""Where results are kept: ``results/DEVICE-RUNTIME-FORM/KIND.json`` under what was measured.

::

    pair/results/cpu-onnxruntime-plain/parity.json
    pair/results/cpu-ncnn-plain/latency.json
    pair/results/adb-R58M123-onnxruntime-int8/latency.json
    pair/results/qemu-onnxruntime-plain/instructions.json

A place that somebody named must be writable, and that is found out before the work begins. The
default place need not be: a pair on a read-only disk can be verified and measured all the same. Its
result then goes to the user's own state folder, and keeping it never fails what was measured.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_state_path

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.errors import MeasurementInvalid, OutputError
from mobileinst_deploy.core.files import require_writable, write_json
from mobileinst_deploy.core.pair_files import RESULTS

Kind = Literal["parity", "latency", "profile", "eval", "instructions", "sustained", "tnn"]


@dataclass(frozen=True)
class Place:
    """Where one result belongs.

    Attributes:
        path: The file.
        named: Whether the user named it; then it must be writable.
        spare: The file for the case that the default one cannot be written.
    """

    path: Path
    named: bool
    spare: Path

    def check(self) -> None:
        """Find out before the work whether a named place can be written.

        Raises:
            OutputError: It cannot.
        """
        if self.named:
            require_writable(self.path)

    def keep(self, document: Mapping[str, Any]) -> Kept:
        """Write the result; never fails, since what was measured stays true wherever it lies."""
        try:
            write_json(self.path, document)
        except OutputError as error:
            try:
                write_json(self.spare, document)
            except OutputError:
                return Kept(None, error.cause)
            return Kept(self.spare, error.cause)
        return Kept(self.path, None)


@dataclass(frozen=True)
class Kept:
    """What became of a result.

    Attributes:
        path: Where it is, or None when it could not be written anywhere.
        problem: Why it is not where it belongs, or None when it is.
    """

    path: Path | None
    problem: str | None

    @property
    def note(self) -> str | None:
        """The problem and where the result is instead, for people; None when all is well."""
        if self.problem is None:
            return None
        where = "was not kept" if self.path is None else f"is in {self.path}"
        return f"{self.problem}; the result {where}. Choose a place with --report"


def not_believed(
    what: str, invalid: Sequence[str], next_step: str = "Measure again when that no longer holds"
) -> MeasurementInvalid | None:
    """Why something that was measured must not be believed, as an error; None when it may.

    Args:
        what: What was measured, and where.
        invalid: Each reason.
        next_step: What to do.
    """
    if not invalid:
        return None
    return MeasurementInvalid(f"{what} must not be believed: {'; '.join(invalid)}", next_step)


def pair_place(
    kind: Kind, pair: ExportBundle, device: str, runtime: str, report: Path | None = None
) -> Place:
    """Where a result of an exported pair belongs.

    Args:
        kind: What was measured.
        pair: Of what.
        device: Where it ran, as reports name it: ``cpu``, ``qemu`` or ``adb:SERIAL``.
        runtime: What ran it, as reports name it, such as ``onnxruntime 1.32.0``.
        report: ``--report``: a file that ends in ``.json``, or a folder in place of ``results``.
    """
    return place(kind, pair.folder, device, runtime, pair.form, report)


def place(
    kind: Kind, home: Path, device: str, runtime: str, form: str, report: Path | None = None
) -> Place:
    """Where a result belongs; see :func:`pair_place`.

    Args:
        kind: What was measured.
        home: The folder that ``results`` lies in.
        device: Where it ran.
        runtime: What ran it.
        form: Of the pair, or the name of a checkpoint.
        report: ``--report``.
    """
    file = f"{kind}.json"
    folder = "-".join(_plain(word) for word in (device, runtime.split(" ")[0], form))
    if report is not None and report.suffix == ".json" and not report.is_dir():
        path = report
    else:
        path = (home / RESULTS if report is None else report) / folder / file
    # Two homes of one name are two homes.
    known = hashlib.sha256(str(home.absolute()).encode(errors="surrogateescape")).hexdigest()[:8]
    elsewhere = f"{_plain(home.absolute().name)}-{known}"
    spare = user_state_path("mobileinst") / RESULTS / elsewhere / folder / file
    return Place(path, report is not None, spare)


def _plain(word: str) -> str:
    """A name as part of a file's name on any system."""
    return (
        re.sub(r"[^A-Za-z0-9._]+", "-", word.removesuffix(" (emulated)")).strip("-.") or "unnamed"
    )
