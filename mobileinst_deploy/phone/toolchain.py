"""Where the device bundle's parts come from: a compiler, a distribution's glibc, a wheel.

Each part is looked for on this machine first; what is fetched comes through pip and apt-get as they
are configured here, so that mirrors and pinned indexes are honoured.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.programs import run_program
from mobileinst_deploy.core.scratch import scratch_folder

GLIBC_FILES = (
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
)
GLIBC_PACKAGES = ("libc6-arm64-cross", "libstdc++6-arm64-cross", "libgcc-s1-arm64-cross")
DEBIAN_COMPILER = "aarch64-linux-gnu-g++"

_GLIBC_FOLDERS = (
    Path("/usr/aarch64-linux-gnu/lib"),  # Debian's and Ubuntu's cross packages
    Path("/lib/aarch64-linux-gnu"),  # this machine is itself aarch64
    Path("/usr/lib/aarch64-linux-gnu"),
)
_FLAGS = (
    *("-std=c++17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"),
    # A fused multiply-add rounds once where numpy rounds twice; masks shall be the host's.
    "-ffp-contract=off",
    *("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-s"),
)
_PLATFORMS = (*(f"manylinux_2_{n}_aarch64" for n in (34, 28, 27, 17)), "manylinux2014_aarch64")
_AARCH64_ELF = b"\x7fELF\x02\x01", b"\xb7\x00"
_MAX_LIBRARY_BYTES = 1 << 29


@dataclass(frozen=True)
class Need:
    """One thing that running on a device needs, for ``mobileinst doctor``.

    Attributes:
        name: What it is.
        found: Where it is, or None when it is missing.
        mend: The command that brings it.
    """

    name: str
    found: str | None
    mend: str


def needs(*, linked: bool = False) -> tuple[Need, ...]:
    """What assembling the bundle needs, and whether it is here.

    Args:
        linked: Whether the runner has everything linked in, and so needs no glibc beside it.
    """
    compiler = _compiler()
    folder = _glibc_folder()
    fetch = shutil.which("apt-get") and shutil.which("dpkg-deb")
    pip = importlib.util.find_spec("pip")
    glibc = Need(
        "glibc for aarch64",
        str(folder) if folder else f"{fetch} can fetch it" if fetch else None,
        f"sudo apt-get install {' '.join(GLIBC_PACKAGES)}",
    )
    return (
        Need(
            "a compiler for aarch64",
            " ".join(compiler) if compiler else None,
            f"{sys.executable} -m pip install ziglang",
        ),
        *(() if linked else (glibc,)),
        Need("pip", pip.origin if pip else None, f"{sys.executable} -m ensurepip"),
    )


def runner_sources() -> tuple[Path, ...]:
    """The runner's C++ files, headers too, from the wheel or from the checkout.

    Raises:
        DeviceError: Neither has them.
    """
    folder = bench_folder()
    found = [p for part in ("src", "include") for p in sorted((folder / part).glob("*"))]
    return tuple(p for p in found if p.suffix in (".cc", ".h"))


def counter_sources() -> tuple[Path, ...]:
    """The instruction counter's C files and header.

    Raises:
        DeviceError: Neither the wheel nor the checkout has them.
    """
    return tuple(sorted((bench_folder() / "counter").glob("*.[ch]")))


def bench_folder() -> Path:
    """The folder of the runner's sources, in the wheel or in the checkout.

    Raises:
        DeviceError: Neither has it.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_android_bench", package.parent / "android_bench"):
        if (folder / "src").is_dir() and (folder / "counter").is_dir():
            return folder
    raise DeviceError(
        f"the runner's sources are neither in {package} nor beside it",
        "Install mobileinst-deploy again",
    )


def build_runner(sources: tuple[Path, ...], target: Path) -> str:
    """Compile the runner for aarch64 glibc.

    Args:
        sources: From :func:`runner_sources`.
        target: The program to write.

    Returns:
        The compiler's own first line about itself.

    Raises:
        DeviceError: No compiler is here, or it fails.
    """
    compiler = device_compiler()
    files = [str(s) for s in sources if s.suffix == ".cc"]
    folders = sorted({f"-I{s.parent}" for s in sources})
    version = run_tool([*compiler, "--version"], "the compiler does not start", 60)
    name = version.splitlines()[0] if version else compiler[0]
    run_tool(
        [*compiler, *_FLAGS, *folders, *files, "-ldl", "-o", str(target)],
        f"the runner cannot be compiled by {name}",
        900,
    )
    return f"ziglang, {name}" if "ziglang" in compiler else name


def compile_shared(compiler: list[str], source: str, target: Path, *options: str) -> None:
    """Compile one C file into a shared library.

    Raises:
        DeviceError: The compiler fails.
    """
    flags = ["-x", "c", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]
    command = [*compiler, *flags, source, "-shared", "-fPIC", *options, "-o", str(target)]
    run_tool(command, f"{Path(source).name} cannot be compiled by {compiler[0]}", 300)


def device_compiler() -> list[str]:
    """The command of a C++ compiler for aarch64 glibc.

    Raises:
        DeviceError: None is installed.
    """
    compiler = _compiler()
    if compiler is None:
        raise DeviceError(
            "no compiler for aarch64 is installed",
            f"Run `{sys.executable} -m pip install ziglang`, or"
            " `sudo apt-get install g++-aarch64-linux-gnu`",
        )
    return compiler


def copy_glibc(folder: Path, scratch: Path) -> None:
    """Copy glibc's loader and the libraries that the runner and ONNX Runtime name.

    Args:
        folder: Where to put them.
        scratch: An existing folder for what has to be fetched first.

    Raises:
        DeviceError: They are not here and cannot be fetched.
    """
    source = _glibc_folder()
    if source is None:
        source = _fetch_glibc(scratch)
    for name in GLIBC_FILES:
        shutil.copyfile(source / name, folder / name)


def copy_runtime(version: str, target: Path, wheels: Path, force: bool) -> None:
    """Take ``libonnxruntime.so`` out of the aarch64 wheel, checked against the wheel's own record.

    Args:
        version: Which ONNX Runtime.
        target: The file to write.
        wheels: Folder where fetched wheels are kept.
        force: Fetch the wheel even if it is there.

    Raises:
        DeviceError: The wheel cannot be fetched, is damaged, or holds no such library.
    """
    kept = sorted(wheels.glob(f"onnxruntime-{version}-*aarch64.whl"))
    wheel = kept[0] if kept and not force else _fetch_wheel(version, wheels)
    again = f"Run `mobileinst device prepare --force`, which fetches {wheel.name} again"
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            library = next(
                (n for n in names if re.fullmatch(r"onnxruntime/capi/libonnxruntime\.so[\d.]*", n)),
                None,
            )
            record = next((n for n in names if n.endswith(".dist-info/RECORD")), None)
            if library is None or record is None:
                raise DeviceError(
                    f"{wheel.name} holds no libonnxruntime.so",
                    "Install a version of onnxruntime whose Linux wheels do, such as 1.32",
                )
            if archive.getinfo(library).file_size > _MAX_LIBRARY_BYTES:
                raise DeviceError(f"{wheel.name} holds a library of more than 512 MiB", again)
            data = archive.read(library)
            recorded = archive.read(record).decode()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DeviceError(f"{wheel.name} is damaged: {error}", again) from None
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    if f"{library},sha256={digest}," not in recorded:
        raise DeviceError(f"{wheel.name} is damaged: its record names another digest", again)
    if not is_aarch64(data) or b"OrtGetApiBase" not in data:
        raise DeviceError(f"{wheel.name} holds no ONNX Runtime for aarch64", again)
    target.write_bytes(data)


def is_aarch64(data: bytes) -> bool:
    """Whether a file is a program or a library for aarch64."""
    magic, machine = _AARCH64_ELF
    return data.startswith(magic) and data[18:20] == machine


def _compiler() -> list[str] | None:
    # Debian's first: it is there only because somebody wanted it, and it compiles in seconds.
    found = shutil.which(DEBIAN_COMPILER)
    if found:
        return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-gnu.2.28"]
    return None


def _glibc_folder() -> Path | None:
    for folder in _GLIBC_FOLDERS:
        if all((folder / name).is_file() for name in GLIBC_FILES):
            return folder
    return None


def _fetch_glibc(scratch: Path) -> Path:
    mend = f"Run `sudo apt-get update && sudo apt-get install {' '.join(GLIBC_PACKAGES)}`"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DeviceError(
            "glibc for aarch64 is not installed, and without apt-get it cannot be fetched",
            "Put Debian's " + ", ".join(GLIBC_PACKAGES) + f" into {_GLIBC_FOLDERS[0]}",
        )
    cause = "glibc for aarch64 is not installed and cannot be fetched"
    run_tool(["apt-get", "download", *GLIBC_PACKAGES], cause, 600, cwd=scratch, mend=mend)
    for package in scratch.glob("*.deb"):
        run_tool(["dpkg-deb", "-x", str(package), str(scratch / "root")], cause, 120, mend=mend)
    found = scratch / "root" / _GLIBC_FOLDERS[0].relative_to("/")
    absent = [n for n in GLIBC_FILES if not (found / n).is_file()]
    if absent:
        raise DeviceError(f"the fetched glibc for aarch64 lacks {', '.join(absent)}", mend)
    return found


def _fetch_wheel(version: str, wheels: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise DeviceError(
            "pip is not installed here, so the aarch64 wheel of onnxruntime cannot be fetched",
            f"Run `{sys.executable} -m ensurepip`",
        )
    wheels.mkdir(parents=True, exist_ok=True)
    python = f"{sys.version_info.major}{sys.version_info.minor}"
    mend = "Check the network and pip's index (`pip config list`), then run this again"
    with scratch_folder(wheels) as fresh:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
        command += [f"--abi=cp{python}", *(f"--platform={p}" for p in _PLATFORMS)]
        command += [f"--dest={fresh}", f"onnxruntime=={version}"]
        cause = f"the aarch64 wheel of onnxruntime {version} cannot be fetched"
        run_tool(command, cause, 900, mend=mend)
        fetched = next(fresh.glob("*.whl"), None)
        if fetched is None:
            raise DeviceError(f"{cause}: pip left no wheel", mend)
        return fetched.replace(wheels / fetched.name)


def run_tool(
    command: list[str], cause: str, timeout: float, cwd: Path | None = None, mend: str | None = None
) -> str:
    """Run a tool of this machine and give what it printed.

    Args:
        command: It and its arguments.
        cause: What its failure means; the tool's own words follow.
        timeout: Seconds.
        cwd: Where it runs.
        mend: The next step when it fails; None names the command.

    Raises:
        DeviceError: It is missing, fails, or takes too long.
    """
    environment = os.environ | {"LC_ALL": "C", "PYTHONWARNINGS": "ignore"}
    done = run_program(command, limit_s=timeout, cwd=cwd, env=environment)
    if done.code != 0:
        lines = [s for s in (done.stderr + done.stdout).splitlines() if s.strip()]
        said = lines[-1] if lines else "it said nothing"
        why = done.fault and f"it {done.fault}"
        why = why or next((s for s in lines if "error" in s.lower()), said)
        raise DeviceError(f"{cause}: {why.strip()[:300]}", mend or f"Try `{' '.join(command[:4])}`")
    return done.stdout
