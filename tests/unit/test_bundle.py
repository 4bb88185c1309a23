"""An exported pair is believed only as far as its files bear it out."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forgery import edit_golden, edit_graph, edit_manifest, sign_files
from hypothesis import HealthCheck, given, settings, strategies as st
from tiny import TINY

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.contract import ROLES, graph_specs
from mobileinst_deploy.core.errors import BundleError, InputError
from mobileinst_deploy.core.golden import read_golden


def test_what_export_wrote_is_read_back(exported: ExportBundle):
    assert exported == load_bundle(exported.folder)
    assert exported.config == TINY
    assert (exported.trained, exported.seed, exported.checkpoint_sha256) == (False, 0, None)
    assert "RANDOM weights" in exported.weights_note
    assert {role: graph.spec for role, graph in exported.graphs.items()} == graph_specs(TINY)


def test_trained_weights_are_named_by_their_sha256(exported: ExportBundle):
    trained = replace(exported, trained=True, checkpoint_sha256="c0ffee" * 10)
    assert trained.weights_note == "trained, sha256 c0ffeec0ffee"


def test_a_graph_alone_says_where_it_belongs(exported: ExportBundle):
    metadata = exported.graph_metadata("mask_head")
    assert metadata["pair_id"] == exported.pair_id
    assert metadata["role"] == "mask_head"
    assert metadata["checkpoint_sha256"] == "random weights, seed 0"
    assert metadata["input_size"] == "64x128"
    assert metadata["classes"].splitlines() == ["cat", "dog", "fox"]


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(BundleError, match="does not exist"):
        load_bundle(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="is a file, not a folder"):
        load_bundle(tmp_path / "file")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is not whole JSON"),
        (b"{", "it is not whole JSON"),
        (b"\xff\xfe", "it is not whole JSON"),
        (b"[" * 100_000, "it is not a table"),
        (b"9" * 5000, "it is not a table"),
        (b"[]", "it is an empty list, not a table"),
        (b"{}", "has schema None"),
        (b'{"schema": "1"}', "has schema '1'"),
        (b'{"schema": 2}', "has schema 2, and this version reads schema 1"),
        (b'{"schema": 1}', "was edited after it was written"),
        (b" " * (5 << 20), "bytes, and 4,194,304 are the most"),
    ],
    ids=lambda value: str(value[:12]) if isinstance(value, bytes) else value,
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, content, said):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=said):
        load_bundle(tmp_path)


def test_a_manifest_edited_by_hand_is_noticed(pair: Path):
    edit_manifest(pair, lambda m: m["model"].update(trained=True), sign=False)
    with pytest.raises(BundleError, match="was edited after it was written"):
        load_bundle(pair)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("pair_id", 7, "pair_id is 7, not a text"),
        ("stride", 16, "stride is 16, not 8"),
        ("model", [], "model is an empty list, not a table"),
        ("model.id", None, "model.id is null, not a text"),
        ("model.trained", "no", "model.trained is 'no'"),
        ("model.trained", True, "checkpoint_sha256 is null"),
        ("model.seed", 1.5, "seed is 1.5"),
        ("model.seed", True, "seed is true"),
        ("model.seed", 10**30, "model.seed is a whole number of about 30 digits"),
        ("model.config.input_size", [64, 100], "the size 64x100"),
        ("model.config.width", 32, "other inputs or outputs than its model"),
        ("tolerance", {"atol": "much"}, "tolerance.atol is 'much'"),
        ("tolerance", {"slack": 1}, "tolerance has the unknown field 'slack'"),
        ("graphs", {}, "graphs lacks frame"),
        ("graphs.frame.opset", "17", "graphs.frame.opset is '17'"),
        ("graphs.frame.inputs", [], "other inputs or outputs than its model"),
        ("graphs.frame.inputs", [[]], r"graphs.frame.inputs\[0\] is an empty list"),
        ("graphs.frame.bytes", 0, "sha256 differs"),
        ("graphs.frame.sha256", "0" * 64, "sha256 differs"),
        ("graphs.frame.file", "../frame.onnx", "a path outside its folder"),
        ("graphs.frame.file", "/etc/passwd", "a path outside its folder"),
        ("graphs.frame.file", "..", "a path outside its folder"),
        ("graphs.frame.file", "", "file is ''"),
        ("graphs.frame.file", 7, "file is 7"),
        ("graphs.frame.file", "none.onnx", "is missing or not a plain file"),
        ("golden.file", "manifest.json", "sha256 differs"),
        ("optimized", "winograd", "optimized is 'winograd'"),
        ("tools", [], "tools is"),
    ],
)
def test_a_forged_manifest_is_refused_field_by_field(pair: Path, path, value, said):
    def edit(document: dict[str, Any]) -> None:
        *parents, name = path.split(".")
        for parent in parents:
            document = document[parent]
        document[name] = value

    edit_manifest(pair, edit)
    with pytest.raises(BundleError, match=said):
        load_bundle(pair)


@pytest.mark.parametrize("name", ["frame.onnx", "mask_head.onnx", "golden.npz"])
def test_every_file_is_the_one_that_the_manifest_was_written_with(pair: Path, name):
    path = pair / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name} is not the file"):
        load_bundle(pair)
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        load_bundle(pair)
    path.symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match=f"{name} is missing or not a plain file"):
        load_bundle(pair)


def test_graphs_of_two_exports_do_not_make_a_pair(pair: Path, exported: ExportBundle):
    edit_graph(pair, "frame", lambda graph: graph.metadata_props.add(key="other", value="export"))
    load_bundle(pair)
    shutil.copy(exported.graphs["frame"].path, pair / "frame.onnx")
    with pytest.raises(BundleError, match=r"frame\.onnx is not the file"):
        load_bundle(pair)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
no_copies = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@no_copies
@given(data=st.data())
def test_no_signed_manifest_does_worse_than_a_sentence(exported: ExportBundle, tmp_path, data):
    document = json.loads((exported.folder / "manifest.json").read_text())
    place, key = document, data.draw(st.sampled_from(sorted(document)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place, key = place[key], data.draw(st.sampled_from(sorted(place[key])))
    place[key] = data.draw(json_values)
    folder = _like(exported.folder, tmp_path)
    (folder / "manifest.json").write_text(json.dumps(document))
    edit_manifest(folder, lambda m: None)
    with suppress(InputError):
        load_bundle(folder)


@no_copies
@given(cut=st.integers(0), flip=st.integers(0), value=st.integers(0, 255))
def test_no_damaged_manifest_passes_for_whole(exported: ExportBundle, tmp_path, cut, flip, value):
    good = (exported.folder / "manifest.json").read_bytes()
    bad = bytearray(good[: cut % len(good) or None])
    bad[flip % len(bad)] = value
    folder = _like(exported.folder, tmp_path)
    (folder / "manifest.json").write_bytes(bad)
    try:
        same = load_bundle(folder)
    except BundleError:
        return
    assert replace(same, folder=exported.folder, sha256=exported.sha256).config == exported.config


def _like(folder: Path, tmp_path: Path) -> Path:
    """The pair's files without copying them; the manifest is the test's own."""
    target = tmp_path / "like"
    target.mkdir(exist_ok=True)
    for name in ("frame.onnx", "mask_head.onnx", "golden.npz"):
        if not (target / name).exists():
            os.link(folder / name, target / name)
    return target


def test_golden_data_holds_pictures_and_what_pytorch_made_of_them(exported: ExportBundle):
    golden = load_golden(exported)
    assert golden.images.shape[1:] == (3, 64, 128)
    assert golden.keyframe.tolist() == [0, 0, 0, 3]
    assert golden.image(1).dtype == np.float32
    assert np.array_equal(golden.kernels(2), golden.frame["kernels"][:1])
    assert golden.inputs("frame", 1).keys() == {"image"}
    assert golden.inputs("mask_head", 1).keys() == {"image", "kernels"}
    assert {role: set(golden.outputs(role)) for role in ROLES} == {
        role: {t.name for t in spec.outputs} for role, spec in graph_specs(TINY).items()
    }


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda a: a.pop("images"), "is not readable golden data"),
        (lambda a: a.pop("frame/kernels"), "is not readable golden data"),
        (lambda a: a.update(images=a["images"].astype(np.float32)), "does not fit the model"),
        (lambda a: a.update(images=a["images"][:0]), "does not fit the model"),
        (lambda a: a.update(images=np.uint8(0)), "does not fit the model"),
        (lambda a: a.update({"frame/kernels": a["frame/kernels"][:, :-1]}), "does not fit"),
        (lambda a: a.update(keyframe=a["keyframe"][:-1]), "names keyframes that cannot be"),
        (lambda a: a.update(keyframe=a["keyframe"] - 1), "names keyframes that cannot be"),
        (lambda a: a.update(keyframe=np.array([3, 0, 0, 3])), "names keyframes that cannot be"),
        (lambda a: a.update(keyframe=np.array([0, 0, 1, 3])), "names keyframes that cannot be"),
        (lambda a: a.update(keyframe=a["keyframe"] * 1.0), "names keyframes that cannot be"),
        (lambda a: a["frame/kernels"].fill(np.nan), "values that are not finite"),
        (lambda a: a["mask_head/mask_logits"].fill(np.inf), "values that are not finite"),
    ],
)
def test_golden_data_that_does_not_fit_is_refused(pair: Path, edit, said):
    edit_golden(pair, edit)
    with pytest.raises(BundleError, match=said):
        load_golden(load_bundle(pair))


def test_golden_data_runs_no_code(pair: Path, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    edit_golden(pair, lambda a: a.update(keyframe=np.array([Trap()], object)))
    with pytest.raises(BundleError, match="is not readable golden data"):
        load_golden(load_bundle(pair))
    (pair / "golden.npz").write_bytes(pickle.dumps(Trap()))
    sign_files(pair)
    with pytest.raises(BundleError, match="is not readable golden data"):
        load_golden(load_bundle(pair))
    assert not (tmp_path / "sprung").exists()


def test_golden_data_does_not_unpack_to_more_than_it_is(tmp_path):
    path = tmp_path / "golden.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", bytes(1 << 20))
    with pytest.raises(BundleError, match="is not readable golden data"):
        read_golden(read_content(path), TINY)


@no_copies
@given(cut=st.integers(0), flip=st.integers(0), value=st.integers(0, 255))
def test_no_damaged_golden_data_does_worse_than_a_sentence(
    exported: ExportBundle, tmp_path, cut, flip, value
):
    good = exported.golden.data
    bad = bytearray(good[: cut % len(good) or None] if flip % 2 else good)
    # Mostly among the headers: numpy's, and the archive's directory at the end.
    place = (flip // 2) % 400
    bad[-1 - place % len(bad) if flip % 3 else place % len(bad)] = value
    path = tmp_path / "golden.npz"
    path.write_bytes(bad)
    with suppress(BundleError):
        read_golden(read_content(path), TINY)
