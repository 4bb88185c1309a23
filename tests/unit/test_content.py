"""What runs is what was checked: content is read once, whole, and from one folder."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from forgery import edit_graph, sign_files
from onnx import TensorProto, helper, numpy_helper

from mobileinst_deploy.core import files
from mobileinst_deploy.core.bundle import load_bundle, load_golden
from mobileinst_deploy.core.content import open_folder
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import BundleError
from mobileinst_deploy.core.external_data import has_external_data
from mobileinst_deploy.core.files import folder_atomically
from mobileinst_deploy.core.pair_files import BUNDLE_FILES, MANIFEST
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.pair.static_rungs import static_checks
from mobileinst_deploy.phone.storage import pair_files
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner


def replace_pair(folder: Path, source: Path) -> None:
    with folder_atomically(folder, MANIFEST, BUNDLE_FILES) as temporary:
        for file in source.iterdir():
            shutil.copy(file, temporary)


@pytest.fixture
def other(pair: Path, tmp_path: Path) -> Path:
    """Another pair: its masks are the first one's, inside out."""
    folder = shutil.copytree(pair, tmp_path / "other")

    def invert(graph: onnx.ModelProto) -> None:
        name = graph.graph.output[0].name
        for node in graph.graph.node:
            node.output[:] = ["before" if n == name else n for n in node.output]
        graph.graph.node.append(helper.make_node("Neg", ["before"], [name]))

    edit_graph(folder, "mask_head", invert)
    return folder


def test_what_runs_is_what_was_checked_whatever_lies_there_by_now(pair: Path, other: Path):
    bundle = load_bundle(pair)
    golden = load_golden(bundle)
    feeds = golden.inputs("mask_head", 1)
    want = CpuRunner(bundle).run("mask_head", feeds)["mask_logits"]
    replace_pair(pair, other)
    (pair / "frame.onnx").write_bytes(b"")

    got = CpuRunner(bundle).run("mask_head", feeds)["mask_logits"]
    assert np.array_equal(got, want)
    assert all(check.passed for check in static_checks(bundle))
    assert np.array_equal(load_golden(bundle).images, golden.images)
    for role in ROLES:
        (file,) = pair_files(bundle.graphs[role].files)
        assert file.sha256 == bundle.graphs[role].sha256
        assert file.content is bundle.graphs[role].onnx


@pytest.mark.parametrize("at_once", [True, False], ids=["one step", "two renames"])
def test_a_pair_that_is_rewritten_while_it_is_read_is_one_or_the_other(
    pair: Path, other: Path, tmp_path: Path, monkeypatch, at_once: bool
):
    """The case toctou-pair: two writers and a reader on one folder."""
    if not at_once:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    elif not files.exchange(pair, other):
        pytest.skip("this file system exchanges nothing")
    place = tmp_path / "place"
    replace_pair(place, pair)
    known = {load_bundle(folder).pair_id: folder for folder in (pair, other)}
    digests = {load_bundle(f).graphs["mask_head"].sha256 for f in (pair, other)}
    stop, until = tmp_path / "stop", time.monotonic() + 30
    children = [os.fork() for _ in range(2 if at_once else 1)]
    if 0 in children:
        turn = 0
        while time.monotonic() < until and not stop.exists():
            replace_pair(place, (pair, other)[turn % 2])
            turn += 1
        os._exit(0)
    seen: set[str] = set()
    failed: list[str] = []
    reads = 0
    while time.monotonic() < until and not (reads >= 20 and seen == digests):
        try:
            bundle = load_bundle(place)
        except BundleError as error:
            failed.append(error.cause)
            continue
        load_golden(bundle)
        reads += 1
        assert bundle.pair_id in known
        seen.add(bundle.graphs["mask_head"].sha256)
    stop.touch()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    # Two renames leave a moment without any folder, and never half of one.
    assert not failed if at_once else all("does not exist" in cause for cause in failed)
    assert reads >= 20
    assert seen == digests
    load_bundle(place)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_damaged_pair_that_nobody_replaced_is_refused_at_once(pair: Path):
    (pair / "frame.onnx").write_bytes(b"")
    begun = time.monotonic()
    with pytest.raises(BundleError, match=r"frame\.onnx is not the file"):
        load_bundle(pair)
    assert time.monotonic() - begun < 1


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(pair: Path):
    (pair / "golden.npz").unlink()
    os.mkfifo(pair / "golden.npz")
    with pytest.raises(BundleError, match="is missing or not a plain file"):
        load_bundle(pair)


def test_an_open_folder_stays_what_it_was(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("old")
    with open_folder(folder, ["file", "none"]) as opened:
        assert not opened.replaced()
        folder.rename(tmp_path / "moved")
        assert opened.replaced()
        folder.mkdir()
        (folder / "file").write_text("new")
        assert opened.replaced()
        assert opened.read("file", 10).data == b"old"
        assert opened.read("file", 1).data == b"ol", "a byte too many says that it is too large"
        assert opened.read("none", 10) is None


def external(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.ones((2, 2), np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    return tensor


def in_an_initialiser(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(external())


def in_a_constant(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Constant", [], ["w"], value=external()))


def in_a_list(graph: onnx.ModelProto) -> None:
    node = helper.make_node("Odd", [], ["w"])
    node.attribute.append(helper.make_attribute("values", [external()]))
    graph.graph.node.append(node)


def in_a_subgraph(graph: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], initializer=[external()])
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["w"], then_branch=inner)], "o", [], []
    )
    graph.graph.node.append(helper.make_node("If", ["c"], ["w"], then_branch=outer))


def in_a_function(graph: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["w"], value=external())
    graph.functions.append(
        helper.make_function("f", "f", [], ["w"], [node], [helper.make_opsetid("", 17)])
    )


def in_a_sparse_tensor(graph: onnx.ModelProto) -> None:
    graph.graph.sparse_initializer.add().values.CopyFrom(external())


PLACES = [
    in_an_initialiser,
    in_a_constant,
    in_a_list,
    in_a_subgraph,
    in_a_function,
    in_a_sparse_tensor,
]


@pytest.mark.parametrize("put", PLACES, ids=lambda put: put.__name__)
def test_external_data_is_refused_wherever_it_hides(pair: Path, put):
    assert not has_external_data((pair / "frame.onnx").read_bytes())
    edit_graph(pair, "frame", put)
    assert has_external_data((pair / "frame.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"frame\.onnx keeps its weights in another file"):
        load_bundle(pair)
    with pytest.raises(BundleError, match=r"frame\.onnx keeps its weights in another file"):
        load_graph(pair / "frame.onnx")


def test_a_graph_that_is_not_protobuf_is_refused(pair: Path):
    data = (pair / "frame.onnx").read_bytes()
    (pair / "frame.onnx").write_bytes(data[:-9])
    sign_files(pair)
    with pytest.raises(BundleError, match=r"frame\.onnx is not an ONNX file"):
        load_bundle(pair)


def test_a_graph_of_endless_fields_is_refused_soon(pair: Path):
    (pair / "frame.onnx").write_bytes(b"\x08\x01" * 5_000_000)
    sign_files(pair)
    begun = time.monotonic()
    with pytest.raises(BundleError, match="has more than 2000000 fields"):
        load_bundle(pair)
    assert time.monotonic() - begun < 5


def test_golden_data_that_is_no_npy_is_refused(pair: Path):
    """The case golden-not-npy: numpy hands out such a member as plain bytes."""
    path = pair / "golden.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in members:
        with zipfile.ZipFile(path, "w") as archive:
            for other_name, data in members.items():
                archive.writestr(other_name, b"no array" if other_name == name else data)
        sign_files(pair)
        with pytest.raises(BundleError, match="is not readable golden data"):
            load_golden(load_bundle(pair))
