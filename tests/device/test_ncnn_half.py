"""``ncnn-fp16``: ncnn in half precision, a runtime of its own name, for cores that have it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from tiny import TINY as TINIEST, TOLERANCE
from typer.testing import CliRunner

from mobileinst_deploy.cli.app import app
from mobileinst_deploy.core.bundle import NOT_THE_PAPER, ExportBundle
from mobileinst_deploy.core.contract import Call
from mobileinst_deploy.core.errors import ConfigError, DeviceError, MobileInstError
from mobileinst_deploy.network.loading import build_loaded
from mobileinst_deploy.pair.export import export_model
from mobileinst_deploy.phone import ncnn_build
from mobileinst_deploy.phone.device_bundle import DeviceBundle, prepare_bundle
from mobileinst_deploy.runtimes import as_computed, for_device, open_host, qemu
from mobileinst_deploy.runtimes.ncnn.convert import as_ncnn
from mobileinst_deploy.runtimes.qemu import QemuRunner

pytestmark = [pytest.mark.device, pytest.mark.slow, pytest.mark.xdist_group("ncnn")]

TINY = replace(TINIEST, input_size=(128, 192))
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 3, *TINY.input_size)).astype(np.float32)
CAVEAT = NOT_THE_PAPER["fp16"]


@pytest.fixture(scope="module")
def bundles() -> dict[str, DeviceBundle]:
    """The runner in single and in half precision."""
    if shutil.which("qemu-aarch64") is None or shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("no qemu or no cross-compiler; run: make apt")
    try:
        return {name: prepare_bundle(runtime=name) for name in ("ncnn", "ncnn-fp16")}
    except MobileInstError as error:
        pytest.skip(f"no ncnn runner: {error}")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> ExportBundle:
    network = build_loaded("tiny", TINY, None, seed=0, tolerance=TOLERANCE)
    return export_model(network, tmp_path_factory.mktemp("ncnn") / "tiny")


@pytest.fixture(scope="module")
def converted(pair: ExportBundle) -> ExportBundle:
    return as_ncnn(pair, ncnn_build.layers())


def mobileinst(*words: object) -> dict:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.stdout, done.stderr
    return {"exit_code": done.exit_code, **json.loads(done.stdout)}


def test_it_is_near_single_precision_and_not_equal(
    converted: ExportBundle, bundles: dict[str, DeviceBundle]
):
    call = Call("frame", {"image": IMAGE})
    one, other = (QemuRunner(converted, b, limit_seconds=120) for b in bundles.values())
    want, got = one.outputs([call])[0], other.outputs([call])[0]
    assert other.runtime == f"ncnn-fp16 {ncnn_build.VERSION}"
    assert any((got[name] != want[name]).any() for name in want)
    # A random network on noise makes much of half precision's rounding, single values included;
    # its outputs as a whole point the same way.
    for name, value in want.items():
        lengths = np.linalg.norm(got[name]) * np.linalg.norm(value)
        assert (got[name] * value).sum() / lengths > 0.98, name


def test_it_executes_fewer_instructions_by_half_vectors(
    converted: ExportBundle, bundles: dict[str, DeviceBundle]
):
    one, other = (
        QemuRunner(converted, b, limit_seconds=120).count_instructions(IMAGE)["frame"]
        for b in bundles.values()
    )
    assert other.count < 0.8 * one.count
    assert one.kinds["fmla_half_128"] == 0
    assert other.kinds["fmla_half_128"] > other.kinds["fmla_128"]


@pytest.mark.parametrize(
    ("command", "file"), [("verify", "parity.json"), ("bench", "instructions.json")]
)
def test_every_command_says_that_it_is_not_the_papers_protocol(
    pair: ExportBundle, bundles: dict[str, DeviceBundle], command: str, file: str
):
    count = ["--count"] * (command == "bench")
    there = ["--device", "qemu", "--runtime", "ncnn-fp16"]
    document = mobileinst(command, pair.folder, *there, *count)
    assert document["caveat"] == CAVEAT
    kept = json.loads((pair.folder / "results" / "qemu-ncnn-fp16-plain" / file).read_text())
    assert kept["caveat"] == CAVEAT
    assert kept["runtime"] == f"ncnn-fp16 {ncnn_build.VERSION}"


def test_verify_allows_half_precision_and_no_more(pair: ExportBundle):
    allowed = as_computed(pair, "ncnn-fp16").tolerance
    assert allowed.atol > pair.tolerance.atol
    assert as_computed(pair, "ncnn").tolerance == pair.tolerance


class TestACoreWithoutIt:
    def test_is_told_so_by_the_runner(
        self,
        converted: ExportBundle,
        bundles: dict[str, DeviceBundle],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(qemu, "CPU", "cortex-a72")  # ARMv8.0
        runner = QemuRunner(converted, bundles["ncnn-fp16"], limit_seconds=60)
        with pytest.raises(DeviceError, match="no half-precision arithmetic"):
            runner.outputs([Call("frame", {"image": IMAGE})])

    def test_runs_single_precision(
        self,
        converted: ExportBundle,
        bundles: dict[str, DeviceBundle],
        monkeypatch: pytest.MonkeyPatch,
    ):
        monkeypatch.setattr(qemu, "CPU", "cortex-a72")
        runner = QemuRunner(converted, bundles["ncnn"], limit_seconds=60)
        assert runner.outputs([Call("frame", {"image": IMAGE})])

    def test_is_seen_on_a_phone_before_anything_is_pushed(
        self, pair: ExportBundle, bundles: dict[str, DeviceBundle], other_phone
    ):
        serial = other_phone("no-fp16").serial
        there = ["--device", "adb", "--serial", serial, "--runtime", "ncnn-fp16"]
        document = mobileinst("verify", pair.folder, *there)
        assert document["exit_code"] == 3
        assert "half-precision" in document["error"]["cause"]
        assert "--runtime ncnn" in document["error"]["next_step"]

    def test_a_pc_is_told_before_anything_is_converted(self, pair: ExportBundle):
        with pytest.raises(ConfigError, match="half precision, which this machine"):
            open_host(pair, "ncnn-fp16")


def test_a_phone_measures_with_it(pair: ExportBundle, bundles: dict[str, DeviceBundle], phone):
    there = ["--device", "adb", "--serial", phone.serial, "--runtime", "ncnn-fp16"]
    few = ["--runs", 2, "--seconds", 0, "--warmup", 1, "--clip-lengths", "1,3"]
    document = mobileinst("bench", pair.folder, *there, *few)
    assert document["pair"]["precision"] == "fp16"
    assert CAVEAT in document["notes"]
    assert document["emulated"]
    assert "asimdhp" in document["device"]["features"]


def test_the_pair_that_a_device_is_given_is_the_same_files(
    pair: ExportBundle, bundles: dict[str, DeviceBundle]
):
    (one, _), (other, _) = (for_device(pair, name) for name in ("ncnn", "ncnn-fp16"))
    assert [g.files for g in one.graphs.values()] == [g.files for g in other.graphs.values()]
    assert (one.precision, other.precision) == ("fp32", "fp16")
