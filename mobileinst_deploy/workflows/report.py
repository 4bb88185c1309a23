"""report: gather what was measured of a pair, or on this machine, into one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mobileinst_deploy.core.bundle import load_bundle
from mobileinst_deploy.core.documents import read_json
from mobileinst_deploy.core.errors import ConfigError, InputError
from mobileinst_deploy.core.files import require_writable, write_atomically
from mobileinst_deploy.core.pair_files import RESULTS
from mobileinst_deploy.measure.record import LatencyRecord, read_record, read_records
from mobileinst_deploy.measure.report_page import Counted, Findings, Placed, Tensor, report_page
from mobileinst_deploy.workflows.history import find_entry, read_history
from mobileinst_deploy.workflows.kept import Evaluation, blame, read_counts, read_evaluation

HISTORY = "history"
#: A page is written within this size however much there is.
_MOST_BYTES = 32 << 20

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Parity(msgspec.Struct):
    device: str
    runtime: str
    tensors: list[Tensor]


class _ShareRow(msgspec.Struct):
    name: str
    share: _Share | None


class _GraphShares(msgspec.Struct):
    parts: list[_ShareRow]
    operators: list[_ShareRow]


class _Profile(msgspec.Struct):
    device: str
    runtime: str
    graphs: dict[str, _GraphShares]


def write_report(sources: Sequence[str], output: Path) -> tuple[Path, Findings]:
    """Write the page.

    Args:
        sources: Each a pair's folder, a latency.json, what ``bench --json`` printed of several
            devices, ``history``, or the name of one of its entries; all go into one page.
        output: The page, replaced if it is there.

    Returns:
        Where it is, and what is in it.

    Raises:
        InputError: There is no such source, or nothing was measured of it yet.
        OutputError: The page cannot be written.
    """
    require_writable(output, _MOST_BYTES)
    found = merged([gather(source) for source in sources])
    shown = (found.records, found.counts, found.parity, found.shares, found.precision)
    if not any(shown):
        why = f": {found.unreadable[0]}" if found.unreadable else ""
        raise InputError(
            f"nothing was measured of {', '.join(sources)} that could be shown{why}",
            "Measure first, for example with `mobileinst bench DIR`",
        )
    text = report_page(found)
    write_atomically(output, lambda temporary: _put(temporary, text))
    return output, found


def merged(found: Sequence[Findings]) -> Findings:
    """Several sources as one; what has one name in two of them is told apart by its model."""
    if len(found) == 1:
        return found[0]
    together = Findings(", ".join(each.title for each in found), {}, {}, {}, {}, {}, [])
    for number, each in enumerate(found, start=1):
        for name in ("records", "counts", "parity", "shares", "precision"):
            into: dict[str, Any] = getattr(together, name)
            for key, value in getattr(each, name).items():
                known = (record.pair.model_id for record in each.records.values())
                model = next(known, each.title.partition(",")[0])
                names = (key, f"{key} of {model}", f"{key} ({number})")
                into[next(name for name in names if name not in into)] = value
    unreadable = tuple(cause for each in found for cause in each.unreadable)
    placed = tuple(point for each in found for point in each.placed)
    return replace(together, unreadable=unreadable, placed=placed)


def gather(source: str) -> Findings:
    """Everything that was measured of a source; what cannot be read is named and left out.

    Raises:
        InputError: There is no such source.
    """
    path = Path(source)
    if path.is_dir():
        return _of_pair(path)
    if path.is_file():
        return _of_file(path)
    if source == HISTORY:
        kept = read_history()
        records = {entry.name: entry.record for entry in kept.entries}
        return _of_records("What was measured on this machine", records, kept.damaged)
    if path.suffix or len(path.parts) > 1:
        raise ConfigError(
            f"{source[:200]} does not exist",
            "Give a pair's folder, a latency.json, `history`, or a name that `history` lists",
        )
    entry = find_entry(source)
    return _of_records(f"Latency of {entry.record.pair.model_id}", {entry.name: entry.record})


def _of_file(path: Path) -> Findings:
    records: dict[str, LatencyRecord] = {}
    for record in read_records(path):
        name, number = _name(record), 1
        while (numbered := name if number == 1 else f"{name} ({number})") in records:
            number += 1
        records[numbered] = record
    models = ", ".join(dict.fromkeys(record.pair.model_id for record in records.values()))
    return _of_records(f"Latency of {models}", records)


def _of_records(
    title: str, records: Mapping[str, LatencyRecord], unreadable: tuple[str, ...] = ()
) -> Findings:
    return Findings(title, records, {}, {}, {}, {}, unreadable)


def _of_pair(folder: Path) -> Findings:
    pair = load_bundle(folder)
    unreadable: list[str] = []
    records: dict[str, LatencyRecord] = {}
    counts: dict[str, Counted] = {}
    parity: dict[str, list[Tensor]] = {}
    shares: dict[str, list[tuple[str, float]]] = {}
    precision: dict[str, float | None] = {}
    evaluated: dict[str, Evaluation] = {}
    for path in sorted((folder / RESULTS).glob("*/*.json")):
        where = path.parent.name
        try:
            if path.stem == "latency":
                records[where] = read_record(path)
            elif path.stem == "instructions":
                counted = read_counts(path)
                counts[where] = Counted(counted.instructions, counted.kinds)
            elif path.stem == "parity":
                parity[where] = read_json(path, _Parity, blame(path)).tensors
            elif path.stem == "profile":
                shares |= dict(_shares(where, read_json(path, _Profile, blame(path))))
            elif path.stem == "eval":
                evaluated[where] = read_evaluation(path)
                precision |= dict(_precision(where, evaluated[where]))
        except InputError as error:
            unreadable.append(error.cause)
    title = f"{pair.model_id}, {pair.form}"
    placed = [
        point
        for where, record in records.items()
        if (point := _placed(record, evaluated.get(where))) is not None
    ]
    return Findings(title, records, counts, parity, shares, precision, unreadable, placed)


def _placed(record: LatencyRecord, evaluation: Evaluation | None) -> Placed | None:
    """A point of Figure 1, where there is a latency to believe and an AP of pictures."""
    block = None if evaluation is None else evaluation.pictures
    if block is None or block.ap is None or record.emulated or not record.valid:
        return None
    clip = min(record.clips, key=lambda each: each.clip_length)
    runtime = record.runtime.split(" ")[0]
    name = f"{record.pair.model_id} {record.pair.form}, {runtime}"
    return Placed(
        name,
        record.device.name,
        block.annotations,
        block.annotations_sha256,
        clip.clip_length,
        clip.amortised_ms,
        block.ap,
    )


def _shares(where: str, profile: _Profile) -> Iterator[tuple[str, list[tuple[str, float]]]]:
    for role, graph in profile.graphs.items():
        for kind, rows in (("part", graph.parts), ("operator", graph.operators)):
            known = [(row.name, row.share) for row in rows if row.share is not None]
            if known:
                yield f"{where}: {role} by {kind}", known[:14]


def _precision(where: str, found: Evaluation) -> Iterator[tuple[str, float | None]]:
    if found.pictures is not None:
        yield f"{where}, pictures", found.pictures.ap
    for length, block in found.clips.items():
        yield f"{where}, clips at T = {length}", block.ap


def _name(record: LatencyRecord) -> str:
    runtime = record.runtime.split(" ")[0]
    return f"{record.device.name}-{runtime}-{record.pair.form}"


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
