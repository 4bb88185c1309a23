"""The phone's image: Debian packages fetched once into the user's cache folder, nothing installed.

apt runs with lists and caches of its own, so neither root nor the machine's apt state is touched.
Everything comes from the archive that the machine itself uses, and apt checks the signatures.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: What was tried, by package: how its upstream version begins. The rest of a phone comes from the
#: machine's own Debian release, whose versions stand still; these two come newer from backports,
#: and an archive keeps no old ones. So a version that begins so is taken where there is one, and
#: else the newest, which `prepare` then says.
TRIED = {"adbd": "34.", "qemu-user": "1:10.0.", "qemu-user-static": "1:10.0."}
#: In the image: a line for each package, ``name=version``, and one for each version untried.
VERSIONS, UNTRIED = "versions.txt", "untried.txt"
INTERPRETER = b"/lib/ld-linux-aarch64.so.1"
PHONE_INTERPRETER = b"/system/lib64/ld.so.1"


class PhoneError(Exception):
    """The phone cannot be built or started; the text says why and what mends it."""


def cache_folder() -> Path:
    """Where images and running phones are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mobileinst" / "phone"


def image() -> Path:
    """The image's folder, built when it is not there yet.

    Raises:
        PhoneError: The machine lacks something, or the packages cannot be fetched.
    """
    sources = [p for p in sorted(HERE.rglob("*")) if p.name in SOURCES]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:16]
    folder = cache_folder() / f"image-{digest}"
    if folder.is_dir():
        return folder
    lacking = missing_programs()
    if lacking:
        raise PhoneError(lacking)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="build-") as work:
        _build(Path(work))
        built = Path(work) / "image"
        try:
            built.rename(folder)
        except OSError:
            if not folder.is_dir():  # somebody else may have finished first
                raise
    return folder


SOURCES = ("init.c", "loopback.c", "image.py", "getprop", "dumpsys")


def missing_programs() -> str | None:
    """What this machine lacks to run the phone, with the command that mends it; None if nothing."""
    if os.uname().machine != "x86_64" or not shutil.which("apt-get") or not _codename():
        return "the emulated phone is built from Debian packages on an x86-64 Debian machine"
    programs = {"unshare": "util-linux", "mount": "mount", "cc": "gcc", "dpkg-deb": "dpkg"}
    packages = [package for name, package in programs.items() if not shutil.which(name)]
    if packages:
        return f"run: apt-get install {' '.join(packages)}"
    release = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2])
    if release < (6, 7):
        return f"Linux {os.uname().release} has no binfmt_misc in user namespaces; 6.7 has"
    tried = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True
    )
    if tried.returncode:
        return (
            f"user namespaces are not allowed here ({tried.stderr.strip()}); run: sysctl -w "
            "kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return None


def choose(package: str, versions: list[str]) -> tuple[str, str]:
    """The version to take of those that the archive has, newest first, and what to say of it.

    Raises:
        PhoneError: The archive has none.
    """
    if not versions:
        raise PhoneError(f"the archive has no {package}; run: apt-get update")
    wanted = TRIED.get(package, "")
    tried = [version for version in versions if version.startswith(wanted)]
    if tried:
        return tried[0], ""
    note = f"{package} {versions[0]} is untried: the archive has no {wanted}x, which was tried"
    return versions[0], note


def _codename() -> str | None:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return None
    found = re.search(r"^VERSION_CODENAME=(\w+)$", text, re.MULTILINE)
    return found.group(1) if found and re.search(r"^ID=debian$", text, re.MULTILINE) else None


def _build(work: Path) -> None:
    packages, built = work / "packages", work / "image"
    binaries, libraries = built / "apex/adbd/bin", built / "apex/adbd/lib"
    system, lib64 = built / "system/bin", built / "system/lib64"
    for folder in (binaries, libraries, system, lib64, built / "system/etc"):
        folder.mkdir(parents=True)
    _compile("init.c", built / "init")
    _compile("loopback.c", libraries / "loopback.so", "-shared", "-fPIC")

    apt = _Apt(work / "apt")
    host, arm = packages / "host", packages / "arm"
    chosen = {name: choose(name, apt.versions(name)) for name in TRIED}
    adbd = apt.closure(f"adbd={chosen.pop('adbd')[0]}")
    hosts = [*adbd, *(f"{name}={version}" for name, (version, _) in chosen.items())]
    shells = (
        "mksh:arm64",
        "toybox:arm64",
        "busybox-static:arm64",
        "libc6:arm64",
        "libcrypt1:arm64",
    )
    arms = [f"{name}={apt.versions(name)[0]}" for name in shells]
    apt.fetch(hosts, host)
    apt.fetch(arms, arm)
    (built / VERSIONS).write_text("".join(f"{line}\n" for line in (*hosts, *arms)))
    notes = [choose(line.split("=")[0], [line.split("=")[1]])[1] for line in hosts]
    (built / UNTRIED).write_text("".join(f"{note}\n" for note in notes if note))

    shutil.copy(host / "usr/lib/android-sdk/platform-tools/adbd", binaries)
    for library in host.rglob("*.so*"):
        if library.is_file() and (
            "x86_64-linux-gnu" in library.parts or library.name.startswith("ld-")
        ):
            shutil.copy(library, libraries / library.name)
    qemu = next(
        p
        for p in (host / "usr/bin/qemu-aarch64-static", host / "usr/bin/qemu-aarch64")
        if p.exists()
    )
    shutil.copy(qemu, built / "qemu-aarch64")
    for library in arm.rglob("*.so*"):
        if library.is_file() and re.match(r"lib(c|m|crypt)\.so|ld-linux", library.name):
            shutil.copy(library, lib64 / library.name)
    shutil.copy(lib64 / INTERPRETER.decode().rsplit("/", 1)[1], lib64 / "ld.so.1")
    shutil.copy(arm / "usr/lib/klibc/bin/mksh", system / "sh")
    _move_interpreter(arm / "bin/toybox", system / "toybox")
    shutil.copy(arm / "bin/busybox", system / "busybox")
    listed = subprocess.run(
        [built / "qemu-aarch64", "-L", arm, arm / "bin/toybox"],
        capture_output=True,
        text=True,
        check=True,
    )
    for applet in listed.stdout.split():
        if not (system / applet).exists() and re.fullmatch(r"[a-z0-9_]+", applet):
            (system / applet).symlink_to("toybox")
    # Under qemu toybox's SHA-256 takes four times as long as busybox's, and every push is checked.
    (system / "sha256sum").unlink(missing_ok=True)
    (system / "sha256sum").symlink_to("busybox")
    for script in ("getprop", "dumpsys"):
        shutil.copy(HERE / "system" / script, system / script)
        (system / script).chmod(0o755)


def _move_interpreter(source: Path, target: Path) -> None:
    """Copy a program so that its loader is the phone's own, away from /lib.

    A bundle that forgot its loader or a library must not find one in the phone by accident.
    """
    data = source.read_bytes()
    padded = PHONE_INTERPRETER.ljust(len(INTERPRETER), b"\0")
    if data.count(INTERPRETER + b"\0") != 1:
        raise PhoneError("toybox names its loader in an unexpected way")
    target.write_bytes(data.replace(INTERPRETER + b"\0", padded + b"\0"))
    target.chmod(target.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _compile(source: str, target: Path, *flags: str) -> None:
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", *flags, str(HERE / source)]
    command += ["-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PhoneError(
            f"cannot compile {source}: {done.stderr.strip()}; run: apt-get install gcc libc6-dev"
        )


class _Apt:
    """apt-get with its own lists, for amd64 and arm64, backports included on bookworm."""

    def __init__(self, folder: Path) -> None:
        for part in ("sources", "lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True)
        (folder / "status").touch()
        codename = _codename() or ""
        self.release = ["-t", f"{codename}-backports"] if codename == "bookworm" else []
        _write_sources(folder / "sources", codename)
        options = {
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": folder / "sources",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures::": "arm64",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
        }
        self.options = [
            part for name, value in options.items() for part in ("-o", f"{name}={value}")
        ]
        self._run("update")

    def _run(self, *arguments: str, cwd: Path | None = None, program: str = "apt-get") -> str:
        answers = ["-q", "-y"] if program == "apt-get" else []
        command = [program, *self.options, *answers, *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C"},
            timeout=600,
        )
        if done.returncode:
            raise PhoneError(f"{program} {arguments[0]} failed: {done.stderr.strip()[-400:]}")
        return done.stdout

    def closure(self, package: str) -> list[str]:
        """A package and everything it needs, each as ``name=version``, as for an empty machine."""
        plan = self._run("-s", "--no-install-recommends", *self.release, "install", package)
        return [
            f"{name}={version}"
            for name, version in re.findall(r"^Inst (\S+) \((\S+) ", plan, re.MULTILINE)
        ]

    def versions(self, package: str) -> list[str]:
        """What the archive has of a package, newest first."""
        listed = self._run("madison", package, program="apt-cache")
        return re.findall(r"^ *\S+ \| (\S+) \|", listed, re.MULTILINE)

    def fetch(self, packages: list[str], target: Path) -> None:
        """Download packages and unpack them into a folder."""
        with tempfile.TemporaryDirectory(dir=target.parent.parent) as folder:
            self._run("download", *packages, cwd=Path(folder))
            target.mkdir(parents=True)
            for archive in Path(folder).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", archive, target], check=True)


def _write_sources(folder: Path, codename: str) -> None:
    """Copy the machine's own sources of the Debian archive, with backports beside the release."""
    backports = f" {codename}-backports" if codename == "bookworm" else ""
    system = Path("/etc/apt")
    stanzas = []
    for path in sorted((system / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            suites = re.search(r"^Suites:(.*)$", stanza, re.MULTILINE)
            if suites and codename in suites.group(1).split():
                stanza = stanza.replace(suites.group(0), suites.group(0) + backports)
            if suites and codename in suites.group(1):
                stanzas.append(stanza.strip())
    (folder / "debian.sources").write_text("\n\n".join(stanzas) + "\n")
    lines = []
    for path in [system / "sources.list", *sorted((system / "sources.list.d").glob("*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else []:
            entry = re.fullmatch(r"(deb\s+(?:\[.*\]\s+)?\S+\s+)(\S+)(\s+.*)", line.strip())
            if entry and entry.group(2).startswith(codename):
                lines.append(line)
                if backports and entry.group(2) == codename:
                    lines.append(f"{entry.group(1)}{backports.strip()}{entry.group(3)}")
    (folder / "debian.list").write_text("\n".join(lines) + "\n")
    if not stanzas and not lines:
        raise PhoneError(f"no apt source of Debian {codename} is configured")
