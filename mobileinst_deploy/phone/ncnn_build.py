"""The runner with ncnn linked in: ncnn's sources fetched and pinned, one static program built.

The sources come through pip, from the last release on the package index that has them. Its
``setup.py`` derives a version from today's date, over which pip stumbles when it is asked for the
release by name: so pip is asked only where the archive lies, and then fetches that.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.phone import toolchain
from mobileinst_deploy.phone.toolchain import Need

VERSION = "1.0.20260526"
ARCHIVE = f"ncnn-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "282f0f4a1beec1f5212aa0d22c00737418645055f33c2d2082922931cdbdc537"
#: The program of each arithmetic: float32, or half precision in storage and arithmetic both.
RUNNERS = {"ncnn": "mobileinst_runner_ncnn", "ncnn-fp16": "mobileinst_runner_ncnn_fp16"}

_MAX_SOURCE_BYTES = 200 << 20
_NEEDED = re.compile(r"ncnn-[\w.]+/(CMakeLists\.txt|LICENSE\.txt|cmake/.*|src/.*)")
_NETWORK = "Check the network and pip's index (`pip config list`), then run this again"
_INSTALL_CMAKE = f"{sys.executable} -m pip install cmake ninja"


def needs(cache: Path) -> tuple[Need, ...]:
    """What converting a pair for ncnn and building its runner need, for ``mobileinst doctor``."""
    cmake, kept = _program("cmake"), cache / "sources" / ARCHIVE
    return (
        Need("ncnn: cmake", cmake, _INSTALL_CMAKE),
        Need(
            "ncnn: sources",
            str(kept) if kept.is_file() else "pip can fetch them",
            "mobileinst device prepare --runtime ncnn",
        ),
    )


def layers() -> frozenset[str]:
    """The kinds of layer that the runner's ncnn is built with.

    Raises:
        DeviceError: The runner's sources are not here.
    """
    text = (toolchain.bench_folder() / "ncnn" / "layers.txt").read_text()
    return frozenset(re.findall(r"^[A-Za-z]\w*$", text, re.MULTILINE))


def sources() -> tuple[Path, ...]:
    """Every file of ours that the program is built from.

    Raises:
        DeviceError: The runner's sources are not here.
    """
    own = sorted((toolchain.bench_folder() / "ncnn").iterdir())
    shared = (
        p for p in toolchain.runner_sources() if not p.name.startswith(("runtime_ort", "ort_"))
    )
    return (*(p for p in own if p.is_file()), *shared)


def fetch_source(cache: Path, force: bool) -> Path:
    """Give the archive of ncnn's sources as it was released, fetched when the cache has none.

    Args:
        cache: The user's cache for devices.
        force: Fetch them even if they are there.

    Raises:
        DeviceError: They cannot be fetched, or are not what was pinned.
    """
    kept = cache / "sources" / ARCHIVE
    if not force and kept.is_file() and sha256_of(kept) == ARCHIVE_SHA256:
        return kept
    cause = f"the sources of ncnn {VERSION} cannot be fetched"
    kept.parent.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
    with scratch_folder(kept.parent) as name:
        pip.append(f"--dest={name}")
        address = _address([*pip, "-vv", "--no-binary=ncnn", "ncnn==0"])
        if address is None:
            raise DeviceError(f"{cause}: pip's index has no {ARCHIVE}", _NETWORK)
        # The digest is pip's to check, before it looks into the archive.
        pinned = f"{address}#sha256={ARCHIVE_SHA256}"
        toolchain.run_tool([*pip, "--quiet", pinned], cause, 900, mend=_NETWORK)
        fetched = name / ARCHIVE
        if not fetched.is_file() or sha256_of(fetched) != ARCHIVE_SHA256:
            raise DeviceError(f"{cause}: what pip left is another archive", _NETWORK)
        return fetched.replace(kept)


def build_runner(
    archive: Path,
    runtime: str,
    folder: Path,
    scratch: Path,
    extra_layers: Sequence[str] = (),
    *,
    int8: bool = False,
) -> str:
    """Compile ncnn's layers and the runner for aarch64 into one static program.

    Args:
        archive: From :func:`fetch_source`.
        runtime: Which of :data:`RUNNERS`.
        folder: Where to write it.
        scratch: An existing folder for the build, gigabytes are not needed.
        extra_layers: Kinds beside :func:`layers`, for graphs of other networks.
        int8: Whether layers that the network gives scales for compute in 8 bits, beside half
            precision; no pair is offered so, and ``scripts/ncnn_int8.py`` measures why.

    Returns:
        The compiler's own first line about itself.

    Raises:
        DeviceError: cmake or a compiler is missing, or the build fails.
    """
    cmake = _program("cmake")
    if cmake is None:
        raise DeviceError(
            "cmake, which builds the ncnn runner, is not installed", f"Run `{_INSTALL_CMAKE}`"
        )
    compiler = toolchain.device_compiler()
    own = toolchain.bench_folder()
    zig = "ziglang" in compiler
    settings = own / "cmake" / f"aarch64-{'zig' if zig else 'debian'}.cmake"
    source = _unpack(archive, scratch)
    build = scratch / "build"
    configure = [cmake, "-S", str(own / "ncnn"), "-B", str(build)]
    configure += [f"-DCMAKE_TOOLCHAIN_FILE={settings}", f"-DNCNN_SOURCE={source}"]
    configure += [f"-DNCNN_VERSION={VERSION.rpartition('.')[2]}"]
    configure += [f"-DEXTRA_LAYERS={';'.join(extra_layers)}"]
    configure += [f"-DFP16={'ON' if runtime == 'ncnn-fp16' else 'OFF'}"]
    configure += [f"-DINT8={'ON' if int8 else 'OFF'}"]
    if zig:  # its glibc cannot be linked statically; musl can
        configure += [f"-DPYTHON={sys.executable}", "-DZIG_TARGET=aarch64-linux-musl"]
    if ninja := _program("ninja"):
        configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    mend = "Install cmake, ninja and g++-aarch64-linux-gnu, then run this again"
    toolchain.run_tool(configure, "the build of the ncnn runner cannot be set up", 1800, mend=mend)
    cause = "the ncnn runner cannot be compiled"
    toolchain.run_tool([cmake, "--build", str(build), "--parallel"], cause, 3600, mend=mend)
    shutil.copyfile(build / RUNNERS[runtime], folder / RUNNERS[runtime])
    version = toolchain.run_tool([*compiler, "--version"], "the compiler does not start", 60)
    first = version.splitlines()[0] if version else compiler[0]
    return f"ziglang, {first}" if zig else first


def _address(command: list[str]) -> str | None:
    """Where pip's index has the archive: a release that does not exist makes pip list them all."""
    said = run_program(command, limit_s=300).stdout
    found = re.search(rf"\b(?:https?|file)://[^\s#]+/{re.escape(ARCHIVE)}", said)
    return found.group() if found else None


def _unpack(archive: Path, scratch: Path) -> Path:
    try:
        with tarfile.open(archive) as tar:
            wanted = [m for m in tar.getmembers() if _NEEDED.fullmatch(m.name)]
            if sum(m.size for m in wanted) > _MAX_SOURCE_BYTES:
                raise DeviceError(f"{archive} is too large to be ncnn's sources", _NETWORK)
            tar.extractall(scratch, members=wanted, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise DeviceError(
            f"{archive} is damaged: {error}",
            "Run `mobileinst device prepare --runtime ncnn --force`, which fetches it again",
        ) from None
    return scratch / ARCHIVE.removesuffix(".tar.gz")


def _program(name: str) -> str | None:
    """A program on the path, or beside this interpreter, where pip puts it."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.is_file() else None)
