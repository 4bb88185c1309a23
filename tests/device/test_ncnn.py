"""ncnn in the runner: under qemu and on the emulated phone, by the same ladder and counter.

The runner is built once into the user's cache, which takes a minute or two; where its sources or a
compiler are missing, these tests skip and say so.
"""

from __future__ import annotations

import json
import shutil
import struct
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY as TINIEST, TOLERANCE

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import ExportBundle, load_bundle, load_golden
from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import DeviceError, MobileInstError
from mobileinst_deploy.core.schedule import Every
from mobileinst_deploy.core.tracker import TrackSettings
from mobileinst_deploy.data.shapes import ShapesClip, clip_seed
from mobileinst_deploy.media.overlay_file import write_picture
from mobileinst_deploy.media.video import open_clip
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.pair.ladder import verify_bundle
from mobileinst_deploy.phone import device_bundle, ncnn_build, toolchain
from mobileinst_deploy.phone.device_bundle import DeviceBundle, prepare_bundle
from mobileinst_deploy.phone.plan import Plan, reuse_pattern
from mobileinst_deploy.runtimes.ncnn.convert import as_ncnn
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner
from mobileinst_deploy.workflows.doctor import doctor
from mobileinst_deploy.workflows.run import run_clip

#: Of sides that ncnn takes.
TINY = replace(TINIEST, input_size=(128, 192))
PICTURES = [
    np.random.default_rng(i).integers(0, 256, (1, 3, *TINY.input_size)).astype(np.float32)
    for i in range(2)
]


@pytest.fixture(scope="session")
def linked() -> DeviceBundle:
    """The static runner."""
    try:
        return prepare_bundle(runtime="ncnn")
    except MobileInstError as error:
        pytest.skip(f"no ncnn runner: {error}")


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    """The smallest whole network's pair as ncnn networks."""
    network = build_loaded("tiny", TINY, None, seed=0, tolerance=TOLERANCE)
    pair = export_model(network, tmp_path_factory.mktemp("ncnn") / "tiny")
    try:
        return as_ncnn(pair, ncnn_build.layers())
    except DeviceError as error:
        pytest.skip(f"no conversion: {error}")


@pytest.fixture
def runner(converted: ExportBundle, linked: DeviceBundle) -> QemuRunner:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("no dynamic qemu; run: sudo apt-get install qemu-user")
    return QemuRunner(converted, linked, limit_seconds=60)


@pytest.mark.device
@pytest.mark.xdist_group("ncnn")
class TestUnderQemu:
    def test_one_static_file_is_all_that_goes_to_a_device(self, linked: DeviceBundle):
        (file,) = linked.files
        assert file.executable
        assert file.bytes < 4_000_000
        assert linked.command("/there", "plan.txt") == [f"/there/{file.name}", "plan.txt"]
        program = (linked.folder / file.name).read_bytes()
        (at,) = struct.unpack_from("<Q", program, 32)  # ELF's table of segments
        entry, count = struct.unpack_from("<HH", program, 54)
        kinds = [struct.unpack_from("<I", program, at + i * entry)[0] for i in range(count)]
        assert 1 in kinds  # loaded
        assert 3 not in kinds  # by no interpreter

    def test_the_ladder_holds_and_the_report_says_who_ran_it(
        self, runner: QemuRunner, converted: ExportBundle
    ):
        pair = load_bundle(converted.folder)
        report = verify_bundle(pair, runner, load_golden(pair), reference="PyTorch")
        assert report.passed, report.first_failure
        assert report.runtime == f"ncnn {ncnn_build.VERSION}"

    def test_any_number_of_live_kernels_goes(self, runner: QemuRunner, converted: ExportBundle):
        pair = load_bundle(converted.folder)
        rng = np.random.default_rng(0)
        kernels = [rng.normal(size=(1, n, TINY.width)).astype(np.float32) for n in (5, 3, 1)]
        calls = [Call("mask_head", {"image": PICTURES[1], "kernels": k}) for k in kernels]
        for got, want in zip(runner.outputs(calls), CpuRunner(pair).outputs(calls), strict=True):
            allowed = {"rtol": TOLERANCE.rtol, "atol": TOLERANCE.atol}
            np.testing.assert_allclose(got["mask_logits"], want["mask_logits"], **allowed)

    def test_counts_are_equal_to_the_digit(self, runner: QemuRunner):
        first = runner.count_instructions(PICTURES[0])
        again = runner.count_instructions(PICTURES[0], repeats=1)
        for role, counted in first.items():
            assert counted.runs == 2
            assert counted.count == again[role].count > 10_000

    def test_the_loop_on_the_device_follows_what_this_machine_follows(
        self, runner: QemuRunner, converted: ExportBundle, tmp_path: Path
    ):
        (tmp_path / "clip").mkdir()
        for index, drawn in enumerate(ShapesClip(clip_seed("test", 1), 3, TINY.input_size)):
            write_picture(tmp_path / "clip" / f"{index}.png", drawn.image)
        pair, everything = load_bundle(converted.folder), TrackSettings(score=0.0)
        reports, tracks = [], []
        for name, by in (("ncnn", runner), ("plain", CpuRunner(pair))):
            clip = open_clip(str(tmp_path / "clip"))
            reports.append(run_clip(pair, by, clip, tmp_path / name, Every(2), everything))
            found = json.loads((tmp_path / name / "tracks.json").read_text())
            tracks.append(sorted((t["id"], t["category_id"]) for t in found))
        assert tracks[0] == tracks[1] != []
        assert reports[0].runtime == runner.runtime
        assert reports[0].keyframes == reports[1].keyframes == 2

    def test_a_profile_is_refused_in_one_sentence(self, runner: QemuRunner):
        plan = Plan("profile", reuse_pattern(runner.specs, PICTURES), limit_seconds=60)
        with pytest.raises(DeviceError, match="ncnn has no profiler"):
            runner.tensors(plan)

    def test_not_a_number_is_seen(self, runner: QemuRunner):
        kernels = np.full((1, 2, TINY.width), np.nan, np.float32)
        call = Call("mask_head", {"image": PICTURES[0], "kernels": kernels})
        with pytest.raises(DeviceError, match="NaN or infinite"):
            runner.outputs([call])

    @pytest.mark.parametrize(
        ("name", "change", "why"),
        [
            ("frame.ncnn.bin", lambda data: data[:200], "cannot be loaded by ncnn"),
            ("frame.ncnn.param", lambda data: b"7767517\n1 1\n", "cannot be loaded by ncnn"),
            ("frame.ncnn.param", lambda data: data.replace(b"image", b"pixel"), "no input named"),
            ("frame.ncnn.param", lambda data: data.replace(b"kernels", b"answers"), "no output"),
        ],
        ids=["weights cut off", "no network", "another input", "another output"],
    )
    def test_a_network_that_does_not_fit_is_refused(
        self, converted: ExportBundle, linked: DeviceBundle, tmp_path: Path, name, change, why
    ):
        folder = shutil.copytree(converted.folder, tmp_path / "pair")
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        graphs = {
            r: replace(g, files=tuple(read_content(folder / f.name) for f in g.files))
            for r, g in converted.graphs.items()
        }
        moved = replace(converted, graphs=graphs)
        with pytest.raises(DeviceError, match=why):
            QemuRunner(moved, linked, 60).outputs([Call("frame", {"image": PICTURES[0]})])

    def test_a_plan_for_onnx_runtime_is_refused(
        self, converted: ExportBundle, linked: DeviceBundle, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(DeviceBundle, "library", lambda self, remote: f"{remote}/lib.so")
        with pytest.raises(DeviceError, match="ncnn is linked into this runner"):
            QemuRunner(converted, linked, 60).outputs([Call("frame", {"image": PICTURES[0]})])

    def test_a_runner_of_another_version_is_noticed(
        self, converted: ExportBundle, linked: DeviceBundle
    ):
        other = replace(linked, runtime_version="1.0.1")
        with pytest.raises(DeviceError, match=r"instead of ncnn 1\.0\.1"):
            QemuRunner(converted, other, 60).outputs([Call("frame", {"image": PICTURES[0]})])


@pytest.mark.device
@pytest.mark.xdist_group("ncnn")
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_on_a_phone(command: str, phone, converted, linked, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(converted.folder, tmp_path / "pair")
    arguments = [command, str(folder), "--device", "adb", "--runtime", "ncnn", "--json"]
    arguments += ["--serial", phone.serial]
    if command == "bench":
        arguments += ["--runs", "2", "--warmup", "1", "--seconds", "0", "--core", "7"]
    monkeypatch.setattr(sys, "argv", ["mobileinst", *arguments])
    with pytest.raises(SystemExit) as ended:
        app()
    document = json.loads(capsys.readouterr().out)
    if command == "verify":
        assert ended.value.code == 0
        assert document["passed"]
        assert document["runtime"] == f"ncnn {ncnn_build.VERSION}"
    else:
        assert document["runtime"] == f"ncnn {ncnn_build.VERSION}"
        assert document["emulated"]


class TestBuilding:
    """What is missing on a machine, and what it says then."""

    def test_without_cmake(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(ncnn_build, "_program", lambda name: None)
        with pytest.raises(DeviceError, match="cmake, which builds the ncnn runner") as caught:
            ncnn_build.build_runner(tmp_path / "x", "ncnn", tmp_path, tmp_path)
        assert "pip install cmake ninja" in caught.value.next_step

    def test_without_a_compiler(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(ncnn_build, "_program", lambda name: name)
        monkeypatch.setattr(toolchain, "_compiler", lambda: None)
        with pytest.raises(DeviceError, match="no compiler for aarch64"):
            ncnn_build.build_runner(tmp_path / "x", "ncnn", tmp_path, tmp_path)

    def test_without_a_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
        with pytest.raises(DeviceError, match=r"sources of ncnn .* cannot be fetched") as caught:
            ncnn_build.fetch_source(tmp_path, force=False)
        assert "network" in caught.value.next_step
        assert not any(p.is_file() for p in tmp_path.rglob("*"))

    def test_with_other_sources_than_were_pinned(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / ncnn_build.ARCHIVE).write_bytes(b"another")
        monkeypatch.setattr(
            ncnn_build, "_address", lambda command: (tmp_path / ncnn_build.ARCHIVE).as_uri()
        )
        with pytest.raises(DeviceError, match="cannot be fetched"):
            ncnn_build.fetch_source(tmp_path / "cache", force=False)
        assert not (tmp_path / "cache" / "sources" / ncnn_build.ARCHIVE).exists()

    def test_with_a_damaged_archive(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(toolchain, "device_compiler", lambda: ["c++"])
        (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b and no more")
        with pytest.raises(DeviceError, match="is damaged"):
            ncnn_build.build_runner(tmp_path / "x.tar.gz", "ncnn", tmp_path, tmp_path)

    def test_with_sources_that_lack_a_layer(self, tmp_path: Path):
        if shutil.which("cmake") is None or toolchain._compiler() is None:
            pytest.skip("no build here; run: sudo apt-get install cmake g++-aarch64-linux-gnu")
        tree = tmp_path / ncnn_build.ARCHIVE.removesuffix(".tar.gz")
        (tree / "src").mkdir(parents=True)
        (tree / "src" / "net.h").touch()
        (tree / "src" / "CMakeLists.txt").write_text("ncnn_add_layer(Convolution)\n")
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
            tar.add(tree, tree.name)
        (tmp_path / "scratch").mkdir()
        archive = tmp_path / "x.tar.gz"
        with pytest.raises(DeviceError, match="cannot be set up"):
            ncnn_build.build_runner(archive, "ncnn", tmp_path, tmp_path / "scratch")

    def test_doctor_lists_it_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(device_bundle, "default_cache", lambda: tmp_path)
        monkeypatch.setattr(ncnn_build, "_program", lambda name: None)
        found = {f.name: f for f in doctor("qemu", "ncnn")}
        assert {"a compiler for aarch64", "ncnn: cmake", "ncnn: sources", "pnnx"} <= set(found)
        assert "glibc for aarch64" not in found
        assert not found["ncnn: cmake"].ok
        assert "pip install cmake" in found["ncnn: cmake"].mend
        assert found["device bundle"].mend == "mobileinst device prepare --runtime ncnn"


def test_an_unknown_runtime_is_refused(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["mobileinst", "device", "prepare", "--runtime", "tflite"])
    with pytest.raises(SystemExit) as ended:
        app()
    assert ended.value.code == 2
    assert "there is no runtime 'tflite'" in capsys.readouterr().err
