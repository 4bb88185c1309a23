"""ncnn's runner in half precision: another build of the same sources, for cores that have it.

It is built here, which takes some minutes; no command offers it yet.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
from dataclasses import replace

import native
import numpy as np
import pytest
from tiny import TINY as TINIEST, TOLERANCE

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import DeviceError, MobileInstError
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.phone import ncnn_build
from mobileinst_deploy.phone.device_bundle import DeviceBundle, prepare_bundle
from mobileinst_deploy.runtimes import qemu
from mobileinst_deploy.runtimes.ncnn.convert import as_ncnn
from mobileinst_deploy.runtimes.qemu import QemuRunner

pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.xdist_group("ncnn")]

PROGRAM = "mobileinst_runner_ncnn_fp16"
TINY = replace(TINIEST, input_size=(128, 192))
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 3, *TINY.input_size)).astype(np.float32)


@pytest.fixture(scope="module")
def full() -> DeviceBundle:
    """The runner in single precision."""
    if shutil.which("qemu-aarch64") is None or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("no qemu or no cross-compiler; run: make apt")
    try:
        return prepare_bundle(runtime="ncnn")
    except MobileInstError as error:
        pytest.skip(f"no ncnn runner: {error}")


@pytest.fixture(scope="module")
def half(full: DeviceBundle, tmp_path_factory: pytest.TempPathFactory) -> DeviceBundle:
    """The runner in half precision, from the same archive."""
    folder = tmp_path_factory.mktemp("half")
    archive = full.folder.parent / "sources" / ncnn_build.ARCHIVE
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    toolchain = native.SOURCES / "cmake" / "aarch64-debian.cmake"
    options = [f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DNCNN_SOURCE={source}", "-DFP16=ON"]
    options += ["-G", "Ninja", f"-DNCNN_VERSION={ncnn_build.VERSION.rpartition('.')[2]}"]
    build = folder / "build"
    for command in (
        ["cmake", "-S", native.SOURCES / "ncnn", "-B", build, *options],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    (file,) = full.files
    bundle = folder / "bundle"
    bundle.mkdir()
    data = (build / PROGRAM).read_bytes()
    (bundle / file.name).write_bytes(data)
    (bundle / file.name).chmod(0o755)
    mine = replace(file, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    version = f"{full.runtime_version} fp16"
    return replace(full, folder=bundle, files=(mine,), runtime_version=version)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    network = build_loaded("tiny", TINY, None, seed=0, tolerance=TOLERANCE)
    pair = export_model(network, tmp_path_factory.mktemp("ncnn") / "tiny")
    return as_ncnn(pair, ncnn_build.layers())


def test_it_is_near_single_precision_and_not_equal(
    converted: ExportBundle, full: DeviceBundle, half: DeviceBundle
):
    call = Call("frame", {"image": IMAGE})
    one, other = (QemuRunner(converted, b, limit_seconds=120) for b in (full, half))
    want, got = one.outputs([call])[0], other.outputs([call])[0]
    assert other.runtime == f"ncnn {ncnn_build.VERSION} fp16"
    assert any((got[name] != want[name]).any() for name in want)
    # A random network on noise makes much of half precision's rounding, single values included;
    # its outputs as a whole point the same way.
    for name, value in want.items():
        lengths = np.linalg.norm(got[name]) * np.linalg.norm(value)
        assert (got[name] * value).sum() / lengths > 0.98, name


def test_it_executes_fewer_instructions(
    converted: ExportBundle, full: DeviceBundle, half: DeviceBundle
):
    counts = [
        QemuRunner(converted, b, limit_seconds=120).count_instructions(IMAGE)["frame"].count
        for b in (full, half)
    ]
    assert counts[1] < 0.8 * counts[0]


def test_a_core_without_it_is_told_so(
    converted: ExportBundle, half: DeviceBundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(qemu, "CPU", "cortex-a72")  # ARMv8.0
    runner = QemuRunner(converted, half, limit_seconds=60)
    with pytest.raises(DeviceError, match="no half-precision arithmetic"):
        runner.outputs([Call("frame", {"image": IMAGE})])


def test_single_precision_runs_on_such_a_core(
    converted: ExportBundle, full: DeviceBundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(qemu, "CPU", "cortex-a72")
    assert QemuRunner(converted, full, limit_seconds=60).outputs([Call("frame", {"image": IMAGE})])
