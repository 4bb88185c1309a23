"""What lies on a phone: files in a folder named by their content, checked there by sha256."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobileinst_deploy.core.content import Content
from mobileinst_deploy.core.errors import DeviceError
from mobileinst_deploy.core.progress import Progress, silent
from mobileinst_deploy.core.scratch import scratch_folder
from mobileinst_deploy.core.text import whole
from mobileinst_deploy.phone.shell import AdbDevice, ShellResult, quote

REMOTE_ROOT = "/data/local/tmp/mobileinst"
#: In the command line of everything that is started there, so that it is found and ended.
RUNNER_MARK = "mobileinst_runner"
_HASH_LIMIT_S = 120.0
#: For commands that only look or remove.
SHORT_LIMIT_S = 10.0
_MOST_KIB = 1 << 36
#: How a command ends that found a link in the place of a folder.
LINKED = 124
#: What is ours in the root: folders of content hashes, and of sessions.
_OURS = f"{REMOTE_ROOT}/run-* {REMOTE_ROOT}/{'[0-9a-f]' * 64}"
_LEAST_FREE_BYTES = 16 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file that shall lie on the phone.

    Attributes:
        path: Here; of content that was read, only its name counts.
        sha256: Of its bytes.
        bytes: Its size.
        executable: Whether it is started there.
        content: What to push in the place of what lies at the path by now.
    """

    path: Path
    sha256: str
    bytes: int
    executable: bool = False
    content: Content | None = field(default=None, repr=False)

    def push(self, device: AdbDevice, folder: str) -> None:
        """Push it into a folder on the phone."""
        if self.content is None:
            device.push([self.path], folder)
            return
        with scratch_folder() as local:
            device.push([self.content.write(local)], folder)


def pair_files(graphs: Sequence[Content]) -> tuple[RemoteFile, ...]:
    """The pair's graphs, as they were read and checked, as files for the phone."""
    return tuple(RemoteFile(g.path, g.sha256, g.bytes, content=g) for g in graphs)


def install(
    device: AdbDevice, files: Sequence[RemoteFile], digest: str, progress: Progress = silent
) -> str:
    """Put files into the folder of their content hash on a phone, and check them there.

    Files that are there already and have the right sha256 are not pushed again.

    Args:
        device: The phone.
        files: With different names.
        digest: Hash over all of them; names the folder.
        progress: Told of the bytes.

    Returns:
        The folder on the phone.

    Raises:
        DeviceError: The phone is full or read-only, damages files, or went away.
        InputError: A file here is not the one its sha256 names.
    """
    folder = f"{REMOTE_ROOT}/{digest}"
    label, total = f"push to {device.serial}", sum(f.bytes for f in files)
    for attempt in range(3):
        wrong, free = _look(device, files, folder)
        missing = sum(f.bytes for f in wrong)
        progress(label, total - missing, total)
        if not wrong:
            return folder
        if attempt == 2:
            raise DeviceError(
                f"{wrong[0].path.name} arrived damaged on the phone {device.serial} twice",
                "Use another cable or port, and check the phone's storage",
            )
        if free is not None and free < missing + _LEAST_FREE_BYTES:
            raise DeviceError(
                f"the phone {device.serial} has {free >> 20} MB free and"
                f" {(missing + _LEAST_FREE_BYTES) >> 20} MB are needed",
                "Free some space on the phone, or run `mobileinst device clean`",
            )
        for file in wrong:
            file.push(device, folder)
            missing -= file.bytes
            progress(label, total - missing, total)
        programs = [f"{folder}/{f.path.name}" for f in wrong if f.executable]
        if programs:
            device.shell(f"chmod 755 {quote(*programs)}", limit_s=SHORT_LIMIT_S)
    raise AssertionError("the loop returns or raises")


def end_runners(run: str | None = None) -> str:
    """A shell command that kills runners and removes their folders.

    Args:
        run: The session's own folder; None means every session's, and everything pushed. Of a root
            that is a link the link goes too, and what else lies where it leads stays.
    """
    folders = run or f"{REMOTE_ROOT}/run-*"
    kill = (
        f"for file in {folders}/pid; do pid=; [ -f $file ] && read -r pid < $file;"
        f' [ -n "$pid" ] && grep -q {RUNNER_MARK} /proc/$pid/cmdline && kill -9 $pid;'
        " done 2>/dev/null; "
    )
    if run is not None:
        return kill + f"rm -rf {run}"
    return kill + f"if [ -L {REMOTE_ROOT} ]; then rm -rf {_OURS}; fi; rm -rf {REMOTE_ROOT}"


def clean_phone(device: AdbDevice) -> int:
    """Kill every runner on a phone and remove all that was ever pushed.

    Returns:
        How many bytes that freed.

    Raises:
        DeviceError: Something is left, or the phone went away.
    """
    size = device.shell(
        f"if [ -L {REMOTE_ROOT} ]; then du -sk {_OURS}; else du -sk {REMOTE_ROOT}; fi 2>/dev/null",
        limit_s=SHORT_LIMIT_S,
    )
    kib = [whole(line.split()[0], 0, _MOST_KIB) or 0 for line in size.stdout.split("\n") if line]
    done = device.shell(end_runners(), limit_s=SHORT_LIMIT_S)
    left = device.shell(f"ls -d {REMOTE_ROOT}", limit_s=SHORT_LIMIT_S)
    if done.exit_code or left.exit_code == 0:
        raise refused(device.serial, done)
    return sum(kib) * 1024


def _look(
    device: AdbDevice, files: Sequence[RemoteFile], folder: str
) -> tuple[list[RemoteFile], int | None]:
    """The files that the folder, made when missing, does not hold right; and the bytes free."""
    where = quote(folder)
    names = quote(*(f.path.name for f in files))
    done = device.shell(
        refuse_links(REMOTE_ROOT, folder)
        + f"mkdir -p {where} && df -k {where} && cd {where} || exit 125; echo"
        + (f"; sha256sum {names} 2>/dev/null" if files else ""),
        limit_s=_HASH_LIMIT_S,
    )
    if done.exit_code == LINKED:
        raise linked(device.serial, done)
    if done.exit_code == 125:
        raise refused(device.serial, done)
    if done.exit_code == 127:
        raise DeviceError(
            f"the phone {device.serial} has no sha256sum, so a push cannot be checked",
            "Use a phone with Android 8 or later",
        )
    df, _, hashes = done.stdout.partition("\n\n")
    there = {}
    for line in hashes.splitlines():
        digest, _, name = line.partition("  ")
        there[name.strip()] = digest
    return [f for f in files if there.get(f.path.name) != f.sha256], _free_bytes(df)


def _free_bytes(df: str) -> int | None:
    """The fourth column of ``df -k``, or None where it cannot be read."""
    lines = df.splitlines()
    fields = lines[-1].split() if len(lines) > 1 else []
    for at, share in enumerate(fields):
        free = whole(fields[at - 1], 0, _MOST_KIB) if share.endswith("%") and at else None
        if free is not None:
            return free * 1024
    return None


def refuse_links(*folders: str) -> str:
    """A shell command that ends the whole with :data:`LINKED` where one of these is a link.

    What is pushed would lie somewhere else, among what is not ours.
    """
    return "".join(f"[ -L {quote(f)} ] && echo {quote(f)} && exit {LINKED}; " for f in folders)


def linked(serial: str, said: ShellResult) -> DeviceError:
    """The error for a command that :func:`refuse_links` ended."""
    return DeviceError(
        f"on the phone {serial}, {last_line(said.stdout)} is a symbolic link and no folder",
        "Run `mobileinst device clean`, which removes the link and what was pushed through it",
    )


def refused(serial: str, said: ShellResult) -> DeviceError:
    """The error for a command on files that the phone did not carry out."""
    reason = last_line(said.stderr) or f"exit code {said.exit_code}"
    return DeviceError(
        f"the phone {serial} refuses a folder in /data/local/tmp: {reason}",
        "Restart the phone; its /data must be writable and have space",
    )


def last_line(text: str) -> str:
    """What a program said last, made safe to print."""
    lines = [s for s in text.splitlines() if s.strip()]
    shown = "".join(c if c.isprintable() else "?" for c in lines[-1]) if lines else ""
    return shown[-300:]
