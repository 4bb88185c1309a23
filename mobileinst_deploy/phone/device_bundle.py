"""The folder that goes to the phone: runner, runtime and what they need, pinned by sha256.

With ONNX Runtime that is the runner, its library, and glibc's loader and libraries; with ncnn it is
one static program.

The folder is self-contained, so that what is tested under qemu is byte for byte what runs on a
phone. It is assembled once into the user's cache and needs no network afterwards; its manifest
pins every file, and a file that no longer fits its digest means that it is assembled again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

import filelock
import platformdirs

from mobileinst_deploy.core.documents import Blame, Sha256, read_json
from mobileinst_deploy.core.errors import DeviceError, InputError, OutputError
from mobileinst_deploy.core.files import sha256_of
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.phone import ncnn_build, toolchain

LOADER = "ld-linux-aarch64.so.1"
RUNNER = "mobileinst_runner"
LIBRARY = "libonnxruntime.so"

#: What runs the graphs on a device: its library, or linked into a runner of its own.
Runtime = Literal["onnxruntime", "ncnn", "ncnn-fp16"]

_SCHEMA = 1
#: Waiting for the cache: from here on it is told, and there it ends; seconds.
_SOON_S, _LONG_S = 1.0, 900.0
_MANIFEST = "manifest.json"
_STARTED = frozenset({LOADER, RUNNER, *ncnn_build.RUNNERS.values()})


@dataclass(frozen=True)
class BundleFile:
    """One file of the bundle.

    Attributes:
        name: Its name in the folder; the bundle is flat.
        sha256: Lower-case hex digest.
        bytes: Its size.
        executable: Whether it is started, and so needs mode 755.
    """

    name: str
    sha256: str
    bytes: int
    executable: bool


@dataclass(frozen=True)
class _Manifest:
    """What was written beside an assembled bundle."""

    schema: int
    runtime: str
    runtime_version: str
    compiler: str
    sha256: Sha256
    files: tuple[BundleFile, ...]


@dataclass(frozen=True)
class DeviceBundle:
    """The assembled folder.

    Attributes:
        folder: On this machine.
        files: Everything to push, in name order.
        sha256: Content hash over names, digests and modes; the folder's name on the device.
        runtime: What runs the graphs.
        runtime_version: Its version; of ONNX Runtime, the host's own.
        compiler: What built the runner.
    """

    folder: Path
    files: tuple[BundleFile, ...]
    sha256: str
    runtime: Runtime
    runtime_version: str
    compiler: str

    @property
    def runtime_name(self) -> str:
        """Name and version, for reports."""
        return f"{self.runtime} {self.runtime_version}"

    def command(self, remote: str, plan: str, *, preload: str | None = None) -> list[str]:
        """How to start the runner where the bundle lies.

        Args:
            remote: Absolute path of the bundle's folder there.
            plan: Absolute path of the plan there.
            preload: A library to load before all others; a static runner takes none.
        """
        if self.runtime != "onnxruntime":
            return [f"{remote}/{ncnn_build.RUNNERS[self.runtime]}", plan]
        before = ["--preload", preload] if preload else []
        loader = [f"{remote}/{LOADER}", *before, "--library-path", remote]
        return [*loader, f"{remote}/{RUNNER}", plan]

    def library(self, remote: str) -> str:
        """Path of ONNX Runtime where the bundle lies, for ``Plan.write``; ``-`` where none is."""
        return f"{remote}/{LIBRARY}" if self.runtime == "onnxruntime" else "-"


def default_cache() -> Path:
    """The user's cache folder for everything that goes to a device."""
    return Path(platformdirs.user_cache_dir("mobileinst")) / "device"


def prepare_bundle(
    cache: Path | None = None,
    *,
    runtime: Runtime = "onnxruntime",
    force: bool = False,
    progress: Progress = silent,
) -> DeviceBundle:
    """Give the bundle of a runtime, assembling it when the cache has none.

    Args:
        cache: Where bundles are kept; the user's cache folder by default.
        runtime: What shall run the graphs.
        force: Assemble anew, fetching everything again.
        progress: Told of each step.

    Raises:
        DeviceError: A compiler, a library, the wheel or the sources are missing; the next step
            brings them.
        OutputError: The cache cannot be written.
    """
    cache = cache or default_cache()
    recipe = _RECIPES[runtime]()
    with _locked(cache, progress):
        bundle = None if force else _load(cache / recipe.key, recipe)
        if bundle is None:
            bundle = _assemble(cache, recipe, force, progress)
    return bundle


def cached_bundle(
    cache: Path | None = None, runtime: Runtime = "onnxruntime"
) -> DeviceBundle | None:
    """The bundle that :func:`prepare_bundle` would give at once, or None; changes nothing."""
    try:
        recipe = _RECIPES[runtime]()
    except DeviceError:
        return None
    return _load((cache or default_cache()) / recipe.key, recipe)


def clean_cache(cache: Path | None = None) -> int:
    """Remove every assembled bundle and fetched wheel from this machine.

    Returns:
        How many bytes that freed.

    Raises:
        OutputError: Something cannot be removed.
    """
    cache = cache or default_cache()
    if not cache.is_dir():
        return 0
    with _locked(cache):
        freed = sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
        try:
            for entry in cache.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
        except OSError as error:
            raise OutputError(
                f"{error.filename} cannot be removed: {error.strerror}", "Remove it by hand"
            ) from None
    return freed


def host_runtime_version() -> str:
    """The version of ONNX Runtime installed here, which the device shall have too.

    Raises:
        DeviceError: It is not installed.
    """
    try:
        return importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        raise DeviceError(
            "onnxruntime is not installed, so its version for the device is unknown",
            f"Run `{sys.executable} -m pip install onnxruntime`",
        ) from None


@dataclass(frozen=True)
class _Recipe:
    """How a runtime's bundle is assembled.

    Attributes:
        runtime: Which.
        version: Its version.
        sources: What the runner is built from.
        needed: Files without which there is no bundle.
        make: Fills the first folder by means of the second, told whether to fetch anew and whom to
            tell; gives the compiler's name.
    """

    runtime: Runtime
    version: str
    sources: tuple[Path, ...]
    needed: frozenset[str]
    make: Callable[[_Recipe, Path, Path, bool, Progress], str]

    @property
    def key(self) -> str:
        digest = hashlib.sha256(f"{_SCHEMA}\n{self.version}\n".encode())
        for source in self.sources:
            digest.update(f"{source.name}\n{sha256_of(source)}\n".encode())
        return f"{self.runtime}-{self.version}-{digest.hexdigest()[:16]}"


def _onnxruntime() -> _Recipe:
    def make(recipe: _Recipe, made: Path, cache: Path, force: bool, progress: Progress) -> str:
        compiler = toolchain.build_runner(recipe.sources, made / RUNNER)
        progress(_LABEL, 1, 3)
        with scratch_folder(made.parent) as scratch:
            toolchain.copy_glibc(made, scratch)
        progress(_LABEL, 2, 3)
        toolchain.copy_runtime(recipe.version, made / LIBRARY, cache / "wheels", force)
        return compiler

    needed = frozenset({RUNNER, LOADER, LIBRARY})
    return _Recipe("onnxruntime", host_runtime_version(), toolchain.runner_sources(), needed, make)


def _ncnn(runtime: Literal["ncnn", "ncnn-fp16"]) -> _Recipe:
    def make(recipe: _Recipe, made: Path, cache: Path, force: bool, progress: Progress) -> str:
        archive = ncnn_build.fetch_source(cache, force)
        progress(_LABEL, 1, 3)
        with scratch_folder(made.parent) as scratch:
            return ncnn_build.build_runner(archive, runtime, made, scratch)

    needed = frozenset({ncnn_build.RUNNERS[runtime]})
    return _Recipe(runtime, ncnn_build.VERSION, ncnn_build.sources(), needed, make)


_RECIPES: dict[Runtime, Callable[[], _Recipe]] = {
    "onnxruntime": _onnxruntime,
    "ncnn": partial(_ncnn, "ncnn"),
    "ncnn-fp16": partial(_ncnn, "ncnn-fp16"),
}
_LABEL = "assemble the device bundle"


def _assemble(cache: Path, recipe: _Recipe, force: bool, progress: Progress) -> DeviceBundle:
    folder = cache / recipe.key
    try:
        with scratch_folder(cache) as name:
            made = name / "bundle"
            made.mkdir()
            progress(_LABEL, 0, 3)
            compiler = recipe.make(recipe, made, cache, force, progress)
            for started in (path for path in made.iterdir() if path.name in _STARTED):
                mode = started.stat().st_mode
                started.chmod(mode | (mode & 0o444) >> 2)  # whoever may read it may start it
            files = tuple(_pin(path) for path in sorted(made.iterdir()))
            manifest = {
                "schema": _SCHEMA,
                "runtime": recipe.runtime,
                "runtime_version": recipe.version,
                "compiler": compiler,
                "sha256": _content_hash(files),
                "files": [asdict(f) for f in files],
            }
            (made / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
            if folder.exists():
                folder.rename(name / "replaced")
            made.rename(folder)
            progress(_LABEL, 3, 3)
    except OSError as error:
        raise OutputError(
            f"{error.filename or cache} cannot be written: {error.strerror}",
            "Free some space there, or set XDG_CACHE_HOME to another folder",
        ) from None
    digest = _content_hash(files)
    return DeviceBundle(folder, files, digest, recipe.runtime, recipe.version, compiler)


def _load(folder: Path, recipe: _Recipe) -> DeviceBundle | None:
    """A bundle whose every file is what its manifest says, or None."""
    path = folder / _MANIFEST
    try:
        manifest = read_json(path, _Manifest, Blame(str(path), InputError, "Prepare it anew"))
        if manifest.schema != _SCHEMA:
            return None
        if any(
            PurePath(file.name).name != file.name or "\0" in file.name for file in manifest.files
        ):
            return None
        files = tuple(_pin(folder / file.name) for file in manifest.files)
        digest = _content_hash(files)
        whole = files == manifest.files and manifest.sha256 == digest
        if not whole or not recipe.needed <= {f.name for f in files}:
            return None
    except (OSError, InputError):
        return None
    version, compiler = manifest.runtime_version, manifest.compiler
    return DeviceBundle(folder, files, digest, recipe.runtime, version, compiler)


def _pin(path: Path) -> BundleFile:
    executable = path.name in _STARTED
    return BundleFile(path.name, sha256_of(path), path.stat().st_size, executable)


def _content_hash(files: tuple[BundleFile, ...]) -> str:
    lines = "".join(f"{f.sha256} {int(f.executable)} {f.name}\n" for f in files)
    return hashlib.sha256(lines.encode()).hexdigest()


@contextmanager
def _locked(cache: Path, progress: Progress = silent) -> Iterator[None]:
    lock = filelock.FileLock(cache / ".lock")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=_SOON_S)
        except filelock.Timeout:
            progress("wait for another mobileinst, which prepares the device bundle", 0, 1)
            held = lock.acquire(timeout=_LONG_S)
        with held:
            yield
    except filelock.Timeout:
        raise DeviceError(
            f"another program has held {cache / '.lock'} for {_LONG_S / 60:.0f} minutes",
            "Let it finish or end it, then run this again",
        ) from None
    except OSError as error:
        raise OutputError(
            f"{cache} cannot be written: {error.strerror}",
            "Free some space there, or set XDG_CACHE_HOME to another folder",
        ) from None
