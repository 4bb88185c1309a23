"""A new run for data of one's own: its network, after one of the zoo, and a recipe that fits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.errors import ConfigError, OutputError
from mobileinst_deploy.core.files import write_atomically
from mobileinst_deploy.core.run_folder import RECIPE_FILE
from mobileinst_deploy.core.zoo import MODEL_FILE, ZooEntry, load_model_toml
from mobileinst_deploy.data.annotated import AnnotatedSet
from mobileinst_deploy.training.config import read_train_config

FORMS = ("coco", "ytvis")
#: Samples that a small network learns a few classes from: of few pictures many epochs, of many few.
_SAMPLES = 12_000
_EPOCHS = (12, 300)
_BATCH = 8
#: Of the input's short side: smaller pictures make training faster and scales more varied.
_SHARES = (0.8, 0.9, 1.0)


@dataclass(frozen=True)
class NewRun:
    """What was written.

    Attributes:
        folder: Of the run.
        classes: In label order.
        objects: Annotated ones by class name, regions of many objects left out.
        items: Pictures or clips.
        left_out: What of the annotations cannot be used, one line a reason.
        like: The model whose network it has.
        weights: That model's trained weights, to start from; None where it has none.
        files: Names of the files in the folder.
    """

    folder: Path
    classes: tuple[str, ...]
    objects: Mapping[str, int]
    items: int
    left_out: tuple[str, ...]
    like: str
    weights: Path | None
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        weights = None if self.weights is None else str(self.weights)
        return {**asdict(self), "folder": str(self.folder), "weights": weights}


def new(
    folder: str | Path,
    *,
    annotations: str | Path,
    images: str | Path,
    like: str,
    validation_annotations: str | Path | None = None,
    validation_images: str | Path | None = None,
    dataset: str = "coco",
) -> NewRun:
    """Write ``model.toml`` and ``train.toml`` for annotations of one's own.

    Args:
        folder: Of the run; made when missing.
        annotations: The training annotations' JSON file.
        images: Folder of their pictures.
        like: Model to take the network of, by its zoo id or the path of its model.toml.
        validation_annotations: Held-out annotations; without them nothing is evaluated.
        validation_images: Folder of their pictures; by default ``images``.
        dataset: Form of the annotations: ``coco`` for pictures, ``ytvis`` for clips.

    Raises:
        ConfigError: There is no such model or form.
        DatasetError: The annotations are broken, or hold nothing to train on.
        OutputError: The folder holds a recipe or a model already, or cannot be written.

    Examples:
        >>> import mobileinst_deploy as mobileinst
        >>> made = mobileinst.new(
        ...     "new-run", annotations="val/instances.json", images="val", like="mobileinst-demo"
        ... )
        >>> made.files
        ('model.toml', 'train.toml')
    """
    folder, images = Path(folder), Path(images)
    if dataset not in FORMS:
        raise ConfigError(f"there is no dataset form {dataset!r}", f"Use {' or '.join(FORMS)}")
    if validation_images is not None and validation_annotations is None:
        raise ConfigError(
            "held-out pictures say nothing without their annotations",
            "Give --validation-annotations too, or leave --validation-images away",
            "--validation-images",
        )
    clips = dataset == "ytvis"
    entry = load_model_toml(like)
    data = AnnotatedSet(images, Path(annotations), clips=clips)
    data.catalogue.require_objects("train on")
    objects = {name: count for name, count in data.catalogue.objects().items() if count}
    if validation_annotations is not None:
        _held_out(Path(validation_annotations), Path(validation_images or images), objects, clips)
    there = [name for name in (MODEL_FILE, RECIPE_FILE) if (folder / name).exists()]
    if there:
        raise OutputError(f"{folder / there[0]} is there already", "Give another folder")
    config = replace(entry.config, classes=tuple(objects))
    held_out: dict[str, Any] = {}
    if validation_annotations is not None:
        held_out["validation_annotations"] = _from(folder, validation_annotations)
        held_out["validation_images"] = _from(folder, validation_images or images)
    recipe = {
        "kind": dataset,
        "annotations": _from(folder, annotations),
        "images": _from(folder, images),
        **held_out,
    }
    frames = sum(map(data.length, range(len(data))))
    texts = {
        MODEL_FILE: _model_toml(folder.resolve().name or "mine", entry, config),
        RECIPE_FILE: _train_toml(recipe, config, frames, clips),
    }
    for name, text in texts.items():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"{name} cannot hold a name that is not UTF-8", "Rename the folder or the file"
            ) from error
    with _all_or_none([folder / name for name in texts]):
        for name, text in texts.items():
            _write(folder / name, text)
        read_train_config(folder / RECIPE_FILE)
    return NewRun(
        folder,
        config.classes,
        objects,
        len(data.media),
        tuple(data.catalogue.lines()),
        entry.id,
        entry.weights,
        (MODEL_FILE, RECIPE_FILE),
    )


def _held_out(annotations: Path, images: Path, objects: Mapping[str, int], clips: bool) -> None:
    """Find out now what would otherwise end the training before it begins."""
    data = AnnotatedSet(images, annotations, tuple(objects), clips=clips)
    data.catalogue.require_objects("evaluate on")


@contextmanager
def _all_or_none(paths: Sequence[Path]) -> Iterator[None]:
    """Of files that were not there, leave none behind where one cannot be written."""
    missing = [f for f in paths[0].absolute().parents if not f.exists()]
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        for folder in missing:
            with suppress(OSError):  # somebody else put something there
                folder.rmdir()
        raise


def _from(folder: Path, path: str | Path) -> str:
    """A path as the recipe has it, seen from its own folder."""
    return os.path.relpath(Path(path).resolve(), folder.resolve())


def _model_toml(name: str, entry: ZooEntry, config: ModelConfig) -> str:
    plain = {f.name: f.default for f in fields(ModelConfig)}
    given = {
        key: value
        for key, value in config.to_dict().items()
        if (tuple(value) if isinstance(value, list) else value) != plain[key]
    }
    tolerance = asdict(entry.tolerance)
    return (
        f"id = {_toml(name)}\n"
        f"summary = {_toml(f'after {entry.id}, with classes of its own')}\n"
        f"seed = 0\n\n[config]\n{_lines(given)}\n[tolerance]\n{_lines(tolerance)}"
    )


def _train_toml(data: Mapping[str, Any], config: ModelConfig, frames: int, clips: bool) -> str:
    short, long = sorted(config.input_size)
    least, most = _EPOCHS
    epochs = min(max(round(_SAMPLES / frames), least), most)
    stage: dict[str, Any] = {
        "kind": "video" if clips else "image",
        "epochs": epochs,
        "batch": _BATCH // 2 if clips else _BATCH,
        "lr": 1e-3,
        "warmup": 200,
        "schedule": "cosine",
        "short_sides": [max(round(short * share), 64) for share in _SHARES],
        "long_side": long,
    }
    if clips and config.stages == ("global", "local"):
        stage["query_passing"] = True
    run = {"model": MODEL_FILE, "ema": 0.998, "clip_norm": 5.0, "evaluate_every": 1000}
    tables = {
        "[data]": {**data, "colour": 0.3},
        "[losses]": {"mask_stride": 4, "matching": "losses"},
        "[[stages]]": stage,
    }
    rest = "".join(f"\n{head}\n{_lines(table)}" for head, table in tables.items())
    return f"# For {frames} frames. docs/training.md explains the fields.\n{_lines(run)}{rest}"


def _lines(table: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: Any) -> str:
    """A value as TOML; what JSON leaves as it is and TOML does not take is escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: _text(temporary, text))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
