"""What a model finds in a data set, as the file that COCO's or YouTube-VIS's server takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.errors import ConfigError, DatasetError
from mobileinst_deploy.core.files import require_writable, sha256_of
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.schedule import parse_schedule
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.workflows.results_file import require_results_name, write_results
from mobileinst_deploy.workflows.search import Search, search_journals, search_settings
from mobileinst_deploy.workflows.subject import open_subject

DATASETS = ("coco", "ytvis")


@dataclass(frozen=True)
class Predicted:
    """A file of results.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        model_id: Of the model.
        model_sha256: Of the bundle's manifest, the checkpoint, or the recipe of random weights.
        trained: Whether its weights were trained; otherwise the results mean nothing.
        schedule: T of clips, or None for pictures.
        items: Pictures or clips.
        results: Masks, or tracks, with a class and a score each.
        lacking: Classes of the model that the file of pictures does not list; their results are
            left out.
    """

    path: Path
    sha256: str
    model_id: str
    model_sha256: str
    trained: bool
    schedule: str | None
    items: int
    results: int
    lacking: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "path": str(self.path)}


def predict(
    model: str,
    output: str | Path,
    *,
    dataset: str,
    images: str | Path,
    annotations: str | Path,
    clip_length: int | str | None = None,
    association: str = "remembering",
    upright: bool = False,
    device: str = "cpu",
    progress: Progress = silent,
) -> Predicted:
    """Find everything in a data set and write it as servers take it; no annotation is needed.

    Interrupted work goes on where it was when the same call is made again.

    Args:
        model: An exported pair's folder, a run's folder, a checkpoint, a model.toml or a zoo id.
        output: The file, ending in ``.json``, or ``.zip`` for one that is packed.
        dataset: The form of the annotations: ``coco`` for pictures, ``ytvis`` for clips.
        images: Folder of the pictures.
        annotations: JSON file that lists them and the classes.
        clip_length: With clips: T, or ``auto``; 3 where nothing is said.
        association: With clips: ``remembering``, or the paper's ``consecutive``.
        upright: Whether upright pictures are given to an input that is turned; see
            :func:`~mobileinst_deploy.workflows.subject.open_subject`.
        device: ``cpu``; for a network also another device of PyTorch's.
        progress: Told of every picture or clip.

    Raises:
        ConfigError: An option is wrong or does not apply.
        DatasetError: The file is broken, or lists none of the model's classes.
        MediaError: A picture cannot be read.
        OutputError: The output cannot be written.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> done = mobileinst.predict(
        ...     *("pair", "results.json"),
        ...     dataset="coco",
        ...     images="val",
        ...     annotations="val/instances.json",
        ... )
        >>> done.path.name
        'results.json'
    """
    output, annotations = Path(output), Path(annotations)
    if dataset not in DATASETS:
        raise ConfigError(f"there is no dataset form {dataset!r}", f"Use {' or '.join(DATASETS)}")
    clips = dataset == "ytvis"
    if clip_length is not None and not clips:
        raise ConfigError("pictures have no T", "Leave -T out, or use --dataset ytvis for clips")
    schedule = str(3 if clip_length is None else clip_length) if clips else None
    if schedule is not None:
        parse_schedule(schedule)
    settings = search_settings(association, clips=clips)
    require_results_name(output)
    if output.resolve() == annotations.resolve():
        raise ConfigError(
            f"{output} is the annotations, which the results would replace",
            "Give the results another name",
            "--output",
        )
    require_writable(output)
    subject = open_subject(model, device, upright=upright)
    data = AnnotatedSet(Path(images), annotations, subject.config.classes, clips=clips)
    lacking = tuple(
        name for name, number in zip(data.classes, data.category_ids, strict=True) if number is None
    )
    if len(lacking) == len(data.classes):
        raise DatasetError(
            f"{annotations} lists none of the model's classes, such as {lacking[0]}",
            "Use a model and annotations of the same classes",
        )
    journals = search_journals()
    search = Search(subject, data, sha256_of(annotations), schedule, journals, settings)
    found = search.through(f"predict {annotations.name}", progress)
    results = write_results(output, found, data, clips=clips)
    journals.remove()
    return Predicted(
        output,
        sha256_of(output),
        subject.id,
        subject.sha256,
        subject.trained,
        schedule,
        len(data.media),
        results,
        lacking,
    )
