"""Evaluation from end to end: a model that knows the answer, one that errs, and interruptions."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import CLIPS, CONFIG, LENGTH, SIZE, Oracle, on_clips, on_pictures, subject

from mobileinst_deploy.core.errors import ConfigError, MediaError
from mobileinst_deploy.core.files import write_json
from mobileinst_deploy.core.records import EvalBlock, EvalReport
from mobileinst_deploy.data.shapes import ShapesClip
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.workflows.evaluate import evaluate, with_earlier
from mobileinst_deploy.workflows.search import find_in_clip, find_in_picture
from mobileinst_deploy.workflows.subject import open_subject


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_shapes(folder, "test", CLIPS, LENGTH, SIZE, suffix=".png")
    return folder


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
