"""The device bundle under qemu: the ARM build gives the same numbers, and counts to the digit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import odd_graphs
import pytest
import tiny_pair

from mobileinst_deploy.core.bundle import ExportBundle
from mobileinst_deploy.core.content import read_content
from mobileinst_deploy.core.contract import Call, Role
from mobileinst_deploy.core.errors import DeviceError, MeasurementInvalid
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.phone import counter
from mobileinst_deploy.phone.counter import agreed, build_counter, read_counts
from mobileinst_deploy.phone.device_bundle import LIBRARY, DeviceBundle
from mobileinst_deploy.phone.result import Mark, RunnerResult
from mobileinst_deploy.runtimes import qemu
from mobileinst_deploy.runtimes.onnxruntime import CpuRunner
from mobileinst_deploy.runtimes.qemu import QemuRunner

PICTURES = [tiny_pair.picture(0), tiny_pair.picture(1)]
KERNELS = np.random.default_rng(0).normal(size=(1, 3, tiny_pair.D)).astype(np.float32)
CALLS = [
    Call("frame", {"image": PICTURES[0]}),
    Call("mask_head", {"image": PICTURES[1], "kernels": KERNELS}),
]


@pytest.fixture
def runner(pair: ExportBundle, real_bundle: DeviceBundle) -> QemuRunner:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("no dynamic qemu; run: sudo apt-get install qemu-user")
    return QemuRunner(pair, real_bundle, limit_seconds=60)


def with_graph(pair: ExportBundle, role: Role, path: Path) -> ExportBundle:
    graphs = dict(pair.graphs)
    graphs[role] = replace(graphs[role], files=(read_content(path),))
    return replace(pair, graphs=graphs)


@pytest.mark.device
class TestOutputs:
    def test_agree_with_this_machine_within_rounding(self, runner: QemuRunner, pair: ExportBundle):
        got, want = runner.outputs(CALLS), CpuRunner(pair).outputs(CALLS)
        for arm, host in zip(got, want, strict=True):
            assert list(arm) == list(host)
            for name in host:
                np.testing.assert_allclose(arm[name], host[name], rtol=1e-4, atol=1e-4)

    def test_the_runner_says_that_it_is_emulated(self, runner: QemuRunner):
        assert runner.emulated
        assert runner.name == "qemu"

    def test_leave_nothing_behind(
        self, runner: QemuRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        runner.outputs(CALLS[:1])
        assert list(tmp_path.iterdir()) == []


@pytest.mark.device
class TestInstructions:
    def test_are_equal_to_the_digit_in_every_start(self, runner: QemuRunner):
        first = runner.count_instructions(PICTURES[0])
        assert {role: i.runs for role, i in first.items()} == {"frame": 2, "mask_head": 2}
        assert first["frame"].count > 10_000
        assert runner.count_instructions(PICTURES[0]) == first

    def test_do_not_depend_on_where_things_lie(
        self, runner: QemuRunner, pair: ExportBundle, tmp_path: Path
    ):
        elsewhere = tmp_path / "a folder with a much longer name than the other one"
        elsewhere.mkdir()
        path = shutil.copy(pair.graphs["frame"].path, elsewhere / "f.onnx")
        moved = QemuRunner(with_graph(pair, "frame", Path(path)), runner.device_bundle, 60)
        here = runner.count_instructions(PICTURES[0], repeats=1)
        there = moved.count_instructions(PICTURES[0], repeats=1)
        assert here == there

    def test_fewer_live_kernels_cost_fewer_instructions(self, runner: QemuRunner):
        every = runner.count_instructions(PICTURES[0], repeats=1)
        one = runner.count_instructions(PICTURES[0], KERNELS[:, :1], repeats=1)
        assert one["mask_head"].count < every["mask_head"].count
        assert one["frame"].count == pytest.approx(every["frame"].count, rel=0.01)


@pytest.mark.device
class TestFaults:
    def test_a_graph_that_wants_more_memory_than_there_is(
        self, runner: QemuRunner, pair: ExportBundle, tmp_path: Path
    ):
        greedy = odd_graphs.greedy(shutil.copy(pair.graphs["frame"].path, tmp_path / "f.onnx"))
        with pytest.raises(DeviceError, match=r"frame graph failed|out of memory"):
            QemuRunner(with_graph(pair, "frame", greedy), runner.device_bundle).outputs(CALLS[:1])

    def test_a_graph_that_never_ends_meets_the_limit(
        self, runner: QemuRunner, pair: ExportBundle, tmp_path: Path
    ):
        endless = odd_graphs.endless(shutil.copy(pair.graphs["frame"].path, tmp_path / "f.onnx"))
        begun = time.monotonic()
        with pytest.raises(DeviceError, match="the limit of 4 s was reached"):
            QemuRunner(with_graph(pair, "frame", endless), runner.device_bundle, 4).outputs(
                CALLS[:1]
            )
        assert time.monotonic() - begun < 30

    def test_a_bundle_without_its_library(
        self, runner: QemuRunner, pair: ExportBundle, tmp_path: Path
    ):
        bundle = runner.device_bundle
        folder = tmp_path / "bundle"
        shutil.copytree(bundle.folder, folder)
        (folder / LIBRARY).unlink()
        with pytest.raises(DeviceError, match=f"{LIBRARY} cannot be opened"):
            QemuRunner(pair, replace(bundle, folder=folder)).outputs(CALLS[:1])

    def test_a_bundle_with_a_truncated_library(
        self, runner: QemuRunner, pair: ExportBundle, tmp_path: Path
    ):
        bundle = runner.device_bundle
        folder = tmp_path / "bundle"
        shutil.copytree(bundle.folder, folder)
        library = folder / LIBRARY
        os.truncate(library, 100_000)
        with pytest.raises(DeviceError, match=r"cannot be opened|exit code"):
            QemuRunner(pair, replace(bundle, folder=folder)).outputs(CALLS[:1])

    def test_a_bundle_of_another_runtime(self, runner: QemuRunner, pair: ExportBundle):
        other = replace(runner.device_bundle, runtime_version="1.0.0")
        with pytest.raises(DeviceError, match=r"instead of onnxruntime 1\.0\.0"):
            QemuRunner(pair, other).outputs(CALLS[:1])


def test_without_qemu_the_next_step_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: ExportBundle
):
    monkeypatch.setenv("PATH", str(tmp_path))
    bundle = DeviceBundle(tmp_path, (), "0", "onnxruntime", "1", "none")
    with pytest.raises(DeviceError, match="qemu for aarch64 programs is not installed") as caught:
        QemuRunner(pair, bundle)
    assert "apt-get install qemu-user" in caught.value.next_step
    assert qemu.needs()[0].found is None


class FakeQemu:
    """A qemu that does as it is told, to see that what it says is not believed."""

    def __init__(self, folder: Path, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program = folder / "qemu-aarch64"
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.does("exit 0")
        self.runner = QemuRunner(pair, DeviceBundle(folder, (), "0", "onnxruntime", "1", "none"), 1)

    def does(self, script: str) -> None:
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)


@pytest.fixture
def fake(tmp_path: Path, pair: ExportBundle, monkeypatch: pytest.MonkeyPatch) -> FakeQemu:
    return FakeQemu(tmp_path, pair, monkeypatch)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "printed no result and ended with exit code 0"),
        ("kill -9 $$", "killed, 9"),
        ("kill -11 $$", "crashed, 11"),
        ("echo garbage; exit 3", "no result and ended with exit code 3; its last words: garbage"),
        ("echo =====MOBILEINST-RESULT-BEGIN=====; echo {", "only half a result"),
        ("echo 'qemu: unknown option plugin' >&2; exit 1", "does not take the instruction counter"),
    ],
)
def test_a_qemu_that_fails_is_a_sentence(fake: FakeQemu, script: str, says: str):
    fake.does(script)
    with pytest.raises(DeviceError, match=says):
        fake.runner.outputs(CALLS[:1])


def test_a_qemu_that_hangs_is_ended(fake: FakeQemu, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(qemu, "_GRACE", 0.5)
    fake.does("exec sleep 60")
    begun = time.monotonic()
    with pytest.raises(DeviceError, match=r"qemu did not end within 1\.5 s"):
        fake.runner.outputs(CALLS[:1])
    assert time.monotonic() - begun < 20


class TestCounter:
    MARKED = RunnerResult(
        "count", "aarch64", "1", None, (0,), None, {}, (), (), (), (Mark(0, "frame", 0, 1),), {}
    )

    def test_counts_lie_between_the_marks(self, tmp_path: Path):
        (tmp_path / "log").write_text(
            "mark 0 100\nkinds 0 load=40 other=60\nmark 1 350\nkinds 1 load=90 other=260\nend 400\n"
        )
        found = read_counts(tmp_path / "log", self.MARKED)["frame"]
        assert {name: n for name, n in found.items() if n} == {"load": 50, "other": 200}

    @pytest.mark.parametrize(
        "text", [None, "", "kinds 0 load=1\n", "kinds 1 load=x\nkinds 0 load=1\n"]
    )
    def test_a_missing_mark_is_noticed(self, tmp_path: Path, text: str | None):
        if text is not None:
            (tmp_path / "log").write_text(text)
        with pytest.raises(DeviceError, match="missed a mark"):
            read_counts(tmp_path / "log", self.MARKED)

    def test_starts_that_differ_are_no_measurement(self):
        assert agreed([{"frame": {"load": 5}}] * 2)["frame"].count == 5
        with pytest.raises(MeasurementInvalid, match="executed 5 and 6 instructions"):
            agreed([{"frame": {"load": 5}}, {"frame": {"load": 6}}])

    def test_without_a_compiler_the_next_step_brings_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(counter, "find_spec", lambda name: None)
        with pytest.raises(DeviceError, match="counting needs a C compiler") as caught:
            build_counter(tmp_path)
        assert "ziglang" in caught.value.next_step


@pytest.mark.device
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_every_end_ends_qemu_too(
    pair: ExportBundle, real_bundle: DeviceBundle, tmp_path: Path, monkeypatch, number
) -> None:
    """Otherwise it would go on computing for nobody, for up to an hour."""
    programs, scratch = tmp_path / "bin", tmp_path / "scratch"
    programs.mkdir()
    scratch.mkdir()
    fake, started = programs / "qemu-aarch64", tmp_path / "started"
    fake.write_text(
        f"#!/bin/sh\necho $$ > {started}.part\nmv {started}.part {started}\nexec sleep 600\n"
    )
    fake.chmod(0o755)
    command = [sys.executable, "-m", "mobileinst_deploy"]
    process = subprocess.Popen(
        [*command, "bench", str(pair.folder), "--device", "qemu", "--count"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(scratch)},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 15)],
    )
    deadline = time.monotonic() + 120
    while not started.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == (-9 if number == signal.SIGKILL else 128 + number)
    child = Path(f"/proc/{started.read_text().strip()}")
    while child.exists() and "Z" not in (child / "stat").read_text().split()[2]:
        assert time.monotonic() < deadline, "qemu goes on"
        time.sleep(0.05)
    if number == signal.SIGKILL:
        assert list(scratch.iterdir()), "nobody could clean up"
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        with scratch_folder():
            pass
    assert list(scratch.iterdir()) == []
