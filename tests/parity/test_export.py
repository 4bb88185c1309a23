"""Every kind of export is the network that PyTorch runs, and the pair is one network."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny import TINY, TOLERANCE

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.contract import ROLES
from mobileinst_deploy.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    OutputError,
    VerificationFailed,
)
from mobileinst_deploy.media.pictures import reference_clips
from mobileinst_deploy.network.checkpoint import save_checkpoint
from mobileinst_deploy.network.loading import LoadedModel, build_loaded, load_model
from mobileinst_deploy.pair import export
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.pair.onnx_file import get_metadata, load_graph, opset_of, summarise
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.pytorch import make_golden


def verified(bundle: ExportBundle) -> ExportBundle:
    """The bundle, once the whole ladder holds for it."""
    report = verify_bundle(bundle, CpuRunner(bundle), load_golden(bundle), reference="PyTorch")
    assert report.passed, report.first_failure
    return bundle


def build(config=TINY, seed: int = 0) -> LoadedModel:
    return build_loaded("tiny", config, None, seed=seed, tolerance=TOLERANCE)


@pytest.mark.parametrize("opset", [13, 20])
def test_the_lowest_and_the_highest_opset_give_pairs_that_hold(tiny_source, tmp_path, opset):
    bundle = verified(export_model(tiny_source, tmp_path / "pair", opset=opset))
    for role in ROLES:
        graph = load_graph(bundle.graphs[role].path)
        assert opset_of(graph) == opset == bundle.graphs[role].opset
        assert get_metadata(graph)["opset"] == str(opset)


def test_weights_that_give_no_numbers_are_named_before_anything_is_compared(tmp_path):
    source = build()
    with torch.no_grad():
        # Finite, as a checkpoint's tensors must be, and too large for what comes after.
        source.model.mask_decoder.n4.c.weight.fill_(3e38)
    with pytest.raises(CheckpointError, match="with these weights PyTorch itself gives"):
        export_model(source, tmp_path / "pair")
    assert not (tmp_path / "pair").exists()


@pytest.mark.parametrize("opset", [-1, 12, 21, 1000])
def test_an_opset_out_of_range_is_refused_before_anything_is_written(tiny_source, tmp_path, opset):
    with pytest.raises(ConfigError, match=f"opset {opset} is outside 13 to 20"):
        export_model(tiny_source, tmp_path / "pair", opset=opset)
    assert not list(tmp_path.iterdir())


def test_static_kernels_fix_the_number_of_masks(tiny_source, tmp_path, exported: ExportBundle):
    bundle = verified(export_model(tiny_source, tmp_path / "pair", dynamic_kernels=False))
    assert bundle.graphs["mask_head"].spec.inputs[1].shape == (1, 5, 16)
    assert bundle.graphs["mask_head"].spec.outputs[0].shape == (1, 5, 8, 16)
    assert bundle.pair_id != exported.pair_id


def test_unsimplified_graphs_hold_too(tiny_source, tmp_path, exported: ExportBundle):
    bundle = verified(export_model(tiny_source, tmp_path / "pair", simplify=False))
    for role in ROLES:
        plain = summarise(bundle.graphs[role].path)
        simple = summarise(exported.graphs[role].path)
        assert sum(plain.ops.values()) > sum(simple.ops.values())
        assert plain.macs >= simple.macs, "simplification folds, it adds nothing"
    assert bundle.pair_id != exported.pair_id


@pytest.mark.parametrize(
    "change",
    [
        {"decoder": "sparseinst", "decoder_convs": 1, "stages": ("local",), "pool_size": 4},
        {"decoder": "fpn", "enhancer": False, "stages": ("global", "global")},
        {"backbone": "mobilenetv2", "input_size": (128, 64), "num_queries": 1},
        {"backbone": "seaformer-base", "input_size": (128, 128)},
    ],
    ids=str,
)
def test_every_part_of_an_architecture_exports_as_a_pair_that_holds(tmp_path, change):
    verified(export_model(build(replace(TINY, **change)), tmp_path / "pair"))


def test_what_only_the_instance_decoder_needs_is_not_in_the_mask_head(tmp_path):
    bundle = verified(export_model(build(replace(TINY, enhancer=False)), tmp_path / "pair"))
    whole, head = (summarise(bundle.graphs[role].path) for role in ROLES)
    assert "Softmax" in whole.ops
    assert "Softmax" not in head.ops, "no attention, not even the backbone's, which makes X6"
    assert head.macs < whole.macs


def test_the_mask_head_graph_is_the_networks_mask_head(tiny_source, exported: ExportBundle):
    golden = load_golden(exported)
    feeds = {"image": golden.image(3), "kernels": golden.kernels(0)[:, 1:3]}
    got = CpuRunner(exported).run("mask_head", feeds)["mask_logits"]
    with torch.inference_mode():
        want = tiny_source.model.mask_head(*(torch.from_numpy(a) for a in feeds.values()))
    np.testing.assert_allclose(got, want, atol=TOLERANCE.atol, rtol=TOLERANCE.rtol)


def test_the_same_network_gives_the_same_pair_to_the_byte_and_stays_as_it_was(
    tiny_source, exported: ExportBundle, tmp_path
):
    before = {k: v.clone() for k, v in tiny_source.model.state_dict().items()}
    again = export_model(tiny_source, tmp_path / "pair")
    assert again.sha256 == exported.sha256
    assert not tiny_source.model.training
    after = tiny_source.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_reference_is_pytorchs_own(tiny_source, exported: ExportBundle):
    golden = load_golden(exported)
    again = make_golden(tiny_source.model, *reference_clips(TINY.input_size))
    for role in ROLES:
        for name, value in golden.outputs(role).items():
            np.testing.assert_array_equal(value, again.outputs(role)[name])


def test_weights_are_named_by_their_sha256_in_manifest_and_graphs(tiny_source, tmp_path):
    weights = tmp_path / "trained.safetensors"
    save_checkpoint(weights, tiny_source.model)
    source = load_model(str(weights))
    bundle = verified(export_model(source, tmp_path / "pair"))
    assert (bundle.model_id, bundle.trained, bundle.seed) == ("trained", True, None)
    assert bundle.checkpoint_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    carried = get_metadata(load_graph(bundle.graphs["mask_head"].path))
    assert carried["checkpoint_sha256"] == bundle.checkpoint_sha256


def test_an_older_export_gives_way_with_what_was_measured_on_it(pair: Path, exported):
    (pair / "parity.json").write_text("{}")
    newer = export_model(build(seed=1), pair, simplify=False)
    assert newer.pair_id != exported.pair_id
    assert sorted(p.name for p in pair.iterdir()) == [
        "frame.onnx",
        "golden.npz",
        "manifest.json",
        "mask_head.onnx",
    ]
    assert [p.name for p in pair.parent.iterdir()] == ["pair"]


def test_a_folder_of_other_things_is_left_alone(tiny_source, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"is not an older export: it holds thesis\.tex"):
        export_model(tiny_source, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("where", "failure", "seen"),
    [
        ("make_golden", KeyboardInterrupt(), KeyboardInterrupt),
        ("trace_pair", BundleError("PyTorch cannot export it", "Try"), BundleError),
        ("simplify_graph", VerificationFailed("it changed", "Try"), VerificationFailed),
        ("write_graphs", OSError(28, "No space left on device"), OutputError),
    ],
)
def test_an_export_that_fails_leaves_the_older_one(
    tiny_source, pair: Path, monkeypatch, where, failure, seen
):
    before = load_bundle(pair)

    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(export, where, fail)
    with pytest.raises(seen):
        export_model(tiny_source, pair)
    assert load_bundle(pair) == before
    assert [p.name for p in pair.parent.iterdir()] == ["pair"]


def test_an_export_that_was_never_right_is_not_hidden_by_simplification(
    tiny_source, tmp_path, monkeypatch
):
    traced = export.trace_pair

    def wrong(*args, **kwargs):
        pair = traced(*args, **kwargs)
        for graph in pair.values():
            for node in graph.graph.node:
                if node.op_type == "Relu":
                    node.op_type = "Sigmoid"
        return pair

    monkeypatch.setattr(export, "trace_pair", wrong)
    bundle = export_model(tiny_source, tmp_path / "pair")
    report = verify_bundle(bundle, CpuRunner(bundle), load_golden(bundle), reference="PyTorch")
    assert report.first_failure.rung == "values"


def test_progress_is_told_to_the_end(tiny_source, tmp_path):
    told = []
    export_model(
        tiny_source, tmp_path / "pair", simplify=False, progress=lambda *step: told.append(step)
    )
    assert [done for _, done, _ in told] == [0, 1, 2, 3, 4]
    assert {total for _, _, total in told} == {4}
    assert told[-1][0] == "export: done"


def test_the_manifest_is_json_that_another_program_can_read(exported: ExportBundle):
    document = json.loads((exported.folder / "manifest.json").read_text())
    assert document["graphs"]["mask_head"]["inputs"][1] == {
        "name": "kernels",
        "dtype": "float32",
        "shape": [1, "n", 16],
    }
    assert document["tools"].keys() == {
        "mobileinst",
        "python",
        "torch",
        "onnx",
        "onnxsim",
        "onnxruntime",
    }
    for name in ("frame.onnx", "mask_head.onnx"):
        onnx.checker.check_model(onnx.load(exported.folder / name), full_check=True)
