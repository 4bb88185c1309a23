"""Evaluation from end to end: a model that knows the answer, one that errs, and interruptions."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from mobileinst_deploy.core.config import ModelConfig
from mobileinst_deploy.core.contract import Call, GraphSpec, graph_specs
from mobileinst_deploy.core.errors import ConfigError, DatasetError, MediaError
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.journal import Journals
from mobileinst_deploy.core.masks import decode
from mobileinst_deploy.core.records import EvalBlock, EvalReport
from mobileinst_deploy.data.shapes import CLASSES, ShapesClip, clip_seed
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.measure.average_precision import PICTURE_METRICS
from mobileinst_deploy.measure.track_precision import CLIP_METRICS
from mobileinst_deploy.workflows.evaluate import (
    evaluate,
    evaluate_clips,
    evaluate_pictures,
    with_earlier,
)
from mobileinst_deploy.workflows.search import MOST_FOUND, find_in_clip, find_in_picture
from mobileinst_deploy.workflows.subject import Subject, open_subject

SIZE = (64, 128)
CLIPS, LENGTH = 3, 6
CONFIG = ModelConfig(
    backbone="topformer-tiny",
    classes=CLASSES,
    input_size=SIZE,
    num_queries=8,
    width=16,
    num_heads=4,
)
SURE, NEVER = 8.0, -12.0


def at_full_resolution(spec: GraphSpec) -> GraphSpec:
    outputs = (
        replace(t, shape=(*t.shape[:2], *SIZE)) if t.name == "mask_logits" else t
        for t in spec.outputs
    )
    return replace(spec, outputs=tuple(outputs))


class Oracle:
    """Recognises each frame by its pixels and answers with its annotations, mask by mask.

    Query k is track k, and so is its kernel; mask logits have the picture's own resolution, so that
    nothing is lost on the way.
    """

    name, runtime, emulated = "oracle", "none", False
    specs: ClassVar = {r: at_full_resolution(s) for r, s in graph_specs(CONFIG).items()}

    def __init__(self, misname: bool = False, inside_out: bool = False) -> None:
        self.calls = 0
        self._misname = misname
        self._inside = -1 if inside_out else 1
        self._frames: dict[bytes, Any] = {}
        for clip in range(CLIPS):
            for frame in ShapesClip(clip_seed("test", clip), LENGTH, SIZE):
                self._frames[frame.image.tobytes()] = frame

    def outputs(self, calls: list[Call]) -> list[dict[str, np.ndarray]]:
        return [getattr(self, call.role)(**call.inputs) for call in calls]

    def _look(self, image: np.ndarray) -> Any:
        self.calls += 1
        return self._frames[image[0].transpose(1, 2, 0).astype(np.uint8).tobytes()]

    def _masks(self, frame: Any) -> np.ndarray:
        logits = np.full((CONFIG.num_queries, *SIZE), -self._inside, np.float32)
        for track, mask in zip(frame.track_ids, frame.masks, strict=True):
            logits[track][mask] = self._inside
        return logits

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        frame = self._look(image)
        classes = np.full((CONFIG.num_queries, len(CLASSES)), NEVER, np.float32)
        objectness = np.full((CONFIG.num_queries, 1), NEVER, np.float32)
        shift = 1 if self._misname else 0
        for track, label in zip(frame.track_ids, frame.labels, strict=True):
            classes[track, (label + shift) % len(CLASSES)] = SURE
            objectness[track] = SURE
        return {
            "class_logits": classes[None],
            "objectness_logits": objectness[None],
            "kernels": np.eye(CONFIG.num_queries, CONFIG.width, dtype=np.float32)[None],
            "mask_logits": self._masks(frame)[None],
        }

    def mask_head(self, image: np.ndarray, kernels: np.ndarray) -> dict[str, np.ndarray]:
        return {"mask_logits": self._masks(self._look(image))[None, kernels[0].argmax(1)]}


def subject(runner: Any = None, **changes: Any) -> Subject:
    made = Subject(
        id="oracle",
        config=CONFIG,
        sha256="0" * 64,
        trained=True,
        runtime="onnxruntime",
        device="cpu",
        folder=Path("none"),
        form="plain",
        runner=runner or Oracle(),
    )
    return replace(made, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, "test", CLIPS, LENGTH, SIZE, suffix=".png")
    return folder


def on_pictures(data: Path, journals: Path, of: Subject | None = None, **options: Any) -> Any:
    return evaluate_pictures(
        of or subject(), data / FRAMES, data / COCO_FILE, journals=Journals(journals), **options
    )


def on_clips(data: Path, journals: Path, schedule: str, of: Subject | None = None) -> Any:
    return evaluate_clips(
        of or subject(), data / FRAMES, data / YTVIS_FILE, schedule, journals=Journals(journals)
    )


def test_a_model_that_knows_every_picture_has_full_ap(data, tmp_path):
    block = on_pictures(data, tmp_path)
    assert block.metrics["AP"] == pytest.approx(1)
    assert set(block.metrics) == set(PICTURE_METRICS)
    assert (block.items, block.frames, block.keyframes) == (18, 18, 18)
    assert set(block.per_class) == set(CLASSES)
    assert block.skipped == {}


def test_naming_everything_wrongly_costs_most_of_it(data, tmp_path):
    """Not all: the right name is among the best hundred pairs, behind the wrong one."""
    block = on_pictures(data, tmp_path, subject(Oracle(misname=True)))
    assert 0.05 < block.metrics["AP"] < 0.5


def test_looking_past_everything_costs_all_of_it(data, tmp_path):
    block = on_pictures(data, tmp_path, subject(Oracle(inside_out=True)))
    assert block.metrics["AP"] < 0.01


def test_tracks_known_in_every_frame_have_full_ap(data, tmp_path):
    block = on_clips(data, tmp_path, "1")
    assert tuple(block.metrics) == CLIP_METRICS
    assert block.metrics["AP"] == block.metrics["AR10"] == pytest.approx(1)
    assert (block.items, block.frames, block.keyframes) == (CLIPS, 18, 18)


def test_kernel_reuse_costs_keyframes_and_keeps_tracks(data, tmp_path):
    block = on_clips(data, tmp_path, "3")
    assert block.keyframes == CLIPS * 2
    assert block.metrics["AP"] > 0.8
    assert block.settings["schedule"] == "3"


def test_auto_is_a_schedule(data, tmp_path):
    block = on_clips(data, tmp_path, "auto")
    assert CLIPS <= block.keyframes <= 18


def test_a_schedule_that_is_none_is_refused(data, tmp_path):
    with pytest.raises(ConfigError):
        on_clips(data, tmp_path, "0")


def test_masks_come_back_at_the_pictures_own_size():
    frame = ShapesClip(clip_seed("test", 0), LENGTH, SIZE).frame(0)
    found = find_in_picture(subject(), frame.image)
    best = [c for c in found.candidates if max(s for _, s in c.scores) > 0.9]
    assert len(best) == len(frame.labels)
    for candidate in best:
        mask = decode(candidate.mask)
        assert any(np.array_equal(mask, truth) for truth in frame.masks)


class Everything(Oracle):
    """Finds everything everywhere."""

    specs = graph_specs(replace(CONFIG, num_queries=40))

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        n = 40
        return {
            "class_logits": rng.normal(size=(1, n, len(CLASSES))).astype(np.float32),
            "objectness_logits": np.zeros((1, n, 1), np.float32),
            "kernels": rng.normal(size=(1, n, CONFIG.width)).astype(np.float32),
            "mask_logits": np.ones((1, n, 8, 16), np.float32),
        }


def test_only_the_best_hundred_of_a_picture_count():
    image = np.zeros((*SIZE, 3), np.uint8)
    found = find_in_picture(subject(Everything()), image).candidates
    scores = [score for candidate in found for _, score in candidate.scores]
    assert len(scores) == MOST_FOUND
    outputs = Everything().frame(image)
    every = np.sqrt(1 / (1 + np.exp(-outputs["class_logits"])) * 0.5).ravel()
    assert min(scores) == pytest.approx(np.sort(every)[-MOST_FOUND], abs=1e-6)


class Nothing(Everything):
    """Finds nothing anywhere."""

    def frame(self, image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = dict(super().frame(image))
        outputs["mask_logits"] = -outputs["mask_logits"]
        return outputs


def test_empty_masks_are_not_found():
    image = np.zeros((*SIZE, 3), np.uint8)
    assert find_in_picture(subject(Nothing()), image).candidates == []
    assert find_in_clip(subject(Nothing()), [image] * 3, SIZE, "2").candidates == []


class Interrupted(Oracle):
    """Is interrupted at its eleventh picture."""

    def _look(self, image: np.ndarray) -> Any:
        if self.calls == 10:
            raise KeyboardInterrupt
        return super()._look(image)


def test_an_interrupted_evaluation_goes_on_where_it_was(data, tmp_path):
    whole = on_pictures(data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        on_pictures(data, tmp_path, subject(Interrupted()))
    rest = Oracle()
    assert on_pictures(data, tmp_path, subject(rest)) == whole
    assert rest.calls == 18 - 10


class Counting(Oracle):
    """Interrupted at a number of looks that all of its kind share, as by one Ctrl-C."""

    looks, limit = 0, 10**9

    def _look(self, image: np.ndarray) -> Any:
        Counting.looks += 1
        if Counting.looks > Counting.limit:
            raise KeyboardInterrupt
        return super()._look(image)


@pytest.mark.parametrize("where", ["in the second T", "as the report is written"])
def test_several_clip_lengths_go_on_where_they_were(data, tmp_path, monkeypatch, where):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = "mobileinst_deploy.workflows.evaluate"

    def measure() -> Any:
        counting = subject(Counting(), folder=tmp_path / "pair")
        monkeypatch.setattr(f"{module}.subject_on", lambda *_, **__: nullcontext(counting))
        places = {"images": data / FRAMES, "annotations": data / YTVIS_FILE}
        return evaluate("oracle", dataset="ytvis", clip_lengths=("1", "3"), **places)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        Counting.looks = 0
        if where == "in the second T":
            Counting.limit = 18 + LENGTH + 2
        else:
            patch.setattr(f"{module}.with_earlier", interrupt)
        with pytest.raises(KeyboardInterrupt):
            measure()
    Counting.looks, Counting.limit = 0, 10**9
    done = measure()
    assert Counting.looks == (18 - LENGTH if where == "in the second T" else 0)
    assert list(done.document["clips"]) == ["1", "3"]
    assert json.loads(done.kept.path.read_text()) == done.document
    assert not list((tmp_path / "cache").rglob("*.jsonl")), "finished work leaves nothing"


def test_a_results_file_cut_short_costs_only_its_last_line(data, tmp_path):
    whole = on_pictures(data, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        on_pictures(data, tmp_path, subject(Interrupted()))
    (journal,) = tmp_path.glob("*.jsonl")
    journal.write_bytes(journal.read_bytes()[:-7])
    rest = Oracle()
    assert on_pictures(data, tmp_path, subject(rest)) == whole
    assert rest.calls == 18 - 9


def test_another_model_does_not_go_on_with_these_results(data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        on_pictures(data, tmp_path, subject(Interrupted()))
    other = Oracle()
    on_pictures(data, tmp_path, subject(other, sha256="1" * 64))
    assert other.calls == 18


def test_pictures_of_another_folder_do_not_go_on_with_these_results(data, tmp_path):
    """The annotations may be the same, byte for byte."""
    with pytest.raises(KeyboardInterrupt):
        on_pictures(data, tmp_path, subject(Interrupted()))
    copy, other = shutil.copytree(data, tmp_path / "copy"), Oracle()
    on_pictures(copy, tmp_path, subject(other))
    assert other.calls == 18
    rest = Oracle()
    on_pictures(data, tmp_path, subject(rest))
    assert rest.calls == 18 - 10


def test_progress_counts_pictures(data, tmp_path):
    told = []
    on_pictures(data, tmp_path, progress=lambda *what: told.append(what))
    assert told[0] == ("evaluate instances.json", 1, 18)
    assert told[-1] == ("evaluate instances.json", 18, 18)


def test_classes_that_do_not_match_are_named(data, tmp_path):
    other = subject(config=replace(CONFIG, classes=("disc", "square", "blob")))
    with pytest.raises(DatasetError, match=r"triangle.*blob"):
        on_pictures(data, tmp_path, other)


def test_a_picture_that_cannot_be_read_stops_and_what_was_done_is_kept(data, tmp_path):
    folder = tmp_path / "copy"
    for file in (data / FRAMES).rglob("*.png"):
        target = folder / FRAMES / file.relative_to(data / FRAMES)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (folder / COCO_FILE).write_bytes((data / COCO_FILE).read_bytes())
    hurt = folder / FRAMES / "00001" / "00000.png"
    whole = hurt.read_bytes()
    hurt.write_bytes(whole[:50])
    with pytest.raises(MediaError, match=r"00000\.png"):
        on_pictures(folder, tmp_path / "j")
    hurt.write_bytes(whole)
    rest = Oracle()
    on_pictures(folder, tmp_path / "j", subject(rest))
    assert rest.calls == 18 - LENGTH


def save(
    folder: Path, pictures: EvalBlock | None, clips: dict[str, EvalBlock], sha256: str = "0" * 64
) -> None:
    """What ``evaluate`` does with what it measured."""
    report = EvalReport("oracle", sha256, True, "onnxruntime", CONFIG.input_size, pictures, clips)
    write_json(folder / "eval.json", with_earlier(report, folder / "eval.json"))


def test_eval_json_collects_what_one_model_is_worth(data, tmp_path):
    pictures = on_pictures(data, tmp_path / "j")
    clips = {t: on_clips(data, tmp_path / "j", t) for t in ("6", "3")}
    save(tmp_path, pictures, {})
    save(tmp_path, None, {"6": clips["6"]})
    save(tmp_path, None, {"3": clips["3"], "auto": clips["3"]})
    document = json.loads((tmp_path / "eval.json").read_text())
    assert list(document["clips"]) == ["3", "6", "auto"]
    assert document["pictures"]["AP"] == pytest.approx(1)
    assert document["clips"]["3"]["AP"] == clips["3"].metrics["AP"]
    assert document["clips"]["3"]["annotations"] == YTVIS_FILE
    save(tmp_path, pictures, {}, sha256="1" * 64)
    document = json.loads((tmp_path / "eval.json").read_text())
    assert "clips" not in document, "another model's figures do not mix"
    assert document["model_sha256"] == "1" * 64


@pytest.mark.parametrize("there", ["", "[]", '{"schema": 1}', '{"model_sha256": [}'])
def test_a_broken_eval_json_is_replaced(data, tmp_path, there):
    (tmp_path / "eval.json").write_text(there)
    save(tmp_path, on_pictures(data, tmp_path / "j"), {})
    assert json.loads((tmp_path / "eval.json").read_text())["pictures"]["items"] == 18


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    from mobileinst_deploy.core.config import Tolerance
    from mobileinst_deploy.network.checkpoint import save_checkpoint
    from mobileinst_deploy.network.loading import build_loaded

    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    loaded = build_loaded("tiny", CONFIG, None, seed=3, tolerance=Tolerance())
    save_checkpoint(path, loaded.model, {})
    return path


def test_a_checkpoint_and_its_exported_pair_find_the_same(checkpoint, tmp_path):
    from mobileinst_deploy.network.loading import load_model
    from mobileinst_deploy.pair.export import export_model

    export_model(load_model(str(checkpoint)), tmp_path / "pair")
    network, pair = open_subject(str(checkpoint)), open_subject(str(tmp_path / "pair"))
    assert (network.runtime, pair.runtime) == ("pytorch", "onnxruntime")
    assert network.trained
    assert pair.trained
    assert network.folder == checkpoint.parent
    assert pair.folder == tmp_path / "pair"
    images = [frame.image for frame in ShapesClip(0, 4, (90, 150)).frames()]
    mine = [find_in_picture(s, images[0]).candidates for s in (network, pair)]
    scores = [sorted(score for c in found for _, score in c.scores) for found in mine]
    assert np.allclose(*scores, atol=1e-4)
    tracks = [find_in_clip(s, images, (90, 150), "2").candidates for s in (network, pair)]
    assert len(tracks[0]) == len(tracks[1])


def test_a_device_that_is_not_there_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="device"):
        open_subject(str(checkpoint), "toaster")
