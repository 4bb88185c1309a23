"""models, export, verify, bench and inspect as a user and as a script meet them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import mobileinst
from forgery import change_weights, convolutions, edit_graph, rename
from tiny import TINY, TOLERANCE
from typer.testing import Result

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle
from mobileinst_deploy.media.pictures import bundled_photographs
from mobileinst_deploy.network.checkpoint import save_checkpoint
from mobileinst_deploy.network.loading import build_loaded

PARITY = Path("results") / "cpu-onnxruntime-plain" / "parity.json"


def ok(result: Result) -> Result:
    assert result.exit_code == 0, result.stderr
    return result


def test_models_lists_the_zoo_for_people_on_stdout():
    result = ok(mobileinst("models"))
    assert result.stderr == ""
    for word in ("mobileinst-topformer-vis", "384x640", "10.49 G", "11.90 M", "none: random"):
        assert word in result.stdout


def test_models_lists_the_zoo_for_scripts_on_stdout():
    result = ok(mobileinst("models", "--json"))
    assert result.stderr == ""
    rows = {row["id"]: row for row in json.loads(result.stdout)["models"]}
    vis = rows["mobileinst-topformer-vis"]
    assert (vis["input_size"], vis["classes"], vis["trained_weights"]) == ([384, 640], 40, False)
    assert vis["macs"] == pytest.approx(10.49e9, rel=1e-3)


def test_export_proves_what_it_wrote(tiny_toml: Path, tmp_path: Path):
    result = ok(mobileinst("export", tiny_toml, "-o", tmp_path / "pair", "--json"))
    document = json.loads(result.stdout)
    bundle = load_bundle(tmp_path / "pair")
    assert document["pair_id"] == bundle.pair_id
    assert document["parity"]["passed"] is True
    assert json.loads((bundle.folder / PARITY).read_text()) == document["parity"]
    assert "RANDOM weights" in result.stderr
    assert "pair contract" in result.stderr


def test_export_may_optimize_what_it_wrote(tiny_toml: Path, tmp_path: Path):
    result = ok(mobileinst("export", tiny_toml, "-o", tmp_path / "pair", "--optimize", "--json"))
    bundle = load_bundle(tmp_path / "pair")
    assert "store-by-pixels" in bundle.optimized
    document = json.loads(result.stdout)
    assert document["pair_id"] == bundle.pair_id
    assert document["parity"]["passed"] is True
    assert "frame: " in result.stderr


def test_export_takes_its_options(tiny_toml: Path, tmp_path: Path):
    options = ["--size", "128x64", "--opset", "18", "--static-kernels", "--no-simplify"]
    result = ok(mobileinst("export", tiny_toml, "-o", tmp_path / "pair", *options, "--no-verify"))
    bundle = load_bundle(tmp_path / "pair")
    assert bundle.config.input_size == (128, 64)
    assert bundle.graphs["frame"].opset == 18
    assert bundle.graphs["mask_head"].spec.inputs[1].shape == (1, 5, 16)
    assert not (bundle.folder / PARITY).exists()
    assert "Exported tiny" in result.stdout
    steps = re.findall(r"^Next: mobileinst (\S+) (\S+)", result.stdout, re.MULTILINE)
    assert [(name, Path(folder).is_dir()) for name, folder in steps] == [
        ("run", True), ("bench", True)
    ]  # fmt: skip


def test_verify_needs_nothing_but_the_folder(pair: Path):
    result = ok(mobileinst("verify", pair, "--json"))
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert document["reference"] == "PyTorch, at the export"
    assert document == json.loads((pair / PARITY).read_text())
    assert "max abs" in result.stderr


def test_verify_takes_the_users_own_pictures_as_a_clip(pair: Path):
    astronaut, coffee = bundled_photographs()
    images = ["--image", coffee, "--image", astronaut, "--image", coffee.with_name("chelsea.png")]
    document = json.loads(ok(mobileinst("verify", pair, *images, "--json")).stdout)
    assert document["reference"] == "PyTorch, computed now on 3 given pictures"
    (sequence,) = (c for c in document["checks"] if c["rung"] == "sequence")
    assert [f["age"] for f in sequence["figures"]["frames"]] == [1, 2]


def test_verify_computes_the_reference_anew_from_weights(tiny_source, pair: Path, tmp_path: Path):
    weights = tmp_path / "same.safetensors"
    save_checkpoint(weights, tiny_source.model)
    document = json.loads(ok(mobileinst("verify", pair, "--weights", weights, "--json")).stdout)
    assert document["reference"] == "PyTorch, computed now"
    other = build_loaded("other", TINY, None, seed=1, tolerance=TOLERANCE)
    save_checkpoint(weights, other.model)
    result = mobileinst("verify", pair, "--weights", weights)
    assert result.exit_code == 1
    assert "error: rung 'values' failed: " in result.stderr


def perturbed(graph) -> None:
    change_weights(graph, convolutions(graph)[30], lambda w: w + 0.3)


@pytest.mark.parametrize("role", ["frame", "mask_head"])
def test_verify_fails_with_exit_1_and_names_rung_tensor_and_position(pair: Path, role):
    edit_graph(pair, role, perturbed)
    result = mobileinst("verify", pair)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    sentence, next_step = result.stderr.strip().splitlines()[-2:]
    assert sentence.startswith("error: rung 'values' failed: ")
    assert "mask_logits differs by up to" in sentence
    assert "position (" in sentence
    assert f"`mobileinst verify {pair} --locate`" in next_step
    assert json.loads((pair / PARITY).read_text())["passed"] is False


@pytest.mark.parametrize("role", ["frame", "mask_head"])
def test_locate_names_the_node(pair: Path, role):
    nodes = []
    edit_graph(pair, role, lambda g: nodes.append(convolutions(g)[30].name) or perturbed(g))
    result = mobileinst("verify", pair, "--locate", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["first_divergence"]
    assert (found["graph"], found["node"]) == (role, nodes[0])
    assert f"node {nodes[0]} (Conv)" in result.stderr


def test_locate_does_not_look_for_a_node_where_none_ran(pair: Path):
    edit_graph(pair, "frame", lambda g: rename(g, "kernels", "kernel"))
    result = mobileinst("verify", pair, "--locate", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["first_divergence"] is None
    assert "There is no node to locate" in result.stderr


def test_locate_of_a_good_pair_is_no_work(pair: Path):
    assert json.loads(ok(mobileinst("verify", pair, "--locate", "--json")).stdout)["passed"]


def test_bench_writes_every_sample_and_says_that_this_is_no_phone(pair: Path, monkeypatch):
    # This machine is shared.
    monkeypatch.setattr("mobileinst_deploy.measure.validity.LARGEST_SPREAD", 1e9)
    whole = ["--protocol", "tnn-script", "--clip-lengths", "1,2"]
    result = ok(mobileinst("bench", pair, *whole, "--json"))
    document = json.loads(result.stdout)
    place = pair / "results" / "cpu-onnxruntime-plain" / "latency.json"
    assert document == json.loads(place.read_text())
    assert document["device"]["kind"] == "host"
    assert [c["keyframe"]["runs"] for c in document["clips"]] == [16, 16]
    assert [len(s["samples"]["run_ms"]) for s in document["schedules"]] == [16, 32]
    assert "not on a phone" in result.stderr.replace("\n", " ")


def test_an_invalid_measurement_exits_4_and_keeps_its_samples(pair: Path, monkeypatch):
    monkeypatch.setattr("mobileinst_deploy.measure.validity.LARGEST_SPREAD", -1.0)
    quick = ["--runs", "2", "--warmup", "0", "--seconds", "0", "--clip-lengths", "1"]
    result = mobileinst("bench", pair, *quick)
    assert result.exit_code == 4
    assert "must not be believed" in result.stderr
    place = pair / "results" / "cpu-onnxruntime-plain" / "latency.json"
    assert json.loads(place.read_text())["valid"] is False


def test_inspect_describes_a_pair_and_a_file(pair: Path):
    result = ok(mobileinst("inspect", pair))
    assert result.stderr == ""
    for words in ("mask_head", "kernels: float32 1 x n x 16", "at n = 5", "opset 17", "Conv"):
        assert words in result.stdout
    both = json.loads(ok(mobileinst("inspect", pair, "--json")).stdout)
    assert both.keys() == {"frame", "mask_head"}
    one = json.loads(ok(mobileinst("inspect", pair / "frame.onnx", "--json")).stdout)
    assert one["frame.onnx"] == both["frame"]


def test_names_from_a_file_are_shown_as_they_are(pair: Path, exported: ExportBundle):
    def unkind(graph) -> None:
        graph.metadata_props.add(key="mobileinst.note", value="[/] [bold]loud[/bold]")

    edit_graph(pair, "frame", unkind)
    assert "[/] [bold]loud[/bold]" in ok(mobileinst("inspect", pair)).stdout


def test_a_report_goes_where_it_was_told(pair: Path, tmp_path: Path):
    file = tmp_path / "deep" / "mine.json"
    document = json.loads(ok(mobileinst("verify", pair, "--report", file, "--json")).stdout)
    assert json.loads(file.read_text()) == document
    ok(mobileinst("verify", pair, "--report", tmp_path / "all"))
    assert (tmp_path / "all" / PARITY.relative_to("results")).is_file()
    assert not (pair / PARITY).exists()


def test_clip_options_without_a_clip_are_refused(pair: Path):
    for words in (["--frames", "3"], ["-T", "5"]):
        result = mobileinst("verify", pair, *words)
        assert result.exit_code == 2
        assert "does nothing without --clip" in result.stderr
