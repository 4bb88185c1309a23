"""Eight-bit pairs state their price, keep what must stay exact, and refuse to lie about masks."""

import json

import cv2
import numpy as np
import onnx
import pytest
from onnx_graphs import Writer, feeds_of, ops, run

from mobileinst_deploy.core.bundle import HALF_WEIGHTS, load_bundle, load_golden
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import BundleError, ConfigError, MediaError, VerificationFailed
from mobileinst_deploy.optimize.beside_int8 import WinogradBesideInt8
from mobileinst_deploy.pair.onnx_file import load_graph
from mobileinst_deploy.quantize import (
    INT8,
    halve_pair,
    halve_weights,
    quantize_pair,
    read_pictures,
)
from mobileinst_deploy.quantize.int8 import _overlaps, _search
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner


class NothingInFloat:
    """A rewriter that prefers 8 bits everywhere."""

    def cheaper_in_float(self, graph):
        return frozenset()

    def rewrite(self, graph):
        return graph, ()


@pytest.fixture(scope="module")
def pictures(exported):
    golden = load_golden(exported)
    return [golden.image(i % len(golden.images)) for i in range(4)]


@pytest.fixture(scope="module")
def quantized(exported, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized") / "pair"
    return quantize_pair(exported, folder, pictures, min_mask_iou=0.0, rewriter=NothingInFloat())


def test_both_graphs_run_and_keep_their_signatures(exported, quantized, pictures):
    pair, _ = quantized
    runner = CpuRunner(pair)
    outputs = runner.run("frame", {"image": pictures[0]})
    assert {k: v.shape for k, v in outputs.items()} == {
        t.name: t.shape for t in exported.graphs["frame"].spec.outputs
    }
    masks = runner.run("mask_head", {"image": pictures[0], "kernels": outputs["kernels"][:, :2]})
    assert masks["mask_logits"].shape[1] == 2
    assert all(np.isfinite(v).all() for v in outputs.values())


def test_convolutions_have_8_bit_weights_with_a_scale_per_channel(quantized):
    graph = load_graph(quantized[0].graphs["frame"].path)
    weights = {t.name: t for t in graph.graph.initializer}
    made = {node.output[0]: node for node in graph.graph.node}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        widen = made[node.input[1]]
        assert widen.op_type == "DequantizeLinear"
        assert weights[widen.input[0]].data_type == onnx.TensorProto.INT8
        assert len(weights[widen.input[1]].dims) == 1


def test_the_report_states_the_price(exported, quantized):
    pair, report = quantized
    assert (report.calibration, report.held_out) == (3, 1)
    assert report.quantized > 0
    assert report.sensitive == ()
    assert 0 <= report.worst_mask_iou <= report.mask_iou <= 1
    assert report.masks > 0
    for role in ROLES:
        assert report.before.bytes[role] == exported.graphs[role].bytes
        assert report.after.bytes[role] == pair.graphs[role].bytes < report.before.bytes[role]
        assert report.after.host_ms[role] > 0


def test_the_pair_says_that_it_is_quantised(quantized):
    assert quantized[0].optimized == (INT8,)
    assert quantized[0].precision == "int8"


def test_the_manifest_lists_the_passes_of_both_graphs(exported, pictures, tmp_path):
    class ByGraph(NothingInFloat):
        """Does one thing to the frame graph, another to the mask head, a third to both."""

        def rewrite(self, graph):
            frame = len(graph.graph.output) > 1
            return graph, ("both", "frame's") if frame else ("both", "mask head's")

    pair, _ = quantize_pair(
        exported, tmp_path / "pair", pictures, min_mask_iou=0.0, rewriter=ByGraph()
    )
    assert pair.optimized == (INT8, "both", "frame's", "mask head's")


def test_a_quantised_pair_is_not_quantised_again(quantized, pictures, tmp_path):
    with pytest.raises(BundleError, match="already"):
        quantize_pair(
            quantized[0],
            tmp_path / "x",
            pictures,
            min_mask_iou=0.0,
            rewriter=NothingInFloat(),
        )


def test_too_few_pictures_are_refused(exported, pictures, tmp_path):
    with pytest.raises(MediaError, match="too few"):
        quantize_pair(
            exported, tmp_path / "x", pictures[:3], min_mask_iou=0.0, rewriter=NothingInFloat()
        )


class FakeQuantizer:
    """Masks that suffer from each convolution by a known amount."""

    def __init__(self, harm):
        self.harm = harm
        self.convolutions = list(harm)
        self.builds = 0

    def build(self, in_float):
        self.builds += 1
        return set(in_float)

    def build_alone(self, name):
        return set(self.convolutions) - {name}

    def run(self, graph, inputs, wanted):
        return self.suffered(graph)


@pytest.fixture
def fake_runs(monkeypatch):
    """Run fake graphs: the overlap is one minus the harm of what is in 8 bits."""

    def install(quantizer, floor=0.0):
        def suffered(graph):
            return floor + sum(h for n, h in quantizer.harm.items() if n not in graph)

        quantizer.suffered = suffered
        monkeypatch.setattr(
            "mobileinst_deploy.quantize.int8._overlaps", lambda got, want: np.array([1 - got])
        )
        monkeypatch.setattr("mobileinst_deploy.quantize.int8._error", lambda got, want: got)

    return install


def search(quantizer, least):
    names = list(quantizer.convolutions)
    return _search(quantizer, names, frozenset(), [], [], least, lambda *_: None)


def test_nothing_stays_in_float_when_masks_are_good_enough(fake_runs):
    quantizer = FakeQuantizer({"a": 0.01, "b": 0.01})
    fake_runs(quantizer)
    assert search(quantizer, 0.97) == []
    assert quantizer.builds == 1


@pytest.mark.parametrize(
    ("least", "kept"), [(0.85, ["c"]), (0.93, ["c", "a"]), (0.96, ["c", "a", "d"])]
)
def test_the_fewest_and_most_harmful_stay_in_float(fake_runs, least, kept):
    quantizer = FakeQuantizer({"a": 0.08, "b": 0.02, "c": 0.2, "d": 0.03, "e": 0.01})
    fake_runs(quantizer)
    assert search(quantizer, least) == kept


def test_masks_that_cannot_be_kept_are_an_error(fake_runs):
    quantizer = FakeQuantizer({"a": 0.01, "b": 0.02})
    fake_runs(quantizer, floor=0.5)
    with pytest.raises(VerificationFailed, match=r"0\.97"):
        search(quantizer, 0.97)


def test_overlaps_are_of_the_instances_that_an_app_would_show():
    masks = np.full((1, 3, 4, 4), -5, np.float32)
    masks[:, :, :2] = 5
    want = {
        "class_logits": np.float32([[[4], [4], [-9]]]),
        "objectness_logits": np.float32([[[4], [4], [-9]]]),
        "mask_logits": masks,
    }
    got = {**want, "mask_logits": masks.copy()}
    got["mask_logits"][0, 1, 0] = -5  # half of the second mask
    got["mask_logits"][0, 2] *= -1  # a query that shows nothing
    np.testing.assert_allclose(_overlaps([got], [want]), [1.0, 0.5])


def test_wide_convolutions_are_cheaper_by_winograd_than_in_8_bits():
    w = Writer()
    wide = w.conv(w.input(1, 256, 24, 40), 256, 256)
    narrow = w.conv(w.conv(wide, 256, 8, kernel=1), 8, 8)
    model = w.model(narrow)
    names = [node.name for node in model.graph.node]
    rewriter = WinogradBesideInt8()
    assert rewriter.cheaper_in_float(model) == {names[0]}
    after, steps = rewriter.rewrite(model)
    assert "store-by-pixels" in steps
    feeds = feeds_of(model)
    np.testing.assert_allclose(run(after, **feeds)[0], run(model, **feeds)[0], atol=1e-4)


def test_half_weights_are_half_the_file_and_rounded_to_eleven_bits():
    w = Writer()
    model = w.model(w.conv(w.input(1, 64, 8, 8), 64, 64))
    after = halve_weights(model)
    assert len(after.SerializeToString()) < 0.55 * len(model.SerializeToString())
    feeds = feeds_of(model)
    want, got = run(model, **feeds)[0], run(after, **feeds)[0]
    assert 0 < np.abs(got - want).max() < 2**-10 * np.abs(want).max() * 4
    assert len(model.graph.initializer) == 2, "the given graph stays as it is"


def test_small_tensors_and_what_float16_cannot_hold_stay_exact():
    w = Writer()
    huge = w.constant(np.full((64, 64), 1e6, np.float32))
    x = w.node("MatMul", w.input(2, 64), huge)
    model = w.model(w.node("MatMul", x, w.weight(64, 8)))
    after = halve_weights(model)
    assert "Cast" not in ops(after)
    feeds = feeds_of(model)
    np.testing.assert_array_equal(run(after, **feeds)[0], run(model, **feeds)[0])


def test_a_pair_is_halved_once(exported, tmp_path):
    pair, before, after = halve_pair(exported, tmp_path / "half")
    assert pair.optimized == (HALF_WEIGHTS,)
    assert all(after.bytes[role] <= before.bytes[role] for role in ROLES)
    with pytest.raises(BundleError, match="already"):
        halve_pair(pair, tmp_path / "again")


def picture_folder(folder, count):
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03}.png"), random.integers(0, 255, (30, 40, 3), np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_pictures_are_read_as_in_deployment(tmp_path):
    found = read_pictures(picture_folder(tmp_path / "p", 5), (64, 128))
    assert len(found) == 5
    assert all(p.shape == (1, 3, 64, 128) and p.dtype == np.float32 for p in found)


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_folders_without_pictures_are_refused(tmp_path, kind):
    folder = tmp_path / "p"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("")
    with pytest.raises(MediaError):
        read_pictures(folder, (64, 64))


def test_the_command_prints_one_json_document_with_the_price(pair, tmp_path, capsys):
    from mobileinst_deploy.cli.quantize import quantize

    folder = picture_folder(tmp_path / "p", 4)
    quantize(pair, folder, tmp_path / "out", mask_iou=0.0, json=True)
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert "not the paper's protocol" in document["note"]
    assert document["trained"] is False
    assert document["pair_id"] == load_bundle(tmp_path / "out").pair_id


@pytest.mark.parametrize("both", [True, False])
def test_the_command_wants_pictures_or_half_weights(pair, tmp_path, both):
    from mobileinst_deploy.cli.quantize import quantize

    with pytest.raises(ConfigError, match="pictures"):
        quantize(pair, tmp_path if both else None, tmp_path / "out", half_weights=both)
