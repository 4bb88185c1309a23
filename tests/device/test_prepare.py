"""The device bundle: assembled once, pinned by content, offline afterwards, never half there."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import filelock
import pytest

from mobileinst_deploy.core.errors import DeviceError, OutputError
from mobileinst_deploy.phone import device_bundle, toolchain
from mobileinst_deploy.phone.device_bundle import (
    LIBRARY,
    LOADER,
    RUNNER,
    DeviceBundle,
    cached_bundle,
    clean_cache,
    prepare_bundle,
)

ELF = b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\x00" + b"...OrtGetApiBase..."


class Workshop:
    """Stands in for the three sources of parts, and counts how often each is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: str | None = None
        self.content = "1"

    def _work(self, name: str) -> None:
        self.asked.append(name)
        if self.broken == name:
            raise DeviceError(f"{name} is broken", "Mend it")

    def build_runner(self, sources: tuple[Path, ...], target: Path) -> str:
        self._work("runner")
        target.write_text("runner" + self.content)
        return "compiler 1"

    def copy_glibc(self, folder: Path, scratch: Path) -> None:
        self._work("glibc")
        (folder / LOADER).write_text("loader")

    def copy_runtime(self, version: str, target: Path, wheels: Path, force: bool) -> None:
        self._work("runtime")
        wheels.mkdir(exist_ok=True)
        (wheels / "kept.whl").write_text(version)
        target.write_text(version)


@pytest.fixture
def workshop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop()
    for name in ("build_runner", "copy_glibc", "copy_runtime"):
        monkeypatch.setattr(toolchain, name, getattr(made, name))
    return made


class TestCache:
    def test_a_second_call_needs_nothing_but_the_cache(self, tmp_path: Path, workshop: Workshop):
        first = prepare_bundle(tmp_path)
        assert workshop.asked == ["runner", "glibc", "runtime"]
        assert prepare_bundle(tmp_path) == first
        assert cached_bundle(tmp_path) == first
        assert workshop.asked == ["runner", "glibc", "runtime"]
        assert first.runtime_version == importlib.metadata.version("onnxruntime")

    def test_every_file_is_pinned_and_the_name_is_the_content(
        self, tmp_path: Path, workshop: Workshop
    ):
        bundle = prepare_bundle(tmp_path / "a")
        assert [f.name for f in bundle.files] == [LOADER, LIBRARY, RUNNER]
        for file in bundle.files:
            data = (bundle.folder / file.name).read_bytes()
            assert file.sha256 == hashlib.sha256(data).hexdigest()
            assert file.bytes == len(data)
            assert file.executable == (file.name in (LOADER, RUNNER))
        assert prepare_bundle(tmp_path / "b").sha256 == bundle.sha256
        workshop.content = "2"
        assert prepare_bundle(tmp_path / "c").sha256 != bundle.sha256

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (LIBRARY, "corrupted"),
            (RUNNER, None),
            ("manifest.json", ""),
            ("manifest.json", "{}"),
            ("manifest.json", '{"schema": 1, "files": [{"name": "../escape"}]}'),
            ("manifest.json", '{"schema": 1, "files": [{"name": 3}]}'),
            ("manifest.json", '{"schema": 1, "files": 7}'),
        ],
    )
    def test_a_bundle_that_no_longer_fits_its_manifest_is_made_again(
        self, tmp_path: Path, workshop: Workshop, name: str, content: str | None
    ):
        bundle = prepare_bundle(tmp_path)
        if content is None:
            (bundle.folder / name).unlink()
        else:
            (bundle.folder / name).write_text(content)
        assert cached_bundle(tmp_path) is None
        assert prepare_bundle(tmp_path) == bundle
        assert workshop.asked.count("runner") == 2

    def test_force_makes_it_again(self, tmp_path: Path, workshop: Workshop):
        bundle = prepare_bundle(tmp_path)
        assert prepare_bundle(tmp_path, force=True) == bundle
        assert workshop.asked.count("runtime") == 2

    @pytest.mark.parametrize("broken", ["runner", "glibc", "runtime"])
    def test_a_failure_leaves_the_old_bundle_and_no_rest(
        self, tmp_path: Path, workshop: Workshop, broken: str
    ):
        bundle = prepare_bundle(tmp_path)
        before = sorted(p.name for p in tmp_path.iterdir())
        workshop.broken = broken
        with pytest.raises(DeviceError, match=f"{broken} is broken"):
            prepare_bundle(tmp_path, force=True)
        assert cached_bundle(tmp_path) == bundle
        assert sorted(p.name for p in tmp_path.iterdir()) == before

    def test_two_at_once_assemble_once(self, tmp_path: Path, workshop: Workshop):
        made: list[DeviceBundle] = []
        threads = [
            threading.Thread(target=lambda: made.append(prepare_bundle(tmp_path))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(made) == 4
        assert workshop.asked.count("runner") == 1

    def test_waiting_for_another_program_is_told(self, tmp_path: Path, workshop: Workshop):
        told: list[str] = []
        lock = filelock.FileLock(tmp_path / ".lock")
        lock.acquire()
        # The other program ends as soon as this one has said that it waits for it.
        prepare_bundle(tmp_path, progress=lambda label, *_: (told.append(label), lock.release()))
        assert told[0].startswith("wait for another mobileinst")

    def test_clean_removes_everything_and_says_how_much(self, tmp_path: Path, workshop: Workshop):
        prepare_bundle(tmp_path)
        assert clean_cache(tmp_path) > 0
        assert cached_bundle(tmp_path) is None
        assert [p for p in tmp_path.iterdir() if p.is_dir()] == []
        assert clean_cache(tmp_path / "absent") == 0

    def test_a_cache_that_cannot_be_written_is_named(self, tmp_path: Path, workshop: Workshop):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            prepare_bundle(tmp_path / "file" / "cache")

    def test_progress_is_told(self, tmp_path: Path, workshop: Workshop):
        told: list[tuple[str, float, float | None]] = []
        prepare_bundle(tmp_path, progress=lambda *step: told.append(step))
        assert [done for _, done, _ in told] == [0, 1, 2, 3]

    def test_without_onnxruntime_the_version_is_unknown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        def absent(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(device_bundle.importlib.metadata, "version", absent)
        with pytest.raises(DeviceError, match="pip install onnxruntime"):
            prepare_bundle(tmp_path)
        assert cached_bundle(tmp_path) is None


def wheel(folder: Path, library: bytes | None, *, digest: str | None = None) -> Path:
    """A wheel as pip leaves it; ``digest`` replaces the one that its record should hold."""
    folder.mkdir(exist_ok=True)
    path = folder / "onnxruntime-9.9.9-cp311-cp311-manylinux_2_28_aarch64.whl"
    name = "onnxruntime/capi/libonnxruntime.so.9.9.9"
    real = base64.urlsafe_b64encode(hashlib.sha256(library or b"").digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("onnxruntime/capi/libonnxruntime_providers_shared.so", b"other")
        if library is not None:
            archive.writestr(name, library)
        archive.writestr(
            "onnxruntime-9.9.9.dist-info/RECORD", f"{name},sha256={digest or real},{len(ELF)}\n"
        )
    return path


class TestRuntime:
    def test_the_library_is_taken_from_a_kept_wheel_without_pip(self, tmp_path: Path):
        wheel(tmp_path / "wheels", ELF)
        toolchain.copy_runtime("9.9.9", tmp_path / LIBRARY, tmp_path / "wheels", force=False)
        assert (tmp_path / LIBRARY).read_bytes() == ELF

    @pytest.mark.parametrize(
        ("library", "digest", "says"),
        [
            (None, None, r"holds no libonnxruntime\.so"),
            (ELF, "x" * 43, "its record names another digest"),
            (ELF.replace(b"\xb7\x00", b"\x3e\x00"), None, "no ONNX Runtime for aarch64"),
            (ELF.replace(b"Ort", b"Abc"), None, "no ONNX Runtime for aarch64"),
            (b"", None, "no ONNX Runtime for aarch64"),
        ],
    )
    def test_a_wheel_that_is_not_right_is_refused(
        self, tmp_path: Path, library: bytes | None, digest: str | None, says: str
    ):
        wheel(tmp_path / "wheels", library, digest=digest)
        with pytest.raises(DeviceError, match=says):
            toolchain.copy_runtime("9.9.9", tmp_path / LIBRARY, tmp_path / "wheels", force=False)
        assert not (tmp_path / LIBRARY).exists()

    def test_a_cut_wheel_is_refused_with_the_command_that_fetches_it_again(self, tmp_path: Path):
        path = wheel(tmp_path / "wheels", ELF)
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DeviceError, match="is damaged") as caught:
            toolchain.copy_runtime("9.9.9", tmp_path / LIBRARY, tmp_path / "wheels", force=False)
        assert "mobileinst device prepare --force" in caught.value.next_step

    def test_a_wheel_that_pip_cannot_find_is_a_sentence_and_keeps_the_old_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        kept = wheel(tmp_path / "wheels", ELF)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        with pytest.raises(DeviceError, match=r"wheel of onnxruntime 9\.9\.9 cannot be fetched"):
            toolchain.copy_runtime("9.9.9", tmp_path / LIBRARY, tmp_path / "wheels", force=True)
        assert list((tmp_path / "wheels").iterdir()) == [kept]

    def test_without_pip_the_next_step_brings_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DeviceError, match="pip is not installed") as caught:
            toolchain.copy_runtime("9.9.9", tmp_path / LIBRARY, tmp_path / "wheels", force=False)
        assert "ensurepip" in caught.value.next_step


class TestCompilerAndGlibc:
    def test_without_a_compiler_the_next_step_names_both_ways_to_get_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(DeviceError, match="no compiler for aarch64") as caught:
            toolchain.build_runner(toolchain.runner_sources(), tmp_path / RUNNER)
        assert "pip install ziglang" in caught.value.next_step
        assert "g++-aarch64-linux-gnu" in caught.value.next_step
        assert {n.name: n.found for n in toolchain.needs()}["a compiler for aarch64"] is None

    def test_a_compiler_that_fails_is_quoted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        compiler = tmp_path / "aarch64-linux-gnu-g++"
        compiler.write_text(
            "#!/bin/sh\n"
            "[ $1 = --version ] && { echo fake 1; exit; }\n"
            "echo 'x.cc: error: no' >&2; exit 1"
        )
        compiler.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(DeviceError, match=r"cannot be compiled by fake 1: x\.cc: error: no"):
            toolchain.build_runner(toolchain.runner_sources(), tmp_path / RUNNER)

    def test_without_glibc_or_apt_the_packages_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(toolchain, "_GLIBC_FOLDERS", (tmp_path / "usr/lib",))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DeviceError, match="without apt-get") as caught:
            toolchain.copy_glibc(tmp_path, tmp_path)
        for package in toolchain.GLIBC_PACKAGES:
            assert package in caught.value.next_step

    def test_an_apt_that_cannot_fetch_is_quoted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        for name in ("apt-get", "dpkg-deb"):
            (tmp_path / name).write_text("#!/bin/sh\necho 'E: no such error' >&2\nexit 100")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setattr(toolchain, "_GLIBC_FOLDERS", (tmp_path / "usr/lib",))
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(DeviceError, match="cannot be fetched: E: no such error") as caught:
            toolchain.copy_glibc(tmp_path, tmp_path)
        assert "sudo apt-get install libc6-arm64-cross" in caught.value.next_step

    def test_the_sources_hold_everything_that_cmake_builds(self):
        listed = {s.name for s in toolchain.runner_sources()}
        folder = Path(__file__).parents[2] / "android_bench"
        kept = [p for part in ("src", "include") for p in (folder / part).glob("*.*")]
        assert listed == {p.name for p in kept}
        assert "main.cc" in listed


@pytest.mark.device
def test_glibc_comes_by_apt_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_bundle: DeviceBundle
):
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("no apt-get here; nothing to fetch with")
    probe = ["apt-cache", "show", *toolchain.GLIBC_PACKAGES]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no package lists here; run: sudo apt-get update")
    wanted = toolchain._GLIBC_FOLDERS[0]
    monkeypatch.setattr(toolchain, "_glibc_folder", lambda: None)
    (tmp_path / "made").mkdir()
    toolchain.copy_glibc(tmp_path / "made", tmp_path)
    for name in toolchain.GLIBC_FILES:
        assert (tmp_path / "made" / name).read_bytes()[:6] == b"\x7fELF\x02\x01", wanted


@pytest.mark.device
@pytest.mark.slow
def test_ziglang_alone_builds_a_runner_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_bundle: DeviceBundle
):
    qemu = pytest.importorskip("mobileinst_deploy.runtimes.qemu")
    pytest.importorskip("ziglang")
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: None)
    assert toolchain.device_compiler()[:3] == [sys.executable, "-m", "ziglang"]
    folder = tmp_path / "bundle"
    shutil.copytree(real_bundle.folder, folder)
    compiler = toolchain.build_runner(toolchain.runner_sources(), folder / RUNNER)
    assert compiler.startswith("ziglang, clang")
    monkeypatch.undo()
    (tmp_path / "sysroot").mkdir()
    plan = tmp_path / "plan.txt"
    plan.write_text("no plan\n")
    (folder / RUNNER).chmod(0o755)
    command = [qemu.find_qemu(), "-cpu", qemu.CPU, *real_bundle.command(str(folder), str(plan))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 10
    assert json.loads(done.stdout.splitlines()[1])["error"]["kind"] == "plan"
