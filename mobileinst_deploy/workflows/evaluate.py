"""Average precision of a checkpoint, an exported pair or a file of results.

Pictures and clips stream: what the model finds in one is matched with the annotations at once. An
interrupted evaluation goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from mobileinst_deploy.core.documents import Blame, Whole, read_json
from mobileinst_deploy.core.errors import ConfigError, InputError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.records import EvalBlock, EvalReport
from mobileinst_deploy.core.schedule import MAX_CLIP, parse_schedule
from mobileinst_deploy.core.text import whole
from mobileinst_deploy.workflows.precision import (
    RESULTS_FILE,
    evaluate_clips,
    evaluate_pictures,
    evaluate_results,
)
from mobileinst_deploy.workflows.results import Kept, place as results_place
from mobileinst_deploy.workflows.results_file import is_results_file
from mobileinst_deploy.workflows.search import (
    search_journals,
    search_settings,
)
from mobileinst_deploy.workflows.subject import Subject, subject_on

DATASETS = ("coco", "ytvis")
CLIP_LENGTHS = ("1", "3", "6")
_Figure = Whole | Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)] | str | bool | None
_Schedule = Annotated[str, msgspec.Meta(pattern="^(auto|[0-9]{1,6})( consecutive)?$")]


@dataclass(frozen=True)
class Evaluated:
    """What a model is worth on a data set.

    Attributes:
        report: What was measured now.
        document: The same with what earlier evaluations of this model found, as in ``eval.json``.
        kept: What became of that file.
    """

    report: EvalReport
    document: Mapping[str, Any]
    kept: Kept

    @property
    def measured(self) -> Mapping[str, EvalBlock]:
        """What was measured now, by what it was measured on: ``pictures``, or ``T = 3``."""
        if self.report.pictures is not None:
            return {"pictures": self.report.pictures}
        return {
            "clips" if name == RESULTS_FILE else f"T = {name}": block
            for name, block in self.report.clips.items()
        }


def evaluate(
    model: str,
    *,
    dataset: str,
    images: str | Path | None = None,
    annotations: str | Path,
    clip_lengths: Sequence[int | str] = (),
    association: str = "remembering",
    upright: bool = False,
    device: str = "cpu",
    runtime: str = "onnxruntime",
    serial: str | None = None,
    report: str | Path | None = None,
    progress: Progress = silent,
) -> Evaluated:
    """Measure mask AP on pictures or track AP on clips, and keep ``eval.json``.

    An interrupted evaluation goes on where it was, whatever T it was at; what it knew goes only
    when the result is kept.

    Args:
        model: An exported pair's folder, a run's folder, a checkpoint, a model.toml, a zoo id, or a
            file of results as :func:`~mobileinst_deploy.workflows.predict.predict` writes it.
        dataset: The form of the annotations: ``coco`` for pictures, ``ytvis`` for clips.
        images: Folder of the pictures; a file of results needs none.
        annotations: Their JSON file.
        clip_lengths: With clips: every T to measure at, or ``auto``; none means 1, 3 and 6.
        association: With clips: ``remembering``, or the paper's ``consecutive``.
        upright: Whether upright pictures are given to an input that is turned; see
            :func:`~mobileinst_deploy.workflows.subject.open_subject`.
        device: ``cpu``; for a pair also ``adb`` or ``qemu``, for a network another of PyTorch's.
        runtime: What runs a pair's graphs.
        serial: Which phone.
        report: Where ``eval.json`` goes; by default under the model's folder.
        progress: Told of every picture or clip.

    Raises:
        ConfigError: An option is wrong or does not apply.
        DatasetError: The annotations are broken, or fit neither the pictures nor the model.
        MediaError: A picture cannot be read.
        OutputError: A place named by ``report`` cannot be written.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> done = mobileinst.evaluate(
        ...     "pair", dataset="coco", images="val", annotations="val/instances.json"
        ... )
        >>> 0 <= done.measured["pictures"].metrics["AP"] <= 1
        True
    """
    annotations = Path(annotations)
    where = None if report is None else Path(report)
    if dataset not in DATASETS:
        raise ConfigError(f"there is no dataset form {dataset!r}", f"Use {' or '.join(DATASETS)}")
    if dataset == "coco" and clip_lengths:
        raise ConfigError("pictures have no T", "Leave -T out, or use --dataset ytvis for clips")
    schedules = tuple(dict.fromkeys(map(str, clip_lengths))) or CLIP_LENGTHS
    for schedule in schedules:
        parse_schedule(schedule)
    search_settings(association, clips=dataset == "ytvis")
    if is_results_file(Path(model)):
        _only_of_models(
            {
                "-T": bool(clip_lengths),
                "--association": association != "remembering",
                "--upright": upright,
                "--device": device != "cpu",
                "--runtime": runtime != "onnxruntime",
                "--serial": serial is not None,
            }
        )
        return _of_results(Path(model), annotations, where, clips=dataset == "ytvis")
    if images is None:
        raise ConfigError("a model needs the pictures", "Give --images", where="--images")
    images = Path(images)
    opened = subject_on(model, device, runtime, serial=serial, upright=upright, progress=progress)
    with opened as subject:
        return _measured(
            subject, dataset, images, annotations, schedules, association, where, progress
        )


def _measured(
    subject: Subject,
    dataset: str,
    images: Path,
    annotations: Path,
    schedules: tuple[str, ...],
    association: str,
    where: Path | None,
    progress: Progress,
) -> Evaluated:
    """Measure what was opened, and keep what was found."""
    settings = search_settings(association)
    place = results_place(
        "eval", subject.folder, subject.device, subject.runtime, subject.form, where
    )
    place.check()
    journals = search_journals()
    pictures, clips = None, {}
    if dataset == "coco":
        pictures = evaluate_pictures(
            subject, images, annotations, journals=journals, progress=progress
        )
    else:
        for schedule in schedules:
            name = schedule if association == "remembering" else f"{schedule} {association}"
            clips[name] = evaluate_clips(
                *(subject, images, annotations, schedule),
                journals=journals,
                settings=settings,
                progress=progress,
            )
    made = EvalReport(
        model_id=subject.id,
        model_sha256=subject.sha256,
        trained=subject.trained,
        runtime=subject.runtime,
        input_size=subject.config.input_size,
        pictures=pictures,
        clips=clips,
        caveat=subject.caveat,
    )
    document = with_earlier(made, place.path)
    kept = place.keep(document)
    if kept.path is not None:
        journals.remove()
    return Evaluated(made, document, kept)


def _only_of_models(given: Mapping[str, bool]) -> None:
    """Refuse options that would do nothing: results were found already, however that was."""
    if names := [name for name, what in given.items() if what]:
        raise ConfigError(
            f"{', '.join(names)} means nothing for a file of results",
            "Leave it away, or name the model",
            names[0],
        )


def _of_results(results: Path, annotations: Path, where: Path | None, *, clips: bool) -> Evaluated:
    place = results_place("eval", results.parent, "file", "results", results.stem, where)
    place.check()
    made = evaluate_results(results, annotations, clips=clips)
    return Evaluated(made, made.to_dict(), place.keep(made.to_dict()))


def with_earlier(report: EvalReport, path: Path) -> dict[str, Any]:
    """A report as ``eval.json``, with the blocks that an earlier one of the same model has there.

    Another model's blocks are left out.
    """
    document = report.to_dict()
    earlier = _earlier(path)
    same = ("schema", "model_sha256", "runtime", "input_size")
    if earlier is not None and all(getattr(earlier, key) == document[key] for key in same):
        by_length = {**earlier.clips, **document.pop("clips", {})}
        if earlier.pictures is not None:
            document.setdefault("pictures", earlier.pictures)
        if by_length:
            document["clips"] = {
                name: by_length[name] for name in sorted(by_length, key=_by_length)
            }
    return document


class _Earlier(msgspec.Struct):
    """What is kept of an earlier evaluation's file."""

    schema: int
    model_sha256: str
    runtime: str
    input_size: list[int]
    pictures: dict[str, _Figure | dict[str, _Figure]] | None = None
    clips: dict[_Schedule, dict[str, _Figure | dict[str, _Figure]]] = {}


def _earlier(path: Path) -> _Earlier | None:
    """An earlier evaluation's file; None where there is none that can be used."""
    blame = Blame(str(path), InputError, "Remove it")
    try:
        return read_json(path, _Earlier, blame) if path.exists() else None
    except InputError:
        return None


def _by_length(name: str) -> tuple[bool, int, str]:
    schedule, _, association = name.partition(" ")
    length = whole(schedule, 1, MAX_CLIP)
    return length is None, length or 0, association
