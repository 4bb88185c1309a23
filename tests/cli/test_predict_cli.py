"""`mobileinst predict` as somebody meets it who wants to hand results to a server."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import TINY
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.config import Tolerance
from mobileinst_deploy.core.masks import decode
from mobileinst_deploy.data.shapes import CLASSES
from mobileinst_deploy.data.shapes_files import COCO_FILE, FRAMES, YTVIS_FILE, write_shapes
from mobileinst_deploy.network.checkpoint import save_checkpoint
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.workflows import search

CONFIG = replace(TINY, classes=CLASSES)
SIZE, LENGTH = (48, 80), 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pictures and clips with their annotations, and the same files with these kept back."""
    folder = tmp_path_factory.mktemp("predict")
    write_shapes(folder, "test", 2, LENGTH, SIZE)
    for name, kept_back in ((COCO_FILE, "test-dev.json"), (YTVIS_FILE, "valid.json")):
        document = json.loads((folder / name).read_text())
        # COCO's test-dev has no such list, YouTube-VIS's valid.json has null in its place.
        if name == COCO_FILE:
            del document["annotations"]
        else:
            document["annotations"] = None
        (folder / kept_back).write_text(json.dumps(document))
    loaded = build_loaded("tiny", CONFIG, None, seed=0, tolerance=Tolerance())
    save_checkpoint(folder / "tiny.safetensors", loaded.model, {})
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mobileinst(*words: object):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def predict(folder: Path, output: Path, form: str, *more: object):
    listed = "valid.json" if form == "ytvis" else "test-dev.json"
    return mobileinst(
        *("predict", folder / "tiny.safetensors", "--dataset", form, "--images", folder / FRAMES),
        *("--annotations", folder / listed, "-o", output, *more),
    )


def test_pictures_without_annotations_give_cocos_form(folder, tmp_path):
    code, out, _ = predict(folder, tmp_path / "found.json", "coco")
    assert code == 0, out
    entries = json.loads((tmp_path / "found.json").read_text())
    assert {e["image_id"] for e in entries} == set(range(1, 7))
    for entry in entries[:5]:
        assert set(entry) == {"image_id", "category_id", "segmentation", "score"}
        assert decode(entry["segmentation"]).shape == SIZE
        assert 0 <= entry["score"] <= 1


def test_clips_without_annotations_give_youtube_vis_form_packed(folder, tmp_path):
    code, out, _ = predict(folder, tmp_path / "results.json.zip", "ytvis", "-T", "2", "--json")
    assert code == 0, out
    with zipfile.ZipFile(tmp_path / "results.json.zip") as archive:
        assert archive.namelist() == ["results.json"]
        entries = json.loads(archive.read("results.json"))
    assert json.loads(out)["results"] == len(entries) > 0
    for entry in entries:
        assert set(entry) == {"video_id", "category_id", "segmentations", "score"}
        assert len(entry["segmentations"]) == LENGTH
        assert all(m is None or decode(m).shape == SIZE for m in entry["segmentations"])


@pytest.mark.parametrize("form", ["coco", "ytvis"])
@pytest.mark.parametrize("name", ["results.json", "results.zip"])
def test_a_file_of_results_is_worth_what_its_model_is_worth(folder, tmp_path, form, name):
    predict(folder, tmp_path / name, form)
    annotations = folder / (YTVIS_FILE if form == "ytvis" else COCO_FILE)
    data = ("--dataset", form, "--annotations", annotations, "--json", "--report", tmp_path)
    code, out, _ = mobileinst("evaluate", tmp_path / name, *data)
    assert code == 0, out
    of_file = json.loads(out)
    more = ("-T", "3") if form == "ytvis" else ()
    model = folder / "tiny.safetensors"
    of_model = json.loads(
        mobileinst("evaluate", model, *data, "--images", folder / FRAMES, *more)[1]
    )
    if form == "ytvis":
        mine, theirs = of_file["clips"]["results file"], of_model["clips"]["3"]
    else:
        mine, theirs = of_file["pictures"], of_model["pictures"]
    for metric in ("AP", "AP50", "AR1", "AR10", "per_class", "objects"):
        assert mine[metric] == theirs[metric]
    assert (of_file["trained"], of_file["runtime"]) == (None, "results file")


def test_interrupted_work_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    whole = tmp_path / "whole.json"
    predict(folder, whole, "coco")
    really, seen = search.find_in_pictures, []

    def until_the_fourth(subject, images):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.extend(images)
        return really(subject, images)

    with monkeypatch.context() as patch:
        patch.setattr(search, "find_in_pictures", until_the_fourth)
        code, _, _ = predict(folder, tmp_path / "found.json", "coco")
    assert code == 130
    assert not (tmp_path / "found.json").exists()
    counted = []
    monkeypatch.setattr(
        search, "find_in_pictures", lambda *given: counted.append(1) or really(*given)
    )
    assert predict(folder, tmp_path / "found.json", "coco")[0] == 0
    assert len(counted) == 3
    assert (tmp_path / "found.json").read_bytes() == whole.read_bytes()


def test_classes_that_the_file_does_not_list_are_left_out_and_told(folder, tmp_path):
    document = json.loads((folder / "test-dev.json").read_text())
    del document["categories"][0]
    (folder / "fewer.json").write_text(json.dumps(document))
    code, _, err = predict(
        folder, tmp_path / "r.json", "coco", "--annotations", folder / "fewer.json"
    )
    assert code == 0
    assert f"1 classes that the file does not list, such as {CLASSES[0]}" in err
    assert 1 not in {e["category_id"] for e in json.loads((tmp_path / "r.json").read_text())}


@pytest.mark.parametrize(
    ("form", "name", "words", "told"),
    [
        ("imagenet", "r.json", (), "imagenet"),
        ("coco", "r.txt", (), "neither in .json nor in .zip"),
        ("coco", "r.json", ("-T", "3"), "have no T"),
        ("ytvis", "r.json", ("-T", "x"), "neither auto nor"),
        ("ytvis", "r.json", ("-T", "0"), "neither auto nor"),
        ("coco", "r.json", ("--association", "consecutive"), "no tracks"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(folder, tmp_path, form, name, words, told):
    code, out, err = predict(folder, tmp_path / name, form, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert list(tmp_path.glob("r.*")) == []


GOOD = {"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": None}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"image_id": 99}, "number 99"),
        ({"category_id": 99}, "category 99"),
        ({"score": "high"}, "score"),
        ({"segmentation": {"size": [4, 4], "counts": "`0"}}, "another size"),
        ({"segmentation": {"size": list(SIZE), "counts": "!!"}}, "result 0"),
        ({"segmentation": {"size": list(SIZE), "counts": "1"}}, "do not fill"),
    ],
)
def test_results_that_do_not_fit_the_annotations_are_refused(folder, tmp_path, entry, told):
    given = {**GOOD, "segmentation": {"size": list(SIZE), "counts": "PZ3"}, **entry}
    (tmp_path / "r.json").write_text(json.dumps([given]))
    code, out, err = mobileinst(
        *("evaluate", tmp_path / "r.json", "--dataset", "coco"),
        *("--annotations", folder / COCO_FILE),
    )
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize("content", [b"PK\x03\x04 no zip", b""])
def test_a_broken_zip_is_refused(folder, tmp_path, content):
    (tmp_path / "r.zip").write_bytes(content)
    code, _, err = mobileinst(
        *("evaluate", tmp_path / "r.zip", "--dataset", "coco"),
        *("--annotations", folder / COCO_FILE),
    )
    assert code == 2
    assert "no zip file" in err


@pytest.mark.parametrize("name", ["r.json", "r.zip"])
def test_results_larger_than_memory_are_told_by_their_size(folder, tmp_path, name):
    if name == "r.json":
        with (tmp_path / name).open("wb") as file:
            file.truncate((1 << 30) + 1)
    else:
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("r.json", "[]")
        data = bytearray((tmp_path / name).read_bytes())
        at = data.index(b"PK\x01\x02") + 24  # the size that the archive's own list says
        data[at : at + 4] = (2 << 30).to_bytes(4, "little")
        (tmp_path / name).write_bytes(data)
    code, _, err = mobileinst(
        *("evaluate", tmp_path / name, "--dataset", "coco"),
        *("--annotations", folder / COCO_FILE),
    )
    assert code == 2
    assert "1,073,741,824 are the most" in err or "more than 1 GiB" in err


def test_a_model_is_not_evaluated_without_pictures(folder):
    code, _, err = mobileinst(
        *("evaluate", folder / "tiny.safetensors", "--dataset", "coco"),
        *("--annotations", folder / COCO_FILE),
    )
    assert code == 2
    assert "--images" in err


def test_results_never_replace_the_annotations(folder, tmp_path):
    own = tmp_path / "own.json"
    own.write_bytes((folder / "test-dev.json").read_bytes())
    code, _, err = predict(folder, own, "coco", "--annotations", own)
    assert (code, "the annotations" in err) == (2, True)
    assert own.read_bytes() == (folder / "test-dev.json").read_bytes()


def test_a_picture_that_fails_is_no_fault_of_the_output(folder, tmp_path):
    code, out, _ = predict(folder, tmp_path / "r.json", "coco", "--images", tmp_path, "--json")
    assert code == 2
    assert json.loads(out)["error"]["where"] != str(tmp_path / "r.json")


@pytest.mark.parametrize(
    "words",
    [("-T", "3"), ("--association", "consecutive"), ("--upright",), ("--device", "adb")],
    ids=" ".join,
)
def test_what_says_how_to_search_is_refused_for_a_file_of_results(folder, tmp_path, words):
    (tmp_path / "r.json").write_text("[]")
    code, _, err = mobileinst(
        *("evaluate", tmp_path / "r.json", "--dataset", "ytvis"),
        *("--annotations", folder / YTVIS_FILE, *words),
    )
    assert code == 2
    assert f"{words[0]} means nothing for a file of results" in err


def test_a_zip_that_macos_packed_is_read(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("results.json", "[]")
        archive.writestr("__MACOSX/._results.json", b"\0\5\x16\7")
    code, _, err = mobileinst(
        *("evaluate", tmp_path / "r.zip", "--dataset", "coco"),
        *("--annotations", folder / COCO_FILE),
    )
    assert code == 0, err
