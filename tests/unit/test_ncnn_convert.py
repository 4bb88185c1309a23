"""A pair converted by pnnx and run by ncnn on this machine."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tiny import TINY as TINIEST, TOLERANCE

from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.contract import ROLES, Role
from mobileinst_deploy.core.errors import BundleError, DeviceError
from mobileinst_deploy.core.pair_files import NCNN_FILES, NCNN_RECORD
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.phone.ncnn_build import layers
from mobileinst_deploy.runtimes import open_host
from mobileinst_deploy.runtimes.ncnn import convert, rehearsal
from mobileinst_deploy.runtimes.ncnn.convert import as_ncnn
from mobileinst_deploy.runtimes.ncnn.host import NcnnRunner
from mobileinst_deploy.runtimes.ncnn.network import check_weights, read_param
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner

#: Of sides that ncnn takes.
TINY = replace(TINIEST, input_size=(128, 192))

pytestmark = pytest.mark.skipif(
    convert.converter_version() is None, reason="no pnnx; run: pip install pnnx"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ncnn") / "tiny"
    export_model(build_loaded("tiny", TINY, None, seed=0, tolerance=TOLERANCE), folder)
    as_ncnn(load_bundle(folder), layers())
    return folder


@pytest.fixture
def pair(exported: Path, tmp_path: Path) -> ExportBundle:
    """An exported and converted pair of one's own."""
    return load_bundle(shutil.copytree(exported, tmp_path / "pair"))


def remove_converted(pair: ExportBundle) -> None:
    for name in (NCNN_RECORD, *(name for names in NCNN_FILES.values() for name in names)):
        (pair.folder / name).unlink()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that start pnnx."""
    commands = []
    real = convert.run_program

    def noted(command: list[str], **options: object) -> object:
        commands.append(command)
        return real(command, **options)

    monkeypatch.setattr(convert, "run_program", noted)
    return commands


def with_files(pair: ExportBundle, role: Role, *data: bytes) -> ExportBundle:
    """The pair with other content in a graph's files."""
    graph = pair.graphs[role]
    files = tuple(Content(f.path, d) for f, d in zip(graph.files, data, strict=True))
    return replace(pair, graphs={**pair.graphs, role: replace(graph, files=files)})


class TestConversion:
    def test_leaves_networks_beside_the_pair_with_the_graphs_names(self, pair: ExportBundle):
        converted = as_ncnn(pair, layers())
        for role in ROLES:
            param, weights = converted.graphs[role].files
            assert (param.name, weights.name) == NCNN_FILES[role]
            network = read_param(param)
            check_weights(network, weights)
            blobs = {blob for layer in network for blob in (*layer.inputs, *layer.outputs)}
            spec = pair.graphs[role].spec
            assert {t.name for t in (*spec.inputs, *spec.outputs)} <= blobs

    def test_is_done_once(self, pair: ExportBundle, asked: list[list[str]]):
        as_ncnn(pair, layers())
        assert asked == []

    @pytest.mark.parametrize("name", [NCNN_RECORD, "frame.ncnn.bin", "mask_head.ncnn.param"])
    def test_is_done_again_when_a_file_is_missing_or_another(
        self, pair: ExportBundle, asked: list[list[str]], name: str
    ):
        before = (pair.folder / name).read_bytes()
        (pair.folder / name).write_bytes(before[:-20])
        as_ncnn(pair, layers())
        assert len(asked) == 2
        (pair.folder / name).unlink()
        as_ncnn(pair, layers())
        assert len(asked) == 4
        assert (pair.folder / name).read_bytes() == before

    def test_is_done_again_for_another_pair_or_converter(
        self, pair: ExportBundle, asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ):
        record = json.loads((pair.folder / NCNN_RECORD).read_text())
        record["onnx"]["frame"] = "0" * 64
        (pair.folder / NCNN_RECORD).write_text(json.dumps(record))
        as_ncnn(pair, layers())
        assert len(asked) == 2
        monkeypatch.setattr(convert, "converter_version", lambda: "1")
        as_ncnn(pair, layers())
        assert len(asked) == 4

    def test_needs_no_pnnx_once_it_is_done(
        self, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(convert, "converter_version", lambda: None)
        as_ncnn(pair, layers())

    def test_an_input_whose_deepest_map_is_one_row_is_refused(self, tmp_path: Path):
        """Its resize reads the memory before such a map: NaN was seen, now and then."""
        small = export_model(
            build_loaded("tiny", TINIEST, None, seed=0, tolerance=TOLERANCE), tmp_path / "pair"
        )
        with pytest.raises(BundleError, match="64x128") as caught:
            as_ncnn(small, layers())
        assert "128x128" in caught.value.next_step
        assert not (tmp_path / "pair" / NCNN_RECORD).exists()

    def test_a_converted_pair_can_be_exported_over(self, pair: ExportBundle):
        export_model(build_loaded("tiny", TINY, None, seed=1, tolerance=TOLERANCE), pair.folder)
        assert not (pair.folder / NCNN_RECORD).exists()


class TestRefusal:
    def test_without_pnnx(self, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch):
        remove_converted(pair)
        monkeypatch.setattr(convert, "converter_version", lambda: None)
        with pytest.raises(DeviceError, match="pnnx, which converts a pair") as caught:
            as_ncnn(pair, layers())
        assert "pip install pnnx" in caught.value.next_step

    def test_a_layer_that_the_runner_lacks(self, pair: ExportBundle):
        remove_converted(pair)
        with pytest.raises(BundleError, match="that the ncnn runner has not: LayerNorm") as caught:
            as_ncnn(pair, layers() - {"LayerNorm"})
        assert "plain pair" in caught.value.next_step
        assert not (pair.folder / NCNN_RECORD).exists()

    def test_an_operator_that_pnnx_leaves_as_it_is(self, pair: ExportBundle):
        remove_converted(pair)
        graph = onnx.load_model_from_string(pair.graphs["frame"].onnx.data)
        graph.graph.node.append(helper.make_node("Erf", ["kernels"], ["extra"]))
        graph.graph.output.append(helper.make_tensor_value_info("extra", 1, [1, 5, 16]))
        odd = with_files(pair, "frame", graph.SerializeToString())
        with pytest.raises(BundleError, match="that the ncnn runner has not"):
            as_ncnn(odd, layers())

    def test_weights_that_became_fp16(self, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch):
        remove_converted(pair)
        real = convert.run_program
        monkeypatch.setattr(convert, "run_program", lambda c, **o: real([*c[:-1], "fp16=1"], **o))
        with pytest.raises(BundleError, match="are fp16 and not fp32"):
            as_ncnn(pair, layers())
        assert not (pair.folder / NCNN_RECORD).exists()

    @pytest.mark.parametrize(
        ("script", "why"),
        [
            ("echo 'no such op'; exit 3", "pnnx cannot convert the frame graph: no such op"),
            ("exit 255", "pnnx cannot convert the frame graph: exit code 255"),
            ("exit 0", "pnnx cannot convert the frame graph"),
            ("kill -SEGV $$", "pnnx cannot convert the frame graph: exit code -11"),
        ],
    )
    def test_a_pnnx_that_fails(
        self,
        pair: ExportBundle,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        script: str,
        why: str,
    ):
        remove_converted(pair)
        program = tmp_path / "pnnx"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(convert, "_program", lambda: program)
        with pytest.raises(BundleError, match=why):
            as_ncnn(pair, layers())

    def test_a_pnnx_that_does_not_end(
        self, pair: ExportBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        remove_converted(pair)
        program = tmp_path / "pnnx"
        program.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
        program.chmod(0o755)
        monkeypatch.setattr(convert, "_program", lambda: program)
        monkeypatch.setattr(convert, "_LIMIT_S", 0.2)
        with pytest.raises(BundleError, match=r"did not end within 0\.2 s with the frame graph"):
            as_ncnn(pair, layers())


class TestOnThisMachine:
    @pytest.fixture(autouse=True)
    def _ncnn(self) -> None:
        pytest.importorskip("ncnn", reason="no ncnn; run: pip install --no-deps ncnn")

    def test_the_ladder_holds(self, pair: ExportBundle):
        runner = NcnnRunner(as_ncnn(pair, layers()))
        report = verify_bundle(pair, runner, load_golden(pair), reference="PyTorch")
        assert report.passed, report.first_failure
        assert report.runtime.startswith("ncnn 1.0.")

    def test_any_number_of_kernels_goes(self, pair: ExportBundle):
        runner, plain = NcnnRunner(as_ncnn(pair, layers())), CpuRunner(pair)
        image = load_golden(pair).image(0)
        for n in (5, 2, 1):
            kernels = np.random.default_rng(n).normal(size=(1, n, 16)).astype(np.float32)
            feeds = {"image": image, "kernels": kernels}
            got, want = (r.run("mask_head", feeds)["mask_logits"] for r in (runner, plain))
            assert got.shape == (1, n, 16, 24)
            np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)

    def test_other_weights_fail_the_ladder(self, pair: ExportBundle):
        converted = as_ncnn(pair, layers())
        param, weights = (file.data for file in converted.graphs["frame"].files)
        data = np.frombuffer(weights, np.float32).copy()
        data[1000:2000] *= 1.5
        other = with_files(converted, "frame", param, data.tobytes())
        report = verify_bundle(pair, NcnnRunner(other), load_golden(pair), reference="PyTorch")
        assert not report.passed

    def test_a_network_that_it_cannot_load_is_named(self, pair: ExportBundle):
        converted = as_ncnn(pair, layers())
        param = converted.graphs["frame"].files[0].data
        empty = with_files(converted, "frame", param, b"")
        with pytest.raises(BundleError, match=r"cannot load .*frame\.ncnn\.param"):
            NcnnRunner(empty).load_both()

    def test_what_is_loaded_is_what_was_checked(self, pair: ExportBundle):
        converted = as_ncnn(pair, layers())
        for role in ROLES:
            for name in NCNN_FILES[role]:
                (pair.folder / name).write_bytes(b"")
        NcnnRunner(converted).load_both()
        for role in ROLES:
            for name, file in zip(NCNN_FILES[role], converted.graphs[role].files, strict=True):
                (pair.folder / name).write_bytes(file.data)


def test_a_network_that_nobody_reads_to_the_end_is_refused(pair: ExportBundle):
    """The runner on a device takes every blob that no layer reads for an output."""
    remove_converted(pair)
    graph = onnx.load_model_from_string(pair.graphs["frame"].onnx.data)
    image = graph.graph.input[0].name
    graph.graph.node.append(helper.make_node("Relu", [image], ["half"]))
    graph.graph.node.append(helper.make_node("Split", ["half"], ["a", "b", "c"], axis=1))
    graph.graph.node.append(helper.make_node("Concat", ["a", "b"], ["extra"], axis=1))
    graph.graph.output.append(helper.make_tensor_value_info("extra", 1, [1, 2, 128, 192]))
    with pytest.raises(BundleError, match="and reads it nowhere"):
        as_ncnn(with_files(pair, "frame", graph.SerializeToString()), layers())


class TestRehearsal:
    @pytest.fixture(autouse=True)
    def _ncnn(self) -> None:
        pytest.importorskip("ncnn", reason="no ncnn; run: pip install --no-deps ncnn")

    def test_of_a_good_pair_says_nothing(self, pair: ExportBundle):
        rehearsal.rehearse(as_ncnn(pair, layers()))

    def test_a_crash_is_one_sentence_that_names_the_graph(
        self, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch
    ):
        real = rehearsal.run_program
        crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"

        def crashing(command: list[str], **options: object) -> object:
            return real([command[0], "-c", crash], **options)

        monkeypatch.setattr(rehearsal, "run_program", crashing)
        with pytest.raises(BundleError, match="is ended by SIGSEGV in the frame graph") as caught:
            open_host(pair, "ncnn")
        assert "onnxruntime" in caught.value.next_step
        assert caught.value.exit_code == 2

    def test_one_that_does_not_end_is_told(
        self, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(rehearsal, "_LIMIT_S", 0.01)
        with pytest.raises(BundleError, match="did not end within"):
            rehearsal.rehearse(as_ncnn(pair, layers()))

    def test_what_really_crashes_ncnn_does_not_crash_this(self, pair: ExportBundle):
        """It divides by a convolution's stride, and whoever wrote 0 ends the process."""
        converted = as_ncnn(pair, layers())
        param, weights = (file.data for file in converted.graphs["mask_head"].files)
        standing = re.sub(r"(?m)^(Convolution .*) 3=\d+", r"\1 3=0", param.decode(), count=1)
        broken = with_files(converted, "mask_head", standing.encode(), weights)
        with pytest.raises(BundleError, match="is ended by SIGFPE in the mask_head graph"):
            rehearsal.rehearse(broken)


def test_without_the_package_the_next_step_installs_it(
    pair: ExportBundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(DeviceError, match="ncnn is not installed") as caught:
        NcnnRunner(replace(pair))
    assert "pip install --no-deps ncnn" in caught.value.next_step
