"""What is missing to run on a device, each with the command that mends it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from mobileinst_deploy.core.errors import ConfigError, MobileInstError
from mobileinst_deploy.phone import device_bundle, ncnn_build, toolchain
from mobileinst_deploy.phone.adb import adb_program, list_devices, require_one_version
from mobileinst_deploy.phone.shell import AdbDevice
from mobileinst_deploy.phone.state import NEEDED_ABI, check_abi, read_phone
from mobileinst_deploy.phone.storage import REMOTE_ROOT, install
from mobileinst_deploy.runtimes import known_runtime, qemu
from mobileinst_deploy.runtimes.ncnn import convert

_NO_PHONE = (
    "switch on USB debugging on the phone (Settings, About phone, tap Build number seven times;"
    " then Developer options) and plug it in, or adb connect HOST:PORT"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        ok: Whether it is as it should be.
        detail: What was found.
        mend: The command, or the act, that mends it; empty when all is well.
    """

    name: str
    ok: bool
    detail: str
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def doctor(device: str | None = None, runtime: str = "onnxruntime") -> tuple[Finding, ...]:
    """Look at everything that running on a device needs.

    Args:
        device: ``adb`` or ``qemu`` for what that one needs, None for both.
        runtime: What shall run the graphs there.

    Raises:
        ConfigError: There is no such device to look at, or no such runtime.
    """
    if device not in (None, "adb", "qemu"):
        raise ConfigError(f"there is no device {device!r} to look at", "Use adb or qemu")
    known_runtime(runtime)
    wanted = cast("device_bundle.Runtime", runtime)
    found = [
        Finding(n.name, n.found is not None, n.found or "missing", "" if n.found else n.mend)
        for n in (*_needs(wanted), *(qemu.needs() if device != "adb" else ()))
    ]
    found.append(_bundle(wanted))
    if device != "qemu":
        found += _adb()
    return tuple(found)


def _needs(runtime: device_bundle.Runtime) -> tuple[toolchain.Need, ...]:
    if runtime == "onnxruntime":
        return toolchain.needs()
    return (
        *toolchain.needs(linked=True),
        *ncnn_build.needs(device_bundle.default_cache()),
        convert.need(),
    )


def _bundle(runtime: device_bundle.Runtime) -> Finding:
    bundle = device_bundle.cached_bundle(runtime=runtime)
    if bundle is None:
        other = "" if runtime == "onnxruntime" else f" --runtime {runtime}"
        mend = f"mobileinst device prepare{other}"
        return Finding("device bundle", False, "not assembled", mend)
    size = sum(f.bytes for f in bundle.files) / 1e6
    detail = f"{bundle.runtime_name}, {size:.1f} MB, sha256 {bundle.sha256[:12]}"
    return Finding("device bundle", True, detail)


def _adb() -> list[Finding]:
    try:
        found = [Finding("adb", True, str(adb_program()))]
    except MobileInstError as error:
        return [Finding("adb", False, error.cause, error.next_step)]
    try:
        listed = list_devices()
        require_one_version()
    except MobileInstError as error:
        return [*found, Finding("adb's server", False, error.cause, error.next_step)]
    if not listed:
        found.append(Finding("a phone", False, "adb sees none", _NO_PHONE))
    for device in listed:
        name = f"phone {device.serial}"
        if device.usable:
            found += _phone(name, device.serial)
        else:
            problem, mend = device.problem()
            found.append(Finding(name, False, f"it {problem}", mend))
    return found


def _phone(name: str, serial: str) -> list[Finding]:
    """Whether a phone can take the bundle and start what is in it."""
    device = AdbDevice(serial)
    try:
        facts, _ = read_phone(device)
        what = " ".join(v for v in (facts.manufacturer, facts.model, facts.soc) if v) or "unnamed"
        if facts.emulated:
            what += ", emulated"
        check_abi(facts)
        found = [Finding(name, True, f"{what}, {NEEDED_ABI}")]
        bundle = device_bundle.cached_bundle()
        if bundle is not None:
            # Pushes nothing: an empty list of files still makes, and so tries, the folder.
            install(device, (), bundle.sha256)
            found.append(Finding(f"{name}: storage", True, f"{REMOTE_ROOT} can be written"))
    except MobileInstError as error:
        return [Finding(name, False, error.cause, error.next_step)]
    return found
